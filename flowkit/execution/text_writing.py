r"""Lines into a file in an encoding: one byte order mark a file, line ends of the encoding's own. Runs on slot threads.

What ``text_lines`` reads of such a file are the lines that were written, whatever the encoding.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from functools import cache
from typing import IO

from flowkit.execution.text_lines import MARK
from flowkit.model.shown import short

#: characters that are encoded at once
_CHARACTERS_AT_ONCE = 8_192


class LineWriter:
    r"""Writes lines into one file.

    >>> import io
    >>> file = io.BytesIO()
    >>> LineWriter(file, "utf-16-le").write(["a", b"b\0"]), file.getvalue()
    (2, b'a\x00\n\x00b\x00\n\x00')
    """

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file = file
        self._encoding = encoding
        self._encoder = codecs.getincrementalencoder(encoding)()
        self._is_beginning = True

    def write(self, rows: Iterable[object]) -> int:
        """Write a line a row: ``bytes`` as they are, ``str`` of others; returns how many."""
        count = 0
        lines: list[str] = []
        characters = 0
        for row in rows:
            count += 1
            if isinstance(row, bytes):
                self._write(lines)
                lines, characters = [], 0
                self._write_bytes(row)
                continue
            line = row if isinstance(row, str) else str(row)
            lines.append(line)
            characters += len(line)
            if characters >= _CHARACTERS_AT_ONCE:
                self._write(lines)
                lines, characters = [], 0
        self._write(lines)
        self._file.write(self._encoder.encode("", final=True))
        return count

    def _write_bytes(self, line: bytes) -> None:
        self._is_beginning = False
        # A mark where the encoding has one, before all else.
        self._file.write(self._encoder.encode(""))
        self._file.write(line)
        self._file.write(self._encoder.encode("\n"))

    def _write(self, lines: list[str]) -> None:
        if not lines:
            return
        if self._is_beginning:
            self._is_beginning = False
            if lines[0].startswith(MARK) and not writes_mark(self._encoding):
                # Of a file's first character who reads it would think that it is the mark.
                self._file.write(self._encoder.encode(MARK))
        lines.append("")
        try:
            self._file.write(self._encoder.encode("\n".join(lines)))
        except UnicodeEncodeError as error:
            error.add_note(
                f"{short(self._culprit(lines))} cannot be written in {self._encoding!r}; see save_as_text(..., encoding=)"
            )
            raise

    def _culprit(self, lines: list[str]) -> str:
        for line in lines:
            try:
                line.encode(self._encoding)
            except UnicodeEncodeError:
                return line
        return "".join(lines)


@cache
def writes_mark(encoding: str) -> bool:
    """Whether text in an encoding begins with a byte order mark.

    >>> writes_mark("utf-16"), writes_mark("utf-8-sig"), writes_mark("utf-16-le")
    (True, True, False)
    """
    return "".encode(encoding) != b""
