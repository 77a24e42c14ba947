"""A task sets out: its executor is told of the stage if it must be, and what the task alone needs to know.

Runs in the scheduler process inside ``SchedulerCore``.
"""

from __future__ import annotations

from flowkit.model.ids import AttemptId, HostToken, PartitionIndex
from flowkit.model.job_spec import Content
from flowkit.model.task import BlockHolders, Locality, StageDefinition, TaskLaunch
from flowkit.scheduling import forgetting, resources
from flowkit.scheduling.actions import DefineStage, RequestContent
from flowkit.scheduling.applications import Application, Stage
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.task_sets import Attempt, TaskSet

#: How long a driver may take to put content again.
CONTENT_WAIT_S = 30.0


def contents_are_there(books: Books, application: Application, stage: Stage) -> bool:
    """Large content must be on some living host before anything is launched that needs it."""
    for content in (stage.spec.program, *stage.spec.attachments):
        if content.inline is None and not _holders(books, application, content) and content.id not in stage.missing_contents:
            stage.missing_contents[content.id] = books.now + CONTENT_WAIT_S
            books.emit(RequestContent(application.id, content.id))
    return not stage.missing_contents


def _holders(books: Books, application: Application, content: Content) -> list[HostToken]:
    return [host for host in application.contents.get(content.id, ()) if host in books.executors.by_host]


def launch(
    books: Books,
    application: Application,
    stage: Stage,
    task_set: TaskSet,
    executor: ExecutorState,
    partition: PartitionIndex,
    locality: Locality,
    *,
    urgent: bool = False,
    speculative: bool = False,
) -> None:
    """Send a task to an executor."""
    _define(books, application, stage, task_set.attempt_number, executor)
    number = task_set.tries.get(partition, 0)
    task_set.tries[partition] = number + 1
    if books.commits.holders and not speculative:  # else the attempt beside it may be committing
        books.commits.release(stage.app, stage.id, partition)
    attempt_id = books.next_attempt
    books.next_attempt = AttemptId(attempt_id + 1)
    attempt = Attempt(attempt_id, task_set, partition, number, executor, books.now, locality)
    attempt.urgent = urgent
    if stage.spans.covered:
        attempt.span = stage.spans.length(partition)
    piece = None
    if stage.pieces is not None:
        piece = stage.pieces.piece(partition)
        attempt.told, attempt.piece = stage.partition(partition), 0 if piece is None else piece.number
    if task_set.needs_more:
        attempt.has_more = True
        attempt.resources = resources.take(task_set.profile, executor)
    books.executors.take(executor, attempt)
    task_set.running[attempt_id] = attempt
    if speculative:
        task_set.copied[partition].append(attempt)
    books.queue_launch(
        executor.id,
        TaskLaunch(
            attempt_id,
            stage.app,
            stage.id,
            task_set.attempt_number,
            attempt.told,
            number,
            locality,
            _held_elsewhere(books, application, stage, executor, partition) if stage.spec.cached else (),
            urgent,
            attempt.cpus,
            attempt.resources,
            attempt.span,
            piece,
            -1 if stage.pieces is None else partition,
        ),
    )


def _held_elsewhere(
    books: Books, application: Application, stage: Stage, executor: ExecutorState, partition: PartitionIndex
) -> tuple[BlockHolders, ...]:
    """Cached partitions a task may use that its executor does not hold, and who does."""
    found = []
    for each in stage.spec.cached:
        at = PartitionIndex(partition - each.first)
        if not 0 <= at < each.count:
            continue
        kept = application.kept_as(each.rdd)
        holders = application.blocks.holders(kept, at)
        if holders and executor.id not in holders:
            known = [state for state in map(books.executors.get, holders) if state is not None and not state.unresponsive]
            known.sort(key=lambda state: state.host != executor.host)
            addresses = tuple(state.address for state in known)
            if addresses:
                found.append(BlockHolders(kept, at, addresses))
    return tuple(found)


def _define(books: Books, application: Application, stage: Stage, attempt_number: int, executor: ExecutorState) -> None:
    """Tell an executor of the stage, unless it knows all of it already."""
    if books.forgetting:
        forgetting.tell(books, stage, executor)
    version = stage.definition_version(application, books.address_epoch)
    if stage.told != (attempt_number, version):
        stage.told = attempt_number, version
    if stage.defined_on.get(executor) == stage.told:
        return
    stage.defined_on[executor] = stage.told
    cached = stage.definition
    if cached is None or cached.version != version or cached.stage_attempt != attempt_number:
        cached = stage.definition = _definition(books, application, stage, attempt_number, version)
    books.emit(DefineStage(executor.id, cached))


def _definition(books: Books, application: Application, stage: Stage, attempt_number: int, version: int) -> StageDefinition:
    addresses = books.executors.addresses()
    sources = []
    for parent in stage.spec.parents:
        outputs = application.map_stages[parent.shuffle].outputs
        assert outputs is not None
        if outputs.is_complete(books.executors.by_host):  # else the cache spares the stage reading it
            sources.append(outputs.sources(addresses, books.address_epoch))
    large = [content for content in (stage.spec.program, *stage.spec.attachments) if content.inline is None]
    return StageDefinition(
        app=stage.app,
        stage=stage.id,
        stage_attempt=attempt_number,
        version=version,
        name=stage.spec.name,
        num_partitions=stage.spec.num_partitions,
        program=stage.spec.program,
        attachments=stage.spec.attachments,
        sources=tuple(sources),
        shuffle=stage.spec.shuffle,
        num_reducers=stage.spec.num_reducers,
        properties=dict(stage.task_set.properties) if stage.task_set is not None else {},
        content_holders={
            content.id: tuple((host, address) for host in _holders(books, application, content) for address in addresses[host])
            for content in large
        },
        barrier=stage.spec.barrier,
        kept_as={each.rdd: application.kept_as(each.rdd) for each in stage.spec.cached if each.rdd in application.generations},
    )
