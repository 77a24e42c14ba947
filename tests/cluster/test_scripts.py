"""Scripts without a guard, run by Python and by ``flowkit run``: workers do not run them, and what they define reaches executors."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SCRIPT = """
    from __future__ import annotations

    import collections, dataclasses, enum, functools, os, sys, typing
    import flowkit as fk
    from beside import double

    print("runs as", __name__, os.path.isabs(__file__), sys.argv[1:])
    FACTOR = 3

    @dataclasses.dataclass(frozen=True, order=True)
    class Point:
        x: int
        y: int = 0

        @functools.cached_property
        def far(self) -> bool:
            return self.x > 1

    class Colour(enum.Enum):
        RED = 1

    Pair = collections.namedtuple("Pair", "a b")
    UserId = typing.NewType("UserId", int)

    class Mine(Exception):
        def __init__(self, code):
            super().__init__(code)
            self.code = code

    @functools.lru_cache
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    @functools.singledispatch
    def kind(value):
        return "other"

    @kind.register
    def _(value: Point):
        return "point"

    def fail(x):
        if x == 2:
            raise Mine(7)
        return x

    fc = fk.Context.get_or_create() if "get" in sys.argv else fk.Context(workers=2, progress="off")
    numbers = fc.range(4, num_partitions=2)
    points = fc.parallelize([Point(x % 2, x) for x in range(4)], 2)
    print(numbers.map(lambda x: double(x) * FACTOR).collect())
    print(sorted(points.map(lambda p: (Point(p.x), 1)).reduce_by_key(lambda a, b: a + b).collect()))
    print([type(p) is Point for p in points.collect()], points.sort_by(lambda p: p).first(), points.map(lambda p: p.far).sum())
    print(numbers.map(lambda x: Colour.RED).first() is Colour.RED, numbers.map(lambda x: Pair(x, UserId(x))).first())
    print(numbers.map(fibonacci).sum(), numbers.map(lambda x: kind(Point(x)) + kind(x)).first())
    seen = fc.accumulator(Point(0), merge=lambda one, other: Point(one.x + other.x))
    numbers.foreach(lambda x: seen.add(Point(x)))
    print(seen.value)
    print(numbers.barrier().map_partitions(lambda rows: fk.TaskContext.get().all_gather(Point(sum(rows)))).collect()[:2])
    try:
        numbers.map(fail).count()
    except Mine as error:
        print("code", error.code)
    pids = set(numbers.map(lambda x: os.getpid()).collect())
    print(os.getpid() in pids)
    fc.close()
"""

TOLD = """\
[0, 6, 12, 18]
[(Point(x=0, y=0), 2), (Point(x=1, y=0), 2)]
[True, True, True, True] Point(x=0, y=0) 0
True Pair(a=0, b=0)
4 pointother
Point(x=6, y=0)
[Point(x=1, y=0), Point(x=5, y=0)]
code 7
False
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("def double(x):\n    return 2 * x\n")
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=100, cwd=cwd, env=environment, check=False
    )


def test_a_script_without_a_guard_runs_as_it_is(script: Path):
    done = run("script.py", "a", cwd=script.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"runs as __main__ True ['a']\n{TOLD}"


def test_and_so_does_the_command(script: Path):
    done = run("-m", "flowkit", "run", "--workers", "2", "--quiet", "script.py", "get", cwd=script.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"runs as __main__ True ['get']\n{TOLD}"


def test_a_worker_that_is_replaced_does_not_run_it_either(tmp_path: Path):
    (tmp_path / "script.py").write_text(
        textwrap.dedent("""
            import os, signal
            import flowkit as fk

            print("begins")
            fc = fk.Context(workers=1, progress="off")
            (pid,) = fc.range(1).map(lambda _: os.getpid()).collect()
            os.kill(pid, signal.SIGKILL)
            (other,) = fc.range(1).map(lambda _: os.getpid()).collect()
            print(other != pid)
        """)
    )
    done = run("script.py", cwd=tmp_path)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "begins\nTrue\n")


def test_processes_of_the_users_own_import_it_as_ever_and_are_told_when_it_makes_a_context(tmp_path: Path):
    (tmp_path / "script.py").write_text(
        textwrap.dedent("""
            import multiprocessing
            import flowkit as fk

            def square(x):
                return x * x

            fc = fk.Context(workers=1, progress="off")
            child = multiprocessing.get_context("spawn").Process(target=square, args=(2,))
            child.start()
            child.join()
            fc.close()
            print(child.exitcode)
        """)
    )
    done = run("script.py", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert done.stderr.count('if __name__ == "__main__":') == 1
