"""What a command of ``%flowkit`` is: a function under its name, with arguments, help, and complaints of one line.

Runs in the kernel's main thread. The commands themselves stand in ``session_commands``, ``job_commands`` and ``rdd_commands``; other parts add
theirs with ``command``.
"""

from __future__ import annotations

import argparse
import difflib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from flowkit.context import Context
from flowkit.model.events import Event
from flowkit.visible import visible

Run = Callable[[Any, argparse.Namespace], Any]

#: what else a command is called
OTHER_NAMES: Final = {
    "cache": "persist",
    "close": "stop",
    "config": "conf",
    "create": "start",
    "debug": "replay",
    "events": "log",
    "history": "log",
    "info": "status",
    "kill": "cancel",
    "list": "contexts",
    "new": "start",
    "plan": "explain",
    "quit": "stop",
    "rdds": "storage",
    "session": "status",
    "sessions": "contexts",
    "set": "conf",
    "settings": "conf",
    "stage": "stages",
    "uncache": "unpersist",
    "workers": "executors",
}


class Parser(argparse.ArgumentParser):
    """Complains in one line instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """See ``ArgumentParser``."""
        raise usage(f"{message} (%{self.prog.lstrip('%')} --help tells more)")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """See ``ArgumentParser``."""
        raise Shown

    def print_help(self, file: Any = None) -> None:
        """See ``ArgumentParser``."""
        print(self.format_help())  # noqa: T201 - that is what was asked for


class Shown(Exception):
    """Help was shown; nothing else is to be done."""


def usage(message: str) -> Exception:
    """A complaint that a shell shows as one line."""
    from IPython.core.error import UsageError

    return UsageError(message)


def tell(text: str) -> None:
    """Say what is so now that a command has done its work."""
    print(visible(text))  # noqa: T201 - the answer to a command


@dataclass(frozen=True)
class Command:
    """One subcommand."""

    name: str
    run: Run
    parser: Parser
    #: what it takes first, for completion: "rdd", "job", "stage", "setting" or nothing
    takes: str


COMMANDS: dict[str, Command] = {}


def command(name: str, *arguments: tuple[tuple[str, ...], dict[str, Any]], takes: str = "") -> Callable[[Run], Run]:
    """Register a subcommand of ``%flowkit``; its docstring is its help, ``arguments`` are those of ``add_argument``."""

    def add(run: Run) -> Run:
        parser = Parser(prog=f"flowkit {name}", description=(run.__doc__ or "").strip(), add_help=True)
        for names, options in arguments:
            parser.add_argument(*names, **options)
        COMMANDS[name] = Command(name, run, parser, takes)
        return run

    return add


def argument(*names: str, **options: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """One argument of a command, as for ``ArgumentParser.add_argument``."""
    return names, options


def positive(text: str) -> int:
    """A number of things, 1 or more."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of 1 or more")
    return int(text)


def meant_command(name: str, known: list[str]) -> str:
    """The command that a name probably means; empty where a guess would be a guess.

    >>> [meant_command(each, ["status", "stages", "stop", "jobs"]) for each in ("stauts", "close", "banana")]
    ['status', 'stop', '']
    """
    plain = name.lower()
    if (other := OTHER_NAMES.get(plain, plain)) in known:
        return other
    near = difflib.get_close_matches(plain, known, n=1, cutoff=0.65)
    return near[0] if near else ""


# -- Contexts --------------------------------------------------------------------------------------------------------------


def name_of(shell: Any, context: Context) -> str:
    """The user's name for a Context: ``fc`` or another one; empty where there is none."""
    names = [name for name, value in shell.user_ns.items() if value is context and not name.startswith("_")]
    return "fc" if "fc" in names else min(names, default="")


def context_of(shell: Any) -> Context:
    """The Context that commands are about: ``fc`` where the user has one of that name, else the newest."""
    named = shell.user_ns.get("fc")
    live = Context.live()
    if isinstance(named, Context) and named in live:
        return named
    if not live:
        raise usage("there is no open Context; %flowkit start makes one")
    return live[-1]


class _Looks:
    """A listener that looks, after every event, whether something holds."""

    def __init__(self, holds: Callable[[], bool]) -> None:
        self._holds = holds
        self.seen = threading.Event()

    def on_event(self, event: Event) -> None:
        """Look; see ``abc.Listener``."""
        if self._holds():
            self.seen.set()


def wait_until(context: Context, holds: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until the status of a Context is as it should be; whether it is, within so many seconds."""
    looks = _Looks(holds)
    # Behind the status in its queue, so that it looks at what the status has made of the event.
    context.add_listener(looks, queue="status")
    try:
        return holds() or looks.seen.wait(timeout_s) or holds()
    finally:
        context.remove_listener(looks)
