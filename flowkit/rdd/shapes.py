"""Transformations that change how partitions lie: fewer or more of them, two RDDs side by side, each with each. Lazy; run on the driver."""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from flowkit.errors import InvalidArgument
from flowkit.execution.piping import PipeRows
from flowkit.execution.sampling import RoundRobin, UniqueIds
from flowkit.lineage.kernels import (
    Cartesian,
    Groups,
    Map,
    MapPartitions,
    Quotient,
    Remainder,
    SortOrder,
    Union,
    Zip,
    ZipPartitions,
)
from flowkit.lineage.nodes import Narrow as NarrowDependency
from flowkit.lineage.nodes import Node
from flowkit.lineage.partitioners import FunctionPartitioner, HashPartitioner, PlacePartitioner
from flowkit.model.checks import check_callable, check_codec, check_int, check_iterable, check_mapping, check_str, refuse
from flowkit.rdd.base import Base

if TYPE_CHECKING:
    from flowkit.rdd.rdd import RDD

T = TypeVar("T")
U = TypeVar("U")
K = TypeVar("K")
V = TypeVar("V")


class Shapes(Base[T]):
    """What is about partitions."""

    __slots__ = ()

    # -- fewer or more

    def coalesce(self, num_partitions: int, *, shuffle: bool = False) -> RDD[T]:
        """Make partitions fewer by joining neighbours.

        Parameters
        ----------
        num_partitions
            1 or more. Without a shuffle there can be no more than there are: then they stay as many.
        shuffle
            Deal rows out instead, as ``repartition`` does.

        Notes
        -----
        Cost: narrow, no job: one task then does the work of several. Loses the partitioner.

        Examples
        --------
        >>> fc.parallelize([1, 2, 3, 4, 5], 3).coalesce(2).glom().collect()
        [[1], [2, 3, 4, 5]]
        """
        wanted = check_int("num_partitions", num_partitions, least=1)
        if shuffle:
            return self._dealt_out(wanted, "coalesce")  # type: ignore[no-any-return]
        before = self.num_partitions
        count = min(wanted, before)
        bounds = tuple(before * place // count for place in range(count + 1)) if count else (0,)
        return self._make(Union(), [NarrowDependency(self._node, Groups(bounds))], count, "coalesce")  # type: ignore[no-any-return]

    def repartition(self, num_partitions: int) -> RDD[T]:
        """Deal rows out evenly into some number of partitions.

        Returns
        -------
        RDD
            Each partition's rows go round all new ones, so those differ by few rows. The same rows in the same places each time.

        Notes
        -----
        Cost: a shuffle of every row. To make partitions fewer, ``coalesce`` needs none.

        Examples
        --------
        >>> fc.range(7, num_partitions=1).repartition(3).glom().collect()
        [[0, 3, 6], [1, 4], [2, 5]]
        """
        return self._dealt_out(  # type: ignore[no-any-return]
            check_int("num_partitions", num_partitions, least=1), "repartition"
        )

    def _dealt_out(self, count: int, operation: str) -> Any:
        dealt = self._narrow(MapPartitions(RoundRobin(count), indexed=True), operation)
        return dealt._by_key(operation, PlacePartitioner(count))._narrow(Map(itemgetter(1)), operation)

    def repartition_and_sort_within_partitions(
        self: Shapes[tuple[K, V]],
        num_partitions: int | None = None,
        fn: Callable[[K], int] | None = None,
        *,
        ascending: bool = True,
        key: Callable[[K], Any] | None = None,
    ) -> RDD[tuple[K, V]]:
        """Lay pairs by key and sort each partition: cheaper than one after the other, since the shuffle sorts.

        Parameters
        ----------
        num_partitions
            1 or more; None: ``default_parallelism`` where it is set, else as many as this RDD has.
        fn
            The partition of a key, taken modulo ``num_partitions``; None: its hash.
        ascending
            Smallest first.
        key
            What keys are compared by.

        Notes
        -----
        Cost: a shuffle; sorts a partition in memory, spilled beyond the task's.

        Examples
        --------
        >>> pairs = fc.parallelize([(3, "c"), (0, "a"), (2, "b"), (1, "d")])
        >>> pairs.repartition_and_sort_within_partitions(2, lambda k: k % 2).glom().collect()
        [[(0, 'a'), (2, 'b')], [(1, 'd'), (3, 'c')]]
        """
        for name, each in (("fn", fn), ("key", key)):
            if each is not None:
                check_callable(name, each)
        count = (
            check_int("num_partitions", num_partitions, least=1)
            if num_partitions is not None
            else self._runner.config.default_parallelism or max(1, self.num_partitions)
        )
        partitioner = HashPartitioner(count) if fn is None else FunctionPartitioner(count, fn)
        order = SortOrder(key, descending=not ascending)
        return self._by_key("repartition_and_sort_within_partitions", partitioner, order=order)  # type: ignore[no-any-return]

    # -- side by side

    def zip(self, other: RDD[U]) -> RDD[tuple[T, U]]:
        """Pair each element with that at the same place of another RDD.

        Raises
        ------
        errors.InvalidArgument
            At the call, when the other one has another number of partitions.
        errors.UnequalPartitions
            From the action, when two partitions have different lengths. Nothing is ever cut short in silence.

        Notes
        -----
        Cost: narrow, no job.

        Examples
        --------
        >>> numbers = fc.range(3, num_partitions=2)
        >>> numbers.zip(numbers.map(str)).collect()
        [(0, '0'), (1, '1'), (2, '2')]
        """
        return self._side_by_side(Zip(), [self._other("other", other)], "zip")  # type: ignore[no-any-return]

    def zip_partitions(self, fn: Callable[..., Iterable[U]], *others: RDD[Any]) -> RDD[U]:
        """Call a function with iterators over the same partition of several RDDs; it need not read them to their ends.

        Parameters
        ----------
        fn
            Takes one iterator for each RDD, this one's first; returns an iterable.
        others
            As many partitions each as this one has.

        Notes
        -----
        Cost: narrow, no job.

        Examples
        --------
        >>> left, right = fc.range(4, num_partitions=2), fc.parallelize("ab", 2)
        >>> left.zip_partitions(lambda xs, ys: [(sum(xs), list(ys))], right).collect()
        [(1, ['a']), (5, ['b'])]
        """
        check_callable("fn", fn)
        nodes = [self._other(f"others[{index}]", other) for index, other in enumerate(others)]
        return self._side_by_side(ZipPartitions(fn), nodes, "zip_partitions")  # type: ignore[no-any-return]

    def _side_by_side(self, kernel: Zip | ZipPartitions, others: list[Node], operation: str) -> Any:
        for node in others:
            if node.num_partitions != self.num_partitions:
                raise InvalidArgument(
                    f"{operation} needs as many partitions in each RDD; this one has {self.num_partitions}, another "
                    f"{node.num_partitions}; repartition one of them",
                    name="other",
                    value=node.num_partitions,
                    allowed=f"{self.num_partitions} partitions",
                )
        return self._make(kernel, [NarrowDependency(node) for node in (self._node, *others)], self.num_partitions, operation)

    def zip_with_unique_id(self) -> RDD[tuple[T, int]]:
        """Pair every element with a number that no other has: of partition ``p`` of ``n``, ``p``, ``p + n``, ``p + 2 n`` and so on.

        Notes
        -----
        Cost: narrow, no job; ``zip_with_index`` gives the place in the whole, and may need one.

        Examples
        --------
        >>> fc.parallelize("abcde", 3).zip_with_unique_id().collect()
        [('a', 0), ('b', 1), ('c', 4), ('d', 2), ('e', 5)]
        """
        return self._narrow(  # type: ignore[no-any-return]
            MapPartitions(UniqueIds(self.num_partitions), indexed=True), "zip_with_unique_id"
        )

    def cartesian(self, other: RDD[U]) -> RDD[tuple[T, U]]:
        """All pairs of an element of this RDD and one of another.

        Returns
        -------
        RDD
            One partition for each pair of partitions, this RDD's order first.

        Notes
        -----
        Cost: narrow, no job. Each partition of either side is computed once for each partition of the other one: cache what is
        expensive. A task holds its partition of ``other``, on disk beyond its memory, and goes through it for each element.

        Examples
        --------
        >>> fc.parallelize([1, 2]).cartesian(fc.parallelize("ab")).collect()
        [(1, 'a'), (1, 'b'), (2, 'a'), (2, 'b')]
        """
        node = self._other("other", other)
        dependencies = [
            NarrowDependency(self._node, Quotient(max(1, node.num_partitions))),
            NarrowDependency(node, Remainder(max(1, node.num_partitions))),
        ]
        return self._make(  # type: ignore[no-any-return]
            Cartesian(), dependencies, self.num_partitions * node.num_partitions, "cartesian"
        )

    # -- through other programs

    def pipe(
        self,
        command: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        encoding: str = "utf-8",
        check: bool = False,
    ) -> RDD[str]:
        """Send each partition through an external program: ``str`` of an element a line in, a line an element out.

        Parameters
        ----------
        command
            The program and its arguments; a string is split as a shell would, without running one.
        env
            Environment variables beside the executor's own.
        encoding
            Of lines, both ways.
        check
            Whether an exit code other than 0 fails the task, with the end of what the program printed as errors.

        Raises
        ------
        errors.PipedCommandFailed
            From the action, see ``check``.

        Notes
        -----
        Cost: narrow, no job; one process a partition, on the executor, killed with its task. Rows stream.

        Examples
        --------
        >>> fc.parallelize(["b", "a", "b"], 1).pipe("sort -u").collect()
        ['a', 'b']
        """
        check_iterable("command", command, "a program and its arguments")
        words: tuple[Any, ...] = tuple(shlex.split(command)) if isinstance(command, str) else tuple(command)
        if not words or not all(isinstance(word, str) for word in words):
            refuse("command", command, "a program and its arguments, as texts")
        variables = {} if env is None else env
        check_mapping("env", variables)
        for name, value in variables.items():
            check_str("env's name", name)
            check_str(f"env[{name!r}]", value)
        check_codec("encoding", encoding, codecs.lookup)
        piped = PipeRows(words, dict(variables), encoding, check)
        return self._narrow(MapPartitions(piped), "pipe")  # type: ignore[no-any-return]
