"""Stages whose tasks run all at once: launched together or not, tried again together, and waiting for one another."""

from __future__ import annotations

import msgspec
import pytest

from flowkit.config import Config
from flowkit.model import events as ev
from flowkit.model.ids import AttemptId
from flowkit.model.resources import ResourceProfile
from flowkit.model.task import ExceptionFailure, MemoryFailure
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti
from flowkit.scheduling.policies.fair import Fair
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, map_stage, result_stage


def together(stage, profile: ResourceProfile | None = None):
    return msgspec.structs.replace(stage, barrier=True, profile=profile or ResourceProfile())


def cluster_of(executors: int = 2, slots: int = 2, task_s=1.0, policy=None, **settings) -> SimulatedCluster:
    cluster = SimulatedCluster(Config(validate=True, **settings), task_s=task_s, policy=policy)
    for _ in range(executors):
        cluster.add_executor(slots=slots)
    return cluster


def starts(cluster: SimulatedCluster, stage: int) -> list[ev.TaskStart]:
    return [event for event in cluster.events if isinstance(event, ev.TaskStart) and event.stage == stage]


def running(cluster: SimulatedCluster, stage: int) -> list[tuple[str, AttemptId, int]]:
    return [
        (executor.id, attempt, task.launch.partition)
        for executor in cluster.executors.values()
        for attempt, task in executor.running.items()
        if task.launch.stage == stage
    ]


@pytest.mark.parametrize("policy", [None, Fair()])
def test_all_tasks_start_at_once_or_none_does(policy):
    cluster = cluster_of(task_s=lambda launch: 1.0 + launch.partition % 3, policy=policy)
    app = cluster.open_application("app")
    cluster.submit(job(app, 0, result_stage(0, 9)))
    cluster.advance(0.5)
    done = cluster.submit(job(app, 1, together(result_stage(1, 4))))
    cluster.run()
    assert done.numbers == expected(done.spec)
    times = [event.time for event in starts(cluster, 1)]
    assert len(times) == 4
    assert max(times) - min(times) < 0.05


def test_those_behind_it_hold_back_until_it_has_its_slots():
    cluster = cluster_of(task_s=lambda launch: 3.0 if launch.partition == 0 else 0.5)
    app = cluster.open_application("app")
    cluster.submit(job(app, 0, result_stage(0, 4)))
    cluster.advance(0.1)
    done = cluster.submit(job(app, 1, together(result_stage(1, 4))))
    cluster.submit(job(app, 2, result_stage(2, 200)))
    cluster.run()
    assert done.succeeded
    assert max(event.time for event in starts(cluster, 1)) < 3.2
    assert min(event.time for event in starts(cluster, 2)) > 3.2


def test_one_wider_than_the_cluster_holds_nobody_up_and_fails_with_both_numbers():
    cluster = cluster_of(no_executor_timeout_s=10.0)
    app = cluster.open_application("app")
    wide = cluster.submit(job(app, 0, together(result_stage(0, 5))))
    plain = cluster.submit(job(app, 1, result_stage(1, 4)))
    cluster.advance(5.0)
    assert plain.succeeded
    cluster.advance(6.0)
    assert "all of its 5 tasks to run at once" in wide.failed.reason
    assert "has room for 4" in wide.failed.reason
    cluster.core.assert_empty()


def test_a_failure_of_one_has_all_run_again():
    cluster = cluster_of(task_s=lambda launch: 1.0 + launch.partition)
    app = cluster.open_application("app")
    cluster.fail(app, 0, 2, ExceptionFailure("ValueError", "no", "", None))
    done = cluster.submit(job(app, 0, together(result_stage(0, 4))))
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert len(starts(cluster, 0)) == 8
    assert len(done.values) == 4


def test_a_lost_executor_does_too_and_nothing_counts_before_all_are_done():
    cluster = cluster_of(task_s=lambda launch: 1.0 + 2 * launch.partition)
    app = cluster.open_application("app")
    source = together(map_stage(0, 4))
    done = cluster.submit(job(app, 0, source, result_stage(1, 2, [source])))
    cluster.advance(4.0)
    assert not starts(cluster, 1)
    victim = running(cluster, 0)[0][0]
    cluster.kill_executor(victim)
    cluster.advance(0.5)
    assert len(starts(cluster, 0)) == 4  # two slots are left: none of them starts
    cluster.add_executor(slots=2)
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert len(starts(cluster, 0)) == 8


