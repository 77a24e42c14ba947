"""Small functions of elements that the DSL puts into pipelines; here, because executors import no DSL. Run on slot threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class Keyed:
    """``(fn(x), x)``.

    >>> Keyed(len)("word")
    (4, 'word')
    """

    __slots__ = ("fn",)

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        self.fn = fn

    def __call__(self, element: Any) -> tuple[Any, Any]:
        return self.fn(element), element


def with_none(element: T) -> tuple[T, None]:
    """A pair without a value."""
    return element, None


def with_true(element: T) -> tuple[T, bool]:
    """A pair that says that there is one."""
    return element, True


def has_no_partner(joined: tuple[Any, tuple[Any, Any]]) -> bool:
    """Whether an outer join found nothing on its right side.

    >>> has_no_partner(("key", ("value", None)))
    True
    """
    return joined[1][1] is None


def nothing(*_: object) -> None:
    """Whatever comes, nothing is kept of it."""
    return


def as_one_list(rows: Iterator[T]) -> Iterable[list[T]]:
    """One element: the list of all."""
    return [list(rows)]


def same(value: T) -> T:
    """A value as it is."""
    return value


def listed(value: T) -> list[T]:
    """A list of one."""
    return [value]


def appended(values: list[T], value: T) -> list[T]:
    """The list, longer by one."""
    values.append(value)
    return values


def extended(values: list[T], more: list[T]) -> list[T]:
    """The list, longer by another."""
    values.extend(more)
    return values


class CopiedZero:
    """``fn(copy of zero, value)``: the first combiner of a key; a mutable zero is never shared by two keys."""

    __slots__ = ("fn", "zero")

    def __init__(self, zero: Any, fn: Callable[[Any, Any], Any]) -> None:
        self.zero = zero
        self.fn = fn

    def __call__(self, value: Any) -> Any:
        from copy import deepcopy

        return self.fn(deepcopy(self.zero), value)
