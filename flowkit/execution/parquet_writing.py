"""Partitions into Parquet files: every value as it was given, every file of a task with one schema. Runs on slot threads.

A task learns its schema while it writes. Rows that need a wider one begin a new piece of a file; when all rows are there, the pieces become
one file of the schema that holds them all. Which schema that is the task reports, and the driver unites those of all tasks: see
``rdd.parquet_saves``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flowkit.errors import BadRow, InternalError
from flowkit.execution.sinks import StoreTarget, Target, discard
from flowkit.execution.task_context import TaskContext
from flowkit.model.shown import short
from flowkit.storage.tables.casts import Unfit, cast_table
from flowkit.storage.tables.directories import MISSING, directory_of, file_schema, is_type_for_directories
from flowkit.storage.tables.rows import as_mapping, misfit, path_text, table_of
from flowkit.storage.tables.widening import NoCommonType, common_fields, storable_schema

#: rows made into one table, one row group
_ROWS_AT_ONCE = 8_192
_OTHERS = ", which other rows of the column need"


@dataclass(frozen=True, slots=True)
class WrittenParquet:
    """What a task wrote: names below the target, and the schema they have in common, columns that are directories among it."""

    files: tuple[str, ...] = ()
    #: as ``pyarrow.Schema.serialize`` has it, compressed: a driver holds thousands; None: the one that was given, or there were no rows
    schema: bytes | None = None


@dataclass(frozen=True, slots=True)
class WriteParquet:
    """Writes a partition's rows into ``name-00000.parquet``, in a directory ``column=value`` for each value of some columns."""

    target: Target
    name: str
    #: columns that become directories
    directories: tuple[str, ...]
    #: the one schema, if it is given
    schema: Any
    compression: str
    #: a file that has grown to it is followed by another; 0: one file a partition and directory
    file_bytes: int = 0

    def __call__(self, partition: int, rows: Iterator[Any]) -> WrittenParquet:
        """Write the rows; nobody sees files before the task may commit."""
        context = _context()
        name = f"{self.name}-{partition:05d}"
        drafts = self.target.draft(f"{name}-{context.task_attempt_id}")
        files = _Files(drafts, name, self.compression, self.file_bytes)
        schema: Any = self.schema
        count = 0
        try:
            try:
                for number, table in self._tables(partition, rows):
                    schema, fitting = self._fitted(table, schema, f"row {{}} of partition {partition}", number)
                    for directory, part in self._parts(fitting):
                        files.at(directory).write(part, file_schema(schema, self.directories))
                    count += table.num_rows
                if not count and schema is not None and not self.directories:
                    files.at("").write(schema.empty_table(), schema)
                if schema is not None:
                    files.finish(file_schema(schema, self.directories), partition)
            finally:
                files.close()
            context.acquire_commit()
            size = sum((drafts / file).stat().st_size for file in files.names)
            for file in files.names:
                self.target.publish(drafts / file, file)
        finally:
            discard(drafts)
        context.metrics.output_bytes += size
        context.metrics.output_rows += count
        if schema is None or self.schema is not None:
            return WrittenParquet(files.names)
        return WrittenParquet(files.names, zlib.compress(schema.serialize().to_pybytes(), 1))

    def _tables(self, partition: int, rows: Iterator[Any]) -> Iterator[tuple[int, Any]]:
        """Tables, each after the number of its first row."""
        number = 0
        for row in rows:
            if isinstance(row, pa.RecordBatch | pa.Table):
                table = pa.Table.from_batches([row]) if isinstance(row, pa.RecordBatch) else row
                yield number, _checked_table(table)
                number += table.num_rows
                continue
            batch: list[Any] = []
            # Tables may stand among mappings: a batch ends before them.
            after: list[Any] = []
            for each in chain((row,), islice(rows, _ROWS_AT_ONCE - 1)):
                if isinstance(each, pa.RecordBatch | pa.Table):
                    after.append(each)
                    break
                batch.append(each if type(each) is dict else as_mapping(each))
            yield number, self._table(partition, batch, number)
            number += len(batch)
            for each in after:
                table = pa.Table.from_batches([each]) if isinstance(each, pa.RecordBatch) else each
                yield number, _checked_table(table)
                number += table.num_rows

    def _table(self, partition: int, batch: list[Any], number: int) -> Any:
        try:
            return table_of(batch, self.schema)
        except Unfit as error:
            raise misfit(error, f"row {number + error.place} of partition {partition}") from None

    def _fitted(self, table: Any, schema: Any, where: str, number: int) -> tuple[Any, Any]:
        """A schema that holds the table too, and the table with it."""
        if schema is None or schema.equals(table.schema):
            return table.schema if schema is None else schema, table
        if self.schema is None:
            try:
                fields = common_fields(list(schema), list(table.schema))
            except NoCommonType as error:
                value = short(table.column(error.path[0]).drop_null()[0].as_py(), 100)
                raise BadRow(
                    f"column {path_text(error.path)!r} is {error.one} in rows before {where.format(number)}, and {error.other} ({value}) "
                    "from there on; a column has one type: make them alike, or say schema="
                ) from None
            schema = pa.schema(fields, metadata=schema.metadata)
        elif unknown := [name for name in table.schema.names if name not in schema.names]:
            raise BadRow(f"{where.format(number)} is of a table with columns that the schema has not: {', '.join(unknown)}")
        try:
            return schema, cast_table(table, schema)
        except Unfit as error:
            raise misfit(error, where.format(number + error.place), "" if self.schema is not None else _OTHERS) from None

    def _parts(self, table: Any) -> Iterator[tuple[str, Any]]:
        """The rows of each directory."""
        if not self.directories:
            yield "", table
            return
        for column in self.directories:
            if column not in table.schema.names:  # as of any field that a row lacks; that all lack it the driver sees
                table = table.append_column(column, pa.nulls(table.num_rows))
        for column in self.directories:
            if not is_type_for_directories(kind := table.schema.field(column).type):
                raise BadRow(f"column {column!r} is {kind}, of which no directories are made; choose another for partition_by")
        rest = table.drop_columns(list(self.directories))
        if not rest.num_columns:
            raise BadRow(f"partition_by = {list(self.directories)!r}: names all columns; a file needs one that is no directory")
        places: dict[str, list[int]] = {}
        values = zip(*(_in_utc(table[column]).to_pylist() for column in self.directories), strict=True)
        known: dict[Any, list[int]] = {}
        for place, combination in enumerate(values):
            found = known.get(combination)
            if found is None:
                # By the name, since values that differ may have one name (NaN is not equal to itself).
                found = known[combination] = places.setdefault(self._directory(combination), [])
            found.append(place)
        for directory, chosen in places.items():
            yield directory, rest if len(places) == 1 else rest.take(pa.array(chosen))

    def _directory(self, values: tuple[Any, ...]) -> str:
        for column, value in zip(self.directories, values, strict=True):
            if value == MISSING:
                raise BadRow(f"column {column!r} has the value {value!r}, which as a directory's name says that there is none")
        return "/".join(map(directory_of, self.directories, values))


