"""Content of a host's files, compared with its digest or checksum when it is read. Runs on slot threads.

What does not fit is as good as gone: its file is removed, so it is fetched from another host, or put again by the driver.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from flowkit.errors import FetchFailed
from flowkit.model.ids import ContentId
from flowkit.model.task import ContentMissing
from flowkit.storage import private_files
from flowkit.storage.content import content_id

#: once what was here, and once what came in its place
_TRIES = 2


def read_content(path_of: Callable[[ContentId], Path], content: ContentId) -> bytes:
    """All of a content. Cost: its digest, about a second for 700 MB, without the interpreter's lock.

    Raises
    ------
    errors.FetchFailed
        Its bytes are nowhere to be had; not counted as a failure of the task.
    """
    return _read(path_of, content, lambda file: file.read(), lambda data: content_id(data) == content)


def read_span(path_of: Callable[[ContentId], Path], content: ContentId, offset: int, length: int, checksum: int) -> bytes:
    """A part of a content whose CRC-32 is known. Raises as ``read_content``."""

    def read(file: IO[bytes]) -> bytes:
        file.seek(offset)
        return file.read(length)

    return _read(path_of, content, read, lambda data: len(data) == length and zlib.crc32(data) == checksum)


def _read(
    path_of: Callable[[ContentId], Path], content: ContentId, read: Callable[[IO[bytes]], bytes], fits: Callable[[bytes], bool]
) -> bytes:
    story = ""
    for _ in range(_TRIES):
        path = path_of(content)
        try:
            with private_files.open_file(path) as file:
                data = read(file)
                if fits(data):
                    return data
                _remove(path, file)
                story = f"{path} is damaged; does its disk err?"
        except FileNotFoundError:
            story = f"{path} was dropped"
    raise FetchFailed(f"content {content} could not be had: {story}", failure=ContentMissing((content,)))


def _remove(path: Path, file: IO[bytes]) -> None:
    """Unless another one has its name by now."""
    with suppress(FileNotFoundError):
        if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            path.unlink()
