"""Broadcast values, however tasks are run."""

from __future__ import annotations

import pytest

from flowkit.errors import BroadcastDestroyed, ClosureError

LARGE = {number: f"name of {number} " * 5 for number in range(5_000)}


@pytest.mark.parametrize("table", [{1: "one"}, LARGE], ids=["small", "large"])
def test_tasks_read_what_was_sent(fc, table):
    sent = fc.broadcast(table)
    assert sent.value is table
    keys = list(table)[:100]
    assert fc.parallelize(keys, 4).map(lambda key: sent.value[key]).collect() == [table[key] for key in keys]
    assert (sent.size_bytes > 32 << 10) == (table is LARGE)


def test_a_process_unpickles_it_once_and_shares_it(fc):
    sent = fc.broadcast(LARGE)
    rows = fc.range(8, num_partitions=8).map(lambda _: (__import__("os").getpid(), id(sent.value))).collect()
    assert len(set(rows)) == len({pid for pid, _ in rows})


def test_it_travels_as_a_name_through_shuffles_and_rows(fc):
    sent = fc.broadcast(LARGE)
    pairs = fc.range(20, num_partitions=4).map(lambda x: (x % 3, (x, sent)))
    sums = pairs.group_by_key(3).map_values(lambda rows: sum(len(handle.value[x]) for x, handle in rows))
    expected = {k: sum(len(LARGE[x]) for x in range(20) if x % 3 == k) for k in range(3)}
    assert sums.collect_as_map() == expected


def test_rows_of_a_collection_may_hold_it(fc):
    sent = fc.broadcast(LARGE)
    assert fc.parallelize([(1, sent), (2, sent)], 2).map(lambda row: row[1].value[row[0]]).collect() == [LARGE[1], LARGE[2]]


def test_two_jobs_and_two_stages_use_one(fc):
    sent = fc.broadcast(LARGE)
    counts = fc.range(10, num_partitions=2).map(lambda x: (len(sent.value[x]), 1)).reduce_by_key(lambda a, b: a + b, 2)
    assert counts.map(lambda kv: sent.value[kv[1]]).count() == len(counts.collect())
    assert counts.count() == len({len(LARGE[x]) for x in range(10)})


def test_a_destroyed_one_is_refused_where_it_is_used_next(fc):
    sent = fc.broadcast([1, 2])
    rdd = fc.range(2).map(lambda x: sent.value[x])
    assert rdd.collect() == [1, 2]
    sent.destroy()
    sent.destroy()
    with pytest.raises(BroadcastDestroyed, match="was destroyed"):
        _ = sent.value
    with pytest.raises(ClosureError, match="was destroyed"):
        fc.range(2).map(lambda x: sent.value[x]).collect()


def test_what_cannot_travel_is_refused_at_the_call_with_the_way_to_it(fc):
    with pytest.raises(ClosureError, match="a Context can't be used"):
        fc.broadcast({"context": fc})
    with pytest.raises(ClosureError, match="an RDD can't be used"):
        fc.broadcast([fc.range(3)])
    with pytest.raises(ClosureError, match="lock"):
        fc.broadcast({"lock": __import__("threading").Lock()})


def test_values_of_functions_and_classes_of_the_script_travel(fc):
    class Local:
        def __init__(self, factor):
            self.factor = factor

    sent = fc.broadcast((Local(3), lambda x: x + 1))
    assert fc.range(3).map(lambda x: sent.value[1](x) * sent.value[0].factor).collect() == [3, 6, 9]


@pytest.mark.parametrize("table", [{1: "one"}, LARGE], ids=["small", "large"])
def test_an_unpersisted_one_can_be_used_again(fc, table):
    sent = fc.broadcast(table)
    names = fc.range(4, num_partitions=4).map(lambda _: sent.value[1])
    expected = [table[1]] * 4
    assert names.collect() == expected
    sent.unpersist()
    sent.unpersist()
    assert names.collect() == expected
    assert fc.range(1).map(lambda _: len(sent.value)).collect() == [len(table)]
    sent.destroy()
    with pytest.raises(BroadcastDestroyed):
        sent.unpersist()
