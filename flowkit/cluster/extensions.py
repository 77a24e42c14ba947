"""Finds by name what other installed packages offer: the one place that imports what a setting names.

Runs in the process that needs the extension (for a scheduling policy the scheduler's), once at its start. Packages offer
something by an entry point of a group of ours::

    [project.entry-points."flowkit.scheduling_policies"]
    lottery = "my_package.policies:Lottery"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from flowkit.abc import SchedulingPolicy
from flowkit.errors import ConfigError
from flowkit.scheduling.policies.fifo import Fifo

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

POLICIES = "flowkit.scheduling_policies"
"""Entry points: a class, or a function, that makes a policy when called without arguments."""

_BUILT_IN_POLICIES: Mapping[str, Callable[[], SchedulingPolicy]] = {"fifo": Fifo}


def scheduling_policy(name: str) -> SchedulingPolicy:
    """Make the policy of this name: one of flowkit's own, else one that an installed package offers.

    Raises
    ------
    errors.ConfigError
        Nobody offers it in this process, two packages do, or what they offer is none.
    """
    built_in = _BUILT_IN_POLICIES.get(name)
    if built_in is not None:
        return built_in()  # most never pay for a look at what is installed
    entry = _find(name)
    try:
        policy: SchedulingPolicy = entry.load()()
    except Exception as error:
        raise ConfigError(
            f"scheduling_policy = {name!r}: {_offered(entry)} could not be made: {type(error).__name__}: {error}",
            setting="scheduling_policy",
            value=name,
        ) from error
    if not callable(getattr(policy, "order", None)):
        raise ConfigError(
            f"scheduling_policy = {name!r}: {_offered(entry)} gave {policy!r}, which has no method order(candidates)",
            setting="scheduling_policy",
            value=name,
        )
    return policy


def _find(name: str) -> EntryPoint:
    from importlib.metadata import entry_points  # a tenth of a second with what it imports, and rarely needed

    installed = sorted(entry_points(group=POLICIES), key=lambda entry: (entry.name, entry.value))
    found = [entry for entry in installed if entry.name == name]
    # One package may be found twice, by way of two places on the path.
    if len({entry.value for entry in found}) > 1:
        offers = "; ".join(map(_offered, found))
        raise ConfigError(
            f"scheduling_policy = {name!r} is offered more than once: {offers}; uninstall all but one",
            setting="scheduling_policy",
            value=name,
        )
    if not found:
        others = [f"{entry.name} ({_offered(entry)})" for entry in installed]
        known = ", ".join([*(f"{each} (built in)" for each in _BUILT_IN_POLICIES), *dict.fromkeys(others)])
        raise ConfigError(
            f"scheduling_policy = {name!r}: where the scheduler runs these are installed: {known}; install the package that "
            f"offers it there, as an entry point of the group {POLICIES!r}",
            setting="scheduling_policy",
            value=name,
            allowed=known,
        )
    return found[0]


def _offered(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist is not None else "an unnamed package"
    return f"{entry.value} of {package}"
