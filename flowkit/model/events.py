"""What listeners hear: facts in the past tense, made by the scheduler core alone, in one order.

For one application: ``JobStart < StageSubmitted < TaskStart <= TaskGettingResult? <= TaskEnd < StageCompleted < JobEnd``.
A stage attempt that lost its input completes at once, while tasks of it may still run: those end later, and still count.
Nothing of a job comes after its ``JobEnd``: attempts that are being killed are over for listeners before it.
``time`` is seconds since the epoch on the scheduler's clock.
"""

from __future__ import annotations

from typing import Final

import msgspec

from flowkit.model.ids import AppId, AttemptId, ExecutorId, HostToken, JobId, PartitionIndex, RddId, ShuffleId, StageId
from flowkit.model.job_spec import StageKind
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import BlockInfo, Locality, TaskFailure

#: begins the names of accumulators that count elements which ``on_error`` left out
SKIPPED: Final = "errors skipped by "


class _Event(msgspec.Struct, frozen=True, tag_field="event", tag=lambda name: name, kw_only=True):
    time: float


class ApplicationStart(_Event, frozen=True):
    """A driver opened its session."""

    app: AppId
    name: str
    flowkit_version: str


class ApplicationEnd(_Event, frozen=True):
    """The session is over: closed, or its lease ran out."""

    app: AppId
    reason: str


class StageInfo(msgspec.Struct, frozen=True):
    """What is known of a stage when its job starts."""

    stage: StageId
    name: str
    kind: StageKind
    task_count: int
    parents: tuple[StageId, ...]
    operations: tuple[str, ...]


class JobStart(_Event, frozen=True):
    """A job was accepted; ``skipped`` are the stages whose output is already there."""

    app: AppId
    job: JobId
    name: str
    stages: tuple[StageInfo, ...]
    skipped: tuple[StageId, ...]
    properties: dict[str, str]


class JobEnd(_Event, frozen=True):
    """A job is over. ``outcome``: ``succeeded`` | ``failed`` | ``cancelled``."""

    app: AppId
    job: JobId
    outcome: str
    reason: str = ""


class StageSubmitted(_Event, frozen=True):
    """A stage attempt has partitions to compute; ``task_count`` of them (fewer than the stage has, after a loss).

    Each has a task of its own, unless small ones share one (``TaskEnd.span``). One that was split counts with its first piece
    (``TaskEnd.piece``): 0 when only others are made again.
    """

    app: AppId
    stage: StageId
    stage_attempt: int
    name: str
    task_count: int
    jobs: tuple[JobId, ...]


class StageCompleted(_Event, frozen=True):
    """A stage attempt is over; ``failure`` empty when it ended well.

    ``outcome``: ``succeeded``; ``failed``, and its jobs with it; ``cancelled``: it was stopped with its jobs, and is not to blame; ``held up``:
    its input was lost, and it goes on in a later attempt. Empty in logs of older versions.
    """

    app: AppId
    stage: StageId
    stage_attempt: int
    name: str
    failure: str = ""
    outcome: str = ""

    @property
    def state(self) -> str:
        """``outcome`` as the state of a stage: done, failed, cancelled, waiting."""
        outcome = self.outcome or ("failed" if self.failure else "succeeded")
        return {"succeeded": "done", "held up": "waiting"}.get(outcome, outcome)


class TaskStart(_Event, frozen=True):
    """An attempt started on an executor."""

    app: AppId
    stage: StageId
    stage_attempt: int
    partition: PartitionIndex
    attempt: AttemptId
    attempt_number: int
    executor: ExecutorId
    host: HostToken
    locality: Locality
    launched_at: float


class SpeculativeTaskSubmitted(_Event, frozen=True):
    """A task takes much longer than its fellows, so another attempt at it was sent to ``executor``; the first to end well counts."""

    app: AppId
    stage: StageId
    partition: PartitionIndex
    #: the slow one, and how long it has run
    attempt: AttemptId
    run_s: float
    executor: ExecutorId


class TaskStuck(_Event, frozen=True):
    """A task that was to stop goes on after the grace time, here (``stack``): its executor's process is about to be replaced, if it can be."""

    app: AppId
    stage: StageId
    partition: PartitionIndex
    attempt: AttemptId
    executor: ExecutorId
    #: why it was to stop
    reason: str
    #: how long ago it was told, in seconds
    after_s: float
    stack: str


