"""A task's way: launched, started, and one ending. What executors report and what the core counts against a task."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from flowkit.model.ids import AppId, AttemptId, ContentId, HostToken, PartitionIndex, RddId, ShuffleId, StageId
from flowkit.model.job_spec import Content
from flowkit.model.map_status import MapStatus, ShuffleSources
from flowkit.model.metrics import TaskMetrics
from flowkit.model.ranges import Count, Moment, Size

#: property of a job: what its failed tasks tell has flowkit's own frames too
FULL_TRACEBACKS: Final = "flowkit.full_tracebacks"


class Locality(IntEnum):
    """How near a task runs to what it reads; smaller is nearer."""

    PROCESS = 0
    NODE = 1
    NO_PREFERENCE = 2
    #: another host of the same rack, as the setting ``topology`` has it
    RACK = 3
    ANY = 4


class StageDefinition(msgspec.Struct, frozen=True):
    """Sent to an executor before the first task of a stage (attempt) there, and again when ``version`` rises.

    A re-sent definition carries newer ``sources`` (map outputs moved); tasks that start later use it.
    """

    app: AppId
    stage: StageId
    stage_attempt: int
    version: int
    name: str
    num_partitions: Size
    program: Content
    attachments: tuple[Content, ...]
    sources: tuple[ShuffleSources, ...]
    shuffle: ShuffleId | None
    num_reducers: Size
    properties: dict[str, str]
    #: who can serve content which is not inline, per content id: hosts, and the addresses of their executors
    content_holders: dict[ContentId, tuple[tuple[HostToken, str], ...]] = {}
    #: its tasks run all at once, and may wait for one another
    barrier: bool = False
    #: cached RDDs whose partitions have another number than theirs, and which (``ids.kept_as``)
    kept_as: dict[RddId, RddId] = {}


class BlockHolders(msgspec.Struct, frozen=True, array_like=True):
    """Who can be asked for a cached partition."""

    rdd: RddId
    partition: PartitionIndex
    #: of executors
    addresses: tuple[str, ...]


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """A part of a partition: of one shuffle it reads the outputs of some map partitions, ``first`` up to, not including, ``end``."""

    number: int
    count: int
    shuffle: ShuffleId
    first: int
    end: int


class TaskLaunch(msgspec.Struct, frozen=True, array_like=True):
    """One attempt at one task: all that differs between the tasks of a stage."""

    attempt: AttemptId
    app: AppId
    stage: StageId
    stage_attempt: int
    partition: PartitionIndex
    attempt_number: int
    locality: Locality = Locality.ANY
    #: cached partitions it uses and its executor is not known to hold
    blocks: tuple[BlockHolders, ...] = ()
    #: goes ahead of those queued there that are not
    urgent: bool = False
    #: slots it takes
    cpus: int = 1
    #: addresses of named resources that are its own
    resources: dict[str, tuple[str, ...]] = {}
    #: partitions it computes, ``partition`` and those after it
    span: int = 1
    #: it computes this part of its partition alone
    piece: Piece | None = None
    #: MAP only: its number among the stage's outputs, where that is not ``partition``
    output: int = -1


class BlockInfo(msgspec.Struct, frozen=True, array_like=True):
    """A cached partition of an RDD in some executor's memory, or in a file of its host."""

    rdd: RddId
    partition: PartitionIndex
    memory_bytes: Count
    disk_bytes: Count = 0


# -- results -----------------------------------------------------------------------------------------------------------


class InlineResult(msgspec.Struct, frozen=True, tag="inline"):
    """A pickled result small enough to ride in the report; of a span, a pickled list of pickled results."""

    data: bytes


class PieceResults(list[bytes]):
    """The pickled results of all pieces of a partition, in their order; a result by itself."""


class StoredResult(msgspec.Struct, frozen=True, tag="stored"):
    """A pickled result kept at the executor, fetched from there by attempt id, compared with its CRC-32, then released."""

    size_bytes: Count
    checksum: Count = 0


class MapOutput(msgspec.Struct, frozen=True, tag="map"):
    """A committed shuffle file."""

    status: MapStatus


TaskResult = InlineResult | StoredResult | MapOutput


# -- failures ----------------------------------------------------------------------------------------------------------


