"""Who gets which task: nearness and how long it is waited for, how much is queued ahead, what is taken back."""

from __future__ import annotations

import pytest

from flowkit.config import Config
from flowkit.model.events import TaskStart
from flowkit.model.ids import AppId, ExecutorId, HostToken, JobId
from flowkit.model.task import Locality
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti
from flowkit.scheduling.core import SchedulerCore
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, map_stage, result_stage


def starts(cluster: SimulatedCluster) -> list[TaskStart]:
    return [event for event in cluster.events if isinstance(event, TaskStart)]


def core_with(executors: int, slots: int, config: Config | None = None) -> tuple[SchedulerCore, list[ExecutorId], AppId]:
    core, app = SchedulerCore(config or Config(validate=True), seed=1), AppId("app")
    core.handle(sti.ApplicationOpened(app, "app", "0", 60.0), 0.0)
    names = [ExecutorId(f"tcp://10.0.0.{number}:1#1") for number in range(executors)]
    for name in names:
        core.handle(sti.ExecutorReady(name, HostToken("host"), slots), 0.0)
    return core, names, app


def launched(actions: list[act.Action]) -> dict[ExecutorId, int]:
    return {action.executor: len(action.tasks) for action in actions if isinstance(action, act.Launch)}


# -- nearness


def test_tasks_go_where_their_input_files_are() -> None:
    cluster = SimulatedCluster(task_s=0.01)
    cluster.add_executor("north", slots=4, names=("north.example",))
    cluster.add_executor("south", slots=4, names=("south.example",))
    app = cluster.open_application("app")
    cluster.advance(0.1)
    here = {0: ("north.example",), 1: ("south.example",), 2: ("south.example",), 3: ("north.example", "south.example")}
    cluster.submit(job(app, 0, result_stage(0, 4, preferred_hosts=here)))
    cluster.run()
    where = {event.partition: event.host for event in starts(cluster)}
    assert (where[0], where[1], where[2]) == ("north", "south", "south")  # type: ignore[index]
    assert {event.locality for event in starts(cluster)} == {Locality.NODE}


def test_a_slot_near_the_data_is_waited_for_only_so_long() -> None:
    cluster = SimulatedCluster(Config(validate=True, locality_wait_s=0.5), task_s=10.0)
    cluster.add_executor("north", slots=1, names=("north",))
    cluster.add_executor("south", slots=4, names=("south",))
    app = cluster.open_application("app")
    cluster.advance(0.1)
    cluster.submit(job(app, 0, result_stage(0, 4, preferred_hosts={partition: ("north",) for partition in range(4)})))
    cluster.advance(0.4)
    assert {event.host for event in starts(cluster)} == {"north"}
    cluster.advance(0.3)
    assert {event.host for event in starts(cluster)} == {"north", "south"}
    assert {event.locality for event in starts(cluster)} >= {Locality.NODE, Locality.ANY}
    cluster.run()


def test_nobody_waits_for_a_host_that_is_not_there() -> None:
    cluster = SimulatedCluster(Config(validate=True, locality_wait_s=100.0), task_s=0.01)
    cluster.add_executor("north", names=("north",))
    cluster.add_executor("south", names=("south",))
    app = cluster.open_application("app")
    cluster.advance(0.1)
    done = cluster.submit(job(app, 0, result_stage(0, 2, preferred_hosts={0: ("elsewhere",), 1: ("elsewhere",)})))
    cluster.advance(1.0)
    assert done.succeeded


def test_reducers_go_where_most_of_their_input_lies() -> None:
    cluster = SimulatedCluster(task_s=0.01)
    cluster.add_executor("north", slots=4)
    app = cluster.open_application("app")
    cluster.advance(0.1)
    pairs = map_stage(0, 4)
    cluster.submit(job(app, 0, pairs, result_stage(1, 1, [pairs])))
    cluster.run()
    for _ in range(3):
        cluster.add_executor("south", slots=4)
    cluster.advance(0.1)
    cluster.submit(job(app, 1, pairs, result_stage(2, 4, [pairs])))
    cluster.run()
    assert {event.host for event in starts(cluster) if event.stage == 2} == {"north"}


def test_the_cache_is_first_choice_and_its_neighbour_second() -> None:
    cluster = SimulatedCluster(
        Config(validate=True, locality_wait_s=0.5), task_s=lambda launch: 0.01 if launch.stage == 0 else 10.0
    )
    cluster.add_executor("north", slots=1)
    app = cluster.open_application("app")
    cluster.submit(job(app, 0, result_stage(0, 3, cached=7)))
    cluster.run()
    cluster.add_executor("north", slots=1)
    cluster.add_executor("south", slots=1)
    cluster.advance(0.1)
    cluster.submit(job(app, 1, result_stage(1, 3, cached=7)))
    cluster.advance(0.4)
    assert [event.locality for event in starts(cluster)[3:]] == [Locality.PROCESS]
    cluster.advance(0.3)
    assert [event.locality for event in starts(cluster)[3:5]] == [Locality.PROCESS, Locality.NODE]
    cluster.run()


