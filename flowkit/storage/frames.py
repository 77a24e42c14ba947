"""Encoded batches one after another, each behind a header: what shuffle blocks and spill runs consist of.

Pure; runs on slot threads. Frames know nothing of their place, so blocks are joined and runs merged by copying bytes.

::

    codec number 1 byte | length before compression 8 bytes | length of what follows 8 bytes | encoded batch, compressed
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from flowkit.storage import codecs
from flowkit.storage.serializers import decode_batch

_HEADER = struct.Struct("<BQQ")
HEADER_BYTES = _HEADER.size


def frame(encoded: bytes, codec: int = 0) -> bytes:
    """Put an encoded batch into a frame, compressed by the codec of that number.

    >>> from flowkit.storage.serializers import encode_batch
    >>> list(batches_in(frame(encode_batch([1])) + frame(encode_batch([2, 3]))))
    [[1], [2, 3]]
    """
    packed = codecs.compress(codec, encoded) if codec else encoded
    return _HEADER.pack(codec, len(encoded), len(packed)) + packed


class FrameHeader(NamedTuple):
    """What stands before a batch."""

    codec: int
    raw_bytes: int
    packed_bytes: int


def read_header(data: bytes | bytearray) -> FrameHeader:
    """Take a header of ``HEADER_BYTES`` apart."""
    return FrameHeader(*_HEADER.unpack(data))


def frames_in(data: bytes | memoryview) -> Iterator[bytes | memoryview]:
    """The encoded batches of all frames of one piece of memory. Raises ``ValueError`` when it ends inside a frame."""
    view = memoryview(data)
    place, end = 0, len(view)
    while place < end:
        if end - place < HEADER_BYTES:
            raise ValueError("the data ends inside a frame's header")
        codec, raw, packed = _HEADER.unpack_from(view, place)
        place += HEADER_BYTES
        if end - place < packed:
            raise ValueError("the data ends inside a frame")
        payload = view[place : place + packed]
        place += packed
        yield codecs.decompress(codec, payload, raw) if codec else payload


def frames_of_pieces(pieces: Iterable[bytes]) -> Iterator[bytes | memoryview]:
    """The encoded batches of frames that arrive in pieces cut anywhere; holds one frame and one piece. Raises as ``frames_in``."""
    rest = bytearray()
    for piece in pieces:
        rest += piece
        whole = _whole_frames(rest)
        if whole:
            # Copied out: what is decoded may keep pointing into it (Arrow does), and a pinned bytearray cannot shrink.
            yield from frames_in(bytes(rest[:whole]))
            del rest[:whole]
    if rest:
        raise ValueError("the data ends inside a frame")


def batches_in(data: bytes | memoryview) -> Iterator[list[Any]]:
    """Decode all frames of one piece of memory. Raises as ``frames_in``."""
    return map(decode_batch, frames_in(data))


def _whole_frames(data: bytearray) -> int:
    place = 0
    while len(data) - place >= HEADER_BYTES:
        following = place + HEADER_BYTES + read_header(data[place : place + HEADER_BYTES]).packed_bytes
        if following > len(data):
            break
        place = following
    return place
