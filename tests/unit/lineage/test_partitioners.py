"""Keys go to partitions, one by one and in batches alike."""

import pickle
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.errors import InternalError, InvalidArgument
from flowkit.lineage.partitioners import (
    FunctionPartitioner,
    HashPartitioner,
    PartitionSample,
    RangePartitioner,
    sample_bounds,
    sample_partition,
    sample_size_per_partition,
)

KEYS = st.one_of(
    st.lists(st.integers()), st.lists(st.text()), st.lists(st.floats()), st.lists(st.tuples(st.integers(), st.text()))
)


@given(KEYS, st.sampled_from([1, 2, 7, 256, 257, 70_000]))
def test_hashing_places_a_batch_as_it_places_each_key(keys, partitions):
    partitioner = HashPartitioner(partitions)
    places = [int(place) for place in partitioner.partition_all(keys)]
    assert places == [partitioner.partition_of(key) for key in keys]
    assert all(0 <= place < partitions for place in places)


def test_hash_partitioners_of_one_size_are_equal():
    assert HashPartitioner(4) == HashPartitioner(4)
    assert hash(HashPartitioner(4)) == hash(HashPartitioner(4))
    assert HashPartitioner(4) != HashPartitioner(5)
    assert HashPartitioner(4) != FunctionPartitioner(4, len)


def test_function_partitioners_are_equal_when_function_and_size_are():
    assert FunctionPartitioner(4, len) == FunctionPartitioner(4, len)
    assert FunctionPartitioner(4, len) != FunctionPartitioner(5, len)
    assert FunctionPartitioner(4, len) != FunctionPartitioner(4, ord)


def test_a_negative_answer_of_the_function_wraps_round():
    partitioner = FunctionPartitioner(3, lambda key: key)
    assert partitioner.partition_all([-1, 0, 4, True]) == [2, 0, 1, 1]


def test_a_function_that_returns_no_number_is_told_so_with_the_key():
    with pytest.raises(TypeError, match=r"returned 'a' \(str\) for key 'apple'"):
        FunctionPartitioner(3, lambda key: key[0]).partition_of("apple")


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "3", None])
def test_a_number_of_partitions_below_one_is_refused(count):
    for make in (HashPartitioner, lambda n: FunctionPartitioner(n, len), lambda n: RangePartitioner(None, num_partitions=n)):
        with pytest.raises(InvalidArgument, match="num_partitions"):
            make(count)


def resolved(bounds, **options):
    partitioner = RangePartitioner(None, num_partitions=len(bounds) + 1, **options)
    partitioner.resolve(bounds)
    return partitioner


@given(
    st.one_of(
        st.tuples(st.lists(st.integers()), st.lists(st.integers(), unique=True)),
        st.tuples(st.lists(st.floats()), st.lists(st.floats(allow_nan=False), unique=True)),
        st.tuples(st.lists(st.integers() | st.floats(allow_nan=False)), st.lists(st.integers(), unique=True)),
        st.tuples(st.lists(st.text()), st.lists(st.text(), unique=True)),
    ),
    st.booleans(),
)
def test_ranges_place_a_batch_as_bisection_places_each_key(case, ascending):
    keys, bounds = case
    bounds = sorted(bounds)
    partitioner = resolved(bounds, ascending=ascending)
    places = [int(place) for place in partitioner.partition_all(keys)]
    assert places == [partitioner.partition_of(key) for key in keys]
    expected = [bisect_left(bounds, key) for key in keys]
    assert places == (expected if ascending else [len(bounds) - place for place in expected])


def test_ranges_compare_what_the_key_function_returns():
    partitioner = resolved([2, 4], key=len)
    assert list(partitioner.partition_all(["a", "bb", "ccc", "dddd", "eeeee"])) == [0, 0, 1, 1, 2]


def test_large_ints_are_not_compared_as_floats():
    partitioner = resolved([2**53])
    assert [int(place) for place in partitioner.partition_all([2**53, 2**53 + 1])] == [0, 1]


def test_ranges_without_bounds_cannot_be_used():
    partitioner = RangePartitioner(object(), num_partitions=3)
    assert not partitioner.resolved
    for use in (lambda: partitioner.partition_of(1), lambda: partitioner.partition_all([1]), lambda: partitioner.bounds):
        with pytest.raises(InternalError, match="before its bounds"):
            use()


def test_ranges_are_equal_only_to_themselves():
    partitioner = resolved([1])
    assert partitioner == partitioner
    assert partitioner != resolved([1])


def test_ranges_travel_with_their_bounds_and_without_their_source():
    partitioner = RangePartitioner(lambda: "cannot be pickled", num_partitions=3, ascending=False)
    partitioner.resolve([10, 20])
    arrived = pickle.loads(pickle.dumps(partitioner))
    assert arrived.bounds_source is None
    assert list(arrived.partition_all([5, 15, 25])) == [2, 1, 0]


def test_bounds_cut_a_uniform_sample_into_equal_parts():
    assert sample_bounds([PartitionSample(100, list(range(100)))], 4) == [24, 49, 74]


def test_bounds_weigh_a_sampled_key_by_what_its_partition_holds():
    small = PartitionSample(10, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    large = PartitionSample(90, [101, 102, 103])
    assert sample_bounds([small, large], 2) == [102]


def test_bounds_are_distinct_and_fewer_where_keys_are_few():
    assert sample_bounds([PartitionSample(6, ["a", "a", "a", "b", "b", "b"])], 5) == ["a", "b"]
    assert sample_bounds([], 3) == []
    assert sample_bounds([PartitionSample(0, [])], 3) == []


@given(st.lists(st.lists(st.integers(), max_size=30), max_size=6), st.integers(1, 12))
def test_bounds_are_ascending_keys_of_the_sample_and_fewer_than_the_partitions(partitions, count):
    bounds = sample_bounds([PartitionSample(len(keys), keys) for keys in partitions], count)
    assert bounds == sorted(set(bounds))
    assert len(bounds) < count
    assert set(bounds) <= {key for keys in partitions for key in keys}


def test_a_sample_is_bounded_and_repeatable():
    keys = list(range(1000))
    sample = sample_partition(keys, 50, seed=1)
    assert (sample.count, len(sample.keys)) == (1000, 50)
    assert sample == sample_partition(keys, 50, seed=1)
    assert sample_partition([1, 2], 50, seed=1) == PartitionSample(2, [1, 2])


def test_the_size_of_a_sample_follows_sparks_rule():
    assert sample_size_per_partition(8, 4) == 120
    assert sample_size_per_partition(10**6, 100) == 30_000
