"""What does the cache cost? A scan of lists as they are, and by way of the block store; then rows of several kinds, each way to keep them.

python benchmarks/cache.py
"""

from __future__ import annotations

import copy
import pickle
import statistics
import time
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import numpy as np

from flowkit.model.storage_level import StorageLevel
from flowkit.storage.blocks.block_store import BlockStore
from flowkit.storage.memory.task_memory import ExecutorMemory

PARTITIONS, ROWS, ROUNDS = 64, 50_000, 25
KINDS_ROWS, BATCH_ROWS = 20_000, 2_048


class Item:
    """A row that is an object."""

    def __init__(self, n: int) -> None:
        self.number, self.name, self.values = n, str(n), [n]


KINDS: dict[str, Callable[[int], Any]] = {
    "int": lambda n: n,
    "(int, str)": lambda n: (n, str(n)),
    "(key, list of 8 ints)": lambda n: (n, [n * 7 + j for j in range(8)]),
    "dict of 6 numbers and texts": lambda n: {"id": n, "name": f"n{n}", "x": n / 2, "y": None, "tag": "abc", "z": n % 3},
    "nested dicts and lists, as of JSON": lambda n: {
        "id": n,
        "tags": ["a", f"b{n}"],
        "at": {"lat": n / 10, "lon": n / 5},
        "items": [{"n": j, "p": j + n / 2} for j in range(3)],
    },
    "object of 3 attributes": Item,
    "array of 1,000 float64": lambda n: np.arange(1000.0),
}


def main() -> None:
    """Print both."""
    scan()
    kinds()


def scan() -> None:
    """Immutable rows: nothing is copied, so what is left is finding the partition."""
    store = BlockStore(ExecutorMemory(8 << 30))
    data = [[(row, partition) for row in range(ROWS)] for partition in range(PARTITIONS)]
    for partition, rows in enumerate(data):
        list(store.get_or_compute("app", 0, partition, lambda rows=rows: rows))

    def hit(partition):
        return store.get_or_compute("app", 0, partition, lambda: iter(()))

    ratios = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        plain = sum(sum(1 for _ in iter(rows)) for rows in data)
        between = time.perf_counter()
        cached = sum(sum(1 for _ in hit(partition)) for partition in range(PARTITIONS))
        ended = time.perf_counter()
        assert plain == cached == PARTITIONS * ROWS
        ratios.append((ended - between) / (between - began))
    began = time.perf_counter()
    for _ in range(ROUNDS):
        for partition in range(PARTITIONS):
            hit(partition)
    a_hit = (time.perf_counter() - began) / ROUNDS / PARTITIONS
    print(f"a cached scan takes {statistics.median(ratios):.3f} of the plain one; finding a partition {a_hit * 1e6:.1f} us\n")


def kinds() -> None:
    """Rows that can be changed: what a row costs to store and to read, beside pickles and deep copies of it."""
    print(f"{'ns a row':<36}{'computed':>9}{'stored':>9}{'by ref.':>9}{'read':>9}{'pickled':>9}{'deepcopy':>9}")
    for name, make in KINDS.items():
        count = KINDS_ROWS // 20 if name.startswith("array") else KINDS_ROWS
        print(f"{name:<36}" + "".join(f"{seconds / count * 1e9:>9.0f}" for seconds in _costs(make, count)))


def _costs(make: Callable[[int], Any], count: int) -> list[float]:
    rows = [make(n) for n in range(count)]
    pickles = [pickle.dumps(rows[start : start + BATCH_ROWS], 5) for start in range(0, count, BATCH_ROWS)]
    store = BlockStore(ExecutorMemory(8 << 30))

    def store_and_read() -> Iterable[Any]:
        return _first(store, 0, rows, StorageLevel.MEMORY_ONLY)()

    ways: tuple[Callable[[], Iterable[Any]], ...] = (
        lambda: map(make, range(count)),
        store_and_read,
        _first(store, 1, rows, StorageLevel.MEMORY_ONLY_BY_REFERENCE),
        _first(store, 2, rows, StorageLevel.MEMORY_ONLY),
        lambda: chain.from_iterable(map(pickle.loads, pickles)),
        lambda: map(copy.deepcopy, rows),
    )
    found = [_seconds(iterate) for iterate in ways]
    found[1] -= found[3]
    return found


def _first(store: BlockStore, rdd: int, rows: list[Any], level: StorageLevel) -> Callable[[], Iterable[Any]]:
    """Store rows anew; returns what reads them."""
    store.drop_rdd("app", rdd)
    store.get_or_compute("app", rdd, 0, lambda: rows, level=level)
    return lambda: store.get_or_compute("app", rdd, 0, lambda: iter(()), level=level)


def _seconds(iterate: Callable[[], Iterable[Any]]) -> float:
    """Processor time of the fastest of some runs: what others do on the machine counts least there."""
    found = []
    for _ in range(ROUNDS // 3):
        began = time.process_time()
        for _ in iterate():
            pass
        found.append(time.process_time() - began)
    return min(found)


if __name__ == "__main__":
    main()