class TaskGettingResult(_Event, frozen=True):
    """The result is too large for a message; the driver fetches it from the executor."""

    app: AppId
    stage: StageId
    attempt: AttemptId
    size_bytes: int


class TaskEnd(_Event, frozen=True):
    """An attempt is over. ``failure`` None when it ended well; ``counted`` whether it used up one of the task's tries.

    Of one that computed several partitions, and failed, ``partition`` is the one it was at.
    """

    app: AppId
    stage: StageId
    stage_attempt: int
    partition: PartitionIndex
    attempt: AttemptId
    attempt_number: int
    executor: ExecutorId
    started_at: float
    ended_at: float
    failure: TaskFailure | None
    counted: bool
    metrics: TaskMetrics
    #: what it added to accumulators that have names, in words
    accumulated: dict[str, str] = {}
    #: partitions it computed, ``partition`` and those after it
    span: int = 1
    #: which part of its partition it computed, of those that were split
    piece: int = 0


class ExecutorAdded(_Event, frozen=True):
    """An executor said it is ready."""

    executor: ExecutorId
    host: HostToken
    slots: int


class ExecutorRemoved(_Event, frozen=True):
    """An executor is gone; ``reason`` says why as far as anybody knows (exit code, signal, silence)."""

    executor: ExecutorId
    host: HostToken
    reason: str


class ExecutorExcluded(_Event, frozen=True):
    """Tasks keep failing on an executor: it gets none of a stage (None: of the application, until then) any more."""

    app: AppId
    executor: ExecutorId
    stage: StageId | None
    #: 0: as long as the stage runs
    until: float
    reason: str


class ExecutorUnexcluded(_Event, frozen=True):
    """An executor's time is over; it gets tasks again."""

    app: AppId
    executor: ExecutorId


class AllocationChanged(_Event, frozen=True):
    """There are to be more executors, or fewer; ``present`` are there now."""

    target: int
    before: int
    present: int
    reason: str


class ExecutorsReleased(_Event, frozen=True):
    """Executors without work are to leave, as soon as what only they have is handed over."""

    executors: tuple[ExecutorId, ...]
    reason: str


class ExecutorsKept(_Event, frozen=True):
    """Executors that were to leave stay, for there is work for them again."""

    executors: tuple[ExecutorId, ...]
    reason: str


class ShuffleOutputsLost(_Event, frozen=True):
    """Map outputs became unreadable and will be made again if needed: exactly these partitions."""

    app: AppId
    shuffle: ShuffleId
    stage: StageId
    partitions: tuple[PartitionIndex, ...]
    reason: str


class BlocksCached(_Event, frozen=True):
    """Partitions came into an executor's cache."""

    app: AppId
    executor: ExecutorId
    blocks: tuple[BlockInfo, ...]


class BlocksLost(_Event, frozen=True):
    """Cached partitions are gone with their executor or were evicted; recomputed from lineage when needed."""

    app: AppId
    executor: ExecutorId
    blocks: tuple[tuple[RddId, PartitionIndex], ...]


class BlocksUpdated(_Event, frozen=True):
    """Cached partitions are held otherwise now: memory had no room, so they lie in files of the executor's host."""

    app: AppId
    executor: ExecutorId
    blocks: tuple[BlockInfo, ...]


class ShuffleOutputsMoved(_Event, frozen=True):
    """Map outputs were handed to another host, where ``executor`` is, because theirs is leaving; nothing is computed again."""

    app: AppId
    shuffle: ShuffleId
    stage: StageId
    partitions: tuple[PartitionIndex, ...]
    executor: ExecutorId


class RddUnpersisted(_Event, frozen=True):
    """Cached partitions of an RDD were dropped on request."""

    app: AppId
    rdd: RddId


Event = (
    ApplicationStart
    | ApplicationEnd
    | JobStart
    | JobEnd
    | StageSubmitted
    | StageCompleted
    | TaskStart
    | TaskGettingResult
    | TaskStuck
    | SpeculativeTaskSubmitted
    | TaskEnd
    | ExecutorAdded
    | ExecutorRemoved
    | ExecutorExcluded
    | ExecutorUnexcluded
    | AllocationChanged
    | ExecutorsReleased
    | ExecutorsKept
    | ShuffleOutputsLost
    | BlocksCached
    | BlocksLost
    | BlocksUpdated
    | ShuffleOutputsMoved
    | RddUnpersisted
)
