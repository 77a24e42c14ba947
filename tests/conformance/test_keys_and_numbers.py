"""Sets, groups, look-ups, trees and statistics, edges included, however they are run."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from operator import add

import pytest

from flowkit.errors import EmptyRdd, InvalidArgument

NUMBERS = [5, 1, 4, 1, 5, 9, 2, 6, 5, 3]
PAIRS = [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5), ("a", 6)]


# -- sets ----------------------------------------------------------------------------------------------------------------


def test_an_intersection_has_each_common_element_once(fc):
    assert sorted(fc.parallelize([1, 1, 2, 3], 3).intersection(fc.parallelize([3, 1, 1, 4], 2)).collect()) == [1, 3]
    assert fc.parallelize([1]).intersection(fc.parallelize([2])).collect() == []
    assert fc.parallelize([1, 2]).intersection(fc.empty()).collect() == []


def test_a_difference_keeps_duplicates(fc):
    left, right = fc.parallelize([1, 1, 2, 3, 3], 3), fc.parallelize([3, 3, 4], 2)
    assert sorted(left.subtract(right).collect()) == [1, 1, 2]
    assert sorted(left.subtract(left).collect()) == []
    assert sorted(left.subtract(fc.empty()).collect()) == [1, 1, 2, 3, 3]


def test_sets_take_both_sides_partitions_where_none_are_asked_for(fc):
    left, right = fc.parallelize([1, 2], 3), fc.parallelize([2], 2)
    assert left.subtract(right).num_partitions == 5
    assert left.intersection(right, 4).num_partitions == 4


def test_a_difference_by_key_looks_at_keys_alone(fc):
    left = fc.parallelize(PAIRS, 3)
    assert sorted(left.subtract_by_key(fc.parallelize([("a", None), ("x", 1), ("a", 2)], 2)).collect()) == [
        ("b", 2),
        ("b", 5),
        ("c", 4),
    ]
    assert left.subtract_by_key(left).collect() == []


def test_a_difference_by_key_of_what_lies_by_key_adds_one_shuffle_alone(fc):
    left = fc.parallelize(PAIRS, 3).partition_by(4)
    rest = left.subtract_by_key(fc.parallelize([("a", 0)]))
    assert rest.partitioner == left.partitioner
    assert str(rest.explain()).count("writes the shuffle") == 2
    assert sorted(rest.collect()) == [("b", 2), ("b", 5), ("c", 4)]


# -- groups, look-ups, counts --------------------------------------------------------------------------------------------


def test_group_by_keeps_the_order_of_elements(fc):
    assert dict(fc.range(10, num_partitions=3).group_by(lambda x: x % 3).collect()) == {
        0: [0, 3, 6, 9],
        1: [1, 4, 7],
        2: [2, 5, 8],
    }


def test_group_with_takes_any_number(fc):
    one, two, three = (fc.parallelize([("k", number)], 2) for number in (1, 2, 3))
    assert one.group_with(two, three).collect() == [("k", ([1], [2], [3]))]


def test_counts_are_exact(fc):
    assert fc.parallelize(PAIRS, 4).count_by_key() == {"a": 3, "b": 2, "c": 1}
    assert fc.parallelize(NUMBERS, 4).count_by_value() == dict(Counter(NUMBERS))
    assert fc.empty().count_by_value() == {}


def test_reducing_locally_merges_in_order(fc):
    pairs = fc.parallelize([("a", "x"), ("b", "y"), ("a", "z"), ("a", "w")], 3)
    assert pairs.reduce_by_key_locally(add) == {"a": "xzw", "b": "y"}


def test_looking_up_a_key_finds_its_values_in_order(fc):
    pairs = fc.parallelize(PAIRS, 3)
    for rdd in (pairs, pairs.partition_by(4), pairs.sort_by_key()):
        assert rdd.lookup("a") == [1, 3, 6]
        assert rdd.lookup("absent") == []


@pytest.mark.undisturbed
def test_looking_up_where_pairs_lie_by_key_computes_one_partition(fc):
    pairs = fc.range(40, num_partitions=4).map(lambda x: (x, x)).partition_by(4)
    seen = pairs.map_partitions_with_index(lambda p, rows: [(k, p) for k, _ in rows], preserves_partitioning=True)
    fc._bus.wait_until_empty(10)
    before = fc.status.summary().tasks
    (partition,) = seen.lookup(7)
    assert 0 <= partition < 4
    fc._bus.wait_until_empty(10)
    assert fc.status.summary().tasks - before == 4 + 1  # the shuffle's map tasks, and one partition


# -- ordered, trees ------------------------------------------------------------------------------------------------------


def test_the_smallest_come_in_order(fc):
    rdd = fc.parallelize(NUMBERS, 4)
    assert rdd.take_ordered(3) == [1, 1, 2]
    assert rdd.take_ordered(3, key=lambda x: -x) == [9, 6, 5]
    assert rdd.take_ordered(0) == []
    assert rdd.take_ordered(100) == sorted(NUMBERS)
    with pytest.raises(InvalidArgument, match="num = -1"):
        rdd.take_ordered(-1)


@pytest.mark.parametrize("partitions", [1, 2, 5, 30])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_tree_merges_all_in_order(fc, partitions, depth):
    words = fc.parallelize([f"{n}," for n in range(60)], partitions)
    assert words.tree_reduce(add, depth) == "".join(f"{n}," for n in range(60))
    assert words.tree_aggregate("", add, add, depth) == "".join(f"{n}," for n in range(60))


def test_a_tree_leaves_the_driver_few_to_merge(fc):
    seen = []
    total = fc.range(64, num_partitions=64).tree_aggregate(0, add, lambda x, y: seen.append(1) or x + y)
    assert total == sum(range(64))
    assert len(seen) <= 8  # on the driver; tasks append to copies of the list
    assert fc.range(64, num_partitions=64).tree_reduce(add) == sum(range(64))


def test_a_trees_zero_is_used_once_a_partition_and_not_on_the_driver(fc):
    assert fc.parallelize([1, 2, 3], 3).tree_aggregate(10, add, add) == 36
    assert fc.parallelize([1, 2, 3], 3).aggregate(10, add, add) == 46


def test_trees_of_nothing(fc):
    assert fc.empty().tree_aggregate(5, add, add) == 5
    with pytest.raises(EmptyRdd):
        fc.parallelize([], 3).tree_reduce(add)
    with pytest.raises(InvalidArgument, match="depth"):
        fc.range(3).tree_reduce(add, depth=0)


def test_a_mutable_zero_is_not_shared(fc):
    def append(values, x):
        values.append(x)
        return values

    assert sorted(fc.range(6, num_partitions=3).tree_aggregate([], append, add)) == list(range(6))


# -- numbers -------------------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_standard_library(fc):
    found = fc.parallelize(NUMBERS, 4).stats()
    assert found.count == len(NUMBERS)
    assert (found.minimum, found.maximum, found.sum) == (1, 9, pytest.approx(sum(NUMBERS)))
    assert found.mean == pytest.approx(statistics.fmean(NUMBERS))
    assert found.variance == pytest.approx(statistics.pvariance(NUMBERS))
    assert found.sample_stdev == pytest.approx(statistics.stdev(NUMBERS))


def test_statistics_do_not_lose_digits_far_from_zero(fc):
    numbers = [1e9 + x for x in (4.0, 7.0, 13.0, 16.0)]
    assert fc.parallelize(numbers, 2).variance() == pytest.approx(22.5)


def test_statistics_of_nothing_and_of_one(fc):
    empty, one = fc.parallelize([], 2), fc.parallelize([3], 2)
    assert empty.mean() == 0.0
    assert math.isnan(empty.variance())
    assert math.isnan(empty.stdev())
    assert math.isnan(one.sample_variance())
    assert (one.variance(), one.mean()) == (0.0, 3.0)
    assert math.isnan(one.sample_stdev())


def test_statistics_take_any_kind_of_number_and_name_what_is_none(fc):
    assert fc.parallelize([Decimal("0.5"), Fraction(3, 2), True, 10**20], 2).stats().count == 4
    with pytest.raises(TypeError, match="not of 'x'"):
        fc.parallelize([1, "x"], 1).mean()
    with pytest.raises(TypeError, match="not of '1'"):
        fc.parallelize(["1", "2"], 1).mean()


def test_histograms_close_their_last_bucket_and_leave_out_what_is_no_number(fc):
    rdd = fc.parallelize([0, 1, 5, None, 10, float("nan"), 50, 51, -1], 3)
    assert rdd.histogram([0, 5, 25, 50]) == ([0, 5, 25, 50], [2, 2, 1])
    assert fc.range(51, num_partitions=4).histogram(2) == ([0, 25, 50], [25, 26])
    assert fc.parallelize([1.0, 2.0, 4.0], 2).histogram(2) == ([1.0, 2.5, 4.0], [2, 1])


def test_one_bucket_takes_anything_that_can_be_compared(fc):
    assert fc.parallelize(["b", "a", "c"], 2).histogram(1) == (["a", "c"], [3])
    assert fc.parallelize([7, 7], 2).histogram(4) == ([7, 7], [2])


@pytest.mark.parametrize(
    ("buckets", "error"),
    [
        (0, InvalidArgument),
        ([], InvalidArgument),
        ([1], InvalidArgument),
        ([2, 1], InvalidArgument),
        ([1, 1, 2], InvalidArgument),
        ([1, None], InvalidArgument),
        ([1, float("nan")], InvalidArgument),
        ("abc", TypeError),
    ],
)
def test_bounds_that_make_no_buckets_are_refused_at_the_call(fc, buckets, error):
    with pytest.raises(error, match="buckets"):
        fc.range(3).histogram(buckets)


def test_even_buckets_need_finite_numbers(fc):
    with pytest.raises(EmptyRdd):
        fc.parallelize([None]).histogram(2)
    with pytest.raises(TypeError, match="need numbers"):
        fc.parallelize(["a", "b"]).histogram(2)
    with pytest.raises(InvalidArgument, match="infinity"):
        fc.parallelize([1.0, math.inf]).histogram(2)
