"""What is computed again after a loss: exactly what was lost and is needed."""

from __future__ import annotations

from flowkit.config import Config
from flowkit.model.events import ExecutorRemoved, ShuffleOutputsLost, StageSubmitted, TaskEnd, TaskStart
from flowkit.model.ids import HostToken, PartitionIndex, ShuffleId
from flowkit.model.job_spec import Determinism
from flowkit.model.task import ExceptionFailure, FetchFailure
from flowkit.scheduling import actions as act
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, map_stage, result_stage
from flowkit.testing.event_order import check_event_order

SLOW_RESULT = 5.0


def slow_results(launch: object) -> float:
    return SLOW_RESULT if getattr(launch, "stage", 0) == 1 else 0.01


def lost_partitions(cluster: SimulatedCluster) -> list[int]:
    return sorted(each for event in cluster.events if isinstance(event, ShuffleOutputsLost) for each in event.partitions)


def test_a_deleted_map_file_runs_exactly_that_map_task_again() -> None:
    cluster = SimulatedCluster(task_s=slow_results)
    for host in ("north", "south"):
        cluster.add_executor(host)
    app = cluster.open_application("app")
    pairs = map_stage(0, 6)
    done = cluster.submit(job(app, 0, pairs, result_stage(1, 3, [pairs])))
    cluster.advance(1.0)
    cluster.delete_output(app, 0, 4)
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert lost_partitions(cluster) == [4]
    assert {partition: times for (_, _, partition), times in cluster.computed.items()} == {0: 1, 1: 1, 2: 1, 3: 1, 4: 2, 5: 1}
    assert not any(event.counted for event in cluster.events if isinstance(event, TaskEnd))
    check_event_order(cluster.events)
    cluster.core.assert_empty()


def test_many_deleted_files_found_one_by_one_do_not_end_the_job() -> None:
    cluster = SimulatedCluster(task_s=0.01)
    for host in ("north", "south"):
        cluster.add_executor(host)
    app = cluster.open_application("app")
    pairs = map_stage(0, 12)
    cluster.submit(job(app, 0, pairs, result_stage(1, 1, [pairs])))
    cluster.run()
    for partition in range(12):
        cluster.delete_output(app, 0, partition)
    done = cluster.submit(job(app, 1, pairs, result_stage(2, 1, [pairs])))
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert lost_partitions(cluster) == list(range(12))


def test_the_same_output_lost_four_times_in_a_row_ends_the_job() -> None:
    cluster = SimulatedCluster(task_s=0.01)
    cluster.add_executor()
    app = cluster.open_application("app")
    pairs = map_stage(0, 2)
    done = cluster.submit(job(app, 0, pairs, result_stage(1, 1, [pairs])))
    while not done.ended:
        cluster.delete_output(app, 0, 0)
        cluster.advance(0.002)
    assert done.failed is not None
    assert done.failed.kind == "ShuffleLost"
    assert cluster.computed[app, pairs.stage, PartitionIndex(0)] == cluster.config.max_stage_attempts


def test_a_fetch_failure_from_older_sources_is_answered_by_a_launch_alone() -> None:
    cluster = SimulatedCluster(task_s=0.01)
    cluster.add_executor()
    app = cluster.open_application("app")
    pairs = map_stage(0, 2)
    stale = FetchFailure(ShuffleId(0), None, None, HostToken("host"), "unreachable", "?", epoch=1)
    cluster.fail(app, 1, 0, stale)
    done = cluster.submit(job(app, 0, pairs, result_stage(1, 1, [pairs])))
    cluster.run()
    assert done.succeeded
    assert lost_partitions(cluster) == []
    assert set(cluster.computed.values()) == {1}


def test_fetch_failures_that_name_nothing_lost_are_bounded() -> None:
    cluster = SimulatedCluster(task_s=0.01)
    cluster.add_executor()
    app = cluster.open_application("app")
    pairs = map_stage(0, 2)
    cluster.fail(app, 1, 0, *[FetchFailure(ShuffleId(0), None, None, HostToken("host"), "unreachable", "?", epoch=0)] * 1_000)
    done = cluster.submit(job(app, 0, pairs, result_stage(1, 1, [pairs])))
    cluster.run(limit_s=100.0)
    assert done.failed is not None
    assert done.failed.kind == "ShuffleLost"


def test_outputs_of_a_dead_process_are_adopted_by_its_neighbour() -> None:
    cluster = SimulatedCluster(task_s=slow_results)
    first = cluster.add_executor("host")
    cluster.add_executor("host")
    app = cluster.open_application("app")
    pairs = map_stage(0, 6)
    done = cluster.submit(job(app, 0, pairs, result_stage(1, 3, [pairs])))
    cluster.advance(1.0)
    cluster.kill_executor(first, task_caused=True)
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert set(cluster.computed.values()) == {1}
    assert lost_partitions(cluster) == []


