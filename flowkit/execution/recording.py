"""Functions that remember the element they were last given, for those of which a traceback does not tell it.

Runs on slot threads. A function written in C leaves no frame, and one that gives its argument another value has lost the element when it
fails. Remembering costs a Python call an element, so it is done where a task is tried again, and where it is replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from dis import get_instructions
from functools import lru_cache
from types import CodeType
from typing import Any, Final

from flowkit.execution.layers import layers_of
from flowkit.lineage.kernels import Filter, FlatMap, FlatMapValues, Map, MapValues, StageProgram, Step
from flowkit.tracebacks import is_own

#: before the first call
NOTHING: Final = object()
_SETS: Final = frozenset({"STORE_FAST", "DELETE_FAST", "STORE_DEREF", "DELETE_DEREF"})


class Recorded:
    """A function of one element that notes it.

    >>> recorded = Recorded(int)
    >>> recorded("7"), recorded.last
    (7, '7')
    """

    __slots__ = ("fn", "last")

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        self.fn = fn
        self.last: Any = NOTHING

    def __call__(self, element: Any) -> Any:
        """Call it, and remember."""
        self.last = element
        return self.fn(element)


def recording(program: StageProgram) -> StageProgram:
    """The program, with functions that remember where they have to. For one task: it remembers for all who run it."""
    steps = tuple(map(_recording, program.steps))
    return program if all(new is old for new, old in zip(steps, program.steps, strict=True)) else replace(program, steps=steps)


def _recording(step: Step) -> Step:
    match step.kernel:
        case Map(fn) | Filter(fn) | FlatMap(fn) | MapValues(fn) | FlatMapValues(fn) if _forgets(fn):
            return replace(step, kernel=replace(step.kernel, fn=Recorded(fn)))
        case _:
            return step


def _forgets(fn: Any) -> bool:
    """Whether its frames would not tell what it was given."""
    first = next(iter(layers_of(fn)), None)
    if first is None:
        return True
    code, place = first
    return not is_own(code.co_filename) and sets(code, argument_name(code, place))


def argument_name(code: CodeType, place: int) -> str:
    """What a function calls its argument at a place; empty when it takes none there. Of ``*args`` that name.

    >>> argument_name((lambda a, *rest: a).__code__, 0), argument_name((lambda a, *rest: a).__code__, 3)
    ('a', 'rest')
    """
    if place < code.co_argcount:
        return code.co_varnames[place]
    has_rest = bool(code.co_flags & 0x04)
    return code.co_varnames[code.co_argcount + code.co_kwonlyargcount] if has_rest else ""


@lru_cache(maxsize=1024)
def sets(code: CodeType, name: str) -> bool:
    """Whether a function gives a local name another value, so that its frame may tell that one."""
    return any(each.opname in _SETS and each.argval == name for each in get_instructions(code))
