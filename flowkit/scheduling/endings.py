"""What follows when an attempt, a stage or a job ends.

Runs in the scheduler process inside ``SchedulerCore``. *Stale is data*: news of attempts nobody waits for changes nothing but
the slot it frees.
"""

from __future__ import annotations

from typing import assert_never

from flowkit.model.events import (
    BlocksCached,
    JobEnd,
    ShuffleOutputsLost,
    StageCompleted,
    TaskEnd,
    TaskGettingResult,
    TaskStart,
)
from flowkit.model.ids import AttemptId, ExecutorId
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import (
    CommitDeniedFailure,
    ContentMissing,
    ExceptionFailure,
    ExecutorLostFailure,
    FetchFailure,
    InlineResult,
    KilledFailure,
    MapOutput,
    MemoryFailure,
    StoredResult,
    TaskFailed,
    TaskFailure,
    TaskRecalled,
    TaskReport,
    TaskStarted,
    TaskSucceeded,
    counts_against_task,
)
from flowkit.scheduling.actions import (
    DeliverResult,
    DropShuffle,
    ForgetStage,
    JobFailed,
    JobSucceeded,
    Kill,
    ReleaseResults,
    RequestContent,
)
from flowkit.scheduling.applications import Application, Job, Stage
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.task_sets import Attempt

#: Endings that count against nobody, per task, before the job is given up: they should not happen in a row.
UNCOUNTED_LIMIT = 50
#: How long a driver may take to put content again.
CONTENT_WAIT_S = 30.0

# -- reports -------------------------------------------------------------------------------------------------------


def hear(books: Books, executor: ExecutorState, report: TaskReport) -> None:
    """News of one attempt."""
    attempt = executor.attempts.get(report.attempt)
    if attempt is None:
        books.stale_count += 1
        if isinstance(report, TaskSucceeded) and isinstance(report.result, StoredResult):
            books.emit(ReleaseResults(executor.id, (report.attempt,)))
        return
    match report:
        case TaskStarted():
            note_start(books, attempt, report.at)
        case TaskRecalled():
            _leave(books, attempt)
            if not attempt.is_void:
                requeue(books, attempt)
        case TaskSucceeded():
            note_start(books, attempt, report.started_at)
            _leave(books, attempt)
            _succeeded(books, attempt, report)
        case TaskFailed():
            if report.started_at:
                note_start(books, attempt, report.started_at)
            _leave(books, attempt)
            _failed(books, attempt, report)
        case _:
            assert_never(report)


def note_start(books: Books, attempt: Attempt, at: float) -> None:
    """It runs since ``at`` on its executor's clock; heard once, however often it is told."""
    if attempt.started_at:
        return
    attempt.started_at = at
    attempt.seen_running_at = books.now
    if attempt.is_void:
        return
    task_set = attempt.task_set
    books.publish(
        task_set.app,
        TaskStart(
            time=books.now,
            app=task_set.app,
            stage=task_set.stage,
            stage_attempt=attempt.stage_attempt,
            partition=attempt.partition,
            attempt=attempt.id,
            attempt_number=attempt.number,
            executor=attempt.executor.id,
            host=attempt.executor.host,
            locality=attempt.locality,
            launched_at=attempt.launched_at,
        ),
    )


def _leave(books: Books, attempt: Attempt) -> None:
    """Its slot is free."""
    executor = attempt.executor
    executor.attempts.pop(attempt.id, None)
    attempt.task_set.running.pop(attempt.id, None)
    books.executors.refresh(executor)


def publish_end(
    books: Books, attempt: Attempt, ended_at: float, failure: TaskFailure | None, *, counted: bool, metrics: TaskMetrics
) -> None:
    """Tell listeners, unless they never heard of its start or have heard of its end: that of a void attempt is its job's."""
    if not attempt.started_at or attempt.is_void:
        return
    task_set = attempt.task_set
    books.publish(
        task_set.app,
        TaskEnd(
            time=books.now,
            app=task_set.app,
            stage=task_set.stage,
            stage_attempt=attempt.stage_attempt,
            partition=attempt.partition,
            attempt=attempt.id,
            attempt_number=attempt.number,
            executor=attempt.executor.id,
            started_at=attempt.started_at,
            ended_at=ended_at,
            failure=failure,
            counted=counted,
            metrics=metrics,
        ),
    )


