"""The narrowest Arrow type that holds the values of two types, and the schema that holds the rows of several.

Runs on drivers and executors; stateless. The table of what unites is in ``docs/stores.md``. Whether a value of the narrower type has an equal
one in the wider type (an int64 beside floats) is for ``casts`` to check, value by value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import pyarrow as pa
import pyarrow.types as kinds

#: stands for the fields of a mapping that has none, and for the columns of a row that has none: Parquet stores neither
EMPTY: Final = "__flowkit_empty__"
_EMPTY_FIELD: Final = pa.field(EMPTY, pa.null())

_UNITS: Final = ("s", "ms", "us", "ns")
_MAX_DIGITS_128, _MAX_DIGITS_256 = 38, 76
#: decimal digits of the widest value, by bits
_INT_DIGITS: Final = {8: 3, 16: 5, 32: 10, 64: 19}
_SIGNED: Final = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}
_UNSIGNED: Final = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}


class NoCommonType(Exception):
    """Two types whose values no type holds; ``path`` leads to them from the outside."""

    def __init__(self, one: pa.DataType, other: pa.DataType, path: tuple[str, ...] = ()) -> None:
        super().__init__(f"{'.'.join(path) or 'values'}: {one} and {other}")
        self.one = one
        self.other = other
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return NoCommonType, (self.one, self.other, self.path)


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type for the values of both.

    Raises ``NoCommonType`` when there is none.

    >>> common_type(pa.int32(), pa.int64()), common_type(pa.null(), pa.string()), common_type(pa.int64(), pa.float32())
    (DataType(int64), DataType(string), DataType(double))
    """
    if one.equals(other):
        return one
    one, other = plain_type(one), plain_type(other)
    if one.equals(other) or kinds.is_null(other):
        return one
    if kinds.is_null(one):
        return other
    for widen in _RULES:
        found = widen(one, other)
        if found is not None:
            return found
    raise NoCommonType(one, other)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a dictionary or of runs."""
    return kind.value_type if kinds.is_dictionary(kind) or kinds.is_run_end_encoded(kind) else kind


def _numbers(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if kinds.is_integer(one) and kinds.is_integer(other):
        return _integers(one, other)
    if kinds.is_floating(one) and kinds.is_floating(other):
        return max(one, other, key=lambda kind: kind.bit_width)
    for whole, real in ((one, other), (other, one)):
        if kinds.is_integer(whole) and kinds.is_floating(real):
            # A float32 holds every integer of 24 bits.
            return real if whole.bit_width <= 16 and real.bit_width >= 32 else pa.float64()
    return None


def _integers(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if kinds.is_signed_integer(one) == kinds.is_signed_integer(other):
        return max(one, other, key=lambda kind: kind.bit_width)
    signed, unsigned = (one, other) if kinds.is_signed_integer(one) else (other, one)
    if unsigned.bit_width == 64:
        return unsigned  # somebody has values over 2**63 - 1; whether somebody has negative ones the values say
    return _SIGNED[max(signed.bit_width, 2 * unsigned.bit_width)]


def _decimals(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if not (kinds.is_decimal(one) or kinds.is_decimal(other)):
        return None
    digits, scale = 0, 0
    for kind in (one, other):
        if kinds.is_decimal(kind):
            digits, scale = max(digits, kind.precision - kind.scale), max(scale, kind.scale)
        elif kinds.is_integer(kind):
            digits = max(digits, _INT_DIGITS[kind.bit_width] + kind.equals(pa.uint64()))
        else:
            return None
    if digits + scale > _MAX_DIGITS_256:
        return None
    return pa.decimal128(digits + scale, scale) if digits + scale <= _MAX_DIGITS_128 else pa.decimal256(digits + scale, scale)


def is_text(kind: pa.DataType) -> bool:
    """Whether values are ``str``."""
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values are ``bytes``."""
    is_some = (kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view, kinds.is_fixed_size_binary)
    return any(each(kind) for each in is_some) and not kinds.is_decimal(kind)


