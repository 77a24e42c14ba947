"""``%flowkit`` and ``%%flowkit``: sessions, jobs and RDDs by short commands, with help and completion everywhere.

Runs in the kernel's main thread. The commands are registered by the modules that hold them; see ``commands``.
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Iterator
from typing import Any, Final

from flowkit.config import Config
from flowkit.context import Context
from flowkit.errors import FlowkitError
from flowkit.jobs import GROUP
from flowkit.notebook import job_commands, rdd_commands, session_commands
from flowkit.notebook.cells import QUIET
from flowkit.notebook.commands import COMMANDS, Command, Parser, Shown, context_of, meant_command, tell, usage
from flowkit.observe.metrics import counted, format_seconds
from flowkit.rdd.base import Base

#: the modules that registered commands, in the order of the help
HOMES: Final = (session_commands, job_commands, rdd_commands)


# -- the magics ----------------------------------------------------------------------------------------------------------


class CellSummary:
    """What the jobs of a ``%%flowkit`` cell did."""

    def __init__(self, group: str, found: list[Any], seconds: float) -> None:
        self.group = group
        self.jobs = tuple(found)
        self.seconds = seconds

    def __repr__(self) -> str:
        failed = sum(each.outcome == "failed" for each in self.jobs)
        return f"<{counted(len(self.jobs), 'job')} in {format_seconds(self.seconds)}{f', {failed} failed' if failed else ''}>"


_CELL: Final = Parser(
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
        tell(_help())
        return None
    chosen = COMMANDS.get(words[0])
    if chosen is None:
        meant = meant_command(words[0], list(COMMANDS))
        hint = f"did you mean {meant}?" if meant else f"it has {', '.join(each.name for each in _known())}"
        raise usage(f"%flowkit has no command {words[0]!r}; {hint}")
    try:
        return chosen.run(shell, chosen.parser.parse_args(words[1:]))
    except Shown:
        return None
    except FlowkitError as error:
        raise usage(f"%flowkit {words[0]}: {error}") from None


def _known() -> list[Command]:
    """All commands, those about Contexts first."""
    homes = [home.__name__ for home in HOMES]
    return sorted(COMMANDS.values(), key=lambda each: homes.index(home) if (home := each.run.__module__) in homes else len(homes))


def _help() -> str:
    homes = [home.__name__ for home in HOMES]
    known = sorted(
        COMMANDS.values(), key=lambda each: homes.index(home) if (home := each.run.__module__) in homes else len(homes)
    )
    told = "\n".join(f"  {each.name:<10} {each.parser.description}" for each in known)
    return f"%flowkit COMMAND [--help]\n\n{told}\n\n%%flowkit --help and %%flowkit profile --help are about cells."


_PROFILE: Final = Parser(prog="%flowkit profile", description="Run a cell and tell where its jobs' time went.")
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
    except Shown:
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
        ran = [each for each in context.status.jobs() if each.job not in known and each.properties.get(GROUP) == group]
        if options.out:
            shell.push({options.out: CellSummary(group, ran, seconds)})
        if options.time:
            tell(f"the cell took {format_seconds(seconds)} and ran {counted(len(ran), 'job')}")
    return None


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise usage(f"%flowkit: {error}") from None


def completions(shell: Any, line: str) -> Iterator[tuple[str, str]]:
    """What may follow on a line that begins with ``%flowkit``, what is likeliest first; and what kind of thing it is."""
    words = line.split()
    fresh = line[-1:].isspace()
    if len(words) < 2 or (len(words) == 2 and not fresh):
        yield from ((each.name, "command") for each in _known())
        return
    chosen = COMMANDS.get(words[1])
    if chosen is None:
        return
    match chosen.takes:
        case "rdd":
            named = ((name, value) for name, value in shell.user_ns.items() if not name.startswith("_"))
            yield from ((name, "rdd") for name, value in named if isinstance(value, Base))
        case "job" if Context.live():
            yield from ((str(number), "job") for number in context_of(shell).jobs.active)
        case "stage" if Context.live():
            yield from ((str(stage), "stage") for stage in {each.stage: 0 for each in context_of(shell).status.stages()})
        case "setting":
            yield from ((name, "setting") for name in Config.names())
        case _:
            pass
    yield from ((name, "option") for action in chosen.parser._actions for name in action.option_strings)


def _matcher(shell: Any) -> Any:
    """Completes lines of ``%flowkit``, and has no other matcher add names of Python's to them."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    @context_matcher()  # type: ignore[untyped-decorator,unused-ignore]
    def complete_flowkit(context: Any) -> dict[str, Any]:
        line = context.text_until_cursor.lstrip()
        if not line.startswith(("%flowkit ", "%%flowkit ")):
            return {"completions": [], "suppress": False}
        # The shell's own token ends at a hyphen.
        word = "" if line[-1:].isspace() else line.split()[-1]
        skipped = len(word) - len(context.token) if word.endswith(context.token) else 0
        found = [(text, kind) for text, kind in completions(shell, line) if text.startswith(word)]
        return {
            "completions": [SimpleCompletion(text[skipped:], type=kind) for text, kind in found],
            "suppress": True,
            "ordered": True,
        }

    return complete_flowkit


def register(shell: Any) -> None:
    """Add the magics and their completion to a shell."""

    def flowkit(line: str, cell: str | None = None) -> Any:
        """Sessions, jobs and RDDs: %flowkit --help."""
        return run_line(shell, line) if cell is None else run_cell(shell, line, cell)

    shell.register_magic_function(flowkit, magic_kind="line_cell", magic_name="flowkit")
    completer = getattr(shell, "Completer", None)
    if completer is not None and not any(each.__name__ == "complete_flowkit" for each in completer.custom_matchers):
        completer.custom_matchers.append(_matcher(shell))
