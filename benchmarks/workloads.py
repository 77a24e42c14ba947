"""What is measured: names, sizes, and what each is for. The engines' own files say how each does it.

All inputs are made from integers by formulas that every engine repeats, except the text, which is a file.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """How much of everything, at ``scale`` 1.0 as in the published table."""

    scale: float = 1.0

    def _scaled(self, count: int, least: int) -> int:
        return max(least, round(count * self.scale))

    @property
    def tasks(self) -> int:
        return self._scaled(2_000, 20)

    @property
    def integers(self) -> int:
        return self._scaled(4_000_000, 1_000)

    @property
    def pairs(self) -> int:
        return self._scaled(2_000_000, 1_000)

    @property
    def keys(self) -> int:
        return self._scaled(500_000, 250)

    @property
    def nodes(self) -> int:
        return self._scaled(20_000, 100)

    @property
    def text_bytes(self) -> int:
        return self._scaled(197_000_000, 200_000)

    links: int = 8
    rounds: int = 10
    small_tasks: int = 8


@dataclass(frozen=True)
class Workload:
    """One row of the table."""

    name: str
    title: str
    #: runs timed together in one repetition, whose mean is taken: for what is shorter than a clock's noise
    runs: int = 1


WORKLOADS = (
    Workload("noop", "2,000 no-op tasks through one job, events on"),
    Workload("small", "job of 8 small tasks, warm", runs=20),
    Workload("map", "map, filter, map, sum of 4 M integers"),
    Workload("words", "word count of 197 MB of text"),
    Workload("group", "group 2 M pairs into 500 k keys"),
    Workload("sort", "sort 2 M pairs by key"),
    Workload("join", "join 2 M with 0.5 M pairs"),
    Workload("pagerank", "ten PageRank rounds, 20 k nodes of 8 links, cached"),
    Workload("startup", "from process start to the first result"),
)
BY_NAME = {each.name: each for each in WORKLOADS}
