"""Totals and means of all partitions, estimated from those that are known. Pure; runs on the driver.

Partitions are taken for a random sample of all of them, and what is known of each for one observation: the estimators of cluster
sampling in Cochran, *Sampling Techniques*, 3rd edition, chapters 2 and 6, with the correction for a finite population, so that an
estimate from every partition is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Self


class BoundedFloat(float):
    """An estimate: a float between bounds that hold the true value with some confidence.

    Attributes
    ----------
    low, high
        The bounds; infinite when one partition or none is known.
    confidence
        How often such bounds hold the true value, between 0 and 1; 1.0 when everything was counted.

    Examples
    --------
    >>> estimate = BoundedFloat(10.0, low=8.0, high=12.0, confidence=0.95)
    >>> estimate
    10.0 (8.0 to 12.0, confidence 0.95)
    >>> estimate + 1
    11.0
    """

    low: float
    high: float
    confidence: float

    def __new__(cls, value: float, *, low: float, high: float, confidence: float) -> Self:  # noqa: D102
        made = super().__new__(cls, value)
        made.low, made.high, made.confidence = low, high, confidence
        return made

    @classmethod
    def exact(cls, value: float) -> Self:
        """What is no estimate any more.

        >>> BoundedFloat.exact(3)
        3.0 (exact)
        """
        return cls(value, low=float(value), high=float(value), confidence=1.0)

    @property
    def is_exact(self) -> bool:
        """Whether everything was counted."""
        return self.low == self.high and self.confidence == 1.0

    def __repr__(self) -> str:
        if self.is_exact:
            return f"{float(self)!r} (exact)"
        return f"{float(self)!r} ({self.low!r} to {self.high!r}, confidence {self.confidence!r})"

    __str__ = __repr__

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (float(self), self.low, self.high, self.confidence)


def _rebuild(value: float, low: float, high: float, confidence: float) -> BoundedFloat:
    return BoundedFloat(value, low=low, high=high, confidence=confidence)


def estimated_total(parts: Sequence[float], of: int, confidence: float) -> BoundedFloat:
    """The sum over ``of`` partitions, from those of some of them.

    >>> estimated_total([2, 2, 2], 6, 0.95)
    12.0 (12.0 to 12.0, confidence 0.95)
    >>> estimated_total([2, 3], 2, 0.95)
    5.0 (exact)
    """
    known = len(parts)
    if known == of:
        return BoundedFloat.exact(math.fsum(parts))
    if known < 2:
        return _unknown(of * parts[0] if parts else math.nan, confidence)
    mean = math.fsum(parts) / known
    deviation = math.sqrt(math.fsum((part - mean) ** 2 for part in parts) / (known - 1))
    error = of * _standard_error(deviation, known, of)
    return _bounded(of * mean, error, known, confidence)


def estimated_mean(parts: Sequence[tuple[int, float]], of: int, confidence: float) -> BoundedFloat:
    """The mean of all elements of ``of`` partitions, from ``(count, sum)`` of some of them; ``nan`` of no elements.

    >>> estimated_mean([(2, 8.0), (1, 4.0)], 10, 0.95)
    4.0 (4.0 to 4.0, confidence 0.95)
    """
    known = len(parts)
    count = sum(elements for elements, _ in parts)
    if not count:
        return BoundedFloat.exact(0.0) if known == of else _unknown(math.nan, confidence)
    mean = math.fsum(total for _, total in parts) / count
    if known == of:
        return BoundedFloat.exact(mean)
    if known < 2:
        return _unknown(mean, confidence)
    residuals = math.fsum((total - mean * elements) ** 2 for elements, total in parts)
    deviation = math.sqrt(residuals / (known - 1))
    error = _standard_error(deviation, known, of) / (count / known)
    return _bounded(mean, error, known, confidence)


def _unknown(value: float, confidence: float) -> BoundedFloat:
    return BoundedFloat(value, low=-math.inf, high=math.inf, confidence=confidence)


def _standard_error(deviation: float, known: int, of: int) -> float:
    return deviation / math.sqrt(known) * math.sqrt(1 - known / of)


def _bounded(value: float, error: float, known: int, confidence: float) -> BoundedFloat:
    reach = t_quantile(0.5 + confidence / 2, known - 1) * error
    return BoundedFloat(value, low=value - reach, high=value + reach, confidence=confidence)


def t_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's distribution.

    Exact for one and two degrees of freedom, else by Hill, *Algorithm 396: Student's t-Quantiles*, CACM 13 (1970): six digits.

    >>> [round(t_quantile(0.975, n), 3) for n in (1, 2, 5, 30)]
    [12.706, 4.303, 2.571, 2.042]
    """
    tail = 2 * (1 - probability)  # both tails together
    if freedom == 1:
        return 1 / math.tan(tail * math.pi / 2)
    if freedom == 2:
        return math.sqrt(2 / (tail * (2 - tail)) - 2)
    a = 1 / (freedom - 0.5)
    b = 48 / (a * a)
    c = ((20_700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * freedom
    y = (d * tail) ** (2 / freedom)
    if y > 0.05 + a:
        x = NormalDist().inv_cdf(tail / 2)
        y = x * x
        if freedom < 5:
            c += 0.3 * (freedom - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(a * y * y)
    else:
        y = ((1 / (((freedom + 6) / (freedom * y) - 0.089 * d - 0.822) * (freedom + 2) * 3) + 0.5 / (freedom + 4)) * y - 1) * (
            freedom + 1
        ) / (freedom + 2) + 1 / y
    return math.sqrt(freedom * y)
