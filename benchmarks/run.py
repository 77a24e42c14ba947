"""flowkit beside its peers: same machine, same data, same run, answers compared, ratios written down.

    python benchmarks/run.py [--only group,sort] [--engines flowkit,pyspark] [--before REVISION] [--repeat 5] [--scale 1.0]

With ``--before``, flowkit as it was at a revision takes its turns beside the present one: what a change costs is seen in one run.
Each peer lives in an environment of its own (``.envs/<peer>``), made at first use; one that cannot be had is named and
left out. For each workload every engine opens a session, warms up once, and then the engines take turns, so that a
machine that slows down slows all of them. A full run writes benchmarks/RESULTS.md; a partial one only prints.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import report
from text import text_file
from workloads import BY_NAME, WORKLOADS, Sizes, Workload

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DATA = ROOT / ".benchdata"
ENVIRONMENTS = ROOT / ".envs"

#: A session that has not answered by then is given up; the slowest peer's slowest workload takes about a minute.
ANSWER_LIMIT_S = 600


@dataclass(frozen=True)
class Engine:
    """Something that runs workloads: a script, and what must be installed for it (nothing: this very Python)."""

    name: str
    requirements: tuple[str, ...] = ()
    needs: str = ""
    #: where its flowkit is, if it uses one
    root: Path | None = None

    @property
    def script(self) -> Path:
        script = "flowkit" if self.root is not None else self.name
        return HERE / "engines" / (f"on_{script}.py" if (HERE / "engines" / f"on_{script}.py").exists() else f"{script}.py")


ENGINES = (
    Engine("flowkit", root=ROOT),
    Engine("inlined"),
    Engine("by_hand"),
    Engine("dask", ("dask[bag]", "distributed")),
    Engine("ray", ("ray>=2.40",)),
    Engine("pyspark", ("pyspark>=4,<5", "psutil"), needs="java"),
)


BEFORE = "before"


class Unavailable(Exception):
    """An engine that cannot be had here, with the reason."""


def flowkit_at(revision: str) -> Engine:
    """flowkit as it was: the files of a revision, unpacked beside the peers."""
    found = subprocess.run(["git", "rev-parse", "--short", revision], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise SystemExit(f"--before {revision}: {found.stderr.strip()}")
    home = ENVIRONMENTS / f"flowkit-{found.stdout.strip()}"
    if not home.exists():
        home.mkdir(parents=True)
        archive = subprocess.run(["git", "archive", revision, "flowkit"], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", str(home)], input=archive.stdout, check=True)
    return Engine(BEFORE, root=home)


def python_for(engine: Engine) -> Path:
    """The interpreter of an engine's environment, made when it is not there yet."""
    if not engine.requirements:
        return Path(sys.executable)
    if engine.needs and shutil.which(engine.needs) is None:
        raise Unavailable(f"there is no {engine.needs} on this machine")
    home = ENVIRONMENTS / engine.name
    stamp = home / ".installed"
    wanted = "\n".join(engine.requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {', '.join(engine.requirements)} into {home.relative_to(ROOT)}", flush=True)
        for command in (
            [sys.executable, "-m", "venv", str(home)],
            [
                str(home / "bin" / "python"),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                *engine.requirements,
            ],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                lines = done.stderr.strip().splitlines() or ["no message"]
                raise Unavailable(f"could not be installed: {lines[-1]}")
        stamp.write_text(wanted)
    return home / "bin" / "python"


# -- sessions ----------------------------------------------------------------------------------------------------------


class Session:
    """An engine's process, asked over its standard input."""

    def __init__(self, engine: Engine, python: Path, cores: int, scale: float, text: Path) -> None:
        command = [str(python), str(engine.script), "--cores", str(cores), "--scale", str(scale), "--text", str(text)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE)] if engine.root is None else [str(HERE), str(engine.root)]),
        }
        self.engine = engine
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- closed with the session
        started = time.perf_counter()
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        try:
            hello = self._answer()
        except Unavailable:
            self.close()
            raise
        self.first_result_s = time.perf_counter() - started
        self.first_answer = hello["first"]
        self.versions: dict[str, str] = hello["versions"]
        self.workloads: list[str] = hello["workloads"]

    def run(self, workload: str) -> dict[str, Any]:
        """Seconds and answer of one repetition, or an ``error``."""
        assert self._process.stdin is not None
        self._process.stdin.write(workload + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        with _limited(self._process, ANSWER_LIMIT_S):
            for line in self._process.stdout:
                if line.startswith("@@ "):
                    return dict(json.loads(line[3:]))
        self._errors.seek(0)
        last = [line for line in self._errors.read().splitlines() if line.strip()][-1:] or ["no message"]
        raise Unavailable(f"ended with exit code {self._process.wait()}: {last[0][:300]}")

    def close(self) -> None:
        """End the session; its process group after a while, should it not go by itself."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
        self._errors.close()


@contextlib.contextmanager
def _limited(process: subprocess.Popen[str], limit_s: float) -> Iterator[None]:
    """Kill a process (and its group) that has not answered in time, which ends the reading of its output."""
    import threading

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)

    timer = threading.Timer(limit_s, kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


# -- measuring ---------------------------------------------------------------------------------------------------------


@dataclass
class Measured:
    """One engine at one workload."""

    seconds: list[float] = field(default_factory=list)
    answer: Any = None
    error: str = ""


@dataclass(frozen=True)
class Bench:
    """What is fixed for a whole run."""

    engines: Sequence[tuple[Engine, Path]]
    cores: int
    scale: float
    repeat: int
    text: Path
    versions: dict[str, str] = field(default_factory=dict)

    def open(self, engine: Engine, python: Path) -> Session:
        session = Session(engine, python, self.cores, self.scale, self.text)
        if engine.name != BEFORE:
            self.versions.update(session.versions)
        return session

    def startup(self) -> dict[str, Measured]:
        """A process, a session, a first result: the whole of it, again and again."""
        results = {engine.name: Measured() for engine, _ in self.engines}
        for _ in range(self.repeat):
            for engine, python in self.engines:
                if results[engine.name].error:
                    continue
                try:
                    session = self.open(engine, python)
                except Unavailable as error:
                    results[engine.name].error = str(error)
                    continue
                results[engine.name].seconds.append(session.first_result_s)
                results[engine.name].answer = session.first_answer
                session.close()
        return results

    def measure(self, workload: Workload) -> dict[str, Measured]:
        """Warm up every engine that knows the workload, then let them take turns."""
        results: dict[str, Measured] = {}
        with contextlib.ExitStack() as stack:
            sessions: list[Session] = []
            for engine, python in self.engines:
                try:
                    session = self.open(engine, python)
                except Unavailable as error:
                    results[engine.name] = Measured(error=str(error))
                    continue
                stack.callback(session.close)
                if workload.name in session.workloads:
                    sessions.append(session)
            for turn in range(-1, self.repeat):
                for session in sessions:
                    measured = results.setdefault(session.engine.name, Measured())
                    if not measured.error:
                        self._turn(session, workload, measured, warm_up=turn < 0)
        return results

    def _turn(self, session: Session, workload: Workload, measured: Measured, *, warm_up: bool) -> None:
        try:
            answer = session.run(workload.name)
        except (Unavailable, OSError) as error:
            measured.error = str(error)
            return
        if "error" in answer:
            measured.error = answer["error"]
        elif warm_up:
            measured.answer = answer["answer"]
        elif answer["answer"] != measured.answer:
            measured.error = "answers differ between repetitions"
        else:
            measured.seconds.append(answer["seconds"])


def disagreement(results: dict[str, Measured]) -> str:
    """Which engines gave another answer than the first one that has any; empty when all agree."""
    answers = {name: each.answer for name, each in results.items() if not each.error}
    if not answers:
        return ""
    reference, expected = next(iter(answers.items()))
    others = [name for name, answer in answers.items() if answer != expected]
    return f"{', '.join(others)} disagree with {reference}" if others else ""


def core_time() -> list[dict[str, float]]:
    """What the scheduler core alone costs; see core_time.py."""
    print("core: the scheduler core alone", flush=True)
    command = [sys.executable, str(HERE / "core_time.py"), "--json"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def main() -> int:
    """Measure, print, and write the table when the run was a full one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default=",".join(BY_NAME), help=f"workloads, of: {', '.join(BY_NAME)}")
    parser.add_argument("--engines", default=",".join(each.name for each in ENGINES), help="engines, of: %(default)s")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions, of which the median counts (default: %(default)s)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="size of everything against the published table (default: %(default)s)"
    )
    parser.add_argument("--before", metavar="REVISION", help="flowkit as it was then takes its turns too")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 2, help="task slots of every engine (default: all)")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md although the run is not a full one")
    arguments = parser.parse_args()
    names, wanted = arguments.only.split(","), arguments.engines.split(",")
    if unknown := [*(set(names) - set(BY_NAME)), *(set(wanted) - {each.name for each in ENGINES})]:
        parser.error(f"unknown: {', '.join(unknown)}")

    engines, missing = [], {}
    if arguments.before:
        before = flowkit_at(arguments.before)
        engines.append((before, python_for(before)))
    for engine in ENGINES:
        if engine.name in wanted:
            try:
                engines.append((engine, python_for(engine)))
            except Unavailable as error:
                missing[engine.name] = str(error)
                print(f"without {engine.name}: {error}", flush=True)

    sizes = Sizes(arguments.scale)
    bench = Bench(engines, arguments.cores, arguments.scale, arguments.repeat, text_file(DATA, sizes.text_bytes))
    rows, failed = [], False
    for workload in (each for each in WORKLOADS if each.name in names):
        print(f"{workload.name}: {workload.title}", flush=True)
        results = bench.startup() if workload.name == "startup" else bench.measure(workload)
        complaint = disagreement(results)
        failed = failed or bool(complaint) or bool(results.get("flowkit", Measured()).error)
        rows.append(
            report.Row(
                workload.name, workload.title, {name: (each.seconds, each.error) for name, each in results.items()}, complaint
            )
        )
        print(report.lines(rows[-1]), flush=True)

    full = set(names) == set(BY_NAME) and set(wanted) == {each.name for each in ENGINES} and arguments.scale == 1.0
    if full or arguments.write:
        command = " ".join(["python benchmarks/run.py", *sys.argv[1:]])
        head = report.Head(command, arguments.cores, arguments.scale, arguments.repeat, bench.versions, missing)
        notes = (HERE / "NOTES.md").read_text(encoding="utf-8")
        (HERE / "RESULTS.md").write_text(report.page(head, rows, core_time()) + "\n" + notes, encoding="utf-8")
        print(f"written: {(HERE / 'RESULTS.md').relative_to(ROOT)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
