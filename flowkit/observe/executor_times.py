"""How long tasks of one stage take on each executor, so that one that is slow stands out. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from flowkit.model.ids import ExecutorId

#: executors looked at; on a cluster beyond, one slow one is a small part of it
_MOST: Final = 512
#: tasks that an executor, and all others together, must have ended; how much slower its mean is; how many seconds that cost.
#: Its longest task is left out of all three: one slow partition makes no slow executor.
_LEAST_TASKS, _SLOWER, _LEAST_S = 3, 2.5, 1.0


class SlowExecutor(NamedTuple):
    """An executor, the mean time of its tasks, and that of all others'."""

    executor: ExecutorId
    mean_s: float
    others_s: float


class ExecutorTimes:
    """Tasks and their seconds, by executor.

    >>> times = ExecutorTimes()
    >>> for _ in range(5):
    ...     for executor, seconds in {"slow": 3.0, "a": 1.0, "b": 1.0}.items():
    ...         times.add(ExecutorId(executor), seconds)
    >>> times.slowest()
    SlowExecutor(executor='slow', mean_s=3.0, others_s=1.0)
    """

    __slots__ = ("_by_executor", "_count", "_seconds")

    def __init__(self) -> None:
        #: tasks, their seconds, those of the longest one
        self._by_executor: dict[ExecutorId, tuple[int, float, float]] = {}
        self._count = 0
        self._seconds = 0.0

    def add(self, executor: ExecutorId, seconds: float) -> None:
        """A task ended well."""
        known = self._by_executor.get(executor)
        if known is None:
            if len(self._by_executor) >= _MOST:
                return
            known = (0, 0.0, 0.0)
        self._by_executor[executor] = known[0] + 1, known[1] + seconds, max(known[2], seconds)
        self._count += 1
        self._seconds += seconds

    def slowest(self) -> SlowExecutor | None:
        """The executor that is much slower than the others; None when there is none."""
        worst: SlowExecutor | None = None
        for executor, (count, seconds, longest) in self._by_executor.items():
            others = self._count - count
            if count - 1 < _LEAST_TASKS or others < _LEAST_TASKS:
                continue
            usual, other = seconds - longest, (self._seconds - seconds) / others
            mean = usual / (count - 1)
            if mean > _SLOWER * other and usual - (count - 1) * other > _LEAST_S and (worst is None or mean > worst.mean_s):
                worst = SlowExecutor(executor, mean, other)
        return worst
