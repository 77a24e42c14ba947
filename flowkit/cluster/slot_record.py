"""What each slot of an executor runs now, in a file that outlives its process: the dead cannot say which task they died of.

Written by slot threads of the worker, by a plain store into mapped memory (a tenth of a microsecond, no system call, nothing
that could block or be lost with the process). Read by the worker's nanny, once, after the process has ended.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from flowkit.model.ids import AttemptId, ExecutorId

logger = logging.getLogger("flowkit.cluster")

_SUFFIX = ".slots"
_CELL_BYTES = 8
_PAGE_BYTES = 4096


class SlotRecord:
    """One executor's record; make it with ``create``. ``note`` may be called from any thread, one at a time per slot."""

    def __init__(self, path: Path, cells: memoryview) -> None:
        self._path = path
        self._cells = cells

    def __repr__(self) -> str:
        return f"<SlotRecord {self._path}>"

    @classmethod
    def create(cls, base: Path, executor: ExecutorId, slots: int) -> SlotRecord | None:
        """Make the file; None when the disk is full or gone, for an executor does without."""
        path = base / f"{quote(executor, safe='')}{_SUFFIX}"
        size = -(-max(1, slots) * _CELL_BYTES // _PAGE_BYTES) * _PAGE_BYTES
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            logger.warning("%s keeps no record of what its slots run: %s", executor, error)
            return None
        try:
            # Written, not only made longer: a page that a full disk has no room for would end the process at the first store.
            os.write(file, bytes(size))
            # Held as long as the mapping is; by it a sweep knows the living.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            cells = memoryview(mmap.mmap(file, size)).cast("Q")
        except (OSError, ValueError) as error:
            logger.warning("%s keeps no record of what its slots run: %s", executor, error)
            path.unlink(missing_ok=True)
            return None
        finally:
            os.close(file)
        return cls(path, cells)

    def note(self, slot: int, attempt: AttemptId | None) -> None:
        """The slot begins this attempt; None: it is done with it. A slot beyond the record is not noted."""
        if slot < len(self._cells):
            self._cells[slot] = attempt or 0

    def remove(self) -> None:
        """Nobody need ask any more. Stores that come late do no harm."""
        self._path.unlink(missing_ok=True)


def collect(base: Path, address: str) -> dict[ExecutorId, list[AttemptId]]:
    """What the executors of a process that has ended at a worker address ran in the end; their records go."""
    found: dict[ExecutorId, list[AttemptId]] = {}
    for path in _records(base):
        executor = ExecutorId(unquote(path.name.removesuffix(_SUFFIX)))
        if executor.rpartition("#")[0] != address:
            continue
        with suppress(OSError):
            data = path.read_bytes()
            path.unlink(missing_ok=True)
            cells = memoryview(data[: len(data) // _CELL_BYTES * _CELL_BYTES]).cast("Q")
            found[executor] = [AttemptId(attempt) for attempt in cells if attempt]
    return found


def sweep(base: Path, *, older_than_s: float) -> None:
    """Remove records of processes that are gone and whose nannies, gone too, never asked for them."""
    for path in _records(base):
        with suppress(OSError):
            # File times are the system's clock's, so it is what they are compared with.
            if time.time() - path.stat().st_mtime < older_than_s:
                continue
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            finally:
                os.close(file)


def _records(base: Path) -> list[Path]:
    with suppress(OSError):
        return [Path(entry.path) for entry in os.scandir(base) if entry.name.endswith(_SUFFIX)]
    return []
