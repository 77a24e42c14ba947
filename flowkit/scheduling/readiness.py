"""Which stages may run: those a job needs, that have something to compute, and whose parents' output is all there.

Looked at again whenever that may have changed, job by job from the result backwards, without recursion. A stage whose input
is lost while tasks of it wait is held up until its parents have made exactly what is missing.
Runs in the scheduler process inside ``SchedulerCore``.
"""

from __future__ import annotations

from collections.abc import Collection
from types import MappingProxyType

from flowkit.abc import Near, Preferred
from flowkit.model.events import ShuffleOutputsLost, StageCompleted, StageSubmitted
from flowkit.model.ids import ExecutorId, HostToken, PartitionIndex, StageId
from flowkit.model.job_spec import Determinism
from flowkit.model.map_status import decode_size
from flowkit.scheduling import jobs, layout
from flowkit.scheduling.applications import Application, Job, Stage
from flowkit.scheduling.barriers import Barrier
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.recalls import recall
from flowkit.scheduling.task_sets import UNCOUNTED_LIMIT, Attempt, TaskSet, Wish

#: A host is near a reduce task when it holds at least this part of the task's input (the fraction Spark uses).
_NEAR_FRACTION = 0.2
#: More reduce partitions or map outputs than this, and finding near hosts costs more than it saves.
_NEAR_LIMIT = 1_000


def look_again(books: Books, application: Application) -> None:
    """Submit what may run, hold up what may not."""
    application.is_stale = False
    if not len(books.executors):
        application.is_stale = True  # nobody could run it; and what is missing is known when somebody comes
        return
    for job in sorted(application.jobs.values(), key=lambda job: job.order):
        if job.id in application.jobs:  # an earlier one may have ended others
            _walk(books, application, job)


def _walk(books: Books, application: Application, job: Job) -> None:
    waiting = [application.stages[job.spec.result_stage.stage]]
    seen = {waiting[0].id}
    while waiting:
        stage = waiting.pop()
        if stage.is_running and stage.task_set is not None and stage.task_set.barrier is None:
            _withdraw_available(books, stage)
        at_hand = _is_at_hand(stage)
        todo = [] if at_hand else to_compute(books, stage)
        if not todo and not at_hand:
            continue
        missing = missing_parents(books, application, stage)
        if not missing:
            stage.ready_version = stage.definition_version(application, books.address_epoch)
            if not at_hand:
                _submit(books, application, stage, todo)
        else:
            _hold_up(books, stage)
            for parent in missing:
                if parent.id not in seen:
                    seen.add(parent.id)
                    waiting.append(parent)
        if job.id not in application.jobs:
            return


def needed_stages(books: Books, application: Application, job: Job) -> set[StageId]:
    """Stages of a job that have something to compute as things stand; the others are skipped."""
    waiting = [application.stages[job.spec.result_stage.stage]]
    needed = {waiting[0].id}
    while waiting:
        for parent in missing_parents(books, application, waiting.pop()):
            if parent.id not in needed:
                needed.add(parent.id)
                waiting.append(parent)
    return needed


def _is_at_hand(stage: Stage) -> bool:
    """Whether all that is left of a stage waits or runs already: told from counts, for a look at each of a million tasks takes long."""
    task_set = stage.task_set
    if task_set is not None and task_set.barrier is not None and stage.is_running:
        return bool(task_set.pending or task_set.running or task_set.barrier.held)
    if stage.outputs is not None or task_set is None or not stage.is_running:
        return False
    running = len(task_set.running) - task_set.twice_running
    return len(stage.delivered) + len(task_set.pending) + running == stage.task_count


def to_compute(books: Books, stage: Stage) -> list[PartitionIndex]:
    """Partitions that must be computed and are not under way."""
    running = {attempt.partition for attempt in stage.task_set.running.values()} if stage.task_set is not None else set()
    if stage.outputs is not None:
        missing = stage.outputs.missing(books.executors.by_host)
    else:
        done, covered = stage.delivered, stage.spans.covered
        if done or covered:
            missing = [partition for partition in stage.wanted if partition not in done and partition not in covered]
        else:
            missing = list(stage.wanted)
    return [partition for partition in missing if partition not in running] if running else missing