# -- success -------------------------------------------------------------------------------------------------------


def _succeeded(books: Books, attempt: Attempt, report: TaskSucceeded) -> None:
    task_set = attempt.task_set
    application = books.applications.get(task_set.app)
    if application is not None and report.cached:
        for block in report.cached:
            application.cached.setdefault(block.rdd, {}).setdefault(block.partition, {})[attempt.executor.id] = None
        books.publish(
            application.id, BlocksCached(time=books.now, app=application.id, executor=attempt.executor.id, blocks=report.cached)
        )
    stage = books.stage_of(task_set)
    result = report.result
    if attempt.is_void or application is None or stage is None or stage.task_set is not task_set:
        if isinstance(result, StoredResult):
            books.emit(ReleaseResults(attempt.executor.id, (attempt.id,)))
        publish_end(books, attempt, report.ended_at, None, counted=False, metrics=report.metrics)
        return
    task_set.depth.observe(report.ended_at - report.started_at)
    match result:
        case MapOutput(status=status):
            assert stage.outputs is not None
            stage.outputs.register(status)
        case StoredResult(size_bytes=size):
            books.publish(
                application.id,
                TaskGettingResult(time=books.now, app=application.id, stage=stage.id, attempt=attempt.id, size_bytes=size),
            )
        case InlineResult():
            pass
        case _:
            assert_never(result)
    publish_end(books, attempt, report.ended_at, None, counted=False, metrics=report.metrics)
    if stage.outputs is None and not _deliver(books, application, stage, attempt, result):
        return
    finish_if_done(books, stage)


def _deliver(
    books: Books, application: Application, stage: Stage, attempt: Attempt, result: InlineResult | StoredResult | MapOutput
) -> bool:
    """Hand a result to the driver; False when that ended the job."""
    assert not isinstance(result, MapOutput), "a result stage reported a map output"
    (job_id,) = stage.jobs
    job = application.jobs[job_id]
    size_bytes = result.size_bytes if isinstance(result, StoredResult) else len(result.data)
    job.result_bytes += size_bytes
    limit = job.spec.max_result_bytes
    if limit and job.result_bytes > limit:
        if isinstance(result, StoredResult):
            books.emit(ReleaseResults(attempt.executor.id, (attempt.id,)))
        fail_job(
            books,
            application,
            job,
            "ResultTooLarge",
            f"the results of {job.spec.name} are larger than max_result_bytes = {limit:,} ({job.result_bytes:,} bytes so far, "
            f"{len(stage.delivered) + 1} of {len(stage.spec.partitions)} partitions); raise the setting, or reduce or save the "
            "data instead of collecting it",
        )
        return False
    stage.delivered.add(attempt.partition)
    if isinstance(result, StoredResult):
        job.unfetched[attempt.id] = (attempt.executor.id, attempt.partition, size_bytes)
    books.emit(DeliverResult(application.id, job_id, attempt.partition, attempt.id, attempt.executor.id, result))
    return True


def finish_if_done(books: Books, stage: Stage) -> None:
    """End a stage that has nothing left to compute; go on with what that makes possible."""
    task_set = stage.task_set
    if task_set is None or task_set.pending or task_set.running:
        return
    application = books.applications[stage.app]
    if stage.outputs is not None:
        if not stage.outputs.is_complete(books.executors.by_host):
            application.is_stale = True  # something was lost meanwhile
            return
        stage.was_complete = True
    elif len(stage.delivered) < len(stage.spec.partitions):
        application.is_stale = True
        return
    stage.task_set = None
    stage.lost_inputs.clear()
    books.active.pop((stage.app, stage.id), None)
    if stage.is_running:
        stage.is_running = False
        _publish_stage_end(books, stage, task_set.attempt_number, "")
    if stage.outputs is not None:
        books.commits.forget(stage.app, stage.id)
        application.is_stale = True
    else:
        (job_id,) = stage.jobs
        finish_job_if_done(books, application, application.jobs[job_id])


