"""Large content on the driver's side: what was put, so that it can be put again should its hosts be lost.

Runs in the driver; thread-safe.

The driver is the last resort for content it put, as long as the application lives; so it keeps every one. Up to a bound in
memory, beyond it in files of its own: a collection of gigabytes does not live twice in the driver's memory.
"""

from __future__ import annotations

import threading
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

from flowkit.errors import DataDamaged
from flowkit.model.ids import ContentId
from flowkit.storage import private_files

IN_MEMORY_BYTES = 64 << 20


class ContentUsers:
    """How many in the driver need each content. Thread-safe."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._counts: Counter[ContentId] = Counter()

    def add(self, content: ContentId) -> None:
        """One more."""
        with self._mutex:
            self._counts[content] += 1

    def remove(self, contents: Iterable[ContentId]) -> tuple[ContentId, ...]:
        """One fewer of each; those that nobody needs any more."""
        unneeded = []
        with self._mutex:
            for content in contents:
                self._counts[content] -= 1
                if self._counts[content] <= 0:
                    del self._counts[content]
                    unneeded.append(content)
        return tuple(unneeded)

    def __len__(self) -> int:
        return len(self._counts)


class KeptContents:
    """Content by id: the most recent in memory, the others in files that go with ``close``.

    Parameters
    ----------
    directory
        Where the files go; asked for when there is the first.
    in_memory_bytes
        All content in memory at most.
    """

    def __init__(self, directory: Callable[[], Path], in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self._make_directory = directory
        self._limit = in_memory_bytes
        self._mutex = threading.Lock()
        self._in_memory: OrderedDict[ContentId, bytes] = OrderedDict()
        self._in_memory_bytes = 0
        self._directory: Path | None = None
        #: with their CRC-32
        self._on_disk: dict[ContentId, int] = {}
        self._closed = False

    def __contains__(self, content: ContentId) -> bool:
        with self._mutex:
            return content in self._in_memory or content in self._on_disk

    def keep(self, content: ContentId, data: bytes) -> None:
        """Keep it; known content is left as it is."""
        with self._mutex:
            if self._closed or content in self._in_memory or content in self._on_disk:
                return
            self._in_memory[content] = data
            self._in_memory_bytes += len(data)
            while self._in_memory_bytes > self._limit:
                oldest, old = self._in_memory.popitem(last=False)
                self._in_memory_bytes -= len(old)
                private_files.write_file(self._file(oldest), old)
                self._on_disk[oldest] = zlib.crc32(old)

    def get(self, content: ContentId) -> bytes:
        """The bytes. Raises ``KeyError`` when it was never kept, ``errors.DataDamaged`` when its file is not what was written."""
        with self._mutex:
            if content in self._in_memory:
                self._in_memory.move_to_end(content)
                return self._in_memory[content]
            if content in self._on_disk:
                data = private_files.read_file(self._file(content))
                if zlib.crc32(data) != self._on_disk[content]:
                    raise DataDamaged(
                        f"{self._file(content)} is damaged; it was the driver's own copy of a collection, a broadcast or a closure",
                        path=str(self._file(content)),
                    )
                return data
            raise KeyError(content)

    def forget(self, content: ContentId) -> None:
        """It is needed no more; harmless when it is not there."""
        with self._mutex:
            data = self._in_memory.pop(content, None)
            if data is not None:
                self._in_memory_bytes -= len(data)
            elif content in self._on_disk:
                del self._on_disk[content]
                self._file(content).unlink(missing_ok=True)

    def close(self) -> None:
        """Forget everything. Idempotent."""
        with self._mutex:
            self._closed = True
            self._in_memory.clear()
            for content in self._on_disk:
                self._file(content).unlink(missing_ok=True)
            self._on_disk.clear()

    def _file(self, content: ContentId) -> Path:
        if self._directory is None:
            self._directory = private_files.make_directory(self._make_directory())
        return self._directory / content
