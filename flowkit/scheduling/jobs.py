"""Stages and jobs from submission to end: what a result does for them, what their end takes with it, what is rolled back.

Runs in the scheduler process inside ``SchedulerCore``.
"""

from __future__ import annotations

from collections.abc import Collection

from flowkit.model.events import (
    BlocksLost,
    JobEnd,
    ShuffleOutputsLost,
    StageCompleted,
    TaskEnd,
)
from flowkit.model.ids import AttemptId, ExecutorId, ShuffleId
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import InlineResult, KilledFailure, MapOutput, StoredResult, TaskFailure
from flowkit.scheduling import forgetting
from flowkit.scheduling.actions import (
    DeliverResult,
    DropRdd,
    DropShuffle,
    JobFailed,
    JobSucceeded,
    ReleaseResults,
)
from flowkit.scheduling.applications import Application, Job, Stage
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.task_sets import Attempt, TaskSet


def publish_end(
    books: Books,
    attempt: Attempt,
    ended_at: float,
    failure: TaskFailure | None,
    *,
    counted: bool,
    metrics: TaskMetrics,
    accumulated: dict[str, str] | None = None,
) -> None:
    """Tell listeners, unless they never heard of its start or have heard of its end: that of a void attempt is its job's."""
    if not attempt.started_at or attempt.is_void:
        return
    task_set = attempt.task_set
    books.publish(
        task_set.app,
        TaskEnd(  # by position, as every task ends: by name it takes five times as long
            task_set.app,
            task_set.stage,
            attempt.stage_attempt,
            attempt.told,
            attempt.id,
            attempt.number,
            attempt.executor.id,
            attempt.started_at,
            ended_at,
            failure,
            counted,
            metrics,
            accumulated or {},
            attempt.span,
            attempt.piece,
            time=books.now,
        ),
    )


def deliver(
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
            f"{len(stage.delivered) + 1} of {stage.task_count} tasks); raise the setting, or reduce or save the "
            "data instead of collecting it",
            blamed=stage,
        )
        return False
    stage.delivered.add(attempt.partition)
    if isinstance(result, StoredResult):
        job.unfetched[attempt.id] = (attempt.executor.id, attempt.partition, size_bytes)
    piece = None if stage.pieces is None else stage.pieces.piece(attempt.partition)
    books.emit(
        DeliverResult(
            application.id,
            job_id,
            attempt.told,
            attempt.id,
            attempt.executor.id,
            result,
            attempt.span,
            0 if piece is None else piece.number,
            1 if piece is None else piece.count,
        )
    )
    return True


def void_results(books: Books, application: Application, stage: Stage) -> None:
    """What was delivered of a stage is made again; the driver drops what it has already."""
    (job_id,) = stage.jobs
    job = application.jobs[job_id]
    stage.delivered.clear()
    for executor, attempts in _by_executor(job).items():
        if books.executors.get(executor) is not None:
            books.emit(ReleaseResults(executor, tuple(attempts)))
    job.result_bytes -= sum(size for _, _, size in job.unfetched.values())
    job.unfetched.clear()


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
    elif len(stage.delivered) < stage.task_count:
        application.is_stale = True
        return
    stage.task_set = None
    stage.lost_inputs.clear()
    books.active.pop((stage.app, stage.id), None)
    if stage.is_running:
        stage.is_running = False
        _publish_stage_end(books, stage, task_set.attempt_number, "", "succeeded")
    if stage.outputs is not None:
        books.commits.forget(stage.app, stage.id)
        application.is_stale = True
    else:
        (job_id,) = stage.jobs
        finish_job_if_done(books, application, application.jobs[job_id])


def finish_job_if_done(books: Books, application: Application, job: Job) -> None:
    """A job is over when every result was delivered, and those kept at executors were fetched."""
    stage = application.stages[job.spec.result_stage.stage]
    if not job.unfetched and len(stage.delivered) == stage.task_count:
        _end_job(books, application, job, "succeeded", "")
        books.emit(JobSucceeded(application.id, job.id))


def roll_back(books: Books, application: Application, stage: Stage) -> bool:
    """An indeterminate stage runs again: void its outputs and all that was made from them. False when that ended jobs."""
    void = _made_from(application, stage)
    for each in void.values():
        if each is not stage:
            stop_running(books, each, "its input is made again, with other rows")
        _void_outputs(books, each, "rows it was made from are made again, and are others each time")
    _void_cached(books, application, void.keys())
    alive = True
    for job in list(application.jobs.values()):
        for each in application.job_stages(job):
            if each.outputs is not None or void.keys().isdisjoint(parent.shuffle for parent in each.spec.parents):
                continue
            stop_running(books, each, "its input is made again, with other rows")
            if each.delivered:
                fail_job(
                    books,
                    application,
                    job,
                    "ShuffleLost",
                    f"{stage.spec.name} yields other rows each time it runs, some of its output was lost, and results made from "
                    "the old rows were already delivered; cache or save its result, or make it deterministic",
                    blamed=each,
                )
                alive = False
                break
    return alive and bool(stage.jobs)


