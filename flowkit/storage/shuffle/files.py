"""One application's map outputs on one host: named by shuffle, map partition and attempt; committed by rename; read in pieces.

Runs in executors, on slot threads and on those that serve other hosts; thread-safe. Several processes share the directory:
a committed file never changes, so nothing else needs agreeing on.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import cast

from flowkit.errors import DiskQuotaExceeded
from flowkit.model.ids import AttemptId, PartitionIndex, ShuffleId
from flowkit.storage import private_files
from flowkit.storage.disk_room import disk_full_named
from flowkit.storage.shuffle.index import FOOTER_BYTES, BadIndex, BlockEntry, Index, decode_footer, decode_index

#: one read at most; bounds what a single system call keeps busy, and costs nothing measurable above 1 MB
READ_PIECE_BYTES = 4 << 20
#: files kept open with their index: a reducer walks all map outputs once, so more than a few only help their neighbours
_OPEN_FILES = 128


_Name = tuple[ShuffleId, PartitionIndex, AttemptId]


class BlockError(Exception):
    """A block of this host could not be read. ``str`` of it begins with the reason, as it goes over the wire."""

    reason = "missing"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class BlockMissing(BlockError):
    """The map output is not on this host."""


class BlockCorrupt(BlockError):
    """The map output is here, but its index or the block's checksum does not fit."""

    reason = "corrupt"


@dataclass(slots=True)
class _OpenFile:
    descriptor: int
    index: Index
    users: int = 0
    evicted: bool = False


@dataclass(slots=True)
class _Quota:
    limit_bytes: int
    measured_bytes: int = 0
    #: written by this process since the directory was measured
    since_bytes: int = 0
    mutex: threading.Lock = field(default_factory=threading.Lock)


