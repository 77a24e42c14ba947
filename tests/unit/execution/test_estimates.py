"""Estimates from some partitions: exact when all are known, and bounds that hold as often as they say."""

from __future__ import annotations

import math
import pickle
import random

import pytest

from flowkit.errors import InvalidArgument
from flowkit.execution.estimates import BoundedFloat, estimated_mean, estimated_total, t_quantile
from flowkit.execution.sketches import SketchDistinct, log2_registers_for, merged_estimate, relative_sd_of


def test_an_estimate_from_every_partition_is_exact():
    assert estimated_total([1, 2, 3], 3, 0.9).is_exact
    assert estimated_total([1, 2, 3], 3, 0.9) == 6
    assert estimated_mean([(1, 2.0), (3, 6.0)], 2, 0.9) == 2.0
    assert estimated_mean([(0, 0.0)], 1, 0.9) == 0.0


def test_next_to_nothing_known_has_no_bounds():
    for estimate in (estimated_total([5], 4, 0.9), estimated_mean([(2, 8.0)], 4, 0.9)):
        assert (estimate.low, estimate.high) == (-math.inf, math.inf)
    assert estimated_total([5], 4, 0.9) == 20
    assert math.isnan(estimated_total([], 4, 0.9))
    assert math.isnan(estimated_mean([(0, 0.0)], 4, 0.9))


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_bounds_hold_the_truth_as_often_as_they_say(confidence):
    random.seed(5)
    held = {"total": 0, "mean": 0}
    rounds = 2_000
    for _ in range(rounds):
        everything = []
        for _ in range(60):
            count = random.randint(50, 150)
            everything.append((count, sum(random.gauss(10, 3) for _ in range(3)) / 3 * count))
        known = random.sample(everything, 12)
        total = sum(of for _, of in everything)
        mean = total / sum(count for count, _ in everything)
        estimate = estimated_total([of for _, of in known], 60, confidence)
        held["total"] += estimate.low <= total <= estimate.high
        estimate = estimated_mean(known, 60, confidence)
        held["mean"] += estimate.low <= mean <= estimate.high
    for count in held.values():
        assert count / rounds == pytest.approx(confidence, abs=0.03)


@pytest.mark.parametrize(
    "freedom, expected",  # tables: 97.5 % and 99.5 %
    [(1, (12.7062, 63.6567)), (2, (4.3027, 9.9248)), (3, (3.1824, 5.8409)), (4, (2.7764, 4.6041)), (10, (2.2281, 3.1693))],
)
def test_quantiles_are_those_of_the_tables(freedom, expected):
    assert (t_quantile(0.975, freedom), t_quantile(0.995, freedom)) == pytest.approx(expected, abs=2e-4)


def test_a_bounded_float_travels():
    estimate = BoundedFloat(2.0, low=1.0, high=3.0, confidence=0.9)
    copy = pickle.loads(pickle.dumps(estimate))
    assert (copy, copy.low, copy.high, copy.confidence) == (2.0, 1.0, 3.0, 0.9)
    assert repr(copy) == "2.0 (1.0 to 3.0, confidence 0.9)"


@pytest.mark.parametrize("relative_sd", [0.3, 0.05, 0.01, 0.001])
def test_a_sketch_is_as_exact_as_was_asked_for(relative_sd):
    size = log2_registers_for(relative_sd)
    assert relative_sd_of(size) <= relative_sd
    assert size == 4 or relative_sd_of(size - 1) > relative_sd


@pytest.mark.parametrize("wrong", [0, -1, 0.00001, 1, 2, math.nan])
def test_what_no_sketch_can_do_is_refused(wrong):
    with pytest.raises(InvalidArgument, match="relative_sd"):
        log2_registers_for(wrong)


def test_sketches_of_the_same_elements_are_one():
    size = log2_registers_for(0.02)
    sketch = SketchDistinct(size)
    parts = [sketch(0, iter(range(0, 6_000))), sketch(1, iter(range(3_000, 9_000))), sketch(2, iter(()))]
    assert merged_estimate(parts, size) == pytest.approx(9_000, rel=0.06)
    assert merged_estimate([sketch(0, iter([1, 1.0, True, "a", ("a", 1), ("a", 1)]))], size) == pytest.approx(3, abs=0.01)
    assert merged_estimate([], size) == 0
