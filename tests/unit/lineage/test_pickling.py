"""What travels by value keeps the place it stands in."""

from __future__ import annotations

import pickle

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
