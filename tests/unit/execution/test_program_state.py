"""Functions that remember: what running a program could change is found, and programs without such are shared by all tasks."""

from __future__ import annotations

import functools
import operator
import pickle
from functools import lru_cache, partial

import numpy as np
import pytest

from flowkit.execution.program_state import has_state
from flowkit.lineage.closures import dumps
from flowkit.lineage.kernels import IntegerRange, Map, Result, StageProgram, Step

SEEN: list = []
LIMIT = 3
NAMES = ("a", "b")
MODEL = None


def arrived(fn):
    """A program with a function, as executors have it."""
    source = Step(0, IntegerRange(0, 9, 1, 1), (), 1, "range", "test.py:1")
    return pickle.loads(dumps(StageProgram((source, Step(1, Map(fn), (), 1, "map", "test.py:2")), Result(len))))


def captures(value):
    return lambda x: (x, value)


def counting():
    count = 0

    def fn(x):
        nonlocal count
        count += 1
        return count

    return fn


def with_own_counter(x):
    def one_more():
        nonlocal x
        x += 1
        return x

    return one_more()


class Remembering:
    def __init__(self):
        self.seen = []

    def __call__(self, x):
        self.seen.append(x)
        return len(self.seen)

    def method(self, x):
        return self(x)


def by_value(fn):
    """As if it stood in the driver's script: executors cannot import it, so what it refers to travels along."""
    copied = type(fn)(fn.__code__, {**fn.__globals__, "__name__": "__main__"}, fn.__name__, fn.__defaults__, fn.__closure__)
    copied.__module__, copied.__kwdefaults__ = "__main__", fn.__kwdefaults__
    vars(copied).update(vars(fn))
    return copied


def lazily(x):
    global MODEL  # noqa: PLW0603 - what is tested
    if MODEL is None:
        MODEL = x
    return MODEL


def appends_to_a_global(x):
    SEEN.append(x)
    return len(SEEN)


def reads_globals(x):
    return x < LIMIT and NAMES[x] and operator.neg(x) and np.sqrt(x)


def calls_another(x):
    return appends_to_a_global(x)


def calls_one_that_reads(x):
    return reads_globals(x)


def has_a_default(x, seen=[]):  # noqa: B006 - what is tested
    seen.append(x)
    return len(seen)


def has_a_keyword_default(x, *, seen={}):  # noqa: B006 - what is tested
    return seen.setdefault(x, len(seen))


def counts_in_itself(x):
    counts_in_itself.calls = getattr(counts_in_itself, "calls", 0) + 1
    return counts_in_itself.calls


class Empty:
    __slots__ = ()

    def __call__(self, x):
        return x


STATELESS = {
    "object without room": Empty,
    "lambda": lambda: lambda x: x + 1,
    "captured number": lambda: captures(3),
    "captured tuple": lambda: captures((1, ("a", None))),
    "captured function": lambda: captures(lambda x: x),
    "captured class": lambda: captures(Remembering),
    "builtin": lambda: len,
    "method of a type": lambda: str.split,
    "itemgetter": lambda: operator.itemgetter(1),
    "partial": lambda: partial(max, 3),
    "numpy function": lambda: np.sqrt,
    "function of a module": lambda: with_own_counter,
    "own counter in each call": lambda: by_value(with_own_counter),
    "globals that are read": lambda: by_value(reads_globals),
    "function that reads globals": lambda: by_value(calls_one_that_reads),
    "memo": lambda: lru_cache(lambda x: x + 1),
    "reduce": lambda: partial(functools.reduce, operator.add),
}
STATEFUL = {
    "captured list": lambda: captures([]),
    "captured list in a tuple": lambda: captures((1, [])),
    "captured array": lambda: captures(np.zeros(3)),
    "captured function with a list": lambda: captures(captures([])),
    "method of a list": lambda: [].append,
    "counter": counting,
    "object": Remembering,
    "method of an object": lambda: Remembering().method,
    "partial of a list": lambda: partial(operator.contains, []),
    "global that is written": lambda: by_value(lazily),
    "global list": lambda: by_value(appends_to_a_global),
    "function that has a global list": lambda: captures(by_value(appends_to_a_global)),
    "default": lambda: by_value(has_a_default),
    "keyword default": lambda: by_value(has_a_keyword_default),
    "attribute of a function": lambda: by_value(counts_in_itself),
    "iterator": lambda: iter([1, 2]).__next__,
    "memo of what remembers": lambda: lru_cache(captures([])),
}


@pytest.mark.parametrize("name", STATELESS)
def test_a_program_that_running_cannot_change_is_shared(name):
    assert not has_state(arrived(STATELESS[name]()))


@pytest.mark.parametrize("name", STATEFUL)
def test_what_running_could_change_is_found(name):
    assert has_state(arrived(STATEFUL[name]()))


def test_a_program_too_large_to_look_through_has_a_state():
    fn = captures(1)
    for _ in range(100):
        fn = captures(tuple(captures((fn, number)) for number in range(300)))
    assert has_state(StageProgram((Step(0, Map(fn), (), 1, "map", ""),), Result(len)))


class Evasive:
    """It answers no question about itself."""

    __module__ = None

    @property
    def __class__(self):
        raise LookupError("no class")


def test_what_cannot_be_looked_at_counts_as_having_a_state():
    assert has_state(StageProgram((Step(0, Map(captures(Evasive())), (), 1, "map", ""),), Result(len)))
