"""The life of one task on its slot: unpickle, set up, run, pickle the result, tell listeners, clean up, say how it went.

Runs on a slot thread; whatever user code does ends in a report, never in a dead slot.
"""

from __future__ import annotations

import os
import shutil
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

import msgspec

from flowkit.abc import BlockTransport, Serializer
from flowkit.config import Config
from flowkit.errors import (
    CommitDenied,
    FetchFailed,
    NestedAction,
    ResultNotPicklable,
    RowsNotKept,
    TaskKilled,
    TaskListenersFailed,
)
from flowkit.execution import gc_clock
from flowkit.execution.accumulators import packed
from flowkit.execution.applications import Applications
from flowkit.execution.attempt import Attempt
from flowkit.execution.content_fetch import ContentFetcher
from flowkit.execution.environment import ContentSource, TaskEnvironment
from flowkit.execution.failure import MOST_CHARACTERS, describe
from flowkit.execution.kill import Interrupted
from flowkit.execution.pipeline import TaskOutput, TaskValue, run_program
from flowkit.execution.recording import recording
from flowkit.execution.remote_blocks import RemoteBlocks
from flowkit.execution.results import ResultStore, pickle_result
from flowkit.execution.stage_programs import ProgramUnreadable, Stage
from flowkit.execution.task_context import TaskContext, set_current
from flowkit.lineage.kernels import StageProgram
from flowkit.logs import logger_of
from flowkit.model.faults import FAULTS
from flowkit.model.ids import AttemptId, ContentId, ExecutorId, HostToken, PartitionIndex, ShuffleId
from flowkit.model.job_spec import INLINE_LIMIT_BYTES
from flowkit.model.map_status import MapStatus, ShuffleSources
from flowkit.model.profile import PROFILE, PROFILE_MEMORY
from flowkit.model.shown import class_name, cut, text_of
from flowkit.model.task import (
    FULL_TRACEBACKS,
    Accumulated,
    BlockInfo,
    CommitDeniedFailure,
    ContentMissing,
    ExceptionFailure,
    FetchFailure,
    InlineResult,
    KilledFailure,
    MapOutput,
    MemoryFailure,
    Piece,
    StoredResult,
    TaskFailed,
    TaskFailure,
    TaskResult,
    TaskSucceeded,
)
from flowkit.storage.blocks.block_store import BlockStore
from flowkit.storage.memory.task_memory import ExecutorMemory, TaskMemory
from flowkit.storage.serializers import chosen
from flowkit.storage.shuffle.range_reads import RangeReads
from flowkit.tracebacks import add_note, cause_of, context_of, is_a, traceback_of

if TYPE_CHECKING:
    from flowkit.execution.faults import Faults

logger = logger_of(__name__)

#: a task that computes several partitions begins no other one after so long
GIVE_BACK_S: Final = 0.2
#: stands for a spill directory that nobody has asked for yet
_UNMADE = Path()
_VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class TaskServices:
    """What an executor lends to every task it runs."""

    executor: ExecutorId
    host: HostToken
    config: Config
    transport: BlockTransport
    applications: Applications
    memory: ExecutorMemory
    cache: BlockStore
    results: ResultStore
    request_commit: Callable[[AttemptId], None]
    clock: Callable[[], float]
    reach_barrier: Callable[[AttemptId, int, str, bytes], None]
    #: has something go wrong, for tests: ``kill_worker``, ``drop_message``
    disturb: Callable[[str], None]
    #: how many tasks run at a time
    slots: Callable[[], int]
    serializers: Mapping[str, Serializer] = field(default_factory=dict)


def run_task(attempt: Attempt, services: TaskServices) -> TaskSucceeded | TaskFailed:
    """Run an attempt to its end and say how it ended. Raises nothing; leaves nothing behind but its output.

    The one place of a slot's thread where users' code is entered: what of theirs raises, and whatever that is, ends up here.
    """
    metrics = attempt.metrics
    metrics.queued_s = attempt.started - attempt.arrived
    cpu_before, gc_before = time.thread_time(), gc_clock.seconds()
    task = _Task(attempt, services)
    ending: TaskResult | TaskFailure
    try:
        ending = task.run()
    except BaseException as error:
        ending = _surely_described(error, task)
        # Now, while the task's memory is still open: generators caught in the traceback give theirs back when they are closed.
        _let_go_of_frames(error)
    succeeded = isinstance(ending, InlineResult | StoredResult | MapOutput)
    try:
        task.clean_up(succeeded=succeeded)
    except BaseException as error:  # a memory manager of the user's is told what its task held
        ending, succeeded = _surely_described(error, task), False
    metrics.cpu_s = time.thread_time() - cpu_before
    metrics.gc_s = gc_clock.seconds() - gc_before
    cached = tuple(task.cached_blocks)
    match ending:
        case InlineResult() | StoredResult() | MapOutput():
            left = attempt.launch.span - 1 - task.at
            return TaskSucceeded(
                attempt.id, attempt.started_at, services.clock(), ending, metrics, cached, task.accumulated, left
            )
        case _:
            return TaskFailed(attempt.id, attempt.started_at, services.clock(), ending, metrics, cached, task.at)


