"""The status store: what it adds up, what it forgets."""

from __future__ import annotations

import pytest

from flowkit.model.events import (
    ExecutorAdded,
    ExecutorRemoved,
    JobEnd,
    JobStart,
    ShuffleOutputsLost,
    StageCompleted,
    StageInfo,
    StageSubmitted,
    TaskEnd,
    TaskStart,
)
from flowkit.model.job_spec import StageKind
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import CommitDeniedFailure, ExceptionFailure, KilledFailure, Locality
from flowkit.observe import status
from flowkit.observe.status import StatusStore

APP = "app-1"


def job_start(job=0, stages=(0,), skipped=(), time=0.0):
    infos = tuple(StageInfo(stage, f"stage {stage}", StageKind.MAP, 2, (), ()) for stage in stages)
    return JobStart(APP, job, "collect at a.py:1", infos, skipped, {}, time=time)


def submitted(stage=0, attempt=0, count=2, time=0.0):
    return StageSubmitted(APP, stage, attempt, f"stage {stage}", count, (0,), time=time)


def task_start(partition=0, stage=0, attempt=0, executor="e", time=0.0):
    return TaskStart(APP, stage, attempt, partition, 1, 0, executor, "host", Locality.ANY, time, time=time)


def task_end(partition=0, stage=0, attempt=0, executor="e", failure=None, started_at=1.0, metrics=None, time=0.0):
    metrics = metrics or TaskMetrics()
    return TaskEnd(APP, stage, attempt, partition, 1, 0, executor, started_at, time, failure, True, metrics, time=time)


def fold(*events, app=None):
    store = StatusStore(app)
    for event in events:
        store.on_event(event)
    return store


FAILED = ExceptionFailure("ValueError", "no", "", None)


def test_a_stage_counts_its_tasks():
    store = fold(submitted(count=3), task_start(0), task_start(1), task_start(2), task_end(0), task_end(1, failure=FAILED))
    [stage] = store.stages()
    assert (stage.task_count, stage.running_count, stage.succeeded_count, stage.failed_count) == (3, 1, 1, 1)


@pytest.mark.parametrize("failure", [KilledFailure("faster elsewhere"), CommitDeniedFailure()])
def test_what_was_killed_or_denied_has_not_failed(failure):
    store = fold(submitted(), task_start(0), task_end(0, failure=failure))
    assert store.stages()[0].failed_count == 0
    assert store.summary().failed_tasks == 0
    assert store.stages()[0].running_count == 0


def test_a_task_that_never_started_does_not_end_one_that_runs():
    store = fold(submitted(), task_start(0), task_end(1, failure=KilledFailure("cancelled"), started_at=0.0))
    assert store.stages()[0].running_count == 1


def test_rows_and_bytes_are_of_attempts_that_ended_well_and_seconds_of_all():
    store = fold(
        submitted(),
        task_end(0, metrics=TaskMetrics(input_rows=10, shuffle_local_bytes=3, shuffle_remote_bytes=4, shuffle_write_bytes=5)),
        task_end(1, failure=FAILED, metrics=TaskMetrics(input_rows=1, run_s=0.5)),
    )
    summary = store.summary()
    assert (summary.input_rows, summary.shuffle_read_bytes, summary.shuffle_write_bytes, summary.task_seconds) == (10, 7, 5, 0.5)
    assert store.stages()[0].metrics.input_rows == 10


def test_what_is_computed_again_is_not_counted_again():
    rows = TaskMetrics(input_rows=10, run_s=1.0)
    store = fold(submitted(), task_end(0, metrics=rows), submitted(attempt=1), task_end(0, attempt=1, metrics=rows))
    summary = store.summary()
    assert (summary.input_rows, summary.task_seconds, summary.recomputed_tasks) == (10, 2.0, 1)
    assert [each.metrics.input_rows for each in store.stages()] == [10, 10]  # an attempt tells what it did


def test_skipped_failed_cancelled_and_not_run_are_four_states_of_stages():
    store = fold(
        job_start(0, stages=(0, 1, 2, 3, 4), skipped=(0,)),
        submitted(1),
        submitted(2),
        submitted(3),
        StageCompleted(APP, 1, 0, "stage 1", outcome="succeeded", time=1.0),
        StageCompleted(APP, 2, 0, "stage 2", "no", "failed", time=2.0),
        StageCompleted(APP, 3, 0, "stage 3", "no", "cancelled", time=2.0),
    )
    assert [each.state for each in store.stages_of(0)] == ["skipped", "done", "failed", "cancelled", "waiting"]
    store.on_event(JobEnd(APP, 0, "failed", "no", time=2.0))
    assert [each.state for each in store.stages_of(0)] == ["skipped", "done", "failed", "cancelled", "not run"]
    assert [(each.stage, each.task_count) for each in store.stages_of(0)][4] == (4, 2)
    assert store.stages_of(7) == ()


