"""More that a Context reads: whole texts, JSON lines, CSV, Parquet, Arrow, pickles, records; tables in memory. Run on the driver, lazy."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from flowkit.errors import InvalidArgument
from flowkit.execution.csv_files import ReadCsv
from flowkit.execution.dask_bags import compute_bag_partitions, partitions_of_bag
from flowkit.execution.file_readers import (
    ParseJsonLines,
    ReadPickles,
    ReadRecords,
    ReadWholeText,
    as_stream,
    batches_of_stream,
    rows_of_batch,
)
from flowkit.execution.input_files import FileReader
from flowkit.lineage.kernels import FileRows, FileVersion, Kernel, MapPartitions
from flowkit.model.checks import check_mapping, refuse
from flowkit.rdd.checks import check_callable, check_codec, check_columns, check_delimiter, check_encoding, check_int
from flowkit.storage.objects.local import LocalFile
from flowkit.storage.objects.stores import Paths, Stores

if TYPE_CHECKING:
    from flowkit.config import Config
    from flowkit.rdd.rdd import RDD

T = TypeVar("T")


class FileSources:
    """Sources of files in some format, and of tables in memory."""

    if TYPE_CHECKING:
        # What the Context has.
        def parallelize(self, elements: Iterable[T], num_partitions: int | None = None) -> RDD[T]: ...  # noqa: D102
        def text_file(  # noqa: D102
            self, path: Paths, min_partitions: int | None = None, *, encoding: str = "utf-8", errors: str = "strict"
        ) -> RDD[str]: ...
        def binary_files(self, path: Paths, min_partitions: int | None = None) -> RDD[tuple[str, bytes]]: ...  # noqa: D102
        @property
        def default_parallelism(self) -> int: ...  # noqa: D102
        @property
        def _takes_changed_inputs(self) -> bool: ...
        def _packed(
            self, files: Sequence[LocalFile], wanted: int | None
        ) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[FileVersion, ...], ...] | None]: ...
        @property
        def config(self) -> Config: ...  # noqa: D102
        def _listed(self, path: Paths, *, recursive: bool = False) -> tuple[list[LocalFile], Stores | None]: ...
        @property
        def _stores(self) -> Stores: ...
        def _text_lines(
            self, path: Paths, min_partitions: int | None, encoding: str, errors: str, parse: Any, operation: str
        ) -> RDD[Any]: ...
        def _source(
            self, kernel: Kernel, parts: int, operation: str, *, source_identity: tuple[object, ...] = ()
        ) -> RDD[Any]: ...

    def whole_text_files(
        self, path: Paths, min_partitions: int | None = None, *, encoding: str = "utf-8", errors: str = "strict"
    ) -> RDD[tuple[str, str]]:
        """``(path, text)`` of whole files; compressed ones (gz, bz2, xz, zst) are decompressed.

        Parameters
        ----------
        path, min_partitions
            As for ``binary_files``.
        encoding, errors
            As of the builtin ``open``. A byte order mark at a file's beginning is left out; line ends stay.

        Raises
        ------
        UnicodeDecodeError
            From the task, with the file.

        Notes
        -----
        Cost: lists files now, reads nothing; no job. A task holds one file at a time.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = pathlib.Path(place, "a.txt").write_text("one two")
        ...     fc.whole_text_files(place).values().collect()
        ['one two']
        """
        check_encoding(encoding)
        check_codec("errors", errors, codecs.lookup_error)
        return self._file_rows(path, min_partitions, ReadWholeText(encoding, errors), "whole_text_files")

    def read_json_lines(
        self, path: Paths, min_partitions: int | None = None, *, encoding: str = "utf-8", errors: str = "strict"
    ) -> RDD[Any]:
        r"""The JSON value of each line; blank lines are left out.

        Parameters
        ----------
        path, min_partitions, encoding, errors
            As for ``text_file``: compressed files too, and large ones are split.

        Raises
        ------
        errors.BadInput
            From the task, for a line that is not JSON: with file, number and line. Also a ValueError.

        Notes
        -----
        Cost: lists files now, reads nothing; no job.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = pathlib.Path(place, "a.jsonl").write_text('{"n": 1}\n[2]\n')
        ...     fc.read_json_lines(place).collect()
        [{'n': 1}, [2]]
        """
        return self._text_lines(path, min_partitions, encoding, errors, ParseJsonLines(), "read_json_lines")

    def read_csv(
        self,
        path: Paths,
        min_partitions: int | None = None,
        *,
        columns: Sequence[str] | None = None,
        header: bool = True,
        delimiter: str = ",",
        encoding: str = "utf-8",
        types: Mapping[str, Callable[[str], Any]] | None = None,
    ) -> RDD[Any]:
        r"""Rows of comma separated values: mappings by column, or tuples where there are no names.

        Parameters
        ----------
        path, min_partitions
            As for ``binary_files``; compressed files (gz, bz2, xz, zst) too. A file is read by one task: a quoted field may hold line
            ends, so nobody knows where rows begin before all before them were read.
        columns
            With a ``header`` those to read, in this order; without one the names of all. None: all that the header names; without a
            header rows are tuples.
        header
            Whether each file begins with a line of names. Names that are there twice, or empty, are made distinct as pandas does:
            ``a``, ``a.1``, ``Unnamed: 2``.
        delimiter
            One character.
        encoding
            Of the files; a byte order mark at the beginning is left out.
        types
            By column, what makes a value of a text (``int``, ``float``, ``datetime.fromisoformat``); an empty text becomes None. Columns
            not named stay ``str``. ``bool`` reads words: true, t, yes, y, on, 1, or false, f, no, n, off, 0.

        Raises
        ------
        errors.BadInput
            From the task, with file and line: too many or too few fields, broken quoting, a text that is no such value, a column of
            ``columns`` or ``types`` that the header does not name. Also a ValueError.

        Notes
        -----
        Cost: lists files now, reads nothing; no job.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = pathlib.Path(place, "a.csv").write_text("name,age\nann,31\n")
        ...     fc.read_csv(place, types={"age": int}).collect()
        [{'name': 'ann', 'age': 31}]
        """
        check_encoding(encoding)
        check_delimiter(delimiter)
        if types is not None:
            check_mapping("types", types)
        for name, convert in (types or {}).items():
            check_callable(f"types[{name!r}]", convert)
        names = check_columns(columns)
        if types and names is None and not header:
            raise InvalidArgument(
                "types = ...: columns have no names; give columns= too, or header=True", name="types", value=types, allowed="None"
            )
        if names is not None and (unknown := set(types or {}) - set(names)):
            raise InvalidArgument(
                f"types of {', '.join(sorted(unknown))}, which are no columns",
                name="types",
                value=types,
                allowed=", ".join(names),
            )
        return self._file_rows(path, min_partitions, ReadCsv(names, header, delimiter, encoding, dict(types or {})), "read_csv")

    def read_parquet(
        self,
        path: Paths,
        *,
        columns: Sequence[str] | None = None,
        filters: Any = None,
        batches: bool = False,
        num_partitions: int | None = None,
    ) -> RDD[Any]:
        """Rows of Parquet files, as mappings or Arrow record batches; files that differ are read as one table.

        Columns are united by name (None where a file lacks one) and widened: integers, floats and decimals, units of time, nulls with
        anything. Directories ``column=value`` below what is named become columns, typed as they were written where flowkit wrote them, else
        whole numbers, numbers, dates or text by all of their values; they go before a column of the same name in a file.

        Parameters
        ----------
        path
            As for ``text_file``; of a directory also the files in its directories, at any depth. What is in directories and not
            Parquet, or empty, is passed over.
        columns
            Those to read, in that order; None: all. Others are never read.
        filters
            Which rows: a ``pyarrow.compute.Expression``, or a list such as ``[("day", ">", 3)]``. What no row of a file or row group can
            fulfil, by its statistics, is never read.
        batches
            Whether elements are ``pyarrow.RecordBatch`` instead of one mapping a row.
        num_partitions
            At most so many, of whole row groups; None: ``default_parallelism``.

        Raises
        ------
        FileNotFoundError
            At the call: nothing is there.
        errors.InvalidArgument
            At the call: a column is not there; filters do not fit; a file is broken; files have columns that no type holds, named with
            both files and types.
        errors.BadInput
            From the task, with the file: an integer that no float is equal to, where other files have floats; a moment that Python has
            not. Also a ValueError.

        Notes
        -----
        Cost: reads the files' footers now, several at a time; no job. Time stamps keep their time zone, or its absence. Rows have
        microseconds, whatever packages are installed: nanoseconds are cut off, and kept in batches.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     fc.range(10).map(lambda n: {"n": n, "even": n % 2 == 0}).save_as_parquet(f"{place}/out")
        ...     fc.read_parquet(f"{place}/out", columns=["n"], filters=[("even", "=", True), ("n", ">", 3)]).collect()
        [{'n': 4}, {'n': 6}, {'n': 8}]
        """
        from flowkit.rdd.parquet_reads import open_table, plan_read

        paths: Any = list(path) if isinstance(path, Iterator) else path
        files, _ = self._listed(paths, recursive=True)
        table = open_table(paths, files, self._stores, to_microseconds=not batches)
        fragments, reader = plan_read(table, columns, filters, batches=batches, as_they_are=self._takes_changed_inputs)
        if num_partitions is not None:
            wanted = check_int("num_partitions", num_partitions, least=1)
        else:
            total = sum(group.total_byte_size for part in fragments for group in part.fragment.row_groups)
            wanted = max(self.default_parallelism, -(-total // self.config.max_partition_bytes))
        return self.parallelize(fragments, max(1, min(wanted, len(fragments)))).map_partitions(reader)

    def read_arrow(self, path: Paths, *, batches: bool = False, min_partitions: int | None = None) -> RDD[Any]:
        """Rows of Arrow IPC files or streams, as mappings or record batches.

        Parameters
        ----------
        path, min_partitions
            As for ``binary_files``; compressed files too.
        batches
            Whether elements are ``pyarrow.RecordBatch``.

        Raises
        ------
        errors.BadInput
            From the task, with the file: it is none of Arrow's, or is cut short; as rows, several columns of one name, or a moment that
            Python has not. Also a ValueError.

        Notes
        -----
        Cost: lists files now, reads nothing; no job. Rows have microseconds: nanoseconds are cut off, and kept in batches.

        Examples
        --------
        >>> import pyarrow as pa, tempfile
        >>> table = pa.table({"n": [1, 2]})
        >>> with tempfile.TemporaryDirectory() as place:
        ...     with pa.OSFile(f"{place}/a.arrow", "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        ...         writer.write_table(table)
        ...     fc.read_arrow(place).collect()
        [{'n': 1}, {'n': 2}]
        """
        from flowkit.execution.arrow_reading import ReadArrow

        return self._file_rows(path, min_partitions, ReadArrow(batches), "read_arrow")

    def pickle_file(self, path: Paths, min_partitions: int | None = None) -> RDD[Any]:
        """What ``save_as_pickle`` wrote.

        Parameters
        ----------
        path, min_partitions
            As for ``binary_files``; compressed files too.

        Raises
        ------
        errors.BadInput
            From the task, for content that is none of that, with file and byte. Also a ValueError.

        Notes
        -----
        Cost: lists files now, reads nothing; no job. Reading a pickle runs what is in it: read only what you trust.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     fc.range(3).save_as_pickle(f"{place}/out")
        ...     fc.pickle_file(f"{place}/out").collect()
        [0, 1, 2]
        """
        return self._file_rows(path, min_partitions, ReadPickles(), "pickle_file")

    def binary_records(self, path: Paths, record_bytes: int, min_partitions: int | None = None) -> RDD[bytes]:
        """``bytes`` of one length, one after another in files.

        Parameters
        ----------
        path, min_partitions
            As for ``binary_files``; compressed files too.
        record_bytes
            Of each; 1 or more.

        Raises
        ------
        errors.BadInput
            From the task, for a file that ends inside a record, with file and byte. Also a ValueError.

        Notes
        -----
        Cost: lists files now, reads nothing; no job.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = pathlib.Path(place, "a.bin").write_bytes(b"abcdef")
        ...     fc.binary_records(place, 2).collect()
        [b'ab', b'cd', b'ef']
        """
        check_int("record_bytes", record_bytes, least=1)
        return self._file_rows(path, min_partitions, ReadRecords(record_bytes), "binary_records")

    def from_arrow(self, table: Any, num_partitions: int | None = None, *, batches: bool = False) -> RDD[Any]:
        """Rows of a ``pyarrow.Table`` or ``RecordBatch``, as mappings or record batches.

        Notes
        -----
        Cost: pickles the table now; no job. Rows have microseconds: nanoseconds are cut off, and kept in batches.

        Examples
        --------
        >>> import pyarrow as pa
        >>> fc.from_arrow(pa.table({"n": [1, 2], "s": ["a", None]})).collect()
        [{'n': 1, 's': 'a'}, {'n': 2, 's': None}]
        """
        import pyarrow as pa

        if isinstance(table, pa.RecordBatch):
            table = pa.Table.from_batches([table])
        if not isinstance(table, pa.Table):
            refuse("table", table, f"a pyarrow Table or RecordBatch, not {type(table).__name__}")
        parts = self.default_parallelism if num_partitions is None else check_int("num_partitions", num_partitions, least=1)
        cuts = [table.num_rows * place // parts for place in range(parts + 1)]
        pieces = [as_stream(table.slice(start, end - start)) for start, end in pairwise(cuts)]
        found = self.parallelize(pieces, parts).flat_map(batches_of_stream)
        return found if batches else found.flat_map(rows_of_batch)

    def from_pandas(self, frame: Any, num_partitions: int | None = None, *, batches: bool = False) -> RDD[Any]:
        """Rows of a pandas ``DataFrame``, as mappings or record batches; the index is left out unless it is a column.

        Notes
        -----
        Cost: makes an Arrow table of it now; no job. Missing values become None, time zones stay.

        Examples
        --------
        >>> import pandas as pd  # doctest: +SKIP
        >>> fc.from_pandas(pd.DataFrame({"n": [1, 2]})).collect()  # doctest: +SKIP
        [{'n': 1}, {'n': 2}]
        """
        import pyarrow as pa

        if not hasattr(frame, "to_records"):
            refuse("frame", frame, f"a pandas DataFrame, not {type(frame).__name__}")
        return self.from_arrow(pa.Table.from_pandas(frame, preserve_index=False), num_partitions, batches=batches)

    def from_dask_bag(self, bag: Any) -> RDD[Any]:
        """Elements of a ``dask.bag.Bag``, a partition of it a partition.

        Parameters
        ----------
        bag
            Not computed yet: its recipe is taken over, and its tasks run inside flowkit's.

        Notes
        -----
        Cost: optimises the bag's graph now; no job. Each partition runs all tasks it depends on, one after the other: what several
        partitions share (a ``groupby``, a ``repartition``) is computed once for each of them, so hand in what comes before it.

        Examples
        --------
        >>> import dask.bag
        >>> bag = dask.bag.from_sequence(range(6), npartitions=3).map(lambda x: x * x)
        >>> fc.from_dask_bag(bag).glom().collect()
        [[0, 1], [4, 9], [16, 25]]
        """
        if not hasattr(bag, "__dask_graph__") or not hasattr(bag, "npartitions") or not hasattr(bag, "to_textfiles"):
            refuse("bag", bag, f"a dask.bag.Bag, not {type(bag).__name__}")
        parts = partitions_of_bag(bag)
        found = self.parallelize(parts, max(1, len(parts)))
        return found._narrow(MapPartitions(compute_bag_partitions), "from_dask_bag")  # type: ignore[no-any-return]

    def _file_rows(self, path: Paths, min_partitions: int | None, reader: FileReader, operation: str) -> RDD[Any]:
        """What a reader makes of whole files."""
        files, stores = self._listed(path)
        paths, versions = self._packed(files, min_partitions)
        return self._source(FileRows(paths, reader, stores, versions), len(paths), operation, source_identity=tuple(files))