def _texts(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if is_text(one) and is_text(other):
        return pa.large_string() if kinds.is_large_string(one) or kinds.is_large_string(other) else pa.string()
    if is_bytes(one) and is_bytes(other):
        return pa.large_binary() if kinds.is_large_binary(one) or kinds.is_large_binary(other) else pa.binary()
    return None


def _moments(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if kinds.is_date(one) and kinds.is_date(other):
        return pa.date32()
    for is_kind in (kinds.is_timestamp, kinds.is_time, kinds.is_duration):
        if is_kind(one) and is_kind(other):
            unit = max(one.unit, other.unit, key=_UNITS.index)
            if is_kind is kinds.is_duration:
                return pa.duration(unit)
            if is_kind is kinds.is_time:
                return pa.time32(unit) if unit in {"s", "ms"} else pa.time64(unit)
            if (one.tz is None) != (other.tz is None):
                return None
            return pa.timestamp(unit, one.tz if one.tz == other.tz else "UTC")
    return None


def is_list(kind: pa.DataType) -> bool:
    """Whether values are lists."""
    is_some = (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list, kinds.is_list_view, kinds.is_large_list_view)
    return any(each(kind) for each in is_some)


def _lists(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if not (is_list(one) and is_list(other)):
        return None
    try:
        element = common_field(one.value_field, other.value_field)
    except NoCommonType as error:
        raise NoCommonType(error.one, error.other, ("[]", *error.path[1:])) from None
    if kinds.is_fixed_size_list(one) and kinds.is_fixed_size_list(other) and one.list_size == other.list_size:
        return pa.list_(element, one.list_size)
    large = any(kinds.is_large_list(kind) or kinds.is_large_list_view(kind) for kind in (one, other))
    return pa.large_list(element) if large else pa.list_(element)


def _maps(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if not (kinds.is_map(one) and kinds.is_map(other)):
        return None
    key = common_type(one.key_type, other.key_type)
    return pa.map_(key, common_field(one.item_field, other.item_field))


def _structs(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if not (kinds.is_struct(one) and kinds.is_struct(other)):
        return None
    return pa.struct(common_fields(list(one), list(other)))


_RULES: Final[tuple[Callable[[pa.DataType, pa.DataType], pa.DataType | None], ...]] = (
    _numbers,
    _decimals,
    _texts,
    _moments,
    _lists,
    _structs,
    _maps,
)


def common_field(one: pa.Field, other: pa.Field) -> pa.Field:
    """A field for the values of both, of the first one's name."""
    if one.equals(other):
        return one
    try:
        kind = common_type(one.type, other.type)
    except NoCommonType as error:
        raise NoCommonType(error.one, error.other, (one.name, *error.path)) from None
    return pa.field(one.name, kind, one.nullable or other.nullable or kinds.is_null(other.type), one.metadata)


def common_fields(one: Iterable[pa.Field], other: Iterable[pa.Field]) -> list[pa.Field]:
    """Fields of both by name, in the order in which names are met; what one side lacks may be None."""
    mine = {field.name: field for field in one}
    theirs = {field.name: field for field in other}
    found = []
    for name in dict.fromkeys((*mine, *theirs)):
        if name in mine and name in theirs:
            found.append(common_field(mine[name], theirs[name]))
        else:
            found.append((mine.get(name) or theirs[name]).with_nullable(True))
    if len(found) > 1:
        found = [field for field in found if field.name != EMPTY]
    return found


def storable_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with ``EMPTY`` where there would be no field at all.

    >>> storable_schema(pa.schema([])).names == [EMPTY]
    True
    """
    fields = [field.with_type(storable_type(field.type)) for field in schema]
    return pa.schema(fields or [_EMPTY_FIELD], metadata=schema.metadata)


def storable_type(kind: pa.DataType) -> pa.DataType:
    """The type with ``EMPTY`` in structs without fields."""
    if kinds.is_struct(kind):
        return pa.struct([field.with_type(storable_type(field.type)) for field in kind] or [_EMPTY_FIELD])
    if kinds.is_list(kind):
        return pa.list_(kind.value_field.with_type(storable_type(kind.value_type)))
    return kind


def path_of_empty(fields: Iterable[pa.Field]) -> tuple[str, ...] | None:
    """The names that lead to a mapping none of whose rows has a field; None: there is none.

    >>> path_of_empty(storable_schema(pa.schema([("a", pa.list_(pa.struct([])))])))
    ('a',)
    """
    for field in fields:
        if field.name == EMPTY:
            return ()
        kind = field.type
        while is_list(kind):
            kind = kind.value_type
        inner = path_of_empty(list(kind)) if kinds.is_struct(kind) else None
        if inner is not None:
            return (field.name, *inner)
    return None


class SchemaUnion:
    """One schema for the rows of several sources, and who brought which type to it.

    >>> union = SchemaUnion()
    >>> union.add("1.parquet", pa.schema([("a", pa.int32())]))
    >>> union.add("2.parquet", pa.schema([("a", pa.int64()), ("b", pa.string())]))
    >>> union.schema
    a: int64
    b: string
    """

    def __init__(self) -> None:
        self._fields: dict[str, pa.Field] = {}
        self._metadata: Any = None
        #: different schemas seen, to pass over those that bring nothing new
        self._seen: list[pa.Schema] = []
        #: by column: types in the order in which they came, each with its source
        self._brought: dict[str, list[tuple[pa.DataType, str]]] = {}
        #: columns without a common type, each with the conflict
        self.conflicts: dict[str, Conflict] = {}

    @property
    def schema(self) -> pa.Schema:
        """For the rows of all sources; columns with conflicts are left out."""
        fields = [field for name, field in self._fields.items() if name not in self.conflicts]
        return pa.schema([field for field in fields if field.name != EMPTY] or fields, metadata=self._metadata)

    @property
    def names_by_source(self) -> dict[str, str]:
        """Each column, with the first source that has it."""
        return {name: brought[0][1] for name, brought in self._brought.items()}

    @property
    def varied(self) -> set[str]:
        """Columns of which sources have several types."""
        return {name for name, brought in self._brought.items() if len(brought) > 1}

    @property
    def seen(self) -> tuple[pa.Schema, ...]:
        """The different schemas that were added."""
        return tuple(self._seen)

    def alike_but_for_case(self, others: Iterable[str] = ()) -> list[tuple[str, str]]:
        """Columns that may be one, since no source has both; ``others`` are columns that all have."""
        first: dict[str, str] = {}
        found = []
        shared = set(others)
        for name in dict.fromkeys((*self._fields, *shared)):
            other = first.setdefault(name.casefold(), name)
            if other != name and not any({name, other} <= {*schema.names, *shared} for schema in self._seen):
                found.append((other, name))
        return found

    def add(self, source: str, schema: pa.Schema) -> None:
        """Take in the schema of one more source; conflicts are kept, not raised."""
        if any(schema.equals(each) for each in self._seen):
            return
        missing = set(self._fields) - set(schema.names) if self._seen else set()
        if not self._seen:
            self._metadata = schema.metadata
        for name in missing:
            self._fields[name] = self._fields[name].with_nullable(True)
        for field in schema:
            self._add_field(source, field)
        self._seen.append(schema)

    def _add_field(self, source: str, field: pa.Field) -> None:
        known = self._fields.get(field.name)
        brought = self._brought.setdefault(field.name, [])
        if known is None:
            self._fields[field.name] = field.with_nullable(True) if self._seen else field
        elif field.name not in self.conflicts:
            try:
                self._fields[field.name] = common_field(known, field)
            except NoCommonType:
                self.conflicts[field.name] = _conflict(field, source, brought, known.type)
        if all(not field.type.equals(kind) for kind, _ in brought):
            brought.append((field.type, source))


class Conflict:
    """A column that two sources give types without a common one: ``one`` of ``source``, ``other`` of ``other_source``."""

    __slots__ = ("one", "other", "other_source", "path", "source")

    def __init__(self, path: tuple[str, ...], one: pa.DataType, source: str, other: pa.DataType, other_source: str) -> None:
        self.path = path
        self.one = one
        self.source = source
        self.other = other
        self.other_source = other_source

    def __str__(self) -> str:
        return f"column {'.'.join(self.path)!r} is {self.one} in {self.source} and {self.other} in {self.other_source}"


def _conflict(field: pa.Field, source: str, brought: list[tuple[pa.DataType, str]], united: pa.DataType) -> Conflict:
    # The first of the sources with whose own type it does not unite; else the last, which made the type what it is.
    for kind, earlier in (*brought, (united, brought[-1][1])):
        try:
            common_field(pa.field(field.name, kind), field)
        except NoCommonType as error:
            return Conflict(error.path, error.one, earlier, error.other, source)
    raise AssertionError(f"{united} and {field.type} unite after all")
