"""A user's exception on its way from a task to the driver: same type, same arguments, and where it happened as a note.

``describe`` runs on slot threads, ``raise_at_driver`` in the driver. Tracebacks cannot be pickled, so the remote one travels as
text, without flowkit's own frames, and hangs on the exception as its cause.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, MethodType
from typing import Any, NamedTuple

import cloudpickle

from flowkit.errors import JobFailed, UserError
from flowkit.execution.end_markers import function_name
from flowkit.execution.narrow import where
from flowkit.execution.records import short
from flowkit.lineage.kernels import (
    Aggregate,
    Aggregator,
    Filter,
    FlatMap,
    FlatMapValues,
    Map,
    MapPartitions,
    MapValues,
    Result,
    ShuffleRead,
    ShuffleWrite,
    StageProgram,
    Step,
)
from flowkit.lineage.partitioners import FunctionPartitioner, RangePartitioner
from flowkit.model.task import ExceptionFailure

_OWN_DIRECTORY = str(Path(__file__).parent.parent)
#: Exceptions in a chain of causes that are looked at; a chain may be a ring.
_MOST_CAUSES = 16
#: Operations named where it is not known which of them failed.
_MOST_OPERATIONS = 6


@dataclass(frozen=True, slots=True)
class UserCall:
    """A call of a user's function that did not return."""

    function: str
    #: ``map at words.py:12``
    where: str
    #: repr of its first argument, cut; None where it has none or it is no element
    element: str | None
    #: whether it pulls elements itself, so that what raised may be a function before it that leaves no frame
    encloses: bool = False


class RemoteTraceback(Exception):
    """The frames on the executor, as text: the ``__cause__`` of what is raised at the driver, printed above it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


# -- on the executor ---------------------------------------------------------------------------------------------------


def describe(error: BaseException, program: StageProgram | None, partition: int, *, stage: str = "the stage") -> ExceptionFailure:
    """Report an exception of user code.

    Parameters
    ----------
    error
        What ``run_program`` raised; its arguments stay as they are, a note is added to it.
    program
        The stage; None when it could not even be loaded.
    stage
        For people, e.g. ``stage 3 (map at words.py:12)``.

    Returns
    -------
    ExceptionFailure
        ``pickled`` is None when the exception does not survive a round trip. Errors that say that the program itself is
        wrong (``UserError``) are fatal: another try would fail alike.
    """
    note = _note(find_user_call(error, program) if program else None, program, stage, partition)
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return ExceptionFailure(
        type_name=_type_name(error),
        message=_text_of(error),
        traceback=_trimmed_traceback(error),
        pickled=_pickled(error),
        fatal=isinstance(error, UserError),
    )


def _note(call: UserCall | None, program: StageProgram | None, stage: str, partition: int) -> str:
    place = f"partition {partition} of {stage}"
    if program is None:
        return f"In {place}"
    # A function written in C leaves no frame behind: all that is known then is which of them were under way.
    silent = {known.where for known in _user_functions(program) if _code_of(known.fn) is None}
    if call is None or (call.encloses and silent):
        possible = silent if call is None else {*silent, call.where}
        return f"In {place}, in {_operations(program, possible)}"
    element = "" if call.element is None else f", for the element {call.element}"
    return f"In {call.where} (function {call.function}), {place}{element}"


def _operations(program: StageProgram, possible: set[str]) -> str:
    """Operations of which one is to blame, the last ones of the stage; all that call the user's functions if none is suspected."""
    places = list(dict.fromkeys(known.where for known in _user_functions(program) if not possible or known.where in possible))
    if len(places) == 1:
        return places[0]
    return f"one of {', '.join(places[-_MOST_OPERATIONS:])}" if places else "an operation without a function"


def find_user_call(error: BaseException, program: StageProgram) -> UserCall | None:
    """The innermost call of one of the program's functions in the traceback, or in those of the exception's causes."""
    by_code = {code: known for known in _user_functions(program) if (code := _code_of(known.fn))}
    for each in _with_causes(error):
        found: UserCall | None = None
        for frame, _ in traceback.walk_tb(each.__traceback__):
            known = by_code.get(frame.f_code)
            if known is None:
                continue
            if known.role is _Role.ENCLOSES:
                # What it calls is not known beforehand, such as the function given to reduce: the innermost frame tells.
                found = UserCall(_innermost_function(each) or function_name(known.fn), known.where, None, encloses=True)
            else:
                element = _first_argument(frame, known.fn) if known.role is _Role.TAKES_ELEMENT else None
                found = UserCall(function_name(known.fn), known.where, element)
        if found is not None:
            return found
    return None


def _innermost_function(error: BaseException) -> str | None:
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__) if not _is_own(frame.f_code.co_filename)]
    return codes[-1].co_qualname if codes else None


def who_leaked(error: BaseException, program: StageProgram) -> tuple[str, str]:
    """Name of the function that let a ``StopIteration`` out, and of the operation that called it as far as that is known."""
    call = find_user_call(error, program)
    if call is not None:
        return call.function, call.where
    return _innermost_function(error) or "a function", _operations(program, set())


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if each is None:
            return
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


class _Role(Enum):
    TAKES_ELEMENT = "its first argument is an element"
    MERGES = "its arguments were made of elements"
    ENCLOSES = "it gets the iterator"


class _UserFunction(NamedTuple):
    fn: Callable[..., Any]
    #: operation and call site
    where: str
    role: _Role


