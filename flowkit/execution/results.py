"""Results: pickled, and, when too large for a message, kept at the executor until the driver has fetched them.

Runs in executors; ``ResultStore`` is thread-safe. Held in memory up to a bound, beyond it in files, so that a driver that fetches slowly does not
fill the worker's memory.
"""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

from flowkit.errors import ResultNotPicklable
from flowkit.lineage import pickling
from flowkit.model.ids import AppId, AttemptId
from flowkit.storage import private_files
from flowkit.storage.shuffle.files import removed_on_failure

#: what all results together may hold of the executor's memory; the rest lies in files
IN_MEMORY_BYTES = 32 << 20

_PROTOCOL = 5


def pickle_result(value: Any) -> bytes:
    """A task's result as bytes.

    Raises ``ResultNotPicklable``, naming the type and where in the result it is.

    >>> pickle.loads(pickle_result([1, 2]))
    [1, 2]
    >>> pickle_result({"a": [0, (i for i in [])]})
    Traceback (most recent call last):
        ...
    flowkit.errors.ResultNotPicklable: the task's result cannot be pickled: generator at result['a'][1]: cannot pickle 'generator' object
    """
    try:
        return pickle.dumps(value, _PROTOCOL)
    except MemoryError:
        raise
    except Exception:
        # Lambdas, and classes of the driver's script, travel by value.
        try:
            data: bytes = pickling.dumps(value, _PROTOCOL)
        except MemoryError:
            raise
        except Exception as error:
            path, culprit, reason = _culprit(value, error)
            kind = type(culprit).__qualname__
            message = f"the task's result cannot be pickled: {kind} at {path}: {reason}"
            raise ResultNotPicklable(message, type_name=kind, path=path) from None
        return data


def _culprit(value: Any, error: Exception) -> tuple[str, Any, Exception]:
    """The innermost part of a value that cannot be pickled, and the way to it."""
    path = "result"
    # Each step goes one level down, so this ends unless a value contains itself.
    for _ in range(100):
        for step, part in _parts(value):
            try:
                pickling.dumps(part, _PROTOCOL)
            except Exception as inner:
                path, value, error = path + step, part, inner
                break
        else:
            break
    return path, value, error


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"[{key!r}]", part) for key, part in value.items()] + [(f" (key {key!r})", key) for key in value]
    if isinstance(value, list | tuple):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    if isinstance(value, set | frozenset):
        return [(f" (element {part!r})", part) for part in value]
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict) and not isinstance(value, type):
        return [(f".{name}", part) for name, part in attributes.items()]
    return []


class ResultStore:
    """Pickled results by attempt."""

    def __init__(self, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self._lock = threading.Lock()
        self._in_memory_limit = in_memory_bytes
        self._in_memory_bytes = 0
        self._kept: dict[AttemptId, tuple[AppId, bytes | Path]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, app: AppId, attempt: AttemptId, data: bytes, directory: Path) -> None:
        """Keep a result; ``directory`` is where a file may go. Raises ``DiskFull``, and keeps nothing then."""
        with self._lock:
            if self._in_memory_bytes + len(data) <= self._in_memory_limit:
                self._in_memory_bytes += len(data)
                self._kept[attempt] = (app, data)
                return
        path = directory / f"result-{attempt}"
        with removed_on_failure(path):
            private_files.make_directory(directory)
            private_files.write_file(path, data)
        with self._lock:
            self._kept[attempt] = (app, path)

    def chunk(self, attempt: AttemptId, offset: int, length: int) -> bytes | None:
        """A piece of a result, shorter at its end; None when it is not (or no longer) here."""
        with self._lock:
            kept = self._kept.get(attempt)
        match kept:
            case None:
                return None
            case (_, bytes() as data):
                return data[offset : offset + length]
            case (_, path):
                try:
                    with private_files.open_file(path) as file:
                        file.seek(offset)
                        return file.read(length)
                except FileNotFoundError:
                    return None

    def release(self, attempts: tuple[AttemptId, ...]) -> None:
        """Drop results nobody will fetch any more; unknown ones are ignored."""
        for attempt in attempts:
            with self._lock:
                kept = self._kept.pop(attempt, None)
                if kept is not None and isinstance(kept[1], bytes):
                    self._in_memory_bytes -= len(kept[1])
            if kept is not None and isinstance(kept[1], Path):
                kept[1].unlink(missing_ok=True)

    def drop_application(self, app: AppId) -> None:
        """Drop all results of an application."""
        with self._lock:
            gone = tuple(attempt for attempt, (owner, _) in self._kept.items() if owner == app)
        self.release(gone)

    def close(self) -> None:
        """Drop everything."""
        self.release(tuple(self._kept))
