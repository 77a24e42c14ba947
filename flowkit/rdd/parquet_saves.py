"""A Parquet save after its tasks: their schemas become one, and so do their files, before anybody sees them. Runs on the driver."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from flowkit.errors import BadRow, InvalidArgument
from flowkit.execution.parquet_writing import RewriteParquet, WriteParquet, WrittenParquet
from flowkit.execution.sinks import StoreTarget, Target
from flowkit.model.checks import check_names
from flowkit.model.shown import short
from flowkit.rdd.parquet_reads import ParquetTable, open_table
from flowkit.storage.objects.local import list_files
from flowkit.storage.objects.stores import Stores, address_of, local_path
from flowkit.storage.tables.directories import file_schema, texts_of, value_of
from flowkit.storage.tables.rows import path_text, rows_of
from flowkit.storage.tables.widening import SchemaUnion, path_of_empty, storable_schema

#: its functions are made when it is imported, so type checkers see none of them
pc: Any = pyarrow.compute

#: runs a task for each of so many files: the task's function, how many, and the result
RunForEach = Callable[[Callable[[int, Iterator[Any]], Any], int], Any]

_COMPRESSIONS = ("snappy", "zstd", "gzip", "lz4", "none")


@dataclass(frozen=True, slots=True)
class ParquetSave:
    """How rows become the files of a table."""

    schema: Any
    directories: tuple[str, ...]
    compression: str
    file_bytes: int

    @classmethod
    def checked(cls, schema: Any, partition_by: Sequence[str], compression: str, file_bytes: int) -> ParquetSave:
        """Of a user's arguments; raises ``errors.InvalidArgument``."""
        if compression not in _COMPRESSIONS:
            raise InvalidArgument(
                f"compression = {compression!r}: must be one of {', '.join(_COMPRESSIONS)}", name="compression", value=compression
            )
        names = check_names("partition_by", partition_by)
        if len(set(names)) < len(names):
            raise InvalidArgument(
                f"partition_by = {partition_by!r}: must be a list of names, each once", name="partition_by", value=partition_by
            )
        if schema is not None:
            _check_schema(schema, names)
        return cls(schema, names, compression, file_bytes)

    def writer(self, target: Target, name: str) -> WriteParquet:
        """What the tasks run."""
        return WriteParquet(target, name, self.directories, self.schema, self.compression, self.file_bytes)

    def existing(self, path: str | Path, stores: Stores) -> ParquetTable:
        """The table that is added to.

        Raises ``errors.InvalidArgument`` when the schema that is given does not unite with it.
        """
        is_local = address_of(path) is None
        files = list_files(local_path(path), recursive=True) if is_local else stores.list_files(str(path), recursive=True)
        table = open_table(path, files, stores, may_have_none=True)
        if self.schema is not None:
            union = self._union([(f"the schema given for {path}", self.schema)], table)
            if union.conflicts:
                raise InvalidArgument(_told(union), name="schema", value=self.schema)
        return table

    def settle(self, target: Target, written: Sequence[WrittenParquet], existing: ParquetTable | None, run: RunForEach) -> None:
        """Give all files one schema, that of the table they are added to included.

        Raises ``errors.BadRow`` when there is none, or when a value has no equal in it.
        """
        schemas = self._schemas(written)
        found = [(f"partition {number}", schema) for number, schema in enumerate(schemas) if schema is not None]
        if not found:
            return
        union = self._union(found, existing)
        if union.conflicts:
            raise BadRow(_told(union) + _examples(target, union, written))
        if existing is not None:
            _check_readable(existing, union)
        schema = _of_columns(union.schema, [name for _, each in found for name in each.names])
        empty = path_of_empty(schema)
        if empty is not None:
            what = f"column {path_text(empty)!r} holds mappings" if empty else "rows are mappings"
            raise BadRow(f"{what} without any field, and Parquet has no place for those; leave them out, or give them a field")
        missing = [name for name in self.directories if name not in schema.names]
        if missing:
            raise BadRow(f"rows have no column {', '.join(missing)} to partition by; they have {', '.join(schema.names)}")
        kept = file_schema(schema, self.directories)
        differing = [
            (number, name)
            for number, (each, own) in enumerate(zip(written, schemas, strict=True))
            if own is not None and not own.equals(schema)
            for name in self._checked(each.files, own, schema)
        ]
        if differing:
            run(RewriteParquet(target, tuple(differing), kept, self.compression), len(differing))

    def _schemas(self, written: Sequence[WrittenParquet]) -> list[Any]:
        """Of each task that wrote files."""
        known: dict[bytes, Any] = {}
        for each in written:
            if each.schema is not None and each.schema not in known:
                known[each.schema] = pa.ipc.read_schema(pa.py_buffer(zlib.decompress(each.schema)))
        return [(self.schema if each.schema is None else known[each.schema]) if each.files else None for each in written]

    def _union(self, found: Sequence[tuple[str, Any]], existing: ParquetTable | None) -> SchemaUnion:
        union = SchemaUnion()
        if existing is not None:
            for file in existing.files:
                union.add(file.path, _whole_schema(file, existing.union.schema))
        for source, schema in found:
            union.add(source, schema)
        return union

    def _checked(self, files: Sequence[str], own: Any, schema: Any) -> Sequence[str]:
        """The files, if what their directories are called means the same in both schemas."""
        before = {name: own.field(name).type for name in self.directories if name in own.names}
        changed = [name for name, kind in before.items() if not kind.equals(schema.field(name).type)]
        for file in files if changed else ():
            texts = texts_of(Path(file).parts[:-1])
            for name in changed:
                wanted = schema.field(name).type
                value = value_of(texts[name], before[name])
                if value != value_of(texts[name], wanted) and value == value:  # noqa: PLR0124 - NaN
                    raise BadRow(f"column {name!r}: {short(value)} does not fit {wanted}, which other rows of the column need")
        return files


