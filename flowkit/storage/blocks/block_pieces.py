"""Cached partitions in pieces: batches to be encoded, and what another executor is sent at a time. Pure; runs in executors."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from flowkit.model.storage_level import StorageLevel
from flowkit.storage.memory.size_estimate import BATCH_SAMPLE, estimate_batch
from flowkit.storage.serializers import encode_batch

#: rows unrolled before the first look at their size, and the most between two looks
FIRST_ROWS: Final = 64
MOST_ROWS: Final = 16_384
#: objects of an encoded batch, as estimated: what is decoded at a time
BATCH_BYTES: Final = 1 << 20
#: what another executor is sent at a time, about
PIECE_BYTES: Final = 4 << 20


class BlockPiece(NamedTuple):
    """Some of a partition's encoded batches, for somebody else."""

    #: of the block they are from: pieces of different blocks do not fit together
    serial: int
    batches: list[bytes]
    #: where the next piece begins; None after the last one
    next_position: int | None


def block_piece(held: list[Any], level: StorageLevel, serial: int, position: int) -> BlockPiece:
    """What lies at a position: a row's number for objects, a batch's for encoded ones."""
    batches: list[bytes] = []
    size_bytes = 0
    while position < len(held) and size_bytes < PIECE_BYTES:
        if level.deserialized:
            rows = held[position : position + FIRST_ROWS]
            rows = held[position : position + rows_of(BATCH_BYTES, rows)]
            batches.append(encode_batch(rows))
            position += len(rows)
        else:
            batches.append(held[position])
            position += 1
        size_bytes += len(batches[-1])
    return BlockPiece(serial, batches, position if position < len(held) else None)


def rows_of(size_bytes: int, batch: list[Any]) -> int:
    """How many rows like these take so many bytes."""
    return max(BATCH_SAMPLE, min(MOST_ROWS, 4 * len(batch), size_bytes * len(batch) // max(1, estimate_batch(batch))))