def missing_parents(books: Books, application: Application, stage: Stage) -> list[Stage]:
    """Parents whose output is not all there, unless the cache makes it unnecessary."""
    counts = {cached.rdd: cached.count for cached in stage.spec.cached}
    missing = []
    for parent in stage.spec.parents:
        if not stage.reads_behind_cache and any(
            application.blocks.is_complete(application.kept_as(rdd), counts.get(rdd, -1)) for rdd in parent.unless_cached
        ):
            continue
        parent_stage = application.map_stages[parent.shuffle]
        assert parent_stage.outputs is not None
        if not parent_stage.outputs.is_complete(books.executors.by_host):
            missing.append(parent_stage)
    return missing


def _withdraw_available(books: Books, stage: Stage) -> None:
    """A host came back with its files: what it holds need not be made again."""
    if stage.outputs is None or stage.task_set is None:
        return
    missing = set(stage.outputs.missing(books.executors.by_host))
    for partition in [each for each in stage.task_set.pending if each not in missing]:
        stage.task_set.withdraw(partition)
    jobs.finish_if_done(books, stage)


def _submit(books: Books, application: Application, stage: Stage, todo: list[PartitionIndex]) -> None:
    if stage.has_stale_layout(application):
        if not jobs.lay_out_anew(books, application, stage):
            return
        todo = to_compute(books, stage)
    goes_on = stage.is_running and stage.task_set is not None and stage.task_set.attempt_number == stage.attempt_count - 1
    if goes_on and not stage.spec.barrier:  # what is lost of one that runs all at once is made again whole
        assert stage.task_set is not None
        fresh = [partition for partition in todo if partition not in stage.task_set.pending]
        if fresh:
            if not _may_lose(books, application, stage, fresh):
                return
            _note_lost_outputs(books, stage, fresh)
            stage.task_set.add(fresh, _preference(books, application, stage, stage.task_set))
        books.active[stage.app, stage.id] = stage
        return
    if not _may_lose(books, application, stage, todo):
        return
    if stage.outputs is not None and stage.was_complete and stage.spec.determinism is Determinism.INDETERMINATE:
        # Running it again yields other rows: whatever was made from the old ones is void with them.
        if not jobs.roll_back(books, application, stage):
            return
        todo = to_compute(books, stage)
    if not stage.attempt_count and layout.lay_out(books, application, stage):
        todo = to_compute(books, stage)
    if stage.spec.barrier and len(todo) < len(stage.spec.partitions):  # all of its tasks run, or none
        if stage.outputs is not None:
            stage.outputs.unregister_all()
        else:
            jobs.void_results(books, application, stage)
        todo = list(stage.spec.partitions)
    _note_lost_outputs(books, stage, todo)
    if stage.task_set is None:
        order = (min(stage.jobs.values()), stage.id)
        stage.task_set = TaskSet(stage.app, stage.id, order, stage.depth)
        oldest = min(stage.jobs, key=lambda job: stage.jobs[job])
        stage.task_set.properties = MappingProxyType(application.jobs[oldest].spec.properties)
        stage.task_set.take_profile(stage.spec.profile)
        stage.task_set.racks = books.executors.racks
        stage.task_set.size = stage.task_count
        stage.task_set.waits = books.placement.waits(stage.task_set)
    task_set = stage.task_set
    task_set.barrier = Barrier() if stage.spec.barrier else None
    task_set.attempt_number = stage.attempt_count
    stage.attempt_count += 1
    stage.is_running = True
    books.active[stage.app, stage.id] = stage
    task_set.add(todo, _preference(books, application, stage, task_set))
    task_set.settle_wait(books.now)
    books.publish(
        stage.app,
        StageSubmitted(
            time=books.now,
            app=stage.app,
            stage=stage.id,
            stage_attempt=task_set.attempt_number,
            name=stage.spec.name,
            task_count=stage.partition_count(task_set.pending),
            jobs=tuple(stage.jobs),
        ),
    )


def _note_lost_outputs(books: Books, stage: Stage, todo: list[PartitionIndex]) -> None:
    """Say which outputs that once were there have to be made again because their host is gone."""
    if stage.outputs is None:
        return
    lost = [partition for partition in todo if stage.outputs.statuses[partition] is not None]
    if lost:
        for partition in lost:
            stage.outputs.unregister(partition)
        books.publish(
            stage.app,
            ShuffleOutputsLost(
                time=books.now,
                app=stage.app,
                shuffle=stage.outputs.shuffle,
                stage=stage.id,
                partitions=stage.partitions(lost),
                reason="no executor is left on the host that holds them",
            ),
        )


