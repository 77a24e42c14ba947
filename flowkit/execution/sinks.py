"""Partitions into files: one file an attempt, beside the place it is meant for; renamed when the scheduler says that this attempt may.

Runs on slot threads. Formats are plain data with one method, ``write(rows, path)``; all else is the same for all of them.
"""

from __future__ import annotations

import csv
import gzip
import json
import pickle
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import quote

from flowkit.errors import InternalError
from flowkit.execution.task_context import TaskContext
from flowkit.model.shown import short
from flowkit.storage.blocks.block_files import write_batches
from flowkit.storage.objects.stores import Stores

#: rows made into one batch, one pickle, one row group's piece
_ROWS_AT_ONCE = 8_192
#: rows written between two looks at how large the file is
_LOOK_ROWS = 256


class FileFormat(Protocol):
    """How rows become a file."""

    @property
    def extension(self) -> str:
        """Of the file's name, with its dot."""
        ...

    def write(self, rows: Iterator[Any], path: Path) -> int:
        """Write all rows to a new file; returns how many there were."""
        ...


@dataclass(frozen=True, slots=True)
class LocalTarget:
    """A directory of a file system that driver and executors share."""

    directory: str

    def draft(self, name: str) -> Path:
        """Where an attempt writes, of which others see nothing."""
        beside = Path(self.directory) / "_temporary" / name
        beside.parent.mkdir(parents=True, exist_ok=True)
        return beside

    def publish(self, draft: Path, name: str) -> None:
        """Give a file its name."""
        target = Path(self.directory) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.replace(target)


@dataclass(frozen=True, slots=True)
class StoreTarget:
    """A directory of an object store: attempts write to a disk of theirs, and what may be seen is sent as a whole."""

    directory: str
    stores: Stores

    def draft(self, name: str) -> Path:
        """Where an attempt writes."""
        return Path(tempfile.mkdtemp(prefix="flowkit-upload-")) / name

    def publish(self, draft: Path, name: str) -> None:
        """Send a file."""
        self.stores.upload(draft, f"{self.directory}/{name}")


Target = LocalTarget | StoreTarget


