"""Columns as directories, ``day=2026-11-21``, as Hive lays them: values to names, names to values, and which type names have.

Runs on drivers and executors; stateless. What flowkit writes says the columns' types in each file's metadata, so that a text "01" or a date comes
back as it was. Where nothing says it, all names of a column together decide: whole numbers, numbers, dates, else text.
"""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.types as kinds

from flowkit.storage.tables.widening import is_text, plain_type

MISSING: Final = "__HIVE_DEFAULT_PARTITION__"
#: key of a file's metadata: the schema of the columns that its directories hold
_TYPES: Final = b"flowkit.directories"
_WHOLE: Final = re.compile(r"0|-?[1-9][0-9]{0,18}")
#: a double as Java writes it when it is large or small
_JAVA_DOUBLE: Final = re.compile(r"-?[1-9]\.[0-9]+E-?[1-9][0-9]*")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def directory_of(column: str, value: Any) -> str:
    """The directory of one value of a column.

    >>> directory_of("day", "2026/11"), directory_of("day", None)
    ('day=2026%2F11', 'day=__HIVE_DEFAULT_PARTITION__')
    """
    name = quote(column, safe=" ")
    if name.startswith((".", "_")):  # readers pass over such names
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return f"{name}={MISSING if value is None else quote(str(value), safe='')}"


def texts_of(directories: Iterable[str]) -> dict[str, str | None]:
    """Each column with its text, of a path's directories from the outside in; those that are no ``column=value`` are passed over.

    >>> texts_of(["a", "day=2026%2F11", "k=__HIVE_DEFAULT_PARTITION__"])
    {'day': '2026/11', 'k': None}
    """
    found: dict[str, str | None] = {}
    for directory in directories:
        name, equals, text = directory.partition("=")
        if name and equals:
            found[unquote(name)] = None if text == MISSING else unquote(text)
    return found


def is_type_for_directories(kind: pa.DataType) -> bool:
    """Whether values of a type can be told from their text."""
    kind = plain_type(kind)
    return (
        kinds.is_integer(kind)
        or kinds.is_floating(kind)
        or kinds.is_boolean(kind)
        or kinds.is_decimal(kind)
        or kinds.is_date(kind)
        or kinds.is_null(kind)
        or is_text(kind)
        or ((kinds.is_timestamp(kind) or kinds.is_time(kind)) and kind.unit != "ns")
    )


def value_of(text: str | None, kind: pa.DataType) -> Any:
    """The value of a text; raises ``ValueError`` for one that a type has not.

    >>> value_of("2026-11-21", pa.date32()), value_of("True", pa.bool_()), value_of("01", pa.string())
    (datetime.date(2026, 11, 21), True, '01')
    """
    kind = plain_type(kind)
    if text is None:
        return None
    if is_text(kind):
        return text
    if kinds.is_integer(kind):
        return int(text)
    if kinds.is_floating(kind):
        return float(text)
    if kinds.is_boolean(kind) and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if kinds.is_decimal(kind):
        return _decimal_of(text)
    if kinds.is_date(kind):
        return dt.date.fromisoformat(text)
    if kinds.is_time(kind):
        return dt.time.fromisoformat(text)
    if kinds.is_timestamp(kind):
        return dt.datetime.fromisoformat(text)
    raise ValueError(f"{text!r} is no {kind}")


def _decimal_of(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError:
        raise ValueError(f"{text!r} is no decimal") from None


def inferred_type(texts: Iterable[str | None]) -> pa.DataType:
    """The type of texts that nothing is known of: one that gives each of them back when its values are written, else text.

    >>> [
    ...     str(inferred_type(texts))
    ...     for texts in (["1", "1099511627776"], ["1", "2.5"], ["01"], ["2026-11-21"], ["1", "x"], [None])
    ... ]
    ['int64', 'double', 'string', 'date32[day]', 'string', 'null']
    """
    present = [text for text in texts if text is not None]
    if not present:
        return pa.null()
    if all(map(_is_whole, present)):
        return pa.int64()
    if all(map(_is_number, present)) and any(any(map(str.isdigit, text)) for text in present):
        return pa.float64()
    if all(map(_is_date, present)):
        return pa.date32()
    return pa.string()


def _is_whole(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None and -(1 << 63) <= int(text) < 1 << 63


def _is_number(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return repr(value) == text or _JAVA_DOUBLE.fullmatch(text) is not None or (_is_whole(text) and int(value) == int(text))


def _is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return True


# -- what files say of their directories ---------------------------------------------------------------------------------------


def file_schema(schema: pa.Schema, directories: tuple[str, ...]) -> pa.Schema:
    """What a file has of a schema some of whose columns are directories; its metadata says the types of those."""
    if not directories:
        return schema
    present = [name for name in directories if name in schema.names]
    types = pa.schema([pa.field(name, plain_type(schema.field(name).type)) for name in present])
    said = base64.b64encode(types.serialize().to_pybytes())
    rest = [field for field in schema if field.name not in directories]
    return pa.schema(rest, metadata={**(schema.metadata or {}), _TYPES: said})


def types_said(metadata: Mapping[bytes, bytes] | None) -> dict[str, pa.DataType]:
    """Types of the columns that a file's directories hold, as far as it says them."""
    said = (metadata or {}).get(_TYPES)
    if said is None:
        return {}
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(said)))
    except (ValueError, OSError):
        return {}
    return {field.name: field.type for field in schema}


def without_types(schema: pa.Schema) -> pa.Schema:
    """The schema of a file without what it says of its directories."""
    metadata = {key: value for key, value in (schema.metadata or {}).items() if key != _TYPES}
    return schema.with_metadata(metadata or None)
