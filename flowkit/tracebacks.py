"""Tracebacks that are the user's: their line, then what they wrote; not the way through flowkit in between.

Runs everywhere. Errors leave flowkit by its public methods. Classes that have such are marked ``@trims_own_frames``
(``model.advice.public`` does that too): an exception that passes a method of theirs on its way to the user's code leaves flowkit's
frames behind, in its causes, contexts and groups too.

A bare ``raise`` adds no frame to a traceback: that of the function it stands in was added when the exception arrived there. So a method
that catches what passes it can take its own frame out with the others, and raise on.
"""

from __future__ import annotations

import functools
import sys
import sysconfig
import traceback as tracebacks
import weakref
from collections.abc import Callable, Collection, Iterator
from types import FrameType, FunctionType, TracebackType
from typing import Any, Final, TypeGuard, TypeVar, cast

from flowkit.errors import InternalError
from flowkit.visible import visible

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])
E = TypeVar("E", bound=BaseException)

OWN_DIRECTORY: Final = __file__.replace("\\", "/").rpartition("/")[0] + "/"
_INSTALLED: Final = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
#: special methods that raise for people; those that are called often (``__hash__``, ``__repr__``) raise nothing
_SPECIAL: Final = frozenset(
    [
        "__init__",
        "__call__",
        "__getattr__",
        "__getitem__",
        "__iter__",
        "__next__",
        "__len__",
        "__bool__",
        "__contains__",
        "__eq__",
        "__add__",
        "__or__",
        "__enter__",
        "__exit__",
        "__reduce__",
    ]
)
#: those who want to see all frames, as long as they live
_curious: weakref.WeakSet[object] = weakref.WeakSet()


# What Python itself keeps of an exception. A class of the user's may have attributes of these names that raise, and whoever looks at an
# exception on a thread that others wait for must not call them.
_CAUSE: Final[Any] = vars(BaseException)["__cause__"]
_CONTEXT: Final[Any] = vars(BaseException)["__context__"]
_TRACEBACK: Final[Any] = vars(BaseException)["__traceback__"]
_ATTRIBUTES: Final[Any] = vars(BaseException)["__dict__"]
_EXCEPTIONS: Final[Any] = vars(BaseExceptionGroup)["exceptions"]


def is_a(error: BaseException, kind: type[E]) -> TypeGuard[E]:
    """``isinstance``, for which a class of the user's is not asked what it is."""
    return issubclass(type(error), kind)


def cause_of(error: BaseException) -> BaseException | None:
    """Its ``__cause__``, of nobody's making."""
    cause: BaseException | None = _CAUSE.__get__(error)
    return cause


def set_cause(error: BaseException, cause: BaseException) -> None:
    """Set its ``__cause__``."""
    _CAUSE.__set__(error, cause)


def context_of(error: BaseException) -> BaseException | None:
    """Its ``__context__``, of nobody's making."""
    context: BaseException | None = _CONTEXT.__get__(error)
    return context


def traceback_of(error: BaseException) -> TracebackType | None:
    """Its ``__traceback__``, of nobody's making."""
    traceback: TracebackType | None = _TRACEBACK.__get__(error)
    return traceback


def attributes_of(error: BaseException) -> dict[str, Any]:
    """Its ``__dict__``, of nobody's making."""
    attributes: dict[str, Any] = _ATTRIBUTES.__get__(error)
    return attributes


def notes_of(error: BaseException) -> tuple[str, ...]:
    """The notes of an exception that are text; never raises."""
    try:
        notes = error.__notes__  # ``type(note) is str``: a subclass has methods of the user's
        return tuple(note for note in notes if type(note) is str) if type(notes) in {list, tuple} else ()
    except BaseException:  # a property of their own, of any kind
        return ()


def add_note(error: BaseException, note: str) -> None:
    """Add a note, made visible, to an exception of any make; one whose notes are of another kind goes without."""
    notes = attributes_of(error).setdefault("__notes__", [])
    if type(notes) is list:
        notes.append(visible(note))


def as_text(error: BaseException) -> str:
    """An exception as Python prints it, with what it came from; its frames alone where it does not let itself be looked at. Raises nothing.

    >>> as_text(ValueError("no"))
    'ValueError: no'
    """
    try:
        return "".join(tracebacks.format_exception(error)).rstrip("\n")
    except BaseException:
        name: str = vars(type)["__qualname__"].__get__(type(error))
        return "".join(tracebacks.format_tb(traceback_of(error))) + f"{name} (what it says cannot be shown)"


def is_own(filename: str) -> bool:
    """Whether a file is flowkit's."""
    return filename.startswith(OWN_DIRECTORY)


