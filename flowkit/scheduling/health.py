"""Executors on which tasks keep failing: kept from a stage, then from an application, for a while.

Runs in the scheduler process inside ``SchedulerCore``; off unless there is a health policy (``exclude_failing``). It is told at each failure
what failed on that executor, and says what the executor gets no more tasks of: the stage, or the application for some time, or nor do the
others of its host. An application all of whose executors are excluded fails, with what failed where, unless others come within
``exclude_wait_s``.
"""

from __future__ import annotations

from collections.abc import Iterator

from flowkit.abc import Exclusion, Failures, HealthPolicy
from flowkit.config import Config
from flowkit.model.events import ExecutorExcluded, ExecutorUnexcluded
from flowkit.model.ids import AppId, ExecutorId, HostToken, PartitionIndex, StageId
from flowkit.scheduling import jobs
from flowkit.scheduling.asking import PolicyError, asked, is_seconds
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.task_sets import Attempt, TaskSet

_KIND = "health policy"


class Health:
    """What failed where, by application."""

    def __init__(self, config: Config, policy: HealthPolicy | None) -> None:
        self._config = config
        self._policy = policy
        #: tasks that failed on an executor, by stage
        self._failed: dict[tuple[AppId, ExecutorId], dict[StageId, dict[PartitionIndex, None]]] = {}
        #: the last reason of a failure there
        self._reasons: dict[tuple[AppId, ExecutorId], str] = {}
        #: stages that an executor gets nothing of
        self._excluded_stages: dict[tuple[AppId, ExecutorId], set[StageId]] = {}
        #: until when an executor or host gets nothing of an application
        self._excluded: dict[tuple[AppId, ExecutorId], float] = {}
        self._excluded_hosts: dict[tuple[AppId, HostToken], float] = {}
        #: since when a task set has had nowhere to go
        self._stuck_since: dict[tuple[AppId, StageId], float] = {}
        self.wake_at: float | None = None

    def note_failure(self, books: Books, attempt: Attempt, reason: str) -> None:
        """A task failed, by what counts against it."""
        if self._policy is None:
            return
        task_set, executor = attempt.task_set, attempt.executor
        key = task_set.app, executor.id
        stages = self._failed.setdefault(key, {})
        failed = stages.setdefault(task_set.stage, {})
        failed[attempt.partition] = None
        self._reasons[key] = reason
        neighbours = books.executors.by_host.get(executor.host, {})
        others = [each for each in neighbours if each != executor.id and (task_set.app, each) in self._excluded]
        total = sum(map(len, stages.values()))
        found = _judged(
            self._policy, Failures(books.now, executor, task_set, len(failed), total, len(neighbours), len(others), reason)
        )
        if found.from_stage and task_set.stage not in self._excluded_stages.setdefault(key, set()):
            self._excluded_stages[key].add(task_set.stage)
            self._tell(
                books, executor, task_set, stage=task_set.stage, until=0.0, why=f"{len(failed)} tasks of the stage failed there"
            )
        if found.from_application_s > 0 and key not in self._excluded:
            until = self._excluded[key] = books.now + found.from_application_s
            self._tell(books, executor, task_set, stage=None, until=until, why=f"{total} tasks failed there")
        if found.host_s > 0 and (task_set.app, executor.host) not in self._excluded_hosts:
            until = self._excluded_hosts[task_set.app, executor.host] = books.now + found.host_s
            why = f"{len(others) + (key in self._excluded)} others of its host are excluded"
            for each in neighbours.values():
                if (task_set.app, each.id) not in self._excluded:
                    self._tell(books, each, task_set, stage=None, until=until, why=why)

    def _tell(
        self, books: Books, executor: ExecutorState, task_set: TaskSet, *, stage: StageId | None, until: float, why: str
    ) -> None:
        reason = self._reasons.get((task_set.app, executor.id), "")
        books.publish(
            task_set.app,
            ExecutorExcluded(
                time=books.now,
                app=task_set.app,
                executor=executor.id,
                stage=stage,
                until=until,
                reason=f"{why}; last: {reason}" if reason else why,
            ),
        )

    def avoids(self, task_set: TaskSet, executor: ExecutorState) -> bool:
        """Whether tasks of a stage are kept from an executor."""
        if not self._failed and not self._excluded_hosts:
            return False
        if (task_set.app, executor.host) in self._excluded_hosts or (task_set.app, executor.id) in self._excluded:
            return True
        return task_set.stage in self._excluded_stages.get((task_set.app, executor.id), ())

    def look(self, books: Books) -> None:
        """Let back who has served its time; give up jobs that have had nowhere to go for too long."""
        self.wake_at = None
        if not self._failed and not self._excluded_hosts:
            return
        self._let_back(books)
        stuck = dict(self._stuck(books))
        self._stuck_since = {key: self._stuck_since.get(key, books.now) for key in stuck}
        for key, task_set in stuck.items():
            until = self._stuck_since[key] + self._config.exclude_wait_s
            if books.now < until:
                self._wake(until)
                continue
            del self._stuck_since[key]
            stage = books.stage_of(task_set)
            if stage is not None:
                reasons = sorted({reason for (app, _), reason in self._reasons.items() if app == task_set.app})
                jobs.abort_stage(
                    books,
                    books.applications[stage.app],
                    stage,
                    "JobFailed",
                    f"stage {stage.id} ({stage.spec.name}) has nowhere to run: all {books.executors.usable_count} executors are excluded, "
                    f"since tasks failed there, and no other came within {self._config.exclude_wait_s:g} s (exclude_wait_s); "
                    f"last: {'; '.join(reasons)}",
                    None,
                    {},
                )

    def _stuck(self, books: Books) -> Iterator[tuple[tuple[AppId, StageId], TaskSet]]:
        if not books.executors.usable_count:
            return
        for key, stage in books.active.items():
            task_set = stage.task_set
            if (
                task_set is not None
                and task_set.pending
                and all(self.avoids(task_set, each) for each in books.executors if each.usable)
            ):
                yield (key[0], stage.id), task_set

    def _let_back(self, books: Books) -> None:
        for key, until in list(self._excluded.items()):
            app, executor = key
            if until <= books.now:
                del self._excluded[key]
                self._failed.pop(key, None)
                self._excluded_stages.pop(key, None)
                self._reasons.pop(key, None)
                if app in books.applications and books.executors.get(executor) is not None:
                    books.publish(app, ExecutorUnexcluded(time=books.now, app=app, executor=executor))
            else:
                self._wake(until)
        for host_key, until in list(self._excluded_hosts.items()):
            if until <= books.now:
                del self._excluded_hosts[host_key]
            else:
                self._wake(until)
        gone = [key for key in self._failed if key[0] not in books.applications or books.executors.get(key[1]) is None]
        for key in gone:
            del self._failed[key]
            self._excluded.pop(key, None)
            self._excluded_stages.pop(key, None)
            self._reasons.pop(key, None)

    def _wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)


def _judged(policy: HealthPolicy, failures: Failures) -> Exclusion:
    found: object = asked(_KIND, policy, "judge", lambda: policy.judge(failures))
    if not isinstance(found, Exclusion) or not (is_seconds(found.from_application_s) and is_seconds(found.host_s)):
        raise PolicyError(_KIND, policy, "judge", f"gave {found!r}, not an Exclusion of seconds that are 0 or more")
    return found
