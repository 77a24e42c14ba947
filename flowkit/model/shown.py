"""Users' values as text for people: cut, and whatever their ``repr`` and ``str`` do."""

from __future__ import annotations

from typing import Any, Final

from flowkit.visible import visible

_qualified_name: Final = vars(type)["__qualname__"].__get__
#: of a subclass of ``str`` the plain text: its methods are the user's
_plain: Final = str.__str__


def class_name(value: object) -> str:
    """The name of a value's class; never raises, whatever its metaclass does.

    >>> class_name(KeyError("a"))
    'KeyError'
    """
    name: str = _qualified_name(type(value))
    return name


def short(value: Any, limit: int = 200) -> str:
    """``repr``, cut; never raises.

    >>> short("a" * 20, 10)
    "'aaaaaa..."
    """
    try:
        text = _plain(repr(value))
    except BaseException as error:  # a repr may raise SystemExit, and whoever asked has something else to do
        return f"<{class_name(value)} whose repr raises {class_name(error)}>"
    return visible(text if len(text) <= limit else text[: limit - 3] + "...")


def text_of(value: object) -> str:
    """``str`` of an exception, or of anything; never raises.

    >>> text_of(KeyError("a"))
    "'a'"
    """
    try:
        return _plain(str(value))
    except BaseException as failed:
        return f"<its str() raises {class_name(failed)}>"


def in_words(error: BaseException, limit: int = 8 << 10) -> str:
    """What an exception is and says; cut, and never raises.

    >>> in_words(KeyError("a")), in_words(SystemExit())
    ("KeyError: 'a'", 'SystemExit')
    """
    text = cut(text_of(error), limit)
    return f"{class_name(error)}: {text}" if text else class_name(error)


def first_line_of(error: BaseException) -> str:
    """As ``in_words``, of its text the first line alone.

    >>> first_line_of(ValueError("one" + chr(10) + "two"))
    'ValueError: one'
    """
    return in_words(error).partition("\n")[0]


def cut(text: str, limit: int) -> str:
    """The beginning of a long text, and how much more there was.

    >>> cut("a" * 20, 10), cut("a" * 10, 10)
    ('aaaaaaaaaa... (10 more characters)', 'aaaaaaaaaa')
    """
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit:,} more characters)"
