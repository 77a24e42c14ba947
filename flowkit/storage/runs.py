"""Spill runs: batches written to a file of the task's own, read back in order, then removed.

Runs on the task's slot thread; not thread-safe. Each frame stands behind its CRC-32: a disk that errs must not err into the answer.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from flowkit.errors import DataDamaged, InternalError
from flowkit.storage import codecs, private_files
from flowkit.storage.frames import HEADER_BYTES, frame, read_header
from flowkit.storage.serializers import decode_batch, encode_batch
from flowkit.storage.shuffle.files import removed_on_failure

_BUFFER_BYTES = 1 << 20
#: A batch in a file takes about so much, however many rows that are: whoever merges runs holds one batch of each.
_BATCH_BYTES: Final = 1 << 20
_CHECKSUM: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run. ``disk_bytes`` is its file's length, ``rows`` what was written."""

    path: Path
    disk_bytes: int
    rows: int

    def batches(self) -> Iterator[list[Any]]:
        """The batches in the order of writing, one in memory at a time; each call begins anew. Raises ``errors.DataDamaged``."""
        left = self.disk_bytes
        with private_files.open_file(self.path, buffering=_BUFFER_BYTES) as file:
            while left:
                start = file.read(_CHECKSUM.size + HEADER_BYTES)
                if len(start) != _CHECKSUM.size + HEADER_BYTES:
                    raise self._damaged("ends too early")
                header = start[_CHECKSUM.size :]
                codec, raw_bytes, packed_bytes = read_header(header)
                left -= len(start) + packed_bytes
                if left < 0:
                    raise self._damaged("has a frame that is longer than it")
                data = file.read(packed_bytes)
                if _CHECKSUM.pack(zlib.crc32(data, zlib.crc32(header))) != start[: _CHECKSUM.size]:
                    raise self._damaged("has a frame whose checksum does not fit")
                yield decode_batch(codecs.decompress(codec, data, raw_bytes))

    def _damaged(self, how: str) -> DataDamaged:
        return DataDamaged(f"spill run {self.path} is damaged: it {how}; does its disk err?", path=str(self.path))

    def delete(self) -> None:
        """Remove the file. Idempotent."""
        self.path.unlink(missing_ok=True)


class RunWriter:
    """Writes one run to ``directory / name``.

    Raises
    ------
    errors.DiskFull
        From ``write`` and ``close`` (the file is removed then), and where it cannot be made.
    """

    def __init__(self, directory: Path, name: str, *, codec: str = "none") -> None:
        self.path = directory / name
        self.rows = 0
        self.disk_bytes = 0
        self._codec = codecs.codec_number(codec)
        #: rows that are about ``_BATCH_BYTES``, by those written last
        self._fitting_rows = 1 << 62
        private_files.make_directory(directory)
        self._file: IO[bytes] | None = private_files.open_file(self.path, "xb", buffering=_BUFFER_BYTES)

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *reason: object) -> None:
        if self._file is not None:
            self.abort()

    def write(self, batch: list[Any]) -> None:
        """Append rows: as one batch, or as several where that would be large."""
        written = 0
        while written < len(batch):
            rows = batch[written : written + self._fitting_rows]
            encoded = encode_batch(rows)
            self._fitting_rows = max(1, len(rows) * _BATCH_BYTES // len(encoded))
            if len(encoded) > 2 * _BATCH_BYTES and len(rows) > 1:
                continue  # estimates of their size were wrong; now it is known
            self.write_encoded(encoded)
            written += len(rows)
        self.rows += len(batch)

    def write_encoded(self, batch: bytes) -> None:
        """Append a batch that is encoded already; its rows are not counted."""
        if self._file is None:
            raise InternalError(f"spill run {self.path} is closed")
        data = frame(batch, self._codec)
        with removed_on_failure(self.path):
            self._file.write(_CHECKSUM.pack(zlib.crc32(data)))
            self._file.write(data)
        self.disk_bytes += _CHECKSUM.size + len(data)

    def close(self) -> Run:
        """Finish it. A writer left without ``close`` (an exception inside ``with``) removes its file."""
        if self._file is None:
            raise InternalError(f"spill run {self.path} is closed")
        file, self._file = self._file, None
        with removed_on_failure(self.path):
            file.close()
        return Run(self.path, self.disk_bytes, self.rows)

    def abort(self) -> None:
        """Remove what was written. Idempotent."""
        if self._file is not None:
            file, self._file = self._file, None
            self.path.unlink(missing_ok=True)
            with suppress(OSError):  # what is still buffered may not fit on the disk; it is thrown away either way
                file.close()
