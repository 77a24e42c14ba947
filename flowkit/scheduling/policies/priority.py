"""PRIORITY: the more important job first, ahead of all that is queued of others. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from flowkit.abc import Share, TaskSetView
from flowkit.scheduling.policies.pools import PRIORITY


class Priority:
    """Jobs with a higher number (``with fc.job(priority=10):``; 0 if they have none) go first; among equals first come, first served.

    Nothing that runs is stopped. A job of low priority starts nothing while one of higher priority has tasks waiting.
    """

    def __repr__(self) -> str:
        return "Priority()"

    def order(self, candidates: Sequence[TaskSetView]) -> Sequence[TaskSetView]:
        """The highest first."""
        return sorted(candidates, key=lambda each: (-_priority(each), each.job, each.stage))

    def shares(self, candidates: Sequence[TaskSetView], slots: int) -> Sequence[Share]:
        """The highest that has tasks waiting may claim everything; the others start nothing then."""
        waiting = [_priority(each) for each in candidates if each.pending_count]
        if not waiting or min(map(_priority, candidates)) == max(waiting):
            return [Share()] * len(candidates)
        highest = max(waiting)
        return [Share(max(0, slots - each.running_count)) if _priority(each) == highest else Share(most=0) for each in candidates]


def _priority(task_set: TaskSetView) -> float:
    try:
        return float(task_set.properties.get(PRIORITY, 0))
    except ValueError:
        return 0.0
