"""Functions that travel: pickled by value where executors could not import them, refused by name where they cannot be pickled.

Runs on the driver, at the action's call. The culprit is looked for only after pickling failed.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from operator import itemgetter
from types import FunctionType, MethodType, ModuleType
from typing import Any

from flowkit.errors import ClosureError, FlowkitError
from flowkit.lineage import pickling
from flowkit.lineage.call_site import short_call_site
from flowkit.lineage.kernels import Result, ShuffleWrite, StageProgram
from flowkit.model.ids import ContentId
from flowkit.model.job_spec import Content
from flowkit.model.shown import in_words, short, text_of
from flowkit.tracebacks import is_a

#: How far the walk goes: deep enough for any sane closure, bounded on any other.
_MAX_DEPTH = 12
_MAX_VISITS = 5_000
_MAX_PARTS = 200
_PLAIN = (int, float, complex, str, bytes, bool, type(None), type, ModuleType)


#: contents that what is being pickled names; None while nobody wants to know
_carried: ContextVar[dict[ContentId, Content] | None] = ContextVar("flowkit_carried", default=None)


@contextmanager
def carrying() -> Iterator[dict[ContentId, Content]]:
    """Gather the contents that are named by what a block pickles: executors need them besides."""
    carried: dict[ContentId, Content] = {}
    token = _carried.set(carried)
    try:
        yield carried
    finally:
        _carried.reset(token)


def note_carried(content: Content) -> None:
    """What is being pickled names this content."""
    carried = _carried.get()
    if carried is not None and content.inline is None:
        carried[content.id] = content


def dumps(program: StageProgram) -> bytes:
    """Pickle a stage program.

    Raises
    ------
    errors.ClosureError
        It captures something that can't be pickled; names the operation, the call site and the path to it.
    """
    try:
        data: bytes = pickling.dumps(program, protocol=pickle.HIGHEST_PROTOCOL)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _explain(program, error) from None  # it says all that this one says, and where
    return data


def _explain(program: StageProgram, error: BaseException) -> ClosureError:
    for value, operation, call_site in _functions(program):
        found = find_unpicklable(value)
        if found is None:
            continue
        path, culprit, reason = found
        where = f"{operation} at {short_call_site(call_site)}" if call_site else operation
        hint = (
            reason.message if is_a(reason, ClosureError) else f"a {_type_name(culprit)} can't be pickled ({in_words_of(reason)})"
        )
        return ClosureError(
            f"{where}: the function can't be sent to executors: {' -> '.join(path)}: {hint}",
            path=" -> ".join(path),
            operation=operation,
            call_site=call_site,
        )
    return ClosureError(f"a stage can't be pickled: {in_words(error)}", path="")


def _functions(program: StageProgram) -> Iterator[tuple[Any, str, str]]:
    for step in program.steps:
        for name in getattr(step.kernel, "__slots__", ()):
            yield getattr(step.kernel, name), step.operation, step.call_site
    last = program.steps[-1]
    if isinstance(program.output, Result):
        yield program.output.fn, program.output.operation, program.output.call_site
    elif isinstance(program.output, ShuffleWrite):
        operation, call_site = program.output.operation or last.operation, program.output.call_site or last.call_site
        yield program.output.aggregator, operation, call_site
        yield program.output.partitioner, operation, call_site


def in_words_of(reason: BaseException) -> str:
    """What the error of a pickling says; with its name where the text alone, as that of a ``SystemExit``, would say nothing."""
    return text_of(reason) if issubclass(type(reason), Exception) else in_words(reason)


def find_unpicklable(value: Any) -> tuple[list[str], Any, BaseException] | None:
    """The way from a value to what makes it unpicklable: names, the culprit, its error; None when it can be pickled.

    >>> import threading
    >>> lock = threading.Lock()
    >>> def clean(row):
    ...     with lock:
    ...         return row
    >>> find_unpicklable(clean)[0]
    ['clean', 'lock']
    """
    error = _error_of(value)
    if error is None:
        return None
    path = [_name_of(value)]
    seen = {id(value)}
    visits = 0
    for _ in range(_MAX_DEPTH):
        if _refuses_itself(value):
            break
        for name, part in _surely_parts(value):
            visits += 1
            if visits > _MAX_VISITS:
                return path, value, error
            if id(part) in seen or isinstance(part, _PLAIN):
                continue
            deeper = _error_of(part)
            if deeper is not None:
                seen.add(id(part))
                path.append(name)
                value, error = part, deeper
                break
        else:
            break
    return path, value, error


def describe_largest(program: StageProgram) -> str:
    """What makes a program large: the function, the way to what it captured, and how many bytes that is.

    >>> table = list(range(100_000))
    >>> def look_up(row):
    ...     return table[row]
    >>> from flowkit.lineage.kernels import IntegerRange, Map, Step
    >>> step = Step(0, Map(look_up), (), 1, "map", "/home/ann/words.py:12")
    >>> describe_largest(StageProgram((step,), None))  # doctest: +ELLIPSIS
    'look_up -> table (list, ... bytes), used by map at words.py:12'
    """
    size, value, operation, call_site = max(
        ((_size_of(value), value, operation, call_site) for value, operation, call_site in _functions(program)),
        key=itemgetter(0),
    )
    path = [_name_of(value)]
    for _ in range(_MAX_DEPTH):
        name, part, part_size = max(
            (
                (name, part, _size_of(part))
                for name, part in islice(_surely_parts(value), _MAX_PARTS)
                if not isinstance(part, _PLAIN)
            ),
            key=itemgetter(2),
            default=("", None, 0),
        )
        if part_size < size / 2:
            break
        path.append(name)
        value, size = part, part_size
    used_by = f"{operation} at {short_call_site(call_site)}" if call_site else operation
    return f"{' -> '.join(path)} ({_type_name(value)}, {size:,} bytes), used by {used_by}"


def _size_of(value: Any) -> int:
    try:
        return len(pickling.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))
    except KeyboardInterrupt:
        raise
    except BaseException:
        return 0


def _error_of(value: Any) -> BaseException | None:
    try:
        pickling.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error
    return None


def _refuses_itself(value: Any) -> bool:
    """Whether it says that it must not travel (an RDD, a Context): then what it is made of is no one's business."""
    if isinstance(value, type):
        return False
    try:
        value.__reduce__()  # a shallow look: nothing it refers to is pickled
    except FlowkitError:
        return True
    except KeyboardInterrupt:
        raise
    except BaseException:
        return False
    return False


