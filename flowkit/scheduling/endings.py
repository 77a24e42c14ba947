"""What follows when an attempt ends: its news, its result, another try or none.

Runs in the scheduler process inside ``SchedulerCore``. *Stale is data*: news of attempts nobody waits for changes nothing but
the slot it frees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from flowkit.abc import Preferred
from flowkit.model.events import (
    ShuffleOutputsLost,
    TaskGettingResult,
    TaskStart,
    TaskStuck,
)
from flowkit.model.ids import PartitionIndex
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import (
    BlockInfo,
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
from flowkit.scheduling import admission, barriers, handover, jobs, room
from flowkit.scheduling.actions import DeliverAccumulated, ReleaseResults, RequestContent
from flowkit.scheduling.applications import NOTHING, Application, Stage
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.launches import CONTENT_WAIT_S
from flowkit.scheduling.stimuli import TaskWouldNotStop
from flowkit.scheduling.task_sets import UNCOUNTED_LIMIT, Attempt, TaskSet, Vanished

# -- reports -------------------------------------------------------------------------------------------------------


def hear(books: Books, executor: ExecutorState, attempt: Attempt | None, report: TaskReport) -> None:
    """News of one attempt; None: the executor is not known to have it."""
    if attempt is None:
        books.stale_count += 1
        if isinstance(report, TaskSucceeded) and isinstance(report.result, StoredResult):
            books.emit(ReleaseResults(executor.id, (report.attempt,)))
        return
    match report:  # the commonest first
        case TaskSucceeded():
            if not attempt.started_at:
                note_start(books, attempt, report.started_at)
            _leave(books, attempt)
            if report.cached:
                _note_cached(books, attempt, report.cached)
            _succeeded(books, attempt, report)
        case TaskStarted():
            note_start(books, attempt, report.at)
        case TaskRecalled():
            _leave(books, attempt)
            if not attempt.is_void:
                given_back(books, attempt)
        case TaskFailed():
            if report.started_at:
                note_start(books, attempt, report.started_at)
            _leave(books, attempt)
            _note_cached(books, attempt, report.cached)
            _failed(books, attempt, report)
        case _:
            assert_never(report)


def given_back(books: Books, attempt: Attempt) -> None:
    """It has not begun, and waits again: no try. That of a barrier stage stops the others, who may have: it counts with what is nobody's fault."""
    stage = books.stage_of(attempt.task_set)
    if attempt.task_set.barrier is None or stage is None or stage.task_set is not attempt.task_set:
        requeue(books, attempt, _wish_left(books, attempt))
        return
    unbegun = KilledFailure(f"{attempt.executor.id} gave it back before it began")
    after_failure(books, books.applications[stage.app], stage, attempt, unbegun, counted=False)


def note_start(books: Books, attempt: Attempt, at: float) -> None:
    """It runs since ``at`` on its executor's clock; heard once, however often it is told."""
    if attempt.started_at:
        return
    books.executors.note_start(attempt.executor, attempt, at)
    attempt.seen_running_at = books.now
    if attempt.is_void:
        return
    task_set = attempt.task_set
    books.publish(
        task_set.app,
        TaskStart(  # by position, as every task starts: by name it takes five times as long
            task_set.app,
            task_set.stage,
            attempt.stage_attempt,
            attempt.told,
            attempt.id,
            attempt.number,
            attempt.executor.id,
            attempt.executor.host,
            attempt.locality,
            attempt.launched_at,
            time=books.now,
        ),
    )


def would_not_stop(books: Books, stimulus: TaskWouldNotStop) -> None:
    """A killed task goes on: told to listeners before its process goes, whatever became of its job."""
    executor = books.executors.get(stimulus.executor)
    attempt = None if executor is None else executor.attempts.get(stimulus.attempt)
    if attempt is None:
        books.stale_count += 1
        return
    books.publish(
        attempt.task_set.app,
        TaskStuck(
            time=books.now,
            app=attempt.task_set.app,
            stage=attempt.task_set.stage,
            partition=attempt.told,
            attempt=attempt.id,
            executor=stimulus.executor,
            reason=stimulus.reason,
            after_s=stimulus.after_s,
            stack=stimulus.stack,
        ),
    )


def _leave(books: Books, attempt: Attempt) -> None:
    """Its slot is free."""
    executor = attempt.executor
    books.executors.give_back(executor, attempt, books.now)
    attempt.task_set.running.pop(attempt.id, None)
    if executor.held_for is not None and executor.held_for == (attempt.task_set.app, attempt.task_set.stage, attempt.partition):
        executor.held_for = None
        books.executors.refresh(executor)
    if executor.draining:
        books.copies_stale = True


