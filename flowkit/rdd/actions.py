"""Actions: what runs jobs and returns plain values. They block the calling thread; Ctrl-C cancels the job."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from functools import reduce
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar

from flowkit.errors import EmptyRdd
from flowkit.execution.actions import (
    AsRows,
    ExtremeRow,
    FoldRows,
    ForeachPartition,
    ReduceRows,
    SmallestRows,
    TakeRows,
    ToBranch,
    TopRows,
    collect_rows,
    count_equal_rows,
    count_rows,
    drain_rows,
    sum_rows,
)
from flowkit.execution.elements import same
from flowkit.lineage.kernels import AggregationKind, Aggregator, Map, MapPartitions
from flowkit.lineage.partitioners import PlacePartitioner
from flowkit.rdd.base import Base, action
from flowkit.rdd.checks import check_callable, check_int

T = TypeVar("T")
U = TypeVar("U")


class Actions(Base[T]):
    """What starts jobs."""

    __slots__ = ()

    @action
    def collect(self) -> list[T]:
        """All elements, in order.

        Raises
        ------
        errors.ResultTooLarge
            They are larger than ``max_result_bytes``.

        Notes
        -----
        Cost: one job; everything in the driver's memory.

        Examples
        --------
        >>> fc.range(3).collect()
        [0, 1, 2]
        """
        return [row for part in self._run(collect_rows, "collect") for row in part]

    @action
    def count(self) -> int:
        """How many elements there are.

        Notes
        -----
        Cost: one job; computes every element, holds none.

        Examples
        --------
        >>> fc.range(1000).count()
        1000
        """
        return sum(self._run(count_rows, "count"))

    @action
    def take(self, num: int) -> list[T]:
        """The first elements, in order; all of them when there are fewer.

        Parameters
        ----------
        num
            How many; 0 or less gives an empty list.

        Notes
        -----
        Cost: one or more jobs: over the first partition, then over four times as many, or as many more as the number found so
        far lets expect. Computes no more of a partition than it takes.

        Examples
        --------
        >>> fc.range(100).take(3)
        [0, 1, 2]
        """
        return self._take(check_int("num", num), "take")

    def _take(self, num: int, operation: str) -> list[T]:
        found: list[T] = []
        scanned = 0
        while len(found) < num and scanned < self.num_partitions:
            more = _partitions_to_try(scanned, len(found), num)
            chosen = range(scanned, min(scanned + more, self.num_partitions))
            for part in self._run(TakeRows(num - len(found)), operation, chosen):
                found += part
            scanned += len(chosen)
        return found[: max(0, num)]

    @action
    def first(self) -> T:
        """The first element.

        Raises
        ------
        errors.EmptyRdd
            There is none; also a ValueError.

        Notes
        -----
        Cost: as ``take(1)``.

        Examples
        --------
        >>> fc.parallelize(["a", "b"]).first()
        'a'
        """
        for element in self._take(1, "first"):
            return element
        raise EmptyRdd("RDD is empty: there is no first element")

    @action
    def is_empty(self) -> bool:
        """Whether there is no element.

        Notes
        -----
        Cost: as ``take(1)``.

        Examples
        --------
        >>> fc.parallelize([]).is_empty()
        True
        """
        return not self._take(1, "is_empty")

    @action
    def reduce(self, fn: Callable[[T, T], T]) -> T:
        """Merge all elements with a function, in order.

        Parameters
        ----------
        fn
            Associative. Called on executors and, for the partitions' results, on the driver.

        Raises
        ------
        errors.EmptyRdd
            There is nothing to reduce; also a ValueError.

        Notes
        -----
        Cost: one job; holds one element a partition.

        Examples
        --------
        >>> fc.range(5).reduce(lambda x, y: x + y)
        10
        """
        check_callable("fn", fn)
        parts = [value for part in self._run(ReduceRows(fn), "reduce") for value in part]
        if not parts:
            raise EmptyRdd("Can not reduce() empty RDD")
        with self._on_driver("reduce", merge=fn):
            merged: T = reduce(fn, parts)
        return merged

    @action
    def fold(self, zero: T, fn: Callable[[T, T], T]) -> T:
        """Merge all elements, beginning with ``zero``: once in every partition, and once more on the driver.

        Parameters
        ----------
        zero
            Copied deeply for each partition, so that it may be mutable.
        fn
            Associative; may change its first argument.

        Notes
        -----
        Cost: one job.

        Examples
        --------
        >>> fc.parallelize([1, 2, 3], 3).fold(10, lambda x, y: x + y)
        46
        """
        check_callable("fn", fn)
        parts = self._run(FoldRows(zero, fn), "fold")
        with self._on_driver("fold", merge=fn):
            merged: T = reduce(fn, parts, deepcopy(zero))
        return merged

    @action
    def aggregate(self, zero: U, merge_element: Callable[[U, T], U], merge_results: Callable[[U, U], U]) -> U:
        """Fold elements into a copy of ``zero`` in every partition, then the partitions' results into one more.

        Notes
        -----
        Cost: one job.

        Examples
        --------
        >>> fc.range(4).aggregate((0, 0), lambda c, x: (c[0] + x, c[1] + 1), lambda c, d: (c[0] + d[0], c[1] + d[1]))
        (6, 4)
        """
        check_callable("merge_element", merge_element)
        check_callable("merge_results", merge_results)
        parts = self._run(FoldRows(zero, merge_element), "aggregate")
        with self._on_driver("aggregate", merge=merge_results):
            merged: U = reduce(merge_results, parts, deepcopy(zero))
        return merged

    @action
    def sum(self) -> Any:
        """The sum of all elements; 0 of none.

        Notes
        -----
        Cost: one job.

        Examples
        --------
        >>> fc.range(101).sum()
        5050
        """
        parts = self._run(sum_rows, "sum")
        with self._on_driver("sum"):
            return sum(parts)

    @action
    def max(self, key: Callable[[T], Any] | None = None) -> T:
        """The largest element, by ``key(x)`` where given; of equal ones the first.

        Raises
        ------
        errors.EmptyRdd
            There is none; also a ValueError.

        Notes
        -----
        Cost: one job.

        Examples
        --------
        >>> fc.parallelize(["a", "ccc", "bb"]).max(key=len)
        'ccc'
        """
        return self._extreme(max, "max", key)

    @action
    def min(self, key: Callable[[T], Any] | None = None) -> T:
        """The smallest element, by ``key(x)`` where given; of equal ones the first.

        Raises
        ------
        errors.EmptyRdd
            There is none; also a ValueError.

        Notes
        -----
        Cost: one job.

        Examples
        --------
        >>> fc.parallelize([3, 1, 2]).min()
        1
        """
        return self._extreme(min, "min", key)

    def _extreme(self, choose: Callable[..., Any], operation: str, key: Callable[[T], Any] | None) -> T:
        if key is not None:
            check_callable("key", key)
        parts = [value for part in self._run(ExtremeRow(choose, key), operation) for value in part]
        if not parts:
            raise EmptyRdd(f"{operation}() of an empty RDD")
        with self._on_driver(operation, key=key):
            chosen: T = choose(parts, key=key)
        return chosen

    @action
    def top(self, num: int, key: Callable[[T], Any] | None = None) -> list[T]:
        """The ``num`` largest elements, by ``key(x)`` where given, largest first.

        Notes
        -----
        Cost: one job; holds ``num`` elements a partition.

        Examples
        --------
        >>> fc.parallelize([2, 9, 4]).top(2)
        [9, 4]
        """
        if key is not None:
            check_callable("key", key)
        limit = max(0, check_int("num", num))
        parts = self._run(TopRows(limit, key), "top")
        with self._on_driver("top", key=key):
            largest: list[T] = heapq.nlargest(limit, chain.from_iterable(parts), key=key)
        return largest

    @action
    def take_ordered(self, num: int, key: Callable[[T], Any] | None = None) -> list[T]:
        """The ``num`` smallest elements, by ``key(x)`` where given, smallest first.

        Notes
        -----
        Cost: one job; holds ``num`` elements a partition.

        Examples
        --------
        >>> fc.parallelize([2, 9, 4]).take_ordered(2)
        [2, 4]
        """
        if key is not None:
            check_callable("key", key)
        limit = check_int("num", num, least=0)
        parts = self._run(SmallestRows(limit, key), "take_ordered")
        with self._on_driver("take_ordered", key=key):
            smallest: list[T] = heapq.nsmallest(limit, chain.from_iterable(parts), key=key)
        return smallest

    @action
    def count_by_value(self) -> dict[T, int]:
        """How often each element is there.

        Raises
        ------
        TypeError
            In the task, when an element is not hashable.

        Notes
        -----
        Cost: one job; the distinct elements of each partition go to the driver, which holds all of them. For many of them,
        ``map(lambda x: (x, 1)).reduce_by_key(add)`` stays on the cluster.

        Examples
        --------
        >>> fc.parallelize(["a", "b", "a"]).count_by_value()
        {'a': 2, 'b': 1}
        """
        parts = self._run(count_equal_rows, "count_by_value")
        with self._on_driver("count_by_value"):
            return _added_up(parts)

    @action
    def tree_reduce(self, fn: Callable[[T, T], T], depth: int = 2) -> T:
        """Merge all elements with a function, in order, in several rounds on executors; the driver merges few.

        Parameters
        ----------
        fn
            Associative.
        depth
            Rounds, 1 or more; 1 is what ``reduce`` does. About the ``depth``-th root of the partitions reaches the driver.

        Raises
        ------
        errors.EmptyRdd
            There is nothing to reduce; also a ValueError.

        Notes
        -----
        Cost: one job of up to ``depth`` stages, with a shuffle of one element a partition between them. Worth it when partial
        results are large or merging them is slow.

        Examples
        --------
        >>> fc.range(100, num_partitions=20).tree_reduce(lambda x, y: x + y)
        4950
        """
        check_callable("fn", fn)
        rounds = check_int("depth", depth, least=1)
        parts = self._tree(ReduceRows(fn), fn, rounds, "tree_reduce", one=False)
        if not parts:
            raise EmptyRdd("tree_reduce() of an empty RDD")
        with self._on_driver("tree_reduce", merge=fn):
            merged: T = reduce(fn, parts)
        return merged

    @action
    def tree_aggregate(
        self, zero: U, merge_element: Callable[[U, T], U], merge_results: Callable[[U, U], U], depth: int = 2
    ) -> U:
        """Fold elements into a copy of ``zero`` in every partition, then merge the results in several rounds on executors.

        Parameters
        ----------
        zero
            Used once a partition, and not on the driver (as in PySpark, and other than in ``aggregate``); copied deeply.
        merge_element, merge_results
            As in ``aggregate``; results are merged in the order of partitions.
        depth
            As in ``tree_reduce``.

        Notes
        -----
        Cost: as ``tree_reduce``.

        Examples
        --------
        >>> fc.range(100, num_partitions=20).tree_aggregate(0, lambda c, x: c + 1, lambda c, d: c + d)
        100
        """
        check_callable("merge_element", merge_element)
        check_callable("merge_results", merge_results)
        rounds = check_int("depth", depth, least=1)
        parts = self._tree(FoldRows(zero, merge_element), merge_results, rounds, "tree_aggregate", one=True)
        with self._on_driver("tree_aggregate", merge=merge_results):
            merged: U = reduce(merge_results, parts) if parts else deepcopy(zero)
        return merged

    def _tree(
        self,
        action: Callable[[int, Iterator[Any]], Any],
        merge: Callable[[Any, Any], Any],
        depth: int,
        operation: str,
        *,
        one: bool,
    ) -> list[Any]:
        """Partial results merged until few are left; those, in order."""
        parts = self._narrow(MapPartitions(AsRows(action, one), indexed=True), operation)
        aggregator = Aggregator(same, merge, merge, AggregationKind.REDUCE)
        fan_in = max(2, math.ceil(self.num_partitions ** (1 / depth)))
        # A further round must leave fewer than it adds.
        while (count := parts.num_partitions) > fan_in + count / fan_in:
            branches = max(1, count // fan_in)
            branched = parts._narrow(MapPartitions(ToBranch(count, branches), indexed=True), operation)
            merged = branched._by_key(operation, PlacePartitioner(branches), aggregator)
            parts = merged._narrow(Map(itemgetter(1)), operation)
        return [row for part in parts._run(collect_rows, operation) for row in part]

    @action
    def foreach(self, fn: Callable[[T], object]) -> None:
        """Call a function for every element, on executors, for its effect; what it returns is dropped.

        Notes
        -----
        Cost: one job. A task that is retried calls ``fn`` again for elements it was called for before.

        Examples
        --------
        >>> fc.range(3).foreach(lambda row: None)  # send it somewhere, say
        """
        check_callable("fn", fn)
        self._narrow(Map(fn), "foreach")._run(drain_rows, "foreach")

    @action
    def foreach_partition(self, fn: Callable[[Iterator[T]], object]) -> None:
        """Call a function once a partition with an iterator over it, for its effect.

        Notes
        -----
        Cost: one job.

        Examples
        --------
        >>> fc.range(3).foreach_partition(list)
        """
        check_callable("fn", fn)
        self._run(ForeachPartition(fn), "foreach_partition")


def _added_up(counts: Iterable[dict[Any, int]]) -> dict[Any, int]:
    total: Counter[Any] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


def _partitions_to_try(scanned: int, found: int, wanted: int) -> int:
    """How many partitions ``take`` looks at next, as PySpark's does: one, then four times as many, or by interpolation.

    >>> _partitions_to_try(0, 0, 10), _partitions_to_try(1, 0, 10), _partitions_to_try(4, 2, 10)
    (1, 4, 16)
    """
    if scanned == 0:
        return 1
    if found == 0:
        return scanned * 4
    expected = int(1.5 * wanted * scanned / found) - scanned
    return min(max(expected, 1), scanned * 4)
