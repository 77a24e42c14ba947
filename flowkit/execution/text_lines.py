r"""Lines of text files, read in large blocks and split at C speed; a byte range owns the lines that begin in it.

Runs on slot threads. ``\n``, ``\r\n`` and a lone ``\r`` end a line, nothing else does (``str.splitlines`` knows eight more, which are data).
A byte order mark at the beginning of a file is no part of its first line.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from functools import cache
from typing import IO, Any, NamedTuple

from flowkit.errors import InvalidArgument
from flowkit.execution.content_errors import mark_if_of_content
from flowkit.execution.input_versions import unchanged
from flowkit.execution.long_input import LongInput
from flowkit.lineage.kernels import FileSplit, FileVersion
from flowkit.storage.memory.task_memory import TaskMemory
from flowkit.storage.objects.compressed import decompressed
from flowkit.storage.objects.local import open_regular, version_of
from flowkit.storage.objects.stores import address_of
from flowkit.visible import visible

#: First block of a split, so that ``take(1)`` reads little; each is twice the one before.
_FIRST_BLOCK_BYTES = 64 * 1024
#: Largest block. Its bytes, text and lines stay in the CPU's cache; blocks of 1 MB take twice as long a line (measured).
_BLOCK_BYTES = 128 * 1024
#: Lines before a piece of a file are counted for a message, if they are not more than this.
_MOST_COUNTED_BYTES = 1 << 30
_RETURN = ord("\r")
#: U+FEFF at the beginning of a text
MARK = "\ufeff"
#: what ``str.splitlines`` takes for the end of a line too
_ENDS_FOR_PYTHON_ONLY = ("\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
#: what their decoders drop themselves
_DROPS_MARK = {"utf-8-sig", "utf-16", "utf-32"}
#: whose bytes mean one thing or another by what stands before them, on other lines too
_STATEFUL = ("iso2022", "utf-7", "hz")


def open_local(path: str) -> IO[bytes]:
    """A file of this machine, unbuffered: hot for many small files."""
    return open_regular(path, buffering=0)


class Files(NamedTuple):
    """How files are opened, and what tells their versions: those of this machine, or a store's."""

    open: Callable[[str], IO[bytes]]
    version: Callable[[str, IO[bytes]], FileVersion]


LOCAL_FILES = Files(open_local, lambda path, file: version_of(file, path))


def read_lines(
    split: FileSplit,
    encoding: str,
    errors: str,
    files: Files = LOCAL_FILES,
    memory: TaskMemory | None = None,
) -> Iterator[tuple[list[str], int]]:
    r"""Lists of lines without their ends, each with the bytes read of the file since the one before.

    Raises
    ------
    InvalidArgument
        The file is split, but a newline of its encoding is not the one byte ``\n``.
    errors.InputChanged
        It is not the version that the split is of.
    errors.InputTooLarge
        A line is longer than the worker has memory for.
    """
    try:
        yield from _read(split, encoding, errors, files, memory)
    except Exception as error:
        name_file(error, split.path)
        raise


def name_file(error: BaseException, path: str) -> None:
    """Note a file on an error that does not speak of it: what decompressors and parsers raise names none. Of its content, it is final."""
    mark_if_of_content(error, local=address_of(path) is None)
    told = visible(path)
    if told not in visible("\n".join((str(error), *getattr(error, "__notes__", ())))):
        error.add_note(f"in {told}")


def _read(
    split: FileSplit, encoding: str, errors: str, files: Files, memory: TaskMemory | None
) -> Iterator[tuple[list[str], int]]:
    with files.open(split.path) as file, unchanged(split.path, split.version, lambda: files.version(split.path, file)) as look:
        whole = split.start == 0 and (split.length is None or split.length >= file.seek(0, io.SEEK_END))
        file.seek(0)
        if not newline_is_one_byte(encoding) and not whole:
            raise InvalidArgument(
                f"{split.path} is encoded in {encoding!r} and was split by bytes; text in this encoding is read in one piece",
                name="encoding",
                value=encoding,
                allowed="an encoding in which a newline is the byte 10, or one partition a file",
            )
        first = 0
        content = decompressed(file, split.codec)  # held to the end: Arrow's closes the file with itself
        if whole:
            pieces = _pieces_of(content)
        else:
            begin = _first_line_of(file, split)
            if begin is None:
                return
            first = begin
            pieces = _pieces_of_split(file, split, first)
        read_before = 0
        # Bytes and a text of them; text that is not ASCII is larger.
        text = _Text(split, encoding, errors, first, LongInput(memory, split.path, copies=2), files)
        for lines in text.lines(pieces):
            if files is LOCAL_FILES:
                look()  # takes a microsecond, and whoever wants no more lines never comes to the end
            position = file.tell()
            yield lines, max(0, position - max(read_before, split.start if not whole else 0))
            read_before = max(read_before, position)


