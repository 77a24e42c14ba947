"""Rows that differ each time they are computed, of which some are lost after others were read."""

from __future__ import annotations

import uuid
from collections import Counter
from pathlib import Path

import pytest

import flowkit as fk
from flowkit.model import events as ev
from tests.chaos.conftest import once

pytestmark = pytest.mark.chaos

MAPS, REDUCERS = 4, 3


def drawn(partition, _rows):
    """One row for each reducer, all of the same random token."""
    token = uuid.uuid4().hex
    return [(reducer, (partition, token)) for reducer in range(REDUCERS)]


def with_a_loss_on_the_way(fc, directory: Path, marker: Path):
    """Rows by reducer; one map output is emptied when the first reducer is done and the second has not read yet."""

    def lose(partition, rows):
        if partition == 1 and once(marker):
            (victim,) = directory.glob("*/*/shuffle-*/map-2-*")
            victim.write_bytes(b"")  # emptied, not unlinked: it may be open
        return rows

    rows = fc.range(MAPS, num_partitions=MAPS).map_partitions_with_index(drawn).indeterminate()
    return rows.partition_by(REDUCERS, lambda key: key).map_partitions_with_index(lose)


def test_a_rolled_back_stage_gives_all_readers_the_same_rows(start, story, tmp_path: Path):
    directory = tmp_path / "files"
    fc = start(workers=1, local_directory=str(directory))
    seen = (
        with_a_loss_on_the_way(fc, directory, tmp_path / "lost")
        .map(lambda row: row[1])
        .group_by_key(2)
        .map_values(set)
        .collect_as_map()
    )
    assert set(seen) == set(range(MAPS))
    assert all(len(tokens) == 1 for tokens in seen.values()), "some readers saw the rows of another run"
    story.wait_until_jobs_ended()
    first, second = story.map_stages()
    assert story.successes(first.stage) == dict.fromkeys(range(MAPS), 2), "all of it runs again, not only what was lost"
    assert story.successes(second.stage)[0] == 2, "and so does who had read it"


def test_what_was_cached_of_the_old_rows_goes_with_them(start, story, tmp_path: Path):
    directory = tmp_path / "files"
    fc = start(workers=1, local_directory=str(directory))
    kept = with_a_loss_on_the_way(fc, directory, tmp_path / "lost").cache()
    seen = kept.map(lambda row: row[1]).group_by_key(2).map_values(set).collect_as_map()
    assert all(len(tokens) == 1 for tokens in seen.values()), "some rows came from the cache, of another run"
    again: dict[int, set[str]] = {}
    for _, (partition, token) in kept.collect():
        again.setdefault(partition, set()).add(token)
    assert again == seen, "what is cached now are the new rows"
    story.wait_until_jobs_ended(2)
    cached = Counter((block.rdd, block.partition) for each in story.of(ev.BlocksCached) for block in each.blocks)
    cached.subtract(block for each in story.of(ev.BlocksLost) for block in each.blocks)
    assert cached == dict.fromkeys(((kept.id, partition) for partition in range(REDUCERS)), 1), "listeners know them by their RDD"
    kept.unpersist(blocking=True)
    assert len(kept.collect()) == MAPS * REDUCERS


def test_a_job_that_has_delivered_results_of_lost_rows_fails_and_says_why(start, story, tmp_path: Path):
    directory = tmp_path / "files"
    fc = start(workers=1, local_directory=str(directory))
    with pytest.raises(fk.errors.FlowkitError, match="yields other rows each time it runs"):
        with_a_loss_on_the_way(fc, directory, tmp_path / "lost").collect()
    story.wait_until_jobs_ended()
    assert story.of(ev.JobEnd)[0].outcome == "failed"
    assert fc.range(10).sum() == 45
