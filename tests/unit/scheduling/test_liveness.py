"""A process that works is not dead, though it says nothing; and nobody waits for it who could run elsewhere."""

from __future__ import annotations

from collections import Counter

import pytest

from flowkit.config import Config
from flowkit.model import events as ev
from flowkit.model.ids import AppId, ExecutorId, HostToken
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti
from flowkit.scheduling.core import SchedulerCore
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, map_stage, result_stage

TIMEOUT_S = 4.0
LONG = 0  # the stage whose task holds its interpreter's lock; others' tasks take a millisecond


class Run:
    """A cluster in which the task of stage 0 makes one call of C, from its first moment on."""

    def __init__(self, *executors: dict, call_s: float = 60.0, **settings) -> None:
        config = Config(
            validate=True, executor_timeout_s=TIMEOUT_S, heartbeat_s=0.5, no_executor_timeout_s=20.0, kill_grace_s=2.0, **settings
        )
        self.cluster = SimulatedCluster(config, task_s=self.task_s, seed=settings.get("seed", 0))
        self.cluster.keep_actions = True
        self.executors = [self.cluster.add_executor(**{"slots": 1, **each}) for each in executors or ({}, {})]
        self.call_s = call_s
        self.holds = True
        self.app = self.cluster.open_application("app")
        self.cluster.advance(1.0)
        self.jobs = 0

    def task_s(self, launch) -> float:
        if launch.stage != LONG:
            return 0.001
        if self.holds:
            (holder,) = [each for each in self.cluster.executors.values() if launch.attempt in each.running]
            self.cluster.hold_executor(holder.id)
            self.cluster.later(self.call_s, lambda: self.cluster.continue_executor(holder.id))
        return self.call_s

    def submit(self, *stages):
        self.jobs += 1
        return self.cluster.submit(job(self.app, self.jobs, *stages))

    def start_long(self):
        """One task that holds its executor; returns its job and that executor."""
        long = self.submit(result_stage(LONG, 1))
        self.cluster.advance(0.5)
        return long, self.holder

    @property
    def holder(self) -> ExecutorId:
        (holder,) = [each.id for each in self.cluster.executors.values() if each.silent]
        return holder

    def took(self, done) -> float:
        began = self.cluster.now
        while not done.ended:
            self.cluster.advance(0.001)
        assert done.failed is None, done.failed
        assert done.numbers == expected(done.spec)
        return self.cluster.now - began

    def of(self, kind: type) -> list:
        return [action for action in self.cluster.actions if isinstance(action, kind)]

    def launches(self, stage: int) -> list[ExecutorId]:
        return [each.executor for each in self.of(act.Launch) for task in each.tasks if task.stage == stage]


def interactive(first: int, tasks: int = 4):
    pairs = map_stage(first, tasks)
    return pairs, result_stage(first + 1, tasks, [pairs])


# -- who lives


@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_that_works_for_many_time_outs_ends_its_task_in_one_attempt(workers):
    run = Run(*[{}] * workers)
    long, _holder = run.start_long()
    run.took(long)
    assert not run.of(act.ExpireExecutor)
    assert run.launches(LONG) == [run.launches(LONG)[0]]


def test_all_processes_may_work_at_once_for_longer_than_a_job_would_wait_for_executors():
    run = Run()
    long = run.submit(result_stage(LONG, 2))
    run.cluster.advance(0.5)
    other = run.submit(*interactive(1))
    run.took(long)
    assert other.failed is None
    run.took(other)
    assert not run.of(act.ExpireExecutor)
    assert len(run.launches(LONG)) == 2


@pytest.mark.parametrize("nannies", [True, False])
def test_a_stopped_process_is_found_out_after_the_time_out_and_two_looks(nannies):
    run = Run()
    run.cluster.nannies = nannies
    run.cluster.stop_executor(run.executors[0])
    began = run.cluster.now
    while not run.of(act.ExpireExecutor):
        run.cluster.advance(0.01)
        assert run.cluster.now - began < TIMEOUT_S * 1.3
    assert run.cluster.now - began > TIMEOUT_S - 0.5
    (expired,) = run.of(act.ExpireExecutor)
    assert ("its process is stopped" if nannies else "nobody could tell whether its process works") in expired.reason
    assert "executor_timeout_s = 4" in expired.reason


def test_a_process_that_is_stopped_in_the_middle_of_its_work_is_found_out_as_soon():
    run = Run()
    _long, holder = run.start_long()
    run.cluster.advance(10.0)
    assert not run.of(act.ExpireExecutor)
    run.cluster.executors[holder].works_since = None
    began = run.cluster.now
    while not run.of(act.ExpireExecutor):
        run.cluster.advance(0.01)
        assert run.cluster.now - began < TIMEOUT_S * 1.3


