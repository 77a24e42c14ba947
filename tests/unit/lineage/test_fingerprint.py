"""Equal fingerprints mean equal recipes; whatever changes a recipe changes the fingerprint."""

from __future__ import annotations

import functools
import math
import re
import socket
import subprocess
import sys
import threading
import types
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from operator import add, itemgetter
from types import CellType, FunctionType

import numpy as np
import pytest
import toolz
from hypothesis import given
from hypothesis import strategies as st

from flowkit.lineage.fingerprint import CannotFollow, digest_of, fingerprint
from flowkit.testing.inline import inline_context

FACTOR = 2


@pytest.fixture(scope="module")
def fc():
    with inline_context() as context:
        yield context


def of(rdd) -> str:
    return fingerprint(rdd._node, "app")


def scale(x):
    return x * FACTOR


# -- functions ---------------------------------------------------------------------------------------------------------


def test_the_same_text_on_another_line_is_the_same():
    first = lambda x: (x + 1, "a")
    second = lambda x: (x + 1, "a")
    assert first.__code__.co_firstlineno != second.__code__.co_firstlineno
    assert digest_of(first) == digest_of(second)


def test_the_name_of_a_function_says_nothing():
    def one(x):
        return x + 1

    def two(x):
        return x + 1

    assert digest_of(one) == digest_of(two)


@pytest.mark.parametrize(
    "one, two",
    [
        (lambda x: x + 1, lambda x: x + 2),
        (lambda x: x + 1, lambda x: x - 1),
        (lambda x: x + 1, lambda x: x + 1.0),
        (lambda x: x == 1, lambda x: x == True),  # noqa: E712
        (lambda x: "a", lambda x: b"a"),
        (lambda x, y=1: x, lambda x, y=2: x),
        (lambda x, *, y=1: x, lambda x, *, y=2: x),
        (lambda x: x.real, lambda x: x.imag),
        (lambda x: math.sin(x), lambda x: math.cos(x)),
        (lambda x: [y + 1 for y in x], lambda x: [y + 2 for y in x]),
        (lambda x: [x], lambda x: (x,)),
        (str.upper, str.lower),
        (itemgetter(0), itemgetter(1)),
        (functools.partial(add, 1), functools.partial(add, 2)),
        ([].append, [1].append),
        (re.compile("a").match, re.compile("b").match),
    ],
)
def test_other_code_is_something_else(one, two):
    assert digest_of(one) == digest_of(one)
    assert digest_of(one) != digest_of(two)


def test_captured_values_count():
    def adder(n):
        return lambda x: x + n

    assert digest_of(adder(1)) == digest_of(adder(1))
    assert digest_of(adder(1)) != digest_of(adder(2))
    assert digest_of(adder([1, {"a": (2,)}])) == digest_of(adder([1, {"a": (2,)}]))
    assert digest_of(adder([1, {"a": (2,)}])) != digest_of(adder([1, {"a": (3,)}]))


def test_globals_a_function_uses_count(monkeypatch):
    before = digest_of(scale)
    assert digest_of(lambda x: scale(x)) != digest_of(lambda x: x)
    through = digest_of(lambda x: scale(x))
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert digest_of(scale) != before
    assert digest_of(lambda x: scale(x)) != through


def test_what_a_librarys_function_made_counts_with_what_it_captured():
    def made_in_a_library(n):
        made = FunctionType((lambda x: x + n).__code__, {"__name__": "json"}, "<lambda>", None, (CellType(n),))
        assert made.__module__ == "json"
        return made

    assert digest_of(made_in_a_library(1)) == digest_of(made_in_a_library(1))
    assert digest_of(made_in_a_library(1)) != digest_of(made_in_a_library(2))
    assert digest_of(toolz.compose(scale, abs)) != digest_of(toolz.compose(abs, scale))


@pytest.fixture
def own_modules(monkeypatch):
    """``mine`` and ``mine.inner`` of the user's own, with a rate in the inner one."""
    outer, inner = types.ModuleType("mine"), types.ModuleType("mine.inner")
    outer.inner, inner.rate = inner, 1
    monkeypatch.setitem(sys.modules, "mine", outer)
    monkeypatch.setitem(sys.modules, "mine.inner", inner)
    return outer


def test_what_is_taken_from_modules_of_ones_own_counts_however_they_are_reached(own_modules, monkeypatch):
    def imports_when_it_runs(x):
        import mine.inner

        return x * mine.inner.rate

    def imports_from(x):
        def later():
            from mine.inner import rate

            return rate

        return x * later()

    monkeypatch.setitem(globals(), "mine", own_modules)
    of_all = [lambda x: x * own_modules.inner.rate, lambda x: x * mine.inner.rate, imports_when_it_runs, imports_from]  # noqa: F821
    before = [digest_of(each) for each in of_all]
    assert [digest_of(each) for each in of_all] == before
    own_modules.inner.rate = 2
    assert not set(before) & {digest_of(each) for each in of_all}
    own_modules.inner.rate, own_modules.inner.other = 1, 3
    assert [digest_of(each) for each in of_all] == before