def test_lost_output_of_one_has_all_run_again():
    cluster = cluster_of()
    app = cluster.open_application("app")
    source = together(map_stage(0, 3))
    first = cluster.submit(job(app, 0, source, result_stage(1, 2, [source])))
    cluster.run()
    assert first.succeeded
    cluster.delete_output(app, 0, 1)
    second = cluster.submit(job(app, 1, source, result_stage(2, 2, [source])))
    cluster.run()
    assert second.numbers == expected(second.spec)
    assert len(starts(cluster, 0)) == 6


def test_four_failures_end_it():
    cluster = cluster_of()
    app = cluster.open_application("app")
    cluster.fail(app, 0, 1, *[ExceptionFailure("ValueError", "no", "", None)] * 4)
    done = cluster.submit(job(app, 0, together(result_stage(0, 3))))
    cluster.run()
    assert "failed 4 times" in done.failed.reason
    cluster.core.assert_empty()


def test_needs_of_each_task_count_for_all():
    cluster = SimulatedCluster(Config(validate=True), task_s=1.0)
    for _ in range(2):
        cluster.add_executor(slots=4, resources={"gpu": ("0", "1")}, shared=("gpu",))
    cluster.add_executor("other", slots=4, resources={"gpu": ("0", "1")})
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, together(result_stage(0, 4), ResourceProfile(cpus=2, amounts={"gpu": 1.0}))))
    cluster.advance(0.5)
    used = [
        (executor.host.token, address)
        for executor in cluster.executors.values()
        for task in executor.running.values()
        for address in task.launch.resources["gpu"]
    ]
    assert sorted(used) == [("host", "0"), ("host", "1"), ("other", "0"), ("other", "1")]
    cluster.run()
    assert done.succeeded


class Meeting:
    """Three tasks that run for long, and what they say."""

    def __init__(self) -> None:
        self.cluster = cluster_of(task_s=50.0)
        self.app = self.cluster.open_application("app")
        self.done = self.cluster.submit(job(self.app, 0, together(result_stage(0, 3))))
        self.cluster.advance(0.5)

    def arrive(self, partition: int, meeting: int = 0, call: str = "barrier", data: bytes = b"") -> None:
        ((executor, attempt, _),) = [each for each in running(self.cluster, 0) if each[2] == partition]
        self.cluster.tell(sti.BarrierReached(executor, attempt, meeting, call, data))
        self.cluster.advance(0.1)

    def answers(self) -> list[tuple[int, tuple[bytes, ...]]]:
        return [(answer.round, answer.data) for each in self.cluster.executors.values() for answer in each.met]


def test_the_last_to_arrive_lets_all_go_on_with_what_each_sent_in_the_order_of_partitions():
    meeting = Meeting()
    meeting.arrive(2, call="all_gather", data=b"two")
    meeting.arrive(0, call="all_gather", data=b"zero")
    assert meeting.answers() == []
    meeting.arrive(1, call="all_gather", data=b"one")
    assert meeting.answers() == [(0, (b"zero", b"one", b"two"))] * 3


def test_an_arrival_that_comes_twice_is_one_and_one_whose_answer_was_lost_is_answered_again():
    meeting = Meeting()
    meeting.arrive(0)
    meeting.arrive(0)
    meeting.arrive(1)
    assert meeting.answers() == []
    meeting.arrive(2)
    assert len(meeting.answers()) == 3
    meeting.arrive(1)
    assert len(meeting.answers()) == 4
    for partition in range(3):
        meeting.arrive(partition, meeting=1)
    assert [answer[0] for answer in meeting.answers()].count(1) == 3


