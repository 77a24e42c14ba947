"""Estimates in bounded time, however they are run."""

from __future__ import annotations

import threading

import pytest

from flowkit.errors import InvalidArgument, JobTimeout


def test_with_time_enough_they_are_exact(fc):
    numbers = fc.range(1_000, num_partitions=7)
    assert numbers.count_approx(60).is_exact
    assert numbers.count_approx(60) == 1_000
    assert numbers.sum_approx(60) == 499_500
    assert numbers.mean_approx(60, confidence=0.5) == 499.5
    assert fc.empty().count_approx(60) == 0
    assert fc.empty().mean_approx(60) == 0.0


def test_when_time_is_over_what_is_known_is_told_and_the_rest_is_cancelled(fc):
    if fc.name == "inline":
        pytest.skip("an inline job runs in the calling thread, to its end")

    def wait_in_the_last(index, rows):
        gate = threading.Event()
        while index == 9 and not gate.wait(0.01):
            pass
        return rows

    rows = fc.range(1_000, num_partitions=10).map_partitions_with_index(wait_in_the_last)
    estimate = rows.count_approx(1.0)
    assert (estimate, estimate.is_exact) == (1_000.0, False)
    assert estimate.low <= 1_000 <= estimate.high
    with fc.job(timeout_s=0.3), pytest.raises(JobTimeout):
        rows.count_approx(60)
    assert fc.jobs.active == ()
    assert fc.range(4).count() == 4


def test_an_error_is_an_error(fc):
    with pytest.raises(ZeroDivisionError):
        fc.range(4).map(lambda x: 1 / x).sum_approx(60)
    with pytest.raises(TypeError, match="numbers"):
        fc.parallelize(["a"]).mean_approx(60)


def test_different_elements_are_counted_about(fc):
    words = fc.range(50_000, num_partitions=5).map(lambda x: f"word {x % 20_000}")
    assert words.count_approx_distinct(0.01) == pytest.approx(20_000, rel=0.04)
    assert fc.empty().count_approx_distinct() == 0


def test_bad_arguments_are_refused_at_the_call(fc):
    numbers = fc.range(4)
    for call, name in [
        (lambda: numbers.count_approx(0), "timeout_s"),
        (lambda: numbers.sum_approx(1, confidence=1), "confidence"),
        (lambda: numbers.mean_approx(1, confidence=0), "confidence"),
        (lambda: numbers.count_approx_distinct(0.00001), "relative_sd"),
    ]:
        with pytest.raises(InvalidArgument, match=name):
            call()
