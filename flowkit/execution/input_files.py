"""Whole files into rows, by a reader of their format: opened, decompressed, counted and named in errors the same way for all formats.

Runs on slot threads. A reader is a small picklable callable that is given an ``InputFile`` and yields rows.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import IO, Any, Protocol

from flowkit.errors import BadInput
from flowkit.execution.environment import TaskEnvironment
from flowkit.execution.input_versions import unchanged
from flowkit.execution.long_input import LongInput
from flowkit.execution.text_lines import name_file
from flowkit.lineage.kernels import FileRows, FileVersion, WholeFiles
from flowkit.model.metrics import TaskMetrics
from flowkit.storage.memory.task_memory import TaskMemory
from flowkit.storage.objects.compressed import decompressed
from flowkit.storage.objects.local import codec_of, open_regular, version_of
from flowkit.storage.objects.stores import Stores


class FileReader(Protocol):
    """How the rows of one file of a format are read."""

    def __call__(self, file: InputFile) -> Iterator[Any]:
        """Rows, read as they are asked for."""
        ...


class InputFile:
    """One file that a task reads.

    Attributes
    ----------
    path
        As it was listed: absolute, or an address.
    stores
        Where it is; None: on this machine.
    version
        Which it must be; None: it is read as it is.
    """

    __slots__ = ("_check_killed", "_memory", "_metrics", "path", "stores", "version")

    def __init__(
        self,
        path: str,
        stores: Stores | None = None,
        *,
        metrics: TaskMetrics | None = None,
        memory: TaskMemory | None = None,
        check_killed: Callable[[], None] = lambda: None,
        version: FileVersion | None = None,
    ) -> None:
        self.path = path
        self.stores = stores
        self.version = version
        self._metrics = TaskMetrics() if metrics is None else metrics
        self._memory = memory
        self._check_killed = check_killed

    @contextlib.contextmanager
    def open(self, *, raw: bool = False) -> Iterator[IO[bytes]]:
        """What is in it, decompressed by the suffix of its name unless ``raw``; its size counts as read.

        Raises ``errors.InputChanged`` when it is not the version that was planned for, or is another in the end.
        """
        opened = open_regular(self.path) if self.stores is None else self.stores.open(self.path)
        with opened as file:
            self._metrics.input_bytes += file.seek(0, io.SEEK_END)
            file.seek(0)
            codec = None if raw else codec_of(self.path)
            if codec is None:
                with unchanged(self.path, self.version, lambda: self._now(file)):
                    yield file
            else:
                with decompressed(file, codec) as content, unchanged(self.path, self.version, lambda: self._now(file)):
                    yield content

    def _now(self, file: IO[bytes]) -> FileVersion:
        return version_of(file, self.path) if self.stores is None else self.stores.version(self.path, file)

    def read(self, *, raw: bool = False, copies: int = 1) -> bytes:
        """All that is in it. Raises ``errors.InputTooLarge`` where ``copies`` of that are more than the worker's memory holds."""
        long = self.long("file", copies=copies)
        with self.open(raw=raw) as file:
            if raw or codec_of(self.path) is None:
                long.known(file.seek(0, io.SEEK_END))
                file.seek(0)
                data = file.read()
            else:
                pieces: list[bytes] = []
                size = 0
                while piece := file.read(_READ_BYTES):
                    pieces.append(piece)
                    size += len(piece)
                    long.grown(0, size)
                data = b"".join(pieces)
        long.over()
        return data

    def long(self, what: str, *, copies: int) -> LongInput:
        """Who asks for memory for one line, record or file of it."""
        return LongInput(self._memory, self.path, copies=copies, what=what)

    def count(self, rows: int) -> None:
        """Count rows as read, in batches; a task that is to stop stops here."""
        self._check_killed()
        self._metrics.input_rows += rows

    def bad(self, message: str, **place: Any) -> BadInput:
        """The error for content that is not what it should be; ``place``: where, as data and for the message (``line=3``)."""
        where = "".join(f", {name} {value:,}" if isinstance(value, int) else f", {name} {value}" for name, value in place.items())
        return BadInput(f"{self.path}{where}: {message}", path=self.path, **place)


_READ_BYTES = 1 << 20


def read_files(source: FileRows, partition: int, environment: TaskEnvironment) -> Iterator[Any]:
    """The rows of the files of one partition, one file after the other."""

    def rows_of(planned: tuple[str, FileVersion | None]) -> Iterator[Any]:
        path, version = planned
        environment.check_killed()
        file = InputFile(
            path,
            source.stores,
            metrics=environment.metrics,
            memory=environment.memory,
            check_killed=environment.check_killed,
            version=version,
        )
        try:
            yield from source.reader(file)
        except Exception as error:
            name_file(error, path)
            raise

    return chain.from_iterable(map(rows_of, planned_files(source, partition)))


def planned_files(source: FileRows | WholeFiles, partition: int) -> Iterator[tuple[str, FileVersion | None]]:
    """The files of a partition, each with the version that must be found; None: whatever is there."""
    paths = source.paths[partition]
    return zip(paths, repeat(None) if source.versions is None else source.versions[partition], strict=source.versions is not None)
