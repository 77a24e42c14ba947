"""What the Parquet files at some paths are as one table: columns by name, each of one type, directories among them. Runs on the driver.

Reads footers, several at a time; no rows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from flowkit.errors import InvalidArgument
from flowkit.execution.parquet_reading import PlannedFragment, ReadFragments, differing_columns
from flowkit.lineage.kernels import FileVersion
from flowkit.model.shown import short
from flowkit.storage.objects.local import BETWEEN_PATHS, LocalFile, is_hidden, local_place
from flowkit.storage.objects.stores import Paths, Stores, address_of, local_path
from flowkit.storage.tables.directories import inferred_type, texts_of, types_said, value_of, without_types
from flowkit.storage.tables.rows import microsecond_type
from flowkit.storage.tables.widening import NoCommonType, SchemaUnion, common_type

_SUFFIXES: Final = (".parquet", ".parq", ".pq")
_MAGIC: Final = (b"PAR1", b"PARE")
_THREADS: Final = 16
#: what Arrow says of a column that is not there
_UNKNOWN: Final = re.compile(r"No match for FieldRef\.Name\((.*?)\) in")
#: of stray files, those that an error names
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class TableFile:
    """A Parquet file of a table."""

    path: str
    fragment: Any
    #: its own columns
    schema: Any
    #: text by column, of the directories it is in
    texts: dict[str, str | None]
    #: types by column that it says its directories have
    said: dict[str, Any]
    #: that was listed before its footer was read
    version: FileVersion


@dataclass(frozen=True, slots=True)
class ParquetTable:
    """The files of a table, and what they are together."""

    files: list[TableFile]
    union: SchemaUnion
    #: columns that are directories of some files
    directories: tuple[str, ...]

    @property
    def schema(self) -> Any:
        """Of the table, columns that only directories have at its end."""
        schema = self.union.schema
        inside = {name for file in self.files for name in file.schema.names}
        return pa.schema(sorted(schema, key=lambda field: field.name not in inside))


def open_table(
    path: Paths, files: Sequence[LocalFile], stores: Stores, *, to_microseconds: bool = False, may_have_none: bool = False
) -> ParquetTable:
    """Read the footers of all Parquet files among some.

    Parameters
    ----------
    path, files
        What was asked for, and the files that it names.
    to_microseconds
        Whether columns that have nanoseconds in some files and not in others get microseconds, the unit of rows.
    may_have_none
        Whether there may be only files of other kinds.

    Raises
    ------
    errors.InvalidArgument
        A file cannot be read as Parquet, or there are only others.
    """
    found = list(files)
    candidates = _candidates(found, _named(path), stores)
    if found and not candidates and not may_have_none:
        names = [Path(file.path).name for file in found]
        more = "" if len(names) <= _SHOWN else f" and {len(names) - _SHOWN} more"
        raise InvalidArgument(
            f"there is no Parquet file with content at {path}, only {', '.join(names[:_SHOWN])}{more}", name="path", value=path
        )
    return _table(candidates, stores, to_microseconds=to_microseconds)


def _named(path: Paths) -> set[str]:
    """What paths say, as files are called."""
    named: set[str] = set()
    for each in [path] if isinstance(path, str | os.PathLike) else path:
        parts = BETWEEN_PATHS.split(each) if isinstance(each, str) else [each]
        named |= {str(part) if address_of(part) is not None else str(local_place(local_path(part))) for part in (each, *parts)}
    return named


def _candidates(files: list[LocalFile], named: set[str], stores: Stores) -> list[LocalFile]:
    """Files that are Parquet's by their name or content; one that a path names is taken at its word."""
    visible = [file for file in files if file.path in named or not any(map(is_hidden, _directories(file)))]
    unsure = [
        file for file in visible if file.size_bytes and file.path not in named and not file.path.lower().endswith(_SUFFIXES)
    ]
    are_parquet = _in_parallel(lambda file: _has_magic(file, stores), unsure)
    strays = {file.path for file, is_parquet in zip(unsure, are_parquet, strict=True) if not is_parquet}
    return [file for file in visible if file.path in named or (file.size_bytes and file.path not in strays)]


def _directories(file: LocalFile) -> tuple[str, ...]:
    """Those between what was named and the file."""
    return tuple(file.path.removeprefix(file.base).strip("/").split("/")[:-1])


def _has_magic(file: LocalFile, stores: Stores) -> bool:
    with stores.open(file.path) as opened:
        return opened.read(4) in _MAGIC


def _in_parallel(fn: Any, elements: Sequence[Any]) -> list[Any]:
    if len(elements) < 2:
        return list(map(fn, elements))
    with ThreadPoolExecutor(min(_THREADS, len(elements)), thread_name_prefix="flowkit-footers") as pool:
        return list(pool.map(fn, elements))


