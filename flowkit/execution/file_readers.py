"""Files of rows into rows: JSON lines, pickles, records of one length, whole texts. Runs on slot threads.

Small picklable callables. Rows and bytes are counted by batches.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flowkit.execution.input_files import InputFile
from flowkit.execution.sources import LinesAt
from flowkit.execution.text_lines import without_mark
from flowkit.model.shown import short

_READ_BYTES = 1 << 20


class ParseJsonLines:
    """A ``LineParser``: the JSON value of each line, blank ones left out."""

    def __call__(self, lines: list[str], at: LinesAt) -> Iterator[Any]:
        loads = json.loads
        for index, line in enumerate(lines):
            if not line or line.isspace():
                continue
            try:
                value = loads(line)
            except ValueError as error:
                raise at.bad(index, f"not JSON: {short(line)} ({error})") from None
            except RecursionError:
                raise at.bad(index, f"JSON that is nested too deep: {short(line)}") from None
            yield value


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


#: what unpickling raises of content that is no pickle; an ImportError or AttributeError speaks of what is missing here
_NO_PICKLE = (pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, OverflowError, struct.error)


class ReadPickles:
    """A ``FileReader`` of what ``save_as_pickle`` wrote."""

    def __call__(self, file: InputFile) -> Iterator[Any]:
        with file.open() as raw:
            stream: Any = raw  # all of them can peek, which IO does not say
            while stream.peek(1):
                offset = stream.tell()
                try:
                    batch = pickle.load(stream)
                except _NO_PICKLE as error:
                    raise file.bad(f"not what save_as_pickle writes ({type(error).__name__}: {error})", byte=offset) from None
                if not isinstance(batch, list):
                    raise file.bad(
                        f"not what save_as_pickle writes, which are lists of rows, but a {type(batch).__name__}; binary_files and pickle.loads "
                        "read other pickles",
                        byte=offset,
                    )
                file.count(len(batch))
                yield from batch


@dataclass(frozen=True, slots=True)
class ReadRecords:
    """A ``FileReader`` of ``bytes`` of one length each."""

    record_bytes: int

    def __call__(self, file: InputFile) -> Iterator[bytes]:
        length = self.record_bytes
        at_once = max(1, _READ_BYTES // length) * length
        offset = 0
        with file.open() as stream:
            while data := stream.read(at_once):
                whole = len(data) - len(data) % length
                file.count(whole // length)
                yield from (data[start : start + length] for start in range(0, whole, length))
                offset += whole
                if rest := len(data) - whole:
                    raise file.bad(f"is no multiple of {length} bytes long: the last record has {rest}", byte=offset)


@dataclass(frozen=True, slots=True)
class ReadWholeText:
    """A ``FileReader``: ``(path, text)``, one a file."""

    encoding: str
    errors: str

    def __call__(self, file: InputFile) -> Iterator[tuple[str, str]]:
        data = file.read(copies=2)
        text = without_mark(data.decode(self.encoding, self.errors), self.encoding)
        file.count(1)
        yield file.path, text