def lay_out_anew(books: Books, application: Application, stage: Stage) -> bool:
    """What a stage was split by is gone: all of it is made again, undivided. False when that ended its job.

    Stages that were split by its outputs and are under way begin anew as well: these will be others, in number and in size.
    """
    if stage.outputs is None and stage.delivered:
        (job_id,) = stage.jobs
        fail_job(
            books,
            application,
            application.jobs[job_id],
            "ShuffleLost",
            f"{stage.spec.name} computed partitions in several pieces, some were delivered, and the input that the others were cut of "
            "is gone; call the action again",
        )
        return False
    stop_running(books, stage, "what it was split by is not there any more")
    if stage.outputs is not None:
        _void_outputs(books, stage, "what it was split by is not there any more")
    stage.forget_layout()
    for each in application.stages.values():
        if each is not stage and each.task_set is not None and each.has_stale_layout(application):
            stop_running(books, each, "its input is made again, in other pieces")
    application.is_stale = True
    return True


def _made_from(application: Application, stage: Stage) -> dict[ShuffleId, Stage]:
    """The map stages made from what a stage writes, by whichever job, and itself."""
    assert stage.outputs is not None
    readers: dict[ShuffleId, list[Stage]] = {}
    for each in application.map_stages.values():
        for parent in each.spec.parents:
            readers.setdefault(parent.shuffle, []).append(each)
    found: dict[ShuffleId, Stage] = {}
    waiting = [stage]
    while waiting:
        each = waiting.pop()
        assert each.outputs is not None
        if each.outputs.shuffle not in found:
            found[each.outputs.shuffle] = each
            waiting += readers.get(each.outputs.shuffle, ())
    return found


def _void_cached(books: Books, application: Application, void: Collection[ShuffleId]) -> None:
    """What is cached of RDDs made from these shuffles goes; from now on they are cached under another number."""
    blocks = application.blocks
    for rdd, origins in application.made_from.items():
        if origins.isdisjoint(void):
            continue
        kept = application.kept_as(rdd)
        level = blocks.levels.get(kept)
        for executor, held in blocks.held_by_executor(kept).items():
            told = tuple((rdd, partition) for _, partition in held)
            books.publish(application.id, BlocksLost(time=books.now, app=application.id, executor=executor, blocks=told))
        blocks.drop_rdd(kept)
        for executor_state in books.executors:
            books.emit(DropRdd(executor_state.id, application.id, kept))
        application.generations[rdd] = application.generations.get(rdd, 0) + 1
        if level is not None:
            blocks.keep(application.kept_as(rdd), level)


def _void_outputs(books: Books, stage: Stage, reason: str) -> None:
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
                partitions=stage.partitions(there),
                reason=reason,
            ),
        )


def _publish_stage_end(books: Books, stage: Stage, attempt_number: int, failure: str, outcome: str) -> None:
    books.publish(
        stage.app,
        StageCompleted(
            time=books.now,
            app=stage.app,
            stage=stage.id,
            stage_attempt=attempt_number,
            name=stage.spec.name,
            failure=failure,
            outcome=outcome,
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
        fail_job(books, application, application.jobs[job_id], kind, reason, failure, where, blamed=stage)


def fail_job(
    books: Books,
    application: Application,
    job: Job,
    kind: str,
    reason: str,
    failure: TaskFailure | None = None,
    where: dict[str, str] | None = None,
    *,
    blamed: Stage | None = None,
) -> None:
    """A job ends without a result; ``blamed`` is the stage that failed, others of it are cancelled."""
    _end_job(books, application, job, "cancelled" if kind == "JobCancelled" else "failed", reason, blamed)
    books.emit(JobFailed(application.id, job.id, kind, reason, failure, where or {}))


def _end_job(books: Books, application: Application, job: Job, outcome: str, reason: str, blamed: Stage | None = None) -> None:
    del application.jobs[job.id]
    for executor_id, attempts in _by_executor(job).items():
        if books.executors.get(executor_id) is not None:
            books.emit(ReleaseResults(executor_id, tuple(attempts)))
    for spec in job.spec.stages:
        stage = application.stages[spec.stage]
        stage.leave(job.id)
        if stage.jobs:
            if stage.task_set is not None:
                stage.task_set.order = (min(stage.jobs.values()), stage.id)
            continue
        stop_running(books, stage, reason or f"the job is over: {outcome}", outcome="failed" if stage is blamed else "cancelled")
        books.commits.forget(stage.app, stage.id)
        stage.missing_contents.clear()
        stage.lost_inputs.clear()
        stage.lost_with_host.clear()
        forgetting.begin(books, stage)
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


def kill_running(books: Books, task_set: TaskSet, reason: str) -> None:
    """Its attempts are void from now on, those under way are stopped, and results that waited for other tasks are of no use any more."""
    kills: dict[ExecutorState, list[Attempt]] = {}
    for attempt in task_set.running.values():
        publish_end(books, attempt, books.now, KilledFailure(reason), counted=False, metrics=TaskMetrics())
        attempt.is_void = True
        kills.setdefault(attempt.executor, []).append(attempt)
    task_set.running.clear()
    for executor, attempts in kills.items():
        books.kill(executor, attempts, reason)
    for attempt, report in task_set.barrier.held if task_set.barrier is not None else ():
        if isinstance(report.result, StoredResult) and books.executors.get(attempt.executor.id) is not None:
            books.emit(ReleaseResults(attempt.executor.id, (attempt.id,)))


def stop_running(books: Books, stage: Stage, reason: str, outcome: str = "held up") -> None:
    """Nobody needs what it computes: take back what waits, stop what runs."""
    task_set = stage.task_set
    books.active.pop((stage.app, stage.id), None)
    if task_set is None:
        return
    stage.task_set = None
    kill_running(books, task_set, reason)
    task_set.pending.clear()
    if stage.is_running:
        stage.is_running = False
        _publish_stage_end(books, stage, task_set.attempt_number, reason, outcome)
