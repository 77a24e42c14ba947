"""Random choices that are the same each time: a generator for each partition, seeded by the caller's seed and the partition's number.

Runs on slot threads. Draws are made for thousands of rows at once; rows pass by C-level iterators.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, compress, count, islice, repeat
from operator import itemgetter
from typing import Any

import numpy as np

_ROWS_AT_ONCE = 4_096


def _generator(seed: int, partition: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, partition]))


def _blocks(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while block := list(islice(rows, _ROWS_AT_ONCE)):
        yield block


@dataclass(frozen=True, slots=True)
class SampleRows:
    """Rows whose draw, uniform in [0, 1), lies in ``[low, high)``: of ranges that do not meet, samples that do not."""

    low: float
    high: float
    seed: int

    def __call__(self, partition: int, rows: Iterator[Any]) -> Iterable[Any]:
        draws = _generator(self.seed, partition)
        return chain.from_iterable(self._chosen(block, draws) for block in _blocks(rows))

    def _chosen(self, block: list[Any], draws: np.random.Generator) -> Iterable[Any]:
        drawn = draws.random(len(block))
        return compress(block, ((drawn >= self.low) & (drawn < self.high)).tolist())


@dataclass(frozen=True, slots=True)
class RepeatRows:
    """Each row as often as a Poisson distribution of mean ``fraction`` says: a sample with replacement."""

    fraction: float
    seed: int

    def __call__(self, partition: int, rows: Iterator[Any]) -> Iterable[Any]:
        draws = _generator(self.seed, partition)
        return chain.from_iterable(
            chain.from_iterable(map(repeat, block, draws.poisson(self.fraction, len(block)).tolist())) for block in _blocks(rows)
        )


@dataclass(frozen=True, slots=True)
class SampleByKey:
    """Pairs chosen with the probability of their key; ``KeyError`` for a key without one."""

    fractions: Mapping[Any, float]
    seed: int
    with_replacement: bool

    def __call__(self, partition: int, rows: Iterator[Any]) -> Iterator[Any]:
        draws = _generator(self.seed, partition)
        for block in _blocks(rows):
            fractions = [self.fractions[key] for key, _ in block]
            if self.with_replacement:
                yield from chain.from_iterable(map(repeat, block, draws.poisson(fractions).tolist()))
            else:
                yield from compress(block, (draws.random(len(block)) < fractions).tolist())


@dataclass(frozen=True, slots=True)
class DrawRows:
    """``(draw, row)`` of the ``limit`` smallest draws: the smallest of all partitions together are a uniform sample of all rows."""

    limit: int
    seed: int

    def __call__(self, partition: int, rows: Iterator[Any]) -> list[tuple[float, Any]]:
        draws = _generator(self.seed, partition)
        drawn = (
            (draw, row) for block in _blocks(rows) for draw, row in zip(draws.random(len(block)).tolist(), block, strict=True)
        )
        return heapq.nsmallest(self.limit, drawn, key=itemgetter(0))


@dataclass(frozen=True, slots=True)
class RowsAt:
    """Rows at some places of each partition, ascending: ``places[partition]``."""

    places: Mapping[int, tuple[int, ...]]

    def __call__(self, partition: int, rows: Iterator[Any]) -> list[Any]:
        found, before = [], -1
        for place in self.places.get(partition, ()):
            if place != before:
                row = next(islice(rows, place - before - 1, None))
                before = place
            found.append(row)
        return found


@dataclass(frozen=True, slots=True)
class RoundRobin:
    """``(partition, row)``: rows dealt out one by one; each partition begins at another one, so that short ones fill all evenly."""

    num_partitions: int

    def __call__(self, partition: int, rows: Iterator[Any]) -> Iterable[tuple[int, Any]]:
        n = self.num_partitions
        return ((place % n, row) for place, row in enumerate(rows, start=partition))


@dataclass(frozen=True, slots=True)
class UniqueIds:
    """``(row, id)``: ids ``partition``, ``partition + n``, ``partition + 2 n`` and so on."""

    num_partitions: int

    def __call__(self, partition: int, rows: Iterator[Any]) -> Iterable[tuple[Any, int]]:
        return zip(rows, count(partition, self.num_partitions), strict=False)
