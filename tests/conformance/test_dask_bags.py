"""Bags of Dask's, taken over as recipes, however they are run."""

from __future__ import annotations

from operator import add

import dask.bag
import pytest

from flowkit.errors import InvalidArgument


def test_partitions_stay_what_they_are(fc):
    bag = dask.bag.from_sequence(range(10), npartitions=4).map(lambda x: x * 2).filter(lambda x: x % 3)
    rdd = fc.from_dask_bag(bag)
    assert rdd.num_partitions == bag.npartitions
    assert rdd.collect() == bag.compute(scheduler="sync")
    assert rdd.map(lambda x: (x % 5, x)).reduce_by_key(add).collect_as_map() == {1: 16, 2: 2, 3: 8, 4: 18, 0: 10}


def test_what_partitions_share_comes_out_right_too(fc):
    bag = dask.bag.from_sequence(range(12), npartitions=3).foldby(lambda x: x % 2, add, 0, add, 0)
    assert sorted(fc.from_dask_bag(bag).collect()) == [(0, 30), (1, 36)]


def test_what_is_no_recipe_is_refused(fc):
    with pytest.raises(TypeError, match="dask.bag.Bag"):
        fc.from_dask_bag([1, 2])


def test_a_persisted_bag_is_refused_with_what_to_do(fc):
    if fc.name == "inline":
        pytest.skip("there is no cluster of Dask's")
    bag = fc.client.persist(dask.bag.from_sequence(range(4), npartitions=2))
    with pytest.raises(InvalidArgument, match="was persisted"):
        fc.from_dask_bag(bag)
