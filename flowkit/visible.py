r"""Texts of users as people are shown them: nothing in them steers a terminal, or has a line read in another order than it stands there.

Pure; used by all that prints, logs or draws. Control characters, marks and overrides of direction, separators of lines and lone surrogates
are told as ``repr`` tells them. What joins characters of a script or an emoji stays, and so do letters of every language.
"""

from __future__ import annotations

import html
import re
from typing import Any, Final

_UNSEEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff]")


def visible(text: str) -> str:
    r"""A text whose lines and tabs stay, and all else that is unseen is told.

    >>> visible("red: \x1b[31m\r\nzwei"), visible("\u202eexe.txt")
    ('red: \\x1b[31m\\r\nzwei', '\\u202eexe.txt')
    """
    # All that is unseen is not printable, and that is found a hundred times as fast.
    return text if text.replace("\n", " ").replace("\t", " ").isprintable() else _UNSEEN.sub(_told, text)


def in_one_line(text: str) -> str:
    r"""A text that stays one line whatever is in it: a name in a list, a row of a table.

    >>> in_one_line("a\nb\t\x07")
    'a\\nb\\t\\x07'
    """
    return text if text.isprintable() else visible(text).replace("\n", "\\n").replace("\t", "\\t")


def as_html(text: str) -> str:
    r"""A text as markup shows it, also as the value of an attribute.

    >>> as_html("<b>\x1b")
    '&lt;b&gt;\\x1b'
    """
    return html.escape(visible(text), quote=True)


def all_visible(value: Any) -> Any:
    r"""Plain data (mappings, lists, texts, numbers) with its texts made visible.

    >>> all_visible({"a": ["\x1b", 1]})
    {'a': ['\\x1b', 1]}
    """
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(key) if isinstance(key, str) else key: all_visible(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [all_visible(each) for each in value]
    return value


def _told(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]
