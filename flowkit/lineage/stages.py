"""The cut: lineage becomes stages at its shuffles. Whatever is narrow runs together, without recursion.

Runs on the driver. One ``Planner`` per application remembers which stage writes which shuffle and the pickled program of each,
so that a later job over the same shuffle names the same stage, and the scheduler can skip it. A cut is a snapshot: it holds each node's
recipe as it was when the cut was made, so its program, its parents and what it caches fit one another whatever changes meanwhile.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from flowkit.errors import ClosureTooLarge, InvalidArgument
from flowkit.lineage.closures import carrying, describe_largest
from flowkit.lineage.kernels import (
    Filter,
    FlatMap,
    FlatMapValues,
    Join,
    JoinKind,
    Map,
    MapValues,
    Result,
    ShuffleRead,
    ShuffleWrite,
    StageProgram,
    Step,
    StepInput,
    Window,
)
from flowkit.lineage.nodes import Node, Recipe, Shuffle, ancestors
from flowkit.model.ids import AppId, ContentId, JobId, PartitionIndex, RddId, ShuffleId, StageId
from flowkit.model.job_spec import CachedInput, Content, Determinism, JobSpec, ParentShuffle, StageKind, StageSpec
from flowkit.model.resources import DEFAULT_PROFILE, ResourceProfile
from flowkit.model.storage_level import StorageLevel


@dataclass(frozen=True, slots=True)
class StageCut:
    """One stage before it is pickled: the nodes it pipelines, the shuffles it reads, what it ends with.

    Who holds it keeps alive all that it refers to: functions, what they captured, shuffles.
    """

    #: recipes of the nodes, inputs before those who use them; the last one is the root's
    nodes: tuple[Recipe, ...]
    #: whose recipes they are
    owners: tuple[Node, ...]
    reads: tuple[Shuffle, ...]
    #: the shuffle it writes; None for the stage of the result
    writes: Shuffle | None

    @property
    def root(self) -> Recipe:
        """What its partitions are those of."""
        return self.nodes[-1]

    @property
    def revision(self) -> int:
        """Of two cuts of one stage, that with the larger number is the newer one."""
        return max(node.revision for node in self.nodes)

    @property
    def changes(self) -> tuple[int, ...]:
        """Changes of its nodes, by their stamps: two cuts of one stage with the same ones are equal."""
        return tuple(node.revision for node in self.nodes if node.revision)

    @property
    def determinism(self) -> Determinism:
        """What computing it again yields."""
        return self.root.determinism if self.writes is None else self.writes.determinism


def cut(node: Node) -> list[StageCut]:
    """The stages that computing ``node`` takes, parents first, the result's last.

    A shuffle that several nodes read is written by one stage, and a node has one recipe in all stages.
    """
    recipes: dict[RddId, Recipe] = {}
    found: dict[ShuffleId | None, StageCut] = {}
    order: list[StageCut] = []
    stack: list[tuple[Node, Shuffle | None, bool]] = [(node, None, False)]
    while stack:
        root, writes, entered = stack.pop()
        key = writes.id if writes is not None else None
        if entered:
            order.append(found[key])
            continue
        if key in found:
            continue
        owners = tuple(ancestors(root, across_shuffles=False, recipes=recipes))
        nodes = tuple(recipes[each.id] for each in owners)
        reads: dict[ShuffleId, Shuffle] = {}
        for each in nodes:
            for dependency in each.dependencies:
                if isinstance(dependency, Shuffle):
                    reads.setdefault(dependency.id, dependency)
        found[key] = StageCut(nodes, owners, tuple(reads.values()), writes)
        stack.append((root, writes, True))
        for shuffle in reversed(reads.values()):
            stack.append((shuffle.parent, shuffle, False))  # noqa: PERF401 (reads as the rule it is)
    return order


def program_of(stage: StageCut, result: Result | None) -> StageProgram:
    """What executors run: the stage's nodes as a flat list, each with the places of its inputs."""
    places = {node.id: place for place, node in enumerate(stage.nodes)}
    steps = tuple(
        Step(
            rdd=node.id,
            kernel=node.kernel,
            inputs=tuple(
                StepInput(places[each.parent.id], each.known_mapping())
                for each in node.dependencies
                if not isinstance(each, Shuffle)
            ),
            num_partitions=node.num_partitions,
            operation=node.operation,
            call_site=node.call_site,
            level=node.level,
        )
        for node in stage.nodes
    )
    if stage.writes is not None:
        return StageProgram(steps, _written(stage.writes))
    assert result is not None
    return StageProgram(steps, result)


