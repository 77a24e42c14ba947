"""What a public class or module says when a name is missing, or an argument stands where none does: the name that was meant.

Pure; runs everywhere. Names cost nothing where they are right: those that are not ours are descriptors on the class, since a
``__getattr__`` would slow every access to a class's attributes. Calls of operations with options pass through one more Python call.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache, update_wrapper
from types import FunctionType
from typing import Any, Final, NoReturn, TypeVar

from flowkit.errors import WrongType
from flowkit.model.checks import check_bool, check_str
from flowkit.tracebacks import trims_own_frames

C = TypeVar("C", bound=type)

_VARIADIC: Final = 0x04  # inspect.CO_VARARGS
#: before a capital that begins a word
_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


# -- names


def snake(name: str) -> str:
    """A name in snake_case.

    >>> snake("reduceByKey")
    'reduce_by_key'
    """
    return _WORD.sub("_", name).lower()


def advice(label: str, name: str, owner: object) -> str | None:
    """What to say of a missing name: flowkit's own for it; None where nobody knows one.

    >>> advice("RDD", "reduceByKey", object())
    "RDD has no reduceByKey; flowkit's name is reduce_by_key"
    """
    found = _by_name().get((label, name))
    if found is not None:
        ours, note = found[0], found[1].replace("`", "").removeprefix("no; ")
        if not ours:
            return f"{label} has no {name}: {note}"
        elsewhere = not any(each.rpartition(".")[0] == label for each in ours)
        shown = " or ".join(_shown(each, label, owner) for each in ours)
        return f"{label} has no {name}; flowkit's name is {shown}" + (f" ({note})" if note and elsewhere else "")
    plain = snake(name)
    if plain != name and hasattr(type(owner) if not isinstance(owner, type) else owner, plain):
        return f"{label} has no {name}; flowkit's name is {_shown(f'{label}.{plain}', label, owner)}"
    return None


@cache
def _by_name() -> dict[tuple[str, str], tuple[tuple[str, ...], str]]:
    """By class of ours and name of theirs: names of ours, and the row's note."""
    from flowkit.model.pyspark_names import COUNTERPARTS, TABLES

    found: dict[tuple[str, str], tuple[tuple[str, ...], str]] = {}
    for table in TABLES:
        for row in table.rows:
            theirs, ours = row.theirs.split(), tuple(row.ours.split())
            for place, each in enumerate(theirs):
                owner, _, name = each.rpartition(".")
                chosen = ours[place : place + 1] if len(ours) == len(theirs) else ours
                found.setdefault((COUNTERPARTS[owner or table.owner], name), (chosen, row.note))
    return found


def _shown(ours: str, label: str, owner: object) -> str:
    """A name of ours as it is written where another one was tried."""
    holder, _, last = ours.rpartition(".")
    if holder != label:
        return ours
    member = vars_of(owner).get(last)
    return f"{last}, without parentheses" if isinstance(member, property) else last


def vars_of(owner: object) -> dict[str, Any]:
    """What a class, or that of an object, has by name, its bases' too."""
    kind = owner if isinstance(owner, type) else type(owner)
    return {name: member for base in reversed(kind.__mro__) for name, member in vars(base).items()}


def missing_from_module(label: str, module: str, name: str) -> NoReturn:
    """For a module's ``__getattr__``: its own error, or one that names what was meant, also from ``from flowkit import name``."""
    told = None if name.startswith("_") else advice(label, name, sys.modules[module])
    # `from m import name` puts an error of its own in the place of an AttributeError, and the advice would be lost.
    if told is not None and _is_imported(sys._getframe(2)):
        raise ImportError(told, name=module)
    text = f"module {module!r} has no attribute {name!r}"
    raise AttributeError(told or text, name=name, obj=sys.modules[module])


