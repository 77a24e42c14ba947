"""Count, mean, variance and extremes of numbers in one pass, merged over partitions. Runs on slot threads and on the driver."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from flowkit.model.advice import Advising, public

#: numbers looked at together: enough for numpy to be worth it
_CHUNK = 8_192


@public("StatCounter")
@dataclass(frozen=True, slots=True)
class StatCounter(metaclass=Advising):
    """Statistics of numbers, in floating point. Immutable; merged by ``merge``.

    Parameters
    ----------
    count
        How many.
    mean
        0.0 of none.
    squares
        Sum of the squared distances from the mean.
    minimum, maximum
        ``inf`` and ``-inf`` of none.

    Examples
    --------
    >>> stats = StatCounter.of([1, 2, 3, 4])
    >>> stats.count, stats.mean, stats.variance, stats.minimum, stats.maximum
    (4, 2.5, 1.25, 1.0, 4.0)
    >>> stats == StatCounter.of([1, 2]).merge(StatCounter.of([3, 4]))
    True
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf

    @classmethod
    def of(cls, numbers: Iterable[Any]) -> StatCounter:
        """Statistics of some numbers.

        Raises
        ------
        TypeError
            Naming the first element that is no number.
        """
        found = cls()
        iterator = iter(numbers)
        while chunk := list(islice(iterator, _CHUNK)):
            found = found.merge(cls._of_chunk(chunk))
        return found

    @classmethod
    def _of_chunk(cls, chunk: list[Any]) -> StatCounter:
        values = _as_floats(chunk)
        mean = float(values.mean())
        return cls(len(chunk), mean, float(((values - mean) ** 2).sum()), float(values.min()), float(values.max()))

    def merge(self, other: StatCounter) -> StatCounter:
        """Statistics of both together.

        By the pairwise update of Chan, Golub and LeVeque, *Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances* (1979), which does not lose digits as sums of squares do.
        """
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        distance = other.mean - self.mean
        return StatCounter(
            count,
            self.mean + distance * (other.count / count),
            self.squares + other.squares + distance * distance * (self.count * other.count / count),
            _least(self.minimum, other.minimum),
            -_least(-self.maximum, -other.maximum),
        )

    @property
    def sum(self) -> float:
        """The mean times the count."""
        return self.mean * self.count

    @property
    def variance(self) -> float:
        """Of the whole population; ``nan`` of none."""
        return self.squares / self.count if self.count else math.nan

    @property
    def stdev(self) -> float:
        """The square root of ``variance``."""
        return math.sqrt(self.variance)

    @property
    def sample_variance(self) -> float:
        """Of a sample (divided by one less than the count); ``nan`` of fewer than two."""
        return self.squares / (self.count - 1) if self.count > 1 else math.nan

    @property
    def sample_stdev(self) -> float:
        """The square root of ``sample_variance``."""
        return math.sqrt(self.sample_variance)

    def __str__(self) -> str:
        if not self.count:
            return "(count: 0)"
        return f"(count: {self.count}, mean: {self.mean}, stdev: {self.stdev}, min: {self.minimum}, max: {self.maximum})"


def _least(one: float, other: float) -> float:
    # NaN is kept, whichever side it is on.
    return one if math.isnan(one) or one < other else other


def _as_floats(chunk: list[Any]) -> Any:
    try:
        values = np.array(chunk, np.float64)
        if values.ndim == 1 and not any(isinstance(each, str | bytes) for each in (chunk[0], chunk[-1])):
            return values
    except (TypeError, ValueError):
        pass
    return np.array([_as_float(each) for each in chunk], np.float64)


def _as_float(value: Any) -> float:
    if not isinstance(value, str | bytes):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    raise TypeError(f"statistics are of numbers, not of {value!r:.80} ({type(value).__name__})")


def stats_of_rows(_partition: int, rows: Iterator[Any]) -> StatCounter:
    """Of one partition."""
    return StatCounter.of(rows)


def count_and_sum(_partition: int, rows: Iterator[Any]) -> tuple[int, float]:
    """How many numbers there are, and their sum, rounded once.

    >>> count_and_sum(0, iter([0.1] * 10))
    (10, 1.0)
    """
    count, sums = 0, []
    while chunk := list(islice(rows, _CHUNK)):
        count += len(chunk)
        sums.append(math.fsum(_as_floats(chunk)))
    return count, math.fsum(sums)


# -- histograms ----------------------------------------------------------------------------------------------------------


def is_counted(value: Any) -> bool:
    """Whether a histogram counts it: None and NaN are left out.

    >>> [is_counted(each) for each in (None, float("nan"), 0, "a")]
    [False, False, True, True]
    """
    return value is not None and value == value  # noqa: PLR0124 - that is what NaN is


def extremes_of_rows(_partition: int, rows: Iterator[Any]) -> list[Any]:
    """``[least, greatest]`` of what is counted, empty when there is none."""
    least = greatest = None
    for value in rows:  # not filter: a StopIteration of a comparison would end it early, and rows would be lost
        if not is_counted(value):
            continue
        if least is None or value < least:
            least = value
        if greatest is None or value > greatest:
            greatest = value
    return [] if least is None else [least, greatest]


@dataclass(frozen=True, slots=True)
class CountInBuckets:
    """How many rows lie in each bucket ``[bounds[i], bounds[i + 1])``, the last one closed; others are left out."""

    bounds: tuple[Any, ...]

    def __call__(self, _partition: int, rows: Iterator[Any]) -> list[int]:
        """Counts, one a bucket."""
        bounds, last = self.bounds, len(self.bounds) - 2
        counts = [0] * (last + 1)
        for value in rows:  # not filter, as above
            if is_counted(value) and bounds[0] <= value <= bounds[-1]:
                counts[min(bisect_right(bounds, value) - 1, last)] += 1
        return counts
