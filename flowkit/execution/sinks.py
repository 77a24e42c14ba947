"""Partitions into files: one file an attempt, beside the place it is meant for; renamed when the scheduler says that this attempt may.

Runs on slot threads. Formats are plain data with one method, ``write(rows, path)``; all else is the same for all of them.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from flowkit.errors import BadRow, InternalError
from flowkit.execution.task_context import TaskContext
from flowkit.execution.text_writing import LineWriter
from flowkit.model.shown import short
from flowkit.storage.blocks.block_files import write_batches
from flowkit.storage.objects.compressed import SUFFIXES, open_compressed
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

    def write(self, rows: Iterator[Any], path: Path) -> Written:
        """Write all rows to a new file."""
        ...


class Written(NamedTuple):
    """What a file got."""

    rows: int
    #: names of columns in their order, where the format has such
    columns: tuple[Any, ...] | None = None


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
        context = TaskContext.get()
        if context is None:
            raise InternalError("files are written by tasks")
        return context.scratch_directory() / f"upload-{name}"

    def publish(self, draft: Path, name: str) -> None:
        """Send a file."""
        self.stores.upload(draft, f"{self.directory}/{name}")


Target = LocalTarget | StoreTarget


def discard(draft: Path) -> None:
    """Remove what an attempt wrote."""
    shutil.rmtree(draft, ignore_errors=True)
    draft.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class WriteFiles:
    """Writes each partition into ``name-00000.extension`` of a target; of files of a size into ``name-00000-00000.extension`` and on."""

    target: Target
    name: str
    format: FileFormat
    #: a file that has grown to it is followed by another; 0: one file a partition
    file_bytes: int = 0

    def __call__(self, partition: int, rows: Iterator[Any]) -> list[tuple[str, Written]]:
        """What was written, by the name of the file."""
        context = TaskContext.get()
        if context is None:
            raise InternalError("files are written by tasks")
        written: list[tuple[str, Written]] = []
        drafts: list[tuple[Path, str]] = []
        portions = Portions(rows, self.file_bytes)
        try:
            while not drafts or portions.has_more():
                # Numbered from the first, so that files have the order of their rows by name.
                more = f"-{len(drafts):05d}" if self.file_bytes else ""
                name = f"{self.name}-{partition:05d}{more}{self.format.extension}"
                draft = self.target.draft(f"{name}-{context.task_attempt_id}")
                drafts.append((draft, name))
                written.append((name, self.format.write(portions.until_full(draft), draft)))
            context.acquire_commit()
            size = sum(draft.stat().st_size for draft, _ in drafts)
            for draft, name in drafts:
                self.target.publish(draft, name)
        finally:
            for draft, _ in drafts:
                discard(draft)
        context.metrics.output_bytes += size
        context.metrics.output_rows += sum(each.rows for _, each in written)
        return written


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


def suffix_of(compression: str | None) -> str:
    """Of the name of a file that is compressed so."""
    return "" if compression is None else SUFFIXES[compression]


@dataclass(frozen=True, slots=True)
class TextFormat:
    """A line an element: ``bytes`` as they are, ``str`` of others."""

    encoding: str
    compression: str | None = None

    @property
    def extension(self) -> str:
        """None but that of the compression."""
        return suffix_of(self.compression)

    def write(self, rows: Iterator[Any], path: Path) -> Written:
        """See ``FileFormat``."""
        with open_compressed(path, self.compression) as file:
            return Written(LineWriter(file, self.encoding).write(rows))


@dataclass(frozen=True, slots=True)
class JsonLinesFormat:
    """A JSON value a line."""

    compression: str | None = None

    @property
    def extension(self) -> str:
        """``.jsonl``, compressed or not."""
        return ".jsonl" + suffix_of(self.compression)

    def write(self, rows: Iterator[Any], path: Path) -> Written:
        """See ``FileFormat``."""
        encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
        encode_as_ascii = json.JSONEncoder(allow_nan=False).encode
        count = 0
        with open_compressed(path, self.compression) as file:
            for row in rows:
                try:
                    line = encode(row)
                except (TypeError, ValueError, RecursionError) as error:
                    raise BadRow(f"cannot write {short(row)} as JSON: {error}") from None
                try:
                    data = line.encode()
                except UnicodeEncodeError:  # half of a surrogate pair: JSON has an escape for it, UTF-8 has not
                    data = encode_as_ascii(row).encode()
                file.write(data + b"\n")
                count += 1
        return Written(count)


@dataclass(frozen=True, slots=True)
class PickleFormat:
    """Pickled lists of rows, one after another."""

    @property
    def extension(self) -> str:
        """``.pickle``."""
        return ".pickle"

    def write(self, rows: Iterator[Any], path: Path) -> Written:
        """See ``FileFormat``."""
        count = 0
        with path.open("wb") as file:
            while batch := list(islice(rows, _ROWS_AT_ONCE)):
                pickle.dump(batch, file, pickle.HIGHEST_PROTOCOL)
                count += len(batch)
        return Written(count)


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """Batches with checksums, as cached partitions have on disk: what checkpoints are made of."""

    @property
    def extension(self) -> str:
        """``.block``."""
        return ".block"

    def write(self, rows: Iterator[Any], path: Path) -> Written:
        """See ``FileFormat``."""
        with path.open("wb") as file:
            return Written(write_batches(file, iter(lambda: list(islice(rows, _ROWS_AT_ONCE)), [])))
