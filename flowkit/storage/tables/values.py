"""A column of Python values as an Arrow array whose values are equal to them, or the first that has no place in it.

Runs on slot threads; stateless. What a column holds is seen by the set of its values' exact types, which costs some 15 ns a value; a
type that is known then needs no comparison afterwards. Values of other types are made by Arrow and compared with what they became.
"""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.types as kinds

from flowkit.storage.tables.casts import Unfit, cast_exactly, first_bad, lists_of
from flowkit.storage.tables.widening import EMPTY, is_list

#: its functions are made when it is imported, so type checkers see none of them
pc: Any = pyarrow.compute

_ARROW_ERRORS: Final = (pa.ArrowException, TypeError, ValueError, OverflowError)
#: microseconds since 1970 of the first and the last moment that ``datetime`` has
_FIRST_MOMENT, _LAST_MOMENT = -62_135_596_800_000_000, 253_402_300_799_999_999
_LEAST_INT, _LARGEST_INT = -(1 << 63), (1 << 64) - 1
#: different names that mappings may have between them, if each has few of them
_MANY_NAMES: Final = 10_000
#: levels of lists and mappings
_DEPTH: Final = 100

#: what a type belongs to, by its base class; the first that fits
_FAMILIES: Final[tuple[tuple[type, str], ...]] = (
    (np.generic, "numpy scalars"),
    (bool, "bool"),
    (int, "int"),
    (float, "float"),
    (str, "str"),
    (bytes, "bytes"),
    (bytearray, "bytes"),
    (memoryview, "bytes"),
    (dt.datetime, "datetime"),
    (dt.date, "date"),
    (dt.time, "time"),
    (dt.timedelta, "timedelta"),
    (decimal.Decimal, "Decimal"),
    (list, "list"),
    (tuple, "list"),
    (np.ndarray, "array"),
    (Mapping, "mapping"),
)
_FAMILY_OF: Final = dict(_FAMILIES)


def array_of(values: Sequence[Any], depth: int = 0) -> pa.Array:
    """The values as a column of the narrowest type for all of them; ints beside floats are floats, beside Decimals Decimals.

    Raises ``Unfit``.

    >>> array_of([1, 2.5, None]).to_pylist()
    [1.0, 2.5, None]
    >>> array_of([{"a": 1}, {"b": "x"}]).type
    StructType(struct<a: int64, b: string>)
    """
    if depth > _DEPTH:
        raise Unfit(0, values[0], f"is nested deeper than {_DEPTH} levels")
    types = set(map(type, values))
    types.discard(type(None))
    families = {_family(each) for each in types}
    if "numpy scalars" in families:
        return array_of(_without_numpy(values), depth)
    match sorted(families):
        case []:
            return pa.nulls(len(values))
        case [family] if family in _MAKERS:
            return _MAKERS[family](values, types)
        case ["list"]:
            return _lists(values, depth)
        case ["array"]:
            return _arrays(values, depth)
        case ["array", "list"]:
            return _lists([each.tolist() if isinstance(each, np.ndarray) else each for each in values], depth)
        case ["mapping"]:
            return _mappings(values, depth)
        case ["float", "int"]:
            return _floats_of_both(values)
        case ["Decimal", "int"]:
            return _decimals([decimal.Decimal(each) if isinstance(each, int) else each for each in values], types)
        case ["other"]:
            return compared(values, None)
        case _:
            raise _mixed(values)


