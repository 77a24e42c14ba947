"""Finds by name what other installed packages offer: the one place that imports what a setting names.

Runs in the process that needs the extension (for a scheduling policy the scheduler's), once at its start. Packages offer
something by an entry point of a group of ours::

    [project.entry-points."flowkit.scheduling_policies"]
    lottery = "my_package.policies:Lottery"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowkit.abc import AllocationPolicy, MemoryManager, SchedulingPolicy, Serializer
from flowkit.errors import ConfigError
from flowkit.scheduling.policies.backlog import Backlog
from flowkit.scheduling.policies.capacity import Capacity
from flowkit.scheduling.policies.fair import Fair
from flowkit.scheduling.policies.fifo import Fifo
from flowkit.scheduling.policies.priority import Priority
from flowkit.scheduling.policies.stable import Stable
from flowkit.storage.memory.on_demand import OnDemandMemory
from flowkit.storage.memory.unified import UnifiedMemory
from flowkit.storage.serializers.chosen import ArrowSerializer, CloudpickleSerializer, MsgpackSerializer, PickleSerializer

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

POLICIES = "flowkit.scheduling_policies"
MANAGERS = "flowkit.memory_managers"
"""Entry points: a class, or a function, that makes one when called without arguments."""

SERIALIZERS = "flowkit.serializers"
ALLOCATIONS = "flowkit.allocation_policies"
TOPOLOGIES = "flowkit.topologies"

_BUILT_IN: Mapping[str, Mapping[str, Callable[[], Any]]] = {
    POLICIES: {"fifo": Fifo, "fair": Fair, "capacity": Capacity, "priority": Priority},
    ALLOCATIONS: {"backlog": Backlog, "stable": Stable},
    TOPOLOGIES: {},
    MANAGERS: {"unified": UnifiedMemory, "on_demand": OnDemandMemory},
    SERIALIZERS: {
        "msgpack": MsgpackSerializer,
        "arrow": ArrowSerializer,
        "pickle": PickleSerializer,
        "cloudpickle": CloudpickleSerializer,
    },
}


def scheduling_policy(chosen: str | SchedulingPolicy, pools: Mapping[str, Any] | None = None) -> SchedulingPolicy:
    """The policy of this name: one of flowkit's own, else one that an installed package offers. An object is one itself.

    ``pools`` are what ``fair`` and ``capacity`` share the cluster between.

    Raises
    ------
    errors.ConfigError
        Nobody offers it in this process, two packages do, or what they offer is none.
    """
    if pools and chosen in {"fair", "capacity"}:
        return (Fair if chosen == "fair" else Capacity)(pools)
    found: SchedulingPolicy = _made("scheduling_policy", chosen, POLICIES, "order(candidates)", "where the scheduler runs")
    return found


def allocation_policy(chosen: str | AllocationPolicy, *, idle_s: float) -> AllocationPolicy | None:
    """The allocation policy of this name, None for ``off``; see ``scheduling_policy``. ``idle_s`` is what ``backlog`` waits."""
    if chosen in {"off", "backlog"}:
        return Backlog(idle_s=idle_s) if chosen == "backlog" else None
    found: AllocationPolicy = _made("allocation", chosen, ALLOCATIONS, "look(demand)", "where the scheduler runs")
    return found


def topology(chosen: str | Callable[[Sequence[str]], str]) -> Callable[[Sequence[str]], str] | None:
    """The function that tells racks of this name, None for ``none``; see ``scheduling_policy``."""
    if chosen == "none":
        return None
    found: Callable[[Sequence[str]], str] = _made("topology", chosen, TOPOLOGIES, "__call__(names)", "where the scheduler runs")
    return found


def memory_manager(chosen: str | MemoryManager) -> MemoryManager:
    """The memory manager of this name; see ``scheduling_policy``."""
    found: MemoryManager = _made("memory_manager", chosen, MANAGERS, "pool(total_bytes)", "where executors run")
    return found


def serializers(chosen: Mapping[str, str | Serializer]) -> dict[str, Serializer]:
    """Serialisers by name, those that are given by theirs made; see ``scheduling_policy``."""
    return {
        name: _made(f"serializers[{name!r}]", each, SERIALIZERS, "dumps(values)", "where executors run")
        for name, each in chosen.items()
    }


def _made(setting: str, chosen: Any, group: str, method: str, where: str) -> Any:
    if not isinstance(chosen, str):
        return chosen
    built_in = _BUILT_IN[group].get(chosen)
    if built_in is not None:
        return built_in()  # most never pay for a look at what is installed
    entry = _find(setting, chosen, group, where)
    try:
        made = entry.load()()
    except Exception as error:
        raise ConfigError(
            f"{setting} = {chosen!r}: {_offered(entry)} could not be made: {type(error).__name__}: {error}",
            setting=setting,
            value=chosen,
        ) from error
    if not callable(getattr(made, method.partition("(")[0], None)):
        raise ConfigError(
            f"{setting} = {chosen!r}: {_offered(entry)} gave {made!r}, which has no method {method}",
            setting=setting,
            value=chosen,
        )
    return made


def _find(setting: str, name: str, group: str, where: str) -> EntryPoint:
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
        known = ", ".join([*(f"{each} (built in)" for each in _BUILT_IN[group]), *dict.fromkeys(others)])
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
