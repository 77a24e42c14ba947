"""Users' values as text for people: cut, and whatever their ``repr`` and ``str`` do."""

from __future__ import annotations

from typing import Any

from flowkit.visible import visible


def short(value: Any, limit: int = 200) -> str:
    """``repr``, cut; never raises.

    >>> short("a" * 20, 10)
    "'aaaaaa..."
    """
    try:
        text = repr(value)
    except BaseException as error:  # a repr may raise SystemExit, and whoever asked has something else to do
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
    return visible(text if len(text) <= limit else text[: limit - 3] + "...")


def text_of(error: BaseException) -> str:
    """``str`` of an exception; never raises.

    >>> text_of(KeyError("a"))
    "'a'"
    """
    try:
        return str(error)
    except BaseException as failed:
        return f"<its str() raises {type(failed).__name__}>"


def cut(text: str, limit: int) -> str:
    """The beginning of a long text, and how much more there was.

    >>> cut("a" * 20, 10), cut("a" * 10, 10)
    ('aaaaaaaaaa... (10 more characters)', 'aaaaaaaaaa')
    """
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit:,} more characters)"