def test_a_module_of_ones_own_in_a_value_cannot_be_followed(own_modules):
    with pytest.raises(CannotFollow):
        digest_of([own_modules])

    def imports_what_is_not_there(x):
        import nowhere_to_be_found

        return nowhere_to_be_found

    with pytest.raises(CannotFollow):
        digest_of(imports_what_is_not_there)
    code = compile("def f(x):\n    from . import y\n    return y\n", "relative", "exec")
    names = {"__name__": "mine.f"}
    exec(code, names)
    with pytest.raises(CannotFollow):
        digest_of(names["f"])
    assert digest_of(lambda x: __import__("json")) != digest_of(lambda x: math)


def test_a_function_that_calls_itself_has_an_end():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    assert digest_of(even) == digest_of(even) != digest_of(odd)


def test_classes_count_by_what_they_do():
    def make(n):
        class Scale:
            def __init__(self, by):
                self.by = by

            def __call__(self, x):
                return x * self.by + n

        return Scale

    assert digest_of(make(1)(2)) == digest_of(make(1)(2))
    assert digest_of(make(1)(2)) != digest_of(make(1)(3))
    assert digest_of(make(1)(2)) != digest_of(make(2)(2))


@dataclass(frozen=True)
class Point:
    x: float
    y: float


@pytest.mark.parametrize(
    "value",
    [Point(1, 2), datetime(2026, 1, 1, tzinfo=UTC), Decimal("1.5"), np.arange(5), np.array(["a", None], object), range(3), ...],
)
def test_values_of_many_types_can_be_followed(value):
    assert digest_of(value) == digest_of(value)
    assert digest_of(value) != digest_of([value])


def test_arrays_count_with_type_and_shape():
    ones = np.ones(4)
    digests = {digest_of(each) for each in (ones, ones.reshape(2, 2), ones.astype("f4"), np.zeros(4))}
    assert len(digests) == 4


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def exact(value):
    """A text that tells 1, 1.0 and True apart, and -0.0 from 0.0."""
    if isinstance(value, dict):
        return f"{{{[(k, exact(v)) for k, v in value.items()]}}}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}{[exact(v) for v in value]}"
    return f"{type(value).__name__} {value!r}"


@given(values, values)
def test_values_have_equal_digests_exactly_if_they_are_equal_with_their_types(one, two):
    assert (digest_of(one) == digest_of(two)) == (exact(one) == exact(two))


@given(st.sets(st.text() | st.integers()))
def test_the_order_of_a_set_does_not_count(elements):
    assert digest_of(set(elements)) == digest_of(set(sorted(elements, key=repr, reverse=True)))


def test_a_value_deeper_than_anybody_follows_is_given_up():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(CannotFollow):
        digest_of(deep)


def test_digests_are_the_same_in_every_process():
    code = (
        "from flowkit.lineage.fingerprint import digest_of; import re\n"
        "pattern = re.compile('x')\n"
        "print(digest_of(lambda w: (w in {'a', 'b', 'c'}, {'k': [1, 2.5, None]}, pattern.match(w), str.split(w))))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


# -- nodes -------------------------------------------------------------------------------------------------------------


def chain(fc, *, rows=(1, 2, 3), n=1, parts=2, reducers=2, operation="map"):
    rdd = fc.parallelize(rows, parts)
    mapped = getattr(rdd, operation)(lambda x: (x, x + n))
    return mapped.reduce_by_key(add, reducers).map_values(str).sort_by(itemgetter(1)).zip_with_index()


def test_the_same_chain_written_twice_is_the_same(fc):
    assert of(chain(fc)) == of(chain(fc))


@pytest.mark.parametrize(
    "change",
    [{"rows": (1, 2, 4)}, {"n": 2}, {"parts": 3}, {"reducers": 3}, {"operation": "flat_map"}],
)
def test_each_part_of_a_chain_counts(fc, change):
    assert of(chain(fc)) != of(chain(fc, **change))


def test_running_a_chain_changes_nothing(fc):
    before, after = chain(fc), chain(fc)
    expected = of(before)
    after.collect()
    assert of(after) == expected


def test_applications_never_share_one(fc):
    assert fingerprint(fc.range(3)._node, "app-1") != fingerprint(fc.range(3)._node, "app-2")


def test_joins_count_with_kind_and_side(fc):
    a, b = fc.parallelize([(1, 2)]), fc.parallelize([(3, 4)])
    joins = [a.join(b), b.join(a), a.left_outer_join(b), a.cogroup(b), a.partition_by(4).join(b, 4)]
    assert len({of(each) for each in joins}) == 5
    assert of(a.join(b)) == of(a.join(b))


def test_what_cannot_be_followed_is_unique_and_so_is_all_that_follows(fc):
    lock = threading.Lock()
    one, two = (fc.range(3).map(lambda x: (lock, x)[1]) for _ in range(2))
    assert of(one).startswith("unique-")
    assert of(one) == of(one) != of(two)
    assert of(one.map(str)) != of(two.map(str))
    with socket.socket() as connection, pytest.raises(CannotFollow):
        digest_of(lambda: connection)


def test_a_file_that_changed_is_another_source(fc, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n")
    before = of(fc.text_file(path))
    assert of(fc.text_file(path)) == before
    path.write_text("more than one\n")
    assert of(fc.text_file(path)) != before


def test_ten_thousand_nodes_need_no_stack(fc):
    rdd = fc.range(3)
    for _ in range(10_000):
        rdd = rdd.map(abs)
    assert len(of(rdd)) == 32
