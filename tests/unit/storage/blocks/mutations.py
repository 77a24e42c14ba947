"""Rows of all kinds, what they look like down to who shares what, and every way to change them."""

from __future__ import annotations

import enum
import math
import re
from array import array
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any, Generic, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import strategies as st

Point = namedtuple("Point", "x y")
T = TypeVar("T")


class Text(str):  # noqa: SLOT000 - so that it has attributes
    """Has attributes of its own."""


class Word(str):
    __slots__ = ("note",)


class Whole(int):
    __slots__ = ()


class Pair(tuple):  # noqa: SLOT001 - so that it has attributes
    """Has attributes of its own."""


class Bag(list):
    pass


class Table(dict):
    pass


class Colour(enum.Enum):
    RED = 1


class Slotted:
    __slots__ = ("first", "second")

    def __init__(self, first: Any = None) -> None:
        self.first = first


class Plain:
    def __init__(self, held: Any = None) -> None:
        self.held = held


@dataclass
class Record:
    name: Any
    values: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen(Generic[T]):
    held: Any


@dataclass(frozen=True, slots=True)
class FrozenSlots:
    held: Any


@dataclass(frozen=True)
class Remembering:
    held: int

    @cached_property
    def squares(self) -> list[int]:
        return [self.held**2]


def read_only(values: np.ndarray) -> np.ndarray:
    values.flags.writeable = False
    return values


IMMUTABLE = [
    None,
    ...,
    True,
    1,
    2**70,
    1.5,
    math.nan,
    2j,
    "text",
    b"bytes",
    range(3),
    Decimal("1.50"),
    Fraction(1, 3),
    UUID(int=5),
    date(2026, 1, 2),
    datetime(2026, 1, 2),  # noqa: DTZ001 - one without a time zone is meant
    datetime(2026, 1, 2, tzinfo=UTC),
    datetime(2026, 1, 2, tzinfo=ZoneInfo("UTC")),
    time(1, 2),
    timedelta(1),
    Colour.RED,
    re.compile("a+"),
    np.float64(1.5),
    np.int8(3),
    np.datetime64("2026-01-02"),
    Whole(3),
    (),
    (1, ("a", (None,))),
    frozenset({1, ("a", 2)}),
    Point(1, "a"),
    Frozen(1),
    Frozen((1, Frozen("a"))),
    FrozenSlots("a"),
    read_only(np.arange(3)),
    np.frombuffer(b"abcdefgh", np.int64),
    read_only(np.arange(8))[::2],
]

#: made anew for each use
MUTABLE = {
    "list": lambda: [1],
    "dict": lambda: {"a": 1},
    "set": lambda: {1},
    "bytearray": lambda: bytearray(b"a"),
    "deque": lambda: deque([1], maxlen=5),
    "array": lambda: array("d", [1.0]),
    "numpy": lambda: np.arange(3),
    "numpy, of no dimension": lambda: np.array(5),
    "numpy, a read-only view of what is not": lambda: read_only(np.arange(8)[::2]),
    "numpy, objects": lambda: np.array([[1], None], object),
    "numpy, read-only objects": lambda: read_only(np.array([[1], None], object)),
    "numpy, a record": lambda: np.zeros(1, [("a", int)])[0],
    "defaultdict": lambda: defaultdict(list, a=1),
    "defaultdict that counts": lambda: defaultdict(Slotted(3).__reduce__, a=1),
    "Counter": lambda: Counter("aab"),
    "OrderedDict": lambda: OrderedDict(a=1),
    "list with a subclass": lambda: Bag([1]),
    "dict with a subclass": lambda: Table(a=1),
    "text with attributes": lambda: Text("a"),
    "text with a slot": lambda: Word("a"),
    "tuple with attributes": lambda: Pair((1, 2)),
    "object": lambda: Plain([1]),
    "object with slots": lambda: Slotted([1]),
    "dataclass": lambda: Record("a", [1]),
    "dataclass that remembers": lambda: Remembering(3),
    "tuple of a list": lambda: (1, [2]),
    "tuple in a tuple": lambda: (1, ("a", {"b": [2]})),
    "named tuple of a list": lambda: Point(1, [2]),
    "frozen dataclass of a list": lambda: Frozen([1]),
    "frozen dataclass with slots": lambda: FrozenSlots([1]),
    "frozen set of objects": lambda: frozenset({Plain(1)}),
    "list of lists": lambda: [[1], [2]],
    "time zone of one's own": lambda: datetime(2026, 1, 2, tzinfo=Zone()),
}


class Zone(type(UTC).__base__):
    """A time zone that has attributes."""

    def utcoffset(self, _when: Any) -> timedelta:
        return timedelta(0)

    def dst(self, _when: Any) -> timedelta:
        return timedelta(0)

    def tzname(self, _when: Any) -> str:
        return "own"


