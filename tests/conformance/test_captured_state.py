"""What a function keeps to itself lasts for one partition in one attempt: no task sees what another left, no answer depends on who ran where."""

from __future__ import annotations

import pytest

from flowkit import TaskContext


def numbered(fc, partitions=6):
    return fc.parallelize([0, 1, 0, 1, 2] * partitions, partitions)


def test_a_captured_set_is_empty_where_a_partition_begins(fc):
    seen = set()
    once_each = numbered(fc).filter(lambda x: x not in seen and not seen.add(x))
    assert once_each.collect() == once_each.collect() == [0, 1, 2] * 6
    assert seen == set()


def test_a_counter_counts_one_partition(fc):
    count = 0

    def next_number(_):
        nonlocal count
        count += 1
        return count

    assert numbered(fc).map(next_number).collect() == [1, 2, 3, 4, 5] * 6


def test_state_lasts_for_one_partition_of_a_map_stage_and_of_one_that_follows_a_shuffle(fc):
    before, after = [], []
    pairs = numbered(fc).map(lambda x: (x, (before.append(x), len(before))[1]))
    grouped = pairs.group_by_key(8)
    assert {key: sorted(values) for key, values in grouped.collect()} == {
        0: [1, 3] * 0 + [1] * 6 + [3] * 6,
        1: [2] * 6 + [4] * 6,
        2: [5] * 6,
    }
    assert grouped.map(lambda pair: (after.append(pair), len(after))[1]).glom().map(sorted).collect() == [
        list(range(1, len(part) + 1)) for part in grouped.glom().collect()
    ]


@pytest.mark.undisturbed
def test_another_attempt_begins_anew(fc):
    seen = set()

    def once(x):
        if x == 2 and not TaskContext.get().attempt_number:
            raise OSError("once")
        return x not in seen and not seen.add(x)

    assert fc.parallelize([0, 1, 2, 0], 1).filter(once).collect() == [0, 1, 2]


class Counted:
    """A value that counts how often it is unpickled."""

    def __init__(self, loads):
        self.loads = loads

    def __setstate__(self, state):
        vars(self).update(state)
        self.loads.add(1)


@pytest.mark.undisturbed
def test_broadcast_values_are_unpickled_once_a_process_all_the_same(fc):
    loads, seen = fc.accumulator(0), []
    table = fc.broadcast(Counted(loads))
    assert numbered(fc, 12).map(lambda x: (seen.append(x), table.value.loads)[0]).count() == 60
    assert 1 <= loads.value <= 2
