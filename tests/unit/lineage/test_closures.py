"""What cannot travel is refused at the action's call, with the way to it."""

from __future__ import annotations

import socket
import threading

import pytest

from flowkit.errors import ClosureError, NestedAction
from flowkit.execution.task_context import inside_task
from flowkit.lineage.closures import dumps_rows, find_unpicklable
from flowkit.testing.inline import inline_context

LOCK = threading.Lock()


@pytest.fixture(scope="module")
def fc():
    with inline_context() as context:
        yield context


class Client:
    def __init__(self) -> None:
        self.name = "client"
        self.socket = socket.socket()


@pytest.fixture
def client():
    made = Client()
    yield made
    made.socket.close()


def test_the_way_leads_through_variables_and_attributes(fc, client):
    def clean(row):
        return client.name, row

    rdd = fc.range(3).map(clean)
    with pytest.raises(ClosureError, match=r"map at test_closures\.py:\d+.*clean -> client -> socket") as caught:
        rdd.collect()
    assert caught.value.path == "clean -> client -> socket"


def uses_global(row):
    with LOCK:
        return row


def calls(inner):
    return lambda x: inner(x)


@pytest.mark.parametrize(
    "make, path",
    [
        (lambda bad: lambda x: bad, ["<lambda>", "bad"]),
        (lambda bad: lambda x, y=bad: y, ["<lambda>", "default argument 0"]),
        (lambda bad: lambda x, *, y=bad: y, ["<lambda>", "default of y"]),
        (lambda bad: {"a": [1, bad]}, ["dict", "['a']", "[1]"]),
        (lambda bad: calls(lambda x: bad), ["<lambda>", "inner", "bad"]),
    ],
)
def test_ways_of_many_kinds_are_found(make, path):
    found = find_unpicklable(make(threading.Lock()))
    assert found is not None
    assert found[0] == path


def test_globals_are_followed_too():
    # Only of functions that travel by value: those of an importable module are imported again over there.
    uses_global.__module__ = "__main__"
    found = find_unpicklable(uses_global)
    assert found is not None
    assert found[0] == ["uses_global", "LOCK"]


def test_what_can_travel_is_let_through():
    assert find_unpicklable(lambda x: x + 1) is None


def test_the_function_of_a_reduce_and_of_an_action_is_looked_at_as_well(fc):
    lock = threading.Lock()
    with pytest.raises(ClosureError, match=r"reduce_by_key at .*lock"):
        fc.range(3).map(lambda x: (x, x)).reduce_by_key(lambda a, b: (lock, a)[1]).collect()
    with pytest.raises(ClosureError, match=r"reduce at .*lock"):
        fc.range(3).reduce(lambda a, b: (lock, a)[1])


def test_an_rdd_inside_a_function_is_refused_with_what_to_do(fc):
    other = fc.range(3)
    with pytest.raises(ClosureError, match=r"other: an RDD can't be used inside a function.*join"):
        fc.range(3).map(lambda x: other.count()).collect()


def test_a_context_inside_a_function_is_refused(fc):
    with pytest.raises(ClosureError, match=r"fc: a Context can't be used"):
        fc.range(3).map(lambda x: fc.range(x).count()).collect()


hidden: list = []


def test_an_action_inside_a_task_is_refused(fc, monkeypatch):
    # By way of a module's global, since a captured RDD would not get that far.
    import sys
    import types

    module = types.ModuleType("holds_an_rdd")
    module.rdd = fc.range(3)
    monkeypatch.setitem(sys.modules, "holds_an_rdd", module)

    def act(x):
        import holds_an_rdd

        return holds_an_rdd.rdd.count()

    with pytest.raises(NestedAction, match="count was called inside a task"):
        fc.range(3).map(act).collect()
    assert not inside_task()


def test_an_element_that_cannot_travel_is_named_by_its_place(fc):
    with pytest.raises(ClosureError, match=r"\[1\]"):
        fc.parallelize([1, threading.Lock()], 1)


def test_rows_of_the_scripts_own_classes_travel_by_value():
    Own = type("Own", (), {"__module__": "__main__"})
    assert b"__reduce__" in dumps_rows([Own()]) or b"cloudpickle" in dumps_rows([Own()])
    assert b"cloudpickle" not in dumps_rows([1, "a", (2.5, None)])
