"""What a task costs the core stays small and flat: counted in looks at the clock nobody has, so by memory and by shape."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from random import Random
from typing import Any

import pytest

from flowkit.config import Config
from flowkit.model.events import TaskEnd, TaskStart
from flowkit.model.ids import AppId, StageId
from flowkit.scheduling import actions as act
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.launch_depth import LaunchDepth
from flowkit.scheduling.policies.capacity import Capacity
from flowkit.scheduling.task_sets import TaskSet
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, map_stage, result_stage


@pytest.mark.slow
def test_ten_thousand_executors_run_thirty_thousand_tasks() -> None:
    cluster = SimulatedCluster(
        Config(heartbeat_s=1_000.0, executor_timeout_s=5_000.0, lease_s=5_000.0), task_s=1.0, report_batch_s=0.01
    )
    for number in range(10_000):
        cluster.add_executor(f"host-{number % 1_000}", slots=2)
    app = cluster.open_application("app")
    pairs = map_stage(0, 10)
    cluster.advance(0.1)
    done = cluster.submit(job(app, 0, pairs, result_stage(1, 30_000, [pairs])))
    cluster.run()
    assert done.numbers == expected(done.spec)
    # 20,000 slots, two waves of a second after the maps' second: nobody idles while there is work.
    assert cluster.now - 5 * cluster.config.heartbeat_s < 6.0


def test_the_same_actions_come_of_the_same_stimuli_whatever_the_process_hashes_text_to() -> None:
    digests = {
        subprocess.run(  # noqa: S603 - this very Python
            [sys.executable, "-c", _STORY], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(digests) == 1


_STORY = """
import zlib
from flowkit.config import Config
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import job, map_stage, result_stage
cluster = SimulatedCluster(Config(validate=True, speculation=True, locality_wait_s=0.5), task_s=lambda launch: 0.1 + launch.partition % 7)
cluster.keep_actions = True
hosts = [f"host-{number}" for number in range(9)]
for number in range(18):
    cluster.add_executor(hosts[number % 9], slots=2, names=(hosts[number % 9],))
