"""Shuffle files that vanish or rot under a job."""

from __future__ import annotations

from operator import add
from pathlib import Path

import pytest

from flowkit.model import events as ev
from tests.chaos.conftest import die, once

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
            (victim,) = directory.glob("*/*/shuffle-*/map-2-*")
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


def test_all_deleted_outputs_are_made_again_in_one_round(start, story, tmp_path: Path):
    # As a cleaner of temporary files deletes them: between two jobs, behind everybody's back.
    directory = tmp_path / "files"
    fc = start(workers=1, local_directory=str(directory))
    counts = fc.range(3_000, num_partitions=12).map(lambda i: (i % 50, 1)).reduce_by_key(add, num_partitions=REDUCERS)
    assert counts.collect_as_map() == dict.fromkeys(range(50), 60)
    victims = list(directory.glob("*/*/shuffle-*/map-*"))
    assert len(victims) == 12
    for path in victims:
        path.unlink()
    fc.range(1).foreach(lambda _: die(tmp_path / "died"))  # its process may hold some of them open
    assert counts.collect_as_map() == dict.fromkeys(range(50), 60)
    story.wait_until_jobs_ended(3)
    stage = story.map_stages()[0].stage
    assert story.successes(stage) == dict.fromkeys(range(12), 2)
    assert [len(event.partitions) for event in story.of(ev.ShuffleOutputsLost)] == [12]
    assert [event.task_count for event in story.of(ev.StageSubmitted) if event.stage == stage] == [12, 12], "one attempt made all"


def test_all_damaged_outputs_are_made_again_in_one_round(start, story, tmp_path: Path):
    directory = tmp_path / "files"
    fc = start(workers=1, local_directory=str(directory))
    counts = fc.range(3_000, num_partitions=12).map(lambda i: (i % 50, 1)).reduce_by_key(add, num_partitions=1)
    assert counts.collect_as_map() == dict.fromkeys(range(50), 60)
    for path in directory.glob("*/*/shuffle-*/map-*"):
        flip(path)
    assert counts.collect_as_map() == dict.fromkeys(range(50), 60)
    story.wait_until_jobs_ended(2)
    stage = story.map_stages()[0].stage
    assert story.successes(stage) == dict.fromkeys(range(12), 2)
    assert [len(event.partitions) for event in story.of(ev.ShuffleOutputsLost)] == [12]
