"""BACKLOG: more executors while tasks wait, fewer when some have had nothing to do for a while. Pure."""

from __future__ import annotations

from math import inf

from flowkit.abc import Allocation, Demand
from flowkit.model.ids import ExecutorId
from flowkit.scheduling.policies.checks import check_seconds


class Backlog:
    """Follow the backlog: one executor, then two, four, eight as long as tasks wait; the idle ones leave.

    A short burst gets little, a long one soon gets all it can use: nobody knows at its beginning which it is, and executors take time
    to come. What is asked for and not needed any more is taken back at once; executors that are there leave only when they are idle.

    Parameters
    ----------
    backlog_s
        How long tasks wait before the first is added, in seconds.
    sustained_s
        And from then on between one round and the next; None: the same.
    idle_s
        How long one without tasks stays.
    cached_idle_s
        The same for one that holds cached partitions; without end by default, for it would take them along.

    Notes
    -----
    The rule is that of Spark's ``ExecutorAllocationManager``. One thing differs: executors that are there and needed count as asked for, so
    that growing goes on from what there is.

    Examples
    --------
    >>> policy = Backlog()
    >>> demand = Demand(0.0, target=1, present=1, waiting=100, running=1, slots=1, minimum=1, maximum=inf, idle=())
    >>> targets = []
    >>> for second in range(6):
    ...     found = policy.look(demand._replace(now=float(second)))
    ...     demand = demand._replace(target=found.target)
    ...     targets.append(found.target)
    >>> targets
    [1, 2, 4, 8, 16, 32]
    """

    def __init__(
        self, *, backlog_s: float = 1.0, sustained_s: float | None = None, idle_s: float = 60.0, cached_idle_s: float = inf
    ) -> None:
        sustained_s = backlog_s if sustained_s is None else sustained_s
        for name, value in (
            ("backlog_s", backlog_s),
            ("sustained_s", sustained_s),
            ("idle_s", idle_s),
            ("cached_idle_s", cached_idle_s),
        ):
            check_seconds(name, value)
        self._backlog_s, self._sustained_s = backlog_s, sustained_s
        self._idle_s, self._cached_idle_s = idle_s, cached_idle_s
        #: how many the next round adds, and when it is; None: nothing waits
        self._step = 1
        self._add_at: float | None = None
        self._waiting_since = 0.0
        #: there was work: until then what there is to begin with stays
        self._has_begun = False

    def __repr__(self) -> str:
        return f"Backlog(backlog_s={self._backlog_s:g}, idle_s={self._idle_s:g})"

    def look(self, demand: Demand) -> Allocation:
        """See ``abc.AllocationPolicy``."""
        self._has_begun = self._has_begun or bool(demand.waiting or demand.running)
        target, reason = self._grown(demand)
        if self._has_begun and demand.needed < target:
            target = demand.needed
            reason = f"all that waits or runs has room on {demand.needed}"
        leave, next_end = self._done_waiting(demand)
        if leave:
            self._has_begun = True
            target = min(target, max(demand.minimum, demand.present - len(leave)))
            reason = f"idle for {self._idle_s:g} s"
        times = [at for at in (self._add_at, next_end) if at is not None]
        return Allocation(target, leave, reason, min(times, default=None))

    def _grown(self, demand: Demand) -> tuple[int, str]:
        if not demand.waiting:
            self._step, self._add_at = 1, None
            return demand.target, ""
        if self._add_at is None:
            self._step, self._add_at, self._waiting_since = 1, demand.now + self._backlog_s, demand.now
        if demand.now < self._add_at:
            return demand.target, ""
        self._add_at = demand.now + self._sustained_s
        base = max(demand.target, min(demand.present, demand.needed))
        target = min(base + self._step, demand.needed)
        self._step = self._step * 2 if target == base + self._step else 1
        if target <= base:
            return base, ""
        return target, f"{demand.waiting:,} tasks wait, some for {demand.now - self._waiting_since:.1f} s"

    def _done_waiting(self, demand: Demand) -> tuple[list[ExecutorId], float | None]:
        """Those that have been idle for long enough, the longest first, and when the next will have been."""
        spare = demand.present - demand.needed
        leave: list[ExecutorId] = []
        next_end: float | None = None
        for each in sorted(demand.idle, key=lambda each: -each.idle_s):
            limit_s = self._cached_idle_s if each.caches else self._idle_s
            if each.idle_s < limit_s:
                end = demand.now + limit_s - each.idle_s
                next_end = end if next_end is None else min(next_end, end)
            elif len(leave) < spare:
                leave.append(each.executor)
        return leave, None if next_end == inf else next_end
