"""Cached rows stay as they were stored, whatever functions do to those they get: an answer never depends on which actions ran before."""

from __future__ import annotations

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit import StorageLevel
from flowkit.errors import RowsNotKept
from flowkit.testing.inline import inline_context

LEVELS = [
    StorageLevel.MEMORY_ONLY,
    StorageLevel.MEMORY_ONLY_SER,
    StorageLevel.MEMORY_AND_DISK,
    StorageLevel.MEMORY_AND_DISK_SER,
    StorageLevel.DISK_ONLY,
    StorageLevel.OFF_HEAP,
]


class Counted:
    """A row that is an object of the user's own."""

    def __init__(self, n):
        self.n = n
        self.seen = []

    def __eq__(self, other):
        return (self.n, self.seen) == (other.n, other.seen)

    __hash__ = None


MAKE = {
    "lists": lambda n: [n],
    "dicts": lambda n: {"n": n},
    "sets": lambda n: {n},
    "nested": lambda n: {"n": [[n]]},
    "objects": Counted,
}


def rows_of(fc, kind, source=range(12)):
    """Pairs of a number and something that can be changed."""
    make = MAKE[kind]
    return fc.parallelize(source, 3).map(lambda n: (n % 4, make(n)))


def mark(value):
    """Change a value, and return it."""
    match value:
        case list():
            value.append("seen")
        case dict():
            value["seen"] = value.get("seen", 0) + 1
            if isinstance(value["n"], list):
                value["n"][0].append("seen")
        case set():
            value.add(len(value) + 1000)
        case Counted():
            value.seen.append("seen")
            value.n += 1
    return value


def marked(row):
    mark(row[1])
    return row


def in_place(left, right):
    match left:
        case list():
            left.extend(right)
        case set():
            left |= right
        case _:
            mark(left)
    return left


def marked_all(rows):
    for row in rows:
        yield marked(row)


def ordered(answer):
    """An answer in an order of its own."""
    return sorted(answer, key=lambda row: repr(row[0]))


ACTIONS = {
    "map": lambda rows: rows.map(marked).collect(),
    "filter": lambda rows: rows.filter(marked).collect(),
    "reduce": lambda rows: rows.values().reduce(in_place),
    "group_by_key": lambda rows: ordered(rows.group_by_key(2).map_values(lambda values: list(map(mark, values))).collect()),
    "zip with itself": lambda rows: rows.zip(rows).map(lambda both: (marked(both[0]), both[1])).collect(),
    "collect": lambda rows: list(map(marked, rows.collect())),
}
MORE_ACTIONS = {
    **ACTIONS,
    "map_values": lambda rows: rows.map_values(mark).collect(),
    "flat_map": lambda rows: rows.flat_map(lambda row: [marked(row), marked(row)]).collect(),
    "map_partitions": lambda rows: rows.map_partitions(marked_all).collect(),
    "fold": lambda rows: rows.values().map(lambda value: [value]).fold([], lambda left, right: left + list(map(mark, right))),
    "reduce_by_key": lambda rows: ordered(rows.reduce_by_key(in_place, 2).collect()),
    "sort_by": lambda rows: rows.sort_by(lambda row: marked(row)[0], num_partitions=2).collect(),
    "join with itself": lambda rows: ordered(rows.join(rows, 2).map_values(lambda both: (mark(both[0]), both[1])).collect()),
    "cogroup": lambda rows: ordered(
        rows.partition_by(2).cache().cogroup(rows).map_values(lambda sides: list(map(mark, sides))).collect()
    ),
    "cartesian": lambda rows: rows.cartesian(rows).map(lambda both: (marked(both[0]), both[1])).collect(),
    "union with itself": lambda rows: rows.union(rows).map(marked).collect(),
    "foreach": lambda rows: rows.foreach(marked),
    "lookup": lambda rows: list(map(mark, rows.lookup(2))),
    "take": lambda rows: list(map(marked, rows.take(5))),
    "to_local_iterator": lambda rows: list(map(marked, rows.to_local_iterator())),
    "glom": lambda rows: rows.glom().map(lambda rows: list(map(marked, rows))).collect(),
    "count": lambda rows: rows.count(),
    "cached again": lambda rows: rows.map(marked).cache().map(marked).collect(),
}


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_an_answer_is_the_same_whichever_actions_ran_before(fc, level):
    for kind in ("lists", "objects"):
        kept = rows_of(fc, kind).persist(level)
        before = kept.collect()
        first = {name: action(kept) for name, action in ACTIONS.items()}
        assert {name: action(kept) for name, action in ACTIONS.items()} == first
        assert kept.collect() == before == rows_of(fc, kind).collect()
        kept.unpersist(blocking=True)


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(MAKE)),
    st.lists(st.integers(0, 50), min_size=1, max_size=12),
    st.lists(st.sampled_from(sorted(MORE_ACTIONS)), min_size=2, max_size=6),
    st.booleans(),
)
def test_random_actions_in_any_order_answer_as_without_a_cache(kind, source, names, checkpointed):
    with inline_context() as fc:
        kept = rows_of(fc, kind, source).cache()
        if checkpointed:
            kept.local_checkpoint()
        for name in names + names:
            action = MORE_ACTIONS[name]
            assert action(kept) == action(rows_of(fc, kind, source)), name


