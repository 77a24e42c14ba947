"""What each slot of an executor runs now, in a file that outlives its process: the dead cannot say which task they died of.

Written by slot threads of the worker, by a plain store into mapped memory (a tenth of a microsecond, no system call, nothing
that could block or be lost with the process). Read by the worker's nanny, after the process has ended and while it does not answer. Before the cells stand a mark, by which it is
known as ours, and the nanny's process: once that is gone too, nobody will ask, and the next sweep removes the record.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from flowkit.logs import logger_of
from flowkit.model.ids import AttemptId, ExecutorId
from flowkit.storage import private_files

logger = logger_of("flowkit.cluster")

_SUFFIX = ".slots"
#: what it begins with: a mark, and the nanny's process
_HEAD = struct.Struct("=8sQ")
_MARK = b"FKSLOTS1"
_CELL_BYTES = 8
_PAGE_BYTES = 4096
#: no record is larger: what is, is none
_MOST_BYTES = 16 << 20


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
        path = _path(base, executor)
        size = -(-(_HEAD.size + max(1, slots) * _CELL_BYTES) // _PAGE_BYTES) * _PAGE_BYTES
        try:
            file = private_files.open_descriptor(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            logger.warning("%s keeps no record of what its slots run: %s", executor, error)
            return None
        try:
            # Written, not only made longer: a page that a full disk has no room for would end the process at the first store.
            os.write(file, _HEAD.pack(_MARK, os.getppid()) + bytes(size - _HEAD.size))
            # Held as long as the mapping is; by it a sweep knows the living.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            cells = memoryview(mmap.mmap(file, size))[_HEAD.size :].cast("Q")
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


def read(base: Path, executor: ExecutorId) -> list[AttemptId] | None:
    """What an executor's slots have in hand now; None when there is no record. It stays."""
    try:
        with private_files.open_file(_path(base, executor)) as file:
            data = file.read(_MOST_BYTES)
    except OSError:
        return None
    return _attempts(data) if data.startswith(_MARK) else None


def collect(base: Path, address: str) -> dict[ExecutorId, list[AttemptId]]:
    """What the executors of a process that has ended at a worker address ran in the end; their records go."""
    found: dict[ExecutorId, list[AttemptId]] = {}
    for path in _records(base):
        executor = ExecutorId(unquote(path.name.removesuffix(_SUFFIX)))
        if executor.rpartition("#")[0] != address:
            continue
        with suppress(OSError):
            with private_files.open_file(path) as file:
                data = file.read(_MOST_BYTES)
            if not data.startswith(_MARK):
                continue
            path.unlink(missing_ok=True)
            found[executor] = _attempts(data)
    return found


def _path(base: Path, executor: ExecutorId) -> Path:
    return base / f"{quote(executor, safe='')}{_SUFFIX}"


def _attempts(data: bytes) -> list[AttemptId]:
    cells = memoryview(data[_HEAD.size : len(data) // _CELL_BYTES * _CELL_BYTES]).cast("Q")
    return [AttemptId(attempt) for attempt in cells if attempt]


def sweep(base: Path, *, older_than_s: float) -> None:
    """Remove records of processes that are gone and whose nannies, gone too, never asked for them.

    A nanny of another container looks gone from here; what it loses is the name of the task that its worker's process died of.
    """
    for path in _records(base):
        with suppress(OSError):
            file = private_files.open_descriptor(path, os.O_RDWR)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # File times are the system's clock's, so it is what they are compared with.
                old = time.time() - os.fstat(file).st_mtime >= older_than_s
                mark, nanny = _HEAD.unpack(os.pread(file, _HEAD.size, 0).ljust(_HEAD.size, b"\0"))
                if mark == _MARK and (old or not _is_there(nanny)):
                    path.unlink(missing_ok=True)
            finally:
                os.close(file)


def _is_there(process: int) -> bool:
    """Whether a process is there, or another that has taken its number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _records(base: Path) -> list[Path]:
    with suppress(OSError):
        return [Path(entry.path) for entry in os.scandir(base) if entry.name.endswith(_SUFFIX)]
    return []
