"""The executor's queue and slots: order, recalls, kills, slots that come and go."""

from __future__ import annotations

import threading
import time

import pytest

from flowkit.config import Config
from flowkit.execution.task_context import TaskContext
from flowkit.model.task import (
    KilledFailure,
    TaskFailed,
    TaskRecalled,
    TaskStarted,
    TaskSucceeded,
)


class Gate:
    """Holds tasks up until it is opened. Found by name, since programs travel by pickle even here."""

    gates: dict[str, Gate] = {}

    def __init__(self, name: str) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()
        Gate.gates[name] = self

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.entered.acquire(timeout=20)


def pass_gate(name: str) -> None:
    gate = Gate.gates[name]
    gate.entered.release()
    assert gate.opened.wait(20)


@pytest.fixture
def gate(request):
    gate = Gate(request.node.name)
    gate.name = request.node.name
    yield gate
    gate.opened.set()


def held_up(gate, *, and_then=lambda partition: partition):
    """A task that waits at the gate. By reference: this module is importable where the tests run, in this process."""
    name, passing = gate.name, _By(pass_gate)

    def fn(partition, iterator):
        passing(name)
        return and_then(partition)

    return fn


class _By:
    """Pickles as a reference to a live object of this process, so that tests can look into their tasks."""

    objects: dict[int, object] = {}

    def __init__(self, target) -> None:
        self.target = target

    def __call__(self, *args):
        return self.target(*args)

    def __reduce__(self):
        _By.objects[id(self.target)] = self.target
        return _find, (id(self.target),)


def _find(key):
    return _By(_By.objects[key])


# -- running


def test_a_task_runs_and_reports_its_start_and_its_result(bench):
    bench.define(lambda partition, iterator: (partition, sum(iterator)))
    bench.launch(7)
    assert bench.value(7) == (7, sum(range(70, 80)))
    started, ended = bench.reports
    assert isinstance(started, TaskStarted)
    assert isinstance(ended, TaskSucceeded)
    assert started.at == ended.started_at <= ended.ended_at


def test_tasks_start_in_the_order_of_their_launch(make_bench):
    bench = make_bench(slots=1, start=False)
    bench.define(lambda partition, iterator: partition)
    bench.launch(3, 1, 2)
    bench.launch(9, 4)
    bench.executor.start()
    bench.ending(4)
    assert [each.attempt for each in bench.reports if isinstance(each, TaskStarted)] == [3, 1, 2, 9, 4]


def test_no_more_tasks_run_at_a_time_than_there_are_slots(make_bench, gate):
    bench = make_bench(slots=3)
    bench.define(held_up(gate))
    bench.launch(*range(10))
    gate.wait_for(3)
    assert bench.executor.statistics().running_count == 3
    assert bench.executor.statistics().queued_count == 7
    assert not gate.entered.acquire(blocking=False)
    gate.opened.set()
    for attempt in range(10):
        assert bench.value(attempt) == attempt


def test_a_launch_that_arrives_twice_runs_once(bench, gate):
    bench.define(held_up(gate))
    bench.launch(1)
    bench.launch(1)
    gate.opened.set()
    bench.ending(1)
    bench.wait_until_idle()
    bench.launch(1)
    bench.launch(2)
    bench.ending(2)
    assert [each.attempt for each in bench.reports if isinstance(each, TaskStarted)] == [1, 2]


def test_a_launch_of_an_unknown_stage_is_answered_with_an_uncounted_failure(bench):
    bench.launch(1, stage=5)
    failure = bench.failure(1)
    assert isinstance(failure, KilledFailure)
    assert "stage 5.0 is unknown" in failure.reason


def test_a_forgotten_stage_is_unknown_but_what_was_launched_still_runs(make_bench):
    bench = make_bench(start=False)
    bench.define(lambda partition, iterator: partition)
    bench.launch(1)
    bench.executor.forget_stage("app-test", 0)
    bench.launch(2)
    bench.executor.start()
    assert bench.value(1) == 1
    assert isinstance(bench.failure(2), KilledFailure)


