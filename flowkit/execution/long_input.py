"""What one line, record or file takes of the task's memory while it is read: too much is an error that names it, not a killed worker.

Runs on slot threads. Nothing here is asked for the lines that there are many of; only what grows beyond ``FREE_BYTES`` is looked at.
"""

from __future__ import annotations

from flowkit.errors import InputTooLarge
from flowkit.storage.memory.task_memory import TaskMemory

#: what any line may hold unasked
FREE_BYTES = 4 << 20
#: a line that grows is looked at again after so much
_STEP_BYTES = 4 << 20


class LongInput:
    """Memory for one line (record, file) at a time, asked for as it grows.

    Parameters
    ----------
    memory
        The task's account; None: nothing is limited.
    path
        Of the file, for the message.
    copies
        How often its bytes are in memory at the most while a row is made of them: as bytes and as text, say.
    what
        What is read, for the message.
    """

    __slots__ = ("_copies", "_held_bytes", "_looked_at", "_memory", "_path", "_what")

    def __init__(self, memory: TaskMemory | None, path: str, *, copies: int, what: str = "line") -> None:
        self._memory = memory
        self._path = path
        self._copies = copies
        self._what = what
        self._held_bytes = 0
        self._looked_at = FREE_BYTES

    def grown(self, offset: int, size_bytes: int) -> None:
        """What begins at an offset has this size so far, all of it in memory once.

        Raises
        ------
        errors.InputTooLarge
            A row cannot be made of it without more memory than the process has.
        """
        if size_bytes < self._looked_at or self._memory is None:
            return
        self._looked_at = size_bytes + _STEP_BYTES
        self._check(offset, size_bytes, (self._copies - 1) * size_bytes, "so far")

    def known(self, size_bytes: int) -> None:
        """All of a file of this size will be in memory; nothing of it is yet. Raises as ``grown``."""
        if size_bytes >= FREE_BYTES and self._memory is not None:
            self._check(0, size_bytes, self._copies * size_bytes, "in all")

    def over(self) -> None:
        """It was read. Idempotent."""
        if self._held_bytes and self._memory is not None:
            held, self._held_bytes = self._held_bytes, 0
            self._memory.release(held)
        self._looked_at = FREE_BYTES

    def _check(self, offset: int, size_bytes: int, more_bytes: int, extent: str) -> None:
        memory = self._memory
        assert memory is not None
        # Asked for first: tables spill and cached blocks go for it.
        self._held_bytes += memory.acquire(max(0, self._copies * size_bytes - self._held_bytes))
        room = memory.room_bytes()
        if room is None or more_bytes <= room:
            return
        self.over()
        where = f"the {self._what} that begins at byte {offset:,}" if self._what != "file" else "the file"
        raise InputTooLarge(
            f"{self._path}: {where} is too long for this worker: {size_bytes:,} bytes {extent}; a row of it needs about "
            f"{_mb(more_bytes)} more, and {_mb(max(0, room))} are left. Raise memory_limit, or let fewer tasks run at once on a worker "
            "(threads_per_worker)",
            path=self._path,
            offset=offset,
            setting="memory_limit",
            limit=max(0, room),
            actual=size_bytes,
        )


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):,.0f} MB"
