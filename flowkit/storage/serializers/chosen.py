"""Serialisers that somebody chose for types of rows, beside the forms every column has; which of them a thread uses.

A thread that runs tasks is told those of its executor (``using``): they are asked, in their order, for every column that is not plain
numbers, in shuffles, spills and cached partitions. What none of them accepts has its usual form, so nothing is ever refused. Bytes name
the serialiser that made them; a thread that has none of that name says so.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from flowkit.abc import Serializer
from flowkit.errors import BadRow
from flowkit.lineage import pickling

_thread = threading.local()
_NONE: Final[Mapping[str, Serializer]] = {}


@contextmanager
def using(serializers: Mapping[str, Serializer]) -> Iterator[None]:
    """Choose for this thread, until the block is over."""
    before = current()
    _thread.chosen = serializers
    try:
        yield
    finally:
        _thread.chosen = before


def choose(serializers: Mapping[str, Serializer]) -> None:
    """Choose for this thread, for good."""
    _thread.chosen = serializers


def current() -> Mapping[str, Serializer]:
    """Those of the calling thread, by name."""
    return getattr(_thread, "chosen", _NONE)


def accepting(kinds: frozenset[type]) -> str | None:
    """The name of the first that takes a column of these types, if any does."""
    return next((name for name, each in current().items() if each.accepts(kinds)), None)


class MsgpackSerializer:
    """Mappings as MessagePack: rows as JSON has them are written in a third of a pickle's time, and read in four fifths.

    What JSON does not have comes back as what is nearest: a tuple inside a mapping as a list.

    Examples
    --------
    >>> serializer = MsgpackSerializer()
    >>> serializer.accepts(frozenset({dict}))
    True
    >>> serializer.loads(memoryview(serializer.dumps([{"a": 1}, {"a": None}])))
    [{'a': 1}, {'a': None}]
    """

    def __init__(self) -> None:
        import msgspec

        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder().decode

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return MsgpackSerializer, ()

    def accepts(self, kinds: frozenset[type]) -> bool:
        """Mappings alone."""
        return kinds == {dict}

    def dumps(self, values: list[Any]) -> bytes:
        """Mappings as bytes."""
        return self._encode(values)

    def loads(self, data: memoryview) -> list[Any]:
        """Bytes as mappings."""
        found: list[Any] = self._decode(data)
        return found


class ArrowSerializer:
    """Mappings as one Arrow table a batch: columns of one type each, the smallest form for rows that are alike.

    Every row comes back with all columns of its batch, None where it had none. Values come back as from Parquet: equal to what they were,
    ints beside floats as floats, tuples as lists.

    Examples
    --------
    >>> serializer = ArrowSerializer()
    >>> serializer.loads(memoryview(serializer.dumps([{"a": 1}, {"a": 2, "b": "x"}])))
    [{'a': 1, 'b': None}, {'a': 2, 'b': 'x'}]
    """

    def accepts(self, kinds: frozenset[type]) -> bool:
        """Mappings alone."""
        return kinds == {dict}

    def dumps(self, values: list[Any]) -> bytes:
        """Mappings as bytes. Raises ``errors.BadRow``, a TypeError, for columns of several types and mappings without fields."""
        import pyarrow as pa

        from flowkit.storage.tables.casts import Unfit
        from flowkit.storage.tables.rows import misfit, table_of
        from flowkit.storage.tables.widening import path_of_empty

        try:
            table = table_of(values, None)
        except Unfit as error:
            raise misfit(error, f"row {error.place} of a batch") from None
        if path_of_empty(table.schema) is not None:
            raise BadRow("rows do not fit into columns: a mapping has no fields in any row of a batch")
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue())

    def loads(self, data: memoryview) -> list[Any]:
        """Bytes as mappings."""
        import pyarrow as pa

        from flowkit.storage.tables.rows import rows_of

        with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
            return rows_of(reader.read_all())


class PickleSerializer:
    """Everything that pickle can pickle, as it does; rows share what they shared.

    Examples
    --------
    >>> serializer = PickleSerializer()
    >>> serializer.loads(memoryview(serializer.dumps([(1, "a")])))
    [(1, 'a')]
    """

    def accepts(self, kinds: frozenset[type]) -> bool:
        """Anything."""
        return True

    def dumps(self, values: list[Any]) -> bytes:
        """Protocol 5."""
        return pickle.dumps(values, 5)

    def loads(self, data: memoryview) -> list[Any]:
        """What was pickled."""
        found: list[Any] = pickle.loads(data)
        return found


class CloudpickleSerializer(PickleSerializer):
    """As ``PickleSerializer``; lambdas, and classes of the driver's script, travel by value."""

    def dumps(self, values: list[Any]) -> bytes:
        """Protocol 5."""
        return bytes(pickling.dumps(values, protocol=5))
