"""Columns into another type, every value equal to what it was, or the first value that has no equal there.

Runs on drivers and executors; stateless. Arrow's own casts parse texts, round floats and take times apart; here a cast is one between
types of a kind, checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.types as kinds

from flowkit.model.shown import short
from flowkit.storage.tables.widening import EMPTY, is_bytes, is_list, is_text, plain_type

#: its functions are made when it is imported, so type checkers see none of them
pc: Any = pyarrow.compute


class Unfit(Exception):
    """A value that a column cannot hold: at which ``place``, and under which ``path`` of names inside the column."""

    def __init__(self, place: int, value: Any, reason: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.place = place
        self.value = value
        self.reason = reason
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        # It travels as the context of the error that users see; their value may not.
        return Unfit, (self.place, short(self.value), self.reason, self.path)


def cast_exactly(array: Any, kind: pa.DataType) -> Any:
    """An array, or a chunked one, of another type with equal values.

    Raises ``Unfit`` for the first value that has no equal.

    >>> cast_exactly(pa.array([1, None]), pa.float64()).to_pylist()
    [1.0, None]
    >>> cast_exactly(pa.array([1.0, 2.5]), pa.int64())
    Traceback (most recent call last):
        ...
    flowkit.storage.tables.casts.Unfit: does not fit int64
    """
    if array.type.equals(kind):
        return array
    if not isinstance(array, pa.ChunkedArray):
        return _cast(array, kind)
    chunks, before = [], 0
    for chunk in array.chunks:
        try:
            chunks.append(_cast(chunk, kind))
        except Unfit as error:
            error.place += before
            raise
        before += len(chunk)
    return pa.chunked_array(chunks, kind)


def cast_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table of another schema with equal values; columns that it lacks are None.

    Raises ``Unfit``, whose path begins with the column.
    """
    if table.schema.equals(schema):
        return table if table.schema.equals(schema, check_metadata=True) else table.replace_schema_metadata(schema.metadata)
    columns = []
    for field in schema:
        place = table.schema.get_field_index(field.name)
        column = table.column(place) if place >= 0 else None
        try:
            if column is None:
                column = pa.nulls(table.num_rows, field.type)
            column = cast_exactly(column, field.type)
            if not field.nullable and column.null_count:
                raise Unfit(_first_null(column), None, "is not allowed, since the schema says that the column is not nullable")
        except Unfit as error:
            error.path = (field.name, *error.path)
            raise
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def _first_null(column: Any) -> int:
    return int(pc.index(column.is_null(), value=True).as_py())


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    have = array.type
    if have.equals(kind):
        return array
    if kinds.is_null(have):
        return pa.nulls(len(array), kind)
    if have != plain_type(have):
        return _cast(array.dictionary_decode() if kinds.is_dictionary(have) else pc.run_end_decode(array), kind)
    if kinds.is_dictionary(kind):
        return _cast(array, kind.value_type).cast(kind)
    if kinds.is_struct(have) and kinds.is_struct(kind):
        return _cast_struct(array, kind)
    if is_list(have) and is_list(kind):
        return _cast_list(array, kind)
    if not _are_alike(have, kind):
        place = _first_valid(array)
        if place is None:
            return pa.nulls(len(array), kind)
        raise Unfit(place, array[place].as_py(), f"does not fit {kind}")
    place = first_bad(array, lambda part: _is_exact(part, kind))
    if place is not None:
        raise Unfit(place, _shown(array[place]), f"does not fit {kind}")
    return array.cast(kind, safe=False)


