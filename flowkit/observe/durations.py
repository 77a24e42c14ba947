"""Quantiles of any number of durations in a few hundred integers.

Pure. A histogram with buckets that grow by a constant factor, as HdrHistogram and DDSketch have: a quantile is off by at most half of
that factor, extremes and count are exact.
"""

from __future__ import annotations

from math import floor, log
from typing import Final, NamedTuple

_GROWTH: Final = 1.05
_LOG_GROWTH: Final = log(_GROWTH)
#: seconds below which nobody tells durations apart
_LEAST_S: Final = 1e-6


class Quantiles(NamedTuple):
    """Seconds."""

    least: float
    lower_quartile: float
    median: float
    upper_quartile: float
    greatest: float


class Durations:
    """Durations, as far as their distribution goes.

    Examples
    --------
    >>> durations = Durations()
    >>> for hundredths in range(1, 101):
    ...     durations.add(hundredths / 100)
    >>> durations.least, durations.greatest, abs(durations.quantile(0.5) - 0.5) < 0.5 * 0.03
    (0.01, 1.0, True)
    """

    __slots__ = ("_buckets", "count", "greatest", "least", "total")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.count = 0
        self.total = 0.0
        self.least = self.greatest = 0.0

    def add(self, seconds: float) -> None:
        """Count one; negative ones (clocks) count as none at all."""
        value = max(0.0, seconds)
        self.least = min(self.least, value) if self.count else value
        self.greatest = max(self.greatest, value)
        self.count += 1
        self.total += value
        bucket = floor(log(max(value, _LEAST_S)) / _LOG_GROWTH)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def quantile(self, fraction: float) -> float:
        """The duration that a fraction of all does not exceed, within 2.5 %; 0 when there are none."""
        if not self.count:
            return 0.0
        wanted, seen = fraction * self.count, 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                middle: float = _GROWTH ** (bucket + 0.5)
                return min(max(middle, self.least), self.greatest)
        return self.greatest

    def quantiles(self) -> Quantiles:
        """Extremes, quartiles and median."""
        return Quantiles(self.least, self.quantile(0.25), self.quantile(0.5), self.quantile(0.75), self.greatest)
