"""What is going on and what went on: a fold over events, bounded in memory, that faces read.

Runs where its bus does; written by one listener thread, read by any. One store is for one application: events of others are
left out.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TypeVar

from flowkit.model.events import (
    Event,
    ExecutorAdded,
    ExecutorRemoved,
    ExecutorsKept,
    ExecutorsReleased,
    JobEnd,
    JobStart,
    ShuffleOutputsLost,
    StageCompleted,
    StageInfo,
    StageSubmitted,
    TaskEnd,
    TaskStart,
)
from flowkit.model.ids import AppId, ExecutorId, HostToken, JobId, RddId, StageId
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import CommitDeniedFailure, KilledFailure
from flowkit.observe.durations import Durations, Quantiles
from flowkit.observe.executor_times import ExecutorTimes, SlowExecutor
from flowkit.observe.hints import StageFacts
from flowkit.observe.metrics import (
    add_costs,
    add_metrics,
    format_bytes,
    format_count,
    format_seconds,
    rows_read,
    shuffle_read_bytes,
)
from flowkit.observe.stored import Stored, StoredBlocks

K = TypeVar("K")
V = TypeVar("V")

#: jobs, stage attempts and executors remembered; the oldest that are over go first. Totals forget nothing.
_REMEMBERED = 1_000
_NO_DURATIONS = Quantiles(0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(slots=True)
class JobStatus:
    """A job. ``outcome`` is ``running`` until it ends; times are seconds since the epoch, 0 while there is none."""

    job: JobId
    name: str
    stages: tuple[StageId, ...]
    skipped: tuple[StageId, ...]
    started_at: float
    ended_at: float = 0.0
    outcome: str = "running"
    reason: str = ""
    #: what the driver's thread had said: group, description, tags, and whatever else
    properties: dict[str, str] = field(default_factory=dict)
    #: what is known of ``stages`` from the start
    stage_infos: tuple[StageInfo, ...] = ()


@dataclass(slots=True)
class StageStatus:
    """One attempt at a stage."""

    stage: StageId
    stage_attempt: int
    name: str
    task_count: int
    jobs: tuple[JobId, ...]
    started_at: float
    ended_at: float = 0.0
    running_count: int = 0
    #: partitions whose tasks ended well
    succeeded_count: int = 0
    #: tasks that did so: fewer where small partitions shared some, more where large ones were split
    task_ends: int = 0
    #: attempts that failed; neither killed ones nor those another was faster than
    failed_count: int = 0
    failure: str = ""
    #: sums over its tasks: rows and bytes of attempts that ended well, seconds and spilled bytes of all
    metrics: TaskMetrics = field(default_factory=TaskMetrics)
    #: seconds of its tasks that ended well
    durations: Quantiles = _NO_DURATIONS
    #: one whose tasks take much longer than those on others
    slow_executor: SlowExecutor | None = None
    #: running, done, failed, or cancelled (it was stopped with its job); of a stage without attempt, from ``StatusStore.stages_of``:
    #: waiting, skipped (its output was there already) or not run (its job ended before it began)
    state: str = "running"

    def in_words(self) -> str:
        """What its tasks did, in one line.

        >>> StageStatus(StageId(0), 0, "map", 2, (), 1.0, 3.0, succeeded_count=2).in_words()
        '2 tasks, 0 rows in, 2.0 s; a task 0 ms, 0 ms, 0 ms (least, median, most)'
        """
        count = self.task_ends or self.succeeded_count
        shared = f" for {self.succeeded_count:,} partitions" if count != self.succeeded_count else ""
        parts = [
            f"{count} task{'' if count == 1 else 's'}{shared}",
            f"{format_count(rows_read(self.metrics))} rows in",
        ]
        for size, what in (
            (self.metrics.input_bytes, "read"),
            (shuffle_read_bytes(self.metrics), "of shuffles read"),
            (self.metrics.shuffle_write_bytes, "shuffled"),
            (self.metrics.disk_spilled_bytes, "spilled"),
        ):
            if size:
                parts.append(f"{format_bytes(size)} {what}")
        if self.ended_at:
            parts.append(format_seconds(self.ended_at - self.started_at))
        least, median, most = (format_seconds(self.durations[place]) for place in (0, 2, 4))
        return f"{', '.join(parts)}; a task {least}, {median}, {most} (least, median, most)"

    def rows_per_second(self, now: float) -> float:
        """Rows read by finished tasks, since the stage began."""
        seconds = (self.ended_at or now) - self.started_at
        return rows_read(self.metrics) / seconds if seconds > 0 else 0.0


@dataclass(slots=True)
class ExecutorStatus:
    """An executor; ``removed_at`` 0 while it is there."""

    executor: ExecutorId
    host: HostToken
    slots: int
    added_at: float
    running_count: int = 0
    succeeded_count: int = 0
    failed_count: int = 0
    removed_at: float = 0.0
    reason: str = ""
    #: it was let go, for there was no work for it
    released: bool = False


@dataclass(slots=True)
class RunSummary:
    """What an application did so far."""

    jobs: int = 0
    failed_jobs: int = 0
    #: stage attempts that ran
    stages: int = 0
    skipped_stages: int = 0
    #: attempts that ended well
    tasks: int = 0
    failed_tasks: int = 0
    #: those of ``tasks`` whose partition had ended well before: their output was lost
    recomputed_tasks: int = 0
    #: map outputs that were lost
    lost_outputs: int = 0
    input_rows: int = 0
    input_bytes: int = 0
    output_rows: int = 0
    output_bytes: int = 0
    shuffle_write_rows: int = 0
    shuffle_write_bytes: int = 0
    shuffle_read_rows: int = 0
    shuffle_read_bytes: int = 0
    spilled_bytes: int = 0
    #: added up over tasks
    task_seconds: float = 0.0
    #: during which at least one job ran
    seconds: float = 0.0


def facts_of(stage: StageStatus, slots: int, operations: tuple[str, ...] = ()) -> StageFacts:
    """A stage attempt as hints see it, on a cluster of so many slots."""
    return StageFacts(
        name=stage.name,
        operations=operations,
        task_count=stage.task_count,
        done=stage.succeeded_count,
        median_s=stage.durations.median,
        greatest_s=stage.durations.greatest,
        slowest_partition=-1,
        spilled_bytes=stage.metrics.disk_spilled_bytes,
        shuffle_read_bytes=shuffle_read_bytes(stage.metrics),
        shuffle_write_rows=stage.metrics.shuffle_write_rows,
        hot_key=stage.metrics.hot_key,
        hot_key_rows=stage.metrics.hot_key_rows,
        slow_executor=stage.slow_executor,
        seconds=(stage.ended_at or stage.started_at) - stage.started_at,
        slots=slots,
    )


class StatusStore:
    """Jobs, stages, executors and totals of one application.

    Parameters
    ----------
    app
        Whose events count; None: whatever comes.

    Examples
    --------
    >>> store = StatusStore()
    >>> store.on_event(JobStart(AppId("app-1"), JobId(0), "collect", (), (), {}, time=1.0))
    >>> store.on_event(JobEnd(AppId("app-1"), JobId(0), "succeeded", time=3.0))
    >>> store.summary().jobs, store.summary().seconds
    (1, 2.0)
    """

    def __init__(self, app: AppId | None = None) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._jobs: OrderedDict[JobId, JobStatus] = OrderedDict()
        self._stages: OrderedDict[tuple[StageId, int], StageStatus] = OrderedDict()
        self._executors: OrderedDict[ExecutorId, ExecutorStatus] = OrderedDict()
        #: of stages that are remembered
        self._durations: dict[tuple[StageId, int], tuple[Durations, ExecutorTimes]] = {}
        #: per stage one byte a partition: whether it ended well before
        self._done: OrderedDict[StageId, bytearray] = OrderedDict()
        self._stored = StoredBlocks()
        #: over everything, also what is no longer remembered one by one
        self._totals = TaskMetrics()
        self._summary = RunSummary()
        self._running_jobs = 0
        #: when the first of the jobs that run now began
        self._busy_since = 0.0

    def disown(self) -> None:
        """Stay as it is, in a fork of the driver, whose lock a thread may hold that is not here."""
        self._lock = threading.Lock()

    # -- folding

    def on_event(self, event: Event) -> None:
        """Take one event in."""
        app = getattr(event, "app", None)
        if app is not None and self._app is not None and app != self._app:
            return
        with self._lock:
            self._fold(event)

    def _fold(self, event: Event) -> None:
        summary = self._summary
        match event:
            case TaskStart():
                stage = self._stages.get((event.stage, event.stage_attempt))
                if stage is not None:
                    stage.running_count += 1
                executor = self._executors.get(event.executor)
                if executor is not None:
                    executor.running_count += 1
            case TaskEnd():
                self._fold_task_end(event)
            case JobStart():
                if not self._running_jobs:
                    self._busy_since = event.time
                self._running_jobs += 1
                summary.jobs += 1
                summary.skipped_stages += len(event.skipped)
                stages = tuple(info.stage for info in event.stages)
                self._jobs[event.job] = JobStatus(
                    event.job,
                    event.name,
                    stages,
                    event.skipped,
                    event.time,
                    properties=event.properties,
                    stage_infos=event.stages,
                )
                _forget_oldest(self._jobs, lambda job: bool(job.ended_at))
            case JobEnd() if (ended := self._jobs.get(event.job)) is not None and ended.ended_at:
                pass  # told once more by a driver that lost its scheduler in that moment
            case JobEnd():
                self._running_jobs = max(0, self._running_jobs - 1)
                if not self._running_jobs:
                    summary.seconds += event.time - self._busy_since
                if event.outcome != "succeeded":
                    summary.failed_jobs += 1
                job = self._jobs.get(event.job)
                if job is not None:
                    job.ended_at, job.outcome, job.reason = event.time, event.outcome, event.reason
                    self._end_stages(job)
            case StageSubmitted():
                summary.stages += 1
                self._stages[event.stage, event.stage_attempt] = StageStatus(
                    event.stage, event.stage_attempt, event.name, event.task_count, event.jobs, event.time
                )
                _forget_oldest(self._stages, lambda stage: bool(stage.ended_at))
                if len(self._durations) > 2 * _REMEMBERED:
                    self._durations = {key: value for key, value in self._durations.items() if key in self._stages}
            case StageCompleted():
                stage = self._stages.get((event.stage, event.stage_attempt))
                if stage is not None:
                    stage.ended_at, stage.failure = event.time, event.failure
                    stage.state = event.state
            case ExecutorAdded() if (known := self._executors.get(event.executor)) is not None and not known.removed_at:
                known.added_at = event.time  # told once more to a driver that has just come
            case ExecutorAdded():
                self._executors[event.executor] = ExecutorStatus(event.executor, event.host, event.slots, event.time)
                _forget_oldest(self._executors, lambda executor: bool(executor.removed_at))
            case ExecutorRemoved():
                executor = self._executors.get(event.executor)
                if executor is not None:
                    executor.removed_at, executor.reason, executor.running_count = event.time, event.reason, 0
            case ExecutorsReleased(executors=executors) | ExecutorsKept(executors=executors):
                for executor in filter(None, map(self._executors.get, executors)):
                    executor.released = isinstance(event, ExecutorsReleased)
            case ShuffleOutputsLost():
                summary.lost_outputs += len(event.partitions)
            case _:
                # Of interest to other listeners, or of what is stored.
                self._stored.on_event(event)

    def _end_stages(self, job: JobStatus) -> None:
        """End attempts of a failed job that no event has ended: their scheduler was lost."""
        for number in job.stages if job.outcome != "succeeded" else ():
            stage = self._newest(number)
            if stage is not None and not stage.ended_at and job.job in stage.jobs:
                others = [other for each in stage.jobs if (other := self._jobs.get(each)) is not None and not other.ended_at]
                if not others:
                    stage.ended_at, stage.state, stage.running_count = job.ended_at, "cancelled", 0

    def _newest(self, stage: StageId) -> StageStatus | None:
        return next((each for each in reversed(self._stages.values()) if each.stage == stage), None)

    def _fold_task_end(self, event: TaskEnd) -> None:
        summary = self._summary
        stage = self._stages.get((event.stage, event.stage_attempt))
        executor = self._executors.get(event.executor)
        started = event.started_at > 0
        again = [False]  # of a partition that was split the first piece tells
        if event.failure is None and not event.piece:
            again = [self._was_done(event.stage, event.partition + each) for each in range(event.span)]
        (add_costs if event.failure is not None or all(again) else add_metrics)(self._totals, event.metrics)
        for each in (stage, executor):
            if each is None:
                continue
            if started and each.running_count:
                each.running_count -= 1
            if event.failure is None:
                each.succeeded_count += 1
            elif _is_failure(event):
                each.failed_count += 1
        if stage is not None:
            (add_costs if event.failure is not None else add_metrics)(stage.metrics, event.metrics)
            if event.failure is None:
                stage.task_ends += 1
                stage.succeeded_count += (0 if event.piece else event.span) - 1  # 1 was added above
                seconds = event.ended_at - event.started_at
                known = self._durations.get((event.stage, event.stage_attempt))
                if known is None:
                    known = self._durations[event.stage, event.stage_attempt] = Durations(), ExecutorTimes()
                known[0].add(seconds)
                known[1].add(event.executor, seconds)
        if event.failure is None:
            summary.tasks += 1
            summary.recomputed_tasks += any(again)
        elif _is_failure(event):
            summary.failed_tasks += 1

    def _was_done(self, stage: StageId, partition: int) -> bool:
        done = self._done.get(stage)
        if done is None:
            done = self._done[stage] = bytearray()
            if len(self._done) > _REMEMBERED:
                self._done.popitem(last=False)
        if partition >= len(done):
            done.extend(bytes(max(partition + 1 - len(done), len(done))))
        before, done[partition] = done[partition], 1
        return bool(before)

    # -- reading: copies, so that what a face holds does not change under it

    def summary(self, now: float | None = None) -> RunSummary:
        """What was done so far; ``now`` (seconds since the epoch) counts jobs that still run into ``seconds``."""
        with self._lock:
            found, totals = copy(self._summary), self._totals
            if now is not None and self._running_jobs:
                found.seconds += max(0.0, now - self._busy_since)
            found.input_rows = totals.input_rows
            found.input_bytes = totals.input_bytes
            found.output_rows = totals.output_rows
            found.output_bytes = totals.output_bytes
            found.shuffle_write_rows = totals.shuffle_write_rows
            found.shuffle_write_bytes = totals.shuffle_write_bytes
            found.shuffle_read_rows = totals.shuffle_read_rows
            found.shuffle_read_bytes = shuffle_read_bytes(totals)
            found.spilled_bytes = totals.disk_spilled_bytes
            found.task_seconds = totals.run_s
            return found

    def jobs(self) -> tuple[JobStatus, ...]:
        """Remembered jobs, oldest first."""
        with self._lock:
            return tuple(copy(job) for job in self._jobs.values())

    def stages(self, *, running: bool = False) -> tuple[StageStatus, ...]:
        """Remembered stage attempts, oldest first; with ``running`` only those that are not over."""
        with self._lock:
            chosen = [stage for stage in self._stages.values() if not (running and stage.ended_at)]
            return tuple(self._copied(stage) for stage in chosen)

    def stages_of(self, job: JobId) -> tuple[StageStatus, ...]:
        """Return every stage of a job, each with the job's last attempt at it; empty for a job that is not remembered.

        A stage that the job never began has ``stage_attempt`` -1 and the ``state`` waiting, skipped or not run.
        """
        with self._lock:
            found = self._jobs.get(job)
            return () if found is None else tuple(self._stage_of(found, info) for info in found.stage_infos)

    def _stage_of(self, job: JobStatus, info: StageInfo) -> StageStatus:
        newest = self._newest(info.stage)
        if newest is not None and job.job in newest.jobs:
            return self._copied(newest)
        state = "waiting" if not job.ended_at else "skipped" if job.outcome == "succeeded" else "not run"
        if info.stage in job.skipped:
            state = "skipped"
        return StageStatus(info.stage, -1, info.name, info.task_count, (job.job,), 0.0, state=state)

    def last_attempt(self, stage: StageId) -> StageStatus | None:
        """The newest attempt at a stage that is remembered."""
        with self._lock:
            found = self._newest(stage)
            return None if found is None else self._copied(found)

    def _copied(self, stage: StageStatus) -> StageStatus:
        known = self._durations.get((stage.stage, stage.stage_attempt))
        if known is None:
            return replace(stage, metrics=copy(stage.metrics))
        durations, by_executor = known
        return replace(stage, metrics=copy(stage.metrics), durations=durations.quantiles(), slow_executor=by_executor.slowest())

    def executors(self) -> tuple[ExecutorStatus, ...]:
        """Remembered executors, oldest first; of one age, by name."""
        with self._lock:
            found = [copy(executor) for executor in self._executors.values()]
        return tuple(sorted(found, key=lambda executor: (executor.added_at, executor.executor)))

    def stored(self, rdd: int) -> Stored:
        """What is stored now of an RDD that is cached."""
        with self._lock:
            return self._stored.of(RddId(rdd))

    def __repr__(self) -> str:
        return f"<StatusStore {self._running_jobs} jobs running, {self._summary.tasks} tasks done>"


def _is_failure(event: TaskEnd) -> bool:
    return not isinstance(event.failure, KilledFailure | CommitDeniedFailure)


def _forget_oldest(remembered: OrderedDict[K, V], is_over: Callable[[V], bool]) -> None:
    if len(remembered) <= _REMEMBERED:
        return
    # What still runs is kept however much that is; it is looked at from the oldest on, where what is over mostly lies.
    oldest = next((key for key, each in remembered.items() if is_over(each)), None)
    if oldest is not None:
        del remembered[oldest]
