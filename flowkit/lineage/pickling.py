"""Functions by value, with the names of the files they stand in: tracebacks, profiles and debuggers point at lines of them.

Runs wherever something is pickled. Since 3.1.3 cloudpickle puts ``<dynamic-code>`` in their place, so that equal functions of different
notebooks have equal pickles.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
from collections import ChainMap
from types import CodeType, FunctionType
from typing import Any, ClassVar, Final, NewType

import cloudpickle

_DYNAMIC: Final = "<dynamic-code>"


#: how cloudpickle takes each type apart
_KNOWN: Any = cloudpickle.Pickler.dispatch_table


def _reduced(code: CodeType) -> tuple[Any, ...]:
    make, arguments = _KNOWN[CodeType](code)
    # A text of its own each time: one that is shared would be pickled once, or twice, as chance has it.
    return make, tuple("".join(code.co_filename) if each == _DYNAMIC else each for each in arguments)


def _found_by_name(value: Any) -> bool:
    """Whether another process finds it where this one does: in a module that is not the driver's script."""
    module = getattr(value, "__module__", None)
    found: Any = sys.modules.get(module) if isinstance(module, str) and module != "__main__" else None
    for name in str(getattr(value, "__qualname__", "")).split("."):
        found = getattr(found, name, None)
    return found is value


def _reduced_cache(function: Any) -> str | tuple[Any, ...]:
    if _found_by_name(function):
        return str(function.__qualname__)
    settings = function.cache_parameters()
    return _make_cache, (settings["maxsize"], settings["typed"], function.__wrapped__)


def _make_cache(maxsize: int | None, typed: bool, function: Any) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


def _reduced_property(held: Any) -> tuple[Any, ...]:
    return _make_property, (held.func, held.attrname)


def _make_property(function: Any, name: str | None) -> Any:
    made = functools.cached_property(function)
    made.attrname = name
    return made


def _reduced_type(new: Any) -> str | tuple[Any, ...]:
    return str(new.__qualname__) if _found_by_name(new) else (_make_type, (new.__name__, new.__supertype__, new.__module__))


def _make_type(name: str, base: Any, module: str) -> Any:
    made: Any = NewType(name, base)  # type: ignore[misc,valid-newtype,unused-ignore]
    made.__module__ = module
    return made


def _make_dispatch(implementations: dict[type, Any]) -> Any:
    made = functools.singledispatch(implementations[object])
    for kind, function in implementations.items():
        made.register(kind, function)
    return made


#: classes and functions of flowkit that every process finds by name
_own: Final[set[Any]] = set()


def _is_own(value: Any) -> bool:
    if value in _own:
        return True
    is_own = str(value.__module__).startswith("flowkit.") and _found_by_name(value)
    if is_own:
        _own.add(value)
    return is_own


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """As cloudpickle's. What ``functools`` and ``typing`` make of a script's functions travels by value as these do."""

    dispatch_table: ClassVar = ChainMap(
        {
            CodeType: _reduced,
            functools._lru_cache_wrapper: _reduced_cache,
            functools.cached_property: _reduced_property,
            NewType: _reduced_type,
        },
        _KNOWN,
    )

    def reducer_override(self, value: Any) -> Any:
        """As cloudpickle's, but for functions that choose by their argument's type."""
        kind = type(value)
        if (kind is type or kind is FunctionType) and _is_own(value):
            return NotImplemented  # by name; cloudpickle would find that out anew each time
        if kind is FunctionType and hasattr(value, "registry") and hasattr(value, "dispatch") and not _found_by_name(value):
            return _make_dispatch, (dict(value.registry),)
        return super().reducer_override(value)


def dumps(value: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> bytes:
    """As ``cloudpickle.dumps``.

    >>> pickle.loads(dumps(lambda: 1)).__code__.co_filename == (lambda: 1).__code__.co_filename
    True
    """
    with io.BytesIO() as file:
        Pickler(file, protocol=protocol).dump(value)
        return file.getvalue()


def dumps_quickly(value: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> bytes:
    """As ``pickle.dumps`` where that will do, for it is several times as fast; else by value: lambdas, and classes of the driver's script.

    Only where executors pickle: in a driver, plain pickle takes what is its script's by name, and nobody else has that script.

    >>> pickle.loads(dumps_quickly([lambda: 1]))[0]()
    1
    """
    try:
        return pickle.dumps(value, protocol)
    except (pickle.PicklingError, AttributeError, TypeError, ImportError):
        return dumps(value, protocol)