class _Task:
    """One run of one attempt."""

    __slots__ = (
        "accumulated",
        "at",
        "attempt",
        "cached_blocks",
        "context",
        "environment",
        "faults",
        "memory",
        "program",
        "services",
        "visible_before",
    )

    def __init__(self, attempt: Attempt, services: TaskServices) -> None:
        self.attempt = attempt
        self.services = services
        self.program: StageProgram | None = None
        self.context: TaskContext | None = None
        self.environment: _Environment | None = None
        self.memory: TaskMemory | None = None
        self.faults: Faults | None = None
        #: GPUs that others here may see; None: this task changed nothing about it
        self.visible_before: str | None = None
        self.cached_blocks: list[BlockInfo] = []
        self.accumulated: Accumulated | None = None
        #: which partition of its span it is at
        self.at = 0

    def run(self) -> TaskResult:
        """The task from its first step to its listeners; raises what it failed with."""
        if chosen.current() is not self.services.serializers:
            chosen.choose(self.services.serializers)
        self._set_up()
        context = self.context
        assert context is not None
        plan = self.attempt.stage.definition.properties.get(FAULTS)
        if plan is not None:
            self.faults = self._faults_of(plan)
        try:
            result = self.attempt.switch.run(self._compute)
            if self.attempt.switch.interrupted:
                # User code swallowed the exception: what it made of its input since then is anybody's guess.
                raise Interrupted
        except BaseException as error:
            try:
                context.mark_failed(error)
            except TaskListenersFailed as also:
                add_note(error, str(also))
            try:
                context.mark_completed()
            except TaskListenersFailed as also:
                add_note(error, str(also))
            raise
        context.mark_completed()
        if context.added:
            self.accumulated = packed(context)
        return result if isinstance(result, MapOutput) else self._hand_over(result)

    def clean_up(self, *, succeeded: bool) -> None:
        """Take back all that the task was lent, whatever became of it."""
        set_current(None)
        if self.visible_before is not None:
            os.environ[_VISIBLE_GPUS] = self.visible_before
            if not self.visible_before:
                del os.environ[_VISIBLE_GPUS]
        if self.environment is not None:
            self.environment.remove_spill_directory()
        if self.memory is not None:
            metrics = self.attempt.metrics
            metrics.peak_memory_bytes = self.memory.peak_bytes
            metrics.leaked_bytes = self.memory.release_all()
            if metrics.leaked_bytes and succeeded:
                # A task that failed had no chance to give back; one that ended well has a bug, ours.
                logger.warning("attempt %s left %d bytes of its memory unreleased", self.attempt.id, metrics.leaked_bytes)

    def _set_up(self) -> None:
        attempt, services, stage = self.attempt, self.services, self.attempt.stage
        launch, definition = attempt.launch, stage.definition
        application = services.applications.get(launch.app)
        content = _StageContent(application.content, stage)
        self.program = self._loaded(content, application.directory.path)
        self.memory = TaskMemory(
            services.memory, attempt.id, definition.properties, operator_limit_bytes=services.config.operator_memory_bytes
        )

        def acquire_commit() -> None:
            attempt.acquire_commit(services.request_commit, services.config.executor_timeout_s)

        environment = self.environment = _Environment(
            app=launch.app,
            stage=launch.stage,
            partition=launch.partition,
            output=launch.partition if launch.output < 0 else PartitionIndex(launch.output),
            attempt=attempt.id,
            host=services.host,
            num_reducers=definition.num_reducers,
            metrics=attempt.metrics,
            memory=self.memory,
            shuffle_files=application.directory.shuffle_files,
            shuffle_reads=application.directory.shuffle_files,
            sources=stage.sources_of if launch.piece is None else partial(_sources_of_piece, stage, launch.piece),
            transport=services.transport,
            cache=services.cache,
            uses_cache=launch.piece is None,
            kept_as=definition.kept_as,
            content=content,
            spill_directory=_UNMADE,
            fetch_in_flight_bytes=services.config.fetch_in_flight_bytes,
            shuffle_codec=services.config.shuffle_codec,
            check_killed=attempt.switch.check,
            acquire_commit=acquire_commit,
            cached_blocks=self.cached_blocks,
        )
        self.environment.make_spill_directory = lambda: application.directory.spill_directory(attempt.id)
        if launch.blocks:
            self.environment.remote_blocks = self._remote_blocks(self.environment)
        self.context = TaskContext(
            app_id=launch.app,
            stage_id=launch.stage,
            stage_attempt_number=launch.stage_attempt,
            partition_id=launch.partition,
            num_partitions=definition.num_partitions,
            attempt_number=launch.attempt_number,
            task_attempt_id=attempt.id,
            local_properties=stage.local_properties,
            metrics=attempt.metrics,
            is_interrupted=lambda: attempt.switch.reason is not None,
            acquire_commit=acquire_commit,
            content_path=content.path,
            scratch_directory=lambda: environment.spill_directory,
            meet=self._meet if definition.barrier else None,
            cpus=launch.cpus,
            resources=launch.resources,
        )
        set_current(self.context)
        if "gpu" in launch.resources and services.slots() == 1:
            # For libraries that look there; with several slots they would overwrite one another's.
            self.visible_before = os.environ.get(_VISIBLE_GPUS, "")
            os.environ[_VISIBLE_GPUS] = ",".join(launch.resources["gpu"])

    def _loaded(self, content: ContentSource, directory: Path) -> StageProgram:
        attempt = self.attempt
        program: StageProgram = attempt.stage.program.load(content.path, directory, self.services.executor, attempt.metrics)
        # A later attempt may be one after a failure, and then the element at fault is to be named.
        return recording(program) if attempt.launch.attempt_number else program

    def _meet(self, call: str, data: bytes) -> tuple[bytes, ...]:
        services = self.services
        return self.attempt.meet(services.reach_barrier, call, data, services.config.executor_timeout_s)

    def _remote_blocks(self, environment: _Environment) -> RemoteBlocks:
        return RemoteBlocks(
            self.attempt.launch.blocks,
            app=environment.app,
            transport=environment.transport,
            timeout_s=self.services.config.executor_timeout_s,
            metrics=environment.metrics,
            spill_directory=lambda: environment.spill_directory,
            check_killed=environment.check_killed,
        )

    def _compute(self) -> MapOutput | bytes:
        assert self.program is not None
        assert self.environment is not None
        metrics = self.attempt.metrics
        began = time.perf_counter()
        if self.faults is not None:
            self.faults.before(self.attempt.stage.definition)
        try:
            if PROFILE in self.attempt.stage.definition.properties and self.attempt.launch.span == 1:
                output = self._profiled()
            else:
                turns = self._turns(began) if self.attempt.launch.span > 1 else None
                output = run_program(self.program, self.environment, turns)
        finally:
            metrics.run_s = time.perf_counter() - began
        match output:
            case MapStatus():
                if self.faults is not None:
                    shuffle = self.attempt.stage.definition.shuffle
                    assert shuffle is not None
                    self.faults.after(output, self.environment.shuffle_files, shuffle)
                return MapOutput(output)
            case TaskValue(value):
                began = time.perf_counter()
                if self.attempt.launch.span == 1:
                    data = pickle_result(value)
                else:
                    data = value[0] if len(value) == 1 else pickle_result(value)
                metrics.serialise_s = time.perf_counter() - began
                metrics.result_bytes = len(data)
                return data
            case _:
                assert_never(output)

    def _turns(self, began: float) -> Iterator[tuple[PartitionIndex, StageProgram]]:
        """The partitions of its span, each with a program that no other has changed, until it has taken long: then those left are better off as tasks of their own."""
        launch, context, environment = self.attempt.launch, self.context, self.environment
        assert context is not None
        assert environment is not None
        directory = self.services.applications.get(launch.app).directory.path
        reads = RangeReads(environment.shuffle_files, launch.partition, launch.span)
        environment.shuffle_reads = reads
        assert self.program is not None
        yield launch.partition, self.program
        for at in range(1, launch.span):
            if time.perf_counter() > began + GIVE_BACK_S:
                break
            environment.check_killed()
            self.at = at
            environment.partition = partition = PartitionIndex(launch.partition + at)
            context.move_on(partition)
            self.program = self._loaded(environment.content, directory)
            yield partition, self.program

    def _faults_of(self, plan: str) -> Faults:
        from flowkit.execution.faults import Faults

        found = Faults(plan, self.attempt.launch, self.services.disturb)
        self.attempt.tells_twice = found.tells_twice
        return found

    def _profiled(self) -> TaskOutput:
        """As it is, with what it took as an update of the accumulator that asked."""
        from flowkit.execution.profiling import Profiler

        assert self.program is not None
        assert self.environment is not None
        assert self.context is not None
        properties = self.context.local_properties
        profiler = self.environment.profiler = Profiler(self.program, memory=PROFILE_MEMORY in properties)
        profiler.start()
        try:
            return run_program(self.program, self.environment)
        finally:
            self.context.added[self.context.app_id, int(properties[PROFILE])] = ("", profiler.stop())

    def _hand_over(self, data: bytes) -> InlineResult | StoredResult:
        if len(data) <= INLINE_LIMIT_BYTES:
            return InlineResult(data)
        application = self.services.applications.get(self.attempt.launch.app)
        self.services.results.put(self.attempt.launch.app, self.attempt.id, data, application.results_directory)
        return StoredResult(len(data), zlib.crc32(data))


