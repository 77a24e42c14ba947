"""Small partitions behind a shuffle share tasks: whatever one can see of partitions is as if each had its own."""

from __future__ import annotations

import random
import threading
from operator import add

import pytest

import flowkit as fk
from flowkit.execution import task_runner
from flowkit.model.events import TaskEnd
from flowkit.model.task import ExceptionFailure
from flowkit.testing.event_order import check_event_order
from flowkit.testing.inline import inline_context
from tests.conformance.heard import heard

MANY = 60


def _ended(fc, operation):
    """Task ends that the operation leads to, and what it returns."""
    result, events = heard(fc, operation)
    return result, [each for each in events if isinstance(each, TaskEnd) and each.failure is None]


def _pairs(fc, count=2_000):
    return fc.range(count, num_partitions=6).map(lambda x: (x % 211, x / 7))


@pytest.mark.parametrize(
    "operation",
    [
        lambda pairs: pairs.reduce_by_key(add, MANY),
        lambda pairs: pairs.group_by_key(MANY).map_values(list),
        lambda pairs: pairs.join(pairs.map_values(int), num_partitions=MANY),
        lambda pairs: pairs.cogroup(pairs.reduce_by_key(add), num_partitions=MANY).map_values(
            lambda both: tuple(map(list, both))
        ),
        lambda pairs: pairs.sort_by_key(num_partitions=MANY),
        lambda pairs: pairs.map(lambda kv: kv[0] % 97).distinct(MANY),
        lambda pairs: pairs.reduce_by_key(add, MANY).map(lambda kv: (kv[0] % 50, kv[1])).reduce_by_key(add, MANY + 5),
        lambda pairs: pairs.group_by_key(MANY).map(lambda kv: (len(kv[1]), kv[0])).group_by_key(MANY).map_values(list),
    ],
    ids=["reduce", "group", "join", "cogroup", "sort", "distinct", "reduce twice", "group twice"],
)
def test_partitions_and_their_rows_are_the_same_to_the_last_bit(fc, operation):
    shared = operation(_pairs(fc)).glom().collect()
    with inline_context(coalesce_bytes=0) as plain:
        assert shared == operation(_pairs(plain)).glom().collect()


@pytest.mark.undisturbed
def test_there_are_fewer_tasks_than_partitions(fc):
    counts = _pairs(fc).reduce_by_key(add, MANY)
    found, ends = _ended(fc, counts.collect)
    assert len(found) == 211
    reduced = [each for each in ends if each.stage == max(end.stage for end in ends)]
    assert len(reduced) <= MANY // 2  # a busy machine may take long, and tasks give back some
    assert sorted(each.partition + further for each in reduced for further in range(each.span)) == list(range(MANY))
    told = str(counts.explain())
    assert f"stage 1: result, {MANY} partitions, small partitions share tasks" in told
    assert f"tasks for {MANY} partitions, " in told


@pytest.mark.undisturbed
@pytest.mark.parametrize("operation", ["repartition", "partition_by", "cache"])
def test_what_was_asked_for_and_what_is_kept_is_left_as_it_is(fc, operation):
    pairs = _pairs(fc)
    asked = {
        "repartition": lambda: pairs.repartition(MANY),
        "partition_by": lambda: pairs.partition_by(MANY),
        "cache": lambda: pairs.reduce_by_key(add, MANY).cache(),
    }[operation]()
    _, ends = _ended(fc, asked.count)
    assert {each.span for each in ends} == {1}
    assert "share tasks" not in str(asked.explain())


def test_functions_of_partitions_see_each_of_them(fc):
    def seen(index, rows):
        context = fk.TaskContext.get()
        return [(index, context.partition_id, context.num_partitions, sum(1 for _ in rows))]

    found = _pairs(fc).reduce_by_key(add, MANY).map_partitions_with_index(seen).collect()
    assert [each[:3] for each in found] == [(index, index, MANY) for index in range(MANY)]
    assert sum(each[3] for each in found) == 211


def test_listeners_of_a_task_hear_of_the_end_of_each_partition(fc):
    def watched(rows):
        context = fk.TaskContext.get()
        partition = context.partition_id
        yield from rows
        open_now.append(partition)
        context.add_task_completion_listener(lambda _: open_now.remove(partition))
        assert len(open_now) <= 2, "partitions that were over were still open"

    open_now = []
    assert _pairs(fc).reduce_by_key(add, MANY).map_partitions(watched).count() == 211


def test_accumulators_count_each_row_once(fc):
    rows = fc.accumulator(0)

    def counted(pair):
        rows.add(1)
        return pair

    assert _pairs(fc).reduce_by_key(add, MANY).map(counted).count() == 211
    assert rows.value == 211


def test_each_partition_is_saved_to_a_file_of_its_own(fc, tmp_path):
    _pairs(fc).reduce_by_key(add, MANY).keys().save_as_text(str(tmp_path / "out"))
    parts = sorted(each.name for each in (tmp_path / "out").iterdir() if each.name.startswith("part-"))
    assert len(parts) == MANY
    assert sorted(int(line) for line in fc.text_file(str(tmp_path / "out")).collect()) == list(range(211))


def test_the_partition_that_fails_is_the_one_that_is_named(fc):
    def fails_at(index, rows):
        if index == 17:
            raise ValueError("here")
        return rows

    broken = _pairs(fc).reduce_by_key(add, MANY).map_partitions_with_index(fails_at)
    caught = []

    def fail():
        with pytest.raises(ValueError, match="here") as raised:
            broken.count()
        caught.append(raised.value)

    _, events = heard(fc, fail)
    assert "partition 17" in str(caught[0]) + "\n".join(getattr(caught[0], "__notes__", []))
    failures = [each for each in events if isinstance(each, TaskEnd) and isinstance(each.failure, ExceptionFailure)]
    assert {each.partition for each in failures if each.failure.type_name == "ValueError"} == {17}


def test_some_partitions_alone_can_be_had(fc):
    wanted = _pairs(fc).reduce_by_key(add, MANY)
    everything = wanted.glom().collect()
    assert wanted.take(5) == [row for part in everything for row in part][:5]


@pytest.mark.undisturbed
def test_a_task_that_takes_long_leaves_the_others_to_others(fc):
    if fc.name in {"inline", "spilling"}:
        pytest.skip("there is one slot")
    gate_s = task_runner.GIVE_BACK_S * 1.2

    def slow(index, rows):
        if index < 12:
            threading.Event().wait(gate_s)
        return rows

    rdd = _pairs(fc).reduce_by_key(add, MANY).map_partitions_with_index(slow)
    found, ends = _ended(fc, rdd.count)
    assert found == 211
    last = [each for each in ends if each.stage == max(end.stage for end in ends)]
    assert sorted(each.partition + further for each in last for further in range(each.span)) == list(range(MANY))
    assert all(each.span == 1 for each in last if each.partition < 12)
    assert any(each.span > 1 for each in last if each.partition >= 12)


@pytest.mark.undisturbed
def test_events_keep_their_order(fc):
    chosen = random.Random(7).sample(range(1_000), 300)
    rdd = fc.parallelize(chosen, 4).map(lambda x: (x, 1)).reduce_by_key(add, MANY).sort_by_key(num_partitions=MANY)
    _, events = heard(fc, rdd.count)
    check_event_order(events)