def _check_schema(schema: Any, directories: tuple[str, ...]) -> None:
    if not isinstance(schema, pa.Schema):
        raise InvalidArgument(
            f"schema = {short(schema)}: must be a pyarrow.Schema, not {type(schema).__name__}", name="schema", value=schema
        )
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice or not schema.names:
        raise InvalidArgument(
            f"schema: has {'several columns of the name ' + ', '.join(twice) if twice else 'no columns'}",
            name="schema",
            value=schema,
        )
    empty = path_of_empty(storable_schema(schema))
    if empty is not None:
        raise InvalidArgument(
            f"schema: column {path_text(empty)!r} is a struct without fields, for which Parquet has no place",
            name="schema",
            value=schema,
        )
    missing = [name for name in directories if name not in schema.names]
    if missing:
        raise InvalidArgument(
            f"partition_by = {list(directories)!r}: the schema has no column {', '.join(missing)}",
            name="partition_by",
            value=directories,
            allowed=", ".join(schema.names),
        )


def _of_columns(schema: Any, names: Sequence[str]) -> Any:
    """The columns that are written, in their own order: what is there already may have more."""
    order = [name for name in dict.fromkeys(names) if name in schema.names]
    return pa.schema([schema.field(name) for name in order], metadata=schema.metadata)


def _whole_schema(file: Any, united: Any) -> Any:
    """With the columns that a file's directories are."""
    fields = [field for field in file.schema if field.name not in file.texts]
    return pa.schema(fields + [united.field(name) for name in file.texts if name in united.names])


#: up to here every whole number has a float that is equal to it
_LARGEST_EXACT_FLOAT = 1 << 53


def _check_readable(existing: ParquetTable, union: SchemaUnion) -> None:
    """Refuse what would make a table that is there unreadable: what is added is written to fit it, but it stays as it is."""
    sources = union.names_by_source
    for one, other in union.alike_but_for_case():
        raise BadRow(
            f"column {one!r} of {sources[one]} is called {other!r} in {sources[other]}; rows that are added must call it as the table does"
        )
    for file in existing.files:
        for field in file.schema:
            wanted = union.schema.field(field.name).type
            if not (pa.types.is_integer(field.type) and pa.types.is_floating(wanted)):
                continue
            low, high = _range_of(file.fragment.metadata, field.name)
            if high > _LARGEST_EXACT_FLOAT or low < -_LARGEST_EXACT_FLOAT:
                raise BadRow(
                    f"column {field.name!r} is {field.type} in {file.path}, with numbers from {low} to {high}, which do not all fit "
                    f"{wanted}, the type of the rows that are added"
                )


def _range_of(footer: Any, column: str) -> tuple[int, int]:
    """The least and the largest number of a column, as far as a file says it."""
    found: list[int] = []
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        for each in map(group.column, range(group.num_columns)):
            if each.path_in_schema == column and each.is_stats_set and each.statistics.has_min_max:
                found += [each.statistics.min, each.statistics.max]
    return min(found, default=0), max(found, default=0)


def _told(union: SchemaUnion) -> str:
    told = "; ".join(map(str, union.conflicts.values()))
    return f"{told}; a column has one type: make the rows alike, or say schema="


def _examples(target: Target, union: SchemaUnion, written: Sequence[WrittenParquet]) -> str:
    """A row of each of two partitions that do not agree; nothing where no file is left to show one."""
    told = []
    for name, conflict in union.conflicts.items():
        for source in (conflict.source, conflict.other_source):
            number = source.removeprefix("partition ")
            if number.isdigit():
                row = _first_row(target, written[int(number)].files, name)
                told += [] if row is None else [f" ({source} has {short(row, 100)})"]
    return "".join(told)


def _first_row(target: Target, files: Sequence[str], column: str) -> dict[str, Any] | None:
    for name in files:
        path = f"{target.directory}/{name}"
        stores = target.stores if isinstance(target, StoreTarget) else Stores()
        with stores.open(path) as source, pq.ParquetFile(source) as file:
            if column not in file.schema_arrow.names:
                return None
            for batch in file.iter_batches():
                valid = batch.column(batch.schema.get_field_index(column)).is_valid()
                place = pc.index(valid, value=True).as_py()
                if place >= 0:
                    return rows_of(batch.slice(place, 1))[0]
    return None
