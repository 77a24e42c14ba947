"""An executor that keeps to the protocol and computes nothing: a queue, slots, files that are numbers.

Runs inside ``SimulatedCluster``, on its clock. What a real executor promises holds here too: a recalled or killed attempt never
starts, a launch that comes twice is one, an attempt is reported before it is forgotten.
"""

from __future__ import annotations

import pickle
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, assert_never

import msgspec

from flowkit.model.ids import AppId, AttemptId, ExecutorId, HostToken, PartitionIndex, RddId, ShuffleId, StageId
from flowkit.model.map_status import MapStatus, encode_size
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import (
    Accumulated,
    BlockInfo,
    CommitDeniedFailure,
    ContentMissing,
    ExceptionFailure,
    FetchFailure,
    InlineResult,
    KilledFailure,
    MapOutput,
    StageDefinition,
    StoredResult,
    TaskFailed,
    TaskFailure,
    TaskLaunch,
    TaskRecalled,
    TaskReport,
    TaskResult,
    TaskStarted,
    TaskSucceeded,
)
from flowkit.scheduling import actions as act
from flowkit.scheduling.stimuli import BlockCopied, CommitRequested, Examined, Heartbeat, OutputsCopied, Stimulus, TasksReported
from flowkit.simulation.jobs import SimulatedProgram, Value, computed

STORED_RESULT_BYTES = 100_000
_OUTPUT_BYTES = 1_000
_COMMIT_RESEND_S = 1.0
_COPY_S = 0.005
_REMEMBERED = 20_000

FileName = tuple[AppId, ShuffleId, PartitionIndex, AttemptId]


@dataclass(slots=True)
class SimulatedHost:
    """A directory that several executors share, and that outlives them."""

    token: HostToken
    files: dict[FileName, tuple[Value, ...]] = field(default_factory=dict)
    executors: dict[ExecutorId, SimulatedExecutor] = field(default_factory=dict)


class World(Protocol):
    """What an executor needs of the cluster around it."""

    @property
    def now(self) -> float:
        """The time."""
        ...

    @property
    def first_bytes(self) -> int:
        """Size of the first block of each map output, of which the others are small."""
        ...

    @property
    def accumulates(self) -> bool:
        """Whether every task adds something to an accumulator."""
        ...

    def host(self, token: HostToken) -> SimulatedHost:
        """A host by its token."""
        ...

    def executor_at(self, address: str) -> SimulatedExecutor | None:
        """Who answers at an address."""
        ...

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call it after a while."""
        ...

    def send(self, executor: SimulatedExecutor, stimulus: Stimulus) -> None:
        """Send news to the core."""
        ...

    def task_s(self, launch: TaskLaunch) -> float:
        """How long a task takes."""
        ...

    def planned_failure(self, launch: TaskLaunch) -> TaskFailure | None:
        """How an attempt is to end, if a test said so."""
        ...

    def was_computed(self, launch: TaskLaunch, partition: PartitionIndex, shuffle: ShuffleId | None) -> None:
        """Count it: one of a task's partitions."""
        ...

    def most_at_once(self, launch: TaskLaunch) -> int:
        """How many partitions of its span a task computes before it gives back the others."""
        ...


@dataclass(slots=True)
class _Stage:
    """One attempt at a stage; tasks keep theirs, whatever is forgotten meanwhile."""

    definition: StageDefinition


@dataclass(slots=True)
class _Task:
    launch: TaskLaunch
    stage: _Stage
    started_at: float = 0.0


