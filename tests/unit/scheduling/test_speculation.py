"""A task that takes much longer than its fellows is tried elsewhere too: the stage ends sooner, and everything happens once."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest

from flowkit.abc import StageProgress
from flowkit.config import Config
from flowkit.errors import ConfigError
from flowkit.model import events as ev
from flowkit.model.task import ExceptionFailure, KilledFailure
from flowkit.scheduling import actions as act
from flowkit.scheduling.policies.stragglers import SlowerThanMedian
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, map_stage, result_stage
from flowkit.testing.event_order import check_event_order
from flowkit.testing.policies import check_speculation_policy

SLOW_S = 60.0


def slow_on(host: str, *partitions: int):
    """A tenth of a second, and a minute for some partitions where the first attempt runs."""

    def task_s(launch):
        return SLOW_S if launch.partition in partitions and launch.attempt_number == 0 else 0.1

    return task_s


def cluster_of(executors: int = 3, *, slow: tuple[int, ...] = (7,), speculation: bool = True, hosts: int = 1) -> SimulatedCluster:
    config = Config(validate=True, speculation=speculation)
    cluster = SimulatedCluster(config, task_s=slow_on("", *slow))
    cluster.keep_actions = True
    for number in range(executors):
        cluster.add_executor(f"host-{number % hosts}", slots=2)
    return cluster


def run(cluster: SimulatedCluster, *stages) -> tuple[object, float]:
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, *stages))
    while not done.ended:
        cluster.advance(0.1)
    took = cluster.now
    cluster.run()
    return done, took


def copies(cluster: SimulatedCluster) -> list[ev.SpeculativeTaskSubmitted]:
    return [event for event in cluster.events if isinstance(event, ev.SpeculativeTaskSubmitted)]


@pytest.mark.parametrize("stage", ["map", "result"])
def test_a_stage_does_not_wait_for_its_slowest_task(stage):
    cluster = cluster_of()
    source = map_stage(0, 40)
    stages = (source, result_stage(1, 1, [source])) if stage == "map" else (result_stage(0, 40),)
    done, took = run(cluster, *stages)
    assert done.numbers == expected(done.spec)
    assert took < SLOW_S / 10
    assert [(event.stage, event.partition) for event in copies(cluster)] == [(0, 7)]
    killed = [event for event in cluster.events if isinstance(event, ev.TaskEnd) and isinstance(event.failure, KilledFailure)]
    assert [(event.partition, event.attempt_number, event.counted) for event in killed] == [(7, 0, False)]
    check_event_order(cluster.events)
    cluster.core.assert_empty()


def test_without_it_the_stage_waits():
    done, took = run(cluster_of(speculation=False), result_stage(0, 40))
    assert done.succeeded
    assert took > SLOW_S


def test_the_copy_runs_on_another_host_if_there_is_one():
    cluster = cluster_of(4, hosts=2)
    run(cluster, result_stage(0, 40))
    starts = [event for event in cluster.events if isinstance(event, ev.TaskStart) and event.partition == 7]
    assert len({event.host for event in starts}) == 2


def test_with_nowhere_else_to_go_nothing_is_copied():
    cluster = cluster_of(1)
    run(cluster, result_stage(0, 40))
    assert copies(cluster) == []


def test_many_slow_tasks_are_copied_a_few_at_a_time_and_soon():
    slow = tuple(range(150))
    cluster = SimulatedCluster(Config(speculation=True), task_s=slow_on("", *slow))
    for number in range(400):
        cluster.add_executor(f"host-{number % 40}", slots=4)
    copied: list[int] = []
    ask = cluster.ask

    def counted(batch):
        actions = ask(batch)
        copied.append(sum(len(each.tasks) for each in actions if isinstance(each, act.Launch)) if copies(cluster) else 0)
        return actions

    cluster.ask = counted
    done, _ = run(cluster, result_stage(0, 1_600))
    assert done.numbers == expected(done.spec)
    assert sorted(event.partition for event in copies(cluster)) == list(slow)
    assert max(copied) <= 64
    times = [event.time for event in copies(cluster)]
    assert times[-1] - times[0] < 0.1


def test_tasks_that_are_all_slow_are_not_copied():
    cluster = cluster_of(slow=tuple(range(40)))
    run(cluster, result_stage(0, 40))
    assert copies(cluster) == []


def test_only_one_attempt_commits_its_output():
    cluster = cluster_of()
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 40, commits=True)))
    cluster.run()
    assert done.numbers == expected(done.spec)
    granted = Counter(action.attempt for action in cluster.actions if isinstance(action, act.AnswerCommit) and action.granted)
    assert len(granted) == 40


def test_accumulators_count_once():
    cluster = cluster_of()
    cluster.accumulates = True
    done, _ = run(cluster, result_stage(0, 40))
    assert done.succeeded
    added = Counter(each for data in cluster.accumulated["app"] for each in pickle.loads(data))
    assert set(added.values()) == {1}
    assert len(added) == 40


def test_a_copy_that_fails_leaves_the_first_attempt_running():
    cluster = cluster_of()
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 40)))
    while not copies(cluster):
        cluster.advance(0.05)
    cluster.fail(app, 0, 7, ExceptionFailure("ValueError", "no", "", None))
    while not done.ended:
        cluster.advance(0.1)
    assert cluster.now < SLOW_S / 10  # and is made again
    assert done.numbers == expected(done.spec)
    cluster.core.assert_empty()


def test_copies_that_fail_never_end_a_job_that_would_go_well_without_them():
    cluster = cluster_of()
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 40)))
    while not copies(cluster):
        cluster.advance(0.05)
    cluster.fail(app, 0, 7, *[ExceptionFailure("ValueError", "no", "", None)] * 10)
    while len(cluster.failures[app, 0, 7]) > 7:
        cluster.advance(0.1)
    cluster.failures.clear()
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert len(copies(cluster)) == 3  # with max_task_failures = 4
    assert cluster.now > SLOW_S


@pytest.mark.parametrize("which", ["first", "copy"])
def test_either_executor_may_be_lost(which):
    cluster = cluster_of()
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 40)))
    while not copies(cluster):
        cluster.advance(0.05)
    first = next(event for event in cluster.events if isinstance(event, ev.TaskStart) and event.partition == 7)
    cluster.kill_executor(first.executor if which == "first" else copies(cluster)[0].executor)
    cluster.run()
    assert done.numbers == expected(done.spec)
    cluster.core.assert_empty()


def test_a_cancelled_job_ends_both():
    cluster = cluster_of()
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 40)))
    while not copies(cluster):
        cluster.advance(0.02)
    cluster.cancel(done)
    cluster.run()
    cluster.advance(SLOW_S)
    assert done.failed is not None
    cluster.core.assert_empty()


def test_a_copy_that_is_lost_is_made_again():
    cluster = cluster_of(4, hosts=4)
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 40)))
    while not copies(cluster):
        cluster.advance(0.05)
    cluster.kill_executor(copies(cluster)[0].executor)
    while not done.ended:
        cluster.advance(0.1)
    assert len(copies(cluster)) == 2
    assert cluster.now < SLOW_S / 10
    assert done.numbers == expected(done.spec)


class AfterASecond:
    """A rule of somebody's own."""

    def __repr__(self) -> str:
        return "AfterASecond()"

    def slow_after(self, progress: StageProgress) -> float | None:
        return 1.0 if progress.done else None


