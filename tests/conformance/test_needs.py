"""What tasks need: slots, addresses of resources, one another. The same answers wherever they run."""

from __future__ import annotations

import os
import threading
import time

import pytest

import flowkit as fk
from flowkit.errors import InvalidArgument, JobFailed
from flowkit.testing.inline import InlineLink


def runs_at_once(fc: fk.Context) -> bool:
    return not isinstance(fc._link, InlineLink)


def ranks(rows):
    context = fk.TaskContext.get()
    context.barrier()
    sums = context.all_gather(sum(rows))
    context.barrier()
    return [(context.partition_id, sums)]


def test_tasks_of_a_barrier_stage_meet_and_hear_one_another(fc):
    if not runs_at_once(fc):
        pytest.skip("one task after the other")
    assert fc.range(10, num_partitions=2).barrier().map_partitions(ranks).collect() == [(0, [10, 35]), (1, [10, 35])]


def test_where_one_runs_after_the_other_that_is_said(fc):
    if runs_at_once(fc):
        pytest.skip("they run at once")
    with pytest.raises(InvalidArgument, match="one task runs after the other"):
        fc.range(10, num_partitions=2).barrier().map_partitions(ranks).collect()
    assert fc.range(10, num_partitions=1).barrier().map_partitions(ranks).collect() == [(0, [45])]


def test_a_barrier_stage_may_stand_before_a_shuffle_and_after_one(fc):
    if not runs_at_once(fc):
        pytest.skip("one task after the other")
    shuffled = fc.range(20, num_partitions=4).map(lambda x: (x % 2, x)).group_by_key(2)
    met = shuffled.barrier().map_partitions_with_index(
        lambda index, rows: [(index, len(list(rows)), fk.TaskContext.get().all_gather(index))]
    )
    assert sorted(met.map(lambda row: (row[0], row[2])).reduce_by_key(lambda a, b: a + b, 2).collect()) == [
        (0, [0, 1]),
        (1, [0, 1]),
    ]


def test_if_one_fails_all_run_again(fc):
    if not runs_at_once(fc):
        pytest.skip("one task after the other")

    def once(rows):
        context = fk.TaskContext.get()
        context.barrier()
        if context.partition_id == 1 and context.attempt_number == 0:
            raise ValueError("the first time")
        return [context.attempt_number]

    assert min(fc.range(2, num_partitions=2).barrier().map_partitions(once).collect()) >= 1


def test_a_call_that_others_do_not_make_ends_the_job(fc):
    if not runs_at_once(fc):
        pytest.skip("one task after the other")

    def some(rows):
        context = fk.TaskContext.get()
        if context.partition_id:
            context.barrier()
        return []

    with pytest.raises(JobFailed, match="ended while others wait for them in barrier"):
        fc.range(2, num_partitions=2).barrier().map_partitions(some).collect()


def test_barrier_in_a_stage_that_is_none_is_refused(fc):
    with pytest.raises(InvalidArgument, match="use rdd.barrier"):
        fc.range(2, num_partitions=2).map_partitions(lambda rows: fk.TaskContext.get().all_gather(1)).collect()


def test_a_message_that_is_data_is_refused(fc):
    with pytest.raises(InvalidArgument, match="65,536 at most"):
        fc.range(1, num_partitions=1).barrier().map_partitions(
            lambda rows: fk.TaskContext.get().all_gather("x" * 100_000)
        ).collect()


def test_part_of_a_barrier_stage_cannot_be_had(fc):
    with pytest.raises(InvalidArgument, match="this action wants 1"):
        fc.range(2, num_partitions=2).barrier().map_partitions(list).take(1)
    with pytest.raises(InvalidArgument, match="has 4 and not 2"):
        fc.range(4, num_partitions=4).barrier().map_partitions(list).coalesce(2).collect()


def test_needs_that_differ_within_a_stage_are_refused(fc):
    rdd = fc.range(4, num_partitions=2).with_resources(cpus=1).map(abs)
    with pytest.raises(InvalidArgument, match="one stage computes both"):
        rdd.with_resources(cpus=2).collect()
    with pytest.raises(InvalidArgument, match="already"):
        rdd.with_resources(cpus=3)


def test_a_task_knows_what_it_has(fc):
    rdd = fc.range(4, num_partitions=2).map_partitions(lambda rows: [fk.TaskContext.get().cpus]).with_resources(cpus=1)
    assert rdd.collect() == [1, 1]
    assert rdd.resource_profile.cpus == 1
    assert "[cpus=1 a task]" in rdd.explain()


@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_two_tasks_never_have_one_address_and_find_it_where_libraries_look() -> None:
    def where(rows):
        begun = time.time()
        time.sleep(0.1)
        context = fk.TaskContext.get()
        return [(context.resources["gpu"], os.environ["CUDA_VISIBLE_DEVICES"], begun, time.time())]

    with fk.Context(workers=2, progress="off", resources={"gpu": ["4", "7"]}) as fc:
        rows = fc.range(8, num_partitions=8).map_partitions(where).with_resources(gpu=1).collect()
        assert {row[0] for row in rows} == {("4",), ("7",)}
        # And who needs none sees what it saw before.
        others = fc.range(4, num_partitions=4).map_partitions(lambda rows: [os.environ.get("CUDA_VISIBLE_DEVICES")]).collect()
        assert set(others) == {os.environ.get("CUDA_VISIBLE_DEVICES")}
        assert all(row[1] == row[0][0] for row in rows)
        for address in ("4", "7"):
            spans = sorted((begun, ended) for (mine,), _, begun, ended in rows if mine == address)
            assert all(ended <= begun for (_, ended), (begun, _) in zip(spans, spans[1:], strict=False))


@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_a_task_of_several_slots_has_them_and_others_fill_the_rest() -> None:
    with fk.Context(workers=4, processes=False, progress="off") as fc:
        wide = fc.range(12, num_partitions=12).map_partitions(Counted(3)).with_resources(cpus=3)
        plain = fc.range(60, num_partitions=60).map_partitions(Counted(1))
        first = wide.count_async()
        assert plain.count() == 60
        assert first.result() == 12
        assert Counted.most <= 4
        assert Counted.most >= 3


class Counted:
    """Counts slots in use, in a cluster of threads of this process."""

    lock = threading.Lock()
    busy = most = 0

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus

    def __call__(self, rows):
        with Counted.lock:
            Counted.busy += self.cpus
            Counted.most = max(Counted.most, Counted.busy)
        time.sleep(0.02)
        with Counted.lock:
            Counted.busy -= self.cpus
        return list(rows)


@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_what_a_script_prints_is_what_there_is(tmp_path) -> None:
    script = tmp_path / "gpus"
    script.write_text('#!/bin/sh\necho \'{"name": "gpu", "addresses": ["a", "b"]}\'\n')
    script.chmod(0o755)
    with fk.Context(workers=1, progress="off", resources={"gpu": str(script)}) as fc:
        used = (
            fc.range(2, num_partitions=2)
            .map_partitions(lambda rows: [fk.TaskContext.get().resources["gpu"]])
            .with_resources(gpu=2)
        )
        assert used.collect() == [("a", "b"), ("a", "b")]
