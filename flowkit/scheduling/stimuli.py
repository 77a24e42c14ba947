"""What can happen to the scheduler core. ``SchedulerCore.handle(stimulus, now)`` is the one door.

Any of these may arrive late, twice or out of order: *stale is data* (ignored and counted), *impossible is a bug*.
"""

from __future__ import annotations

import msgspec

from flowkit.model.ids import AppId, AttemptId, ContentId, ExecutorId, HostToken, JobId, PartitionIndex, RddId, ShuffleId
from flowkit.model.job_spec import JobSpec
from flowkit.model.metrics import TaskMetrics
from flowkit.model.ranges import Count, Lease, Moment, Slots
from flowkit.model.task import BlockInfo, TaskReport


class _Stimulus(msgspec.Struct, frozen=True, tag_field="stimulus", tag=lambda name: name):
    pass


# -- from drivers --------------------------------------------------------------------------------------------------


class ApplicationOpened(_Stimulus, frozen=True):
    """A driver begins; it must renew its lease every ``lease_s`` or is taken for dead."""

    app: AppId
    name: str
    flowkit_version: str
    lease_s: Lease


class LeaseRenewed(_Stimulus, frozen=True):
    """The driver lives."""

    app: AppId


class ApplicationClosed(_Stimulus, frozen=True):
    """The driver says farewell: its jobs end, its files and blocks go, at once."""

    app: AppId
    reason: str


class JobSubmitted(_Stimulus, frozen=True):
    """An action."""

    spec: JobSpec


class JobCancelRequested(_Stimulus, frozen=True):
    """Stop a job: queued tasks are recalled, running ones killed."""

    app: AppId
    job: JobId
    reason: str


class ResultsFetched(_Stimulus, frozen=True):
    """The driver has the stored results of these attempts; executors may release them."""

    app: AppId
    attempts: tuple[AttemptId, ...]


class ResultLost(_Stimulus, frozen=True):
    """The driver could not fetch a stored result, for a reason: its task must run again (uncounted)."""

    app: AppId
    job: JobId
    attempt: AttemptId
    reason: str = ""


class ContentPut(_Stimulus, frozen=True):
    """The driver put large content on a host (again)."""

    app: AppId
    content: ContentId
    host: HostToken


class RddUnpersistRequested(_Stimulus, frozen=True):
    """Forget the cached partitions of an RDD."""

    app: AppId
    rdd: RddId


class ShuffleReleased(_Stimulus, frozen=True):
    """No RDD refers to this shuffle any more: its files may go."""

    app: AppId
    shuffle: ShuffleId


class ContentsReleased(_Stimulus, frozen=True):
    """Nothing of the driver refers to these contents any more: their files may go."""

    app: AppId
    contents: tuple[ContentId, ...]


class ScalingOffered(_Stimulus, frozen=True):
    """The driver holds the cluster's object: it can add workers and close them. ``count`` were asked for so far."""

    app: AppId
    count: Count = 0


# -- from executors ------------------------------------------------------------------------------------------------


class ExecutorReady(_Stimulus, frozen=True):
    """An executor can be sent launches."""

    executor: ExecutorId
    host: HostToken
    slots: Slots
    #: names a file system may use for this host (host name, addresses), for input locality
    host_names: tuple[str, ...] = ()
    #: addresses of named resources
    resources: dict[str, tuple[str, ...]] = {}
    #: of these, those that all executors of the host share; others are its own
    shared: tuple[str, ...] = ()
    #: what its tasks may use together; 0: nobody knows
    memory_bytes: Count = 0
    #: its process can be ended, and another one started in its place
    replaceable: bool = True


class ExecutorLost(_Stimulus, frozen=True):
    """The process is gone. ``task_caused``: it died of what it ran (out of memory, a crash), so failures count; None: nobody knows.

    ``running``: the attempts its slots had in hand in the end, by a record that outlived it; None when there is none.
    """

    executor: ExecutorId
    reason: str
    task_caused: bool | None
    running: tuple[AttemptId, ...] | None = None


class Examined(_Stimulus, frozen=True):
    """Answers ``actions.Examine``: what is known of an executor's process without asking it. All of it None: nobody could look."""

    executor: ExecutorId
    #: of each of its threads: seconds of processor time that it has used, and seconds that it waited for a processor (0 where nobody counts)
    threads: dict[int, tuple[float, float]] | None = None
    #: it is stopped (SIGSTOP, a debugger, a frozen container) or gone: whatever it used before, it works no more
    stopped: bool | None = None
    #: attempts its slots have in hand
    running: tuple[AttemptId, ...] | None = None


