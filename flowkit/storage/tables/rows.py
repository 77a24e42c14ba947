"""Rows to tables and back: mappings by column, with no value changed on the way in, and none that Python lacks on the way out.

Runs on slot threads; stateless.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.types as kinds

from flowkit.errors import BadInput, BadRow
from flowkit.model.shown import short
from flowkit.storage.tables.casts import Unfit, cast_table, lists_of
from flowkit.storage.tables.values import are_scattered, array_of, column_of
from flowkit.storage.tables.widening import EMPTY, is_list, plain_type

#: its functions are made when it is imported, so type checkers see none of them
pc: Any = pyarrow.compute


def as_mapping(row: Any) -> Mapping[Any, Any]:
    """A row as a mapping: a mapping itself, a namedtuple or a dataclass.

    Raises ``errors.BadRow`` for anything else.
    """
    if isinstance(row, Mapping):
        return row
    names = getattr(row, "_fields", None)
    if isinstance(row, tuple) and names is not None:
        return dict(zip(names, row, strict=True))
    if dataclasses.is_dataclass(row) and not isinstance(row, type):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    raise BadRow(
        f"cannot write {short(row)} as a row of columns: needs a mapping, a namedtuple, a dataclass, a RecordBatch or a Table"
    )


def table_of(rows: Sequence[Mapping[Any, Any]], schema: pa.Schema | None) -> pa.Table:
    """A table of rows; what a row lacks is None.

    Parameters
    ----------
    schema
        What the table has; None: the narrowest that holds the rows, columns in the order in which they are met.

    Raises
    ------
    Unfit
        For the first value that its column cannot hold; the path begins with the column.
    errors.BadRow
        For a row with fields that the schema has not, or with a name that is no text.
    """
    if not rows:
        return (pa.schema([]) if schema is None else schema).empty_table()
    columns = _columns_of(rows, schema)
    arrays = []
    for name, values in columns.items():
        try:
            arrays.append(array_of(values) if schema is None else column_of(values, schema.field(name).type))
        except Unfit as error:
            error.path = (name, *error.path)
            raise
    if schema is not None:
        return cast_table(pa.Table.from_arrays(arrays, names=list(columns)), schema)
    if not columns:
        return pa.Table.from_arrays([pa.nulls(len(rows))], names=[EMPTY])
    return pa.Table.from_arrays(arrays, names=list(columns))


def _columns_of(rows: Sequence[Mapping[Any, Any]], schema: pa.Schema | None) -> dict[str, Sequence[Any]]:
    """Values by column, over all rows."""
    names: Any = list(rows[0]) if schema is None else schema.names
    if set(map(type, rows)) == {dict} and set(map(len, rows)) == {len(names)}:
        try:
            return _checked_names({name: list(map(itemgetter(name), rows)) for name in names}, rows)
        except KeyError:
            pass
    found: Any = dict.fromkeys(chain.from_iterable(rows))
    if schema is not None:
        unknown = found.keys() - set(names)
        if unknown:
            row = next(each for each in rows if unknown & each.keys())
            raise BadRow(
                f"{short(row)} has fields that the schema has not: {', '.join(sorted(map(str, unknown & row.keys())))}; add them to "
                "schema=, or leave them out of the rows"
            )
        found = names
    elif are_scattered(found, rows):
        raise BadRow(
            f"rows have {len(found)} different fields, each row few of them; a column of each would fill memory: say schema=, or give "
            f"lists of pairs ({short(rows[0])})"
        )
    return _checked_names({name: [row.get(name) for row in rows] for name in found}, rows)


def _checked_names(columns: dict[Any, Sequence[Any]], rows: Sequence[Mapping[Any, Any]]) -> dict[str, Sequence[Any]]:
    for name in columns:
        if not isinstance(name, str):
            row = next(each for each in rows if name in each)
            raise BadRow(f"{short(row)} has the column name {short(name)} ({type(name).__name__}): must be text")
    return columns


def path_text(path: Sequence[str]) -> str:
    """Names as one writes them.

    >>> path_text(("a", "[]", "b"))
    'a[].b'
    """
    return ".".join(path).replace(".[]", "[]")


def misfit(error: Unfit, where: str, why: str = "") -> BadRow:
    """The error that a user sees: column, row and value, and why the column is of a type that does not hold it."""
    kind = type(error.value).__name__
    return BadRow(f"column {path_text(error.path)!r}, {where}: {short(error.value, 100)} ({kind}) {error.reason}{why}")


# -- tables to rows ----------------------------------------------------------------------------------------------------------


def rows_of(batch: Any, source: str = "") -> list[dict[str, Any]]:
    """Rows of a record batch or a table, of Python's own values: moments to the microsecond, whatever packages are installed.

    Nanoseconds are cut off. Raises ``errors.BadInput``, naming ``source``, for columns of one name, and for a value that Python has no type
    for, with its column and row.
    """
    names = batch.schema.names
    before = f"{source}: " if source else ""
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise BadInput(f"{before}several columns have the name {', '.join(twice)}; a row keeps one: rename them, or take batches")
    if not names:
        return [{} for _ in range(batch.num_rows)]
    plain = cut_to_microseconds(batch)
    try:
        rows: list[dict[str, Any]] = plain.to_pylist()
    except Exception as error:
        raise _without_place_in_python(plain, before) or error from error
    return rows


def cut_to_microseconds(batch: Any) -> Any:
    """A batch or a table whose nanoseconds are cut off, down, and whose columns are of microseconds."""
    if all(microsecond_type(field.type) == field.type for field in batch.schema):
        return batch
    return type(batch).from_arrays([_to_microseconds(column) for column in batch.columns], names=batch.schema.names)


def _without_place_in_python(batch: Any, before: str) -> BadInput | None:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for place, value in enumerate(column):
            try:
                value.as_py()
            except Exception as error:
                shown = value.cast(pa.int64()) if kinds.is_temporal(value.type) else value
                return BadInput(f"{before}column {name!r}, row {place} of a batch: {value.type} {shown}: {error}")
    return None


def microsecond_type(kind: pa.DataType) -> pa.DataType:
    """The type with microseconds where it has nanoseconds.

    >>> microsecond_type(pa.list_(pa.timestamp("ns", "UTC")))
    ListType(list<item: timestamp[us, tz=UTC]>)
    """
    if kinds.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if kinds.is_time64(kind) and kind.unit == "ns":
        return pa.time64("us")
    if kinds.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if kinds.is_dictionary(kind) or kinds.is_run_end_encoded(kind):
        inner = microsecond_type(kind.value_type)
        return kind if inner == kind.value_type else inner
    if kinds.is_struct(kind):
        fields = [field.with_type(microsecond_type(field.type)) for field in kind]
        return kind if fields == list(kind) else pa.struct(fields)
    if kinds.is_map(kind):
        key, item = microsecond_type(kind.key_type), microsecond_type(kind.item_type)
        return kind if (key, item) == (kind.key_type, kind.item_type) else pa.map_(key, kind.item_field.with_type(item))
    if is_list(kind):
        inner = microsecond_type(kind.value_type)
        if inner == kind.value_type:
            return kind
        element = kind.value_field.with_type(inner)
        return pa.large_list(element) if kinds.is_large_list(kind) else pa.list_(element)
    return kind


def _to_microseconds(array: Any) -> Any:
    wanted = microsecond_type(array.type)
    if wanted is array.type or wanted == array.type:
        return array
    if isinstance(array, pa.ChunkedArray):
        return pa.chunked_array([_cut(chunk, wanted) for chunk in array.chunks], wanted)
    return _cut(array, wanted)


def _cut(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    have = array.type
    if have == wanted:
        return array
    if have != plain_type(have):
        return _cut(array.dictionary_decode() if kinds.is_dictionary(have) else array.cast(have.value_type), wanted)
    if kinds.is_temporal(have):
        # Down, also before 1970: Arrow's cast goes towards zero.
        whole = np.asarray(array.cast(pa.int64()).fill_null(0)) // 1_000
        return pa.array(whole, mask=np.asarray(array.is_null())).cast(wanted)
    if kinds.is_struct(have):
        children = [_cut(child, field.type) for child, field in zip(array.flatten(), wanted, strict=True)]
        return pa.StructArray.from_arrays(children, fields=list(wanted), mask=array.is_null())
    if is_list(have):
        lengths = pc.fill_null(pc.list_value_length(array), 0)
        offsets = np.concatenate(([0], np.cumsum(np.asarray(lengths), dtype=np.int64)))
        values = _cut(array.flatten(), wanted.value_type)
        return lists_of(values, offsets, array.is_null(), wanted.value_field, large=kinds.is_large_list(wanted))
    return array.cast(wanted, safe=False)