def finish_job_if_done(books: Books, application: Application, job: Job) -> None:
    """A job is over when every result was delivered, and those kept at executors were fetched."""
    stage = application.stages[job.spec.result_stage.stage]
    if not job.unfetched and len(stage.delivered) == len(stage.spec.partitions):
        _end_job(books, application, job, "succeeded", "")
        books.emit(JobSucceeded(application.id, job.id))


# -- failure -------------------------------------------------------------------------------------------------------


def _failed(books: Books, attempt: Attempt, report: TaskFailed) -> None:
    failure = report.failure
    task_set = attempt.task_set
    stage = books.stage_of(task_set)
    application = books.applications.get(task_set.app)
    if attempt.is_void or stage is None or application is None or stage.task_set is not task_set:
        publish_end(books, attempt, report.ended_at, failure, counted=False, metrics=report.metrics)
        return
    counted = counts_against_task(failure)
    publish_end(books, attempt, report.ended_at, failure, counted=counted, metrics=report.metrics)
    match failure:
        case FetchFailure():
            _fetch_failed(books, application, stage, attempt, failure)
            return
        case ContentMissing(contents=contents):
            for content in contents:
                application.contents.pop(content, None)
                if content not in stage.missing_contents:
                    stage.missing_contents[content] = books.now + CONTENT_WAIT_S
                    books.emit(RequestContent(application.id, content))
        case KilledFailure():
            # It may have been that the stage was unknown there: tell it again.
            attempt.executor.defined.pop((stage.app, stage.id, attempt.stage_attempt), None)
        case ExceptionFailure() | MemoryFailure() | CommitDeniedFailure() | ExecutorLostFailure():
            pass
        case _:
            assert_never(failure)
    after_failure(books, application, stage, attempt, failure, counted=counted)


def after_failure(
    books: Books, application: Application, stage: Stage, attempt: Attempt, failure: TaskFailure, *, counted: bool
) -> None:
    """Try again, or give up."""
    task_set = attempt.task_set
    failures = task_set.count_failure(attempt, books.now, counted=counted)
    fatal = isinstance(failure, ExceptionFailure) and failure.fatal
    if fatal or failures >= books.config.max_task_failures or task_set.uncounted.get(attempt.partition, 0) >= UNCOUNTED_LIMIT:
        tries = "" if fatal else f" {attempt.number + 1} times"
        where = _where(stage, attempt)
        abort_stage(
            books,
            application,
            stage,
            _KINDS.get(type(failure), "JobFailed"),
            f"task {attempt.partition} of stage {stage.id} ({stage.spec.name}) failed{tries}, last on {attempt.executor.id}: "
            f"{_told(failure)}",
            failure,
            where,
        )
        return
    requeue(books, attempt)


_KINDS: dict[type, str] = {ExecutorLostFailure: "ExecutorsLost", MemoryFailure: "TaskOutOfMemory"}


def _told(failure: TaskFailure) -> str:
    match failure:
        case ExceptionFailure():
            return f"{failure.type_name}: {failure.message.partition(chr(10))[0]}"  # the notes travel with the exception
        case ExecutorLostFailure() | KilledFailure():
            return failure.reason
        case MemoryFailure() | FetchFailure():
            return failure.message
        case ContentMissing():
            return f"content {', '.join(failure.contents)} is nowhere to be had"
        case CommitDeniedFailure():
            return "another attempt committed its output first"
        case _:
            assert_never(failure)


