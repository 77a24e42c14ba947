"""The key that most rows have is found from a sample, and none is where none stands out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.storage.shuffle.hot_keys import _LEAST_ROWS, _MOST_KEYS, HotKey


@given(st.floats(0.35, 0.95), st.integers(20_000, 60_000))
def test_a_key_of_a_third_of_the_rows_and_more_is_found(part, rows):
    hot = int(part * rows)
    keys = HotKey()
    keys.look(["hot"] * hot + list(range(rows - hot)))
    key, found = keys.found()
    assert key == "hot"
    assert abs(found - part) < 0.2


@given(st.integers(2, 200))
def test_keys_that_repeat_at_regular_distances_do_not_look_hot(period):
    keys = HotKey()
    keys.look([x % (20 * period) for x in range(50_000)])
    assert keys.found() is None


@given(st.floats(0.5, 0.95), st.integers(100, 20_000), st.integers(1, 9))
def test_a_key_of_half_of_few_rows_is_found_in_however_many_chunks(part, rows, chunks):
    hot = int(part * rows)
    values = ["hot"] * hot + list(range(rows - hot))
    values = [values[place * 7_919 % rows] for place in range(rows)] if rows % 7_919 else values
    keys = HotKey()
    for chunk in range(chunks):
        keys.look(values[rows * chunk // chunks : rows * (chunk + 1) // chunks])
    key, found = keys.found()
    assert key == "hot"
    assert abs(found - part) < 0.3


@given(st.integers(1, 300), st.integers(65, 8_191))
def test_nor_do_those_of_small_chunks(period, rows):
    keys = HotKey()
    keys.look([x % (20 * period) for x in range(rows)])
    assert keys.found() is None


def test_a_key_of_a_handful_of_rows_is_not_named():
    keys = HotKey()
    keys.look(["hot"] * (_LEAST_ROWS - 1))
    assert keys.found() is None
    keys.look(["hot"])
    assert keys.found() == ("hot", 1.0)


@given(st.integers(1, 200))
def test_keys_that_were_combined_before_are_not_named(keys_count):
    keys = HotKey()
    keys.look(list(range(keys_count)))
    assert keys.found() is None


@pytest.mark.parametrize("rows", [3, 1_000, 20_000])
def test_keys_that_cannot_be_counted_are_left_alone(rows):
    keys = HotKey()
    keys.look([[x] for x in range(rows)])
    assert keys.found() is None


def test_many_keys_take_little_memory_and_the_hot_one_stays():
    keys = HotKey()
    for chunk in range(40):
        keys.look([(-1 if x % 2 else chunk * 60_000 + x) for x in range(60_000)])
    assert len(keys._counts) < 2 * _MOST_KEYS
    assert keys.found()[0] == -1
