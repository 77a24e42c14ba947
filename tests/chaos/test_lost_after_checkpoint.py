"""Map outputs that are lost when what they were made of was checkpointed, or is kept otherwise, since."""

from __future__ import annotations

from operator import add
from pathlib import Path

import pytest

import flowkit as fk
from flowkit import StorageLevel
from flowkit.model import events as ev
from tests.chaos.conftest import die

pytestmark = pytest.mark.chaos

EXPECTED = {key: sum(value + 1 for value in range(300) if value % 5 == key) for key in range(5)}


def lose_map_outputs(fc: fk.Context, directory: Path) -> None:
    """Delete every shuffle file, and the only worker with it: its process may hold some of them open."""
    victims = list(directory.glob("*/*/shuffle-*/map-*"))
    assert victims
    for path in victims:
        path.unlink()
    fc.range(1).foreach(lambda _: die(directory / "died"))


def test_what_is_lost_after_a_checkpoint_is_made_from_the_checkpoint(start, story, tmp_path: Path):
    directory = tmp_path / "files"
    fc = start(workers=1, local_directory=str(directory))
    pairs = fc.range(300, num_partitions=4).map(lambda i: (i % 5, i)).partition_by(3).checkpoint(tmp_path / "pairs")
    sums = pairs.map_values(lambda value: value + 1).reduce_by_key(add, num_partitions=2)
    assert sums.map(tuple).collect_as_map() == EXPECTED
    assert pairs.is_checkpointed
    # What the checkpoint spares is gone as well: nothing of it may be asked for.
    lose_map_outputs(fc, directory)
    assert sums.map(tuple).collect_as_map() == EXPECTED
    story.wait_until_jobs_ended(3)
    last = story.of(ev.JobStart)[-1]
    assert [stage.name.partition(" at ")[0] for stage in last.stages] == ["map_values", "map"], "the checkpoint has no parents"


def test_a_stage_that_runs_again_heeds_the_storage_level_of_now(start, story, tmp_path: Path):
    directory = tmp_path / "files"
    fc = start(workers=1, local_directory=str(directory))
    pairs = fc.range(300, num_partitions=4).map(lambda i: (i % 5, i + 1)).persist(StorageLevel.MEMORY_ONLY)
    sums = pairs.reduce_by_key(add, num_partitions=2)
    assert sums.map(tuple).collect_as_map() == EXPECTED
    pairs.unpersist(blocking=True).persist(StorageLevel.DISK_ONLY)
    lose_map_outputs(fc, directory)
    assert sums.map(tuple).collect_as_map() == EXPECTED
    story.wait_until_jobs_ended(3)
    [again] = [index for index, event in enumerate(story.events) if isinstance(event, ev.JobStart) and event.job == 2]
    blocks = [block for event in story.events[again:] if isinstance(event, ev.BlocksCached) for block in event.blocks]
    assert sorted(block.partition for block in blocks) == [0, 1, 2, 3]
    assert all(block.disk_bytes and not block.memory_bytes for block in blocks)
