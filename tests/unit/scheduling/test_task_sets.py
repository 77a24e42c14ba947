"""Retries: what counts against a task, what ends its job, where it is tried again."""

from __future__ import annotations

import pytest

from flowkit.config import Config
from flowkit.model.events import TaskEnd, TaskStart
from flowkit.model.task import CommitDeniedFailure, ExceptionFailure, KilledFailure, MemoryFailure
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, map_stage, result_stage
from flowkit.testing.event_order import check_event_order

OOPS = ExceptionFailure("ValueError", "no", "traceback", b"pickled")


def cluster_of(executors: int, *, slots: int = 2, **settings: object) -> SimulatedCluster:
    cluster = SimulatedCluster(Config(validate=True).with_settings(**settings))
    for _ in range(executors):
        cluster.add_executor(slots=slots)
    return cluster


def test_a_task_that_fails_three_times_and_then_succeeds_is_no_matter() -> None:
    cluster = cluster_of(2)
    app = cluster.open_application("app")
    cluster.fail(app, 0, 1, OOPS, OOPS, OOPS)
    done = cluster.submit(job(app, 0, result_stage(0, 3)))
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert [event.attempt_number for event in cluster.events if isinstance(event, TaskStart) and event.partition == 1] == [
        0,
        1,
        2,
        3,
    ]
    cluster.core.assert_empty()


def test_the_fourth_failure_of_one_task_ends_the_job_with_the_last_cause() -> None:
    cluster = cluster_of(2)
    app = cluster.open_application("app")
    cluster.fail(app, 0, 1, *[OOPS] * 4)
    done = cluster.submit(job(app, 0, result_stage(0, 3)))
    cluster.run()
    assert done.failed is not None
    assert done.failed.kind == "JobFailed"
    assert done.failed.failure == OOPS
    assert done.failed.where["partition"] == "1"
    assert done.failed.where["attempt_number"] == "3"
    assert done.failed.where["stage_name"] == "stage 0"
    cluster.core.assert_empty()
    check_event_order(cluster.events)


def test_failures_of_different_tasks_do_not_add_up() -> None:
    cluster = cluster_of(2)
    app = cluster.open_application("app")
    for partition in range(8):
        cluster.fail(app, 0, partition, OOPS, OOPS, OOPS)
    done = cluster.submit(job(app, 0, result_stage(0, 8)))
    cluster.run()
    assert done.succeeded


def test_a_fatal_failure_is_not_tried_again() -> None:
    cluster = cluster_of(2)
    app = cluster.open_application("app")
    fatal = ExceptionFailure("ResultNotPicklable", "a lock", "", None, fatal=True)
    cluster.fail(app, 0, 0, fatal)
    done = cluster.submit(job(app, 0, result_stage(0, 1)))
    cluster.run()
    assert done.failed is not None
    assert done.failed.failure == fatal
    assert sum(isinstance(event, TaskStart) for event in cluster.events) == 1


@pytest.mark.parametrize("failure", [KilledFailure("?"), CommitDeniedFailure()])
def test_what_the_task_did_not_cause_is_not_counted_but_not_endless_either(failure: KilledFailure | CommitDeniedFailure) -> None:
    cluster = cluster_of(2)
    app = cluster.open_application("app")
    cluster.fail(app, 0, 0, *[failure] * 20)
    cluster.fail(app, 1, 0, *[failure] * 1_000)
    fine = cluster.submit(job(app, 0, result_stage(0, 1)))
    endless = cluster.submit(job(app, 1, result_stage(1, 1)))
    cluster.run()
    assert fine.succeeded
    assert endless.failed is not None
    assert not any(event.counted for event in cluster.events if isinstance(event, TaskEnd))


def test_want_of_memory_counts() -> None:
    cluster = cluster_of(2, max_task_failures=2)
    app = cluster.open_application("app")
    cluster.fail(app, 0, 0, MemoryFailure("no room"), MemoryFailure("no room"))
    done = cluster.submit(job(app, 0, result_stage(0, 1)))
    cluster.run()
    assert done.failed is not None
    assert done.failed.kind == "TaskOutOfMemory"


def test_a_retry_goes_to_another_executor_while_there_is_one() -> None:
    cluster = cluster_of(3)
    app = cluster.open_application("app")
    cluster.fail(app, 0, 0, OOPS, OOPS)
    cluster.submit(job(app, 0, result_stage(0, 1)))
    cluster.run()
    first, second, third = (event.executor for event in cluster.events if isinstance(event, TaskStart))
    assert first != second != third


def test_a_retry_does_not_wait_for_long_for_an_executor_that_is_busy() -> None:
    cluster = SimulatedCluster(task_s=lambda launch: 1_000.0 if launch.stage == 0 else 0.01)
    app = cluster.open_application("app")
    cluster.add_executor(slots=1)
    cluster.submit(job(app, 0, result_stage(0, 2)))  # one runs for long, one is queued behind it
    cluster.advance(1.0)
    free = cluster.add_executor(slots=2)
    cluster.advance(1.0)
    cluster.fail(app, 1, 0, OOPS)
    retried = cluster.submit(job(app, 1, result_stage(1, 1)))
    cluster.advance(5.0)
    assert retried.succeeded
    assert [event.executor for event in cluster.events if isinstance(event, TaskStart) and event.stage == 1] == [free, free]


def test_a_task_may_commit_again_when_what_it_committed_is_lost() -> None:
    cluster = SimulatedCluster(task_s=lambda launch: 0.01 if launch.partition == 0 else 10.0)
    app = cluster.open_application("app")
    cluster.add_executor("north", slots=1)
    cluster.add_executor("south", slots=1)
    stage = map_stage(0, 2, commits=True)
    done = cluster.submit(job(app, 0, stage, result_stage(1, 1, [stage])))
    cluster.advance(1.0)
    (holder,) = (host.token for host in cluster.hosts.values() if host.files)
    cluster.delete_host(holder)
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert cluster.computed[app, stage.stage, stage.partitions[0]] == 2