def test_outputs_wait_for_a_host_that_comes_back_when_nobody_else_is_there() -> None:
    cluster = SimulatedCluster(task_s=slow_results)
    only = cluster.add_executor("host")
    app = cluster.open_application("app")
    pairs = map_stage(0, 6)
    done = cluster.submit(job(app, 0, pairs, result_stage(1, 3, [pairs])))
    cluster.advance(1.0)
    cluster.kill_executor(only)
    cluster.advance(3.0)
    cluster.add_executor("host")
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert set(cluster.computed.values()) == {1}


def test_a_dead_host_costs_exactly_its_map_tasks() -> None:
    cluster = SimulatedCluster(task_s=slow_results)
    cluster.add_executor("north")
    cluster.add_executor("south")
    app = cluster.open_application("app")
    pairs = map_stage(0, 8)
    done = cluster.submit(job(app, 0, pairs, result_stage(1, 3, [pairs])))
    cluster.advance(1.0)
    held = sorted(partition for _, _, partition, _ in cluster.hosts[HostToken("north")].files)
    cluster.delete_host("north")
    cluster.run()
    assert held
    assert done.numbers == expected(done.spec)
    assert lost_partitions(cluster) == held
    assert sorted(partition for (_, _, partition), times in cluster.computed.items() if times == 2) == held


def test_outputs_nobody_needs_are_not_made_again() -> None:
    cluster = SimulatedCluster(task_s=0.01)
    cluster.add_executor("north")
    cluster.add_executor("south")
    app = cluster.open_application("app")
    first = map_stage(0, 4)
    second = map_stage(1, 4, [first])
    cluster.submit(job(app, 0, first, second, result_stage(2, 2, [second])))
    cluster.run()
    for partition in range(4):
        cluster.delete_output(app, 0, partition)
    done = cluster.submit(job(app, 1, first, second, result_stage(3, 2, [second])))
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert set(cluster.computed.values()) == {1}


def test_a_loss_reaches_as_far_back_as_it_must() -> None:
    cluster = SimulatedCluster(task_s=0.01)
    cluster.add_executor("north")
    app = cluster.open_application("app")
    first = map_stage(0, 3)
    second = map_stage(1, 3, [first])
    cluster.submit(job(app, 0, first, second, result_stage(2, 2, [second])))
    cluster.run()
    cluster.delete_output(app, 0, 1)
    cluster.delete_output(app, 1, 2)
    done = cluster.submit(job(app, 1, first, second, result_stage(3, 2, [second])))
    cluster.run()
    assert done.numbers == expected(done.spec)
    again = {(stage, partition) for (_, stage, partition), times in cluster.computed.items() if times == 2}
    assert again == {(0, 1), (1, 2)}


def test_all_three_executors_killed_one_after_another_do_not_end_a_job() -> None:
    cluster = SimulatedCluster(task_s=1.0)
    executors = [cluster.add_executor("host") for _ in range(3)]
    app = cluster.open_application("app")
    pairs = map_stage(0, 6)
    done = cluster.submit(job(app, 0, pairs, result_stage(1, 3, [pairs])))
    for executor in executors:
        cluster.advance(0.5)
        cluster.kill_executor(executor, task_caused=True)
        cluster.add_executor("host")
    cluster.run()
    assert done.numbers == expected(done.spec)


def test_a_task_that_kills_every_executor_it_meets_ends_its_job_with_the_reasons() -> None:
    cluster = SimulatedCluster(task_s=1.0)
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 1)))
    for _ in range(4):
        executor = cluster.add_executor()
        cluster.advance(0.5)
        cluster.kill_executor(executor, task_caused=True, reason="killed by SIGSEGV")
    cluster.run()
    assert done.failed is not None
    assert done.failed.kind == "ExecutorsLost"
    assert "SIGSEGV" in done.failed.reason


def test_only_what_a_dead_process_had_in_hand_is_blamed_for_its_death() -> None:
    # Endings are reported late here: partition 0 is over, the core has not heard of it, and partition 1 kills the process.
    cluster = SimulatedCluster(task_s=lambda launch: 0.01 if launch.partition == 0 else 1.0, report_batch_s=0.2)
    executor = cluster.add_executor(slots=2)
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 2)))
    cluster.advance(0.1)
    cluster.kill_executor(executor, task_caused=True, record=True)
    cluster.add_executor()
    cluster.run()
    assert done.numbers == expected(done.spec)
    failed = [event for event in cluster.events if isinstance(event, TaskEnd) and event.failure is not None]
    assert [(event.partition, event.counted) for event in failed] == [(1, True)]
    ended = {event.partition: event.attempt_number for event in cluster.events if isinstance(event, TaskEnd)}
    assert ended == {0: 1, 1: 1}, "both are made again"
    check_event_order(cluster.events)


