"""Compression of shuffle blocks and spill runs, by name: ``none``, ``lz4`` or ``zstd``, as pyarrow brings them.

Runs in executors; thread-safe.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from flowkit.errors import InvalidArgument

#: what stands in a frame's header; never renumbered
CODEC_NUMBERS = {"none": 0, "lz4": 1, "zstd": 2}
_NAMES = {number: name for name, number in CODEC_NUMBERS.items()}


@cache
def _codec(name: str) -> Any:
    import pyarrow as pa

    return pa.Codec(name)


def codec_number(name: str) -> int:
    """The number of a codec.

    Raises
    ------
    errors.InvalidArgument
        Naming the known ones.
    """
    try:
        return CODEC_NUMBERS[name]
    except KeyError:
        known = ", ".join(CODEC_NUMBERS)
        raise InvalidArgument(f"no codec {name!r}; known: {known}", name="codec", value=name, allowed=known) from None


def compress(number: int, data: bytes) -> bytes:
    """Compress with a codec given by its number.

    >>> decompress(1, compress(1, b"a" * 100), 100) == b"a" * 100
    True
    """
    return data if number == 0 else cast("bytes", _codec(_NAMES[number]).compress(data, asbytes=True))


def decompress(number: int, data: bytes | memoryview, size_bytes: int) -> bytes | memoryview:
    """Undo ``compress``; ``size_bytes`` is the length before it. Raises ``ValueError`` for an unknown number."""
    if number == 0:
        return data
    name = _NAMES.get(number)
    if name is None:
        raise ValueError(f"unknown codec number {number}")
    return cast("bytes", _codec(name).decompress(data, decompressed_size=size_bytes, asbytes=True))