def test_which_tasks_are_slow_is_a_policys_word():
    cluster = SimulatedCluster(Config(validate=True, speculation=AfterASecond()), task_s=slow_on("", *range(10)))
    for number in range(12):
        cluster.add_executor(f"host-{number}", slots=2)
    done, took = run(cluster, result_stage(0, 11))
    assert done.numbers == expected(done.spec)
    assert took < 3.0
    assert copies(cluster)
    assert all(1.0 < each.run_s < 1.2 for each in copies(cluster))


@pytest.mark.parametrize(
    ("answer", "told"),
    [(ValueError("no"), "slow_after raised ValueError: no"), (-1.0, "slow_after gave -1.0"), ("1", "gave '1'")],
)
def test_a_rule_that_raises_or_talks_nonsense_ends_the_job_with_its_name_and_the_scheduler_lives(answer, told):
    class Wrong(AfterASecond):
        answer: object = 0.5

        def slow_after(self, progress):
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    rule = Wrong()
    rule.answer = answer
    cluster = SimulatedCluster(Config(speculation=rule), task_s=slow_on("", 7))
    cluster.add_executor(slots=2)
    app = cluster.open_application("app")
    failed = cluster.submit(job(app, 0, result_stage(0, 20)))
    cluster.run()
    assert "the speculation policy AfterASecond(): slow_after" in failed.failed.reason
    assert told in failed.failed.reason
    rule.answer = None
    done = cluster.submit(job(app, 1, result_stage(1, 20)))
    cluster.run()
    assert done.numbers == expected(done.spec)


def test_the_kit_passes_flowkits_own_and_refuses_one_without_sense():
    check_speculation_policy(SlowerThanMedian())

    class Never(AfterASecond):
        def slow_after(self, progress):
            return -1.0

    with pytest.raises(AssertionError, match="neither seconds nor None"):
        check_speculation_policy(Never())


@pytest.mark.parametrize("wrong", [{"quantile": 0}, {"quantile": 1.5}, {"multiplier": 0}, {"min_s": -1}, {"min_s": "1"}])
def test_arguments_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SlowerThanMedian(**wrong)