class ExceptionFailure(msgspec.Struct, frozen=True, tag="exception"):
    """User code raised. Counts against the task. ``fatal`` ends the job without another try."""

    type_name: str
    message: str
    traceback: str
    #: the exception itself, pickled (cloudpickle), or None where it could not be
    pickled: bytes | None
    fatal: bool = False


class FetchFailure(msgspec.Struct, frozen=True, tag="fetch"):
    """A map output could not be read. Never counts against the task.

    ``map_partition`` None: the whole host could not be reached, all its outputs of this shuffle are in doubt. ``others`` are outputs of
    the shuffle, with their attempts, that its reader knows to be lost as well: so all are made again at once.
    """

    shuffle: ShuffleId
    map_partition: PartitionIndex | None
    map_attempt: AttemptId | None
    host: HostToken
    #: ``missing`` | ``corrupt`` | ``unreachable``
    reason: str
    message: str
    #: of the sources the task used; an older one than the core's is answered by a re-launch alone
    epoch: Count = 0
    others: tuple[tuple[PartitionIndex, AttemptId], ...] = ()


class ContentMissing(msgspec.Struct, frozen=True, tag="content"):
    """A large closure or collection was nowhere to be had. Never counts; the driver puts it again."""

    contents: tuple[ContentId, ...]


class CommitDeniedFailure(msgspec.Struct, frozen=True, tag="denied"):
    """Another attempt committed this output first. Never counts."""


class KilledFailure(msgspec.Struct, frozen=True, tag="killed"):
    """Stopped on request. Never counts."""

    reason: str


class ExecutorLostFailure(msgspec.Struct, frozen=True, tag="lost"):
    """Made by the core: the executor went away under the task. Counts only if the task may have caused it.

    ``unexplained``: it ran the task, and nobody could say why it went. So many of these as failures that count are too many.
    """

    reason: str
    counts: bool
    unexplained: bool = False


class MemoryFailure(msgspec.Struct, frozen=True, tag="memory"):
    """The task asked for more memory than there is. Counts."""

    message: str


TaskFailure = (
    ExceptionFailure | FetchFailure | ContentMissing | CommitDeniedFailure | KilledFailure | ExecutorLostFailure | MemoryFailure
)


def counts_against_task(failure: TaskFailure) -> bool:
    """Whether a failure is one of the task's ``max_failures``."""
    match failure:
        case ExceptionFailure() | MemoryFailure():
            return True
        case ExecutorLostFailure(counts=counts):
            return counts
        case _:
            return False


# -- reports, executor to core -----------------------------------------------------------------------------------------


class TaskStarted(msgspec.Struct, frozen=True, tag="started"):
    """User code is about to run. Left out when the ending travels in the same batch."""

    attempt: AttemptId
    at: Moment


class Accumulated(msgspec.Struct, frozen=True):
    """What a task added to accumulators: pickled for the driver, and those with names in words for listeners."""

    data: bytes
    named: dict[str, str] = {}


class TaskSucceeded(msgspec.Struct, frozen=True, tag="ok"):
    """The task ended well."""

    attempt: AttemptId
    started_at: Moment
    ended_at: Moment
    result: TaskResult
    metrics: TaskMetrics
    #: partitions that this task newly put into the executor's cache
    cached: tuple[BlockInfo, ...] = ()
    accumulated: Accumulated | None = None
    #: partitions, the last ones of its span, that it has not begun: it took long, and others may
    given_back: Count = 0


class TaskFailed(msgspec.Struct, frozen=True, tag="failed"):
    """The task ended otherwise. ``started_at`` 0: it never started."""

    attempt: AttemptId
    started_at: Moment
    ended_at: Moment
    failure: TaskFailure
    metrics: TaskMetrics
    #: as of a task that ended well: what it put into the cache before it failed stays there
    cached: tuple[BlockInfo, ...] = ()
    #: which partition of its span it was at
    at: Count = 0


class TaskRecalled(msgspec.Struct, frozen=True, tag="recalled"):
    """A queued task was given back: it has not started and never will here."""

    attempt: AttemptId


TaskReport = TaskStarted | TaskSucceeded | TaskFailed | TaskRecalled