class ExecutorPaused(_Stimulus, frozen=True):
    """Launch nothing there for now (memory); what runs goes on."""

    executor: ExecutorId


class ExecutorResumed(_Stimulus, frozen=True):
    """Launches are welcome again."""

    executor: ExecutorId


class ExecutorDraining(_Stimulus, frozen=True):
    """It will close gracefully: queued tasks are recalled, nothing new is launched."""

    executor: ExecutorId


class SlotsChanged(_Stimulus, frozen=True):
    """The executor offers more or fewer slots (Dask tasks run beside ours)."""

    executor: ExecutorId
    slots: Slots


class Heartbeat(_Stimulus, frozen=True):
    """An executor lives and knows these attempts (queued or running)."""

    executor: ExecutorId
    attempts: tuple[AttemptId, ...]
    metrics: dict[AttemptId, TaskMetrics] = {}


class TasksReported(_Stimulus, frozen=True):
    """News of attempts, in the order in which they happened there."""

    executor: ExecutorId
    reports: tuple[TaskReport, ...]


class BlocksEvicted(_Stimulus, frozen=True):
    """Cached partitions left an executor's memory."""

    executor: ExecutorId
    app: AppId
    blocks: tuple[tuple[RddId, PartitionIndex], ...]


class BlocksMoved(_Stimulus, frozen=True):
    """Cached partitions left an executor's memory for files of its host."""

    executor: ExecutorId
    app: AppId
    blocks: tuple[BlockInfo, ...]


class BlockCopied(_Stimulus, frozen=True):
    """Answers ``actions.CopyBlock``: the executor holds the partition now; None: it does not."""

    executor: ExecutorId
    app: AppId
    rdd: RddId
    partition: PartitionIndex
    block: BlockInfo | None


class OutputsCopied(_Stimulus, frozen=True):
    """Answers ``actions.CopyOutputs``: these lie on the executor's host now, those could not be had."""

    executor: ExecutorId
    app: AppId
    shuffle: ShuffleId
    copied: tuple[tuple[PartitionIndex, AttemptId], ...]
    failed: tuple[tuple[PartitionIndex, AttemptId], ...] = ()


class ContentFetched(_Stimulus, frozen=True):
    """Content came to an executor's host, which can give it to others now."""

    executor: ExecutorId
    app: AppId
    content: ContentId


class CommitRequested(_Stimulus, frozen=True):
    """A task asks whether its attempt may commit its output; answered by ``actions.AnswerCommit``."""

    executor: ExecutorId
    attempt: AttemptId


class TaskWouldNotStop(_Stimulus, frozen=True):
    """An attempt that was killed still runs; the executor ends its process next."""

    executor: ExecutorId
    attempt: AttemptId
    reason: str
    after_s: Moment
    stack: str


class BarrierReached(_Stimulus, frozen=True):
    """A task of a barrier stage waits for the others, the ``round``-th time; answered by ``actions.AnswerBarrier``."""

    executor: ExecutorId
    attempt: AttemptId
    round: Count
    #: ``barrier`` or ``all_gather``
    call: str
    #: pickled, for the others
    data: bytes = b""


# -- time ----------------------------------------------------------------------------------------------------------


class Tick(_Stimulus, frozen=True):
    """The time asked for by ``next_wakeup()`` has come."""


Stimulus = (
    ApplicationOpened
    | LeaseRenewed
    | ApplicationClosed
    | JobSubmitted
    | JobCancelRequested
    | ResultsFetched
    | ResultLost
    | ContentPut
    | RddUnpersistRequested
    | ShuffleReleased
    | ContentsReleased
    | ScalingOffered
    | ExecutorReady
    | ExecutorLost
    | Examined
    | ExecutorPaused
    | ExecutorResumed
    | ExecutorDraining
    | SlotsChanged
    | Heartbeat
    | TasksReported
    | BlocksEvicted
    | BlocksMoved
    | BlockCopied
    | OutputsCopied
    | ContentFetched
    | CommitRequested
    | BarrierReached
    | TaskWouldNotStop
    | Tick
)
