"""For tests, ours and users': the inline runner, the simulated cluster, chosen faults (``chaos``), kits for one's own parts.

Names are resolved when they are first used, as those of ``flowkit`` are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowkit.simulation.cluster import Network, SimulatedCluster
    from flowkit.testing.inline import inline_context
    from flowkit.testing.memory import check_memory_manager
    from flowkit.testing.policies import (
        check_allocation_policy,
        check_health_policy,
        check_placement_policy,
        check_scheduling_policy,
        check_speculation_policy,
    )
    from flowkit.testing.serializers import check_serializer

__all__ = [
    "Network",
    "SimulatedCluster",
    "check_allocation_policy",
    "check_health_policy",
    "check_memory_manager",
    "check_placement_policy",
    "check_scheduling_policy",
    "check_serializer",
    "check_speculation_policy",
    "inline_context",
]

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts any name
    _HOMES = {
        "Network": "flowkit.simulation.cluster",
        "SimulatedCluster": "flowkit.simulation.cluster",
        "check_allocation_policy": "flowkit.testing.policies",
        "check_health_policy": "flowkit.testing.policies",
        "check_memory_manager": "flowkit.testing.memory",
        "check_placement_policy": "flowkit.testing.policies",
        "check_scheduling_policy": "flowkit.testing.policies",
        "check_serializer": "flowkit.testing.serializers",
        "check_speculation_policy": "flowkit.testing.policies",
        "inline_context": "flowkit.testing.inline",
    }

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'flowkit.testing' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(home), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
