"""Where the user's code called flowkit: the innermost frame outside of it. Runs on the driver."""

from __future__ import annotations

import sys

_OWN = __file__.replace("\\", "/").rpartition("/lineage/")[0] + "/"


def find_call_site() -> str:
    """``<full path>:<line>`` of the caller outside flowkit; empty when there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_OWN) or "<" in name:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def short_call_site(call_site: str) -> str:
    """The file's name and the line: what fits into a label.

    >>> short_call_site("/home/ann/jobs/words.py:12")
    'words.py:12'
    """
    return call_site.replace("\\", "/").rpartition("/")[2]
