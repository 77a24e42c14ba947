"""Accumulators, however tasks are run: what counts, what does not, and what cannot be done."""

from __future__ import annotations

import threading
from operator import add

import pytest

import flowkit as fk
from flowkit.errors import AccumulatorMisused, LimitExceeded
from flowkit.model import events as ev


def test_what_tasks_add_is_there_when_the_action_returns(fc):
    total, seen = fc.accumulator(100), fc.accumulator(set(), merge=set.union)

    def note(x):
        total.add(x)
        seen.add({x % 3})
        return x

    assert fc.range(50, num_partitions=7).map(note).count() == 50
    assert total.value == 100 + sum(range(50))
    assert seen.value == {0, 1, 2}


def test_adding_in_place_reads_well(fc):
    class Counter:
        bad = fc.accumulator(0.0)

    bad = Counter.bad
    holder = [bad]

    def note(x):
        counter = holder[0]
        counter += 0.5
        return x

    fc.range(4, num_partitions=2).foreach(note)
    bad += 1
    assert bad.value == 3.0


def test_a_lazy_transformation_adds_nothing_until_it_runs_and_again_when_it_runs_again(fc):
    calls = fc.accumulator(0)
    rdd = fc.range(10, num_partitions=2).map(lambda x: calls.add(1) or x)
    assert calls.value == 0
    rdd.count()
    assert calls.value == 10
    rdd.count()
    assert calls.value == 20


def test_a_shuffle_that_is_reused_adds_nothing_again(fc):
    calls = fc.accumulator(0)
    sums = fc.range(20, num_partitions=4).map(lambda x: calls.add(1) or (x % 3, x)).reduce_by_key(add, 2)
    assert sums.count() == 3
    assert sums.collect_as_map() == {0: 63, 1: 70, 2: 57}
    assert calls.value == 20


def test_attempts_that_failed_do_not_count(fc, tmp_path):
    calls = fc.accumulator(0)
    marker = str(tmp_path / "failed")

    def sometimes(partition, rows):
        import os

        for row in rows:
            calls.add(1)
            yield row
        if partition == 1:
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            raise OSError("once")

    assert fc.range(12, num_partitions=3).map_partitions_with_index(sometimes).count() == 12
    assert calls.value == 12


def test_what_succeeded_before_its_job_failed_counts(fc):
    calls = fc.accumulator(0)

    def fail_late(partition, rows):
        rows = list(rows)
        if partition == 1:
            raise ValueError("no")
        calls.add(len(rows))
        return rows

    with pytest.raises(ValueError, match="no"):
        fc.range(4, num_partitions=2).map_partitions_with_index(fail_late).collect()
    assert calls.value in (0, 2)


def test_its_value_cannot_be_read_in_a_task(fc):
    total = fc.accumulator(0)
    with pytest.raises(AccumulatorMisused, match="on the driver only"):
        fc.range(1).map(lambda x: total.value).collect()


def test_it_cannot_be_made_of_what_cannot_be_added(fc):
    with pytest.raises(TypeError, match="a dict cannot be added up"):
        fc.accumulator({})
    with pytest.raises(ValueError, match="merge"):
        fc.accumulator(0, merge=3)


def test_an_update_that_cannot_be_merged_is_told_when_the_value_is_read(fc):
    total = fc.accumulator(0)
    fc.range(2, num_partitions=2).foreach(lambda x: total.add("text"))
    with pytest.raises(AccumulatorMisused, match="TypeError"):
        _ = total.value
    total.reset(1)
    assert total.value == 1


def test_updates_too_large_to_travel_fail_with_the_limit(fc):
    rows = fc.accumulator([])
    with pytest.raises(LimitExceeded, match="accumulators"):
        fc.range(1).foreach(lambda x: rows.add(["x" * 1000] * 2000 + [str(n) * 100 for n in range(20_000)]))


def test_named_ones_are_heard_by_listeners(fc):
    heard, done = [], threading.Event()

    class Listener:
        def on_event(self, event):
            if isinstance(event, ev.TaskEnd) and event.accumulated:
                heard.append(event.accumulated)
            if isinstance(event, ev.JobEnd):
                done.set()

    listener = Listener()
    fc.add_listener(listener)
    bad = fc.accumulator(0, name="bad rows")
    fc.range(4, num_partitions=2).foreach(lambda x: bad.add(1))
    assert done.wait(20)
    fc.remove_listener(listener)
    assert heard == [{"bad rows": "2"}] * 2


def test_a_rows_function_may_hold_several_and_a_class_may_too(fc):
    class Parser:
        def __init__(self, good, bad):
            self.good, self.bad = good, bad

        def __call__(self, text):
            (self.good if text.isdigit() else self.bad).add(1)
            return text

    parser = Parser(fc.accumulator(0), fc.accumulator(0))
    fc.parallelize(["1", "x", "2", "y", "3"], 3).foreach(parser)
    assert (parser.good.value, parser.bad.value) == (3, 2)


def test_an_accumulator_of_another_context_is_left_alone(fc):
    from flowkit.testing.inline import inline_context

    with inline_context() as other:
        foreign, own = other.accumulator(0), fc.accumulator(0)
        fc.range(3).foreach(lambda x: foreign.add(1))
        assert (foreign.value, own.value) == (0, 0)


def test_forgotten_accumulators_are_forgotten(fc):
    before = len(fc._accumulators)
    for _ in range(50):
        fc.accumulator(0)
    assert len(fc._accumulators) <= before + 1
    assert isinstance(fc, fk.Context)