# -- launch depth


def test_one_task_waits_at_each_executor_while_nothing_is_known_of_their_time() -> None:
    core, names, app = core_with(3, slots=2)
    actions = core.handle(sti.JobSubmitted(job(app, 0, result_stage(0, 100))), 1.0)
    assert launched(actions) == dict.fromkeys(names, 3)


def test_tiny_tasks_are_queued_deeply_and_long_ones_hardly() -> None:
    def most_queued(task_s: float) -> int:
        cluster = SimulatedCluster(task_s=task_s)
        executor = cluster.executors[cluster.add_executor(slots=2)]
        app = cluster.open_application("app")
        cluster.submit(job(app, 0, result_stage(0, 400)))
        most = 0
        while not all(each.ended for each in cluster.jobs.values()):
            cluster.advance(task_s)
            most = max(most, len(executor.queue) + len(executor.running))
        return most

    assert most_queued(0.0005) > 40
    assert most_queued(1.0) == 3


def test_depth_has_a_limit() -> None:
    cluster = SimulatedCluster(Config(validate=True, max_launch_depth=16), task_s=0.00001)
    executor = cluster.executors[cluster.add_executor(slots=2)]
    app = cluster.open_application("app")
    cluster.submit(job(app, 0, result_stage(0, 400)))
    most = 0
    while not all(each.ended for each in cluster.jobs.values()):
        cluster.advance(0.0005)
        most = max(most, len(executor.queue) + len(executor.running))
    assert most <= 16


# -- taking back


def test_tasks_queued_behind_a_long_one_run_elsewhere() -> None:
    cluster = SimulatedCluster(task_s=lambda launch: 100.0 if launch.partition == 40 else 0.001)
    for _ in range(4):
        cluster.add_executor(slots=1)
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 80)))
    cluster.advance(1.0)
    assert len(done.values) == 79
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert len(starts(cluster)) == 80


def test_tasks_taken_back_run_near_their_data_when_somebody_else_there_is_free() -> None:
    config = Config(validate=True, locality_wait_s=0.5)
    cluster = SimulatedCluster(config, task_s=lambda launch: 100.0 if launch.partition == 40 else 0.001)
    for host in ("north", "north", "south", "south"):
        cluster.add_executor(host, slots=1, names=(host,))
    app = cluster.open_application("app")
    cluster.advance(0.1)
    cluster.keep_actions = True
    here = {partition: ("north",) for partition in range(80)}
    done = cluster.submit(job(app, 0, result_stage(0, 80, preferred_hosts=here)))
    cluster.advance(1.0)
    assert len(done.values) == 79
    launches = [task for action in cluster.actions if isinstance(action, act.Launch) for task in action.tasks]
    assert len(launches) > 80, "something was taken back"
    assert {event.host for event in starts(cluster)} == {"north"}
    assert {event.locality for event in starts(cluster)} == {Locality.NODE}


def test_tasks_taken_back_from_the_only_executor_near_their_data_wait_for_nobody() -> None:
    config = Config(validate=True, locality_wait_s=50.0)
    cluster = SimulatedCluster(config, task_s=lambda launch: 100.0 if launch.partition == 50 else 0.001)
    for host in ("north", "south", "south"):
        cluster.add_executor(host, slots=1, names=(host,))
    app = cluster.open_application("app")
    cluster.advance(0.1)
    done = cluster.submit(job(app, 0, result_stage(0, 60, preferred_hosts={each: ("north",) for each in range(60)})))
    cluster.advance(1.0)
    assert len(done.values) == 59
    assert {event.partition for event in starts(cluster) if event.host == "south"} <= set(range(51, 60))


def test_a_paused_executor_gives_back_what_it_has_not_started() -> None:
    cluster = SimulatedCluster(task_s=5.0)
    paused = cluster.add_executor(slots=1)
    app = cluster.open_application("app")
    cluster.submit(job(app, 0, result_stage(0, 4)))
    cluster.advance(1.0)
    assert len(cluster.executors[paused].queue) == 1
    cluster.tell(sti.ExecutorPaused(paused))
    cluster.advance(1.0)
    assert not cluster.executors[paused].queue
    assert cluster.executors[paused].running
    cluster.add_executor(slots=1)
    cluster.run()
    assert sum(event.executor == paused for event in starts(cluster)) == 1