@pytest.mark.parametrize("waits", [0.0, 50.0])
def test_threads_that_only_wait_for_the_lock_are_no_work(waits):
    core, executor = SchedulerCore(Config(executor_timeout_s=TIMEOUT_S, heartbeat_s=0.5), seed=0), ExecutorId("tcp://host:1#1")
    core.handle(sti.ExecutorReady(executor, HostToken("host"), 1), 1.0)
    now, threads = 1.0, {number: 100.0 for number in range(32)}
    expired: list[act.Action] = []
    while not expired and now < 20.0:
        now += 0.1
        threads = {number: used_s + 0.1 * 0.005 for number, used_s in threads.items()}  # waking up 200 times a second
        actions = core.handle(sti.Tick(), now)
        if any(isinstance(each, act.Examine) for each in actions):
            actions += core.handle(
                sti.Examined(executor, {number: (used_s, used_s * waits) for number, used_s in threads.items()}, False, ()),
                now + 0.01,
            )
        expired = [each for each in actions if isinstance(each, act.ExpireExecutor)]
    assert "has not worked for" in expired[0].reason
    assert now < 1.0 + TIMEOUT_S * 1.4


def test_a_thread_that_works_is_known_on_a_machine_that_has_hardly_any_time_for_it():
    core, executor = SchedulerCore(Config(executor_timeout_s=TIMEOUT_S, heartbeat_s=0.5), seed=0), ExecutorId("tcp://host:1#1")
    core.handle(sti.ExecutorReady(executor, HostToken("host"), 1), 1.0)
    now = 1.0
    while now < 60.0:
        now += 0.1
        actions = core.handle(sti.Tick(), now)
        if any(isinstance(each, act.Examine) for each in actions):
            seen = {7: (0.004 * now, 0.99 * now), 8: (0.001 * now, 0.1 * now)}
            actions += core.handle(sti.Examined(executor, seen, False, ()), now + 0.01)
        assert not any(isinstance(each, act.ExpireExecutor) for each in actions)


def test_a_scheduler_that_was_held_up_itself_gives_nobody_up_and_ends_no_lease():
    app, executor = AppId("app"), ExecutorId("tcp://host:1#1")
    core = SchedulerCore(Config(executor_timeout_s=TIMEOUT_S, heartbeat_s=0.5), seed=0)
    core.handle_all([sti.ApplicationOpened(app, "app", "0", 60.0), sti.ExecutorReady(executor, HostToken("host"), 1)], 1.0)
    told = core.handle(sti.Tick(), 200.0)  # what others said meanwhile was not read yet
    told += core.handle_all([sti.Heartbeat(executor, ()), sti.LeaseRenewed(app)], 200.1)
    told += core.handle(sti.Tick(), 201.0)
    assert not [each for each in told if isinstance(each, act.ExpireExecutor | act.ApplicationExpired)]
    for tenth in range(2_011, 2_900):  # nobody says anything any more, and it listens
        told += core.handle(sti.Tick(), tenth / 10)
    assert {type(each) for each in told} >= {act.ExpireExecutor, act.ApplicationExpired}


# -- killed, and goes on


@pytest.mark.parametrize("replaceable", [True, False])
def test_a_call_that_was_cancelled_costs_its_process_after_the_grace_time(replaceable):
    run = Run({"replaceable": replaceable}, {"replaceable": replaceable})
    long, holder = run.start_long()
    run.cluster.advance(5.0)
    run.cluster.cancel(long)
    began = run.cluster.now
    run.cluster.advance(1.9)
    assert not run.of(act.ExpireExecutor)
    run.cluster.advance(1.0)
    if not replaceable:
        run.cluster.advance(20.0)
        assert not run.of(act.ExpireExecutor), "nobody could start another, so it goes on"
        return
    (expired,) = run.of(act.ExpireExecutor)
    assert expired.executor == holder
    assert "was to stop" in expired.reason
    assert "kill_grace_s = 2" in expired.reason
    (stuck,) = [event for event in run.cluster.events if isinstance(event, ev.TaskStuck)]
    assert stuck.executor == holder
    assert run.cluster.now - began < 3.0


def test_a_killed_task_that_is_queued_behind_the_call_of_another_job_ends_nobody():
    run = Run({}, launch_ahead_s=60.0)  # nothing is moved for speed
    both = run.submit(result_stage(LONG, 1))
    queued = run.submit(result_stage(5, 2))
    run.cluster.advance(0.5)
    run.cluster.cancel(queued)
    run.cluster.advance(20.0)
    assert not run.of(act.ExpireExecutor)
    run.took(both)


