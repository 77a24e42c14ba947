"""The key that most rows have is found from a sample, and none is where none stands out."""

from __future__ import annotations

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


def test_few_rows_are_not_looked_at():
    keys = HotKey()
    keys.look(["hot"] * (_LEAST_ROWS - 1))
    assert keys.found() is None


def test_keys_that_cannot_be_counted_are_left_alone():
    keys = HotKey()
    keys.look([[x] for x in range(_LEAST_ROWS)])
    assert keys.found() is None


def test_many_keys_take_little_memory_and_the_hot_one_stays():
    keys = HotKey()
    for chunk in range(40):
        keys.look([(-1 if x % 2 else chunk * 60_000 + x) for x in range(60_000)])
    assert len(keys._counts) < 2 * _MOST_KEYS
    assert keys.found()[0] == -1
