"""Workers killed with SIGKILL, at chosen points of a two-stage job."""

from __future__ import annotations

from functools import partial
from operator import add
from pathlib import Path

import pytest

from flowkit.model import events as ev
from tests.chaos.conftest import die

pytestmark = pytest.mark.chaos

MAPS, REDUCERS, ROWS = 8, 6, 4_000


def expected() -> dict[int, int]:
    answer: dict[int, int] = {}
    for i in range(ROWS):
        answer[i % 97] = answer.get(i % 97, 0) + i
    return answer


def sums(fc, in_map=lambda _p: None, in_reduce=lambda _p: None):
    """Sum by key in two stages, with a hook at the start of every map and of every reduce task."""

    def mapper(partition, rows):
        in_map(partition)
        return [(i % 97, i) for i in rows]

    def reducer(partition, pairs):
        in_reduce(partition)
        return pairs

    return (
        fc.range(ROWS, num_partitions=MAPS)
        .map_partitions_with_index(mapper)
        .reduce_by_key(add, num_partitions=REDUCERS)
        .map_partitions_with_index(reducer)
    )


def each_exactly_once(story, stage, count):
    assert story.successes(stage.stage) == {partition: 1 for partition in range(count)}


def test_a_worker_killed_on_the_map_side_costs_only_the_tasks_it_ran(start, story, tmp_path: Path):
    fc = start(workers=3)
    marker = tmp_path / "killed"
    assert sums(fc, in_map=lambda p: die(marker) if p == 3 else None).collect_as_map() == expected()
    story.wait_until_jobs_ended()
    each_exactly_once(story, story.map_stages()[0], MAPS)
    assert [end.partition for end in story.failures() if end.counted] == [3]
    assert not story.of(ev.ShuffleOutputsLost), "finished map output belongs to the host, and a neighbour serves it"
    assert len(story.of(ev.ExecutorRemoved)) == 1


def test_a_worker_killed_between_map_and_reduce_costs_nothing_that_was_finished(start, story, tmp_path: Path):
    fc = start(workers=3)
    marker = tmp_path / "killed"
    # The first reduce task to run dies before it has read a byte: all map output is there, no reducer is done.
    assert sums(fc, in_reduce=lambda _p: die(marker)).collect_as_map() == expected()
    story.wait_until_jobs_ended()
    each_exactly_once(story, story.map_stages()[0], MAPS)
    each_exactly_once(story, story.result_stage(), REDUCERS)


def test_a_worker_killed_on_the_reduce_side_costs_only_the_tasks_it_ran(start, story, tmp_path: Path):
    fc = start(workers=3)
    marker = tmp_path / "killed"
    assert sums(fc, in_reduce=lambda p: die(marker) if p == REDUCERS - 1 else None).collect_as_map() == expected()
    story.wait_until_jobs_ended()
    each_exactly_once(story, story.map_stages()[0], MAPS)
    each_exactly_once(story, story.result_stage(), REDUCERS)


def test_all_three_workers_killed_one_after_another_still_give_the_answer(start, story, tmp_path: Path):
    fc = start(workers=3)
    markers = [tmp_path / f"killed-{n}" for n in range(3)]
    result = sums(
        fc,
        in_map=lambda p: die(markers[0]) if p == 1 else None,
        in_reduce=lambda p: die(markers[p]) if p in (1, 2) else None,
    ).collect_as_map()
    assert result == expected()
    story.wait_until_jobs_ended()
    assert all(marker.exists() for marker in markers)
    each_exactly_once(story, story.map_stages()[0], MAPS)
    each_exactly_once(story, story.result_stage(), REDUCERS)
    assert len(story.of(ev.ExecutorRemoved)) == 3


def test_the_only_worker_killed_is_restarted_and_its_output_adopted(start, story, tmp_path: Path):
    fc = start(workers=1)
    marker = tmp_path / "killed"
    assert sums(fc, in_reduce=lambda _p: die(marker)).collect_as_map() == expected()
    story.wait_until_jobs_ended()
    each_exactly_once(story, story.map_stages()[0], MAPS)


