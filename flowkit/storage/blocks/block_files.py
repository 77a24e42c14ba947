"""Cached partitions of one application in files of one host: written once, checked, read in batches, shared by all its executors.

Runs in executors; thread-safe. A file's name says RDD and partition and nothing of who wrote it, so a neighbour or a process that
was restarted finds what is there. It is whole or not there: written aside and linked to its name, the first one wins. All of it is looked at
when a process finds it, and each batch once more when it is read from a disk; memory that is shared is no disk, and read where it lies.

::

    magic | for each batch: CRC-32 of what follows, frame (``storage.frames``) | end mark, rows, length of the frames, CRC-32 of these
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, cast

from flowkit.errors import DataDamaged
from flowkit.logs import logger_of
from flowkit.model.ids import PartitionIndex, RddId
from flowkit.model.storage_level import StorageLevel
from flowkit.storage import codecs, private_files
from flowkit.storage.frames import HEADER_BYTES, FrameHeader, frame, read_header
from flowkit.storage.serializers import decode_batch, encode_batch

logger = logger_of(__name__)

_MAGIC: Final = b"FKBLOCK1"
_CHECKSUM: Final = struct.Struct("<I")
_END: Final = struct.Struct("<8sQQI")
_END_MARK: Final = b"FKBLKEND"
_BUFFER_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 4 << 20
#: files whose checksums were looked at already, by this process
_MOST_CHECKED: Final = 10_000


class BlockFile(NamedTuple):
    """A whole and checked file."""

    path: Path
    size_bytes: int
    rows: int
    #: tells it from an earlier file of the same name
    serial: int = 0


class _Refused(Exception):
    """A directory took some batches and not the next."""

    def __init__(self, message: str, written: Iterator[list[Any]], batch: list[list[Any]]) -> None:
        super().__init__(message)
        self.written = written
        self.batch = batch


class Unwritten(NamedTuple):
    """No directory took them."""

    batches: Iterator[list[Any]]


class BlockFiles:
    """Files of cached partitions below some directories, best first; one that is full or broken is passed over.

    Parameters
    ----------
    directories
        Made when they are needed, for their owner only.
    limit_bytes
        All files together at most, as counted by this process; 0 is no limit.
    codec
        Compression.
    mapped
        Whether files are read where they lie, without a copy: for directories in memory. Arrow's batches then point into them.
    """

    def __init__(self, directories: Sequence[Path], *, limit_bytes: int = 0, codec: str = "none", mapped: bool = False) -> None:
        self._directories = tuple(directories)
        self._limit_bytes = limit_bytes
        self._codec = codecs.codec_number(codec)
        self._mapped = mapped
        self._mutex = threading.Lock()
        self._checked: dict[tuple[str, int, int, int], BlockFile] = {}
        #: directories that refused a write since this process began
        self.refused: set[Path] = set()

    def __repr__(self) -> str:
        return f"<BlockFiles {', '.join(map(str, self._directories))}>"

    # -- writing

    def write(self, rdd: RddId, partition: PartitionIndex, batches: Iterable[list[Any]]) -> BlockFile | Unwritten | None:
        """Write a partition, one batch in memory at a time; what is there already under its name stays.

        A directory that refuses in the middle gives back what it took, and the next one goes on. Where none takes it, nothing is left
        behind, and all batches come back. None is returned when the file was dropped before this call ended: the batches are used up then,
        and lie nowhere.
        """
        waiting = iter(batches)
        drafts: list[Path] = []
        try:
            for directory in self._directories:
                if directory in self.refused or (self._limit_bytes and self.used_bytes() >= self._limit_bytes):
                    continue
                try:
                    return self._write_to(directory, rdd, partition, waiting, drafts)
                except _Refused as refused:
                    self.refused.add(directory)
                    logger.warning("cached partitions go elsewhere: %s refuses them: %s", directory, refused)
                    waiting = chain(refused.written, refused.batch, waiting)
        finally:
            for draft in drafts:
                with suppress(OSError):  # where it could not even be made
                    draft.unlink(missing_ok=True)
        return Unwritten(waiting)

    def _write_to(
        self, directory: Path, rdd: RddId, partition: PartitionIndex, batches: Iterator[list[Any]], drafts: list[Path]
    ) -> BlockFile | None:
        draft = directory / f"{_name(rdd, partition)}.{secrets.token_hex(4)}.draft"
        drafts.append(draft)
        rows = length = 0
        batch: list[Any] | None = None

        def refusal(error: OSError) -> _Refused:
            # Frames up to `length` are whole, and a full disk can still be read.
            written = (
                _batches(private_files.open_file(draft, buffering=_BUFFER_BYTES), length, str(draft)) if length else iter(())
            )
            return _Refused(str(error), written, [] if batch is None else [batch])

        try:
            private_files.make_directory(directory)
            file = cast("FileIO", private_files.open_file(draft, "xb", buffering=0))
        except OSError as error:
            raise refusal(error) from error
        with file:
            # What computing the next batch raises is no fault of this directory.
            for batch in batches:
                data = frame(encode_batch(batch), self._codec)
                try:
                    _write_all(file, (b"" if length else _MAGIC) + _CHECKSUM.pack(zlib.crc32(data)) + data)
                except OSError as error:
                    raise refusal(error) from error
                rows += len(batch)
                length += _CHECKSUM.size + len(data)
            batch = None
            try:
                _write_all(file, (b"" if length else _MAGIC) + _end(rows, length))
                with suppress(FileExistsError):
                    os.link(draft, directory / _name(rdd, partition))
            except OSError as error:
                raise refusal(error) from error
        return self.find(rdd, partition)

    # -- reading

    def find(self, rdd: RddId, partition: PartitionIndex) -> BlockFile | None:
        """The partition's file if there is one; a damaged one is removed, with a warning."""
        for directory in self._directories:
            path = directory / _name(rdd, partition)
            try:
                status = path.lstat()
            except OSError:
                continue
            if not private_files.is_own_file(status):
                logger.warning("a cached partition is computed again: %s is no file of flowkit's own", path)
                private_files.remove_file(path)
                continue
            key = (str(path), status.st_ino, status.st_size, status.st_mtime_ns)
            known = self._checked.get(key)
            if known is not None:
                return known
            try:
                found = _check(path, status.st_size)._replace(serial=status.st_mtime_ns)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                logger.warning("a cached partition is computed again: %s is damaged: %s", path, error)
                private_files.remove_file(path)
                continue
            with self._mutex:
                if len(self._checked) >= _MOST_CHECKED:
                    self._checked.clear()
                self._checked[key] = found
            return found
        return None

    def read(self, file: BlockFile) -> Iterator[list[Any]]:
        """Its batches, one in memory at a time. What is dropped meanwhile can be read to its end.

        Raises
        ------
        errors.DataDamaged
            From the iterator, for a file that was sound when it was found; it is removed, so whoever tries again computes it.
        """
        length = file.size_bytes - len(_MAGIC) - _END.size
        if self._mapped:
            return _begun(_mapped_batches(cast("FileIO", private_files.open_file(file.path, buffering=0)), length))
        return self._removed_if_damaged(
            file.path, _batches(private_files.open_file(file.path, buffering=_BUFFER_BYTES), length, str(file.path))
        )

    def _removed_if_damaged(self, path: Path, batches: Iterator[list[Any]]) -> Iterator[list[Any]]:
        try:
            yield from batches
        except DataDamaged:
            path.unlink(missing_ok=True)
            raise

    def read_encoded(self, file: BlockFile, position: int, size_bytes: int) -> tuple[list[bytes], int | None]:
        """Encoded batches from a position on (0 is the first), about so many bytes, and where the next ones are; None after the last.

        Raises ``OSError`` or ``ValueError`` when it is gone or damaged.
        """
        length = file.size_bytes - len(_MAGIC) - _END.size
        batches: list[bytes] = []
        until = position + size_bytes
        with private_files.open_file(file.path, buffering=_BUFFER_BYTES) as opened:
            if os.fstat(opened.fileno()).st_mtime_ns != file.serial:
                raise ValueError("it is another file")
            opened.seek(len(_MAGIC) + position)
            while position < min(length, until):
                header, data = _frame(opened, length - position)
                position += _CHECKSUM.size + HEADER_BYTES + header.packed_bytes
                batches.append(bytes(codecs.decompress(header.codec, data, header.raw_bytes)))
        return batches, position if position < length else None

    # -- dropping

    def drop(self, rdd: RddId, partition: PartitionIndex) -> None:
        """Remove a partition. Idempotent."""
        for directory in self._directories:
            private_files.remove_file(directory / _name(rdd, partition))

    def drop_rdd(self, rdd: RddId) -> None:
        """Remove all partitions of an RDD. Idempotent."""
        for directory in self._directories:
            private_files.remove_files(directory, f"rdd-{int(rdd)}-")

    def used_bytes(self) -> int:
        """What lies in the directories now."""
        total = 0
        for directory in self._directories:
            with suppress(OSError), os.scandir(directory) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_size
        return total


