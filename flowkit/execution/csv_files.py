"""Comma separated values into rows, and rows into them. Runs on slot threads.

Names of columns are distinct on both sides: a header that repeats one, or leaves one empty, is read as pandas reads it, and never written.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, cast

from flowkit.errors import BadRow
from flowkit.execution.end_markers import function_name, leaked_stop_iteration
from flowkit.execution.input_files import InputFile
from flowkit.execution.long_input import FREE_BYTES
from flowkit.execution.sinks import Written, suffix_of
from flowkit.execution.text_lines import MARK, without_mark
from flowkit.execution.text_writing import writes_mark
from flowkit.model.shown import short
from flowkit.storage.objects.compressed import open_compressed
from flowkit.visible import visible

_READ_BYTES = 128 << 10
#: of a record that is long, while it is taken apart: its bytes, its line, four bytes a character of a field, the field
_COPIES = 6
_TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "off", "0"})


# -- reading -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReadCsv:
    """A ``FileReader``: mappings by name; tuples where there are no names.

    ``columns`` are those wanted of files with a ``header``, and the names of files without.
    """

    columns: tuple[str, ...] | None
    header: bool
    delimiter: str
    encoding: str
    types: dict[str, Callable[[str], Any]]

    def __call__(self, file: InputFile) -> Iterator[Any]:
        """See ``FileReader``."""
        with file.open() as raw, _Records(file, raw, self.delimiter, self.encoding) as records:
            first = records.first() if self.header else None
            if self.header and first is None:
                return
            names = self.columns if first is None else distinct_names(first)
            if names is None:
                yield from map(tuple, records)
                return
            width = len(names)
            finish = self._finish(file, names, records)
            # Each row passes here, so nothing is called for one that need not be.
            for fields in records.reader:
                records.taken += 1
                if len(fields) == width:
                    row = dict(zip(names, fields, strict=True))
                    yield row if finish is None else finish(row)
                elif fields:
                    raise file.bad(f"{len(fields)} fields for {width} columns: {short(fields)}", line=records.line)

    def _finish(self, file: InputFile, names: tuple[str, ...], records: _Records) -> _Finish | None:
        """What is left to be done with each row; None: nothing."""
        wanted = self._wanted(file, names)
        return (
            None
            if wanted == names and not self.types
            else _Finish(file, records, None if wanted == names else wanted, self.types)
        )

    def _wanted(self, file: InputFile, names: tuple[str, ...]) -> tuple[str, ...]:
        wanted = names if self.columns is None else self.columns
        if absent := [name for name in wanted if name not in names]:
            raise file.bad(
                f"there is no column {', '.join(absent)} in its first line, which names {', '.join(names)}; columns= chooses among these. "
                "Of files whose first line is a row, say header=False: columns= names their columns then"
            )
        if absent := [name for name in self.types if name not in wanted]:
            raise file.bad(f"types= of {', '.join(absent)}, and the columns read are {', '.join(wanted)}")
        return wanted


class _Records:
    """Lists of fields; counted, and named in errors, by file and line. A context manager around those who take them.

    Attributes
    ----------
    reader
        Gives lists of fields, empty ones for blank lines. Whoever takes one adds it to ``taken``.
    taken
        So many.
    """

    def __init__(self, file: InputFile, raw: IO[bytes], delimiter: str, encoding: str) -> None:
        self._file = file
        self._encoding = encoding
        self._counted = 0
        self.taken = 0
        text = io.TextIOWrapper(cast("BinaryIO", _Watched(raw, file, self)), encoding=encoding, newline="")
        # Bytes are asked for in pieces of this size; the default is 8 kB.
        text._CHUNK_SIZE = _READ_BYTES  # type: ignore[attr-defined]
        allow_fields_of_any_size()
        self.reader: Any = csv.reader(iter(()))
        with self:
            first = next(text, "")
            lines = chain((without_mark(first, encoding),), text) if first else iter(())
            self.reader = csv.reader(lines, delimiter=delimiter, strict=True)

    @property
    def line(self) -> int:
        """Where the last record ended."""
        return int(self.reader.line_num)

    def first(self) -> list[str] | None:
        """The first that is not blank."""
        return next(iter(self), None)

    def count(self) -> None:
        """Count those that were taken since; a task that is to stop stops here."""
        counted, self._counted = self._counted, self.taken
        self._file.count(self.taken - counted)

    def __iter__(self) -> Iterator[list[str]]:
        for fields in self.reader:
            self.taken += 1
            if fields:
                yield fields

    def __enter__(self) -> _Records:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if isinstance(error, csv.Error):
            raise self._file.bad(str(error), line=self.line) from None
        if isinstance(error, UnicodeDecodeError):
            line = self.line + 1 + bytes(error.object[: error.start]).decode(self._encoding, "replace").count("\n")
            error.add_note(f"in {visible(self._file.path)}, line {line:,}; see read_csv(..., encoding=)")
        if error is None:
            self.count()


class _Watched(io.BufferedIOBase):
    """What a text is read from: notices a record that grows and does not end."""

    def __init__(self, raw: IO[bytes], file: InputFile, records: _Records) -> None:
        self._raw = raw
        self._records = records
        self._long = file.long("record", copies=_COPIES)
        self._position = 0
        #: of the record that is read: how many came before it, and where it began, about
        self._before = 0
        self._begin = 0

    def readable(self) -> bool:
        return True

    def read1(self, size: int | None = -1) -> bytes:
        piece = self._raw.read(-1 if size is None else size)
        if self._records.taken != self._before:
            self._before, self._begin = self._records.taken, self._position
            self._records.count()
            self._long.over()
        self._position += len(piece)
        if self._position - self._begin >= FREE_BYTES:
            self._long.grown(self._begin, self._position - self._begin)
        return piece


class _Finish:
    """Chooses and converts the fields of one row."""

    def __init__(
        self, file: InputFile, records: _Records, wanted: tuple[str, ...] | None, types: Mapping[str, Callable[[str], Any]]
    ) -> None:
        self._file = file
        self._records = records
        self._wanted = wanted
        self._types = [(name, as_truth if _means_truth(convert) else convert) for name, convert in types.items()]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._wanted is not None:
            row = {name: row[name] for name in self._wanted}
        for name, convert in self._types:
            text = row[name]
            try:
                row[name] = convert(text) if text != "" else None
            except (ValueError, TypeError) as error:
                raise self._file.bad(str(error), line=self._records.line, column=name) from None
            except StopIteration:
                raise leaked_stop_iteration(function_name(convert), "read_csv") from None
            except Exception as error:
                error.add_note(visible(f"in {self._file.path}, line {self._records.line:,}, column {name}: {short(text)}"))
                raise
        return row


def as_truth(text: str) -> bool:
    """What ``types={"flag": bool}`` makes of a text; Python's own ``bool`` takes every text but the empty one for true.

    >>> as_truth("False"), as_truth("yes")
    (False, True)
    """
    word = text.strip().casefold()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"{short(text)} is no truth value: true, t, yes, y, on, 1, or false, f, no, n, off, 0")


def _means_truth(convert: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return convert is bool or (numpy is not None and convert is numpy.bool_)


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of columns as pandas makes them distinct: a second ``a`` is ``a.1``, and a column without a name ``Unnamed: 2``.

    >>> distinct_names(["a", "b", "a", ""]), distinct_names(["a", "a.1", "a"])
    (('a', 'b', 'a.1', 'Unnamed: 3'), ('a', 'a.1', 'a.2'))
    """
    taken = set(names)
    found: dict[str, None] = {}
    for place, name in enumerate(names):
        wanted = chosen = name or f"Unnamed: {place}"
        number = 0
        while chosen in found or (chosen != name and chosen in taken):
            number += 1
            chosen = f"{wanted}.{number}"
        found[chosen] = None
    return tuple(found)


