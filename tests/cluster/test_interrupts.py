"""Ctrl-C: the driver's to answer, whoever else hears it."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

import flowkit as fk
from flowkit.model import events as ev

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def fc():
    with fk.Context(workers=2, progress="off") as context:
        yield context


def pids(fc) -> set[int]:
    return set(fc.range(8, num_partitions=8).map(lambda _i: (time.sleep(0.05), os.getpid())[1]).collect())


def test_a_terminals_interrupt_does_not_reach_the_embedded_workers(fc):
    before = pids(fc)
    assert len(before) == 2
    for pid in before:
        os.kill(pid, signal.SIGINT)
    assert pids(fc) == before


def test_an_interrupted_action_cancels_its_job_and_frees_the_slots_within_a_second(fc):
    started = threading.Event()

    class Starts:
        def on_event(self, event):
            if isinstance(event, ev.TaskStart):
                started.set()

    def interrupt() -> None:
        assert started.wait(10)
        os.kill(os.getpid(), signal.SIGINT)

    def forever(_i):
        while True:
            time.sleep(0.005)

    listener = Starts()
    fc.add_listener(listener)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            fc.range(4, num_partitions=4).map(forever).collect()
        begin = time.monotonic()
        assert fc.range(10, num_partitions=2).sum() == 45
        assert time.monotonic() - begin < 1.0
    finally:
        thread.join()
        fc.remove_listener(listener)
    assert fc.jobs.active == ()


@pytest.mark.timeout(60)
def test_a_task_that_cannot_be_stopped_in_the_drivers_own_process_goes_on_and_the_history_says_so():
    stuck = threading.Event()
    size = 1 << 20  # more than a pipe holds: who writes it waits inside of the call that tells of its beginning

    class Hears:
        def on_event(self, event):
            if isinstance(event, ev.TaskStuck):
                stuck.set()

    with fk.Context(processes=False, workers=1, progress="off", kill_grace_s=0.2) as fc:
        fc.add_listener(Hears())
        begins, begun = os.pipe()
        job = fc.range(1).map(lambda _: os.write(begun, bytes(size))).count_async()
        left = size - len(os.read(begins, 1))
        try:
            job.cancel()
            assert stuck.wait(20)
            fc.wait_for_listeners()
            (told,) = [line.text for line in fc.history.lines() if "still runs" in line.text]
            assert "has no nanny that could replace the process, so it goes on) and still runs after 0.2 s" in told
        finally:
            while left:
                left -= len(os.read(begins, left))
    os.close(begins)
    os.close(begun)
