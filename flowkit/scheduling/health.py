"""Executors on which tasks keep failing: kept from a stage, then from an application, for a while.

Runs in the scheduler process inside ``SchedulerCore``; off unless there is a health policy (``exclude_failing``). It is told at each failure
what failed on that executor, and says what the executor gets no more tasks of: the stage, or the application for some time, or nor do the
others of its host. When all executors are excluded that there are, and tasks failed alike on all of them, it is the tasks that are at fault: then
nobody is excluded for them, and the limit of failures decides. Otherwise the stage fails, with what failed where, unless others come
within ``exclude_wait_s``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from flowkit.abc import Exclusion, Failures, HealthPolicy
from flowkit.config import Config
from flowkit.model.events import ExecutorExcluded, ExecutorUnexcluded
from flowkit.model.ids import AppId, ExecutorId, HostToken, PartitionIndex, StageId
from flowkit.scheduling import jobs
from flowkit.scheduling.asking import asked, is_seconds
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.task_sets import Attempt, TaskSet

_KIND = "health policy"


@dataclass(slots=True)
class _Record:
    """What one application saw of one executor."""

    #: tasks that failed there, by stage, and in which ways they did
    failed: dict[StageId, set[PartitionIndex]] = field(default_factory=dict)
    kinds: dict[StageId, set[str]] = field(default_factory=dict)
    #: stages that it gets nothing of
    stages: set[StageId] = field(default_factory=set)
    #: until when it gets nothing of the application; 0: it does
    until: float = 0.0
    #: how the last one failed
    reason: str = ""


class Health:
    """What failed where, by application."""

    def __init__(self, config: Config, policy: HealthPolicy | None) -> None:
        self._config = config
        self._policy = policy
        self._records: dict[tuple[AppId, ExecutorId], _Record] = {}
        #: until when a host gets nothing of an application
        self._hosts: dict[tuple[AppId, HostToken], float] = {}
        #: stages whose tasks fail wherever they run
        self._at_fault: set[tuple[AppId, StageId]] = set()
        #: since when a task set has had nowhere to go
        self._stuck_since: dict[tuple[AppId, StageId], float] = {}
        self.wake_at: float | None = None

    def note_failure(self, books: Books, attempt: Attempt, kind: str, reason: str) -> None:
        """A task failed, by what counts against it."""
        task_set, executor = attempt.task_set, attempt.executor
        app, stage = task_set.app, task_set.stage
        if self._policy is None or (app, stage) in self._at_fault:
            return
        record = self._records.setdefault((app, executor.id), _Record())
        record.failed.setdefault(stage, set()).add(attempt.partition)
        record.kinds.setdefault(stage, set()).add(kind)
        record.reason = reason
        neighbours = books.executors.by_host.get(executor.host, {})
        others = sum(each != executor.id and self._is_excluded(app, each) for each in neighbours)
        of_stage, total = len(record.failed[stage]), sum(map(len, record.failed.values()))
        found = _judged(self._policy, Failures(books.now, executor, task_set, of_stage, total, len(neighbours), others, reason))
        if found.from_stage and stage not in record.stages:
            record.stages.add(stage)
            self._tell(books, executor, task_set, stage=stage, until=0.0, why=f"{of_stage} tasks of the stage failed there")
        if found.from_application_s > 0 and not record.until:
            record.until = books.now + found.from_application_s
            self._tell(books, executor, task_set, stage=None, until=record.until, why=f"{total} tasks failed there")
        if found.host_s > 0 and (app, executor.host) not in self._hosts:
            until = self._hosts[app, executor.host] = books.now + found.host_s
            why = f"{others + (record.until > 0)} others of its host are excluded"
            for each in neighbours.values():
                if not self._is_excluded(app, each.id):
                    self._tell(books, each, task_set, stage=None, until=until, why=why)

    def _is_excluded(self, app: AppId, executor: ExecutorId) -> bool:
        record = self._records.get((app, executor))
        return record is not None and record.until > 0

    def _tell(
        self, books: Books, executor: ExecutorState, task_set: TaskSet, *, stage: StageId | None, until: float, why: str
    ) -> None:
        record = self._records.get((task_set.app, executor.id))
        books.publish(
            task_set.app,
            ExecutorExcluded(
                time=books.now,
                app=task_set.app,
                executor=executor.id,
                stage=stage,
                until=until,
                reason=why if record is None else f"{why}; last: {record.reason}",
            ),
        )

    def avoids(self, task_set: TaskSet, executor: ExecutorState) -> bool:
        """Whether tasks of a stage are kept from an executor."""
        if not self._records:
            return False
        if (task_set.app, executor.host) in self._hosts:
            return True
        record = self._records.get((task_set.app, executor.id))
        return record is not None and (record.until > 0 or task_set.stage in record.stages)

    def given_up(self, books: Books, task_set: TaskSet) -> None:
        """A stage ends since one task failed too often. If others failed alike on several executors, it was not for their sake."""
        app, stage = task_set.app, task_set.stage
        kinds = [record.kinds[stage] for (owner, _), record in self._records.items() if owner == app and stage in record.kinds]
        if kinds and len(kinds) >= min(2, books.executors.usable_count) and len(set().union(*kinds)) == 1:
            self._forgive(books, app, stage)

    def look(self, books: Books) -> None:
        """Let back who has served its time; give up jobs that have had nowhere to go for too long."""
        self.wake_at = None
        if not self._records:
            return
        self._let_back(books)
        stuck = dict(self._stuck(books))
        for key in [key for key in stuck if self._fail_alike(books, *key)]:
            self._forgive(books, *key)
            del stuck[key]
            self._wake(books.now)  # it has somewhere to go again
        self._stuck_since = {key: self._stuck_since.get(key, books.now) for key in stuck}
        for key, task_set in stuck.items():
            until = self._stuck_since[key] + self._config.exclude_wait_s
            if books.now < until:
                self._wake(until)
                continue
            del self._stuck_since[key]
            stage = books.stage_of(task_set)
            if stage is not None:
                reasons = sorted({record.reason for (app, _), record in self._records.items() if app == task_set.app})
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

    def _fail_alike(self, books: Books, app: AppId, stage: StageId) -> bool:
        """Whether tasks of a stage failed on every executor that there is, and all in the same way."""
        records = [self._records.get((app, each.id), _Record()) for each in books.executors if each.usable]
        kinds = [record.kinds.get(stage, set()) for record in records]
        return all(kinds) and len(set().union(*kinds)) == 1

    def _forgive(self, books: Books, app: AppId, stage: StageId) -> None:
        """Its tasks fail wherever they run: nobody is excluded for them, nor stays so."""
        self._at_fault.add((app, stage))
        for (owner, executor), record in self._records.items():
            if owner != app or stage not in record.failed:
                continue
            del record.failed[stage], record.kinds[stage]
            record.stages.discard(stage)
            state = books.executors.get(executor)
            whole = state is not None and self._hosts.pop((app, state.host), 0.0) > 0
            if state is not None and (record.until or whole):
                books.publish(app, ExecutorUnexcluded(time=books.now, app=app, executor=executor))
            record.until = 0.0

    def _let_back(self, books: Books) -> None:
        for key, record in list(self._records.items()):
            app, executor = key
            if app not in books.applications or books.executors.get(executor) is None:
                del self._records[key]
            elif record.until and record.until <= books.now:
                del self._records[key]
                books.publish(app, ExecutorUnexcluded(time=books.now, app=app, executor=executor))
            elif record.until:
                self._wake(record.until)
        for host_key, until in list(self._hosts.items()):
            if until <= books.now or host_key[0] not in books.applications:
                del self._hosts[host_key]
            else:
                self._wake(until)
        self._at_fault = {key for key in self._at_fault if key[0] in books.applications}

    def _wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)


def _judged(policy: HealthPolicy, failures: Failures) -> Exclusion:
    return asked(_KIND, policy, "judge", lambda: policy.judge(failures), _complaint)


def _complaint(found: object) -> str:
    if isinstance(found, Exclusion) and is_seconds(found.from_application_s) and is_seconds(found.host_s):
        return ""
    return ", not an Exclusion of seconds that are 0 or more"
