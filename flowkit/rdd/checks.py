"""Complaints at the call: the argument's name, its value, what is allowed. Runs on the driver."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from flowkit.errors import InvalidArgument, NestedAction
from flowkit.execution.task_context import inside_task


def check_callable(name: str, value: object) -> None:
    """Refuse what can't be called.

    >>> check_callable("fn", 3)
    Traceback (most recent call last):
        ...
    flowkit.errors.InvalidArgument: fn = 3: must be callable, not int
    """
    if not callable(value):
        raise InvalidArgument(
            f"{name} = {value!r}: must be callable, not {type(value).__name__}", name=name, value=value, allowed="a callable"
        )


def check_int(name: str, value: Any, *, least: int | None = None) -> int:
    """Refuse what isn't a whole number, of ``least`` or more where given.

    >>> check_int("num_partitions", 0, least=1)
    Traceback (most recent call last):
        ...
    flowkit.errors.InvalidArgument: num_partitions = 0: must be a whole number of 1 or more
    """
    if isinstance(value, bool) or not hasattr(type(value), "__index__") or (least is not None and value < least):
        allowed = "a whole number" if least is None else f"a whole number of {least} or more"
        raise InvalidArgument(f"{name} = {value!r}: must be {allowed}", name=name, value=value, allowed=allowed)
    return int(value.__index__())


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


def check_path(path: Any) -> None:
    """Refuse what is no path to write to.

    >>> check_path("")
    Traceback (most recent call last):
        ...
    flowkit.errors.InvalidArgument: path = '': must be a path
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise InvalidArgument(f"path = {path!r}: must be a path", name="path", value=path, allowed="a str or Path")


def check_encoding(encoding: Any) -> None:
    """Refuse what names no encoding of text: Python's codecs are also of other kinds.

    >>> check_encoding("rot13")
    Traceback (most recent call last):
        ...
    flowkit.errors.InvalidArgument: encoding = 'rot13': names no encoding of text that Python knows
    """
    try:
        "".encode(encoding)
    except (LookupError, TypeError, ValueError):
        raise InvalidArgument(
            f"encoding = {encoding!r}: names no encoding of text that Python knows",
            name="encoding",
            value=encoding,
            allowed="one such as utf-8, utf-16, latin-1",
        ) from None


def check_delimiter(delimiter: Any) -> None:
    """Refuse what cannot stand between the fields of a CSV line."""
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise InvalidArgument(
            f"delimiter = {delimiter!r}: must be one character, and neither a quote nor the end of a line",
            name="delimiter",
            value=delimiter,
            allowed="one character",
        )


def check_columns(columns: Any) -> tuple[Any, ...] | None:
    """Names of columns as a tuple; refuses one name in place of a list, an empty list, and names that are not distinct.

    >>> check_columns(["a", "b", "a"])
    Traceback (most recent call last):
        ...
    flowkit.errors.InvalidArgument: columns = ['a', 'b', 'a']: a stands there twice
    """
    if columns is None:
        return None
    allowed = "a list of distinct names"
    if isinstance(columns, str | bytes):
        raise InvalidArgument(f"columns = {columns!r}: must be a list of names", name="columns", value=columns, allowed=allowed)
    names = tuple(columns)
    texts = [str(name) for name in names]
    if not names or "" in texts:
        raise InvalidArgument(
            f"columns = {columns!r}: must be names, one or more", name="columns", value=columns, allowed=allowed
        )
    if twice := [text for text in dict.fromkeys(texts) if texts.count(text) > 1]:
        raise InvalidArgument(
            f"columns = {columns!r}: {', '.join(twice)} stands there twice", name="columns", value=columns, allowed=allowed
        )
    return names


def check_on_driver(what: str) -> None:
    """Refuse to run jobs from inside a task."""
    if inside_task():
        raise NestedAction(
            f"{what} was called inside a task; actions, RDDs and Contexts exist on the driver only. Join the RDDs, or collect "
            "the smaller one first and use the values"
        )
