"""Partitions joined, dealt out, zipped, crossed, piped; elements chosen at random: however it is run."""

from __future__ import annotations

import os
from collections import Counter
from operator import add

import pytest

from flowkit.errors import InvalidArgument, PipedCommandFailed, UnequalPartitions

# -- fewer or more -------------------------------------------------------------------------------------------------------


def test_coalesced_partitions_are_neighbours_in_order(fc):
    rdd = fc.parallelize([1, 2, 3, 4, 5], 3)
    assert rdd.coalesce(2).glom().collect() == [[1], [2, 3, 4, 5]]
    assert rdd.coalesce(1).glom().collect() == [[1, 2, 3, 4, 5]]
    assert fc.range(100, num_partitions=10).coalesce(3).map(lambda x: x + 1).collect() == list(range(1, 101))


def test_coalesce_cannot_grow_without_a_shuffle(fc):
    rdd = fc.parallelize([1, 2, 3], 3)
    assert rdd.coalesce(9).num_partitions == 3
    assert rdd.coalesce(9, shuffle=True).num_partitions == 9
    assert fc.empty().coalesce(2).collect() == []
    with pytest.raises(InvalidArgument, match="num_partitions = 0"):
        rdd.coalesce(0)


def test_coalesce_adds_no_stage_and_goes_on_through_shuffles(fc):
    counts = fc.range(100, num_partitions=8).map(lambda x: (x % 5, 1)).reduce_by_key(add, 8).coalesce(2)
    assert str(counts.explain()).count("stage 1") == 1
    assert counts.collect_as_map() == dict.fromkeys(range(5), 20)
    assert counts.map(lambda kv: kv).reduce_by_key(add, 3).collect_as_map() == dict.fromkeys(range(5), 20)


def test_a_cached_rdd_behind_a_coalesce_is_used_and_right(fc):
    squares = fc.range(20, num_partitions=6).map(lambda x: (x % 3, x * x)).reduce_by_key(add, 6).cache()
    expected = Counter()
    for x in range(20):
        expected[x % 3] += x * x
    assert squares.collect_as_map() == expected
    assert squares.coalesce(2).collect_as_map() == expected
    assert squares.coalesce(4).union(squares).count() == 6
    squares.unpersist()
    assert squares.coalesce(2).collect_as_map() == expected


def test_repartitioning_leaves_no_partition_empty(fc):
    sizes = fc.range(1_000, num_partitions=1_000 if fc.name == "inline" else 100).repartition(20).glom().map(len).collect()
    assert sum(sizes) == 1_000
    assert min(sizes) > 0
    assert fc.range(1_000, num_partitions=1).repartition(7).glom().map(len).collect() == [143, 143, 143, 143, 143, 143, 142]


def test_repartitioning_gives_the_same_rows_the_same_places_each_time(fc):
    rdd = fc.parallelize(list("abcdefgh"), 3).repartition(4)
    assert rdd.glom().collect() == rdd.glom().collect()
    assert sorted(rdd.collect()) == list("abcdefgh")


def test_pairs_are_laid_and_sorted_in_one(fc):
    pairs = fc.parallelize([(3, "c"), (0, "a"), (2, "b"), (1, "d"), (2, "a")], 2)
    laid = pairs.repartition_and_sort_within_partitions(2, lambda k: k % 2)
    assert laid.glom().collect() == [[(0, "a"), (2, "b"), (2, "a")], [(1, "d"), (3, "c")]]
    down = pairs.repartition_and_sort_within_partitions(2, lambda k: k % 2, ascending=False)
    assert down.glom().collect() == [[(2, "b"), (2, "a"), (0, "a")], [(3, "c"), (1, "d")]]


# -- side by side --------------------------------------------------------------------------------------------------------


def test_zip_pairs_by_place(fc):
    rdd = fc.range(5_000, num_partitions=3)
    assert rdd.zip(rdd.map(str)).collect() == [(x, str(x)) for x in range(5_000)]
    assert rdd.zip(rdd.map(str)).filter(lambda pair: pair[0] == 7).collect() == [(7, "7")]


