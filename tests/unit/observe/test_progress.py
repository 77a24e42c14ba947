"""The picture of a group of jobs: true at every moment of any job, bounded, and nothing of others in it."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.config import Config
from flowkit.model.events import TaskEnd
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import ExceptionFailure
from flowkit.observe.deltas import applied, difference, full
from flowkit.observe.progress import ProgressModel
from flowkit.observe.snapshot import Snapshot
from flowkit.observe.static_view import render_static
from flowkit.scheduling.policies.backlog import Backlog
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import job, map_stage, result_stage


def of(events, **options) -> ProgressModel:
    model = ProgressModel(**options)
    for event in events:
        model.on_event(event)
    return model


def two_stages(**options) -> SimulatedCluster:
    cluster = SimulatedCluster(**options)
    for host in ("north", "south"):
        cluster.add_executor(host)
    app = cluster.open_application("app")
    pairs = map_stage(0, 6)
    cluster.submit(job(app, 0, pairs, result_stage(1, 3, [pairs])))
    return cluster


def test_a_finished_job_is_told_whole():
    cluster = two_stages()
    cluster.run()
    snapshot = of(cluster.events, title="cell 3").snapshot()
    assert (snapshot.title, snapshot.state, snapshot.tasks_done, snapshot.task_count) == ("cell 3", "succeeded", 9, 9)
    first, second = snapshot.stages
    assert (first.state, first.done, first.task_count, first.parents, first.writes_shuffle) == ("done", 6, 6, (), True)
    assert (second.state, second.done, second.task_count, second.parents, second.writes_shuffle) == ("done", 3, 3, (0,), False)
    assert first.durations[0] > 0
    assert first.slowest_partition in range(6)
    assert sum(executor.done for executor in snapshot.executors) == 9
    assert not snapshot.running_tasks
    assert snapshot.ended_at > snapshot.started_at


def test_while_a_job_runs_its_running_tasks_are_told():
    cluster = two_stages(task_s=1.0)
    cluster.advance(0.5)
    model = of(cluster.events)
    snapshot = model.snapshot()
    assert model.is_running
    assert (snapshot.state, snapshot.stages[0].state, snapshot.stages[1].state) == ("running", "running", "waiting")
    assert snapshot.stages[0].running == len(snapshot.running_tasks) == 4
    assert sum(executor.running for executor in snapshot.executors) == 4


def test_what_elasticity_decides_is_told_from_the_first_job_on():
    cluster = SimulatedCluster(Config(lease_s=1e9, max_executors=4), task_s=1.0, allocation=Backlog())
    cluster.add_executor("first", slots=1)
    cluster.slots = 1
    app = cluster.open_application("app")
    cluster.offer_scaling(app, 1)
    cluster.submit(job(app, 0, result_stage(0, 40)))
    cluster.advance(200.0)
    snapshot = of(cluster.events).snapshot()
    assert [(each.before, each.target) for each in snapshot.changes][:2] == [(1, 2), (2, 4)]
    assert all(each.reason for each in snapshot.changes)
    left = [each for each in snapshot.executors if each.removed_at]
    assert len(left) == 3
    assert all(each.released for each in left)
    drawn = render_static(snapshot, of(cluster.events).timeline.since(0, 0).blocks)
    assert "1 → 2 executors" in drawn
    assert "is gone" not in drawn
    before = of(cluster.events[:5]).snapshot()
    assert applied(full(before), difference(before, snapshot))["changes"] == full(snapshot)["changes"]


def test_what_was_lost_is_done_no_more_and_then_recomputed():
    cluster = two_stages(task_s=lambda launch: 5.0 if launch.stage == 1 else 0.01)
    cluster.advance(1.0)
    ((app, _),) = cluster.jobs
    cluster.delete_output(app, 0, 4)
    cluster.run()
    snapshot = of(cluster.events).snapshot()
    assert snapshot.stages[0].recomputed == 1
    assert snapshot.stages[0].done == snapshot.stages[0].task_count == 6
    assert snapshot.failures[0].kind == "FetchFailed"


def test_failures_of_one_kind_are_one_with_a_count():
    cluster = two_stages()
    ((app, _),) = cluster.jobs
    cluster.fail(app, 0, 2, *(ExceptionFailure("ValueError", "no\nmore", "", None) for _ in range(3)))
    cluster.run()
    snapshot = of(cluster.events).snapshot()
    (failure,) = snapshot.failures
    assert (failure.kind, failure.message, failure.count, failure.partition) == ("ValueError", "no", 3, 2)
    assert (failure.partition_count, failure.is_fatal) == (1, False)
    assert (snapshot.failure_count, snapshot.stages[0].failed, snapshot.state) == (3, 3, "succeeded")


def test_a_failure_that_ended_a_job_says_in_how_many_partitions_it_was():
    cluster = two_stages()
    ((app, _),) = cluster.jobs
    for partition in (1, 2):
        cluster.fail(app, 0, partition, *(ExceptionFailure("ValueError", "no", "", None) for _ in range(4)))
    cluster.run()
    snapshot = of(cluster.events).snapshot()
    (failure,) = snapshot.failures
    assert (failure.partition_count, failure.is_fatal) == (2, True)
    assert f"task {failure.partition} of stage 0" in snapshot.jobs[0].reason, "the one that the error names"


def with_rows(events, rows=10):
    """The same events, with rows that each attempt has read, failed ones too."""
    for event in events:
        if isinstance(event, TaskEnd):
            event = msgspec.structs.replace(event, metrics=TaskMetrics(input_rows=rows, run_s=1.0))
        yield event


def test_rows_are_counted_once_however_often_a_partition_was_tried_or_made_again():
    cluster = two_stages(task_s=lambda launch: 5.0 if launch.stage == 1 else 0.01)
    ((app, _),) = cluster.jobs
    cluster.fail(app, 0, 2, *(ExceptionFailure("ValueError", "no", "", None) for _ in range(3)))
    cluster.advance(3.0)
    cluster.delete_output(app, 0, 4)
    cluster.run()
    stages = of(with_rows(cluster.events)).snapshot().stages
    assert (stages[0].failed, stages[0].recomputed, stages[0].rows) == (3, 1, 60)
    assert stages[0].task_seconds == 10.0


def states(cluster) -> list[str]:
    return [stage.state for stage in of(cluster.events).snapshot().stages]


def test_a_failed_job_has_the_stage_to_blame_and_one_that_did_not_run():
    cluster = two_stages()
    ((app, _),) = cluster.jobs
    cluster.fail(app, 0, 2, *(ExceptionFailure("ValueError", "no", "", None) for _ in range(4)))
    cluster.run()
    assert states(cluster) == ["failed", "not run"]


def test_a_cancelled_job_has_cancelled_stages_and_no_failed_one():
    cluster = two_stages(task_s=1.0)
    cluster.advance(0.5)
    (running,) = cluster.jobs.values()
    cluster.cancel(running)
    cluster.run()
    assert states(cluster) == ["cancelled", "not run"]
    assert of(cluster.events).snapshot().state == "cancelled"


def test_a_stage_beside_the_one_that_failed_is_cancelled():
    cluster = SimulatedCluster(task_s=lambda launch: 9.0 if launch.stage == 0 else 0.01)
    cluster.add_executor("north", slots=8)
    app = cluster.open_application("app")
    left, right = map_stage(0, 2), map_stage(1, 2)
    cluster.submit(job(app, 0, left, right, result_stage(2, 1, [left, right])))
    cluster.fail(app, 1, 0, *(ExceptionFailure("ValueError", "no", "", None) for _ in range(4)))
    cluster.run()
    assert states(cluster) == ["cancelled", "failed", "not run"]


def test_a_later_job_skips_what_is_there_and_tries_what_was_cancelled_again():
    cluster = two_stages(task_s=lambda launch: 1.0 if launch.stage == 1 else 0.01)
    cluster.advance(0.5)
    (running,) = cluster.jobs.values()
    cluster.cancel(running)
    cluster.run()
    ((app, _),) = cluster.jobs
    pairs = map_stage(0, 6)
    cluster.submit(job(app, 1, pairs, result_stage(2, 3, [pairs])))
    cluster.run()
    snapshot = of(cluster.events).snapshot()
    assert [(stage.stage, stage.state) for stage in snapshot.stages] == [(0, "done"), (1, "cancelled"), (2, "done")]


def test_an_executor_that_dies_is_told_with_its_reason():
    cluster = two_stages(task_s=1.0)
    cluster.advance(0.5)
    victim = next(iter(cluster.executors))
    cluster.kill_executor(victim)
    cluster.run()
    snapshot = of(cluster.events).snapshot()
    (gone,) = [executor for executor in snapshot.executors if executor.removed_at]
    assert gone.executor == victim
    assert gone.reason
    assert gone.running == 0


def test_jobs_of_others_are_not_in_the_picture():
    cluster = two_stages()
    cluster.run()
    snapshot = of(cluster.events, belongs=lambda start: start.properties.get("cell") == "7").snapshot()
    assert (snapshot.state, snapshot.jobs, snapshot.stages, snapshot.task_count) == ("waiting", (), (), 0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), loss=st.booleans())
def test_at_every_moment_the_numbers_add_up(seed, loss):
    cluster = two_stages(seed=seed, task_s=lambda launch: 0.01 * (1 + (launch.partition * 7 + seed) % 5))
    if loss:
        cluster.advance(0.03)
        cluster.kill_executor(next(iter(cluster.executors)))
    cluster.run()
    model = ProgressModel()
    version = model.version
    for event in cluster.events:
        model.on_event(event)
        snapshot = model.snapshot()
        assert snapshot.version >= version
        version = snapshot.version
        for stage in snapshot.stages:
            assert 0 <= stage.done <= stage.task_count
            assert 0 <= stage.running
        assert snapshot.tasks_done == sum(stage.done for stage in snapshot.stages)
        assert sum(stage.running for stage in snapshot.stages) == len(snapshot.running_tasks)
        assert msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot) == snapshot
    ended = sum(1 for event in cluster.events if isinstance(event, TaskEnd) and event.started_at > 0)
    blocks = [*model.timeline.since(-1, 0).blocks, *model.timeline.growing()]
    assert sum(block.task_count for block in blocks) == ended


def test_a_loop_of_a_thousand_jobs_stays_small():
    cluster = SimulatedCluster()
    cluster.add_executor("north")
    app = cluster.open_application("app")
    for number in range(1_000):
        cluster.submit(job(app, number, result_stage(number, 1)))
        cluster.run()
    snapshot = of(cluster.events).snapshot()
    assert (snapshot.job_count, snapshot.tasks_done, snapshot.state) == (1_000, 1_000, "succeeded")
    assert len(snapshot.jobs) <= 201
    assert len(snapshot.stages) <= 201
    assert len(msgspec.json.encode(snapshot)) < 200_000
