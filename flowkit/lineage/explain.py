"""What an action would run, and what an RDD is made of, as text. Runs on the driver; starts nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby

from flowkit.lineage.kernels import Cartesian, Union
from flowkit.lineage.nodes import Node, Recipe, Shuffle
from flowkit.lineage.partitioners import FunctionPartitioner, HashPartitioner, Partitioner, PlacePartitioner
from flowkit.lineage.stages import StageCut, cut, is_coalescible, split_shuffle
from flowkit.model.ids import ShuffleId
from flowkit.visible import as_html, visible

#: More steps than this in a stage, and the middle is left out.
_MOST_STEPS = 30


class Explanation(str):
    """Text that shows itself instead of its repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return visible(self)

    def _repr_html_(self) -> str:
        lines = (f"<b>{as_html(line)}</b>" if line[:1].strip() else as_html(line) for line in self.splitlines())
        return f'<pre style="line-height: 1.3; white-space: pre; overflow-x: auto">{"<br>".join(lines)}</pre>'


#: what became of the stage that writes a shuffle, or of the one (None) of a node's result, when it last ran; empty for never
Ran = Callable[[Recipe, "ShuffleId | None"], str]


def explain(
    node: Node, ran: Ran = lambda _node, _shuffle: "", *, shares_above: int | None = None, splits: bool = False
) -> Explanation:
    """The stages in the order of the run; in each its steps, first to last. ``ran`` tells what they did, where they have run.

    ``shares_above``: of more partitions than these, small ones share tasks where they may. ``splits``: large ones have several.
    """
    stages = cut(node)
    number = {stage.writes.id: index for index, stage in enumerate(stages) if stage.writes is not None}
    users = {
        dependency.id: each.label
        for stage in stages
        for each in stage.nodes
        for dependency in each.dependencies
        if isinstance(dependency, Shuffle)
    }
    lines: list[str] = []
    for index, stage in enumerate(stages):
        many = shares_above is not None and stage.root.num_partitions > shares_above
        shared = ", small partitions share tasks" if many and is_coalescible(stage) else ""
        split = ", large ones are split" if splits and split_shuffle(stage) is not None else ""
        lines.append(_heading(index, stage, users) + shared + split)
        if told := ran(stage.root, None if stage.writes is None else stage.writes.id):
            lines.append(f"    ({told})")
        steps = _repeated(_step(each, number) for each in stage.nodes)
        if len(steps) > _MOST_STEPS:
            left_out = len(steps) - _MOST_STEPS
            half = _MOST_STEPS // 2
            steps = [*steps[:half], f"... {left_out} more ...", *steps[-half:]]
        lines += [f"    {step}" for step in steps]
    return Explanation("\n".join(lines))


def lineage_tree(node: Node) -> Explanation:
    """A node, and beneath it what each is made of; what several use is told once."""
    lines: list[str] = []
    told: set[int] = set()
    waiting = [(node, "", f"({node.num_partitions}) ")]
    while waiting:
        owner, indent, mark = waiting.pop()
        each = owner.recipe
        again = each.id in told
        lines.append(indent + mark + _tree_label(each) + ("   (see above)" if again and each.dependencies else ""))
        if again:
            continue
        told.add(each.id)
        inner = indent + ("   " if mark.startswith((" +-", " |-")) else "")
        plain = len(each.dependencies) == 1 and not isinstance(each.dependencies[0], Shuffle)
        for dependency in reversed(each.dependencies):
            parent = dependency.parent
            how = "+-" if isinstance(dependency, Shuffle) else "|-"
            waiting.append((parent, inner, " |  " if plain else f" {how}({parent.num_partitions}) "))
    return Explanation("\n".join(lines))


def _tree_label(node: Recipe) -> str:
    name = f"{node.name!r} " if node.name else ""
    return name + node.label + (f"   {node.level_in_words}" if node.cached else "")


def _heading(index: int, stage: StageCut, users: dict[ShuffleId, str]) -> str:
    if stage.writes is None:
        return f"stage {index}: result, {_partitions(stage.root.num_partitions)}"
    combined = ", combined before" if stage.writes.aggregator is not None and stage.writes.aggregator.map_side else ""
    return f"stage {index}: writes the shuffle of {users[stage.writes.id]}{combined}"


def _step(node: Recipe, number: dict[ShuffleId, int]) -> str:
    notes: list[str] = []
    shuffles = [each for each in node.dependencies if isinstance(each, Shuffle)]
    if shuffles:
        # An RDD that meets itself is read twice from one shuffle.
        stages = " and ".join(dict.fromkeys(f"stage {number[each.id]}" for each in shuffles))
        notes.append(f"<- {stages}, {_how(shuffles[0].partitioner)} into {node.num_partitions}")
        if len(shuffles) < len(node.dependencies):
            notes.append("(the other side lies so already: no shuffle)")
    elif not node.dependencies:
        notes.append(_partitions(node.num_partitions))
    elif isinstance(node.kernel, Cartesian):
        notes.append(f"every pair of partitions of 2 RDDs, {_partitions(node.num_partitions)}")
    elif len(node.dependencies) > 1:
        alike = "" if isinstance(node.kernel, Union) else " that lie alike (no shuffle)"
        notes.append(f"of {len(node.dependencies)} RDDs{alike}, {_partitions(node.num_partitions)}")
    else:
        (before,) = (each.parent.num_partitions for each in node.dependencies)
        if node.num_partitions != before:
            notes.append(f"{_partitions(before)} into {node.num_partitions}")
    if node.preparation is not None and not node.preparation.done:
        notes.append("[runs a job of its own before the first action]")
    if node.cached:
        notes.append(node.level_in_words)
    if node.barrier:
        notes.append("[all partitions at once]")
    if node.profile is not None:
        notes.append(f"[{node.profile} a task]")
    name = f"{node.name!r} " if node.name else ""
    return "   ".join([name + node.label, *notes])


def _repeated(steps: Iterable[str]) -> list[str]:
    """Equal steps in a row, as loops make them, told once."""
    told = [(step, sum(1 for _ in same)) for step, same in groupby(steps)]
    return [step if times == 1 else f"{step}   {times} times" for step, times in told]


def _partitions(count: int) -> str:
    return f"{count} partition{'' if count == 1 else 's'}"


def _how(partitioner: Partitioner) -> str:
    if isinstance(partitioner, HashPartitioner):
        return "hash partitioned"
    if isinstance(partitioner, PlacePartitioner):
        return "dealt out"
    return "partitioned by a function" if isinstance(partitioner, FunctionPartitioner) else "range partitioned"