def allow_fields_of_any_size() -> None:
    """Lift the limit of 131,072 characters that Python's reader has for the whole process; what a worker can hold limits a record instead.

    Set to the same value by whoever comes, so it does not matter in which order threads do.
    """
    if csv.field_size_limit() < sys.maxsize:
        csv.field_size_limit(sys.maxsize)


# -- writing -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """Comma separated values: of mappings, named tuples and dataclass instances the columns by name, of other sequences all."""

    columns: tuple[str, ...] | None
    header: bool
    delimiter: str
    encoding: str
    compression: str | None = None

    @property
    def extension(self) -> str:
        """``.csv``, compressed or not."""
        return ".csv" + suffix_of(self.compression)

    def write(self, rows: Iterator[Any], path: Path) -> Written:
        """See ``FileFormat``."""
        count = 0
        row: Any = None
        with (
            open_compressed(path, self.compression) as raw,
            io.TextIOWrapper(raw, encoding=self.encoding, newline="") as file,
        ):
            writer = csv.writer(file, delimiter=self.delimiter)
            columns: _Columns | None = None
            try:
                for row in rows:
                    if columns is None:
                        columns = _Columns(row, self.columns)
                        self._begin(file, writer, columns, row)
                    writer.writerow(columns.fields_of(row))
                    count += 1
                if columns is None and self.header and self.columns is not None:
                    row = self.columns
                    self._write_names(file, writer, self.columns)
                row = "the end of the file"
                file.flush()
            except csv.Error as error:
                raise BadRow(f"cannot write {short(row)} as CSV: {error}") from None
            except UnicodeEncodeError as error:
                error.add_note(f"{short(row)} cannot be written in {self.encoding!r}; see save_as_csv(..., encoding=)")
                raise
        return Written(count, None if columns is None else columns.names)

    def _begin(self, file: IO[str], writer: Any, columns: _Columns, row: Any) -> None:
        if self.header and columns.names is not None:
            self._write_names(file, writer, columns.names)
        else:
            self._mark(file, columns.fields_of(row))

    def _write_names(self, file: IO[str], writer: Any, names: Sequence[Any]) -> None:
        self._mark(file, names)
        writer.writerow(names)

    def _mark(self, file: IO[str], first: Sequence[Any]) -> None:
        """Write a byte order mark where who reads the file would take its first character for one."""
        if str(first[0]).startswith(MARK) and not writes_mark(self.encoding):
            file.write(MARK)


