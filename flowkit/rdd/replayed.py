"""What came of a partition that was computed once more in the driver, and the debugger at the line that failed. Runs on the driver."""

from __future__ import annotations

import sys
from traceback import extract_tb
from types import TracebackType
from typing import Any

from flowkit.execution.replaying import NO_ELEMENT, LocalRun
from flowkit.lineage.call_site import short_call_site
from flowkit.model.shown import first_line_of, in_words, short
from flowkit.observe.tables import Table
from flowkit.tracebacks import traceback_of, trims_own_frames, users_part
from flowkit.visible import in_one_line


@trims_own_frames
class Replayed:
    """How it went this time.

    Attributes
    ----------
    error
        What was raised; None when it went well this time.
    element
        What the function that raised was called with. Raises ``AttributeError`` where there is none.
    value
        What the partition gave when it went well.
    """

    def __init__(self, run: LocalRun, place: str) -> None:
        self.error = run.error
        self.value = run.value
        self._element = run.element
        self._place = place

    @property
    def element(self) -> Any:
        """See the class."""
        if self._element is NO_ELEMENT:
            raise AttributeError("no function was called with one element when it failed")
        return self._element

    @property
    def traceback(self) -> TracebackType | None:
        """From the user's frames on."""
        return None if self.error is None else users_part(traceback_of(self.error)) or traceback_of(self.error)

    def _repr_html_(self) -> str:
        rows = [("place", self._place)]
        if self._element is not NO_ELEMENT:
            rows.append(("element", short(self._element, 500)))
        if self.traceback is not None:
            last = extract_tb(self.traceback)[-1]
            rows.append(("line", f"{short_call_site(f'{last.filename}:{last.lineno}')}  {last.line}"))
        if self.error is not None:
            rows.append(("error", in_words(self.error)))
        return Table("failed again" if self.error is not None else "went well this time", ("", ""), rows)._repr_html_()

    def __repr__(self) -> str:
        if self.error is None:
            return in_one_line(f"<{self._place} went well this time>")
        at = "" if self._element is NO_ELEMENT else f" at {short(self._element)}"
        return in_one_line(f"<{self._place} failed again{at}: {first_line_of(self.error)}>")


def debugged(found: Replayed, *, debug: bool) -> Replayed:
    """Open a debugger where it failed, if it did and that is wanted."""
    if debug and found.traceback is not None:
        post_mortem(found.traceback)
    return found


def post_mortem(traceback: TracebackType) -> None:
    """A debugger at the last frame of a traceback: IPython's where that runs, else Python's."""
    if "IPython" in sys.modules:
        from IPython.core.debugger import Pdb
        from IPython.core.getipython import get_ipython

        if get_ipython() is not None:
            debugger = Pdb()
            debugger.reset()
            debugger.interaction(None, traceback)  # type: ignore[no-untyped-call]
            return
    import pdb  # noqa: T100 - that is what was asked for

    pdb.post_mortem(traceback)
