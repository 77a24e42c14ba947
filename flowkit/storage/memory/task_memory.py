"""An executor's memory budget under a lock, and each task's account in it.

Runs in executors. ``ExecutorMemory`` is thread-safe; a ``TaskMemory`` belongs to its task's thread. Nothing here waits: a task
that is granted less than it asked for spills. No lock is held while blocks are evicted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from flowkit.abc import MemoryPool
from flowkit.errors import ConfigError
from flowkit.model.ids import AttemptId
from flowkit.model.memory import NOTHING_SAID, StorageGrant
from flowkit.storage.memory.process import trim
from flowkit.storage.memory.unified import UnifiedPool

#: kept free of all budgets: what Python, Arrow and the messages of a busy executor take between two looks
MARGIN_BYTES = 64 << 20
#: with less than this a task spills at every few thousand rows, and nobody would know why it is slow
SMALLEST_USABLE_BYTES = 16 << 20
#: who gives back less than this under pressure has not spilled a table
_TABLE_BYTES = 1 << 20


def usable_bytes(limit: int, resident_at_start: int, fraction: float) -> int:
    """What tasks and blocks may use of a process: ``(limit - resident_at_start - margin) * fraction``.

    Raises
    ------
    errors.ConfigError
        When that is too little to work with; the message shows the sum.

    Examples
    --------
    >>> usable_bytes(1 << 30, 192 << 20, 0.5) == (1024 - 192 - 64) * 2**20 // 2
    True
    """
    usable = int((limit - resident_at_start - MARGIN_BYTES) * fraction)
    if usable < SMALLEST_USABLE_BYTES:
        raise ConfigError(
            f"too little memory for an executor: (limit {_mb(limit)} - in use at its start {_mb(resident_at_start)} - margin "
            f"{_mb(MARGIN_BYTES)}) x memory_fraction {fraction} = {_mb(usable)}, below {_mb(SMALLEST_USABLE_BYTES)}; "
            "give the worker a larger memory limit",
            setting="memory_fraction",
            value=fraction,
        )
    return usable


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.0f} MB"


def _held(consumer: Consumer) -> int:
    return consumer.held_bytes


class MemoryStatistics(NamedTuple):
    """One look at the account, in bytes."""

    total_bytes: int
    execution_bytes: int
    storage_bytes: int
    task_count: int


class ExecutorMemory:
    """The budget of one executor process.

    Parameters
    ----------
    total_bytes
        Of the default pool; or a pool of another memory manager.
    """

    def __init__(self, total_bytes: int | MemoryPool) -> None:
        self._pool: MemoryPool = UnifiedPool(total_bytes) if isinstance(total_bytes, int) else total_bytes
        self._mutex = threading.Lock()
        self._evict: Callable[[int], int] | None = None
        self._room: Callable[[], int] | None = None
        #: how often the process was found to hold too much: whoever sees a number that is new to them spills what they can
        self.pressure = 0
        #: the pressure under which free memory was given back to the system last
        self._trimmed_at = 0

    def __repr__(self) -> str:
        now = self.statistics()
        return f"<ExecutorMemory {now.execution_bytes}+{now.storage_bytes} of {now.total_bytes} bytes, {now.task_count} tasks>"

    @property
    def total_bytes(self) -> int:
        """The whole budget."""
        return self._pool.total_bytes

    def evict_with(self, evict: Callable[[int], int] | None) -> None:
        """Name who frees cached blocks: called with bytes wanted, without locks, frees them by ``release_storage``."""
        self._evict = evict

    def measure_room_with(self, room: Callable[[], int]) -> None:
        """Name who knows by how many bytes the process may grow now, whatever was granted to whom."""
        self._room = room

    def room_bytes(self) -> int | None:
        """By how much the process may grow now; None: nobody knows."""
        return None if self._room is None else self._room()

    def acquire(self, task: AttemptId, size_bytes: int) -> int:
        """Grant a task up to ``size_bytes``; blocks are evicted for it where the rules allow."""
        with self._mutex:
            to_evict = self._pool.eviction_for(task, size_bytes)
            if not to_evict or self._evict is None:
                return self._pool.grant(task, size_bytes)
        self._evict(to_evict)
        with self._mutex:
            return self._pool.grant(task, size_bytes)

    def release(self, task: AttemptId, size_bytes: int) -> None:
        """Take back part of what a task holds."""
        with self._mutex:
            self._pool.release(task, size_bytes)

    def trim(self) -> None:
        """Something large was freed. Under pressure, the system gets it back before something else grows beside it.

        What Python frees stays with its process, and counts as held: enough for the process to be killed for memory it does not use.
        """
        if self._trimmed_at != self.pressure:
            self._trimmed_at = self.pressure
            trim()

    def open_task(self, task: AttemptId, properties: Mapping[str, str] = NOTHING_SAID) -> None:
        """A task begins, of a job of which this was said."""
        # Without the mutex: one dict operation under a key nobody else uses. Every task passes here, and a mutex all slot
        # threads take makes convoys under Python's own lock (measured: twice the cost of a task that does nothing).
        self._pool.open_task(task, properties)

    def close_task(self, task: AttemptId) -> int:
        """A task is over; returns what it had not released."""
        if not self._pool.by_task.get(task):
            return self._pool.close_task(task)  # holds nothing, so no sum changes
        with self._mutex:
            return self._pool.close_task(task)

    def acquire_storage(self, size_bytes: int, grant: StorageGrant) -> bool:
        """Grant cached blocks all of ``size_bytes`` more, or nothing."""
        with self._mutex:
            return self._pool.grant_storage(size_bytes, grant)

    def release_storage(self, size_bytes: int, grant: StorageGrant) -> None:
        """Take back part of what a grant holds."""
        with self._mutex:
            self._pool.release_storage(size_bytes, grant)

    def evict(self, size_bytes: int) -> None:
        """Free so much of what cached blocks hold, whatever was granted to whom."""
        if self._evict is not None and size_bytes > 0:
            self._evict(size_bytes)

    def held_by_task(self) -> dict[AttemptId, int]:
        """What each open task was granted and has not given back."""
        with self._mutex:
            return dict(self._pool.by_task)

    def free_bytes(self) -> int:
        """Held by nobody now."""
        with self._mutex:
            return self._pool.free_bytes

    def statistics(self) -> MemoryStatistics:
        """One consistent look."""
        with self._mutex:
            pool = self._pool
            return MemoryStatistics(pool.total_bytes, pool.execution_bytes, pool.storage_bytes, len(pool.by_task))


class Consumer(Protocol):
    """An operation of a task that holds memory and can give it back by spilling, while another operation of the task runs."""

    @property
    def held_bytes(self) -> int:
        """What it holds now."""
        ...

    def spill(self) -> int:
        """Give all of it back; returns how much that was."""
        ...


class TaskMemory:
    """One task's account: opened when made, closed by ``release_all``.

    When an operation is granted less than it asked for, others of the task spill for it, then itself: the smallest that suffices, else the
    largest, and so on (the order of Spark's ``TaskMemoryManager``).

    >>> memory = TaskMemory(ExecutorMemory(100), AttemptId(1))
    >>> memory.acquire(150), memory.used_bytes
    (100, 100)
    >>> memory.release(40)
    >>> memory.release_all(), memory.peak_bytes
    (60, 100)
    """

    __slots__ = ("_closed", "_consumers", "_executor", "attempt", "operator_limit_bytes", "peak_bytes", "used_bytes")

    def __init__(
        self,
        executor: ExecutorMemory,
        attempt: AttemptId,
        properties: Mapping[str, str] = NOTHING_SAID,
        *,
        operator_limit_bytes: int = 0,
    ) -> None:
        self._executor = executor
        self._closed = False
        self._consumers: list[Consumer] = []
        self.attempt = attempt
        #: what one operation of the task may hold; 0 is no limit
        self.operator_limit_bytes = operator_limit_bytes
        self.used_bytes = 0
        self.peak_bytes = 0
        executor.open_task(attempt, properties)

    def __repr__(self) -> str:
        return f"<TaskMemory attempt={self.attempt} used={self.used_bytes} peak={self.peak_bytes}>"

    @property
    def pressure(self) -> int:
        """See ``ExecutorMemory.pressure``."""
        return self._executor.pressure

    def room_bytes(self) -> int | None:
        """See ``ExecutorMemory.room_bytes``: for what cannot be spilled, and is held or not held at all."""
        return self._executor.room_bytes()

    def add_consumer(self, consumer: Consumer) -> None:
        """Let others have this one spill."""
        self._consumers.append(consumer)

    def remove_consumer(self, consumer: Consumer) -> None:
        """It holds nothing any more, or can't spill now. Idempotent."""
        self._consumers = [each for each in self._consumers if each is not consumer]

    def acquire(self, size_bytes: int, *, held_bytes: int = 0, consumer: Consumer | None = None) -> int:
        """Ask for memory; returns what was granted, 0 to ``size_bytes``. Each of N tasks can come to hold 1/N. Never waits.

        ``held_bytes``: what the operation that asks holds already; ``consumer``: that operation, which is not asked to spill.
        """
        if self.operator_limit_bytes:
            size_bytes = min(size_bytes, self.operator_limit_bytes - held_bytes)
        if size_bytes <= 0 or self._closed:
            return 0
        granted = self._executor.acquire(self.attempt, size_bytes)
        if granted < size_bytes and self._consumers and self._spill_others(size_bytes - granted, consumer):
            granted += self._executor.acquire(self.attempt, size_bytes - granted)
        self.used_bytes += granted
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        return granted

    def _spill_others(self, wanted_bytes: int, asking: Consumer | None) -> int:
        freed = 0
        others = [each for each in self._consumers if each is not asking and each.held_bytes > 0]
        while others and freed < wanted_bytes:
            enough = [each for each in others if each.held_bytes >= wanted_bytes - freed]
            chosen = min(enough, key=_held) if enough else max(others, key=_held)
            freed += chosen.spill()
            others.remove(chosen)
        return freed

    def try_acquire(self, size_bytes: int) -> bool:
        """Ask for all of it or nothing."""
        granted = self.acquire(size_bytes)
        if granted >= size_bytes:
            return True
        self.release(granted)
        return False

    def release(self, size_bytes: int) -> None:
        """Give back part of what is held, after it was freed."""
        if size_bytes:
            self._executor.release(self.attempt, size_bytes)
            self.used_bytes -= size_bytes
            if size_bytes >= _TABLE_BYTES:
                self._executor.trim()

    def release_all(self) -> int:
        """Close the account at the task's end; returns the bytes it still held, which were leaked. Idempotent."""
        if self._closed:
            return 0
        self._closed = True
        leaked = self._executor.close_task(self.attempt)
        self.used_bytes = 0
        return leaked
