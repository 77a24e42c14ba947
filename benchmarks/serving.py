"""The engine's side of a benchmark: open a session once, then run what standard input names, one answer a line.

Runs in the engine's own environment, so it uses the standard library alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from workloads import BY_NAME, Sizes

#: Lines without it are an engine's own chatter.
MARK = "@@ "


@dataclass(frozen=True)
class Setting:
    """What an engine is given."""

    cores: int
    sizes: Sizes
    text: str

    @property
    def partitions(self) -> int:
        """The same for every engine: enough to balance, few enough not to measure only tasks."""
        return 4 * self.cores


Run = Callable[[Any, Setting], Any]


def serve(
    open_session: Callable[[Setting], AbstractContextManager[Any]], runs: dict[str, Run], versions: Callable[[], dict]
) -> None:
    """Answer requests until standard input ends.

    A session's first result is asked for at once (``runs["startup"]``), so that nobody is measured half-started.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--cores", type=int, required=True)
    parser.add_argument("--scale", type=float, required=True)
    parser.add_argument("--text", required=True)
    arguments = parser.parse_args()
    setting = Setting(arguments.cores, Sizes(arguments.scale), arguments.text)
    with _speaking() as say, open_session(setting) as session:
        say(first=runs["startup"](session, setting), versions=versions(), workloads=sorted(runs))
        for line in sys.stdin:
            try:
                say(**_measure(line.strip(), runs, session, setting))
            except Exception as error:
                say(error=f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}")


def _measure(name: str, runs: dict[str, Run], session: Any, setting: Setting) -> dict[str, Any]:
    count = BY_NAME[name].runs
    started = time.perf_counter()
    for _ in range(count):
        answer = runs[name](session, setting)
    return {"seconds": (time.perf_counter() - started) / count, "answer": answer}


@contextlib.contextmanager
def _speaking() -> Iterator[Callable[..., None]]:
    """Answers on standard output; whatever else would print there goes to standard error."""
    out = sys.stdout

    def say(**answer: Any) -> None:
        out.write(MARK + json.dumps(answer) + "\n")
        out.flush()

    with contextlib.redirect_stdout(sys.stderr):
        yield say
