"""Which of a stage's functions raised, and on what: read from the frames of the traceback.

Runs on slot threads, after something failed. Pipelines run at C speed, so a function written in C, and whatever consumes a lazy
result, leaves no frame behind; then flowkit's own last frame says at least which operations come into question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from inspect import CO_GENERATOR, CO_VARARGS
from opcode import opmap
from types import CodeType, FrameType
from typing import Any, NamedTuple

from flowkit.execution import actions, elements
from flowkit.execution.elements import CopiedZero, Keyed
from flowkit.execution.end_markers import function_name
from flowkit.execution.layers import layers_of
from flowkit.execution.narrow import apply_to_iterators, at, where
from flowkit.execution.recording import NOTHING, Recorded, argument_name, sets
from flowkit.lineage.kernels import (
    Aggregate,
    Aggregator,
    CachedOnly,
    Collection,
    FileRows,
    Filter,
    FlatMap,
    FlatMapValues,
    IntegerRange,
    Map,
    MapPartitions,
    MapValues,
    Result,
    ShuffleRead,
    ShuffleWrite,
    StageProgram,
    Step,
    StoredPartitions,
    TextLines,
    WholeFiles,
    ZipPartitions,
)
from flowkit.lineage.partitioners import FunctionPartitioner, RangePartitioner
from flowkit.model.shown import short
from flowkit.tracebacks import OWN_DIRECTORY, is_own

#: Exceptions in a chain of causes that are looked at; a chain may be a ring.
MOST_CAUSES = 16

#: Files of ours at work where a source could not be read,
_READING = (
    "execution/sources.py",
    "execution/text_lines.py",
    "execution/long_input.py",
    "execution/input_files.py",
    "execution/file_readers.py",
    "execution/csv_files.py",
    "execution/arrow_reading.py",
    "storage/objects/local.py",
    "storage/objects/stores.py",
)
_SOURCES = (CachedOnly, Collection, FileRows, IntegerRange, StoredPartitions, TextLines, WholeFiles)
#: where a row is no pair,
_PASSING = "execution/narrow.py"
#: where rows could not be pickled,
_WRITING = "storage/shuffle/writer.py"
#: and where keys could not be hashed, compared or placed.
_BY_KEY = (
    "execution/aggregate.py",
    "execution/cogroup.py",
    "execution/join.py",
    "execution/records.py",
    "execution/sort.py",
    "execution/spill.py",
    "lineage/hashing.py",
    "lineage/partitioners.py",
    "storage/runs.py",
    "storage/serializers/",
    "storage/shuffle/",
)
#: Functions of ours that take what comes otherwise than by a ``for``: what fails in them failed before them.
_TAKING = {"in_batches", "in_chunks"}
_FOR_ITER = opmap["FOR_ITER"]
#: Functions of ours that cannot fail by themselves.
_INNOCENT = {
    actions.collect_rows,
    actions.count_rows,
    actions.drain_rows,
    actions.keep_rows,
    elements.appended,
    elements.as_one_list,
    elements.extended,
    elements.listed,
    elements.nothing,
    elements.same,
    elements.with_none,
}
_RECORDS = Recorded.__call__.__code__
_INNOCENT_TYPES = (actions.NumberRows, actions.TakeRows)


@dataclass(frozen=True, slots=True)
class Blame:
    """What is known about what failed."""

    #: ``map at words.py:12``; several where it may have been any of them, none where nothing is known
    places: tuple[str, ...]
    function: str | None = None
    #: ``for the element 7``, ``merging 3 and 'x'``
    detail: str | None = None


class _Role(Enum):
    TAKES_ELEMENT = "its first argument is an element"
    MERGES = "its two arguments were made of elements"
    ENCLOSES = "it gets the iterator"


class _UserFunction(NamedTuple):
    fn: Callable[..., Any]
    #: operation and call site
    place: str
    role: _Role
    #: what remembers its element
    recorded: Recorded | None = None
    #: may fail, or what it returned may, when no frame of it is there: it is written in C, or was asked for a lazy result
    silent: bool = False


class _Frame(NamedTuple):
    frame: FrameType
    #: it was waiting for the next row of what it loops over
    pulls: bool

    @property
    def code(self) -> CodeType:
        return self.frame.f_code

    @property
    def is_own(self) -> bool:
        return is_own(self.code.co_filename)


def blame(error: BaseException, program: StageProgram) -> Blame:
    """Find who raised, in the traceback of an exception or of one of its causes."""
    functions = [each for each in _functions(program) if not _is_innocent(each.fn)]
    for each in _with_causes(error):
        found = _call_in(each, functions)
        if found is not None:
            return found.as_blame()
    return _without_call(error, program, functions)


def who_leaked(error: BaseException, program: StageProgram) -> tuple[str, str]:
    """Name of the function that let a ``StopIteration`` out, and of the operation that called it as far as that is known."""
    found = blame(error, program)
    return found.function or innermost_user_function(error) or "a function", in_words(found.places or all_places(program))


def in_words(places: Iterable[str], most: int = 6) -> str:
    """One place, or the last ones of several.

    >>> in_words(["map at a.py:1"]), in_words(["map at a.py:1", "filter at a.py:2"])
    ('map at a.py:1', 'one of map at a.py:1, filter at a.py:2')
    """
    distinct = list(dict.fromkeys(places))
    if len(distinct) == 1:
        return distinct[0]
    return f"one of {', '.join(distinct[-most:])}" if distinct else "an operation without a function"


def where_it_ends(program: StageProgram) -> str:
    """What the user called that ends this stage: the operation its shuffle is for, or the action."""
    output = program.output
    if not output.operation:
        return f"the shuffle after {where(program.steps[-1])}"
    return at(output.operation, output.call_site)


# -- from frames to functions ------------------------------------------------------------------------------------------


class _Call(NamedTuple):
    """A function of the user's at work."""

    #: one function may be given to several operations, and its frame does not say to which
    known: list[_UserFunction]
    #: what it was called with; empty where that cannot be known
    values: list[Any]
    #: its arguments as they are now, where it has given some of them other values
    set_anew: dict[str, Any]

    def as_blame(self) -> Blame:
        fn, role = self.known[-1].fn, self.known[-1].role
        if self.set_anew:
            made = ", ".join(f"{name} = {short(value)}" for name, value in self.set_anew.items())
            what = "an element" if role is _Role.TAKES_ELEMENT else "two values"
            detail: str | None = f"for {what} of which the function has made {made}"
        else:
            detail = _detail("for the element" if role is _Role.TAKES_ELEMENT else "merging", self.values)
        return Blame(_places(self.known), function_name(fn), detail)


