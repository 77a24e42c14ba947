"""Commands of ``%flowkit`` about Contexts: make, close, look at them, their settings, their size. Runs in the kernel's main thread."""

from __future__ import annotations

import argparse
import os
from typing import Any, Final

import dask.config

from flowkit.config import Config
from flowkit.config.setting import in_words, settings_of
from flowkit.context import Context
from flowkit.lineage.call_site import short_call_site
from flowkit.model.ids import executor_label
from flowkit.notebook.commands import argument, command, context_of, name_of, positive, tell, usage, wait_until
from flowkit.observe.metrics import counted, format_bytes
from flowkit.observe.status import ExecutorStatus
from flowkit.observe.tables import Table

#: how long ``scale`` waits for workers before it says how many there are
_SCALE_WAIT_S: Final = 15.0


def _present(context: Context) -> list[ExecutorStatus]:
    return [each for each in context.status.executors() if not each.removed_at]


def _size(context: Context) -> str:
    here = _present(context)
    return f"{counted(len(here), 'executor')} with {counted(sum(each.slots for each in here), 'task slot')}"


@command(
    "start",
    argument("address", nargs="?", help="of a Dask scheduler; without, a cluster in this machine"),
    argument("--workers", type=positive, help="worker processes"),
    argument("--memory", help="of each worker, as 2GiB"),
    argument("--conf", action="append", default=[], metavar="KEY=VALUE", help="a setting; may be given several times"),
    argument("--name", help="of the session, for people"),
)
def start(shell: Any, options: argparse.Namespace) -> None:
    """Make a Context and call it fc; one that is there stays."""
    live = shell.user_ns.get("fc")
    if isinstance(live, Context) and live in Context.live():
        tell(f"fc is there, on {live.where}: {_size(live)}; %flowkit restart makes it anew")
        return
    given = {f"FLOWKIT_{name.upper()}": value for name, value in (_setting(each) for each in options.conf)}
    chosen = {"workers": options.workers, "memory_limit": options.memory, "name": options.name}
    if given:
        chosen["config"] = Config.from_surroundings({**os.environ, **given}, dask.config.get("flowkit", {}))
    made = Context(options.address, **{name: value for name, value in chosen.items() if value is not None})
    shell.push({"fc": made})
    tell(f"fc is a Context on {made.where}: {_size(made)}")