def _note_cached(books: Books, attempt: Attempt, blocks: tuple[BlockInfo, ...]) -> None:
    """What it put into the cache is there, whatever became of the attempt or its job."""
    application = books.applications.get(attempt.task_set.app)
    if application is None or not blocks:
        return
    handover.note_cached(books, application, attempt.executor, blocks)


# -- success -------------------------------------------------------------------------------------------------------


def _succeeded(books: Books, attempt: Attempt, report: TaskSucceeded) -> None:
    task_set = attempt.task_set
    application = books.applications.get(task_set.app)
    stage = None if application is None else application.stages.get(task_set.stage)
    result = report.result
    if attempt.is_void or application is None or stage is None or stage.task_set is not task_set:
        if isinstance(result, StoredResult):
            books.emit(ReleaseResults(attempt.executor.id, (attempt.id,)))
        jobs.publish_end(books, attempt, report.ended_at, None, counted=False, metrics=report.metrics)
        return
    if complaint := admission.report_complaint(attempt, report, stage.spec.shuffle):
        _failed(
            books, attempt, _nonsense(report, f"executor {attempt.executor.id} said what cannot be of this task: {complaint}")
        )
        return
    task_set.depth.observe(report.ended_at - report.started_at)
    if books.keeps_durations:
        task_set.note_duration(report.ended_at - report.started_at, books.rng)
        _end_copies(books, attempt)
    if report.given_back:
        attempt.span -= report.given_back
        _add_tasks(books, stage, stage.spans.cut(attempt.partition, attempt.span))
    if task_set.barrier is None:
        _publish_success(books, attempt, report)
        _accept(books, application, stage, attempt, report)
    else:
        _publish_success(books, attempt, report)
        for each, earlier in barriers.ended(books, attempt, report):
            if stage.task_set is task_set:  # else a result of these was too much
                _accept(books, application, stage, each, earlier)


def _nonsense(report: TaskSucceeded, text: str) -> TaskFailed:
    failure = ExceptionFailure("flowkit.errors.InternalError", text, "", None)
    return TaskFailed(report.attempt, report.started_at, report.ended_at, failure, report.metrics)


def _add_tasks(books: Books, stage: Stage, partitions: list[PartitionIndex]) -> None:
    """What others computed along with theirs has tasks of its own from now on."""
    task_set = stage.task_set
    assert task_set is not None
    task_set.size = stage.task_count
    task_set.add(partitions, task_set.preference)
    _resume(books, stage)


def _publish_success(books: Books, attempt: Attempt, report: TaskSucceeded) -> None:
    app, stage, result = attempt.task_set.app, attempt.task_set.stage, report.result
    if isinstance(result, StoredResult):
        books.publish(
            app, TaskGettingResult(time=books.now, app=app, stage=stage, attempt=attempt.id, size_bytes=result.size_bytes)
        )
    named = None if report.accumulated is None else report.accumulated.named
    jobs.publish_end(books, attempt, report.ended_at, None, counted=False, metrics=report.metrics, accumulated=named)


def _accept(books: Books, application: Application, stage: Stage, attempt: Attempt, report: TaskSucceeded) -> None:
    """What a task made counts."""
    result = report.result
    if report.accumulated is not None and attempt.partition not in stage.accumulated:
        stage.accumulated.update(PartitionIndex(attempt.partition + each) for each in range(attempt.span))
        books.emit(DeliverAccumulated(application.id, report.accumulated.data))
    match result:
        case MapOutput(status=status):
            assert stage.outputs is not None
            stage.outputs.register(status)
        case StoredResult() | InlineResult():
            pass
        case _:
            assert_never(result)
    if stage.outputs is None and not jobs.deliver(books, application, stage, attempt, result):
        return
    jobs.finish_if_done(books, stage)


def _end_copies(books: Books, winner: Attempt) -> None:
    """One attempt at a task ended well: the others are of no use any more."""
    task_set = winner.task_set
    for other in task_set.copied.pop(winner.partition, ()):
        if other.id not in task_set.running:
            continue
        reason = f"attempt {winner.number} at the same task was faster"
        jobs.publish_end(books, other, books.now, KilledFailure(reason), counted=False, metrics=TaskMetrics())
        other.is_void = True
        del task_set.running[other.id]
        books.kill(other.executor, (other,), reason)


# -- failure -------------------------------------------------------------------------------------------------------