def _context() -> TaskContext:
    context = TaskContext.get()
    if context is None:
        raise InternalError("files are written by tasks")
    return context


def _in_utc(column: Any) -> Any:
    # In a zone two moments of an autumn night have one name.
    kind = column.type
    return column.cast(pa.timestamp(kind.unit, "UTC")) if pa.types.is_timestamp(kind) and kind.tz is not None else column


def _checked_table(table: Any) -> Any:
    names = table.schema.names
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise BadRow(f"a table has several columns of the name {', '.join(twice)}; a file keeps one")
    schema = storable_schema(table.schema)
    return table if schema.equals(table.schema) else cast_table(table, schema)


class _Files:
    """The files of a task, by directory."""

    def __init__(self, place: Path, name: str, compression: str, file_bytes: int) -> None:
        self._place = place
        self._name = name
        self._compression = compression
        self._file_bytes = file_bytes
        self._by_directory: dict[str, _Directory] = {}

    def at(self, directory: str) -> _Directory:
        """Those of one directory."""
        known = self._by_directory.get(directory)
        if known is None:
            place = self._place / directory
            place.mkdir(parents=True, exist_ok=True)
            known = self._by_directory[directory] = _Directory(place, self._name, self._compression, self._file_bytes)
        return known

    @property
    def names(self) -> tuple[str, ...]:
        """Of finished files, below the place."""
        paths = (file.path for each in self._by_directory.values() for file in each.files)
        return tuple(sorted(str(path.relative_to(self._place)) for path in paths))

    def finish(self, schema: Any, partition: int) -> None:
        """Give all files the schema that the task has now."""
        self.close()
        for each in self._by_directory.values():
            for file in each.files:
                file.become_one(schema, self._compression, f"in {{}} of partition {partition}")

    def close(self) -> None:
        """Write what is held back. Idempotent."""
        for each in self._by_directory.values():
            each.close()


