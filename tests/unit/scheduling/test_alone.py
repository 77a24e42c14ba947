"""What took too much memory is tried again with nobody beside it, and nobody starves for that."""

from __future__ import annotations

import pytest

from flowkit.config import Config
from flowkit.model import events as ev
from flowkit.model.task import MemoryFailure
from flowkit.scheduling import stimuli as sti
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, result_stage

TOO_MUCH = MemoryFailure("too much")


def cluster_of(executors: int, slots: int, **settings) -> SimulatedCluster:
    cluster = SimulatedCluster(Config(validate=True, **settings), task_s=0.1)
    for _ in range(executors):
        cluster.add_executor(slots=slots)
    return cluster


def beside(cluster: SimulatedCluster, partition: int) -> list[set[int]]:
    """What ran on its executor at any time during each attempt at a partition."""
    starts = [event for event in cluster.events if isinstance(event, ev.TaskStart)]
    ends = {event.attempt: event for event in cluster.events if isinstance(event, ev.TaskEnd)}
    spans = {start.attempt: (start.executor, ends[start.attempt].started_at, ends[start.attempt].ended_at) for start in starts}
    found = []
    for start in starts:
        if start.partition == partition:
            executor, began, ended = spans[start.attempt]
            found.append(
                {
                    other.partition
                    for other in starts
                    if other.attempt != start.attempt
                    and spans[other.attempt][0] == executor
                    and spans[other.attempt][1] < ended
                    and began < spans[other.attempt][2]
                }
            )
    return found


@pytest.mark.parametrize("executors", [1, 3])
def test_it_runs_again_with_nobody_beside_it(executors: int) -> None:
    cluster = cluster_of(executors, slots=4)
    app = cluster.open_application("app")
    cluster.fail(app, 0, 5, TOO_MUCH, TOO_MUCH)
    done = cluster.submit(job(app, 0, result_stage(0, 60)))
    cluster.run()
    assert done.numbers == expected(done.spec)
    first, second, third = beside(cluster, 5)
    assert first, "the first attempt had others beside it"
    assert (second, third) == (set(), set())


def test_many_of_them_leave_room_for_others() -> None:
    cluster = cluster_of(4, slots=2)
    app = cluster.open_application("app")
    for partition in range(6):
        cluster.fail(app, 0, partition, TOO_MUCH)
    done = cluster.submit(job(app, 0, result_stage(0, 40)))
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert all(beside(cluster, partition)[1] == set() for partition in range(6))


def test_its_executor_may_go_away() -> None:
    cluster = cluster_of(2, slots=2)
    app = cluster.open_application("app")
    cluster.fail(app, 0, 0, TOO_MUCH)
    done = cluster.submit(job(app, 0, result_stage(0, 20)))
    while not any(executor.held_for for executor in cluster.core._books.executors):
        cluster.advance(0.005)
    (held,) = [executor.id for executor in cluster.core._books.executors if executor.held_for]
    cluster.tell(sti.ExecutorDraining(held))
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert beside(cluster, 0)[1] == set()


def test_a_cancelled_job_gives_its_executor_back() -> None:
    cluster = cluster_of(1, slots=2)
    app = cluster.open_application("app")
    cluster.fail(app, 0, 0, TOO_MUCH)
    doomed = cluster.submit(job(app, 0, result_stage(0, 20)))
    while not any(executor.held_for for executor in cluster.core._books.executors):
        cluster.advance(0.005)
    cluster.cancel(doomed)
    done = cluster.submit(job(app, 1, result_stage(1, 20)))
    cluster.run()
    assert done.numbers == expected(done.spec)
    cluster.core.assert_empty()


def test_a_task_that_takes_too_much_alone_as_well_fails_the_job() -> None:
    cluster = cluster_of(1, slots=2, max_task_failures=3)
    app = cluster.open_application("app")
    cluster.fail(app, 0, 0, *[TOO_MUCH] * 5)
    failed = cluster.submit(job(app, 0, result_stage(0, 8)))
    cluster.run()
    assert failed.failed is not None
    assert failed.failed.kind == "TaskOutOfMemory"