class _Environment(TaskEnvironment):
    """A task's environment whose spill directory is made when somebody asks for it; most tasks never do."""

    __slots__ = ("_spill_directory", "make_spill_directory")

    _spill_directory: Path
    make_spill_directory: Callable[[], Path]

    @property
    def spill_directory(self) -> Path:
        """For spill runs; made on first use."""
        if self._spill_directory is _UNMADE:
            self._spill_directory = self.make_spill_directory()
        return self._spill_directory

    @spill_directory.setter
    def spill_directory(self, path: Path) -> None:
        self._spill_directory = path

    def remove_spill_directory(self) -> None:
        """Delete it with all that is left in it, if it was made."""
        if self._spill_directory is not _UNMADE:
            shutil.rmtree(self._spill_directory, ignore_errors=True)


class _StageContent:
    """What a stage's tasks may read of the application's content."""

    __slots__ = ("_fetcher", "_stage")

    def __init__(self, fetcher: ContentFetcher, stage: Stage) -> None:
        self._fetcher = fetcher
        self._stage = stage

    def path(self, content: ContentId) -> Path:
        """See ``environment.ContentSource``."""
        return self._fetcher.path(content, self._stage.holders_of(content))


def _sources_of_piece(stage: Stage, piece: Piece, shuffle: ShuffleId) -> ShuffleSources:
    """What a piece of a partition reads: of the shuffle that was split, some map partitions."""
    sources = stage.sources_of(shuffle)
    if shuffle != piece.shuffle:
        return sources
    outputs = tuple(status for status in sources.outputs if piece.first <= status.map_partition < piece.end)
    return msgspec.structs.replace(sources, outputs=outputs)