def _call_in(error: BaseException, functions: list[_UserFunction]) -> _Call | None:
    """The call that an operation made: the outermost one of a function that takes elements.

    What is inside of it the function called itself, be it itself again or another function of the stage; unless its element is an
    iterator over what earlier operations make.
    """
    by_code: dict[CodeType, list[tuple[_UserFunction, int]]] = {}
    for known in functions:
        for code, place in layers_of(known.fn):
            by_code.setdefault(code, []).append((known, place))
    found: _Call | None = None
    frames = _frames(error)
    for at_frame, each in enumerate(frames):
        if found is not None and not (found.values and isinstance(found.values[0], Iterator)):
            break
        if each.code is _RECORDS:
            recorded: Recorded = each.frame.f_locals["self"]
            found = next((_Call([known], [recorded.last], {}) for known in functions if known.recorded is recorded), found)
        elif (called := by_code.get(each.code)) is not None:
            inside = {frame.code for frame in frames[at_frame + 1 :]}
            place = called[-1][1]
            # Functions of one decorator have its frame in common, and differ by what it calls.
            alike = [other for other, _ in called if _code_of(other.fn) in inside] or [other for other, _ in called]
            found = None if alike[-1].role is _Role.ENCLOSES else _called(each.frame, alike, place)
    return found


def _called(frame: FrameType, known: list[_UserFunction], place: int) -> _Call:
    if len(known) == 1 and known[0].recorded is not None and known[0].recorded.last is not NOTHING:
        return _Call(known, [known[0].recorded.last], {})
    count = 2 if known[-1].role is _Role.MERGES else 1
    values = _arguments(frame, place, count)
    names = [argument_name(frame.f_code, place + each) for each in range(count)]
    set_anew = {name: frame.f_locals[name] for name in names if name in frame.f_locals and sets(frame.f_code, name)}
    return _Call(known, [] if set_anew else values, set_anew)


