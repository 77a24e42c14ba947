"""The policies that a configuration names, made: flowkit's own by their names, others as the objects they are. Pure.

What an installed package offers by a name is found elsewhere (``cluster.extensions``), and stands in the configuration as an object by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from flowkit.abc import AllocationPolicy, HealthPolicy, PlacementPolicy, SchedulingPolicy, SpeculationPolicy
from flowkit.config import Config
from flowkit.errors import ConfigError
from flowkit.scheduling.policies.backlog import Backlog
from flowkit.scheduling.policies.capacity import Capacity
from flowkit.scheduling.policies.delay import DelayScheduling
from flowkit.scheduling.policies.failure_counts import FailureCounts
from flowkit.scheduling.policies.fair import Fair
from flowkit.scheduling.policies.fifo import Fifo
from flowkit.scheduling.policies.priority import Priority
from flowkit.scheduling.policies.stable import Stable
from flowkit.scheduling.policies.stragglers import SlowerThanMedian

#: by setting, what each name stands for; None: there is no such policy then
BUILT_IN: Final[Mapping[str, Mapping[str, Callable[[Config], Any] | None]]] = {
    "scheduling_policy": {
        "fifo": lambda _: Fifo(),
        "fair": lambda config: Fair(config.pools),
        "capacity": lambda config: Capacity(config.pools),
        "priority": lambda _: Priority(),
    },
    "placement": {"delay": lambda config: DelayScheduling(config.locality_wait_s)},
    "topology": {"none": None},
    "speculation": {
        "off": None,
        "median": lambda config: SlowerThanMedian(
            quantile=config.speculation_quantile, multiplier=config.speculation_multiplier, min_s=config.speculation_min_s
        ),
    },
    "exclude_failing": {
        "off": None,
        "counts": lambda config: FailureCounts(after=config.exclude_after_failures, timeout_s=config.exclude_timeout_s),
    },
    "allocation": {"off": None, "backlog": lambda config: Backlog(idle_s=config.executor_idle_s), "stable": lambda _: Stable()},
}


class Policies(NamedTuple):
    """All that a scheduler core asks."""

    scheduling: SchedulingPolicy
    placement: PlacementPolicy
    #: the rack of a host, by its names
    topology: Callable[[Sequence[str]], str] | None
    speculation: SpeculationPolicy | None
    health: HealthPolicy | None
    allocation: AllocationPolicy | None


def policies(config: Config) -> Policies:
    """Those of a configuration.

    Raises
    ------
    errors.ConfigError
        A name that is none of flowkit's own.

    Examples
    --------
    >>> made = policies(Config(scheduling_policy="fair", speculation=True))
    >>> made.scheduling, made.speculation, made.allocation
    (Fair(), SlowerThanMedian(quantile=0.9, multiplier=3, min_s=0.1), None)
    """
    return Policies(
        scheduling=_policy(config, "scheduling_policy", config.scheduling_policy),
        placement=_policy(config, "placement", config.placement),
        topology=_policy(config, "topology", config.topology),
        speculation=_policy(config, "speculation", config.speculation),
        health=_policy(config, "exclude_failing", config.exclude_failing),
        allocation=_policy(config, "allocation", config.allocation),
    )


def check_policies(config: Config) -> None:
    """See that flowkit's own policies, where a configuration names them, can be made with its settings; others are not looked for.

    Raises
    ------
    errors.ConfigError
        They cannot.

    Examples
    --------
    >>> check_policies(Config(scheduling_policy="fair", pools={"adhoc": 0}))
    Traceback (most recent call last):
        ...
    flowkit.errors.ConfigError: pools['adhoc']: weight = 0: must be a number above 0
    """
    for setting, known in BUILT_IN.items():
        chosen = getattr(config, setting)
        if isinstance(chosen, str) and chosen in known:
            _policy(config, setting, chosen)


def _policy(config: Config, setting: str, chosen: Any) -> Any:
    if not isinstance(chosen, str):
        return chosen
    known = BUILT_IN[setting]
    if chosen not in known:
        raise ConfigError(
            f"{setting} = {chosen!r}: known without looking for it: {', '.join(known)}", setting=setting, value=chosen
        )
    make = known[chosen]
    return None if make is None else make(config)
