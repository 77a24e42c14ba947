"""Parquet fragments into rows of one schema, whatever schema each file has. Runs on slot threads.

A file with the types of the table is read by Arrow alone. One with other types is read with its own, cast value by value, and filtered then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from flowkit.errors import BadInput
from flowkit.execution.input_versions import unchanged
from flowkit.execution.task_context import TaskContext
from flowkit.lineage.kernels import FileVersion
from flowkit.model.shown import short
from flowkit.storage.objects.local import check_regular
from flowkit.storage.objects.stores import version_in
from flowkit.storage.tables.casts import Unfit, cast_table
from flowkit.storage.tables.rows import cut_to_microseconds, path_text, rows_of
from flowkit.visible import visible


def differing_columns(file: Any, schema: Any, names: Iterable[str]) -> list[str]:
    """Columns, of some, that a file has with another type than the table."""
    found: list[str] = []
    if file.equals(schema):
        return found
    for name in names:
        place = file.get_field_index(name)
        if place >= 0 and not file.field(place).type.equals(schema.field(name).type):
            found.append(name)
    return found


class PlannedFragment(NamedTuple):
    """Row groups of a file of which it is known which version they are of."""

    fragment: Any
    version: FileVersion


def _file_of(planned: PlannedFragment) -> tuple[str, FileVersion]:
    return planned.fragment.path, planned.version


@dataclass(frozen=True, slots=True)
class ReadFragments:
    """Rows of Parquet fragments, with the columns and rows wanted: mappings, or record batches."""

    schema: Any
    columns: tuple[str, ...] | None
    filter: Any
    batches: bool

    def __call__(self, fragments: Iterable[PlannedFragment]) -> Iterator[Any]:
        """Read them, one after another. Raises ``errors.InputChanged`` for a file that is not what they were planned for."""
        for (path, version), planned in groupby(fragments, _file_of):
            first = next(planned).fragment

            def look(store: Any = first.filesystem, path: str = path) -> FileVersion:
                return version_in(store, path)

            # Its footer was read when it was planned, and says where in the file everything is.
            with unchanged(path, version, look):
                yield from self._rows(first)
                for each in planned:
                    yield from self._rows(each.fragment)

    def _rows(self, fragment: Any) -> Iterator[Any]:
        context = TaskContext.get()
        for batch in self._named(fragment.path, self._batches(fragment)):
            if not batch.num_rows:
                continue
            if context is not None:
                context.metrics.input_rows += batch.num_rows
                context.metrics.input_bytes += batch.nbytes
            if self.batches:
                yield batch
            else:
                yield from rows_of(batch, fragment.path)

    def _named(self, path: str, batches: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from batches
        except Exception as error:
            if visible(path) not in visible(str(error)):
                error.add_note(f"in {visible(path)}")
            raise

    def _batches(self, fragment: Any) -> Iterator[Any]:
        columns = None if self.columns is None else list(self.columns)
        needed = self.schema.names if columns is None or self.filter is not None else columns
        if isinstance(fragment.filesystem, LocalFileSystem):
            check_regular(fragment.path)
        file = fragment.physical_schema
        directories = ds.get_partition_keys(fragment.partition_expression)
        differing = differing_columns(file, self.schema, [name for name in needed if name not in directories])
        if not differing:
            yield from fragment.to_batches(schema=self.schema, columns=columns, filter=self.filter)
            return
        wanted = pa.schema([self.schema.field(name) for name in needed])
        own = pa.schema([file.field(field.name) if field.name in differing else field for field in self.schema])
        for batch in fragment.to_batches(schema=own, columns=needed):
            table = self._cast(pa.Table.from_batches([batch]), wanted, fragment.path)
            if self.filter is not None:
                table = table.filter(self.filter)
            yield from (table if columns is None else table.select(columns)).to_batches()

    def _cast(self, table: Any, wanted: Any, path: str) -> Any:
        if not self.batches:
            table = cut_to_microseconds(table)
        # What its own schema calls nullable a file may lack.
        free = pa.schema([field.with_nullable(True) for field in wanted])
        try:
            return cast_table(table, free)
        except Unfit as error:
            (row,) = table.slice(error.place, 1).to_pylist()
            raise BadInput(
                f"{path}: column {path_text(error.path)!r}: {short(error.value, 100)} of the row {short(row)} {error.reason}, which the "
                "column is in other files",
                path=path,
            ) from None
