"""Copies of tasks that take much longer than their fellows: on another executor, and the first of the two that ends well counts.

Runs in the scheduler process inside ``SchedulerCore``, ten times a second while there is anything to copy. A policy says after how long a
task is slow (``policies.stragglers``); it is copied then, once. The other attempt is killed when one ends well; output is committed by one
of them alone (``commits``), accumulators count once (``endings``).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from flowkit.abc import SpeculationPolicy, StageProgress
from flowkit.model.events import SpeculativeTaskSubmitted
from flowkit.model.task import Locality
from flowkit.scheduling.asking import Fault, PolicyError, asked, is_seconds
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.launches import launch
from flowkit.scheduling.task_sets import Attempt, TaskSet

_LOOK_S = 0.1
#: executors with a free slot that are thought of before all are
_GUESSES = 8
#: Copies made in one look, and after how long the next is if there were more: the thread the core runs on has others to serve.
_MOST_COPIED = 64
_BREATH_S = 0.001

_KIND = "speculation policy"


class Speculation:
    """Watches for slow tasks. ``wake_at`` is when to look again."""

    def __init__(self, policy: SpeculationPolicy | None) -> None:
        self._policy = policy
        self._next_look = 0.0
        self.wake_at: float | None = None

    def look(self, books: Books) -> None:
        """Copy what is slow and has somewhere to go."""
        if self._policy is None:
            return
        if books.now < self._next_look:
            self.wake_at = self._next_look
            return
        self._next_look = books.now + _LOOK_S
        self.wake_at = None
        left = _MOST_COPIED
        for task_set in books.live_task_sets():
            if task_set.running:
                self.wake_at = self._next_look
            if task_set.barrier is not None or task_set.needs_more or not task_set.running:
                continue
            slow_after = _slow_after(self._policy, task_set)
            if slow_after is None:
                continue
            for attempt in self._slow(books, task_set, slow_after):
                if not left:
                    self._next_look = self.wake_at = books.now + _BREATH_S
                    return
                left -= self._copy(books, task_set, attempt)

    def _slow(self, books: Books, task_set: TaskSet, slow_after: float) -> list[Attempt]:
        """Attempts that run for longer, and have no copy; none while there is no slot for one."""
        if not books.executors.idle_slots:
            return []
        latest = books.now - slow_after
        # In the order of their launch: none of those behind the first that was launched too late has run for so long.
        launched = takewhile(lambda attempt: attempt.launched_at < latest, task_set.running.values())
        return [
            attempt
            for attempt in launched
            if attempt.started_at and attempt.seen_running_at < latest and attempt.partition not in task_set.copied
        ]

    def _place(self, books: Books, task_set: TaskSet, attempt: Attempt) -> ExecutorState | None:
        """One with a free slot, on another host if there is one: of a few first, for all may be many."""
        loads = books.executors.loads

        def has_a_slot(slots: int) -> int:
            return slots - task_set.cpus + 1

        def best(executors: Iterable[ExecutorState | None]) -> ExecutorState | None:
            return min(
                (
                    each
                    for each in executors
                    if each is not None and each is not attempt.executor and not books.bars(task_set, each)
                ),
                key=lambda each: (each.host == attempt.executor.host, each.load / each.slots, books.rng.random()),
                default=None,
            )

        found = best(loads.least(has_a_slot, books.rng) for _ in range(_GUESSES))
        if found is None or found.host == attempt.executor.host:
            found = best(loads.below(has_a_slot))
        return found

    def _copy(self, books: Books, task_set: TaskSet, attempt: Attempt) -> bool:
        """Whether there was a place for it."""
        stage = books.stage_of(task_set)
        if stage is None or stage.task_set is not task_set or not stage.is_running or stage.missing_contents:
            return False
        executor = self._place(books, task_set, attempt)
        if executor is None:
            return False
        task_set.copied[attempt.partition] = [attempt]  # the other follows
        launch(
            books,
            books.applications[stage.app],
            stage,
            task_set,
            executor,
            attempt.partition,
            Locality.ANY,
            speculative=True,
        )
        books.publish(
            task_set.app,
            SpeculativeTaskSubmitted(
                time=books.now,
                app=task_set.app,
                stage=task_set.stage,
                partition=attempt.told,
                attempt=attempt.id,
                executor=executor.id,
                run_s=books.now - attempt.seen_running_at,
            ),
        )
        return True


def _slow_after(policy: SpeculationPolicy, task_set: TaskSet) -> float | None:
    """How long a task may run, as the policy says; None: as long as it likes, for now."""
    done = task_set.done_count
    total = done + len(task_set.pending) + len(task_set.running) - len(task_set.copied)
    try:
        return asked(
            _KIND,
            policy,
            "slow_after",
            lambda: policy.slow_after(StageProgress(task_set, done, total, task_set.sorted_durations)),
            lambda found: "" if found is None or is_seconds(found) else ", neither a number of seconds nor None",
        )
    except PolicyError as error:
        raise Fault(task_set, error) from error
