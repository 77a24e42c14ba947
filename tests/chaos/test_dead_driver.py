"""A driver that dies without a word: its lease runs out, its jobs and files go."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
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
        files = directory / f"flowkit-{os.getuid()}" / app
        assert files.is_dir()
        driver.kill()
        driver.wait()
        driver.stdout.close()
        with fk.Context(cluster, progress="off", kill_grace_s=1.0) as fc:
            assert fc.range(100, num_partitions=4).sum() == 4950, "the dead driver's slots are free again"
            wait_until(lambda: not files.exists(), "the removal of the dead driver's files")
        assert os.path.isdir(directory)


EMBEDDED = """
    import sys, threading
    import flowkit as fk
    from flowkit import StorageLevel

    if __name__ == "__main__":
        fc = fk.Context(workers=2, progress="off", lease_s=3600.0, block_directories=sys.argv[2])
        rows = fc.parallelize([f"row {i}" * 20 for i in range(5_000)], 4)
        held = [rows.persist(StorageLevel.OFF_HEAP), rows.map(len).persist(StorageLevel.DISK_ONLY)]
        assert [each.count() for each in held] == [5_000] * 2
        assert rows.map(lambda row: (len(row), 1)).reduce_by_key(lambda a, b: a + b, 2).count() > 0
        fc.add_file(__file__)
        workers = fc.range(2, 2).map(lambda _: __import__("os").getpid()).collect()
        print("ready", fc.app, *set(workers), flush=True)
        fc.range(2, 2).foreach(lambda _: threading.Event().wait(600))
"""


def files_below(*directories: Path) -> list[str]:
    walked = (found for each in directories for found in os.walk(each))  # what goes meanwhile is no error to it
    return sorted(os.path.join(directory, name) for directory, _, names in walked for name in names if name != "token")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=lambda how: how.name)
def test_the_next_session_removes_what_a_killed_driver_and_its_cluster_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how):
    directory, volume = tmp_path / "files", tmp_path / "volume"
    monkeypatch.setenv("FLOWKIT_LOCAL_DIRECTORY", str(directory))
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(EMBEDDED))
    with subprocess.Popen([sys.executable, str(script), "", str(volume)], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        word, app, *workers = driver.stdout.readline().split()
        assert word == "ready"
        shared = [Path("/dev/shm") / f"flowkit-{os.getuid()}-{(directory / f'flowkit-{os.getuid()}' / 'token').read_text()}"]
        assert all(files_below(each) for each in (directory, volume, *shared))
        driver.send_signal(how)
    wait_until(lambda: not any(psutil.pid_exists(int(each)) for each in workers), "the end of its workers")
    with fk.Context(workers=1, progress="off", lease_s=3600.0, block_directories=str(volume)) as fc:
        left = lambda: [each for each in files_below(directory, volume, *shared) if fc.app not in each and not held_slots(each)]
        wait_until(lambda: not left(), f"the removal of what {app} left, with a lease of an hour")
    assert files_below(directory, volume, *shared) == []


def held_slots(path: str) -> bool:
    """Whether it is the record of a worker that lives."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return path.endswith(".slots")
    return False
