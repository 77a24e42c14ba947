"""flowkit: lazy RDDs, cut into stages, run by a scheduler of its own on Dask workers.

Names are resolved when they are first used, so that importing flowkit costs little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from flowkit.config import Config
    from flowkit.context import Context
    from flowkit.errors import FlowkitError
    from flowkit.execution.task_context import TaskContext
    from flowkit.jobs import inheritable
    from flowkit.model.storage_level import StorageLevel
    from flowkit.rdd.capsules import open_capsule
    from flowkit.rdd.rdd import RDD
    from flowkit.scheduling.policies.backlog import Backlog
    from flowkit.scheduling.policies.capacity import Capacity
    from flowkit.scheduling.policies.delay import DelayScheduling
    from flowkit.scheduling.policies.failure_counts import FailureCounts
    from flowkit.scheduling.policies.fair import Fair
    from flowkit.scheduling.policies.pools import Pool
    from flowkit.scheduling.policies.priority import Priority
    from flowkit.scheduling.policies.stable import Stable
    from flowkit.scheduling.policies.stragglers import SlowerThanMedian
    from flowkit.storage.memory.on_demand import OnDemandMemory
    from flowkit.storage.memory.quota import QuotaMemory
    from flowkit.storage.memory.unified import UnifiedMemory

__all__ = [  # noqa: RUF022 (as sorted() does)
    "Backlog",
    "Capacity",
    "Config",
    "Context",
    "DelayScheduling",
    "FailureCounts",
    "Fair",
    "FlowkitError",
    "OnDemandMemory",
    "Pool",
    "Priority",
    "QuotaMemory",
    "RDD",
    "SlowerThanMedian",
    "Stable",
    "StorageLevel",
    "TaskContext",
    "UnifiedMemory",
    "__version__",
    "inheritable",
    "open_capsule",
]

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts any name
    _HOMES = {
        "RDD": "flowkit.rdd.rdd",
        "Backlog": "flowkit.scheduling.policies.backlog",
        "Stable": "flowkit.scheduling.policies.stable",
        "Capacity": "flowkit.scheduling.policies.capacity",
        "Config": "flowkit.config",
        "DelayScheduling": "flowkit.scheduling.policies.delay",
        "Fair": "flowkit.scheduling.policies.fair",
        "FailureCounts": "flowkit.scheduling.policies.failure_counts",
        "Pool": "flowkit.scheduling.policies.pools",
        "Priority": "flowkit.scheduling.policies.priority",
        "SlowerThanMedian": "flowkit.scheduling.policies.stragglers",
        "Context": "flowkit.context",
        "FlowkitError": "flowkit.errors",
        "OnDemandMemory": "flowkit.storage.memory.on_demand",
        "QuotaMemory": "flowkit.storage.memory.quota",
        "StorageLevel": "flowkit.model.storage_level",
        "UnifiedMemory": "flowkit.storage.memory.unified",
        "TaskContext": "flowkit.execution.task_context",
        "inheritable": "flowkit.jobs",
        "open_capsule": "flowkit.rdd.capsules",
    }

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            from flowkit.model.advice import missing_from_module

            missing_from_module("flowkit", "flowkit", name)
        from importlib import import_module

        from flowkit.tracebacks import as_public

        value = as_public(getattr(import_module(home), name))
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


def load_ipython_extension(shell: object) -> None:
    """``%load_ext flowkit``: progress below cells, and magics."""
    _notebook().enable(shell)


def unload_ipython_extension(shell: object) -> None:
    """``%unload_ext flowkit``."""
    _notebook().disable(shell)


def _notebook() -> Any:
    from importlib import import_module

    return import_module("flowkit.notebook")  # a face: nothing beneath it may import it