class _Opener:
    """Makes fragments of files."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        # Spark's INT96 has nanoseconds; their 64 bits end in 2262, where "no end" dates begin.
        self._format = ds.ParquetFileFormat(coerce_int96_timestamp_unit="us")
        self._local = LocalFileSystem()

    def open(self, file: LocalFile, values: dict[str, Any]) -> Any:
        """A fragment whose footer was read, with values of directories."""
        store, inner = (self._local, file.path) if address_of(file.path) is None else self._stores.at(file.path)
        fragment = self._format.make_fragment(inner, filesystem=store, partition_expression=_expression(values))
        try:
            fragment.ensure_complete_metadata()
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise InvalidArgument(f"{file.path} cannot be read as Parquet: {error}", name="path", value=file.path) from None
        return fragment


def _expression(values: dict[str, Any]) -> Any:
    made = None
    for name, value in values.items():
        each = ds.field(name) == value if value.is_valid else ds.field(name).is_null()
        made = each if made is None else made & each
    return made


def _table(candidates: list[LocalFile], stores: Stores, *, to_microseconds: bool) -> ParquetTable:
    texts = [texts_of(_directories(file)) for file in candidates]
    names = dict.fromkeys(name for each in texts for name in each)
    opener = _Opener(stores)
    said: dict[str, Any] = {}
    if names:
        # Mostly all files say the same: what the first one says goes into all fragments, and is made good where it was wrong.
        said = types_said(opener.open(candidates[0], {}).physical_schema.metadata)
    types = _directory_types(names, texts, [said] * len(texts))
    opened = _opened(opener, candidates, texts, types)
    heard = [types_said(fragment.physical_schema.metadata) for fragment in opened]
    if names and any(each != said for each in heard):
        types = _directory_types(names, texts, heard)
        opened = _opened(opener, candidates, texts, types)
    files = _files(candidates, opened, texts, heard)
    union = _united(files, types, to_microseconds=to_microseconds)
    united = {name: union.schema.field(name).type for name in types if name not in union.conflicts}
    if any(kind != types[name] for name, kind in united.items()):  # for files that are in no such directory, and have the column
        types |= united
        files = _files(candidates, _opened(opener, candidates, texts, types), texts, heard)
    return ParquetTable(files, union, tuple(types))


def _files(
    candidates: list[LocalFile], opened: list[Any], texts: list[dict[str, str | None]], heard: list[Any]
) -> list[TableFile]:
    return [
        TableFile(file.path, fragment, _checked_schema(file.path, fragment), text, each, file.version)
        for file, fragment, text, each in zip(candidates, opened, texts, heard, strict=True)
    ]


def _checked_schema(path: str, fragment: Any) -> Any:
    schema = without_types(fragment.physical_schema)
    names = schema.names
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InvalidArgument(
            f"{path} has several columns of the name {', '.join(twice)}; a table has one: write the file anew",
            name="path",
            value=path,
        )
    return schema


def _opened(opener: _Opener, files: list[LocalFile], texts: list[dict[str, str | None]], types: dict[str, Any]) -> list[Any]:
    def one(each: tuple[LocalFile, dict[str, str | None]]) -> Any:
        file, text = each
        return opener.open(file, {name: _scalar(value, types[name]) for name, value in text.items()})

    return _in_parallel(one, list(zip(files, texts, strict=True)))


def _directory_types(names: Iterable[str], texts: list[dict[str, str | None]], said: list[dict[str, Any]]) -> dict[str, Any]:
    """Types of directory columns: what files say, and what the names of the others look like; text where these do not agree."""
    found = {}
    for name in names:
        types = [types[name] for types in said if name in types]
        unsaid = [text[name] for text, types in zip(texts, said, strict=True) if name in text and name not in types]
        if unsaid:
            types.append(inferred_type(unsaid))
        found[name] = _agreed(types, [text[name] for text in texts if name in text])
    return found


def _agreed(types: list[Any], texts: list[str | None]) -> Any:
    kind = types[0]
    try:
        for each in types[1:]:
            kind = common_type(kind, each)
        for text in set(texts):
            _scalar(text, kind)
    except (NoCommonType, ValueError, OverflowError, pa.ArrowException):
        return pa.string()
    return pa.string() if pa.types.is_null(kind) else kind


def _scalar(text: str | None, kind: Any) -> Any:
    return pa.scalar(value_of(text, kind), kind)


def _united(files: list[TableFile], directories: dict[str, Any], *, to_microseconds: bool) -> SchemaUnion:
    def union_of(change: Callable[[Any], Any]) -> SchemaUnion:
        union = SchemaUnion()
        for file in files:
            # What a directory says goes for the files in it, whatever they say themselves.
            inside = {name: kind for name, kind in directories.items() if name in file.texts}
            fields = [pa.field(field.name, inside.pop(field.name)) if field.name in inside else field for field in file.schema]
            fields += [pa.field(name, kind) for name, kind in inside.items()]
            union.add(file.path, pa.schema([change(field) for field in fields]))
        return union

    union = union_of(lambda field: field)
    varied = union.varied
    if not to_microseconds or not varied:
        return union
    return union_of(lambda field: field.with_type(microsecond_type(field.type)) if field.name in varied else field)


# -- what is read of a table -------------------------------------------------------------------------------------------------


def plan_read(
    table: ParquetTable, columns: Sequence[str] | None, filters: Any, *, batches: bool, as_they_are: bool = False
) -> tuple[list[PlannedFragment], ReadFragments]:
    """Fragments of whole row groups in which rows may be, and what reads them. ``as_they_are``: files must have their size, no more.

    Raises
    ------
    errors.InvalidArgument
        Columns that are not there, or of which two files have what no type holds; filters that do not fit the table.
    """
    names = _checked_columns(table, columns)
    schema = table.schema
    _check_conflicts(table, names)
    filters = _checked_filters(table, filters)
    reader = ReadFragments(schema, names, filters, batches)
    needed = schema.names if names is None or filters is not None else names
    fragments = []
    for file in table.files:
        version = FileVersion(file.version.size_bytes, 0) if as_they_are else file.version
        found: list[Any] = []
        if filters is None:
            found = file.fragment.split_by_row_group()
        elif differing_columns(file.schema, schema, [name for name in needed if name not in file.texts]):
            # Statistics are of the file's types, filters of the table's.
            if _may_match(file, schema, filters):
                found = file.fragment.split_by_row_group()
        else:
            found = file.fragment.split_by_row_group(filter=filters, schema=schema)
        fragments += [PlannedFragment(each, version) for each in found]
    return fragments, reader


def _may_match(file: TableFile, schema: Any, filters: Any) -> bool:
    """Whether the directories of a file leave a filter open."""
    dataset = ds.FileSystemDataset([file.fragment], schema, file.fragment.format, file.fragment.filesystem)
    return any(True for _ in dataset.get_fragments(filter=filters))


def _checked_columns(table: ParquetTable, columns: Sequence[str] | None) -> tuple[str, ...] | None:
    if columns is None:
        return None
    allowed = [*table.schema.names, *table.union.conflicts]
    names = tuple(columns)
    if isinstance(columns, str) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InvalidArgument(
            f"columns = {columns!r}: must be a list of names, each once",
            name="columns",
            value=columns,
            allowed=", ".join(allowed),
        )
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise InvalidArgument(
            f"columns = {list(names)!r}: there is no {', '.join(unknown)}; there are {', '.join(allowed) or 'none'}",
            name="columns",
            value=columns,
            allowed=", ".join(allowed),
        )
    return names


def _check_conflicts(table: ParquetTable, names: tuple[str, ...] | None) -> None:
    for name, conflict in table.union.conflicts.items():
        if names is None or name in names:
            raise InvalidArgument(
                f"{conflict}, and no type holds both; read other columns=, or the files apart, and make them alike",
                name="path",
                value=[conflict.source, conflict.other_source],
            )
    for one, other in table.union.alike_but_for_case():
        if names is None or one in names or other in names:
            sources = table.union.names_by_source
            where = [sources[each] for each in (one, other)]
            raise InvalidArgument(
                f"column {one!r} of {where[0]} is called {other!r} in {where[1]}; rename it in one of them, or read the files apart",
                name="path",
                value=where,
            )


def _checked_filters(table: ParquetTable, filters: Any) -> Any:
    if filters is None:
        return None
    schema = table.schema
    try:
        if not isinstance(filters, ds.Expression):
            filters = pq.filters_to_expression(filters)
        schema.empty_table().filter(filters)
    except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
        conflicts = "".join(f"; {conflict}" for conflict in table.union.conflicts.values())
        unknown = _UNKNOWN.search(str(error))
        if unknown is not None:
            problem = f"there is no {unknown[1]}; there are {', '.join(schema.names)}"
        else:
            problem = (
                f"{error}; a filter is (column, operator, value), several are a list, and a pyarrow expression is taken as it is"
            )
        raise InvalidArgument(
            f"filters = {short(filters)}: {problem}{conflicts}", name="filters", value=filters, allowed=", ".join(schema.names)
        ) from None
    return filters