_immutable = st.sampled_from(IMMUTABLE) | st.integers() | st.text(max_size=3) | st.floats()
_hashable = (
    st.integers() | st.text(max_size=3) | st.tuples(st.integers(), st.text(max_size=2)) | st.sampled_from([Colour.RED, None])
)
_flat = st.one_of(
    st.lists(_immutable, max_size=4),
    st.dictionaries(_hashable, _immutable, max_size=3),
    st.sets(_hashable, max_size=3),
    st.builds(bytearray, st.binary(max_size=3)),
    st.builds(lambda values: deque(values, maxlen=9), st.lists(_immutable, max_size=3)),
    st.builds(lambda values: np.array(values, float), st.lists(st.integers(0, 9), max_size=3)),
    st.sampled_from(sorted(MUTABLE)).map(lambda name: MUTABLE[name]()),
)


def _deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(_hashable, inner, max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Pair, st.lists(inner, max_size=2)),
        st.builds(Frozen, inner),
        st.builds(FrozenSlots, inner),
        st.builds(Plain, inner),
        st.builds(Slotted, inner),
        st.builds(lambda held: (held, 1, held), inner),
        st.builds(lambda held: [held, held], inner),
    )


def _in_itself(held: Any) -> list[Any]:
    ring = [held]
    ring.append(ring)
    return ring


VALUES = st.recursive(_immutable | _flat, _deeper, max_leaves=6)
ROWS = VALUES | st.builds(_in_itself, VALUES)
#: rows that look alike, as most do
COLUMNS = st.one_of(
    st.lists(ROWS, max_size=8),
    st.lists(st.tuples(_hashable, st.lists(st.integers(), max_size=3)), max_size=8),
    st.lists(st.builds(Point, st.integers(), st.lists(st.integers(), max_size=3) | st.none()), max_size=8),
    st.lists(
        st.tuples(st.integers(), st.tuples(st.sets(st.integers(), max_size=2), st.dictionaries(st.text(), st.floats()))),
        max_size=8,
    ),
    st.lists(st.dictionaries(st.sampled_from("abc"), st.integers() | st.none()), max_size=8),
)


def look(row: Any) -> Any:
    """All there is to see of a row: types, values, and which of its objects are one and the same."""
    return _look(row, {})


def _look(value: Any, seen: dict[int, int]) -> Any:  # noqa: PLR0911
    kind = type(value)
    if kind is float:
        return kind, value.hex()
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.hasobject:
            return kind, _look(value.tolist(), seen)
        return kind, str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, int | str | bytes) and kind.__dictoffset__ == 0:
        return kind, value
    if kind in {tuple, frozenset, Point}:
        parts = [_look(each, seen) for each in value]
        return kind, sorted(parts, key=repr) if kind is frozenset else parts
    if isinstance(value, datetime):
        return kind, str(value), _look(value.tzinfo, seen)
    if id(value) in seen:
        return seen[id(value)]
    if kind.__module__ == __name__ or isinstance(value, list | dict | set | deque | bytearray | array):
        seen[id(value)] = len(seen)
    return kind, _parts(value, seen)


def _parts(value: Any, seen: dict[int, int]) -> Any:
    parts: list[Any] = []
    if isinstance(value, dict):
        parts += [(_look(key, seen), _look(each, seen)) for key, each in value.items()]
    elif isinstance(value, set):
        parts += sorted((_look(each, seen) for each in value), key=repr)
    elif isinstance(value, list | tuple | deque):
        parts += [_look(each, seen) for each in value]
    elif isinstance(value, bytearray | array):
        parts.append(bytes(value))
    elif type(value).__module__ != __name__:
        parts.append(repr(value))
    if isinstance(value, str):
        parts.append(str.__str__(value))
    if type(value).__module__ == __name__:
        parts += [(name, _look(each, seen)) for name, each in sorted(getattr(value, "__dict__", {}).items())]
        parts += [
            _look(getattr(value, name, None), seen) for name in getattr(type(value), "__slots__", ()) if name != "__weakref__"
        ]
    return parts


def change(value: Any, seen: set[int] | None = None) -> None:
    """Change a value and all that it holds, in every way there is."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    for part in _held_by(value):
        change(part, seen)
    match value:
        case np.ndarray() if value.flags.writeable:
            value[...] = None if value.dtype.hasobject else 77
        case np.void():
            value["a"] = 99
        case list() | deque():
            value.append("more")
        case dict():
            value.clear()
            value["more"] = [1]
        case set():
            value.clear()
            value.add("more")
        case bytearray():
            value += b"more"
        case array():
            value.append(9)
    if type(value).__module__ == __name__ and not isinstance(value, enum.Enum):
        for name in ("held", "first", "note", "name", "added"):
            try:
                setattr(value, name, "changed")
            except (AttributeError, TypeError):
                continue
        if isinstance(value, Remembering):
            value.squares.append(1)


def _held_by(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        return value.ravel().tolist() if value.dtype.hasobject else []
    parts: list[Any] = []
    if isinstance(value, dict):
        parts += value.values()
    if isinstance(value, dict | list | tuple | set | frozenset | deque):
        parts += value
    if isinstance(value, datetime):
        parts.append(value.tzinfo)
    parts += getattr(value, "__dict__", {}).values() if type(value).__module__ == __name__ else ()
    parts += [getattr(value, name, None) for name in getattr(type(value), "__slots__", ()) if type(value).__module__ == __name__]
    return parts
