"""How a driver ends: its exit code is the script's, it says nothing of its own, and nothing of it is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

#: how long what is ending may take on a loaded machine
PATIENCE_S = 90.0
TRACEBACK = r"Traceback \(most recent call last\):\n(  .*\n)+"
#: Python's own words on semaphores of ``multiprocessing`` whose process was killed
_LEAKED = re.compile(r".*resource_tracker: There appear to be .*\n.*\n")

OPEN = """
    import asyncio, atexit, os, signal, sys, threading, time
    import flowkit as fk

    fc = fk.Context(processes={processes}, workers=1, progress="off")
    print(fc.range(4).sum(), flush=True)
"""


def run(
    tmp_path: Path, code: str, *, act: Callable[[subprocess.Popen[bytes]], None] | None = None, how: str = '"$0" "$1"'
) -> tuple[int, str, str]:
    """Exit code and output of a script in a session of its own; fails when it leaves processes, or files below its own directories."""
    script, out, err = tmp_path / "script.py", tmp_path / "out", tmp_path / "err"
    script.write_text(textwrap.dedent(code))
    directory = tmp_path / "flowkit"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "FLOWKIT_LOCAL_DIRECTORY": str(directory)}
    with out.open("w") as stdout, err.open("w") as stderr:
        driver = subprocess.Popen(
            ["bash", "-c", f"exec {how}", sys.executable, str(script)],
            stdout=stdout,
            stderr=stderr,
            env=environment,
            start_new_session=True,
        )
        try:
            if act is not None:
                deadline = time.monotonic() + PATIENCE_S
                while not out.read_text():
                    assert driver.poll() is None, err.read_text()
                    assert time.monotonic() < deadline
                    threading.Event().wait(0.05)
                act(driver)
            driver.wait(PATIENCE_S)
        finally:
            left = still_there(str(directory))
            for process in left:
                process.kill()
            driver.kill()
            driver.wait()
    assert not left
    return driver.returncode, out.read_text(), _LEAKED.sub("", err.read_text())


def still_there(directory: str) -> list[psutil.Process]:
    """Processes, of this one or not, that were started with a directory, once others had time to end."""
    found: list[psutil.Process] = []
    deadline = time.monotonic() + PATIENCE_S / 2
    while time.monotonic() < deadline:
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("FLOWKIT_LOCAL_DIRECTORY") == directory:
                    found.append(process)
            except psutil.Error:
                continue
        if not found:
            break
        threading.Event().wait(0.1)
    return found


ENDS = {
    "it exits with a number": ("sys.exit(3)", 3, ""),
    "it exits with a text": ("sys.exit('no input')", 1, "no input\n"),
    "it raises": ("1 / 0", 1, TRACEBACK + "ZeroDivisionError: division by zero\n"),
    "it raises inside of a block": ("with fc:\n    1 / 0", 1, TRACEBACK + "ZeroDivisionError: division by zero\n"),
    "it raises while a job of another thread runs": (
        "threading.Thread(target=lambda: fc.range(1).map(lambda _: time.sleep(0.5)).count()).start()\n1 / 0",
        1,
        TRACEBACK + "ZeroDivisionError: division by zero\n",
    ),
    "a handler of a signal exits": (
        """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
fc.range(1).map(lambda _: [time.sleep(0.01) for _ in range(60_000)]).count()
""",
        7,
        "",
    ),
    "a coroutine left it open": ("async def main(): return fc.range(3).count()\nassert asyncio.run(main()) == 3", 0, ""),
    "it leaves at once": ("os._exit(5)", 5, ""),
}


@pytest.mark.parametrize("when", ENDS)
def test_a_drivers_exit_is_its_scripts_when(tmp_path: Path, when: str) -> None:
    end, code, told = ENDS[when]
    found = run(tmp_path, textwrap.dedent(OPEN.format(processes=False)) + end)
    assert found[:2] == (code, "6\n"), found[2]
    assert re.fullmatch(told, found[2]), found[2]


JOB = textwrap.dedent(OPEN.format(processes=True)) + "fc.range(1).map(lambda _: time.sleep(600)).count()\n"


def again_and_again(driver: subprocess.Popen[bytes]) -> None:
    while driver.poll() is None:
        try:
            os.killpg(driver.pid, signal.SIGINT)
        except ProcessLookupError:
            return
        threading.Event().wait(0.3)


SIGNALS = {
    "a Ctrl-C": (lambda driver: os.killpg(driver.pid, signal.SIGINT), -signal.SIGINT, TRACEBACK + "KeyboardInterrupt\n"),
    "one Ctrl-C after the other": (again_and_again, -signal.SIGINT, None),
    "a SIGTERM": (lambda driver: driver.terminate(), -signal.SIGTERM, ""),
}


@pytest.mark.parametrize("by", SIGNALS)
def test_a_driver_in_a_job_is_ended_and_leaves_no_process_by(tmp_path: Path, by: str) -> None:
    act, code, told = SIGNALS[by]
    found = run(tmp_path, JOB, act=act)
    assert found[:2] == (code, "6\n"), found[2]
    assert told is None or re.fullmatch(told, found[2]), found[2]


def test_functions_registered_at_exit_use_a_context_that_is_open_and_make_none(tmp_path: Path) -> None:
    code = """
        atexit.register(lambda: print(fc.range(5).sum(), flush=True))

        @atexit.register
        def begin():
            for options in ({"processes": False}, {"workers": 1}):
                try:
                    fk.Context(progress="off", **options)
                except fk.errors.StartupError as error:
                    print(error, flush=True)
    """
    refused = "the interpreter is ending, and a Context cannot begin any more: its main thread is over. Make the Context before; one that is "
    refused += "open can be used by functions registered with atexit after it was made\n"
    found = run(tmp_path, textwrap.dedent(OPEN.format(processes=False)) + textwrap.dedent(code))
    assert found == (0, "6\n" + 2 * refused + "10\n", "")


def test_a_driver_needs_no_standard_streams(tmp_path: Path) -> None:
    written = tmp_path / "written"
    code = f"""
        import flowkit as fk
        fc = fk.Context(processes=False, workers=1)
        fc.range(3).foreach(print)
        open({str(written)!r}, "w").write(str(fc.range(4).sum()))
    """
    assert run(tmp_path, code, how='"$0" "$1" >&- 2>&-')[0] == 0
    assert written.read_text() == "6"


def test_a_reader_of_standard_output_that_leaves_is_the_scripts_own_error_and_the_only_one(tmp_path: Path) -> None:
    code = textwrap.dedent(OPEN.format(processes=False)) + "for x in fc.range(50_000).collect():\n    print(x)\n"
    found = run(tmp_path, code, how='bash -c \'"$0" "$1" | head -1; exit ${PIPESTATUS[0]}\' "$0" "$1"')
    assert found[:2] == (1, "6\n"), found[2]
    assert re.fullmatch(TRACEBACK + "BrokenPipeError: .*\n(Exception ignored .*\nBrokenPipeError: .*\n)?", found[2]), found[2]