def _shown(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except (ValueError, OverflowError):  # what Python has no type for
        return str(value)


def _first_valid(array: pa.Array) -> int | None:
    if array.null_count == len(array):
        return None
    return int(pc.index(array.is_valid(), value=True).as_py())


def _are_alike(have: pa.DataType, kind: pa.DataType) -> bool:
    """Whether a value of one kind may be the same as one of the other."""
    if kinds.is_integer(have) or kinds.is_floating(have):
        return bool(kinds.is_integer(kind) or kinds.is_floating(kind) or (kinds.is_integer(have) and kinds.is_decimal(kind)))
    if kinds.is_timestamp(have) and kinds.is_timestamp(kind):
        return (have.tz is None) == (kind.tz is None)
    if kinds.is_date(have):
        # A day is the moment it begins with, where a schema asks for moments.
        return bool(kinds.is_date(kind) or (kinds.is_timestamp(kind) and kind.tz is None))
    return any(
        is_kind(have) and is_kind(kind)
        for is_kind in (kinds.is_decimal, is_text, is_bytes, kinds.is_time, kinds.is_duration, kinds.is_map)
    )


def _is_exact(array: pa.Array, kind: pa.DataType) -> bool:
    have = array.type
    if kinds.is_floating(kind) and (kinds.is_integer(have) or kinds.is_floating(have)):
        return _is_exact_as_float(array, kind)
    try:
        made = array.cast(kind, safe=True)
        if kinds.is_map(kind):
            return bool(made.cast(have).equals(array))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return False
    return True


def _is_exact_as_float(array: pa.Array, kind: pa.DataType) -> bool:
    have = array.type
    if kinds.is_integer(have) and have.bit_width <= 16 and kind.bit_width >= 32:
        return True
    made = array.cast(kind, safe=False)
    if kinds.is_integer(have):
        # Floats beyond the integers' range have no equal; casting them back would not say so on every processor.
        limit = 2.0 ** (have.bit_width - kinds.is_signed_integer(have))
        wide = made.cast(pa.float64())
        if not _all(pc.less(wide, limit)):
            return False
    same = pc.equal(made.cast(have, safe=False), array)
    if kinds.is_floating(have):
        same = pc.or_(same, pc.is_nan(array))
    return _all(same)


def _all(flags: Any) -> bool:
    return pc.all(flags, skip_nulls=True, min_count=0).as_py() is not False


def first_bad(values: Any, is_good: Callable[[Any], bool]) -> int | None:
    """The place of the first value that makes a slice bad, by halving; None: all are good together.

    >>> first_bad([1, 2, -3, 4, -5], lambda part: min(part) > 0)
    2
    """
    if not len(values) or is_good(values):
        return None
    start, stop = 0, len(values)
    while stop - start > 1:
        middle = (start + stop) // 2
        if is_good(values[start:middle]):
            start = middle
        else:
            stop = middle
    return start


def _cast_struct(array: pa.StructArray, kind: pa.StructType) -> pa.Array:
    have = {array.type.field(place).name: child for place, child in enumerate(array.flatten())}
    wanted = list(kind)
    for name in have.keys() - {field.name for field in wanted} - {EMPTY}:
        place = _first_valid(have[name])
        if place is not None:
            raise Unfit(place, have[name][place].as_py(), f"is of a field that {kind} has not", (name,))
    children = []
    for field in wanted:
        child = have.get(field.name)
        try:
            children.append(pa.nulls(len(array), field.type) if child is None else _cast(child, field.type))
        except Unfit as error:
            error.path = (field.name, *error.path)
            raise
    return pa.StructArray.from_arrays(children, fields=wanted, mask=array.is_null())


def _cast_list(array: Any, kind: pa.DataType) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    ends = np.cumsum(lengths.to_numpy(zero_copy_only=False), dtype=np.int64)
    try:
        values = _cast(array.flatten(), kind.value_type)
    except Unfit as error:
        error.place = int(np.searchsorted(ends, error.place, side="right"))
        error.path = ("[]", *error.path)
        raise
    made = lists_of(values, np.concatenate(([0], ends)), array.is_null(), kind.value_field, large=kinds.is_large_list(kind))
    if made.type.equals(kind):
        return made
    place = first_bad(made, lambda part: _is_exact(part, kind))
    if place is not None:
        raise Unfit(place, array[place].as_py(), f"does not fit {kind}")
    return made.cast(kind)


def lists_of(values: Any, offsets: Any, missing: pa.Array, element: pa.Field, *, large: bool = False) -> pa.Array:
    """A column of lists: list ``n`` has the values from ``offsets[n]`` on, or is None where ``missing``."""
    if large:
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values, type=pa.large_list(element), mask=missing)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=pa.list_(element), mask=missing)
