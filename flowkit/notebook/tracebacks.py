"""Tracebacks of a shell without flowkit's frames, also where an exception left flowkit otherwise than by a public method.

Runs in the kernel. Nothing is taken from an exception but frames that are shown.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from flowkit.tracebacks import trim


class ShortTracebacks:
    """Lets a shell show exceptions without flowkit's frames, unless somebody else has a say in that already."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._installed = False

    def attach(self) -> None:
        """From now on."""
        if not self._shell.custom_exceptions:
            self._shell.set_custom_exc((Exception, KeyboardInterrupt), self._show)
            self._installed = True

    def detach(self) -> None:
        """As it was."""
        if self._installed:
            self._shell.set_custom_exc((), None)
            self._installed = False

    @staticmethod
    def _show(shell: Any, kind: type, error: BaseException, _: TracebackType, tb_offset: int | None = None) -> None:
        trim(error)
        # Without a handler of its own a shell shows it as ever: hide this one while it does.
        handlers, shell.custom_exceptions = shell.custom_exceptions, ()
        try:
            shell.showtraceback((kind, error, error.__traceback__), tb_offset=tb_offset)
        finally:
            shell.custom_exceptions = handlers
