"""Which cell a job belongs to: decided in the kernel when the job is submitted, never guessed.

Runs in the kernel. The cell is a context variable, so that asyncio tasks and futures started in a cell belong to it also after it has
ended; a plain thread belongs to the cell that runs when it submits.
"""

from __future__ import annotations

import contextvars
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final

from flowkit.notebook.cell_names import CellNames

#: property of a job: the cell that it was submitted in
CELL: Final = "flowkit.notebook.cell"
#: property of a job that is not to be shown
QUIET: Final = "flowkit.notebook.quiet"

_numbers = itertools.count(1)
_current: contextvars.ContextVar[Cell | None] = contextvars.ContextVar("flowkit_cell", default=None)


class Cell:
    """One execution of a cell."""

    def __init__(self, parent: Any, label: str) -> None:
        self.token = str(next(_numbers))
        #: the request that ran it, under which its outputs are sent
        self.parent = parent
        self.label = label
        self.is_running = True

    def __repr__(self) -> str:
        return f"<Cell {self.token} {self.label!r}{'' if self.is_running else ': over'}>"


class Cells:
    """The cells of one shell, as they come and go.

    Parameters
    ----------
    shell
        IPython's.
    names
        Are told where the body of a magic's cell begins and ends.
    ended
        Called in the kernel's main thread when a cell has ended, before its outputs are complete; with whether it was interrupted.
    """

    def __init__(self, shell: Any, names: CellNames, ended: Callable[[Cell, bool], None]) -> None:
        self._shell = shell
        self._names = names
        self._ended = ended
        self.latest: Cell | None = None

    def attach(self) -> None:
        """Watch the shell."""
        self._shell.events.register("pre_run_cell", self._begin)
        self._shell.events.register("post_run_cell", self._end)
        # The cell that says so is one too.
        self._begin(None)

    def detach(self) -> None:
        """Watch it no more."""
        self._shell.events.unregister("pre_run_cell", self._begin)
        self._shell.events.unregister("post_run_cell", self._end)
        self.latest = None

    def properties(self) -> Mapping[str, str]:
        """What a job submitted now has to say of its cell."""
        cell = _current.get() or self.latest
        return {} if cell is None else {CELL: cell.token}

    def _begin(self, info: Any) -> None:
        if self.latest is not None and self.latest.is_running and not getattr(info, "store_history", True):
            self._names.begin_body(getattr(info, "raw_cell", ""))
        get_parent = getattr(self._shell, "get_parent", None)
        cell = Cell(get_parent() if get_parent is not None else {}, f"[{self._shell.execution_count}]")
        self.latest = cell
        _current.set(cell)

    def _end(self, result: Any) -> None:
        self._names.end_body()
        cell = self.latest
        if cell is not None and cell.is_running:
            cell.is_running = False
            error = getattr(result, "error_in_exec", None)
            self._ended(cell, isinstance(error, KeyboardInterrupt))