def _failed(books: Books, attempt: Attempt, report: TaskFailed) -> None:
    failure = report.failure
    task_set = attempt.task_set
    stage = books.stage_of(task_set)
    application = books.applications.get(task_set.app)
    if report.at and report.at < attempt.span and stage is not None:
        attempt.told, attempt.piece = stage.partition(PartitionIndex(attempt.partition + report.at)), 0
    if attempt.is_void or stage is None or application is None or stage.task_set is not task_set:
        jobs.publish_end(books, attempt, report.ended_at, failure, counted=False, metrics=report.metrics)
        return
    counted = counts_against_task(failure)
    if isinstance(failure, ExceptionFailure) and failure.type_name.removeprefix("flowkit.errors.") in room.NO_ROOM:
        counted = not room.make(books, application, f"{failure.type_name}: {failure.message.partition(chr(10))[0]}")
    jobs.publish_end(books, attempt, report.ended_at, failure, counted=counted, metrics=report.metrics)
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
            _tell_again(stage, attempt)
        case ExceptionFailure() | MemoryFailure() | CommitDeniedFailure() | ExecutorLostFailure():
            pass
        case _:
            assert_never(failure)
    after_failure(books, application, stage, attempt, failure, counted=counted, at=report.at)


def after_failure(
    books: Books, application: Application, stage: Stage, attempt: Attempt, failure: TaskFailure, *, counted: bool, at: int = 0
) -> None:
    """Try again, or give up. ``at``: which partition of its span failed."""
    task_set = attempt.task_set
    lost = isinstance(failure, ExecutorLostFailure)
    unexplained = isinstance(failure, ExecutorLostFailure) and failure.unexplained
    if attempt.span > 1 and (counted or unexplained) and not task_set.has_another(attempt):
        # One of them fails: the others are not to run as often as it does, and fewer at a time take less memory.
        together = [attempt.partition, *stage.spans.cut(attempt.partition, 1)]
        attempt.partition = together.pop(at if at < len(together) else 0)
        attempt.span = 1
        _add_tasks(books, stage, together)
    kind = failure.type_name if isinstance(failure, ExceptionFailure) else type(failure).__name__.removesuffix("Failure")
    failures = task_set.count_failure(attempt, kind, books.now, counted=counted)
    vanished = task_set.note_vanished(attempt, _told(failure), books.now) if unexplained else 0
    if isinstance(failure, ExceptionFailure):
        task_set.note_exception(attempt.partition, failure)
    if counted:
        books.health.note_failure(books, attempt, kind, _told(failure))
    fatal = isinstance(failure, ExceptionFailure) and failure.fatal
    most = books.config.max_task_failures
    if fatal or max(failures, vanished) >= most or task_set.uncounted.get(attempt.partition, 0) >= UNCOUNTED_LIMIT:
        tries = "" if fatal else f" {failures if counted else attempt.number + 1} times"
        told = f"failed{tries}, last on {attempt.executor.id}: {_told(failure)}"
        if vanished >= most:
            told = _told_of_vanished(task_set.vanished[attempt.partition], most)
        where = _where(stage, attempt)
        # What the function itself raised in an earlier try says more than that an executor died under the last one.
        cause = task_set.exceptions.get(attempt.partition, failure) if lost else failure
        books.health.given_up(books, task_set)
        also = "" if cause is failure else f", and before: {_told(cause)}"
        jobs.abort_stage(
            books,
            application,
            stage,
            _KINDS.get(type(cause), "JobFailed"),
            f"task {attempt.told} of stage {stage.id} ({stage.spec.name}) {told}{also}{_others(task_set)}",
            cause,
            where,
        )
        return
    # The last try after processes that died is with nobody beside it: a task that has only been beside those that end processes lives,
    # and one that ends them takes nobody along.
    last_try = lost and max(failures, len(task_set.vanished.get(attempt.partition, ()))) >= most - 1
    if (isinstance(failure, MemoryFailure) or last_try) and task_set.barrier is None:  # those run all at once
        task_set.alone.add(attempt.partition)
    requeue(books, attempt)


def _told_of_vanished(losses: Sequence[Vanished], most: int) -> str:
    """All that is known of the processes that went away under a task."""
    listed = "; ".join(map(str, losses))
    return (
        f"ran in {len(losses)} processes that went away, and of none is it known why (max_task_failures = {most}): {listed}. Perhaps the task "
        "ends its process, or its machine or container ran short of memory; a worker that runs under a nanny is seen to end"
    )


