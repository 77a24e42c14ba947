"""The core's books: every machine it keeps, and the pen that writes actions down. Shared by the core's own modules only.

Runs in the scheduler process inside ``SchedulerCore``; nobody outside ``scheduling`` holds a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from flowkit.config import Config
from flowkit.model.events import Event
from flowkit.model.ids import AppId, AttemptId, ExecutorId, StageId
from flowkit.model.task import TaskLaunch
from flowkit.scheduling.actions import Action, Kill, Launch, Publish
from flowkit.scheduling.applications import Application, Stage
from flowkit.scheduling.commits import Commits
from flowkit.scheduling.executors import Executors, ExecutorState
from flowkit.scheduling.placement import Placement
from flowkit.scheduling.task_sets import Attempt, TaskSet

if TYPE_CHECKING:
    from flowkit.scheduling.health import Health


class Books:
    """State of one scheduler core. ``now`` is the time of the stimulus being handled."""

    def __init__(self, config: Config, seed: int, first_attempt: int, placement: Placement) -> None:
        self.config = config
        self.rng = Random(seed)
        self.now = 0.0
        self.executors = Executors()
        #: tells the rack of a host by the names it has
        self.topology: Callable[[Sequence[str]], str] | None = None
        self.placement = placement
        #: somebody asks how long tasks took
        self.keeps_durations = False
        #: set by the core: it looks at these books
        self.health: Health
        self.applications: dict[AppId, Application] = {}
        self.commits = Commits()
        #: stages whose tasks are offered
        self.active: dict[tuple[AppId, int], Stage] = {}
        #: executors that are to be told to forget a stage
        self.forgetting: dict[tuple[AppId, StageId], dict[ExecutorState, None]] = {}
        #: rises whenever the executors that serve a host change
        self.address_epoch = 0
        self.next_attempt = AttemptId(first_attempt)
        self.next_order = 0
        self.stale_count = 0
        #: what is to be copied, or who may leave, must be looked at again
        self.copies_stale = False
        self.actions: list[Action] = []
        self._launches: dict[ExecutorId, list[TaskLaunch]] = {}

    def emit(self, action: Action) -> None:
        """One more thing to be done."""
        self.actions.append(action)

    def publish(self, app: AppId | None, event: Event) -> None:
        """One more thing to be heard."""
        self.actions.append(Publish(app, event))

    def kill(self, executor: ExecutorState, attempts: Sequence[Attempt], reason: str) -> None:
        """Have an executor stop attempts. One that goes on costs its process, which the core sees to if the executor cannot (``liveness``)."""
        self.emit(Kill(executor.id, tuple(attempt.id for attempt in attempts), reason))
        for attempt in attempts:
            attempt.killed_at = attempt.killed_at or self.now
        self.executors.killing[executor.id] = executor

    def queue_launch(self, executor: ExecutorId, launch: TaskLaunch) -> None:
        """Launches of one round travel together."""
        self._launches.setdefault(executor, []).append(launch)

    def take_actions(self) -> list[Action]:
        """All that was written, launches last: their stages are defined by then."""
        actions = self.actions
        for executor, launches in self._launches.items():
            actions.append(Launch(executor, tuple(launches)))
        self._launches = {}
        self.actions = []
        return actions

    def pending_slots(self) -> int:
        """Slots that tasks wait for which nobody was sent."""
        return sum(len(stage.task_set.pending) * stage.task_set.cpus for stage in self.active.values() if stage.task_set)

    def live_task_sets(self) -> list[TaskSet]:
        """All that have tasks waiting or under way."""
        found = []
        for application in self.applications.values():
            for stage in application.stages.values():
                task_set = stage.task_set
                if task_set is not None and (task_set.pending or task_set.running):
                    found.append(task_set)
        return found

    def bars(self, task_set: TaskSet, executor: ExecutorState) -> bool:
        """Whether tasks of a stage are kept from an executor: too many failed there, or the placement policy says so."""
        return self.health.avoids(task_set, executor) or not self.placement.allows(task_set, executor)

    def mark_stale(self) -> None:
        """Outputs, blocks or executors changed: what stages may run must be looked at again, everywhere."""
        for application in self.applications.values():
            application.is_stale = True

    def stage_of(self, task_set: TaskSet) -> Stage | None:
        """The stage of a task set, if its application still is."""
        application = self.applications.get(task_set.app)
        return None if application is None else application.stages.get(task_set.stage)