def _written(shuffle: Shuffle) -> ShuffleWrite:
    return ShuffleWrite(
        shuffle.id, shuffle.partitioner, shuffle.aggregator, operation=shuffle.operation, call_site=shuffle.call_site
    )


def cached_inputs(stage: StageCut) -> tuple[CachedInput, ...]:
    """Cached RDDs of a stage, and which of its partitions use which of theirs.

    Left out are those that lie behind anything but a window, such as a ``coalesce``: a partition may use several of theirs there.
    """
    hidden = _behind_other_shapes(stage)
    firsts: dict[RddId, set[int]] = {stage.root.id: {0}}
    inputs: list[CachedInput] = []
    for node in reversed(stage.nodes):
        for first in sorted(firsts.get(node.id, ())):
            if node.cached and node.id not in hidden:
                inputs.append(CachedInput(node.id, first, node.num_partitions, node.level or StorageLevel.MEMORY_ONLY))
            for dependency in node.dependencies:
                if not isinstance(dependency, Shuffle) and isinstance(window := dependency.known_mapping(), Window):
                    firsts.setdefault(dependency.parent.id, set()).add(first + window.first)
    return tuple(inputs)


def _behind_other_shapes(stage: StageCut) -> frozenset[RddId]:
    """RDDs of a stage with a way to its end on which partitions are not used one by one."""
    behind: set[RddId] = set()
    for node in reversed(stage.nodes):  # users before what they use
        for dependency in node.dependencies:
            if not isinstance(dependency, Shuffle) and (node.id in behind or not isinstance(dependency.known_mapping(), Window)):
                behind.add(dependency.parent.id)
    return frozenset(behind)


def parent_shuffles(stage: StageCut) -> tuple[ParentShuffle, ...]:
    """Shuffles a stage reads, with the cached RDDs that lie on *every* way from there to the stage's end."""
    hidden = _behind_other_shapes(stage)
    on_every_way: dict[RddId, frozenset[RddId]] = {}
    guards: dict[ShuffleId, frozenset[RddId]] = {}
    for node in reversed(stage.nodes):  # users before what they use
        told = node.cached and node.id not in hidden
        own = on_every_way.get(node.id, frozenset()) | ({node.id} if told else frozenset())
        for dependency in node.dependencies:
            if isinstance(dependency, Shuffle):
                guards[dependency.id] = guards[dependency.id] & own if dependency.id in guards else own
            else:
                parent = dependency.parent.id
                on_every_way[parent] = on_every_way[parent] & own if parent in on_every_way else own
    return tuple(ParentShuffle(shuffle.id, tuple(sorted(guards[shuffle.id]))) for shuffle in stage.reads)


def profile_of(stage: StageCut) -> ResourceProfile:
    """What each task of a stage needs; raises ``errors.InvalidArgument`` when two of its RDDs say different things."""
    told = [node for node in stage.nodes if node.profile is not None]
    found: ResourceProfile = DEFAULT_PROFILE
    for node in told:
        assert node.profile is not None
        if node is not told[0] and node.profile != found:
            raise InvalidArgument(
                f"{told[0].label} needs {found} and {node.label} needs {node.profile}, and one stage computes both; say the same of both, or "
                "put a shuffle between them",
                name="cpus",
                value=str(node.profile),
                allowed=str(found),
            )
        found = node.profile
    return found


def _is_barrier(stage: StageCut, wanted: Sequence[int] | None) -> bool:
    """Whether the tasks of a stage run all at once; raises ``errors.InvalidArgument`` where they cannot. ``wanted``: of a result."""
    node = next((node for node in stage.nodes if node.barrier), None)
    if node is None:
        return False
    total = stage.root.num_partitions
    other = next((each for each in stage.nodes if each.num_partitions != total), None)
    if other is not None:
        raise InvalidArgument(
            f"{node.label} runs in all partitions at once, but {other.label}, in the same stage, has {other.num_partitions} and not {total}; "
            "put a shuffle between them (repartition)",
            name="barrier",
            value=other.num_partitions,
            allowed=str(total),
        )
    if wanted is not None and len(wanted) < total:
        raise InvalidArgument(
            f"{node.label} runs in all {total} partitions at once, and this action wants {len(wanted)}; collect, or cache it by an action "
            "that uses all, first",
            name="barrier",
            value=len(wanted),
            allowed=str(total),
        )
    return True