def _without_call(error: BaseException, program: StageProgram, functions: list[_UserFunction]) -> Blame:
    """What is possible by the frames of functions that pull elements, of code that functions left behind, and of flowkit."""
    frames = _frames(error)
    owners = _owners(functions)
    last = next((place for place in range(len(frames) - 1, -1, -1) if frames[place].is_own or frames[place].code in owners), None)
    after = frames[0 if last is None else last + 1 :]
    # Of Python's own modules only heapq is called by us and calls users' comparisons.
    function = next((each.code.co_qualname for each in after if each.frame.f_globals.get("__name__") != "heapq"), None)
    possible = [known for known in functions if known.silent]
    if last is not None:
        frame = frames[last]
        enclosing = owners.get(frame.code, [])
        if enclosing and not frame.is_own:
            function = function_name(enclosing[-1].fn)
            if enclosing[-1].role is not _Role.ENCLOSES:
                return Blame(_places(enclosing), function)
        if not enclosing and not frame.pulls and (places := _places_of_own(frames[: last + 1], program)):
            return Blame(places, function, None if after else _row_at_fault(frame.frame))
        if not frame.pulls:
            possible += enclosing
    places = _places(possible)
    if not after:
        only = [known.fn for known in possible if not is_own_function(known.fn)] if len(places) == 1 else []
        function = function_name(only[-1]) if only else None
    return Blame(places, function)


def element_at_fault(error: BaseException, program: StageProgram) -> tuple[Any] | None:
    """The element for which an operation called the function that raised; None where there is none, or it cannot be known."""
    call = _call_in(error, [each for each in _functions(program) if each.role is not _Role.MERGES])
    return (call.values[0],) if call is not None and call.values else None


def _owners(functions: list[_UserFunction]) -> dict[CodeType, list[_UserFunction]]:
    """Functions that pull elements, by their code; and those that leave code behind, by that: generator expressions, mostly."""
    owners: dict[CodeType, list[_UserFunction]] = {}
    for known in functions:
        code = _code_of(known.fn)
        if code is None:
            continue
        if known.role is _Role.ENCLOSES:
            owners.setdefault(code, []).append(known)
        if not is_own(code.co_filename):
            for nested in _nested(code):
                owners.setdefault(nested, []).append(known)
    return owners


def _places_of_own(frames: list[_Frame], program: StageProgram) -> tuple[str, ...]:
    """Operations for which flowkit itself was at work in the last of these frames."""
    file = _own_file(frames[-1])
    if file in _READING:
        return tuple(where(step) for step in program.steps if isinstance(step.kernel, _SOURCES))
    if file == _PASSING:
        whole = frames[-1].code is apply_to_iterators.__code__
        kinds = (MapPartitions, ZipPartitions) if whole else (MapValues, FlatMapValues)
        return tuple(where(step) for step in program.steps if isinstance(step.kernel, kinds))
    if not file.startswith(_BY_KEY):
        return ()
    for each in reversed(frames):
        place = each.frame.f_locals.get("place") if each.is_own else None
        if isinstance(place, str):
            return (place,)
        if _own_file(each) == _WRITING:
            return (where_it_ends(program),)
    return ()


def innermost_user_function(error: BaseException) -> str | None:
    """The name of the function that raised, if it is not flowkit's."""
    frames = [each for each in _frames(error) if not each.is_own]
    return frames[-1].code.co_qualname if frames else None


def _frames(error: BaseException) -> list[_Frame]:
    frames = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        waits = 0 <= step.tb_lasti < len(code.co_code) and code.co_code[step.tb_lasti] == _FOR_ITER
        frames.append(_Frame(step.tb_frame, waits or (is_own(code.co_filename) and code.co_name in _TAKING)))
        step = step.tb_next
    return frames


def _own_file(each: _Frame) -> str:
    return each.code.co_filename.removeprefix(OWN_DIRECTORY) if each.is_own else ""


def _nested(code: CodeType) -> Iterator[CodeType]:
    pending = [code]
    for each in pending:  # grows while it is walked
        inner = [constant for constant in each.co_consts if isinstance(constant, CodeType)]
        yield from inner
        pending += inner


def _places(functions: Iterable[_UserFunction]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(known.place for known in functions))


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    for _ in range(MOST_CAUSES):
        if each is None:
            return
        yield each
        context = None if each.__suppress_context__ else each.__context__
        each = each.__cause__ if each.__cause__ is not None else context


# -- the functions of a stage ------------------------------------------------------------------------------------------


def all_places(program: StageProgram) -> tuple[str, ...]:
    """Operations of a stage that call functions of the user's."""
    return _places(known for known in _functions(program) if not _is_innocent(known.fn))