def is_users(filename: str) -> bool:
    """Whether a file is neither flowkit's nor Python's nor an installed package's."""
    return not (is_own(filename) or filename.startswith(("<frozen", "<string>", *_INSTALLED)))


def show_all_for(owner: object) -> None:
    """Leave tracebacks as they are from now on, until nobody who said so is there any more."""
    _curious.add(owner)


def show_no_more_for(owner: object) -> None:
    """Take it back; harmless when it was not said."""
    _curious.discard(owner)


def trims_own_frames(cls: C, internal: Collection[str] = ()) -> C:
    """Class decorator: exceptions that leave its public methods, also inherited ones, have no frames of flowkit.

    ``internal`` methods are called by flowkit alone, and stay as they are.
    """
    for home in cls.__mro__:
        if home.__module__.startswith("flowkit."):
            for name, found in list(vars(home).items()):
                if (not name.startswith("_") or name in _SPECIAL) and name not in internal:
                    _make_door(home, name, found)
    return cls


def as_public(thing: Any) -> Any:
    """A class that users name, as ``trims_own_frames``, or a function behind a ``door``; exceptions and whatever else as they are."""
    if isinstance(thing, type) and not issubclass(thing, BaseException):
        return trims_own_frames(thing)
    return door(thing) if isinstance(thing, FunctionType) else thing


def _make_door(home: type, name: str, found: object) -> None:
    if isinstance(found, classmethod):
        if (inner := found.__func__) is not (made := door(inner)):
            setattr(home, name, classmethod(made))
    elif isinstance(found, property):
        if found.fget is not None and found.fget is not (made := door(found.fget)):
            setattr(home, name, property(made, found.fset, found.fdel, found.__doc__))
    elif isinstance(found, FunctionType) and (is_own(found.__code__.co_filename) or name == "__init__"):
        setattr(home, name, door(found))


def door(fn: F) -> F:
    """The function, as one by which exceptions leave flowkit."""
    made = _door(fn, _leave, sys._getframe)
    function: object = fn
    if not isinstance(function, FunctionType) or function.__code__ is made.__code__:
        return fn
    # In the globals of its own module still, for whoever looks (doctest does): so it takes what it needs along.
    through = FunctionType(made.__code__, function.__globals__, function.__name__, None, made.__closure__)
    return cast("F", functools.wraps(fn)(through))


def _door(
    fn: Callable[..., Any], leave: Callable[[BaseException, FrameType], None], frame: Callable[[int], FrameType]
) -> FunctionType:
    def door(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except BaseException as error:
            leave(error, frame(1))
            raise

    assert isinstance(door, FunctionType)
    return door


def _leave(error: BaseException, caller: FrameType) -> None:
    # What flowkit calls itself is not left yet.
    if not is_own(caller.f_code.co_filename):
        trim(error)


def trim(error: BaseException) -> None:
    """Take flowkit's frames out of an exception and of all it came from, as far as they are no news.

    An ``InternalError`` keeps them: it is a bug of flowkit's, and they say where.
    """
    if _curious:
        return
    for each in _all_in(error):
        if not issubclass(type(each), InternalError):
            # What it came from was caught by flowkit, or by a function of the user's.
            _TRACEBACK.__set__(each, users_part(traceback_of(each), inside=each is not error))


def _all_in(error: BaseException) -> Iterator[BaseException]:
    pending, seen = [error], {id(error)}
    for each in pending:  # grows while it is walked
        yield each
        inner = _EXCEPTIONS.__get__(each) if issubclass(type(each), BaseExceptionGroup) else ()
        for more in (cause_of(each), context_of(each), *inner):
            if more is not None and id(more) not in seen:
                seen.add(id(more))
                pending.append(more)


def users_part(traceback: TracebackType | None, *, inside: bool = False) -> TracebackType | None:
    """A traceback without flowkit's frames, and without those of libraries that flowkit calls; None where there are no others.

    With ``inside`` flowkit is taken to have called the first of them.
    """
    kept: list[TracebackType] = []
    found = traceback
    while found is not None:
        filename = found.tb_frame.f_code.co_filename
        if is_own(filename) or (filename == "<string>" and _is_of_own_module(found.tb_frame)):
            inside = True
        elif not inside or not filename.startswith(("<frozen", *_INSTALLED)):
            inside = False
            kept.append(found)
        found = found.tb_next
    trimmed: TracebackType | None = None
    for each in reversed(kept):
        trimmed = TracebackType(trimmed, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return trimmed


def _is_of_own_module(frame: FrameType) -> bool:
    """Whether it is what a dataclass of flowkit had made for it."""
    return str(frame.f_globals.get("__name__", "")).startswith("flowkit.")