def test_what_a_lost_scheduler_left_running_is_cancelled_with_its_job():
    store = fold(job_start(0), submitted(0), task_start(0), JobEnd(APP, 0, "failed", "the scheduler is gone", time=2.0))
    (stage,) = store.stages()
    assert (stage.state, stage.running_count, stage.ended_at) == ("cancelled", 0, 2.0)
    assert not store.stages(running=True)


def test_a_stage_that_lost_its_input_waits_for_its_next_attempt():
    store = fold(job_start(0), submitted(0), StageCompleted(APP, 0, 0, "stage 0", "its input is gone", "held up", time=1.0))
    assert store.stages_of(0)[0].state == "waiting"


def test_tasks_that_run_again_after_a_loss_are_counted_as_recomputed():
    store = fold(
        submitted(),
        task_end(0),
        task_end(1),
        ShuffleOutputsLost(APP, 0, 0, (1,), "executor lost", time=0.0),
        submitted(attempt=1, count=1),
        task_end(1, attempt=1),
    )
    summary = store.summary()
    assert (summary.tasks, summary.recomputed_tasks, summary.lost_outputs) == (3, 1, 1)


def test_a_retry_after_a_failure_is_no_recomputation():
    assert fold(submitted(), task_end(0, failure=FAILED), task_end(0)).summary().recomputed_tasks == 0


def test_skipped_stages_and_job_outcomes_are_counted():
    store = fold(
        job_start(0, stages=(0, 1), skipped=(0,)),
        JobEnd(APP, 0, "succeeded", time=1.0),
        job_start(1),
        JobEnd(APP, 1, "failed", "ValueError", time=2.0),
    )
    summary = store.summary()
    assert (summary.jobs, summary.failed_jobs, summary.skipped_stages) == (2, 1, 1)
    assert [(job.outcome, job.reason) for job in store.jobs()] == [("succeeded", ""), ("failed", "ValueError")]


def test_seconds_are_those_in_which_any_job_ran():
    store = fold(
        job_start(0, time=10.0),
        job_start(1, time=11.0),
        JobEnd(APP, 0, "succeeded", time=12.0),
        JobEnd(APP, 1, "succeeded", time=14.0),
        job_start(2, time=100.0),
    )
    assert store.summary().seconds == 4.0
    assert store.summary(now=103.0).seconds == 7.0


def test_executors_come_and_go():
    store = fold(
        ExecutorAdded("e", "host", 4, time=1.0),
        submitted(),
        task_start(0),
        ExecutorRemoved("e", "host", "killed by signal 9", time=2.0),
    )
    [executor] = store.executors()
    assert (executor.slots, executor.running_count, executor.removed_at, executor.reason) == (4, 0, 2.0, "killed by signal 9")


def test_events_of_other_applications_are_left_out():
    store = fold(job_start(0), app="app-2")
    assert store.summary().jobs == 0


def test_only_running_stages_are_shown_when_asked_for():
    store = fold(submitted(0), submitted(1), StageCompleted(APP, 0, 0, "stage 0", time=1.0))
    assert [stage.stage for stage in store.stages(running=True)] == [1]


def test_what_is_read_does_not_change_afterwards():
    store = fold(submitted())
    [before] = store.stages()
    store.on_event(task_end(0, metrics=TaskMetrics(input_rows=5)))
    assert (before.succeeded_count, before.metrics.input_rows) == (0, 0)


def test_memory_is_bounded_totals_are_not_and_what_runs_is_never_forgotten(monkeypatch):
    monkeypatch.setattr(status, "_REMEMBERED", 10)
    store = fold(job_start(0), submitted(0))
    for number in range(1, 100):
        store.on_event(job_start(number))
        store.on_event(JobEnd(APP, number, "succeeded", time=1.0))
        store.on_event(submitted(number))
        store.on_event(task_end(0, stage=number))
        store.on_event(StageCompleted(APP, number, 0, "", time=1.0))
        store.on_event(ExecutorAdded(f"e{number}", "host", 1, time=1.0))
        store.on_event(ExecutorRemoved(f"e{number}", "host", "", time=1.0))
    assert len(store.jobs()) == len(store.stages()) == len(store.executors()) == 10
    assert store.jobs()[0].job == 0
    assert store.stages(running=True)[0].stage == 0
    assert (store.summary().jobs, store.summary().tasks) == (100, 99)


def test_rates_are_rows_over_the_stages_own_time():
    store = fold(submitted(time=10.0), task_end(0, metrics=TaskMetrics(input_rows=100, shuffle_read_rows=100)))
    assert store.stages()[0].rows_per_second(now=12.0) == 100.0
    assert store.stages()[0].rows_per_second(now=10.0) == 0.0


def test_executors_of_one_age_have_one_order_whoever_told_of_them_first():
    one, other = ExecutorAdded("a", "host", 1, time=1.0), ExecutorAdded("b", "host", 1, time=1.0)
    assert fold(one, other).executors() == fold(other, one).executors()