# -- failures ----------------------------------------------------------------------------------------------------------


def _surely_described(error: BaseException, task: _Task) -> TaskFailure:
    try:
        return _failure(error, task)
    except BaseException as also:
        # Whatever a user's exception does when looked at, the driver hears that it happened.
        frames = "".join(traceback.format_tb(traceback_of(error)))
        return ExceptionFailure(
            class_name(error), f"(could not be described: {class_name(also)})", cut(frames, MOST_CHARACTERS), None
        )


def _failure(error: BaseException, task: _Task) -> TaskFailure:
    """What to report of an error; which of them count against the task is written at the types of ``model.task``."""
    switch = task.attempt.switch
    if switch.reason is not None and (switch.interrupted or is_a(error, TaskKilled)):
        if task.attempt.out_of_memory is not None:
            return MemoryFailure(task.attempt.out_of_memory)
        return KilledFailure(switch.reason)
    fetch = _fetch_failure_in(error)
    if fetch is not None:
        return fetch
    match error:
        case CommitDenied():
            return CommitDeniedFailure()
        case MemoryError():
            return MemoryFailure(cut(text_of(error), MOST_CHARACTERS) or "Python could not allocate memory")
        case ProgramUnreadable(__cause__=BaseException() as cause):
            return msgspec.structs.replace(_described(cause, task), fatal=True)
        case ResultNotPicklable() | NestedAction() | RowsNotKept():
            return msgspec.structs.replace(_described(error, task), fatal=True)
        case _:
            return _described(error, task)


def _fetch_failure_in(error: BaseException) -> FetchFailure | ContentMissing | None:
    """A failed fetch, even if user code caught it and raised something else because of it: that is not the user's fault."""
    for each in _chain(error):
        if is_a(each, FetchFailed) and isinstance(each.data.get("failure"), FetchFailure | ContentMissing):
            found: FetchFailure | ContentMissing = each.data["failure"]
            return found
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, and what it came from."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        yield at
        seen.add(id(at))
        cause = cause_of(at)
        at = cause if cause is not None else context_of(at)


def _described(error: BaseException, task: _Task) -> ExceptionFailure:
    launch, definition = task.attempt.launch, task.attempt.stage.definition
    return describe(
        error,
        task.program,
        stage=f"stage {launch.stage} ({definition.name})",
        partition=launch.partition + task.at,
        own_frames=FULL_TRACEBACKS in definition.properties,
    )


def _let_go_of_frames(error: BaseException) -> None:
    for each in _chain(error):
        traceback.clear_frames(traceback_of(each))