class _Columns:
    """How rows of one file become fields: decided by the first row."""

    def __init__(self, first: Any, wanted: tuple[str, ...] | None) -> None:
        found = _names_of(first)
        #: in their order; None: rows have no names
        self.names: tuple[Any, ...] | None = found if wanted is None else wanted
        if self.names is not None:
            _check_names(first, self.names)
        self._known = None if self.names is None else frozenset(self.names)
        self._count = len(self.names) if self.names is not None else None
        self._pick = None if self.names is None or len(self.names) < 2 else itemgetter(*self.names)

    def fields_of(self, row: Any) -> Sequence[Any]:
        """Of one row."""
        kind: Any = type(row)
        if kind is tuple or kind is list:
            return self._of_sequence(row)
        fields: Any = row
        if kind is not dict and not isinstance(row, Mapping):
            names = _fields_of(kind)
            if names is None:
                return self._of_sequence(row)
            fields = {name: getattr(row, name) for name in names}
        if self.names is None:
            raise BadRow(f"cannot write {short(row)} as CSV: it has names, and rows before it have none; give columns=")
        assert self._known is not None
        if fields.keys() == self._known and self._pick is not None:
            picked: Sequence[Any] = self._pick(fields)
            return picked
        if unknown := fields.keys() - self._known:
            raise BadRow(
                f"{short(row)} has fields that are no columns: {', '.join(sorted(map(str, unknown)))}; the columns are "
                f"{', '.join(map(str, self.names))}. Give columns= with all of them"
            )
        return [fields.get(name) for name in self.names]

    def _of_sequence(self, row: Any) -> Sequence[Any]:
        if not isinstance(row, list | tuple) or (self._count is not None and len(row) != self._count) or not row:
            wanted = "a mapping, a dataclass instance or a sequence" + ("" if self._count is None else f" of {self._count}")
            raise BadRow(
                f"cannot write {short(row)} as CSV: needs {wanted}{' with a field or more' if self._count is None else ''}"
            )
        return row


def _names_of(row: Any) -> tuple[Any, ...] | None:
    kind: Any = type(row)
    return tuple(row) if isinstance(row, Mapping) else _fields_of(kind)


@lru_cache(256)
def _fields_of(kind: type) -> tuple[str, ...] | None:
    """Of a kind of named tuples or dataclass instances; None: of another kind."""
    if issubclass(kind, tuple):
        names = getattr(kind, "_fields", None)
        return None if names is None else tuple(names)
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


def _check_names(row: Any, names: tuple[Any, ...]) -> None:
    texts = [str(name) for name in names]
    if not texts or "" in texts:
        raise BadRow(f"cannot write {short(row)} as CSV: {'it has no fields' if not texts else 'a column has no name'}")
    if twice := [name for name, count in Counter(texts).items() if count > 1]:
        raise BadRow(f"cannot write {short(row)} as CSV: two columns would have the name {', '.join(twice)}")


def differing_orders(written: Sequence[Sequence[tuple[str, Written]]]) -> str | None:
    """What is to be said of files without a header whose columns are not in one order; None: they are.

    >>> differing_orders([[("part-0", Written(1, ("a", "b")))], [("part-1", Written(1, ("b", "a"))), ("part-2", Written(0))]])
    'part-0 has the columns a, b and part-1 has b, a'
    """
    first: tuple[str, tuple[Any, ...]] | None = None
    for name, each in chain.from_iterable(written):
        if not each.rows:
            continue
        if first is None:
            first = name, each.columns or ()
        elif (each.columns or ()) != first[1]:
            return f"{first[0]} has {_in_words(first[1], 'the columns ')} and {name} has {_in_words(each.columns or (), '')}"
    return None


def _in_words(names: tuple[Any, ...], kind: str) -> str:
    return kind + ", ".join(map(str, names)) if names else "rows without names"
