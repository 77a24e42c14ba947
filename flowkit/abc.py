"""Every point at which flowkit can be extended or driven, as Protocols; nothing concrete lives here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from flowkit.model.events import Event
from flowkit.model.ids import AppId, AttemptId, ContentId, ExecutorId, HostToken, JobId, PartitionIndex, RddId, ShuffleId
from flowkit.model.job_spec import Content, JobSpec
from flowkit.model.memory import StorageGrant

if TYPE_CHECKING:
    from flowkit.config import Config


class BlockTransport(Protocol):
    """Reads shuffle blocks from other hosts. Called from task threads; blocks them, never the event loop."""

    def fetch_shuffle(
        self,
        address: str,
        app: AppId,
        shuffle: ShuffleId,
        reducer: PartitionIndex,
        outputs: Sequence[tuple[PartitionIndex, AttemptId]],
        *,
        timeout_s: float,
    ) -> list[bytes | str]:
        """Ask the executor at ``address`` for one reducer's block of each ``(map partition, attempt)``, in one message.

        Returns one entry an output, in order: the raw block as it lies in the file, or a ``str`` that says why it
        could not be read (``missing: …``, ``corrupt: …``). Raises ``OSError`` or ``TimeoutError`` when the executor
        cannot be reached.
        """
        ...

    def fetch_cached(
        self, address: str, app: AppId, rdd: RddId, partition: PartitionIndex, *, serial: int, position: int, timeout_s: float
    ) -> Any:
        """Ask for a piece of a cached partition: a ``storage.blocks.block_pieces.BlockPiece``.

        Raises ``KeyError`` when it is not there, ``OSError`` or ``TimeoutError`` when nobody answers.
        """
        ...

    def fetch_output(
        self,
        address: str,
        app: AppId,
        shuffle: ShuffleId,
        map_partition: PartitionIndex,
        attempt: AttemptId,
        *,
        offset: int,
        timeout_s: float,
    ) -> tuple[int, bytes]:
        """Ask for a piece of a map output's file; also how long that is. Raises as ``fetch_cached`` does."""
        ...

    def describe_content(self, address: str, app: AppId, content: ContentId, *, timeout_s: float) -> Any:
        """Ask what large content is made of: a ``storage.content.Manifest``.

        Raises ``KeyError`` when it is not there, ``OSError`` or ``TimeoutError`` when nobody answers.
        """
        ...

    def fetch_piece(
        self, address: str, app: AppId, content: ContentId, piece: int, digest: bytes, *, insist: bool, timeout_s: float
    ) -> bytes | list[str]:
        """Ask for a piece of content, or, unless one insists, who else has it. Raises as ``describe_content`` does."""
        ...


@runtime_checkable
class Listener(Protocol):
    """Hears events, on a thread of its own queue; what it raises is logged and harms nobody."""

    def on_event(self, event: Event) -> None:
        """One event; called in the order in which they happened."""
        ...


class MemoryPool(Protocol):
    """The account of one executor's memory. Plain arithmetic: called under a lock, by one thread at a time, and never waits.

    Two sides share ``total_bytes``: running tasks (execution) and cached blocks (storage). ``flowkit.testing.memory`` has tests that every
    pool must pass.
    """

    @property
    def total_bytes(self) -> int: ...
    @property
    def by_task(self) -> Mapping[AttemptId, int]:
        """What every open task holds; a task is there, with 0, from its start."""
        ...

    @property
    def execution_bytes(self) -> int: ...
    @property
    def storage_bytes(self) -> int: ...
    @property
    def free_bytes(self) -> int: ...

    def open_task(self, task: AttemptId, properties: Mapping[str, str]) -> None:
        """A task begins; ``properties`` are its job's. The only call that may come without the lock, under a key of its own."""
        ...

    def close_task(self, task: AttemptId) -> int:
        """A task is over; returns what it still held, which is free again. Idempotent."""
        ...

    def grant(self, task: AttemptId, wanted_bytes: int) -> int:
        """Give a task 0 to ``wanted_bytes``. One that gets less spills."""
        ...

    def release(self, task: AttemptId, size_bytes: int) -> None:
        """Take back part of what a task holds; more than that is an ``errors.InternalError``."""
        ...

    def eviction_for(self, task: AttemptId, wanted_bytes: int) -> int:
        """Bytes of cached blocks that are to go so that a task can be granted what it wants; 0 where none may."""
        ...

    def grant_storage(self, size_bytes: int, grant: StorageGrant) -> bool:
        """Give cached blocks all of ``size_bytes`` more and add it to ``grant``, or nothing."""
        ...

    def release_storage(self, size_bytes: int, grant: StorageGrant) -> None:
        """Take back part of what a grant holds, and subtract it there; more than that is an ``errors.InternalError``."""
        ...


