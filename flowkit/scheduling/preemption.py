"""Slots taken back for who is owed them: where a policy says so, and only after waiting.

Runs in the scheduler process inside ``SchedulerCore``. A task that goes ahead of others because its pool is below its part, and has waited
at an executor for longer than the policy's ``preempt_after_s``, has the newest task there of a pool beyond its part killed. That one counts as
no failure and runs again.
"""

from __future__ import annotations

from collections import Counter

from flowkit.abc import SchedulingPolicy, SharingPolicy
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.offers import shares_of
from flowkit.scheduling.policies.pools import checked_wait, pool_of
from flowkit.scheduling.task_sets import Attempt


class Preemption:
    """Watches for tasks that wait for slots they are owed. ``wake_at`` is when to look again."""

    def __init__(self, policy: SchedulingPolicy) -> None:
        self._policy = policy
        self._after_s = checked_wait(getattr(policy, "preempt_after_s", None))
        self.wake_at: float | None = None

    def look(self, books: Books) -> None:
        """Kill what has to make room."""
        self.wake_at = None
        if self._after_s is None or not isinstance(self._policy, SharingPolicy):
            return
        surplus: Counter[str] | None = None
        for executor in books.executors:
            if not executor.urgent_load:
                continue
            waiting = [each for each in executor.attempts.values() if each.urgent and not each.started_at and not each.is_void]
            if not waiting:
                continue
            overdue = [each for each in waiting if each.launched_at + self._after_s <= books.now]
            if overdue and surplus is None:
                surplus = self._surplus(books, self._policy)
            for attempt, victim in zip(overdue, _victims(executor, surplus or Counter(), len(overdue)), strict=False):
                victim.is_preempted = True
                pool = pool_of(attempt.task_set)
                reason = f"preempted: pool {pool} is below its part and has waited for {self._after_s:g} s (preempt_after_s)"
                books.kill(executor, (victim,), reason)
            later = [each.launched_at + self._after_s for each in waiting if each not in overdue]
            if later:
                self.wake_at = min(later) if self.wake_at is None else min(self.wake_at, *later)

    def _surplus(self, books: Books, policy: SharingPolicy) -> Counter[str]:
        """Tasks under way beyond each pool's part."""
        live = books.live_task_sets()
        slots = books.executors.usable_slots
        shares = shares_of(policy, live, slots)
        return Counter({pool_of(task_set): share.surplus for task_set, share in zip(live, shares, strict=False)})


def _victims(executor: ExecutorState, surplus: Counter[str], most: int) -> list[Attempt]:
    """Of pools beyond their part the newest first: they lose least. None while one that was killed has not gone yet."""
    running = [each for each in executor.attempts.values() if each.started_at and not each.is_void]
    if any(each.is_preempted for each in running):
        return []
    found: list[Attempt] = []
    for attempt in sorted(running, key=lambda each: -each.started_at):
        pool = pool_of(attempt.task_set)
        if surplus[pool] > 0 and len(found) < most:
            surplus[pool] -= 1
            found.append(attempt)
    return found