def _discard(draft: Path) -> None:
    shutil.rmtree(draft, ignore_errors=True)
    draft.unlink(missing_ok=True)
    if draft.parent.name.startswith("flowkit-upload-"):
        shutil.rmtree(draft.parent, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class WriteFiles:
    """Writes each partition into ``name-00000.extension`` of a target, and into ``name-00000-1.extension`` and on what is too much for one."""

    target: Target
    name: str
    format: FileFormat
    #: a file that has grown to it is followed by another; 0: one file a partition
    file_bytes: int = 0

    def __call__(self, partition: int, rows: Iterator[Any]) -> int:
        """Bytes written."""
        context = TaskContext.get()
        if context is None:
            raise InternalError("files are written by tasks")
        drafts: list[tuple[Path, str]] = []
        portions = Portions(rows, self.file_bytes)
        count = 0
        try:
            while not drafts or portions.has_more():
                more = f"-{len(drafts)}" if drafts else ""
                name = f"{self.name}-{partition:05d}{more}{self.format.extension}"
                draft = self.target.draft(f"{name}-{context.task_attempt_id}")
                drafts.append((draft, name))
                count += self.format.write(portions.until_full(draft), draft)
            context.acquire_commit()
            size = sum(draft.stat().st_size for draft, _ in drafts)
            for draft, name in drafts:
                self.target.publish(draft, name)
        finally:
            for draft, _ in drafts:
                _discard(draft)
        context.metrics.output_bytes += size
        context.metrics.output_rows += count
        return size


class Portions:
    """Rows in portions that each make a file of about so many bytes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     file = Path(directory, "out")
    ...     portions = Portions(iter(range(5)), 0)
    ...     list(portions.until_full(file)), portions.has_more()
    ([0, 1, 2, 3, 4], False)
    """

    def __init__(self, rows: Iterator[Any], file_bytes: int) -> None:
        self._rows = rows
        self._file_bytes = file_bytes
        #: one that was taken to see whether there is one
        self._ahead: list[Any] = []

    def has_more(self) -> bool:
        """Whether there is a row left, once a file is full."""
        if not self._ahead:
            self._ahead += islice(self._rows, 1)
        return bool(self._ahead)

    def until_full(self, file: Path) -> Iterator[Any]:
        """Rows until the file they are written to is large enough."""
        return self._until_full(file) if self._file_bytes else self._rows

    def _until_full(self, file: Path) -> Iterator[Any]:
        ahead, self._ahead = self._ahead, []
        for number, row in enumerate(chain(ahead, self._rows), 1):
            yield row
            large = hasattr(row, "num_rows")  # a table or a batch: one may be enough
            if (large or not number % _LOOK_ROWS) and file.exists() and file.stat().st_size >= self._file_bytes:
                return


def _opened(path: Path, compression: str | None) -> IO[bytes]:
    opened: Any = gzip.open(path, "wb", compresslevel=6) if compression == "gzip" else path.open("wb")  # noqa: SIM115 - closed by the caller
    file: IO[bytes] = opened
    return file


def _suffix(compression: str | None) -> str:
    return ".gz" if compression == "gzip" else ""


@dataclass(frozen=True, slots=True)
class TextFormat:
    """A line an element: ``bytes`` as they are, ``str`` of others."""

    encoding: str
    compression: str | None = None

    @property
    def extension(self) -> str:
        """None but that of the compression."""
        return _suffix(self.compression)

    def write(self, rows: Iterator[Any], path: Path) -> int:
        """See ``FileFormat``."""
        count = 0
        with _opened(path, self.compression) as file:
            for row in rows:
                file.write(row if isinstance(row, bytes) else str(row).encode(self.encoding))
                file.write(b"\n")
                count += 1
        return count


@dataclass(frozen=True, slots=True)
class JsonLinesFormat:
    """A JSON value a line."""

    compression: str | None = None

    @property
    def extension(self) -> str:
        """``.jsonl``, compressed or not."""
        return ".jsonl" + _suffix(self.compression)

    def write(self, rows: Iterator[Any], path: Path) -> int:
        """See ``FileFormat``."""
        encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
        count = 0
        with _opened(path, self.compression) as file:
            for row in rows:
                try:
                    line = encode(row)
                except (TypeError, ValueError) as error:
                    raise TypeError(f"cannot write {short(row)} as JSON: {error}") from None
                file.write(line.encode() + b"\n")
                count += 1
        return count


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """Comma separated values: of mappings the columns asked for, of sequences all."""

    columns: tuple[str, ...] | None
    header: bool
    delimiter: str
    encoding: str
    compression: str | None = None

    @property
    def extension(self) -> str:
        """``.csv``, compressed or not."""
        return ".csv" + _suffix(self.compression)

    def write(self, rows: Iterator[Any], path: Path) -> int:
        """See ``FileFormat``."""
        import io

        count = 0
        columns = self.columns
        with _opened(path, self.compression) as raw, io.TextIOWrapper(raw, encoding=self.encoding, newline="") as file:
            writer = csv.writer(file, delimiter=self.delimiter)
            for row in rows:
                if columns is None and isinstance(row, Mapping):
                    columns = tuple(row)
                if not count and self.header and columns is not None:
                    writer.writerow(columns)
                writer.writerow(self._fields(row, columns))
                count += 1
            if not count and self.header and columns is not None:
                writer.writerow(columns)
        return count

    def _fields(self, row: Any, columns: tuple[str, ...] | None) -> Sequence[Any]:
        if isinstance(row, Mapping):
            if unknown := row.keys() - set(columns or ()):
                raise TypeError(f"{short(row)} has fields that are no columns: {', '.join(sorted(map(str, unknown)))}")
            return [row.get(column) for column in columns or ()]
        if not isinstance(row, list | tuple) or (columns is not None and len(row) != len(columns)):
            wanted = "a mapping or a sequence" + ("" if columns is None else f" of {len(columns)}")
            raise TypeError(f"cannot write {short(row)} as CSV: needs {wanted}")
        return row


@dataclass(frozen=True, slots=True)
class PickleFormat:
    """Pickled lists of rows, one after another."""

    @property
    def extension(self) -> str:
        """``.pickle``."""
        return ".pickle"

    def write(self, rows: Iterator[Any], path: Path) -> int:
        """See ``FileFormat``."""
        count = 0
        with path.open("wb") as file:
            while batch := list(islice(rows, _ROWS_AT_ONCE)):
                pickle.dump(batch, file, pickle.HIGHEST_PROTOCOL)
                count += len(batch)
        return count


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """Batches with checksums, as cached partitions have on disk: what checkpoints are made of."""

    @property
    def extension(self) -> str:
        """``.block``."""
        return ".block"

    def write(self, rows: Iterator[Any], path: Path) -> int:
        """See ``FileFormat``."""
        with path.open("wb") as file:
            return write_batches(file, iter(lambda: list(islice(rows, _ROWS_AT_ONCE)), []))


@dataclass(frozen=True, slots=True)
class ParquetFormat:
    """Parquet of mappings, or of Arrow record batches and tables."""

    schema: Any
    compression: str

    @property
    def extension(self) -> str:
        """``.parquet``."""
        return ".parquet"

    def write(self, rows: Iterator[Any], path: Path) -> int:
        """See ``FileFormat``."""
        import pyarrow.parquet as pq

        tables = as_tables(rows, self.schema)
        first = next(tables, None)
        if first is None:
            if self.schema is not None:
                pq.write_table(self.schema.empty_table(), path, compression=self.compression)
            else:
                path.touch()  # replaced by nothing: see ``WriteParquetDirectories``
            return 0
        with pq.ParquetWriter(path, first.schema, compression=self.compression) as writer:
            count = 0
            for table in chain((first,), tables):
                writer.write_table(table)
                count += table.num_rows
        return count


def as_tables(rows: Iterator[Any], schema: Any) -> Iterator[Any]:
    """Arrow tables of rows, which are mappings, record batches or tables; all of the schema given, or of the first one's."""
    import pyarrow as pa

    for first in rows:
        if isinstance(first, pa.RecordBatch | pa.Table):
            for each in chain((first,), rows):
                table = pa.Table.from_batches([each]) if isinstance(each, pa.RecordBatch) else each
                schema = schema or table.schema
                yield _cast(table, schema)
            return
        everything = chain((first,), rows)
        while batch := list(islice(everything, _ROWS_AT_ONCE)):
            table = _table_of(batch, schema)
            schema = schema or table.schema
            yield table
        return


def _cast(table: Any, schema: Any) -> Any:
    if table.schema.equals(schema):
        return table
    try:
        return table.select(schema.names).cast(schema)
    except (KeyError, ValueError, TypeError) as error:
        raise TypeError(f"a table of {table.schema.names} does not fit the schema of the others: {error}") from None


def _table_of(batch: list[Any], schema: Any) -> Any:
    import pyarrow as pa

    for row in batch:
        if not isinstance(row, Mapping):
            raise TypeError(f"cannot write {short(row)} as a row of columns: needs a mapping, a RecordBatch or a Table")
        if schema is not None and (unknown := row.keys() - set(schema.names)):
            raise TypeError(
                f"{short(row)} has fields that the schema has not: {', '.join(sorted(map(str, unknown)))}; give schema=, or make "
                "rows alike"
            )
    try:
        return pa.Table.from_pylist(batch, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise TypeError(f"rows do not fit {'the schema' if schema is not None else 'together'}: {error}") from None


@dataclass(frozen=True, slots=True)
class WriteParquetDirectories:
    """Writes each partition into directories ``column=value``, as Hive does: one file in each for a partition that has rows for it."""

    target: Target
    name: str
    columns: tuple[str, ...]
    format: ParquetFormat
    #: as of ``WriteFiles``
    file_bytes: int = 0

    def __call__(self, partition: int, rows: Iterator[Any]) -> int:
        """Bytes written."""
        import pyarrow.parquet as pq

        context = TaskContext.get()
        if context is None:
            raise InternalError("files are written by tasks")
        beside = self.target.draft(f"{self.name}-{partition:05d}-{context.task_attempt_id}")
        file_name = f"{self.name}-{partition:05d}"
        writers: dict[tuple[Any, ...], Any] = {}
        files: dict[tuple[Any, ...], list[Path]] = {}
        count = 0
        try:
            try:
                for table in as_tables(rows, self.format.schema):
                    count += table.num_rows
                    for values, part in self._parts(table):
                        writer = writers.get(values)
                        if writer is None:
                            written = files.setdefault(values, [])
                            place = beside.joinpath(*map(hive_directory, self.columns, values))
                            place.mkdir(parents=True, exist_ok=True)
                            more = f"-{len(written)}" if written else ""
                            written.append(place / f"{file_name}{more}{self.format.extension}")
                            writer = writers[values] = pq.ParquetWriter(
                                written[-1], part.schema, compression=self.format.compression
                            )
                        writer.write_table(part)
                        if self.file_bytes and files[values][-1].stat().st_size >= self.file_bytes:
                            writers.pop(values).close()
            finally:
                for writer in writers.values():
                    writer.close()
            context.acquire_commit()
            size = 0
            for file in sorted(each for written in files.values() for each in written):
                size += file.stat().st_size
                self.target.publish(file, str(file.relative_to(beside)))
        finally:
            _discard(beside)
        context.metrics.output_bytes += size
        context.metrics.output_rows += count
        return size

    def _parts(self, table: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
        import pyarrow as pa

        missing = [column for column in self.columns if column not in table.schema.names]
        if missing:
            raise TypeError(
                f"rows have no column {', '.join(missing)} to partition by; they have {', '.join(table.schema.names)}"
            )
        places: dict[tuple[Any, ...], list[int]] = {}
        for place, values in enumerate(zip(*(table[column].to_pylist() for column in self.columns), strict=True)):
            places.setdefault(values, []).append(place)
        rest = table.drop_columns(list(self.columns))
        for values, chosen in places.items():
            yield values, rest.take(pa.array(chosen))


def hive_directory(column: str, value: Any) -> str:
    """The directory of one value of a column.

    >>> hive_directory("day", "2026/11"), hive_directory("day", None)
    ('day=2026%2F11', 'day=__HIVE_DEFAULT_PARTITION__')
    """
    return f"{column}=__HIVE_DEFAULT_PARTITION__" if value is None else f"{column}={quote(str(value), safe='')}"
