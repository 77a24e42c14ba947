"""Every storage level gives the same rows, computed once; what it keeps goes when it is to go."""

from __future__ import annotations

import pytest

from flowkit import StorageLevel
from flowkit.errors import InvalidArgument

LEVELS = [
    StorageLevel.MEMORY_ONLY,
    StorageLevel.MEMORY_ONLY_SER,
    StorageLevel.MEMORY_AND_DISK,
    StorageLevel.MEMORY_AND_DISK_SER,
    StorageLevel.DISK_ONLY,
    StorageLevel.OFF_HEAP,
]


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_rows_are_the_same_at_every_use(fc, level):
    rows = fc.range(2_000, num_partitions=4).map(lambda x: (x % 7, str(x))).persist(level)
    expected = [(x % 7, str(x)) for x in range(2_000)]
    assert rows.collect() == expected
    assert rows.map(lambda pair: pair[0]).sum() == sum(x % 7 for x in range(2_000))
    assert sorted(rows.reduce_by_key(max, 2).keys().collect()) == list(range(7))
    assert rows.collect() == expected
    assert rows.storage_level == level
    assert rows.unpersist(blocking=True).storage_level == StorageLevel.NONE
    assert rows.collect() == expected


@pytest.mark.undisturbed
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_rows_are_computed_once(fc, level):
    computed = fc.accumulator(0)
    rows = fc.range(100, num_partitions=4).map(lambda x: computed.add(1) or x).persist(level)
    for _ in range(3):
        assert rows.sum() == 4950
    assert computed.value == 100
    rows.unpersist(blocking=True)
    assert rows.sum() == 4950
    assert computed.value == 200


def test_a_level_cannot_be_changed_once_it_is_set(fc):
    rows = fc.range(4).persist(StorageLevel.DISK_ONLY)
    rows.persist(StorageLevel.DISK_ONLY)
    with pytest.raises(InvalidArgument, match=r"persisted as StorageLevel.DISK_ONLY already; unpersist\(\)"):
        rows.persist(StorageLevel.MEMORY_ONLY)
    rows.unpersist().persist(StorageLevel.MEMORY_ONLY)


@pytest.mark.parametrize("level", [None, "MEMORY_ONLY", True, StorageLevel.NONE])
def test_what_is_no_level_is_refused(fc, level):
    with pytest.raises(InvalidArgument, match="level ="):
        fc.range(4).persist(level)


def test_plans_tell_the_level(fc):
    rows = fc.range(4).persist(StorageLevel.MEMORY_AND_DISK_SER)
    assert "[MEMORY_AND_DISK_SER]" in rows.explain()
    assert "[cached]" in fc.range(4).cache().explain()
