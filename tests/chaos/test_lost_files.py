"""Shuffle files that vanish or rot under a job."""

from __future__ import annotations

from operator import add
from pathlib import Path

import pytest

from flowkit.model import events as ev
from tests.chaos.conftest import once

pytestmark = pytest.mark.chaos

MAPS, REDUCERS = 6, 4


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(0, len(data) // 2, 5):
        data[at] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [Path.unlink, cut, flip], ids=["deleted", "cut short", "corrupted"])
def test_exactly_the_map_task_of_a_damaged_file_runs_again(start, story, tmp_path: Path, damage):
    directory = tmp_path / "files"
    fc = start(workers=1, local_directory=str(directory))

    def damage_before_reading(_partition, pairs):
        # The pairs are read when they are first asked for: the first reduce task finds one file damaged.
        if once(tmp_path / "damaged"):
            (victim,) = directory.glob("*/shuffle-*/map-2-*")
            damage(victim)
        return pairs

    counts = (
        fc.range(3_000, num_partitions=MAPS)
        .map(lambda i: (i % 50, 1))
        .reduce_by_key(add, num_partitions=REDUCERS)
        .map_partitions_with_index(damage_before_reading)
    )
    assert counts.collect_as_map() == dict.fromkeys(range(50), 60)
    story.wait_until_jobs_ended()
    stage = story.map_stages()[0].stage
    assert story.successes(stage) == {partition: 2 if partition == 2 else 1 for partition in range(MAPS)}
    assert [event.partitions for event in story.of(ev.ShuffleOutputsLost)] == [(2,)]
    assert story.successes(story.result_stage().stage) == dict.fromkeys(range(REDUCERS), 1)
    assert not any(end.counted for end in story.failures()), "a fetch failure is nobody's fault"