def test_zip_refuses_other_numbers_of_partitions_at_the_call(fc):
    with pytest.raises(InvalidArgument, match="this one has 2, another 3"):
        fc.range(6, num_partitions=2).zip(fc.range(6, num_partitions=3))
    with pytest.raises(TypeError, match="other must be an RDD"):
        fc.range(6).zip([1])


@pytest.mark.parametrize("more", [1, 2_000])
def test_zip_never_cuts_anything_short(fc, more):
    left, right = fc.range(10, num_partitions=2), fc.range(10 + more, num_partitions=2)
    for one, other in ((left, right), (right, left)):
        with pytest.raises(UnequalPartitions, match="as many elements in each RDD"):
            one.zip(other).count()


def test_zipped_partitions_may_be_read_as_far_as_one_likes(fc):
    left, right = fc.range(6, num_partitions=2), fc.parallelize("abcd", 2)
    assert left.zip_partitions(lambda xs, ys: [(next(xs), list(ys))], right).collect() == [(0, ["a", "b"]), (3, ["c", "d"])]
    with pytest.raises(TypeError, match="must return an iterable"):
        left.zip_partitions(lambda xs, ys: None, right).collect()


def test_unique_ids_need_no_job_and_are_unique(fc):
    rdd = fc.parallelize("abcde", 3).zip_with_unique_id()
    assert rdd.collect() == [("a", 0), ("b", 1), ("c", 4), ("d", 2), ("e", 5)]


def test_a_cartesian_product_is_left_major_by_partition(fc):
    left, right = fc.parallelize([1, 2, 3], 2), fc.parallelize("ab", 2)
    product = left.cartesian(right)
    assert product.num_partitions == 4
    assert product.glom().collect() == [[(1, "a")], [(1, "b")], [(2, "a"), (3, "a")], [(2, "b"), (3, "b")]]
    assert product.map(lambda pair: pair[1]).count() == 6
    assert left.cartesian(fc.empty()).collect() == []


def test_a_large_cartesian_product_holds_or_spills_its_right_side(fc):
    left, right = fc.range(7, num_partitions=1), fc.range(3_000, num_partitions=1).map(lambda x: f"row {x}")
    product = left.cartesian(right)
    assert product.count() == 21_000
    assert product.take(2) == [(0, "row 0"), (0, "row 1")]
    assert product.filter(lambda pair: pair[1] == "row 2999").map(lambda pair: pair[0]).collect() == list(range(7))


def test_products_of_shuffled_sides_and_with_oneself(fc):
    counts = fc.parallelize(["a", "b", "a"], 2).map(lambda w: (w, 1)).reduce_by_key(add, 2)
    pairs = counts.cartesian(counts).map(lambda both: (both[0][0], both[1][0])).collect()
    assert sorted(pairs) == [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]


# -- through other programs ----------------------------------------------------------------------------------------------


def test_a_program_gets_each_partition_line_by_line(fc):
    assert fc.parallelize(["b", "a", "", "b"], 2).pipe("cat").collect() == ["b", "a", "", "b"]
    assert fc.parallelize(["b", "a", "b"], 1).pipe("sort -u").collect() == ["a", "b"]
    assert fc.parallelize([1, 2, 3], 1).pipe(["wc", "-l"]).map(str.strip).collect() == ["3"]
    assert fc.parallelize([], 2).pipe("cat").collect() == []


def test_more_than_pipes_hold_goes_through_either_way(fc):
    lines = [f"line {i} " + "x" * 200 for i in range(5_000)]
    assert fc.parallelize(lines, 1).pipe("cat").collect() == lines
    assert fc.parallelize(lines, 1).pipe("sort -r").count() == 5_000
    assert fc.parallelize(lines, 1).pipe("head -n 2").collect() == lines[:2]
    assert fc.parallelize(lines, 1).pipe("cat").take(1) == lines[:1]


def test_exit_codes_matter_where_they_are_checked(fc):
    failing = ["sh", "-c", "cat; echo oh no >&2; exit 3"]
    assert fc.parallelize(["a"], 1).pipe(failing).collect() == ["a"]
    with pytest.raises(PipedCommandFailed, match=r"exit code 3: oh no"):
        fc.parallelize(["a"], 1).pipe(failing, check=True).collect()


