"""A sick executor is kept from a stage, then from the application, for a while; what it would have run goes elsewhere."""

from __future__ import annotations

import pytest

from flowkit.abc import Exclusion
from flowkit.config import Config
from flowkit.errors import ConfigError
from flowkit.model import events as ev
from flowkit.model.task import ExceptionFailure
from flowkit.scheduling.policies.failure_counts import FailureCounts
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, result_stage
from flowkit.testing.policies import check_health_policy

OOPS = ExceptionFailure("OSError", "the disk is read-only", "", None)


class Ward(SimulatedCluster):
    """A cluster in which every task fails on some executors."""

    def __init__(self, **settings) -> None:
        super().__init__(Config(**{"validate": True, "max_task_failures": 20, "exclude_failing": True, **settings}), task_s=0.1)
        self.sick: set[str] = set()
        #: what fails there, where it is not the disk
        self.ills: dict[str, ExceptionFailure] = {}

    def planned_failure(self, launch):
        where = next((each.id for each in self.executors.values() if launch.attempt in each.running), None)
        return self.ills.get(where, OOPS) if where in self.sick else super().planned_failure(launch)

    def ran_on(self, executor: str, stage: int) -> int:
        return sum(isinstance(each, ev.TaskEnd) and each.executor == executor and each.stage == stage for each in self.events)


def excluded(cluster: Ward) -> list[tuple[str, int | None]]:
    return [(each.executor, each.stage) for each in cluster.events if isinstance(each, ev.ExecutorExcluded)]


def submit(cluster: Ward, app, number: int, tasks: int = 60):
    return cluster.submit(job(app, number, result_stage(number, tasks)))


def test_an_executor_on_which_tasks_fail_gets_none_of_the_stage_any_more():
    cluster = Ward()
    sick, *_ = (cluster.add_executor() for _ in range(3))
    cluster.sick.add(sick)
    app = cluster.open_application("app")
    done = submit(cluster, app, 0)
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert (sick, 0) in excluded(cluster)
    assert cluster.ran_on(sick, 0) < 10


def test_without_it_the_executor_goes_on_failing():
    cluster = Ward(exclude_failing=False)
    sick, *_ = (cluster.add_executor() for _ in range(3))
    cluster.sick.add(sick)
    app = cluster.open_application("app")
    done = submit(cluster, app, 0)
    cluster.run()
    assert done.succeeded
    assert cluster.ran_on(sick, 0) > 10
    assert excluded(cluster) == []


def test_failures_in_several_stages_exclude_it_from_the_application_until_its_time_is_over():
    cluster = Ward(exclude_timeout_s=100.0)
    sick, *_ = (cluster.add_executor() for _ in range(3))
    cluster.sick.add(sick)
    app = cluster.open_application("app")
    for number in range(4):
        assert submit(cluster, app, number).spec
        cluster.run()
    assert (sick, None) in excluded(cluster)
    assert cluster.ran_on(sick, 3) == 0
    cluster.sick.clear()
    cluster.advance(100.0)
    assert [each.executor for each in cluster.events if isinstance(each, ev.ExecutorUnexcluded)] == [sick]
    submit(cluster, app, 4)
    cluster.run()
    assert cluster.ran_on(sick, 4) > 0


def test_another_application_is_not_concerned():
    cluster = Ward()
    sick, *_ = (cluster.add_executor() for _ in range(2))
    cluster.sick.add(sick)
    red, blue = cluster.open_application("red"), cluster.open_application("blue")
    submit(cluster, red, 0)
    cluster.run()
    cluster.sick.clear()
    submit(cluster, blue, 1)
    cluster.run()
    assert cluster.ran_on(sick, 1) > 0


def test_a_host_with_several_sick_executors_is_excluded_whole():
    cluster = Ward()
    north = [cluster.add_executor("north") for _ in range(3)]
    cluster.add_executor("south")
    cluster.sick.update(north[:2])
    app = cluster.open_application("app")
    for number in range(4):
        submit(cluster, app, number)
        cluster.run()
    assert (north[2], None) in excluded(cluster)
    assert cluster.ran_on(north[2], 3) == 0