def test_a_silent_executor_expires_and_its_tasks_run_elsewhere() -> None:
    cluster = SimulatedCluster(task_s=1.0)
    silent = cluster.add_executor("north")
    cluster.add_executor("south")
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 4)))
    cluster.advance(0.5)
    cluster.stop_executor(silent)
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert silent not in cluster.executors
    assert any("heartbeat" in event.reason for event in cluster.events if isinstance(event, ExecutorRemoved))


def test_rows_that_differ_each_time_are_never_mixed() -> None:
    cluster = SimulatedCluster(task_s=slow_results)
    cluster.add_executor("north")
    cluster.add_executor("south")
    app = cluster.open_application("app")
    sampled = map_stage(0, 4, determinism=Determinism.INDETERMINATE)
    done = cluster.submit(job(app, 0, sampled, result_stage(1, 2, [sampled])))
    cluster.advance(1.0)
    cluster.delete_output(app, 0, 2)
    cluster.run()
    assert done.numbers == expected(done.spec)
    made_of = set().union(*(value.made_of for value in done.values.values()))
    assert len(made_of) == 4
    assert all(cluster.computed[app, sampled.stage, partition] == 2 for partition in sampled.partitions)


def test_results_of_rows_that_cannot_be_had_again_end_the_job_rather_than_mix() -> None:
    cluster = SimulatedCluster(task_s=lambda launch: 0.01 if launch.stage == 0 or launch.partition == 0 else 5.0)
    cluster.add_executor("north", slots=1)
    cluster.add_executor("south", slots=1)
    app = cluster.open_application("app")
    sampled = map_stage(0, 4, determinism=Determinism.INDETERMINATE)
    done = cluster.submit(job(app, 0, sampled, result_stage(1, 3, [sampled])))
    cluster.advance(2.0)
    cluster.delete_output(app, 0, 2)
    cluster.run()
    assert done.failed is not None
    assert done.failed.kind == "ShuffleLost"
    assert "other rows" in done.failed.reason
    cluster.core.assert_empty()


def test_a_stage_attempt_after_a_loss_tells_how_few_tasks_it_has() -> None:
    cluster = SimulatedCluster(Config(validate=True), task_s=slow_results)
    cluster.add_executor("north")
    app = cluster.open_application("app")
    pairs = map_stage(0, 6)
    cluster.submit(job(app, 0, pairs, result_stage(1, 1, [pairs])))
    cluster.advance(1.0)
    cluster.delete_output(app, 0, 3)
    cluster.run()
    submitted = [
        (event.stage_attempt, event.task_count)
        for event in cluster.events
        if isinstance(event, StageSubmitted) and event.stage == 0
    ]
    assert submitted == [(0, 6), (1, 1)]


def test_a_job_ends_with_what_its_function_raised_though_an_executor_died_under_the_last_try() -> None:
    cluster = SimulatedCluster(Config(validate=True, max_task_failures=3), task_s=1.0)
    for _ in range(2):
        cluster.add_executor(slots=1)
    app = cluster.open_application("app")
    oops = ExceptionFailure("ValueError", "no", "", None)
    cluster.fail(app, 0, 0, oops, oops)
    failed = cluster.submit(job(app, 0, result_stage(0, 1)))
    while sum(isinstance(event, TaskStart) for event in cluster.events) < 3:
        cluster.advance(0.1)
    last = [event for event in cluster.events if isinstance(event, TaskStart)][-1]
    cluster.kill_executor(last.executor, task_caused=True, record=True)
    cluster.run()
    assert failed.failed is not None
    assert failed.failed.failure == oops
    assert "killed by a test" in failed.failed.reason
    assert "ValueError: no" in failed.failed.reason


class Deaf(SimulatedCluster):
    """Executors that do not hear anew of the second stage, once ``deaf`` is set; the first ``misses`` times."""

    deaf = False
    misses = 1

    def _perform(self, action: act.Action) -> None:
        if self.deaf and isinstance(action, act.DefineStage) and action.definition.stage == 1 and self.misses:
            self.misses -= 1
            return
        super()._perform(action)


def test_an_executor_that_missed_where_its_input_is_now_is_told_again() -> None:
    cluster = Deaf(Config(validate=True), task_s=1.0)
    cluster.add_executor(slots=1)
    app = cluster.open_application("app")
    source = map_stage(0, 2)
    done = cluster.submit(job(app, 0, source, result_stage(1, 6, [source])))
    cluster.advance(2.5)  # it knows the second stage by now
    cluster.deaf = True
    cluster.delete_output(app, 0, 0)
    cluster.run(limit_s=60.0)
    assert done.numbers == expected(done.spec)
    failed = [event for event in cluster.events if isinstance(event, TaskEnd) and event.failure is not None]
    assert not cluster.misses
    assert len(failed) < 8, "it asked for what is gone again and again"
