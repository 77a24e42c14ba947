"""Writes one map task's output: pairs distributed by key into one block per reducer, spilled when memory is refused, committed once.

Runs on the task's slot thread. Rows are worked on in chunks: a chunk's keys become a column, all of them are hashed, one stable sort by
reducer brings rows of the same reducer together in their order, and each part is encoded at once. What is held is encoded bytes, so
memory is known exactly; only the chunk itself is an estimate.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from time import perf_counter
from typing import IO, Any

import numpy as np

from flowkit.errors import DataDamaged, InternalError
from flowkit.lineage.partitioners import HashPartitioner, Partitioner
from flowkit.model.ids import AttemptId, HostToken, PartitionIndex, ShuffleId
from flowkit.model.map_status import MapStatus, encode_size
from flowkit.model.metrics import TaskMetrics
from flowkit.model.shown import short
from flowkit.storage import codecs, private_files
from flowkit.storage.frames import frame
from flowkit.storage.memory.size_estimate import estimate_batch
from flowkit.storage.memory.task_memory import TaskMemory
from flowkit.storage.serializers import columns, encode_pairs, encode_pairs_between
from flowkit.storage.shuffle.files import ShuffleFiles, removed_on_failure
from flowkit.storage.shuffle.hot_keys import HotKey
from flowkit.storage.shuffle.index import encode_index

#: Python objects of one chunk at most, as estimated
_CHUNK_BYTES = 8 << 20
#: rows of a chunk: enough for a few hundred a reducer, as each part costs some 4 us whatever its length; few enough for the caches
_ROWS_PER_REDUCER, _FEWEST_ROWS, _MOST_ROWS = 256, 8_192, 65_536
#: rows looked at before anything is known of their size
_FIRST_ROWS = 32
#: memory is asked for in steps of this, not at every few kB
_STEP_BYTES = 1 << 20
_COPY_BYTES = 1 << 20
_FILE_BUFFER_BYTES = 1 << 20
#: characters of a key that is named
_MOST_SHOWN = 60

_first, _second = itemgetter(0), itemgetter(1)


def write_shuffle(
    pairs: Iterable[tuple[Any, Any]],
    *,
    files: ShuffleFiles,
    shuffle: ShuffleId,
    map_partition: PartitionIndex,
    attempt: AttemptId,
    host: HostToken,
    partitioner: Partitioner,
    codec: str,
    memory: TaskMemory,
    spill_directory: Path,
    metrics: TaskMetrics,
    check_killed: Callable[[], None],
) -> MapStatus:
    """Write all pairs and commit the file. Within a reducer, rows keep the order in which they came.

    Raises
    ------
    TypeError
        An element that is no pair, named.
    errors.UnstableHash
        A key that differs between processes.
    errors.DiskFull, errors.DiskQuotaExceeded
        Nothing is left on disk then, nor after any other exception; all memory acquired here is released.
    """
    output = _MapOutput(partitioner.num_partitions, codecs.codec_number(codec), memory, spill_directory, int(shuffle), metrics)
    chunk_bytes = memory.acquire(_CHUNK_BYTES)
    if chunk_bytes < _CHUNK_BYTES:  # little is left: half of it is for what is encoded
        memory.release(chunk_bytes - chunk_bytes // 2)
        chunk_bytes //= 2
    most_rows = min(_MOST_ROWS, max(_FEWEST_ROWS, _ROWS_PER_REDUCER * partitioner.num_partitions))
    seconds = 0.0
    try:
        for rows in _chunks(pairs, most_rows, max(chunk_bytes, _CHUNK_BYTES // 32)):
            check_killed()
            started = perf_counter()
            _distribute(_pairs_only(rows), partitioner, output)
            seconds += perf_counter() - started
        check_killed()
        started = perf_counter()
        temporary = files.temporary(shuffle, map_partition, attempt)
        lengths = output.write_to(temporary)
        files.commit(temporary, shuffle, map_partition, attempt)
        seconds += perf_counter() - started
    finally:
        output.close()
        memory.release(chunk_bytes)
    metrics.shuffle_write_rows += output.rows
    metrics.shuffle_write_bytes += sum(lengths)
    metrics.shuffle_write_s += seconds
    hot = output.hot_key.found()
    if hot is not None:
        metrics.hot_key, metrics.hot_key_rows = short(hot[0], _MOST_SHOWN), int(hot[1] * output.rows)
    sizes = zlib.compress(bytes(map(encode_size, lengths)), 1)
    return MapStatus(map_partition, attempt, host, sizes, sum(lengths), output.rows)


def _chunks(pairs: Iterable[Any], most_rows: int, most_bytes: int) -> Iterator[list[Any]]:
    iterator = iter(pairs)
    begin_with = min(_FIRST_ROWS, most_rows)
    while rows := list(islice(iterator, begin_with)):
        size = estimate_batch(rows)
        while size < most_bytes and len(rows) < most_rows:
            more = list(islice(iterator, min(most_rows - len(rows), 3 * len(rows), 1 + len(rows) * (most_bytes - size) // size)))
            if not more:
                break
            rows += more
            size = estimate_batch(rows)
        # The next chunk begins as large as this one would have had to be, and grows from there.
        begin_with = max(_FIRST_ROWS, min(most_rows, len(rows) * most_bytes // max(size, 1)))
        yield rows


def _pairs_only(rows: list[Any]) -> list[Any]:
    if set(map(type, rows)) == {tuple} and set(map(len, rows)) == {2}:
        return rows
    for row in rows:
        if not isinstance(row, (tuple, list)) or len(row) != 2:
            raise TypeError(
                f"element {short(row, 120)} ({type(row).__qualname__}) is not a pair: what goes by key needs (key, value) tuples of two; "
                "make them with key_by(fn) or map(lambda x: (key, value))"
            )
    return rows


def _distribute(rows: list[Any], partitioner: Partitioner, output: _MapOutput) -> None:
    keys = list(map(_first, rows))
    key_column = columns.classify(keys)
    value_column = columns.classify(list(map(_second, rows)))
    output.rows += len(rows)
    reducers = partitioner.num_partitions
    if reducers == 1:
        output.add(0, encode_pairs(key_column, value_column))
        output.reserve()
        return
    output.hot_key.look(keys)
    numbers = key_column.int_numbers
    if numbers is not None and isinstance(partitioner, HashPartitioner):
        places = partitioner.partition_all(numbers)
    else:
        places = partitioner.partition_all(keys)
    found = np.asarray(places)
    if len(found) != len(rows):
        raise InternalError(f"{partitioner!r} placed {len(found)} of {len(rows)} keys")
    if int(found.min()) < 0 or int(found.max()) >= reducers:
        raise ValueError(f"{partitioner!r} put a key outside its {reducers} partitions")
    if reducers <= 1 << 16 and found.dtype.itemsize > 2:
        found = found.astype(np.uint16)  # 8- and 16-bit integers are sorted by radix
    order = np.argsort(found, kind="stable")
    ends = np.cumsum(np.bincount(found, minlength=reducers)).tolist()
    ordered_keys = key_column.ordered_by(order)
    ordered_values = value_column.ordered_by(order)
    start = 0
    for reducer, end in enumerate(ends):
        if end > start:
            output.add(reducer, encode_pairs_between(ordered_keys, ordered_values, start, end))
            start = end
    output.reserve()


@dataclass(frozen=True, slots=True)
class _Spill:
    path: Path
    #: where each reducer's part ends; it begins where the one before ends
    ends: list[int]
    #: of each reducer's part
    checksums: list[int]


class _MapOutput:
    """Encoded parts per reducer, in memory and in spill files; parts of one reducer keep the order in which they were added."""

    def __init__(
        self, reducers: int, codec: int, memory: TaskMemory, spill_directory: Path, label: int, metrics: TaskMetrics
    ) -> None:
        self.rows = 0
        self.hot_key = HotKey()
        self._parts: list[list[bytes]] = [[] for _ in range(reducers)]
        self._codec = codec
        self._memory = memory
        self._pressure = memory.pressure
        self._held_bytes = self._reserved_bytes = 0
        self._spill_directory = spill_directory
        self._label = label
        memory.add_consumer(self)
        self._metrics = metrics
        self._spills: list[_Spill] = []

    def add(self, reducer: int, encoded: bytes) -> None:
        """Append one encoded batch to a reducer's block."""
        data = frame(encoded, self._codec)
        self._parts[reducer].append(data)
        self._held_bytes += len(data)

    def reserve(self) -> None:
        """Cover what is held by granted memory, or spill it."""
        missing = self._held_bytes - self._reserved_bytes
        if self._memory.pressure != self._pressure:  # the process holds more than all estimates say
            self._pressure = self._memory.pressure
            if self._held_bytes >= _STEP_BYTES:
                self._spill()
                return
        if missing > 0:
            self._reserved_bytes += self._memory.acquire(
                max(missing, _STEP_BYTES), held_bytes=self._reserved_bytes, consumer=self
            )
            if self._reserved_bytes < self._held_bytes:
                self._spill()

    @property
    def held_bytes(self) -> int:
        """What is granted; see ``task_memory.Consumer``."""
        return self._reserved_bytes

    def spill(self) -> int:
        """Give it back, when another operation of the task needs it."""
        freed = self._reserved_bytes
        self._spill()
        return freed

    def _spill(self) -> None:
        private_files.make_directory(self._spill_directory)
        path = self._spill_directory / f"shuffle-{self._label}-{len(self._spills)}.spill"
        ends, checksums = [], []
        with removed_on_failure(path), private_files.open_file(path, "xb", buffering=_FILE_BUFFER_BYTES) as file:
            end = 0
            for parts in self._parts:
                file.writelines(parts)
                end += sum(map(len, parts))
                ends.append(end)
                checksums.append(_checksum_of(parts))
        self._spills.append(_Spill(path, ends, checksums))
        self._metrics.memory_spilled_bytes += self._held_bytes
        self._metrics.disk_spilled_bytes += ends[-1]
        self._parts = [[] for _ in self._parts]
        self._release()

    def write_to(self, path: Path) -> list[int]:
        """Write blocks, index and footer; returns the blocks' lengths."""
        lengths, checksums = [], []
        spilled = [private_files.open_file(spill.path, buffering=0) for spill in self._spills]
        try:
            with removed_on_failure(path), private_files.open_file(path, "xb", buffering=_FILE_BUFFER_BYTES) as file:
                for reducer, parts in enumerate(self._parts):
                    length = checksum = 0
                    for source, spill in zip(spilled, self._spills, strict=True):
                        length, checksum = _copy_part(source, spill, reducer, file, length, checksum)
                    for part in parts:
                        file.write(part)
                        length += len(part)
                        checksum = zlib.crc32(part, checksum)
                    lengths.append(length)
                    checksums.append(checksum)
                file.write(encode_index(lengths, checksums))
        finally:
            for source in spilled:
                source.close()
        return lengths

    def close(self) -> None:
        """Remove the spill files and release the memory. Idempotent."""
        self._memory.remove_consumer(self)
        for spill in self._spills:
            spill.path.unlink(missing_ok=True)
        self._spills = []
        self._parts = []
        self._release()

    def _release(self) -> None:
        self._memory.release(self._reserved_bytes)
        self._held_bytes = self._reserved_bytes = 0


def _checksum_of(parts: Iterable[bytes]) -> int:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return checksum


def _copy_part(source: IO[bytes], spill: _Spill, reducer: int, target: IO[bytes], length: int, checksum: int) -> tuple[int, int]:
    """Append a spilled part to a block; returns the block's length and checksum. Raises ``errors.DataDamaged``.

    Its own checksum is compared, or what a disk made of it would be blessed by that of the block.
    """
    start = spill.ends[reducer - 1] if reducer else 0
    left = spill.ends[reducer] - start
    if left:
        source.seek(start)
    found = 0
    while left:
        piece = source.read(min(_COPY_BYTES, left))
        if not piece:
            raise DataDamaged(f"spill file {source.name} ends {left} bytes early; does its disk err?", path=str(spill.path))
        target.write(piece)
        found = zlib.crc32(piece, found)
        checksum = zlib.crc32(piece, checksum)
        length += len(piece)
        left -= len(piece)
    if found != spill.checksums[reducer]:
        raise DataDamaged(
            f"spill file {source.name}: the checksum of part {reducer} does not fit; does its disk err?", path=str(spill.path)
        )
    return length, checksum