@cache
def newline_is_one_byte(encoding: str) -> bool:
    """Whether text in an encoding can be cut at its bytes 10 and 13, and each line be decoded alone.

    >>> newline_is_one_byte("latin-1"), newline_is_one_byte("utf-16"), newline_is_one_byte("iso2022_jp")
    (True, False, False)
    """
    name = codecs.lookup(encoding).name
    if name.startswith(_STATEFUL):
        return False
    return name in {"utf-8", "utf-8-sig"} or "\r\n".encode(encoding) == b"\r\n"


def without_mark(text: str, encoding: str) -> str:
    r"""The beginning of a file's text without its byte order mark, where the decoder has left it.

    >>> without_mark("\ufeffid", "utf-8"), without_mark("\ufeffid", "utf-16")
    ('id', '\ufeffid')
    """
    return text if codecs.lookup(encoding).name in _DROPS_MARK else text.removeprefix(MARK)


# -- bytes of a split ----------------------------------------------------------------------------------------------------


def _pieces_of(file: Any) -> Iterator[bytes]:
    size = _FIRST_BLOCK_BYTES
    while piece := file.read(size):
        yield bytes(piece)
        size = min(2 * size, _BLOCK_BYTES)


def _line_end(piece: bytes) -> int:
    r"""Where the first ``\n`` or ``\r`` is; -1: there is none."""
    newline = piece.find(b"\n")
    lone = piece.find(b"\r", 0, newline if newline >= 0 else len(piece))
    return lone if lone >= 0 else newline


def _first_line_of(file: IO[bytes], split: FileSplit) -> int | None:
    """Where the first line begins that begins in the split; None: none does."""
    if split.start == 0:
        return 0
    end = None if split.length is None else split.start + split.length
    # The byte before tells whether a line begins exactly here.
    begin = _after_line_end(file, split.start - 1, end)
    return None if begin is None or (end is not None and begin >= end) else begin


def _after_line_end(file: IO[bytes], position: int, until: int | None) -> int | None:
    """What follows the first end of a line from a position on; None: no line ends before ``until``."""
    file.seek(position)
    for piece in _pieces_of(file):
        found = _line_end(piece)
        if found >= 0:
            following = piece[found + 1 : found + 2] or file.read(1)
            return position + found + 1 + (piece[found] == _RETURN and following == b"\n")
        position += len(piece)
        if until is not None and position >= until:
            return None
    return None


def _pieces_of_split(file: IO[bytes], split: FileSplit, first: int) -> Iterator[bytes]:
    """The bytes from the first line that begins in the split to the end of the last one that does."""
    position = first
    end = None if split.length is None else split.start + split.length
    file.seek(position)
    size = _FIRST_BLOCK_BYTES
    while end is None or position < end:
        piece = file.read(size if end is None else min(size, end - position))
        if not piece:
            return
        position += len(piece)
        if end is not None and position >= end and not piece.endswith((b"\n", b"\r")):
            yield piece
            for piece in _pieces_of(file):
                found = _line_end(piece)
                if found >= 0:
                    yield piece[: found + 1]
                    return
                yield piece
            return
        yield piece
        size = min(2 * size, _BLOCK_BYTES)


# -- lines of bytes ------------------------------------------------------------------------------------------------------


