"""Partitions of a join that are far larger than others are joined by several tasks; nobody can tell by the results."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.config import Config
from flowkit.model import events as ev
from flowkit.model.ids import PartitionIndex, ShuffleId
from flowkit.model.job_spec import StageSpec
from flowkit.scheduling import actions as act
from flowkit.scheduling.skew import Pieces, cut, skewed
from flowkit.simulation.cluster import SimulatedCluster, SimulatedJob
from flowkit.simulation.jobs import expected, job, map_stage, result_stage

MAPS = 8


def cluster_of(**settings: object) -> SimulatedCluster:
    cluster = SimulatedCluster(Config(validate=True, **settings))  # type: ignore[arg-type]
    cluster.keep_actions = True
    cluster.first_bytes = 10 << 20
    for host in ("north", "south"):
        cluster.add_executor(host)
    return cluster


def splitting(stage: StageSpec) -> StageSpec:
    return msgspec.structs.replace(stage, splits=stage.parents[0].shuffle, coalescible=True)


def run(cluster: SimulatedCluster, *stages: StageSpec) -> SimulatedJob:
    done = cluster.submit(job(cluster.open_application("app"), 0, *stages))
    cluster.run()
    cluster.core.assert_empty()
    return done


def pieces(cluster: SimulatedCluster, stage: int) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for action in cluster.actions:
        for each in action.tasks if isinstance(action, act.Launch) else ():
            if each.stage == stage and each.piece is not None:
                found.setdefault(each.partition, []).append((each.piece.first, each.piece.end))
    return found


def test_a_partition_that_is_far_larger_has_several_tasks_which_together_read_all_of_it_once():
    cluster = cluster_of()
    pairs = map_stage(0, MAPS)
    done = run(cluster, pairs, splitting(result_stage(1, 4, [pairs])))
    assert done.numbers == expected(done.spec)
    found = pieces(cluster, 1)
    assert list(found) == [0]
    assert len(found[0]) == 6
    read = Counter(output for first, end in found[0] for output in range(MAPS) if first <= output < end)
    assert read == Counter(range(MAPS))
    told = [(each.partition, each.piece) for each in cluster.events if isinstance(each, ev.TaskEnd) and each.stage == 1]
    assert sorted(told) == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 0), (2, 0), (3, 0)]


def test_what_a_stage_of_pieces_writes_is_read_in_the_order_of_partitions():
    cluster = cluster_of()
    pairs = map_stage(0, MAPS)
    middle = splitting(map_stage(1, 4, [pairs]))
    done = run(cluster, pairs, middle, result_stage(2, 3, [middle]))
    assert done.numbers == expected(done.spec)
    assert len(pieces(cluster, 1)[0]) == 6
    definition = next(
        action.definition for action in cluster.actions if isinstance(action, act.DefineStage) and action.definition.stage == 2
    )
    (sources,) = definition.sources
    assert [status.map_partition for status in sources.outputs] == list(range(9))


@pytest.mark.parametrize("why", ["off", "not a join", "one slot", "the other side is as large"])
def test_where_it_would_not_help_it_is_left_whole(why):
    cluster = cluster_of(split_bytes=0 if why == "off" else 16 << 20)
    if why == "one slot":
        cluster = SimulatedCluster(Config(validate=True))
        cluster.keep_actions = True
        cluster.first_bytes = 10 << 20
        cluster.add_executor("north", 1)
    pairs, others = map_stage(0, MAPS), map_stage(1, MAPS)
    read = [pairs, others] if why.startswith("the other") else [pairs]
    result = splitting(result_stage(2, 4, read))
    if why == "not a join":
        result = msgspec.structs.replace(result, splits=None)
    done = run(cluster, *read, result)
    assert done.numbers == expected(done.spec)
    assert pieces(cluster, 2) == {}


def test_pieces_whose_executor_is_lost_are_computed_again():
    cluster = cluster_of()
    pairs = map_stage(0, MAPS)
    middle = splitting(map_stage(1, 4, [pairs]))
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, pairs, middle, result_stage(2, 3, [middle])))
    cluster.advance(0.06)
    cluster.kill_executor(next(iter(cluster.executors)))
    cluster.run()
    assert done.numbers == expected(done.spec)
    cluster.core.assert_empty()


@given(
    sizes=st.lists(st.integers(1, 100), min_size=1, max_size=30),
    gaps=st.lists(st.integers(1, 5), min_size=30),
    count=st.integers(1, 12),
)
def test_ranges_follow_one_another_and_begin_with_an_output(sizes, gaps, count):
    at = [sum(gaps[:place]) for place in range(len(sizes))]
    ranges = cut(list(zip(at, sizes, strict=True)), count)
    assert 1 <= len(ranges) <= count
    assert ranges[0][0] == 0
    assert [end for _, end in ranges[:-1]] == [first for first, _ in ranges[1:]]
    assert all(first in at for first, _ in ranges[1:])
    assert all(any(first <= output < end for output in at) for first, end in ranges)


def test_only_what_is_far_above_the_others_is_skewed():
    assert list(skewed([10] * 9 + [500], 50)) == [(9, 10)]
    assert list(skewed([100] * 9 + [390], 50)) == []
    assert list(skewed([1] * 9 + [90], 50)) == [], "not worth it"
    assert list(skewed([], 50)) == []


@given(st.dictionaries(st.integers(0, 9), st.integers(2, 4), max_size=4), st.permutations(range(10)))
def test_pieces_are_numbered_in_the_order_of_partitions(counts, wanted):
    cuts = {PartitionIndex(partition): [(each, each + 1) for each in range(count)] for partition, count in counts.items()}
    found = Pieces(ShuffleId(0), cuts, 10, [PartitionIndex(each) for each in wanted[:6]])
    numbers = [PartitionIndex(each) for each in range(found.count)]
    assert [found.partition(each) for each in numbers] == [
        partition for partition in range(10) for _ in range(counts.get(partition, 1))
    ]
    assert sum(1 for each in numbers if found.piece(each) is None) == 10 - len(counts)
    assert list(dict.fromkeys(found.partition(each) for each in found.wanted)) == list(wanted[:6])
