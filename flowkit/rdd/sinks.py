"""Actions that write files: all of a job's output appears at once, or none of it. Run on the driver."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from flowkit.errors import BadRow, InvalidArgument, OutputExists
from flowkit.execution.csv_files import CsvFormat, differing_orders
from flowkit.execution.sinks import (
    FileFormat,
    JsonLinesFormat,
    LocalTarget,
    PickleFormat,
    StoreTarget,
    Target,
    TextFormat,
    WriteFiles,
)
from flowkit.lineage.kernels import IntegerRange
from flowkit.rdd.base import Base, action
from flowkit.rdd.checks import check_columns, check_delimiter, check_encoding, check_int, check_path
from flowkit.storage.objects.compressed import SUFFIXES
from flowkit.storage.objects.local import local_place
from flowkit.storage.objects.stores import Stores, address_of, local_path

T = TypeVar("T")

#: what a rename onto something that is there ends with
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR}
_MODES = ("error", "overwrite", "append", "ignore")


class Sinks(Base[T]):
    """What writes.

    Every ``save_as_...`` takes ``mode``: ``error`` refuses a place that exists, ``ignore`` does nothing then, ``append`` adds files with
    names of their own, ``overwrite`` replaces what was there when all is written and not before. Files are written into a hidden
    directory beside the place and take it by one rename (``append``: a rename a file), with an empty ``_SUCCESS`` that says that all is
    there. Of several attempts at a partition one counts. A job that fails, is cancelled or loses its workers leaves nothing. Object stores
    (``s3://bucket/place``) have no renames of directories: there files take their places one by one when all are written, ``_SUCCESS``
    last, and readers see none before that.
    """

    __slots__ = ()

    @action
    def save_as_text(
        self,
        path: str | Path,
        *,
        encoding: str = "utf-8",
        compression: str | None = None,
        mode: str = "error",
        target_file_bytes: int | None = None,
    ) -> None:
        r"""Write one line an element (``bytes`` as they are, ``str`` of others) into files ``part-00000`` and on.

        Parameters
        ----------
        path
            A directory, on a file system that driver and executors share, or an address of an object store.
        encoding
            Of the files. Lines end with the newline of the encoding, and a file begins with one byte order mark where it has marks.
        compression
            None, ``gzip``, ``bz2``, ``xz`` or ``zstd``; the suffix of a file's name says it to readers.
        mode
            What to do when something is there: ``error``, ``overwrite``, ``append``, ``ignore``; see ``Sinks``.
        target_file_bytes
            A file that has grown to about so many bytes is followed by another of the same partition: ``part-00000-00000``,
            ``part-00000-00001`` and on, which have the order of their rows by name. None: one file a partition.

        Raises
        ------
        errors.OutputExists
            At the call, when something is there and ``mode`` is ``error``; also a FileExistsError.

        Notes
        -----
        Cost: one job.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     fc.range(3, num_partitions=1).save_as_text(f"{place}/out")
        ...     pathlib.Path(place, "out", "part-00000").read_text()
        '0\n1\n2\n'
        """
        check_encoding(encoding)
        self._save(path, mode, target_file_bytes, "save_as_text", TextFormat(encoding, _checked_compression(compression)))

    @action
    def save_as_json_lines(
        self, path: str | Path, *, compression: str | None = None, mode: str = "error", target_file_bytes: int | None = None
    ) -> None:
        """Write one JSON value a line into files ``part-00000.jsonl`` and on.

        Parameters
        ----------
        path, compression, mode, target_file_bytes
            As for ``save_as_text``.

        Raises
        ------
        errors.BadRow
            From the task, for an element that JSON cannot say (NaN among others), named. Also a TypeError.

        Notes
        -----
        Cost: one job.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     fc.parallelize([{"a": 1}, [2, "x"]]).save_as_json_lines(f"{place}/out")
        ...     fc.read_json_lines(f"{place}/out").collect()
        [{'a': 1}, [2, 'x']]
        """
        self._save(path, mode, target_file_bytes, "save_as_json_lines", JsonLinesFormat(_checked_compression(compression)))

    @action
    def save_as_csv(
        self,
        path: str | Path,
        *,
        columns: Sequence[str] | None = None,
        header: bool = True,
        delimiter: str = ",",
        encoding: str = "utf-8",
        compression: str | None = None,
        mode: str = "error",
        target_file_bytes: int | None = None,
    ) -> None:
        """Write rows as comma separated values into files ``part-00000.csv`` and on.

        Parameters
        ----------
        columns
            Names in order. None: of mappings, named tuples and dataclass instances the fields of each file's first one; of other
            sequences there are none then, and no header.
        header
            Whether each file begins with the names. Without them all files must have the columns in one order, or the save fails.
        delimiter
            One character.
        path, encoding, compression, mode, target_file_bytes
            As for ``save_as_text``.

        Raises
        ------
        errors.BadRow
            From the task, for a row that does not fit the columns, or names that are empty or there twice. Also a TypeError.

        Notes
        -----
        Cost: one job. None becomes an empty field, and values their ``str``.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     fc.parallelize([{"a": 1, "b": "x"}]).save_as_csv(f"{place}/out")
        ...     fc.read_csv(f"{place}/out").collect()
        [{'a': '1', 'b': 'x'}]
        """
        check_encoding(encoding)
        check_delimiter(delimiter)
        names = check_columns(columns)
        kind = CsvFormat(names, header, delimiter, encoding, _checked_compression(compression))
        # What stands where is said by nothing but the order, in files without a header.
        self._save(path, mode, target_file_bytes, "save_as_csv", kind, None if header or names else _refuse_differing_orders)

    @action
    def save_as_pickle(self, path: str | Path, *, mode: str = "error", target_file_bytes: int | None = None) -> None:
        """Pickle elements into files ``part-00000.pickle`` and on, for ``Context.pickle_file``.

        Parameters
        ----------
        path, mode, target_file_bytes
            As for ``save_as_text``.

        Notes
        -----
        Cost: one job. Reading a pickle runs what is in it: read only what you wrote.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     fc.parallelize([(1, {2})]).save_as_pickle(f"{place}/out")
        ...     fc.pickle_file(f"{place}/out").collect()
        [(1, {2})]
        """
        self._save(path, mode, target_file_bytes, "save_as_pickle", PickleFormat())

    @action
    def save_as_parquet(
        self,
        path: str | Path,
        *,
        schema: Any = None,
        partition_by: Sequence[str] = (),
        compression: str = "snappy",
        mode: str = "error",
        target_file_bytes: int | None = None,
    ) -> None:
        """Write rows as Parquet into files ``part-00000.parquet`` and on, all of one schema, every value as it was given.

        Rows are mappings, namedtuples, dataclasses, Arrow record batches or tables. A field that a row lacks is None.

        Parameters
        ----------
        schema
            A ``pyarrow.Schema``, which every value must fit exactly; None: the narrowest that holds the rows of all partitions. Ints beside
            floats become floats, those that are equal to one; ints beside Decimals become Decimals; the page on files has a table of all.
        partition_by
            Columns that become directories, ``day=2026-11-21/part-00000.parquet``, as Hive and Spark lay them. The files say their types.
        compression
            ``snappy``, ``zstd``, ``gzip``, ``lz4`` or ``none``.
        path, mode, target_file_bytes
            As for ``save_as_text``.

        Raises
        ------
        errors.BadRow
            For a value that its column cannot hold as it is, or that has no type in common with others of its column: with column, row
            and value. Nothing is at ``path`` then, or what was there before. Also a TypeError.
        errors.InvalidArgument
            At the call: a schema that is none, or, with ``mode="append"``, that does not unite with the table's.

        Notes
        -----
        Cost: one job, and a second one for the files of partitions that need another schema than all partitions together. A task holds
        some thousand rows, and with ``partition_by`` a file open for each combination of values it meets; lay rows by them first
        (``key_by``, ``partition_by``) to have few. ``mode="append"`` reads the footers of the files that are there. A partition without
        rows writes no file when there is no schema.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     fc.parallelize([{"a": 1, "b": "x"}, {"a": 2.5}], 2).save_as_parquet(f"{place}/out")
        ...     fc.read_parquet(f"{place}/out").collect()
        [{'a': 1.0, 'b': 'x'}, {'a': 2.5, 'b': None}]
        """
        from flowkit.rdd.parquet_saves import ParquetSave

        save = ParquetSave.checked(schema, partition_by, compression, _checked_file_bytes(target_file_bytes))
        existing = None
        stores = Stores(self._runner.config.object_stores)
        if mode == "append" and _is_there(path, stores):
            existing = save.existing(path, stores)

        def settle(target: Target, written: list[Any]) -> None:
            save.settle(target, written, existing, lambda fn, count: self._for_each(fn, count, "save_as_parquet"))

        self._save_with(path, mode, "save_as_parquet", save.writer, settle)

    def _for_each(self, fn: Callable[[int, Iterator[Any]], Any], count: int, operation: str) -> None:
        """Run a task for each of so many things."""
        self._make(IntegerRange(0, count, 1, count), [], count, operation)._run(fn, operation)

    def _save(
        self,
        path: str | Path,
        mode: str,
        file_bytes: int | None,
        operation: str,
        kind: FileFormat,
        settle: Callable[[Target, list[Any]], None] | None = None,
    ) -> None:
        size = _checked_file_bytes(file_bytes)
        self._save_with(path, mode, operation, lambda place, name: WriteFiles(place, name, kind, size), settle)

    def _save_with(
        self,
        path: str | Path,
        mode: str,
        operation: str,
        writer: Callable[[Target, str], Callable[[int, Iterator[Any]], Any]],
        settle: Callable[[Target, list[Any]], None] | None = None,
    ) -> None:
        if mode not in _MODES:
            raise InvalidArgument(f"mode = {mode!r}: must be one of {', '.join(_MODES)}", name="mode", value=mode)
        check_path("path", path)
        if address_of(path) is not None:
            self._save_to_store(str(path).rstrip("/"), mode, operation, writer, settle)
            return
        target = local_place(local_path(path))
        if os.path.lexists(target):
            if mode == "ignore":
                return
            if mode == "error":
                raise _exists_already(str(target))
            if mode == "append" and not target.is_dir():
                raise OutputExists(f"{target} is no directory: append adds files to one", path=str(target))
        token = secrets.token_hex(4)
        work = target.parent / f".{target.name}-{token}"
        name = f"part-{token}" if mode == "append" else "part"
        work.mkdir(parents=True)
        try:
            place = LocalTarget(str(work))
            written = self._run(writer(place, name), operation)
            if settle is not None:
                settle(place, written)
            shutil.rmtree(work / "_temporary", ignore_errors=True)
            (work / "_SUCCESS").touch()
            _take_place(work, target, mode)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _save_to_store(
        self,
        path: str,
        mode: str,
        operation: str,
        writer: Callable[[Target, str], Callable[[int, Iterator[Any]], Any]],
        settle: Callable[[Target, list[Any]], None] | None = None,
    ) -> None:
        stores = Stores(self._runner.config.object_stores).only([path])
        if _is_taken(stores, path, mode):
            return
        token = secrets.token_hex(4)
        # Names that begin with _ are hidden from whoever reads the directory.
        work = f"{path}/_temporary-{token}"
        before = [] if mode == "append" else stores.walk(path)
        try:
            place = StoreTarget(work, stores)
            written = self._run(writer(place, f"part-{token}" if mode == "append" else "part"), operation)
            if settle is not None:
                settle(place, written)
            # A store has no renames that could be refused: two jobs that look at the same moment mix their files.
            if _is_taken(stores, path, mode):
                return
            files = stores.walk(work)
            for file in files:
                stores.move(f"{work}/{file}", f"{path}/{file}")
            for file in sorted(set(before) - set(files)):
                stores.delete(f"{path}/{file}")
            stores.write(f"{path}/_SUCCESS", b"")
        finally:
            stores.delete(work)


def _is_there(path: str | Path, stores: Stores) -> bool:
    return stores.exists(str(path)) if address_of(path) is not None else local_place(local_path(path)).is_dir()


def _exists_already(place: str) -> OutputExists:
    return OutputExists(
        f'{place} exists already; remove it, choose another place, or say mode="overwrite" or "append"', path=place
    )


def _is_taken(stores: Stores, path: str, mode: str) -> bool:
    """Whether something is there, so that nothing is to be written. Raises ``OutputExists`` where the mode has it so."""
    if mode not in {"error", "ignore"} or not stores.has_output(path):
        return False
    if mode == "error":
        raise _exists_already(path)
    return True


def _take_place(work: Path, target: Path, mode: str) -> None:
    """Give what was written its place. Somebody else may have taken it since the job began, or take it at this moment."""
    match mode:
        case "overwrite":
            _replace(work, target)
        case "append":
            if not _rename_if_free(work, target):
                for file in sorted(each for each in work.rglob("*") if each.is_file()):
                    place = target / file.relative_to(work)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(place)
        case _:
            if not _rename_if_free(work, target) and mode != "ignore":
                raise OutputExists(f"{target} was made by somebody else meanwhile; nothing was written", path=str(target))


def _rename_if_free(work: Path, target: Path) -> bool:
    """Whether the place was free and is now taken."""
    if os.path.lexists(target):  # a rename would replace an empty directory
        return False
    try:
        work.rename(target)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def _replace(work: Path, target: Path) -> None:
    """Put a directory in the place of whatever is there; of several that do so at once each succeeds, and the last one stays."""
    replaced: list[Path] = []
    try:
        while not _rename_if_free(work, target):
            old = work.with_name(f"{work.name}-old{len(replaced)}")
            with contextlib.suppress(FileNotFoundError):  # somebody else has moved it away
                target.rename(old)
                replaced.append(old)
    except BaseException:
        if replaced and not os.path.lexists(target):
            replaced.pop().rename(target)
        raise
    finally:
        for old in replaced:
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.unlink()


def _checked_file_bytes(size: int | None) -> int:
    return 0 if size is None else check_int("target_file_bytes", size, least=1)


def _checked_compression(compression: str | None) -> str | None:
    if compression is not None and compression not in SUFFIXES:
        allowed = ", ".join(("None", *map(repr, SUFFIXES)))
        raise InvalidArgument(
            f"compression = {compression!r}: must be one of {allowed}", name="compression", value=compression, allowed=allowed
        )
    return compression


def _refuse_differing_orders(_: Target, written: list[Any]) -> None:
    if (story := differing_orders(written)) is not None:
        raise BadRow(f"files without a header need one order of columns: {story}. Give columns=, or write a header")
