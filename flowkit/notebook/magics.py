"""``%flowkit`` and ``%%flowkit``: sessions, jobs and RDDs by short commands, with help and completion everywhere.

Runs in the kernel's main thread. A command is a function registered under its name; other parts add theirs with ``command``.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any, Final, NoReturn

from flowkit.config import Config
from flowkit.context import Context
from flowkit.errors import FlowkitError
from flowkit.jobs import GROUP
from flowkit.model.storage_level import StorageLevel
from flowkit.notebook.cells import QUIET
from flowkit.observe.metrics import format_bytes, format_seconds
from flowkit.observe.tables import Table
from flowkit.rdd.base import Base
from flowkit.rdd.capsules import open_capsule
from flowkit.rdd.replay import Replay
from flowkit.rdd.replayed import debugged

Run = Callable[[Any, argparse.Namespace], Any]


class _Parser(argparse.ArgumentParser):
    """Complains in one line instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise _usage(f"{message} (%{self.prog} --help tells more)")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise _Shown

    def print_help(self, file: Any = None) -> None:
        print(self.format_help())  # noqa: T201 - that is what was asked for


class _Shown(Exception):
    """Help was shown; nothing else is to be done."""


def _usage(message: str) -> Exception:
    from IPython.core.error import UsageError

    return UsageError(message)


@dataclass(frozen=True)
class Command:
    """One subcommand."""

    name: str
    run: Run
    parser: _Parser
    #: what it takes first, for completion: "rdd", "job" or nothing
    takes: str


_commands: dict[str, Command] = {}


def command(name: str, *arguments: tuple[tuple[str, ...], dict[str, Any]], takes: str = "") -> Callable[[Run], Run]:
    """Register a subcommand of ``%flowkit``; its docstring is its help, ``arguments`` are those of ``add_argument``."""

    def add(run: Run) -> Run:
        parser = _Parser(prog=f"flowkit {name}", description=(run.__doc__ or "").strip(), add_help=True)
        for names, options in arguments:
            parser.add_argument(*names, **options)
        _commands[name] = Command(name, run, parser, takes)
        return run

    return add


