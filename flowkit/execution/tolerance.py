"""Functions whose errors do not end a job: what raises is left out, counted, and can be looked at. Run on slot threads."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from flowkit.errors import TooManyErrors

#: what a function makes of an element: one thing, several, or whether it stays
Shape = Literal["one", "many", "keep"]


class Fault(NamedTuple):
    """An element that a function could not take."""

    element: Any
    error: Exception
    #: as text
    traceback: str


class Tolerant:
    """What a function makes of an element, in a sequence that is empty where it raises.

    >>> class Count:
    ...     value = 0
    ...
    ...     def add(self, term):
    ...         self.value += term
    >>> errors = Count()
    >>> halves = Tolerant(lambda x: 1 / x, "one", errors, None, 5, "map")
    >>> [*halves(2), *halves(0), errors.value]
    [0.5, 1]
    """

    __slots__ = ("errors", "fn", "max_errors", "place", "seen", "shape")

    def __init__(
        self, fn: Callable[[Any], Any], shape: Shape, errors: Any, seen: Any, max_errors: int | None, place: str
    ) -> None:
        self.fn = fn
        self.shape = shape
        self.errors = errors
        #: counts elements, for a limit that is a fraction; else None
        self.seen = seen
        #: in one task; the driver looks at all of them together
        self.max_errors = max_errors
        self.place = place

    def __call__(self, element: Any) -> Any:
        if self.seen is not None:
            self.seen.add(1)
        try:
            made = self.fn(element)
            if self.shape == "one":
                return (made,)
            if self.shape == "many":
                return list(made)  # here, since what is lazy may raise as well
            return (element,) if made else ()
        except Exception as error:
            self.errors.add(1)
            if self.max_errors == 0:
                raise TooManyErrors(
                    f"{self.place}: max_errors = 0, and there is one", setting="max_errors", limit=0, actual=1
                ) from error
            return ()


class Faults:
    """Elements that a function raises for, each with its error."""

    __slots__ = ("fn", "of_value", "shape")

    def __init__(self, fn: Callable[[Any], Any], shape: Shape, *, of_value: bool) -> None:
        self.fn = fn
        self.shape = shape
        self.of_value = of_value

    def __call__(self, element: Any) -> tuple[Fault, ...]:
        try:
            made = self.fn(element[1] if self.of_value else element)
            if self.shape == "many":
                for _ in made:
                    pass
        except Exception as error:
            told = traceback.format_exception(type(error), error, error.__traceback__.tb_next if error.__traceback__ else None)
            return (Fault(element, error.with_traceback(None), "".join(told)),)
        return ()