def _may_lose(books: Books, application: Application, stage: Stage, todo: list[PartitionIndex]) -> bool:
    """Whether outputs that went with their hosts may be made again; False when that was once too often, and ended the jobs."""
    if stage.outputs is None:
        return True
    lost = [partition for partition in todo if stage.outputs.statuses[partition] is not None]
    if not lost:
        return True
    stage.lost_with_host.update(lost)
    worst = max(lost, key=lambda each: stage.lost_with_host[each])
    if stage.lost_with_host[worst] < UNCOUNTED_LIMIT:
        return True
    jobs.abort_stage(
        books,
        application,
        stage,
        "ShuffleLost",
        f"output {stage.partition(worst)} of stage {stage.id} ({stage.spec.name}) was made {UNCOUNTED_LIMIT} times, and each time the host "
        f"that held it went away before it was read; executors lost last: {'; '.join(books.executors.last_losses)}",
        None,
        {},
    )
    return False


def _hold_up(books: Books, stage: Stage) -> None:
    """Its input is incomplete: launch nothing of it, take back what has not started."""
    books.active.pop((stage.app, stage.id), None)
    task_set = stage.task_set
    if not stage.is_running or task_set is None:
        return
    if task_set.barrier is not None and (task_set.running or task_set.barrier.held):
        return  # all of its tasks were launched: those that find their input gone say so, and then all run again
    stage.is_running = False
    books.publish(
        stage.app,
        StageCompleted(
            time=books.now,
            app=stage.app,
            stage=stage.id,
            stage_attempt=task_set.attempt_number,
            name=stage.spec.name,
            failure="its input is no longer complete",
            outcome="held up",
        ),
    )
    waiting: dict[ExecutorState, list[Attempt]] = {}
    for attempt in task_set.running.values():
        if not attempt.started_at and not attempt.is_recalled:
            waiting.setdefault(attempt.executor, []).append(attempt)
    for executor, attempts in waiting.items():
        recall(books, executor, attempts)


def _preference(books: Books, application: Application, stage: Stage, task_set: TaskSet) -> Wish | None:
    """Where partitions of a stage would best run, as the placement policy says of what is known: None where nothing is."""
    one_host = len(books.executors.by_host) < 2
    near = {} if one_host else _near_hosts(books, application, stage)
    cached = [(each, kept) for each in stage.spec.cached if (kept := application.kept_as(each.rdd)) in application.blocks]
    files = {} if one_host else stage.spec.preferred_hosts
    if not near and not cached and not files:
        return None
    names, placement = books.executors.hosts_by_name, books.placement
    nowhere: dict[HostToken, None] = {}
    silent = books.executors.unresponsive  # nothing can be read there now, so nobody waits for it

    def preference(task: PartitionIndex) -> Preferred | None:
        partition = stage.partition(task)
        executors: list[ExecutorId] = []
        for each, kept in cached:
            at = partition - each.first
            if 0 <= at < each.count:
                holders = application.blocks.holders(kept, PartitionIndex(at))
                executors += [each for each in holders if each not in silent] if silent else holders
        caching_hosts: Collection[HostToken] = ()
        if executors and not one_host:
            known = [books.executors.get(executor) for executor in executors]
            caching_hosts = dict.fromkeys(executor.host for executor in known if executor is not None)
        file_hosts: dict[HostToken, None] = {}
        for name in files.get(partition, ()):
            file_hosts.update(names.get(name, nowhere))
        shuffle_hosts = near.get(partition, ())
        if not executors and not file_hosts and not shuffle_hosts:
            return None
        return placement.prefer(task_set, partition, Near(executors, caching_hosts, file_hosts, shuffle_hosts))

    return preference


def _near_hosts(books: Books, application: Application, stage: Stage) -> dict[PartitionIndex, list[HostToken]]:
    weights: dict[PartitionIndex, dict[HostToken, int]] = {}
    for parent in stage.spec.parents:
        outputs = application.map_stages[parent.shuffle].outputs
        assert outputs is not None
        if len(outputs.statuses) > _NEAR_LIMIT or stage.spec.num_partitions > _NEAR_LIMIT:
            return {}
        for status in outputs.statuses:
            if status is None:
                continue
            for reducer, code in enumerate(layout.codes(status)[: stage.spec.num_partitions]):
                if code:
                    by_host = weights.setdefault(PartitionIndex(reducer), {})
                    by_host[status.host] = by_host.get(status.host, 0) + decode_size(code)
    return {
        partition: [host for host, size in by_host.items() if size >= _NEAR_FRACTION * sum(by_host.values())]
        for partition, by_host in weights.items()
    }
