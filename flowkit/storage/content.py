"""Immutable bytes by digest: large closures and collections, one file each in the application's content directory.

Runs in executors and drivers on the host; thread-safe and process-safe, since a file appears whole or not at all.
"""

from __future__ import annotations

import errno
import re
import secrets
from hashlib import blake2b
from pathlib import Path

from flowkit.errors import DiskFull, InvalidArgument
from flowkit.model.ids import ContentId

_ID = re.compile(r"[0-9a-f]{64}\Z")


def content_id(data: bytes) -> ContentId:
    """The name of some bytes: BLAKE2b, 256 bits, in hex.

    >>> content_id(b"")[:8]
    '0e5751c0'
    """
    return ContentId(blake2b(data, digest_size=32).hexdigest())


class ContentStore:
    """The content of one application on one host."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __repr__(self) -> str:
        return f"<ContentStore {self.directory}>"

    def put(self, data: bytes) -> ContentId:
        """Keep the bytes and return their id; putting them again is harmless.

        Raises
        ------
        errors.DiskFull
            Nothing is left behind then.
        """
        name = content_id(data)
        final = self.directory / name
        if final.exists():
            return name
        draft = self.directory / f".{name}.{secrets.token_hex(4)}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft.write_bytes(data)
            draft.rename(final)
        except OSError as exc:
            draft.unlink(missing_ok=True)
            if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise DiskFull(
                    f"no space left for {len(data)} bytes of content in {self.directory}", path=str(self.directory)
                ) from exc
            raise
        return name

    def drop(self, content: ContentId) -> None:
        """Delete it here; harmless when it is not there. Whoever reads it right now reads on."""
        path = self.path(content)
        if path is not None:
            path.unlink(missing_ok=True)

    def path(self, content: ContentId) -> Path | None:
        """The file that holds it, or None when it is not on this host."""
        if not _ID.match(content):
            raise InvalidArgument(
                f"content id {content!r}: must be 64 hex digits", name="content", value=content, allowed="64 hex digits"
            )
        path = self.directory / content
        return path if path.exists() else None

    def read(self, content: ContentId, offset: int = 0, length: int | None = None) -> bytes:
        """Up to ``length`` bytes from ``offset``, all of it when None. Raises ``KeyError`` when it is not on this host."""
        path = self.path(content)
        if path is None:
            raise KeyError(content)
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(-1 if length is None else length)

    def remove(self, content: ContentId) -> None:
        """Drop it here. Idempotent."""
        path = self.path(content)
        if path is not None:
            path.unlink(missing_ok=True)
