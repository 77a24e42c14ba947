"""The layout of a map output: blocks one after another, their index behind them, a footer of fixed size at the very end.

Pure: bytes in, bytes out. All numbers are little-endian and unsigned.

::

    block 0 | block 1 | ... | block R-1        nothing between them; an empty block has no bytes
    offsets   R x 8 bytes                      from the start of the file
    lengths   R x 8 bytes
    checksums R x 4 bytes                      CRC-32 (zlib) of each block
    footer    24 bytes:
        checksum of the index   4 bytes        CRC-32 of the three columns above
        R                       4 bytes
        where the index begins  8 bytes
        version                 4 bytes        1
        magic                   4 bytes        b"FKSO"

The index stands at the end since lengths are known only when all is written, and one file instead of two is committed by one
rename. A file cut short has no magic at its end; a block torn inside fails its checksum.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

MAGIC = b"FKSO"
VERSION = 1
_FOOTER = struct.Struct("<IIQI4s")
FOOTER_BYTES = _FOOTER.size
_ENTRY_BYTES = 8 + 8 + 4


class BadIndex(Exception):
    """The end of a file is not a map output's; says why."""


@dataclass(frozen=True, slots=True)
class Footer:
    """What the last bytes of a map output say."""

    index_checksum: int
    count: int
    index_offset: int

    @property
    def index_bytes(self) -> int:
        """Length of the index, without the footer."""
        return self.count * _ENTRY_BYTES


@dataclass(frozen=True, slots=True)
class BlockEntry:
    """Where one reducer's block lies."""

    offset: int
    length: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Index:
    """All entries of a map output, kept as the bytes they were read from."""

    count: int
    data: bytes

    def entry(self, reducer: int) -> BlockEntry:
        """The block of one reducer. Raises ``BadIndex`` when there is no such reducer."""
        if not 0 <= reducer < self.count:
            raise BadIndex(f"no reducer {reducer} among {self.count}")
        (offset,) = struct.unpack_from("<Q", self.data, 8 * reducer)
        (length,) = struct.unpack_from("<Q", self.data, 8 * (self.count + reducer))
        (checksum,) = struct.unpack_from("<I", self.data, 16 * self.count + 4 * reducer)
        return BlockEntry(offset, length, checksum)


def encode_index(lengths: Sequence[int], checksums: Sequence[int]) -> bytes:
    """Index and footer for blocks that begin at offset 0.

    >>> footer, index = decode_end(encode_index([3, 0], [7, 0]), 3 + 40 + FOOTER_BYTES)
    >>> index.entry(0), footer.index_offset
    (BlockEntry(offset=0, length=3, checksum=7), 3)
    """
    count = len(lengths)
    offsets = []
    end = 0
    for length in lengths:
        offsets.append(end)
        end += length
    columns = struct.pack(f"<{count}Q{count}Q{count}I", *offsets, *lengths, *checksums)
    return columns + _FOOTER.pack(zlib.crc32(columns), count, end, VERSION, MAGIC)


def decode_footer(data: bytes, file_bytes: int) -> Footer:
    """Read the last ``FOOTER_BYTES`` of a file of ``file_bytes``. Raises ``BadIndex``."""
    if len(data) != FOOTER_BYTES:
        raise BadIndex(f"{file_bytes} bytes are too few for a map output")
    index_checksum, count, index_offset, version, magic = _FOOTER.unpack(data)
    if magic != MAGIC:
        raise BadIndex("no magic number at its end: cut short or not a map output")
    if version != VERSION:
        raise BadIndex(f"layout version {version}, this flowkit reads {VERSION}")
    footer = Footer(index_checksum, count, index_offset)
    if index_offset + footer.index_bytes + FOOTER_BYTES != file_bytes:
        raise BadIndex(f"its index of {count} reducers at {index_offset} does not fit its {file_bytes} bytes")
    return footer


def decode_index(footer: Footer, data: bytes) -> Index:
    """Check the bytes before the footer. Raises ``BadIndex``."""
    if len(data) != footer.index_bytes or zlib.crc32(data) != footer.index_checksum:
        raise BadIndex("the checksum of its index does not fit")
    return Index(footer.count, data)


def decode_end(data: bytes, file_bytes: int) -> tuple[Footer, Index]:
    """Both at once, from the index and footer of a file of ``file_bytes``."""
    footer = decode_footer(data[-FOOTER_BYTES:], file_bytes)
    return footer, decode_index(footer, data[:-FOOTER_BYTES])
