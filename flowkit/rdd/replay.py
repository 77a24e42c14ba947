"""A failed partition again, here: its inputs come from the cluster, its functions run in the driver, where a debugger is.

Runs on the driver. An error that a task raised carries a ``Replay`` as its attribute ``replay``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowkit.abc import JobRunner
from flowkit.errors import NotReplayable
from flowkit.execution.actions import collect_rows, drain_rows
from flowkit.execution.replaying import run_here
from flowkit.lineage.kernels import Aggregate, Result, StageProgram, Step, StepInput, Window
from flowkit.lineage.nodes import Node, Shuffle
from flowkit.lineage.stages import StageCut, cut, program_of
from flowkit.model.ids import ShuffleId
from flowkit.rdd.capsules import save_capsule
from flowkit.rdd.checks import check_on_driver
from flowkit.rdd.replayed import Replayed, debugged


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
            It failed where rows are read or merged on their way from other partitions, so there are no inputs to give it.

        Notes
        -----
        Cost: a job for the partition's inputs (what was cached, shuffled, or read), which come to the driver whole.
        """
        check_on_driver("replay")
        return debugged(self.run(), debug=debug)

    def run(self) -> Replayed:
        """Run it again."""
        return Replayed(run_here(self._program(), self.partition, self._rows()), repr(self)[1:-1])

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
        program, rows = self._program(), self._rows()
        return save_capsule(path, program, self.partition, rows, place=repr(self)[1:-1], error=self._error)

    def _program(self) -> StageProgram:
        return _drained(program_of(self._stage, self._result))

    def _rows(self) -> dict[int, Mapping[int, list[Any]]]:
        """What the partition begins with."""
        try:
            return self._inputs(cached=True)
        except Exception:
            # What is cached may be what fails.
            try:
                return self._inputs(cached=False)
            except Exception as error:
                raise NotReplayable(
                    f"partition {self.partition} of {self._stage.root.label} fails where its rows are read, or merged while they are "
                    f"read: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
                ) from error

    def _inputs(self, *, cached: bool) -> dict[int, Mapping[int, list[Any]]]:
        """Rows of the nodes at which the stage begins, by their place in it."""
        nodes = self._stage.nodes
        places = {node.id: place for place, node in enumerate(nodes)}
        wanted: dict[int, set[int]] = {}
        visits = [(self._stage.root, self.partition)]
        seen = set(visits)
        for node, partition in visits:  # grows while it is walked
            if _begins(node, cached=cached and node is not self._stage.root):
                wanted.setdefault(places[node.id], set()).add(partition)
                continue
            for dependency in node.dependencies:
                assert not isinstance(dependency, Shuffle)
                for inner in dependency.known_mapping().inputs_of(partition):
                    if (dependency.parent, inner) not in seen:
                        seen.add((dependency.parent, inner))
                        visits.append((dependency.parent, inner))
        rows: dict[int, Mapping[int, list[Any]]] = {}
        for place, partitions in wanted.items():
            order = sorted(partitions)
            call_site = nodes[place].call_site
            parts = self._runner.run_job(nodes[place], collect_rows, order, operation="replay (inputs)", call_site=call_site)
            rows[place] = dict(zip(order, parts, strict=True))
        return rows

    def __repr__(self) -> str:
        return f"<partition {self.partition} of {self._stage.root.label}>"

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel; what they could be replayed with stays here.
        return _nothing, ()


def _nothing() -> None:
    return None


def _begins(node: Node, *, cached: bool) -> bool:
    """Whether rows are taken from here, not computed here."""
    return not node.dependencies or (cached and node.cached) or any(isinstance(each, Shuffle) for each in node.dependencies)


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
    runner: JobRunner, node: Node, result: Result, shuffle: ShuffleId | None, partition: int, error: str
) -> Replay | None:
    """A replay of a partition of the stage that writes a shuffle, or (None) has the result; None when there is none any more."""
    for stage in cut(node):
        if shuffle == (None if stage.writes is None else stage.writes.id):
            return Replay(runner, stage, result, partition, error)
    return None
