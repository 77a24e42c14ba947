"""Every exception class of the standard library, from where it was raised to where it is caught."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
import tarfile
import warnings
from collections.abc import Iterator
from typing import Any
from xml.sax.xmlreader import Locator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.errors import FlowkitError, JobFailed
from flowkit.execution.exception_pickling import dumps, loads
from flowkit.execution.failure import describe, raise_at_driver

#: Modules with something to see or to do when they are imported, or that need what is not installed everywhere.
_NOT_IMPORTED = {"antigravity", "this", "idlelib", "turtledemo", "turtle", "tkinter", "test", "lib2to3", "ensurepip", "__main__"}

#: Not made by anybody: its classes are.
_ABSTRACT = {"xml.dom.DOMException"}

_MEMBER = tarfile.TarInfo("member")

#: Arguments of classes whose signature says too little.
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "UnicodeDecodeError": ("utf-8", b"a\xff", 1, 2, "bad byte"),
    "UnicodeEncodeError": ("ascii", "aé", 1, 2, "bad character"),
    "UnicodeTranslateError": ("aé", 1, 2, "bad character"),
    "BaseExceptionGroup": ("several", [ValueError(1), KeyboardInterrupt()]),
    "ExceptionGroup": ("several", [ValueError(1), ExceptionGroup("inner", [KeyError("k"), OSError(2, "none", "a", None, "b")])]),
    "SyntaxError": ("invalid syntax", ("x.py", 3, 5, "a b\n", 3, 6)),
    "IndentationError": ("unexpected indent", ("x.py", 3, 5, " a\n", 3, 6)),
    "TabError": ("inconsistent tabs", ("x.py", 3, 5, "\ta\n", 3, 6)),
    "_IncompleteInputError": ("incomplete input", ("x.py", 3, 5, "a(\n", 3, 6)),
    "argparse.ArgumentError": (None, "text"),
    "BlockingIOError": (11, "would block", 5),
    "ssl.SSLCertVerificationError": (1, "certificate verify failed"),
    "subprocess.CalledProcessError": (3, ["ls", "-l"], b"out", b"err"),
    "subprocess.TimeoutExpired": (["ls"], 2.5, b"out", b"err"),
    "urllib.error.HTTPError": ("http://x/", 404, "Not Found", {"a": "b"}, None),
    "multiprocessing.context.BufferTooShort": (b"rest",),
    "asyncio.exceptions.LimitOverrunError": ("limit", 7),
    "asyncio.exceptions.IncompleteReadError": (b"part", 10),
    "email.errors.NonPrintableDefect": (["\x01"],),
    "json.decoder.JSONDecodeError": ("Expecting value", "[1, x]", 4),
    "py_compile.PyCompileError": (ValueError, ValueError(1), "x.py"),
    "pydoc.ErrorDuringImport": ("x.py", (ValueError, ValueError(1), None)),
    "tarfile.AbsoluteLinkError": (_MEMBER,),
    "tarfile.AbsolutePathError": (_MEMBER,),
    "tarfile.LinkOutsideDestinationError": (_MEMBER, "/to"),
    "tarfile.OutsideDestinationError": (_MEMBER, "/to"),
    "tarfile.SpecialFileError": (_MEMBER,),
    "xml.sax._exceptions.SAXParseException": ("text", ValueError(1), Locator()),
    "tomllib.TOMLDecodeError": ("Invalid value",),
    "zoneinfo._common.ZoneInfoNotFoundError": ("no zone",),
}


def _exceptions_of_the_standard_library() -> list[type[BaseException]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = [name for name in sys.stdlib_module_names if name not in _NOT_IMPORTED]
        for name in names:
            module = _imported(name)
            for inner in pkgutil.iter_modules(getattr(module, "__path__", ())):
                if not inner.name.startswith("__") and f"{name}.{inner.name}" not in {"concurrent.futures.process"}:
                    _imported(f"{name}.{inner.name}")
    found, pending = [], [BaseException]
    for kind in pending:  # grows while it is walked
        if (
            kind.__module__.partition(".")[0] in sys.stdlib_module_names
            and _is_reachable(kind)
            and _name_of(kind) not in _ABSTRACT
        ):
            found.append(kind)
        pending += [each for each in kind.__subclasses__() if each not in pending]
    return sorted(found, key=_name_of)


def _is_reachable(kind: type) -> bool:
    """Whether it can be had by its name: some are local to a function, or to C."""
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind


def _imported(name: str) -> Any:
    if name.partition(".")[0] in _NOT_IMPORTED or name.rpartition(".")[2] in {"__main__", "tests", "test", "idle_test"}:
        return None
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit):  # of another system, or it wants arguments
        return None


def _name_of(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _made(kind: type[BaseException]) -> BaseException:
    """One with as much in it as its class takes."""
    name = _name_of(kind)
    if name in _ARGUMENTS:
        error = kind(*_ARGUMENTS[name])
    elif issubclass(kind, OSError) and kind.__init__ is OSError.__init__:
        error = kind(2, "no such thing", "from", None, "to")
    else:
        error = _constructed(kind)
    for attribute in ("name", "path", "obj"):  # of AttributeError, NameError and ImportError
        if inspect.ismemberdescriptor(inspect.getattr_static(kind, attribute, None)):
            setattr(error, attribute, attribute)
    error.extra = ["anything", 1]  # type: ignore[attr-defined]
    error.add_note("a note")
    return error


def _constructed(kind: type[BaseException]) -> BaseException:
    for arguments in (
        ("text", 7),
        ("text", ["more"]),
        ("text",),
        ("text", 7, "more"),
        (),
        ("a", 1, 2, 3),
        (["a"],),
        ("a", "b", 1, 2),
    ):
        try:
            error = kind(*arguments)
            str(error)
        except Exception:  # noqa: S112 - it takes others
            continue
        else:
            return error
    raise AssertionError(f"how is {_name_of(kind)} made? Add its arguments to _ARGUMENTS")


def _facts(error: BaseException, depth: int = 0) -> dict[str, Any]:
    """All that anybody can see of an exception."""
    facts: dict[str, Any] = {
        "type": type(error),
        "text": str(error),
        "args": re.sub("0x[0-9a-f]+", "", repr(error.args)),
        "notes": error.__dict__.get("__notes__"),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of attributes that have another name meanwhile
        for name in dir(error):
            if not name.startswith("__") and not callable(value := getattr(error, name, None)):
                facts[name] = re.sub("0x[0-9a-f]+", "", repr(value))
    if depth < 3:
        facts["inner"] = [_facts(each, depth + 1) for each in getattr(error, "exceptions", ())]
        facts["cause"] = None if error.__cause__ is None else _facts(error.__cause__, depth + 1)
        facts["context"] = None if error.__context__ is None else _facts(error.__context__, depth + 1)
    return facts


@pytest.fixture(scope="module")
def stdlib() -> Iterator[list[type[BaseException]]]:
    """With Dask's own pickling of exceptions installed for all of them, as in every process of a cluster."""
    import copyreg

    import tblib.pickling_support

    before = dict(copyreg.dispatch_table)
    found = _exceptions_of_the_standard_library()
    tblib.pickling_support.install()
    yield found
    copyreg.dispatch_table.clear()
    copyreg.dispatch_table.update(before)


