"""Exceptions as bytes and back: class, arguments, what C keeps beside them, attributes, notes, causes and contexts.

Runs on slot threads and in drivers. Python's own way loses what a class stores outside of ``__dict__`` and fails for classes with
required arguments; the way that Dask installs for all exceptions (tblib's) also loses what C stores beside the arguments.

Nothing that an exception does when it is looked at (a ``__str__``, ``__reduce__`` or ``__eq__`` that raises anything) leaves here.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, Final, NamedTuple

from flowkit.lineage import pickling
from flowkit.model.shown import cut, text_of
from flowkit.tracebacks import attributes_of, cause_of, context_of, is_a

#: of one exception with all that hangs on it: reports ride in messages through the scheduler, and stay in the event log
MOST_BYTES: Final = 256 << 10
#: of one argument or attribute, where the whole would be larger than that
_MOST_CHARACTERS: Final = 8 << 10
_MOST_BYTES_OF_ONE: Final = 64 << 10
_HEAP_TYPE: Final = 1 << 9
_HANDLED: Final = frozenset(
    {"args", "__dict__", "__weakref__", "__traceback__", "__context__", "__cause__", "__suppress_context__"}
)
#: values of these types must be equal on both sides; of others only the type is compared, since equality is theirs to define
_PLAIN: Final = (str, bytes, int, bool, type(None))
_ADDRESS: Final = re.compile(r"\b0x[0-9a-f]{6,}\b")


class _Manner(NamedTuple):
    """How much of an exception is taken along."""

    #: a ``__reduce__`` that its class defines is heeded
    own_way: bool
    #: its cause and context, and what such a ``__reduce__`` leaves behind of its attributes
    chain: bool = True
    #: what an attribute was looked for in (``AttributeError.obj``): often large, or not to be pickled
    searched: bool = True
    #: long text is cut
    cuts: bool = False


#: tried in this order until one comes back as it was
_MANNERS: Final = (
    _Manner(own_way=True),
    _Manner(own_way=False),
    _Manner(own_way=True, chain=False, searched=False),
    _Manner(own_way=False, chain=False, searched=False),
    _Manner(own_way=False, chain=False, searched=False, cuts=True),
)


class _TooLarge(Exception):
    pass


class _LimitedFile:
    """Bytes that are given up as soon as they are too many."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0

    def write(self, data: Any) -> int:
        piece = bytes(data) if len(data) <= MOST_BYTES else b""
        self.size += len(data)
        if self.size > MOST_BYTES:
            raise _TooLarge
        self.pieces.append(piece)
        return len(piece)


class _Pickler(pickling.Pickler):
    def __init__(self, file: Any, manner: _Manner) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._manner = manner

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, BaseException):
            return _reduced(value, self._manner)
        return super().reducer_override(value)


def dumps(error: BaseException) -> bytes | None:
    """Pickle an exception in the fullest manner in which it survives; None where there is none.

    Also None for one whose ``str`` raises ``SystemExit`` and the like: whoever shows it would be ended by it.

    Examples
    --------
    >>> str(loads(dumps(UnicodeDecodeError("utf-8", b"a", 0, 1, "bad"))))
    "'utf-8' codec can't decode byte 0x61 in position 0: bad"
    """
    if _quietly(lambda: _may_be_shown(error)) is None:
        return None
    for manner in _MANNERS:
        data: bytes | None = _quietly(lambda: _survivor(error, manner))  # noqa: B023 - called at once
        if data is not None:
            return data
    return None


def loads(data: bytes) -> BaseException | None:
    """The exception; None where it cannot be had, as when its module is not there."""
    error = _quietly(lambda: pickle.loads(data))
    return error if isinstance(error, BaseException) else None


def _quietly(do: Callable[[], Any]) -> Any:
    """What it returns; None when it raises, whatever that is: the code of an exception's class is the user's."""
    try:
        return do()
    except BaseException:
        return None


def _may_be_shown(error: BaseException) -> bool:
    with suppress(Exception):
        str(error)
    return True


def _survivor(error: BaseException, manner: _Manner) -> bytes | None:
    """The pickle, if what comes out of it is what went in."""
    file = _LimitedFile()
    _Pickler(file, manner).dump(error)
    data = b"".join(file.pieces)
    restored = pickle.loads(data)
    if type(restored) is not type(error):
        return None
    if manner.own_way and _has_own_way(error):
        # What else it leaves behind is its author's decision.
        return data if _same_text(error, restored) else None
    if not _same_text(error, restored) and not (manner.cuts and len(text_of(error)) > _MOST_CHARACTERS):
        return None
    before, after = _State.of(error, manner), _State.of(restored, manner._replace(cuts=False))
    return data if before.resembles(after) else None


def _same_text(error: BaseException, restored: BaseException) -> bool:
    """Equal but for addresses of objects, which are others after a journey."""
    before, after = text_of(error), text_of(restored)
    return before == after or _ADDRESS.sub("0x", before) == _ADDRESS.sub("0x", after)


# -- taking apart ------------------------------------------------------------------------------------------------------


