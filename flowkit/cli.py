"""The command line: ``flowkit run`` for scripted pipelines, ``replay`` for saved failures, ``simulate`` for other clusters, ``doctor`` for
what ails an installation.

Exit codes: 0 all went well; 1 the script raised, or doctor found something that must be mended; 2 the command line is wrong; 3 the
cluster cannot be had; 4 a setting is wrong; 130 interrupted. A script's own ``sys.exit`` code is passed on.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import platform
import runpy
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkit import __version__
from flowkit.config import Config
from flowkit.errors import ClusterError, ConfigError, InvalidArgument, JobFailed, NotReplayable
from flowkit.visible import in_one_line, visible

if TYPE_CHECKING:
    from flowkit.context import Context
    from flowkit.observe.applications import LoggedApplication
    from flowkit.observe.tables import Table

MOST_SIMULATED = 100_000
"""Executors, or slots of one, in a simulation: more take longer than anybody waits."""

COMMANDS = ("run", "replay", "simulate", "jobs", "doctor")
OTHER_COMMANDS = {
    "submit": "run",
    "execute": "run",
    "debug": "replay",
    "history": "jobs",
    "log": "jobs",
    "logs": "jobs",
    "list": "jobs",
    "apps": "jobs",
    "check": "doctor",
    "what-if": "simulate",
}
"""What commands are called elsewhere."""

OK, FAILED, USAGE, NO_CLUSTER, BAD_SETTING, INTERRUPTED = 0, 1, 2, 3, 4, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    parser = _parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and not given[0].startswith("-") and given[0] not in COMMANDS:
        return _complain(_no_command(given[0]), USAGE)
    chosen = parser.parse_args(given)
    if chosen.command is None:
        parser.print_help()
        return USAGE
    code: int = chosen.run(chosen)
    return code


def _no_command(name: str) -> str:
    if name.endswith(".py"):
        return f"there is no command {name!r}; flowkit run {name} runs a script"
    near = difflib.get_close_matches(OTHER_COMMANDS.get(name.lower(), name.lower()), COMMANDS, n=1, cutoff=0.65)
    hint = f"did you mean {near[0]}?" if near else f"those there are: {', '.join(COMMANDS)}"
    return f"there is no command {name!r}; {hint}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flowkit", description="Lazy RDDs on Dask workers.")
    parser.add_argument("--version", action="version", version=f"flowkit {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands")
    run = commands.add_parser(
        "run",
        help="run a script; Context.get_or_create() inside it takes these options",
        description="Run a script. `Context.get_or_create()` inside it makes a Context as these options say.",
    )
    run.add_argument("--cluster", metavar="ADDRESS", help="of a Dask scheduler; without it, a cluster in this machine's cores")
    run.add_argument("--workers", type=int, metavar="N", help="processes of that cluster (default: one per core)")
    run.add_argument("--name", help="for people (default: the script's)")
    run.add_argument("--conf", action="append", default=[], metavar="KEY=VALUE", help="a setting; may be given several times")
    run.add_argument("--event-log", metavar="DIRECTORY", help="keep every event there")
    run.add_argument("--quiet", action="store_true", help="no progress")
    run.add_argument("--traceback", action="store_true", help="whole tracebacks instead of one line")
    run.add_argument("script", help="a Python file")
    run.add_argument("arguments", nargs=argparse.REMAINDER, help="its own arguments")
    run.set_defaults(run=_run)
    replay = commands.add_parser(
        "replay",
        help="compute a failed partition that was saved, here, and debug where it fails",
        description="Compute a failed partition that `error.replay.save` wrote. It runs code of whoever wrote the file.",
    )
    replay.add_argument("capsule", help="the file")
    replay.add_argument("--show", action="store_true", help="only tell what the file says of itself; runs nothing")
    replay.add_argument("--no-debug", action="store_true", help="only run it and tell how it ended")
    replay.set_defaults(run=_replay)
    simulate = commands.add_parser(
        "simulate",
        help="how long recorded jobs would have taken on another cluster",
        description="Run the jobs of an event log on a simulated cluster. Their tasks take what they took; the scheduler is the real one.",
    )
    simulate.add_argument("log", help="an application's event log: its directory, or one file of it")
    simulate.add_argument("--executors", type=_count, nargs="+", metavar="N", default=[], help="how many; several are compared")
    simulate.add_argument("--slots", type=_count, metavar="N", help="of each (default: as recorded)")
    simulate.add_argument("--policy", help="fifo, fair, capacity, priority, or what is installed (default: fifo)")
    simulate.add_argument(
        "--conf", action="append", default=[], metavar="KEY=VALUE", help="a setting; may be given several times"
    )
    simulate.add_argument("--jobs", action="store_true", help="tell of each job too")
    simulate.set_defaults(run=_simulate)
    jobs = commands.add_parser(
        "jobs",
        help="the jobs of an event log, or the applications of a directory of logs",
        description="List the jobs of an application's event log, or the applications with logs in a directory. A job without an end was "
        "lost: its driver was gone before it was over.",
    )
    jobs.add_argument("log", help="a directory of event logs, or one of them, or a file of one")
    jobs.set_defaults(run=_jobs)
    doctor = commands.add_parser(
        "doctor", help="check this installation and say how to mend it", description="Check an installation."
    )
    doctor.add_argument("--cluster", metavar="ADDRESS", help="check this one too")
    doctor.add_argument("--bundle", metavar="FILE", help="write what was found there as JSON, to be sent along with a report")
    doctor.set_defaults(run=_doctor)
    return parser


# -- jobs ----------------------------------------------------------------------------------------------------------------


def _jobs(chosen: argparse.Namespace) -> int:
    from flowkit.observe.applications import logged_applications
    from flowkit.observe.event_log import log_files, replay
    from flowkit.observe.metrics import counted, format_seconds
    from flowkit.observe.status import StatusStore
    from flowkit.observe.tables import Table

    found = StatusStore()
    try:
        if (
            Path(chosen.log).is_dir()
            and not log_files(Path(chosen.log))
            and (applications := list(logged_applications(chosen.log)))
        ):
            print(_applications(applications, chosen.log))
            return OK
        replay(chosen.log, found)
    except InvalidArgument as error:
        return _complain(str(error), USAGE)
    rows = [
        (
            job.job,
            job.outcome if job.ended_at else "lost",
            format_seconds(job.ended_at - job.started_at) if job.ended_at else "",
            job.name,
            job.reason.partition("\n")[0],
        )
        for job in found.jobs()
    ]
    print(Table(counted(len(rows), "job"), ("job", "state", "time", "name", "reason"), rows).without_empty(4))
    return OK


def _applications(found: Sequence[LoggedApplication], directory: str) -> Table:
    """The first page of a directory of logs."""
    from flowkit.observe.metrics import counted, format_seconds
    from flowkit.observe.tables import Table

    rows = [
        (
            each.app,
            each.name,
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.started_at)) if each.started_at else "",
            format_seconds(each.ended_at - each.started_at) if each.ended_at else "",
            each.jobs,
            each.failed or "",
            f"{each.state}{', with ' + counted(each.open, 'job') + ' that did not end' if each.open else ''}",
        )
        for each in found
    ]
    title = f"{counted(len(rows), 'application')}; flowkit jobs {directory}/APPLICATION lists the jobs of one"
    return Table(title, ("application", "name", "started", "time", "jobs", "failed", "state"), rows).without_empty(3, 5)


def _settings(chosen: argparse.Namespace) -> dict[str, str]:
    """What ``--conf`` says, as variables would."""
    known = set(Config.names())
    settings: dict[str, str] = {}
    for each in chosen.conf:
        key, equals, value = each.partition("=")
        if not equals:
            raise ConfigError(f"--conf {each}: must be KEY=VALUE", setting=each, value=None)
        if key not in known:
            Config().with_settings(**{key: value})  # which says what is known
        settings[f"FLOWKIT_{key.upper()}"] = value
    return settings


# -- run -----------------------------------------------------------------------------------------------------------------


def _run(chosen: argparse.Namespace) -> int:
    from flowkit.context import Context, observe_contexts

    script = Path(chosen.script)
    if not script.is_file():
        return _complain(f"there is no script {script}", USAGE)
    try:
        settings = _settings(chosen)
        if chosen.event_log:
            settings["FLOWKIT_EVENT_LOG"] = chosen.event_log
        if chosen.quiet:
            settings["FLOWKIT_PROGRESS"] = "off"
        import dask.config

        # The command line says what variables would, and its values come last.
        config = Config.from_surroundings({**os.environ, **settings}, dask.config.get("flowkit", {}))
    except ConfigError as error:
        return _complain(str(error), BAD_SETTING)
    Context.prepare(cluster=chosen.cluster, workers=chosen.workers, name=chosen.name or script.stem, config=config)
    observe_contexts(lambda context: _look_whether_heeded(context, config, chosen))
    # As `python script.py` has it: its directory first, for modules beside it, and `__file__` whole.
    sys.argv = [str(script), *chosen.arguments]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        runpy.run_path(str(script.absolute()), run_name="__main__")
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except Exception as error:
        if chosen.traceback:
            traceback.print_exc()
        else:
            _complain(_in_one_line(error), FAILED)
        return _code_of(error)
    finally:
        for context in Context.live():
            context.close()
    return OK


def _look_whether_heeded(context: Context, config: Config, chosen: argparse.Namespace) -> None:
    """Say that a Context is not as the command line has it: the script made it by itself."""
    options = ("cluster", "workers", "name", "conf", "event_log", "quiet")
    given = [f"--{name.replace('_', '-')}" for name in options if getattr(chosen, name)]
    if given and context._asked["config"] is not config:
        _complain(f"{context.made_at}: Context() does not heed {', '.join(given)}; Context.get_or_create() does", OK)


def _replay(chosen: argparse.Namespace) -> int:
    from flowkit.rdd.capsules import open_capsule

    try:
        capsule = open_capsule(chosen.capsule)
        print(capsule)
        if not chosen.show:
            print(capsule(debug=not chosen.no_debug))
    except InvalidArgument as error:
        return _complain(str(error), USAGE)
    except NotReplayable as error:
        return _complain(str(error), FAILED)
    return OK


# -- simulate ------------------------------------------------------------------------------------------------------------


def _count(text: str) -> int:
    number = int(text) if text.strip().isdecimal() else 0
    if not 1 <= number <= MOST_SIMULATED:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number from 1 to {MOST_SIMULATED:,}")
    return number


def _simulate(chosen: argparse.Namespace) -> int:
    from flowkit.cluster.extensions import with_policies
    from flowkit.observe.metrics import counted, format_seconds
    from flowkit.scheduling.policies.built_in import check_policies
    from flowkit.simulation.what_if import Recording, simulate

    try:
        recording = Recording.read(chosen.log)
        config = Config.from_environment(_settings(chosen))
        if chosen.policy is not None:
            config = config.with_settings(scheduling_policy=chosen.policy)
        policy = config.scheduling_policy
        check_policies(config)
        config = with_policies(config)
    except InvalidArgument as error:
        return _complain(str(error), USAGE)
    except ConfigError as error:
        return _complain(str(error), BAD_SETTING)
    there = max(1, len(recording.slots))
    work = format_seconds(recording.work_s)
    told = f"{counted(len(recording.jobs), 'job')}, {counted(len(recording.times), 'task')} of {work} together"
    sizes = sorted(set(recording.slots))
    slots = counted(sizes[0], "slot") if len(sizes) == 1 else f"{'/'.join(map(str, sizes)) or '?'} slots"
    print(f"recorded   {counted(there, 'executor')} of {slots}: {format_seconds(recording.took_s)} ({told})")
    for count in dict.fromkeys([there, *chosen.executors]):
        try:
            found = simulate(recording, count, slots=chosen.slots, config=config)
        except JobFailed as error:
            return _complain(str(error), FAILED)
        busy = recording.work_s / (found.took_s * found.executors * found.slots) if found.took_s else 0.0
        print(
            f"simulated  {counted(found.executors, 'executor')} of {counted(found.slots, 'slot')}, {policy}: "
            f"{format_seconds(found.took_s)}, slots busy {busy:.0%} of the time"
        )
        if chosen.jobs:
            for each in recording.jobs:
                before, after = format_seconds(each.ended_at - each.started_at), format_seconds(found.jobs[each.job])
                print(in_one_line(f"             job {each.job}: {after}, recorded {before}  {each.name}"))
    return OK


def _in_one_line(error: BaseException) -> str:
    lines = [line for line in (str(error).strip().splitlines() or [""]) if line.strip()]
    told = f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")
    where = next((note.strip().splitlines()[0] for note in getattr(error, "__notes__", ()) if note.strip()), "")
    return f"{told}{f' ({where})' if where else ''} [--traceback shows more]"


def _code_of(error: BaseException) -> int:
    match error:
        case ConfigError():
            return BAD_SETTING
        case ClusterError():
            return NO_CLUSTER
        case _:
            return FAILED


def _complain(text: str, code: int) -> int:
    print(f"flowkit: {visible(text)}", file=sys.stderr)
    return code


# -- doctor --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``state``: ok, warning, failure."""

    what: str
    state: str
    found: str
    mend: str = ""


