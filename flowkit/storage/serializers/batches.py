"""Whole batches: lists of rows, and of pairs. The forms are listed in the package's docstring.

Runs on slot threads; stateless.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from flowkit.storage.serializers import columns
from flowkit.storage.serializers.columns import Column, OrderedColumn

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIST, PAIRS = b"B", b"C"
_LIST_HEADER = struct.Struct("<cQ")
_PAIRS_HEADER = struct.Struct("<cQQ")

_first, _second = itemgetter(0), itemgetter(1)


def encode_batch(records: list[Any]) -> bytes:
    """Serialise a list. ``decode_batch`` returns an equal one, with the same types throughout.

    What rows share with one another may come back as equal copies.

    >>> decode_batch(encode_batch([("a", 1), ("b", True)]))
    [('a', 1), ('b', True)]
    """
    if records and set(map(type, records)) == {tuple} and set(map(len, records)) == {2}:
        return encode_pairs(columns.classify(list(map(_first, records))), columns.classify(list(map(_second, records))))
    return _LIST_HEADER.pack(LIST, len(records)) + columns.classify(records).encode()


def encode_pickled(records: list[Any]) -> bytes:
    """Pickle a list, whatever it holds: what one row refers to twice is one object in what ``decode_batch`` returns.

    Raises
    ------
    TypeError
        Naming the first element that cannot be pickled.

    >>> row = decode_batch(encode_pickled([(both := [], both)]))[0]
    >>> row[0] is row[1]
    True
    """
    return _LIST_HEADER.pack(LIST, len(records)) + columns.PICKLE + columns.pickle_rows(records)


def encode_pairs(keys: Column, values: Column) -> bytes:
    """Serialise pairs given as two columns of one length."""
    encoded = keys.encode()
    return b"".join((_PAIRS_HEADER.pack(PAIRS, len(keys), len(encoded)), encoded, values.encode()))


def encode_pairs_between(keys: OrderedColumn, values: OrderedColumn, start: int, stop: int) -> bytes:
    """Serialise pairs ``start`` to ``stop`` of two reordered columns."""
    encoded = keys.encode(start, stop)
    return b"".join((_PAIRS_HEADER.pack(PAIRS, stop - start, len(encoded)), encoded, values.encode(start, stop)))


def decode_batch(data: bytes | memoryview) -> list[Any]:
    """What ``encode_batch`` or ``encode_pairs`` was given.

    Raises ``ValueError`` for bytes that begin with no known form.
    """
    view = memoryview(data)
    tag = bytes(view[:1])
    if tag == PAIRS:
        return decode_pairs(view).rows()
    if tag == LIST:
        _, count = _LIST_HEADER.unpack_from(view)
        return list(columns.decode(view[_LIST_HEADER.size :], count))
    raise ValueError(f"no batch begins with {tag!r}")


class PairColumns(NamedTuple):
    """Pairs as they lie in a batch, a column of keys and one of values: an array where they are bare numbers, else a list."""

    keys: NDArray[Any] | Sequence[Any]
    values: NDArray[Any] | Sequence[Any]

    def rows(self) -> list[tuple[Any, Any]]:
        """The pairs, with the very types they were written with."""
        return list(zip(as_list(self.keys), as_list(self.values), strict=True))


def as_list(column: NDArray[Any] | Sequence[Any]) -> Sequence[Any]:
    """A column's values as Python objects."""
    return column if isinstance(column, (list, tuple)) else column.tolist()  # type: ignore[union-attr]


def decode_pairs(data: bytes | memoryview) -> PairColumns:
    """What ``encode_pairs`` was given, not made into rows yet.

    >>> decode_pairs(encode_batch([("a", 1), ("b", 2)])).values.tolist()
    [1, 2]
    """
    view = memoryview(data)
    if bytes(view[:1]) != PAIRS:
        raise ValueError(f"no batch of pairs begins with {bytes(view[:1])!r}")
    _, count, key_bytes = _PAIRS_HEADER.unpack_from(view)
    middle = _PAIRS_HEADER.size + key_bytes
    return PairColumns(
        columns.decode_numbers(view[_PAIRS_HEADER.size : middle], count), columns.decode_numbers(view[middle:], count)
    )