def column_of(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """The values as a column of a type that is given.

    Raises ``Unfit``.
    """
    if _is_arrows_own(kind):
        return compared(values, kind)
    types = set(map(type, values)) - {type(None)}
    if kinds.is_decimal(kind) and int in types:  # of more than 64 bits, too
        values = [decimal.Decimal(each) if type(each) is int else each for each in values]
    if kinds.is_floating(kind) and int in types and types <= {int, float}:
        return cast_exactly(_floats_of_both(values, f"does not fit {kind}"), kind)
    return cast_exactly(array_of(values), kind)


def _family(kind: type) -> str:
    known = _FAMILY_OF.get(kind)
    if known is not None:
        return known
    return next((family for base, family in _FAMILIES if issubclass(kind, base)), "other")


def _mixed(values: Sequence[Any]) -> Unfit:
    present = [(place, value) for place, value in enumerate(values) if value is not None]
    first = present[0][1]
    together = ({"int", "float"}, {"int", "Decimal"}, {"list", "array"})
    for place, value in present:
        families = {_family(type(first)), _family(type(value))}
        if len(families) > 1 and families not in together:
            return Unfit(place, value, f"stands in one column with {type(first).__name__} values ({_cut(first)})")
    return Unfit(present[-1][0], present[-1][1], "stands in one column with values of other types")


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def are_scattered(names: Sequence[Any] | Mapping[Any, Any], rows: Sequence[Mapping[Any, Any]]) -> bool:
    """Whether mappings have so many names between them, and each so few, that names must be data: a column of each would fill memory."""
    return len(names) > _MANY_NAMES and len(names) > 2 * max(map(len, rows))


# -- plain values ----------------------------------------------------------------------------------------------------------


def _made(values: Sequence[Any], kind: pa.DataType | None, reason: str) -> pa.Array:
    """By Arrow; its refusal as that of the value it refuses."""
    try:
        array = pa.array(values, kind)
    except _ARROW_ERRORS:
        place = first_bad(values, lambda part: _is_accepted(part, kind))
        if place is None:
            raise
        raise Unfit(place, values[place], reason) from None
    if isinstance(array, pa.ChunkedArray):  # more bytes than 32-bit offsets reach
        array = pa.array(values, pa.large_string() if kind == pa.string() else pa.large_binary())
    return array


def _is_accepted(values: Sequence[Any], kind: pa.DataType | None) -> bool:
    try:
        pa.array(values, kind)
    except _ARROW_ERRORS:
        return False
    return True


def _ints(values: Sequence[Any], _types: set[type]) -> pa.Array:
    try:
        return pa.array(values, pa.int64())
    except OverflowError:
        pass
    place = first_bad(values, lambda part: all(each is None or _LEAST_INT <= each <= _LARGEST_INT for each in part))
    if place is not None:
        raise Unfit(place, values[place], "has more than 64 bits; give it as Decimal or text, or a schema with decimal128(38, 0)")
    reason = "is negative beside numbers of 2**63 or more; give them as Decimal or text, or a schema with decimal128(20, 0)"
    return _made(values, pa.uint64(), reason)


def _floats_of_both(
    values: Sequence[Any], reason: str = "stands in one column with floats, of which none is equal to it"
) -> pa.Array:
    for place, value in enumerate(values):
        if isinstance(value, int) and not _is_exact_float(value):
            raise Unfit(place, value, reason)
    return pa.array([None if each is None else float(each) for each in values], pa.float64())


def _is_exact_float(value: int) -> bool:
    try:
        return float(value) == value
    except OverflowError:
        return False


def _texts(values: Sequence[Any], _types: set[type]) -> pa.Array:
    return _made(values, pa.string(), "is no text that UTF-8 has (a lone surrogate)")


def _bytes(values: Sequence[Any], types: set[type]) -> pa.Array:
    if types != {bytes}:
        values = [None if each is None else bytes(each) for each in values]
    return _made(values, pa.binary(), "cannot be stored as bytes")


def _datetimes(values: Sequence[Any], types: set[type]) -> pa.Array:
    if types != {dt.datetime}:
        values = [None if each != each else each for each in values]  # noqa: PLR0124 - pandas.NaT
        _refuse_nanoseconds(values)
    present = [each for each in values if each is not None]
    if not present:
        return pa.nulls(len(values), pa.timestamp("us"))
    zones = {id(each.tzinfo): each.tzinfo for each in present}.values()
    is_aware = present[0].tzinfo is not None
    if len(zones) > 1 and any((zone is not None) != is_aware for zone in zones):
        place = next(n for n, each in enumerate(values) if each is not None and (each.tzinfo is not None) != is_aware)
        has, others = ("no time zone", "one") if is_aware else ("a time zone", "none")
        raise Unfit(place, values[place], f"has {has}, and values before it have {others}")
    if not is_aware:
        return _made(values, pa.timestamp("us"), "is no moment that a timestamp holds")
    if any(each.utcoffset() is None for each in present) if len(zones) > 1 else present[0].utcoffset() is None:
        place = next(n for n, each in enumerate(values) if each is not None and each.utcoffset() is None)
        raise Unfit(place, values[place], "has a time zone without an offset")
    array = _made(values, pa.timestamp("us", _zone_name(zones)), "is no moment that a timestamp holds")
    moments = array.cast(pa.int64())
    low, high = pc.min_max(moments).as_py().values()
    if low < _FIRST_MOMENT or high > _LAST_MOMENT:
        inside = pc.and_(pc.greater_equal(moments, _FIRST_MOMENT), pc.less_equal(moments, _LAST_MOMENT))
        place = int(pc.index(inside, value=False).as_py())
        raise Unfit(place, values[place], "lies outside the years 1 to 9999 in UTC, so nobody could read it back")
    return array


def _zone_name(zones: Any) -> str:
    names = set()
    for zone in zones:
        try:
            names.add(pa.scalar(dt.datetime(2000, 1, 1, tzinfo=zone)).type.tz)
        except _ARROW_ERRORS:
            return "UTC"  # an offset with seconds, a zone of the user's own making
    return str(names.pop()) if len(names) == 1 else "UTC"


def _refuse_nanoseconds(values: Sequence[Any]) -> None:
    for place, value in enumerate(values):
        if getattr(value, "nanosecond", 0):  # a pandas.Timestamp
            raise Unfit(place, value, "has nanoseconds, of which a row keeps none; write Arrow batches, or round it")


def _dates(values: Sequence[Any], _types: set[type]) -> pa.Array:
    return _made(values, pa.date32(), "is no date that can be stored")


def _times(values: Sequence[Any], _types: set[type]) -> pa.Array:
    for place, value in enumerate(values):
        if value is not None and value.tzinfo is not None:
            raise Unfit(place, value, "is a time of day with a time zone, which no column keeps")
    return _made(values, pa.time64("us"), "is no time of day that can be stored")


def _spans(values: Sequence[Any], _types: set[type]) -> pa.Array:
    return _made(values, pa.duration("us"), "is longer than 64 bits of microseconds")


def _decimals(values: Sequence[Any], _types: set[type]) -> pa.Array:
    return _made(values, None, "is no Decimal of at most 76 digits, together with those before it")


def _bools(values: Sequence[Any], _types: set[type]) -> pa.Array:
    return pa.array(values, pa.bool_())


def _only_floats(values: Sequence[Any], _types: set[type]) -> pa.Array:
    return pa.array(values, pa.float64())


_MAKERS: Final[dict[str, Callable[[Sequence[Any], set[type]], pa.Array]]] = {
    "bool": _bools,
    "int": _ints,
    "float": _only_floats,
    "str": _texts,
    "bytes": _bytes,
    "datetime": _datetimes,
    "date": _dates,
    "time": _times,
    "timedelta": _spans,
    "Decimal": _decimals,
}


def _without_numpy(values: Sequence[Any]) -> list[Any]:
    """Python's own values for numpy's."""
    found = []
    for place, value in enumerate(values):
        plain = value
        if isinstance(value, np.generic):
            plain = value.item()
            if isinstance(value, np.datetime64 | np.timedelta64) and isinstance(plain, int):
                plain = _moment_of_int(place, value)
            elif isinstance(plain, np.generic | complex):
                raise Unfit(place, value, f"is a {type(value).__name__}, for which there is no column")
        found.append(plain)
    return found


def _moment_of_int(place: int, value: Any) -> Any:
    # numpy gives a number for what is finer than microseconds, or outside the years that Python has.
    in_microseconds = value.astype("M8[us]" if isinstance(value, np.datetime64) else "m8[us]")
    plain = in_microseconds.item()
    if in_microseconds.astype(value.dtype) != value or isinstance(plain, int):
        raise Unfit(place, value, "is not a whole number of microseconds that Python has; write Arrow batches, or round it")
    return plain


# -- nested values ---------------------------------------------------------------------------------------------------------


def _lists(values: Sequence[Any], depth: int) -> pa.Array:
    lengths = np.fromiter((0 if each is None else len(each) for each in values), np.int64, len(values))
    ends = np.cumsum(lengths)
    try:
        inner = array_of(list(chain.from_iterable(each for each in values if each is not None)), depth + 1)
    except Unfit as error:
        error.place = int(np.searchsorted(ends, error.place, side="right"))
        error.path = ("[]", *error.path)
        raise
    return _as_lists(values, inner, ends)


def _as_lists(values: Sequence[Any], inner: pa.Array, ends: Any) -> pa.Array:
    missing = pa.array([each is None for each in values])
    large = len(inner) >= 1 << 31
    return lists_of(inner, np.concatenate(([0], ends)), missing, pa.field("item", inner.type), large=large)


def _arrays(values: Sequence[Any], depth: int) -> pa.Array:
    present = [each for each in values if each is not None]
    dtypes = {each.dtype for each in present}
    flat = all(each.ndim == 1 for each in present)
    if not flat or len(dtypes) > 1 or next(iter(dtypes)).kind not in "biuf" or next(iter(dtypes)).itemsize > 8:
        return _lists([None if each is None else _listed(place, each) for place, each in enumerate(values)], depth)
    ends = np.cumsum([0 if each is None else len(each) for each in values], dtype=np.int64)
    # Of one type, so every value is copied as it is.
    joined = np.concatenate(present)
    return _as_lists(values, pa.array(joined.astype(joined.dtype.newbyteorder("="))), ends)


def _listed(place: int, array: Any) -> list[Any]:
    if not array.ndim:
        raise Unfit(place, array, "is an array without dimensions; give array.item()")
    # Not tolist: what it makes of moments depends on their unit.
    return list(array)


def _mappings(values: Sequence[Any], depth: int) -> pa.Array:
    present = [each for each in values if each is not None]
    names = dict.fromkeys(chain.from_iterable(present))
    for name in names:
        if not isinstance(name, str):
            place = next(n for n, each in enumerate(values) if each is not None and name in each)
            raise Unfit(place, values[place], f"has the key {_cut(name)}, which is no text")
    if are_scattered(names, present):
        raise Unfit(0, present[0], f"and others have {len(names)} different keys; give lists of pairs, or a schema with a map")
    fields, children = [], []
    for name in names:
        try:
            children.append(array_of([None if each is None else each.get(name) for each in values], depth + 1))
        except Unfit as error:
            error.path = (name, *error.path)
            raise
        fields.append(pa.field(name, children[-1].type))
    if not names:
        fields, children = [pa.field(EMPTY, pa.null())], [pa.nulls(len(values))]
    return pa.StructArray.from_arrays(children, fields=fields, mask=pa.array([each is None for each in values]))


# -- whatever else Arrow knows -----------------------------------------------------------------------------------------------


def _is_arrows_own(kind: pa.DataType) -> bool:
    """Whether columns of a type are not made of plain values: maps, extension types, unions."""
    if is_list(kind):
        return _is_arrows_own(kind.value_type)
    if kinds.is_struct(kind):
        return any(_is_arrows_own(field.type) for field in kind)
    return kinds.is_map(kind) or kinds.is_union(kind) or isinstance(kind, pa.BaseExtensionType)


def compared(values: Sequence[Any], kind: pa.DataType | None) -> pa.Array:
    """Made by Arrow, and compared with what it became."""
    reason = (
        "is of a type that no column has; give what it stands for (.value, str(...))" if kind is None else f"does not fit {kind}"
    )
    array = _made(values, kind, reason)
    for place, (value, back) in enumerate(zip(values, array.to_pylist(), strict=True)):
        if not _is_same(value, back):
            raise Unfit(place, value, f"would be stored as {_cut(back)}")
    return array


def _is_same(value: Any, back: Any) -> bool:
    if isinstance(back, list) and isinstance(value, Mapping):  # a map
        value = list(value.items())
    if isinstance(back, list | tuple) and isinstance(value, list | tuple | np.ndarray):
        return len(value) == len(back) and all(map(_is_same, value, back))
    if isinstance(back, dict) and isinstance(value, Mapping):
        return value.keys() <= back.keys() and all(_is_same(value.get(name), each) for name, each in back.items())
    same = value == back or (value != value and back != back)  # noqa: PLR0124 - NaN
    return bool(same) and isinstance(value, bool) == isinstance(back, bool)
