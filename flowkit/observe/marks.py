"""Marks and words for the states of jobs and stages, the same wherever they are shown. Pure.

``symbol`` and ``inWords`` in ``extensions/view/src/model.js`` are the same in the front end.
"""

from __future__ import annotations

from typing import Final

_MARKS: Final = {
    "waiting": "○",
    "running": "▶",
    "succeeded": "✔",
    "done": "✔",
    "failed": "✘",
    "cancelled": "■",
    "skipped": "↷",
    "not run": "⊘",
}
_WORDS: Final = {"succeeded": "done", "skipped": "skipped: its output exists", "not run": "not run: its job ended before"}


def mark_of(state: str) -> str:
    """Return the mark of a state.

    >>> [mark_of(state) for state in ("failed", "cancelled", "not run", "skipped")]
    ['✘', '■', '⊘', '↷']
    """
    return _MARKS.get(state, "·")


def in_words(state: str) -> str:
    """Return a state in words, with what it means where the word alone may be misread.

    >>> in_words("skipped"), in_words("succeeded"), in_words("failed")
    ('skipped: its output exists', 'done', 'failed')
    """
    return _WORDS.get(state, state)