class MemoryManager(Protocol):
    """Makes the account of each executor; given by ``Config(memory_manager=...)``."""

    def pool(self, total_bytes: int) -> MemoryPool:
        """The account of an executor that may use so much."""
        ...


class Serializer(Protocol):
    """Rows of some types to bytes and back, by ``Config(serializers={name: ...})``. Called from several threads at once.

    ``flowkit.testing.serializers`` has tests that every one must pass.
    """

    def accepts(self, kinds: frozenset[type]) -> bool:
        """Whether it takes a column whose values have exactly these types. Cheap: asked for every batch."""
        ...

    def dumps(self, values: list[Any]) -> bytes:
        """Such values as bytes; what it raises fails the task."""
        ...

    def loads(self, data: memoryview) -> list[Any]:
        """As many values, equal to those that were given."""
        ...


class SchedulingPolicy(Protocol):
    """Which task set is offered the next slot."""

    def order(self, candidates: Sequence[TaskSetView]) -> Sequence[TaskSetView]:
        """Candidates, first to be served first. Pure: the same input, the same answer."""
        ...


class Share(NamedTuple):
    """What a task set may start now."""

    #: tasks that go ahead of what others have queued at executors: so far its pool is below its part
    claim: int = 0
    #: tasks it may start at most; None: as many as there is room for
    most: int | None = None
    #: tasks under way beyond its pool's part: what may be taken back, where a policy says so
    surplus: int = 0


@runtime_checkable
class SharingPolicy(Protocol):
    """A scheduling policy that also says how much of the cluster each may have. Asked again after every few launches.

    ``candidates`` are all task sets with tasks that wait or run; those that have none waiting count for what they use.
    """

    def order(self, candidates: Sequence[TaskSetView]) -> Sequence[TaskSetView]:
        """See ``SchedulingPolicy``."""
        ...

    def shares(self, candidates: Sequence[TaskSetView], slots: int) -> Sequence[Share]:
        """One for each candidate, in their order; ``slots`` are those of all usable executors. Pure."""
        ...


class IdleExecutor(NamedTuple):
    """One that has nothing to do."""

    executor: ExecutorId
    #: for how long
    idle_s: float
    #: it holds cached partitions
    caches: bool


