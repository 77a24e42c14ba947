"""MEDIAN: what takes several times as long as half of its fellows did is slow. Pure."""

from __future__ import annotations

from flowkit.abc import StageProgress
from flowkit.errors import ConfigError
from flowkit.scheduling.policies.checks import check_seconds


class SlowerThanMedian:
    """When most tasks of a stage are over, those that have run several times as long as the median are slow.

    Parameters
    ----------
    quantile
        Part of the tasks that are over before others are looked at, above 0 and at most 1.
    multiplier
        How many times the median.
    min_s
        How long a slow task has run at least, in seconds.

    Notes
    -----
    The rule, and its numbers, are Spark's.

    Examples
    --------
    >>> from flowkit.testing.policies import stage
    >>> rule = SlowerThanMedian(quantile=0.75, multiplier=2.0)
    >>> rule.slow_after(StageProgress(stage(), done=3, total=8, durations=[1.0, 1.1, 1.2]))
    >>> rule.slow_after(StageProgress(stage(), done=6, total=8, durations=[1.0, 1.1, 1.2, 1.5, 1.6, 3.0]))
    3.0
    """

    def __init__(self, *, quantile: float = 0.9, multiplier: float = 3.0, min_s: float = 0.1) -> None:
        if not 0 < quantile <= 1:
            raise ConfigError(f"quantile = {quantile!r}: must be above 0 and at most 1", setting="quantile", value=quantile)
        if not multiplier > 0:
            raise ConfigError(f"multiplier = {multiplier!r}: must be above 0", setting="multiplier", value=multiplier)
        check_seconds("min_s", min_s)
        self._quantile, self._multiplier, self._min_s = quantile, multiplier, min_s

    def __repr__(self) -> str:
        return f"SlowerThanMedian(quantile={self._quantile:g}, multiplier={self._multiplier:g}, min_s={self._min_s:g})"

    def slow_after(self, progress: StageProgress) -> float | None:
        """A multiple of the median, once enough tasks are over."""
        if not progress.done or progress.done < self._quantile * progress.total:
            return None
        return max(self._min_s, self._multiplier * progress.median_s)
