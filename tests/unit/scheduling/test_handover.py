"""Cached partitions have as many copies as their level says, and who leaves hands over what only it has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowkit.config import Config
from flowkit.model import events as ev
from flowkit.model.ids import AppId, ExecutorId, PartitionIndex, RddId
from flowkit.model.storage_level import StorageLevel
from flowkit.model.task import BlockInfo
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, map_stage, result_stage

RDD = 7
TWICE = replace(StorageLevel.MEMORY_ONLY, replication=2)


@pytest.fixture
def cluster() -> SimulatedCluster:
    cluster = SimulatedCluster(Config(validate=True))
    cluster.keep_actions = True
    return cluster


def holders(cluster: SimulatedCluster, app: AppId, partition: int) -> set[ExecutorId]:
    return set(cluster.core.cached_blocks()[app].holders(RddId(RDD), PartitionIndex(partition)))


def cached_job(app: AppId, number: int, level: StorageLevel, partitions: int = 6):
    source = map_stage(0, 4)
    return job(app, number, source, result_stage(10 + number, partitions, [source], cached=RDD, level=level))


def test_a_partition_is_copied_until_it_has_as_many_holders_as_its_level_says(cluster):
    for _ in range(3):
        cluster.add_executor()
    app = cluster.open_application("app")
    cluster.submit(cached_job(app, 0, TWICE))
    cluster.run()
    assert [len(holders(cluster, app, partition)) for partition in range(6)] == [2] * 6
    assert sum(len(each.cache) for each in cluster.executors.values()) == 12


def test_a_copy_is_made_on_another_host_where_there_is_one(cluster):
    for host in ("north", "north", "north", "south"):
        cluster.add_executor(host)
    app = cluster.open_application("app")
    cluster.submit(cached_job(app, 0, TWICE))
    cluster.run()
    for partition in range(6):
        assert {cluster.executors[each].host.token for each in holders(cluster, app, partition)} == {"north", "south"}


def test_copies_are_spread_over_executors(cluster):
    for _ in range(4):
        cluster.add_executor()
    app = cluster.open_application("app")
    cluster.submit(cached_job(app, 0, TWICE, partitions=40))
    cluster.run()
    assert max(len(each.cache) for each in cluster.executors.values()) <= 25


def test_with_a_copy_left_nothing_is_computed_again_and_it_is_copied_anew(cluster):
    for _ in range(3):
        cluster.add_executor()
    app = cluster.open_application("app")
    cluster.submit(cached_job(app, 0, TWICE))
    cluster.run()
    lost = sorted(cluster.executors)[0]
    cluster.kill_executor(lost)
    cluster.advance(1.0)
    assert [len(holders(cluster, app, partition)) for partition in range(6)] == [2] * 6
    cluster.delete_output(app, 0, 0)  # whoever computed anything again would miss it
    again = cluster.submit(cached_job(app, 1, TWICE))
    cluster.run()
    assert again.succeeded
    assert cluster.computed[app, 0, 0] == 1


def test_a_single_executor_holds_the_only_copy_until_another_joins(cluster):
    cluster.add_executor()
    app = cluster.open_application("app")
    cluster.submit(cached_job(app, 0, TWICE))
    cluster.run()
    assert [len(holders(cluster, app, partition)) for partition in range(6)] == [1] * 6
    cluster.add_executor()
    cluster.advance(1.0)
    assert [len(holders(cluster, app, partition)) for partition in range(6)] == [2] * 6


def test_a_copy_that_was_given_up_for_want_of_memory_is_not_pressed_on_its_executor_again(cluster):
    for _ in range(2):
        cluster.add_executor()
    app = cluster.open_application("app")
    cluster.submit(cached_job(app, 0, TWICE, partitions=1))
    cluster.run()
    chosen = sorted(holders(cluster, app, 0))[0]
    del cluster.executors[chosen].cache[app, RDD, 0]
    cluster.tell(sti.BlocksEvicted(chosen, app, ((RddId(RDD), PartitionIndex(0)),)))
    cluster.advance(5.0)
    assert holders(cluster, app, 0) == set(cluster.executors) - {chosen}


def test_a_copy_that_was_given_up_is_made_at_another_executor(cluster):
    for _ in range(3):
        cluster.add_executor()
    app = cluster.open_application("app")
    cluster.submit(cached_job(app, 0, TWICE, partitions=1))
    cluster.run()
    before = holders(cluster, app, 0)
    chosen = sorted(before)[0]
    del cluster.executors[chosen].cache[app, RDD, 0]
    cluster.tell(sti.BlocksEvicted(chosen, app, ((RddId(RDD), PartitionIndex(0)),)))
    cluster.advance(5.0)
    assert holders(cluster, app, 0) == set(cluster.executors) - {chosen}


@pytest.mark.parametrize("lost", [True, False])
def test_when_only_those_are_left_who_leave_a_partition_is_copied_to_somebody_else(cluster, lost):
    for _ in range(3):
        cluster.add_executor()
    app = cluster.open_application("app")
    cluster.submit(cached_job(app, 0, TWICE, partitions=1))
    cluster.run()
    cluster.submit(cached_job(app, 1, StorageLevel.MEMORY_ONLY, partitions=1))  # one copy is enough from now on
    cluster.run()
    staying, leaving = sorted(holders(cluster, app, 0))
    (third,) = set(cluster.executors) - {staying, leaving}
    cluster.tell(sti.ExecutorDraining(leaving))
    cluster.advance(0.5)
    if lost:
        cluster.kill_executor(staying)
    else:
        del cluster.executors[staying].cache[app, RDD, 0]
        cluster.tell(sti.BlocksEvicted(staying, app, ((RddId(RDD), PartitionIndex(0)),)))
    cluster.advance(5.0)
    assert third in holders(cluster, app, 0) or staying in holders(cluster, app, 0)


def test_a_copy_of_an_rdd_that_was_unpersisted_meanwhile_is_dropped(cluster):
    for _ in range(2):
        cluster.add_executor()
    app = cluster.open_application("app")
    cluster.submit(cached_job(app, 0, TWICE, partitions=1))
    while not any(isinstance(action, act.CopyBlock) for action in cluster.actions):
        cluster.advance(0.001)
    cluster.driver_says(sti.RddUnpersistRequested(app, RddId(RDD)))
    cluster.advance(5.0)
    assert [each.cache for each in cluster.executors.values()] == [{}, {}]


def test_files_of_a_host_count_once_and_are_copied_to_another_host_only(cluster):
    one, _two = cluster.add_executor("north"), cluster.add_executor("north")
    app = cluster.open_application("app")
    level = replace(StorageLevel.DISK_ONLY, replication=2)
    cluster.submit(cached_job(app, 0, level, partitions=1))
    cluster.run()
    copies = [action for action in cluster.actions if isinstance(action, act.CopyBlock)]
    assert copies == []
    three = cluster.add_executor("south")
    cluster.advance(1.0)
    copies = [action.executor for action in cluster.actions if isinstance(action, act.CopyBlock)]
    assert copies == [three]
    assert one in cluster.executors


def test_files_of_a_lost_executor_belong_to_its_neighbour(cluster):
    for _ in range(2):
        cluster.add_executor()
    app = cluster.open_application("app")
    cluster.submit(cached_job(app, 0, StorageLevel.MEMORY_AND_DISK))
    cluster.run()
    moved = {partition: next(iter(holders(cluster, app, partition))) for partition in range(6)}
    for partition, executor in moved.items():
        cluster.tell(sti.BlocksMoved(executor, app, (BlockInfo(RddId(RDD), PartitionIndex(partition), 0, 500),)))
    cluster.advance(1.0)
    lost, left = sorted(cluster.executors)
    cluster.kill_executor(lost)
    cluster.advance(1.0)
    assert [holders(cluster, app, partition) for partition in range(6)] == [{left}] * 6
    assert not [event for event in cluster.events if isinstance(event, ev.BlocksLost)]
    assert len([event for event in cluster.events if isinstance(event, ev.BlocksUpdated)]) == 6


def test_an_executor_that_leaves_hands_its_cached_partitions_over_and_is_then_let_go(cluster):
    for _ in range(3):
        cluster.add_executor()
    app = cluster.open_application("app")
    cluster.submit(cached_job(app, 0, StorageLevel.MEMORY_ONLY))
    cluster.run()
    leaver = max(cluster.executors.values(), key=lambda each: len(each.cache))
    assert leaver.cache
    cluster.tell(sti.ExecutorDraining(leaver.id))
    cluster.advance(0.001)
    assert not leaver.may_leave
    cluster.advance(1.0)
    assert leaver.may_leave
    for partition in range(6):
        assert holders(cluster, app, partition) - {leaver.id}
    cluster.kill_executor(leaver.id)
    cluster.advance(1.0)
    cluster.delete_output(app, 0, 0)
    again = cluster.submit(cached_job(app, 1, StorageLevel.MEMORY_ONLY))
    cluster.run()
    assert again.succeeded
    assert cluster.computed[app, 0, 0] == 1


def test_a_host_that_leaves_hands_its_map_outputs_over(cluster):
    north = [cluster.add_executor("north") for _ in range(2)]
    cluster.add_executor("south")
    app = cluster.open_application("app")
    source = map_stage(0, 40)
    cluster.submit(job(app, 0, source, result_stage(1, 2, [source])))
    cluster.run()
    written = {name for name in cluster.hosts["north"].files if name[0] == app}
    assert written
    for executor in north:
        cluster.tell(sti.ExecutorDraining(executor))
    cluster.advance(1.0)
    assert all(cluster.executors[executor].may_leave for executor in north)
    cluster.delete_host("north")
    done = cluster.submit(job(app, 1, source, result_stage(2, 3, [source])))
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert {times for (_, stage, _), times in cluster.computed.items() if stage == 0} == {1}
    moved = [event for event in cluster.events if isinstance(event, ev.ShuffleOutputsMoved)]
    assert sum(len(event.partitions) for event in moved) == len(written)


def test_one_of_several_executors_of_a_host_leaves_its_files_where_they_are(cluster):
    leaver, _ = cluster.add_executor("north"), cluster.add_executor("north")
    cluster.add_executor("south")
    app = cluster.open_application("app")
    source = map_stage(0, 8)
    cluster.submit(job(app, 0, source, result_stage(1, 2, [source])))
    cluster.run()
    cluster.tell(sti.ExecutorDraining(leaver))
    cluster.advance(1.0)
    assert cluster.executors[leaver].may_leave
    assert not [action for action in cluster.actions if isinstance(action, act.CopyOutputs)]


def test_what_nobody_can_take_keeps_nobody(cluster):
    leaver = cluster.add_executor()
    app = cluster.open_application("app")
    cluster.submit(cached_job(app, 0, StorageLevel.MEMORY_ONLY))
    cluster.run()
    cluster.tell(sti.ExecutorDraining(leaver))
    cluster.advance(0.1)
    assert cluster.executors[leaver].may_leave


def test_who_leaves_finishes_first_and_hands_over_what_it_made_meanwhile(cluster):
    leaver = cluster.add_executor(slots=1)
    app = cluster.open_application("app")
    cluster.submit(cached_job(app, 0, StorageLevel.MEMORY_ONLY, partitions=1))
    while not any(isinstance(event, ev.TaskStart) and event.stage == 10 for event in cluster.events):
        cluster.advance(0.001)
    cluster.add_executor()
    cluster.tell(sti.ExecutorDraining(leaver))
    cluster.advance(0.002)
    assert not cluster.executors[leaver].may_leave
    cluster.run()
    assert cluster.executors[leaver].may_leave
    assert len(holders(cluster, app, 0)) == 2


def test_who_takes_a_copy_and_dies_is_replaced_by_another(cluster):
    for _ in range(3):
        cluster.add_executor()
    app = cluster.open_application("app")
    cluster.submit(cached_job(app, 0, TWICE, partitions=1))
    while not (asked := [action.executor for action in cluster.actions if isinstance(action, act.CopyBlock)]):
        cluster.advance(0.001)
    cluster.kill_executor(asked[0])
    cluster.run()
    cluster.advance(1.0)
    assert len(holders(cluster, app, 0)) == 2


def test_a_task_away_from_its_cached_partition_is_told_who_holds_it(cluster):
    holder = cluster.add_executor(slots=1)
    app = cluster.open_application("app")
    cluster.submit(cached_job(app, 0, StorageLevel.MEMORY_ONLY, partitions=1))
    cluster.run()
    cluster.add_executor(slots=1)
    cluster.tell(sti.ExecutorPaused(holder))
    cluster.actions.clear()
    cluster.submit(cached_job(app, 1, StorageLevel.MEMORY_ONLY, partitions=1))
    cluster.run()
    (launch,) = [task for action in cluster.actions if isinstance(action, act.Launch) for task in action.tasks]
    assert [(each.rdd, each.partition, each.addresses) for each in launch.blocks] == [(RDD, 0, (holder.rpartition("#")[0],))]
