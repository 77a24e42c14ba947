"""Transformations that need no other partition: pipelined into one pass. Lazy; run on the driver, ship only the kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from flowkit.errors import InvalidArgument
from flowkit.execution.actions import NumberRows, count_rows
from flowkit.execution.elements import as_one_list
from flowkit.execution.tolerance import Fault
from flowkit.lineage.kernels import Filter, FlatMap, Map, MapPartitions, Union, Window
from flowkit.lineage.nodes import Narrow as NarrowDependency
from flowkit.lineage.nodes import Preparation
from flowkit.rdd.base import Base
from flowkit.rdd.checks import check_callable
from flowkit.rdd.tolerance import OnError, tolerant

if TYPE_CHECKING:
    from flowkit.abc import JobRunner
    from flowkit.rdd.rdd import RDD

T = TypeVar("T")
U = TypeVar("U")


class Narrow(Base[T]):
    """Element-wise and partition-wise transformations."""

    __slots__ = ()

    def map(
        self,
        fn: Callable[[T], U],
        *,
        preserves_partitioning: bool = False,
        on_error: OnError = "raise",
        max_errors: float | None = None,
    ) -> RDD[U]:
        """Apply a function to every element.

        Parameters
        ----------
        fn
            Called once an element, in order.
        preserves_partitioning
            Promise that keys stay as they are, so that a known partitioner stays known.
        on_error
            ``"raise"``: an error fails the task, as ever. ``"skip"``: the element is left out and counted. ``"quarantine"``: that too, and
            ``quarantined()`` has it.
        max_errors
            More errors than this fail the job after all: a number, or a fraction of the elements (which costs counting them).

        Returns
        -------
        RDD
            As many elements, in the same order and partitions. Loses the partitioner unless promised otherwise.

        Notes
        -----
        Cost: narrow, no job; one call of ``fn`` an element, nothing held.

        See Also
        --------
        flat_map : any number of results an element.
        map_values : keeps keys and partitioner.

        Examples
        --------
        >>> fc.parallelize([1, 2, 3]).map(lambda x: x * 10).collect()
        [10, 20, 30]
        >>> fc.parallelize(["1", "two", "3"]).map(int, on_error="skip").collect()
        [1, 3]
        """
        check_callable("fn", fn)
        if on_error != "raise" or max_errors is not None:
            return tolerant(  # type: ignore[no-any-return]
                self, fn, "map", "one", on_error, max_errors, keeps_partitioner=preserves_partitioning
            )
        return self._narrow(Map(fn), "map", keeps_partitioner=preserves_partitioning)  # type: ignore[no-any-return]

    def flat_map(
        self,
        fn: Callable[[T], Iterable[U]],
        *,
        preserves_partitioning: bool = False,
        on_error: OnError = "raise",
        max_errors: float | None = None,
    ) -> RDD[U]:
        """Apply a function to every element and chain what it returns.

        Parameters
        ----------
        fn
            Returns an iterable, possibly empty, possibly lazy.
        preserves_partitioning
            Promise that keys stay as they are.
        on_error, max_errors
            As of ``map``; an element that raises half way gives nothing.

        Raises
        ------
        TypeError
            In the task, when ``fn`` returns something that can't be iterated over.

        Notes
        -----
        Cost: narrow, no job; results are passed on one by one, none is held.

        Examples
        --------
        >>> fc.parallelize(["a b", "c"]).flat_map(str.split).collect()
        ['a', 'b', 'c']
        """
        check_callable("fn", fn)
        if on_error != "raise" or max_errors is not None:
            return tolerant(  # type: ignore[no-any-return]
                self, fn, "flat_map", "many", on_error, max_errors, keeps_partitioner=preserves_partitioning
            )
        return self._narrow(FlatMap(fn), "flat_map", keeps_partitioner=preserves_partitioning)  # type: ignore[no-any-return]

    def filter(self, fn: Callable[[T], Any], *, on_error: OnError = "raise", max_errors: float | None = None) -> RDD[T]:
        """Keep the elements of which ``fn`` is true. Keeps the partitioner.

        Parameters
        ----------
        fn
            Called once an element, in order.
        on_error, max_errors
            As of ``map``.

        Notes
        -----
        Cost: narrow, no job.

        Examples
        --------
        >>> fc.range(10).filter(lambda x: x % 3 == 0).collect()
        [0, 3, 6, 9]
        """
        check_callable("fn", fn)
        if on_error != "raise" or max_errors is not None:
            return tolerant(self, fn, "filter", "keep", on_error, max_errors, keeps_partitioner=True)  # type: ignore[no-any-return]
        return self._narrow(Filter(fn), "filter", keeps_partitioner=True)  # type: ignore[no-any-return]

    def quarantined(self) -> RDD[Fault]:
        """Elements that this RDD's function raised for: ``(element, error, traceback)``, the last one as text.

        Raises
        ------
        errors.InvalidArgument
            It was not made with ``on_error="quarantine"``.

        Notes
        -----
        Cost: narrow, no job; computes again what the function was given, so ``cache`` that where it is costly.

        Examples
        --------
        >>> numbers = fc.parallelize(["1", "two", "3"]).map(int, on_error="quarantine")
        >>> [(fault.element, type(fault.error).__name__) for fault in numbers.quarantined().collect()]
        [('two', 'ValueError')]
        """
        faults = None if self._node.tolerance is None else self._node.tolerance.faults
        if faults is None:
            raise InvalidArgument(
                f'{self!r} has no quarantine; ask the RDD that map(fn, on_error="quarantine") returned, or flat_map or filter did',
                name="on_error",
                value=repr(self),
                allowed='an RDD made with on_error="quarantine"',
            )
        (dependency,) = self._node.dependencies
        return self._make(FlatMap(faults), [dependency], self.num_partitions, "quarantined")  # type: ignore[no-any-return]

    def map_partitions(self, fn: Callable[[Iterator[T]], Iterable[U]], *, preserves_partitioning: bool = False) -> RDD[U]:
        """Apply a function to each partition as a whole.

        Parameters
        ----------
        fn
            Takes an iterator over the partition, returns an iterable. A generator function stays lazy.
        preserves_partitioning
            Promise that keys stay as they are.

        Notes
        -----
        Cost: narrow, no job; one call of ``fn`` a partition, which decides itself what it holds.

        Examples
        --------
        >>> fc.range(4, num_partitions=2).map_partitions(lambda rows: [sum(rows)]).collect()
        [1, 5]
        """
        check_callable("fn", fn)
        return self._narrow(  # type: ignore[no-any-return]
            MapPartitions(fn), "map_partitions", keeps_partitioner=preserves_partitioning
        )

    def map_partitions_with_index(
        self, fn: Callable[[int, Iterator[T]], Iterable[U]], *, preserves_partitioning: bool = False
    ) -> RDD[U]:
        """Apply a function to each partition as a whole, with the partition's index.

        Notes
        -----
        Cost: narrow, no job; one call of ``fn`` a partition.

        Examples
        --------
        >>> fc.range(4, num_partitions=2).map_partitions_with_index(lambda i, rows: [(i, sum(rows))]).collect()
        [(0, 1), (1, 5)]
        """
        check_callable("fn", fn)
        return self._narrow(  # type: ignore[no-any-return]
            MapPartitions(fn, indexed=True), "map_partitions_with_index", keeps_partitioner=preserves_partitioning
        )

    def glom(self) -> RDD[list[T]]:
        """Make a list of each partition.

        Notes
        -----
        Cost: narrow, no job; holds one partition in memory.

        Examples
        --------
        >>> fc.parallelize([1, 2, 3], 2).glom().collect()
        [[1], [2, 3]]
        """
        return self._narrow(MapPartitions(as_one_list), "glom")  # type: ignore[no-any-return]

    def union(self, other: RDD[T]) -> RDD[T]:
        """All elements of both, duplicates included; also written ``a + b``.

        Returns
        -------
        RDD
            This one's partitions, then the other's. Where both have the same partitioner, partition by partition instead, and
            the partitioner is kept.

        Notes
        -----
        Cost: narrow, no job.

        Examples
        --------
        >>> fc.parallelize([1, 2]).union(fc.parallelize([2, 3])).collect()
        [1, 2, 2, 3]
        """
        return union_all(self, [self._other("other", other)])

    def __add__(self, other: RDD[T]) -> RDD[T]:
        if not isinstance(other, Base):
            return NotImplemented
        return self.union(other)

    def zip_with_index(self) -> RDD[tuple[T, int]]:
        """Pair every element with its place in the whole.

        Notes
        -----
        Cost: narrow. With more than one partition the first action runs a job before it, which counts all partitions but the
        last (and so computes them; cache what is expensive).

        Examples
        --------
        >>> fc.parallelize(["a", "b", "c"], 2).zip_with_index().collect()
        [('a', 0), ('b', 1), ('c', 2)]
        """
        number = NumberRows()
        node, last = self._node, self.num_partitions - 1

        def count_partitions(runner: JobRunner) -> None:
            sizes = (
                runner.run_job(node, count_rows, range(last), operation="zip_with_index (counting)", call_site=node.call_site)
                if last > 0
                else []
            )
            starts = [0]
            for size in sizes:
                starts.append(starts[-1] + size)
            number.starts = starts

        return self._narrow(  # type: ignore[no-any-return]
            MapPartitions(number, indexed=True), "zip_with_index", preparation=Preparation(count_partitions)
        )


def union_all(first: Base[T], others: list[Any]) -> RDD[T]:
    """The union of one RDD with the nodes of others."""
    nodes = [first._node, *others]
    partitioner = first.partitioner
    if partitioner is not None and all(node.partitioner == partitioner for node in nodes):
        dependencies = [NarrowDependency(node) for node in nodes]
        return first._make(  # type: ignore[no-any-return]
            Union(), dependencies, partitioner.num_partitions, "union", partitioner=partitioner
        )
    dependencies, total = [], 0
    for node in nodes:
        dependencies.append(NarrowDependency(node, Window(total, node.num_partitions)))
        total += node.num_partitions
    return first._make(Union(), dependencies, total, "union")  # type: ignore[no-any-return]
