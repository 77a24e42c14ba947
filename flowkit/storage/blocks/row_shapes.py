"""Rows taken apart into columns that are cheap to copy, and put together again, as often as somebody reads them.

Pure; runs on slot threads. A *flat* value is a list, a dict, a set or the like that holds nothing but immutable values: copying it means
copying it once, not all that it holds. Rows that are flat values, or tuples of flat and of immutable values, have a ``Shape``:

::

    rows     [("a", [1, 2]), ("b", [3])]      ->   columns   ["a", "b"]   [[1, 2], [3]]
    copies   zip(columns[0], map(list.copy, columns[1]))

All of it runs at C speed: no Python frame of ours a row.
"""

from __future__ import annotations

from array import array
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, combinations, repeat
from operator import itemgetter
from typing import Any, Final, NamedTuple

import numpy as np

from flowkit.storage.blocks.immutable_values import ATOMS, are_immutable, is_plain_tuple

Copy = Callable[[Any], Any]

#: tuples in tuples, and fields of one tuple, that are taken apart; rows with more are pickled
_DEPTH: Final = 4
_MOST_FIELDS: Final = 64
#: flat values in one row: each two are checked for being one and the same object
_MOST_FLAT: Final = 6


@dataclass(frozen=True, slots=True)
class Shape:
    """How one value of a column is made.

    Parameters
    ----------
    copy
        Copies a value; None for immutable values, which need no copy.
    kind
        The type of tuples that are taken apart; None for a value that is held as it is.
    fields
        The shapes of the tuples' fields.
    """

    copy: Copy | None = None
    kind: type | None = None
    fields: tuple[Shape, ...] = ()

    def copies(self) -> Iterator[Copy | None]:
        """Return how values of each column are copied."""
        return iter((self.copy,)) if self.kind is None else chain.from_iterable(field.copies() for field in self.fields)

    def values(self, columns: Iterable[Iterable[Any]], *, copied: bool) -> Iterator[Any]:
        """Return the values that columns were made of, with ``copied`` as copies of what lies in the columns."""
        return self._values(iter(columns), copied=copied)

    def _values(self, columns: Iterator[Iterable[Any]], *, copied: bool) -> Iterator[Any]:
        if self.kind is None:
            column = next(columns)
            return map(self.copy, column) if copied and self.copy is not None else iter(column)
        rows = zip(*[field._values(columns, copied=copied) for field in self.fields], strict=False)
        return rows if self.kind is tuple else map(partial(tuple.__new__, self.kind), rows)


IMMUTABLE: Final = Shape()


class TakenApart(NamedTuple):
    """The shape of rows, and one column for each value of a row that is not taken apart further."""

    shape: Shape
    columns: list[Sequence[Any]]

    def copied(self) -> list[list[Any]]:
        """Return the columns as lists of their own, of copies of what can be changed."""
        copies = zip(self.shape.copies(), self.columns, strict=True)
        return [list(column) if copy is None else list(map(copy, column)) for copy, column in copies]


def take_apart(values: Sequence[Any]) -> TakenApart | None:
    """Return the shape that all values have, and their columns; the shape is ``IMMUTABLE`` where nobody can change any of them.

    Returns None where they have no shape in common, or one of them holds the same list twice, of which copies would be two lists.

    >>> take_apart([("a", 1), ("b", 2)]).shape == IMMUTABLE
    True
    >>> take_apart([("a", [1]), ("b", [])]).columns
    [['a', 'b'], [[1], []]]
    >>> take_apart([[[]]]) is None
    True
    """
    columns: list[Sequence[Any]] = []
    shape = _shape_of(values, columns, _DEPTH)
    if shape is None:
        return None
    flat = [column for copy, column in zip(shape.copies(), columns, strict=True) if copy is not None]
    if len(flat) > _MOST_FLAT or any(_share(left, right) for left, right in combinations(flat, 2)):
        return None
    return TakenApart(shape, columns)


def _shape_of(values: Sequence[Any], columns: list[Sequence[Any]], depth: int) -> Shape | None:
    """Return the shape of values, and append their columns to ``columns``."""
    # One look at the first saves looking at all of them twice, where it shows that they are not immutable.
    if not _holds_mutable(values) and are_immutable(values):
        columns.append(values)
        return IMMUTABLE
    kinds = set(map(type, values))
    kind = next(iter(kinds))
    if len(kinds) == 1 and is_plain_tuple(kind):
        return _shape_of_tuples(kind, values, columns, depth)
    columns.append(values)
    return _shape_of_flat(kinds, values)