# -- who waits


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("since_s", [0.0, 0.005, 0.019, 0.03, 0.5, 5.0])
@pytest.mark.parametrize("ended_before", [True, False])
def test_an_interactive_job_takes_less_than_a_tenth_of_a_second_beside_a_long_call(slots, since_s, ended_before):
    run = Run({"slots": slots}, {"slots": slots})
    if ended_before:  # how long tasks take is known
        run.took(run.submit(*interactive(11)))
        run.cluster.advance(1.0)
    run.submit(result_stage(LONG, 1))
    run.cluster.advance(0.003 + since_s)
    assert run.took(run.submit(*interactive(1, 8))) < 0.1
    for number in range(2):
        assert run.took(run.submit(*interactive(3 + 2 * number, 8))) < 0.05, "by now it is known who does not answer"


def test_an_interactive_job_beside_a_cancelled_call_takes_as_little():
    run = Run()
    long, _holder = run.start_long()
    run.cluster.cancel(long)
    assert run.took(run.submit(*interactive(1))) < 0.1


def test_without_anybody_who_could_look_what_is_queued_behind_the_call_moves_all_the_same():
    run = Run()
    run.cluster.nannies = False
    run.submit(result_stage(LONG, 1))
    run.cluster.advance(0.004)
    assert run.took(run.submit(*interactive(1))) < 0.15


def test_nothing_is_queued_behind_what_runs_longer_than_is_queued_ahead():
    run = Run()
    run.holds = False  # it sleeps, and answers everything
    run.submit(result_stage(LONG, 1))
    run.cluster.advance(0.5)
    busy = run.launches(LONG)[0]
    run.took(run.submit(result_stage(1, 500)))
    launched = Counter(run.launches(1))
    assert launched[busy] == 0
    assert sum(launched.values()) == 500, "and so nothing had to be taken back"


def test_a_short_task_that_came_to_stand_behind_a_long_one_moves_though_nobody_is_idle():
    run = Run({"slots": 1}, {"slots": 1})
    run.holds = False
    lengths = {LONG: 60.0, 1: 0.05}
    run.cluster._task_s = lambda launch: lengths.get(launch.stage, 0.001)
    run.submit(result_stage(1, 400))  # ten seconds for two executors
    run.cluster.advance(1.0)
    run.cluster.cancel(run.submit(result_stage(9, 1)))
    long = run.submit(result_stage(LONG, 1))
    run.cluster.advance(12.0)
    assert not long.ended
    done = run.submit(result_stage(2, 20))
    assert run.took(done) < 0.2


def test_an_attempt_that_starts_twice_commits_once():
    run = Run(call_s=1.0)
    run.submit(result_stage(LONG, 1))
    run.cluster.advance(0.004)
    done = run.submit(result_stage(1, 6, commits=True))
    assert run.took(done) < 0.2
    holder = run.holder
    twice = {task.attempt for each in run.of(act.Launch) if each.executor == holder for task in each.tasks if task.stage == 1}
    assert twice, "something was queued there, and was launched elsewhere"
    started = []
    run.cluster._task_s = lambda launch: started.append(launch.attempt) or 0.001
    run.cluster.advance(5.0)  # the call ends, and what is queued starts before the recall is read
    assert set(started) & twice
    answers = [each for each in run.of(act.AnswerCommit) if each.attempt in twice]
    assert all(not each.granted for each in answers)
    assert sum(each.granted for each in run.of(act.AnswerCommit)) == 6
    run.cluster.run()
    run.cluster.core.assert_empty()


def test_two_applications_neither_of_which_waits_for_the_calls_of_the_other():
    run = Run({}, {}, {})
    run.start_long()
    other = run.cluster.open_application("other")
    run.cluster.advance(0.1)
    done = run.cluster.submit(job(other, 0, *interactive(1)))
    assert run.took(done) < 0.1


@pytest.mark.parametrize("delay_s", [0.02, 0.1])
def test_a_slow_network_is_not_taken_for_executors_that_do_not_answer(delay_s):
    """Once: how long answers take is learnt from the first."""
    from flowkit.simulation.cluster import Network

    cluster = SimulatedCluster(Config(validate=True), task_s=0.05, network=Network((delay_s, 1.1 * delay_s)))
    cluster.keep_actions = True
    for _ in range(4):
        cluster.add_executor(slots=2)
    app = cluster.open_application("app")
    cluster.advance(3.0)
    for number in range(6):
        done = cluster.submit(job(app, number, map_stage(2 * number, 40), result_stage(2 * number + 1, 8)))
        while not done.ended:
            cluster.advance(0.01)
        if number == 2:
            looks = sum(isinstance(each, act.Examine) for each in cluster.actions)
    assert sum(isinstance(each, act.Examine) for each in cluster.actions) <= looks + 1
    cluster.run()
    cluster.core.assert_empty()
