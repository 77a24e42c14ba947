"""What recorded jobs would have taken elsewhere: the same on the same cluster, less on a larger one, never less than is possible."""

from __future__ import annotations

import msgspec
import pytest

from flowkit.config import Config
from flowkit.errors import InvalidArgument, JobFailed
from flowkit.model.events import JobStart, TaskEnd
from flowkit.model.ids import PartitionIndex, StageId
from flowkit.scheduling.policies.fair import Fair
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import job, map_stage, result_stage
from flowkit.simulation.what_if import Recording, simulate


def recorded(executors: int = 2, slots: int = 2) -> tuple[Recording, float]:
    """Three jobs: one with a shuffle, after a pause one on the same shuffle, and beside that one of its own."""
    cluster = SimulatedCluster(Config(), task_s=lambda launch: 0.5 + 0.1 * (launch.partition % 5))
    for number in range(executors):
        cluster.add_executor(f"host-{number}", slots)
    app = cluster.open_application("app")
    cluster.advance(1.0)
    pairs = map_stage(0, 40)
    first = cluster.submit(job(app, 0, pairs, result_stage(1, 8, [pairs])))
    while not first.ended:
        cluster.advance(0.01)
    cluster.advance(2.0)
    cluster.submit(job(app, 1, pairs, result_stage(2, 20, [pairs])))
    cluster.submit(job(app, 2, result_stage(3, 6)))
    cluster.run()
    found = Recording.of(cluster.events)
    return found, found.took_s


def test_on_the_recorded_cluster_it_takes_what_it_took():
    recording, took_s = recorded()
    again = simulate(recording, 2)
    assert again.slots == 2
    assert again.took_s == pytest.approx(took_s, rel=0.05)
    assert set(again.jobs) == {0, 1, 2}


def test_more_executors_take_less_and_no_less_than_the_longest_way_through():
    recording, took_s = recorded()
    more = simulate(recording, 8)
    most = simulate(recording, 100)
    assert most.took_s < more.took_s < took_s
    # A map and a reduce task each in the first job, the driver's pause, one task in the second.
    assert most.took_s > 0.9 + 0.9 + 2.0 + 0.9
    assert more.took_s > recording.work_s / 16


def test_slots_and_policy_are_as_one_says():
    recording, _ = recorded()
    assert simulate(recording, 2, slots=4).took_s < simulate(recording, 2, slots=1).took_s
    assert simulate(recording, 2, policy=Fair()).jobs.keys() == {0, 1, 2}


def test_failures_and_tasks_that_ran_twice_count_once():
    cluster = SimulatedCluster(Config(), task_s=1.0)
    for number in range(3):
        cluster.add_executor(f"host-{number}", 1)
    app = cluster.open_application("app")
    cluster.submit(job(app, 0, result_stage(0, 9)))
    cluster.advance(1.5)
    cluster.kill_executor(next(iter(cluster.executors)))
    cluster.run()
    recording = Recording.of(cluster.events)
    assert recording.work_s == pytest.approx(9.0)
    assert recording.slots == [1, 1, 1]
    assert simulate(recording, 3).took_s == pytest.approx(3.0, abs=0.2)


def test_under_a_policy_that_raises_it_says_so_instead_of_a_time():
    class Broken:
        def order(self, candidates):
            raise ValueError("no order")

    recording, _ = recorded()
    with pytest.raises(JobFailed, match="Broken"):
        simulate(recording, 2, policy=Broken())


def test_a_stage_that_never_ran_costs_nothing_and_a_job_without_a_beginning_is_left_out():
    recording, took_s = recorded()
    spared = {key: seconds for key, seconds in recording.times.items() if key[0] != 0}
    without = Recording(recording.jobs, spared, recording.slots)
    assert simulate(without, 2).took_s < took_s - 5.0
    cluster = SimulatedCluster(Config(), task_s=1.0)
    cluster.add_executor()
    app = cluster.open_application("app")
    cluster.submit(job(app, 0, result_stage(0, 2)))
    cluster.run()
    assert not Recording.of(event for event in cluster.events if not isinstance(event, JobStart)).jobs


def test_a_log_without_jobs_is_refused(tmp_path):
    with pytest.raises(InvalidArgument, match="no event log"):
        Recording.read(tmp_path)


def test_partitions_that_shared_a_task_share_its_time_and_pieces_of_one_add_up():
    cluster = SimulatedCluster(Config(), task_s=1.0)
    cluster.first_bytes = 40 << 20
    cluster.add_executor("north", 2)
    app = cluster.open_application("app")
    pairs = map_stage(0, 8)
    result = msgspec.structs.replace(result_stage(1, 40, [pairs]), coalescible=True, splits=pairs.shuffle)
    cluster.submit(job(app, 0, pairs, result))
    cluster.run()
    ended = [each for each in cluster.events if isinstance(each, TaskEnd) and each.stage == 1]
    pieces = sum(1 for each in ended if each.partition == 0)
    assert pieces > 1
    assert any(each.span > 1 for each in ended)
    times = Recording.of(cluster.events).times
    assert times[StageId(1), PartitionIndex(0)] == pytest.approx(pieces * 1.0)
    assert sum(each for (stage, _), each in times.items() if stage == 1) == pytest.approx(len(ended) * 1.0)
    assert {partition for stage, partition in times if stage == 1} == set(range(40))