def test_a_program_sees_its_environment_and_one_that_is_not_there_is_named(fc):
    assert fc.parallelize(["x"], 1).pipe(["sh", "-c", "echo $GREETING"], env={"GREETING": "hello"}).collect() == ["hello"]
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        fc.parallelize(["x"], 1).pipe("no-such-program").collect()
    with pytest.raises(InvalidArgument, match="command"):
        fc.range(1).pipe("")


def test_what_fails_before_the_program_is_told_as_it_is(fc):
    with pytest.raises(ZeroDivisionError):
        fc.parallelize([1, 0], 1).map(lambda x: 1 / x).pipe("cat").collect()
    assert os.getpid()  # and this process is none the worse


# -- samples -------------------------------------------------------------------------------------------------------------


def test_a_sample_is_repeatable_and_about_as_large_as_asked_for(fc):
    rdd = fc.range(10_000, num_partitions=4)
    sample = rdd.sample(0.1, seed=3).collect()
    assert sample == rdd.sample(0.1, seed=3).collect() == sorted(sample)
    assert sample != rdd.sample(0.1, seed=4).collect()
    assert 850 < len(sample) < 1_150
    unseeded = rdd.sample(0.1)
    assert unseeded.collect() == unseeded.collect()


def test_samples_at_their_edges(fc):
    rdd = fc.range(100, num_partitions=3)
    assert rdd.sample(0).collect() == []
    assert rdd.sample(1).collect() == rdd.sample(2.5).collect() == list(range(100))
    repeated = rdd.sample(2.0, with_replacement=True, seed=1).collect()
    assert 130 < len(repeated) < 270
    assert max(Counter(repeated).values()) > 1
    for wrong in (-0.1, float("nan"), "x", True):
        with pytest.raises(InvalidArgument, match="fraction"):
            rdd.sample(wrong)


def test_a_random_split_loses_and_doubles_nothing(fc):
    rdd = fc.range(1_000, num_partitions=3)
    parts = rdd.random_split([3, 1, 0, 1], seed=5)
    sizes = [part.count() for part in parts]
    assert sorted(row for part in parts for row in part.collect()) == list(range(1_000))
    assert sizes[2] == 0
    assert 520 < sizes[0] < 680
    for wrong in ([], [0, 0], [1, -1]):
        with pytest.raises(InvalidArgument, match="weights"):
            rdd.random_split(wrong)


def test_a_sample_by_key_takes_each_keys_own_fraction(fc):
    pairs = fc.range(1_000, num_partitions=3).map(lambda x: ("ab"[x % 2], x))
    found = Counter(key for key, _ in pairs.sample_by_key({"a": 1.0, "b": 0.1}, seed=2).collect())
    assert found["a"] == 500
    assert 20 < found["b"] < 90
    with pytest.raises(KeyError, match="b"):
        pairs.sample_by_key({"a": 1.0}).collect()


def test_taking_a_sample_gives_exactly_as_many(fc):
    rdd = fc.range(100, num_partitions=4)
    sample = rdd.take_sample(10, seed=1)
    assert len(sample) == len(set(sample)) == 10
    assert sample == rdd.take_sample(10, seed=1)
    assert sorted(rdd.take_sample(1_000)) == list(range(100))
    assert rdd.take_sample(0) == []
    assert fc.parallelize([], 2).take_sample(3, with_replacement=True) == []
    repeated = rdd.take_sample(500, with_replacement=True, seed=1)
    assert len(repeated) == 500
    assert set(repeated) <= set(range(100))
    with pytest.raises(InvalidArgument, match="num = -1"):
        rdd.take_sample(-1)


def test_taken_samples_are_uniform_over_partitions_of_any_size(fc):
    rdd = fc.parallelize(range(20), 1).union(fc.parallelize(range(20, 40), 7))
    found = Counter(row for seed in range(200) for row in rdd.take_sample(4, seed=seed)) if fc.name == "inline" else None
    if found is not None:
        assert set(found) == set(range(40))
        assert all(4 < times < 45 for times in found.values())
