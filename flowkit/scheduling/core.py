"""The scheduler core: one door for stimuli, actions in return. Sans-IO: no clock, no thread, no Dask.

Runs in the scheduler process on whatever thread drives it, one call at a time.

Theory of operation. A batch of stimuli is applied one after the other, each to the machine it concerns (``endings`` for
reports, ``losses`` for executors, ``applications`` for jobs). Then, once a batch, the core settles: ``readiness`` looks again
which stages may run wherever that may have changed, and ``offers`` hands waiting tasks to executors with room. Everything that
is to be done about it comes back as actions, in order. Time comes in with each call; ``next_wakeup`` says when the core wants
a ``Tick``. Same stimuli, same seed: same actions.

Not in any table: an attempt whose job ended is *void*; it keeps its executor's slot until it reports or its executor is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from flowkit.abc import SchedulingPolicy
from flowkit.config import Config
from flowkit.errors import ConfigError, InternalError
from flowkit.model.events import ApplicationEnd, ApplicationStart, ExecutorAdded, JobStart, RddUnpersisted, StageInfo
from flowkit.model.ids import AppId, StageId
from flowkit.model.job_spec import JobSpec
from flowkit.scheduling import endings, losses, readiness
from flowkit.scheduling import stimuli as sti
from flowkit.scheduling.actions import (
    Action,
    AnswerCommit,
    ApplicationExpired,
    DropApplication,
    DropRdd,
    ReleaseResults,
)
from flowkit.scheduling.applications import Application, Job, Stage
from flowkit.scheduling.books import Books
from flowkit.scheduling.launch_depth import LaunchDepth
from flowkit.scheduling.map_outputs import MapOutputs
from flowkit.scheduling.offers import Offers
from flowkit.scheduling.policies.fifo import Fifo

_RING_LENGTH = 1_000


@dataclass(frozen=True, slots=True)
class CoreStatistics:
    """One look at the core."""

    applications: int
    jobs: int
    active_stages: int
    executors: int
    attempts: int
    stale_reports: int


class SchedulerCore:
    """Decides who runs what, where and when.

    Parameters
    ----------
    config
        Settings; those of scheduling, limits and time-outs are read here.
    seed
        Of the generator that breaks ties.
    first_attempt
        The first attempt id; ids rise from there and are never used twice.
    policy
        The order of task sets; first in, first out by default.
    """

    def __init__(self, config: Config, *, seed: int, first_attempt: int = 1, policy: SchedulingPolicy | None = None) -> None:
        if policy is None and config.scheduling_policy != "fifo":
            raise ConfigError(
                f"scheduling_policy = {config.scheduling_policy!r}: known: fifo",
                setting="scheduling_policy",
                value=config.scheduling_policy,
            )
        self._books = Books(config, seed, first_attempt)
        self._offers = Offers(policy or Fifo())
        self._watch = losses.Watch(config)
        #: the last stimuli with their times: enough to replay what led to a bug
        self.ring: deque[tuple[float, sti.Stimulus]] = deque(maxlen=100_000 if config.validate else _RING_LENGTH)

    # -- the door

    def handle(self, stimulus: sti.Stimulus, now: float) -> list[Action]:
        """Apply one stimulus and settle."""
        return self.handle_all((stimulus,), now)

    def handle_all(self, stimuli: Sequence[sti.Stimulus], now: float) -> list[Action]:
        """Apply a batch, then settle once; return what is to be done, in order."""
        books = self._books
        books.now = max(now, books.now)
        try:
            for stimulus in stimuli:
                self.ring.append((now, stimulus))
                self._apply(stimulus)
            self._settle()
            if books.config.validate:
                self.check()
        except AssertionError as error:
            raise InternalError(f"an invariant of the scheduler core is broken: {error}", story=self.story()) from error
        return books.take_actions()

    def next_wakeup(self) -> float | None:
        """When a ``Tick`` is wanted, or None while only news can change anything."""
        candidates = [self._offers.wake_at, self._watch.next_look(self._books)]
        return min((at for at in candidates if at is not None), default=None)

    def _settle(self) -> None:
        books = self._books
        # Ending a job may make another's stages worth a look; every pass ends jobs or starts stages, so there is an end.
        while len(books.executors) and (stale := [each for each in books.applications.values() if each.is_stale]):
            for application in stale:
                readiness.look_again(books, application)
        self._offers.make(books)

    def _apply(self, stimulus: sti.Stimulus) -> None:
        books = self._books
        match stimulus:
            case sti.TasksReported():
                executor = books.executors.get(stimulus.executor)
                if executor is None:
                    books.stale_count += 1
                    return
                executor.last_heard = books.now
                for report in stimulus.reports:
                    endings.hear(books, executor, report)
            case sti.Heartbeat():
                losses.heartbeat(books, stimulus)
            case sti.CommitRequested():
                self._commit_requested(stimulus)
            case sti.ApplicationOpened():
                self._application_opened(stimulus)
            case sti.ExecutorReady():
                losses.executor_ready(books, stimulus)
            case sti.ExecutorLost():
                losses.executor_lost(books, stimulus.executor, stimulus.reason, task_caused=stimulus.task_caused)
            case sti.ExecutorPaused() | sti.ExecutorResumed() | sti.ExecutorDraining() | sti.SlotsChanged():
                losses.executor_changed(books, stimulus)
            case sti.BlocksEvicted():
                losses.blocks_evicted(books, stimulus)
            case sti.Tick():
                for app, reason in self._watch.look(books):
                    books.emit(ApplicationExpired(app, reason))
                    self._end_application(app, reason)
            case _:
                self._apply_of_driver(stimulus)

    def _apply_of_driver(
        self,
        stimulus: sti.LeaseRenewed
        | sti.ApplicationClosed
        | sti.JobSubmitted
        | sti.JobCancelRequested
        | sti.ResultsFetched
        | sti.ResultLost
        | sti.ContentPut
        | sti.RddUnpersistRequested
        | sti.ShuffleReleased,
    ) -> None:
        books = self._books
        app = stimulus.spec.app if isinstance(stimulus, sti.JobSubmitted) else stimulus.app
        application = books.applications.get(app)
        if application is None:
            books.stale_count += 1
            if isinstance(stimulus, sti.JobSubmitted):
                books.emit(ApplicationExpired(app, "the scheduler does not know this application, or its lease ran out"))
            return
        application.lease_until = books.now + application.lease_s
        match stimulus:
            case sti.LeaseRenewed():
                pass
            case sti.ApplicationClosed(reason=reason):
                self._end_application(app, reason)
            case sti.JobSubmitted(spec=spec):
                self._job_submitted(application, spec)
            case sti.JobCancelRequested(job=job_id, reason=reason):
                job = application.jobs.get(job_id)
                if job is not None:
                    endings.fail_job(books, application, job, "JobCancelled", reason)
            case sti.ResultsFetched(attempts=attempts):
                for job in list(application.jobs.values()):
                    for attempt in attempts:
                        held = job.unfetched.pop(attempt, None)
                        if held is not None and books.executors.get(held[0]) is not None:
                            books.emit(ReleaseResults(held[0], (attempt,)))
                    endings.finish_job_if_done(books, application, job)
            case sti.ResultLost(job=job_id, attempt=attempt):
                job = application.jobs.get(job_id)
                if job is not None and attempt in job.unfetched:
                    losses.result_lost(application, job, attempt)
            case sti.ContentPut(content=content, host=host):
                application.contents.setdefault(content, set()).add(host)
                application.content_epoch += 1
                for stage in application.stages.values():
                    stage.missing_contents.pop(content, None)
            case sti.RddUnpersistRequested(rdd=rdd):
                application.cached.pop(rdd, None)
                for executor in books.executors:
                    books.emit(DropRdd(executor.id, app, rdd))
                books.publish(app, RddUnpersisted(time=books.now, app=app, rdd=rdd))
            case sti.ShuffleReleased(shuffle=shuffle):
                written_by = application.map_stages.get(shuffle)
                if written_by is not None and written_by.jobs:
                    written_by.is_released = True  # it goes with its last job
                elif written_by is not None:
                    endings.forget_stage(books, application, written_by)
            case _:
                assert_never(stimulus)

    # -- drivers

    def _application_opened(self, stimulus: sti.ApplicationOpened) -> None:
        books = self._books
        if stimulus.app in books.applications:
            books.stale_count += 1
            return
        books.applications[stimulus.app] = Application(stimulus.app, stimulus.name, stimulus.lease_s, books.now)
        books.publish(
            stimulus.app,
            ApplicationStart(time=books.now, app=stimulus.app, name=stimulus.name, flowkit_version=stimulus.flowkit_version),
        )
        for executor in books.executors:  # it came before anybody of this application listened
            books.publish(
                stimulus.app, ExecutorAdded(time=books.now, executor=executor.id, host=executor.host, slots=executor.slots)
            )

    def _end_application(self, app: AppId, reason: str) -> None:
        books = self._books
        application = books.applications[app]
        for job in list(application.jobs.values()):
            endings.fail_job(books, application, job, "JobCancelled", reason)
        del books.applications[app]
        for executor in books.executors:
            books.emit(DropApplication(executor.id, app))
        books.publish(app, ApplicationEnd(time=books.now, app=app, reason=reason))

    def _job_submitted(self, application: Application, spec: JobSpec) -> None:
        books = self._books
        if spec.job in application.seen_jobs:
            books.stale_count += 1
            return
        application.seen_jobs.add(spec.job)
        job = Job(spec, books.next_order)
        books.next_order += 1
        parents: dict[StageId, tuple[StageId, ...]] = {}
        by_shuffle = {each.shuffle: each.stage for each in spec.stages if each.shuffle is not None}
        for each in spec.stages:
            stage = application.stages.get(each.stage)
            if stage is None:
                outputs = None if each.shuffle is None else MapOutputs(each.shuffle, each.num_partitions)
                depth = LaunchDepth(books.config.launch_ahead_s, books.config.max_launch_depth)
                stage = application.stages[each.stage] = Stage(application.id, each, outputs, depth)
                if each.shuffle is not None:
                    application.map_stages[each.shuffle] = stage
            else:
                stage.spec = each  # the same stage; its caches may have changed since
                stage.definition = None
            stage.is_released = False
            stage.jobs[job.id] = job.order
            for content in (each.program, *each.attachments):
                if content.inline is None:
                    application.contents.setdefault(content.id, set()).update(content.holders)
            parents[each.stage] = tuple(by_shuffle[parent.shuffle] for parent in each.parents)
        application.jobs[job.id] = job
        application.is_stale = True
        needed = readiness.needed_stages(books, application, job)
        books.publish(
            application.id,
            JobStart(
                time=books.now,
                app=application.id,
                job=job.id,
                name=spec.name,
                stages=tuple(
                    StageInfo(each.stage, each.name, each.kind, len(each.partitions), parents[each.stage], each.operations)
                    for each in spec.stages
                ),
                skipped=tuple(each.stage for each in spec.stages if each.stage not in needed),
                properties=spec.properties,
            ),
        )
        if not spec.result_stage.partitions:
            endings.finish_job_if_done(books, application, job)

    def _commit_requested(self, stimulus: sti.CommitRequested) -> None:
        books = self._books
        executor = books.executors.get(stimulus.executor)
        attempt = None if executor is None else executor.attempts.get(stimulus.attempt)
        if executor is None:
            books.stale_count += 1
            return
        granted = (
            attempt is not None
            and not attempt.is_void
            and books.commits.ask(attempt.task_set.app, attempt.task_set.stage, attempt.partition, attempt.id)
        )
        books.emit(AnswerCommit(stimulus.executor, stimulus.attempt, granted))

    # -- introspection

    def check(self) -> None:
        """Every invariant of every machine; raises ``AssertionError``."""
        books = self._books
        books.executors.check()
        for application in books.applications.values():
            application.check()
        for executor in books.executors:
            for attempt in executor.attempts.values():
                assert attempt.is_void or attempt.id in attempt.task_set.running, f"attempt {attempt.id} is in limbo"
        wakeup = self.next_wakeup()
        waits = any(stage.task_set and stage.task_set.pending and not stage.missing_contents for stage in books.active.values())
        idle = any(executor.usable and not executor.attempts for executor in books.executors)
        assert not (waits and idle and wakeup is None), "tasks wait, slots are free, and nobody will wake the core"

    def assert_empty(self) -> None:
        """Raise ``AssertionError`` unless all that jobs needed is gone with them."""
        books = self._books
        assert not books.active, books.active
        assert not len(books.commits), "commits"
        for executor in books.executors:
            assert not executor.attempts, f"{executor} holds attempts {list(executor.attempts)}"
            assert not executor.defined, f"{executor} knows stages {list(executor.defined)}"
        for application in books.applications.values():
            assert not application.jobs, application.jobs
            for stage in application.stages.values():
                assert stage.is_map and stage.task_set is None and not stage.missing_contents, f"{stage} is left"

    def statistics(self) -> CoreStatistics:
        """A look from outside."""
        books = self._books
        return CoreStatistics(
            applications=len(books.applications),
            jobs=sum(len(application.jobs) for application in books.applications.values()),
            active_stages=len(books.active),
            executors=len(books.executors),
            attempts=sum(len(executor.attempts) for executor in books.executors),
            stale_reports=books.stale_count,
        )

    def story(self, length: int = 50) -> str:
        """The last stimuli, for a report of a bug."""
        return "\n".join(f"{at:.6f} {stimulus}" for at, stimulus in list(self.ring)[-length:])

    def snapshot(self) -> dict[str, Any]:
        """All that decides what happens next, as plain data; equal for equal histories."""
        books = self._books
        return {
            "executors": {
                executor.id: (executor.slots, executor.usable, tuple(executor.attempts)) for executor in books.executors
            },
            "applications": {
                app: {
                    "jobs": tuple(application.jobs),
                    "cached": {rdd: sorted(partitions) for rdd, partitions in application.cached.items()},
                    "stages": {
                        stage.id: (
                            stage.is_running,
                            stage.attempt_count,
                            tuple(stage.task_set.pending) if stage.task_set else (),
                            tuple(stage.task_set.running) if stage.task_set else (),
                            tuple(stage.outputs.statuses) if stage.outputs else tuple(sorted(stage.delivered)),
                        )
                        for stage in application.stages.values()
                    },
                }
                for app, application in books.applications.items()
            },
            "next_attempt": books.next_attempt,
        }
