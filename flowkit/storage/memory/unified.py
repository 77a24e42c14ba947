"""One budget for tasks and cached blocks, each borrowing what the other leaves: the default.

Pure; ``task_memory`` puts a lock around a pool. Execution may have cached blocks evicted down to the storage region; storage takes only
what is free and never makes a task let go. The rules of borrowing are those of Spark's unified memory; the share of a task is that of its
execution pool (Apache Spark, core/.../memory/ExecutionMemoryPool.scala), without the waiting: a task that gets little spills instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowkit.model.ids import AttemptId
from flowkit.model.memory import check_fraction
from flowkit.storage.memory.account import Account


@dataclass(frozen=True, slots=True)
class UnifiedMemory:
    """Tasks and cached blocks share one budget and borrow from one another; a task gets its part of what can be had.

    Parameters
    ----------
    storage_fraction
        Part of the budget that tasks cannot take from cached blocks; 0 to 1.

    Examples
    --------
    >>> UnifiedMemory(storage_fraction=0.3).pool(1_000).storage_region_bytes
    300
    """

    storage_fraction: float = 0.5

    def __post_init__(self) -> None:
        check_fraction("storage_fraction", self.storage_fraction)

    def pool(self, total_bytes: int) -> UnifiedPool:
        """The account of one executor; see ``abc.MemoryManager``."""
        return UnifiedPool(total_bytes, storage_fraction=self.storage_fraction)


@dataclass(slots=True)
class UnifiedPool(Account):
    """See ``UnifiedMemory``. All sizes in bytes.

    >>> pool = UnifiedPool(100)
    >>> pool.open_task(AttemptId(1))
    >>> pool.open_task(AttemptId(2))
    >>> pool.grant(AttemptId(1), 80)
    50
    """

    storage_fraction: float = 0.5

    @property
    def storage_region_bytes(self) -> int:
        """What cached blocks may keep against tasks."""
        return int(self.total_bytes * self.storage_fraction)

    def share_bytes(self) -> int:
        """What one of the open tasks may hold at most: its part of the budget without the blocks that must stay."""
        reachable = self.total_bytes - min(self.storage_bytes, self.storage_region_bytes)
        return reachable // max(1, len(self.by_task))

    def _may_grant(self, task: AttemptId) -> int:
        return self.share_bytes() - self.by_task[task]

    def _may_evict(self) -> int:
        return max(0, self.storage_bytes - self.storage_region_bytes)
