"""What a running task may use: made by the executor per task, handed to ``pipeline.run_program``. Runs on a slot thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flowkit.abc import BlockTransport
from flowkit.model.ids import AppId, AttemptId, ContentId, HostToken, PartitionIndex, RddId, ShuffleId, StageId
from flowkit.model.map_status import ShuffleSources
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import BlockInfo
from flowkit.storage.blocks.block_store import BlockStore
from flowkit.storage.memory.task_memory import TaskMemory
from flowkit.storage.shuffle.files import ShuffleFiles
from flowkit.storage.shuffle.reader import BlockReads

if TYPE_CHECKING:
    from flowkit.execution.profiling import Profiler
    from flowkit.execution.remote_blocks import RemoteBlocks


class ContentSource(Protocol):
    """Immutable bytes by id, fetched to this host when they are not here yet."""

    def path(self, content: ContentId) -> Path:
        """A local file that holds it. Raises ``errors.FetchFailed`` like a shuffle fetch when nobody has it."""
        ...


@dataclass(slots=True)
class TaskEnvironment:
    """One task's services. Everything here belongs to the task's thread unless it says otherwise."""

    app: AppId
    stage: StageId
    #: the one that is computed now
    partition: PartitionIndex
    #: MAP only: the number of what it makes among the outputs of its stage
    output: PartitionIndex
    attempt: AttemptId
    host: HostToken
    num_reducers: int
    metrics: TaskMetrics
    memory: TaskMemory
    #: this application's shuffle files on this host
    shuffle_files: ShuffleFiles
    #: the same, for reading
    shuffle_reads: BlockReads
    #: newest known map outputs; raises ``FetchFailed`` for a shuffle whose outputs the scheduler did not tell
    sources: Callable[[ShuffleId], ShuffleSources]
    transport: BlockTransport
    #: cached partitions of this executor; shared, thread-safe
    cache: BlockStore
    content: ContentSource
    #: whether the cache may be used: not by a task that computes a piece of a partition
    uses_cache: bool
    #: RDDs whose cached partitions have another number than theirs
    kept_as: Mapping[RddId, RddId]
    #: for spill runs; exists, private to the task, removed when it ends
    spill_directory: Path
    fetch_in_flight_bytes: int
    shuffle_codec: str
    #: raises ``errors.TaskKilled`` once the task is to stop; called between batches
    check_killed: Callable[[], None]
    #: asks the scheduler; raises ``errors.CommitDenied`` when another attempt was first
    acquire_commit: Callable[[], None]
    #: partitions this task newly put into the cache: the pipeline passes ``cached_blocks.append`` to the cache as ``recorder``
    cached_blocks: list[BlockInfo] = field(default_factory=list)
    #: cached partitions this task may use that other executors hold; None: none are known
    remote_blocks: RemoteBlocks | None = None
    #: measures where the task's time goes; None as a rule
    profiler: Profiler | None = None
