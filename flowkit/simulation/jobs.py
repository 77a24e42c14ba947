"""Jobs whose answer is known beforehand: programs that are a few facts, values that are a pure function of the lineage.

Runs wherever tests do; needs no cluster, no pickle and no user code.

A simulated partition has a value: a number made of its stage's key, its place and the values it read. ``expected`` works it
out naively from the specs, a simulated executor by reading simulated files; equal numbers mean that the same lineage was run.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from flowkit.model.ids import AppId, AttemptId, ContentId, HostToken, JobId, PartitionIndex, RddId, ShuffleId, StageId
from flowkit.model.job_spec import CachedInput, Content, Determinism, JobSpec, ParentShuffle, StageKind, StageSpec
from flowkit.model.storage_level import StorageLevel

Origin = tuple[ShuffleId, PartitionIndex, AttemptId]
"""An attempt at a map partition that yields other rows each time."""


class Value(NamedTuple):
    """What a partition holds, and which attempts at indeterminate partitions it was made from."""

    number: int
    made_of: frozenset[Origin] = frozenset()


class SimulatedProgram(msgspec.Struct, frozen=True):
    """What a simulated executor does in a stage, in place of a pickle."""

    key: int
    parents: tuple[ShuffleId, ...] = ()
    #: RDDs in the cache that hold the stage's whole input, partition for partition
    cached: tuple[RddId, ...] = ()
    indeterminate: bool = False
    #: the result is too large for a message
    stores_result: bool = False
    #: asks before it ends
    commits: bool = False
    #: numbers of its partitions, as a checkpoint has them: it reads nothing else
    stored: tuple[int, ...] | None = None


def computed(key: int, partition: int, inputs: Iterable[Value], origin: Origin | None = None) -> Value:
    """The value of one partition."""
    read = list(inputs)
    made_of = frozenset().union(*(value.made_of for value in read))
    if origin is not None:
        made_of |= {origin}
    return Value(hash((key, partition, *(value.number for value in read))), made_of)


def content_of(program: SimulatedProgram) -> Content:
    """A program as it travels: inline."""
    data = msgspec.json.encode(program)
    return Content(ContentId(f"{zlib.crc32(data):032x}"), len(data), data)


def map_stage(
    stage: int,
    partitions: int,
    parents: Sequence[StageSpec] = (),
    *,
    determinism: Determinism = Determinism.DETERMINATE,
    cached: int | None = None,
    level: StorageLevel = StorageLevel.MEMORY_ONLY,
    commits: bool = False,
    preferred_hosts: Mapping[int, tuple[str, ...]] | None = None,
    program: Content | None = None,
) -> StageSpec:
    """A stage that writes shuffle ``stage``; with ``cached`` its input is an RDD of that number, kept in the cache as ``level`` says."""
    return _stage(
        stage,
        StageKind.MAP,
        partitions,
        range(partitions),
        parents,
        determinism,
        cached,
        level,
        preferred_hosts or {},
        program,
        commits=commits,
    )


def result_stage(
    stage: int,
    partitions: int,
    parents: Sequence[StageSpec] = (),
    *,
    wanted: Sequence[int] | None = None,
    cached: int | None = None,
    level: StorageLevel = StorageLevel.MEMORY_ONLY,
    stores_result: bool = False,
    commits: bool = False,
    preferred_hosts: Mapping[int, tuple[str, ...]] | None = None,
    program: Content | None = None,
) -> StageSpec:
    """A stage that hands ``wanted`` of its partitions (all, if not given) to the driver."""
    chosen = range(partitions) if wanted is None else wanted
    return _stage(
        stage,
        StageKind.RESULT,
        partitions,
        chosen,
        parents,
        Determinism.DETERMINATE,
        cached,
        level,
        preferred_hosts or {},
        program,
        stores_result=stores_result,
        commits=commits,
    )


def _stage(
    stage: int,
    kind: StageKind,
    partitions: int,
    wanted: Iterable[int],
    parents: Sequence[StageSpec],
    determinism: Determinism,
    cached: int | None,
    level: StorageLevel,
    preferred_hosts: Mapping[int, tuple[str, ...]],
    program: Content | None,
    *,
    stores_result: bool = False,
    commits: bool = False,
) -> StageSpec:
    rdds = () if cached is None else (RddId(cached),)
    read = tuple(parent.shuffle for parent in parents if parent.shuffle is not None)
    simulated = SimulatedProgram(stage, read, rdds, determinism is Determinism.INDETERMINATE, stores_result, commits)
    return StageSpec(
        stage=StageId(stage),
        name=f"stage {stage}",
        kind=kind,
        num_partitions=partitions,
        partitions=tuple(map(PartitionIndex, wanted)),
        program=program or content_of(simulated),
        parents=tuple(ParentShuffle(shuffle, rdds) for shuffle in read),
        shuffle=ShuffleId(stage) if kind is StageKind.MAP else None,
        num_reducers=4 if kind is StageKind.MAP else 0,
        determinism=determinism,
        cached=tuple(CachedInput(rdd, 0, partitions, level) for rdd in rdds),
        preferred_hosts={PartitionIndex(partition): hosts for partition, hosts in preferred_hosts.items()},
    )


def checkpointed(stage: StageSpec, stages: Sequence[StageSpec]) -> StageSpec:
    """The spec of a map stage from the moment on when its input lies in files; ``stages``: all it is made of, parents first, it the last.

    As a planner makes it: a newer revision, another program, no parents.
    """
    numbers = _numbers(stages)[stage.stage]
    simulated = SimulatedProgram(stage.stage, stored=tuple(numbers[PartitionIndex(each)] for each in range(stage.num_partitions)))
    return msgspec.structs.replace(
        stage, revision=stage.revision + 1, program=content_of(simulated), parents=(), cached=(), splits=None, coalescible=False
    )


def large_content(number: int, *holders: HostToken) -> Content:
    """Content that does not fit a message; simulated executors only ask whether a holder can be reached."""
    return Content(ContentId(f"{number:032x}"), 1 << 20, None, holders)


def job(app: AppId, number: int, *stages: StageSpec, max_result_bytes: int = 0) -> JobSpec:
    """A job of these stages, parents first."""
    return JobSpec(app, JobId(number), f"job {number}", stages, max_result_bytes=max_result_bytes)


def expected(spec: JobSpec) -> dict[PartitionIndex, int]:
    """The number of each result partition, worked out one stage after the other."""
    return _numbers(spec.stages)[spec.result_stage.stage]


def _numbers(stages: Sequence[StageSpec]) -> dict[StageId, dict[PartitionIndex, int]]:
    found: dict[StageId, dict[PartitionIndex, int]] = {}
    outputs: dict[ShuffleId, list[Value]] = {}
    for stage in stages:
        program = SimulatedProgram(stage.stage)
        if stage.program.inline is not None:
            program = msgspec.json.decode(stage.program.inline, type=SimulatedProgram)
        inputs = [value for parent in stage.parents for value in outputs[parent.shuffle]]
        numbers = found[stage.stage] = {
            partition: computed(stage.stage, partition, inputs).number if program.stored is None else program.stored[partition]
            for partition in stage.partitions
        }
        if stage.shuffle is not None:
            outputs[stage.shuffle] = [Value(numbers[PartitionIndex(partition)]) for partition in range(stage.num_partitions)]
    return found
