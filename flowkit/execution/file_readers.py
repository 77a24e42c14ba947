"""Files of rows into rows: JSON lines, CSV, Parquet, Arrow, pickles, records of one length. Runs on slot threads.

Small picklable callables over an iterator of what is to be read: lines, paths, fragments. Rows and bytes are counted by batches.
"""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from flowkit.execution.task_context import TaskContext
from flowkit.model.shown import short
from flowkit.storage.objects.stores import Stores

_READ_BYTES = 1 << 20


def _count(rows: int, size_bytes: int) -> None:
    context = TaskContext.get()
    if context is not None:
        context.metrics.input_rows += rows
        context.metrics.input_bytes += size_bytes


def parse_json_line(line: str) -> Any:
    """The value of a line.

    >>> parse_json_line('{"a": 1}')
    {'a': 1}
    """
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON: {short(line)} ({error})") from None


def is_not_blank(line: str) -> bool:
    """Whether there is anything in it."""
    return bool(line) and not line.isspace()


_DECOMPRESSORS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@contextlib.contextmanager
def _opened(path: str, stores: Stores | None, *, decompressed: bool = False) -> Iterator[IO[bytes]]:
    """A file of this machine or of a store; its size is counted as read."""
    with open(path, "rb") if stores is None else stores.open(path) as file:  # noqa: PTH123 - a str for the user too
        _count(0, file.seek(0, io.SEEK_END))
        file.seek(0)
        decompress = _DECOMPRESSORS.get(Path(path).suffix) if decompressed else None
        if decompress is None:
            yield file
        else:
            with decompress(file, "rb") as raw:
                yield raw


def as_stream(table: Any) -> bytes:
    """A table as an Arrow IPC stream: pickled, a slice would carry all of its parent's buffers."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def batches_of_stream(data: bytes) -> list[Any]:
    """Record batches of an Arrow IPC stream."""
    import pyarrow as pa

    return list(pa.ipc.open_stream(pa.py_buffer(data)))


def rows_of_batch(batch: Any) -> list[dict[str, Any]]:
    """Rows of a record batch."""
    from flowkit.storage.tables.rows import rows_of

    return rows_of(batch)


@dataclass(frozen=True, slots=True)
class ReadCsv:
    """Rows of whole files: mappings by the names of ``columns``, or of each file's first line; tuples where there are no names."""

    columns: tuple[str, ...] | None
    header: bool
    delimiter: str
    encoding: str
    types: dict[str, Callable[[str], Any]]
    stores: Stores | None = None

    def __call__(self, paths: Iterable[str]) -> Iterator[Any]:
        for path in paths:
            with (
                _opened(path, self.stores, decompressed=True) as raw,
                io.TextIOWrapper(raw, encoding=self.encoding, newline="") as file,
            ):
                yield from self._rows(path, csv.reader(file, delimiter=self.delimiter, strict=True))

    def _rows(self, path: str, reader: Any) -> Iterator[Any]:
        columns = self.columns
        try:
            if self.header:
                first = next(reader, None)
                columns = columns or tuple(first or ())
            rows = 0
            for fields in reader:
                if not fields:
                    continue
                rows += 1
                yield tuple(fields) if columns is None else self._mapping(columns, fields, path, reader.line_num)
            _count(rows, 0)
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}") from None

    def _mapping(self, columns: tuple[str, ...], fields: list[str], path: str, line: int) -> dict[str, Any]:
        if len(fields) != len(columns):
            raise ValueError(f"{path}, line {line}: {len(fields)} fields for {len(columns)} columns: {short(fields)}")
        row: dict[str, Any] = dict(zip(columns, fields, strict=True))
        for name, convert in self.types.items():
            try:
                row[name] = convert(row[name]) if row[name] != "" else None
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}, line {line}, column {name}: {error}") from None
        return row


@dataclass(frozen=True, slots=True)
class ReadPickles:
    """Rows of files that ``save_as_pickle`` wrote."""

    stores: Stores | None = None

    def __call__(self, paths: Iterable[str]) -> Iterator[Any]:
        for path in paths:
            with _opened(path, self.stores) as file:
                while True:
                    try:
                        batch = pickle.load(file)
                    except EOFError:
                        break
                    _count(len(batch), 0)
                    yield from batch


@dataclass(frozen=True, slots=True)
class ReadRecords:
    """``bytes`` of one length each."""

    record_bytes: int
    stores: Stores | None = None

    def __call__(self, paths: Iterable[str]) -> Iterator[bytes]:
        length = self.record_bytes
        at_once = max(1, _READ_BYTES // length) * length
        for path in paths:
            with _opened(path, self.stores) as file:
                while data := file.read(at_once):
                    if len(data) % length:
                        raise ValueError(f"{path} is no multiple of {length} bytes long")
                    _count(len(data) // length, 0)
                    yield from (data[start : start + length] for start in range(0, len(data), length))


@dataclass(frozen=True, slots=True)
class DecodeFile:
    """``(path, text)`` of ``(path, bytes)``."""

    encoding: str
    errors: str

    def __call__(self, file: tuple[str, bytes]) -> tuple[str, str]:
        path, data = file
        try:
            return path, data.decode(self.encoding, self.errors)
        except UnicodeDecodeError as error:
            error.add_note(f"in {path}")
            raise
