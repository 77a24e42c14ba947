"""Whether running a program could change it: a list that a function appends to, a counter it raises, an object it was made with.

Pure; runs on slot threads, once for each program and executor. What is not known to be without state counts as having one: then each
task, and each attempt at one, has a program of its own, so that none sees what another left in it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import _lru_cache_wrapper, partial
from opcode import opmap
from operator import attrgetter, itemgetter, methodcaller
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, Final

import numpy as np

from flowkit.execution.accumulators import TaskAccumulator
from flowkit.execution.broadcast import TaskBroadcast
from flowkit.lineage.kernels import StageProgram
from flowkit.storage.blocks.immutable_values import ATOMS, are_immutable

#: what is looked at; a program with more counts as having a state
_MOST_VISITS: Final = 20_000
#: handles of ours whose values live elsewhere
_HANDLES: Final = (TaskAccumulator, TaskBroadcast)
#: these, and callables of Python's and numpy's own
_STATELESS: Final = (
    ModuleType,
    MethodDescriptorType,
    WrapperDescriptorType,
    ClassMethodDescriptorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    itemgetter,
    attrgetter,
    methodcaller,
    np.ufunc,
    *_HANDLES,
)
_WRITES_GLOBALS: Final = frozenset(opmap[name] for name in ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR"))
_WRITES_CELLS: Final = frozenset(opmap[name] for name in ("STORE_DEREF", "DELETE_DEREF"))


class _HasState(Exception):
    """Something that running a program could change."""


def has_state(program: StageProgram) -> bool:
    """Return whether running a program could change anything that the next run of it would see.

    >>> from flowkit.lineage.kernels import IntegerRange, Map, Result, Step, StepInput
    >>> def program(fn):
    ...     source = Step(0, IntegerRange(0, 9, 1, 1), (), 1, "range", "")
    ...     return StageProgram((source, Step(1, Map(fn), (), 1, "map", "")), Result(len))
    >>> seen = []
    >>> has_state(program(lambda x: x + 1)), has_state(program(seen.append))
    (False, True)
    """
    waiting: list[Any] = [program]
    known: set[int] = set()
    try:
        while waiting:
            value = waiting.pop()
            if id(value) not in known:
                known.add(id(value))
                if len(known) > _MOST_VISITS:
                    return True
                waiting += _parts_of(value)
    except BaseException:  # it has a state, or an object of the user's that does not let itself be looked at
        return True
    return False


def _parts_of(value: Any) -> Iterable[Any]:
    """Return what a value holds that might have a state. Raises ``_HasState`` for one that has."""
    kind = type(value)
    if kind is FunctionType:
        return _parts_of_function(value)
    if kind.__module__.startswith("flowkit.") and kind not in _HANDLES:
        return _callables_in(value)
    if isinstance(value, type):
        return () if _is_importable(value) else _functions_of(value)
    if isinstance(value, _STATELESS):
        return ()
    if kind is BuiltinFunctionType:
        return () if isinstance(value.__self__, ModuleType | type(None)) else (value.__self__,)
    if kind is MethodType:
        return value.__self__, value.__func__
    if kind is partial and not vars(value):
        return value.func, *value.args, *value.keywords.values()
    if kind is _lru_cache_wrapper:
        return (value.__wrapped__,)  # what it remembers would be computed again alike
    if kind in {tuple, frozenset}:
        found: Iterable[Any] = value
        return found
    if kind.__dictoffset__ == 0 and kind.__basicsize__ == object.__basicsize__:
        return (kind,)  # an object without room for attributes
    if not are_immutable([value]):
        raise _HasState
    return ()


def _callables_in(value: Any) -> list[Any]:
    """Return what an object of ours may call users' functions by.

    Other data of ours is ours to leave as it is, and users' values in it are copied where they are used.
    """
    found: list[Any] = []
    waiting: list[Any] = list(getattr(value, "__dict__", {}).values())
    waiting += [getattr(value, name, None) for name in _slots_of(type(value))]
    for each in waiting:  # grows while it is walked
        kind = type(each)
        if kind is tuple or kind is list:
            waiting += each
        elif kind not in ATOMS and (kind.__module__.startswith("flowkit.") or callable(each)):
            found.append(each)
    return found


#: the names of slots, by type; of our types, which are few
_slots: dict[type, tuple[str, ...]] = {}
#: annotations of what calls nothing
_PLAIN: Final = frozenset({"int", "str", "bool", "float", "bytes", "int | None", "str | None", "tuple[int, ...]"})


def _slots_of(kind: type) -> tuple[str, ...]:
    found = _slots.get(kind)
    if found is None:
        found = _slots[kind] = tuple(
            name
            for base in kind.__mro__
            for name, slot in vars(base).items()
            if isinstance(slot, MemberDescriptorType) and vars(base).get("__annotations__", {}).get(name) not in _PLAIN
        )
    return found


# -- classes and functions ---------------------------------------------------------------------------------------------------------


def _parts_of_function(function: FunctionType) -> Iterator[Any]:
    if _is_the_modules(function):
        return  # unpickled again, it would be the same
    code = function.__code__
    operations = _operations(code)
    if vars(function) or operations & _WRITES_GLOBALS or (code.co_freevars and operations & _WRITES_CELLS):
        raise _HasState
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # empty
            raise _HasState from None
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield from (function.__globals__[name] for name in _names(code) if name in function.__globals__)


def _is_importable(kind: type) -> bool:
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind


def _functions_of(kind: type) -> Iterator[Any]:
    for held in vars(kind).values():
        function = getattr(held, "__func__", held)
        if type(function) is FunctionType:
            yield function


def _is_the_modules(function: FunctionType) -> bool:
    module = sys.modules.get(function.__module__)
    return module is not None and vars(module) is function.__globals__ and "<locals>" not in function.__qualname__


def _inner(code: CodeType) -> Iterator[CodeType]:
    waiting = [code]
    while waiting:
        each = waiting.pop()
        yield each
        waiting += [constant for constant in each.co_consts if isinstance(constant, CodeType)]


def _operations(code: CodeType) -> set[int]:
    return set().union(*(each.co_code[::2] for each in _inner(code)))


def _names(code: CodeType) -> set[str]:
    return set().union(*(each.co_names for each in _inner(code)))
