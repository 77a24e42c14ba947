"""Finds by name what other installed packages offer: the one place that imports what a setting names.

Runs in the process that needs the extension (for a scheduling policy the scheduler's), once at its start. Packages offer
something by an entry point of a group of ours::

    [project.entry-points."flowkit.scheduling_policies"]
    lottery = "my_package.policies:Lottery"
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flowkit.abc import MemoryManager, Serializer
from flowkit.config import Config
from flowkit.errors import ConfigError
from flowkit.logs import is_ctrl_c
from flowkit.model.shown import in_words, short
from flowkit.scheduling.policies.built_in import BUILT_IN
from flowkit.storage.memory.on_demand import OnDemandMemory
from flowkit.storage.memory.unified import UnifiedMemory
from flowkit.storage.serializers.chosen import ArrowSerializer, CloudpickleSerializer, MsgpackSerializer, PickleSerializer

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_POLICIES: Mapping[str, tuple[str, str]] = {
    "scheduling_policy": ("flowkit.scheduling_policies", "order(candidates)"),
    "placement": ("flowkit.placement_policies", "prefer(stage, partition, near)"),
    "topology": ("flowkit.topologies", "__call__(names)"),
    "speculation": ("flowkit.speculation_policies", "slow_after(progress)"),
    "exclude_failing": ("flowkit.health_policies", "judge(failures)"),
    "allocation": ("flowkit.allocation_policies", "look(demand)"),
}
"""By setting the group of entry points, each a class, or a function, that makes one when called without arguments; and what it has."""

_MANAGERS = "flowkit.memory_managers"
_SERIALIZERS = "flowkit.serializers"

_OWN: Mapping[str, Mapping[str, Callable[[], Any]]] = {
    _MANAGERS: {"unified": UnifiedMemory, "on_demand": OnDemandMemory},
    _SERIALIZERS: {
        "msgpack": MsgpackSerializer,
        "arrow": ArrowSerializer,
        "pickle": PickleSerializer,
        "cloudpickle": CloudpickleSerializer,
    },
}


def with_policies(config: Config) -> Config:
    """A configuration in which policies that installed packages offer stand as objects; flowkit's own are known by name.

    Raises
    ------
    errors.ConfigError
        Nobody offers one of them in this process, two packages do, or what they offer is none.
    """
    found = {}
    for setting, (group, method) in _POLICIES.items():
        chosen = getattr(config, setting)
        if isinstance(chosen, str) and chosen not in BUILT_IN[setting]:
            found[setting] = _offer(setting, chosen, group, method, "where the scheduler runs", BUILT_IN[setting])
    return replace(config, **found) if found else config


def memory_manager(chosen: str | MemoryManager) -> MemoryManager:
    """The memory manager of this name; see ``with_policies``."""
    found: MemoryManager = _made("memory_manager", chosen, _MANAGERS, "pool(total_bytes)", "where executors run")
    return found


def serializers(chosen: Mapping[str, str | Serializer]) -> dict[str, Serializer]:
    """Serialisers by name, those that are given by theirs made; see ``with_policies``."""
    return {
        name: _made(f"serializers[{name!r}]", each, _SERIALIZERS, "dumps(values)", "where executors run")
        for name, each in chosen.items()
    }


def _made(setting: str, chosen: Any, group: str, method: str, where: str) -> Any:
    if not isinstance(chosen, str):
        return chosen
    built_in = _OWN[group].get(chosen)
    if built_in is not None:
        return built_in()  # most never pay for a look at what is installed
    return _offer(setting, chosen, group, method, where, _OWN[group])


def _offer(setting: str, chosen: str, group: str, method: str, where: str, own: Iterable[str]) -> Any:
    """What an installed package offers by this name; ``own`` are names of flowkit's, for the message."""
    entry = _find(setting, chosen, group, where, own)
    try:
        made = entry.load()()
        fits = callable(getattr(made, method.partition("(")[0], None))
    except BaseException as error:
        # Executors and schedulers do this on their event loops, which a SystemExit would end.
        if is_ctrl_c(error):
            raise
        raise ConfigError(
            f"{setting} = {chosen!r}: {_offered(entry)} could not be made: {in_words(error)}",
            setting=setting,
            value=chosen,
        ) from error
    if not fits:
        raise ConfigError(
            f"{setting} = {chosen!r}: {_offered(entry)} gave {short(made)}, which has no method {method}",
            setting=setting,
            value=chosen,
        )
    return made


def _find(setting: str, name: str, group: str, where: str, own: Iterable[str]) -> EntryPoint:
    from importlib.metadata import entry_points  # a tenth of a second with what it imports, and rarely needed

    installed = sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value))
    found = [entry for entry in installed if entry.name == name]
    # One package may be found twice, by way of two places on the path.
    if len({entry.value for entry in found}) > 1:
        offers = "; ".join(map(_offered, found))
        raise ConfigError(
            f"{setting} = {name!r} is offered more than once: {offers}; uninstall all but one", setting=setting, value=name
        )
    if not found:
        others = [f"{entry.name} ({_offered(entry)})" for entry in installed]
        known = ", ".join([*(f"{each} (built in)" for each in own), *dict.fromkeys(others)])
        raise ConfigError(
            f"{setting} = {name!r}: {where} these are installed: {known}; install the package that offers it there, as an entry point "
            f"of the group {group!r}",
            setting=setting,
            value=name,
            allowed=known,
        )
    return found[0]


def _offered(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist is not None else "an unnamed package"
    return f"{entry.value} of {package}"