def _name_of(value: Any) -> str:
    name = getattr(value, "__name__", None)
    return name if isinstance(name, str) else _type_name(value)


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _surely_parts(value: Any) -> Iterator[tuple[str, Any]]:
    """As far as it lets itself be looked at."""
    try:
        yield from _parts(value)
    except (GeneratorExit, KeyboardInterrupt):
        raise
    except BaseException:
        return


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What pickling a value would pickle with it, by name."""
    if isinstance(value, MethodType):
        yield "self", value.__self__
        return
    if isinstance(value, FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False):
            try:
                yield name, cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        for name in _global_names(value):
            if name in value.__globals__:
                yield name, value.__globals__[name]
        for index, default in enumerate(value.__defaults__ or ()):
            yield f"default argument {index}", default
        for name, default in (value.__kwdefaults__ or {}).items():
            yield f"default of {name}", default
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"[{short(key, 38)}]", item
        return
    if isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield f"[{index}]", item
        return
    for attribute in ("func", "args", "keywords"):  # functools.partial
        if type(value).__name__ == "partial" and hasattr(value, attribute):
            yield attribute, getattr(value, attribute)
    for name, item in getattr(value, "__dict__", {}).items():
        yield name, item
    for kind in type(value).__mro__:
        for name in getattr(kind, "__slots__", ()):
            if name not in {"__weakref__", "__dict__"} and hasattr(value, name):
                yield name, getattr(value, name)


def _global_names(fn: FunctionType) -> Iterator[str]:
    """Global names a function uses, those of functions nested in it included."""
    codes = [fn.__code__]
    for code in codes:
        yield from code.co_names
        codes.extend(constant for constant in code.co_consts if hasattr(constant, "co_names"))


def dumps_rows(rows: list[Any]) -> bytes:
    """Pickle one partition of a collection; plain pickle where it will do, since it is several times as fast.

    Raises
    ------
    errors.ClosureError
        An element can't be pickled; names its place.
    """
    try:
        data = pickle.dumps(rows, protocol=pickle.HIGHEST_PROTOCOL)
        if b"__main__" not in data:  # executors have another __main__: by value then
            return data
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: S110 - cloudpickle may know better, and says what is wrong otherwise
        pass
    try:
        by_value: bytes = pickling.dumps(rows, protocol=pickle.HIGHEST_PROTOCOL)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        found = find_unpicklable(rows)
        path = " -> ".join(found[0][1:]) if found is not None else "?"
        raise ClosureError(
            f"an element of the collection can't be sent to executors: {path}: {in_words_of(error)}", path=path
        ) from error
    return by_value