class Demand(NamedTuple):
    """What an allocation policy may know."""

    #: seconds, on the scheduler's clock
    now: float
    #: executors asked for last
    target: int
    #: executors that are there, without those that are about to leave
    present: int
    #: slots that tasks wait for, and slots that tasks use
    waiting: int
    running: int
    #: of one executor
    slots: int
    minimum: int
    maximum: float
    idle: Sequence[IdleExecutor]

    @property
    def needed(self) -> int:
        """Executors on which all tasks that wait or run would find room, within the limits."""
        return int(min(self.maximum, max(self.minimum, -(-(self.waiting + self.running) // self.slots))))


class Allocation(NamedTuple):
    """How many executors there should be."""

    target: int
    #: of the idle ones, those that may go: they hand over what only they have, then they are closed
    leave: Sequence[ExecutorId] = ()
    #: for people
    reason: str = ""
    #: when to ask again, should nothing happen before
    look_at: float | None = None


@runtime_checkable
class AllocationPolicy(Protocol):
    """Decides how many executors a cluster has. One object serves one scheduler, for as long as that lives.

    ``look`` is called whenever something happened, ten times a second at most, and at ``look_at``. What it wants beyond the limits of
    ``demand`` is cut; executors that are not idle do not go.
    """

    def look(self, demand: Demand) -> Allocation:
        """What there should be now. May keep state of its own; must not wait."""
        ...


class Waits(NamedTuple):
    """How long a stage's tasks leave slots unused for better ones, in seconds, level by level."""

    #: for the executor that caches what they read, before another of its host
    process_s: float
    #: for a host that has it, before one of its rack
    node_s: float
    #: for the rack, before any
    rack_s: float


class Near(NamedTuple):
    """Where what a partition reads lies, as far as it is known; each empty where it is not."""

    #: executors that hold what it would compute, or what it is computed from, in their cache
    caching: Collection[ExecutorId] = ()
    #: hosts of the executors in ``caching``
    caching_hosts: Collection[HostToken] = ()
    #: hosts on whose disks its files lie
    file_hosts: Collection[HostToken] = ()
    #: hosts that hold a fifth or more of what it reads of shuffles
    shuffle_hosts: Collection[HostToken] = ()


class Preferred(NamedTuple):
    """Where a partition is to run, if a slot comes free there in time."""

    executors: Collection[ExecutorId] = ()
    hosts: Collection[HostToken] = ()


class ExecutorView(Protocol):
    """What a placement policy may know of an executor."""

    @property
    def id(self) -> ExecutorId: ...
    @property
    def host(self) -> HostToken: ...
    @property
    def host_names(self) -> tuple[str, ...]:
        """Names and addresses that its host is known by."""
        ...

    @property
    def rack(self) -> str:
        """What the topology says of its host; empty where there is none."""
        ...

    @property
    def slots(self) -> int: ...


class PlacementPolicy(Protocol):
    """Where tasks run, as far as there is a choice. Pure: the same input, the same answer."""

    def waits(self, stage: TaskSetView) -> Waits:
        """Asked once, when a stage's tasks begin to wait."""
        ...

    def prefer(self, stage: TaskSetView, partition: int, near: Near) -> Preferred:
        """Asked once for each task of which something is known; nowhere in particular: ``Preferred()``."""
        ...


@runtime_checkable
class RestrictingPolicy(Protocol):
    """A placement policy that also keeps stages away from executors, for good."""

    def waits(self, stage: TaskSetView) -> Waits:
        """See ``PlacementPolicy``."""
        ...

    def prefer(self, stage: TaskSetView, partition: int, near: Near) -> Preferred:
        """See ``PlacementPolicy``."""
        ...

    def allows(self, stage: TaskSetView, executor: ExecutorView) -> bool:
        """Whether a stage's tasks may run there at all; asked once for each pair. Nobody may: the job fails after a grace time."""
        ...


class StageProgress(NamedTuple):
    """How far a stage is that has tasks under way."""

    stage: TaskSetView
    #: tasks that ended well, and all it has
    done: int
    total: int
    #: seconds that ended tasks took, shortest first: all of them, or a fair sample of some hundreds
    durations: Sequence[float]

    @property
    def median_s(self) -> float:
        """What half of them did not exceed; without any, infinite."""
        return self.durations[len(self.durations) // 2] if self.durations else inf


class SpeculationPolicy(Protocol):
    """Which running tasks are tried on another executor as well."""

    def slow_after(self, progress: StageProgress) -> float | None:
        """Seconds after which a task of the stage is slow; None: as yet none is. Asked ten times a second a stage. Pure."""
        ...


class Failures(NamedTuple):
    """What failed on an executor, told when one more task did."""

    #: seconds, on the scheduler's clock
    now: float
    executor: ExecutorView
    stage: TaskSetView
    #: different tasks of this stage that failed there, and of all stages of the application
    of_stage: int
    of_application: int
    #: executors of its host, itself included, and how many of the others are excluded from the application
    neighbours: int
    excluded_neighbours: int
    #: how the last one failed
    reason: str


class Exclusion(NamedTuple):
    """What an executor gets no more tasks of."""

    #: of this stage
    from_stage: bool = False
    #: of the application, for so many seconds; 0: it goes on
    from_application_s: float = 0.0
    #: nor do the other executors of its host, for so many seconds
    host_s: float = 0.0


class HealthPolicy(Protocol):
    """Which executors are kept from tasks after failures there."""

    def judge(self, failures: Failures) -> Exclusion:
        """Asked at each failure that counts against its task. What was excluded before stays so. Pure."""
        ...


class TaskSetView(Protocol):
    """What a policy may know of a task set: to be read, not changed."""

    @property
    def app(self) -> AppId: ...
    @property
    def job(self) -> int:
        """The job's place in the order of submission, over all applications."""
        ...

    @property
    def stage(self) -> int: ...
    @property
    def pending_count(self) -> int: ...
    @property
    def running_count(self) -> int: ...
    @property
    def properties(self) -> Mapping[str, str]:
        """Those of its job, its pool among them: to be read, not changed."""
        ...


class JobRunner(Protocol):
    """What an RDD needs of the world: somebody who runs jobs. A Context is one; so is the inline runner of the tests."""

    @property
    def config(self) -> Config: ...

    @property
    def default_parallelism(self) -> int:
        """Partitions where none are given."""
        ...

    def new_rdd_id(self) -> int:
        """The next RDD id of this application."""
        ...

    def new_shuffle_id(self) -> int:
        """The next shuffle id of this application."""
        ...

    def run_job(
        self,
        node: Any,
        fn: Callable[[int, Iterator[Any]], Any],
        partitions: Sequence[int] | None = None,
        *,
        operation: str,
        call_site: str,
    ) -> list[Any]:
        """Run ``fn(partition index, iterator)`` over partitions of a lineage node; results in the order of ``partitions``."""
        ...

    def run_job_partially(
        self,
        node: Any,
        fn: Callable[[int, Iterator[Any]], Any],
        timeout_s: float,
        *,
        operation: str,
        call_site: str,
    ) -> dict[int, Any]:
        """Run ``fn(partition index, iterator)`` over all partitions for some time; the results, by partition, that came by then."""
        ...

    def accumulator(self, initial: Any, *, name: str = "") -> Any:
        """A value that tasks add to; see ``Context.accumulator``."""
        ...

    def changing(self) -> AbstractContextManager[object]:
        """Held while a lineage node is changed, so that of two threads that change one none undoes what the other did."""
        ...

    def unpersist(self, rdd: int, *, blocking: bool) -> None:
        """Drop the cached partitions of an RDD."""
        ...

    def drop_with(self, node: Any) -> None:
        """Drop an RDD's cached partitions when nobody refers to its node any more."""
        ...

    def ran(self, node: Any, shuffle: ShuffleId | None) -> str:
        """What the stage that writes a shuffle, or the last one (None) that computed a node for an action, did; empty for never."""
        ...

    def facts(self, node: Any, shuffle: ShuffleId | None) -> Any:
        """As ``ran``, in numbers: an ``observe.hints.StageFacts``, or None for never."""
        ...

    def action(self) -> AbstractContextManager[None]:
        """Make a block one action: when it raises, the last job that it ran has failed."""
        ...

    def cancellable(self, cancellation: Any) -> AbstractContextManager[None]:
        """Let whoever holds a ``jobs.Cancellation`` cancel the jobs of a block."""
        ...


class JobHandle(Protocol):
    """A submitted job, seen from the driver. Thread-safe."""

    @property
    def job(self) -> JobId: ...

    def wait(self, timeout_s: float | None = None) -> None:
        """Return when the job has succeeded and every result was handed over.

        Raises the user's own exception, or an ``errors.JobError`` or ``errors.LimitExceeded``, when it ended otherwise;
        ``TimeoutError`` when it is still running after ``timeout_s`` (the job goes on).
        """
        ...

    def cancel(self, reason: str) -> None:
        """Ask for its end; ``wait`` then raises ``errors.JobCancelled``. Returns at once; harmless when it has ended."""
        ...


class ClusterLink(Protocol):
    """What a Context needs of a cluster. ``cluster.client_link`` is one over Dask; ``testing.inline`` one in this thread."""

    @property
    def app(self) -> AppId: ...

    @property
    def slots(self) -> int:
        """Task slots of all usable executors now; waits for the first executor on first use."""
        ...

    def put_content(self, data: bytes) -> Content:
        """Make bytes readable by every executor: inline when small, else put on a host. Idempotent by digest.

        Each call asks for one ``release_contents``, when whoever called needs it no more.
        """
        ...

    def retain_content(self, content: Content) -> None:
        """One more who needs some content that was put and not released."""
        ...

    def release_contents(self, contents: Sequence[ContentId]) -> None:
        """As many who need them no more; what nobody needs is dropped everywhere."""
        ...

    def recall_content(self, content: Content) -> Content:
        """Drop its copies everywhere but in the driver; what is returned stands for it from now on, and is put again at need."""
        ...

    def submit(self, spec: JobSpec, on_result: Callable[[PartitionIndex, bytes], None]) -> JobHandle:
        """Start a job. ``on_result(partition, pickled result)`` is called once a partition, in any order, not concurrently."""
        ...

    def unpersist(self, rdd: RddId, *, blocking: bool) -> None:
        """Drop cached partitions."""
        ...

    def release_shuffle(self, shuffle: ShuffleId) -> None:
        """Nobody refers to a shuffle any more. Safe from a garbage collector's thread."""
        ...

    def subscribe(self, sink: Callable[[Sequence[Event]], None]) -> None:
        """Hand every batch of events to ``sink`` (cheap, must not block)."""
        ...

    def hear_updates(self, sink: Callable[[bytes], None]) -> None:
        """Hand what tasks added to accumulators to ``sink``, before the job they belong to is over; never concurrently."""
        ...

    def close(self) -> None:
        """End the session: jobs, files, blocks. Idempotent."""
        ...