@dataclass(slots=True)
class _File:
    path: Path
    #: pieces of growing schemas, the last one at ``path``
    pieces: list[tuple[Path, Any]] = field(default_factory=list)

    def become_one(self, schema: Any, compression: str, where: str) -> None:
        """Make one file of the pieces, with the schema that is given."""
        if len(self.pieces) == 1 and self.pieces[0][1].equals(schema, check_metadata=True):
            return
        made = self.path.with_name(f"{self.path.name}.whole")
        copy_tables(made, schema, compression, [piece for piece, _ in self.pieces], where)
        for piece, _ in self.pieces:
            piece.unlink(missing_ok=True)
        made.replace(self.path)
        self.pieces = [(self.path, schema)]


class _Directory:
    """The files of one directory, of which the last is open."""

    def __init__(self, place: Path, name: str, compression: str, file_bytes: int) -> None:
        self._place = place
        self._name = name
        self._compression = compression
        self._file_bytes = file_bytes
        self._writer: Any = None
        self.files: list[_File] = []

    def write(self, table: Any, schema: Any) -> None:
        """Write a table whose schema is given, metadata included."""
        self._writer_for(schema).write_table(table)
        if self._file_bytes and self._size() >= self._file_bytes:
            self.close()

    def _writer_for(self, schema: Any) -> Any:
        """Of the open file, in a piece of the schema."""
        if self._writer is not None and self._writer.schema.equals(schema, check_metadata=True):
            return self._writer
        if self._writer is not None:
            self.close()
            file = self.files[-1]
            piece = file.path.with_name(f"{file.path.name}.piece-{len(file.pieces)}")
            file.path.rename(piece)
            file.pieces[-1] = piece, file.pieces[-1][1]
        else:
            # Numbered from the first, so that files have the order of their rows by name.
            more = f"-{len(self.files):05d}" if self._file_bytes else ""
            file = _File(self._place / f"{self._name}{more}.parquet")
            self.files.append(file)
        self._writer = writer = pq.ParquetWriter(file.path, schema, compression=self._compression)
        file.pieces.append((file.path, schema))
        return writer

    def _size(self) -> int:
        return sum(piece.stat().st_size for piece, _ in self.files[-1].pieces)

    def close(self) -> None:
        """End the open file. Idempotent."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()


def copy_tables(to: Path, schema: Any, compression: str, sources: list[Any], where: str) -> None:
    """Write the row groups of Parquet files into one file of another schema, every value equal to what it was.

    Raises ``errors.BadRow`` for the first value that has no equal, with its column and its row; ``where`` says of which rows, ``{}`` is the row.
    """
    with pq.ParquetWriter(to, schema, compression=compression) as writer:
        for source in sources:
            with pq.ParquetFile(source) as file:
                for number in range(file.num_row_groups):
                    table = file.read_row_group(number)
                    try:
                        writer.write_table(cast_table(table, schema))
                    except Unfit as error:
                        (row,) = table.slice(error.place, 1).to_pylist()
                        raise misfit(error, where.format(f"the row {short(row)}"), _OTHERS) from None


@dataclass(frozen=True, slots=True)
class RewriteParquet:
    """Gives files that are written already another schema; a partition is the file of its number."""

    target: Target
    #: names, each after the partition whose rows are in it
    files: tuple[tuple[int, str], ...]
    schema: Any
    compression: str

    def __call__(self, partition: int, _rows: Iterator[Any]) -> None:
        """Write the file anew and put it into the place of what it was. Idempotent."""
        context = _context()
        source_partition, name = self.files[partition]
        where = f"in {{}} of partition {source_partition}"
        draft = self.target.draft(f"again-{partition:05d}-{context.task_attempt_id}")
        try:
            source = f"{self.target.directory}/{name}"
            if isinstance(self.target, StoreTarget):
                with self.target.stores.open(source) as opened:
                    copy_tables(draft, self.schema, self.compression, [opened], where)
            else:
                copy_tables(draft, self.schema, self.compression, [source], where)
            context.acquire_commit()
            self.target.publish(draft, name)
        finally:
            discard(draft)
