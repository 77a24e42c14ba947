"""Values of one key that memory has no room for: a sequence that reads them from disk, as often as it is asked to.

Made on slot threads by whoever merges groups; read by user code. Its file has no name: it is gone with the last reference, wherever
that is, so a group may be kept (in a cached partition, in a variable) for longer than its task lives.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, overload

from flowkit.errors import DataDamaged
from flowkit.storage import private_files
from flowkit.storage.blocks.immutable_values import declare_immutable
from flowkit.storage.disk_room import disk_full_named
from flowkit.storage.frames import batches_in, frame
from flowkit.storage.memory.size_estimate import estimate_batch
from flowkit.storage.serializers import encode_batch

#: of a batch in memory: what reading takes
_BATCH_BYTES: Final = 1 << 20
_FIRST_ROWS, _MOST_ROWS = 256, 16_384


class SpilledValues(Sequence[Any]):
    """A read-only list on disk.

    Iterating takes one batch into memory at a time and can be done any number of times, by several threads too. Pickled, and so
    whenever it leaves its process, it becomes a plain list.

    Parameters
    ----------
    directory
        On whose file system it lies.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     values = SpilledValues(Path(directory))
    ...     values.extend(range(100_000))
    >>> len(values), sum(values), values[-1], values[5:8], values[:3] == [0, 1, 2]
    (100000, 4999950000, 99999, [5, 6, 7], True)
    """

    __slots__ = ("__weakref__", "_descriptor", "_directory", "_ends", "_next_rows", "_places", "disk_bytes")

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = -1
        with disk_full_named(directory, directory):
            private_files.make_directory(directory)
            self._descriptor, name = tempfile.mkstemp(prefix="values-", dir=directory)
        Path(name).unlink()
        #: where each batch lies in the file, and its checksum
        self._places: list[tuple[int, int, int]] = []
        #: how many values there are up to the end of each batch
        self._ends: list[int] = []
        self._next_rows = _FIRST_ROWS
        self.disk_bytes = 0

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def extend(self, values: Iterable[Any]) -> None:
        """Append values. Raises ``errors.DiskFull``."""
        waiting = iter(values)
        while batch := list(islice(waiting, self._next_rows)):
            data = frame(encode_batch(batch))
            self._write(data)
            self._places.append((self.disk_bytes, len(data), zlib.crc32(data)))
            self._ends.append(len(self) + len(batch))
            self.disk_bytes += len(data)
            self._next_rows = max(_FIRST_ROWS, min(_MOST_ROWS, _BATCH_BYTES * len(batch) // max(1, estimate_batch(batch))))

    def _write(self, data: bytes) -> None:
        view, offset = memoryview(data), self.disk_bytes
        with disk_full_named(self._directory, self._directory):
            while view:
                written = os.pwrite(self._descriptor, view, offset)
                view, offset = view[written:], offset + written

    def batches(self, first: int = 0) -> Iterator[list[Any]]:
        """The values in lists of about a megabyte, from a batch on. Raises ``errors.DataDamaged``."""
        for offset, length, checksum in self._places[first:]:
            data = os.pread(self._descriptor, length, offset)
            if zlib.crc32(data) != checksum:
                raise DataDamaged(
                    f"values of one key on the disk of {self._directory} are damaged, {length:,} bytes at {offset:,}; does it err?",
                    path=str(self._directory),
                )
            yield from batches_in(data)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self.batches())

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """One value, or a list of some. Cost: reads the batches they lie in."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step < 0:
                return list(self[range(start, stop, step)[-1] : start + 1])[::step] if range(start, stop, step) else []
            first = bisect_right(self._ends, start)
            before = self._ends[first - 1] if first else 0
            return list(islice(chain.from_iterable(self.batches(first)), start - before, max(stop, start) - before, step))
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"index {index} of {len(self)} values")
        return self[place : place + 1][0]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list | SpilledValues):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type, tuple[list[Any]]]:
        return list, (list(self),)

    def __repr__(self) -> str:
        return f"<{len(self):,} values on disk, {self.disk_bytes:,} bytes>"


# Each value is read anew from disk whenever it is asked for; so nobody changes what others see, and a cached group stays on disk.
declare_immutable(SpilledValues)
