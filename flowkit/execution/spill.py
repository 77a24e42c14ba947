"""What a table may hold of the task's memory, and where its rows go when that is refused: runs on disk, split by hash.

Runs on slot threads; runs lie in the task's own directory. Rows are spilled with the place at which their key was first seen, and
what is made of them is merged by that place: results do not depend on how much memory there was.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np

from flowkit.execution.environment import TaskEnvironment
from flowkit.execution.records import in_batches
from flowkit.storage.memory.task_memory import Consumer, TaskMemory
from flowkit.storage.runs import Run, RunWriter

#: Runs one spill is split into. Each has an open file with a buffer of 1 MB: more would cost more memory than they save.
FANOUT = 16
#: Splits of splits. Sixteen million parts are enough for anything but equal keys, and those no split takes apart:
#: deeper down a table goes over its budget rather than on for ever.
DEPTH_LIMIT = 6
#: A table below this is never spilled: runs of a few rows would cost more than the memory they free.
SMALLEST_TABLE_BYTES = 256 << 10
#: A combiner with this part of a table's rows is too large to be split further.
LARGE_SHARE = 4
#: Rows written, or split into parts, at once: a part of fewer than some hundred would not pay.
_WRITTEN_ROWS = 4096
#: Values in combiners that are written at once.
_MOST_VALUES = 1 << 16
#: Rows after which a table is looked at, however large it is.
_LOOK_ROWS = 1 << 16
#: Memory is asked for in steps of at least this.
_STEP_BYTES = 1 << 20

# Files of one task must not share a name, whichever of its steps writes them.
_run_numbers = count()

_FIRST, _SECOND, _KEY_AND_COMBINER = itemgetter(0), itemgetter(1), itemgetter(1, 2)
_T = TypeVar("_T")


class Reservation:
    """What one table holds of its task's memory. A context manager: gives all of it back."""

    __slots__ = ("_consumer", "_memory", "_next_look", "_pressure", "held_bytes")

    def __init__(self, memory: TaskMemory, consumer: Consumer | None = None) -> None:
        self._memory = memory
        self._consumer = consumer
        self._next_look = 0
        self._pressure = memory.pressure
        self.held_bytes = 0

    def fits(self, row_count: int, estimate: Callable[[_T, int], int], table: _T) -> bool:
        """Whether a table made of ``row_count`` rows may stay; looked at whenever it has grown by a quarter."""
        if self._memory.pressure != self._pressure:
            # The process holds more than all estimates say: what is worth it goes to disk, whatever was granted.
            self._pressure = self._memory.pressure
            if self.held_bytes >= _STEP_BYTES:
                return False
        if row_count < self._next_look:
            return True
        self._next_look = row_count + max(1, min(row_count // 4, _LOOK_ROWS))
        needed = estimate(table, row_count)
        if needed > self.held_bytes:
            self.held_bytes += self._memory.acquire(
                max(needed - self.held_bytes, _STEP_BYTES), held_bytes=self.held_bytes, consumer=self._consumer
            )
        return needed <= max(self.held_bytes, SMALLEST_TABLE_BYTES)

    def release(self) -> int:
        """Give everything back, after it was freed; returns how much that was. The next table starts anew."""
        released, self.held_bytes, self._next_look = self.held_bytes, 0, 0
        self._memory.release(released)
        return released

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.release()


class Runs:
    """Runs being written and read, removed together. A context manager."""

    __slots__ = ("_environment", "_runs", "_writers")

    def __init__(self, environment: TaskEnvironment) -> None:
        self._environment = environment
        self._writers: list[RunWriter] = []
        self._runs: list[Run] = []

    def open(self, kind: str) -> RunWriter:
        """Begin a run."""
        writer = RunWriter(self._environment.spill_directory, f"{kind}-{next(_run_numbers)}")
        self._writers.append(writer)
        return writer

    def close(self, writer: RunWriter) -> Run:
        """Finish a run."""
        run = writer.close()
        self._writers.remove(writer)
        self._runs.append(run)
        self._environment.metrics.disk_spilled_bytes += run.disk_bytes
        return run

    def write(self, kind: str, rows: Iterable[Any]) -> Run:
        """A run of all the rows."""
        writer = self.open(kind)
        for batch in in_batches(rows, self._environment.check_killed, _WRITTEN_ROWS):
            writer.write(batch)
        return self.close(writer)

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for writer in self._writers:
            writer.abort()
        for run in self._runs:
            run.delete()


class HashSplit:
    """Rows ``(place, key, ...)`` split into ``FANOUT`` runs by the hash of the key, in their order within each."""

    __slots__ = ("_depth", "_kind", "_runs", "_writers")

    def __init__(self, runs: Runs, kind: str, depth: int) -> None:
        self._runs = runs
        self._kind = kind
        self._depth = depth
        self._writers: list[RunWriter | None] = [None] * FANOUT

    def add(self, rows: list[tuple[Any, ...]]) -> None:
        """Append rows, to one run each."""
        parts = _parts(list(map(_SECOND, rows)), self._depth)
        order = parts.argsort(kind="stable")
        bounds = np.searchsorted(parts[order], np.arange(FANOUT + 1)).tolist()
        ordered = list(map(rows.__getitem__, order.tolist()))
        for part in range(FANOUT):
            if bounds[part] == bounds[part + 1]:
                continue
            writer = self._writers[part]
            if writer is None:
                writer = self._writers[part] = self._runs.open(f"{self._kind}-{part}")
            writer.write(ordered[bounds[part] : bounds[part + 1]])

    def finish(self) -> list[Run | None]:
        """The runs; None where no row fell."""
        return [None if writer is None else self._runs.close(writer) for writer in self._writers]


def _parts(keys: list[Any], depth: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    # Runs are read by the process that wrote them, so Python's own hash does, for every key that can be in a dict. It must
    # not fall together with what chose the partition, nor with the split one level up: both mix with other constants.
    mixed = np.fromiter(map(hash, keys), np.int64, len(keys)).view(np.uint64) ^ np.uint64(0x9E3779B97F4A7C15 + 0x632BE5AB * depth)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    return (mixed >> np.uint64(60)).astype(np.uint8)


def merged_in_order(streams: Iterable[Iterable[tuple[Any, ...]]], runs: Runs, kind: str) -> Iterator[tuple[Any, ...]]:
    """All rows of streams that each ascend by ``row[0]``, ascending by it.

    Streams are taken one after the other, each to its end, and kept in runs: whatever makes them is in memory one at a time.
    """
    results = [runs.write(kind, stream) for stream in streams]
    return heapq.merge(*map(run_rows, results), key=_FIRST)


def run_rows(run: Run) -> Iterator[Any]:
    """The rows of a run."""
    return chain.from_iterable(run.batches())


#: brings ``[(key, combiner), ...]`` into a table of combiners
MergeInto = Callable[[dict[Any, Any], Iterable[tuple[Any, Any]]], None]
#: bytes of a table that holds a number of rows
Estimate = Callable[[dict[Any, Any], int], int]
#: how many rows the combiners of a batch hold
CountRows = Callable[[Any], int]


@dataclass(frozen=True, slots=True)
class Outgrowing:
    """What becomes of a combiner that alone is too large, where its values can be told apart: they go to disk one after another."""

    #: an empty one on disk like this one
    new: Callable[[Any, Path], Any]
    #: appends a combiner to one on disk; returns the bytes written
    append: Callable[[Any, Any], int]
    #: a combiner as several of at most so many rows; itself where it has no more
    pieces: Callable[[Any, int], Iterable[Any]]


class SpilledTable:
    """A table ``{key: combiner}`` too large for memory: parts of it on disk, merged in the end.

    Parameters
    ----------
    merge
        Merges combiners into a table; of one key in the order in which they were added.
    count_rows, estimate
        What combiners hold, and how many bytes a table of that much takes.
    outgrowing
        For combiners that may be too large for memory each; None: there are none.
    """

    def __init__(
        self,
        runs: Runs,
        environment: TaskEnvironment,
        merge: MergeInto,
        count_rows: CountRows,
        estimate: Estimate,
        outgrowing: Outgrowing | None = None,
        *,
        depth: int = 0,
        outgrown: list[tuple[int, Any, Any]] | None = None,
    ) -> None:
        self._runs = runs
        self._environment = environment
        self._merge = merge
        self._count_rows = count_rows
        self._estimate = estimate
        self._outgrowing = outgrowing
        self._depth = depth
        #: rows whose combiners lie on disk: few, and never written into a run
        self._outgrown: list[tuple[int, Any, Any]] = [] if outgrown is None else outgrown
        self._split = HashSplit(runs, "table", depth)
        self._places = count()

    def add(self, items: Iterable[tuple[Any, Any]]) -> None:
        """Write out what a table holds; keys not seen before come after all that were."""
        self._add((place, key, combiner) for place, (key, combiner) in zip(self._places, items, strict=False))

    def _add(self, rows: Iterable[tuple[int, Any, Any]]) -> None:
        outgrowing = self._outgrowing
        for batch in in_batches(rows, self._environment.check_killed, _WRITTEN_ROWS):
            if outgrowing is None or self._count_rows(map(_KEY_AND_COMBINER, batch)) <= _MOST_VALUES:
                self._split.add(batch)
                continue
            # What is written at once is read at once, beside what is there already.
            waiting: list[tuple[int, Any, Any]] = []
            values = 0
            for place, key, combiner in batch:
                for piece in outgrowing.pieces(combiner, _MOST_VALUES // 4):
                    waiting.append((place, key, piece))
                    values += self._count_rows(((key, piece),))
                    if values >= _MOST_VALUES // 4:
                        self._split.add(waiting)
                        waiting, values = [], 0
            self._split.add(waiting)

    def merged(self) -> Iterator[tuple[int, Any, Any]]:
        """``(place, key, combiner)``, each key once, in the order in which keys were first added."""
        merged = self._merged_parts()
        # All parts were merged by now, so all that have outgrown memory are known.
        return heapq.merge(merged, sorted(self._outgrown, key=_FIRST), key=_FIRST) if self._outgrown else merged

    def _merged_parts(self) -> Iterator[tuple[int, Any, Any]]:
        parts = (self._merged_part(run) for run in self._split.finish() if run is not None)
        return merged_in_order(parts, self._runs, "merged")

    def _merged_part(self, run: Run) -> Iterator[tuple[int, Any, Any]]:
        table: dict[Any, Any] = {}
        places: dict[Any, int] = {}
        row_count = 0
        deeper: SpilledTable | None = None
        large: dict[Any, Any] = {}
        with Reservation(self._environment.memory) as reservation:
            for rows in run.batches():
                self._environment.check_killed()
                batch = self._append_to(large, rows) if large else rows
                combiners = list(map(_KEY_AND_COMBINER, batch))
                self._merge(table, combiners)
                for place, key, _ in batch:
                    places.setdefault(key, place)
                row_count += self._count_rows(combiners)
                if self._depth < DEPTH_LIMIT and not reservation.fits(row_count, self._estimate, table):
                    # Not once rows of it went deeper: they may hold keys of this table too, and are told apart there.
                    if deeper is None and (moved := self._outgrow(table, places, row_count, large)):
                        row_count -= moved
                        self._environment.metrics.memory_spilled_bytes += reservation.release()
                        if reservation.fits(row_count, self._estimate, table):
                            continue
                    if deeper is None:
                        deeper = SpilledTable(
                            self._runs,
                            self._environment,
                            self._merge,
                            self._count_rows,
                            self._estimate,
                            self._outgrowing,
                            depth=self._depth + 1,
                            outgrown=self._outgrown,
                        )
                    deeper._add((places[key], key, combiner) for key, combiner in table.items())
                    table, places, row_count = {}, {}, 0
                    self._environment.metrics.memory_spilled_bytes += reservation.release()
            run.delete()
            if deeper is None:
                yield from ((places[key], key, combiner) for key, combiner in table.items())
                return
            deeper._add((places[key], key, combiner) for key, combiner in table.items())
        table, places = {}, {}
        yield from deeper._merged_parts()

    def _outgrow(self, table: dict[Any, Any], places: dict[Any, int], row_count: int, large: dict[Any, Any]) -> int:
        """Take combiners that no split makes small enough out of a table and put them on disk; returns how many rows that were."""
        if self._outgrowing is None:
            return 0
        counts = {key: self._count_rows(((key, combiner),)) for key, combiner in table.items()}
        moved = 0
        for key in [key for key, rows in counts.items() if rows * LARGE_SHARE >= row_count]:
            combiner = table.pop(key)
            on_disk = large[key] = self._outgrowing.new(combiner, self._environment.spill_directory)
            self._environment.metrics.disk_spilled_bytes += self._outgrowing.append(on_disk, combiner)
            self._outgrown.append((places.pop(key), key, on_disk))
            moved += counts[key]
        return moved

    def _append_to(self, large: dict[Any, Any], batch: list[tuple[int, Any, Any]]) -> list[tuple[int, Any, Any]]:
        """Put what belongs to large combiners there; returns the other rows."""
        assert self._outgrowing is not None
        others = []
        for row in batch:
            on_disk = large.get(row[1])
            if on_disk is None:
                others.append(row)
            else:
                self._environment.metrics.disk_spilled_bytes += self._outgrowing.append(on_disk, row[2])
        return others


class LoadingTable(Generic[_T]):
    """A table that rows are brought into; what it holds goes to disk when memory is refused to it, or wanted by another operation.

    That may be one that makes its rows: then it is between two rows, and may be taken away and begun anew. A context manager: gives its
    memory back.

    Parameters
    ----------
    new, estimate
        Makes an empty one; its size in bytes, with so many rows.
    items
        What it holds as pairs of keys and combiners.
    spilled
        Makes the place on disk, when it is needed.
    """

    def __init__(
        self,
        environment: TaskEnvironment,
        *,
        new: Callable[[], _T],
        estimate: Callable[[_T, int], int],
        items: Callable[[_T], Iterable[tuple[Any, Any]]],
        spilled: Callable[[], SpilledTable],
    ) -> None:
        self._environment = environment
        self._new = new
        self._estimate = estimate
        self._items = items
        self._make_spilled = spilled
        self._reservation = Reservation(environment.memory, self)
        self.table = new()
        self.row_count = 0
        self.spilled: SpilledTable | None = None

    @property
    def held_bytes(self) -> int:
        """What it was granted; see ``task_memory.Consumer``."""
        return self._reservation.held_bytes

    def count(self, rows: int) -> None:
        """So many were brought into it; it may be an empty one afterwards."""
        self.row_count += rows
        if not self._reservation.fits(self.row_count, self._estimate, self.table):
            self.spill()

    def spill(self) -> int:
        """Write out what it holds and begin anew; returns the bytes that are free now."""
        if self.spilled is None:
            self.spilled = self._make_spilled()
        self.spilled.add(self._items(self.table))
        self.table = self._new()
        self.row_count = 0
        freed = self._reservation.release()
        self._environment.metrics.memory_spilled_bytes += freed
        return freed

    def finish(self) -> SpilledTable | None:
        """No more rows come: the place on disk where all of them are, or None while they are in ``table``."""
        self._environment.memory.remove_consumer(self)
        if self.spilled is not None:
            self.spilled.add(self._items(self.table))
            self.table = self._new()
            self._reservation.release()
        return self.spilled

    def __enter__(self) -> LoadingTable[_T]:
        self._environment.memory.add_consumer(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._environment.memory.remove_consumer(self)
        self._reservation.release()
