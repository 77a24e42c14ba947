"""Asks the placement policy: where tasks would best run, how long that is waited for, and where they may not run at all.

Runs in the scheduler process inside ``SchedulerCore``. Answers are checked here, and remembered by task set where they are asked for at
every offer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from flowkit.abc import Near, PlacementPolicy, Preferred, RestrictingPolicy, Waits
from flowkit.model.shown import short
from flowkit.scheduling.asking import Fault, PolicyError, asked, is_seconds, raised
from flowkit.scheduling.executors import ExecutorState

if TYPE_CHECKING:
    from flowkit.model.ids import PartitionIndex
    from flowkit.scheduling.executors import Executors
    from flowkit.scheduling.task_sets import TaskSet

_KIND = "placement policy"


def _complaint_of_waits(waits: object) -> str:
    fits = isinstance(waits, Waits) and all(is_seconds(each, below=inf) for each in waits)
    return "" if fits else ", not Waits of finite seconds, 0 or more"


def _complaint_of_allows(known: object) -> str:
    return "" if type(known) is bool else ", not True or False"


class Placement:
    """One policy, asked."""

    def __init__(self, policy: PlacementPolicy) -> None:
        self.policy = policy
        self._restricting = policy if isinstance(policy, RestrictingPolicy) else None

    @property
    def restricts(self) -> bool:
        """Whether it may keep tasks from executors."""
        return self._restricting is not None

    def waits(self, task_set: TaskSet) -> Waits:
        """How long a stage's tasks wait, level by level."""
        return asked(_KIND, self.policy, "waits", partial(self.policy.waits, task_set), _complaint_of_waits)

    def prefer(self, task_set: TaskSet, partition: PartitionIndex, near: Near) -> Preferred:
        """Where a partition would best run."""
        try:  # as ``asked`` does it: this is asked of every task
            found = self.policy.prefer(task_set, partition, near)
        except BaseException as error:
            raised(_KIND, self.policy, "prefer", error)
        if type(found) is not Preferred:
            raise PolicyError(_KIND, self.policy, "prefer", f"gave {short(found)}, not a Preferred")
        return found

    def allows(self, task_set: TaskSet, executor: ExecutorState) -> bool:
        """Whether a stage's tasks may run on an executor."""
        if self._restricting is None:
            return True
        known = task_set.allowed.get(executor.id)
        if known is None:
            try:
                known = asked(
                    _KIND, self.policy, "allows", partial(self._restricting.allows, task_set, executor), _complaint_of_allows
                )
            except PolicyError as error:
                raise Fault(task_set, error) from error
            task_set.allowed[executor.id] = known
        return known

    def open_to(self, task_set: TaskSet, executors: Executors, version: int) -> Sequence[ExecutorState]:
        """The executors on which a stage's tasks may run; ``version`` rises when there are others."""
        if task_set.open_to is None or task_set.open_to[0] != version:
            task_set.open_to = version, [each for each in executors if self.allows(task_set, each)]
        return task_set.open_to[1]

    def any_idle(self, task_set: TaskSet, executors: Executors, version: int) -> bool:
        """Whether one of the executors on which a stage's tasks may run has a slot with nothing to run."""
        return any(each.idle_slots for each in self.open_to(task_set, executors, version))