def _doctor(chosen: argparse.Namespace) -> int:
    checks: list[Callable[[], Iterator[Finding]]] = [_versions, _directory, _hashing, _memory, _limits, _ports]
    if chosen.cluster:
        checks.append(lambda: _cluster(chosen.cluster))
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except Exception as error:
            name = getattr(check, "__name__", "cluster").strip("_")
            findings.append(
                Finding(name, "failure", f"{type(error).__name__}: {error}", "this check itself failed: please report it")
            )
    signs = {"ok": "ok     ", "warning": "warning", "failure": "FAILURE"}
    for finding in findings:
        print(in_one_line(f"{signs[finding.state]}  {finding.what}: {finding.found}"))
        if finding.mend:
            print(visible(f"         {finding.mend}"))
    if chosen.bundle:
        Path(chosen.bundle).write_text(json.dumps([asdict(each) for each in findings], indent=2) + "\n", encoding="utf-8")
        print(in_one_line(f"written: {chosen.bundle}"))
    return FAILED if any(finding.state == "failure" for finding in findings) else OK


def _versions() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield Finding("flowkit", "ok", __version__)
    for package in ("dask", "distributed", "pyarrow", "cloudpickle", "msgspec", "numpy", "toolz"):
        try:
            yield Finding(package, "ok", metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Finding(package, "failure", "is not installed", f"pip install {package}")
    try:
        yield Finding("cytoolz", "ok", metadata.version("cytoolz"))
    except metadata.PackageNotFoundError:
        yield Finding("cytoolz", "warning", "is not installed", "pip install 'flowkit[fast]' makes some pipelines faster")


def _directory() -> Iterator[Finding]:
    from flowkit.storage import private_files
    from flowkit.storage.host_directory import HostDirectory

    config = Config.from_environment(os.environ)
    directory = HostDirectory.open(config.local_directory or None)
    free = shutil.disk_usage(directory.base).free
    probe = directory.base / f".doctor-{os.getpid()}"
    private_files.write_file(probe, b"x" * 4096)
    probe.unlink()
    if private_files.others_may_replace(directory.base.parent):
        yield Finding(
            "files",
            "warning",
            f"every account of this machine may replace what lies in {directory.base.parent}",
            f"chmod +t {directory.base.parent}, or set local_directory (FLOWKIT_LOCAL_DIRECTORY) to another place",
        )
    state = "ok" if free > 5 << 30 else "warning"
    mend = (
        "" if state == "ok" else "shuffles and spills may fill it; set local_directory (FLOWKIT_LOCAL_DIRECTORY) to a larger disk"
    )
    yield Finding("files", state, f"{directory.base} can be written, {free / (1 << 30):.1f} GiB free", mend)


_HASHES = """
import datetime, decimal, uuid
from flowkit.lineage.hashing import stable_hash
keys = ["text", b"bytes", 7, 1.5, None, (1, "a"), frozenset({1, "b"}), decimal.Decimal(3), datetime.date(2026, 1, 1), uuid.UUID(int=5)]
print([stable_hash(key) for key in keys])
"""


def _hashing() -> Iterator[Finding]:
    found = {
        subprocess.run(  # noqa: S603 - this very Python
            [sys.executable, "-c", _HASHES],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    if len(found) == 1:
        yield Finding("hashing", "ok", "processes with different hash seeds place keys alike")
    else:
        yield Finding("hashing", "failure", "processes with different hash seeds place keys apart", "please report it")


def _memory() -> Iterator[Finding]:
    import psutil

    from flowkit.cluster.dask_internals import memory_thresholds

    total, cores = psutil.virtual_memory().total, os.cpu_count() or 1
    each = total // cores
    state = "ok" if each > 1 << 30 else "warning"
    mend = "" if state == "ok" else "give Context() fewer workers, or a memory_limit of your own"
    yield Finding("memory", state, f"{total / (1 << 30):.1f} GiB for {cores} cores, {each / (1 << 30):.1f} GiB a worker", mend)
    pause, terminate = memory_thresholds()
    told = f"Dask pauses a worker at {pause} of its memory and ends it at {terminate}"
    if terminate is False:
        yield Finding("memory limits", "warning", told, "without `terminate` a worker that leaks takes the machine with it")
    elif isinstance(pause, float) and pause < 0.7:
        yield Finding("memory limits", "warning", told, "flowkit uses up to 0.6 of what is free at start: set pause to 0.8")
    else:
        yield Finding("memory limits", "ok", told)


def _limits() -> Iterator[Finding]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    state = "ok" if soft >= 1024 else "warning"
    yield Finding("open files", state, f"{soft} at most ({hard} with ulimit -n)", "" if state == "ok" else "ulimit -n 4096")


def _ports() -> Iterator[Finding]:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname(), timeout=5):
            yield Finding("ports", "ok", "processes of this machine reach one another")


def _cluster(address: str) -> Iterator[Finding]:
    from flowkit.context import Context

    try:
        with Context(address, name="doctor", progress="off", no_executor_timeout_s=15.0) as context:
            slots = context.default_parallelism
            answer = (
                context.range(1_000, num_partitions=max(2, slots)).map(lambda n: (n % 7, 1)).reduce_by_key(lambda a, b: a + b)
            )
            right = sum(answer.collect_as_map().values()) == 1_000
            yield Finding("cluster", "ok" if right else "failure", f"{address}: {slots} slots, a job with a shuffle ran")
    except (ClusterError, InvalidArgument, OSError, TimeoutError) as error:
        yield Finding(
            "cluster", "failure", f"{address}: {error}", "is the address right, and is flowkit installed on its workers?"
        )


def entry_point() -> Any:
    """For the installed command."""
    sys.exit(main())
