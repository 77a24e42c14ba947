"""Forks of a driver and of an executor: none hangs, none harms its parent, and what cannot work there says so at once."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import flowkit as fk

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    # From Python 3.12 on it says so of each fork; a driver has threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

#: a fork that takes so long hangs; a loaded machine is no reason to
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def fc() -> Iterator[fk.Context]:
    with fk.Context(workers=1, progress="off") as context:
        yield context


def in_fork(call: Callable[[], object]) -> str:
    """What a call gives, or raises, in a fork of this process: its ``repr``."""
    reads, writes = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            try:
                told = repr(call())
            except BaseException as error:
                told = f"{type(error).__name__}: {error}"
            os.write(writes, told.encode())
        finally:
            os._exit(0)
    os.close(writes)
    try:
        if not select.select([reads], [], [], PATIENCE_S)[0]:
            os.kill(pid, signal.SIGKILL)
            pytest.fail("the fork hangs")
        return os.read(reads, 1 << 16).decode()
    finally:
        os.close(reads)
        os.waitpid(pid, 0)


USES = {
    "an action": lambda fc, rdd: rdd.sum(),
    "an action of a cached one": lambda fc, rdd: rdd.cache().count(),
    "a new RDD": lambda fc, rdd: fc.range(3, num_partitions=1).count(),
    "a future": lambda fc, rdd: rdd.count_async().result(),
    "rows one by one": lambda fc, rdd: list(rdd.to_local_iterator()),
    "a broadcast": lambda fc, rdd: fc.broadcast(bytes(100_000)),
    "its slots": lambda fc, rdd: fc.default_parallelism,
    "its client": lambda fc, rdd: fc.client,
    "scaling": lambda fc, rdd: fc.scale(2),
    "a reconnection": lambda fc, rdd: fc.reconnect(),
    "listeners": lambda fc, rdd: fc.wait_for_listeners(),
}


@pytest.mark.parametrize("use", USES)
def test_in_a_fork_a_parents_context_refuses_and_says_what_to_do(fc: fk.Context, use: str) -> None:
    rdd = fc.range(4)
    told = in_fork(lambda: USES[use](fc, rdd))
    assert told.startswith("DriverOnly: "), told
    assert f"a fork of process {os.getpid()}" in told
    assert "Make a Context in the fork, or run jobs where it was made" in told
    assert rdd.sum() == 6


HARMLESS = {
    "it is closed": (lambda fc, rdd: fc.close(), "None"),
    "its block is left": (lambda fc, rdd: fc.__exit__(None, None, None), "None"),
    "rows are dropped": (lambda fc, rdd: rdd.unpersist(blocking=True).num_partitions > 0, "True"),
    "jobs are cancelled": (lambda fc, rdd: fc.jobs.cancel_all(), "None"),
    "it is listed": (lambda fc, rdd: fk.Context.live(), "()"),
    "what it did is looked at": (lambda fc, rdd: fc.status.summary().jobs > 0, "True"),
    "it is shown": (lambda fc, rdd: f"of process {os.getppid()}; this is a fork of it" in repr(fc), "True"),
}


@pytest.mark.parametrize("when", HARMLESS)
def test_in_a_fork_it_does_no_harm_when(fc: fk.Context, when: str) -> None:
    rdd = fc.range(4).map(lambda x: x).cache()
    assert rdd.sum() == 6
    use, expected = HARMLESS[when]
    assert in_fork(lambda: use(fc, rdd)) == expected
    assert rdd.sum() == 6
    assert in_fork(lambda: None) == "None"


def test_a_future_of_the_parents_fails_in_a_fork_and_not_in_the_parent(fc: fk.Context, tmp_path: Path) -> None:
    path = tmp_path / "goes on"

    def wait(_: int) -> None:
        while not path.exists():
            time.sleep(0.01)

    future = fc.range(1).map(wait).count_async()
    assert in_fork(future.result).startswith("DriverOnly: ")
    path.touch()
    assert future.result(PATIENCE_S) == 1


def test_garbage_of_a_fork_releases_nothing_of_its_parents(fc: fk.Context) -> None:
    held = {"pairs": fc.range(10).map(lambda x: (x % 2, x)).reduce_by_key(max), "table": fc.broadcast(bytes(100_000))}
    pairs, table = held["pairs"], held["table"]
    assert (pairs.count(), fc.range(2).map(lambda _: len(table.value)).sum()) == (2, 200_000)
    before = fc.status.summary().recomputed_tasks

    def forget() -> int:
        nonlocal pairs, table
        del pairs, table
        held.clear()
        return gc.collect() >= 0

    assert in_fork(forget) == "True"
    assert (pairs.map(lambda pair: pair[1]).sum(), fc.range(2).map(lambda _: len(table.value)).sum()) == (17, 200_000)
    assert fc.status.summary().recomputed_tasks == before


def test_a_fork_has_contexts_of_its_own(fc: fk.Context) -> None:
    def own() -> tuple[int, int]:
        with fk.Context(processes=False, workers=1, progress="off") as mine:
            return mine.range(5).map(lambda x: x + 1).sum(), len(fk.Context.live())

    assert in_fork(own) == "(15, 1)"
    assert fc.range(4).sum() == 6


def test_forks_made_while_jobs_run_on_other_threads_end_and_so_do_the_jobs(fc: fk.Context) -> None:
    over, wrong = threading.Event(), []

    def work() -> None:
        while not over.is_set():
            if (found := fc.range(10).sum()) != 45:
                wrong.append(found)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            told = in_fork(lambda: (fc.status.summary() and fc.history.lines() is not None, len(fc.jobs.active)))
            assert told == "(True, 0)"
    finally:
        over.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert not wrong
    assert fc.range(10).sum() == 45


# -- what an interpreter does at its end: scripts


def run(tmp_path: Path, code: str) -> tuple[int, str, str]:
    """Exit code and what was written. Into files, not pipes: those end with the last process that holds them, Python's helpers too."""
    script, out, err = tmp_path / "script.py", tmp_path / "out", tmp_path / "err"
    script.write_text(textwrap.dedent(code))
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONWARNINGS": "ignore::DeprecationWarning",
        "FLOWKIT_LOCAL_DIRECTORY": str(tmp_path / "flowkit"),
    }
    with out.open("w") as stdout, err.open("w") as stderr:
        done = subprocess.run(
            [sys.executable, str(script)], stdout=stdout, stderr=stderr, timeout=120, env=environment, check=False
        )
    return done.returncode, out.read_text(), err.read_text()


