"""How many bytes Python objects take, estimated from a sample: exact answers would cost more than what they decide.

Pure; runs on slot threads. Containers are looked into by an even sample of their elements, so a large batch costs the same as a
small one. What Python shares anyway (small ints, None, bools, classes, functions, interned one-letter strings) counts as nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from sys import getsizeof
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

#: elements looked at in a batch of rows
BATCH_SAMPLE = 48
#: elements looked at in a container inside a row
_INNER_SAMPLE = 12
#: containers in containers; what lies deeper counts by its own size only
_DEPTH = 5
#: a slot of a list, tuple or set in a container is counted by getsizeof already; this is a dict's or list's header
_SHARED_TYPES = (type, FunctionType, BuiltinFunctionType, MethodType, ModuleType, type(None), type(...), type(NotImplemented))


def estimate_bytes(value: Any) -> int:
    """Estimate one object with all it holds.

    >>> estimate_bytes("a" * 1000) > 1000, estimate_bytes(None)
    (True, 0)
    """
    return _estimate(value, _DEPTH, set())


def estimate_batch(rows: Sequence[Any]) -> int:
    """Estimate a list of rows, list included. Cost: that of looking at ``BATCH_SAMPLE`` rows."""
    return getsizeof(rows) + _estimate_elements(rows, len(rows), BATCH_SAMPLE, _DEPTH, set())


def estimate_dict(table: dict[Any, Any]) -> int:
    """Estimate a dict with keys and values, from some at its beginning and at its end (a dict cannot be sampled evenly at no cost).

    Cost: that of looking at ``BATCH_SAMPLE`` items.
    """
    return _estimate_dict(table, BATCH_SAMPLE, _DEPTH, set())


#: objects counted already, by their ids: what several rows share (the keys of their mappings, a text they all hold) is there once
_Seen = set[int]


def _estimate(value: Any, depth: int, seen: _Seen) -> int:
    kind = type(value)
    if kind is int:
        return 0 if -5 <= value <= 256 else getsizeof(value)
    if kind is float:
        return 24
    if kind is bool or isinstance(value, _SHARED_TYPES):
        return 0
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if kind is str:
        return 0 if len(value) < 2 and value.isascii() else getsizeof(value)
    if kind.__module__ == "pyarrow.lib":
        found = _arrow_bytes(value, seen)
        if found is not None:
            return found
    own = _own_bytes(value)
    if not depth:
        return own
    if isinstance(value, (tuple, list)):
        return own + _estimate_elements(value, len(value), _INNER_SAMPLE, depth - 1, seen)
    if isinstance(value, dict):
        return own - getsizeof(value) + _estimate_dict(value, _INNER_SAMPLE, depth - 1, seen)
    if isinstance(value, (set, frozenset)):
        return own + _scaled(list(islice(value, _INNER_SAMPLE)), len(value), depth - 1, seen)
    attributes = getattr(value, "__dict__", None)
    if type(attributes) is dict:
        own += getsizeof(attributes) + _scaled(list(attributes.values()), len(attributes), depth - 1, seen)
    for name in getattr(kind, "__slots__", ()):
        if isinstance(name, str) and name not in {"__dict__", "__weakref__"}:
            own += _estimate(getattr(value, name, None), depth - 1, seen)
    return own


def _arrow_bytes(value: Any, seen: _Seen) -> int | None:
    """Exactly what buffers hold, each once however many slices there are of it; None for what has none."""
    columns = getattr(value, "columns", None)
    if columns is None:
        columns = [value] if hasattr(value, "buffers") or hasattr(value, "chunks") else None
    if columns is None:
        return None
    size_bytes = 64
    for column in columns:
        for array in getattr(column, "chunks", None) or [column]:
            for buffer in array.buffers() if hasattr(array, "buffers") else ():
                if buffer is not None and buffer.address not in seen:
                    seen.add(buffer.address)
                    size_bytes += buffer.size
    return size_bytes


def _own_bytes(value: Any) -> int:
    try:
        own = getsizeof(value)
    except TypeError:  # an object whose __sizeof__ is broken
        own = 64
    buffer = getattr(value, "nbytes", None)  # numpy, pyarrow, memoryview: the data may lie outside the object
    return own + buffer if isinstance(buffer, int) and own < buffer else own


def _estimate_elements(values: Sequence[Any], count: int, sample_size: int, depth: int, seen: _Seen) -> int:
    if count <= sample_size:
        return _scaled(values, count, depth, seen)
    # An odd step, so that rows which repeat with a period of two or four are not met at one phase only.
    step = (count // sample_size) | 1
    return _scaled(values[::step], count, depth, seen)


def _estimate_dict(table: dict[Any, Any], sample_size: int, depth: int, seen: _Seen) -> int:
    count = len(table)
    keys = list(islice(table, sample_size))
    values = list(islice(table.values(), sample_size))
    if count > sample_size:
        keys += islice(reversed(table), sample_size // 2)
        values += islice(reversed(table.values()), sample_size // 2)
    return getsizeof(table) + _scaled(keys, count, depth, seen) + _scaled(values, count, depth, seen)


def _scaled(sample: Sequence[Any], count: int, depth: int, seen: _Seen) -> int:
    if len(sample) == count:
        return sum(_estimate(each, depth, seen) for each in sample)
    # What is shared by many is met early and adds nothing later: those not looked at are like the later ones.
    early = len(sample) // 8
    first = sum(_estimate(each, depth, seen) for each in sample[:early])
    later = sum(_estimate(each, depth, seen) for each in sample[early:])
    return first + int(later / (len(sample) - early) * (count - early)) if sample else 0
