"""What every pool keeps alike: who holds how much, and that nobody gives back what they do not hold. Pure; see ``abc.MemoryPool``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowkit.errors import InternalError
from flowkit.model.ids import AttemptId
from flowkit.model.memory import NOTHING_SAID, StorageGrant


@dataclass(slots=True)
class Account:
    """Sums and their changes; a pool decides by ``_may_grant`` and ``_may_store`` how much there is for whom."""

    total_bytes: int
    #: by every open task; a task is there, with 0, from its start
    by_task: dict[AttemptId, int] = field(default_factory=dict)
    storage_bytes: int = 0
    #: sum of ``by_task``
    execution_bytes: int = 0

    @property
    def free_bytes(self) -> int:
        """Held by nobody."""
        return self.total_bytes - self.execution_bytes - self.storage_bytes

    def open_task(self, task: AttemptId, properties: Mapping[str, str] = NOTHING_SAID) -> None:
        """A task counts from now on."""
        if task in self.by_task:
            raise InternalError(f"task attempt {task} opened twice")
        self.by_task[task] = 0

    def close_task(self, task: AttemptId) -> int:
        """The task is over; returns what it still held, which is free again."""
        held = self.by_task.pop(task, 0)
        if held:
            self.execution_bytes -= held
        return held

    def grant(self, task: AttemptId, wanted_bytes: int) -> int:
        """Give the task what it may have, 0 to ``wanted_bytes``."""
        granted = max(0, min(wanted_bytes, self._may_grant(task), self.free_bytes))
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

    def eviction_for(self, task: AttemptId, wanted_bytes: int) -> int:
        """Bytes of cached blocks to evict so that the task can be given as much of ``wanted_bytes`` as it may have."""
        allowed = min(wanted_bytes, self._may_grant(task))
        return max(0, min(allowed - self.free_bytes, self._may_evict()))

    def grant_storage(self, size_bytes: int, grant: StorageGrant) -> bool:
        """Give cached blocks the whole of ``size_bytes`` more, or nothing."""
        if size_bytes > min(self.free_bytes, self._may_store()):
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

    # -- what a pool decides

    def _may_grant(self, task: AttemptId) -> int:
        """Bytes that this task may come to hold on top of what it holds, were they free."""
        return self.total_bytes

    def _may_store(self) -> int:
        """Bytes that cached blocks may hold on top of what they hold, were they free."""
        return self.total_bytes

    def _may_evict(self) -> int:
        """Bytes of cached blocks that may be taken from them for a task."""
        return self.storage_bytes

    # -- looking

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
