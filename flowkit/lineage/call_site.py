"""Where the user's code called flowkit: the innermost frame outside of it. Runs on the driver."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

_OWN = __file__.replace("\\", "/").rpartition("/lineage/")[0] + "/"


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
    while frame is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    return "" if frame is None else _place(frame.f_code.co_filename, frame.f_lineno)


#: what says which cell of a notebook a file name stands for; empty for none
_cell_of: Callable[[str], str] = lambda _: ""  # noqa: E731 - what ``name_cells`` puts in its place


def name_cells(cell_of: Callable[[str], str] | None) -> None:
    """Let call sites name the cells of a notebook.

    Parameters
    ----------
    cell_of
        ``In[5]`` for the file name that code of a cell has, ``""`` for any other; None: cells have no names any more.
    """
    global _cell_of
    _cell_of = cell_of or (lambda _: "")


def _place(file: str, line: int) -> str:
    cell = _cell_of(file)
    return f"{cell} line {line}" if cell else f"{file}:{line}"


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
    if cell := _cell_of(file):
        return f"{cell} line {line}"
    return f"cell, line {line}" if "/ipykernel_" in file.replace("\\", "/") else call_site
