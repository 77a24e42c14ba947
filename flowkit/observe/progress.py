"""How a group of jobs is doing, as one picture: a fold over events, read as immutable snapshots.

Pure: no clock, no thread, no notebook. One model is for the jobs of one cell (or one script, or one name): whoever makes it decides
which jobs belong to it and hands it all events of the application. Faces draw what ``snapshot`` returns: the cell's widget, the
static view that stays in a saved notebook, a page. ``version`` moves whenever there is something new to draw.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, assert_never

import msgspec

from flowkit.model.events import (
    SKIPPED,
    AllocationChanged,
    ApplicationEnd,
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
from flowkit.model.ids import AttemptId, ExecutorId, JobId, StageId, executor_label
from flowkit.model.job_spec import StageKind
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import (
    CommitDeniedFailure,
    ContentMissing,
    ExceptionFailure,
    ExecutorLostFailure,
    FetchFailure,
    KilledFailure,
    MemoryFailure,
    TaskFailure,
)
from flowkit.observe.durations import Durations
from flowkit.observe.executor_times import ExecutorTimes
from flowkit.observe.hints import Hint, StageFacts, hints_for
from flowkit.observe.metrics import add_costs, add_metrics, rows_read, shuffle_read_bytes
from flowkit.observe.snapshot import SCHEMA, ClusterChange, ExecutorView, FailureView, JobView, RunningTask, Snapshot, StageView
from flowkit.observe.timeline import Timeline

#: kinds of failures told one by one; more are counted
_MOST_FAILURES: Final = 20
#: partitions remembered for each kind of failure
_MOST_PARTITIONS: Final = 1_000
#: jobs and stages told one by one, for loops that run thousands: the oldest that ended well are only counted
_MOST_JOBS, _MOST_STAGES = 200, 200
_MOST_TEXT: Final = 600
#: of how many executors there are to be
_MOST_CHANGES: Final = 50


class _Stage:
    __slots__ = (
        "attempts",
        "counted",
        "done",
        "durations",
        "ended_at",
        "executor_times",
        "failed",
        "failure",
        "finished",
        "info",
        "metrics",
        "recomputed",
        "running",
        "slowest",
        "started_at",
        "state",
    )

    def __init__(self, info: StageInfo, *, skipped: bool) -> None:
        self.info = info
        self.state = "skipped" if skipped else "waiting"
        self.attempts = self.running = self.failed = self.recomputed = 0
        self.started_at = self.ended_at = 0.0
        self.failure = ""
        #: one byte a partition: whether it ended well
        self.finished = bytearray(info.task_count)
        self.done = 0
        self.metrics = TaskMetrics()
        self.durations = Durations()
        self.executor_times = ExecutorTimes()
        #: (seconds, partition, executor)
        self.slowest: tuple[float, int, str] = (0.0, -1, "")

    def is_new(self, event: TaskEnd) -> bool:
        """Return whether an attempt computed a partition that no earlier attempt had computed."""
        made = self.finished[event.partition : event.partition + event.span]
        return event.failure is None and (bool(event.piece) or len(made) < event.span or not all(made))

    def view(self) -> StageView:
        metrics = self.metrics
        return StageView(
            stage=self.info.stage,
            name=_title(self.info),
            operations=self.info.operations,
            parents=self.info.parents,
            writes_shuffle=self.info.kind == StageKind.MAP,
            state=self.state,
            attempts=self.attempts,
            task_count=self.info.task_count,
            done=self.done,
            running=self.running,
            failed=self.failed,
            recomputed=self.recomputed,
            rows=rows_read(metrics),
            rows_out=metrics.output_rows + metrics.shuffle_write_rows,
            input_bytes=metrics.input_bytes,
            shuffle_read_bytes=shuffle_read_bytes(metrics),
            shuffle_write_bytes=metrics.shuffle_write_bytes,
            spilled_bytes=metrics.disk_spilled_bytes,
            task_seconds=metrics.run_s,
            started_at=self.started_at,
            ended_at=self.ended_at,
            durations=self.durations.quantiles(),
            slowest_partition=self.slowest[1],
            slowest_executor=self.slowest[2],
            failure=self.failure,
        )


class _Executor:
    __slots__ = ("added_at", "done", "executor", "failed", "host", "reason", "released", "removed_at", "running", "slots")

    def __init__(self, executor: ExecutorId, host: str, slots: int, added_at: float) -> None:
        self.executor = executor
        self.host = host
        self.slots = slots
        self.added_at = added_at
        self.running = self.done = self.failed = 0
        self.removed_at = 0.0
        self.reason = ""
        #: it was let go, for there was no work
        self.released = False


class ProgressModel:
    """The fold.

    Parameters
    ----------
    title
        For people: the cell's number, a job group's description.
    belongs
        Whether a job that starts is one of this model's; None: all are.

    Notes
    -----
    Memory is bounded: a byte a partition of the stages told of, a fixed number of blocks, jobs, stages and failures.
    Not thread-safe: events and reads come from one thread, or under a lock of whoever drives it.
    """

    def __init__(self, title: str = "", belongs: Callable[[JobStart], bool] | None = None) -> None:
        self._title = title
        self._belongs = belongs or (lambda job: True)
        self.version = 0
        self.timeline = Timeline()
        self._jobs: OrderedDict[JobId, JobView] = OrderedDict()
        self._stages: OrderedDict[StageId, _Stage] = OrderedDict()
        self._executors: OrderedDict[ExecutorId, _Executor] = OrderedDict()
        self._changes: deque[ClusterChange] = deque(maxlen=_MOST_CHANGES)
        #: each with its partitions
        self._failures: OrderedDict[tuple[str, str, StageId], tuple[FailureView, set[int]]] = OrderedDict()
        self._running: dict[AttemptId, RunningTask] = {}
        self._running_jobs = 0
        #: {(name, operations) of a stage that reads no shuffle: (jobs that computed it, seconds of its tasks)}
        self._computed: OrderedDict[tuple[str, tuple[str, ...]], tuple[int, float]] = OrderedDict()
        self._job_count = self._task_count = self._tasks_done = self._failure_count = self._skipped_count = 0
        self._started_at = self._ended_at = self._last_event_at = 0.0
        #: the worst that happened to a job
        self._worst = "succeeded"
        self.dropped_events = 0

    # -- folding

    @property
    def is_running(self) -> bool:
        """Whether one of its jobs runs."""
        return self._running_jobs > 0

    def on_event(self, event: Event) -> None:
        """Take one event in; what belongs to other jobs changes nothing but executors."""
        if self._fold(event):
            self.version += 1
            self._last_event_at = max(self._last_event_at, event.time)

    def _fold(self, event: Event) -> bool:
        match event:
            case TaskEnd():
                return self._task_ended(event)
            case TaskStart():
                return self._task_started(event)
            case JobStart():
                return self._job_started(event)
            case JobEnd():
                return self._job_ended(event)
            case StageSubmitted():
                return self._stage_submitted(event)
            case StageCompleted():
                return self._stage_completed(event)
            case ShuffleOutputsLost():
                return self._outputs_lost(event)
            case ExecutorAdded():
                self._executors[event.executor] = _Executor(event.executor, event.host, event.slots, event.time)
                return True
            case ExecutorRemoved():
                return self._executor_removed(event)
            case AllocationChanged():
                change = ClusterChange(event.time, event.before, event.target, event.reason[:_MOST_TEXT])
                self._changes.append(change)
                return True
            case ExecutorsReleased() | ExecutorsKept():
                return self._released(event)
            case ApplicationEnd():
                return self._all_over(event)
            case _:
                return False

    def _job_started(self, event: JobStart) -> bool:
        if not self._belongs(event):
            return False
        if not self._job_count:
            self._started_at = event.time
        self._job_count += 1
        self._running_jobs += 1
        self._ended_at = 0.0
        stages = tuple(info.stage for info in event.stages)
        self._jobs[event.job] = JobView(event.job, event.name, "running", event.time, 0.0, "", stages)
        skipped = set(event.skipped)
        for info in event.stages:
            if not info.parents and info.stage not in skipped:
                self._note_computed(info, 1, 0.0)
            known = self._stages.get(info.stage)
            if known is not None and known.state in {"failed", "cancelled", "not run"}:
                known.state = "skipped" if info.stage in skipped else "waiting"
            if known is None:
                self._stages[info.stage] = _Stage(info, skipped=info.stage in skipped)
                self._task_count += 0 if info.stage in skipped else info.task_count
        self._forget()
        return True

    def _job_ended(self, event: JobEnd) -> bool:
        job = self._jobs.get(event.job)
        if job is None or job.ended_at:
            return False
        self._running_jobs -= 1
        self._jobs[event.job] = msgspec.structs.replace(
            job, state=event.outcome, ended_at=event.time, reason=event.reason[:_MOST_TEXT]
        )
        ranks = {"succeeded": 0, "cancelled": 1, "failed": 2}
        if ranks.get(event.outcome, 2) > ranks[self._worst]:
            self._worst = event.outcome if event.outcome in ranks else "failed"
        if not self._running_jobs:
            self._ended_at = event.time
            self._running.clear()
            for executor in self._executors.values():
                executor.running = 0
            self.timeline.close_all()
        needed = {stage for each in self._jobs.values() if not each.ended_at for stage in each.stages}
        for number in set(job.stages) - needed:
            stage = self._stages.get(number)
            if stage is not None and stage.state in {"waiting", "running"}:
                stage.state = _without_its_job(stage.state, event.outcome)
                stage.running = 0
                stage.ended_at = stage.ended_at or (event.time if stage.started_at else 0.0)
        return True

    def _all_over(self, event: ApplicationEnd) -> bool:
        changed = False
        for job in [job.job for job in self._jobs.values() if not job.ended_at]:
            changed |= self._job_ended(JobEnd(event.app, job, "cancelled", event.reason, time=event.time))
        return changed

    def _stage_submitted(self, event: StageSubmitted) -> bool:
        stage = self._stages.get(event.stage)
        if stage is None:
            return False
        stage.state = "running"
        stage.attempts += 1
        stage.started_at = stage.started_at or event.time
        stage.ended_at = 0.0
        return True

    def _stage_completed(self, event: StageCompleted) -> bool:
        stage = self._stages.get(event.stage)
        if stage is None:
            return False
        stage.ended_at = event.time
        stage.state = event.state
        stage.failure = event.failure[:_MOST_TEXT]
        return True

    def _outputs_lost(self, event: ShuffleOutputsLost) -> bool:
        stage = self._stages.get(event.stage)
        if stage is None:
            return False
        for partition in event.partitions:
            # Done no more; it is seen again as a recomputed one when its new attempt ends.
            if partition < len(stage.finished) and stage.finished[partition] == 1:
                stage.finished[partition] = 2
                stage.done -= 1
                self._tasks_done -= 1
        return True

    def _task_started(self, event: TaskStart) -> bool:
        stage = self._stages.get(event.stage)
        if stage is None:
            return False
        stage.running += 1
        self._running[event.attempt] = RunningTask(event.attempt, event.stage, event.partition, event.executor, event.launched_at)
        executor = self._executors.get(event.executor)
        if executor is not None:
            executor.running += 1
        return True

    def _task_ended(self, event: TaskEnd) -> bool:
        stage = self._stages.get(event.stage)
        if stage is None:
            return False
        executor = self._executors.get(event.executor)
        if self._running.pop(event.attempt, None) is not None:
            stage.running = max(0, stage.running - 1)
            if executor is not None:
                executor.running = max(0, executor.running - 1)
        failed = event.failure is not None and not isinstance(event.failure, KilledFailure | CommitDeniedFailure)
        if event.started_at > 0:
            self.timeline.add(
                event.executor,
                event.stage,
                event.started_at,
                event.ended_at,
                failed=failed,
                partition=event.partition if event.span == 1 else -1,
                rows=rows_read(event.metrics),
            )
        (add_metrics if stage.is_new(event) else add_costs)(stage.metrics, event.metrics)
        if not stage.info.parents:
            self._note_computed(stage.info, 0, event.metrics.run_s)
        if event.failure is None:
            self._skipped_count += sum(int(told) for name, told in event.accumulated.items() if name.startswith(SKIPPED))
            self._succeeded(stage, event)
            if executor is not None:
                executor.done += 1
        elif failed:
            stage.failed += 1
            if executor is not None:
                executor.failed += 1
            self._note_failure(event, event.failure)
        return True

    def _note_computed(self, info: StageInfo, times: int, seconds: float) -> None:
        key = info.name, info.operations
        known = self._computed.get(key, (0, 0.0))
        self._computed[key] = known[0] + times, known[1] + seconds
        if len(self._computed) > _MOST_STAGES:
            self._computed.popitem(last=False)

    def _succeeded(self, stage: _Stage, event: TaskEnd) -> None:
        seconds = event.ended_at - event.started_at
        stage.durations.add(seconds)
        stage.executor_times.add(event.executor, seconds)
        if seconds > stage.slowest[0]:
            stage.slowest = (seconds, event.partition, executor_label(event.executor))
        end = event.partition + event.span
        if end > len(stage.finished):
            stage.finished.extend(bytes(end - len(stage.finished)))
        for partition in range(event.partition, end) if not event.piece else ():  # the first piece stands for its partition
            before = stage.finished[partition]
            if before:
                stage.recomputed += 1
            if before != 1:
                stage.finished[partition] = 1
                stage.done += 1
                self._tasks_done += 1

    def _note_failure(self, event: TaskEnd, failure: TaskFailure) -> None:
        self._failure_count += 1
        kind, message = describe_failure(failure)
        key = (kind, message, event.stage)
        known, partitions = self._failures.pop(key, (None, set()))
        count = 1 if known is None else known.count + 1
        if len(partitions) < _MOST_PARTITIONS:
            partitions.add(event.partition)
        view = FailureView(
            kind, message, count, event.stage, event.partition, executor_label(event.executor), event.time, len(partitions)
        )
        self._failures[key] = view, partitions
        if len(self._failures) > _MOST_FAILURES:
            self._failures.popitem(last=False)

    def _executor_removed(self, event: ExecutorRemoved) -> bool:
        executor = self._executors.get(event.executor)
        if executor is None:
            return False
        executor.removed_at, executor.reason, executor.running = event.time, event.reason[:_MOST_TEXT], 0
        return True

    def _released(self, event: ExecutorsReleased | ExecutorsKept) -> bool:
        for executor in filter(None, map(self._executors.get, event.executors)):
            executor.released = isinstance(event, ExecutorsReleased)
        return True

    def _forget(self) -> None:
        while len(self._jobs) > _MOST_JOBS:
            oldest = next((job for job in self._jobs.values() if job.state == "succeeded"), None)
            if oldest is None:
                return
            del self._jobs[oldest.job]
        if len(self._stages) > _MOST_STAGES:
            needed = {stage for job in self._jobs.values() if not job.ended_at for stage in job.stages}
            over = [
                number
                for number, stage in self._stages.items()
                if stage.state in {"done", "skipped", "not run"} and number not in needed
            ]
            for number in over[: len(self._stages) - _MOST_STAGES]:
                del self._stages[number]

    # -- reading

    def snapshot(self) -> Snapshot:
        """What there is to draw now."""
        return Snapshot(
            schema=SCHEMA,
            version=self.version,
            title=self._title,
            state="running" if self._running_jobs else self._worst if self._job_count else "waiting",
            started_at=self._started_at,
            ended_at=self._ended_at,
            last_event_at=self._last_event_at,
            jobs=tuple(self._jobs.values()),
            stages=tuple(stage.view() for stage in self._stages.values()),
            executors=tuple(_executor_view(each) for each in self._executors.values() if self._concerns(each)),
            failures=tuple(self._failure_view(each) for each, _ in self._failures.values()),
            changes=tuple(each for each in self._changes if each.at >= self._started_at > 0),
            running_tasks=tuple(self._running.values()),
            hints=self._hints(),
            job_count=self._job_count,
            task_count=self._task_count,
            tasks_done=self._tasks_done,
            failure_count=self._failure_count,
            skipped_count=self._skipped_count,
            dropped_events=self.dropped_events,
        )

    def _failure_view(self, failure: FailureView) -> FailureView:
        stage = self._stages.get(failure.stage)
        blamed = stage is not None and stage.state == "failed"
        return msgspec.structs.replace(failure, is_fatal=True) if blamed else failure

    def _hints(self) -> tuple[Hint, ...]:
        slots = sum(each.slots for each in self._executors.values() if not each.removed_at)
        # One of a kind is enough, of whichever stage came last: loops make hundreds alike.
        found: dict[str, Hint] = {}
        for stage in self._stages.values():
            if stage.done:
                parents = (self._stages[each] for each in stage.info.parents if each in self._stages)
                facts = self._facts(stage, slots).reading(self._facts(each, slots) for each in parents)
                found.update((hint.kind, hint) for hint in hints_for(facts))
        return tuple(found.values())

    def _facts(self, stage: _Stage, slots: int) -> StageFacts:
        times, total_s = self._computed.get((stage.info.name, stage.info.operations), (1, 0.0))
        until = stage.ended_at or self._last_event_at
        return StageFacts(
            name=stage.info.name,
            operations=stage.info.operations,
            task_count=stage.info.task_count,
            done=stage.done,
            median_s=stage.durations.quantile(0.5),
            greatest_s=stage.durations.greatest,
            slowest_partition=stage.slowest[1],
            spilled_bytes=stage.metrics.disk_spilled_bytes,
            shuffle_read_bytes=shuffle_read_bytes(stage.metrics),
            seconds=until - stage.started_at if stage.started_at else 0.0,
            slots=slots,
            times=times,
            total_s=total_s,
            shuffle_write_rows=stage.metrics.shuffle_write_rows,
            hot_key=stage.metrics.hot_key,
            hot_key_rows=stage.metrics.hot_key_rows,
            slow_executor=stage.executor_times.slowest(),
        )

    def _concerns(self, executor: _Executor) -> bool:
        # Executors that were gone before the first job are history of others.
        return not executor.removed_at or executor.removed_at >= self._started_at > 0

    def __repr__(self) -> str:
        return f"<ProgressModel {self._title!r} version {self.version}: {self._tasks_done}/{self._task_count} tasks>"


def _title(info: StageInfo) -> str:
    """Return the name of a stage, from its first operation to its last.

    >>> _title(StageInfo(0, "map at a.py:3", StageKind.MAP, 2, (), ("group_by_key", "filter", "map")))
    'group_by_key → map at a.py:3'
    """
    first = info.operations[0] if info.operations else ""
    return info.name if len(info.operations) < 2 or info.name.startswith(first) else f"{first} → {info.name}"


def _without_its_job(state: str, outcome: str) -> str:
    """Return the state of a stage that was not over when its job ended.

    >>> _without_its_job("waiting", "failed"), _without_its_job("waiting", "succeeded"), _without_its_job("running", "cancelled")
    ('not run', 'skipped', 'cancelled')
    """
    if outcome == "succeeded":
        return "skipped" if state == "waiting" else "done"  # its output came from elsewhere in the meantime
    return "not run" if state == "waiting" else "cancelled"


def _executor_view(executor: _Executor) -> ExecutorView:
    return ExecutorView(
        executor=executor.executor,
        label=executor_label(executor.executor),
        host=executor.host,
        slots=executor.slots,
        running=executor.running,
        done=executor.done,
        failed=executor.failed,
        removed_at=executor.removed_at,
        released=executor.released,
        reason=executor.reason,
    )


def describe_failure(failure: TaskFailure) -> tuple[str, str]:
    r"""What kind of failure, and its message in one line.

    >>> describe_failure(ExceptionFailure("ValueError", "bad row\nmore", "", None))
    ('ValueError', 'bad row')
    """
    match failure:
        case ExceptionFailure(type_name, message):
            return type_name, _first_line(message)
        case FetchFailure(message=message):
            return "FetchFailed", _first_line(message)
        case ExecutorLostFailure(reason=reason):
            return "ExecutorLost", _first_line(reason)
        case MemoryFailure(message=message):
            return "TaskOutOfMemory", _first_line(message)
        case ContentMissing(contents):
            return "ContentMissing", ", ".join(contents)
        case KilledFailure(reason=reason):
            return "Killed", _first_line(reason)
        case CommitDeniedFailure():
            return "CommitDenied", "another attempt was faster"
        case other:
            assert_never(other)


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:_MOST_TEXT]