def _others(task_set: TaskSet) -> str:
    """What else failed of a stage that is given up, by kinds: the error that is raised is of one task alone."""
    others = len(task_set.failures) - 1
    if others < 1:
        return ""
    kinds = sorted(task_set.failure_kinds.items(), key=lambda each: -each[1])
    told = ", ".join(f"{count:,} times {kind}" for kind, count in kinds)
    return f" ({others:,} other partition{'' if others == 1 else 's'} failed too; in all {told})"


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
        "partition": str(attempt.told),
        "attempt_number": str(attempt.number),
        "executor": attempt.executor.id,
    }


def _wish_left(books: Books, attempt: Attempt) -> Preferred | None:
    """Where a task that was given back would best run, of the executors that have a slot for it now."""
    task_set, partition = attempt.task_set, attempt.partition
    wish = None if task_set.preference is None else task_set.preference(partition)
    if wish is None:
        return None

    def may_run_on(executor: ExecutorState | None) -> bool:
        return (
            executor is not None
            and executor.is_open
            and executor.surplus < 0
            and not task_set.avoids(partition, executor.id, books.now)
        )

    by_host = books.executors.by_host
    return Preferred(
        [executor for executor in wish.executors if may_run_on(books.executors.get(executor))],
        [host for host in wish.hosts if any(may_run_on(executor) for executor in by_host.get(host, {}).values())],
    )


def requeue(books: Books, attempt: Attempt, wish: Preferred | None = None) -> None:
    """Its task waits again."""
    stage = books.stage_of(attempt.task_set)
    if stage is None or stage.task_set is not attempt.task_set:
        return
    task_set, partition = attempt.task_set, attempt.partition
    if task_set.barrier is not None:
        barriers.start_over(books, stage, f"task {partition} of the same barrier stage has to run again, so all of them do")
        _resume(books, stage)
        return
    goes_on = task_set.has_another(attempt)
    if not goes_on or task_set.failures.get(partition, 0) < books.config.max_task_failures - 1:
        task_set.copied.pop(partition, None)  # what goes on may be copied again, unless one more failure would end the job
    if goes_on:
        return
    task_set.add_again(partition, wish)
    _resume(books, stage)


def _resume(books: Books, stage: Stage) -> None:
    """Tasks of a stage wait again: they are offered, unless its input is gone."""
    if not stage.is_running:
        books.applications[stage.app].is_stale = True
        return
    books.active[stage.app, stage.id] = stage
    application = books.applications[stage.app]
    if stage.spec.parents and stage.ready_version != stage.definition_version(application, books.address_epoch):
        application.is_stale = True  # its input may be gone; until now nothing waited for it


def _tell_again(stage: Stage, attempt: Attempt) -> None:
    """Its executor may not know the stage as it is: it is told at the next launch, though it was."""
    if stage.defined_on.get(attempt.executor, NOTHING)[0] == attempt.stage_attempt:
        stage.defined_on[attempt.executor] = NOTHING


def _fetch_failed(books: Books, application: Application, stage: Stage, attempt: Attempt, failure: FetchFailure) -> None:
    parent = application.map_stages.get(failure.shuffle)
    reads_it = any(each.shuffle == failure.shuffle for each in stage.spec.parents)
    lost: list[PartitionIndex] = []
    if parent is not None and parent.outputs is not None:
        outputs = parent.outputs
        if failure.map_partition is None:
            lost = outputs.on_host(failure.host) if failure.epoch >= outputs.epoch else []
        elif failure.map_attempt is not None:
            named = ((failure.map_partition, failure.map_attempt), *failure.others)
            lost = [partition for partition, made_by in named if outputs.is_current(partition, made_by)]
        for partition in lost:  # what is not among them is known already: made again, or about to be
            outputs.unregister(partition)
    if parent is not None and lost:
        books.publish(
            application.id,
            ShuffleOutputsLost(
                time=books.now,
                app=application.id,
                shuffle=failure.shuffle,
                stage=parent.id,
                partitions=parent.partitions(lost),
                reason=f"{failure.reason}: {failure.message}",
            ),
        )
    elif not failure.host and reads_it:
        stage.reads_behind_cache = True
    else:
        _tell_again(stage, attempt)  # it looked where nothing is any more, or ran a program that does not count any more
    stage.lost_inputs.update((failure.shuffle, partition) for partition in lost)
    times = max((stage.lost_inputs[failure.shuffle, partition] for partition in lost), default=0)
    in_vain = attempt.task_set.note_uncounted(attempt.partition)
    application.is_stale = True
    if times >= books.config.max_stage_attempts or in_vain >= UNCOUNTED_LIMIT:
        jobs.abort_stage(
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
