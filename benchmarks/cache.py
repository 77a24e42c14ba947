"""What does the cache cost a scan? The same lists iterated as they are, and by way of the block store, in turns.

python benchmarks/cache.py
"""

from __future__ import annotations

import statistics
import time

from flowkit.storage.blocks.block_store import BlockStore
from flowkit.storage.memory.task_memory import ExecutorMemory

PARTITIONS, ROWS, ROUNDS = 64, 50_000, 25


def main() -> None:
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
    print(f"a cached scan takes {statistics.median(ratios):.3f} of the plain one; finding a partition {a_hit * 1e6:.1f} us")


if __name__ == "__main__":
    main()
