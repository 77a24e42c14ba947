"""Small reduce partitions next to one another share a task; nobody can tell by the results."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.config import Config
from flowkit.model import events as ev
from flowkit.model.ids import PartitionIndex
from flowkit.model.job_spec import StageSpec
from flowkit.model.profile import PROFILE
from flowkit.model.task import ExceptionFailure, MemoryFailure
from flowkit.scheduling.coalescing import TASKS_PER_SLOT, spans_of
from flowkit.simulation.cluster import SimulatedCluster, SimulatedJob
from flowkit.simulation.jobs import expected, job, map_stage, result_stage

MAPS, SLOTS = 3, 4
FEW = TASKS_PER_SLOT * SLOTS


def cluster_of(**settings: object) -> SimulatedCluster:
    cluster = SimulatedCluster(Config(validate=True, **settings))  # type: ignore[arg-type]
    for host in ("north", "south"):
        cluster.add_executor(host)
    return cluster


def coalescible(stage: StageSpec) -> StageSpec:
    return msgspec.structs.replace(stage, coalescible=True)


def run(cluster: SimulatedCluster, *stages: StageSpec, **properties: str) -> SimulatedJob:
    app = cluster.open_application("app")
    spec = msgspec.structs.replace(job(app, 0, *stages), properties=properties)
    done = cluster.submit(spec)
    cluster.run()
    cluster.core.assert_empty()
    return done


def reduced(count: int, *, wanted: range | tuple[int, ...] | None = None) -> tuple[StageSpec, StageSpec]:
    pairs = map_stage(0, MAPS)
    return pairs, coalescible(result_stage(1, count, [pairs], wanted=wanted))


def tasks(cluster: SimulatedCluster, stage: int) -> list[ev.TaskEnd]:
    return [each for each in cluster.events if isinstance(each, ev.TaskEnd) and each.stage == stage and each.failure is None]


def partitions(ended: list[ev.TaskEnd]) -> Counter[int]:
    return Counter(each.partition + further for each in ended for further in range(each.span))


def test_small_partitions_share_tasks_and_the_results_are_the_same():
    cluster = cluster_of()
    done = run(cluster, *reduced(100))
    assert done.numbers == expected(done.spec)
    assert len(tasks(cluster, 1)) <= 1.5 * FEW
    assert partitions(tasks(cluster, 1)) == Counter(range(100))


def test_a_map_stage_behind_a_shuffle_shares_tasks_too():
    cluster = cluster_of()
    pairs = map_stage(0, MAPS)
    middle = coalescible(map_stage(1, 60, [pairs]))
    done = run(cluster, pairs, middle, result_stage(2, 3, [middle]))
    assert done.numbers == expected(done.spec)
    assert len(tasks(cluster, 1)) <= 1.5 * FEW
    assert partitions(tasks(cluster, 1)) == Counter(range(60))


def test_four_tasks_a_slot_are_left():
    cluster = cluster_of()
    run(cluster, *reduced(FEW))
    assert len(tasks(cluster, 1)) == FEW


@pytest.mark.parametrize("why", ["off", "kept", "profiled"])
def test_where_it_is_not_wanted_each_has_a_task_of_its_own(why):
    pairs, result = reduced(100)
    cluster = cluster_of(coalesce_bytes=0 if why == "off" else 1 << 20)
    run(
        cluster,
        pairs,
        msgspec.structs.replace(result, coalescible=why != "kept"),
        **({PROFILE: "0"} if why == "profiled" else {}),
    )
    assert len(tasks(cluster, 1)) == 100


def test_partitions_that_are_wanted_here_and_there_are_found():
    wanted = (*range(10, 40), 5, *range(60, 80))
    cluster = cluster_of()
    done = run(cluster, *reduced(100, wanted=wanted))
    assert done.numbers == expected(done.spec)
    assert partitions(tasks(cluster, 1)) == Counter(wanted)


def test_a_task_that_takes_long_gives_back_what_it_has_not_begun():
    cluster = cluster_of()
    cluster.at_once = lambda launch: 1 if launch.partition < 50 else launch.span
    cluster.accumulates = True
    done = run(cluster, *reduced(100))
    assert done.numbers == expected(done.spec)
    ended = tasks(cluster, 1)
    assert partitions(ended) == Counter(range(100))
    assert all(each.span == 1 for each in ended if each.partition < 36)
    assert len(ended) > 40


def test_one_that_fails_is_tried_again_alone_and_so_are_those_beside_it():
    cluster = cluster_of(max_task_failures=2)
    app = "app"
    cluster.failures[app, 1, 0].append(ExceptionFailure("ValueError", "no", "", None))  # type: ignore[index]
    done = run(cluster, *reduced(100))
    assert done.numbers == expected(done.spec)
    (failed,) = [each for each in cluster.events if isinstance(each, ev.TaskEnd) and each.failure is not None]
    assert failed.span > 1
    assert {each.span for each in tasks(cluster, 1) if each.partition < failed.span} == {1}
    assert partitions(tasks(cluster, 1)) == Counter(range(100))


def test_less_at_a_time_is_tried_when_memory_is_short():
    cluster = cluster_of()
    cluster.failures["app", 1, 0].append(MemoryFailure("too much"))  # type: ignore[index]
    done = run(cluster, *reduced(100))
    assert done.numbers == expected(done.spec)


def test_results_too_large_for_messages_come_too():
    cluster = cluster_of()
    pairs = map_stage(0, MAPS)
    done = run(cluster, pairs, coalescible(result_stage(1, 100, [pairs], stores_result=True)))
    assert done.numbers == expected(done.spec)
    assert len(tasks(cluster, 1)) <= 1.5 * FEW


def test_what_is_lost_of_them_is_made_again_and_nothing_else():
    cluster = cluster_of()
    pairs = map_stage(0, MAPS)
    middle = coalescible(map_stage(1, 60, [pairs]))
    app = cluster.open_application("app")
    first = cluster.submit(job(app, 0, pairs, middle, result_stage(2, 3, [middle])))
    cluster.run()
    shared = next(each for each in tasks(cluster, 1) if each.span > 1)
    assert cluster.delete_output(app, 1, shared.partition) == 1
    before = Counter(cluster.computed)
    second = cluster.submit(job(app, 1, pairs, middle, result_stage(3, 3, [middle])))
    cluster.run()
    assert first.numbers == expected(first.spec)
    assert second.numbers == expected(second.spec)
    again = cluster.computed - before
    assert {partition for _, stage, partition in again} == set(range(shared.partition, shared.partition + shared.span))
    assert set(again.values()) == {1}


@given(
    sizes=st.lists(st.integers(0, 100), min_size=1, max_size=40), most=st.integers(1, 300), missing=st.sets(st.integers(0, 39))
)
def test_spans_hold_every_partition_once_in_order_and_none_too_much(sizes, most, missing):
    wanted = [PartitionIndex(each) for each in range(len(sizes)) if each not in missing]
    spans = spans_of(wanted, sizes, most)
    assert [first + each for first, length in spans for each in range(length)] == wanted
    assert all(length == 1 or sum(sizes[first : first + length]) <= most for first, length in spans)
    follow = [sum(left) == right[0] for left, right in zip(spans, spans[1:], strict=False)]
    fits = [sum(sizes[left[0] : sum(left)]) + sizes[right[0]] <= most for left, right in zip(spans, spans[1:], strict=False)]
    assert not any(near and fit for near, fit in zip(follow, fits, strict=True)), "two that could share a task do not"
