"""Complaints at the call, of RDDs: those of ``model.checks``, and which side a call is on. Runs on the driver."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from flowkit.errors import InvalidArgument
from flowkit.execution.sides import check_on_driver
from flowkit.model.checks import (
    check_bool,
    check_callable,
    check_codec,
    check_int,
    check_names,
    check_number,
    check_path,
    check_seconds,
    check_str,
)

__all__ = [
    "check_bool",
    "check_callable",
    "check_codec",
    "check_columns",
    "check_delimiter",
    "check_encoding",
    "check_int",
    "check_names",
    "check_number",
    "check_on_driver",
    "check_partitions",
    "check_path",
    "check_seconds",
    "check_str",
]


def check_partitions(partitions: Any, count: int) -> Sequence[int]:
    """Refuse what isn't several of ``count`` partitions, each once.

    >>> check_partitions([2, 0], 3)
    [2, 0]
    >>> check_partitions([0, 3], 3)
    Traceback (most recent call last):
        ...
    flowkit.errors.InvalidArgument: partitions[1] = 3: must be a whole number from 0 to 2
    """
    if not isinstance(partitions, Iterable) or isinstance(partitions, str | bytes):
        raise InvalidArgument(
            f"partitions = {partitions!r}: must be several, as in [0, 1]", name="partitions", value=partitions, allowed="a list"
        )
    chosen: list[int] = []
    seen: dict[int, int] = {}
    for place, value in enumerate(partitions):
        name = f"partitions[{place}]"
        if isinstance(value, bool) or not hasattr(type(value), "__index__") or not 0 <= value.__index__() < count:
            allowed = f"a whole number from 0 to {count - 1}" if count else "left out: there are no partitions"
            raise InvalidArgument(f"{name} = {value!r}: must be {allowed}", name=name, value=value, allowed=allowed)
        number = int(value.__index__())
        if seen.setdefault(number, place) != place:
            raise InvalidArgument(
                f"{name} = {value!r}: is partitions[{seen[number]}] as well; each may be asked for once",
                name=name,
                value=value,
                allowed="each partition once",
            )
        chosen.append(number)
    return chosen


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


def check_columns(columns: Any) -> tuple[str, ...] | None:
    """Names of columns as a tuple; refuses one name in place of a list, an empty list, and names that are not distinct.

    >>> check_columns(["a", "b", "a"])
    Traceback (most recent call last):
        ...
    flowkit.errors.InvalidArgument: columns = ['a', 'b', 'a']: a stands there twice
    """
    if columns is None:
        return None
    allowed = "a list of distinct names"
    names = check_names("columns", columns)
    if not names or "" in names:
        raise InvalidArgument(
            f"columns = {columns!r}: must be names, one or more", name="columns", value=columns, allowed=allowed
        )
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise InvalidArgument(
            f"columns = {columns!r}: {', '.join(twice)} stands there twice", name="columns", value=columns, allowed=allowed
        )
    return names
