"""Compressed files as streams of what is in them, read and written. Runs on executors.

Modules are imported where they are used: most executors never see a compressed file.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from flowkit.errors import InvalidArgument

_BUFFER_BYTES = 128 << 10
_ALLOWED = "gz, bz2, xz, zst, or None for plain content"


def decompressed(file: IO[bytes], codec: str | None) -> BinaryIO:
    """What is in a file, whose compression is named as ``local.codec_of`` does; the file itself where there is none.

    Streams that follow one another in a file are read as one, as the tools of each format do.

    Raises
    ------
    errors.InvalidArgument
        Nobody knows the codec.

    Examples
    --------
    >>> import gzip, io
    >>> decompressed(io.BytesIO(gzip.compress(b"one") + gzip.compress(b" two")), "gz").read()
    b'one two'
    """
    match codec:
        case None:
            return cast("BinaryIO", file)
        case "gz" | "gzip":
            import gzip

            return cast("BinaryIO", gzip.GzipFile(fileobj=file, mode="rb"))
        case "bz2":
            import bz2

            return cast("BinaryIO", bz2.BZ2File(file))
        case "xz":
            import lzma

            return cast("BinaryIO", lzma.LZMAFile(file))
        case "zst" | "zstd":
            import pyarrow as pa

            stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
            return cast("BinaryIO", io.BufferedReader(_Forward(stream), _BUFFER_BYTES))
        case _:
            raise InvalidArgument(f"codec = {codec!r}: unknown", name="codec", value=codec, allowed=_ALLOWED)


#: what writers take for ``compression``, and the suffix of such a file's name
SUFFIXES = {"gzip": ".gz", "bz2": ".bz2", "xz": ".xz", "zstd": ".zst"}


def open_compressed(path: Path, compression: str | None) -> IO[bytes]:
    """A new file whose content is compressed on its way, as one of ``SUFFIXES``; None: it is not."""
    match compression:
        case None:
            return path.open("wb")
        case "gzip":
            import gzip

            return cast("IO[bytes]", gzip.open(path, "wb", compresslevel=6))
        case "bz2":
            import bz2

            return cast("IO[bytes]", bz2.open(path, "wb"))
        case "xz":
            import lzma

            return cast("IO[bytes]", lzma.open(path, "wb"))
        case _:
            import pyarrow as pa

            return cast("IO[bytes]", io.BufferedWriter(_Compressing(pa.CompressedOutputStream(str(path), "zstd")), _BUFFER_BYTES))


class _Compressing(io.RawIOBase):
    """A stream of Arrow's, as files of Python are."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._stream.write(bytes(data))
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


class _Forward(io.RawIOBase):
    """A stream of Arrow's, as files of Python are: it cannot go back, and knows where it is."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position
