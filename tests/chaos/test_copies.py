"""Copies of cached partitions, and the handover of who leaves: what somebody still holds is never computed again."""

from __future__ import annotations

import os
import threading
from operator import add
from pathlib import Path

import pytest
from distributed import Client

import flowkit as fk
from flowkit import StorageLevel
from flowkit.model import events as ev
from tests.chaos.conftest import Story, die

pytestmark = pytest.mark.chaos

PARTS = 8


def copies(story: Story) -> int:
    """How many holders cached partitions have now."""
    held = {(block.rdd, block.partition, event.executor) for event in story.of(ev.BlocksCached) for block in event.blocks}
    gone = {(rdd, partition, event.executor) for event in story.of(ev.BlocksLost) for rdd, partition in event.blocks}
    return len(held - gone)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("level", [StorageLevel.MEMORY_ONLY_2, StorageLevel.MEMORY_AND_DISK_SER_2], ids=lambda level: level.name)
def test_a_killed_worker_costs_no_computation_where_there_are_copies(start, story, tmp_path: Path, level):
    fc = start(workers=3)
    computed = fc.accumulator(0)
    rows = fc.range(800, num_partitions=PARTS).map(lambda x: computed.add(1) or x).persist(level)
    assert rows.sum() == sum(range(800))
    story.wait_for(lambda _: copies(story) == 2 * PARTS, "two holders of each partition")
    marker = tmp_path / "killed"
    assert rows.map_partitions(lambda part: (die(marker), part)[1]).sum() == sum(range(800))
    story.wait_for(lambda story: story.of(ev.ExecutorRemoved), "the loss of an executor")
    assert rows.count() == 800
    assert computed.value == 800, "computed again, though there were copies"
    story.wait_for(lambda _: copies(story) == 2 * PARTS, "copies of what lost its second holder")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("level", [StorageLevel.MEMORY_ONLY, StorageLevel.MEMORY_ONLY_SER], ids=lambda level: level.name)
@pytest.mark.parametrize("rows_each", [100, 200_000], ids=["small", "larger than is held in memory on its way"])
def test_a_task_away_from_a_cached_partition_fetches_it(start, story, tmp_path: Path, level, rows_each):
    fc = start(workers=2, locality_wait_s=0.0)
    computed = fc.accumulator(0)
    source = fc.range(PARTS, num_partitions=PARTS)
    rows = source.flat_map(lambda p: computed.add(1) or [(p, f"a text {n}" * 4) for n in range(rows_each)]).persist(level)
    assert rows.count() == PARTS * rows_each

    def hold_up_one_executor(partition, part):
        if partition == 0:
            gate = threading.Event()
            while len(list(tmp_path.glob("done-*"))) < PARTS - 1:
                gate.wait(0.01)
        else:
            (tmp_path / f"done-{partition}").touch()
        return part

    again = rows.map_partitions_with_index(hold_up_one_executor)
    assert again.map(lambda pair: pair[0]).count_by_value() == dict.fromkeys(range(PARTS), rows_each)
    story.wait_until_jobs_ended(2)
    assert computed.value == PARTS, "computed again, though another executor held it"
    assert sum(end.metrics.cache_remote_bytes for end in story.of(ev.TaskEnd)) > 0


@pytest.mark.timeout(120)
def test_a_retired_worker_hands_its_cached_partitions_over(start, story):
    fc = start(workers=3)
    computed = fc.accumulator(0)
    rows = fc.range(800, num_partitions=PARTS).map(lambda x: computed.add(1) or x).cache()
    assert rows.sum() == sum(range(800))
    story.wait_for(lambda story: story.of(ev.BlocksCached), "a cached partition")
    holder = story.of(ev.BlocksCached)[0].executor
    fc.client.retire_workers([holder.rpartition("#")[0]])
    story.wait_for(lambda story: story.of(ev.ExecutorRemoved), "the end of an executor")
    assert [rows.sum(), rows.count()] == [sum(range(800)), 800]
    assert computed.value == 800, "computed again, though it was asked to leave in good order"


@pytest.mark.timeout(120)
def test_a_host_that_leaves_hands_over_its_shuffles_and_files(two_hosts, story: Story):
    with fk.Context(two_hosts, progress="off") as fc, Client(two_hosts) as client:
        fc.add_listener(story)
        computed = fc.accumulator(0)
        kept = fc.range(800, num_partitions=PARTS).map(lambda x: computed.add(1) or x).persist(StorageLevel.DISK_ONLY)
        counts = kept.map(lambda x: (x % 50, 1)).reduce_by_key(add, num_partitions=4)
        assert sum(counts.values().collect()) == 800
        fc.wait_for_listeners()
        leaver = fc.status.executors()[0].executor
        client.retire_workers([leaver.rpartition("#")[0]])
        story.wait_for(lambda story: story.of(ev.ExecutorRemoved), "the end of an executor")
        assert story.of(ev.ShuffleOutputsMoved)
        assert sum(counts.map_values(lambda n: n).values().collect()) == 800
        assert kept.sum() == sum(range(800))
        fc.wait_for_listeners()
        assert computed.value == 800
        assert not story.of(ev.ShuffleOutputsLost)
        assert {n for n in story.successes(story.map_stages()[0].stage).values()} == {1}


@pytest.mark.timeout(120)
def test_files_are_copied_to_another_host(two_hosts, story: Story, tmp_path: Path):
    with fk.Context(two_hosts, progress="off") as fc:
        fc.add_listener(story)
        computed = fc.accumulator(0)
        rows = fc.range(800, num_partitions=PARTS).map(lambda x: computed.add(1) or x).persist(StorageLevel.DISK_ONLY_2)
        assert rows.count() == 800
        story.wait_for(lambda _: copies(story) == 2 * PARTS, "two holders of each partition")
        files = {name: sorted(each.name for each in (tmp_path / name).rglob("blocks/rdd-*")) for name in ("north", "south")}
        assert files["north"] == files["south"]
        assert len(files["north"]) == PARTS
        for each in (tmp_path / "north").rglob("blocks/rdd-*"):
            os.truncate(each, 10)
        assert rows.sum() == sum(range(800))
        rows.unpersist(blocking=True)
