"""What actions do with one partition: small picklable callables ``(partition index, iterator) -> partial result``.

Run on slot threads; shipped with the last stage of a job. Each drains its iterator at C speed where the answer allows.
"""

from __future__ import annotations

import contextlib
import copy
import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import chain, count, islice
from operator import itemgetter
from typing import Any

from flowkit.errors import InternalError
from flowkit.execution.records import explain_bad_pairs
from flowkit.lineage.partitioners import PartitionSample, sample_partition
from flowkit.storage.blocks.held_rows import Access


def collect_rows(_partition: int, rows: Iterator[Any]) -> list[Any]:
    """All rows."""
    return list(rows)


def count_rows(_partition: int, rows: Iterator[Any]) -> int:
    """How many rows.

    >>> count_rows(0, iter("abc"))
    3
    """
    counter = count()
    deque(zip(rows, counter, strict=False), maxlen=0)
    return next(counter)


def sum_rows(_partition: int, rows: Iterator[Any]) -> Any:
    """Their sum."""
    return sum(rows)


def drain_rows(_partition: int, rows: Iterator[Any]) -> None:
    """Nothing; every row was looked at."""
    deque(rows, maxlen=0)


def keep_rows(_partition: int, rows: Iterator[Any]) -> None:
    """Nothing; every row was computed, and is kept. As ``drain_rows``, but of whole partitions: pieces of one are not kept."""
    deque(rows, maxlen=0)


def access_of(fn: Callable[[int, Iterator[Any]], Any]) -> Access:
    """Return what an action's function does with rows; what is not known here may change them.

    >>> access_of(count_rows), access_of(collect_rows), access_of(ReduceRows(max))
    (<Access.COUNT: 'count'>, <Access.AS_HELD: 'as held'>, <Access.OWN: 'own'>)
    """
    if any(fn is each for each in (count_rows, drain_rows, keep_rows)):
        return Access.COUNT
    # What these return is pickled at once.
    return Access.AS_HELD if fn is collect_rows or isinstance(fn, TakeRows) else Access.OWN


def joiner_of(fn: Callable[[int, Iterator[Any]], Any]) -> Callable[[list[Any]], Any] | None:
    """How what a function says of pieces of a partition becomes what it says of the whole; None: it must see the whole.

    >>> joiner_of(count_rows)([2, 3]), joiner_of(sum_rows)
    (5, None)
    """
    return next((joined for each, joined in _JOINERS if each is fn), None)


_JOINERS: tuple[tuple[Callable[[int, Iterator[Any]], Any], Callable[[list[Any]], Any]], ...] = (
    (collect_rows, lambda parts: list(chain.from_iterable(parts))),
    (count_rows, sum),
    (drain_rows, lambda _parts: None),
)


@dataclass(frozen=True, slots=True)
class TakeRows:
    """The first ``limit`` rows; no more are computed."""

    limit: int

    def __call__(self, _partition: int, rows: Iterator[Any]) -> list[Any]:
        return list(islice(rows, self.limit))


@dataclass(frozen=True, slots=True)
class ReduceRows:
    """``[fn(fn(a, b), c)...]``, empty for a partition without rows."""

    fn: Callable[[Any, Any], Any]

    def __call__(self, _partition: int, rows: Iterator[Any]) -> list[Any]:
        for first in rows:
            return [reduce(self.fn, rows, first)]
        return []


@dataclass(frozen=True, slots=True)
class FoldRows:
    """``fn(fn(zero, a), b)...`` from a copy of zero: two partitions never share a mutable one."""

    zero: Any
    fn: Callable[[Any, Any], Any]

    def __call__(self, _partition: int, rows: Iterator[Any]) -> Any:
        return reduce(self.fn, rows, copy.deepcopy(self.zero))


@dataclass(frozen=True, slots=True)
class ExtremeRow:
    """``[max(rows)]`` or ``[min(rows)]``, empty for a partition without rows."""

    choose: Callable[..., Any]
    key: Callable[[Any], Any] | None

    def __call__(self, _partition: int, rows: Iterator[Any]) -> list[Any]:
        for first in rows:
            return [self.choose(chain((first,), rows), key=self.key)]
        return []


@dataclass(frozen=True, slots=True)
class TopRows:
    """The ``limit`` largest rows, largest first."""

    limit: int
    key: Callable[[Any], Any] | None

    def __call__(self, _partition: int, rows: Iterator[Any]) -> list[Any]:
        return heapq.nlargest(self.limit, rows, key=self.key)


