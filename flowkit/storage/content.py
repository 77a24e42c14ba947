"""Immutable bytes by digest: large closures and collections, one file each in the application's content directory.

Runs in executors and drivers on the host; thread-safe and process-safe, since a file appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from hashlib import blake2b
from io import FileIO
from pathlib import Path
from typing import NamedTuple, cast

from flowkit.errors import DiskFull, InvalidArgument
from flowkit.model.ids import ContentId
from flowkit.storage import private_files

_ID = re.compile(r"[0-9a-f]{64}\Z")
_DIGEST_BYTES = 32
PIECE_BYTES = 4 << 20
"""Content travels between hosts in pieces, each with a digest of its own."""


class Manifest(NamedTuple):
    """What content is made of; its id is the digest of ``digests``, so a manifest that was sent can be checked."""

    size_bytes: int
    #: of each piece, 32 bytes, one after the other
    digests: bytes

    @property
    def piece_count(self) -> int:
        """How many pieces of ``PIECE_BYTES`` there are, the last one shorter."""
        return len(self.digests) // _DIGEST_BYTES

    def digest(self, piece: int) -> bytes:
        """What a piece must have."""
        return self.digests[piece * _DIGEST_BYTES : (piece + 1) * _DIGEST_BYTES]

    def is_of(self, content: ContentId) -> bool:
        """Whether it describes this content."""
        return _digest(self.digests).hex() == content and self.piece_count == -(-self.size_bytes // PIECE_BYTES)


def manifest_of(data: bytes) -> Manifest:
    """The manifest of some bytes."""
    view = memoryview(data)
    return Manifest(len(data), b"".join(_digest(view[start : start + PIECE_BYTES]) for start in range(0, len(data), PIECE_BYTES)))


def content_id(data: bytes) -> ContentId:
    """The name of some bytes: the digest (BLAKE2b, 256 bits, in hex) of the digests of its pieces.

    >>> content_id(b"")[:8]
    '0e5751c0'
    """
    return ContentId(_digest(manifest_of(data).digests).hex())


def is_piece(data: bytes, digest: bytes) -> bool:
    """Whether some bytes are the piece that has this digest."""
    return _digest(data) == digest


def _digest(data: bytes | memoryview) -> bytes:
    return blake2b(data, digest_size=_DIGEST_BYTES).digest()


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
        if private_files.has_own_file(final):
            return name
        draft = self.directory / f".{name}.{secrets.token_hex(4)}"
        try:
            private_files.make_directory(self.directory)
            private_files.write_file(draft, data)
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
        if not private_files.has_own_file(self._draft(content)):  # whoever drafts it needs the lock
            self._lock(content).unlink(missing_ok=True)

    def path(self, content: ContentId) -> Path | None:
        """The file that holds it, or None when it is not on this host."""
        if not _ID.match(content):
            raise InvalidArgument(
                f"content id {content!r}: must be 64 hex digits", name="content", value=content, allowed="64 hex digits"
            )
        path = self.directory / content
        return path if private_files.has_own_file(path) else None

    def manifest(self, content: ContentId) -> Manifest:
        """What content is made of. Raises ``KeyError`` when it is not whole on this host."""
        path = self.path(content)
        if path is None:
            raise KeyError(content)
        digests = []
        with _there(content), private_files.open_file(path) as file:
            while piece := file.read(PIECE_BYTES):
                digests.append(_digest(piece))
            return Manifest(file.tell(), b"".join(digests))

    def piece(self, content: ContentId, piece: int, digest: bytes) -> bytes:
        """One piece, also of content that is on its way here. Raises ``KeyError`` when it is not on this host, or damaged."""
        path = self.path(content) or self._draft(content)
        with _there(content), private_files.open_file(path) as file:
            file.seek(piece * PIECE_BYTES)
            data = file.read(PIECE_BYTES)
        if not is_piece(data, digest):
            raise KeyError(content)
        return data

    def upload(self, content: ContentId) -> Upload:
        """Take content in from its first byte to its last; for whoever sends it, others take no notice."""
        private_files.make_directory(self.directory)
        return Upload(self, content, self.directory / f".{content}.{secrets.token_hex(4)}.upload")

    @contextlib.contextmanager
    def drafting(self, content: ContentId) -> Iterator[Draft | None]:
        """Take content in, piece by piece, while no other process of this host does; None when another just did.

        Raises
        ------
        errors.DiskFull
            Also from the draft's ``write``. A draft that is not finished is deleted.
        """
        private_files.make_directory(self.directory)
        lock = private_files.open_descriptor(self._lock(content), os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            final = self.path(content)
            if final is not None:
                yield None
                return
            draft = Draft(self._draft(content), self.directory / content)
            try:
                yield draft
            finally:
                draft.close()
        finally:
            os.close(lock)

    def _lock(self, content: ContentId) -> Path:
        return self.directory / f".{content}.lock"

    def _draft(self, content: ContentId) -> Path:
        return self.directory / f".{content}.part"


class Upload:
    """Content that comes piece after piece, in a file of its own. One thread at a time."""

    def __init__(self, store: ContentStore, content: ContentId, path: Path) -> None:
        self._store = store
        self._content = content
        self._path = path
        #: what has come so far
        self.size_bytes = 0

    def append(self, data: bytes) -> None:
        """The next bytes.

        Raises
        ------
        errors.DiskFull
            What was there is deleted.
        """
        try:
            # Opened each time: an upload that nobody goes on with holds no descriptor.
            with cast("FileIO", private_files.open_file(self._path, "ab", buffering=0)) as file:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
        except OSError as exc:
            self.close()
            if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise DiskFull(f"no space left for content in {self._path.parent}", path=str(self._path.parent)) from exc
            raise
        self.size_bytes += len(data)

    def finish(self, data: bytes) -> bool:
        """The last bytes; whether all of them together are the content. Else they are deleted. Cost: reads the file once."""
        try:
            self.append(data)
            digests = []
            with private_files.open_file(self._path) as file:
                while piece := file.read(PIECE_BYTES):
                    digests.append(_digest(piece))
            if not Manifest(self.size_bytes, b"".join(digests)).is_of(self._content):
                return False
            self._path.rename(self._store.directory / self._content)
        finally:
            self.close()
        return True

    def close(self) -> None:
        """Delete what is not finished. Idempotent."""
        self._path.unlink(missing_ok=True)


class Draft:
    """Content on its way to this host. One thread at a time; others may read pieces meanwhile."""

    def __init__(self, path: Path, final: Path) -> None:
        self._path = path
        self._final = final
        path.unlink(missing_ok=True)  # of a process that ended in the middle
        self._file = cast("FileIO", private_files.open_file(path, "x+b", buffering=0))

    def write(self, piece: int, data: bytes) -> None:
        """One piece, checked already."""
        try:
            self._file.seek(piece * PIECE_BYTES)
            rest = memoryview(data)
            while rest:  # a disk that is nearly full takes a part, and refuses only what comes after
                rest = rest[self._file.write(rest) :]
        except OSError as exc:
            if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise DiskFull(f"no space left for content in {self._path.parent}", path=str(self._path.parent)) from exc
            raise

    def finish(self) -> None:
        """All pieces are there."""
        self._path.rename(self._final)

    def close(self) -> None:
        """Let go of the file; what is not finished goes."""
        self._file.close()
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def _there(content: ContentId) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise KeyError(content) from None
