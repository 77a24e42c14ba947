"""Executors that come, change, fall silent and go; results and blocks that go with them.

Output of map tasks belongs to the host, so it is not lost here: ``map_outputs`` counts it again when anybody serves that host.
Runs in the scheduler process inside ``SchedulerCore``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import assert_never

from flowkit.config import Config
from flowkit.model.events import BlocksLost, BlocksUpdated, ExecutorAdded, ExecutorRemoved
from flowkit.model.ids import AppId, AttemptId, ExecutorId, rdd_of
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import ExecutorLostFailure
from flowkit.scheduling import endings, handover, jobs
from flowkit.scheduling.actions import FaultFound, Kill
from flowkit.scheduling.applications import Application, Job
from flowkit.scheduling.asking import PolicyError, asked
from flowkit.scheduling.blocks import Block, told_of
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.launches import CONTENT_WAIT_S
from flowkit.scheduling.recalls import recall_waiting
from flowkit.scheduling.stimuli import (
    BlocksEvicted,
    BlocksMoved,
    ExecutorDraining,
    ExecutorPaused,
    ExecutorReady,
    ExecutorResumed,
    Heartbeat,
    SlotsChanged,
)

#: An attempt launched this many heartbeats ago, that its executor does not know, never arrived.
_LOST_AFTER_HEARTBEATS = 3
#: A lease found to have run out so much too late: nobody was listening meanwhile, so it goes on for such a part of itself.
_STALL_S, _AFTER_STALL = 1.0, 0.25


def executor_ready(books: Books, stimulus: ExecutorReady) -> None:
    """A new executor. Outputs its host kept are there again."""
    if books.executors.get(stimulus.executor) is not None:
        books.stale_count += 1
        return
    state = ExecutorState(
        stimulus.executor,
        stimulus.host,
        stimulus.slots,
        stimulus.host_names,
        books.now,
        stimulus.resources,
        stimulus.memory_bytes,
        replaceable=stimulus.replaceable,
    )
    state.rack = _rack_of(books, stimulus)
    books.executors.share(state, stimulus.shared)
    books.executors.add(state)
    books.address_epoch += 1
    books.mark_stale()
    handover.executors_changed(books)
    books.publish(None, ExecutorAdded(time=books.now, executor=state.id, host=state.host, slots=state.slots))


def _rack_of(books: Books, stimulus: ExecutorReady) -> str:
    """Where a topology says its host stands. One that raises costs nothing but that; it is written down."""
    if books.topology is None:
        return ""
    topology = books.topology
    try:
        return asked("topology", topology, "__call__", lambda: topology(stimulus.host_names), _complaint_of_rack)
    except PolicyError as error:
        books.emit(FaultFound(str(error)))
        return ""


def _complaint_of_rack(rack: object) -> str:
    return "" if type(rack) is str else ", not a rack's name"


def executor_changed(books: Books, stimulus: ExecutorPaused | ExecutorResumed | ExecutorDraining | SlotsChanged) -> None:
    """It takes launches, or takes none, or takes more or fewer."""
    state = books.executors.get(stimulus.executor)
    if state is None:
        books.stale_count += 1
        return
    match stimulus:
        case ExecutorPaused():
            state.paused = True
        case ExecutorResumed():
            state.paused = False
        case ExecutorDraining():
            state.draining, state.may_leave = True, False  # it waits to be told, though it was before
            handover.begin_to_leave(books, state)
        case SlotsChanged(slots=slots):
            state.slots = slots
            state.is_blocked = False
        case _:
            assert_never(stimulus)
    if not state.usable:
        recall_waiting(books, state)
    books.executors.refresh(state)
    handover.executors_changed(books)


def executor_lost(
    books: Books, executor_id: ExecutorId, reason: str, *, task_caused: bool | None, running: Collection[AttemptId] | None = None
) -> None:
    """It is gone: what ran there runs again, what it cached is computed again when needed.

    ``running``: what its slots had in hand in the end. An attempt that is not among them may have started, and ended well with
    the news of it still on the way: it is made again like the others, but did not end the process. ``task_caused`` None: nobody
    knows why it is gone. One such loss says nothing of what ran there; several of the same task do (``endings.after_failure``).
    """
    state = books.executors.get(executor_id)
    if state is None:
        books.stale_count += 1
        return
    books.executors.remove(state, reason)
    books.address_epoch += 1
    books.mark_stale()
    books.publish(None, ExecutorRemoved(time=books.now, executor=state.id, host=state.host, reason=reason))
    heir = next(iter(books.executors.by_host.get(state.host, ())), None)
    books.copies_stale = True
    for application in list(books.applications.values()):
        lost = application.blocks.forget_executor(executor_id, heir)
        handover.forget_taker(application, executor_id)
        if lost:
            books.publish(
                application.id, BlocksLost(time=books.now, app=application.id, executor=executor_id, blocks=_told(lost))
            )
        for job in list(application.jobs.values()):
            for attempt_id in [each for each, (holder, _, _) in job.unfetched.items() if holder == executor_id]:
                if not result_lost(books, application, job, attempt_id, reason):
                    break
    attempts = list(state.attempts.values())
    # Without a record: first in, first out, so these were running, though a process that dies has no time left to say so.
    at_hand = attempts[: state.slots] if running is None else [each for each in attempts if each.id in running]
    for attempt in at_hand:
        endings.note_start(books, attempt, attempt.launched_at)
    blamed = {attempt.id for attempt in attempts if attempt.started_at and (running is None or attempt.id in running)}
    for attempt in attempts:
        books.executors.give_back(state, attempt, books.now)
        attempt.task_set.running.pop(attempt.id, None)
    for attempt in attempts:
        ran = attempt.id in blamed
        failure = ExecutorLostFailure(reason, counts=ran and task_caused is True, unexplained=ran and task_caused is None)
        task_set = attempt.task_set
        stage = books.stage_of(task_set)
        current = not attempt.is_void and stage is not None and stage.task_set is task_set
        jobs.publish_end(books, attempt, books.now, failure, counted=failure.counts and current, metrics=TaskMetrics())
        if current:
            assert stage is not None
            endings.after_failure(books, books.applications[stage.app], stage, attempt, failure, counted=failure.counts)


def result_lost(books: Books, application: Application, job: Job, attempt: AttemptId, reason: str) -> bool:
    """A stored result is gone before the driver had it: its task runs again. False when that was once too often, and ended the job."""
    holder, partition, size_bytes = job.unfetched.pop(attempt)
    job.result_bytes -= size_bytes
    stage = application.stages[job.spec.result_stage.stage]
    stage.delivered.discard(partition)
    application.is_stale = True
    job.lost_results[partition] += 1
    times = job.lost_results[partition]
    if times < books.config.max_stage_attempts:
        return True
    jobs.fail_job(
        books,
        application,
        job,
        "ExecutorsLost",
        f"the result of task {stage.partition(partition)} of stage {stage.id} ({stage.spec.name}), {size_bytes:,} bytes kept by its executor, "
        f"was lost {times} times before the driver had it (max_stage_attempts = {books.config.max_stage_attempts}), last on {holder}: {reason}",
        blamed=stage,
    )
    return False


def blocks_evicted(books: Books, stimulus: BlocksEvicted) -> None:
    """Cached partitions left an executor's memory."""
    application = books.applications.get(stimulus.app)
    if application is None:
        books.stale_count += 1
        return
    for rdd, partition in stimulus.blocks:
        application.blocks.remove(stimulus.executor, rdd, partition)
        if application.blocks.level(rdd).replication > 1:  # else a copy there would only drive out others
            application.blocks.refuse(stimulus.executor, rdd, partition)
    application.is_stale = books.copies_stale = True
    books.publish(
        application.id,
        BlocksLost(time=books.now, app=application.id, executor=stimulus.executor, blocks=_told(stimulus.blocks)),
    )


