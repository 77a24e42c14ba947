"""Applications with their jobs and stages: who asked for what, and what of it is done.

Runs in the scheduler process inside ``SchedulerCore``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from flowkit.model.ids import (
    AppId,
    AttemptId,
    ContentId,
    ExecutorId,
    HostToken,
    JobId,
    PartitionIndex,
    RddId,
    ShuffleId,
    StageId,
    kept_as,
)
from flowkit.model.job_spec import JobSpec, StageKind, StageSpec
from flowkit.model.task import StageDefinition
from flowkit.scheduling.blocks import CachedBlocks
from flowkit.scheduling.coalescing import Spans
from flowkit.scheduling.launch_depth import LaunchDepth
from flowkit.scheduling.map_outputs import MapOutputs
from flowkit.scheduling.skew import Pieces

if TYPE_CHECKING:
    from flowkit.scheduling.executors import ExecutorState
    from flowkit.scheduling.task_sets import TaskSet


#: what an executor knows of a stage that may have forgotten it
NOTHING: tuple[int, int] = (-1, -1)
#: by so much a definition's version rises with another program: more than all that else it is made of
_PROGRAM_STEP = 1 << 40


class Stage:
    """One stage of an application, over all jobs that share it."""

    def __init__(self, app: AppId, spec: StageSpec, outputs: MapOutputs | None, depth: LaunchDepth) -> None:
        self.app = app
        #: the newest one of live jobs that list it, or the last one that counted: program, parents and caches of one moment
        self.spec = spec
        self._specs: dict[JobId, StageSpec] = {}
        #: how often its program became another one
        self._program_number = 0
        #: how partitions were split; None: none was
        self.pieces: Pieces | None = None
        #: which of its tasks compute several partitions
        self.spans = Spans()
        #: MAP only
        self.outputs = outputs
        if outputs is not None:
            outputs.covered = self.spans.covered
        self.depth = depth
        #: live jobs that list it, by their place in the order of submission
        self.jobs: dict[JobId, int] = {}
        #: the place of the last job that listed it
        self.last_order = 0
        #: what is being computed; None when nothing is
        self.task_set: TaskSet | None = None
        #: how often it was submitted; the next attempt's number
        self.attempt_count = 0
        #: how often each map output was lost under its tasks, since its last success
        self.lost_inputs: Counter[tuple[ShuffleId, PartitionIndex]] = Counter()
        #: MAP only: how often each output went with its host, as long as jobs list the stage
        self.lost_with_host: Counter[PartitionIndex] = Counter()
        #: submitted and not held up by its parents
        self.is_running = False
        #: ``definition_version`` when its input was seen to be all there
        self.ready_version = -1
        #: RESULT only: tasks whose results the driver was given
        self.delivered: set[PartitionIndex] = set()
        #: MAP only: no RDD refers to its shuffle any more, so it goes with its last job
        self.is_released = False
        #: MAP only: all its outputs were there once
        self.was_complete = False
        #: partitions whose updates of accumulators were handed on, as long as the same jobs list it
        self.accumulated: set[PartitionIndex] = set()
        #: a task missed the cache that was to spare it a shuffle: its parents are needed after all
        self.reads_behind_cache = False
        #: the newest one, shared by all executors it is sent to
        self.definition: StageDefinition | None = None
        #: the stage attempt and version of it that are sent now
        self.told = NOTHING
        #: executors that were sent its definition, and which: one tuple that all share, for they are many
        self.defined_on: dict[ExecutorState, tuple[int, int]] = {}
        #: contents nobody holds, and until when they are waited for
        self.missing_contents: dict[ContentId, float] = {}

    @property
    def id(self) -> StageId:
        """Its number in the application."""
        return self.spec.stage

    def join(self, job: Job, spec: StageSpec) -> None:
        """A job lists it, as ``spec``."""
        self.jobs[job.id] = self.last_order = job.order
        self._specs[job.id] = spec
        if len(self._specs) == 1 or spec.revision >= self.spec.revision:
            self._take(spec)

    def leave(self, job: JobId) -> None:
        """A job is over. What only its spec referred to may go, so the newest one of the others counts."""
        self.jobs.pop(job, None)
        spec = self._specs.pop(job, None)
        if spec is self.spec and self._specs:
            self._take(max(self._specs.values(), key=lambda each: each.revision))

    def _take(self, spec: StageSpec) -> None:
        if spec.program.id != self.spec.program.id:
            self._program_number += 1
            self.reads_behind_cache = False
        self.spec = spec
        self.definition = None

    def has_stale_layout(self, application: Application) -> bool:
        """Whether it was split by outputs that it does not read any more, or that were numbered anew since."""
        if self.pieces is None:
            return False
        if all(parent.shuffle != self.pieces.shuffle for parent in self.spec.parents):
            return True
        outputs = application.map_stages[self.pieces.shuffle].outputs
        assert outputs is not None
        return outputs.numbering != self.pieces.numbering

    def forget_layout(self) -> None:
        """Each partition has a task of its own from now on; what was made of pieces is void."""
        if self.pieces is not None:
            numbers = map(PartitionIndex, range(self.pieces.count))
            uncounted = {self.pieces.partition(number) for number in numbers if number not in self.accumulated}
            self.accumulated = {
                partition for partition in map(PartitionIndex, range(self.spec.num_partitions)) if partition not in uncounted
            }
        self.pieces = None
        self.spans = Spans()
        if self.outputs is not None:
            self.outputs.covered = self.spans.covered
            self.outputs.unregister_all()
            self.outputs.renumber(self.spec.num_partitions)

    @property
    def task_count(self) -> int:
        """Tasks of all its partitions that are wanted."""
        return len(self.wanted) - len(self.spans.covered)

    def piece_number(self, task: PartitionIndex) -> int:
        """Which piece of its partition a task computes; 0 also where it computes all of it."""
        piece = None if self.pieces is None else self.pieces.piece(task)
        return 0 if piece is None else piece.number

    def partition_count(self, tasks: Collection[PartitionIndex]) -> int:
        """How many partitions tasks compute; one that was split counts with its first piece."""
        if self.pieces is None and not self.spans.covered:
            return len(tasks)
        return sum(self.spans.length(each) for each in tasks if self.piece_number(each) == 0)

    def partition(self, task: PartitionIndex) -> PartitionIndex:
        """The partition a task computes, or the first one it does."""
        return task if self.pieces is None else self.pieces.partition(task)

    def partitions(self, tasks: Iterable[PartitionIndex]) -> tuple[PartitionIndex, ...]:
        """All partitions that tasks compute."""
        return tuple(dict.fromkeys(self.partition(each) for each in self.spans.all_of(tasks)))

    @property
    def wanted(self) -> Sequence[PartitionIndex]:
        """What is to be computed: numbers of partitions, or of their pieces where some were split (see ``pieces``)."""
        return self.spec.partitions if self.pieces is None else self.pieces.wanted

    @property
    def is_map(self) -> bool:
        """Whether it writes a shuffle."""
        return self.spec.kind is StageKind.MAP

    def definition_version(self, application: Application, address_epoch: int) -> int:
        """Rises whenever what executors must know of the stage changes."""
        version, spec = self._program_number * _PROGRAM_STEP, self.spec
        if (
            spec.parents
            or spec.program.inline is None
            or (spec.attachments and any(each.inline is None for each in spec.attachments))
        ):
            version += address_epoch + application.content_epoch
        for parent in spec.parents:
            outputs = application.map_stages[parent.shuffle].outputs
            assert outputs is not None
            version += outputs.epoch
        return version

    def __repr__(self) -> str:
        return f"<stage {self.id} of {self.app}: {self.spec.name}>"


class Job:
    """One action under way."""

    def __init__(self, spec: JobSpec, order: int) -> None:
        self.spec = spec
        self.order = order
        self.result_bytes = 0
        #: results the driver was told of and has not fetched yet: where they lie
        self.unfetched: dict[AttemptId, tuple[ExecutorId, PartitionIndex, int]] = {}
        #: how often the result of a task was lost before the driver had it
        self.lost_results: Counter[PartitionIndex] = Counter()

    @property
    def id(self) -> JobId:
        """Its number in the application."""
        return self.spec.job

    @property
    def task_count(self) -> int:
        """Tasks of all its stages, those among them whose output is there already."""
        return sum(len(stage.partitions) for stage in self.spec.stages)


class Application:
    """One driver's session."""

    def __init__(self, app: AppId, name: str, lease_s: float, now: float) -> None:
        self.id = app
        self.name = name
        self.lease_s = lease_s
        self.lease_until = now + lease_s
        self.jobs: dict[JobId, Job] = {}
        #: every job ever submitted: one that arrives twice is one, and a driver's threads need not submit in the order of numbers
        self.seen_jobs: set[JobId] = set()
        self.stages: dict[StageId, Stage] = {}
        #: the map stage of each shuffle
        self.map_stages: dict[ShuffleId, Stage] = {}
        self.blocks = CachedBlocks()
        #: of cached RDDs whose rows are others each time: the shuffles they may have been made from that are such too
        self.made_from: dict[RddId, set[ShuffleId]] = {}
        #: how often what is cached of an RDD was voided with these
        self.generations: dict[RddId, int] = {}
        #: hosts that hold a content
        self.contents: dict[ContentId, set[HostToken]] = {}
        #: rises whenever a content is put somewhere
        self.content_epoch = 0
        #: what stages may start or stop must be looked at again
        self.is_stale = False

    def kept_as(self, rdd: RddId) -> RddId:
        """The number under which an RDD is cached now."""
        return kept_as(rdd, self.generations.get(rdd, 0)) if self.generations else rdd

    def job_stages(self, job: Job) -> list[Stage]:
        """Its stages, parents first."""
        return [self.stages[spec.stage] for spec in job.spec.stages]

    def check(self) -> None:
        """Invariants."""
        counts: Counter[StageId] = Counter(spec.stage for job in self.jobs.values() for spec in job.spec.stages)
        for stage in self.stages.values():
            assert len(stage.jobs) == counts[stage.id], f"{stage} is listed by {counts[stage.id]} jobs, knows {len(stage.jobs)}"
            if stage.task_set is not None:
                assert stage.jobs or stage.task_set.running, f"{stage} works for nobody"
                stage.task_set.check()
            if stage.outputs is not None:
                stage.outputs.check()
            elif stage.task_set is not None:
                at_hand = stage.task_set.pending.keys() | {attempt.partition for attempt in stage.task_set.running.values()}
                assert not stage.delivered & at_hand, f"{stage} computes again what was delivered"
                assert not stage.spans.covered & at_hand, f"{stage} has tasks for what others compute"
        self.blocks.check()
