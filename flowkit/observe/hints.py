"""What could be better about a stage, each with the number that shows it and the line to change.

Pure. A hint is said only when it is worth seconds: nobody wants advice on a job of a moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from flowkit.model.ids import executor_label
from flowkit.observe.executor_times import SlowExecutor
from flowkit.observe.metrics import format_bytes, format_count, format_seconds
from flowkit.visible import in_one_line

#: a slowest task that is so much slower than the median one, and takes so long, is worth a word
_SKEW, _SKEW_S = 4.0, 1.0
#: tasks shorter than this are mostly overhead, when there are so many
_TINY_S, _MANY_TASKS = 0.003, 500
#: a stage that took so long with fewer tasks than slots
_IDLE_S: Final = 2.0
#: a shuffle of lists that is so large
_GROUPED_BYTES: Final = 32 << 20
#: what is computed so often, for so long, could be kept
_TIMES, _AGAIN_S = 3, 1.0
#: the kind of a hint about a key
SKEWED_KEY: Final = "skewed key"
#: rows of one key that are worth a word, and their part of all
_HOT_ROWS, _HOT_PART = 100_000, 0.2
_AGAINST_ONE_KEY: Final = (
    "leave the key out if it means nothing (None, empty), combine by reduce_by_key, or add a part of a random number to the key"
)


class Hint(msgspec.Struct, frozen=True):
    """One thing that could be better."""

    #: skew, skewed key, slow executor, spill, tiny tasks, few tasks, grouping, computed again
    kind: str
    #: with the number that shows it
    text: str
    #: what to change, and where
    change: str


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What hints are drawn from."""

    #: ``map at words.py:3``
    name: str
    operations: tuple[str, ...]
    task_count: int
    done: int
    median_s: float
    greatest_s: float
    slowest_partition: int
    spilled_bytes: int
    shuffle_read_bytes: int
    #: seconds since it began, or that it took
    seconds: float
    #: task slots of the cluster
    slots: int
    #: in how many jobs it was computed, and for how many seconds of tasks together
    times: int = 1
    total_s: float = 0.0
    shuffle_write_rows: int = 0
    #: a key that many of those rows have, as text, and about how many
    hot_key: str = ""
    hot_key_rows: int = 0
    #: of the stages whose shuffles it reads: rows of the one with the hottest key, that key, and about how many have it
    read_rows: int = 0
    read_hot_key: str = ""
    read_hot_key_rows: int = 0
    slow_executor: SlowExecutor | None = None

    def reading(self, parents: Iterable[StageFacts]) -> StageFacts:
        """With what the stages did whose shuffles it reads."""
        hottest = max(parents, key=lambda each: each.hot_key_rows, default=None)
        if hottest is None or not hottest.hot_key:
            return self
        return replace(
            self,
            read_rows=hottest.shuffle_write_rows,
            read_hot_key=hottest.hot_key,
            read_hot_key_rows=hottest.hot_key_rows,
        )


def hints_for(stage: StageFacts) -> Iterator[Hint]:
    """Hints about one stage.

    >>> slow = StageFacts("map at a.py:3", ("map",), 8, 8, 0.5, 9.0, 3, 0, 0, 9.0, 2)
    >>> [hint.kind for hint in hints_for(slow)]
    ['skew']
    """
    if stage.done >= 4 and stage.greatest_s > _SKEW_S and stage.greatest_s > _SKEW * max(stage.median_s, 1e-3):
        yield _skew(stage)
    if stage.hot_key_rows >= _HOT_ROWS and stage.hot_key_rows >= _HOT_PART * stage.shuffle_write_rows:
        part = stage.hot_key_rows / max(1, stage.shuffle_write_rows)
        yield Hint(
            SKEWED_KEY,
            f"{stage.hot_key} is the key of about {format_count(stage.hot_key_rows)} rows that {stage.name} shuffles, {part:.0%} of all",
            f"one task gets them all, unless it is the left side of a join: {_AGAINST_ONE_KEY}",
        )
    if (slow := stage.slow_executor) is not None:
        yield Hint(
            "slow executor",
            f"tasks of {stage.name} take {format_seconds(slow.mean_s)} on executor {executor_label(slow.executor)}, on the others "
            f"{format_seconds(slow.others_s)}",
            "its machine is busy, or slower than others: look there, or leave it out",
        )
    if stage.spilled_bytes:
        yield Hint(
            "spill",
            f"{stage.name} spilled {format_bytes(stage.spilled_bytes)} to disk for want of memory",
            "more partitions where it is shuffled (num_partitions=...), or a reduce_by_key in place of a group",
        )
    if stage.done >= _MANY_TASKS and stage.median_s < _TINY_S:
        yield Hint(
            "tiny tasks",
            f"{format_count(stage.task_count)} tasks of {stage.name} took {format_seconds(stage.median_s)} each, by the median",
            "fewer partitions (num_partitions=..., or coalesce) do the same with less around it",
        )
    if stage.done and 0 < stage.task_count < stage.slots and stage.seconds > _IDLE_S:
        yield Hint(
            "few tasks",
            f"{stage.name} has {stage.task_count} tasks for {stage.slots} slots, and took {format_seconds(stage.seconds)}",
            f"num_partitions={stage.slots} or more uses all of them",
        )
    if "group_by_key" in stage.operations and stage.shuffle_read_bytes > _GROUPED_BYTES:
        yield Hint(
            "grouping",
            f"group_by_key in {stage.name} moves every value: {format_bytes(stage.shuffle_read_bytes)}",
            "when the lists are only summed up, counted or searched, reduce_by_key or aggregate_by_key moves one value a key",
        )
    if stage.times >= _TIMES and stage.total_s > _AGAIN_S:
        yield Hint(
            "computed again",
            f"{stage.name} was computed in {stage.times} jobs, {format_seconds(stage.total_s)} of tasks together",
            "cache() what they share",
        )


def _skew(stage: StageFacts) -> Hint:
    where = f"partition {stage.slowest_partition}" if stage.slowest_partition >= 0 else "the slowest task"
    text = f"{where} of {stage.name} took {format_seconds(stage.greatest_s)}, the median {format_seconds(stage.median_s)}"
    if stage.read_hot_key_rows >= _HOT_PART * max(1, stage.read_rows):
        part = min(1.0, stage.read_hot_key_rows / max(1, stage.read_rows))
        text += f"; {stage.read_hot_key} is the key of about {format_count(stage.read_hot_key_rows)} rows that it reads, {part:.0%} of all"
        return Hint("skew", text, f"one task gets them all, however many partitions there are: {_AGAINST_ONE_KEY}")
    if stage.shuffle_read_bytes:
        return Hint(
            "skew",
            text,
            "no one key has a large part of the rows: more partitions (num_partitions=...) help, unless single rows are slow",
        )
    return Hint(
        "skew",
        text,
        "its input is larger, or slower to work on: smaller files, or repartition() before the work, unless single rows are slow",
    )


class Hints(tuple[Hint, ...]):
    """Hints that read as text.

    >>> Hints()
    no hints
    >>> Hints([Hint("spill", "a spilled 1 GB", "more partitions")])
    a spilled 1 GB: more partitions
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n".join(in_one_line(f"{each.text}: {each.change}") for each in self) or "no hints"
