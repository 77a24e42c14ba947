"""Keeping what was computed. Runs on the driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from flowkit.lineage.explain import explain
from flowkit.rdd.base import Base

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")


class Persistence(Base[T]):
    """Caching, naming, explaining."""

    __slots__ = ()

    def cache(self) -> Self:
        """Keep each partition in the memory of the executor that computes it first, for jobs after this one.

        Returns
        -------
        RDD
            This very RDD.

        Notes
        -----
        Cost: nothing at the call. What does not fit is computed again when needed, as is what is lost with an executor.

        Examples
        --------
        >>> squares = fc.range(4).map(lambda x: x * x).cache()
        >>> squares.sum(), squares.is_cached
        (14, True)
        """
        self._node.cached = True
        return self

    def unpersist(self, *, blocking: bool = False) -> Self:
        """Drop what ``cache`` kept; the RDD can still be used and computes again.

        Parameters
        ----------
        blocking
            Return only when executors were told.

        Notes
        -----
        Cost: one message, no job.

        Examples
        --------
        >>> squares = fc.range(4).map(lambda x: x * x).cache()
        >>> squares.unpersist().is_cached
        False
        """
        if self._node.cached:
            self._node.cached = False
            self._runner.unpersist(self._node.id, blocking=blocking)
        return self

    @property
    def is_cached(self) -> bool:
        """Whether it is marked as cached."""
        return self._node.cached

    def set_name(self, name: str) -> Self:
        """Give it a name for people, shown by ``repr`` and ``explain``.

        Notes
        -----
        Cost: nothing.

        Examples
        --------
        >>> fc.range(4).set_name("numbers").name
        'numbers'
        """
        self._node.name = str(name)
        return self

    def explain(self) -> str:
        """What an action would run: stages, what is pipelined in each, partitions, shuffles, caches.

        Returns
        -------
        Explanation
            Text; prints as it is, in a notebook or a shell too.

        Notes
        -----
        Cost: nothing runs.

        Examples
        --------
        >>> fc.range(4, num_partitions=2).map(lambda x: (x % 2, x)).group_by_key().explain()  # doctest: +ELLIPSIS
        stage 1: result, 2 partitions
            group_by_key at ...   <- stage 0, hash partitioned into 2
        stage 0: writes the shuffle of group_by_key at ...
            map at ...
            range at ...   2 partitions
        """
        return explain(self._node)
