"""What a Context makes RDDs of: collections, ranges, files; unions. Run on the driver, lazy."""

from __future__ import annotations

import codecs
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flowkit.abc import ClusterLink, JobRunner
from flowkit.config import Config
from flowkit.errors import InvalidArgument, TooManyPartitions
from flowkit.execution.sources import LineParser
from flowkit.execution.text_lines import newline_is_one_byte
from flowkit.lineage import closures
from flowkit.lineage.call_site import find_call_site
from flowkit.lineage.kernels import Collection, FileVersion, IntegerRange, Kernel, StoredPartitions, TextLines, WholeFiles
from flowkit.lineage.nodes import Node
from flowkit.model.checks import check_iterable, check_path, refuse
from flowkit.model.job_spec import Content
from flowkit.rdd.checkpoints import opened, paths_of
from flowkit.rdd.checks import check_codec, check_encoding, check_int
from flowkit.rdd.file_sources import FileSources
from flowkit.rdd.narrow import union_all
from flowkit.rdd.rdd import RDD
from flowkit.storage.objects.local import LocalFile, local_place, pack_files, partitions_for, plan_splits
from flowkit.storage.objects.stores import Paths, Stores, address_of, listed, local_path

T = TypeVar("T")


class Sources(FileSources):
    """Where RDDs come from."""

    _link: ClusterLink

    if TYPE_CHECKING:
        # What the Context has.
        @property
        def config(self) -> Config: ...  # noqa: D102
        def new_rdd_id(self) -> int: ...  # noqa: D102
        def _check_open(self, what: str = "") -> None: ...
        def _release_garbage(self) -> None: ...
        def _release_with(self, owner: object, content: Content) -> None: ...

    def parallelize(self, elements: Iterable[T], num_partitions: int | None = None) -> RDD[T]:
        """Make an RDD of a collection.

        Parameters
        ----------
        elements
            Any iterable; one that is not a sequence is listed first. A ``range`` stays one.
        num_partitions
            1 or more; None: ``default_parallelism``. Partition ``i`` of ``n`` holds ``elements[i * len // n : (i + 1) * len // n]``.

        Notes
        -----
        Cost: pickles the elements now, and puts them on one host when they are larger than 32 kB; no job.

        Examples
        --------
        >>> fc.parallelize([1, 2, 3], 5).glom().collect()
        [[], [1], [], [2], [3]]
        """
        self._check_open("Context.parallelize()")
        parts = self._partitions(num_partitions)
        if isinstance(elements, range):
            return self._source(IntegerRange(elements.start, elements.stop, elements.step, parts), parts, "parallelize")
        if isinstance(elements, RDD):
            raise InvalidArgument(
                "elements is an RDD already", name="elements", value=elements, allowed="an iterable of plain values"
            )
        check_iterable("elements", elements)
        rows: Sequence[T] = elements if isinstance(elements, list | tuple) else list(elements)
        size = len(rows)
        spans: list[tuple[int, int, int]] = []
        pieces: list[bytes] = []
        offset = 0
        with closures.carrying() as carried:
            for index in range(parts):
                piece = closures.dumps_rows(list(rows[index * size // parts : (index + 1) * size // parts]))
                pieces.append(piece)
                spans.append((offset, len(piece), zlib.crc32(piece)))
                offset += len(piece)
        self._release_garbage()
        content = self._link.put_content(b"".join(pieces))
        for each in carried.values():
            self._link.retain_content(each)
        made = self._source(Collection(content, tuple(spans)), parts, "parallelize", attachments=(content, *carried.values()))
        for each in (content, *carried.values()):
            self._release_with(made._node, each)
        return made

    def range(self, start: int, stop: int | None = None, step: int = 1, *, num_partitions: int | None = None) -> RDD[int]:
        """Integers as of the builtin ``range``, never listed.

        Raises
        ------
        errors.InvalidArgument
            ``step`` is 0.

        Notes
        -----
        Cost: nothing, no job.

        Examples
        --------
        >>> fc.range(10, 0, -3).collect()
        [10, 7, 4, 1]
        """
        first, last = (0, start) if stop is None else (start, stop)
        for name, value in (("start", first), ("stop", last), ("step", step)):
            if isinstance(value, bool) or not isinstance(value, int):
                refuse(name, value, "a whole number")
        if step == 0:
            raise InvalidArgument("step = 0: must not be zero", name="step", value=step, allowed="an int other than 0")
        parts = self._partitions(num_partitions)
        return self._source(IntegerRange(first, last, step, parts), parts, "range")

    def text_file(
        self, path: Paths, min_partitions: int | None = None, *, encoding: str = "utf-8", errors: str = "strict"
    ) -> RDD[str]:
        r"""Lines of text files, without their ends: ``\n``, ``\r\n`` or a lone ``\r``.

        Parameters
        ----------
        path
            A file, a directory (of its files those that don't begin with ``_`` or ``.``), a glob, a list of these, or, in a text,
            several with commas between. Relative to the driver's working directory. Executors read the files, so they must see them
            under the same absolute name. Addresses of object stores too (``s3://bucket/logs/*.gz``); see ``Config.object_stores``.
            Every reader takes these.
        min_partitions
            1 or more; None: ``default_parallelism``, but no pieces below the setting ``min_partition_bytes``. Large files are split at
            line ends into about equal pieces of at most ``max_partition_bytes``, small ones packed together. Compressed ones (``.gz``, ``.bz2``, ``.xz``, ``.zst``)
            can't be split, nor can text in encodings like UTF-16, whose newline is more than one byte.
        encoding, errors
            As of the builtin ``open``. A byte order mark at a file's beginning is left out.

        Raises
        ------
        FileNotFoundError
            At the call: nothing is there, a symbolic link leads nowhere, or a directory holds directories only.
        errors.InvalidArgument
            At the call: what is there is no regular file (a FIFO, a device).
        UnicodeDecodeError
            From the task, with file and line.
        errors.InputTooLarge
            From the task: a line that the worker's memory does not hold.

        Notes
        -----
        Cost: lists files now, reads nothing; no job.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = pathlib.Path(place, "poem.txt").write_text("roses\nviolets\n")
        ...     fc.text_file(place).collect()
        ['roses', 'violets']
        """
        return self._text_lines(path, min_partitions, encoding, errors, None, "text_file")

    def binary_files(self, path: Paths, min_partitions: int | None = None) -> RDD[tuple[str, bytes]]:
        """``(path, content)`` of whole files, as their bytes are: nothing is decompressed.

        Parameters
        ----------
        path, min_partitions
            As for ``text_file``; a file is never split.

        Raises
        ------
        FileNotFoundError, errors.InvalidArgument
            At the call, as of ``text_file``.
        errors.InputTooLarge
            From the task: a file that the worker's memory does not hold.

        Notes
        -----
        Cost: lists files now, reads nothing; no job. A task holds one file at a time.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = pathlib.Path(place, "one.bin").write_bytes(b"abc")
        ...     fc.binary_files(place).values().collect()
        [b'abc']
        """
        files, stores = self._listed(path)
        paths, versions = self._packed(files, min_partitions)
        return self._source(WholeFiles(paths, stores, versions), len(paths), "binary_files", source_identity=tuple(files))

    def checkpoint_file(self, path: str | Path) -> RDD[Any]:
        """What ``rdd.checkpoint`` wrote, in this session or another: its partitions as they were, and how pairs lie in them.

        Raises
        ------
        errors.InvalidArgument
            There is no checkpoint, or one that was not finished.

        Notes
        -----
        Cost: reads a small file now; no job. Reading a checkpoint may run what is pickled in it: read only what you trust.

        Examples
        --------
        >>> import tempfile
        >>> kept = fc.range(3).checkpoint(tempfile.mkdtemp() + "/kept", eager=True)
        >>> fc.checkpoint_file(kept.checkpoint_path).collect()
        [0, 1, 2]
        """
        place = os.fspath(_checked_path("path", path))
        stores = None if address_of(place) is None else self._stores.only([place])
        if stores is None:
            place = str(local_place(local_path(place)))
        count, partitioner = opened(place, stores)
        made = self._source(StoredPartitions(paths_of(place, count), stores), count, "checkpoint_file")
        made._node.change(partitioner=partitioner)
        return made

    def empty(self) -> RDD[Any]:
        """An RDD without partitions.

        Notes
        -----
        Cost: nothing.

        Examples
        --------
        >>> fc.empty().collect()
        []
        """
        return self._source(IntegerRange(0, 0, 1, 0), 0, "empty")

    def union(self, rdds: Sequence[RDD[T]]) -> RDD[T]:
        """All elements of several RDDs, duplicates included.

        Raises
        ------
        errors.InvalidArgument
            There are none.

        Notes
        -----
        Cost: narrow, no job.

        Examples
        --------
        >>> fc.union([fc.range(2), fc.range(2)]).collect()
        [0, 1, 0, 1]
        """
        check_iterable("rdds", rdds, "several RDDs, as [one, other]")
        rdds = list(rdds)
        if not rdds:
            raise InvalidArgument("rdds = []: must not be empty", name="rdds", value=rdds, allowed="one RDD or more")
        first, *others = rdds
        if not isinstance(first, RDD):
            refuse("rdds[0]", first, f"an RDD, not {type(first).__name__}")
        if not others:
            return first
        return union_all(first, [first._other("rdds", other) for other in others])

    def _listed(self, path: Paths, *, recursive: bool = False) -> tuple[list[LocalFile], Stores | None]:
        """Files that a reader's ``path`` names, whatever the format; and the stores that executors need for them."""
        return listed(_checked_paths("path", path), self._stores, recursive=recursive)

    def _text_lines(
        self, path: Paths, min_partitions: int | None, encoding: str, errors: str, parse: LineParser | None, operation: str
    ) -> RDD[Any]:
        check_encoding(encoding)
        check_codec("errors", errors, codecs.lookup_error)
        files, stores = self._listed(path)
        wanted = self._partitions(min_partitions, "min_partitions")
        splits = plan_splits(
            files,
            wanted,
            smallest_bytes=self.config.min_partition_bytes if min_partitions is None else 1,
            largest_bytes=self.config.max_partition_bytes,
            whole=not newline_is_one_byte(encoding),
            as_they_are=self._takes_changed_inputs,
        )
        kernel = TextLines(splits, encoding, errors, stores, parse)
        return self._source(kernel, len(splits), operation, source_identity=tuple(files))

    @property
    def _stores(self) -> Stores:
        return Stores(self.config.object_stores)

    def _partitions(self, given: int | None, name: str = "num_partitions") -> int:
        if given is None:
            return self.default_parallelism
        count = check_int(name, given, least=1)
        if count > self.config.max_partitions:
            raise TooManyPartitions(
                f"{name} = {count}: more than max_partitions = {self.config.max_partitions:,}",
                setting="max_partitions",
                limit=self.config.max_partitions,
                actual=count,
            )
        return count

    @property
    def _takes_changed_inputs(self) -> bool:
        return self.config.changed_inputs == "read"

    def _packed(
        self, files: Sequence[LocalFile], wanted: int | None
    ) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[FileVersion, ...], ...] | None]:
        """Whole files by partition: their paths, and the versions that must be found there."""
        packed = pack_files(files, self._wanted_partitions(files, wanted)) if files else ()
        paths = tuple(tuple(file.path for file in group) for group in packed)
        if self._takes_changed_inputs:
            return paths, None
        return paths, tuple(tuple(file.version for file in group) for group in packed)

    def _wanted_partitions(self, files: Sequence[LocalFile], wanted: int | None) -> int:
        """Of whole files: as many as asked for, or one a slot within the limits of their sizes."""
        return partitions_for(
            sum(file.size_bytes for file in files),
            None if wanted is None else check_int("min_partitions", wanted, least=1),
            self.default_parallelism,
            smallest_bytes=self.config.min_partition_bytes,
            largest_bytes=self.config.max_partition_bytes,
        )

    def _source(
        self,
        kernel: Kernel,
        parts: int,
        operation: str,
        *,
        attachments: tuple[Content, ...] = (),
        source_identity: tuple[object, ...] = (),
    ) -> RDD[Any]:
        self._check_open(f"Context.{operation}()")
        node = Node(
            self.new_rdd_id(),
            kernel,
            (),
            parts,
            operation=operation,
            call_site=find_call_site(),
            attachments=tuple(each for each in attachments if each.inline is None),
            source_identity=source_identity,
        )
        return RDD(node, cast("JobRunner", self))


def _checked_path(name: str, value: Any) -> str | os.PathLike[str]:
    check_path(name, value)
    path: str | os.PathLike[str] = value
    return path


def _checked_paths(name: str, value: Any) -> str | os.PathLike[str] | list[str | os.PathLike[str]]:
    if isinstance(value, str | os.PathLike):
        return _checked_path(name, value)
    # Of a set nobody knows the order, and of a mapping not what is meant.
    if isinstance(value, bytes | bytearray | Mapping | AbstractSet) or not isinstance(value, Iterable):
        raise InvalidArgument(
            f"{name} = {value!r}: must be a path, or a list of paths",
            name=name,
            value=value,
            allowed="a str, a Path, or a list of these",
        )
    check_iterable(name, value, "a path, or a list of paths")
    paths = list(value)
    if not paths:
        raise InvalidArgument(f"{name} = []: names no file", name=name, value=value, allowed="one path or more")
    return [_checked_path(f"{name}[{place}]", each) for place, each in enumerate(paths)]