def _where(stage: Stage, attempt: Attempt) -> dict[str, str]:
    return {
        "stage": str(stage.id),
        "stage_name": stage.spec.name,
        "partition": str(attempt.partition),
        "attempt_number": str(attempt.number),
        "executor": attempt.executor.id,
    }


def requeue(books: Books, attempt: Attempt) -> None:
    """Its task waits again."""
    stage = books.stage_of(attempt.task_set)
    if stage is None or stage.task_set is not attempt.task_set:
        return
    attempt.task_set.add([attempt.partition], lambda partition: None)
    if not stage.is_running:
        books.applications[stage.app].is_stale = True
        return
    books.active[stage.app, stage.id] = stage
    if stage.spec.parents:
        books.applications[stage.app].is_stale = True  # its input may be gone; until now nothing waited for it


def _fetch_failed(books: Books, application: Application, stage: Stage, attempt: Attempt, failure: FetchFailure) -> None:
    parent = application.map_stages.get(failure.shuffle)
    assert parent is not None and parent.outputs is not None, f"{stage} does not know shuffle {failure.shuffle}"
    outputs = parent.outputs
    if failure.map_partition is None:
        lost = outputs.on_host(failure.host) if failure.epoch >= outputs.epoch else []
    elif failure.map_attempt is not None and outputs.is_current(failure.map_partition, failure.map_attempt):
        lost = [failure.map_partition]
    else:
        lost = []  # already known: made again, or about to be
    for partition in lost:
        outputs.unregister(partition)
    if lost:
        books.publish(
            application.id,
            ShuffleOutputsLost(
                time=books.now,
                app=application.id,
                shuffle=failure.shuffle,
                stage=parent.id,
                partitions=tuple(lost),
                reason=f"{failure.reason}: {failure.message}",
            ),
        )
    elif not failure.host:
        stage.reads_behind_cache = True
    stage.lost_inputs.update((failure.shuffle, partition) for partition in lost)
    times = max((stage.lost_inputs[failure.shuffle, partition] for partition in lost), default=0)
    in_vain = attempt.task_set.note_uncounted(attempt.partition)
    application.is_stale = True
    if times >= books.config.max_stage_attempts or in_vain >= UNCOUNTED_LIMIT:
        abort_stage(
            books,
            application,
            stage,
            "ShuffleLost",
            f"stage {stage.id} ({stage.spec.name}) could not read its input {max(times, in_vain)} times in a row, last: "
            f"{failure.reason}: {failure.message}",
            failure,
            _where(stage, attempt),
        )
        return
    requeue(books, attempt)


def roll_back(books: Books, application: Application, stage: Stage) -> bool:
    """An indeterminate stage runs again: void its outputs and all that was made from them. False when that ended jobs."""
    assert stage.outputs is not None
    _void_outputs(books, stage)
    void_shuffles = {stage.outputs.shuffle}
    alive = True
    for job in list(application.jobs.values()):
        for each in application.job_stages(job):
            if each is stage or not void_shuffles & {parent.shuffle for parent in each.spec.parents}:
                continue
            stop_running(books, each, "its input is made again, with other rows")
            if each.outputs is not None:
                _void_outputs(books, each)
                void_shuffles.add(each.outputs.shuffle)
            elif each.delivered:
                fail_job(
                    books,
                    application,
                    job,
                    "ShuffleLost",
                    f"{stage.spec.name} yields other rows each time it runs, some of its output was lost, and results made from "
                    "the old rows were already delivered; cache or save its result, or make it deterministic",
                )
                alive = False
                break
    return alive and bool(stage.jobs)


def _void_outputs(books: Books, stage: Stage) -> None:
    assert stage.outputs is not None
    stage.was_complete = False
    there = tuple(status.map_partition for status in stage.outputs.statuses if status is not None)
    stage.outputs.unregister_all()
    if there:
        books.publish(
            stage.app,
            ShuffleOutputsLost(
                time=books.now,
                app=stage.app,
                shuffle=stage.outputs.shuffle,
                stage=stage.id,
                partitions=there,
                reason="rows it was made from are made again, and are others each time",
            ),
        )


