"""What a script prints on standard error: one traceback of its own lines when it fails, nothing when it ends well, closed or not."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import flowkit

pytestmark = pytest.mark.cluster

PACKAGE = str(Path(flowkit.__file__).parent)
HEAD = "import sys, threading, time\nimport flowkit as fk\n\n\ndef bad(x):\n    return 1 // (x - 2)\n\n\ndef main():\n"
TAIL = "\n\nif __name__ == '__main__':\n    main()\n"


def script(body: str, directory: Path) -> Path:
    path = directory / "script.py"
    path.write_text(HEAD + "".join(f"    {line}\n" for line in body.split("\n")) + TAIL)
    return path


def ran(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=120, check=False)


ENDS = {
    "after a job": "global fc\nfc = fk.Context({how})\nprint(fc.range(3).sum())",
    "without a job": "global fc\nfc = fk.Context({how})\nprint(3)",
    "with RDDs, a shuffle and a broadcast alive": (
        "global fc, kept\nfc = fk.Context({how})\n"
        "pairs = fc.range(100).map(lambda x: (x % 3, x)).reduce_by_key(max).cache()\n"
        "kept = pairs, fc.broadcast(bytes(100_000))\nprint(pairs.count())"
    ),
    "after an error that was caught": (
        "global fc, error\nfc = fk.Context({how})\n"
        "try:\n    fc.range(3).map(bad).collect()\nexcept ZeroDivisionError as caught:\n    error = caught\nprint(3)"
    ),
    "in a thread": (
        "def run():\n    global fc\n    fc = fk.Context({how})\n    print(fc.range(3).sum())\n"
        "thread = threading.Thread(target=run)\nthread.start()\nthread.join()"
    ),
    "with a thread that goes on": (
        "global fc\nfc = fk.Context({how})\nbegun = threading.Event()\n"
        "def run():\n    begun.set()\n    print(fc.range(3).sum())\n"
        "threading.Thread(target=run).start()\nbegun.wait()"
    ),
    "while a job runs for a daemon thread and for a future": (
        "global fc\nfc = fk.Context({how}, workers=2)\ngo = threading.Event()\n"
        "class Starts:\n    def on_event(self, event):\n        if type(event).__name__ == 'TaskStart':\n            go.set()\n"
        "fc.add_listener(Starts())\n"
        "future = fc.range(1).map(lambda x: time.sleep(60)).collect_async()\n"
        "threading.Thread(target=lambda: fc.range(1).map(lambda x: time.sleep(60)).collect(), daemon=True).start()\n"
        "go.wait(30)\nprint(3)"
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_context_of_threads_that_nobody_closed_ends_quietly(tmp_path: Path, name: str) -> None:
    done = ran(script(ENDS[name].format(how="processes=False, progress='off'"), tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["after a job", "while a job runs for a daemon thread and for a future"])
def test_a_context_of_processes_that_nobody_closed_ends_quietly(tmp_path: Path, name: str) -> None:
    done = ran(script(ENDS[name].format(how="progress='off'"), tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def test_a_command_line_program_ends_quietly() -> None:
    done = ran("-c", "import flowkit as fk\nfc = fk.Context(processes=False)\nprint(fc.range(3).sum())")
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ("fc.range(3).map(bad).collect()", "ZeroDivisionError"),
        ("fc.range(3).reduce_by_key(max).collect()", "TypeError: reduce_by_key at"),
        ("fc.range(3).map(lambda x: sys.exit(3)).count()", "flowkit.errors.JobFailed: SystemExit: 3"),
        ("fc.range(3).map(3)", "flowkit.errors.WrongType: fn = 3"),
        ("threading.Thread(target=lambda: fc.range(3).map(bad).collect()).start()", "ZeroDivisionError"),
    ],
)
def test_a_script_that_fails_prints_its_own_lines_alone(tmp_path: Path, action: str, error: str) -> None:
    done = ran(script(f"global fc\nfc = fk.Context(processes=False, progress='off')\n{action}", tmp_path))
    assert error in done.stderr
    assert PACKAGE not in done.stderr
    assert "distributed" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert action in done.stderr
    assert done.returncode == (0 if "Thread" in action else 1)


def test_a_script_that_is_interrupted_prints_its_own_lines_alone(tmp_path: Path) -> None:
    body = (
        "fc = fk.Context(processes=False, progress='off')\n"
        "class Starts:\n    def on_event(self, event):\n        if type(event).__name__ == 'TaskStart':\n            print('begun', flush=True)\n"
        "fc.add_listener(Starts())\n"
        "fc.range(1).map(lambda x: time.sleep(0.01 * 6000)).count()"
    )
    path = script(body, tmp_path)
    with subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert told.rstrip().endswith("KeyboardInterrupt")
    assert "fc.range(1).map(" in told
    assert PACKAGE not in told
    assert "threading.py" not in told


def test_a_script_that_asks_for_it_sees_all_frames(tmp_path: Path) -> None:
    body = "fc = fk.Context(processes=False, progress='off', full_tracebacks=True)\nfc.range(3).map(bad).collect()"
    assert f"{PACKAGE}/submission.py" in ran(script(body, tmp_path)).stderr
