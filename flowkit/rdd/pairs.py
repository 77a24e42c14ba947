"""Transformations and actions of RDDs of ``(key, value)``. Lazy unless said otherwise; run on the driver.

``self: Pairs[tuple[K, V]]`` lets type checkers refuse these on RDDs of anything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from flowkit.execution.actions import ReduceByKey, ValuesOfKey, collect_rows, count_equal_keys, merged_map
from flowkit.execution.elements import (
    CopiedZero,
    Keyed,
    appended,
    extended,
    has_no_partner,
    listed,
    nothing,
    same,
    with_true,
)
from flowkit.lineage.kernels import AggregationKind, Aggregator, CoGroup, Filter, FlatMapValues, Join, JoinKind, Map, MapValues
from flowkit.lineage.nodes import Dependency, Node, shuffle_of
from flowkit.lineage.nodes import Narrow as NarrowDependency
from flowkit.lineage.partitioners import FunctionPartitioner, HashPartitioner, Partitioner
from flowkit.rdd.base import Base, action
from flowkit.rdd.checks import check_callable, check_int
from flowkit.rdd.sorting import sorted_by_key
from flowkit.rdd.tolerance import OnError, tolerant

if TYPE_CHECKING:
    from flowkit.rdd.rdd import RDD

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
W = TypeVar("W")
C = TypeVar("C")
U = TypeVar("U")


class Pairs(Base[T]):
    """What is by key."""

    __slots__ = ()

    # -- narrow

    def key_by(self, fn: Callable[[T], K]) -> RDD[tuple[K, T]]:
        """Pair every element with a key: ``(fn(x), x)``.

        Notes
        -----
        Cost: narrow, no job.

        Examples
        --------
        >>> fc.parallelize(["a", "bb"]).key_by(len).collect()
        [(1, 'a'), (2, 'bb')]
        """
        check_callable("fn", fn)
        return self._narrow(Map(Keyed(fn)), "key_by")  # type: ignore[no-any-return]

    def keys(self: Pairs[tuple[K, V]]) -> RDD[K]:
        """Every pair's key.

        Notes
        -----
        Cost: narrow, no job. Loses the partitioner.

        Examples
        --------
        >>> fc.parallelize([("a", 1), ("b", 2)]).keys().collect()
        ['a', 'b']
        """
        return self._narrow(Map(itemgetter(0)), "keys")  # type: ignore[no-any-return]

    def values(self: Pairs[tuple[K, V]]) -> RDD[V]:
        """Every pair's value.

        Notes
        -----
        Cost: narrow, no job. Loses the partitioner.

        Examples
        --------
        >>> fc.parallelize([("a", 1), ("b", 2)]).values().collect()
        [1, 2]
        """
        return self._narrow(Map(itemgetter(1)), "values")  # type: ignore[no-any-return]

    def map_values(
        self: Pairs[tuple[K, V]], fn: Callable[[V], W], *, on_error: OnError = "raise", max_errors: float | None = None
    ) -> RDD[tuple[K, W]]:
        """Apply a function to every value. Keeps keys and partitioner.

        Parameters
        ----------
        fn
            Called once a value, in order.
        on_error, max_errors
            As of ``map``; the whole pair is left out.

        Notes
        -----
        Cost: narrow, no job.

        Examples
        --------
        >>> fc.parallelize([("a", 1), ("b", 2)]).map_values(lambda v: v * 10).collect()
        [('a', 10), ('b', 20)]
        """
        check_callable("fn", fn)
        if on_error != "raise" or max_errors is not None:
            return tolerant(  # type: ignore[no-any-return]
                self, fn, "map_values", "one", on_error, max_errors, of_value=True, keeps_partitioner=True
            )
        return self._narrow(MapValues(fn), "map_values", keeps_partitioner=True)  # type: ignore[no-any-return]

    def flat_map_values(self: Pairs[tuple[K, V]], fn: Callable[[V], Iterable[W]]) -> RDD[tuple[K, W]]:
        """Pair every key with each of what ``fn`` returns for its value. Keeps the partitioner.

        Notes
        -----
        Cost: narrow, no job.

        Examples
        --------
        >>> fc.parallelize([("a", "xy")]).flat_map_values(list).collect()
        [('a', 'x'), ('a', 'y')]
        """
        check_callable("fn", fn)
        return self._narrow(FlatMapValues(fn), "flat_map_values", keeps_partitioner=True)  # type: ignore[no-any-return]

    # -- by key

    def combine_by_key(
        self: Pairs[tuple[K, V]],
        create: Callable[[V], C],
        merge_value: Callable[[C, V], C],
        merge_combiners: Callable[[C, C], C],
        num_partitions: int | None = None,
    ) -> RDD[tuple[K, C]]:
        """Combine the values of each key; what every other aggregation by key is made of.

        Parameters
        ----------
        create
            The combiner of a key's first value.
        merge_value
            A combiner and one more value; may change the combiner it is given.
        merge_combiners
            Two combiners of one key, from two partitions; in map order.
        num_partitions
            1 or more; None: where the RDD has a partitioner, that one; else ``default_parallelism`` where it is set, else as
            many as this RDD has.

        Returns
        -------
        RDD
            One pair a key, partitioned by key; in no order within a partition.

        Raises
        ------
        TypeError
            In the task, when a key is not hashable. ``errors.UnstableHash`` when its hash differs between processes.

        Notes
        -----
        Cost: a shuffle of one combiner a key and map partition; none when pairs lie by key already. Holds the combiners of one
        partition, spilled beyond the task's memory.

        Examples
        --------
        >>> pairs = fc.parallelize([("a", 1), ("a", 3), ("b", 5)])
        >>> sums = pairs.combine_by_key(
        ...     lambda v: (v, 1), lambda c, v: (c[0] + v, c[1] + 1), lambda c, d: (c[0] + d[0], c[1] + d[1])
        ... )
        >>> sorted(sums.map_values(lambda c: c[0] / c[1]).collect())
        [('a', 2.0), ('b', 5.0)]
        """
        for name, fn in (("create", create), ("merge_value", merge_value), ("merge_combiners", merge_combiners)):
            check_callable(name, fn)
        aggregator = Aggregator(create, merge_value, merge_combiners)
        return self._by_key("combine_by_key", self._hash_partitioner(num_partitions), aggregator)  # type: ignore[no-any-return]

    def reduce_by_key(self: Pairs[tuple[K, V]], fn: Callable[[V, V], W], num_partitions: int | None = None) -> RDD[tuple[K, W]]:
        """Merge the values of each key with one function.

        Parameters
        ----------
        fn
            Associative; called in map order, so it need not be commutative.
        num_partitions
            As for ``combine_by_key``.

        Notes
        -----
        Cost: a shuffle of one value a key and map partition; none when pairs lie by key already.

        Examples
        --------
        >>> from operator import add
        >>> sorted(fc.parallelize([("a", 1), ("b", 1), ("a", 1)]).reduce_by_key(add).collect())
        [('a', 2), ('b', 1)]
        """
        check_callable("fn", fn)
        aggregator = Aggregator(same, fn, fn, AggregationKind.REDUCE)
        return self._by_key("reduce_by_key", self._hash_partitioner(num_partitions), aggregator)  # type: ignore[no-any-return]

    def aggregate_by_key(
        self: Pairs[tuple[K, V]],
        zero: C,
        merge_value: Callable[[C, V], C],
        merge_combiners: Callable[[C, C], C],
        num_partitions: int | None = None,
    ) -> RDD[tuple[K, C]]:
        """Fold the values of each key of a partition into a copy of ``zero``, then merge those of all partitions.

        Notes
        -----
        Cost: as ``combine_by_key``; ``zero`` is copied deeply once a key and map partition.

        Examples
        --------
        >>> pairs = fc.parallelize([("a", 1), ("a", 2)])
        >>> pairs.aggregate_by_key([], lambda c, v: c + [v], lambda c, d: c + d).collect()
        [('a', [1, 2])]
        """
        check_callable("merge_value", merge_value)
        check_callable("merge_combiners", merge_combiners)
        aggregator = Aggregator(CopiedZero(zero, merge_value), merge_value, merge_combiners)
        return self._by_key("aggregate_by_key", self._hash_partitioner(num_partitions), aggregator)  # type: ignore[no-any-return]

    def fold_by_key(
        self: Pairs[tuple[K, V]], zero: V, fn: Callable[[V, V], V], num_partitions: int | None = None
    ) -> RDD[tuple[K, V]]:
        """Merge the values of each key, beginning with a copy of ``zero`` in every map partition.

        Notes
        -----
        Cost: as ``combine_by_key``.

        Examples
        --------
        >>> fc.parallelize([("a", 1), ("a", 2)], 1).fold_by_key(10, lambda x, y: x + y).collect()
        [('a', 13)]
        """
        check_callable("fn", fn)
        aggregator = Aggregator(CopiedZero(zero, fn), fn, fn)
        return self._by_key("fold_by_key", self._hash_partitioner(num_partitions), aggregator)  # type: ignore[no-any-return]

    def group_by_key(self: Pairs[tuple[K, V]], num_partitions: int | None = None) -> RDD[tuple[K, list[V]]]:
        """Collect the values of each key into a list, in the order of this RDD.

        Notes
        -----
        Cost: a shuffle of every pair. The values of a key that memory has no room for come as a read-only sequence that reads them from
        disk as often as it is iterated; pickled (collected, shuffled) it is a list. Where a sum or the like is wanted, ``reduce_by_key``
        moves and holds far less.

        Examples
        --------
        >>> sorted(fc.parallelize([("a", 1), ("b", 2), ("a", 3)]).group_by_key().collect())
        [('a', [1, 3]), ('b', [2])]
        """
        aggregator = Aggregator(listed, appended, extended, AggregationKind.GROUP, map_side=False)
        return self._by_key("group_by_key", self._hash_partitioner(num_partitions), aggregator)  # type: ignore[no-any-return]

    def partition_by(self: Pairs[tuple[K, V]], num_partitions: int, fn: Callable[[K], int] | None = None) -> RDD[tuple[K, V]]:
        """Lay pairs by key.

        Parameters
        ----------
        num_partitions
            1 or more.
        fn
            The partition of a key, taken modulo ``num_partitions``; None: a hash that is the same in every process.

        Returns
        -------
        RDD
            The same pairs; this very RDD when it lies so already.

        Notes
        -----
        Cost: a shuffle of every pair, or nothing. Joins and aggregations of the result then need none.

        Examples
        --------
        >>> fc.range(6).map(lambda i: (i, i)).partition_by(2, lambda k: k).keys().glom().collect()
        [[0, 2, 4], [1, 3, 5]]
        """
        count = check_int("num_partitions", num_partitions, least=1)
        partitioner: Partitioner = HashPartitioner(count)
        if fn is not None:
            check_callable("fn", fn)
            partitioner = FunctionPartitioner(count, fn)
        return self if self.partitioner == partitioner else self._by_key("partition_by", partitioner)  # type: ignore[return-value]

    def sort_by_key(
        self: Pairs[tuple[K, V]],
        *,
        ascending: bool = True,
        num_partitions: int | None = None,
        key: Callable[[K], Any] | None = None,
    ) -> RDD[tuple[K, V]]:
        """Sort by key, or by ``key(k)``; pairs of equal keys keep their order, either way round.

        Notes
        -----
        Cost: a shuffle; with more than one partition a sampling job before the first action, see ``sort_by``.

        Examples
        --------
        >>> fc.parallelize([("b", 1), ("a", 2), ("b", 0)]).sort_by_key().collect()
        [('a', 2), ('b', 1), ('b', 0)]
        """
        if key is not None:
            check_callable("key", key)
        return sorted_by_key(  # type: ignore[no-any-return]
            self, "sort_by_key", ascending=ascending, num_partitions=num_partitions, key=key
        )

    # -- with another RDD

    def join(self: Pairs[tuple[K, V]], other: RDD[tuple[K, W]], num_partitions: int | None = None) -> RDD[tuple[K, tuple[V, W]]]:
        """All pairs of values of the keys that both have.

        Parameters
        ----------
        other
            Another RDD of pairs, of the same Context.
        num_partitions
            1 or more; None: the partitioner one of them has, else ``default_parallelism`` where it is set, else as many as
            both have together.

        Notes
        -----
        Cost: a shuffle of each side that does not lie by key already; holds one side of one partition.

        Examples
        --------
        >>> ages = fc.parallelize([("ann", 31), ("bob", 42)])
        >>> ages.join(fc.parallelize([("ann", "Oslo")])).collect()
        [('ann', (31, 'Oslo'))]
        """
        return self._joined("join", JoinKind.INNER, other, num_partitions)  # type: ignore[no-any-return]

    def left_outer_join(
        self: Pairs[tuple[K, V]], other: RDD[tuple[K, W]], num_partitions: int | None = None
    ) -> RDD[tuple[K, tuple[V, W | None]]]:
        """As ``join``, and None for the right value of keys only this one has.

        Notes
        -----
        Cost: as ``join``.

        Examples
        --------
        >>> ages = fc.parallelize([("ann", 31), ("bob", 42)])
        >>> sorted(ages.left_outer_join(fc.parallelize([("ann", "Oslo")])).collect())
        [('ann', (31, 'Oslo')), ('bob', (42, None))]
        """
        return self._joined("left_outer_join", JoinKind.LEFT, other, num_partitions)  # type: ignore[no-any-return]

    def right_outer_join(
        self: Pairs[tuple[K, V]], other: RDD[tuple[K, W]], num_partitions: int | None = None
    ) -> RDD[tuple[K, tuple[V | None, W]]]:
        """As ``join``, and None for the left value of keys only the other has.

        Notes
        -----
        Cost: as ``join``.

        Examples
        --------
        >>> fc.parallelize([("ann", 31)]).right_outer_join(fc.parallelize([("eve", "Rome")])).collect()
        [('eve', (None, 'Rome'))]
        """
        return self._joined("right_outer_join", JoinKind.RIGHT, other, num_partitions)  # type: ignore[no-any-return]

    def full_outer_join(
        self: Pairs[tuple[K, V]], other: RDD[tuple[K, W]], num_partitions: int | None = None
    ) -> RDD[tuple[K, tuple[V | None, W | None]]]:
        """As ``join``, and None for what is missing on either side.

        Notes
        -----
        Cost: as ``join``.

        Examples
        --------
        >>> sorted(fc.parallelize([("ann", 31)]).full_outer_join(fc.parallelize([("eve", "Rome")])).collect())
        [('ann', (31, None)), ('eve', (None, 'Rome'))]
        """
        return self._joined("full_outer_join", JoinKind.FULL, other, num_partitions)  # type: ignore[no-any-return]

    def cogroup(
        self: Pairs[tuple[K, V]], *others: RDD[tuple[K, Any]], num_partitions: int | None = None
    ) -> RDD[tuple[K, tuple[list[Any], ...]]]:
        """For every key of any of them, the list of its values in each.

        Notes
        -----
        Cost: a shuffle of each RDD that does not lie by key already; holds all values of a key.

        Examples
        --------
        >>> sorted(fc.parallelize([("a", 1), ("b", 2)]).cogroup(fc.parallelize([("a", 3)])).collect())
        [('a', ([1], [3])), ('b', ([2], []))]
        """
        nodes = [self._node, *(self._other(f"others[{index}]", other) for index, other in enumerate(others))]
        partitioner = self._common_partitioner(nodes, num_partitions)
        dependencies = self._dependencies("cogroup", nodes, partitioner)
        kernel = CoGroup(tuple(map(shuffle_of, dependencies)))
        return self._make(  # type: ignore[no-any-return]
            kernel, dependencies, partitioner.num_partitions, "cogroup", partitioner=partitioner
        )

    def group_with(self: Pairs[tuple[K, V]], *others: RDD[tuple[K, Any]]) -> RDD[tuple[K, tuple[list[Any], ...]]]:
        """``cogroup`` by the name that PySpark has for several.

        Notes
        -----
        Cost: as ``cogroup``.

        Examples
        --------
        >>> one, two = fc.parallelize([("a", 1)]), fc.parallelize([("a", 2)])
        >>> one.group_with(two, one).collect()
        [('a', ([1], [2], [1]))]
        """
        return self.cogroup(*others)

    def subtract_by_key(
        self: Pairs[tuple[K, V]], other: RDD[tuple[K, Any]], num_partitions: int | None = None
    ) -> RDD[tuple[K, V]]:
        """Pairs whose key the other one has not; duplicates are kept.

        Notes
        -----
        Cost: a shuffle of each side that does not lie by key already, of the other one's distinct keys only; holds those of a
        partition, spilled beyond the task's memory.

        Examples
        --------
        >>> sorted(fc.parallelize([("a", 1), ("b", 2), ("b", 2)]).subtract_by_key(fc.parallelize([("a", 9)])).collect())
        [('b', 2), ('b', 2)]
        """
        node = self._other("other", other)
        partitioner = self._common_partitioner([self._node, node], num_partitions)
        keys = other._narrow(Map(itemgetter(0)), "subtract_by_key")
        return self._without("subtract_by_key", keys, partitioner)  # type: ignore[no-any-return]

    def _without(self, operation: str, keys: Base[Any], partitioner: Partitioner) -> Any:
        """Pairs whose keys are not among some."""
        marked = keys._narrow(Map(with_true), operation)
        aggregator = Aggregator(nothing, nothing, nothing, AggregationKind.DISTINCT)
        distinct = marked._by_key(operation, partitioner, aggregator)
        (mine,) = self._dependencies(operation, [self._node], partitioner)
        kernel = Join(JoinKind.LEFT, (shuffle_of(mine), None))
        joined = self._make(
            kernel, [mine, NarrowDependency(distinct._node)], partitioner.num_partitions, operation, partitioner=partitioner
        )
        kept = joined._narrow(Filter(has_no_partner), operation, keeps_partitioner=True)
        return kept._narrow(MapValues(itemgetter(0)), operation, keeps_partitioner=True)

    def _joined(self, operation: str, kind: JoinKind, other: object, num_partitions: int | None) -> Any:
        nodes = [self._node, self._other("other", other)]
        partitioner = self._common_partitioner(nodes, num_partitions)
        left, right = self._dependencies(operation, nodes, partitioner)
        kernel = Join(kind, (shuffle_of(left), shuffle_of(right)))
        return self._make(kernel, [left, right], partitioner.num_partitions, operation, partitioner=partitioner)

    def _common_partitioner(self, nodes: list[Node], num_partitions: int | None) -> Partitioner:
        if num_partitions is None:
            known = [node.partitioner for node in nodes if node.partitioner is not None]
            if known:
                return max(known, key=lambda partitioner: partitioner.num_partitions)
        return self._hash_partitioner(num_partitions, default=sum(node.num_partitions for node in nodes))

    def _dependencies(self, operation: str, nodes: list[Node], partitioner: Partitioner) -> list[Dependency]:
        """One for each node; an RDD that meets itself is shuffled once."""
        made: dict[Node, Dependency] = {}
        for node in nodes:
            if node not in made:
                lies_so = node.partitioner == partitioner
                rdd = type(self)(node, self._runner)
                made[node] = NarrowDependency(node) if lies_so else rdd._shuffle(operation, partitioner)
        return [made[node] for node in nodes]

    # -- actions

    @action
    def count_by_key(self: Pairs[tuple[K, V]]) -> dict[K, int]:
        """How many pairs each key has.

        Notes
        -----
        Cost: one job; the driver holds all keys.

        Examples
        --------
        >>> fc.parallelize([("a", 1), ("b", 1), ("a", 1)]).count_by_key()
        {'a': 2, 'b': 1}
        """
        total: Counter[K] = Counter()
        parts = self._run(count_equal_keys, "count_by_key")
        with self._on_driver("count_by_key"):
            for part in parts:
                total.update(part)
        return dict(total)

    @action
    def reduce_by_key_locally(self: Pairs[tuple[K, V]], fn: Callable[[V, V], V]) -> dict[K, V]:
        """Merge the values of each key with a function, in order; the result on the driver.

        Notes
        -----
        Cost: one job and no shuffle; the driver holds all keys, and merges one value a key and partition.

        Examples
        --------
        >>> fc.parallelize([("a", 1), ("b", 1), ("a", 2)]).reduce_by_key_locally(lambda x, y: x + y)
        {'a': 3, 'b': 1}
        """
        check_callable("fn", fn)
        merged: dict[K, V] = {}
        parts = self._run(ReduceByKey(fn), "reduce_by_key_locally")
        with self._on_driver("reduce_by_key_locally", merge=fn):
            for part in parts:
                for key, value in part.items():
                    merged[key] = fn(merged[key], value) if key in merged else value
        return merged

    @action
    def lookup(self: Pairs[tuple[K, V]], key: K) -> list[V]:
        """The values of one key, in order; an empty list when it is not there.

        Notes
        -----
        Cost: one job: over the one partition that may hold the key where pairs are known to lie by key, else over all.

        Examples
        --------
        >>> fc.parallelize([("a", 1), ("b", 2), ("a", 3)]).lookup("a")
        [1, 3]
        """
        partitioner = self._node.partitioner
        # The bounds of a sort may still be unknown.
        partitions = None
        if partitioner is not None and getattr(partitioner, "resolved", True):
            places_by = partitioner.fn if isinstance(partitioner, FunctionPartitioner) else getattr(partitioner, "key", None)
            with self._on_driver("lookup", key=places_by):
                partitions = [partitioner.partition_of(key)]
        return [value for part in self._run(ValuesOfKey(key), "lookup", partitions) for value in part]

    @action
    def collect_as_map(self: Pairs[tuple[K, V]]) -> dict[K, V]:
        """All pairs as a dict on the driver; of several values of a key the last one counts.

        Notes
        -----
        Cost: one job; everything in the driver's memory, within ``max_result_bytes``.

        Examples
        --------
        >>> fc.parallelize([("a", 1), ("b", 2)]).collect_as_map()
        {'a': 1, 'b': 2}
        """
        parts = self._run(collect_rows, "collect_as_map")
        with self._on_driver("collect_as_map"):
            return merged_map(parts)