def argument(*names: str, **options: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """One argument of a command, as for ``ArgumentParser.add_argument``."""
    return names, options


# -- sessions ------------------------------------------------------------------------------------------------------------


def context_of(shell: Any) -> Context:
    """The Context that commands are about: ``fc`` where the user has one of that name, else the newest."""
    named = shell.user_ns.get("fc")
    live = Context.live()
    if isinstance(named, Context) and named in live:
        return named
    if not live:
        raise _usage("there is no Context; %flowkit start makes one")
    return live[-1]


@command(
    "start",
    argument("address", nargs="?", help="of a Dask scheduler; without, a cluster in this machine"),
    argument("--workers", type=int, help="worker processes"),
    argument("--memory", help="of each worker, as 2GiB"),
    argument("--conf", action="append", default=[], metavar="KEY=VALUE", help="a setting; may be given several times"),
    argument("--name", help="of the session, for people"),
)
def start(shell: Any, options: argparse.Namespace) -> Any:
    """Make a Context and call it fc; one that is there stays."""
    live = shell.user_ns.get("fc")
    if isinstance(live, Context) and live in Context.live():
        return live
    settings = dict(_setting(each) for each in options.conf)
    chosen = {"workers": options.workers, "memory_limit": options.memory, "name": options.name}
    given = {name: value for name, value in chosen.items() if value is not None}
    config = Config.from_environment({f"FLOWKIT_{name.upper()}": value for name, value in settings.items()})
    made = Context(options.address, config=config, **given)
    shell.push({"fc": made})
    return made


def _setting(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise _usage(f"{text!r} is no setting; write it as KEY=VALUE")
    Config().with_settings(**{name: getattr(Config(), name, None)})
    return name, value


@command("stop")
def stop(shell: Any, _options: argparse.Namespace) -> None:
    """Close the Context, and its cluster when it has one of its own."""
    context_of(shell).close()


@command("restart")
def restart(shell: Any, _options: argparse.Namespace) -> Any:
    """Close the Context and make a new one like it, with a cluster of its own."""
    old = context_of(shell)
    if old._embedded is None:
        raise _usage("this Context is a guest on its cluster; %flowkit stop, then %flowkit start ADDRESS")
    config, workers = old.config, old._embedded.workers
    old.close()
    made = Context(config=config, workers=workers)
    shell.push({"fc": made})
    return made


@command("status")
def status(shell: Any, _options: argparse.Namespace) -> Any:
    """What the Context is, and how it is doing."""
    context = context_of(shell)
    executors = [each for each in context.status.executors() if not each.removed_at]
    summary = context.status.summary()
    return Table(
        f"{context.name}: {len(executors)} executors, {len(context.jobs.active)} jobs running",
        ("", "value"),
        [
            ("application", context.app),
            ("executors", len(executors)),
            ("task slots", sum(each.slots for each in executors)),
            ("jobs running", len(context.jobs.active)),
            ("jobs", summary.jobs),
            ("stages", summary.stages),
            ("tasks", summary.tasks),
            ("shuffled", format_bytes(summary.shuffle_write_bytes)),
            ("spilled", format_bytes(summary.spilled_bytes)),
        ],
    )


@command("executors")
def executors(shell: Any, _options: argparse.Namespace) -> Any:
    """Executors: those there are, and those that went last with the reason."""
    found = context_of(shell).status.executors()
    rows = [
        (
            each.executor.partition("#")[0],
            each.host[:12],
            each.slots,
            each.running_count,
            each.succeeded_count,
            each.failed_count,
            ("has left" if each.released else f"gone: {each.reason}") if each.removed_at else "",
        )
        for each in found
    ]
    return Table(f"{len(found)} executors", ("executor", "host", "slots", "running", "done", "failed", ""), rows)


@command("conf", argument("setting", nargs="?", help="KEY to ask, KEY=VALUE for the next Context"))
def conf(shell: Any, options: argparse.Namespace) -> Any:
    """Settings of the Context; KEY=VALUE sets one for Contexts that are made from now on."""
    live = Context.live()
    config = context_of(shell).config if live else Config()
    if options.setting is None:
        rows = [(name, repr(getattr(config, name))) for name in config.names()]
        return Table("settings", ("setting", "value"), rows)
    name, found, value = options.setting.partition("=")
    if not found:
        if name not in config.names():
            config.with_settings(**{name: None})
        return getattr(config, name)
    _setting(options.setting)
    Config.from_environment({f"FLOWKIT_{name.upper()}": value})
    import os

    os.environ[f"FLOWKIT_{name.upper()}"] = value
    return None


@command("scale", argument("workers", type=int, help="how many there are to be"))
def scale(shell: Any, options: argparse.Namespace) -> None:
    """Give the Context's own cluster more workers, or fewer."""
    context = context_of(shell)
    if context._embedded is None:
        raise _usage("this Context is a guest on its cluster; scale that where it was made")
    context._embedded.cluster.scale(options.workers)


# -- jobs ----------------------------------------------------------------------------------------------------------------


@command("jobs", argument("-n", type=int, default=20, help="how many, the newest"))
def jobs(shell: Any, options: argparse.Namespace) -> Any:
    """Jobs, the newest last."""
    found = context_of(shell).status.jobs()[-options.n :]
    now = time.time()
    rows = [
        (
            each.job,
            each.name,
            each.properties.get(GROUP, ""),
            each.outcome or "running",
            format_seconds((each.ended_at or now) - each.started_at),
            each.reason[:120],
        )
        for each in found
    ]
    return Table(f"{len(rows)} jobs", ("job", "name", "group", "state", "time", ""), rows)


@command("job", argument("id", type=int), takes="job")
def job(shell: Any, options: argparse.Namespace) -> Any:
    """One job with its stages."""
    context = context_of(shell)
    found = context.jobs.info(options.id)
    if found is None:
        raise _usage(f"there is no job {options.id}, or it is forgotten; %flowkit jobs lists them")
    known = {each.stage: each for each in context.status.stages()}
    return _stage_table(f"job {found.job}: {found.name}", [known[each] for each in found.stages if each in known])


@command("stages", argument("id", nargs="?", type=int, help="one stage only"))
def stages(shell: Any, options: argparse.Namespace) -> Any:
    """Stages: tasks, rows, bytes, seconds."""
    found = context_of(shell).status.stages()
    chosen = [each for each in found if options.id is None or each.stage == options.id]
    return _stage_table(f"{len(chosen)} stages", chosen[-50:])


def _stage_table(title: str, found: list[Any]) -> Table:
    rows = [(each.stage, each.name, f"{each.succeeded_count}/{each.task_count}", each.in_words()) for each in found]
    return Table(title, ("stage", "name", "tasks", ""), rows)


@command(
    "cancel",
    argument("id", nargs="?", type=int),
    argument("--all", action="store_true", help="every job"),
    argument("--group", help="the jobs of a group"),
    takes="job",
)
def cancel(shell: Any, options: argparse.Namespace) -> None:
    """Cancel a job, a group, or all of them."""
    active = context_of(shell).jobs
    if options.all:
        active.cancel_all()
    elif options.group:
        active.cancel_group(options.group)
    elif options.id is not None:
        active.cancel(options.id)
    else:
        raise _usage("which one? %flowkit cancel ID, --group G or --all")


@command(
    "log",
    argument("-n", type=int, default=50, help="how many lines, the newest"),
    argument("--tail", action="store_true", help="go on with what happens, until it is interrupted"),
)
def log(shell: Any, options: argparse.Namespace) -> Any:
    """What happened: jobs, stages, failures, losses, executors."""
    history = context_of(shell).history
    if not options.tail:
        return Lines(history.lines(options.n))
    with contextlib.suppress(KeyboardInterrupt):
        for line in history.follow(options.n):
            print(line)  # noqa: T201 - was asked for
    return None


class Lines(list[Any]):
    """Lines that show as text."""

    def __repr__(self) -> str:
        return "\n".join(map(str, self))

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<div style="{"color: var(--jp-error-color1, #d32f2f)" if each.bad else ""}">{escape(str(each))}</div>'
            for each in self
        )
        return f'<div style="font-family: monospace; white-space: pre-wrap">{rows}</div>'


# -- RDDs ----------------------------------------------------------------------------------------------------------------


def _rdd(shell: Any, name: str) -> Any:
    found = shell.user_ns.get(name)
    if not isinstance(found, Base):
        raise _usage(f"{name} is no RDD" if name in shell.user_ns else f"there is no variable {name}")
    return found


@command("explain", argument("rdd", help="variable"), takes="rdd")
def explain(shell: Any, options: argparse.Namespace) -> Any:
    """What an action on an RDD would run."""
    return _rdd(shell, options.rdd).explain()


@command("lineage", argument("rdd", help="variable"), takes="rdd")
def lineage(shell: Any, options: argparse.Namespace) -> Any:
    """What an RDD is made of, as a tree."""
    return _rdd(shell, options.rdd).debug_string()


@command(
    "persist",
    argument("rdd", help="variable"),
    argument("level", nargs="?", default="MEMORY_ONLY", help="a storage level, as MEMORY_AND_DISK"),
    takes="rdd",
)
def persist(shell: Any, options: argparse.Namespace) -> None:
    """Keep an RDD's partitions once they are computed."""
    level = getattr(StorageLevel, options.level.upper(), None)
    if not isinstance(level, StorageLevel):
        raise _usage(f"{options.level!r} is no storage level; MEMORY_ONLY, MEMORY_AND_DISK, DISK_ONLY and OFF_HEAP are some")
    _rdd(shell, options.rdd).persist(level)


@command("unpersist", argument("rdd", help="variable"), takes="rdd")
def unpersist(shell: Any, options: argparse.Namespace) -> None:
    """Drop what is kept of an RDD."""
    _rdd(shell, options.rdd).unpersist()


@command("storage")
def storage(shell: Any, _options: argparse.Namespace) -> Any:
    """RDDs of the notebook that are marked as cached."""
    rows = [
        (name, value.name or "", (value._node.level or StorageLevel.NONE).name, value.num_partitions, value.call_site)
        for name, value in sorted(shell.user_ns.items())
        if isinstance(value, Base) and not name.startswith("_") and value._node.cached
    ]
    return Table(f"{len(rows)} cached RDDs", ("variable", "name", "level", "partitions", "made at"), rows)


@command(
    "replay",
    argument("capsule", nargs="?", help="a file that was saved, in place of the last error"),
    argument("--element", metavar="VAR", help="keep the element at fault in a variable"),
    argument("--no-debug", action="store_true", help="only run it again and tell"),
    argument("--save", metavar="FILE", help="only save it, to be replayed elsewhere"),
)
def replay(shell: Any, options: argparse.Namespace) -> Any:
    """Compute the partition that failed last once more, in this process, and debug where it fails."""
    if options.capsule is not None:
        replayed = open_capsule(options.capsule)(debug=False)
    else:
        found = getattr(getattr(sys, "last_value", None), "replay", None)
        if not isinstance(found, Replay):
            raise _usage("the last error was not raised by a task; there is nothing to replay")
        if options.save:
            return found.save(options.save)
        replayed = found.run()
    if options.element and replayed.error is not None:
        try:
            shell.push({options.element: replayed.element})
        except AttributeError as error:
            raise _usage(str(error)) from None
    return debugged(replayed, debug=not options.no_debug and not options.element)


# -- the magics ----------------------------------------------------------------------------------------------------------


class CellSummary:
    """What the jobs of a ``%%flowkit`` cell did."""

    def __init__(self, group: str, found: list[Any], seconds: float) -> None:
        self.group = group
        self.jobs = tuple(found)
        self.seconds = seconds

    def __repr__(self) -> str:
        failed = sum(each.outcome == "failed" for each in self.jobs)
        return f"<{len(self.jobs)} jobs in {format_seconds(self.seconds)}{f', {failed} failed' if failed else ''}>"


_CELL: Final = _Parser(
    prog="%flowkit", description="Run a cell with its jobs in a group; all are cancelled when it is interrupted."
)
_CELL.add_argument("--group", help="name of the group; without, one of its own")
_CELL.add_argument("--name", help="description of its jobs, for people")
_CELL.add_argument("--time", action="store_true", help="print how long it took")
_CELL.add_argument("--quiet", action="store_true", help="show no progress below it")
_CELL.add_argument("-o", "--out", metavar="VAR", help="keep a summary of its jobs in a variable")


def run_line(shell: Any, line: str) -> Any:
    """``%flowkit COMMAND ...``."""
    words = _split(line)
    if not words or words[0] in {"--help", "-h", "help"}:
        told = "\n".join(f"  {each.name:<10} {each.parser.description}" for each in _commands.values())
        print(f"%flowkit COMMAND [--help]\n\n{told}\n\n%%flowkit --help and %%flowkit profile --help are about cells.")  # noqa: T201 - help
        return None
    chosen = _commands.get(words[0])
    if chosen is None:
        raise _usage(f"%flowkit has no command {words[0]!r}; it has {', '.join(_commands)}")
    try:
        return chosen.run(shell, chosen.parser.parse_args(words[1:]))
    except _Shown:
        return None
    except FlowkitError as error:
        raise _usage(f"%flowkit {words[0]}: {error}") from None


_PROFILE: Final = _Parser(prog="%flowkit profile", description="Run a cell and tell where its jobs' time went.")
_PROFILE.add_argument("--memory", action="store_true", help="measure memory too, which takes longer")
_PROFILE.add_argument("-o", "--out", metavar="VAR", help="keep the profile in a variable")


def _profile_cell(shell: Any, options: argparse.Namespace, cell: str) -> Any:
    with context_of(shell).profile(memory=options.memory) as found:
        shell.run_cell(cell, store_history=False)
    if options.out:
        shell.push({options.out: found})
    return found


def run_cell(shell: Any, line: str, cell: str) -> Any:
    """``%%flowkit ...``."""
    words = _split(line)
    try:
        if words[:1] == ["profile"]:
            return _profile_cell(shell, _PROFILE.parse_args(words[1:]), cell)
        options = _CELL.parse_args(words)
    except _Shown:
        return None
    context = context_of(shell)
    group = options.group or f"cell {shell.execution_count}"
    known = {each.job for each in context.status.jobs()}
    properties = {QUIET: "1"} if options.quiet else {}
    began = time.perf_counter()
    try:
        with context.job(group=group, description=options.name, properties=properties):
            result = shell.run_cell(cell, store_history=False)
        error = result.error_before_exec or result.error_in_exec
        if isinstance(error, KeyboardInterrupt):
            context.jobs.cancel_group(group, "the cell was interrupted")
    finally:
        seconds = time.perf_counter() - began
        context.wait_for_listeners(queue="status")
        if options.out:
            ran = [each for each in context.status.jobs() if each.job not in known and each.properties.get(GROUP) == group]
            shell.push({options.out: CellSummary(group, ran, seconds)})
        if options.time:
            print(f"{format_seconds(seconds)}")  # noqa: T201 - was asked for
    return None


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise _usage(f"%flowkit: {error}") from None


def completions(shell: Any, line: str) -> Iterator[str]:
    """What may follow on a line that begins with ``%flowkit``."""
    words = line.split()
    fresh = line[-1:].isspace()
    if len(words) < 2 or (len(words) == 2 and not fresh):
        yield from _commands
        return
    chosen = _commands.get(words[1])
    if chosen is None:
        return
    yield from (name for action in chosen.parser._actions for name in action.option_strings)
    if chosen.takes == "rdd":
        yield from (name for name, value in shell.user_ns.items() if isinstance(value, Base) and not name.startswith("_"))
    elif chosen.takes == "job" and Context.live():
        yield from map(str, context_of(shell).jobs.active)


def register(shell: Any) -> None:
    """Add the magics and their completion to a shell."""

    def flowkit(line: str, cell: str | None = None) -> Any:
        """Sessions, jobs and RDDs: %flowkit --help."""
        return run_line(shell, line) if cell is None else run_cell(shell, line, cell)

    def complete(_self: Any, event: Any) -> list[str]:
        return [each for each in completions(shell, event.line) if each.startswith(event.symbol)]

    shell.register_magic_function(flowkit, magic_kind="line_cell", magic_name="flowkit")
    for prefix in ("%flowkit", "%%flowkit"):
        shell.set_hook("complete_command", complete, str_key=prefix)
