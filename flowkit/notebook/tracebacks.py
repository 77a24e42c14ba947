"""Tracebacks that are the user's: their cell, then what they wrote; not the way through flowkit in between.

Runs in the kernel. Nothing is taken from an exception of flowkit's own making but the frames that are shown.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from flowkit.rdd.replayed import users_part


class ShortTracebacks:
    """Lets a shell show exceptions without flowkit's frames, unless somebody else has a say in that already."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._installed = False

    def attach(self) -> None:
        """From now on."""
        if not self._shell.custom_exceptions:
            self._shell.set_custom_exc((Exception,), self._show)
            self._installed = True

    def detach(self) -> None:
        """As it was."""
        if self._installed:
            self._shell.set_custom_exc((), None)
            self._installed = False

    @staticmethod
    def _show(shell: Any, kind: type, error: BaseException, traceback: TracebackType, tb_offset: int | None = None) -> None:
        seen: set[int] = set()
        chained: BaseException | None = error
        while chained is not None and id(chained) not in seen:
            seen.add(id(chained))
            chained.__traceback__ = users_part(chained.__traceback__)
            chained = chained.__cause__ or chained.__context__
        # Without a handler of its own a shell shows it as ever: hide this one while it does.
        handlers, shell.custom_exceptions = shell.custom_exceptions, ()
        try:
            shell.showtraceback((kind, error, users_part(traceback)), tb_offset=tb_offset)
        finally:
            shell.custom_exceptions = handlers