def _functions(program: StageProgram) -> Iterator[_UserFunction]:
    for step in program.steps:
        yield from _functions_of(step)
    place = where_it_ends(program)
    match program.output:
        case Result(fn):
            yield from _functions_of_action(fn, place)
        case ShuffleWrite(_, partitioner, aggregator):
            if aggregator is not None and aggregator.map_side:
                yield from _functions_of_aggregator(aggregator, place)
            if isinstance(partitioner, FunctionPartitioner):
                yield _UserFunction(partitioner.fn, place, _Role.TAKES_ELEMENT)
            elif isinstance(partitioner, RangePartitioner) and partitioner.key is not None:
                yield _UserFunction(partitioner.key, place, _Role.TAKES_ELEMENT)


def _functions_of(step: Step) -> Iterator[_UserFunction]:
    place = where(step)
    match step.kernel:
        case Map(fn) | Filter(fn) | MapValues(fn) | FlatMap(fn) | FlatMapValues(fn):
            recorded = fn if isinstance(fn, Recorded) else None
            inner = _unwrapped(fn if recorded is None else recorded.fn)
            lazy = isinstance(step.kernel, FlatMap | FlatMapValues)
            silent = not _is_generator(inner) if lazy else _code_of(inner) is None
            yield _UserFunction(inner, place, _Role.TAKES_ELEMENT, recorded, silent=silent)
        case MapPartitions(fn) | ZipPartitions(fn):
            yield _UserFunction(fn, place, _Role.ENCLOSES, silent=not _is_generator(fn))
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
    if isinstance(aggregator.create, CopiedZero):
        yield _UserFunction(aggregator.create.fn, place, _Role.MERGES)
    else:
        yield _UserFunction(aggregator.create, place, _Role.TAKES_ELEMENT)
    yield _UserFunction(aggregator.merge_value, place, _Role.MERGES)
    yield _UserFunction(aggregator.merge_combiners, place, _Role.MERGES)


def _functions_of_action(fn: Any, place: str) -> Iterator[_UserFunction]:
    yield _UserFunction(fn, place, _Role.ENCLOSES)
    match fn:
        case actions.ReduceRows(inner) | actions.FoldRows(_, inner) | actions.ReduceByKey(inner):
            yield _UserFunction(inner, place, _Role.MERGES)
        case actions.ExtremeRow(_, key) | actions.TopRows(_, key) | actions.SmallestRows(_, key) | actions.SampleKeys(_, key) if (
            key is not None
        ):
            yield _UserFunction(key, place, _Role.TAKES_ELEMENT)
        case actions.ForeachPartition(inner):
            yield _UserFunction(inner, place, _Role.ENCLOSES)
        case _:
            return


def _unwrapped(fn: Any) -> Any:
    """What key_by and sort_by were given, where that leaves a frame; else the wrapper, which does."""
    return fn.fn if isinstance(fn, Keyed) and _code_of(fn.fn) is not None else fn


def _is_innocent(fn: Any) -> bool:
    return isinstance(fn, _INNOCENT_TYPES) or any(fn is each for each in _INNOCENT)


def is_own_function(fn: Any) -> bool:
    """Whether a function is written in flowkit; one of C is not."""
    code = _code_of(fn.fn if isinstance(fn, Recorded) else fn)
    return code is not None and is_own(code.co_filename)


def _is_generator(fn: Any) -> bool:
    code = _code_of(fn)
    return code is not None and bool(code.co_flags & CO_GENERATOR)


def _code_of(fn: Any) -> CodeType | None:
    """Of the innermost function of a callable: a decorator's own frame comes first, but what it wraps says more."""
    code = None
    for code, _ in layers_of(fn):  # noqa: B007 - the last one
        pass
    return code


# -- what they were called with ----------------------------------------------------------------------------------------


def _detail(intro: str, values: list[Any]) -> str | None:
    return f"{intro} {' and '.join(map(short, values))}" if values else None


def _arguments(frame: FrameType, first: int, count: int) -> list[Any]:
    """Some arguments of a call, as they are now; none at all when one of them can't be told."""
    code = frame.f_code
    rest: Sequence[Any] = ()
    if code.co_flags & CO_VARARGS:
        rest = frame.f_locals.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], ())
    found = []
    for place in range(first, first + count):
        if place < code.co_argcount and code.co_varnames[place] in frame.f_locals:
            found.append(frame.f_locals[code.co_varnames[place]])
        elif 0 <= place - code.co_argcount < len(rest):
            found.append(rest[place - code.co_argcount])
        else:
            return []
    return found


def _row_at_fault(frame: FrameType) -> str | None:
    return _detail("for the element", [frame.f_locals["row"]]) if "row" in frame.f_locals else None
