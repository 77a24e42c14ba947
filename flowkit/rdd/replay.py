"""A failed partition again, here: its inputs come from the cluster, its functions run in the driver, where a debugger is.

Runs on the driver. An error that a task raised carries a ``Replay`` as its attribute ``replay``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from flowkit.abc import JobRunner
from flowkit.errors import InternalError, NotReplayable
from flowkit.execution.actions import collect_rows, drain_rows
from flowkit.execution.replaying import run_here
from flowkit.lineage.kernels import (
    Aggregate,
    Aggregator,
    CoGroup,
    Join,
    Kernel,
    Result,
    ShuffleRead,
    SortOrder,
    StageProgram,
    Step,
    StepInput,
    Union,
    Window,
    ZipPartitions,
)
from flowkit.lineage.nodes import Node, Recipe, Shuffle
from flowkit.lineage.stages import StageCut, program_of
from flowkit.logs import is_ctrl_c, logger_of
from flowkit.model.ids import ShuffleId
from flowkit.model.shown import first_line_of
from flowkit.rdd.capsules import save_capsule
from flowkit.rdd.checks import check_on_driver
from flowkit.rdd.replayed import Replayed, debugged
from flowkit.tracebacks import trims_own_frames
from flowkit.visible import in_one_line

logger = logger_of(__name__)

#: by place of a step and by partition
Rows = Mapping[int, Mapping[int, list[Any]]]
_first = itemgetter(0)


@trims_own_frames
class Replay:
    """Computes the partition that failed once more, in this process.

    Examples
    --------
    >>> try:
    ...     fc.parallelize(["1", "2", "three"], 1).map(lambda text: int(text)).sum()
    ... except ValueError as error:
    ...     again = error.replay(debug=False)
    >>> again.element
    'three'
    """

    def __init__(self, runner: JobRunner, stage: StageCut, result: Result, partition: int, error: str) -> None:
        self._runner = runner
        self._error = error
        self._stage = stage
        self._result = result
        self.partition = partition

    def __call__(self, *, debug: bool = True) -> Replayed:
        """Run it again, and open a debugger where it fails.

        Parameters
        ----------
        debug
            False: only tell.

        Raises
        ------
        errors.NotReplayable
            It failed where its rows are read, so there are none to give it.

        Notes
        -----
        Cost: a job for the partition's inputs (what was cached, shuffled, or read), which come to the driver whole.
        """
        check_on_driver("replay")
        return debugged(self.run(), debug=debug)

    def run(self) -> Replayed:
        """Run it again."""
        program, rows = self._prepared()
        return Replayed(run_here(program, self.partition, rows), repr(self)[1:-1])

    def save(self, path: str | Path) -> Path:
        """Write a capsule: the partition's rows and functions, for ``flowkit.open_capsule`` in another session or on another machine.

        Parameters
        ----------
        path
            Of a file, which is written anew and can be read by its owner only. Rows and whatever the functions captured lie in it as
            they are.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        errors.NotReplayable
            As when it is called.

        Notes
        -----
        Cost: as when it is called.
        """
        check_on_driver("replay.save")
        program, rows = self._prepared()
        return save_capsule(path, program, self.partition, rows, place=repr(self)[1:-1], error=self._error)

    def _prepared(self) -> tuple[StageProgram, Rows]:
        """What is to be run, and the rows it begins with."""
        program = _drained(program_of(self._stage, self._result))
        # What is cached may be what fails; then what merges rows on their way from a shuffle may be.
        for prepare in (self._from_cache, self._from_inputs):
            try:
                return program, prepare()
            except BaseException as error:
                if is_ctrl_c(error):
                    raise
                logger.debug("%r fails before it begins; looking further back", self, exc_info=True)
        try:
            return self._from_unmerged(program)
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            raise NotReplayable(
                f"partition {self.partition} of {self._stage.root.label} fails where its rows are read: {first_line_of(error)}"
            ) from error

    def _from_cache(self) -> Rows:
        return {
            place: self._fetched(self._stage.owners[place], wanted) for place, wanted in self._beginnings(cached=True).items()
        }

    def _from_inputs(self) -> Rows:
        return {
            place: self._fetched(self._stage.owners[place], wanted) for place, wanted in self._beginnings(cached=False).items()
        }

    def _from_unmerged(self, program: StageProgram) -> tuple[StageProgram, Rows]:
        """As the rows lie in the shuffle: aggregated, joined and sorted here."""
        rows: dict[int, Mapping[int, list[Any]]] = {}
        first: list[Step] = []
        own: dict[int, tuple[StepInput, ...]] = {}
        for place, wanted in self._beginnings(cached=False, unmerged=True).items():
            node, step = self._stage.nodes[place], program.steps[place]
            shuffles = [each for each in node.dependencies if isinstance(each, Shuffle)]
            if not shuffles:
                rows[place] = self._fetched(self._stage.owners[place], wanted)
                continue
            narrow = iter(step.inputs)
            inputs = []
            for dependency in node.dependencies:
                if not isinstance(dependency, Shuffle):
                    inputs.append(next(narrow))
                    continue
                # Below zero: before all others, which move up when it is known by how many.
                inputs.append(StepInput(-1 - len(first), Window(0, node.num_partitions)))
                read = ShuffleRead(dependency.id)
                number = self._runner.new_rdd_id()
                unmerged = Node(
                    number, read, [dependency], node.num_partitions, operation=node.operation, call_site=node.call_site
                )
                rows[-1 - len(first)] = self._fetched(unmerged, wanted)
                first.append(Step(unmerged.id, read, (), node.num_partitions, node.operation, node.call_site))
            own[place] = tuple(inputs)
        steps = [
            replace(step, kernel=_merging(step.kernel), inputs=own[place]) if place in own else step
            for place, step in enumerate(program.steps)
        ]
        up = len(first)
        moved = tuple(
            replace(step, inputs=tuple(StepInput(each.step + up, each.mapping) for each in step.inputs)) for step in steps
        )
        return replace(program, steps=(*reversed(first), *moved)), {place + up: given for place, given in rows.items()}

    def _beginnings(self, *, cached: bool, unmerged: bool = False) -> dict[int, list[int]]:
        """Where the stage begins for this partition: places of nodes in it, and which of their partitions are needed.

        With ``unmerged`` also what nodes need that merge a shuffle with rows of the stage itself.
        """
        nodes = self._stage.nodes
        places = {node.id: place for place, node in enumerate(nodes)}
        wanted: dict[int, set[int]] = {}
        visits = [(len(nodes) - 1, self.partition)]
        seen = set(visits)
        for place, partition in visits:  # grows while it is walked
            node = nodes[place]
            if _begins(node, cached=cached and node is not self._stage.root):
                wanted.setdefault(place, set()).add(partition)
                if not unmerged:
                    continue
            for dependency in node.dependencies:
                if isinstance(dependency, Shuffle):
                    continue
                for inner in dependency.known_mapping().inputs_of(partition):
                    visit = places[dependency.parent.id], inner
                    if visit not in seen:
                        seen.add(visit)
                        visits.append(visit)
        return {place: sorted(partitions) for place, partitions in wanted.items()}

    def _fetched(self, node: Node, partitions: list[int]) -> dict[int, list[Any]]:
        parts = self._runner.run_job(
            node, collect_rows, partitions, operation="replay (inputs)", call_site=self._result.call_site or node.call_site
        )
        return dict(zip(partitions, parts, strict=True))

    def __repr__(self) -> str:
        return in_one_line(f"<partition {self.partition} of {self._stage.root.label}>")

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel; what they could be replayed with stays here.
        return _nothing, ()


def _nothing() -> None:
    return None


def _begins(node: Recipe, *, cached: bool) -> bool:
    """Whether rows are taken from here, not computed here."""
    return not node.dependencies or (cached and node.cached) or any(isinstance(each, Shuffle) for each in node.dependencies)


def _merging(kernel: Kernel) -> Kernel:
    """What merges rows of shuffles, for rows that are at hand."""
    match kernel:
        case ShuffleRead(_, None, None):
            return Union()
        case ShuffleRead(_, aggregator, order):
            return ZipPartitions(MergeHere(aggregator, order))
        case CoGroup(shuffles):
            return CoGroup((None,) * len(shuffles))
        case Join(kind, _):
            return Join(kind, (None, None))
        case other:
            raise InternalError(f"{type(other).__name__} reads no shuffle")


class MergeHere:
    """Aggregates and sorts pairs as a reducer does, in plain sight: whoever debugs a merge function has its frames alone."""

    def __init__(self, aggregator: Aggregator | None, order: SortOrder | None) -> None:
        self.aggregator = aggregator
        self.order = order

    def __call__(self, pairs: Iterator[tuple[Any, Any]]) -> Iterable[tuple[Any, Any]]:
        """All pairs of one partition."""
        if self.aggregator is not None:
            pairs = iter(self._merged(pairs, self.aggregator).items())
        if self.order is None:
            return pairs
        key = self.order.key
        found = list(pairs)
        found.sort(key=_first if key is None else lambda pair: key(pair[0]), reverse=self.order.descending)
        return found

    @staticmethod
    def _merged(pairs: Iterator[tuple[Any, Any]], aggregator: Aggregator) -> dict[Any, Any]:
        table: dict[Any, Any] = {}
        for key, value in pairs:
            if key not in table:
                table[key] = value if aggregator.map_side else aggregator.create(value)
            elif aggregator.map_side:
                table[key] = aggregator.merge_combiners(table[key], value)
            else:
                table[key] = aggregator.merge_value(table[key], value)
        return table


def _drained(program: StageProgram) -> StageProgram:
    """A stage that ends with a shuffle ends here with what it does before it writes."""
    if isinstance(program.output, Result):
        return program
    output, last = program.output, program.steps[-1]
    steps = program.steps
    if output.aggregator is not None and output.aggregator.map_side:
        inputs = (StepInput(len(steps) - 1, Window(0, last.num_partitions)),)
        step = Step(last.rdd, Aggregate(output.aggregator), inputs, last.num_partitions, output.operation, output.call_site)
        steps = (*steps, step)
    return replace(program, steps=steps, output=Result(drain_rows, output.operation, output.call_site))


def replay_of(
    runner: JobRunner, stages: Iterable[StageCut], result: Result, shuffle: ShuffleId | None, partition: int, error: str
) -> Replay | None:
    """A replay of a partition of the one of a job's stages that writes a shuffle, or (None) has the result; None when there is none."""
    for stage in stages:
        if shuffle == (None if stage.writes is None else stage.writes.id):
            return Replay(runner, stage, result, partition, error)
    return None