def _setting(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise usage(f"{text!r} is no setting; write it as KEY=VALUE")
    Config().with_settings(**{name: getattr(Config(), name, None)})
    return name, value


@command("stop")
def stop(shell: Any, _options: argparse.Namespace) -> None:
    """Close the Context, and its cluster when it has one of its own."""
    context = context_of(shell)
    name, where, own = name_of(shell, context) or repr(context.name), context.where, (context._embedded is not None)
    context.close()
    others = len(Context.live())
    more = f"; {counted(others, 'other Context')} {'is' if others == 1 else 'are'} open" if others else ""
    tell(f"{name} is closed{', and its processes have ended' if own else f', {where} goes on'}{more}")


@command("restart")
def restart(shell: Any, _options: argparse.Namespace) -> None:
    """Close the Context, where it is not closed yet, and make a new one like it under its name."""
    named = shell.user_ns.get("fc")
    old = named if isinstance(named, Context) else context_of(shell)
    name = name_of(shell, old) or "fc"
    old.close()
    made = old._like_this()
    shell.push({name: made})
    tell(f"{name} is a new Context on {made.where}: {_size(made)}; RDDs of the old one have to be made again")


@command("contexts")
def contexts(shell: Any, _options: argparse.Namespace) -> Any:
    """Open Contexts of this process, oldest first."""
    rows = [
        (
            name_of(shell, each),
            each.name,
            each.where,
            len(_present(each)),
            len(each.jobs.active),
            short_call_site(each.made_at) if each.made_at else "",
        )
        for each in Context.live()
    ]
    names = ("variable", "name", "where", "executors", "jobs running", "made at")
    return Table(counted(len(rows), "open Context"), names, rows)


@command("status")
def status(shell: Any, _options: argparse.Namespace) -> Any:
    """What the Context is, and how it is doing."""
    context = context_of(shell)
    here, running, summary = _present(context), len(context.jobs.active), context.status.summary()
    return Table(
        f"{context.name}: {counted(len(here), 'executor')}, {counted(running, 'job')} running",
        ("", "value"),
        [
            ("application", context.app),
            ("where", context.where),
            ("executors", len(here)),
            ("task slots", sum(each.slots for each in here)),
            ("jobs running", running),
            ("jobs", summary.jobs),
            ("jobs failed", summary.failed_jobs),
            ("stages", summary.stages),
            ("tasks", summary.tasks),
            ("shuffled", format_bytes(summary.shuffle_write_bytes)),
            ("spilled", format_bytes(summary.spilled_bytes)),
        ],
    )


@command("executors")
def executors(shell: Any, _options: argparse.Namespace) -> Any:
    """Executors: those there are, and those that went last with the reason."""
    context = context_of(shell)
    found = context.status.executors()
    rows = [
        (
            executor_label(each.executor),
            each.host[:12],
            each.slots,
            each.running_count,
            each.succeeded_count,
            each.failed_count,
            ("has left" if each.released else f"gone: {each.reason}") if each.removed_at else "",
        )
        for each in found
    ]
    gone = sum(bool(each.removed_at) for each in found)
    title = f"{_size(context)}{f'; {gone:,} left or went' if gone else ''}"
    return Table(title, ("executor", "host", "slots", "running", "done", "failed", ""), rows).without_empty(6)


@command("conf", argument("setting", nargs="?", help="KEY to ask, KEY=VALUE for the next Context"), takes="setting")
def conf(shell: Any, options: argparse.Namespace) -> Any:
    """Settings of the Context, changed ones first; KEY=VALUE sets one for Contexts that are made from now on."""
    context = context_of(shell) if Context.live() else None
    config = context.config if context is not None else Config()
    if options.setting is None:
        return _settings(config)
    name, found, value = options.setting.partition("=")
    if not found:
        if name not in config.names():
            config.with_settings(**{name: None})
        return getattr(config, name)
    _setting(options.setting)
    variable = f"FLOWKIT_{name.upper()}"
    made = getattr(Config.from_environment({variable: value}), name)
    os.environ[variable] = value
    now = f"; {name_of(shell, context) or context.name} has {getattr(config, name)!r} until %flowkit restart" if context else ""
    tell(f"{name} is {made!r} for Contexts made from now on{now}")
    return None


def _settings(config: Config) -> Table:
    changed = config.changes()
    rows = sorted(
        (
            (
                each.name,
                in_words(each, getattr(config, each.name)),
                config.origins.get(each.name, "given") if each.name in changed else "",
                _in_short(each.metadata["doc"]),
            )
            for each in settings_of(config)
        ),
        key=lambda row: row[0] not in changed,
    )
    title = f"{counted(len(rows), 'setting')}, {len(changed) or 'none'} changed{' (first)' if changed else ''}"
    return Table(title, ("setting", "value", "changed by", "what it is"), rows).without_empty(2)


def _in_short(doc: str, most: int = 90) -> str:
    """The first clause of a sentence, for a row of a table."""
    text = doc.partition(";")[0].partition(": ")[0].rstrip(".")
    text = text if text.count("(") == text.count(")") else text.rpartition("(")[0].rstrip()
    return text if len(text) <= most else text[:most].rpartition(" ")[0] + " ..."


@command("scale", argument("workers", type=positive, help="how many there are to be"))
def scale(shell: Any, options: argparse.Namespace) -> None:
    """Give the Context's own cluster more workers, or fewer."""
    context, wanted = context_of(shell), options.workers
    if context._embedded is None:
        raise usage("this Context is a guest on its cluster; scale that where it was made")
    if context.config.allocation != "off":
        raise usage(f"allocation = {context.config.allocation!r} decides how many executors there are; see max_executors")
    context.scale(wanted)
    if wait_until(context, lambda: len(_present(context)) == wanted, _SCALE_WAIT_S):
        tell(_size(context))
        return
    here = len(_present(context))
    rest = "the others are starting" if here < wanted else "the others end when their tasks are over"
    tell(f"{here} of {wanted} executors are up, {rest}; %flowkit executors shows them")
