"""A column of values to bytes and back, in the fastest form that returns exactly the same types and values.

Runs on slot threads; stateless. Forms, by a column's first byte:

=====  ================================================================  ======================================
``n``  nothing                                                           all ``None``
``1``  little-endian int8, and ``2`` ``4`` ``8`` for 16, 32 and 64 bits  all exactly ``int``, within the range
``f``  little-endian float64                                             all exactly ``float``
``m``  ``marshal`` version 2                                             plain builtins, lists and tuples of them
``a``  Arrow IPC streams, each after its length                          all record batches or all tables
``x``  length of a name, the name, what that serialiser made             what one of ``chosen`` accepts
``p``  ``pickle`` protocol 5                                             everything else
=====  ================================================================  ======================================

``marshal`` writes twice as fast as ``pickle``, but it turns whatever offers a buffer (bytearray, memoryview, array, numpy scalars)
into ``bytes`` without a word. So it is only given what was seen, level by level, to consist of exact plain types.
"""

from __future__ import annotations

import marshal
import pickle
import struct
import sys
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from flowkit.lineage import pickling
from flowkit.storage.serializers import chosen

if TYPE_CHECKING:
    from numpy.typing import NDArray

NONE, FLOAT, MARSHAL, ARROW, PICKLE, CHOSEN = b"n", b"f", b"m", b"a", b"p", b"x"
_INT_FORMS: dict[int, bytes] = {1: b"1", 2: b"2", 4: b"4", 8: b"8"}
_INT_TYPES: dict[bytes, np.dtype[Any]] = {form: np.dtype(f"<i{width}") for width, form in _INT_FORMS.items()}
_FLOAT64 = np.dtype("<f8")

_PLAIN = frozenset({int, str, float, bool, bytes, complex, type(None)})
_NESTED = frozenset({tuple, list})
#: levels of tuples and lists that are looked through before a column is pickled
_DEPTH = 4
#: marshal 2 has no references: values shared between rows would be written, and read, once per row
_MARSHAL_VERSION = 2
_SHARING_SAMPLE = 32


class Column:
    """Values of one batch, classified once: reordered, cut and encoded as often as there are reducers.

    Either ``numbers`` holds them (an array of ints as narrow as they fit, or of floats), or ``values`` does.
    """

    __slots__ = ("form", "numbers", "values")

    def __init__(self, values: Sequence[Any], *, form: bytes, numbers: NDArray[Any] | None = None) -> None:
        self.form = form
        self.values = values
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.values)

    @property
    def int_numbers(self) -> NDArray[Any] | None:
        """The values as an array, if all of them are exactly ``int`` and fit into 64 bits."""
        return None if self.form == FLOAT else self.numbers

    def encode(self) -> bytes:
        """The column as bytes, its form first."""
        if self.numbers is not None:
            return self.form + self.numbers.tobytes()
        return self.form + _encode_objects(self.values, self.form)

    def ordered_by(self, order: NDArray[Any]) -> OrderedColumn:
        """The values in another order, ready to be cut."""
        if self.numbers is not None:
            return OrderedColumn(self.form, self.numbers[order])
        if self.form == NONE:
            return OrderedColumn(self.form, np.empty(len(order), np.int8))
        return OrderedColumn(self.form, np.fromiter(self.values, object, len(self.values))[order])


class OrderedColumn:
    """A reordered column; consecutive parts of it are encoded one by one."""

    __slots__ = ("array", "form")

    def __init__(self, form: bytes, array: NDArray[Any]) -> None:
        self.form = form
        self.array = array

    def encode(self, start: int, stop: int) -> bytes:
        """Values ``start`` to ``stop`` as bytes."""
        part = self.array[start:stop]
        if self.form == NONE:
            return NONE
        if self.array.dtype == object:
            return self.form + _encode_objects(part.tolist(), self.form)
        return self.form + part.tobytes()


def classify(values: Sequence[Any]) -> Column:
    """Choose the form of a column. Cost: about 15 ns a value and level of nesting."""
    kinds = set(map(type, values))
    if len(kinds) == 1:
        kind = next(iter(kinds))
        if kind is int:
            return classify_ints(values)
        if kind is float:
            return Column(values, form=FLOAT, numbers=np.array(values, _FLOAT64))
        if kind is type(None):
            return Column(values, form=NONE)
        if _is_arrow(kind):
            return Column(values, form=ARROW)
    name = chosen.accepting(frozenset(kinds)) if kinds else None
    if name is not None:
        return Column(values, form=CHOSEN + bytes([len(name)]) + name.encode())
    if _is_plain(values, kinds, _DEPTH) and not _is_shared(values):
        return Column(values, form=MARSHAL)
    return Column(values, form=PICKLE)


def classify_ints(values: Sequence[int]) -> Column:
    """The column of values that are all exactly ``int``."""
    try:
        numbers = np.array(values, np.int64)
    except OverflowError:
        return Column(values, form=MARSHAL)
    return classify_int64(values, numbers)


def classify_int64(values: Sequence[int], numbers: NDArray[np.int64]) -> Column:
    """The column of ints given as an array as well."""
    low, high = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, 0)
    for width in (1, 2, 4):
        limit = 1 << (8 * width - 1)
        if -limit <= low and high < limit:
            return Column(values, form=_INT_FORMS[width], numbers=numbers.astype(f"<i{width}"))
    return Column(values, form=_INT_FORMS[8], numbers=numbers)


