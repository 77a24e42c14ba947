r"""Lines of text files, read in large blocks and split at C speed; a byte range owns the lines that begin in it.

Runs on slot threads. ``\n`` and ``\r\n`` end a line, nothing else does (``str.splitlines`` knows ten more, which are data).
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from typing import IO, Any, BinaryIO, cast

from flowkit.errors import InvalidArgument
from flowkit.lineage.kernels import FileSplit
from flowkit.storage.objects.local import open_regular

#: First block of a split, so that ``take(1)`` reads little; each is twice the one before.
_FIRST_BLOCK_BYTES = 64 * 1024
#: Largest block. Its bytes, text and lines stay in the CPU's cache; blocks of 1 MB take twice as long a line (measured).
_BLOCK_BYTES = 128 * 1024


def open_local(path: str) -> IO[bytes]:
    """A file of this machine, unbuffered: hot for many small files."""
    return open_regular(path, buffering=0)


def read_lines(
    split: FileSplit, encoding: str, errors: str, opener: Callable[[str], IO[bytes]] = open_local
) -> Iterator[tuple[list[str], int]]:
    r"""Lists of lines without their ends, each with the bytes read of the file since the one before.

    Raises
    ------
    InvalidArgument
        The file is split, but a newline of its encoding is not the one byte ``\n``.
    """
    try:
        yield from _read(split, encoding, errors, opener)
    except Exception as error:
        # What decompressors raise names no file.
        if split.path not in "\n".join((str(error), *getattr(error, "__notes__", ()))):
            error.add_note(f"in {split.path}")
        raise


def _read(split: FileSplit, encoding: str, errors: str, opener: Callable[[str], IO[bytes]]) -> Iterator[tuple[list[str], int]]:
    with opener(split.path) as file:
        whole = split.start == 0 and (split.length is None or split.length >= file.seek(0, io.SEEK_END))
        file.seek(0)
        if not newline_is_one_byte(encoding) and not whole:
            raise InvalidArgument(
                f"{split.path} is encoded in {encoding!r} and was split by bytes; text in this encoding is read in one piece",
                name="encoding",
                value=encoding,
                allowed="an encoding in which a newline is the byte 10, or one partition a file",
            )
        if split.codec is not None:
            pieces = _pieces_of(_decompressed(file, split.codec))
        elif whole:
            pieces = _pieces_of(file)
        else:
            pieces = _pieces_of_split(file, split)
        read_before = 0
        for lines in _split_lines(pieces, split, encoding, errors):
            position = file.tell()
            yield lines, max(0, position - max(read_before, split.start if not whole else 0))
            read_before = max(read_before, position)


def newline_is_one_byte(encoding: str) -> bool:
    """Whether text in an encoding can be cut at its bytes 10.

    >>> newline_is_one_byte("latin-1"), newline_is_one_byte("utf-16")
    (True, False)
    """
    return codecs.lookup(encoding).name in {"utf-8", "utf-8-sig"} or "\n".encode(encoding) == b"\n"


def _decompressed(file: IO[bytes], codec: str) -> BinaryIO:
    # Modules are imported where they are used: most executors never see a compressed file.
    match codec:
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

            return cast("BinaryIO", pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"))
        case _:
            raise InvalidArgument(
                f"codec = {codec!r}: unknown", name="codec", value=codec, allowed="gz, bz2, xz, zst, or None for plain text"
            )


def _pieces_of(file: Any) -> Iterator[bytes]:
    size = _FIRST_BLOCK_BYTES
    while piece := file.read(size):
        yield bytes(piece)
        size = min(2 * size, _BLOCK_BYTES)


def _pieces_of_split(file: IO[bytes], split: FileSplit) -> Iterator[bytes]:
    """The bytes from the first line that begins in the split to the end of the last one that does."""
    position = split.start
    end = None if split.length is None else split.start + split.length
    if position > 0:
        # The byte before tells whether a line begins exactly here.
        file.seek(position - 1)
        skipped = position - 1
        for piece in _pieces_of(file):
            found = piece.find(b"\n")
            if found >= 0:
                position = skipped + found + 1
                break
            skipped += len(piece)
            if end is not None and skipped >= end:
                return
        else:
            return
    if end is not None and position >= end:
        return
    file.seek(position)
    size = _FIRST_BLOCK_BYTES
    while end is None or position < end:
        piece = file.read(size if end is None else min(size, end - position))
        if not piece:
            return
        position += len(piece)
        if end is not None and position >= end and not piece.endswith(b"\n"):
            yield piece
            for piece in _pieces_of(file):
                found = piece.find(b"\n")
                if found >= 0:
                    yield piece[: found + 1]
                    return
                yield piece
            return
        yield piece
        size = min(2 * size, _BLOCK_BYTES)


def _split_lines(pieces: Iterator[bytes], split: FileSplit, encoding: str, errors: str) -> Iterator[list[str]]:
    if not newline_is_one_byte(encoding):
        yield from _split_decoded(pieces, split, encoding, errors)
        return
    # Only the very start of a file may hold a byte order mark; later blocks are plain UTF-8.
    later = "utf-8" if codecs.lookup(encoding).name == "utf-8-sig" else encoding
    current = encoding if split.start == 0 else later
    begun: list[bytes] = []  # of a line whose end has not been seen
    for piece in pieces:
        cut = piece.rfind(b"\n")
        if cut < 0:
            begun.append(piece)
            continue
        begun.append(piece[:cut])
        block = b"".join(begun) if len(begun) > 1 else begun[0]
        begun = [piece[cut + 1 :]]
        yield _lines_of(_decode(block, split, current, errors))
        current = later
    if rest := b"".join(begun):
        yield [_decode(rest, split, current, errors)]


def _split_decoded(pieces: Iterator[bytes], split: FileSplit, encoding: str, errors: str) -> Iterator[list[str]]:
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    begun: list[str] = []
    for piece in pieces:
        text = decoder.decode(piece)
        cut = text.rfind("\n")
        if cut < 0:
            begun.append(text)
            continue
        begun.append(text[:cut])
        block = "".join(begun)
        begun = [text[cut + 1 :]]
        yield _lines_of(block)
    begun.append(decoder.decode(b"", final=True))
    if rest := "".join(begun):
        yield [rest]


def _decode(block: bytes, split: FileSplit, encoding: str, errors: str) -> str:
    try:
        return block.decode(encoding, errors)
    except UnicodeDecodeError as error:
        line = block[block.rfind(b"\n", 0, error.start) + 1 :].partition(b"\n")[0]
        error.add_note(f"in {split.path}, in the line that begins with {line[:80]!r}; see text_file(..., encoding=, errors=)")
        raise


def _lines_of(text: str) -> list[str]:
    # The newline that ended the block was cut off; a \r before it was not.
    lines = text.split("\n")
    if "\r" in text:
        return [line.removesuffix("\r") for line in lines]
    return lines
