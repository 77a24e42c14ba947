"""A cached partition in memory: as objects, of which each reader has its own, or as encoded batches.

Runs in executors, on slot threads. Filled by one thread; read by any number of them once it is full.

Rows held as objects are of three sorts, one after the other as they come:

- immutable ones are handed out as they are;
- rows that have a shape (``row_shapes``) lie in columns, and a reader has copies of what can be changed in them;
- all others are pickled, and a reader has them unpickled.

Rows are copied when they come, too: whoever made them may still refer to them. What rows share with one another they do not share
when they are read; within a row it stays shared. ``by_reference`` holds all rows as they are, and hands out the very same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain, islice, repeat
from typing import Any, Protocol

from flowkit.model.storage_level import StorageLevel
from flowkit.storage.blocks.block_pieces import BATCH_BYTES, FIRST_ROWS, MOST_ROWS, rows_of
from flowkit.storage.blocks.row_shapes import IMMUTABLE, Shape, take_apart
from flowkit.storage.memory.size_estimate import BATCH_SAMPLE, estimate_batch
from flowkit.storage.serializers import decode_batch, encode_batch, encode_pickled


class Access(Enum):
    """What a reader does with rows."""

    #: it may change them, or hand them to a user's function: what can be changed is the reader's own
    OWN = "own"
    #: it changes none, and no user's function sees them: rows come as they are held
    AS_HELD = "as held"
    #: it looks at none: as many values as there are rows, whatever they are
    COUNT = "count"


class RowsNotPicklable(Exception):
    """Rows can be changed by whoever reads them, and can be neither copied nor pickled."""


class Held(Protocol):
    """A partition's rows in memory."""

    def add(self, rows: list[Any]) -> None:
        """Take in the next rows. Raises ``RowsNotPicklable``, and has taken in none of them then."""
        ...

    def next_count(self, rows: list[Any]) -> int:
        """Return how many rows to add next, after these."""
        ...

    def size_bytes(self) -> int:
        """Return the bytes that all of it takes: estimated for objects, counted for what is encoded."""
        ...

    def rows(self, access: Access = Access.OWN) -> Iterator[Any]:
        """Return all rows."""
        ...

    def batches(self) -> Iterator[list[Any]]:
        """Return all rows as they are held, in batches."""
        ...

    def drained(self) -> Iterator[list[Any]]:
        """Return all rows as they are held, in batches that are let go of as they are taken. Nobody else may read from then on."""
        ...

    def __len__(self) -> int:
        """Return the position after the last batch, for ``encoded_at``."""
        ...

    def encoded_at(self, position: int) -> tuple[bytes, int]:
        """Return the encoded batch at a position, and the position of the next one. 0 is the first."""
        ...


def held_as(level: StorageLevel) -> Held:
    """Return room for a partition that is held as a level says."""
    return HeldRows(by_reference=level.by_reference) if level.deserialized else HeldBatches()


class HeldBatches:
    """Encoded batches."""

    __slots__ = ("_batches", "_size_bytes")

    def __init__(self) -> None:
        self._batches: list[bytes] = []
        self._size_bytes = 0

    def add(self, rows: list[Any]) -> None:
        """See ``Held``. Raises ``TypeError`` for rows that cannot be encoded."""
        self._batches.append(encode_batch(rows))
        self._size_bytes += len(self._batches[-1])

    def next_count(self, rows: list[Any]) -> int:
        """See ``Held``."""
        return rows_of(BATCH_BYTES, rows)

    def size_bytes(self) -> int:
        """See ``Held``."""
        return self._size_bytes

    def rows(self, access: Access = Access.OWN) -> Iterator[Any]:
        """See ``Held``; decoded anew for each reader."""
        return chain.from_iterable(self.batches())

    def batches(self) -> Iterator[list[Any]]:
        """See ``Held``."""
        return map(decode_batch, self._batches)

    def drained(self) -> Iterator[list[Any]]:
        """See ``Held``."""
        waiting, self._batches = deque(self._batches), []
        return map(decode_batch, _popped(waiting))

    def __len__(self) -> int:
        """See ``Held``: how many batches."""
        return len(self._batches)

    def encoded_at(self, position: int) -> tuple[bytes, int]:
        """See ``Held``; a position is a batch's number."""
        return self._batches[position], position + 1


class HeldRows:
    """Rows as objects, in runs of one sort each."""

    __slots__ = ("_by_reference", "_earlier_bytes", "_runs")

    def __init__(self, *, by_reference: bool = False) -> None:
        self._by_reference = by_reference
        self._runs: list[_Objects | _Columns | _Pickled] = []
        #: of all runs but the last, to which rows are added
        self._earlier_bytes = 0

    def add(self, rows: list[Any]) -> None:
        """See ``Held``."""
        run = _Objects(rows) if self._by_reference else _run_of(rows, is_first=not self._runs)
        if self._runs and self._runs[-1].took_in(run):
            return
        if self._runs:
            self._earlier_bytes += self._runs[-1].size_bytes()
        self._runs.append(run)

    def next_count(self, rows: list[Any]) -> int:
        """See ``Held``."""
        if isinstance(self._runs[-1], _Pickled):
            return rows_of(BATCH_BYTES, rows)
        return min(MOST_ROWS, max(BATCH_SAMPLE, len(self)))

    def size_bytes(self) -> int:
        """See ``Held``."""
        return self._earlier_bytes + self._runs[-1].size_bytes() if self._runs else 0

    def rows(self, access: Access = Access.OWN) -> Iterator[Any]:
        """See ``Held``."""
        runs = self._runs
        if len(runs) == 1:
            return runs[0].rows(access)
        return chain.from_iterable(run.rows(access) for run in runs)

    def batches(self) -> Iterator[list[Any]]:
        """See ``Held``."""
        return chain.from_iterable(run.batches() for run in self._runs)

    def drained(self) -> Iterator[list[Any]]:
        """See ``Held``."""
        waiting, self._runs = deque(self._runs), []
        return chain.from_iterable(run.batches() for run in _popped(waiting))

    def __len__(self) -> int:
        """See ``Held``: how many rows."""
        return sum(map(len, self._runs))

    def encoded_at(self, position: int) -> tuple[bytes, int]:
        """See ``Held``; a position is a row's number."""
        begin = 0
        for run in self._runs:
            if position < begin + len(run):
                encoded, count = run.encoded_at(position - begin)
                return encoded, position + count
            begin += len(run)
        raise IndexError(position)


