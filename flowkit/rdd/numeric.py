"""Actions on numbers: statistics and histograms. They run jobs; run on the driver."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any, TypeVar

from flowkit.errors import EmptyRdd, InvalidArgument, WrongType
from flowkit.execution.statistics import CountInBuckets, StatCounter, extremes_of_rows, is_counted, stats_of_rows
from flowkit.rdd.base import Base, action
from flowkit.rdd.checks import check_int

T = TypeVar("T")


class Numeric(Base[T]):
    """What is for numbers."""

    __slots__ = ()

    @action
    def stats(self) -> StatCounter:
        """Count, mean, variance and extremes, in one pass.

        Notes
        -----
        Cost: one job; holds a few numbers a partition. Floating point; NaN makes all but the count NaN.

        Examples
        --------
        >>> print(fc.range(5).stats())
        (count: 5, mean: 2.0, stdev: 1.4142135623730951, min: 0.0, max: 4.0)
        """
        return self._stats("stats")

    def _stats(self, operation: str) -> StatCounter:
        return reduce(StatCounter.merge, self._run(stats_of_rows, operation), StatCounter())

    @action
    def mean(self) -> float:
        """The mean; 0.0 of none.

        Notes
        -----
        Cost: one job.

        Examples
        --------
        >>> fc.range(5).mean()
        2.0
        """
        return self._stats("mean").mean

    @action
    def variance(self) -> float:
        """The variance of the whole population; ``nan`` of none.

        Notes
        -----
        Cost: one job.

        Examples
        --------
        >>> fc.parallelize([1, 2, 3]).variance()
        0.6666666666666666
        """
        return self._stats("variance").variance

    @action
    def stdev(self) -> float:
        """The standard deviation of the whole population; ``nan`` of none.

        Notes
        -----
        Cost: one job.

        Examples
        --------
        >>> fc.parallelize([1, 3]).stdev()
        1.0
        """
        return self._stats("stdev").stdev

    @action
    def sample_variance(self) -> float:
        """The variance that a sample tells of its population (divided by one less than the count); ``nan`` of fewer than two.

        Notes
        -----
        Cost: one job.

        Examples
        --------
        >>> fc.parallelize([1, 2, 3]).sample_variance()
        1.0
        """
        return self._stats("sample_variance").sample_variance

    @action
    def sample_stdev(self) -> float:
        """The square root of ``sample_variance``.

        Notes
        -----
        Cost: one job.

        Examples
        --------
        >>> fc.parallelize([1, 2, 3]).sample_stdev()
        1.0
        """
        return self._stats("sample_stdev").sample_stdev

    @action
    def histogram(self, buckets: int | Sequence[Any]) -> tuple[list[Any], list[int]]:
        """How many elements lie in each of some buckets.

        Parameters
        ----------
        buckets
            Bounds, ascending: a bucket holds its lower bound and not its upper one, but the last holds both. What lies outside is
            left out. Or a number: as many buckets of equal width from the least to the greatest element, which must be numbers
            unless it is 1.

        Returns
        -------
        tuple
            The bounds, and the count of each bucket. None and NaN are counted nowhere.

        Raises
        ------
        errors.EmptyRdd
            A number of buckets was asked for and there is nothing to take bounds from; also a ValueError.

        Notes
        -----
        Cost: one job; two when a number of buckets is given.

        Examples
        --------
        >>> fc.range(51).histogram(2)
        ([0, 25, 50], [25, 26])
        >>> fc.range(51).histogram([0, 5, 25, 50])
        ([0, 5, 25, 50], [5, 20, 26])
        """
        if isinstance(buckets, int):
            bounds = self._even_bounds(buckets)
        else:
            with self._on_driver("histogram"):
                bounds = _checked_bounds(buckets)
        if len(bounds) == 2 and bounds[0] == bounds[1]:
            parts = self._run(_CountEqual(bounds[0]), "histogram")
            return bounds, [sum(parts)]
        parts = self._run(CountInBuckets(tuple(bounds)), "histogram")
        return bounds, [sum(column) for column in zip(*parts, strict=True)] if parts else [0] * (len(bounds) - 1)

    def _even_bounds(self, buckets: int) -> list[Any]:
        count = check_int("buckets", buckets, least=1)
        parts = [part for part in self._run(extremes_of_rows, "histogram (bounds)") if part]
        if not parts:
            raise EmptyRdd("a histogram of nothing has no bounds; give them")
        with self._on_driver("histogram"):
            # In lists: a StopIteration of a comparison must not look like the end of them.
            least, greatest = min([part[0] for part in parts]), max([part[1] for part in parts])
            return _even(least, greatest, count)


def _even(least: Any, greatest: Any, count: int) -> list[Any]:
    """Bounds of so many buckets of equal width."""
    if least == greatest or count == 1:
        return [least, greatest]
    try:
        infinite = math.isinf(greatest - least)
    except TypeError:
        raise TypeError(
            f"buckets of equal width need numbers, not {type(least).__name__}; give the bounds, or ask for one bucket"
        ) from None
    if infinite:
        raise InvalidArgument(
            "buckets of equal width cannot reach to infinity; give the bounds",
            name="buckets",
            value=count,
            allowed="bounds",
        )
    width = (greatest - least) // count
    if width * count != greatest - least:
        width = (greatest - least) / count
    return [*(least + index * width for index in range(count)), greatest]


class _CountEqual:
    """How many rows equal a value: a histogram of one bucket without width."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __call__(self, _partition: int, rows: Any) -> int:
        value = self._value
        return sum(1 for row in rows if row == value)


def _checked_bounds(buckets: Sequence[Any]) -> list[Any]:
    def refuse(allowed: str) -> InvalidArgument:
        return InvalidArgument(f"buckets = {buckets!r}: must be {allowed}", name="buckets", value=buckets, allowed=allowed)

    if not isinstance(buckets, list | tuple):
        raise WrongType(
            f"buckets must be a number or a list of bounds, not {type(buckets).__name__}",
            name="buckets",
            value=buckets,
            allowed="a number or a list of bounds",
        )
    bounds = list(buckets)
    if len(bounds) < 2:
        raise refuse("a number, or two bounds or more")
    if not all(is_counted(bound) for bound in bounds):  # not map: a StopIteration of a comparison would end it
        raise refuse("bounds without None or NaN")
    if any(one >= other for one, other in pairwise(bounds)):
        raise refuse("bounds in ascending order, none twice")
    return bounds
