"""Reduce partitions that are next to one another and small share a task: which do, from the sizes that map outputs report.

Runs in the scheduler process inside ``SchedulerCore``.

A stage keeps its partitions, and whoever reads its results or outputs finds them in their order; what is fewer are the tasks. The task
of partition ``p`` computes ``p``, ``p + 1``, ... up to its *span*, one after the other, and the others are *covered*: no task is theirs.
Wherever the core speaks of a task by its partition, it is by the first one of its span.

Sizes say nothing about what the user's functions do with a row. So an executor that finds a task to take long gives back those partitions
that it has not begun, and each of them becomes a task of its own; and so do all of a task that fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from flowkit.model.ids import PartitionIndex

#: so many tasks for each slot are left at least: what is late evens out, and none is lost at great cost
TASKS_PER_SLOT: Final = 4
#: what a partition costs besides its bytes, as bytes: empty ones are not free
_PARTITION_BYTES: Final = 4 << 10
#: sharing that leaves more of the tasks than this is not worth it
_WORTH: Final = 0.75


class Spans:
    """Which tasks of a stage compute several partitions.

    >>> spans = Spans()
    >>> spans.join(PartitionIndex(2), 3)
    >>> spans.length(PartitionIndex(2)), spans.length(PartitionIndex(7)), sorted(spans.covered)
    (3, 1, [3, 4])
    >>> spans.cut(PartitionIndex(2), 2), sorted(spans.covered)
    ([4], [3])
    """

    __slots__ = ("_lengths", "covered")

    def __init__(self) -> None:
        self._lengths: dict[PartitionIndex, int] = {}
        #: partitions that the task of one before them computes
        self.covered: set[PartitionIndex] = set()

    def join(self, first: PartitionIndex, length: int) -> None:
        """One task computes so many partitions, from the first on."""
        self._lengths[first] = length
        self.covered.update(PartitionIndex(partition) for partition in range(first + 1, first + length))

    def length(self, first: PartitionIndex) -> int:
        """How many partitions the task of this one computes."""
        return self._lengths.get(first, 1)

    def cut(self, first: PartitionIndex, length: int) -> list[PartitionIndex]:
        """A task computes only so many; returns those that are tasks of their own from now on."""
        freed = [PartitionIndex(partition) for partition in range(first + length, first + self.length(first))]
        self.covered.difference_update(freed)
        if length > 1:
            self._lengths[first] = length
        else:
            self._lengths.pop(first, None)
        return freed

    def all_of(self, tasks: Iterable[PartitionIndex]) -> tuple[PartitionIndex, ...]:
        """The partitions that tasks compute."""
        return tuple(PartitionIndex(first + each) for first in tasks for each in range(self.length(first)))


def too_few_to_share(slots: int) -> int:
    """So many partitions have a task each, whatever their sizes, where there are so many slots.

    >>> too_few_to_share(2)
    10
    """
    return int(TASKS_PER_SLOT * slots / _WORTH)


def share(
    wanted: Sequence[PartitionIndex], sizes: Sequence[int], target_bytes: int, least: int
) -> list[tuple[PartitionIndex, int]]:
    """Tasks that are to compute several partitions, each with how many; at least so many tasks are left. None where it is not worth it."""
    weights = [size + _PARTITION_BYTES for size in sizes]
    total = sum(weights[partition] for partition in wanted)
    spans = spans_of(wanted, weights, min(target_bytes, total // least))
    return [span for span in spans if span[1] > 1] if len(spans) <= _WORTH * len(wanted) else []


def spans_of(wanted: Iterable[PartitionIndex], sizes: Sequence[int], most_bytes: int) -> list[tuple[PartitionIndex, int]]:
    """Partitions put together as long as they follow one another and are at most so large together.

    >>> spans_of(map(PartitionIndex, range(6)), [10, 10, 50, 10, 10, 10], 30)
    [(0, 2), (2, 1), (3, 3)]
    >>> spans_of(map(PartitionIndex, (0, 2, 3)), [1, 1, 1, 1], 30)
    [(0, 1), (2, 2)]
    """
    spans: list[tuple[PartitionIndex, int]] = []
    size = 0
    for partition in wanted:
        if spans and sum(spans[-1]) == partition and size + sizes[partition] <= most_bytes:
            spans[-1] = spans[-1][0], spans[-1][1] + 1
            size += sizes[partition]
        else:
            spans.append((partition, 1))
            size = sizes[partition]
    return spans