def _is_imported(frame: Any) -> bool:
    """Whether the frame is at the part of a ``from`` import that takes one name."""
    import opcode

    code, place = frame.f_code.co_code, frame.f_lasti
    return bool(0 <= place < len(code) and opcode.opname[code[place]] == "IMPORT_FROM")


class _Foreign:
    """A name that is not ours, on a class: whoever asks for it has an AttributeError that says what is."""

    __slots__ = ("_label", "_name")

    def __init__(self, label: str, name: str) -> None:
        self._label = label
        self._name = name

    def __get__(self, instance: object, owner: type) -> NoReturn:
        asked = owner if instance is None else instance
        told = advice(self._label, self._name, asked) or f"{self._label!r} object has no attribute {self._name!r}"
        raise AttributeError(told, name=self._name, obj=asked)


def _dir(self: object) -> list[str]:
    return _without_foreign(type(self), object.__dir__(self))


def _without_foreign(kind: type, names: Iterable[str]) -> list[str]:
    known = vars_of(kind)
    return [name for name in names if type(known.get(name)) is not _Foreign]


class Advising(type):
    """Of classes that are ``public``: names that are not ours are not among those that are listed."""

    def __dir__(cls) -> list[str]:
        return _without_foreign(cls, super().__dir__())


# -- classes


def public(label: str, *, internal: Collection[str] = ()) -> Callable[[C], C]:
    """Decorate a class that users meet as ``label``, whatever mixins it is made of.

    A missing attribute is an AttributeError that names flowkit's. Errors of its calls speak of ``label.method``; a positional argument too
    many and an unknown keyword are ``errors.WrongType``, a TypeError, which says how to write the call. Exceptions leave its methods without frames
    of flowkit. ``internal`` methods are for flowkit itself, and are called as they are.
    """

    def decorated(kind: C) -> C:
        for name in _foreign_names(label, kind):
            setattr(kind, name, _Foreign(label, name))
        kind.__dir__ = _dir  # type: ignore[method-assign, assignment]
        for home, name, function in _own_functions(kind):
            function.__qualname__ = _innermost(function).__qualname__ = f"{label}.{name}"
            if name not in internal and _takes_options(function):
                setattr(home, name, _explaining(function))
        return trims_own_frames(kind, internal)

    return decorated


def _foreign_names(label: str, kind: type) -> set[str]:
    """PySpark's names that are looked for on a class, and its own in camelCase, as far as it has none of that name."""
    own = vars_of(kind)
    camel = {_camel(name) for name in own if not name.startswith("_")}
    theirs = {name for of, name in _by_name() if of == label and not name.startswith("_")}
    slots = {name for base in kind.__mro__ for name in getattr(base, "__annotations__", ())}
    return (camel | theirs) - set(own) - slots


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _own_functions(kind: type) -> Iterator[tuple[type, str, FunctionType]]:
    """Public functions of flowkit's that a class has, and the base that brings each."""
    seen: set[str] = set()
    for base in kind.__mro__:
        for name, member in list(vars(base).items()):
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            if isinstance(member, FunctionType) and base.__module__.startswith("flowkit.") and not _is_protocol(base):
                yield base, name, member


def _is_protocol(kind: type) -> bool:
    return bool(vars(kind).get("_is_protocol"))


def _innermost(function: FunctionType) -> FunctionType:
    """What decorators of flowkit's own wrap."""
    while isinstance(wrapped := getattr(function, "__wrapped__", None), FunctionType):
        function = wrapped
    return function


def _takes_options(function: FunctionType) -> bool:
    code = _innermost(function).__code__
    named = code.co_varnames[: code.co_argcount]
    return not code.co_flags & _VARIADIC and (code.co_kwonlyargcount > 0 or "num_partitions" in named)


