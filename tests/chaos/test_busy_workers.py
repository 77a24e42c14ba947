"""Processes whose interpreter's lock one call of C holds: they work and say nothing, and are neither dead nor in anybody's way."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from operator import add
from pathlib import Path

import psutil
import pytest

import flowkit as fk
from flowkit.model import events as ev

pytestmark = pytest.mark.chaos

SETTINGS = {"heartbeat_s": 0.3, "executor_timeout_s": 2.0, "kill_grace_s": 1.0}
LONG_ENOUGH = 10**12  # hours
TIMEOUT_S = 120.0


def call_of_c(started: Path, seconds: float):
    """A function that holds its interpreter's lock, at work, until it has used so much processor time."""

    def hold(x):
        started.write_text(str(os.getpid()))
        began, count = time.process_time(), 2_000_000
        while True:  # how long one call takes is found out by short ones
            sum(range(count))
            took = time.process_time() - began
            if took > 0.1:
                break
            began, count = time.process_time(), 2 * count
        return sum(range(int(count * seconds / took))) and x

    return hold


def for_ever(started: Path):
    def hold(x):
        started.write_text(str(os.getpid()))
        return sum(range(LONG_ENOUGH)) and x

    return hold


def wait_for(path: Path) -> int:
    """The process that wrote into a file."""
    limit = time.monotonic() + TIMEOUT_S
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < limit, f"nobody wrote {path.name}"
        time.sleep(0.01)
    return int(path.read_text())


class Background(threading.Thread):
    """An action on a thread of its own."""

    def __init__(self, action) -> None:
        super().__init__(daemon=True)
        self._action = action
        self.result: object = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._action()
        except Exception as error:
            self.result = error

    def wait(self) -> object:
        self.join(TIMEOUT_S)
        assert not self.is_alive(), "it is not over"
        return self.result


def small(fc) -> dict[int, int]:
    return fc.range(100, num_partitions=4).map(lambda i: (i % 5, i)).reduce_by_key(add).collect_as_map()


SMALL = {k: sum(range(k, 100, 5)) for k in range(5)}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_call_that_takes_many_time_outs_is_one_attempt_on_one_executor(start, story, tmp_path: Path, workers):
    fc = start(workers=workers, **SETTINGS)
    assert fc.parallelize([7], 1).map(call_of_c(tmp_path / "started", seconds=5.0)).collect() == [7]
    story.wait_until_jobs_ended()
    assert len(story.of(ev.TaskStart)) == len(story.of(ev.TaskEnd)) == 1
    assert not story.of(ev.ExecutorRemoved)


def test_an_interactive_job_beside_the_call_waits_for_nobody(start, story, tmp_path: Path):
    fc = start(workers=2, executor_timeout_s=60.0)
    assert small(fc) == SMALL
    long = Background(fc.parallelize([1], 1).map(for_ever(tmp_path / "started")).collect)
    wait_for(tmp_path / "started")
    began = time.monotonic()
    for _ in range(5):
        assert small(fc) == SMALL
    assert time.monotonic() - began < 30, "not as long as the call"
    assert long.is_alive()
    assert not story.of(ev.ExecutorRemoved)


def test_all_workers_may_be_busy_at_once(start, story, tmp_path: Path):
    fc = start(workers=2, **SETTINGS)
    call = call_of_c(tmp_path / "started", seconds=3.0)
    long = Background(fc.parallelize([1, 2], 2).map(call).collect)
    wait_for(tmp_path / "started")
    assert small(fc) == SMALL
    assert long.wait() == [1, 2]
    assert not story.of(ev.ExecutorRemoved)


def test_a_cancelled_call_costs_its_process_after_the_grace_time_and_nobody_elses_task(start, story, tmp_path: Path):
    fc = start(workers=2, **{**SETTINGS, "executor_timeout_s": 60.0})
    long = Background(fc.parallelize([1], 1).map(for_ever(tmp_path / "started")).collect)
    pid = wait_for(tmp_path / "started")
    fc.jobs.cancel_all()
    assert isinstance(long.wait(), fk.errors.JobCancelled)
    assert small(fc) == SMALL
    story.wait_for(lambda story: story.of(ev.ExecutorRemoved), "the end of the process", TIMEOUT_S)
    (removed,) = story.of(ev.ExecutorRemoved)
    assert "was to stop" in removed.reason
    assert "kill_grace_s = 1" in removed.reason
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=TIMEOUT_S)
    story.wait_for(lambda story: any(each.time > removed.time for each in story.of(ev.ExecutorAdded)), "another", TIMEOUT_S)
    assert small(fc) == SMALL
    assert not [end for end in story.failures() if end.counted]


def test_a_call_that_is_stopped_in_the_middle_is_found_out(start, story, tmp_path: Path):
    fc = start(workers=2, **SETTINGS)
    long = Background(fc.parallelize([1], 1).map(_once_for_ever(tmp_path)).collect)
    pid = wait_for(tmp_path / "started")
    time.sleep(3 * SETTINGS["executor_timeout_s"])  # it is silent for so long, and lives
    assert not story.of(ev.ExecutorRemoved)
    os.kill(pid, signal.SIGSTOP)
    assert long.wait() == [1]
    assert "its process is stopped" in story.of(ev.ExecutorRemoved)[0].reason


def test_a_call_that_hangs_without_work_is_found_out(start, story, tmp_path: Path):
    fc = start(workers=2, **SETTINGS)
    started = tmp_path / "started"

    def hang(x):
        if started.exists():
            return x
        started.write_text(str(os.getpid()))
        ctypes.PyDLL(None).sleep(100_000)  # which keeps the interpreter's lock
        return None

    assert fc.parallelize([1], 1).map(hang).collect() == [1]
    assert "has not worked for" in story.of(ev.ExecutorRemoved)[0].reason


def _once_for_ever(tmp_path: Path):
    started, hold = tmp_path / "started", for_ever(tmp_path / "started")
    return lambda x: x if started.exists() else hold(x)


def test_a_driver_that_is_busy_itself_loses_no_executor(start, story):
    """The scheduler of an embedded cluster shares its interpreter: what it did not hear was said all the same."""
    fc = start(workers=2, **SETTINGS)
    assert small(fc) == SMALL
    began, count = time.monotonic(), 10_000_000
    while time.monotonic() - began < 2 * SETTINGS["executor_timeout_s"]:
        began, count = time.monotonic(), 2 * count
        sum(range(count))
    assert small(fc) == SMALL
    assert not story.of(ev.ExecutorRemoved)