def test_different_calls_at_one_point_end_the_job():
    meeting = Meeting()
    meeting.arrive(0, call="barrier")
    meeting.arrive(1, call="all_gather")
    meeting.cluster.run()
    assert "some called all_gather and others barrier" in meeting.done.failed.reason
    meeting.cluster.core.assert_empty()


def test_a_task_that_ended_is_not_waited_for():
    cluster = cluster_of(task_s=lambda launch: 50.0 if launch.partition else 1.0)
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, together(result_stage(0, 3))))
    cluster.advance(0.5)
    (executor, attempt, _) = next(each for each in running(cluster, 0) if each[2] == 1)
    cluster.tell(sti.BarrierReached(executor, attempt, 0, "barrier"))
    cluster.run()
    assert "its tasks 0 ended while others wait for them in barrier" in done.failed.reason


def test_arrivals_of_an_earlier_try_mean_nothing():
    meeting = Meeting()
    ((executor, attempt, _),) = [each for each in running(meeting.cluster, 0) if each[2] == 0]
    meeting.arrive(0)
    victim = next(each[0] for each in running(meeting.cluster, 0) if each[0] != executor)
    meeting.cluster.kill_executor(victim)
    meeting.cluster.add_executor(slots=2)
    meeting.cluster.advance(1.0)
    meeting.cluster.tell(sti.BarrierReached(executor, attempt, 0, "barrier"))
    meeting.arrive(1)
    meeting.arrive(2)
    assert meeting.answers() == []
    meeting.arrive(0)
    assert len(meeting.answers()) == 3


def test_one_that_took_too_much_memory_runs_again_with_the_others():
    cluster = cluster_of()
    app = cluster.open_application("app")
    cluster.fail(app, 0, 1, MemoryFailure("too much"))
    done = cluster.submit(job(app, 0, together(result_stage(0, 4))))
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert len(starts(cluster, 0)) == 8


def test_a_lost_input_that_all_tasks_have_read_changes_nothing_and_a_try_counts_whole_or_not_at_all():
    """An executor that runs none of the tasks is lost with its host, while some of them have ended and one runs."""
    cluster = SimulatedCluster(
        Config(validate=True), seed=1, task_s=lambda launch: 1.0 if launch.stage == 1 and launch.partition == 2 else 0.1
    )
    cluster.keep_actions = True
    executors = [cluster.add_executor(f"host-{number}", slots=2) for number in range(5)]
    app = cluster.open_application("app")
    source = map_stage(0, 10)
    done = cluster.submit(job(app, 0, source, together(result_stage(1, 3, [source]))))
    cluster.advance(0.3)
    busy = {event.executor for event in cluster.events if isinstance(event, ev.TaskStart) and event.stage == 1}
    assert busy
    cluster.kill_executor(next(each for each in executors if each not in busy))
    cluster.run()
    assert done.numbers == expected(done.spec)
    delivered = [action.attempt for action in cluster.actions if isinstance(action, act.DeliverResult)]
    tries = {task.attempt: task.attempt_number for each in cluster.actions if isinstance(each, act.Launch) for task in each.tasks}
    assert len(delivered) == 3, "each result once"
    assert len({tries[attempt] for attempt in delivered}) == 1, "and all of one try"


def test_output_lost_before_the_last_task_has_ended_has_all_run_again():
    """What one wrote goes with its host while another still runs: the stage is complete then, and its output is not."""
    cluster = SimulatedCluster(
        Config(validate=True), task_s=lambda launch: 1.0 if launch.stage == 0 and launch.partition == 0 else 0.1
    )
    for host in ("north", "south", "west"):
        cluster.add_executor(host, slots=1)
    app = cluster.open_application("app")
    wrote = together(map_stage(0, 3))
    done = cluster.submit(job(app, 0, wrote, result_stage(1, 2, [wrote])))
    cluster.advance(0.5)
    (busy,) = [each for each in cluster.executors.values() if each.running]
    lost = next(each for each in cluster.executors.values() if each is not busy)
    cluster.kill_executor(lost.id)
    cluster.add_executor("east", slots=1)
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert {event.partition for event in starts(cluster, 0) if event.time > 1.0} == {0, 1, 2}
    cluster.core.assert_empty()
