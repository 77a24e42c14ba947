"""Arrow IPC files and streams into rows or batches. Runs on slot threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from flowkit.execution.task_context import TaskContext
from flowkit.storage.objects.stores import Stores
from flowkit.storage.tables.rows import rows_of

_MAGIC = b"ARROW1"


@dataclass(frozen=True, slots=True)
class ReadArrow:
    """Rows of Arrow IPC files or streams, as mappings or record batches."""

    batches: bool
    stores: Stores | None = None

    def __call__(self, paths: Iterable[str]) -> Iterator[Any]:
        """Read them, one after another; what fails names its file."""
        context = TaskContext.get()
        for path in paths:
            for batch in self._named(path):
                if context is not None:
                    context.metrics.input_rows += batch.num_rows
                    context.metrics.input_bytes += batch.nbytes
                if self.batches:
                    yield batch
                else:
                    yield from rows_of(batch, path)

    def _named(self, path: str) -> Iterator[Any]:
        try:
            yield from self._batches(path)
        except pa.ArrowException as error:
            raise ValueError(f"{path} cannot be read as an Arrow IPC file or stream: {error}") from None
        except OSError as error:
            if path not in str(error):
                error.add_note(f"in {path}")
            raise

    def _batches(self, path: str) -> Iterator[Any]:
        with self._source(path) as source:
            is_file = source.size() >= len(_MAGIC) and source.read(len(_MAGIC)) == _MAGIC
            source.seek(0)
            if is_file:
                reader = pa.ipc.open_file(source)
                yield from map(reader.get_batch, range(reader.num_record_batches))
            else:
                yield from pa.ipc.open_stream(source)

    def _source(self, path: str) -> Any:
        if self.stores is None:
            return pa.OSFile(path, "rb")
        store, inner = self.stores.at(path)
        return store.open_input_file(inner)