class BlockVolumes:
    """Where files of one application's cached partitions go: on disk, and in memory that processes of the host share."""

    def __init__(self, disk: BlockFiles, make_shared: Callable[[], BlockFiles]) -> None:
        self.disk = disk
        self._make_shared = make_shared
        self._shared: BlockFiles | None = None

    @property
    def shared(self) -> BlockFiles:
        """Made when it is needed first: few applications do."""
        if self._shared is None:
            self._shared = self._make_shared()
        return self._shared

    def wanted(self, level: StorageLevel) -> Iterator[BlockFiles]:
        """Files that a level uses, best first."""
        if level.use_off_heap:
            yield self.shared
        if level.use_disk:
            yield self.disk

    def made(self) -> tuple[BlockFiles, ...]:
        """What there is so far."""
        return (self.disk,) if self._shared is None else (self.disk, self._shared)


def _name(rdd: RddId, partition: PartitionIndex) -> str:
    return f"rdd-{int(rdd)}-{int(partition)}"


def _check(path: Path, size_bytes: int) -> BlockFile:
    """Look at every byte. Raises ``ValueError`` for what does not fit."""
    with private_files.open_file(path, buffering=_BUFFER_BYTES) as file:
        return BlockFile(path, size_bytes, check_batches(file))


def write_batches(file: IO[bytes], batches: Iterable[list[Any]], codec: int = 0) -> int:
    """Write batches as a block file has them; returns the number of rows."""
    file.write(_MAGIC)
    rows = length = 0
    for batch in batches:
        data = frame(encode_batch(batch), codec)
        file.write(_CHECKSUM.pack(zlib.crc32(data)))
        file.write(data)
        rows += len(batch)
        length += _CHECKSUM.size + len(data)
    file.write(_end(rows, length))
    return rows


