"""Exceptions of tasks in processes of their own: a sample of what tests/unit/execution/test_exception_pickling.py does to all."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import flowkit as fk
from flowkit.errors import JobFailed

pytestmark = pytest.mark.cluster


class NeedsArguments(Exception):
    def __init__(self, number: int, *, limit: int) -> None:
        super().__init__(f"{number} > {limit}")
        self.number = number


class HoldsALock(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


def needs_arguments() -> None:
    raise NeedsArguments(3, limit=2)


def ends_its_program() -> None:
    raise subprocess.CalledProcessError(3, ["ls"], b"out", b"err")


def two_paths() -> None:
    raise OSError(2, "no such thing", "from", None, "to")


def several() -> None:
    raise ExceptionGroup("several", [UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "bad byte"), KeyError("k")])


def noted() -> None:
    error = ValueError("x")
    error.add_note("theirs")
    raise error


@pytest.fixture(scope="module")
def fc() -> Iterator[fk.Context]:
    with fk.Context(workers=1, progress="off", max_task_failures=1) as context:
        yield context


def raised_by(action: Callable[[], Any]) -> BaseException:
    try:
        action()
    except BaseException as error:
        return error
    raise AssertionError("it went well")


@pytest.mark.parametrize(
    "fail",
    [
        lambda: b"a\xff".decode(),
        lambda: "a\ud800".encode(),
        lambda: compile("a b", "x.py", "exec"),
        lambda: (3).missing,  # type: ignore[attr-defined]
        lambda: nowhere,  # type: ignore[name-defined] # noqa: F821
        lambda: __import__("no_such_module"),
        lambda: {}["k"],
        lambda: json.loads("[1, x]"),
        lambda: open("/no/such/file"),
        needs_arguments,
        ends_its_program,
        two_paths,
        several,
        noted,
    ],
)
def test_text_arguments_and_attributes_are_those_of_the_task(fc: fk.Context, fail: Callable[[], Any]) -> None:
    here = raised_by(fail)
    arrived = raised_by(lambda: fc.parallelize([1], 1).map(lambda _: fail()).collect())
    assert (type(arrived), str(arrived), repr(arrived.args)) == (type(here), str(here), repr(here.args))
    names = "reason start lineno filename filename2 name obj path pos number returncode stderr".split()
    assert [repr(getattr(arrived, name, None)) for name in names] == [repr(getattr(here, name, None)) for name in names]
    assert arrived.__notes__[: len(getattr(here, "__notes__", []))] == getattr(here, "__notes__", [])


def test_one_that_cannot_travel_is_a_jobs_error_with_its_text(fc: fk.Context) -> None:
    def fail(_: int) -> None:
        raise HoldsALock

    arrived = raised_by(lambda: fc.parallelize([1], 1).map(fail).collect())
    assert type(arrived) is JobFailed
    assert "HoldsALock: locked" in str(arrived)
    assert "for the element 1" in str(arrived)


@pytest.mark.parametrize(
    "error", [SystemExit(), SystemExit(0), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException("b")], ids=repr
)
def test_what_is_no_exception_fails_the_job_and_does_not_end_the_driver(fc: fk.Context, error: BaseException) -> None:
    def fail(_: int) -> None:
        raise error

    with pytest.raises(JobFailed, match=type(error).__name__) as caught:
        fc.parallelize([1], 1).map(fail).collect()
    assert type(caught.value.raised) is type(error)
    assert caught.value.raised.args == error.args


class ResultExits:
    def __reduce__(self) -> tuple[Any, ...]:
        return exit, (3,)


def test_a_result_whose_unpickling_exits_does_not_end_the_driver(fc: fk.Context) -> None:
    with pytest.raises(JobFailed, match="SystemExit"):
        fc.parallelize([1], 1).map(lambda _: ResultExits()).collect()
    assert fc.range(3).sum() == 3


class ReprExits:
    def __repr__(self) -> str:
        raise SystemExit(3)


class StrExits(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


def test_whatever_an_exception_does_when_it_is_looked_at_its_slot_goes_on(fc: fk.Context) -> None:
    def refuse(_: object) -> None:
        raise StrExits

    with pytest.raises(JobFailed, match="StrExits"):
        fc.parallelize([1], 1).map(refuse).collect()
    with pytest.raises(ZeroDivisionError) as caught:
        fc.parallelize([ReprExits()], 1).map(lambda x: 1 // 0).collect()
    assert "ReprExits whose repr raises SystemExit" in caught.value.__notes__[0]
    assert fc.range(3).sum() == 3
