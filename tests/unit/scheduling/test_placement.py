"""Where tasks run is a policy's word: what it prefers is waited for, where it forbids them they do not go, and what it does wrong costs its jobs alone."""

from __future__ import annotations

import pytest

from flowkit.abc import Near, Preferred, Waits
from flowkit.config import Config
from flowkit.errors import ConfigError
from flowkit.model.task import Locality
from flowkit.scheduling.policies.delay import DelayScheduling
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, map_stage, result_stage
from flowkit.testing.policies import check_placement_policy


class Placing(SimulatedCluster):
    """Two hosts of two executors, and where tasks were launched."""

    def __init__(self, policy, task_s=0.1, **settings) -> None:
        super().__init__(Config(validate=True, placement=policy, **settings), task_s=task_s)
        self.keep_actions = True
        for host in ("north", "south"):
            for _ in range(2):
                self.add_executor(host, names=(host,))
        self.app = self.open_application("app")

    def ran_at(self) -> dict[int, str]:
        return {
            task.partition: self.executors[action.executor].host.token
            for action in self.actions
            for task in getattr(action, "tasks", ())
            if action.executor in self.executors
        }


class Everywhere:
    """Prefers nothing and forbids nothing; others say what they do differently."""

    def waits(self, stage):
        return Waits(0.5, 0.5, 0.5)

    def prefer(self, stage, partition, near):
        return Preferred()


class Opposite(Everywhere):
    def prefer(self, stage, partition, near):
        return Preferred(hosts=["south" if "north" in near.file_hosts else "north"])


def on_files(tasks: int, hosts=("north",), stage: int = 0):
    return result_stage(stage, tasks, preferred_hosts=dict.fromkeys(range(tasks), hosts))


def test_the_default_runs_tasks_where_their_files_are():
    cluster = Placing("delay")
    cluster.submit(job(cluster.app, 0, on_files(4)))
    cluster.run()
    assert set(cluster.ran_at().values()) == {"north"}


def test_another_policy_prefers_what_it_likes():
    cluster = Placing(Opposite())
    done = cluster.submit(job(cluster.app, 0, on_files(4)))
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert set(cluster.ran_at().values()) == {"south"}


def test_a_policy_that_prefers_nothing_uses_all_slots():
    cluster = Placing(Everywhere())
    cluster.submit(job(cluster.app, 0, on_files(8)))
    cluster.run()
    assert set(cluster.ran_at().values()) == {"north", "south"}


@pytest.mark.parametrize(("node_s", "hosts"), [(0.2, {"north", "south"}), (2.0, {"north"})])
def test_how_long_a_level_is_waited_for_is_its_own(node_s, hosts):
    cluster = Placing(DelayScheduling(50.0, node_s=node_s), task_s=1.0)
    cluster.submit(job(cluster.app, 0, on_files(8)))
    cluster.run()
    assert set(cluster.ran_at().values()) == hosts


def test_a_policy_is_told_where_what_a_task_reads_lies():
    told: dict[int, Near] = {}

    class Curious(Everywhere):
        def prefer(self, stage, partition, near):
            told[stage.stage] = near
            return Preferred()

    cluster = Placing(Curious())
    cluster.first_bytes = 10_000
    read = map_stage(0, 1)
    cluster.submit(job(cluster.app, 0, read, result_stage(1, 1, [read])))
    cluster.submit(job(cluster.app, 1, on_files(1, ("south",), 2)))
    cluster.run()
    assert list(told[2].file_hosts) == ["south"]
    assert len(told[1].shuffle_hosts) == 1


class OnlyNorth(Everywhere):
    def allows(self, stage, executor):
        return executor.host == "north"


def test_tasks_run_nowhere_but_where_the_policy_allows_them():
    cluster = Placing(OnlyNorth())
    jobs = [
        cluster.submit(job(cluster.app, 0, result_stage(0, 30))),
        cluster.submit(job(cluster.app, 1, on_files(8, ("south",), 1))),
    ]
    cluster.run()
    assert all(each.numbers == expected(each.spec) for each in jobs)
    assert set(cluster.ran_at().values()) == {"north"}
    cluster.core.assert_empty()


def test_nor_are_they_copied_or_tried_again_elsewhere():
    cluster = Placing(
        OnlyNorth(), lambda launch: 30.0 if launch.partition == 3 and not launch.attempt_number else 0.1, speculation=True
    )
    cluster.submit(job(cluster.app, 0, result_stage(0, 40)))
    cluster.run()
    assert cluster.now < 30.0
    assert set(cluster.ran_at().values()) == {"north"}