def read_batches(file: IO[bytes], name: str) -> tuple[int, Iterator[list[Any]]]:
    """How many rows a file says it has, and its batches, each checked; closes it in the end.

    Raises
    ------
    ValueError
        It is none of ours, or not whole.
    errors.DataDamaged
        From the iterator: a batch is not what was written.
    """
    try:
        rows, length = _check_ends(file)
    except BaseException:
        file.close()
        raise
    return rows, _batches(file, length, name)


def check_batches(file: IO[bytes]) -> int:
    """Look at every byte; returns the number of rows. Raises ``ValueError`` for what does not fit."""
    rows, length = _check_ends(file)
    file.seek(len(_MAGIC))
    while length:
        (checksum,) = _CHECKSUM.unpack(_exactly(file, _CHECKSUM.size))
        header = _exactly(file, HEADER_BYTES)
        left = read_header(header).packed_bytes
        length -= _CHECKSUM.size + HEADER_BYTES + left
        if length < 0:
            raise ValueError("a batch is longer than the file")
        found = zlib.crc32(header)
        while left:
            piece = _exactly(file, min(left, _PIECE_BYTES))
            found = zlib.crc32(piece, found)
            left -= len(piece)
        if found != checksum:
            raise ValueError("a checksum does not fit")
    return rows


