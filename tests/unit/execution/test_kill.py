"""Stopping a task from outside: what user code feels, and that nobody else ever does."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from flowkit.errors import TaskKilled
from flowkit.execution.kill import Interrupted, KillSwitch, Phase, Reaper, set_async_exception


def spin_until(flag: threading.Event) -> None:
    while not flag.is_set():
        pass


def in_thread(body):
    """Run on another thread; returns it and the list its outcome goes to."""
    outcome: list[object] = []

    def run():
        try:
            outcome.append(body())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_a_kill_before_the_start_wins():
    switch, ran = KillSwitch(), []
    assert switch.kill("no longer wanted")
    with pytest.raises(TaskKilled, match="no longer wanted"):
        switch.run(lambda: ran.append(1))
    assert ran == []
    assert not switch.interrupted


def test_the_first_reason_stands():
    switch = KillSwitch()
    assert switch.kill("first")
    assert not switch.kill("second")
    assert switch.reason == "first"


def test_a_busy_loop_is_interrupted_at_once():
    for _ in range(50):
        switch, inside = KillSwitch(), threading.Event()

        def body(inside=inside):
            inside.set()
            while True:
                pass

        thread, outcome = in_thread(lambda switch=switch, body=body: switch.run(body))
        assert inside.wait(10)
        switch.kill("enough")
        thread.join(10)
        assert not thread.is_alive()
        assert isinstance(outcome[0], Interrupted)
        assert switch.interrupted


def test_an_except_exception_does_not_keep_a_task_alive():
    switch, inside = KillSwitch(), threading.Event()

    def body():
        while True:
            try:
                inside.set()
                spin_until(threading.Event())
            except Exception:
                continue

    thread, outcome = in_thread(lambda: switch.run(body))
    assert inside.wait(10)
    switch.kill("enough")
    thread.join(10)
    assert isinstance(outcome[0], Interrupted)


def test_code_that_lost_the_first_exception_is_interrupted_again():
    switch, inside, lost = KillSwitch(), threading.Event(), threading.Event()

    def body():
        inside.set()
        try:
            spin_until(threading.Event())
        except BaseException:
            lost.set()
        spin_until(threading.Event())

    thread, outcome = in_thread(lambda: switch.run(body))
    assert inside.wait(10)
    switch.kill("enough")
    assert lost.wait(10)
    switch.interrupt_again()
    thread.join(10)
    assert isinstance(outcome[0], Interrupted)


def test_nothing_is_injected_once_user_code_was_left():
    switch = KillSwitch()
    assert switch.run(lambda: 42) == 42
    assert switch.phase is Phase.LEAVING
    switch.kill("late")
    switch.interrupt_again()
    assert not switch.interrupted
    # Were one pending, this loop would be where it arrives.
    assert sum(1 for _ in range(10_000)) == 10_000


@pytest.fixture
def restless_interpreter():
    """Threads take turns after microseconds, so that races happen here and not in a year."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(2e-6)
    yield
    sys.setswitchinterval(before)


def test_an_exception_meant_for_a_task_never_reaches_what_runs_after_it(restless_interpreter):
    """Kills aimed at the very end of user code: some hit, some are late, none may leak."""
    hit = late = 0
    aim = 1_000.0  # length of user code; made longer when the kill was late and shorter when it hit, so both stay likely
    for _ in range(2_000):
        switch, inside, escaped, finished = KillSwitch(), threading.Event(), [], []

        def task(switch=switch, inside=inside, escaped=escaped, finished=finished, rounds=int(aim)):
            def body():
                inside.set()
                for _ in range(rounds):
                    len("user code")
                return True

            try:
                finished.append(switch.run(body))
            except (Interrupted, TaskKilled):
                pass
            try:
                for _ in range(300):
                    len("code of the executor, with calls at which exceptions are delivered")
            except BaseException as error:
                escaped.append(error)

        thread = threading.Thread(target=task)
        thread.start()
        inside.wait()
        switch.kill("now")
        switch.interrupt_again()
        thread.join()
        assert escaped == []
        # What was interrupted may have finished all the same; what was not interrupted must have.
        assert switch.interrupted or finished == [True]
        hit += switch.interrupted
        late += not switch.interrupted
        aim *= 0.9 if switch.interrupted else 1.1
    assert hit > 200, "hardly a kill came while user code ran: this test shows nothing"
    assert late > 200, "hardly a kill came after user code: this test shows nothing"


def test_an_exception_that_arrives_while_leaving_ends_there():
    """The narrowest window, made wide: user code has returned, its thread waits for the lock under which we inject."""
    for _ in range(50):
        switch, inside, go, escaped = KillSwitch(), threading.Event(), threading.Event(), []

        def body(inside=inside, go=go):
            inside.set()
            spin_until(go)
            return 42

        def task(switch=switch, body=body, escaped=escaped):
            result = switch.run(body)
            try:
                for _ in range(300):
                    len("code of the executor")
            except BaseException as error:
                escaped.append(error)
            return result

        thread, outcome = in_thread(task)
        assert inside.wait(10)
        with switch._lock:
            go.set()
            while sys._current_frames()[thread.ident].f_code.co_name != "_take_back":
                pass
            # What a killer does who looked at the phase just before it changed.
            switch._injections += 1
            set_async_exception(thread.ident, Interrupted)
        thread.join(10)
        assert outcome == [42]
        assert escaped == []
        assert switch.interrupted, "the result is void all the same: nobody can tell that user code saw nothing"


def test_the_users_own_exception_passes_through():
    with pytest.raises(ZeroDivisionError):
        KillSwitch().run(lambda: 1 / 0)


def test_the_stack_of_a_stuck_task_can_be_shown():
    switch, inside, release = KillSwitch(), threading.Event(), threading.Event()

    def a_function_with_a_name():
        inside.set()
        release.wait()

    thread, _ = in_thread(lambda: switch.run(a_function_with_a_name))
    assert inside.wait(10)
    assert "a_function_with_a_name" in switch.stack()
    release.set()
    thread.join()


# -- the reaper


def test_the_reaper_calls_in_the_order_of_the_times_given():
    reaper, called, done = Reaper("reaper under test"), [], threading.Event()
    reaper.after(0.05, lambda: (called.append("later"), done.set()))
    reaper.after(0.0, lambda: called.append("sooner"))
    assert done.wait(10)
    reaper.close()
    assert called == ["sooner", "later"]


def test_a_closed_reaper_calls_nothing_and_leaves_no_thread():
    reaper, called = Reaper("reaper under test"), []
    reaper.after(3600, lambda: called.append(1))
    before = time.monotonic()
    reaper.close()
    reaper.after(0, lambda: called.append(2))
    assert time.monotonic() - before < 10
    assert called == []
    assert not [thread for thread in threading.enumerate() if thread.name == "reaper under test"]
