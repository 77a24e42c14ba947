"""Partitions of a join that are far larger than others are split: which, and into what pieces, from the sizes that map outputs report.

Runs in the scheduler process inside ``SchedulerCore``.

A join makes a table of one side and streams the other past it, and its rows come out in the order of the streamed side. So a partition can be
joined by several tasks, each of which reads the outputs of some map partitions of the streamed side, and all of the other: what they make, one
after the other, is what one task would have made. Spark's ``OptimizeSkewedJoin`` cuts by map partitions too.

In a stage of which something was split, what the core calls a partition is the number of a *piece*: pieces are counted in the order of
partitions, and most are a whole one. Outside, they are told by their partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import Final

from flowkit.model.ids import PartitionIndex, ShuffleId
from flowkit.model.task import Piece

#: a partition is split that is larger than so many pieces, and so many times the median one
_LEAST_PIECES, _SKEWED = 2, 4
_END: Final = (1 << 63) - 1


class Pieces:
    """The pieces of a stage, in the order of partitions.

    >>> pieces = Pieces(ShuffleId(7), {PartitionIndex(1): [(0, 2), (2, 5)]}, 3, tuple(map(PartitionIndex, (2, 1))))
    >>> [pieces.partition(PartitionIndex(number)) for number in range(pieces.count)]
    [0, 1, 1, 2]
    >>> pieces.wanted, pieces.piece(PartitionIndex(2)), pieces.piece(PartitionIndex(3))
    ((3, 1, 2), Piece(number=1, count=2, shuffle=7, first=2, end=5), None)
    """

    __slots__ = ("_partitions", "_pieces", "numbering", "shuffle", "wanted")

    def __init__(
        self,
        shuffle: ShuffleId,
        cuts: dict[PartitionIndex, list[tuple[int, int]]],
        count: int,
        wanted: Sequence[PartitionIndex],
        numbering: int = 0,
    ) -> None:
        #: whose outputs the pieces are ranges of, and which numbering of these (``map_outputs.MapOutputs.numbering``)
        self.shuffle, self.numbering = shuffle, numbering
        self._partitions: list[PartitionIndex] = []
        self._pieces: dict[int, Piece] = {}
        numbers: list[range] = []
        for partition in map(PartitionIndex, range(count)):
            begin = len(self._partitions)
            ranges = cuts.get(partition, ())
            for number, (first, end) in enumerate(ranges):
                self._pieces[begin + number] = Piece(number, len(ranges), shuffle, first, end)
            self._partitions += [partition] * max(1, len(ranges))
            numbers.append(range(begin, len(self._partitions)))
        #: those of the partitions that are wanted
        self.wanted = tuple(PartitionIndex(number) for partition in wanted for number in numbers[partition])

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._partitions)

    def partition(self, number: PartitionIndex) -> PartitionIndex:
        """The partition a piece belongs to."""
        return self._partitions[number]

    def piece(self, number: PartitionIndex) -> Piece | None:
        """What it reads; None: it is a whole partition."""
        return self._pieces.get(number)


def skewed(sizes: Sequence[int], piece_bytes: int) -> Iterator[tuple[int, int]]:
    """Partitions that are to be split, each with how many pieces that makes by their sizes.

    >>> list(skewed([10, 12, 100, 9], 20))
    [(2, 5)]
    >>> list(skewed([100, 100, 90], 20))
    []
    """
    usual = median(sizes) if sizes else 0
    target = max(piece_bytes, int(usual))
    for partition, size in enumerate(sizes):
        if size > _LEAST_PIECES * piece_bytes and size > _SKEWED * usual:
            yield partition, -(-size // target)


def cut(sizes: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """About so many ranges of map partitions, of about the same size each; of ``(map partition, bytes)`` in their order.

    What a range ends with is where the next output begins, so that an output which is made again in parts stays in its range.

    >>> cut([(0, 5), (1, 5), (4, 5), (7, 5)], 2)
    [(0, 4), (4, 9223372036854775807)]
    >>> cut([(0, 90), (1, 5), (2, 5)], 2)
    [(0, 1), (1, 9223372036854775807)]
    """
    total = sum(size for _, size in sizes)
    ranges: list[tuple[int, int]] = []
    first = taken = 0
    for (_, size), (following, _) in pairwise(sizes):
        taken += size
        if taken * count >= total * (len(ranges) + 1) and len(ranges) < count - 1:
            ranges.append((first, following))
            first = following
    return [*ranges, (first, _END)]