def test_a_recall_that_comes_too_late_changes_nothing() -> None:
    cluster = SimulatedCluster(task_s=1.0)
    executor = cluster.add_executor(slots=1)
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 2)))
    cluster.advance(1.0)
    cluster.tell(sti.ExecutorPaused(executor))
    cluster.advance(2.5)
    cluster.tell(sti.ExecutorResumed(executor))
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert len(starts(cluster)) == 2


def test_a_launch_that_never_arrived_is_made_again_and_counts_against_nobody() -> None:
    core, (executor,), app = core_with(1, slots=1)
    actions = core.handle(sti.JobSubmitted(job(app, 0, result_stage(0, 1))), 1.0)
    assert launched(actions) == {executor: 1}
    assert launched(core.handle(sti.Heartbeat(executor, ()), 1.5)) == {}
    again = core.handle(sti.Heartbeat(executor, ()), 6.0)
    (launch,) = (action for action in again if isinstance(action, act.Launch))
    assert launch.tasks[0].attempt_number == 1
    assert core.statistics().jobs == 1
    assert JobId(0) in core.snapshot()["applications"][app]["jobs"]


def test_an_executor_that_runs_what_was_given_up_is_told_to_stop() -> None:
    core, (executor,), app = core_with(1, slots=1)
    actions = core.handle(sti.JobSubmitted(job(app, 0, result_stage(0, 1))), 1.0)
    (lost,) = (task.attempt for action in actions if isinstance(action, act.Launch) for task in action.tasks)
    core.handle(sti.Heartbeat(executor, ()), 6.0)
    told = core.handle(sti.Heartbeat(executor, (lost,)), 7.0)
    assert [action.attempts for action in told if isinstance(action, act.Kill)] == [(lost,)]


def racked(**settings) -> tuple[SimulatedCluster, str]:
    """Four hosts in two racks; input lies on ``east-1``, which takes nothing for now."""
    cluster = SimulatedCluster(
        Config(validate=True, locality_wait_s=1.0), task_s=60.0, topology=lambda names: names[0].partition("-")[0], **settings
    )
    for host in ("east-1", "east-2", "west-1", "west-2"):
        cluster.add_executor(host, slots=1, names=(host,))
    app = cluster.open_application("app")
    cluster.advance(0.1)
    cluster.tell(sti.ExecutorPaused(next(iter(cluster.executors))))
    cluster.advance(0.1)
    return cluster, app


def test_after_the_host_comes_its_rack_and_then_the_rest() -> None:
    cluster, app = racked()
    cluster.submit(job(app, 0, result_stage(0, 4, preferred_hosts={each: ("east-1",) for each in range(4)})))
    cluster.advance(0.5)
    assert starts(cluster) == []
    cluster.advance(1.0)
    assert [(event.host, event.locality) for event in starts(cluster)] == [("east-2", Locality.RACK)]
    cluster.advance(1.5)
    assert {(event.host, event.locality) for event in starts(cluster)[1:]} == {("west-1", Locality.ANY), ("west-2", Locality.ANY)}


def test_a_topology_that_raises_or_knows_nothing_costs_only_itself() -> None:
    cluster = SimulatedCluster(Config(validate=True), task_s=1.0, topology=lambda names: {}[names])
    for host in ("east-1", "west-1"):
        cluster.add_executor(host, slots=1, names=(host,))
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 4, preferred_hosts={each: ("east-1",) for each in range(4)})))
    cluster.run()
    assert done.succeeded
    assert "KeyError" in cluster.faults[0].traceback


@pytest.mark.parametrize("task_s", [0.001, 0.01, 0.05, 0.2])
def test_one_slow_executor_of_four_costs_little_for_what_it_has_queued_moves_and_few_tasks_do(task_s):
    """It is ten times slower from the middle of the job on: by then as much is queued there as elsewhere."""
    count = 2_000 if task_s < 0.05 else 400
    cluster = SimulatedCluster(Config(validate=count < 1_000))
    cluster.keep_actions = True
    slow = cluster.add_executor(slots=1)
    for _ in range(3):
        cluster.add_executor(slots=1)

    def time_of(launch):
        return task_s * (10 if cluster.now > begun + middle_s and launch.attempt in cluster.executors[slow].running else 1)

    cluster._task_s = time_of
    app = cluster.open_application("app")
    cluster.advance(1.0)
    begun, middle_s = cluster.now, count * task_s / 8
    done = cluster.submit(job(app, 0, result_stage(0, count)))
    while not done.ended:
        cluster.advance(0.01)
    ideal_s = middle_s + (count * task_s / 2) / 3.1
    recalled = sum(len(action.attempts) for action in cluster.actions if isinstance(action, act.Recall))
    assert done.numbers == expected(done.spec)
    assert cluster.now - begun < 1.3 * ideal_s
    assert recalled < count / 10
