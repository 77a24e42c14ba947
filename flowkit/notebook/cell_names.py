"""Names of cells, ``In[5] line 7``, as in the shell's own tracebacks. Runs in the kernel, on any thread."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, NamedTuple


class _Body(NamedTuple):
    """The body of a cell that a magic runs. The shell gives it the number of the next cell, and counts its lines from 1."""

    #: the shell's name for it
    inner: str
    #: the name of the cell that it is part of
    outer: str
    #: lines of that cell above the first line that the shell counts: the magic's, and empty ones
    above: int


class CellNames:
    """Names of one shell's cells by the file names that their code was compiled under."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._bodies: dict[str, _Body] = {}
        self._running: _Body | None = None

    def place(self, file: str, line: int) -> str:
        """Return ``In[5] line 7``; empty for a file that is no cell."""
        name = self._name(file)
        body = self._bodies.get(file)
        if (body is None or body.inner != name) and self._running is not None and self._running.inner == name:
            body = self._bodies[file] = self._running
        if body is not None and body.inner == name:
            return f"{body.outer} line {line + body.above}"
        return f"{name} line {line}" if name else ""

    def begin_body(self, code: str) -> None:
        """Note that a magic is about to run ``code``, the body of its cell."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and not (name := self._name(frame.f_code.co_filename)):
            frame = frame.f_back
        inner = f"In[{self._shell.execution_count}]"
        above = 1 + next((place for place, line in enumerate(code.splitlines()) if line.strip()), 0)
        self._running = None if frame is None or name == inner else _Body(inner, name, above)

    def end_body(self) -> None:
        """Note that it has run."""
        self._running = None

    def _name(self, file: str) -> str:
        found = getattr(self._shell.compile, "format_code_name", lambda _: None)(file)
        return "" if found is None else str(found[1])