class _State(NamedTuple):
    """What makes an exception of its class the one it is."""

    args: tuple[Any, ...]
    #: what C and ``__slots__`` keep: by class and name
    fields: dict[tuple[type, str], Any]
    attributes: dict[str, Any]

    @classmethod
    def of(cls, error: BaseException, manner: _Manner) -> _State:
        args, fields = tuple(error.args), dict(_fields(error))
        attributes = dict(_attributes(error))
        if not manner.searched and is_a(error, AttributeError):
            fields.pop((AttributeError, "obj"), None)
        if manner.cuts:
            args = tuple(map(_cut, args))
            fields = {key: _cut(value) for key, value in fields.items()}
            attributes = {name: _cut(value) for name, value in attributes.items()}
        return cls(args, fields, attributes)

    def resembles(self, other: _State) -> bool:
        return (
            len(self.args) == len(other.args)
            and all(map(_alike, self.args, other.args))
            and all(key in other.fields and _alike(value, other.fields[key]) for key, value in self.fields.items())
            and self.attributes.keys() == other.attributes.keys()
            and all(_alike(value, other.attributes[name]) for name, value in self.attributes.items())
        )


def _alike(before: Any, after: Any) -> bool:
    if type(before) is not type(after):
        return False
    return type(before) not in _PLAIN or bool(before == after)


def _cut(value: Any) -> Any:
    if type(value) is str:
        return cut(value, _MOST_CHARACTERS)
    if type(value) in {list, tuple}:  # of notes
        return type(value)(map(_cut, value))
    return value[:_MOST_BYTES_OF_ONE] if type(value) is bytes else value


def _attributes(error: BaseException) -> dict[str, Any]:
    return attributes_of(error)


def _fields(error: BaseException) -> Iterator[tuple[tuple[type, str], Any]]:
    """All that has a place of its own in the object, if it is set."""
    for kind in type(error).__mro__:
        for name, descriptor in vars(kind).items() if kind is not object else ():
            if isinstance(descriptor, MemberDescriptorType | GetSetDescriptorType) and name not in _HANDLED:
                try:
                    yield (kind, name), descriptor.__get__(error, type(error))
                except AttributeError:
                    continue


def _has_own_way(error: BaseException) -> bool:
    kind = type(error)
    definer = next(each for each in kind.__mro__ if "__reduce__" in vars(each))
    return kind.__reduce_ex__ is not object.__reduce_ex__ or definer.__module__ != "builtins"


def _reduced(error: BaseException, manner: _Manner) -> Any:
    cause, context = (cause_of(error), context_of(error)) if manner.chain else (None, None)
    chain = (cause, context, error.__suppress_context__)
    if not (manner.own_way and _has_own_way(error)):
        state = _State.of(error, manner)
        inside = (error.message, error.exceptions) if is_a(error, BaseExceptionGroup) else ()
        return _blank, (type(error), inside), (tuple(state), chain), None, None, _fill
    reduced = error.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    if not isinstance(reduced, tuple):
        return reduced
    make, arguments, own_state = (*reduced, None)[:3]
    attributes = _attributes(error)
    if not manner.chain:
        attributes = {name: value for name, value in attributes.items() if name == "__notes__"}
    return make, arguments, (own_state, attributes, chain), None, None, _complete


# -- putting together --------------------------------------------------------------------------------------------------


def _blank(kind: type[BaseException], inside: tuple[Any, ...]) -> BaseException:
    """One of this class, of which nothing of the user's was called."""
    base: Any = next(each for each in kind.__mro__ if not each.__flags__ & _HEAP_TYPE)
    made: BaseException = base.__new__(kind, *inside)
    return made


def _fill(error: BaseException, state: tuple[tuple[Any, ...], tuple[Any, ...]]) -> None:
    (args, fields, attributes), chain = state
    vars(BaseException)["args"].__set__(error, args)
    for (kind, name), value in fields.items():
        descriptor = vars(kind)[name]
        try:
            known = descriptor.__get__(error, kind)
        except AttributeError:
            known = _fields  # nothing that anybody has
        # Set to None is something else than not set, to C.
        if known is not value:
            _set(descriptor, error, value)
    _attributes(error).update(attributes)
    _hang(error, chain)


def _set(descriptor: Any, error: BaseException, value: Any) -> None:
    with suppress(AttributeError):  # read-only: made with it, or it is found missing when it is compared
        descriptor.__set__(error, value)


def _complete(error: BaseException, state: tuple[Any, Any, tuple[Any, ...]]) -> None:
    """Give one that was made in its class's own way what pickle would give it, then what it still lacks."""
    own_state, attributes, chain = state
    if own_state is not None:
        error.__setstate__(own_state)
    known = _attributes(error)
    for name, value in attributes.items():
        known.setdefault(name, value)
    _hang(error, chain)


def _hang(error: BaseException, chain: tuple[BaseException | None, BaseException | None, bool]) -> None:
    cause, context, suppressed = chain
    for name, value in (("__cause__", cause), ("__context__", context), ("__suppress_context__", suppressed)):
        BaseException.__setattr__(error, name, value)