def _popped(waiting: deque[Any]) -> Iterator[Any]:
    while waiting:
        yield waiting.popleft()


def _run_of(rows: list[Any], *, is_first: bool) -> _Objects | _Columns | _Pickled:
    found = take_apart(rows)
    if found is not None:
        return _Objects(rows) if found.shape == IMMUTABLE else _Columns(found.shape, found.copied())
    try:
        encoded = encode_pickled(rows)
        if is_first:  # few rows: what cannot be unpickled, such as exceptions that want more arguments, is found out here
            decode_batch(encoded)
    except MemoryError:
        raise
    except Exception as error:
        raise RowsNotPicklable(str(error)) from error
    return _Pickled([encoded], [len(rows)])


# -- runs --------------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Objects:
    """Rows that are handed out as they are."""

    held: list[Any]

    def __len__(self) -> int:
        return len(self.held)

    def took_in(self, other: object) -> bool:
        if not isinstance(other, _Objects):
            return False
        self.held += other.held
        return True

    def size_bytes(self) -> int:
        return estimate_batch(self.held)

    def rows(self, access: Access) -> Iterator[Any]:
        return iter(self.held)

    def part(self, start: int, stop: int) -> list[Any]:
        return self.held[start:stop]

    def batches(self) -> Iterator[list[Any]]:
        return _parts(len(self), self.part)

    def encoded_at(self, position: int) -> tuple[bytes, int]:
        return _encoded_part(position, self.part)


@dataclass(slots=True, eq=False)
class _Columns:
    """Rows of one shape, in columns."""

    shape: Shape
    columns: list[list[Any]]

    def __len__(self) -> int:
        return len(self.columns[0])

    def took_in(self, other: object) -> bool:
        if not isinstance(other, _Columns) or other.shape != self.shape:
            return False
        for column, more in zip(self.columns, other.columns, strict=True):
            column.extend(more)
        return True

    def size_bytes(self) -> int:
        return sum(map(estimate_batch, self.columns))

    def rows(self, access: Access) -> Iterator[Any]:
        return self.shape.values(self.columns, copied=access is Access.OWN)

    def part(self, start: int, stop: int) -> list[Any]:
        return list(self.shape.values((column[start:stop] for column in self.columns), copied=False))

    def batches(self) -> Iterator[list[Any]]:
        return _parts(len(self), self.part)

    def encoded_at(self, position: int) -> tuple[bytes, int]:
        return _encoded_part(position, self.part)


@dataclass(slots=True, eq=False)
class _Pickled:
    """Pickled batches of rows."""

    encoded: list[bytes]
    #: how many rows there are up to the end of each batch
    ends: list[int]
    encoded_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.encoded_bytes = sum(map(len, self.encoded))

    def __len__(self) -> int:
        return self.ends[-1]

    def took_in(self, other: object) -> bool:
        if not isinstance(other, _Pickled):
            return False
        before = len(self)
        self.encoded += other.encoded
        self.ends += [before + end for end in other.ends]
        self.encoded_bytes += other.encoded_bytes
        return True

    def size_bytes(self) -> int:
        return self.encoded_bytes

    def rows(self, access: Access) -> Iterator[Any]:
        return repeat(None, len(self)) if access is Access.COUNT else chain.from_iterable(self.batches())

    def batches(self) -> Iterator[list[Any]]:
        return map(decode_batch, self.encoded)

    def encoded_at(self, position: int) -> tuple[bytes, int]:
        index = bisect_right(self.ends, position)
        return self.encoded[index], self.ends[index] - position


def _parts(count: int, part: Callable[[int, int], list[Any]]) -> Iterator[list[Any]]:
    start, size = 0, FIRST_ROWS
    while start < count:
        batch = part(start, start + size)
        yield batch
        start += len(batch)
        size = rows_of(BATCH_BYTES, batch)


def _encoded_part(position: int, part: Callable[[int, int], list[Any]]) -> tuple[bytes, int]:
    rows = part(position, position + FIRST_ROWS)
    rows = part(position, position + rows_of(BATCH_BYTES, rows))
    return encode_batch(rows), len(rows)


def batched(rows: Iterator[Any], check_killed: Callable[[], None] | None = None) -> Iterator[list[Any]]:
    """Return rows in batches of about a megabyte."""
    next_rows = FIRST_ROWS
    while batch := list(islice(rows, next_rows)):
        if check_killed is not None:
            check_killed()
        yield batch
        next_rows = rows_of(BATCH_BYTES, batch)