@dataclass(frozen=True, slots=True)
class SmallestRows:
    """The ``limit`` smallest rows, smallest first."""

    limit: int
    key: Callable[[Any], Any] | None

    def __call__(self, _partition: int, rows: Iterator[Any]) -> list[Any]:
        return heapq.nsmallest(self.limit, rows, key=self.key)


def count_equal_rows(_partition: int, rows: Iterator[Any]) -> dict[Any, int]:
    """``{row: how many equal it}``, in the order in which they were first seen."""
    return dict(Counter(rows))


@contextlib.contextmanager
def pairs_only(operation: str) -> Iterator[None]:
    """Around a loop over rows that takes ``row`` apart: one that is no pair, or whose key cannot be hashed, is named."""
    try:
        yield
    except (TypeError, ValueError) as error:
        explain_bad_pairs((), error, operation)
        raise


def merged_map(parts: Iterable[list[tuple[Any, Any]]]) -> dict[Any, Any]:
    """Lists of pairs as one dict; of several values of a key the last one counts."""
    merged: dict[Any, Any] = {}
    for part in parts:
        try:
            merged.update(part)
        except (TypeError, ValueError) as error:
            explain_bad_pairs(part, error, "collect_as_map")
            raise
    return merged


def count_equal_keys(_partition: int, rows: Iterator[Any]) -> dict[Any, int]:
    """``{key: how many pairs have it}``."""
    counts: Counter[Any] = Counter()
    with pairs_only("count_by_key"):
        counts.update(_keys(rows))
    return dict(counts)


def _keys(rows: Iterator[Any]) -> Iterator[Any]:
    for row in rows:
        key, _ = row
        yield key


@dataclass(frozen=True, slots=True)
class ValuesOfKey:
    """The values of pairs whose key equals one."""

    key: Any

    def __call__(self, _partition: int, rows: Iterator[Any]) -> list[Any]:
        wanted = self.key
        found = []
        with pairs_only("lookup"):
            for row in rows:
                key, value = row
                if key == wanted:
                    found.append(value)
        return found


@dataclass(frozen=True, slots=True)
class ReduceByKey:
    """``{key: its values merged}``."""

    fn: Callable[[Any, Any], Any]

    def __call__(self, _partition: int, rows: Iterator[Any]) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        with pairs_only("reduce_by_key_locally"):
            for row in rows:
                key, value = row
                merged[key] = self.fn(merged[key], value) if key in merged else value
        return merged


@dataclass(frozen=True, slots=True)
class AsRows:
    """Rows made of a partial result: what a tree merges next. ``one``: the result is a row; else it is a list of rows."""

    action: Callable[[int, Iterator[Any]], Any]
    one: bool

    def __call__(self, partition: int, rows: Iterator[Any]) -> list[Any]:
        result = self.action(partition, rows)
        return [result] if self.one else result


@dataclass(frozen=True, slots=True)
class ToBranch:
    """``(branch, row)``: neighbours of ``partitions`` go to the same of ``branches``, so that their order is kept."""

    partitions: int
    branches: int

    def __call__(self, partition: int, rows: Iterator[Any]) -> Iterator[tuple[int, Any]]:
        branch = partition * self.branches // self.partitions
        return ((branch, row) for row in rows)


@dataclass(frozen=True, slots=True)
class ForeachPartition:
    """``fn(rows)``; what it returns is dropped."""

    fn: Callable[[Iterator[Any]], object]

    def __call__(self, _partition: int, rows: Iterator[Any]) -> None:
        self.fn(rows)


@dataclass(frozen=True, slots=True)
class SampleKeys:
    """How many pairs there are, and a uniform sample of their keys (of ``key(k)``)."""

    size: int
    key: Callable[[Any], Any] | None

    def __call__(self, partition: int, rows: Iterator[Any]) -> PartitionSample:
        sample = sample_partition(list(map(itemgetter(0), rows)), self.size, seed=partition)
        return sample if self.key is None else PartitionSample(sample.count, [self.key(each) for each in sample.keys])


@dataclass(slots=True)
class NumberRows:
    """``(row, index)``; where each partition begins is found out by a job before this travels."""

    starts: list[int] | None = None

    def __fingerprint__(self) -> tuple[()]:
        return ()  # they follow from the rows

    def __call__(self, partition: int, rows: Iterator[Any]) -> Iterable[tuple[Any, int]]:
        if self.starts is None:
            raise InternalError("rows were to be numbered before partitions were counted")
        return zip(rows, count(self.starts[partition]), strict=False)
