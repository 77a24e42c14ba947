"""Quantiles from few numbers."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.observe.durations import Durations


def of(values: list[float]) -> Durations:
    durations = Durations()
    for value in values:
        durations.add(value)
    return durations


@given(st.lists(st.floats(1e-5, 1e5), min_size=1, max_size=300))
def test_extremes_and_count_are_exact_and_the_median_within_a_few_percent(values):
    found = of(values)
    assert (found.count, found.least, found.greatest) == (len(values), min(values), max(values))
    assert found.quantile(0.5) == pytest.approx(statistics.median_low(values), rel=0.03)
    assert list(found.quantiles()) == sorted(found.quantiles())


def test_no_durations_are_all_zero():
    assert of([]).quantiles() == (0, 0, 0, 0, 0)


def test_a_hundred_thousand_durations_take_no_more_memory_than_their_range_has_buckets():
    durations = of([0.001 * (1 + number % 1000) for number in range(100_000)])
    assert len(durations._buckets) < 200


def test_a_clock_that_went_back_counts_as_no_time():
    assert of([-1.0]).least == 0.0
