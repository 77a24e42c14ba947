"""Sorting and grouping where all keys are plain ints or plain floats: whole columns by numpy, rows made once and in their final order.

Runs on slot threads. What was shuffled arrives as columns, and bare numbers stay bare: a sort then moves 8 bytes a key instead of
comparing objects, and rows come to lie in memory in the order in which they are used (rows that were sorted as objects lie
scattered, and whoever iterates them waits for memory: measured at half a microsecond a row). Keys of other types, NaN, and what
does not fit into memory go on as rows, to ``sort`` and ``aggregate``; results are the same either way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from flowkit.execution.environment import TaskEnvironment
from flowkit.execution.spill import Reservation
from flowkit.storage.memory.size_estimate import estimate_batch
from flowkit.storage.serializers import PairColumns, as_list

if TYPE_CHECKING:
    from numpy.typing import NDArray

Pairs = Iterable[tuple[Any, Any]]
#: does the same with rows, and spills
ByRows = Callable[[Iterator[list[tuple[Any, Any]]]], Iterator[tuple[Any, Any]]]

#: rows made at once: few enough to stay in the processor's cache until they are used
_ROWS_AT_ONCE = 4096
#: bytes a row needs besides its columns: joined columns, an order, and positions made from it
_WORK_BYTES = 48


def sort_columns(
    batches: Iterator[PairColumns], environment: TaskEnvironment, by_rows: ByRows, *, descending: bool
) -> Iterator[tuple[Any, Any]]:
    """All pairs in the order of their keys; equal keys keep the order of arrival."""
    return chain.from_iterable(_sorted(batches, environment, by_rows, descending))


def group_columns(batches: Iterator[PairColumns], environment: TaskEnvironment, by_rows: ByRows) -> Iterator[tuple[Any, Any]]:
    """``(key, [values])``: each key once, in the order in which they were first seen, values in the order of arrival."""
    return chain.from_iterable(_grouped(batches, environment, by_rows))


def stable_order(numbers: NDArray[Any]) -> NDArray[np.intp]:
    """Positions of the numbers in ascending order; equal ones keep theirs. No NaN.

    By 16 bits at a time, lowest first (LSD radix sort): numpy sorts 16-bit integers by radix, which makes this ten times as fast
    as its stable sort of 64-bit ones.

    >>> stable_order(np.array([3, -1, 3, 2])).tolist()
    [1, 3, 0, 2]
    """
    if not len(numbers):
        return np.empty(0, np.intp)
    digits = _ordered_bits(numbers)
    digits -= digits.min()
    greatest = int(digits.max())
    order = np.argsort(digits.astype(np.uint16), kind="stable")
    shift = 16
    while greatest >> shift:
        upper = (digits >> np.uint64(shift)).astype(np.uint16)
        order = order[np.argsort(upper[order], kind="stable")]
        shift += 16
    return order


def _ordered_bits(numbers: NDArray[Any]) -> NDArray[np.uint64]:
    """Unsigned integers of the numbers' order."""
    sign = np.uint64(1 << 63)
    if numbers.dtype.kind == "f":
        # IEEE 754 orders magnitudes as integers do; negative ones the other way round. Zero is added so that -0.0 equals 0.0.
        bits = (numbers + 0.0).view(np.uint64)
        return np.where(bits & sign, ~bits, bits | sign)
    return numbers.astype(np.int64).view(np.uint64) ^ sign


# -- what is common to both ---------------------------------------------------------------------------------------------