def two_sick_in_their_own_ways(**settings) -> Ward:
    cluster = Ward(exclude_wait_s=30.0, **settings)
    one, other = (cluster.add_executor() for _ in range(2))
    cluster.sick |= {one, other}
    cluster.ills[other] = ExceptionFailure("ConnectionError", "no route to host", "", None)
    return cluster


def test_with_all_executors_excluded_the_job_fails_and_says_what_failed():
    cluster = two_sick_in_their_own_ways()
    app = cluster.open_application("app")
    failed = submit(cluster, app, 0)
    cluster.run()
    assert failed.failed is not None
    assert "all 2 executors are excluded" in failed.failed.reason
    assert "the disk is read-only" in failed.failed.reason
    assert "no route to host" in failed.failed.reason
    cluster.core.assert_empty()


@pytest.mark.parametrize("executors", [1, 2, 8])
def test_tasks_that_fail_alike_everywhere_are_at_fault_themselves_and_their_job_ends_with_their_exception(executors):
    cluster = Ward(exclude_wait_s=30.0, max_task_failures=4)
    cluster.sick.update(cluster.add_executor() for _ in range(executors))
    app = cluster.open_application("app")
    begun = cluster.now
    failed = submit(cluster, app, 0)
    while not failed.ended:
        cluster.advance(0.1)
    assert cluster.now - begun < 10.0
    assert failed.failed.failure == OOPS
    assert "failed 4 times" in failed.failed.reason
    cluster.sick.clear()
    begun = cluster.now
    done = submit(cluster, app, 1)
    while not done.ended:
        cluster.advance(0.1)
    assert done.numbers == expected(done.spec)
    assert cluster.now - begun < 60 * 0.1 / executors / 2 + 1.0, "nobody is excluded for what its tasks did everywhere"
    cluster.run()


def test_one_that_joins_in_time_saves_it():
    cluster = two_sick_in_their_own_ways()
    app = cluster.open_application("app")
    saved = submit(cluster, app, 0)
    cluster.advance(20.0)
    assert not saved.ended
    cluster.add_executor()
    cluster.run()
    assert saved.numbers == expected(saved.spec)


class ReadOnly:
    """A rule of somebody's own: a disk that takes nothing is enough, for a minute, and its host's other executors have the same disk."""

    def __repr__(self) -> str:
        return "ReadOnly()"

    def judge(self, failures):
        return Exclusion(from_application_s=60.0, host_s=60.0) if "read-only" in failures.reason else Exclusion()


def test_who_is_sick_is_a_policys_word():
    cluster = Ward(exclude_failing=ReadOnly())
    north = [cluster.add_executor("north") for _ in range(2)]
    cluster.add_executor("south")
    cluster.sick.update(north[:1])
    app = cluster.open_application("app")
    done = submit(cluster, app, 0)
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert {(each, None) for each in north} <= set(excluded(cluster))
    cluster.sick.clear()
    cluster.advance(60.0)
    submit(cluster, app, 1)
    cluster.run()
    assert cluster.ran_on(north[0], 1) > 0
    assert cluster.ran_on(north[1], 1) > 0


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (ValueError("no"), "judge raised ValueError: no"),
        (None, "judge gave None"),
        (Exclusion(from_application_s=-1), "judge gave"),
    ],
)
def test_a_rule_that_raises_or_talks_nonsense_ends_the_job_with_its_name_and_the_scheduler_lives(answer, told):
    class Wrong(ReadOnly):
        def judge(self, failures):
            if isinstance(answer, Exception):
                raise answer
            return answer

    cluster = Ward(exclude_failing=Wrong(), validate=False)
    cluster.add_executor()
    app = cluster.open_application("app")
    cluster.fail(app, 0, 3, OOPS)
    failed, done = submit(cluster, app, 0), submit(cluster, app, 1)
    cluster.run()
    assert f"the health policy ReadOnly(): {told}" in failed.failed.reason
    assert done.numbers == expected(done.spec)


def test_the_kit_passes_flowkits_own_and_refuses_one_without_sense():
    check_health_policy(FailureCounts())

    class Yes:
        def judge(self, failures):
            return True

    with pytest.raises(AssertionError, match="not an Exclusion"):
        check_health_policy(Yes())


@pytest.mark.parametrize("wrong", [{"after": 0}, {"timeout_s": 0}, {"timeout_s": "1"}])
def test_arguments_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        FailureCounts(**wrong)