def test_ten_thousand_no_ops_all_report_whatever_the_slots_do(make_bench):
    bench = make_bench(slots=2)
    bench.define(lambda partition, iterator: None)
    for first in range(0, 2_000, 100):
        bench.launch(*range(first, first + 100))
        bench.executor.set_slots(1 + first // 100 % 4)
    bench.wait(lambda: sum(isinstance(each, TaskSucceeded) for each in bench.reports) == 2_000)
    bench.wait_until_idle()


def test_a_listener_that_raises_does_not_cost_a_slot(bench, caplog):
    broken = bench.executor._report

    def report(reports):
        broken(reports)
        raise RuntimeError("the stream is gone")

    bench.executor._report = report
    bench.define(lambda partition, iterator: partition)
    bench.launch(*range(10))
    for attempt in range(10):
        bench.ending(attempt)
    bench.wait_until_idle()


# -- recalls


def test_a_recalled_task_never_starts(make_bench, gate):
    bench = make_bench(slots=1)
    bench.define(held_up(gate))
    bench.launch(1, 2, 3)
    gate.wait_for(1)
    bench.executor.recall((1, 2))
    assert bench.ending(2) == TaskRecalled(2)
    gate.opened.set()
    assert bench.value(1) == 1
    assert bench.value(3) == 3
    assert [each.attempt for each in bench.reports if isinstance(each, TaskStarted)] == [1, 3]


def test_a_recall_that_overtakes_its_launch_holds(bench):
    bench.define(lambda partition, iterator: partition)
    bench.executor.recall((1,))
    bench.launch(1, 2)
    assert bench.value(2) == 2
    assert bench.ending(1) == TaskRecalled(1)


def test_a_recall_of_what_is_over_says_nothing(bench):
    bench.define(lambda partition, iterator: partition)
    bench.launch(1)
    bench.ending(1)
    bench.wait_until_idle()
    bench.executor.recall((1,))
    assert [type(each) for each in bench.reports] == [TaskStarted, TaskSucceeded]


# -- kills


def test_a_kill_before_the_start_wins(make_bench, gate):
    bench = make_bench(slots=1)
    bench.define(held_up(gate))
    bench.launch(1, 2)
    gate.wait_for(1)
    bench.executor.kill((2,), "cancelled")
    failed = bench.ending(2)
    assert isinstance(failed, TaskFailed)
    assert failed.failure == KilledFailure("cancelled")
    assert failed.started_at == 0
    gate.opened.set()
    bench.ending(1)
    assert [each.attempt for each in bench.reports if isinstance(each, TaskStarted)] == [1]


def test_a_kill_that_overtakes_its_launch_wins(bench):
    bench.define(lambda partition, iterator: partition)
    bench.executor.kill((1,), "cancelled")
    bench.launch(1)
    assert bench.failure(1) == KilledFailure("cancelled")


def test_a_busy_loop_is_gone_within_a_second(bench):
    def busy(partition, iterator):
        while True:
            pass

    for attempt in range(1, 51):
        bench.define(busy)
        bench.launch(attempt)
        bench.wait(lambda: any(isinstance(each, TaskStarted) and each.attempt == attempt for each in bench.reports))
        before = time.monotonic()
        bench.executor.kill((attempt,), "cancelled")
        assert bench.failure(attempt) == KilledFailure("cancelled")
        assert time.monotonic() - before < 1
    bench.wait_until_idle()
    assert bench.replaced == []


def test_a_killed_task_that_swallows_the_kill_has_no_result(bench, gate):
    entered = _By(gate.entered.release)

    def stubborn(partition, iterator):
        try:
            entered()
            while True:
                pass
        except BaseException:
            return "a result nobody can trust"

    bench.define(stubborn)
    bench.launch(1)
    gate.wait_for(1)
    bench.executor.kill((1,), "cancelled")
    assert bench.failure(1) == KilledFailure("cancelled")


def test_the_kill_of_one_task_leaves_its_neighbour_and_its_successor_alone(make_bench, gate):
    bench = make_bench(slots=2)
    entered = _By(gate.entered.release)

    def fn(partition, iterator):
        if partition == 1:
            entered()
            while True:
                pass
        return sum(1 for _ in range(20_000))

    bench.define(fn)
    bench.launch(1, *range(2, 40))
    gate.wait_for(1)
    bench.executor.kill((1,), "cancelled")
    assert bench.failure(1) == KilledFailure("cancelled")
    for attempt in range(2, 40):
        assert bench.value(attempt) == 20_000


def test_a_task_asleep_in_c_costs_the_process_after_the_grace_time(make_bench, gate):
    bench = make_bench(config=Config(kill_grace_s=0.1), slots=2)
    bench.define(held_up(gate))
    bench.launch(1, 2, 3)
    gate.wait_for(2)
    bench.executor.kill((1,), "cancelled")
    bench.wait(lambda: bench.replaced)
    [(reason, others)] = bench.replaced
    assert "attempt 1" in reason
    assert "cancelled" in reason
    assert "pass_gate" in reason, "the stack shows where it hangs"
    assert set(others) == {2, 3}
    gate.opened.set()


def test_a_task_that_heeds_its_kill_does_not_cost_the_process(make_bench, gate):
    bench = make_bench(config=Config(kill_grace_s=0.05))
    entered = _By(gate.entered.release)

    def busy(partition, iterator):
        entered()
        while True:
            pass

    bench.define(busy)
    bench.launch(1)
    gate.wait_for(1)
    bench.executor.kill((1,), "cancelled")
    bench.ending(1)
    bench.wait_until_idle()
    later = threading.Event()
    bench.executor._reaper.after(0.06, later.set)
    assert later.wait(20)
    assert bench.replaced == []


# -- commits


def test_a_task_that_asks_to_commit_waits_for_the_answer(bench):
    def commit(partition, iterator):
        TaskContext.get().acquire_commit()
        return "committed"

    bench.define(commit)
    bench.launch(1, 2)
    bench.wait(lambda: sorted(bench.commit_requests) == [1, 2])
    bench.executor.answer_commit(1, True)
    bench.executor.answer_commit(2, False)
    assert bench.value(1) == "committed"
    assert type(bench.failure(2)).__name__ == "CommitDeniedFailure"


def test_a_question_whose_answer_was_lost_is_asked_again(make_bench):
    bench = make_bench(config=Config(heartbeat_s=0.01, executor_timeout_s=0.05))
    bench.define(lambda partition, iterator: TaskContext.get().acquire_commit())
    bench.launch(1)
    bench.wait(lambda: len(bench.commit_requests) >= 3)
    bench.executor.answer_commit(1, True)
    assert bench.value(1) is None


def test_a_task_that_waits_for_a_commit_can_be_killed(bench):
    bench.define(lambda partition, iterator: TaskContext.get().acquire_commit())
    bench.launch(1)
    bench.wait(lambda: bench.commit_requests)
    bench.executor.kill((1,), "cancelled")
    assert bench.failure(1) == KilledFailure("cancelled")


# -- slots


def test_slots_that_are_added_take_what_waits(make_bench, gate):
    bench = make_bench(slots=1)
    bench.define(held_up(gate))
    bench.launch(1, 2, 3)
    gate.wait_for(1)
    bench.executor.set_slots(3)
    gate.wait_for(2)
    gate.opened.set()
    for attempt in (1, 2, 3):
        bench.ending(attempt)


def test_slots_that_are_taken_away_finish_what_they_run(make_bench, gate):
    bench = make_bench(slots=3)
    bench.define(held_up(gate))
    bench.launch(*range(8))
    gate.wait_for(3)
    bench.executor.set_slots(1)
    gate.opened.set()
    for attempt in range(8):
        assert bench.value(attempt) == attempt
    bench.wait_until_idle()
    # Whoever is surplus leaves as soon as it has looked; one stays.
    while bench.executor.statistics().thread_count != 1:
        pass


def test_without_slots_tasks_wait(make_bench, gate):
    bench = make_bench(slots=2)
    bench.executor.set_slots(0)
    while bench.executor.statistics().thread_count:
        pass
    bench.define(lambda partition, iterator: partition)
    bench.launch(1)
    assert bench.executor.known_attempts() == (1,)
    assert bench.reports == []
    bench.executor.set_slots(1)
    assert bench.value(1) == 1


def test_slot_threads_are_named_and_have_a_deep_stack(bench):
    def deep(partition, iterator):
        import sys
        import threading

        def descend(depth):
            return depth if depth == 0 else max(iter(map(descend, [depth - 1])))

        sys.setrecursionlimit(20_000)
        try:
            return threading.current_thread().name, descend(5_000)
        finally:
            sys.setrecursionlimit(1_000)

    bench.define(deep)
    bench.launch(1)
    name, depth = bench.value(1)
    assert name.startswith("flowkit slot ")
    assert depth == 0


def test_close_stops_what_runs_and_starts_nothing_more(make_bench, gate):
    bench = make_bench(slots=1)
    entered = _By(gate.entered.release)

    def busy(partition, iterator):
        entered()
        while True:
            pass

    bench.define(busy)
    bench.launch(1, 2)
    gate.wait_for(1)
    bench.executor.close()
    bench.executor.close()
    bench.launch(3)
    assert [type(each) for each in bench.reports] == [TaskStarted], "who closes it knows that its attempts are over"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("flowkit slot")]


# -- looking on


def test_heartbeats_see_queued_and_running_attempts_and_live_metrics(make_bench, gate):
    bench = make_bench(slots=1)
    waiting = _By(pass_gate)
    name = gate.name

    def fn(partition, iterator):
        TaskContext.get().metrics.output_rows = 5
        waiting(name)

    bench.define(fn)
    bench.launch(1, 2)
    gate.wait_for(1)
    assert sorted(bench.executor.known_attempts()) == [1, 2]
    live = bench.executor.live_metrics()
    assert list(live) == [1]
    assert live[1].output_rows == 5
    assert live[1].run_s > 0
    gate.opened.set()
    bench.ending(2)


def test_dropping_an_application_ends_all_it_has_here(make_bench, gate):
    bench = make_bench(slots=1)
    entered = _By(gate.entered.release)

    def busy(partition, iterator):
        entered()
        while True:
            pass

    bench.define(busy)
    bench.launch(1, 2)
    gate.wait_for(1)
    directory = bench.host_directory.base / "app-test"
    assert directory.exists()
    bench.executor.drop_application("app-test")
    assert isinstance(bench.failure(1), KilledFailure)
    assert isinstance(bench.failure(2), KilledFailure)
    bench.executor.close()
    assert not directory.exists()