class _Failed(Exception):
    def __init__(self, failure: TaskFailure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class SimulatedExecutor:
    """``slots`` tasks at a time, first in, first out."""

    def __init__(self, executor: ExecutorId, host: SimulatedHost, slots: int, world: World, report_batch_s: float) -> None:
        self.id = executor
        self.host = host
        self.slots = slots
        self.alive = True
        #: stopped: it does nothing and hears nothing until it is continued
        self.silent = False
        #: silent, but at work: since when
        self.works_since: float | None = None
        #: it was told that nobody needs it any more
        self.may_leave = False
        self.queue: OrderedDict[AttemptId, _Task] = OrderedDict()
        self.running: dict[AttemptId, _Task] = {}
        self.cache: dict[tuple[AppId, RddId, PartitionIndex], Value] = {}
        self.results: dict[AttemptId, Value | tuple[Value, ...]] = {}
        #: answers to tasks that waited for others
        self.met: list[act.AnswerBarrier] = []
        #: highest number of tasks that ran at once
        self.most_running = 0
        self._world = world
        self._past: OrderedDict[AttemptId, str | None] = OrderedDict()
        self._stages: dict[tuple[AppId, StageId, int], _Stage] = {}
        self._programs: dict[bytes, SimulatedProgram] = {}
        self._reports: deque[TaskReport] = deque()
        self._report_batch_s = report_batch_s
        self._flushing = False

    # -- what it is told

    def perform(self, action: act.ExecutorAction) -> None:
        """A message arrived."""
        match action:
            case act.DefineStage(definition=new):
                known = self._stages.get((new.app, new.stage, new.stage_attempt))
                if known is None or (new.version > known.definition.version and new.program.id != known.definition.program.id):
                    self._stages[new.app, new.stage, new.stage_attempt] = _Stage(new)
                elif new.version > known.definition.version:
                    known.definition = new
            case act.ForgetStage(app=app, stage=stage):
                for key in [key for key in self._stages if key[:2] == (app, stage)]:
                    del self._stages[key]
            case act.Launch(tasks=tasks):
                self._launch(tasks)
            case act.Recall(attempts=attempts):
                for attempt in attempts:
                    if attempt not in self.running and attempt not in self._past:
                        self.queue.pop(attempt, None)
                        self._remember(attempt, None)
                        self.report(TaskRecalled(attempt))
            case act.Kill(attempts=attempts, reason=reason):
                self._kill(attempts, reason)
            case act.AnswerCommit(attempt=attempt, granted=granted):
                if attempt in self.running:
                    if granted:
                        self._finish(attempt)
                    else:
                        self._end(attempt, CommitDeniedFailure())
            case act.AnswerBarrier():
                self.met.append(action)
            case act.ReleaseResults(attempts=attempts):
                for attempt in attempts:
                    self.results.pop(attempt, None)
            case act.DropRdd(app=app, rdd=rdd):
                for block in [block for block in self.cache if block[:2] == (app, rdd)]:
                    del self.cache[block]
            case act.CopyBlock():
                self._world.later(_COPY_S, partial(self._copy_block, action))
            case act.CopyOutputs():
                self._world.later(_COPY_S, partial(self._copy_outputs, action))
            case act.MayLeave():
                self.may_leave = True
            case act.DropShuffle(app=app, shuffle=shuffle):
                for name in [name for name in self.host.files if name[:2] == (app, shuffle)]:
                    del self.host.files[name]
            case act.DropContents():
                pass
            case act.DropApplication(app=app):
                self._drop_application(app)
            case _:
                assert_never(action)

    def _copy_block(self, copy: act.CopyBlock) -> None:
        if not self.alive:
            return
        if self.silent:
            self._world.later(1.0, partial(self._copy_block, copy))
            return
        value = self._held_by(copy.sources, copy.app, copy.rdd, copy.partition)
        block = None
        if value is not None:
            self.cache[copy.app, copy.rdd, copy.partition] = value
            block = BlockInfo(copy.rdd, copy.partition, _OUTPUT_BYTES)
        self._world.send(self, BlockCopied(self.id, copy.app, copy.rdd, copy.partition, block))

    def _held_by(self, addresses: Sequence[str], app: AppId, rdd: RddId, partition: PartitionIndex) -> Value | None:
        for address in addresses:
            holder = self._world.executor_at(address)
            if holder is not None and not holder.silent and (app, rdd, partition) in holder.cache:
                return holder.cache[app, rdd, partition]
        return None

    def _copy_outputs(self, copy: act.CopyOutputs) -> None:
        if not self.alive:
            return
        if self.silent:
            self._world.later(1.0, partial(self._copy_outputs, copy))
            return
        copied, failed = [], []
        for partition, attempt in copy.outputs:
            name = copy.app, copy.shuffle, partition, attempt
            for address in copy.sources:
                holder = self._world.executor_at(address)
                if holder is not None and not holder.silent and name in holder.host.files:
                    self.host.files[name] = holder.host.files[name]
                    copied.append((partition, attempt))
                    break
            else:
                failed.append((partition, attempt))
        self._world.send(self, OutputsCopied(self.id, copy.app, copy.shuffle, tuple(copied), tuple(failed)))

    def seen(self) -> Examined:
        """What can be seen of it from outside."""
        works = self.works_since is not None
        used_s = self._world.now - self.works_since if self.works_since is not None else 0.0
        return Examined(self.id, {1: (0.0, 0.0), 2: (used_s, 0.0)}, self.silent and not works, tuple(self.running))

    def heartbeat(self) -> Heartbeat:
        """What it would say of itself now."""
        return Heartbeat(self.id, (*self.queue, *self.running))

    def unreported(self) -> list[FileName]:
        """Files nobody has heard of yet."""
        attempts = {report.attempt for report in self._reports if isinstance(report, TaskSucceeded)}
        return [name for name in self.host.files if name[3] in attempts]

    def _launch(self, tasks: tuple[TaskLaunch, ...]) -> None:
        for task in tasks:
            if task.attempt in self.queue or task.attempt in self.running:
                continue
            if task.attempt in self._past:
                reason = self._past[task.attempt]
                if reason is not None:
                    self._past[task.attempt] = None
                    self._never_ran(task.attempt, reason)
            elif (stage := self._stages.get((task.app, task.stage, task.stage_attempt))) is None:
                self._never_ran(task.attempt, f"stage {task.stage}.{task.stage_attempt} is unknown on {self.id}")
            else:
                self.queue[task.attempt] = _Task(task, stage)
        self._fill()

    def _kill(self, attempts: tuple[AttemptId, ...], reason: str) -> None:
        for attempt in attempts:
            if attempt in self.running:
                self._end(attempt, KilledFailure(reason))
            elif self.queue.pop(attempt, None) is not None:
                self._remember(attempt, None)
                self._never_ran(attempt, reason)
            elif attempt not in self._past:
                self._remember(attempt, reason)

    def _drop_application(self, app: AppId) -> None:
        known = [*self.queue.values(), *self.running.values()]
        self._kill(tuple(task.launch.attempt for task in known if task.launch.app == app), "the application is over")
        for key in [key for key in self._stages if key[0] == app]:
            del self._stages[key]
        for block in [block for block in self.cache if block[0] == app]:
            del self.cache[block]
        for name in [name for name in self.host.files if name[0] == app]:
            del self.host.files[name]

    def _remember(self, attempt: AttemptId, killed: str | None) -> None:
        self._past[attempt] = killed
        if len(self._past) > _REMEMBERED:
            self._past.popitem(last=False)

    def _never_ran(self, attempt: AttemptId, reason: str) -> None:
        self._remember(attempt, None)
        self.report(TaskFailed(attempt, 0.0, self._world.now, KilledFailure(reason), TaskMetrics()))

    # -- running

    def _fill(self) -> None:
        while self.queue and len(self.running) < self.slots:
            attempt = next((each for each, task in self.queue.items() if task.launch.urgent), next(iter(self.queue)))
            task = self.queue.pop(attempt)
            task.started_at = self._world.now
            self.running[attempt] = task
            self.most_running = max(self.most_running, len(self.running))
            self.report(TaskStarted(attempt, self._world.now))
            self._world.later(self._world.task_s(task.launch), partial(self._time_is_up, attempt))

    def _time_is_up(self, attempt: AttemptId) -> None:
        if not self.alive or attempt not in self.running:
            return
        if self.silent:
            self._world.later(1.0, lambda: self._time_is_up(attempt))
            return
        task = self.running[attempt]
        planned = self._world.planned_failure(task.launch)
        if isinstance(planned, ExceptionFailure):
            self._fail_late(attempt, planned)
        elif planned is not None:
            self._end(attempt, planned)
        elif self._program(task).commits:
            self._ask_to_commit(attempt)
        else:
            self._finish(attempt)

    def _ask_to_commit(self, attempt: AttemptId) -> None:
        if self.alive and attempt in self.running:
            if not self.silent:
                self._world.send(self, CommitRequested(self.id, attempt))
            self._world.later(_COMMIT_RESEND_S, lambda: self._ask_to_commit(attempt))

    def _finish(self, attempt: AttemptId) -> None:
        task = self.running[attempt]
        launch, definition, program = task.launch, task.stage.definition, self._program(task)
        newly_cached: list[BlockInfo] = []
        span = min(launch.span, self._world.most_at_once(launch))
        try:
            values = tuple(
                self._compute(launch, PartitionIndex(launch.partition + each), definition, program, newly_cached)
                for each in range(span)
            )
        except _Failed as failed:
            self._end(attempt, failed.failure)
            return
        value = values[0] if span == 1 else values
        # A program that does not read what was split makes all of a partition, whatever piece is asked for.
        is_first = launch.piece is None or launch.piece.number == 0 or program.stored is not None
        result: TaskResult
        if definition.shuffle is not None:
            output = launch.partition if launch.output < 0 else PartitionIndex(launch.output)
            # The first piece of a partition has all of it, so that its value is what it would be.
            self.host.files[launch.app, definition.shuffle, output, attempt] = values if is_first else ()
            sizes = [encode_size(_OUTPUT_BYTES)] * definition.num_reducers
            sizes[:1] = [encode_size(self._world.first_bytes)]
            packed = zlib.compress(bytes(sizes))
            result = MapOutput(MapStatus(output, attempt, self.host.token, packed, _OUTPUT_BYTES, 1))
        elif program.stores_result:
            self.results[attempt] = value
            result = StoredResult(STORED_RESULT_BYTES)
        else:
            result = InlineResult(pickle.dumps(value))
        done = [(launch.stage, launch.partition + each) for each in range(span if is_first else 0)]
        for _, partition in done:
            self._world.was_computed(launch, PartitionIndex(partition), definition.shuffle)
        added = Accumulated(pickle.dumps(done)) if self._world.accumulates else None
        self.report(
            TaskSucceeded(
                attempt, task.started_at, self._world.now, result, TaskMetrics(), tuple(newly_cached), added, launch.span - span
            )
        )
        self._forget(attempt)

    def _fail_late(self, attempt: AttemptId, failure: TaskFailure) -> None:
        """User code fails behind what is cached of its input, which stays in the cache."""
        task = self.running[attempt]
        newly_cached: list[BlockInfo] = []
        try:
            self._compute(task.launch, task.launch.partition, task.stage.definition, self._program(task), newly_cached)
        except _Failed as earlier:
            failure = earlier.failure
        self._end(attempt, failure, newly_cached)

    def _end(self, attempt: AttemptId, failure: TaskFailure, newly_cached: Sequence[BlockInfo] = ()) -> None:
        task = self.running[attempt]
        at = attempt % task.launch.span  # any of its partitions
        self.report(TaskFailed(attempt, task.started_at, self._world.now, failure, TaskMetrics(), tuple(newly_cached), at))
        self._forget(attempt)

    def _forget(self, attempt: AttemptId) -> None:
        del self.running[attempt]
        self._remember(attempt, None)
        self._fill()

    def _program(self, task: _Task) -> SimulatedProgram:
        content = task.stage.definition.program
        if content.inline is None:
            return SimulatedProgram(task.launch.stage)
        program = self._programs.get(content.inline)
        if program is None:
            program = self._programs[content.inline] = msgspec.json.decode(content.inline, type=SimulatedProgram)
        return program

    def _compute(
        self,
        launch: TaskLaunch,
        partition: PartitionIndex,
        definition: StageDefinition,
        program: SimulatedProgram,
        newly_cached: list[BlockInfo],
    ) -> Value:
        for content in (definition.program, *definition.attachments):
            if content.inline is None and not definition.content_holders.get(content.id):
                raise _Failed(ContentMissing((content.id,)))
        if program.stored is not None:
            return Value(program.stored[partition])
        for rdd in program.cached:
            kept = definition.kept_as.get(rdd, rdd)
            block = self.cache.get((launch.app, kept, partition))
            if block is None:
                for each in launch.blocks:
                    if each.rdd == kept and each.partition == partition:
                        block = self._held_by(each.addresses, launch.app, kept, partition)
            if block is not None:
                return block
        origin = None
        if program.indeterminate and definition.shuffle is not None:
            origin = (definition.shuffle, partition, launch.attempt)
        inputs = [value for shuffle in program.parents for value in self._read(launch.app, definition, shuffle)]
        value = computed(program.key, partition, inputs, origin)
        for rdd in program.cached:
            kept = definition.kept_as.get(rdd, rdd)
            self.cache[launch.app, kept, partition] = value
            newly_cached.append(BlockInfo(kept, partition, _OUTPUT_BYTES))
        return value

    def _read(self, app: AppId, definition: StageDefinition, shuffle: ShuffleId) -> list[Value]:
        sources = next((each for each in definition.sources if each.shuffle == shuffle), None)
        if sources is None:
            raise _Failed(FetchFailure(shuffle, None, None, HostToken(""), "missing", "its sources were not sent"))
        values: list[Value] = []
        for status in sources.outputs:
            host = self._world.host(status.host)
            near = host is self.host
            if not near and not any(each.alive and not each.silent for each in host.executors.values()):
                failure = FetchFailure(shuffle, None, None, status.host, "unreachable", "nobody answers", sources.epoch)
                raise _Failed(failure)
            value = host.files.get((app, shuffle, status.map_partition, status.attempt))
            if value is None:
                gone = [
                    (each.map_partition, each.attempt)
                    for each in sources.outputs
                    if each.host == status.host and (app, shuffle, each.map_partition, each.attempt) not in host.files
                ]
                raise _Failed(
                    FetchFailure(
                        shuffle, *gone[0], status.host, "missing", "no such file", sources.epoch, tuple(gone[1:]) if near else ()
                    )
                )
            values += value
        return values

    # -- reporting

    def report(self, report: TaskReport) -> None:
        """Tell the core, with whatever else happens within the batching time."""
        self._reports.append(report)
        if not self._flushing:
            self._flushing = True
            self._world.later(self._report_batch_s, self.flush)

    def flush(self) -> None:
        """Send what waits; a start whose ending is here too is left out."""
        self._flushing = False
        if not self.alive or not self._reports:
            return
        if self.silent:
            self._flushing = True
            self._world.later(1.0, self.flush)
            return
        reports, self._reports = self._reports, deque()
        ended = {report.attempt for report in reports if not isinstance(report, TaskStarted)}
        kept = tuple(report for report in reports if not (isinstance(report, TaskStarted) and report.attempt in ended))
        self._world.send(self, TasksReported(self.id, kept))