class ShuffleFiles:
    """Map outputs under ``directory``.

    Parameters
    ----------
    directory
        The application's directory on this host; made on first use.
    quota_bytes
        All map outputs there at most, those of other processes included; 0 is no limit. Others' files are counted again
        whenever an eighth of the free quota was used up, so a host's processes may together overshoot it by about that much.
    """

    def __init__(self, directory: Path, *, quota_bytes: int = 0) -> None:
        self.directory = directory
        self._quota = _Quota(quota_bytes)
        self._mutex = threading.Lock()
        #: by names, not paths: a path takes longer to make than a small block to read
        self._open: OrderedDict[_Name, _OpenFile] = OrderedDict()

    def __repr__(self) -> str:
        return f"<ShuffleFiles {self.directory} open={len(self._open)}>"

    # -- names

    def path(self, shuffle: ShuffleId, map_partition: PartitionIndex, attempt: AttemptId) -> Path:
        """Where a committed output lies, whether it is there or not."""
        return self._shuffle_directory(shuffle) / f"map-{int(map_partition)}-{int(attempt)}.data"

    def temporary(self, shuffle: ShuffleId, map_partition: PartitionIndex, attempt: AttemptId) -> Path:
        """A fresh path to write an output to, on the same file system as its final place."""
        directory = self._shuffle_directory(shuffle)
        private_files.make_directory(directory)
        return directory / f"map-{int(map_partition)}-{int(attempt)}.{secrets.token_hex(4)}.temporary"

    def _shuffle_directory(self, shuffle: ShuffleId) -> Path:
        return self.directory / f"shuffle-{int(shuffle)}"

    # -- writing

    def commit(self, temporary: Path, shuffle: ShuffleId, map_partition: PartitionIndex, attempt: AttemptId) -> Path:
        """Give a written file its name; whole or not at all.

        Raises
        ------
        errors.DiskQuotaExceeded
            The temporary file is removed then.
        """
        final = self.path(shuffle, map_partition, attempt)
        with removed_on_failure(temporary):
            self._charge(temporary.stat().st_size)
            temporary.rename(final)
        return final

    def _charge(self, size_bytes: int) -> None:
        quota = self._quota
        if not quota.limit_bytes:
            return
        with quota.mutex:
            free = quota.limit_bytes - quota.measured_bytes
            if quota.since_bytes + size_bytes > free / 8:
                quota.measured_bytes, quota.since_bytes = self._committed_bytes(), 0
            actual = quota.measured_bytes + quota.since_bytes + size_bytes
            if actual > quota.limit_bytes:
                raise DiskQuotaExceeded(
                    f"max_disk_bytes = {quota.limit_bytes}: this application's shuffle files on this host would take {actual} bytes; "
                    "raise the setting, or let go of RDDs whose shuffles are no longer needed",
                    setting="max_disk_bytes",
                    limit=quota.limit_bytes,
                    actual=actual,
                )
            quota.since_bytes += size_bytes

    def drop_shuffle(self, shuffle: ShuffleId) -> None:
        """Remove all outputs of a shuffle. Idempotent; a read under way ends well, since its file is open."""
        directory = self._shuffle_directory(shuffle)
        with self._mutex:
            for name in [each for each in self._open if each[0] == shuffle]:
                self._evict(name)
        shutil.rmtree(directory, ignore_errors=True)
        with self._quota.mutex:
            self._quota.measured_bytes, self._quota.since_bytes = 0, self._quota.limit_bytes  # measure before the next commit

    @property
    def used_bytes(self) -> int:
        """Bytes of all map outputs in the directory, unfinished ones too. Cost: one walk over it."""
        return sum(size for _, size in self._walk())

    def _committed_bytes(self) -> int:
        return sum(size for name, size in self._walk() if name.endswith(".data"))

    def _walk(self) -> Iterator[tuple[str, int]]:
        try:
            shuffles = [entry.path for entry in os.scandir(self.directory) if entry.name.startswith("shuffle-")]
        except FileNotFoundError:
            return
        for shuffle in shuffles:
            try:
                entries = list(os.scandir(shuffle))
            except FileNotFoundError:
                continue
            for entry in entries:
                try:
                    yield entry.name, entry.stat(follow_symlinks=False).st_size
                except FileNotFoundError:
                    continue  # committed or dropped while we looked

    # -- reading

    def read_block(self, shuffle: ShuffleId, map_partition: PartitionIndex, attempt: AttemptId, reducer: int) -> bytes:
        """One reducer's block as it lies in the file, its checksum checked.

        Raises
        ------
        BlockMissing, BlockCorrupt
        """
        with self._reading(shuffle, map_partition, attempt) as file:
            entry = self._entry(file, reducer)
            data = _read_exactly(file.descriptor, entry.offset, entry.length)
            if zlib.crc32(data) != entry.checksum:
                raise BlockCorrupt(f"the checksum of {self._describe(shuffle, map_partition, attempt, reducer)} does not fit")
            return data

    def read_blocks(self, shuffle: ShuffleId, map_partition: PartitionIndex, attempt: AttemptId, reducers: range) -> list[bytes]:
        """The blocks of reducers that follow one another, in one read. Raises as ``read_block``; one that is damaged spoils all."""
        with self._reading(shuffle, map_partition, attempt) as file:
            entries = [self._entry(file, reducer) for reducer in reducers]
            begin = entries[0].offset
            data = _read_exactly(file.descriptor, begin, entries[-1].offset + entries[-1].length - begin)
            blocks = [data[each.offset - begin : each.offset - begin + each.length] for each in entries]
            for reducer, entry, block in zip(reducers, entries, blocks, strict=True):
                if zlib.crc32(block) != entry.checksum:
                    raise BlockCorrupt(f"the checksum of {self._describe(shuffle, map_partition, attempt, reducer)} does not fit")
            return blocks

    def block_bytes(self, shuffle: ShuffleId, map_partition: PartitionIndex, attempt: AttemptId, reducer: int) -> int:
        """The exact length of a block. Raises as ``read_block``."""
        with self._reading(shuffle, map_partition, attempt) as file:
            return self._entry(file, reducer).length

    def stream_block(
        self,
        shuffle: ShuffleId,
        map_partition: PartitionIndex,
        attempt: AttemptId,
        reducer: int,
        *,
        piece_bytes: int = READ_PIECE_BYTES,
    ) -> Iterator[bytes]:
        """A block in pieces of at most ``piece_bytes``, for those too large to hold; read twice, the first time for its checksum.

        Nothing is yielded before the whole block was found sound. Raises as ``read_block``.
        """
        with self._reading(shuffle, map_partition, attempt) as file:
            entry = self._entry(file, reducer)
            pieces = [
                (entry.offset + start, min(piece_bytes, entry.length - start)) for start in range(0, entry.length, piece_bytes)
            ]
            checksum = 0
            checksums = []
            for offset, length in pieces:
                data = _read_exactly(file.descriptor, offset, length)
                checksum = zlib.crc32(data, checksum)
                checksums.append(zlib.crc32(data))
            if checksum != entry.checksum:
                raise BlockCorrupt(f"the checksum of {self._describe(shuffle, map_partition, attempt, reducer)} does not fit")
            for (offset, length), expected in zip(pieces, checksums, strict=True):
                data = _read_exactly(file.descriptor, offset, length)
                if zlib.crc32(data) != expected:
                    raise BlockCorrupt(
                        f"{self._describe(shuffle, map_partition, attempt, reducer)} is not what it was when it was checked"
                    )
                yield data

    def absent(
        self, shuffle: ShuffleId, outputs: Iterable[tuple[PartitionIndex, AttemptId]]
    ) -> list[tuple[PartitionIndex, AttemptId]]:
        """Those of some outputs that have no file here. Cost: one listing of the shuffle's directory; empty where that cannot be listed."""
        try:
            with os.scandir(self._shuffle_directory(shuffle)) as entries:
                there = {entry.name for entry in entries}
        except FileNotFoundError:
            there = set()
        except OSError:
            return []
        return [each for each in outputs if self.path(shuffle, *each).name not in there]

    # -- whole outputs, for another host

    def read_output(
        self, shuffle: ShuffleId, map_partition: PartitionIndex, attempt: AttemptId, offset: int, length: int
    ) -> tuple[int, bytes]:
        """How long an output's file is, and up to ``length`` bytes of it. Raises ``BlockMissing`` or ``BlockCorrupt``."""
        with self._reading(shuffle, map_partition, attempt) as file:
            size = os.fstat(file.descriptor).st_size
            return size, _read_exactly(file.descriptor, offset, max(0, min(length, size - offset)))

    def take_output(self, shuffle: ShuffleId, map_partition: PartitionIndex, attempt: AttemptId, pieces: Iterable[bytes]) -> None:
        """Make another host's output this host's too, from all of its bytes. One that is here already stays.

        Raises
        ------
        BlockCorrupt
            They are no map output.
        errors.DiskFull, errors.DiskQuotaExceeded
        """
        if self.path(shuffle, map_partition, attempt).exists():
            return
        temporary = self.temporary(shuffle, map_partition, attempt)
        with removed_on_failure(temporary):
            with cast("FileIO", private_files.open_file(temporary, "xb", buffering=0)) as file:
                for piece in pieces:
                    view = memoryview(piece)
                    while view:
                        view = view[file.write(view) :]
            os.close(_opened(temporary).descriptor)  # raises if it is not whole
        self.commit(temporary, shuffle, map_partition, attempt)

    def close(self) -> None:
        """Close the files kept open. Reading again opens them again."""
        with self._mutex:
            for name in list(self._open):
                self._evict(name)

    def _describe(self, shuffle: ShuffleId, map_partition: PartitionIndex, attempt: AttemptId, reducer: int) -> str:
        return f"block {reducer} of map output {map_partition} (attempt {attempt}) of shuffle {shuffle}"

    def _entry(self, file: _OpenFile, reducer: int) -> BlockEntry:
        try:
            return file.index.entry(reducer)
        except BadIndex as exc:
            raise BlockCorrupt(str(exc)) from exc

    @contextmanager
    def _reading(self, shuffle: ShuffleId, map_partition: PartitionIndex, attempt: AttemptId) -> Iterator[_OpenFile]:
        name = shuffle, map_partition, attempt
        with self._mutex:
            file = self._open.get(name)
            if file is not None:
                file.users += 1
                self._open.move_to_end(name)
        if file is None:
            file = self._open_file(name)
        try:
            yield file
        except BlockError:
            # What is wrong on disk may be put right there (a retry, a test): look anew next time.
            with self._mutex:
                if self._open.get(name) is file:
                    self._evict(name)
            raise
        finally:
            with self._mutex:
                file.users -= 1
                if file.evicted and not file.users:
                    os.close(file.descriptor)

    def _open_file(self, name: _Name) -> _OpenFile:
        file = _opened(self.path(*name))
        with self._mutex:
            other = self._open.get(name)
            if other is not None:  # another thread was faster; this one is used once and closed
                file.evicted = True
                return file
            self._open[name] = file
            while len(self._open) > _OPEN_FILES:
                self._evict(next(iter(self._open)))
        return file

    def _evict(self, name: _Name) -> None:
        file = self._open.pop(name)
        file.evicted = True
        if not file.users:
            os.close(file.descriptor)


