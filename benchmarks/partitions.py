"""What it brings to have small partitions share tasks, and large ones of joins split: each setting on and off, in turn.

    python benchmarks/partitions.py [--rounds N]

Medians, on as many workers as there are cores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from operator import add
from statistics import median
from typing import Any

import flowkit as fk

ROWS, KEYS, MAPS = 100_000, 5_000, 20
FACTS, NAMES = 900_000, 2_000


def reduced(partitions: int) -> Callable[[Any], Any]:
    """Counts of few keys in many partitions."""

    def run(fc: Any) -> Any:
        return fc.range(ROWS, num_partitions=MAPS).map(lambda x: (x % KEYS, 1)).reduce_by_key(add, partitions).count()

    return run


def twice(partitions: int) -> Callable[[Any], Any]:
    """One shuffle after another."""

    def run(fc: Any) -> Any:
        counts = fc.range(ROWS, num_partitions=MAPS).map(lambda x: (x % KEYS, 1)).reduce_by_key(add, partitions)
        return counts.map(lambda kv: (kv[1], kv[0])).group_by_key(partitions).count()

    return run


def joined(fc: Any) -> Any:
    """A table of facts, most of which have one key, with a table of names; a little work for each row."""
    facts = fc.range(FACTS, num_partitions=16).map(lambda x: (x % NAMES if x % 6 == 0 else 7, f"row {x} " + "." * 60))
    names = fc.range(NAMES, num_partitions=2).map(lambda x: (x, f"name {x}"))

    def work(pair: Any) -> int:
        fact, name = pair[1]
        return sum(map(len, f"{fact} {name}".split()))

    return facts.join(names, num_partitions=8).map(work).count()


CASES: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("coalesce_bytes", "100 k pairs reduced in 40 partitions", reduced(40)),
    ("coalesce_bytes", "in 200 partitions", reduced(200)),
    ("coalesce_bytes", "in 1,000 partitions", reduced(1_000)),
    ("coalesce_bytes", "reduced, then grouped, in 200 each", twice(200)),
    ("split_bytes", "900 k facts joined with names, five of six with one key", joined),
]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print("| | off | on | |\n|---|---|---|---|")
    for setting, name, run in CASES:
        times: dict[bool, list[float]] = {False: [], True: []}
        with fk.Context(progress="off") as on, fk.Context(progress="off", **{setting: 0}) as off:
            run(on), run(off)
            for _ in range(rounds):
                for is_on, context in ((False, off), (True, on)):
                    began = time.perf_counter()
                    run(context)
                    times[is_on].append(time.perf_counter() - began)
        without, with_it = median(times[False]), median(times[True])
        print(f"| {name} | {1000 * without:.0f} ms | {1000 * with_it:.0f} ms | {without / with_it:.1f}x |", flush=True)


if __name__ == "__main__":
    main()
