"""Arrow IPC files and streams into rows or batches. Runs on slot threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from flowkit.execution.input_files import InputFile
from flowkit.storage.objects.local import codec_of
from flowkit.storage.tables.rows import rows_of

_MAGIC = b"ARROW1"


@dataclass(frozen=True, slots=True)
class ReadArrow:
    """A ``FileReader`` of Arrow IPC files or streams: rows as mappings, or record batches."""

    batches: bool

    def __call__(self, file: InputFile) -> Iterator[Any]:
        """Batches are read as they are asked for; a file without a byte has none."""
        with file.open() as raw:
            found = self._batches(file, raw)
            for number in range(1 << 62):
                try:
                    batch = next(found, None)
                except (pa.ArrowException, OSError) as error:
                    raise file.bad(f"cannot be read as an Arrow IPC file or stream: {error}", batch=number) from None
                if batch is None:
                    return
                file.count(batch.num_rows)
                if self.batches:
                    yield batch
                else:
                    yield from rows_of(batch, file.path)

    def _batches(self, file: InputFile, raw: Any) -> Iterator[Any]:
        head = raw.peek(len(_MAGIC))  # all of them can peek
        if not head:
            return
        if head.startswith(_MAGIC):
            # What is said at its end is needed first.
            source = pa.PythonFile(raw, mode="r") if codec_of(file.path) is None else pa.BufferReader(file.read())
            reader = pa.ipc.open_file(source)
            yield from map(reader.get_batch, range(reader.num_record_batches))
        else:
            yield from pa.ipc.open_stream(pa.PythonFile(raw, mode="r"))
            if raw.read(1):  # which also notices where a compressed file is cut short
                raise pa.ArrowInvalid("there is more after the end of the stream")
