"""What the scheduler core wants done. Performed in order by whoever drives it (the Dask plugin, a simulated cluster)."""

from __future__ import annotations

import msgspec

from flowkit.model.events import Event
from flowkit.model.ids import AppId, AttemptId, ContentId, ExecutorId, JobId, PartitionIndex, RddId, ShuffleId, StageId
from flowkit.model.storage_level import StorageLevel
from flowkit.model.task import StageDefinition, TaskFailure, TaskLaunch, TaskResult


class _Action(msgspec.Struct, frozen=True, tag_field="action", tag=lambda name: name):
    pass


# -- to executors --------------------------------------------------------------------------------------------------


class DefineStage(_Action, frozen=True):
    """Tell an executor of a stage; always before its first launch there."""

    executor: ExecutorId
    definition: StageDefinition


class ForgetStage(_Action, frozen=True):
    """No more tasks of this stage will come: its unpickled program may go."""

    executor: ExecutorId
    app: AppId
    stage: StageId


class Launch(_Action, frozen=True):
    """Queue tasks at an executor, in this order."""

    executor: ExecutorId
    tasks: tuple[TaskLaunch, ...]


class Recall(_Action, frozen=True):
    """Give back those of these that have not started; each answers ``TaskRecalled`` or is running already."""

    executor: ExecutorId
    attempts: tuple[AttemptId, ...]


class Kill(_Action, frozen=True):
    """Stop these, queued or running; each answers with its ending."""

    executor: ExecutorId
    attempts: tuple[AttemptId, ...]
    reason: str


class AnswerCommit(_Action, frozen=True):
    """Whether an attempt may commit."""

    executor: ExecutorId
    attempt: AttemptId
    granted: bool


class AnswerBarrier(_Action, frozen=True):
    """All tasks of the stage are where this one waits, with what each sent, in the order of partitions."""

    executor: ExecutorId
    attempt: AttemptId
    round: int
    data: tuple[bytes, ...]


class ReleaseResults(_Action, frozen=True):
    """Stored results nobody will fetch any more."""

    executor: ExecutorId
    attempts: tuple[AttemptId, ...]


class DropRdd(_Action, frozen=True):
    """Drop cached partitions of an RDD."""

    executor: ExecutorId
    app: AppId
    rdd: RddId


class CopyBlock(_Action, frozen=True):
    """Fetch a cached partition from one of ``sources`` (addresses) and keep it too; answered by ``stimuli.BlockCopied``."""

    executor: ExecutorId
    app: AppId
    rdd: RddId
    partition: PartitionIndex
    level: StorageLevel
    sources: tuple[str, ...]


class CopyOutputs(_Action, frozen=True):
    """Fetch map outputs from one of ``sources`` (addresses) to the executor's host; answered by ``stimuli.OutputsCopied``."""

    executor: ExecutorId
    app: AppId
    shuffle: ShuffleId
    outputs: tuple[tuple[PartitionIndex, AttemptId], ...]
    sources: tuple[str, ...]


class MayLeave(_Action, frozen=True):
    """To one that drains: nobody needs it any more."""

    executor: ExecutorId


class DropShuffle(_Action, frozen=True):
    """Delete a shuffle's files on the executor's host."""

    executor: ExecutorId
    app: AppId
    shuffle: ShuffleId


class DropContents(_Action, frozen=True):
    """Delete contents on the executor's host."""

    executor: ExecutorId
    app: AppId
    contents: tuple[ContentId, ...]


class DropApplication(_Action, frozen=True):
    """Delete all that an application has on the executor's host."""

    executor: ExecutorId
    app: AppId


class ExpireExecutor(_Action, frozen=True):
    """It neither says anything nor works, or does not stop what it was to: end it, so that it is replaced. The core treats it as lost already."""

    executor: ExecutorId
    reason: str


class Examine(_Action, frozen=True):
    """It does not answer: look at its process from outside, which takes nothing of it. Answered by ``stimuli.Examined``, always."""

    executor: ExecutorId


# -- to drivers ----------------------------------------------------------------------------------------------------


class DeliverResult(_Action, frozen=True):
    """A result partition is there; ``executor`` holds it when it is a ``StoredResult``."""

    app: AppId
    job: JobId
    partition: PartitionIndex
    attempt: AttemptId
    executor: ExecutorId
    result: TaskResult
    #: results of so many partitions, this one and those after it
    span: int = 1
    #: it is of one piece of the partition, of so many
    piece: int = 0
    pieces: int = 1


class DeliverAccumulated(_Action, frozen=True):
    """What a task added to accumulators; once a partition of a stage, however often it was computed within its jobs."""

    app: AppId
    data: bytes


class JobSucceeded(_Action, frozen=True):
    """All results of a job were delivered."""

    app: AppId
    job: JobId


class JobFailed(_Action, frozen=True):
    """A job ended without a result. ``kind`` is the error's class name in ``flowkit.errors``; ``failure`` the last cause."""

    app: AppId
    job: JobId
    kind: str
    reason: str
    failure: TaskFailure | None = None
    #: where it happened, for the message: stage name, partition, attempt number, executor
    where: dict[str, str] = {}


class RequestContent(_Action, frozen=True):
    """Nobody has this content any more; the driver must put it again."""

    app: AppId
    content: ContentId


class ApplicationExpired(_Action, frozen=True):
    """The lease ran out; told to the driver should it still be there."""

    app: AppId
    reason: str


class ScaleTo(_Action, frozen=True):
    """Have the cluster make workers until it has ``count``, those it is asked to close included; never fewer than it has."""

    app: AppId
    count: int


class CloseExecutors(_Action, frozen=True):
    """Close these workers: nobody needs them any more, and what only they had is elsewhere."""

    app: AppId
    executors: tuple[ExecutorId, ...]


class Publish(_Action, frozen=True):
    """An event for listeners. ``app`` None: it concerns all applications."""

    app: AppId | None
    event: Event


class FaultFound(_Action, frozen=True):
    """The core, or its policy, raised: to be written down. Jobs it hit are told by ``JobFailed``."""

    traceback: str
    #: the last stimuli, one a line; empty where somebody's policy is at fault, not flowkit
    story: str = ""


Action = (
    DefineStage
    | ForgetStage
    | Launch
    | Recall
    | Kill
    | AnswerCommit
    | AnswerBarrier
    | ReleaseResults
    | DropRdd
    | CopyBlock
    | CopyOutputs
    | MayLeave
    | DropShuffle
    | DropContents
    | DropApplication
    | ExpireExecutor
    | Examine
    | DeliverResult
    | DeliverAccumulated
    | JobSucceeded
    | JobFailed
    | RequestContent
    | ApplicationExpired
    | ScaleTo
    | CloseExecutors
    | Publish
    | FaultFound
)

ExecutorAction = (
    DefineStage
    | ForgetStage
    | Launch
    | Recall
    | Kill
    | AnswerCommit
    | AnswerBarrier
    | ReleaseResults
    | DropRdd
    | CopyBlock
    | CopyOutputs
    | MayLeave
    | DropShuffle
    | DropContents
    | DropApplication
)
"""Those that become a message to one executor, unchanged."""

DriverAction = (
    DeliverResult | DeliverAccumulated | JobSucceeded | JobFailed | RequestContent | ApplicationExpired | ScaleTo | CloseExecutors
)
"""Those that become a message to one driver, unchanged."""
