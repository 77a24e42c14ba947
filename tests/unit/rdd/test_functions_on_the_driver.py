"""Users' functions that run on the driver: what they raise arrives as from tasks, whichever action calls them, at once or as a future."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from flowkit.errors import AccumulatorMisused, JobFailed, StopIterationInTask
from flowkit.execution.task_context import TaskContext
from flowkit.rdd.asynchronous import JobFuture
from flowkit.testing.inline import inline_context

LEAVING = [StopIteration, ValueError, SystemExit, GeneratorExit]


@pytest.fixture
def fc():
    with inline_context() as context:
        yield context


def at_driver(error: type[BaseException] | None) -> Callable[..., Any]:
    """The sum, or the value, of what it is called with; on the driver it raises instead."""

    def merge(one, other=0):
        if TaskContext.get() is None and error is not None:
            raise error("on the driver")
        return one + other

    return merge


class Moody:
    """A number whose comparisons, sums and hashes raise on the driver."""

    error: type[BaseException] | None = None

    def __init__(self, number):
        self.number = number

    def _value(self):
        if TaskContext.get() is None and Moody.error is not None:
            raise Moody.error("on the driver")
        return self.number

    def __lt__(self, other):
        return self._value() < other.number

    def __gt__(self, other):
        return self._value() > other.number

    def __eq__(self, other):
        return self._value() == getattr(other, "number", other)

    def __hash__(self):
        return hash(self._value())

    def __add__(self, other):
        return Moody(self._value() + getattr(other, "number", other))

    __radd__ = __add__

    def __stable_hash__(self):
        return hash(self.number)


class Unpicklable:
    """What cannot be unpickled on the driver."""

    error: type[BaseException] = ValueError

    def __setstate__(self, state):
        if TaskContext.get() is None:
            raise Unpicklable.error("on the driver")

    def __getstate__(self):
        return {"some": "state"}


def numbers(fc):
    return fc.range(12, num_partitions=6)


def pairs(fc):
    return numbers(fc).map(lambda x: (x % 2, x))


#: of actions with functions: what calls them, by the function that is called on the driver
WITH_FUNCTIONS: dict[str, Callable[[Any, Callable[..., Any]], Any]] = {
    "reduce": lambda fc, fn: numbers(fc).reduce(fn),
    "fold": lambda fc, fn: numbers(fc).fold(0, fn),
    "aggregate": lambda fc, fn: numbers(fc).aggregate(0, lambda one, other: one + other, fn),
    "tree_reduce": lambda fc, fn: numbers(fc).tree_reduce(fn),
    "tree_aggregate": lambda fc, fn: numbers(fc).tree_aggregate(0, lambda one, other: one + other, fn),
    "reduce_by_key_locally": lambda fc, fn: pairs(fc).reduce_by_key_locally(fn),
    "top": lambda fc, fn: numbers(fc).top(3, key=fn),
    "take_ordered": lambda fc, fn: numbers(fc).take_ordered(3, key=fn),
    "max": lambda fc, fn: numbers(fc).max(key=fn),
    "min": lambda fc, fn: numbers(fc).min(key=fn),
    "lookup": lambda fc, fn: pairs(fc).partition_by(3, fn).lookup(1),
    "reduce_async": lambda fc, fn: numbers(fc).reduce_async(fn).result(20),
}

#: of actions that rows take part in by their methods
WITH_ROWS: dict[str, Callable[[Any], Any]] = {
    "max": lambda rows: rows.max(),
    "min": lambda rows: rows.min(),
    "top": lambda rows: rows.top(3),
    "take_ordered": lambda rows: rows.take_ordered(3),
    "sum": lambda rows: rows.sum(),
    "count_by_value": lambda rows: rows.count_by_value(),
    "count_by_key": lambda rows: rows.map(lambda row: (row, 1)).count_by_key(),
    "collect_as_map": lambda rows: rows.map(lambda row: (row, 1)).collect_as_map(),
    "reduce_by_key_locally": lambda rows: rows.map(lambda row: (row, 1)).reduce_by_key_locally(lambda one, other: one),
    "sort_by": lambda rows: rows.sort_by(lambda row: row, num_partitions=3).count(),
    "histogram": lambda rows: rows.histogram(2),
}


def raised_by(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def arrives_as(leaving: type[BaseException]) -> type[Exception]:
    """What an action raises where a function on the driver raised ``leaving``: what is no ``Exception`` is a failed job."""
    if leaving is StopIteration:
        return StopIterationInTask
    return leaving if issubclass(leaving, Exception) else JobFailed


def check(error: BaseException, leaving: type[BaseException], operation: str) -> None:
    """It is what was raised, or names it; and in which operation, at which line, and that it was on the driver."""
    assert type(error) is arrives_as(leaving)
    if isinstance(error, JobFailed):
        assert str(error).startswith(f"{leaving.__name__}: on the driver")
        assert type(error.__cause__) is leaving
    (note,) = error.__notes__
    if operation == "reduce_async":
        operation = "reduce"
    assert f"In {operation} at " in note
    assert "test_functions_on_the_driver.py:" in note
    assert ", on the driver" in note
    if leaving is StopIteration:
        assert "on the driver, raised StopIteration; left alone" in str(error)
        assert type(error.__cause__) is StopIteration


def check_unread(error: BaseException, leaving: type[BaseException]) -> None:
    """A result could not be unpickled."""
    assert type(error) is arrives_as(leaving)
    assert "on the driver" in str(error)
    assert "on the driver, unpickling results" in error.__notes__[0]


@pytest.mark.parametrize("leaving", LEAVING)
@pytest.mark.parametrize("action", WITH_FUNCTIONS)
def test_what_a_function_raises_on_the_driver_arrives_with_its_operation(fc, action, leaving):
    error = raised_by(lambda: WITH_FUNCTIONS[action](fc, at_driver(leaving)))
    check(error, leaving, action)


@pytest.mark.parametrize("action", WITH_FUNCTIONS)
def test_the_note_names_the_function(fc, action):
    error = raised_by(lambda: WITH_FUNCTIONS[action](fc, at_driver(ValueError)))
    assert "(function at_driver.<locals>.merge), on the driver" in error.__notes__[0]


@pytest.mark.parametrize("action", WITH_FUNCTIONS)
def test_a_function_that_raises_nothing_is_called_as_before(fc, action):
    assert WITH_FUNCTIONS[action](fc, at_driver(None)) is not None


def test_the_note_tells_what_was_merged(fc):
    error = raised_by(lambda: numbers(fc).reduce(at_driver(ValueError)))
    assert error.__notes__[0].endswith(", on the driver, merging 1 and 5")


@pytest.mark.parametrize("leaving", LEAVING)
@pytest.mark.parametrize("action", WITH_ROWS)
def test_what_rows_raise_by_themselves_on_the_driver_arrives_with_the_operation(fc, action, leaving, monkeypatch):
    rows = numbers(fc).map(Moody)
    if action in {"sum", "histogram"}:
        rows = rows.map(lambda row: row)
    monkeypatch.setattr(Moody, "error", leaving)
    error = raised_by(lambda: WITH_ROWS[action](rows))
    if action in {"count_by_value", "count_by_key", "reduce_by_key_locally"}:  # results hold them as keys
        check_unread(error, leaving)
    else:
        check(error, leaving, action)


@pytest.mark.parametrize("leaving", LEAVING)
@pytest.mark.parametrize("action", ["collect", "take", "first", "max", "collect_async", "to_local_iterator"])
def test_results_that_cannot_be_unpickled_say_so(fc, action, leaving, monkeypatch):
    monkeypatch.setattr(Unpicklable, "error", leaving)
    rows = fc.range(3, num_partitions=2).map(lambda _: Unpicklable())
    calls: dict[str, Callable[[], Any]] = {
        "take": lambda: rows.take(2),
        "max": lambda: rows.max(key=id),
        "collect_async": lambda: rows.collect_async().result(20),
        "to_local_iterator": lambda: list(rows.to_local_iterator()),
    }
    error = raised_by(calls[action] if action in calls else getattr(rows, action))
    check_unread(error, leaving)


@pytest.mark.parametrize("leaving", [*LEAVING, KeyboardInterrupt])
def test_a_future_ends_whatever_a_function_raises(fc, leaving):
    future = numbers(fc).reduce_async(at_driver(leaving))
    error = future.exception(20)
    assert type(error) is arrives_as(leaving)


@pytest.mark.parametrize("leaving", [*LEAVING, KeyboardInterrupt])
def test_an_awaited_future_ends_whatever_a_function_raises(fc, leaving):
    async def main() -> BaseException:
        try:
            await asyncio.wait_for(numbers(fc).reduce_async(at_driver(leaving)), 20)
        except BaseException as error:
            return error
        raise AssertionError("nothing was raised")

    assert type(asyncio.run(main())) is arrives_as(leaving)


@pytest.mark.parametrize("leaving", [StopIteration, SystemExit, KeyboardInterrupt])
def test_any_asynchronous_action_ends_whatever_it_raises(fc, leaving):
    def action() -> None:
        raise leaving("no")

    future: JobFuture[None] = fc.range(1)._started(action, "some_async")
    error = future.exception(20)
    assert type(error) is arrives_as(leaving)


def test_a_loop_around_an_action_is_not_ended_by_its_merge(fc):
    with pytest.raises(StopIterationInTask):
        list(map(lambda rdd: rdd.reduce(at_driver(StopIteration)), [numbers(fc), numbers(fc)]))


def test_an_error_of_a_task_is_not_said_to_be_of_the_driver(fc):
    def always(one, other):
        raise ValueError("in the task")

    error = raised_by(lambda: numbers(fc).reduce(always))
    assert "on the driver" not in error.__notes__[0]
    assert "partition 0 of" in error.__notes__[0]


# -- accumulators


@pytest.mark.parametrize("leaving", LEAVING)
def test_a_merge_of_an_accumulator_is_told_like_one_of_an_action(fc, leaving):
    total = fc.accumulator(0, name="total", merge=at_driver(leaving))
    error = raised_by(lambda: total.add(1))
    assert type(error) is arrives_as(leaving)
    assert "In accumulator 'total' at " in error.__notes__[0]
    assert "(function at_driver.<locals>.merge), on the driver, merging 0 and 1" in error.__notes__[0]


@pytest.mark.parametrize("leaving", LEAVING)
def test_an_update_that_cannot_be_merged_costs_the_accumulator_and_no_job(fc, leaving):
    total = fc.accumulator(0, merge=at_driver(leaving))
    fc.range(4, num_partitions=2).foreach(total.add)
    assert fc.range(4).count() == 4
    with pytest.raises(AccumulatorMisused, match="could not be merged") as caught:
        _ = total.value
    assert type(caught.value.__cause__) is arrives_as(leaving)


def test_a_merge_function_may_look_at_its_accumulator(fc):
    seen = []
    total = fc.accumulator(0, merge=lambda one, other: (seen.append(total.value), one + other)[1])
    total.add(2)
    total.add(3)
    assert (total.value, seen) == (5, [0, 2])


# -- all of them


def test_no_action_merges_results_outside_of_the_one_place():
    """Every function of Python's that calls users' functions stands in a block of ``OnDriver`` in the modules of actions."""
    import ast
    import inspect

    from flowkit.rdd import actions, numeric, pairs, sorting

    callers = {
        "reduce",
        "nlargest",
        "nsmallest",
        "choose",
        "deepcopy",
        "sample_bounds",
        "partition_of",
        "merged_map",
        "_added_up",
    }
    for module in (actions, numeric, pairs, sorting):
        tree = ast.parse(inspect.getsource(module))
        inside = {
            id(call)
            for block in ast.walk(tree)
            if isinstance(block, ast.With)
            and any("_driver" in ast.unparse(item) or "OnDriver" in ast.unparse(item) for item in block.items)
            for call in ast.walk(block)
        }
        for call in ast.walk(tree):
            if isinstance(call, ast.Call):
                name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                is_own = ast.unparse(call).startswith(("reduce(StatCounter", "self.reduce"))
                assert name not in callers or id(call) in inside or is_own, f"{module.__name__}:{call.lineno} calls {name}"
