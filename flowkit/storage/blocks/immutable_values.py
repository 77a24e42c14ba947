"""Which values nobody can change: those may be read by several tasks at once, without a copy.

Pure; runs on slot threads. Types decide, and every value is looked at: a sample could miss the one list among a million numbers. What is
not known to be immutable counts as mutable. Ways around a type's own protection (``object.__setattr__`` on a frozen dataclass,
``setflags(write=True)`` on an array) are not guarded against.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from itertools import chain
from pathlib import PosixPath, PurePosixPath, PureWindowsPath
from re import Match, Pattern
from types import MemberDescriptorType
from typing import Any, Final
from uuid import UUID
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

import numpy as np

#: what values of one type hold that must be immutable too; None: one of these values can itself be changed
Parts = Callable[[Sequence[Any]], Iterable[Any] | None]

#: types whose values hold nothing that could be changed
ATOMS: Final = frozenset(
    {type(None), type(...), type(NotImplemented), bool, int, float, complex, str, bytes, range, Decimal, Fraction, UUID}
    | {date, timedelta, timezone, ZoneInfo, Pattern, PosixPath, PurePosixPath, PureWindowsPath, IPv4Address, IPv6Address}
)
#: a subclass of these that adds no attributes is as immutable as they are
_BARE_BASES: Final = (int, float, complex, str, bytes)
_ARROW: Final = ("Array", "ChunkedArray", "RecordBatch", "Table", "Scalar", "Schema", "Field", "DataType")
#: tuples in tuples that are looked through; what lies deeper counts as mutable
_DEPTH: Final = 32
_POINTER_BYTES: Final = 8


def are_immutable(values: Sequence[Any]) -> bool:
    """Return whether nobody can change any of the values, or anything they hold.

    Cost: about 15 ns a value and level of nesting.

    >>> are_immutable([1, "a", (2, ("b", None))]), are_immutable([1, (2, [])])
    (True, False)
    """
    kinds = set(map(type, values))
    for _ in range(_DEPTH):
        if kinds <= ATOMS:
            return True
        inner: list[Any] = []
        inner_kinds: set[type] = set()
        for kind in kinds - ATOMS:
            parts_of = _parts_of(kind)
            own = values if len(kinds) == 1 else [value for value in values if type(value) is kind]
            parts = parts_of(own)
            if parts is None:
                return False
            found = set(map(type, parts))
            if found <= ATOMS:
                continue
            if any(_parts_of(each) is _mutable for each in found - ATOMS):
                return False
            inner_kinds |= found
            inner += parts_of(own) or ()
        values, kinds = inner, inner_kinds
    return False


def declare_immutable(kind: type) -> None:
    """Have values of a type of ours count as immutable."""
    _known[kind] = _nothing


def is_plain_tuple(kind: type) -> bool:
    """Return whether a type is ``tuple``, or a named tuple: a subclass that adds no attributes.

    >>> from collections import namedtuple
    >>> is_plain_tuple(namedtuple("Point", "x y")), is_plain_tuple(list)
    (True, False)
    """
    return issubclass(kind, tuple) and _adds_nothing_to(tuple, kind)


# -- what values of a type hold ----------------------------------------------------------------------------------------


def _nothing(_values: Sequence[Any]) -> Iterable[Any]:
    return ()


def _mutable(_values: Sequence[Any]) -> None:
    return None


def _elements(values: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
    return chain.from_iterable(values)


def _fields(values: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
    return chain.from_iterable(map(tuple.__iter__, values))  # past an __iter__ of the subclass


def _time_zones(values: Sequence[datetime | time]) -> Iterable[Any]:
    return {id(value.tzinfo): value.tzinfo for value in values}.values()


def _searched(values: Sequence[Match[Any]]) -> Iterable[Any]:
    return [value.string for value in values]


def _read_only_arrays(values: Sequence[Any]) -> Iterable[Any] | None:
    return () if all(map(_is_read_only, values)) else None


def _is_read_only(array: np.ndarray[Any, Any]) -> bool:
    """Return whether an array and all that it is a view of are read-only."""
    base: Any = array
    while type(base) is np.ndarray:
        if base.flags.writeable or base.dtype.hasobject:
            return False
        if base.base is None:
            return bool(base.flags.owndata)
        base = base.base
    return type(base) is bytes


_BUILT_IN: Final[dict[type, Parts]] = {
    tuple: _elements,
    frozenset: chain.from_iterable,
    datetime: _time_zones,
    time: _time_zones,
    Match: _searched,
    np.ndarray: _read_only_arrays,
}
#: what was found out about types so far
_known: WeakKeyDictionary[type, Parts] = WeakKeyDictionary(_BUILT_IN)


def _parts_of(kind: type) -> Parts:
    found = _known.get(kind)
    if found is None:
        found = _known[kind] = _examined(kind)
    return found


def _examined(kind: type) -> Parts:
    if issubclass(kind, Enum):
        return _nothing  # one object in a process, whatever is done
    if is_plain_tuple(kind):
        return _fields
    if any(issubclass(kind, base) and _adds_nothing_to(base, kind) for base in _BARE_BASES) or _is_array_scalar(kind):
        return _nothing
    if _is_arrow(kind):
        return _nothing
    return _state_of_frozen_dataclass(kind) or _mutable


def _adds_nothing_to(base: type, kind: type) -> bool:
    return kind.__dictoffset__ == 0 and kind.__basicsize__ == base.__basicsize__


def _is_array_scalar(kind: type) -> bool:
    return issubclass(kind, np.generic) and kind.__module__ == "numpy" and kind is not np.void


def _is_arrow(kind: type) -> bool:
    pyarrow = sys.modules.get("pyarrow.lib")
    return (
        pyarrow is not None
        and kind.__module__ == "pyarrow.lib"
        and issubclass(kind, tuple(getattr(pyarrow, name) for name in _ARROW))
    )


def _state_of_frozen_dataclass(kind: type) -> Parts | None:
    """Return what reads all attributes of a frozen dataclass, None for any other type, and where there may be more than attributes."""
    parameters = vars(kind).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        return None
    held = [each for base in kind.__mro__ for each in vars(base).values()]
    if any(isinstance(each, cached_property) for each in held):
        return None  # writes into the instance, past the dataclass's protection
    slots = [each for each in held if isinstance(each, MemberDescriptorType)]
    offsets = (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)
    if kind.__basicsize__ != object.__basicsize__ + _POINTER_BYTES * (len(slots) + offsets):
        return None  # it derives from a type written in C, with a state of its own
    has_dict = kind.__dictoffset__ != 0

    def state(values: Sequence[Any]) -> Iterable[Any]:
        for value in values:
            if has_dict:
                yield from vars(value).values()
            for slot in slots:
                with suppress(AttributeError):  # never set
                    yield slot.__get__(value)

    return state
