"""Estimates of what objects take are within a quarter of what a full walk finds."""

from __future__ import annotations

import random
import string
from sys import getsizeof

import numpy as np
import pytest

from flowkit.storage.memory.size_estimate import estimate_batch, estimate_bytes, estimate_dict

ROWS = 5_000


def walked(value: object, seen: set[int] | None = None) -> int:
    """Everything a value holds, each object once; what Python shares with everybody left out."""
    seen = set() if seen is None else seen
    if id(value) in seen or value is None or isinstance(value, bool) or (type(value) is int and -5 <= value <= 256):
        return 0
    if isinstance(value, str) and len(value) < 2:
        return 0
    seen.add(id(value))
    own = getsizeof(value)
    if isinstance(value, np.ndarray):
        return own if value.base is None else own + value.nbytes
    if isinstance(value, dict):
        return own + sum(walked(key, seen) + walked(each, seen) for key, each in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return own + sum(walked(each, seen) for each in value)
    return own


def text(rng: random.Random, shortest: int, longest: int) -> str:
    return "".join(rng.choices(string.ascii_letters, k=rng.randint(shortest, longest)))


def nested(rng: random.Random, depth: int) -> list:
    return [nested(rng, depth - 1) if depth else rng.randrange(1_000, 10**9) for _ in range(rng.randint(2, 6))]


KINDS = {
    "texts of one length": lambda rng: text(rng, 20, 20),
    "texts of very different lengths": lambda rng: text(rng, 1, 500),
    "numbers": lambda rng: rng.randrange(10**12),
    "pairs": lambda rng: (rng.randrange(10**6), text(rng, 5, 40)),
    "mappings": lambda rng: {name: rng.random() for name in ("speed", "height", "width")} | {"name": text(rng, 5, 30)},
    "lists in lists": lambda rng: nested(rng, 2),
    "sets": lambda rng: {rng.randrange(10**9) for _ in range(rng.randint(1, 9))},
    "arrays": lambda rng: np.arange(rng.randint(10, 200), dtype=np.float64),
    "arrays in pairs": lambda rng: (text(rng, 5, 10), np.zeros((rng.randint(2, 20), 8), np.float32)),
    "some of them small": lambda rng: [0.5 + each for each in range(200)] if rng.random() < 0.8 else [1.5],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_a_batch_is_estimated_within_a_quarter(kind: str, seed: int) -> None:
    rng = random.Random(seed)
    rows = [KINDS[kind](rng) for _ in range(ROWS)]
    exact = walked(rows)
    assert abs(estimate_batch(rows) - exact) <= 0.25 * exact


@pytest.mark.parametrize("kind", ["texts of one length", "pairs", "lists in lists", "arrays"])
def test_a_table_is_estimated_within_a_quarter(kind: str) -> None:
    rng = random.Random(7)
    table = {f"key {number}": KINDS[kind](rng) for number in range(ROWS)}
    exact = walked(table)
    assert abs(estimate_dict(table) - exact) <= 0.25 * exact


def test_a_value_shared_by_all_rows_counts_once() -> None:
    shared = "x" * 10_000
    assert estimate_batch([(number, shared) for number in range(ROWS)]) < 1 << 20


@pytest.mark.parametrize("rows", [0, 1, 47, 49])
def test_small_batches_are_exact(rows: int) -> None:
    batch = [f"a text {number}" for number in range(rows)]
    assert abs(estimate_batch(batch) - walked(batch)) <= (0 if rows < 48 else 0.1 * walked(batch))


def test_an_array_is_its_bytes() -> None:
    assert estimate_bytes(np.zeros(1_000_000)) == pytest.approx(8_000_000, rel=0.01)


def test_arrow_is_counted_by_its_buffers_each_once() -> None:
    pa = pytest.importorskip("pyarrow")
    batch = pa.record_batch({"n": np.arange(1_000_000), "text": ["x" * 10] * 1_000_000})
    assert estimate_bytes(batch) == pytest.approx(batch.get_total_buffer_size(), rel=0.001)
    slices = [batch.slice(start, 1_000) for start in range(0, 1_000_000, 1_000)]
    assert estimate_batch(slices) == pytest.approx(batch.get_total_buffer_size(), rel=0.01), "one buffer, a thousand slices"
    table = pa.Table.from_batches([batch])
    assert estimate_batch([batch, table]) == pytest.approx(batch.get_total_buffer_size(), rel=0.001)


def test_arrow_batches_of_their_own_are_added_up() -> None:
    pa = pytest.importorskip("pyarrow")
    batches = [pa.record_batch({"n": np.arange(number, number + 1_000)}) for number in range(500)]
    assert estimate_batch(batches) == pytest.approx(sum(each.get_total_buffer_size() for each in batches), rel=0.1)
