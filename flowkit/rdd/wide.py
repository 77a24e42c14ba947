"""Transformations of any elements that need a shuffle. Lazy; run on the driver."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from flowkit.execution.elements import Keyed, nothing, with_none
from flowkit.lineage.kernels import AggregationKind, Aggregator, Map
from flowkit.rdd.base import Base
from flowkit.rdd.checks import check_callable
from flowkit.rdd.sorting import sorted_by_key

if TYPE_CHECKING:
    from flowkit.rdd.rdd import RDD

T = TypeVar("T")


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
