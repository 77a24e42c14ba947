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
