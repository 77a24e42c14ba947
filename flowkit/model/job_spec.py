"""What a driver submits: a job as stages, already cut and pickled. The scheduler reads the shape, never the pickles."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from flowkit.model.ids import AppId, ContentId, HostToken, JobId, PartitionIndex, RddId, ShuffleId, StageId
from flowkit.model.ranges import Count, Size
from flowkit.model.resources import DEFAULT_PROFILE, ResourceProfile
from flowkit.model.storage_level import StorageLevel

INLINE_LIMIT_BYTES = 32 * 1024
"""Content up to this size rides inside messages; larger content is put on a host and pulled by id."""


class StageKind(IntEnum):
    """Whether a stage writes a shuffle or hands its results to the driver."""

    MAP = 0
    RESULT = 1


class Determinism(IntEnum):
    """What a re-run of a stage yields: the same rows in the same order, the same rows, or other rows."""

    DETERMINATE = 0
    UNORDERED = 1
    INDETERMINATE = 2


class Content(msgspec.Struct, frozen=True):
    """Immutable bytes, named by digest: inline when small, else held by ``holders``."""

    id: ContentId
    size_bytes: Count
    inline: bytes | None = None
    #: hosts whose content directory had it when the job was submitted
    holders: tuple[HostToken, ...] = ()


class ParentShuffle(msgspec.Struct, frozen=True):
    """A shuffle a stage reads, and the cached RDDs that make reading it unnecessary.

    ``unless_cached`` holds RDDs through which *every* way from the shuffle to the stage's end leads: if all partitions
    of any one of them are cached, the parent stage need not run.
    """

    shuffle: ShuffleId
    unless_cached: tuple[RddId, ...] = ()


class CachedInput(msgspec.Struct, frozen=True):
    """An RDD marked as cached inside a stage: stage partition ``p`` uses its partition ``p - first``, for ``count`` of them."""

    rdd: RddId
    first: int
    count: Size
    level: StorageLevel = StorageLevel.MEMORY_ONLY


class StageSpec(msgspec.Struct, frozen=True):
    """One stage: a pickled program run once per partition."""

    stage: StageId
    #: what the user wrote last in it, e.g. ``reduce_by_key at words.py:12``
    name: str
    kind: StageKind
    num_partitions: Size
    #: the partitions a job wants: all of them for MAP, any subset in any order for RESULT
    partitions: tuple[PartitionIndex, ...]
    program: Content
    parents: tuple[ParentShuffle, ...] = ()
    #: MAP only: the shuffle written, and into how many reduce partitions
    shuffle: ShuffleId | None = None
    num_reducers: Size = 0
    determinism: Determinism = Determinism.DETERMINATE
    cached: tuple[CachedInput, ...] = ()
    #: hosts (as named by a file system) on which a partition's input lies
    preferred_hosts: dict[PartitionIndex, tuple[str, ...]] = {}
    #: large content the program needs besides itself (collections)
    attachments: tuple[Content, ...] = ()
    #: operations pipelined in it, first to last, for people
    operations: tuple[str, ...] = ()
    #: what each of its tasks needs
    profile: ResourceProfile = DEFAULT_PROFILE
    #: its tasks run all at once, and may wait for one another
    barrier: bool = False
    #: it reads nothing but shuffles, partition by partition, so that one task may compute several of them
    coalescible: bool = False
    #: what of a partition's input may be read in several pieces, by as many tasks: a shuffle that a join streams past the table it makes
    #: of the other side, so that rows come out in its order
    splits: ShuffleId | None = None
    #: of two specs of one map stage the one with the larger number is the newer one (``lineage.stages.StageCut.revision``)
    revision: Count = 0


class JobSpec(msgspec.Struct, frozen=True):
    """One action: stages in topological order (parents first), the result stage last.

    Stages of shuffles that earlier jobs already wrote are listed too: the scheduler skips what is still there and
    knows how to make again what is not.
    """

    app: AppId
    job: JobId
    #: the action, e.g. ``collect at words.py:14``
    name: str
    stages: tuple[StageSpec, ...]
    properties: dict[str, str] = {}
    #: sum of result bytes after which the job is aborted; 0 is no limit
    max_result_bytes: Count = 0

    @property
    def result_stage(self) -> StageSpec:
        """The last stage."""
        return self.stages[-1]
