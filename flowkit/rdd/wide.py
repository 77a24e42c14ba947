"""Transformations of any elements that need a shuffle. Lazy; run on the driver."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from flowkit.execution.elements import Keyed, appended, extended, listed, nothing, with_none
from flowkit.lineage.kernels import AggregationKind, Aggregator, JoinKind, Map
from flowkit.lineage.partitioners import HashPartitioner, Partitioner
from flowkit.rdd.base import Base
from flowkit.rdd.checks import check_callable, check_int
from flowkit.rdd.sorting import sorted_by_key

if TYPE_CHECKING:
    from flowkit.rdd.rdd import RDD

T = TypeVar("T")
K = TypeVar("K")


class Wide(Base[T]):
    """Shuffles of whole elements."""

    __slots__ = ()

    def distinct(self, num_partitions: int | None = None) -> RDD[T]:
        """Each element once.

        Parameters
        ----------
        num_partitions
            1 or more; None: ``default_parallelism`` where it is set, else as many as this RDD has.

        Raises
        ------
        TypeError
            In the task, when an element is not hashable.

        Notes
        -----
        Cost: a shuffle, of each partition's distinct elements; holds those of one partition, spilled beyond its memory.

        Examples
        --------
        >>> sorted(fc.parallelize([1, 1.0, 2, True]).distinct().collect())
        [1, 2]
        """
        pairs = self._narrow(Map(with_none), "distinct")
        aggregator = Aggregator(nothing, nothing, nothing, AggregationKind.DISTINCT)
        by_key = pairs._by_key("distinct", pairs._hash_partitioner(num_partitions), aggregator)
        return by_key._narrow(Map(itemgetter(0)), "distinct")  # type: ignore[no-any-return]

    def intersection(self, other: RDD[T], num_partitions: int | None = None) -> RDD[T]:
        """Each element that both have, once.

        Notes
        -----
        Cost: a shuffle of each side's distinct elements.

        Examples
        --------
        >>> sorted(fc.parallelize([1, 1, 2, 3]).intersection(fc.parallelize([3, 1, 4])).collect())
        [1, 3]
        """
        partitioner = self._partitioner_of_both(other, num_partitions)
        mine, theirs = (each._distinct_keys("intersection", partitioner) for each in (self, other))
        return mine._joined("intersection", JoinKind.INNER, theirs, None)._narrow(Map(itemgetter(0)), "intersection")  # type: ignore[no-any-return]

    def subtract(self, other: RDD[T], num_partitions: int | None = None) -> RDD[T]:
        """Elements that the other one has not; duplicates are kept.

        Notes
        -----
        Cost: a shuffle of this RDD and of the other one's distinct elements.

        Examples
        --------
        >>> sorted(fc.parallelize([1, 1, 2, 3]).subtract(fc.parallelize([3, 4])).collect())
        [1, 1, 2]
        """
        partitioner = self._partitioner_of_both(other, num_partitions)
        pairs = self._narrow(Map(with_none), "subtract")
        return pairs._without("subtract", other, partitioner)._narrow(Map(itemgetter(0)), "subtract")  # type: ignore[no-any-return]

    def _partitioner_of_both(self, other: object, num_partitions: int | None) -> Partitioner:
        # Whole elements are the keys here, so how they lie by a key of theirs does not matter.
        count = self.num_partitions + self._other("other", other).num_partitions
        if num_partitions is not None:
            return HashPartitioner(check_int("num_partitions", num_partitions, least=1))
        return HashPartitioner(self._runner.config.default_parallelism or max(1, count))

    def _distinct_keys(self, operation: str, partitioner: Partitioner) -> Any:
        aggregator = Aggregator(nothing, nothing, nothing, AggregationKind.DISTINCT)
        return self._narrow(Map(with_none), operation)._by_key(operation, partitioner, aggregator)

    def group_by(self, fn: Callable[[T], K], num_partitions: int | None = None) -> RDD[tuple[K, list[T]]]:
        """Collect elements into lists by what a function says of them: ``(fn(x), [x, ...])``.

        Notes
        -----
        Cost: a shuffle of every element; holds all elements of a group. Where a sum or the like is wanted, ``key_by`` and
        ``reduce_by_key`` move and hold far less.

        Examples
        --------
        >>> sorted(fc.range(5).group_by(lambda x: x % 2).collect())
        [(0, [0, 2, 4]), (1, [1, 3])]
        """
        check_callable("fn", fn)
        pairs = self._narrow(Map(Keyed(fn)), "group_by")
        aggregator = Aggregator(listed, appended, extended, AggregationKind.GROUP, map_side=False)
        return pairs._by_key("group_by", pairs._hash_partitioner(num_partitions), aggregator)  # type: ignore[no-any-return]

    def sort_by(self, key: Callable[[T], Any], *, ascending: bool = True, num_partitions: int | None = None) -> RDD[T]:
        """Sort by what a function says of each element; elements it says the same of keep their order, either way round.

        Parameters
        ----------
        key
            Values it returns are compared with one another.
        ascending
            Smallest first.
        num_partitions
            1 or more; None: ``default_parallelism`` where it is set, else as many as this RDD has.

        Returns
        -------
        RDD
            Partition by partition in order. Equal elements lie in one partition; trailing ones may be empty.

        Notes
        -----
        Cost: a shuffle. With more than one partition the first action runs a job before it, which samples keys (and so computes
        this RDD; cache what is expensive). Nothing runs at this call.

        Examples
        --------
        >>> fc.parallelize(["ccc", "a", "bb"]).sort_by(len, ascending=False).collect()
        ['ccc', 'bb', 'a']
        """
        check_callable("key", key)
        pairs = self._narrow(Map(Keyed(key)), "sort_by")
        by_key = sorted_by_key(pairs, "sort_by", ascending=ascending, num_partitions=num_partitions, key=None)
        return by_key._narrow(Map(itemgetter(1)), "sort_by")  # type: ignore[no-any-return]