def is_coalescible(stage: StageCut) -> bool:
    """Whether one task may compute several partitions of a stage: each reads its part of shuffles and nothing else.

    Not where partitions are kept, take resources of their own or run at once, nor where the user asked for just these
    (``repartition``, ``partition_by``).
    """
    total = stage.root.num_partitions

    def is_plain(node: Recipe) -> bool:
        if node.num_partitions != total or node.cached or node.barrier or node.profile is not None or not node.dependencies:
            return False
        if isinstance(node.kernel, ShuffleRead) and node.kernel.aggregator is None and node.kernel.order is None:
            return False
        return all(isinstance(each, Shuffle) or each.known_mapping() == Window(0, total) for each in node.dependencies)

    return all(map(is_plain, stage.nodes))


def split_shuffle(stage: StageCut) -> ShuffleId | None:
    """The shuffle of which a task may read a part, so that several tasks make a partition of a stage; None where none may.

    The streamed side of a join, if nothing behind it sees more than one row at a time.
    """
    joins = [node for node in stage.nodes if isinstance(node.kernel, Join)]
    if len(joins) != 1 or not is_coalescible(stage):
        return None
    kernel = joins[0].kernel
    assert isinstance(kernel, Join)
    left, right = kernel.shuffles
    if left is None or right is None or left == right or kernel.kind is JoinKind.FULL:
        return None
    if not all(
        node is joins[0] or isinstance(node.kernel, Map | Filter | FlatMap | MapValues | FlatMapValues) for node in stage.nodes
    ):
        return None
    return right if kernel.kind is JoinKind.RIGHT else left


class PickledProgram:
    """The pickled program of one cut of a stage. Its content is needed as long as anybody refers to this object."""

    __slots__ = ("__weakref__", "carried", "changes", "content")

    def __init__(self, content: Content, carried: tuple[Content, ...], changes: tuple[int, ...]) -> None:
        self.content = content
        #: large contents that it names
        self.carried = carried
        #: ``StageCut.changes`` of the cut it was made of
        self.changes = changes


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A job's spec, and what must not go before the job is over: its programs, and all that its stages refer to."""

    spec: JobSpec
    stages: tuple[StageCut, ...]
    programs: tuple[PickledProgram, ...]


