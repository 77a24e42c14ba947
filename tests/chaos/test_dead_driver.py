"""A driver that dies without a word: its lease runs out, its jobs and files go."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from distributed import LocalCluster

import flowkit as fk

pytestmark = pytest.mark.chaos

DRIVER = """
    import os, sys, time
    import flowkit as fk

    if __name__ == "__main__":
        fc = fk.Context(sys.argv[1], lease_s=2.0, progress="off")
        pairs = fc.range(1000, num_partitions=4).map(lambda i: (i % 10, i)).partition_by(2)
        assert pairs.count() == 1000
        print("ready", fc.app, flush=True)
        place = sys.argv[2]

        def slow(partition, rows):
            open(f"{place}/started-{partition}", "w").close()
            time.sleep(600)
            return rows

        pairs.map_partitions_with_index(slow).count()
"""


def wait_until(condition, what: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        threading.Event().wait(0.05)


def test_the_jobs_and_files_of_a_dead_driver_go_after_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    directory = tmp_path / "files"
    monkeypatch.setenv("FLOWKIT_LOCAL_DIRECTORY", str(directory))
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(DRIVER))
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        driver = subprocess.Popen(
            [sys.executable, str(script), cluster.scheduler_address, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert driver.stdout is not None
        word, app = driver.stdout.readline().split()
        assert word == "ready"
        wait_until(lambda: len(list(tmp_path.glob("started-*"))) == 2, "both slots being taken")
        assert (directory / app).is_dir()
        driver.kill()
        driver.wait()
        driver.stdout.close()
        with fk.Context(cluster, progress="off", kill_grace_s=1.0) as fc:
            assert fc.range(100, num_partitions=4).sum() == 4950, "the dead driver's slots are free again"
            wait_until(lambda: not (directory / app).exists(), "the removal of the dead driver's files")
        assert os.path.isdir(directory)
