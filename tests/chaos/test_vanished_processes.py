"""Processes that go away and nobody says how: no nanny watches them, or it speaks too late."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Scheduler, SpecCluster

import flowkit as fk
from flowkit.model import events as ev
from tests.chaos.conftest import Story, die

pytestmark = pytest.mark.chaos


class Supervisor:
    """Keeps a worker without a nanny alive: starts another one whenever it ends, as an init system or a container engine does."""

    def __init__(self, address: str, environment: dict[str, str]) -> None:
        self._command = [
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            address,
            "--no-nanny",
            "--nthreads",
            "1",
            "--no-dashboard",
        ]
        self._environment = environment
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._supervise, name="supervisor")
        self._thread.start()

    def _supervise(self) -> None:
        while not self._over.is_set():
            self._process = subprocess.Popen(self._command, env=self._environment, stderr=subprocess.DEVNULL)  # noqa: S603
            if self._over.is_set():
                self._process.kill()
            self._process.wait()

    def close(self) -> None:
        self._over.set()
        if self._process is not None:
            self._process.kill()
        self._thread.join()


@pytest.fixture
def supervised(tmp_path: Path, story: Story) -> Iterator[fk.Context]:
    """A Context on two workers that have no nannies."""
    scheduler = {"cls": Scheduler, "options": {"dashboard": False, "dashboard_address": "127.0.0.1:0", "port": 0}}
    environment = {**os.environ, "FLOWKIT_LOCAL_DIRECTORY": str(tmp_path / "files")}
    with SpecCluster(workers={}, scheduler=scheduler, silence_logs=50) as cluster:
        supervisors = [Supervisor(cluster.scheduler_address, environment) for _ in range(2)]
        try:
            with fk.Context(cluster, progress="off") as fc:
                fc.add_listener(story)
                yield fc
        finally:
            for each in supervisors:
                each.close()


def tries(story: Story) -> int:
    return len(story.of(ev.TaskStart))


def test_a_task_that_ends_its_process_unseen_fails_its_job(supervised: fk.Context, story: Story):
    with pytest.raises(fk.errors.ExecutorsLost, match="ran in 4 processes that went away, and of none is it known why") as caught:
        supervised.parallelize([0], 1).map(lambda _: os._exit(7)).collect()
    told = str(caught.value)
    assert [f"try {number} on tcp://" in told for number in range(1, 5)] == [True] * 4
    assert told.count("it has no nanny, which would know") == 4
    story.wait_until_jobs_ended()
    assert tries(story) == 4
    assert supervised.range(10).sum() == 45, "the next job is fine"


def test_one_process_that_vanishes_does_no_harm(supervised: fk.Context, story: Story, tmp_path: Path):
    def vanish_once(value: int) -> int:
        die(tmp_path / "died")
        return value

    assert supervised.range(4, num_partitions=4).map(vanish_once).sum() == 6
    story.wait_until_jobs_ended()
    assert not any(end.counted for end in story.failures())


def test_a_task_that_cuts_its_process_off_fails_its_job_though_its_nanny_hears_too_late(start, story: Story):
    fc = start(workers=2, max_task_failures=2)
    with pytest.raises(fk.errors.ExecutorsLost, match="task 0 of stage 0"):
        fc.parallelize([0], 1).map(lambda _: os.closerange(3, 4_096)).collect()
    story.wait_until_jobs_ended()
    assert tries(story) <= 3, "two that are explained, one that is not, at the most"
    assert fc.range(10).sum() == 45
