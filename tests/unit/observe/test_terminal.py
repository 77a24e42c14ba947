"""Progress in a terminal: when it appears, what it shows, what it leaves."""

from __future__ import annotations

import io
import subprocess
import sys
import threading

import pytest
from rich.console import Console

from flowkit.config import Config
from flowkit.model.events import JobEnd, JobStart, StageInfo, StageSubmitted, TaskEnd
from flowkit.model.job_spec import StageKind
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import ExceptionFailure
from flowkit.observe.status import StatusStore
from flowkit.observe.terminal import TerminalProgress, wants_terminal

APP = "app-1"
START = JobStart(APP, 0, "collect", (), (), {}, time=0.0)
END = JobEnd(APP, 0, "succeeded", time=9.0)


class Screen(io.StringIO):
    """Remembers what is written, and can be waited on."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()

    def write(self, text: str) -> int:
        with self.changed:
            written = super().write(text)
            self.changed.notify_all()
            return written

    def wait_for(self, text: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: text in self.getvalue(), 20), self.getvalue()


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def make(delay_s=0.0):
    screen = Screen()
    console = Console(file=screen, force_terminal=True, width=120, legacy_windows=False)
    store = StatusStore()
    return screen, store, TerminalProgress(store, console=console, delay_s=delay_s, clock=lambda: 10.0)


@pytest.fixture(autouse=True)
def a_terminal_that_can_move_its_cursor(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")  # the tests may run in one that cannot


def test_auto_draws_nothing_on_a_terminal_that_cannot_move_its_cursor(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    assert wants_terminal(Config(progress="auto"), Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_terminal(Config(progress="auto"), Terminal())


def test_a_running_stage_shows_tasks_failures_and_rate():
    screen, store, progress = make()
    store.on_event(START)
    store.on_event(StageSubmitted(APP, 3, 0, "reduce_by_key at a.py:2", 8, (0,), time=0.0))
    for partition, failure in ((0, None), (1, None), (2, ExceptionFailure("ValueError", "", "", None))):
        metrics = TaskMetrics(input_rows=10_000)
        store.on_event(TaskEnd(APP, 3, 0, partition, 1, 0, "e", 1.0, 2.0, failure, True, metrics, time=2.0))
    progress.on_event(START)
    screen.wait_for("stage 3: reduce_by_key at a.py:2")
    screen.wait_for("2/8")
    screen.wait_for("1 failed")
    screen.wait_for("2.0 k rows/s")  # of the two that ended well
    progress.close()


def test_names_of_stages_and_jobs_do_not_steer_the_terminal():
    hostile = "map at \x1b]0;title\x07\x1b[2J\r\n\u202ea.py:2"
    screen, store, progress = make()
    begun = JobStart(APP, 0, hostile, (), (), {}, time=0.0)
    store.on_event(begun)
    store.on_event(StageSubmitted(APP, 3, 0, hostile, 8, (0,), time=0.0))
    progress.on_event(begun)
    screen.wait_for("\\x1b]0;")
    progress.on_event(JobEnd(APP, 0, "succeeded", time=120.0))
    screen.wait_for("after 2 min")
    progress.close()
    told = screen.getvalue()
    assert "\\x1b]0;title\\x07\\x1b[2J\\r\\n\\u202ea.py:2" in told
    for steering in ("\x1b]0;", "\x07", "\x1b[2J\r", "\u202e"):
        assert steering not in told


def test_the_lines_are_gone_when_the_job_is():
    screen, store, progress = make()
    store.on_event(StageSubmitted(APP, 3, 0, "a stage", 8, (0,), time=0.0))
    progress.on_event(START)
    screen.wait_for("a stage")
    progress.on_event(END)
    progress.close()
    assert screen.getvalue().rstrip().endswith("\x1b[2K"), "the last thing done is to erase a line"
    assert "\x1b[?25h" in screen.getvalue(), "the cursor is back"


def test_a_running_stage_tells_how_long_it_runs_and_has_to_go():
    screen, store, progress = make()
    store.on_event(START)
    store.on_event(StageSubmitted(APP, 3, 0, "a stage", 8, (0,), time=2.0))
    progress.on_event(START)
    screen.wait_for("0/8  8.0 s")
    for partition in range(2):
        store.on_event(TaskEnd(APP, 3, 0, partition, 1, 0, "e", 1.0, 2.0, None, True, TaskMetrics(), time=2.0))
    screen.wait_for("2/8  8.0 s, 24.0 s left")
    progress.close()


def test_a_job_of_minutes_leaves_one_line_and_a_shorter_one_none():
    screen, store, progress = make()
    stage = StageInfo(3, "map at a.py:1", StageKind.RESULT, 8, (), ("map",))
    for number, seconds, outcome in ((0, 125.0, "succeeded"), (1, 59.0, "succeeded"), (2, 3600.0, "failed")):
        progress.on_event(JobStart(APP, number, f"count at a.py:{number}", (stage,), (), {}, time=1.0))
        progress.on_event(JobEnd(APP, number, outcome, time=1.0 + seconds))
    progress.on_event(START)
    screen.wait_for("job 0 (count at a.py:0) succeeded after 2 min 5 s: 8 tasks in 1 stage")
    screen.wait_for("job 2 (count at a.py:2) failed after 1 h 0 min: 8 tasks in 1 stage")
    progress.close()
    assert "count at a.py:1" not in screen.getvalue()


def test_whoever_waited_for_a_job_prints_below_what_was_drawn():
    screen, store, progress = make()
    store.on_event(StageSubmitted(APP, 3, 0, "a stage", 8, (0,), time=0.0))
    progress.on_event(START)
    screen.wait_for("a stage")
    ended = threading.Timer(0.0, progress.on_event, [END])
    ended.start()
    progress.settle(0, timeout_s=20.0)
    assert "\x1b[?25h" in screen.getvalue(), "the lines are gone, and the cursor is back"
    ended.join()
    progress.close()


def test_and_waits_for_nothing_else():
    _, _, progress = make(delay_s=3600)
    progress.on_event(START)
    progress.settle(0, timeout_s=3600)  # nothing is drawn
    progress.close()
    progress.settle(0, timeout_s=3600)


def test_a_short_job_shows_nothing():
    screen, store, progress = make(delay_s=3600)
    for _ in range(3):
        progress.on_event(START)
        progress.on_event(END)
    progress.close()
    assert screen.getvalue() == ""


def test_no_thread_before_the_first_job_and_none_after_close():
    _, _, progress = make()

    def threads():
        return [thread for thread in threading.enumerate() if thread.name == "flowkit progress"]

    assert threads() == []
    progress.on_event(START)
    assert len(threads()) == 1
    progress.close()
    assert threads() == []


def test_a_terminal_that_breaks_ends_progress_and_nothing_else(caplog):
    _, _, progress = make()

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("no terminal any more")

    progress._console = Console(file=Gone(), force_terminal=True)
    progress.on_event(START)
    progress._thread.join(20)
    assert not progress._thread.is_alive()
    assert "progress cannot be drawn" in caplog.text
    progress.on_event(END)
    progress.on_event(START)
    progress.close()


def test_many_stages_take_few_lines():
    screen, store, progress = make()
    for stage in range(30):
        store.on_event(StageSubmitted(APP, stage, 0, "a stage", 8, (0,), time=0.0))
    progress.on_event(START)
    screen.wait_for("and 22 more")
    progress.close()


def test_progress_is_for_those_who_look():
    assert wants_terminal(Config(), Tty())
    assert not wants_terminal(Config(), io.StringIO())
    assert not wants_terminal(Config(progress="off"), Tty())
    assert wants_terminal(Config(progress="terminal"), io.StringIO())


def test_no_stream_a_closed_one_and_one_that_cannot_tell_are_no_terminals():
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed, object()):
        assert not wants_terminal(Config(progress="auto"), stream)
    assert not wants_terminal(Config(progress="terminal"), None)


def test_rich_is_not_loaded_before_something_is_drawn():
    code = "import sys, flowkit.observe.terminal; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
