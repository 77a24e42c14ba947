"""A failed partition again, here: its inputs come from the cluster, its functions run in the driver, where a debugger is.

Runs on the driver. An error that a task raised carries a ``Replay`` as its attribute ``replay``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

from flowkit.abc import JobRunner
from flowkit.errors import NotReplayable
from flowkit.execution.actions import collect_rows, drain_rows
from flowkit.execution.blame import is_own
from flowkit.execution.replaying import NO_ELEMENT, LocalRun, run_here
from flowkit.lineage.kernels import Aggregate, Result, StageProgram, Step, StepInput, Window
from flowkit.lineage.nodes import Node, Shuffle
from flowkit.lineage.stages import StageCut, cut, program_of
from flowkit.model.ids import ShuffleId
from flowkit.rdd.checks import check_on_driver


class Replayed:
    """How it went this time.

    Attributes
    ----------
    error
        What was raised; None when it went well this time.
    element
        What the function that raised was called with. Raises ``AttributeError`` where there is none.
    value
        What the partition gave when it went well.
    """

    def __init__(self, run: LocalRun, place: str) -> None:
        self.error = run.error
        self.value = run.value
        self._element = run.element
        self._place = place

    @property
    def element(self) -> Any:
        """See the class."""
        if self._element is NO_ELEMENT:
            raise AttributeError("no function was called with one element when it failed")
        return self._element

    @property
    def traceback(self) -> TracebackType | None:
        """From the user's frames on."""
        return None if self.error is None else users_part(self.error.__traceback__)

    def __repr__(self) -> str:
        if self.error is None:
            return f"<{self._place} went well this time>"
        at = "" if self._element is NO_ELEMENT else f" at {self._element!r:.200}"
        return f"<{self._place} failed again{at}: {type(self.error).__name__}: {str(self.error).partition(chr(10))[0]}>"


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

    def __init__(self, runner: JobRunner, stage: StageCut, result: Result, partition: int) -> None:
        self._runner = runner
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
        found = self.run()
        if debug and found.traceback is not None:
            post_mortem(found.traceback)
        return found

    def run(self) -> Replayed:
        """Run it again."""
        program = _drained(program_of(self._stage, self._result))
        try:
            rows = self._inputs(cached=True)
        except Exception:
            # What is cached may be what fails.
            try:
                rows = self._inputs(cached=False)
            except Exception as error:
                raise NotReplayable(
                    f"partition {self.partition} of {self._stage.root.label} fails where its rows are read, or merged while they are "
                    f"read: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
                ) from error
        return Replayed(run_here(program, self.partition, rows), repr(self)[1:-1])

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


def replay_of(runner: JobRunner, node: Node, result: Result, shuffle: ShuffleId | None, partition: int) -> Replay | None:
    """A replay of a partition of the stage that writes a shuffle, or (None) has the result; None when there is none any more."""
    for stage in cut(node):
        if shuffle == (None if stage.writes is None else stage.writes.id):
            return Replay(runner, stage, result, partition)
    return None


def users_part(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback without flowkit's frames; the same where there are no others."""
    frames = []
    found = traceback
    while found is not None:
        if not is_own(found.tb_frame.f_code.co_filename):
            frames.append(found)
        found = found.tb_next
    trimmed: TracebackType | None = None
    for each in reversed(frames):
        trimmed = TracebackType(trimmed, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return trimmed or traceback


def post_mortem(traceback: TracebackType) -> None:
    """A debugger at the last frame of a traceback: IPython's where that runs, else Python's."""
    if "IPython" in sys.modules:
        from IPython.core.debugger import Pdb
        from IPython.core.getipython import get_ipython

        if get_ipython() is not None:
            debugger = Pdb()
            debugger.reset()
            debugger.interaction(None, traceback)  # type: ignore[no-untyped-call]
            return
    import pdb  # noqa: T100 - that is what was asked for

    pdb.post_mortem(traceback)
