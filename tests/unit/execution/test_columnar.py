"""Sort and group by columns against plain Python; what cannot go by columns goes by rows, and nobody can tell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit.execution.columnar import group_columns, sort_columns, stable_order
from flowkit.storage.serializers import PairColumns, decode_pairs, encode_batch
from tests.unit.execution.surroundings import Surroundings

FIXTURES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
INTS = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))
FLOATS = st.one_of(st.sampled_from([0.0, -0.0, 1.5, math.inf, -math.inf, 5e-324]), st.floats(allow_nan=False))
VALUES = st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=2))


def batches_of(keys: st.SearchStrategy[Any]) -> st.SearchStrategy[list[list[tuple[Any, Any]]]]:
    return st.lists(st.lists(st.tuples(keys, VALUES), min_size=1, max_size=20), max_size=5)


NUMBERS = st.one_of(batches_of(INTS), batches_of(FLOATS))
ANYTHING = st.one_of(batches_of(st.one_of(INTS, FLOATS, st.integers(2**64, 2**65), st.booleans())))


def columns_of(batches: list[list[tuple[Any, Any]]]) -> Iterator[PairColumns]:
    return (decode_pairs(encode_batch(batch)) for batch in batches)


def never(batches: Iterator[Any]) -> Iterator[Any]:
    raise AssertionError("numbers need not go by rows")


def sorted_rows(batches: Iterator[list[tuple[Any, Any]]], *, descending: bool) -> Iterator[tuple[Any, Any]]:
    return iter(sorted(chain.from_iterable(batches), key=itemgetter(0), reverse=descending))


def grouped_rows(batches: Iterator[list[tuple[Any, Any]]]) -> Iterator[tuple[Any, list[Any]]]:
    table: dict[Any, list[Any]] = {}
    for key, value in chain.from_iterable(batches):
        table.setdefault(key, []).append(value)
    return iter(table.items())


def exactly(rows: Any) -> str:
    """Types, signs of zero and all."""
    return repr(list(rows))


@FIXTURES
@given(batches=NUMBERS, descending=st.booleans())
def test_numbers_are_sorted_as_python_sorts_them_and_equal_ones_keep_their_order(surroundings: Surroundings, batches, descending):
    by_rows = never if batches else iter_rows
    found = sort_columns(columns_of(batches), surroundings.environment(), by_rows, descending=descending)
    assert exactly(found) == exactly(sorted_rows(iter(batches), descending=descending))


def iter_rows(batches: Iterator[list[Any]]) -> Iterator[Any]:
    return chain.from_iterable(batches)


@FIXTURES
@given(batches=NUMBERS)
def test_numbers_are_grouped_in_the_order_in_which_they_were_first_seen(surroundings: Surroundings, batches):
    found = group_columns(columns_of(batches), surroundings.environment(), never if batches else iter_rows)
    assert exactly(found) == exactly(grouped_rows(iter(batches)))


@FIXTURES
@given(batches=ANYTHING)
def test_keys_of_several_types_are_grouped_as_a_dict_groups_them(surroundings: Surroundings, batches):
    found = group_columns(columns_of(batches), surroundings.environment(), grouped_rows)
    assert exactly(found) == exactly(grouped_rows(iter(batches)))


@FIXTURES
@given(batches=ANYTHING)
def test_keys_of_several_types_are_sorted_by_value(surroundings: Surroundings, batches):
    def by_rows(rows: Iterator[list[Any]]) -> Iterator[Any]:
        return sorted_rows(rows, descending=False)

    found = sort_columns(columns_of(batches), surroundings.environment(), by_rows, descending=False)
    assert exactly(found) == exactly(sorted_rows(iter(batches), descending=False))


def test_keys_that_are_not_numbers_go_by_rows_and_none_is_lost(surroundings: Surroundings):
    batches = [[(1, "a")], [(math.nan, "b"), (2.0, "c")], [("x", "d")]]
    for first in range(3):
        some = batches[first:] + batches[:first]
        found = list(sort_columns(columns_of(some), surroundings.environment(), iter_rows, descending=False))
        assert exactly(found) == exactly(chain.from_iterable(some))


def test_nan_goes_by_rows(surroundings: Surroundings):
    batches = [[(1.0, 1)], [(math.nan, 2)], [(0.5, 3)]]
    found = sort_columns(columns_of(batches), surroundings.environment(), iter_rows, descending=False)
    assert [value for _, value in found] == [1, 2, 3]


@pytest.mark.parametrize("operation", ["sort", "group"])
def test_what_memory_is_refused_for_goes_by_rows_batch_by_batch(surroundings: Surroundings, operation):
    surroundings.memory_bytes = 2 << 20
    environment = surroundings.environment()
    batches = [[(key % 1000, key) for key in range(start, start + 10_000)] for start in range(0, 200_000, 10_000)]
    held_when_asked = []

    def by_rows(rows: Iterator[list[Any]]) -> Iterator[Any]:
        held_when_asked.append(environment.memory.used_bytes)
        return chain.from_iterable(rows)

    columns = columns_of(batches)
    found = (
        sort_columns(columns, environment, by_rows, descending=False)
        if operation == "sort"
        else group_columns(columns, environment, by_rows)
    )
    assert list(found) == list(chain.from_iterable(batches))
    assert held_when_asked == [0]


def test_memory_is_held_while_rows_are_used_and_given_back(surroundings: Surroundings):
    environment = surroundings.environment()
    found = group_columns(columns_of([[(1, 2)] * 10]), environment, never)
    next(found)
    assert environment.memory.used_bytes > 0
    assert list(found) == []
    assert environment.memory.used_bytes == 0


def test_a_group_far_larger_than_others_is_one_list(surroundings: Surroundings):
    rows = [(7, value) for value in range(20_000)] + [(key, 0) for key in range(100, 5_000)]
    found = dict(group_columns(columns_of([rows]), surroundings.environment(), never))
    assert found[7] == list(range(20_000))
    assert len(found) == 4_901


def test_a_killed_task_stops_between_pieces(surroundings: Surroundings):
    class Killed(Exception):
        pass

    looks = []

    def check() -> None:
        looks.append(1)
        if len(looks) > 2:
            raise Killed

    surroundings.check_killed = check
    columns = columns_of([[(key, key) for key in range(50_000)]])
    found = sort_columns(columns, surroundings.environment(), never, descending=False)
    with pytest.raises(Killed):
        list(found)


@given(numbers=st.one_of(st.lists(INTS), st.lists(FLOATS)))
def test_the_stable_order_is_numpys(numbers):
    array = np.array(numbers, np.float64 if numbers and isinstance(numbers[0], float) else np.int64)
    assert stable_order(array).tolist() == np.argsort(array, kind="stable").tolist()
