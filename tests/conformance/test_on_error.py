"""Errors that do not end a job: left out, counted, limited, looked at; however it is run."""

from __future__ import annotations

from operator import add

import pytest

from flowkit.errors import InvalidArgument, TooManyErrors
from flowkit.execution.tolerance import Fault

TEXTS = ["1", "two", "3", "", "5"] * 4


def test_what_raises_is_left_out(fc):
    texts = fc.parallelize(TEXTS, 4)
    assert texts.map(int, on_error="skip").collect() == [1, 3, 5] * 4
    assert texts.filter(lambda text: int(text) > 1, on_error="skip").collect() == ["3", "5"] * 4
    assert texts.flat_map(lambda text: (int(text) for _ in range(2)), on_error="skip").collect() == [1, 1, 3, 3, 5, 5] * 4
    pairs = texts.zip_with_index().map(lambda pair: (pair[1], pair[0])).partition_by(3)
    numbers = pairs.map_values(int, on_error="quarantine")
    assert numbers.partitioner == pairs.partitioner
    assert sorted(numbers.values().collect()) == sorted([1, 3, 5] * 4)
    assert sorted(fault.element[0] for fault in numbers.quarantined().collect()) == [1, 3, 6, 8, 11, 13, 16, 18]


def test_the_quarantine_has_element_error_and_traceback(fc):
    def parse(text):
        return int(text)

    numbers = fc.parallelize(TEXTS, 4).map(parse, on_error="quarantine")
    faults = numbers.quarantined()
    assert faults.count() == 8
    first = faults.first()
    assert isinstance(first, Fault)
    assert first.element == "two"
    assert isinstance(first.error, ValueError)
    assert "in parse" in first.traceback
    assert "tolerance.py" not in first.traceback
    assert numbers.sum() == 36


def test_without_a_quarantine_there_is_none(fc):
    for rdd in (fc.range(3), fc.range(3).map(str, on_error="skip"), fc.range(3).map(str, on_error="quarantine").map(int)):
        with pytest.raises(InvalidArgument, match="has no quarantine"):
            rdd.quarantined()


def test_more_errors_than_are_tolerated_fail_the_job_after_all(fc):
    texts = fc.parallelize(TEXTS, 4)
    assert texts.map(int, on_error="skip", max_errors=8).count() == 12
    with pytest.raises(TooManyErrors, match="8 errors are more than max_errors = 7"):
        texts.map(int, on_error="skip", max_errors=7).count()
    assert texts.map(int, on_error="skip", max_errors=0.4).count() == 12
    with pytest.raises(TooManyErrors, match="8 errors of 20 elements are more than max_errors = 0.3"):
        texts.map(int, on_error="quarantine", max_errors=0.3).map(lambda x: (x, 1)).reduce_by_key(add).collect()
    with pytest.raises(TooManyErrors, match="max_errors = 0, and there is one"):
        texts.map(int, on_error="skip", max_errors=0).count()


def test_a_second_job_is_counted_by_itself(fc):
    numbers = fc.parallelize(TEXTS, 4).map(int, on_error="skip", max_errors=8)
    assert [numbers.count() for _ in range(3)] == [12] * 3


def test_an_output_with_too_many_errors_is_not_shown(fc, tmp_path):
    with pytest.raises(TooManyErrors):
        fc.parallelize(TEXTS, 4).map(int, on_error="skip", max_errors=1).save_as_text(tmp_path / "out")
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_bad_arguments_are_refused_at_the_call(fc):
    for arguments, name in [
        ({"on_error": "ignore"}, "on_error"),
        ({"max_errors": 3}, "max_errors"),
        ({"on_error": "skip", "max_errors": -1}, "max_errors"),
        ({"on_error": "skip", "max_errors": 1.5}, "max_errors"),
        ({"on_error": "skip", "max_errors": True}, "max_errors"),
    ]:
        with pytest.raises(InvalidArgument, match=name):
            fc.range(3).map(str, **arguments)


def test_a_job_with_more_errors_than_are_tolerated_has_failed_and_says_why(fc):
    with pytest.raises(TooManyErrors):
        fc.parallelize(TEXTS, 4).map(int, on_error="skip", max_errors=7).count()
    fc.wait_for_listeners()
    last = fc.status.jobs()[-1]
    assert last.outcome == "failed"
    assert "TooManyErrors" in last.reason
    assert "8 errors are more than max_errors = 7" in last.reason
