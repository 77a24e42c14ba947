"""Exceptions leave flowkit by its public methods, and its frames stay behind."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from operator import add
from typing import Any

import pytest

import flowkit as fk
from flowkit.context import Context
from flowkit.errors import InternalError, InvalidArgument
from flowkit.rdd.checks import check_int
from flowkit.testing.inline import inline_context
from flowkit.tracebacks import OWN_DIRECTORY, door, trim


@pytest.fixture(scope="module")
def fc() -> Iterator[Context]:
    with inline_context(slots=2) as context:
        yield context


def refuse(x: object) -> Any:
    raise ValueError(f"bad {x}")


def refuse_because(x: object) -> Any:
    try:
        refuse(x)
    except ValueError as error:
        raise RuntimeError("for a reason") from error


def refuse_several(x: object) -> Any:
    raise ExceptionGroup("several", [ValueError(x), TypeError(x)])


class Unhashable:
    def __hash__(self) -> int:
        raise TypeError("theirs")


def destroyed(fc: Context) -> Any:
    value = fc.broadcast(1)
    value.destroy()
    return value


async def awaited(fc: Context) -> None:
    await fc.range(3).map(refuse).collect_async()


FAILURES: dict[str, Callable[[Context], Any]] = {
    "a function of a task": lambda fc: fc.range(3).map(refuse).collect(),
    "one that raises from another": lambda fc: fc.range(3).map(refuse_because).collect(),
    "one that raises several": lambda fc: fc.range(3).map(refuse_several).collect(),
    "one that is no Exception": lambda fc: fc.range(3).map(lambda _: sys.exit(3)).collect(),
    "a function written in C": lambda fc: fc.parallelize(["three"]).map(int).collect(),
    "a function that runs on the driver": lambda fc: fc.parallelize([1, 2], 2).reduce(lambda a, b: a / 0),
    "a partition function": lambda fc: fc.range(3).map_partitions(lambda rows: 3).collect(),
    "a key that raises": lambda fc: fc.parallelize([(Unhashable(), 1)]).reduce_by_key(add).collect(),
    "rows that are no pairs": lambda fc: fc.range(3).reduce_by_key(add).collect(),
    "rows that cannot be compared": lambda fc: fc.parallelize([1, "a"]).sort_by(lambda x: x).collect(),
    "a StopIteration": lambda fc: fc.range(3).map(lambda _: next(iter(()))).collect(),
    "a result that cannot be pickled": lambda fc: fc.range(3).map(lambda x: (i for i in [x])).collect(),
    "a function that cannot be pickled": lambda fc: fc.range(3).map(lambda x, lock=threading.Lock(): x).collect(),
    "an argument": lambda fc: fc.range(3).map(3),
    "a missing file": lambda fc: fc.text_file("/no/such/file").count(),
    "an empty RDD": lambda fc: fc.parallelize([]).first(),
    "a truth value": lambda fc: bool(fc.range(3)),
    "a loop": lambda fc: list(fc.range(3)),
    "a local iterator": lambda fc: list(fc.range(3).map(refuse).to_local_iterator()),
    "a future": lambda fc: fc.range(3).map(refuse).collect_async().result(),
    "an awaited future": lambda fc: asyncio.run(awaited(fc)),
    "an RDD within another": lambda fc: fc.range(3).map(lambda x, inner=fc.range(2): inner.count()).collect(),
    "a broadcast": lambda fc: destroyed(fc).value,
    "a job's argument": lambda fc: fc.job(tags="a"),
    "a setting": lambda fc: fk.Config(max_task_failures=0),
    "an unknown setting": lambda fc: fk.Config(nonsense=1),
    "a setting of a context": lambda fc: fk.Context(nonsense=1),
    "a policy": lambda fc: fk.FailureCounts(after=-1),
    "a pool": lambda fc: fk.Pool(weight=-1),
    "a storage level": lambda fc: fk.StorageLevel.parse(3) if hasattr(fk.StorageLevel, "parse") else fk.StorageLevel(nonsense=1),
    "a file that is no capsule": lambda fc: fk.open_capsule(__file__),
    "a context's argument": lambda fc: fk.Context("tcp://127.0.0.1:1", workers=3),
}


def printed(action: Callable[[], Any]) -> str:
    try:
        action()
    except BaseException:
        return traceback.format_exc()
    raise AssertionError("it went well")


@pytest.mark.parametrize("name", FAILURES)
def test_no_traceback_has_a_frame_of_flowkit(fc: Context, name: str) -> None:
    text = printed(lambda: FAILURES[name](fc))
    assert OWN_DIRECTORY not in text
    assert __file__ in text


def test_what_is_shown_begins_at_the_callers_line_and_goes_on_with_functions_of_theirs(fc: Context) -> None:
    try:
        fc.parallelize([1, 2], 2).reduce(lambda a, b: refuse(a))
    except ValueError as error:
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names == [
        "test_what_is_shown_begins_at_the_callers_line_and_goes_on_with_functions_of_theirs",
        "<lambda>",
        "refuse",
    ]


def test_a_log_of_an_exception_has_no_frame_of_flowkit(fc: Context) -> None:
    out = io.StringIO()
    logger = logging.getLogger("flowkit.test of tracebacks")
    handler = logging.StreamHandler(out)
    logger.addHandler(handler)
    try:
        fc.range(3).map(refuse).collect()
    except ValueError:
        logger.exception("failed")
    finally:
        logger.removeHandler(handler)
    assert "bad 0" in out.getvalue()
    assert OWN_DIRECTORY not in out.getvalue()


def test_who_asks_for_it_sees_all_frames() -> None:
    with inline_context(full_tracebacks=True) as context:
        text = printed(lambda: context.range(3).map(refuse).collect())
        assert f"{OWN_DIRECTORY}submission.py" in text
        assert f"{OWN_DIRECTORY}execution/" in text.partition("direct cause")[0]
    with inline_context() as context:
        assert OWN_DIRECTORY not in printed(lambda: context.range(3).map(refuse).collect())


def test_an_error_of_our_own_making_keeps_all_frames() -> None:
    @door
    def broken() -> None:
        raise InternalError("a bug")

    assert "in broken" in printed(broken)


def test_causes_contexts_and_members_of_groups_are_trimmed_with_it() -> None:
    with inline_context() as context, pytest.raises(ValueError, match="bad") as caught:
        context.range(3).map(refuse).collect()
    with pytest.raises(InvalidArgument) as own:
        check_int("n", "three")
    assert own.value.__traceback__ is not None
    assert own.value.__traceback__.tb_next is not None
    first, second = caught.value, ExceptionGroup("several", [own.value])
    first.__cause__, second.__context__ = second, first
    trim(first)
    assert own.value.__traceback__ is None or own.value.__traceback__.tb_next is None


def test_what_a_method_was_it_still_is_but_for_its_frame() -> None:
    import inspect

    assert str(inspect.signature(fk.RDD.map)).startswith("(self, fn: ")
    assert fk.RDD.map.__doc__
    assert fk.RDD.map.__module__ == "flowkit.rdd.narrow"
    assert fk.RDD.map.__globals__["__name__"] == "flowkit.rdd.narrow"
    assert fk.Config.from_environment({}) == fk.Config()