def _explaining(function: FunctionType) -> FunctionType:
    """The function, whose TypeErrors of a wrong call say what is right, and whose flags and texts are such."""
    inner = _innermost(function)
    refusal, checks = _refusal, _checks_of(inner)  # no globals of this module's, see below

    def call(*args: Any, **options: Any) -> Any:
        try:
            if not options:
                return function(*args)  # half the cost
            for name, value in options.items():
                if name in checks:
                    checks[name](name, value)
            return function(*args, **options)
        except TypeError:
            refused = refusal(inner, args[1:], options)
            if refused is None:
                raise  # out of the function, not of its call
            raise refused from None

    # Of the function's module, or doctests would not take it for that module's own.
    made = FunctionType(call.__code__, inner.__globals__, function.__name__, None, call.__closure__)
    update_wrapper(made, function)
    return made


def _checks_of(function: FunctionType) -> dict[str, Callable[[str, Any], None]]:
    """By option, what refuses a value of a wrong type: one that is true or compares as something else would change what is done."""
    code, told = function.__code__, function.__annotations__
    named = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return {name: _CHECKS[told[name]] for name in named if told.get(name) in _CHECKS}


def _optional_str(name: str, value: Any) -> None:
    if value is not None:
        check_str(name, value)


#: by annotation, as it is written
_CHECKS: Final[dict[str, Callable[[str, Any], None]]] = {
    "bool": check_bool,
    "str": check_str,
    "OnError": check_str,
    "str | None": _optional_str,
}


def _refusal(function: FunctionType, args: tuple[Any, ...], options: dict[str, Any]) -> WrongType | None:
    """How a call should have been written."""
    code = function.__code__
    positional = code.co_varnames[1 : code.co_argcount]
    named = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    unknown = [name for name in options if name not in positional and name not in named]
    if unknown:
        return _unknown(function, unknown[0], options[unknown[0]], (*positional, *named))
    if len(args) > len(positional):
        return _misplaced(function, args, positional, named)
    return None


def _unknown(function: FunctionType, name: str, value: Any, known: tuple[str, ...]) -> WrongType:
    from flowkit.model.pyspark_names import KEYWORDS

    meant = KEYWORDS.get(name) or snake(name)
    if meant in known:
        told = f"flowkit's name is {meant}"
    elif " " in meant:
        told = meant
    elif close := difflib.get_close_matches(name, known, 1):
        told = f"did you mean {close[0]}?"
    else:
        told = f"it takes {', '.join(known)}"
    return WrongType(
        f"{function.__qualname__}() has no argument {name}; {told}", name=name, value=value, allowed=", ".join(known)
    )


def _misplaced(function: FunctionType, args: tuple[Any, ...], positional: tuple[str, ...], named: tuple[str, ...]) -> WrongType:
    from flowkit.model.pyspark_names import KEYWORDS, ORDERS

    order = (*positional, *named)
    theirs = tuple(ORDERS.get(function.__qualname__, "").split())
    if theirs and (theirs[0] == order[0] or isinstance(args[0], bool)):
        order = theirs
    given = dict(zip(order, args, strict=False))
    # As it is to be written: what has a place in its place, the rest by name.
    written = [
        _short(given[name]) if name in given else name for name in positional if name in given or name in order[: len(args)]
    ]
    written += [f"{name}={_short(given[name])}" for name in named if name in given]
    first = next((name for name in named if name in given), positional[-1] if positional else function.__name__)
    left = "".join(f"; {KEYWORDS[name]}" for name in given if name not in positional and name not in named)
    count = len(positional)
    takes = f"{count} positional argument{'' if count == 1 else 's'}" if count else "no positional arguments"
    return WrongType(
        f"{function.__qualname__}() takes {takes}, {len(args)} were given; write {function.__name__}({', '.join(written)}){left}",
        name=first,
        value=given.get(first),
        allowed=f"{first} by name",
    )


def _short(value: Any) -> str:
    from flowkit.model.shown import short

    if callable(value):
        name = getattr(value, "__name__", "")
        return name if isinstance(name, str) and name.isidentifier() else "fn"
    return short(value, 40)