def _check_ends(file: IO[bytes]) -> tuple[int, int]:
    """Rows, and bytes of frames, by what stands at the ends. Raises ``ValueError``."""
    size_bytes = file.seek(0, os.SEEK_END)
    if size_bytes < len(_MAGIC) + _END.size:
        raise ValueError("it is too short")
    file.seek(0)
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it does not begin as one of ours")
    file.seek(size_bytes - _END.size)
    end = _exactly(file, _END.size)
    _, rows, length, _ = _END.unpack(end)
    if end != _end(rows, length) or len(_MAGIC) + length + _END.size != size_bytes:
        raise ValueError("it has no end")
    return int(rows), int(length)


def _frame(file: IO[bytes], left: int) -> tuple[FrameHeader, bytes]:
    """The next frame of a file, of which so many bytes are left. Raises ``ValueError`` when it is not what was written."""
    start = _exactly(file, _CHECKSUM.size + HEADER_BYTES)
    header = read_header(start[_CHECKSUM.size :])
    if len(start) + header.packed_bytes > left:  # nor is so much read
        raise ValueError("a batch is longer than the file")
    data = _exactly(file, header.packed_bytes)
    if _CHECKSUM.pack(zlib.crc32(data, zlib.crc32(start[_CHECKSUM.size :]))) != start[: _CHECKSUM.size]:
        raise ValueError("a checksum does not fit")
    return header, data


def _batches(file: IO[bytes], length: int, name: str) -> Iterator[list[Any]]:
    """The batches in the first ``length`` bytes of frames; closes the file in the end, or when nobody wants them any more."""
    return _begun(_read_batches(file, length, name))


def _begun(batches: Iterator[list[Any]]) -> Iterator[list[Any]]:
    next(batches)  # a generator that never began would leave the file open
    return batches


def _read_batches(file: IO[bytes], length: int, name: str) -> Iterator[list[Any]]:
    with file:
        yield []
        file.seek(len(_MAGIC))
        while length:
            try:
                header, data = _frame(file, length)
            except (OSError, ValueError) as error:
                raise DataDamaged(f"{name} is damaged: {error}", path=name) from error
            length -= _CHECKSUM.size + HEADER_BYTES + header.packed_bytes
            yield decode_batch(codecs.decompress(header.codec, data, header.raw_bytes))


def _mapped_batches(file: FileIO, length: int) -> Iterator[list[Any]]:
    """As ``_read_batches``, out of the file's own pages.

    Those of a batch are given back when the next one is asked for: whoever still holds it has them again when they are touched. So what is
    read does not add up in the size of this process, by which Dask would pause it.
    """
    with file:
        yield []
        place, end = len(_MAGIC), len(_MAGIC) + length
        mapping: mmap.mmap | None = None
        while place < end:
            header = os.pread(file.fileno(), _CHECKSUM.size + HEADER_BYTES, place)
            codec, raw_bytes, packed_bytes = read_header(header[_CHECKSUM.size :])
            start = place + len(header)
            before = start % mmap.ALLOCATIONGRANULARITY
            if mapping is not None:
                mapping.madvise(mmap.MADV_DONTNEED)
            mapping = mmap.mmap(file.fileno(), before + packed_bytes, access=mmap.ACCESS_READ, offset=start - before)
            yield decode_batch(codecs.decompress(codec, memoryview(mapping)[before:], raw_bytes))
            place = start + packed_bytes


def _write_all(file: FileIO, data: bytes) -> None:
    """All of it: an unbuffered file may take a part."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _end(rows: int, length: int) -> bytes:
    return _END.pack(_END_MARK, rows, length, zlib.crc32(b"%d %d" % (rows, length)))


def _exactly(file: IO[bytes], length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        raise ValueError("it ends too early")
    return data
