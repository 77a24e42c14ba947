"""The first step of a pipeline: collections, ranges of integers, files.

Runs on slot threads; a stream and its open file belong to the task's thread. Rows are counted by whole batches, never one by one.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple, Protocol

from flowkit.errors import BadInput, CheckpointDamaged, CheckpointLost, DataDamaged, InternalError
from flowkit.execution.content_reading import read_span
from flowkit.execution.environment import TaskEnvironment
from flowkit.execution.input_files import InputFile, planned_files
from flowkit.execution.text_lines import LOCAL_FILES, Files, line_of, read_lines
from flowkit.lineage.kernels import (
    CachedOnly,
    Collection,
    FileSplit,
    IntegerRange,
    StoredPartitions,
    TextLines,
    WholeFiles,
)
from flowkit.storage.blocks.block_files import read_batches


def read_collection(source: Collection, partition: int, environment: TaskEnvironment) -> Iterator[Any]:
    """The elements of one span of a pickled collection."""
    offset, length, checksum = source.spans[partition]
    content = source.content
    if content.inline is not None:
        pickled = memoryview(content.inline)[offset : offset + length]
        if len(pickled) != length:
            raise InternalError(f"content {content.id} ends before byte {offset + length}")
    else:
        pickled = memoryview(read_span(environment.content.path, content.id, offset, length, checksum))
    elements = pickle.loads(pickled)
    environment.metrics.input_bytes += length
    environment.metrics.input_rows += len(elements)
    return iter(elements)


def range_slice(source: IntegerRange, partition: int) -> range:
    """One partition of a range, as a range.

    >>> range_slice(IntegerRange(0, 10, 3, 3), 2)
    range(6, 12, 3)
    >>> range_slice(IntegerRange(0, 10**30, 1, 2), 0)[-1] == 10**30 // 2 - 1
    True
    """
    # len() stops at sys.maxsize; ranges do not.
    span = source.stop - source.start
    count = max(0, -(-span // source.step))
    first, last = (count * p // source.num_partitions for p in (partition, partition + 1))
    return range(source.start + first * source.step, source.start + last * source.step, source.step)


def read_range(source: IntegerRange, partition: int, environment: TaskEnvironment) -> Iterator[int]:
    """The integers of one slice, made as they are asked for."""
    numbers = range_slice(source, partition)
    if numbers:
        environment.metrics.input_rows += (numbers[-1] - numbers[0]) // source.step + 1
    return iter(numbers)


def read_text(source: TextLines, partition: int, environment: TaskEnvironment) -> Iterator[str]:
    """The lines of the splits of one partition, one split after the other."""
    metrics = environment.metrics

    stores = source.stores
    files = LOCAL_FILES if stores is None else Files(stores.open, stores.version)
    parse: LineParser | None = source.parse

    def blocks() -> Iterator[Iterable[Any]]:
        for split in source.splits[partition]:
            before = 0
            for lines, byte_count in read_lines(split, source.encoding, source.errors, files, environment.memory):
                environment.check_killed()
                metrics.input_bytes += byte_count
                metrics.input_rows += len(lines)
                yield lines if parse is None else parse(lines, LinesAt(split, before, files))
                before += len(lines)

    return chain.from_iterable(blocks())


class LineParser(Protocol):
    """How rows are made of lines."""

    def __call__(self, lines: list[str], at: LinesAt) -> Iterator[Any]:
        """Rows, made as they are asked for."""
        ...


class LinesAt(NamedTuple):
    """Where lines are in their file: looked for when an error is to say so, since that reads what comes before them."""

    split: FileSplit
    #: of the split's lines, how many come before these
    before: int
    files: Files = LOCAL_FILES

    def bad(self, index: int, message: str) -> BadInput:
        """The error for one of them."""
        number = line_of(self.split, self.before + index, self.files)
        path, start = self.split.path, self.split.start
        if number is None:
            where = f"line {self.before + index + 1:,} of those that begin at byte {start:,} or later"
        else:
            where = f"line {number}"
        return BadInput(f"{path}, {where}: {message}", path=path, line=number)


def read_whole_files(source: WholeFiles, partition: int, environment: TaskEnvironment) -> Iterator[tuple[str, bytes]]:
    """``(path, bytes)``, one file in memory at a time."""
    metrics = environment.metrics
    for path, version in planned_files(source, partition):
        environment.check_killed()
        file = InputFile(path, source.stores, metrics=metrics, memory=environment.memory, version=version)
        data = file.read(raw=True)
        metrics.input_rows += 1
        yield path, data


def read_stored(source: StoredPartitions, partition: int, environment: TaskEnvironment) -> Iterator[Any]:
    """The rows of a checkpoint's partition, each batch once it was found sound."""
    path = source.paths[partition]
    opener = (lambda name: open(name, "rb")) if source.stores is None else source.stores.open  # noqa: PTH123, SIM115
    try:
        file = opener(path)
        rows, found = read_batches(file, path)
    except (ValueError, FileNotFoundError) as error:
        raise _checkpoint_damaged(path, error) from error
    metrics = environment.metrics
    metrics.input_rows += rows

    def batches() -> Iterator[list[Any]]:
        try:
            for batch in found:
                environment.check_killed()
                yield batch
        except DataDamaged as error:
            raise _checkpoint_damaged(path, error.__cause__ or error) from error

    metrics.input_bytes += file.seek(0, io.SEEK_END)
    return chain.from_iterable(batches())


def _checkpoint_damaged(path: str, error: BaseException) -> CheckpointDamaged:
    return CheckpointDamaged(
        f"{path} is damaged or gone ({error}); what it was made of is no longer known: make the checkpoint anew", path=path
    )


def read_cached_only(source: CachedOnly, partition: int) -> Iterator[Any]:
    """What was asked for is not in the cache any more."""
    raise CheckpointLost(
        f"partition {partition} of the local checkpoint {source.what} is gone with its executor and cannot be computed again; checkpoint() "
        "writes files that outlive executors",
        partition=partition,
    )
