"""Where one map task's output lies and how large each reduce partition of it is: one log-scaled byte per reducer."""

from __future__ import annotations

import math
import zlib
from typing import Final

import msgspec

from flowkit.model.ids import AttemptId, HostToken, PartitionIndex, ShuffleId
from flowkit.model.ranges import Count

_BASE = 1.1
_LOG_BASE = math.log(_BASE)
#: packed sizes that are no longer than this are no more than a thousand times as long when they are unpacked
_SHORT_BYTES: Final = 4 << 10
_MOST_REDUCERS: Final = 1 << 26


def encode_size(size_bytes: int) -> int:
    """One byte for a size, at most 10 % above it; 0 only for empty. Same scale as Spark's ``MapStatus.compressSize``.

    >>> [encode_size(n) for n in (0, 1, 2, 1_000_000)]
    [0, 1, 8, 145]
    """
    if size_bytes <= 0:
        return 0
    if size_bytes == 1:
        return 1
    return min(255, math.ceil(math.log(size_bytes) / _LOG_BASE))


def decode_size(code: int) -> int:
    """The size a byte stands for.

    >>> decode_size(0), decode_size(1), decode_size(145) >= 1_000_000
    (0, 1, True)
    """
    return 0 if code == 0 else round(_BASE**code)


class MapStatus(msgspec.Struct, frozen=True, array_like=True):
    """One committed map output. The file is named by shuffle, map partition and attempt, so attempts never mix."""

    map_partition: PartitionIndex
    attempt: AttemptId
    host: HostToken
    #: one ``encode_size`` byte per reduce partition, zlib-compressed
    sizes: bytes
    total_bytes: Count
    rows: Count

    def codes(self) -> bytes:
        r"""A byte for each reducer, as ``decode_size`` reads it. Raises ``ValueError`` when they are damaged.

        >>> MapStatus(PartitionIndex(0), AttemptId(1), HostToken("h"), zlib.compress(bytes([0, 145])), 1_000_000, 9).codes()
        b'\x00\x91'
        """
        try:
            if len(self.sizes) <= _SHORT_BYTES:
                return zlib.decompress(self.sizes)
            unpacking = zlib.decompressobj()
            codes = unpacking.decompress(self.sizes, _MOST_REDUCERS)
        except zlib.error as error:
            raise ValueError(f"the sizes of map output {self.map_partition} are damaged: {error}") from None
        if not unpacking.eof:
            raise ValueError(
                f"the sizes of map output {self.map_partition} are of more than {_MOST_REDUCERS:,} reducers, or cut short"
            )
        return codes


class ShuffleSources(msgspec.Struct, frozen=True):
    """All a reducer must know of one shuffle: every map output, and who serves each host.

    ``outputs[m]`` is the status of map partition ``m``. ``addresses`` maps a host to the executors that can serve its
    files now. ``epoch`` rises whenever any output moves or is lost.
    """

    shuffle: ShuffleId
    epoch: Count
    outputs: tuple[MapStatus, ...]
    addresses: dict[HostToken, tuple[str, ...]]
