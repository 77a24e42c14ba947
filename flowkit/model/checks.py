"""Complaints at the call: the argument's name, its value, what is allowed. Pure; used wherever users call."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from flowkit.errors import InvalidArgument, WrongType
from flowkit.model.shown import short


def refuse(name: str, value: object, allowed: str, *, wrong_type: bool = True) -> NoReturn:
    """Raise ``WrongType``, or ``InvalidArgument`` for a value of the right type.

    >>> refuse("seed", "x", "a whole number")
    Traceback (most recent call last):
        ...
    flowkit.errors.WrongType: seed = 'x': must be a whole number
    """
    kind = WrongType if wrong_type else InvalidArgument
    raise kind(f"{name} = {short(value)}: must be {allowed}", name=name, value=value, allowed=allowed)


def check_callable(name: str, value: object) -> None:
    """Refuse what can't be called.

    >>> check_callable("fn", 3)
    Traceback (most recent call last):
        ...
    flowkit.errors.WrongType: fn = 3: must be callable, not int
    """
    if not callable(value):
        refuse(name, value, f"callable, not {type(value).__name__}")


def check_int(name: str, value: Any, *, least: int | None = None) -> int:
    """Refuse what isn't a whole number, of ``least`` or more where given.

    >>> check_int("num_partitions", 0, least=1)
    Traceback (most recent call last):
        ...
    flowkit.errors.InvalidArgument: num_partitions = 0: must be a whole number of 1 or more
    """
    is_int = not isinstance(value, bool) and hasattr(type(value), "__index__")
    if not is_int or (least is not None and value < least):
        allowed = "a whole number" if least is None else f"a whole number of {least} or more"
        refuse(name, value, allowed, wrong_type=not is_int)
    return int(value.__index__())


def check_number(name: str, value: Any, allowed: str, fits: Callable[[float], bool]) -> None:
    """Refuse what isn't a number, or one that does not fit; NaN never does.

    >>> check_number("fraction", -0.5, "a number of 0 or more", lambda x: x >= 0)
    Traceback (most recent call last):
        ...
    flowkit.errors.InvalidArgument: fraction = -0.5: must be a number of 0 or more
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or math.isnan(value) or not fits(value):
        refuse(name, value, allowed, wrong_type=not is_number)


def check_seconds(name: str, value: Any) -> None:
    """Refuse what isn't a time to wait: a number above 0, infinite too."""
    check_number(name, value, "a number of seconds above 0", lambda seconds: seconds > 0)


def check_bool(name: str, value: Any) -> None:
    """Refuse what isn't True or False: ``ascending="no"`` would be true.

    >>> check_bool("ascending", "no")
    Traceback (most recent call last):
        ...
    flowkit.errors.WrongType: ascending = 'no': must be True or False
    """
    # numpy's own too, by name: nobody need have imported it.
    if not isinstance(value, bool) and type(value).__name__ not in {"bool_", "bool"}:
        refuse(name, value, "True or False")


def check_str(name: str, value: Any) -> None:
    """Refuse what isn't text."""
    if not isinstance(value, str):
        refuse(name, value, f"a str, not {type(value).__name__}")


def check_path(name: str, value: Any) -> str:
    """The path as a text. Refuse what is none, or empty.

    >>> check_path("path", b"data")
    Traceback (most recent call last):
        ...
    flowkit.errors.WrongType: path = b'data': must be a path, a str or Path, not bytes
    """
    if not isinstance(value, str) and not hasattr(type(value), "__fspath__"):
        refuse(name, value, f"a path, a str or Path, not {type(value).__name__}")
    text = value if isinstance(value, str) else value.__fspath__()
    if not isinstance(text, str):
        refuse(name, value, f"a path of text, not of {type(text).__name__}")
    if not text.strip() or "\0" in text:
        refuse(name, value, "a path that is not empty" if not text.strip() else "a path without zero bytes", wrong_type=False)
    return text


def check_mapping(name: str, value: Any) -> None:
    """Refuse what isn't a mapping."""
    if not isinstance(value, Mapping):
        refuse(name, value, f"a mapping, not {type(value).__name__}")


def check_iterable(name: str, value: Any, allowed: str = "an iterable") -> None:
    """Refuse what can't be iterated over."""
    try:
        iter(value)
    except TypeError:
        refuse(name, value, f"{allowed}, not {type(value).__name__}")


def check_names(name: str, value: Any) -> tuple[str, ...]:
    """Refuse what isn't several texts: a lone ``str`` would be one of letters.

    >>> check_names("columns", "id")
    Traceback (most recent call last):
        ...
    flowkit.errors.WrongType: columns = 'id': must be a list of names, as ['id']
    """
    if isinstance(value, str):
        refuse(name, value, f"a list of names, as [{value!r}]")
    if isinstance(value, bytes | bytearray):
        refuse(name, value, "a list of names, not bytes")
    check_iterable(name, value, "a list of names")
    names = tuple(value)
    for index, each in enumerate(names):
        if not isinstance(each, str):
            refuse(f"{name}[{index}]", each, f"a str, not {type(each).__name__}")
    return names


def check_codec(name: str, value: Any, look_up: Callable[[str], object]) -> None:
    """Refuse the name of an encoding, or of a way to treat its errors, that Python does not know.

    >>> import codecs
    >>> check_codec("encoding", "klingon", codecs.lookup)
    Traceback (most recent call last):
        ...
    flowkit.errors.InvalidArgument: encoding = 'klingon': Python knows none of this name
    """
    try:
        look_up(value)
    except (LookupError, TypeError):
        raise InvalidArgument(
            f"{name} = {value!r}: Python knows none of this name", name=name, value=value, allowed="one that Python's codecs know"
        ) from None
