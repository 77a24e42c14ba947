"""Where the user's code called flowkit: the innermost frame outside of it. Runs on the driver."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

from flowkit.tracebacks import OWN_DIRECTORY

_known: ContextVar[str] = ContextVar("flowkit_call_site", default="")


@contextmanager
def called_from(call_site: str) -> Iterator[None]:
    """What a block does is laid to a call that is on another thread's stack."""
    token = _known.set(call_site)
    try:
        yield
    finally:
        _known.reset(token)


def find_call_site() -> str:
    """``<full path>:<line>`` of the caller outside flowkit, or ``In[5] line 7``; empty when there is none."""
    if known := _known.get():
        return known
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(OWN_DIRECTORY):
        frame = frame.f_back
    return "" if frame is None else _place(frame.f_code.co_filename, frame.f_lineno)


def _no_cell(_file: str, _line: int) -> str:
    return ""


#: what names a line of a notebook's cell; empty for a line of anything else
_in_a_cell: Callable[[str, int], str] = _no_cell


def name_cells(place: Callable[[str, int], str] | None) -> None:
    """Let call sites name the cells of a notebook.

    Parameters
    ----------
    place
        From a file name and a line, ``In[5] line 7`` where the file is code of a cell, ``""`` for any other; None: cells have no names any
        more.
    """
    global _in_a_cell
    _in_a_cell = place or _no_cell


def _place(file: str, line: int) -> str:
    return _in_a_cell(file, line) or f"{file}:{line}"


def short_call_site(call_site: str) -> str:
    """The file's name and the line: what fits into a label. A notebook's cell has a file name that says nothing.

    >>> short_call_site("/home/ann/jobs/words.py:12")
    'words.py:12'
    >>> short_call_site("/tmp/ipykernel_77/716518321.py:3"), short_call_site("In[5] line 3")
    ('cell, line 3', 'In[5] line 3')
    """
    told = full_call_site(call_site)
    return told.replace("\\", "/").rpartition("/")[2]


def full_call_site(call_site: str) -> str:
    """As it is, so that an editor or a terminal can follow it; of a notebook's cell only the line.

    >>> full_call_site("/home/ann/jobs/words.py:12"), full_call_site("/tmp/ipykernel_77/716518321.py:3")
    ('/home/ann/jobs/words.py:12', 'cell, line 3')
    """
    file, _, line = call_site.rpartition(":")
    if line.isdecimal() and (place := _in_a_cell(file, int(line))):
        return place
    return f"cell, line {line}" if "/ipykernel_" in file.replace("\\", "/") else call_site
