"""How many tasks an executor is sent ahead: enough to hide the messages' way, not more than can be taken back cheaply.

Pure arithmetic.
"""

from __future__ import annotations

#: Weight of the newest task's time: after some ten tasks an estimate has forgotten how it began.
_WEIGHT = 0.2


class LaunchDepth:
    """The depth for one stage, learnt from how long its tasks take."""

    __slots__ = ("_ahead_s", "_limit", "run_s")

    def __init__(self, ahead_s: float, limit: int) -> None:
        self._ahead_s = ahead_s
        self._limit = limit
        #: estimated seconds of one task; None before the first has ended
        self.run_s: float | None = None

    def observe(self, run_s: float) -> None:
        """A task took this long."""
        run_s = max(run_s, 1e-6)
        self.run_s = run_s if self.run_s is None else self.run_s + _WEIGHT * (run_s - self.run_s)

    def of(self, slots: int, *, ahead: bool = True) -> int:
        """Attempts an executor of ``slots`` may hold: one more than it runs while nothing is known.

        Unless ``ahead``, as many as it runs, if a task takes so long that a slot may wait for the next one.

        >>> depth = LaunchDepth(ahead_s=0.02, limit=128)
        >>> depth.of(4)
        5
        >>> depth.observe(0.001)
        >>> depth.of(4)
        84
        >>> depth.observe(60.0)
        >>> depth.of(4)
        5
        """
        if not ahead and (self.run_s is None or self.run_s >= self._ahead_s):
            return slots
        if self.run_s is None:
            return slots + 1
        return max(slots + 1, min(self._limit, slots + int(self._ahead_s * slots / self.run_s)))