def test_an_executor_that_joins_is_asked_about():
    cluster = Placing(OnlyNorth(), task_s=1.0)
    for executor in [each for each in cluster.executors if "north" in each]:
        cluster.kill_executor(executor)
    cluster.advance(1.0)
    done = cluster.submit(job(cluster.app, 0, result_stage(0, 4)))
    cluster.advance(10.0)
    assert not done.ended
    late = cluster.add_executor("north")
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert {action.executor for action in cluster.actions if hasattr(action, "tasks")} == {late}


def test_a_stage_that_may_run_nowhere_ends_its_job_after_the_grace_time_with_what_there_is():
    class Nowhere(Everywhere):
        def __repr__(self):
            return "Nowhere()"

        def allows(self, stage, executor):
            return False

    cluster = Placing(Nowhere(), no_executor_timeout_s=20.0)
    failed = cluster.submit(job(cluster.app, 0, result_stage(0, 4)))
    cluster.advance(19.0)
    assert not failed.ended
    cluster.run()
    assert "may run on none of 4 with cpus=2, by the placement policy Nowhere()" in failed.failed.reason
    cluster.core.assert_empty()


def test_work_that_nobody_idle_may_do_is_not_taken_back():
    cluster = Placing(OnlyNorth(), task_s=5.0)
    cluster.submit(job(cluster.app, 0, result_stage(0, 12)))
    cluster.advance(4.0)
    assert not [action for action in cluster.actions if type(action).__name__ == "Recall"]


class Raises(Everywhere):
    def __init__(self, method, answer=ValueError("no")):
        self.method, self.answer = method, answer

    def __repr__(self):
        return "Raises()"

    def _say(self, method, otherwise):
        if method != self.method:
            return otherwise
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def waits(self, stage):
        return self._say("waits", Waits(0.1, 0.1, 0.1))

    def prefer(self, stage, partition, near):
        return self._say("prefer", Preferred())

    def allows(self, stage, executor):
        return self._say("allows", True)


@pytest.mark.parametrize(
    ("method", "answer", "told"),
    [
        ("waits", ValueError("no"), "waits raised ValueError: no"),
        ("waits", Waits(float("inf"), 0, 0), "waits gave"),
        ("waits", Waits(-1, 0, 0), "waits gave"),
        ("waits", None, "waits gave None"),
        ("prefer", ValueError("no"), "prefer raised ValueError: no"),
        ("prefer", ["north"], "prefer gave ['north']"),
        ("allows", ValueError("no"), "allows raised ValueError: no"),
        ("allows", "yes", "allows gave 'yes'"),
    ],
)
def test_a_policy_that_raises_or_talks_nonsense_ends_the_job_with_its_name_and_the_scheduler_lives(method, answer, told):
    policy = Raises(method, answer)
    cluster = Placing(policy)
    cluster.config = cluster.config.with_settings(validate=False)
    cluster.core._books.config = cluster.config
    failed = cluster.submit(job(cluster.app, 0, on_files(4)))
    cluster.run()
    assert f"the placement policy Raises(): {told}" in failed.failed.reason
    policy.method = ""
    done = cluster.submit(job(cluster.app, 1, on_files(4, stage=1)))
    cluster.run()
    assert done.numbers == expected(done.spec)


def test_a_host_that_is_preferred_and_unknown_is_waited_for_no_longer_than_others():
    class Elsewhere(Everywhere):
        def prefer(self, stage, partition, near):
            return Preferred(hosts=["east"])

    cluster = Placing(Elsewhere())
    done = cluster.submit(job(cluster.app, 0, on_files(4)))
    cluster.run()
    assert done.numbers == expected(done.spec)
    launched = [task.locality for action in cluster.actions for task in getattr(action, "tasks", ())]
    assert set(launched) == {Locality.ANY}


@pytest.mark.parametrize("wait", [-1, float("inf"), float("nan"), "1", True])
def test_waits_that_make_no_sense_are_refused(wait):
    with pytest.raises(ConfigError, match="wait|process_s|finite"):
        DelayScheduling(wait)


def test_the_kit_passes_flowkits_own_and_refuses_one_that_is_not_pure():
    check_placement_policy(DelayScheduling())
    check_placement_policy(OnlyNorth())

    class Fickle(Everywhere):
        count = 0

        def prefer(self, stage, partition, near):
            self.count += 1
            return Preferred(hosts=[str(self.count)])

    with pytest.raises(AssertionError, match="to the same question"):
        check_placement_policy(Fickle())
