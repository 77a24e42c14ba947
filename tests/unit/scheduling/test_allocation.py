"""A cluster that grows with the backlog and shrinks when it is idle: the real core, a clock that is a number, nothing computed twice."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.abc import Allocation, Demand, IdleExecutor
from flowkit.config import Config
from flowkit.errors import ConfigError
from flowkit.model import events as ev
from flowkit.model.ids import ExecutorId
from flowkit.scheduling import stimuli as sti
from flowkit.scheduling.policies.backlog import Backlog
from flowkit.scheduling.policies.stable import Stable
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, map_stage, result_stage


def demand(**changes) -> Demand:
    return Demand(0.0, target=1, present=1, waiting=0, running=0, slots=4, minimum=1, maximum=inf, idle=())._replace(**changes)


def idle(*seconds: float, caches: bool = False) -> list[IdleExecutor]:
    return [IdleExecutor(ExecutorId(f"e{number}"), each, caches) for number, each in enumerate(seconds)]


def elastic(policy=None, *, executors: int = 1, task_s=1.0, slots: int = 4, **settings) -> tuple[SimulatedCluster, str]:
    config = Config(validate=True, lease_s=1e9, executor_timeout_s=1e6, **settings)
    cluster = SimulatedCluster(config, task_s=task_s, allocation=policy or Backlog())
    for number in range(executors):
        cluster.add_executor(f"first-{number}", slots=slots)
    app = cluster.open_application("app")
    cluster.slots = slots
    cluster.offer_scaling(app, executors)
    cluster.advance(0.1)
    return cluster, app


# -- the rule


def test_the_first_round_comes_after_the_backlog_time_and_each_adds_twice_as_many_as_the_one_before():
    policy, target, seen = Backlog(backlog_s=1.0, sustained_s=2.0), 1, []
    for tenth in range(100):
        target = policy.look(demand(now=tenth / 10, target=target, waiting=1_000)).target
        seen.append(target)
    changes = [(at, after - before) for at, (before, after) in enumerate(pairwise(seen), 1) if after != before]
    assert changes == [(10, 1), (30, 2), (50, 4), (70, 8), (90, 16)]


def test_never_more_than_all_tasks_have_room_on():
    policy, target = Backlog(), 1
    for second in range(60):
        target = policy.look(demand(now=float(second), target=target, waiting=100)).target
    assert target == 25


def test_what_is_asked_for_and_not_needed_any_more_is_taken_back_at_once():
    policy = Backlog()
    policy.look(demand(waiting=400))
    assert policy.look(demand(now=0.5, target=60, present=2, waiting=10, running=8)).target == 5


def test_what_there_was_to_begin_with_stays_until_there_is_work():
    policy = Backlog()
    assert policy.look(demand(target=6, present=3)).target == 6


def test_a_pause_in_the_backlog_begins_the_rounds_anew():
    policy = Backlog()
    grown = [policy.look(demand(now=float(second), target=8, present=8, waiting=900)).target for second in range(4)]
    assert grown[-1] == 8 + 4
    policy.look(demand(now=4.0, target=8, present=8, running=32))
    assert policy.look(demand(now=4.5, target=8, present=8, waiting=900)).target == 8
    assert policy.look(demand(now=5.5, target=8, present=8, waiting=900)).target == 9


def test_those_idle_for_long_leave_the_longest_first_and_those_that_cache_stay():
    policy = Backlog(idle_s=60.0)
    found = policy.look(demand(target=3, present=4, idle=[*idle(10.0, 61.0, 70.0), IdleExecutor(ExecutorId("c"), 999.0, True)]))
    assert found.leave == ["e2", "e1"]
    assert found.look_at == 50.0


def test_nobody_leaves_that_is_needed_or_part_of_the_minimum():
    assert Backlog().look(demand(present=2, target=2, minimum=2, idle=idle(99.0, 99.0))).leave == []
    assert len(Backlog().look(demand(present=3, target=3, waiting=5, idle=idle(99.0, 99.0, 99.0))).leave) == 1


@given(
    st.lists(
        st.tuples(st.floats(0.0, 30.0), st.integers(0, 500), st.integers(0, 64), st.integers(0, 12)), min_size=1, max_size=40
    ),
    st.sampled_from([Backlog, Stable]),
)
def test_the_target_stays_within_the_limits_and_nobody_leaves_below_the_need(steps, kind):
    policy, now, target = kind(), 0.0, 2
    for pause, waiting, running, idlers in steps:
        now += pause
        asked = demand(
            now=now,
            target=target,
            present=12,
            waiting=waiting,
            running=running,
            minimum=2,
            maximum=20,
            idle=idle(*[now] * idlers),
        )
        found = policy.look(asked)
        target = max(2, min(20, found.target))
        assert found.target == target
        assert asked.present - len(found.leave) >= min(asked.present, asked.needed)
        assert found.look_at is None or found.look_at > now


@pytest.mark.parametrize("wrong", [{"idle_s": 0}, {"backlog_s": -1.0}, {"cached_idle_s": float("nan")}, {"sustained_s": "1"}])
def test_times_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="above 0"):
        Backlog(**wrong)


@pytest.mark.parametrize("wrong", [{"min_executors": 3, "max_executors": 2}, {"initial_executors": 1, "min_executors": 2}])
def test_limits_that_contradict_are_refused(wrong):
    with pytest.raises(ConfigError, match="must rise in this order"):
        Config(**wrong)


# -- with the core


def test_a_cluster_grows_with_a_batch_and_is_as_small_as_before_when_it_was_idle():
    cluster, app = elastic(max_executors=6)
    done = cluster.submit(job(app, 0, result_stage(0, 400)))
    while not done.ended:
        cluster.advance(0.5)
    assert len(cluster.executors) == 6
    assert cluster.now < 400 / 4 / 2  # one alone takes 100 s
    cluster.advance(70.0)
    assert len(cluster.executors) == 1
    told = [(event.before, event.target) for event in cluster.events if isinstance(event, ev.AllocationChanged)]
    assert told[:3] == [(1, 2), (2, 4), (4, 6)]
    released = [executor for event in cluster.events if isinstance(event, ev.ExecutorsReleased) for executor in event.executors]
    assert sorted(released) == sorted(executor for _, executor in cluster.closed)
    assert len(released) == 5


def test_nobody_is_started_while_a_cluster_shrinks():
    cluster, app = elastic(max_executors=4, slots=1)
    done = cluster.submit(job(app, 0, result_stage(0, 40)))
    while not done.ended:
        cluster.advance(0.5)
    over = cluster.now
    cluster.advance(200.0)
    assert len(cluster.executors) == 1
    assert not [event for event in cluster.events if isinstance(event, ev.ExecutorAdded) and event.time > over]


def test_nothing_is_computed_again_for_those_that_left():
    cluster, app = elastic(executors=4, min_executors=1)
    pairs = map_stage(0, 16)
    first = cluster.submit(job(app, 0, pairs, result_stage(1, 4, [pairs])))
    while not first.ended:
        cluster.advance(0.5)
    cluster.advance(90.0)
    assert len(cluster.executors) == 1
    second = cluster.submit(job(app, 1, pairs, result_stage(2, 4, [pairs])))
    while not second.ended:
        cluster.advance(0.5)
    assert second.numbers == expected(second.spec)
    assert set(cluster.computed.values()) == {1}
    assert any(isinstance(event, ev.ShuffleOutputsMoved) for event in cluster.events)


def test_one_that_holds_cached_partitions_stays_until_they_are_unpersisted():
    cluster, app = elastic(executors=4)
    done = cluster.submit(job(app, 0, result_stage(0, 16, cached=7)))
    while not done.ended:
        cluster.advance(0.5)
    cluster.advance(200.0)
    assert len(cluster.executors) == 4
    cluster.driver_says(sti.RddUnpersistRequested(app, 7))
    cluster.advance(70.0)
    assert len(cluster.executors) == 1


def test_work_that_comes_before_the_idle_time_is_over_keeps_them():
    cluster, app = elastic(executors=3)
    for number in range(8):
        done = cluster.submit(job(app, number, result_stage(number, 12)))
        while not done.ended:
            cluster.advance(0.5)
        cluster.advance(40.0)
    assert len(cluster.executors) == 3
    assert not cluster.closed


def test_those_about_to_leave_are_called_back_when_work_comes_before_anybody_new_is_asked_for(monkeypatch):
    monkeypatch.setattr("flowkit.simulation.executor._COPY_S", 30.0)  # what they hand over is large
    cluster, app = elastic(executors=4, min_executors=1)
    pairs = map_stage(0, 16)
    first = cluster.submit(job(app, 0, pairs, result_stage(1, 4, [pairs])))
    while not first.ended:
        cluster.advance(0.5)
    while not any(isinstance(event, ev.ExecutorsReleased) for event in cluster.events):
        cluster.advance(0.5)
    second = cluster.submit(job(app, 1, result_stage(2, 200)))
    while not second.ended:
        cluster.advance(0.5)
    kept = [executor for event in cluster.events if isinstance(event, ev.ExecutorsKept) for executor in event.executors]
    assert len(kept) == 3
    assert not cluster.closed
    first_change = next(
        event for event in cluster.events if isinstance(event, ev.AllocationChanged) and event.target > event.before
    )
    back = next(event.time for event in cluster.events if isinstance(event, ev.ExecutorsKept))
    assert (first_change.before, first_change.present) == (1, 2), "one of them is back, and it is the one that was wanted"
    assert first_change.time == back


def test_whom_somebody_else_retires_meanwhile_is_not_called_back(monkeypatch):
    monkeypatch.setattr("flowkit.simulation.executor._COPY_S", 30.0)
    cluster, app = elastic(executors=3, min_executors=1)
    pairs = map_stage(0, 16)
    first = cluster.submit(job(app, 0, pairs, result_stage(1, 4, [pairs])))
    while not first.ended:
        cluster.advance(0.5)
    while not (
        released := [each for event in cluster.events if isinstance(event, ev.ExecutorsReleased) for each in event.executors]
    ):
        cluster.advance(0.5)
    cluster.tell(sti.ExecutorDraining(released[0]))
    cluster.advance(0.1)
    second = cluster.submit(job(app, 1, result_stage(2, 100)))
    while not second.ended:
        cluster.advance(0.5)
    kept = [executor for event in cluster.events if isinstance(event, ev.ExecutorsKept) for executor in event.executors]
    assert released[0] not in kept
    assert kept == released[1:]


def test_a_stream_in_bursts_changes_a_stable_cluster_once_a_minute_at_most():
    cluster, app = elastic(Stable(), max_executors=10, task_s=0.5)
    for number in range(90):
        cluster.submit(job(app, number, result_stage(number, 10 + 60 * (number % 3 == 0))))
        cluster.advance(10.0)
    changes = [event.time for event in cluster.events if isinstance(event, ev.AllocationChanged | ev.ExecutorsReleased)]
    assert all(later - earlier >= 60.0 for earlier, later in pairwise(sorted(set(changes))))
    assert len(changes) <= 3
    cluster.advance(1_300.0)
    assert len(cluster.executors) == 1


def test_without_a_driver_that_scales_nothing_is_asked():
    cluster = SimulatedCluster(Config(validate=True), allocation=Backlog(), task_s=1.0)
    cluster.add_executor(slots=1)
    app = cluster.open_application("app")
    cluster.submit(job(app, 0, result_stage(0, 20)))
    cluster.run()
    assert not cluster.asked


def test_when_the_driver_that_scales_is_gone_those_about_to_leave_stay():
    cluster, app = elastic(executors=3, min_executors=1)
    other = cluster.open_application("other")
    cluster.closes = False
    done = cluster.submit(job(app, 0, result_stage(0, 12)))
    while not done.ended:
        cluster.advance(0.5)
    while not cluster.closed:
        cluster.advance(1.0)
    cluster.close_application(app)
    cluster.advance(1.0)
    assert not cluster.core.draining()
    last = cluster.submit(job(other, 0, result_stage(0, 12)))
    cluster.run()
    assert last.succeeded


def test_a_driver_that_did_not_close_one_is_told_again():
    cluster, app = elastic(executors=2)
    cluster.closes = False
    done = cluster.submit(job(app, 0, result_stage(0, 8)))
    while not done.ended:
        cluster.advance(0.5)
    cluster.advance(62.0)
    assert len(cluster.closed) == 1
    cluster.advance(20.0)
    assert len(cluster.closed) == 1
    cluster.closes = True
    cluster.advance(15.0)
    assert len(cluster.closed) == 2
    assert len(cluster.executors) == 1


def test_nobody_is_woken_for_a_cluster_that_nobody_scales_any_more():
    cluster, app = elastic(executors=3)
    cluster.open_application("other")
    done = cluster.submit(job(app, 0, result_stage(0, 12)))
    while not done.ended:
        cluster.advance(0.5)
    cluster.advance(1.0)
    assert cluster.core.next_wakeup() < cluster.now + 60.0  # the idle time of three of them
    cluster.close_application(app)
    cluster.advance(120.0)
    assert len(cluster.executors) == 3
    wakeup = cluster.core.next_wakeup()
    assert wakeup is None or wakeup > cluster.now


@pytest.mark.parametrize(
    "answer",
    [
        None,
        3,
        Allocation("many"),
        Allocation(-1),
        Allocation(True),
        Allocation(2, None),
        Allocation(2, [["x"]]),
        Allocation(2, (), 5),
        Allocation(2, (), "", "soon"),
        Allocation(2, (), "", float("nan")),
        Allocation(2, (), "", float("inf")),
    ],
)
def test_a_policy_that_answers_nonsense_changes_nothing_and_is_written_down(answer):
    class Nonsense:
        def look(self, demand):
            return answer

    cluster, app = elastic(Nonsense())
    done = cluster.submit(job(app, 0, result_stage(0, 8)))
    cluster.run()
    assert done.succeeded
    assert len(cluster.executors) == 1
    assert "Nonsense" in cluster.faults[0].traceback
