"""Functions of tasks may start processes of their own; they end with the executor at the latest."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil
import pytest

import flowkit as fk

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SCRIPT = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import flowkit as fk

class Squared:
    def __init__(self, n):
        self.n = n

def square(n):
    return n * n

def squared(n):
    return Squared(n * n)

def pool(n):
    with multiprocessing.Pool(1) as processes:
        return processes.map(square, [n, n + 1])

def futures(n):
    with ProcessPoolExecutor(1) as processes:
        return [each.n for each in processes.map(squared, [n])] + [processes.submit(lambda: n).result()]

def main():
    with fk.Context(workers=1, progress="off") as fc:
        print(fc.parallelize([2], 1).map(pool).collect(), fc.parallelize([3], 1).map(futures).collect())

if __name__ == "__main__":
    main()
"""


def test_functions_of_the_drivers_script_run_in_processes_of_a_task(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("[[4, 9]] [[9, 3]]\n", "")


def start_processes_and_stay(path: str) -> None:
    children = [multiprocessing.Process(target=time.sleep, args=(600,)), multiprocessing.Process(target=time.sleep, args=(600,))]
    for child in children:
        child.start()
    with ProcessPoolExecutor(1) as pool:
        pool.submit(os.getpid).result()
        program = subprocess.Popen(["sleep", "600"])
        pids = [
            *(child.pid for child in children),
            *(child.pid for child in psutil.Process().children(recursive=True)),
            program.pid,
        ]
        Path(path).with_suffix(".new").write_text(" ".join(map(str, {*pids, os.getpid()})))
        os.replace(Path(path).with_suffix(".new"), path)
        while True:
            time.sleep(0.01)


def gone(pids: list[int], timeout_s: float = 15.0) -> list[int]:
    """Those that are still there after a while; of what nobody waits for a zombie may stay."""
    deadline = time.monotonic() + timeout_s
    left = pids
    while left and time.monotonic() < deadline:
        threading.Event().wait(0.05)
        left = [pid for pid in left if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    return left


@pytest.mark.parametrize("ending", ["it is killed", "its context is closed"])
def test_processes_of_a_task_end_with_their_executor_when(ending: str, tmp_path: Path) -> None:
    written = tmp_path / "pids"
    with fk.Context(workers=2, progress="off", max_task_failures=1) as fc:
        future = fc.parallelize([str(written)], 1).map(start_processes_and_stay).count_async()
        deadline = time.monotonic() + 60
        while not written.exists():
            assert time.monotonic() < deadline
            assert not future.done()
            threading.Event().wait(0.05)
        pids = [int(pid) for pid in written.read_text().split()]
        assert len(pids) >= 5
        if ending == "it is killed":
            future.cancel()
            (worker,) = [pid for pid in pids if psutil.Process(pid).ppid() == os.getpid()]
            os.kill(worker, signal.SIGKILL)
            assert gone(pids) == []
    assert gone(pids) == []


def test_where_a_worker_may_have_no_children_the_error_says_how_to_allow_it() -> None:
    def refuse(_: int) -> None:
        raise AssertionError("daemonic processes are not allowed to have children")

    with fk.Context(processes=False, progress="off") as fc, pytest.raises(AssertionError) as caught:
        fc.range(1).map(refuse).collect()
    assert any("distributed.worker.daemon=False" in note for note in caught.value.__notes__)