def _told(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """As listeners know them: by their RDDs."""
    return tuple((rdd_of(rdd), partition) for rdd, partition in blocks)


def blocks_moved(books: Books, stimulus: BlocksMoved) -> None:
    """Cached partitions left an executor's memory for a file of its host."""
    application = books.applications.get(stimulus.app)
    if application is None:
        books.stale_count += 1
        return
    moved = tuple(
        block for block in stimulus.blocks if stimulus.executor in application.blocks.holders(block.rdd, block.partition)
    )
    for block in moved:
        application.blocks.add(stimulus.executor, block)
    if moved:
        told = tuple(map(told_of, moved))
        books.publish(application.id, BlocksUpdated(time=books.now, app=application.id, executor=stimulus.executor, blocks=told))


def heartbeat(books: Books, stimulus: Heartbeat) -> None:
    """It lives; launches that never reached it are launched again."""
    state = books.executors.get(stimulus.executor)
    if state is None:
        books.stale_count += 1
        return
    known = set(stimulus.attempts)
    books.executors.heard(state, books.now, answers=known >= state.attempts.keys())
    if known == state.attempts.keys():
        return
    unknown = tuple(attempt for attempt in stimulus.attempts if attempt not in state.attempts)
    if unknown:
        # Given up as lost, and came after all; or over, and its report overtook this, which does no harm.
        books.emit(Kill(state.id, unknown, "it was launched again elsewhere"))
    before = books.now - _LOST_AFTER_HEARTBEATS * books.config.heartbeat_s
    for attempt in [each for each in state.attempts.values() if each.id not in known and each.launched_at < before]:
        books.executors.give_back(state, attempt, books.now)
        books.copies_stale = True
        attempt.task_set.running.pop(attempt.id, None)
        stage = books.stage_of(attempt.task_set)
        if not attempt.is_void and stage is not None and stage.task_set is attempt.task_set:
            failure = ExecutorLostFailure(f"the launch never reached {state.id}", counts=False)
            jobs.publish_end(books, attempt, books.now, failure, counted=False, metrics=TaskMetrics())
            endings.after_failure(books, books.applications[stage.app], stage, attempt, failure, counted=False)


class Watch:
    """What only the passing of time tells: silence of drivers, content and executors that never come."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._starving_since: float | None = None

    def settle(self, books: Books) -> None:
        """After each batch: time-outs begin whose reasons are there now, and end with them."""
        if books.executors.usable_count or not any(application.jobs for application in books.applications.values()):
            self._starving_since = None
        elif self._starving_since is None:
            self._starving_since = books.now

    def next_look(self, books: Books) -> float | None:
        """When ``look`` has something to find, or might. Changes nothing."""
        candidates = [application.lease_until for application in books.applications.values()]
        if self._starving_since is not None:
            candidates.append(self._starving_since + self._config.no_executor_timeout_s)
        for application in books.applications.values():
            if application.jobs:
                for stage in application.stages.values():
                    candidates += stage.missing_contents.values()
        return min(candidates, default=None)

    def look(self, books: Books) -> list[tuple[AppId, str]]:
        """Act on what is overdue; returns applications whose lease is over, with the reason."""
        now = books.now
        if self._starving_since is not None and now >= self._starving_since + self._config.no_executor_timeout_s:
            self._starving_since = None
            self._give_up(books)
        for application in list(books.applications.values()):
            for stage in list(application.stages.values()):
                overdue = [content for content, until in stage.missing_contents.items() if until <= now]
                if overdue:
                    jobs.abort_stage(
                        books,
                        application,
                        stage,
                        "JobFailed",
                        f"stage {stage.id} ({stage.spec.name}) needs content that no host holds and the driver did not put "
                        f"again within {CONTENT_WAIT_S:.0f} s: {', '.join(overdue)}",
                        None,
                        {},
                    )
        for application in books.applications.values():
            if now - application.lease_until > _STALL_S:
                application.lease_until = now + _AFTER_STALL * application.lease_s
        return [
            (application.id, f"no sign of life from the driver for {application.lease_s:.0f} s (lease_s)")
            for application in books.applications.values()
            if application.lease_until <= now
        ]

    def _give_up(self, books: Books) -> None:
        total = len(books.executors)
        if total:
            why = f"all {total} executors are paused or leaving"
        elif books.executors.last_losses:
            why = "all executors are gone: " + "; ".join(books.executors.last_losses)
        else:
            why = "no executor ever joined"
        reason = f"no usable executor for {self._config.no_executor_timeout_s:.0f} s (no_executor_timeout_s): {why}"
        for application in books.applications.values():
            for job in list(application.jobs.values()):
                jobs.fail_job(books, application, job, "ExecutorsLost", reason)