class _Text:
    """Lines of the pieces of one split, in lists."""

    def __init__(
        self,
        split: FileSplit,
        encoding: str,
        errors: str,
        first: int,
        long: LongInput,
        files: Files = LOCAL_FILES,
    ) -> None:
        self._split = split
        self._files = files
        self._encoding = encoding
        self._errors = errors
        #: where the line begins whose end was not seen yet
        self._offset = first
        #: that were read
        self._count = 0
        self._long = long
        self._is_beginning = split.start == 0

    def lines(self, pieces: Iterator[bytes]) -> Iterator[list[str]]:
        """See the class."""
        return self._of_bytes(pieces) if newline_is_one_byte(self._encoding) else self._of_characters(pieces)

    def _of_bytes(self, pieces: Iterator[bytes]) -> Iterator[list[str]]:
        # Cut as bytes, since decoding many lines at once is faster than one by one.
        encoding = self._encoding if self._is_beginning else self._later_encoding()
        begun: list[bytes] = []  # of a line whose end has not been seen
        begun_bytes = 0
        for piece in pieces:
            # Of a \r that ends a piece nobody knows yet whether a \n follows.
            cut = piece.rfind(b"\n") + 1 or piece.rfind(b"\r", 0, len(piece) - 1) + 1
            if not cut:
                begun.append(piece)
                begun_bytes += len(piece)
                self._long.grown(self._offset, begun_bytes)
                continue
            block = b"".join((*begun, piece[:cut])) if begun_bytes else piece[:cut]
            begun, begun_bytes = [piece[cut:]], len(piece) - cut
            self._offset += len(block)
            # Nothing is named that is not needed any more: what is freed early is written anew while it is in the CPU's cache, and of a
            # long line each copy counts.
            yield self._lines(block, encoding)
            self._long.over()
            encoding = self._later_encoding()
        rest = b"".join(begun)
        begun.clear()
        if rest:
            yield self._lines(rest, encoding)
            self._long.over()

    def _of_characters(self, pieces: Iterator[bytes]) -> Iterator[list[str]]:
        # No byte alone says that a line ends.
        decoder = codecs.getincrementaldecoder(self._encoding)(self._errors)
        begun: list[str] = []
        begun_bytes = 0
        for piece in pieces:
            text = decoder.decode(piece)
            cut = text.rfind("\n") + 1 or text.rfind("\r", 0, max(0, len(text) - 1)) + 1
            begun_bytes += len(piece)
            if not cut:
                begun.append(text)
                self._long.grown(self._offset, begun_bytes)
                continue
            yield lines_of(self._without_mark("".join((*begun, text[:cut]))))
            self._long.over()
            begun = [text[cut:]]
            self._offset, begun_bytes = self._offset + begun_bytes, 0
        begun.append(decoder.decode(b"", final=True))
        if rest := "".join(begun):
            yield lines_of(self._without_mark(rest))
        self._long.over()

    def _lines(self, block: bytes, encoding: str) -> list[str]:
        lines = lines_of(self._without_mark(self._decoded(block, encoding)))
        self._count += len(lines)
        return lines

    def _without_mark(self, text: str) -> str:
        if not self._is_beginning:
            return text
        self._is_beginning = False
        return without_mark(text, self._encoding)

    def _later_encoding(self) -> str:
        # Only the very start of a file may hold a byte order mark; later blocks are plain UTF-8.
        return "utf-8" if codecs.lookup(self._encoding).name == "utf-8-sig" else self._encoding

    def _decoded(self, block: bytes, encoding: str) -> str:
        try:
            return block.decode(encoding, self._errors)
        except UnicodeDecodeError as error:
            begin = max(block.rfind(b"\n", 0, error.start), block.rfind(b"\r", 0, error.start)) + 1
            line = block[begin : begin + 200].replace(b"\r", b"\n").partition(b"\n")[0]
            ends = block[:begin].count(b"\n") + block[:begin].count(b"\r") - block[:begin].count(b"\r\n")
            number = line_of(self._split, self._count + ends, self._files)
            where = "" if number is None else f", line {number:,}"
            error.add_note(
                f"in {visible(self._split.path)}{where}, which begins with {line[:80]!r}; encoding= and errors= say how to read it"
            )
            raise


def lines_of(text: str) -> list[str]:
    r"""The lines of a text that begins where a line does.

    >>> lines_of("a\nb\r\nc\rd"), lines_of("a\n\n")
    (['a', 'b', 'c', 'd'], ['a', ''])
    """
    if "\r" in text:
        if not any(each in text for each in _ENDS_FOR_PYTHON_ONLY):
            return text.splitlines()  # three times as fast as to replace the ends
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


# -- for messages --------------------------------------------------------------------------------------------------------


def line_of(split: FileSplit, index: int, files: Files = LOCAL_FILES) -> int | None:
    """The number, from 1, of a split's line in its file; None where too much would have to be read for it."""
    if split.start == 0:
        return index + 1
    if split.start > _MOST_COUNTED_BYTES:
        return None
    with files.open(split.path) as file:
        first = _first_line_of(file, split)
        if first is None:
            return None
        file.seek(0)
        return index + 1 + _line_ends(file, first)


def _line_ends(file: IO[bytes], until: int) -> int:
    count, before = 0, b""
    while until > 0 and (piece := file.read(min(_BLOCK_BYTES, until))):
        until -= len(piece)
        count += piece.count(b"\n") + piece.count(b"\r") - piece.count(b"\r\n") - (before == b"\r" and piece[:1] == b"\n")
        before = piece[-1:]
    return count