def decode(data: memoryview, count: int) -> Sequence[Any]:
    """The values of a column of ``count``."""
    values = decode_numbers(data, count)
    return values.tolist() if isinstance(values, np.ndarray) else values


def decode_numbers(data: memoryview, count: int) -> NDArray[Any] | Sequence[Any]:
    """The values of a column of ``count``; ints and floats that were written as bare numbers stay an array over ``data``."""
    form = bytes(data[:1])
    if form in _INT_TYPES:
        return np.frombuffer(data, _INT_TYPES[form], count, 1)
    if form == FLOAT:
        return np.frombuffer(data, _FLOAT64, count, 1)
    if form == NONE:
        return [None] * count
    values: Any
    match form:
        case b"m":
            values = marshal.loads(data[1:])  # noqa: S302 - of our own making, like the pickles
        case b"p":
            values = pickle.loads(data[1:])
        case b"a":
            values = _decode_arrow(data[1:])
        case b"x":
            values = _decode_chosen(data)
        case _:
            raise ValueError(f"no column begins with {form!r}")
    if type(values) is not list or len(values) != count:
        raise ValueError(f"a column of {count} values decoded to something else")
    return values


def _is_plain(values: Sequence[Any], kinds: set[type], depth: int) -> bool:
    if kinds <= _PLAIN:
        return True
    if not kinds <= _NESTED or not depth:
        return False
    inner = list(chain.from_iterable(values))
    return _is_plain(inner, set(map(type, inner)), depth - 1)


def _is_shared(values: Sequence[Any]) -> bool:
    # Values that many rows point to (a dimension's name, one side of a join) keep being one object only in a pickle.
    sample = values[:: max(1, len(values) // _SHARING_SAMPLE)]
    large = [each for each in sample if type(each) in {str, bytes, tuple, list} and len(each) > 1]
    return len(large) >= _SHARING_SAMPLE // 2 and len(set(map(id, large))) * 2 < len(large)


def _encode_objects(values: Sequence[Any], form: bytes) -> bytes:
    if form == NONE:
        return b""
    exact = values if type(values) is list else list(values)
    if form == MARSHAL:
        return marshal.dumps(exact, _MARSHAL_VERSION)
    if form == ARROW:
        return _encode_arrow(exact)
    if form[:1] == CHOSEN:
        return chosen.current()[form[2:].decode()].dumps(exact)
    return pickle_rows(exact)


# -- Arrow: pickled, a slice of a batch would carry all of its parent's buffers; IPC cuts them ---------------------------

_ARROW_HEADER = struct.Struct("<cQ")
_BATCH, _TABLE = b"b", b"t"


def _is_arrow(kind: type) -> bool:
    # Where pyarrow was never imported, nothing is Arrow's.
    pyarrow = sys.modules.get("pyarrow")
    return pyarrow is not None and kind in {pyarrow.RecordBatch, pyarrow.Table}


def _encode_arrow(batches: list[Any]) -> bytes:
    import pyarrow as pa

    encoded = bytearray()
    for batch in batches:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            # An empty slice would be written with all of its parent's offsets.
            writer.write(batch if batch.num_rows else _emptied(batch))
        data = sink.getvalue()
        encoded += _ARROW_HEADER.pack(_TABLE if isinstance(batch, pa.Table) else _BATCH, data.size)
        encoded += data
    return bytes(encoded)


def _emptied(batch: Any) -> Any:
    import pyarrow as pa

    empty = batch.schema.empty_table()
    if isinstance(batch, pa.Table):
        return empty
    return pa.RecordBatch.from_arrays([column.combine_chunks() for column in empty.columns], schema=batch.schema)


def _decode_arrow(data: memoryview) -> list[Any]:
    import pyarrow as pa

    batches = []
    place = 0
    while place < len(data):
        kind, size = _ARROW_HEADER.unpack_from(data, place)
        place += _ARROW_HEADER.size
        with pa.ipc.open_stream(pa.py_buffer(data[place : place + size])) as reader:
            batches.append(reader.read_all() if kind == _TABLE else reader.read_next_batch())
        place += size
    return batches


def _decode_chosen(data: memoryview) -> Any:
    end = 2 + data[1]
    name = bytes(data[2:end]).decode()
    serializer = chosen.current().get(name)
    if serializer is None:
        raise ValueError(f"these rows were written by serializer {name!r}, which is not among the settings' serializers here")
    return serializer.loads(data[end:])


# -- pickle --------------------------------------------------------------------------------------------------------------


def pickle_rows(rows: list[Any]) -> bytes:
    """Pickle, by value what exists only in the driver's ``__main__`` or in a function.

    Raises
    ------
    TypeError
        Naming the first element that cannot be pickled.
    """
    try:
        return pickle.dumps(rows, 5)
    except (pickle.PicklingError, AttributeError, TypeError, ImportError):
        pass
    try:
        return bytes(pickling.dumps(rows, protocol=5))
    except Exception as exc:
        for row in rows:
            try:
                pickling.dumps(row, protocol=5)
            except Exception as inner:
                text = repr(row)
                shown = text if len(text) <= 120 else text[:117] + "..."
                raise TypeError(f"cannot serialise {shown} ({type(row).__qualname__}): {inner}") from exc
        raise