def test_a_lost_executor_says_how_it_died(start, story, tmp_path: Path):
    fc = start(workers=2)
    marker = tmp_path / "killed"
    assert sums(fc, in_map=lambda _p: die(marker)).collect_as_map() == expected()
    story.wait_for(lambda story: story.of(ev.ExecutorRemoved), "an executor's removal")
    assert "SIGKILL" in story.of(ev.ExecutorRemoved)[0].reason


def test_cached_partitions_of_a_killed_worker_are_computed_again_and_no_others(start, story, tmp_path: Path):
    # Nothing is moved for speed here: a partition is computed twice only when it was lost.
    fc = start(workers=3, locality_wait_s=60.0, launch_ahead_s=60.0)
    computed = tmp_path / "computed"
    computed.mkdir()

    def note(partition, rows):
        with (computed / str(partition)).open("a") as file:
            file.write("x")
        return rows

    cached = fc.range(600, num_partitions=6).map_partitions_with_index(note).cache()
    assert cached.sum() == sum(range(600))
    marker = tmp_path / "killed"
    # Another job over the cache; one of its tasks kills the process that holds its partition.
    assert cached.map_partitions(lambda rows: (die(marker), rows)[1]).sum() == sum(range(600))
    assert cached.count() == 600
    story.wait_for(lambda story: story.of(ev.BlocksLost), "the loss of cached blocks")
    lost = {partition for event in story.of(ev.BlocksLost) for _rdd, partition in event.blocks}
    times = {int(path.name): len(path.read_text()) for path in computed.iterdir()}
    assert lost
    assert times == {partition: 2 if partition in lost else 1 for partition in range(6)}


def test_the_task_that_killed_its_process_is_blamed_and_not_the_short_ones_around_it(start, story, tmp_path: Path):
    # Dozens of tasks lie ready at the worker and end in no time, so that good news are nearly always on their way as it dies.
    fc = start(workers=2)
    killers = [40, 77, 114, 151]
    for killer in killers:
        marker = tmp_path / f"killed-{killer}"

        def suicide(p, rows, marker=marker, killer=killer):
            if p == killer:
                die(marker)
            return rows

        assert fc.range(200, num_partitions=200).map_partitions_with_index(suicide).count() == 200
    story.wait_until_jobs_ended(len(killers))
    assert [end.partition for end in story.failures() if end.counted] == killers
    for killer, removed in zip(killers, story.of(ev.ExecutorRemoved), strict=True):
        assert (
            f"it ran stage {story.of(ev.JobStart)[killers.index(killer)].stages[-1].stage} partition {killer}" in removed.reason
        )


def test_an_exit_code_that_comes_late_counts_all_the_same(start, story, tmp_path: Path):
    """As on a machine whose nannies have no time: they live in this process, and notice the end long after the connection broke."""
    fc = start(workers=2)
    loop = fc.client.cluster.loop.asyncio_loop
    for nanny in fc.client.cluster.workers.values():
        nanny.process.on_exit = partial(loop.call_later, 1.5, nanny.process.on_exit)
    marker = tmp_path / "killed"
    assert sums(fc, in_map=lambda p: die(marker) if p == 3 else None).collect_as_map() == expected()
    story.wait_until_jobs_ended()
    assert [end.partition for end in story.failures() if end.counted] == [3]
    (removed,) = story.of(ev.ExecutorRemoved)
    assert "SIGKILL" in removed.reason
    assert "partition 3" in removed.reason


@pytest.mark.parametrize("partition", [0, MAPS - 1])
def test_a_task_that_always_kills_its_worker_ends_the_job_with_that_reason(start, partition):
    from flowkit.errors import ExecutorsLost, JobFailed

    fc = start(workers=2, max_task_failures=2)

    def suicide(p):
        if p == partition:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises((ExecutorsLost, JobFailed), match="SIGKILL"):
        sums(fc, in_map=suicide).collect()
    assert fc.range(10).sum() == 45, "the context works on"
