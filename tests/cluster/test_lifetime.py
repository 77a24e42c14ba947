"""Clusters of Contexts that nobody closes, in real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def run(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=100, env=environment, check=False
    )


def test_a_context_bound_to_the_name_of_another_ends_the_processes_of_that(tmp_path: Path):
    done = run(
        tmp_path,
        """
        import psutil, threading
        import flowkit as fk

        def workers():
            return [each for each in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(each.cmdline())]

        if __name__ == "__main__":
            fc = fk.Context(workers=2, progress="off")
            first = workers()
            numbers = fc.range(10).map(lambda x: (x % 2, x)).reduce_by_key(max).cache()
            print(numbers.count())
            try:
                fc.range(3).map(lambda x: 1 / x).count()
            except ZeroDivisionError as error:
                print(type(error).__name__)
            fc = fk.Context(workers=2, progress="off")
            numbers = fc.range(10).map(lambda x: (x % 2, x)).reduce_by_key(max)
            gone, alive = psutil.wait_procs(first, timeout=20)
            print(numbers.count(), len(gone), len(alive), len(workers()), len(fk.Context.live()))
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["2", "ZeroDivisionError", "2 2 0 2 1"]


@pytest.mark.parametrize("processes", [True, False])
def test_contexts_that_are_open_when_the_interpreter_ends_are_closed_without_a_word(tmp_path: Path, processes):
    done = run(
        tmp_path,
        f"""
        import flowkit as fk

        if __name__ == "__main__":
            made = [fk.Context(workers=1, processes={processes}, progress="off") for _ in range(2)]
            fk.Context(workers=1, processes=False, progress="off")
            print([fc.range(4).count() for fc in made])
        """,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "[4, 4]\n")