class _Held:
    """Columns taken in as long as keys are numbers of one kind and memory is granted."""

    def __init__(self, batches: Iterator[PairColumns], reservation: Reservation) -> None:
        self._batches: deque[PairColumns] = deque()
        self._rest = batches
        row_count = object_bytes = 0
        kinds: set[str | None] = set()
        for batch in batches:
            self._batches.append(batch)
            row_count += len(batch.keys)
            object_bytes += _object_bytes(batch)
            kinds.add(batch.keys.dtype.kind if isinstance(batch.keys, np.ndarray) else None)
            if len(kinds) > 1 or None in kinds or not reservation.fits(row_count, _estimate, object_bytes):
                self.complete = False
                return
        self.complete = bool(kinds)
        if self.complete:
            self.keys: NDArray[Any] = np.concatenate([each.keys for each in self._batches])
            self.complete = self.keys.dtype.kind != "f" or not np.isnan(self.keys).any()

    def take_values(self) -> NDArray[Any]:
        """All values as one array, of objects unless all are ints or all are floats; batches are let go of."""
        columns = [each.values for each in self._batches]
        self._batches.clear()
        if {column.dtype.kind if isinstance(column, np.ndarray) else None for column in columns} in ({"i"}, {"f"}):
            return np.concatenate(columns)
        values = np.empty(len(self.keys), object)
        start = 0
        for column in columns:
            values[start : start + len(column)] = np.fromiter(as_list(column), object, len(column))
            start += len(column)
        return values

    def rows(self) -> Iterator[list[tuple[Any, Any]]]:
        """Everything as rows: what was taken in, which is let go of batch by batch, and what was not."""
        while self._batches:
            yield self._batches.popleft().rows()
        for batch in self._rest:
            yield batch.rows()


def _object_bytes(batch: PairColumns) -> int:
    return sum(
        column.nbytes if isinstance(column, np.ndarray) else estimate_batch(column) for column in (batch.keys, batch.values)
    )


def _estimate(object_bytes: int, row_count: int) -> int:
    return object_bytes + _WORK_BYTES * row_count


# -- sort ---------------------------------------------------------------------------------------------------------------


def _sorted(batches: Iterator[PairColumns], environment: TaskEnvironment, by_rows: ByRows, descending: bool) -> Iterator[Pairs]:
    with Reservation(environment.memory) as reservation:
        held = _Held(batches, reservation)
        if held.complete:
            keys, values = held.keys, held.take_values()
            # Turned round by their sign, not by reading backwards, which would turn equal keys round as well.
            order = stable_order(keys if not descending else -keys if keys.dtype.kind == "f" else ~keys)
            for start in range(0, len(order), _ROWS_AT_ONCE):
                environment.check_killed()
                part = order[start : start + _ROWS_AT_ONCE]
                yield zip(keys[part].tolist(), values[part].tolist(), strict=True)
            return
    yield by_rows(held.rows())


# -- group --------------------------------------------------------------------------------------------------------------


def _grouped(batches: Iterator[PairColumns], environment: TaskEnvironment, by_rows: ByRows) -> Iterator[Pairs]:
    with Reservation(environment.memory) as reservation:
        held = _Held(batches, reservation)
        if held.complete:
            keys, ends, positions = _groups(held.keys)
            values = held.take_values()
            for first, last in _spans(ends):
                environment.check_killed()
                start = int(ends[first - 1]) if first else 0
                made = values[positions[start : ends[last - 1]]].tolist()
                cuts = [0, *(ends[first:last] - start).tolist()]
                yield zip(keys[first:last].tolist(), [made[a:b] for a, b in pairwise(cuts)], strict=True)
            return
    yield by_rows(held.rows())


def _groups(keys: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp], NDArray[np.intp]]:
    """Different keys in the order of their first places, where each one's rows end, and the rows' positions, group by group."""
    order = stable_order(keys)
    in_order = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], in_order[1:] != in_order[:-1])))
    lengths = np.diff(starts, append=len(keys))
    by_first_seen = stable_order(order[starts])
    starts, lengths = starts[by_first_seen], lengths[by_first_seen]
    ends = np.cumsum(lengths)
    positions = order[np.repeat(starts - (ends - lengths), lengths) + np.arange(len(keys))]
    return keys[order[starts]], ends, positions


def _spans(ends: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Consecutive groups of about ``_ROWS_AT_ONCE`` rows together, at least one."""
    first = 0
    while first < len(ends):
        done = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _ROWS_AT_ONCE, side="right")))
        yield first, last
        first = last