def test_every_exception_of_the_standard_library_arrives_as_it_was(stdlib: list[type[BaseException]]) -> None:
    assert len(stdlib) > 150
    changed = {}
    for kind in stdlib:
        error = _made(kind)
        error.__cause__ = OSError(2, "no such thing", "from", None, "to")
        error.__context__ = UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "bad byte")
        data = dumps(error)
        restored = None if data is None else loads(data)
        if restored is None or _facts(restored) != _facts(error):
            changed[_name_of(kind)] = (_facts(error), restored and _facts(restored))
    assert not changed


def test_on_the_way_of_a_failed_task_each_keeps_its_text_and_its_type_is_named(stdlib: list[type[BaseException]]) -> None:
    for kind in stdlib:
        error = _made(kind)
        text = str(error)
        arrived = raise_at_driver(describe(error, None, 3, stage="stage 1"), "tried 4 times")
        if issubclass(kind, Exception):
            assert (type(arrived), str(arrived)) == (type(error), text)
            assert arrived.__notes__ == ["a note", "In partition 3 of stage 1", "tried 4 times"]
        else:
            assert type(arrived) is JobFailed
            assert text in str(arrived)
            assert type(arrived.raised) is kind


def test_errors_of_our_own_arrive_with_their_data() -> None:
    pending = [FlowkitError]
    for kind in pending:  # grows while it is walked
        pending += kind.__subclasses__()
        data = dumps(kind("what it says", path="x", number=3))
        assert data is not None
        restored: Any = loads(data)
        assert (type(restored), str(restored), restored.path, restored.number) == (kind, str(kind("what it says")), "x", 3)


class Plain(Exception):
    """As most classes of users are."""


class WithSlots(Exception):
    __slots__ = ("hidden",)


class OfRequiredArguments(OSError):
    def __init__(self, *, path: str) -> None:
        super().__init__(5, "broken", path)


class Reducing(Exception):
    def __init__(self, first: str, second: int) -> None:
        super().__init__(f"{first}-{second}")
        self.first, self.second = first, second

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.first, self.second)


def _with_slots(value: object) -> WithSlots:
    error = WithSlots(value)
    error.hidden = value
    return error


values = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5) | st.lists(st.integers(), max_size=2)
)
single_errors = st.one_of(
    st.builds(lambda args: Plain(*args), st.lists(values, max_size=3)),
    st.builds(_with_slots, values),
    st.builds(lambda path: OfRequiredArguments(path=path), st.text(max_size=5)),
    st.builds(Reducing, st.text(max_size=5), st.integers()),
    st.builds(KeyError, values),
    st.builds(SystemExit, values),
    st.builds(StopIteration, values),
    st.builds(lambda n, a, b: OSError(n, "text", a, None, b), st.sampled_from([2, 13, 17, 9999]), st.text(), st.text()),
    st.builds(lambda data: UnicodeDecodeError("utf-8", data + b"\xff", len(data), len(data) + 1, "bad"), st.binary(max_size=5)),
    st.builds(lambda name: ImportError("text", name=name, path="path"), st.text()),
    st.builds(lambda line, text: SyntaxError("text", ("file", line, 1, text)), st.integers(1, 99), st.text()),
)


@st.composite
def errors(draw: st.DrawFn, depth: int = 2) -> BaseException:
    error = draw(single_errors)
    if depth and draw(st.booleans()):
        inner = draw(st.lists(errors(depth - 1), min_size=1, max_size=2))
        error = BaseExceptionGroup("several", inner)
    if depth and draw(st.booleans()):
        error.__cause__ = draw(errors(depth - 1))
    if depth and draw(st.booleans()):
        error.__context__ = draw(errors(depth - 1))
    error.__suppress_context__ = draw(st.booleans())
    for note in draw(st.lists(st.text(max_size=5), max_size=2)):
        error.add_note(note)
    for name, value in draw(st.dictionaries(st.sampled_from(["one", "two"]), values)).items():
        setattr(error, name, value)
    return error


@given(errors())
def test_what_comes_back_is_what_went(error: BaseException) -> None:
    data = dumps(error)
    assert data is not None
    restored = loads(data)
    assert restored is not None
    assert _facts(restored) == _facts(error)
    assert restored.__suppress_context__ == error.__suppress_context__
