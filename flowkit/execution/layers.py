"""What a callable is made of: the Python functions in it, from the one that is called first, and at which place each takes the element.

Pure; runs wherever frames are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any, Final, NamedTuple

#: wrappers around one function; a chain may be a ring
_MOST_LAYERS: Final = 16


class Layer(NamedTuple):
    """One function of a callable."""

    code: CodeType
    #: which of its positional arguments is the callable's first one
    place: int


def layers_of(fn: Any) -> Iterator[Layer]:
    """Functions of partials, methods, callable objects and what decorators made, as their frames lie in a traceback.

    >>> [layer.place for layer in layers_of(partial(lambda a, b: a + b, 1))], list(layers_of(int))
    ([1], [])
    """
    place = 0
    for _ in range(_MOST_LAYERS):
        if isinstance(fn, partial):
            place += len(fn.args)
            fn = fn.func
        elif isinstance(fn, MethodType):
            place += 1
            fn = fn.__func__
        elif isinstance(fn, FunctionType):
            yield Layer(fn.__code__, place)
            if not hasattr(fn, "__wrapped__"):
                return
            fn = fn.__wrapped__
        elif hasattr(fn, "__wrapped__"):  # of functools.cache, and such
            fn = fn.__wrapped__
        elif isinstance(fn, type):
            return
        else:
            call = next((vars(kind)["__call__"] for kind in type(fn).__mro__ if "__call__" in vars(kind)), None)
            if not isinstance(call, FunctionType):
                return
            fn = MethodType(call, fn)