def test_a_fork_that_ends_as_interpreters_do_closes_and_deletes_nothing(tmp_path: Path) -> None:
    code, out, err = run(
        tmp_path,
        """
        import os
        import flowkit as fk

        with fk.Context(workers=1, progress="off") as fc:
            directory, numbers = fc.client.cluster.scheduler.local_directory, fc.range(4)
            failing = os.fork()
            if not failing:
                raise ValueError("of the fork")
            print(os.waitstatus_to_exitcode(os.waitpid(failing, 0)[1]), os.path.isdir(directory), numbers.sum(), flush=True)
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                print(os.path.isdir(directory), numbers.sum(), flush=True)
        print("the end of the", "parent" if pid else "fork", flush=True)
        """,
    )
    told = "1 True 6\nthe end of the fork\nTrue 6\nthe end of the parent\n"
    assert (code, out) == (0, told), err
    assert err.count("Traceback") == 1
    assert err.endswith("ValueError: of the fork\n")


def test_a_fork_that_outlives_its_killed_driver_does_not_keep_the_drivers_workers_alive(tmp_path: Path) -> None:
    _, out, _ = run(
        tmp_path,
        """
        import json, os, signal, time
        import flowkit as fk

        fc = fk.Context(workers=1, progress="off")
        (worker,) = fc.range(1).map(lambda _: os.getpid()).collect()
        fork = os.fork()
        if not fork:
            time.sleep(600)
        print(json.dumps([worker, fork]), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    worker, fork = json.loads(out)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while psutil.pid_exists(worker) and psutil.Process(worker).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the worker lives as long as the fork"
            threading.Event().wait(0.05)
        assert psutil.pid_exists(fork)
    finally:
        os.kill(fork, signal.SIGKILL)


# -- in tasks


def code_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def returns(x: int) -> int:
    pid = os.fork()
    return code_of(pid) if pid else -1


def exits(x: int) -> int:
    pid = os.fork()
    if not pid:
        sys.exit(4)
    return code_of(pid)


def raises(x: int) -> int:
    pid = os.fork()
    if not pid:
        raise ValueError("of the fork")
    return code_of(pid)


def catches(x: int) -> int:
    pid = os.fork()
    if not pid:
        try:
            raise ValueError
        except ValueError:
            pass
        os._exit(9)
    return code_of(pid)


def starts_a_program(x: int) -> int:
    pid = os.fork()
    if not pid:
        os.execvp("true", ["true"])
    return code_of(pid)


def square(x: int) -> int:
    return x * x


def has_a_pool(x: int) -> int:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return sum(pool.map(square, [3, 4]))


ENDS = {returns: 1, exits: 4, raises: 1, catches: 9, starts_a_program: 0, has_a_pool: 25}


@pytest.mark.parametrize("function", ENDS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("processes", [True, False], ids=["in a process of its own", "in the driver"])
def test_a_fork_of_a_task_ends_where_its_function_does(
    fc: fk.Context, threads: fk.Context, function: Callable[[int], int], processes: bool
) -> None:
    chosen = fc if processes else threads
    pairs = chosen.range(2, num_partitions=1).map(function).map(lambda code: (code, 1)).reduce_by_key(lambda x, y: x + y)
    assert pairs.collect() == [(ENDS[function], 2)]
    assert chosen.range(4).sum() == 6


@pytest.fixture(scope="module")
def threads() -> Iterator[fk.Context]:
    with fk.Context(processes=False, workers=1, progress="off") as context:
        yield context


def test_a_fork_ends_though_another_thread_was_being_interrupted(tmp_path: Path) -> None:
    code, out, err = run(
        tmp_path,
        """
        import ctypes, os, threading
        import flowkit as fk

        class Interruption(Exception):
            pass

        def waits():
            try:
                there.set()
                over.acquire()  # nothing is delivered to it meanwhile
            except Interruption:
                pass

        def forks(x):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(Interruption))
            pid = os.fork()
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else a_call()

        def a_call():
            return -1

        there, over = threading.Event(), threading.Lock()
        over.acquire()
        waiting = threading.Thread(target=waits, daemon=True)
        waiting.start()
        there.wait()
        ident = waiting.ident
        with fk.Context(processes=False, workers=1, progress="off") as fc:
            print(fc.range(1).map(forks).collect())
        over.release()
        waiting.join()
        """,
    )
    assert (code, out) == (0, "[1]\n")
    assert "returned from it and is ended here" in err


def test_a_fork_that_exits_or_returns_leaves_its_parents_file_whole(fc: fk.Context, tmp_path: Path) -> None:
    def forks_once(x: int) -> int:
        if x in {1_000, 2_000} and not os.fork():
            if x == 1_000:
                sys.exit(0)
            return -1
        return x

    fc.range(5_000, num_partitions=1).map(forks_once).save_as_text(str(tmp_path / "there"))
    assert fc.text_file(str(tmp_path / "there")).map(int).collect() == list(range(5_000))


def test_a_fork_of_a_listener_ends_with_the_call(threads: fk.Context, capfd: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []

    class Forks:
        def on_event(self, event: object) -> None:
            if type(event).__name__ == "JobEnd":
                pid = os.fork()
                if pid:
                    codes.append(code_of(pid))

    listener = Forks()
    threads.add_listener(listener, queue="forks")
    try:
        assert threads.range(4).sum() == 6
        threads.wait_for_listeners(PATIENCE_S)
    finally:
        threads.remove_listener(listener)
    assert codes == [1]
    assert "returned from it and is ended here" in capfd.readouterr().err


# -- children of multiprocessing


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_ends_though_its_context_is_open(tmp_path: Path, method: str) -> None:
    code, out, err = run(
        tmp_path,
        f"""
        import multiprocessing
        import flowkit as fk

        def work():
            global mine
            mine = fk.Context(workers=1, progress="off")
            print(mine.range(4).sum(), flush=True)

        if __name__ == "__main__":
            child = multiprocessing.get_context("{method}").Process(target=work)
            child.start()
            child.join()
            print(child.exitcode)
        """,
    )
    assert (code, out, err) == (0, "6\n0\n", "")


def test_a_daemonic_child_is_told_how_to_have_a_context(tmp_path: Path) -> None:
    code, out, err = run(
        tmp_path,
        """
        import multiprocessing
        import flowkit as fk

        def work(processes):
            try:
                with fk.Context(processes=processes, workers=1, progress="off") as mine:
                    return mine.range(4).sum()
            except fk.errors.StartupError as error:
                return str(error)

        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(1) as pool:
                refused, worked = pool.map(work, [True, False])
            print("processes=False" in refused, "ProcessPoolExecutor" in refused, worked)
        """,
    )
    assert (code, out, err) == (0, "True True 6\n", "")
