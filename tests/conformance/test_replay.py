"""A failed partition again in the driver, up to the element at fault, however it was run before."""

from __future__ import annotations

import pickle
from operator import add

import pytest

from flowkit.errors import NotReplayable


def failure(action):
    with pytest.raises(Exception) as raised:
        action()
    return raised.value


def bad_at(number):
    def check(x):
        if x == number:
            raise LookupError(f"no {x}")
        return x

    return check


def test_the_element_at_fault_is_handed_out(fc):
    error = failure(fc.range(20, num_partitions=4).map(lambda x: x * 2).map(bad_at(26)).filter(bool).collect)
    replayed = error.replay(debug=False)
    assert replayed.element == 26
    assert isinstance(replayed.error, LookupError)
    assert "check" in replayed.traceback.tb_frame.f_code.co_name
    assert "failed again at 26: LookupError" in repr(replayed)
    assert error.replay.partition == 2


def test_behind_a_shuffle_its_rows_come_from_the_shuffle(fc):
    sums = fc.range(20, num_partitions=4).map(lambda x: (x % 5, x)).reduce_by_key(add, 3)
    seen = fc.accumulator(0)
    error = failure(sums.map(lambda pair: seen.add(1) or pair).map_values(bad_at(34)).collect)
    before = seen.value
    replayed = error.replay(debug=False)
    assert replayed.element == 34
    assert seen.value == before


def test_before_a_shuffle_too(fc):
    error = failure(fc.range(20, num_partitions=4).map(bad_at(11)).map(lambda x: (x % 5, x)).reduce_by_key(add, 3).collect)
    assert error.replay(debug=False).element == 11


def test_a_function_that_merges_on_the_map_side(fc):
    def merge(a, b):
        raise ArithmeticError(f"{a} and {b}")

    error = failure(fc.parallelize([(1, 2), (1, 3)], 1).reduce_by_key(merge).collect)
    replayed = error.replay(debug=False)
    assert str(replayed.error) == "2 and 3"
    with pytest.raises(AttributeError, match="one element"):
        _ = replayed.element


def test_the_function_of_an_action(fc):
    def visit(x):
        if x == 5:
            raise ValueError("five")

    error = failure(lambda: fc.range(8, num_partitions=2).foreach(visit))
    assert error.replay(debug=False).element == 5


@pytest.mark.undisturbed
def test_cached_parents_are_used_and_what_fails_while_it_is_cached_is_computed_again(fc):
    calls = fc.accumulator(0)
    parent = fc.range(8, num_partitions=2).map(lambda x: calls.add(1) or x).cache()
    parent.count()
    before = calls.value
    error = failure(parent.map(bad_at(6)).collect)
    assert error.replay(debug=False).element == 6
    assert calls.value == before
    error = failure(fc.range(8, num_partitions=2).map(bad_at(6)).cache().map(str).collect)
    assert error.replay(debug=False).element == 6


def test_unions_joins_and_coalesced_partitions(fc):
    left = fc.range(4, num_partitions=2)
    error = failure(left.union(left.map(lambda x: x + 10)).coalesce(1).map(bad_at(12)).collect)
    assert error.replay(debug=False).element == 12
    pairs = left.map(lambda x: (x, x))
    error = failure(pairs.join(pairs).map_values(lambda both: bad_at(3)(both[0])).collect)
    assert error.replay(debug=False).element == (3, 3)


def test_what_goes_well_the_second_time_says_so(fc, tmp_path):
    marker = tmp_path / "failing"
    marker.touch()

    def moody(x):
        if marker.exists():
            raise OSError("not today")
        return x

    error = failure(fc.range(4, num_partitions=1).map(moody).collect)
    marker.unlink()
    replayed = error.replay(debug=False)
    assert replayed.error is None
    assert replayed.value == [0, 1, 2, 3]
    assert "went well this time" in repr(replayed)


def test_what_fails_while_its_rows_are_merged_says_that_it_cannot_be_replayed(fc):
    def merge(a, b):
        raise ArithmeticError("never")

    error = failure(fc.parallelize([(1, 2), (1, 3)], 2).reduce_by_key(merge).collect)
    with pytest.raises(NotReplayable, match="ArithmeticError: never"):
        error.replay(debug=False)


def test_an_error_travels_without_its_replay(fc):
    error = failure(fc.range(4).map(bad_at(2)).collect)
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, LookupError)
    assert copy.replay is None


def test_an_attribute_of_the_users_own_by_that_name_stays(fc):
    def fail(x):
        error = ValueError("mine")
        error.replay = "my own"
        raise error

    assert failure(fc.range(2).map(fail).collect).replay == "my own"
