"""Accumulators while workers die."""

from __future__ import annotations

from operator import add
from pathlib import Path

import pytest

from flowkit.model import events as ev
from tests.chaos.conftest import die

pytestmark = pytest.mark.chaos

ROWS = 2_000


def test_a_killed_worker_leaves_the_sum_exact(start, story, tmp_path: Path):
    fc = start(workers=3)
    seen, reduced = fc.accumulator(0, name="seen"), fc.accumulator(0)
    markers = [tmp_path / "map", tmp_path / "reduce"]

    def mapper(partition, rows):
        for row in rows:
            seen.add(1)
            yield row % 10, row
        if partition == 3:
            die(markers[0])

    def reducer(partition, pairs):
        if partition == 1:
            die(markers[1])
        for pair in pairs:
            reduced.add(1)
            yield pair

    sums = fc.range(ROWS, num_partitions=8).map_partitions_with_index(mapper).reduce_by_key(add, 4)
    assert sum(sums.map_partitions_with_index(reducer).values().collect()) == sum(range(ROWS))
    assert all(marker.exists() for marker in markers)
    assert (seen.value, reduced.value) == (ROWS, 10)
    story.wait_until_jobs_ended()
    assert sum(int(end.accumulated.get("seen", 0)) for end in story.of(ev.TaskEnd)) >= ROWS