def _holds_mutable(values: Sequence[Any]) -> bool:
    """Return whether the first value can be changed, or is a tuple of which a field can. Only what needs no closer look: arrays do."""
    first = next(iter(values), None)
    return type(first) in _MUTABLE or (type(first) is tuple and any(type(each) in _MUTABLE for each in first))


def _shape_of_tuples(kind: type, values: Sequence[Any], columns: list[Sequence[Any]], depth: int) -> Shape | None:
    lengths = set(map(tuple.__len__, values))
    if not depth or len(lengths) > 1 or max(lengths) > _MOST_FIELDS:
        return None
    fields: list[Shape] = []
    for index in range(max(lengths)):
        # zip(*values) would make an iterator for each row, and the garbage collector would look at all of them.
        taken = map(itemgetter(index), values) if kind is tuple else map(tuple.__getitem__, values, repeat(index))
        field = _shape_of(list(taken), columns, depth - 1)
        if field is None:
            return None
        fields.append(field)
    return Shape(None, kind, tuple(fields))


def _share(left: Sequence[Any], right: Sequence[Any]) -> bool:
    return any(one is other and type(one) in _FLAT for one, other in zip(left, right, strict=True))


# -- flat values -------------------------------------------------------------------------------------------------------


def _items(dicts: Sequence[dict[Any, Any]]) -> Iterable[Any]:
    return chain(chain.from_iterable(dicts), chain.from_iterable(map(dict.values, dicts)))


def _default_items(dicts: Sequence[defaultdict[Any, Any]]) -> Iterable[Any] | None:
    # A factory that is no type may have a state of its own, as the bound method of a counter has.
    return _items(dicts) if all(each.default_factory is None or type(each.default_factory) is type for each in dicts) else None


def _no_objects(arrays: Sequence[Any]) -> Iterable[Any] | None:
    return None if any(each.dtype.hasobject for each in arrays) else ()


def _copy_array(values: Any) -> Any:
    copied = values.__copy__()  # in the order of its memory, where copy() would reorder it
    if not values.flags.writeable:
        copied.flags.writeable = False
    return copied


#: how a value of a type is copied, and what values of it hold that must be immutable (None: not all of it is)
_FLAT: Final[dict[type, tuple[Copy, Callable[[Any], Iterable[Any] | None]]]] = {
    list: (list.copy, chain.from_iterable),
    dict: (dict.copy, _items),
    set: (set.copy, chain.from_iterable),
    deque: (deque.copy, chain.from_iterable),
    defaultdict: (defaultdict.copy, _default_items),
    bytearray: (bytearray.copy, lambda _values: ()),
    array: (array.__copy__, lambda _values: ()),
    np.ndarray: (_copy_array, _no_objects),
}
#: of these no value is immutable, where an array may be read-only
_MUTABLE: Final = _FLAT.keys() - {np.ndarray}


def _hold_immutable(values: Sequence[Any], parts_of: Callable[[Any], Iterable[Any] | None]) -> bool:
    parts = parts_of(values)
    if parts is None:
        return False
    kinds = set(map(type, parts))  # first, since most hold numbers and text, of which no list need be made
    return kinds <= ATOMS or are_immutable(list(parts_of(values) or ()))


def _copy_flat(value: Any) -> Any:
    found = _FLAT.get(type(value))
    return value if found is None else found[0](value)


def _shape_of_flat(kinds: set[type], values: Sequence[Any]) -> Shape | None:
    """Return the shape of values that are flat or immutable."""
    flat = kinds & _FLAT.keys()
    for kind in flat:
        own = values if len(kinds) == 1 else [value for value in values if type(value) is kind]
        if not _hold_immutable(own, _FLAT[kind][1]):
            return None
    if flat == kinds and len(flat) == 1:
        return Shape(_FLAT[next(iter(flat))][0])
    if not flat or not are_immutable([value for value in values if type(value) not in _FLAT]):
        return None
    return Shape(_copy_flat)
