"""Hints: each for what it names, with the number, and none for a job of a moment."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowkit.model.ids import ExecutorId
from flowkit.observe.executor_times import SlowExecutor
from flowkit.observe.hints import StageFacts, hints_for

WELL = StageFacts(
    name="map at a.py:3",
    operations=("range", "map"),
    task_count=100,
    done=100,
    median_s=0.5,
    greatest_s=0.9,
    slowest_partition=7,
    spilled_bytes=0,
    shuffle_read_bytes=1 << 20,
    seconds=10.0,
    slots=4,
)


def test_a_stage_that_does_well_gets_none():
    assert list(hints_for(WELL)) == []


@pytest.mark.parametrize(
    "changes, kind, text",
    [
        ({"greatest_s": 12.0}, "skew", "partition 7 of map at a.py:3 took 12.0 s, the median 500 ms"),
        ({"greatest_s": 12.0, "slowest_partition": -1}, "skew", "the slowest task of"),
        ({"spilled_bytes": 3 << 30}, "spill", "spilled 3.0 GB"),
        ({"task_count": 5_000, "done": 5_000, "median_s": 0.001, "greatest_s": 0.01}, "tiny tasks", "5.0 k tasks"),
        ({"task_count": 3, "done": 3}, "few tasks", "3 tasks for 4 slots"),
        ({"operations": ("map", "group_by_key"), "shuffle_read_bytes": 200 << 20}, "grouping", "200 MB"),
        (
            {"hot_key": "None", "hot_key_rows": 700_000, "shuffle_write_rows": 1_000_000},
            "skewed key",
            "None is the key of about 700 k rows that map at a.py:3 shuffles, 70% of all",
        ),
        (
            {"slow_executor": SlowExecutor(ExecutorId("tcp://10.0.0.7:4000#a"), 9.0, 1.5)},
            "slow executor",
            "take 9.0 s on executor 10.0.0.7:4000, on the others 1.5 s",
        ),
        ({"times": 5, "total_s": 42.0}, "computed again", "in 5 jobs, 42.0 s"),
    ],
)
def test_each_is_for_what_it_names(changes, kind, text):
    (hint,) = hints_for(replace(WELL, **changes))
    assert hint.kind == kind
    assert text in hint.text
    assert hint.change


@pytest.mark.parametrize(
    "changes",
    [
        {"greatest_s": 0.9, "median_s": 0.001},
        {"task_count": 400, "done": 400, "median_s": 0.001, "greatest_s": 0.002},
        {"task_count": 3, "done": 3, "seconds": 1.0},
        {"operations": ("group_by_key",)},
        {"times": 9, "total_s": 0.5},
        {"times": 2, "total_s": 50.0},
    ],
)
def test_what_is_not_worth_seconds_is_not_said(changes):
    assert list(hints_for(replace(WELL, **changes))) == []


SKEWED = replace(WELL, greatest_s=12.0)
ALICE = replace(WELL, name="map at a.py:1", hot_key="'alice'", hot_key_rows=70, shuffle_write_rows=100)


def test_a_skewed_task_behind_a_shuffle_names_the_key_however_few_rows_there_are():
    (hint,) = hints_for(SKEWED.reading([replace(WELL, shuffle_write_rows=1_000), ALICE]))
    assert hint.kind == "skew"
    assert hint.text.endswith("; 'alice' is the key of about 70 rows that it reads, 70% of all")
    assert "reduce_by_key" in hint.change
    assert "more partitions" not in hint.change


@pytest.mark.parametrize(
    "parents, changes, advice",
    [
        ([replace(ALICE, hot_key_rows=10)], {}, "no one key"),
        ([], {}, "no one key"),
        ([], {"shuffle_read_bytes": 0}, "smaller files"),
    ],
)
def test_a_skewed_task_without_a_hot_key_names_none(parents, changes, advice):
    (hint,) = hints_for(replace(SKEWED, **changes).reading(parents))
    assert advice in hint.change
    assert "alice" not in hint.text


def test_a_hot_key_of_few_rows_is_no_news_where_no_task_is_slow():
    assert list(hints_for(WELL.reading([ALICE]))) == []
    assert list(hints_for(ALICE)) == []