class Planner:
    """Plans the jobs of one application.

    Thread-safe.

    Parameters
    ----------
    app
        The application.
    dumps
        Pickles a program, or raises ``errors.ClosureError``.
    put
        Makes bytes readable by executors.
    max_closure_bytes
        Limit of one pickled program.
    coalesces, splits
        Whether small partitions may share tasks, and large ones have several.
    """

    def __init__(
        self,
        app: AppId,
        *,
        dumps: Callable[[StageProgram], bytes],
        put: Callable[[bytes], Content],
        max_closure_bytes: int,
        coalesces: bool = True,
        splits: bool = True,
    ) -> None:
        self._app = app
        self._dumps = dumps
        self._put = put
        self._max_closure_bytes = max_closure_bytes
        self._coalesces = coalesces
        self._splits = splits
        self._stage_ids = count()
        self._job_ids = count()
        self._stage_of: dict[ShuffleId, StageId] = {}
        #: contents that were put for programs which nobody refers to any more; to be taken away by whoever may release them
        self.unneeded: deque[ContentId] = deque()
        #: pickled programs of map stages
        self._programs: dict[ShuffleId, PickledProgram] = {}

    def plan(
        self,
        node: Node,
        result: Result,
        partitions: Sequence[int],
        *,
        may_split: bool = False,
        name: str,
        properties: dict[str, str],
        max_result_bytes: int,
    ) -> Plan:
        """Cut, pickle and describe a job. Reads nothing, runs nothing.

        ``may_split``: results of pieces of a partition can be put together.

        Raises
        ------
        errors.ClosureError
            A function that can't travel, with the path to what it captured.
        errors.ClosureTooLarge
            A program larger than ``max_closure_bytes``.
        """
        stages = tuple(cut(node))
        job = JobId(next(self._job_ids))
        programs = tuple(self._program(stage, result) for stage in stages)
        spec = JobSpec(
            app=self._app,
            job=job,
            name=name,
            stages=tuple(
                self._stage(stage, program, partitions, may_split=may_split)
                for stage, program in zip(stages, programs, strict=True)
            ),
            properties=properties,
            max_result_bytes=max_result_bytes,
        )
        return Plan(spec, stages, programs)

    def stage_of(self, shuffle: ShuffleId) -> StageId | None:
        """The stage that writes a shuffle; None when no job has needed it yet."""
        return self._stage_of.get(shuffle)

    def forget(self, shuffle: ShuffleId) -> None:
        """Nobody will read this shuffle again. Safe from a garbage collector's thread."""
        self._programs.pop(shuffle, None)
        self._stage_of.pop(shuffle, None)

    def _stage(self, stage: StageCut, program: PickledProgram, partitions: Sequence[int], *, may_split: bool) -> StageSpec:
        shuffle = stage.writes
        total = stage.root.num_partitions
        hosts = _preferred_hosts(stage)
        return StageSpec(
            stage=StageId(next(self._stage_ids)) if shuffle is None else self._stage_id(shuffle.id),
            name=stage.root.label,
            kind=StageKind.RESULT if shuffle is None else StageKind.MAP,
            num_partitions=total,
            partitions=tuple(PartitionIndex(p) for p in (partitions if shuffle is None else range(total))),
            program=program.content,
            revision=stage.revision,
            parents=parent_shuffles(stage),
            shuffle=None if shuffle is None else shuffle.id,
            num_reducers=0 if shuffle is None else shuffle.partitioner.num_partitions,
            determinism=stage.determinism,
            cached=cached_inputs(stage),
            preferred_hosts=hosts,
            attachments=tuple({each.id: each for node in stage.nodes for each in (*node.attachments, *program.carried)}.values()),
            operations=tuple(node.operation for node in stage.nodes[-50:]),
            profile=profile_of(stage),
            barrier=_is_barrier(stage, None if shuffle is not None else partitions),
            coalescible=self._coalesces and is_coalescible(stage),
            splits=split_shuffle(stage) if self._splits and (may_split or shuffle is not None) else None,
        )

    def _stage_id(self, shuffle: ShuffleId) -> StageId:
        known = self._stage_of.get(shuffle)
        # Atomic: of two threads that plan the same shuffle one wins, and an unused number is no loss.
        return known if known is not None else self._stage_of.setdefault(shuffle, StageId(next(self._stage_ids)))

    def _program(self, stage: StageCut, result: Result) -> PickledProgram:
        """A stage's program: of a map stage the kept one, if nothing was changed since it was pickled."""
        changes = stage.changes
        known = None if stage.writes is None else self._programs.get(stage.writes.id)
        if known is not None and known.changes == changes:
            return known
        program = program_of(stage, result)
        with carrying() as carried:
            data = self._dumps(program)
        if len(data) > self._max_closure_bytes:
            raise ClosureTooLarge(
                f"the pickled functions of the stage of {stage.root.label} are {len(data):,} bytes, more than "
                f"max_closure_bytes = {self._max_closure_bytes:,}; the largest part is {describe_largest(program)}. Put data into "
                "an RDD and join, or raise the setting",
                setting="max_closure_bytes",
                limit=self._max_closure_bytes,
                actual=len(data),
            )
        made = PickledProgram(self._put(data), tuple(carried.values()), changes)
        if made.content.inline is None:
            weakref.finalize(made, self.unneeded.append, made.content.id).atexit = False
        if stage.writes is not None:
            # Of two threads that plan the same shuffle each uses its own; the one that is not kept goes with its job.
            self._programs[stage.writes.id] = made
        return made


def _preferred_hosts(stage: StageCut) -> dict[PartitionIndex, tuple[str, ...]]:
    for node in stage.nodes:
        if node.hosts and node.num_partitions == stage.root.num_partitions:
            return {PartitionIndex(partition): hosts for partition, hosts in node.hosts.items()}
    return {}