def _opened(path: Path) -> _OpenFile:
    try:
        descriptor = private_files.open_descriptor(path, os.O_RDONLY)
    except FileNotFoundError as exc:
        why = "" if exc.strerror == os.strerror(errno.ENOENT) else f": {exc.strerror}"
        raise BlockMissing(f"no file {path.name} in {path.parent}{why}") from None
    except OSError as exc:
        raise BlockMissing(f"{path.name} cannot be opened: {exc}") from exc
    try:
        size = os.fstat(descriptor).st_size
        start = max(0, size - FOOTER_BYTES)
        footer = decode_footer(_read_exactly(descriptor, start, size - start), size)
        index = decode_index(footer, _read_exactly(descriptor, footer.index_offset, footer.index_bytes))
    except BadIndex as exc:
        os.close(descriptor)
        raise BlockCorrupt(f"{path.name}: {exc}") from exc
    except BaseException:
        os.close(descriptor)
        raise
    return _OpenFile(descriptor, index, users=1)


def _read_exactly(descriptor: int, offset: int, length: int) -> bytes:
    if length <= READ_PIECE_BYTES:
        data = _pread(descriptor, length, offset)
        if len(data) == length:
            return data
        raise BlockCorrupt(f"the file ends after {len(data)} of {length} bytes at {offset}")
    pieces = []
    end = offset + length
    while offset < end:
        piece = _pread(descriptor, min(READ_PIECE_BYTES, end - offset), offset)
        if not piece:
            raise BlockCorrupt(f"the file ends {end - offset} bytes early")
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)


def _pread(descriptor: int, length: int, offset: int) -> bytes:
    try:
        return os.pread(descriptor, length, offset)
    except OSError as exc:
        raise BlockCorrupt(f"reading failed: {exc}") from exc


@contextmanager
def removed_on_failure(path: Path) -> Iterator[None]:
    """Remove a half-made file when the block under it fails; a full disk becomes ``errors.DiskFull``."""
    try:
        with disk_full_named(path):
            yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
