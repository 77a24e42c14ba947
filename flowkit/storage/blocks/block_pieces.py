"""Cached partitions in pieces: batches to be encoded, and what another executor is sent at a time. Pure; runs in executors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from flowkit.storage.memory.size_estimate import BATCH_SAMPLE, estimate_batch

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


def block_piece(encoded_at: Callable[[int], tuple[bytes, int]], end: int, serial: int, position: int) -> BlockPiece:
    """Return the batches from a position on.

    Parameters
    ----------
    encoded_at
        Returns the batch at a position, and the position of the next one.
    end
        The position after the last batch.
    """
    batches: list[bytes] = []
    size_bytes = 0
    while position < end and size_bytes < PIECE_BYTES:
        encoded, position = encoded_at(position)
        batches.append(encoded)
        size_bytes += len(encoded)
    return BlockPiece(serial, batches, position if position < end else None)


def rows_of(size_bytes: int, batch: list[Any]) -> int:
    """How many rows like these take so many bytes."""
    return max(BATCH_SAMPLE, min(MOST_ROWS, 4 * len(batch), size_bytes * len(batch) // max(1, estimate_batch(batch))))
