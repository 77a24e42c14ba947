"""What travels by value keeps the place it stands in."""

from __future__ import annotations

import functools
import pickle
import sys
import typing
from types import ModuleType

import cloudpickle
import pytest

from flowkit.lineage import pickling


def outer():
    def inner(x):
        raise ValueError(x)

    return inner


@pytest.mark.parametrize(
    "make", [outer, lambda: lambda x: 1 / 0, lambda: type("Local", (), {"__call__": lambda self, x: 1 / 0})()]
)
def test_a_function_that_travels_by_value_raises_at_the_line_of_its_file(make):
    arrived = pickle.loads(pickling.dumps(make()))
    with pytest.raises((ValueError, ZeroDivisionError)) as caught:
        arrived(1)
    at = caught.traceback[-1]
    assert str(at.path) == __file__
    assert 0 < at.lineno < 40


def test_functions_within_functions_do_too():
    arrived = pickle.loads(pickling.dumps(outer))
    inner = pickle.loads(pickling.dumps(arrived()))
    assert inner.__code__.co_filename == __file__


def test_the_same_function_has_the_same_pickle():
    inner = outer()
    assert pickling.dumps(inner) == pickling.dumps(inner)
    assert pickling.dumps(pickle.loads(pickling.dumps(inner))) == pickling.dumps(inner)


def test_all_else_is_cloudpickles():
    for value in ({"a": [1, None]}, range(3), object, len):
        assert pickling.dumps(value) == cloudpickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


SCRIPT = """
import functools, typing

FACTOR = 2

@functools.lru_cache(maxsize=7, typed=True)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

class Shape:
    def __init__(self, side):
        self.side = side

    @functools.cached_property
    def area(self):
        return self.side**2 * FACTOR

    @functools.lru_cache
    def perimeter(self):
        return 4 * self.side

UserId = typing.NewType("UserId", int)

@functools.singledispatch
def kind(value):
    return "other"

@kind.register
def _(value: Shape):
    return "shape of " + kind(value.side)
"""


@pytest.fixture
def script(monkeypatch):
    """A module that other processes cannot import, under the name that a script has."""
    module = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec(SCRIPT, module.__dict__)
    return module


def arrived(value, monkeypatch):
    """Where the script is not."""
    data = pickling.dumps(value)
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    return pickle.loads(data)


def test_a_scripts_cached_function_travels_by_value_and_calls_itself(script, monkeypatch):
    found = arrived(script.fibonacci, monkeypatch)
    assert found(30) == 832_040
    assert found.cache_parameters() == {"maxsize": 7, "typed": True}
    assert found.cache_info().hits > 20


def test_so_does_a_class_with_cached_properties_and_methods(script, monkeypatch):
    found = arrived(script.Shape(3), monkeypatch)
    assert (found.area, found.__dict__["area"], found.perimeter()) == (18, 18, 12)


def test_so_does_a_type_of_its_own(script, monkeypatch):
    found = arrived(script.UserId, monkeypatch)
    assert (found(3), found.__name__, found.__supertype__) == (3, "UserId", int)


def test_so_does_a_function_that_chooses_by_type(script, monkeypatch):
    kind, shape = arrived((script.kind, script.Shape(3)), monkeypatch)
    assert (kind(shape), kind(3)) == ("shape of other", "other")


@functools.lru_cache
def importable(x):
    return x


Number = typing.NewType("Number", int)


@functools.singledispatch
def dispatching(value):
    return value


@pytest.mark.parametrize("name", ["importable", "Number", "dispatching"])
def test_what_others_can_import_travels_by_name(name, monkeypatch):
    module = ModuleType("importable_module")
    value = globals()[name]
    monkeypatch.setattr(value, "__module__", module.__name__)
    setattr(module, name, value)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert pickle.loads(pickling.dumps(value)) is value
