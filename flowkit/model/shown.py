"""Users' values as text for people: cut, and whatever their ``repr`` does."""

from __future__ import annotations

from typing import Any


def short(value: Any, limit: int = 200) -> str:
    """``repr``, cut; never raises.

    >>> short("a" * 20, 10)
    "'aaaaaa..."
    """
    try:
        text = repr(value)
    except Exception as error:
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."
