"""A partition of a join that is far larger than others is joined by several tasks: rows, their order and partitions are the same."""

from __future__ import annotations

from operator import add

import pytest

import flowkit as fk
from flowkit.config import Config
from flowkit.model.events import TaskEnd
from tests.conformance.heard import heard

HOT = 20_000


@pytest.fixture(scope="module", params=["inline", pytest.param("processes", marks=pytest.mark.cluster)])
def splitting(request):
    """A context in which little is much."""
    if request.param == "inline":
        from flowkit.testing.inline import inline_context

        context = inline_context(split_bytes=20_000)
    else:
        context = fk.Context(workers=2, progress="off", split_bytes=20_000)
    with context:
        yield context


@pytest.fixture(scope="module")
def whole():
    from flowkit.testing.inline import inline_context

    with inline_context(split_bytes=0) as context:
        yield context


def _sides(fc):
    """Most rows of the left side have one key."""
    left = fc.range(HOT, num_partitions=8).map(lambda x: (x % 40 if x % 10 == 0 else 7, x))
    right = fc.range(40, num_partitions=2).map(lambda x: (x, f"name {x}"))
    return left, right


def _count(pairs):
    return pairs.map_values(lambda _: 1)


OPERATIONS = {
    "inner": lambda left, right: left.join(right, num_partitions=4),
    "left": lambda left, right: left.left_outer_join(right, num_partitions=4),
    "right": lambda left, right: right.right_outer_join(left, num_partitions=4),
    "rows of it": lambda left, right: left.join(right, num_partitions=4).filter(lambda kv: kv[1][0] % 3).map(lambda kv: kv[1]),
    "sorted": lambda left, right: left.join(right, num_partitions=4).map(lambda kv: (kv[1][0] % 100, kv[0])).sort_by_key(),
    "grouped": lambda left, right: left.join(right, num_partitions=4).group_by_key(3).map_values(list),
    "reduced": lambda left, right: _count(left.join(right, num_partitions=4)).reduce_by_key(add, 3),
}


def _ran(fc, rdd):
    rows, events = heard(fc, rdd.collect)
    return rows, [each for each in events if isinstance(each, TaskEnd) and each.failure is None]


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_rows_come_in_the_order_in_which_one_task_would_make_them(splitting, whole, operation):
    rows, ends = _ran(splitting, operation(*_sides(splitting)))
    assert sum(1 for each in ends if each.piece) >= 2, "nothing was split"
    expected, plain = _ran(whole, operation(*_sides(whole)))
    assert not any(each.piece for each in plain)
    assert rows == expected


def test_counts_and_what_is_done_to_each_row_are_right_too(splitting):
    left, right = _sides(splitting)
    joined = left.join(right, num_partitions=4)
    assert joined.count() == HOT
    seen = splitting.accumulator(0)
    joined.foreach(lambda _: seen.add(1))
    assert seen.value == HOT


@pytest.mark.parametrize(
    "operation",
    [
        lambda left, right: left.full_outer_join(right, num_partitions=4),
        lambda left, right: left.join(right, num_partitions=4).map_partitions(lambda rows: [sum(1 for _ in rows)]),
        lambda left, right: left.cogroup(right, num_partitions=4).map_values(lambda both: tuple(map(len, both))),
        lambda left, right: left.group_by_key(4).map_values(len),
    ],
    ids=["full join", "partitions", "cogroup", "group"],
)
def test_where_a_task_must_see_all_of_a_partition_it_does(splitting, whole, operation):
    rows, ends = _ran(splitting, operation(*_sides(splitting)))
    assert not any(each.piece for each in ends)
    assert rows == _ran(whole, operation(*_sides(whole)))[0]


def test_explain_tells_of_it(splitting):
    left, right = _sides(splitting)
    joined = left.join(right, num_partitions=4)
    assert "stage 2: result, 4 partitions, large ones are split" in str(joined.explain())
    joined.collect()
    splitting.wait_for_listeners()
    assert "tasks for 4 partitions, " in str(joined.explain())


def test_a_setting_says_how_large_is_large():
    assert Config().split_bytes == 16 << 20