def _user_functions(program: StageProgram) -> Iterator[_UserFunction]:
    for step in program.steps:
        yield from _functions_of(step)
    match program.output:
        case Result(fn, operation, call_site):
            yield _UserFunction(fn, f"{operation} at {call_site}" if call_site else operation, _Role.ENCLOSES)
        case ShuffleWrite(_, partitioner, aggregator):
            place = f"the shuffle after {where(program.steps[-1])}"
            if aggregator is not None:
                yield from _functions_of_aggregator(aggregator, place)
            if isinstance(partitioner, FunctionPartitioner):
                yield _UserFunction(partitioner.fn, place, _Role.TAKES_ELEMENT)
            elif isinstance(partitioner, RangePartitioner) and partitioner.key is not None:
                yield _UserFunction(partitioner.key, place, _Role.TAKES_ELEMENT)


def _functions_of(step: Step) -> Iterator[_UserFunction]:
    place = where(step)
    match step.kernel:
        case Map(fn) | Filter(fn) | FlatMap(fn) | MapValues(fn) | FlatMapValues(fn):
            yield _UserFunction(fn, place, _Role.TAKES_ELEMENT)
        case MapPartitions(fn):
            yield _UserFunction(fn, place, _Role.ENCLOSES)
        case Aggregate(aggregator):
            yield from _functions_of_aggregator(aggregator, place)
        case ShuffleRead(_, aggregator, order):
            if aggregator is not None:
                yield from _functions_of_aggregator(aggregator, place)
            if order is not None and order.key is not None:
                yield _UserFunction(order.key, place, _Role.TAKES_ELEMENT)
        case _:
            return


def _functions_of_aggregator(aggregator: Aggregator, place: str) -> Iterator[_UserFunction]:
    yield _UserFunction(aggregator.create, place, _Role.TAKES_ELEMENT)
    yield _UserFunction(aggregator.merge_value, place, _Role.MERGES)
    yield _UserFunction(aggregator.merge_combiners, place, _Role.MERGES)


def _code_of(fn: Any) -> CodeType | None:
    for _ in range(_MOST_CAUSES):
        if isinstance(fn, partial):
            fn = fn.func
        elif isinstance(fn, MethodType):
            fn = fn.__func__
        elif hasattr(fn, "__wrapped__"):
            # A decorator's own frame comes first, but what it wraps says more.
            fn = fn.__wrapped__
        else:
            break
    code = getattr(fn, "__code__", None)
    if code is None and not isinstance(fn, type):
        code = getattr(type(fn).__dict__.get("__call__"), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _first_argument(frame: FrameType, fn: Any) -> str | None:
    code = frame.f_code
    bound = isinstance(fn, MethodType) or not (hasattr(fn, "__code__") or isinstance(fn, partial))
    given = len(fn.args) if isinstance(fn, partial) else 0
    place = given + (1 if bound else 0)
    if place < code.co_argcount:
        name = code.co_varnames[place]
        return short(frame.f_locals[name]) if name in frame.f_locals else None
    if code.co_flags & 0x04:  # *args
        rest = frame.f_locals.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], ())
        return short(rest[place - code.co_argcount]) if place - code.co_argcount < len(rest) else None
    return None


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as failed:
        text = f"<its str() raises {type(failed).__name__}>"
    return "\n".join((text, *map(str, getattr(error, "__notes__", ()))))


def _pickled(error: BaseException) -> bytes | None:
    try:
        data = cloudpickle.dumps(error)
        # Exceptions with required arguments often pickle and then do not come back.
        restored = pickle.loads(data)
    except Exception:
        return None
    return data if type(restored) is type(error) else None


def _trimmed_traceback(error: BaseException) -> str:
    """The whole chain of causes as text, without flowkit's frames unless there are no others."""
    described = traceback.TracebackException.from_exception(error, compact=True)
    pending: list[traceback.TracebackException] = [described]
    for each in pending:
        kept = [frame for frame in each.stack if not _is_own(frame.filename)]
        if kept:
            each.stack = traceback.StackSummary.from_list(kept)
        pending += [inner for inner in (each.__cause__, each.__context__) if inner is not None]
        if len(pending) > _MOST_CAUSES:
            break
    return "".join(described.format()).rstrip("\n")


def _is_own(filename: str) -> bool:
    return filename.startswith(_OWN_DIRECTORY + "/")


# -- at the driver -----------------------------------------------------------------------------------------------------


def raise_at_driver(failure: ExceptionFailure, story: str = "") -> BaseException:
    """The exception to raise for a failed task: the user's own, or ``JobFailed`` with its text where it could not travel.

    Parameters
    ----------
    story
        What the driver adds, e.g. how often it was tried and where; a further note.

    Returns
    -------
    BaseException
        With the remote traceback as its ``__cause__``; raise it as it is.
    """
    error = _unpickled(failure)
    if error is None:
        error = JobFailed(f"{failure.type_name}: {failure.message}", type_name=failure.type_name)
    else:
        known = getattr(error, "__notes__", [])
        for note in _notes_in(failure, error):
            if note not in known:
                error.add_note(note)
    if story:
        error.add_note(story)
    error.__cause__ = RemoteTraceback(failure.traceback)
    # Where tblib is installed, exceptions travel with their frames: all of them, ours too. The cause shows the user's.
    return error.with_traceback(None)


def _unpickled(failure: ExceptionFailure) -> BaseException | None:
    if failure.pickled is None:
        return None
    try:
        error = pickle.loads(failure.pickled)
    except Exception:
        # A module that only executors have: the text of the failure says what happened.
        return None
    return error if isinstance(error, BaseException) else None


def _notes_in(failure: ExceptionFailure, error: BaseException) -> list[str]:
    # An exception with a __reduce__ of its own arrives without its notes; the message has them after the text itself.
    try:
        text = str(error)
    except Exception:
        return []
    rest = failure.message.removeprefix(text)
    return [line for line in rest.split("\n") if line] if rest != failure.message else []
