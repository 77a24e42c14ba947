"""Who may hold how much of an executor's memory: plain arithmetic, no locks, no waiting.

Pure; ``task_memory`` puts a lock around it. Two sides share one budget: running tasks (execution) and cached blocks (storage).
Execution may have cached blocks evicted down to the storage region; storage takes only what is free and never makes a task let go.
The rules of borrowing are those of Spark's unified memory; the share of a task is that of its execution pool
(Apache Spark, core/.../memory/ExecutionMemoryPool.scala), without the waiting: a task that gets little spills instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from flowkit.errors import InternalError
from flowkit.model.ids import AttemptId

#: part of the budget that tasks cannot take from cached blocks
STORAGE_REGION_FRACTION = 0.5


@dataclass(slots=True)
class StorageGrant:
    """What somebody holds of the storage side.

    Changed together with the pool, with no call in between: a killed task's exception can arrive at any call, and whoever
    cleans up after it must know what is held.
    """

    size_bytes: int = 0


@dataclass(slots=True)
class MemoryPool:
    """The account. All sizes in bytes.

    >>> pool = MemoryPool(100)
    >>> pool.open_task(AttemptId(1))
    >>> pool.open_task(AttemptId(2))
    >>> pool.grant(AttemptId(1), 80)
    50
    """

    total_bytes: int
    #: by every open task; a task is there, with 0, from its start
    by_task: dict[AttemptId, int] = field(default_factory=dict)
    storage_bytes: int = 0
    #: sum of ``by_task``
    execution_bytes: int = 0

    @property
    def storage_region_bytes(self) -> int:
        """What cached blocks may keep against tasks."""
        return int(self.total_bytes * STORAGE_REGION_FRACTION)

    @property
    def free_bytes(self) -> int:
        """Held by nobody."""
        return self.total_bytes - self.execution_bytes - self.storage_bytes

    def open_task(self, task: AttemptId) -> None:
        """A task counts from now on: the others' shares shrink."""
        if task in self.by_task:
            raise InternalError(f"task attempt {task} opened twice")
        self.by_task[task] = 0

    def close_task(self, task: AttemptId) -> int:
        """The task is over; returns what it still held, which is free again."""
        held = self.by_task.pop(task, 0)
        if held:
            self.execution_bytes -= held
        return held

    def share_bytes(self) -> int:
        """What one of the open tasks may hold at most: its part of the budget without the blocks that must stay."""
        reachable = self.total_bytes - min(self.storage_bytes, self.storage_region_bytes)
        return reachable // max(1, len(self.by_task))

    def eviction_for(self, task: AttemptId, wanted_bytes: int) -> int:
        """Bytes of cached blocks to evict so that the task can be given as much of ``wanted_bytes`` as its share allows."""
        allowed = min(wanted_bytes, self.share_bytes() - self.by_task[task])
        evictable = max(0, self.storage_bytes - self.storage_region_bytes)
        return max(0, min(allowed - self.free_bytes, evictable))

    def grant(self, task: AttemptId, wanted_bytes: int) -> int:
        """Give the task what its share and the free memory allow, 0 to ``wanted_bytes``."""
        granted = max(0, min(wanted_bytes, self.share_bytes() - self.by_task[task], self.free_bytes))
        self.by_task[task] += granted
        self.execution_bytes += granted
        return granted

    def release(self, task: AttemptId, size_bytes: int) -> None:
        """Take back part of what the task holds."""
        held = self.by_task.get(task, 0)
        if not 0 <= size_bytes <= held:
            raise InternalError(f"task attempt {task} releases {size_bytes} bytes of the {held} it holds")
        self.by_task[task] = held - size_bytes
        self.execution_bytes -= size_bytes

    def grant_storage(self, size_bytes: int, grant: StorageGrant) -> bool:
        """Give cached blocks the whole of ``size_bytes`` more, or nothing."""
        if size_bytes > self.free_bytes:
            return False
        self.storage_bytes += size_bytes
        grant.size_bytes += size_bytes
        return True

    def release_storage(self, size_bytes: int, grant: StorageGrant) -> None:
        """Take back part of what a grant holds."""
        if not 0 <= size_bytes <= grant.size_bytes <= self.storage_bytes:
            raise InternalError(f"cached blocks release {size_bytes} of {grant.size_bytes} bytes, of {self.storage_bytes} in all")
        self.storage_bytes -= size_bytes
        grant.size_bytes -= size_bytes

    def check(self) -> None:
        """Assert every invariant."""
        assert self.execution_bytes == sum(self.by_task.values()), "the sum over tasks is the execution side"
        assert all(held >= 0 for held in self.by_task.values()), "nobody holds less than nothing"
        assert self.storage_bytes >= 0, "blocks hold no less than nothing"
        assert self.free_bytes >= 0, "nothing is given twice"

    def assert_empty(self) -> None:
        """Assert that no task is left and no task memory held."""
        assert not self.by_task, f"tasks left open: {self.by_task}"
        assert self.execution_bytes == 0, "execution memory left"