def test_what_made_the_rows_cannot_change_those_that_are_kept(fc):
    def rows_and_later_changes(numbers):
        made = [[n] for n in numbers]
        yield from made
        for row in made:
            row.append("changed by its maker")

    kept = fc.range(40_000, num_partitions=1).map_partitions(rows_and_later_changes).cache()
    first = kept.map(len).collect()
    assert kept.map(len).collect() == first
    assert first[:30_000] == [1] * 30_000  # all but the last batch were stored before


def test_a_broadcast_value_that_became_rows_is_not_changed_by_them(fc):
    table = fc.broadcast({n: [n] for n in range(4)})
    kept = fc.range(4, num_partitions=2).map(lambda n: table.value[n]).cache()
    for _ in range(2):
        assert kept.map(mark).collect() == [[n, "seen"] for n in range(4)]
    assert fc.range(4, num_partitions=2).map(lambda n: len(table.value[n])).collect() == [1] * 4


@pytest.mark.undisturbed
def test_by_reference_hands_out_what_is_kept(fc):
    computed = fc.accumulator(0)
    rows = (
        fc.range(4, num_partitions=1)
        .map(lambda n: computed.add(1) or threading.Lock())
        .persist(StorageLevel.MEMORY_ONLY_BY_REFERENCE)
    )
    assert rows.map(lambda lock: lock.acquire(blocking=False)).collect() == [True] * 4
    assert rows.map(lambda lock: lock.locked()).collect() == [True] * 4
    assert computed.value == 4


@pytest.mark.undisturbed
@pytest.mark.parametrize("level", [StorageLevel.MEMORY_ONLY, StorageLevel.MEMORY_AND_DISK], ids=lambda level: level.name)
def test_rows_that_can_be_neither_copied_nor_pickled_are_computed_again(fc, level):
    computed = fc.accumulator(0)
    rows = fc.range(4, num_partitions=2).map(lambda n: computed.add(1) or threading.Lock()).persist(level)
    for times in (1, 2):
        assert rows.map(lambda lock: lock.acquire(blocking=False)).collect() == [True] * 4
        assert computed.value == 4 * times


@pytest.mark.undisturbed
def test_a_local_checkpoint_of_rows_that_cannot_be_kept_says_so(fc):
    rows = fc.range(4, num_partitions=1).map(lambda n: threading.Lock()).local_checkpoint()
    with pytest.raises(RowsNotKept, match="cannot be pickled: .*lock.*MEMORY_ONLY_BY_REFERENCE"):
        rows.count()
