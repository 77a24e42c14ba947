"""Batches of rows to bytes and back: each batch in the fastest form that keeps every type exactly.

Runs in executors, on slot threads; stateless. A batch says by its first byte what it is: ``B``, a list of anything, as one
column; or ``C``, a list of pairs, transposed into a column of keys and one of values. Each column has a form of its own
(``columns``): bare numbers, ``marshal``, ``pickle``, or Arrow IPC for columns of record batches and tables.

Both ends run the same minor version of Python (checked when a driver connects), which ``marshal`` needs.
"""

from __future__ import annotations

from flowkit.storage.serializers.batches import (
    PairColumns,
    as_list,
    decode_batch,
    decode_pairs,
    encode_batch,
    encode_pairs,
    encode_pairs_between,
    encode_pickled,
)

__all__ = [
    "PairColumns",
    "as_list",
    "decode_batch",
    "decode_pairs",
    "encode_batch",
    "encode_pairs",
    "encode_pairs_between",
    "encode_pickled",
]