# -- stages and jobs -----------------------------------------------------------------------------------------------


def _publish_stage_end(books: Books, stage: Stage, attempt_number: int, failure: str) -> None:
    books.publish(
        stage.app,
        StageCompleted(
            time=books.now, app=stage.app, stage=stage.id, stage_attempt=attempt_number, name=stage.spec.name, failure=failure
        ),
    )


def abort_stage(
    books: Books,
    application: Application,
    stage: Stage,
    kind: str,
    reason: str,
    failure: TaskFailure | None,
    where: dict[str, str],
) -> None:
    """Every job that needs the stage fails."""
    for job_id in list(stage.jobs):
        fail_job(books, application, application.jobs[job_id], kind, reason, failure, where)


def fail_job(
    books: Books,
    application: Application,
    job: Job,
    kind: str,
    reason: str,
    failure: TaskFailure | None = None,
    where: dict[str, str] | None = None,
) -> None:
    """A job ends without a result."""
    _end_job(books, application, job, "cancelled" if kind == "JobCancelled" else "failed", reason)
    books.emit(JobFailed(application.id, job.id, kind, reason, failure, where or {}))


def _end_job(books: Books, application: Application, job: Job, outcome: str, reason: str) -> None:
    del application.jobs[job.id]
    for executor_id, attempts in _by_executor(job).items():
        if books.executors.get(executor_id) is not None:
            books.emit(ReleaseResults(executor_id, tuple(attempts)))
    for spec in job.spec.stages:
        stage = application.stages[spec.stage]
        stage.jobs.pop(job.id, None)
        if stage.jobs:
            if stage.task_set is not None:
                stage.task_set.order = (min(stage.jobs.values()), stage.id)
            continue
        stop_running(books, stage, reason or f"the job is over: {outcome}")
        books.commits.forget(stage.app, stage.id)
        stage.missing_contents.clear()
        for executor in stage.defined_on.values():
            if books.executors.get(executor.id) is executor:
                for key in [key for key in executor.defined if key[0] == stage.app and key[1] == stage.id]:
                    del executor.defined[key]
                books.emit(ForgetStage(executor.id, stage.app, stage.id))
        stage.defined_on.clear()
        if stage.outputs is None or stage.is_released:
            forget_stage(books, application, stage)
    books.publish(application.id, JobEnd(time=books.now, app=application.id, job=job.id, outcome=outcome, reason=reason))


def forget_stage(books: Books, application: Application, stage: Stage) -> None:
    """No job will name it again; of a map stage the files go too."""
    del application.stages[stage.id]
    if stage.outputs is not None:
        del application.map_stages[stage.outputs.shuffle]
        for executor in books.executors:
            books.emit(DropShuffle(executor.id, application.id, stage.outputs.shuffle))


def _by_executor(job: Job) -> dict[ExecutorId, list[AttemptId]]:
    held: dict[ExecutorId, list[AttemptId]] = {}
    for attempt, (executor, _partition, _size) in job.unfetched.items():
        held.setdefault(executor, []).append(attempt)
    return held


def stop_running(books: Books, stage: Stage, reason: str) -> None:
    """Nobody needs what it computes: take back what waits, stop what runs."""
    task_set = stage.task_set
    books.active.pop((stage.app, stage.id), None)
    if task_set is None:
        return
    stage.task_set = None
    kills: dict[ExecutorId, list[AttemptId]] = {}
    for attempt in task_set.running.values():
        publish_end(books, attempt, books.now, KilledFailure(reason), counted=False, metrics=TaskMetrics())
        attempt.is_void = True
        kills.setdefault(attempt.executor.id, []).append(attempt.id)
    task_set.running.clear()
    task_set.pending.clear()
    for executor, attempts in kills.items():
        books.emit(Kill(executor, tuple(attempts), reason))
    if stage.is_running:
        stage.is_running = False
        _publish_stage_end(books, stage, task_set.attempt_number, reason)
