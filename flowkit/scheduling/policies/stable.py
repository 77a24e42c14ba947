"""STABLE: as many executors as the last while needed, changed seldom; for streams. Pure."""

from __future__ import annotations

from collections import deque

from flowkit.abc import Allocation, Demand
from flowkit.scheduling.policies.checks import check_seconds


class Stable:
    """Hold what the busiest moment of the last while needed: a batch every few seconds neither grows nor shrinks the cluster.

    Parameters
    ----------
    window_s
        The while that is looked back on, in seconds.
    hold_s
        Between two changes at least.
    backlog_s
        How long tasks must wait without a pause before there are to be more.

    Examples
    --------
    >>> Stable(window_s=300.0)
    Stable(window_s=300, hold_s=60)
    """

    def __init__(self, *, window_s: float = 600.0, hold_s: float = 60.0, backlog_s: float = 5.0) -> None:
        for name, value in (("window_s", window_s), ("hold_s", hold_s), ("backlog_s", backlog_s)):
            check_seconds(name, value)
        self._window_s, self._hold_s, self._backlog_s = window_s, hold_s, backlog_s
        #: needs that no later one exceeded, oldest and largest first
        self._peaks: deque[tuple[float, int]] = deque()
        self._began_at: float | None = None
        self._changed_at = float("-inf")
        self._waiting_since: float | None = None

    def __repr__(self) -> str:
        return f"Stable(window_s={self._window_s:g}, hold_s={self._hold_s:g})"

    def look(self, demand: Demand) -> Allocation:
        """See ``abc.AllocationPolicy``."""
        now = demand.now
        if self._began_at is None:
            self._began_at = now
        while self._peaks and self._peaks[-1][1] <= demand.needed:
            self._peaks.pop()
        self._peaks.append((now, demand.needed))
        while self._peaks[0][0] < now - self._window_s:
            self._peaks.popleft()
        if not demand.waiting:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
        may_change_at = self._changed_at + self._hold_s
        grow_at = None if self._waiting_since is None or demand.needed <= demand.target else self._waiting_since + self._backlog_s
        shrink_at = max(self._began_at, self._peaks[0][0]) + self._window_s
        peak = self._peaks[0][1]
        if now >= may_change_at and grow_at is not None and now >= grow_at:
            self._changed_at = now
            return Allocation(demand.needed, (), f"{demand.waiting:,} tasks have waited for {self._backlog_s:g} s", shrink_at)
        if now >= may_change_at and now >= self._began_at + self._window_s and peak < demand.present:
            idle = sorted(demand.idle, key=lambda each: -each.idle_s)
            leave = [each.executor for each in idle[: demand.present - peak]]
            if leave:
                self._changed_at = now
                left = demand.present - len(leave)
                return Allocation(left, leave, f"the last {self._window_s:g} s needed no more than {peak}", None)
        later = [max(at, may_change_at) for at in (grow_at, shrink_at) if at is not None]
        return Allocation(demand.target, look_at=min((at for at in later if at > now), default=None))