app = cluster.open_application("app")
cluster.advance(0.1)
near = {each: (hosts[each % 3], hosts[each % 5]) for each in range(200)}
pairs = map_stage(0, 40, cached=1)
cluster.submit(job(app, 0, pairs, result_stage(1, 200, [pairs], preferred_hosts=near)))
cluster.advance(3.0)
cluster.kill_executor(next(iter(cluster.executors)))
cluster.run()
print(zlib.crc32(repr(cluster.actions).encode()))
"""


def test_no_round_of_offers_launches_more_than_the_loop_has_time_for() -> None:
    cluster = SimulatedCluster(Config(validate=False), task_s=5.0)
    cluster.keep_actions = True
    for number in range(2_000):
        cluster.add_executor(f"host-{number % 100}", slots=2)
    app = cluster.open_application("app")
    cluster.advance(0.1)
    rounds: list[int] = []
    ask = cluster.ask
    cluster.ask = lambda batch: rounds_of(rounds, ask(batch))
    cluster.submit(job(app, 0, result_stage(0, 4_000)))
    cluster.advance(0.5)
    assert sum(rounds) == 4_000
    assert max(rounds) <= 512


def rounds_of(rounds: list[int], actions: list[act.Action]) -> list[act.Action]:
    rounds.append(sum(len(action.tasks) for action in actions if isinstance(action, act.Launch)))
    return actions


def test_the_median_of_a_stage_is_that_of_all_its_tasks_not_of_the_last_to_end() -> None:
    tasks = TaskSet(AppId("app"), StageId(0), (0, 0), LaunchDepth(0.02, 128))
    chance = Random(0)
    for seconds in sorted(chance.lognormvariate(0.0, 0.5) for _ in range(50_000)):
        tasks.note_duration(seconds, chance)
    assert len(tasks.durations) == 512
    assert statistics.median(tasks.durations) == pytest.approx(1.0, rel=0.15)


def test_a_task_that_was_taken_back_does_not_queue_up_near_its_data_again() -> None:
    cluster = SimulatedCluster(Config(validate=True, locality_wait_s=0.1), task_s=10.0)
    for _ in range(4):
        cluster.add_executor("near", slots=1, names=("near",))
    for _ in range(8):
        cluster.add_executor("far", slots=1, names=("far",))
    app = cluster.open_application("app")
    cluster.advance(0.1)
    cluster.keep_actions = True
    done = cluster.submit(job(app, 0, result_stage(0, 8, preferred_hosts={each: ("near",) for each in range(8)})))
    cluster.advance(5.0)
    assert sum(len(each.running) for each in cluster.executors.values()) == 8
    launched = sum(len(action.tasks) for action in cluster.actions if isinstance(action, act.Launch))
    assert launched <= 8 + 4  # each that stood behind another moved once
    cluster.run()
    assert done.succeeded


def test_a_slot_that_comes_free_on_a_host_that_is_waited_for_is_found_at_once_among_hundreds() -> None:
    hosts = [f"host-{number}" for number in range(300)]
    cluster = SimulatedCluster(
        Config(validate=False, locality_wait_s=10.0),
        task_s=lambda launch: 1.0 + launch.partition / 1_000 + 0.0005 * launch.stage,
        policy=Capacity(),  # nobody has a claim, and of two jobs nobody's tasks are queued behind others
    )
    for number in range(600):
        cluster.add_executor(hosts[number % 300], slots=1, names=(hosts[number % 300],))
    app = cluster.open_application("app")
    cluster.advance(0.1)
    # Two waves for 400 executors of 200 hosts; those of the 100 others have nothing to do all along.
    near = {each: (hosts[each % 200],) for each in range(400)}
    jobs = [cluster.submit(job(app, number, result_stage(number, 400, preferred_hosts=near))) for number in range(2)]
    cluster.run()
    assert all(each.succeeded for each in jobs)
    starts = [event for event in cluster.events if isinstance(event, TaskStart)]
    assert all(event.host == hosts[event.partition % 200] for event in starts)
    ended = sorted(event.time for event in cluster.events if isinstance(event, TaskEnd))
    launched = sorted(event.launched_at for event in starts)
    assert max(later - earlier for later, earlier in zip(launched[400:], ended, strict=False)) < 0.005


def test_thousands_of_executors_are_told_to_forget_a_stage_a_few_at_a_time_and_none_is_left_out() -> None:
    cluster = SimulatedCluster(Config(validate=False), task_s=1.0)
    executors = [cluster.add_executor(f"host-{number % 100}", slots=1) for number in range(1_000)]
    app = cluster.open_application("app")
    cluster.advance(0.1)
    told: list[list[str]] = []
    ask = cluster.ask
    cluster.ask = lambda batch: told_to_forget(told, ask(batch))
    done = cluster.submit(job(app, 0, result_stage(0, 1_000)))
    cluster.run()
    assert done.succeeded
    assert max(map(len, told)) <= 256
    assert sorted(each for some in told for each in some) == sorted(executors)
    cluster.core.assert_empty()


def told_to_forget(told: list[list[str]], actions: list[act.Action]) -> list[act.Action]:
    told.append([action.executor for action in actions if isinstance(action, act.ForgetStage)])
    return actions


def test_a_stage_that_is_sent_again_before_all_have_forgotten_it_is_forgotten_first() -> None:
    cluster = SimulatedCluster(Config(validate=False), task_s=1.0)
    for number in range(1_000):
        cluster.add_executor(f"host-{number % 100}", slots=1)
    app = cluster.open_application("app")
    cluster.advance(0.1)
    pairs = map_stage(0, 1_000)
    first = cluster.submit(job(app, 0, pairs, result_stage(1, 1, [pairs])))
    cluster.advance(0.5)
    cluster.keep_actions = True
    cluster.cancel(first)
    second = cluster.submit(job(app, 1, pairs, result_stage(2, 1, [pairs])))
    cluster.run()
    assert second.numbers == expected(second.spec)
    knows = {executor.id: True for executor in cluster.executors.values()}
    for action in cluster.actions:
        if isinstance(action, act.ForgetStage) and action.stage == 0:
            assert knows[action.executor], "it was told to forget twice"
            knows[action.executor] = False
        elif isinstance(action, act.DefineStage) and action.definition.stage == 0:
            assert not knows[action.executor], "it would go on with what the job before said"
            knows[action.executor] = True
    assert not any(knows.values())
    cluster.core.assert_empty()


def test_executors_are_not_asked_one_by_one_when_what_waits_is_kept_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    next_for = TaskSet.next_for

    def counted(self: TaskSet, executor: ExecutorState, *rest: Any) -> Any:
        asked.append(executor.id)
        return next_for(self, executor, *rest)

    monkeypatch.setattr(TaskSet, "next_for", counted)
    cluster = SimulatedCluster(Config(validate=False, locality_wait_s=2.0), task_s=10.0)
    for number in range(2_000):
        cluster.add_executor(f"host-{number % 100}", slots=1, names=(f"host-{number % 100}",))
    app = cluster.open_application("app")
    cluster.advance(0.1)
    near = {each: ("host-0",) for each in range(1, 100)}  # and one that may run anywhere
    cluster.submit(job(app, 0, result_stage(0, 100, preferred_hosts=near)))
    cluster.advance(0.5)
    assert sum(len(each.running) for each in cluster.executors.values()) == 21
    assert len(asked) < 500
