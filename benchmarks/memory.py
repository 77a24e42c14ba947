"""What does a job of ten times the memory cost, and how much do processes really take? One child process a case.

    python benchmarks/memory.py [--limit 400MB] [--times 10] [--only sort,group]

Each case runs on two workers with a memory limit, on data of about ``--times`` their budget, and again without a limit. The peak is the
kernel's own high-water mark of each worker process. PySpark is run with the same memory where it is installed beside (``.envs/pyspark``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ROW_BYTES = 160  # of a pair (int, str of 60 characters) as Python objects


def peak_bytes(_rows):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            yield int(line.split()[1]) * 1024


def reset_peak(_rows):
    Path("/proc/self/clear_refs").write_text("5")
    yield 0


def pair(n):
    key = n * 2_654_435_761 % (1 << 32)
    return key, f"{key:060d}"


def few(n):
    return n * 2_654_435_761 % 50_000, f"{n:060d}"


def one(n):
    return 0, f"{n:060d}"


def twice(values):
    return len(values) + sum(1 for value in values if value)


def cases(fc, rows, parts):
    import flowkit as fk

    pairs = fc.range(rows, num_partitions=parts).map(pair)
    return {
        "sort": lambda: pairs.sort_by_key(num_partitions=parts).map(lambda kv: kv[0] % 2).sum(),
        "group": lambda: fc.range(rows, num_partitions=parts).map(few).group_by_key(parts).map_values(len).values().sum(),
        "group into one key": lambda: fc.range(rows, num_partitions=parts).map(one).group_by_key(parts).map_values(twice).values().sum(),
        "reduce, all keys distinct": lambda: pairs.reduce_by_key(max, parts).count(),
        "distinct": lambda: pairs.values().distinct(parts).count(),
        "join": lambda: pairs.join(pairs.map_values(len), parts).count(),
        "cache on disk": lambda: _cached(pairs, fk.StorageLevel.MEMORY_AND_DISK),
    }


def _cached(pairs, level):
    kept = pairs.persist(level)
    found = kept.count() + kept.map(lambda kv: 1).sum()
    kept.unpersist(blocking=True)
    return found


def child(name: str, limit: str, rows: int, parts: int) -> None:
    import flowkit as fk

    chosen = None if limit == "none" else limit
    with fk.Context(workers=2, memory_limit=chosen, progress="off", max_task_failures=1) as fc:
        fc.range(4, num_partitions=4).map_partitions(reset_peak).count()
        pauses = Pauses(fc)
        began = time.perf_counter()
        answer = cases(fc, rows, parts)[name]()
        seconds = time.perf_counter() - began
        peaks = fc.range(8, num_partitions=8).map_partitions(peak_bytes).collect()
        fc.wait_for_listeners()
        lost = sum(bool(each.removed_at) for each in fc.status.executors())
        told = {
            "answer": answer,
            "seconds": seconds,
            "peak": max(peaks),
            "spilled": fc.status.summary().spilled_bytes,
            "paused": pauses.count(),
            "lost": lost,
        }
    print(json.dumps(told))


class Pauses:
    """How often a worker was paused by Dask."""

    def __init__(self, fc) -> None:
        self._client = fc.client

    def count(self) -> int:
        events = self._client.get_events()
        return sum(
            1
            for told in events.values()
            for _, message in told
            if isinstance(message, dict) and message.get("action") == "worker-status-change" and message.get("status") == "paused"
        )


def run(name: str, limit: str, rows: int, parts: int) -> dict:
    command = [sys.executable, __file__, "--child", name, "--limit", limit, "--rows", str(rows), "--parts", str(parts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:200] if done.stderr.strip() else "no word"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    from dask.utils import parse_bytes

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", default="400MB")
    parser.add_argument("--times", type=float, default=10.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--parts", type=int, default=16)
    parser.add_argument("--child", default="")
    options = parser.parse_args()
    if options.child:
        child(options.child, options.limit, options.rows, options.parts)
        return
    limit = parse_bytes(options.limit)
    budget = 2 * int((limit - 160e6) * 0.6)
    rows = options.rows or int(options.times * budget / ROW_BYTES)
    print(f"{rows:,} rows, about {rows * ROW_BYTES / 1e6:,.0f} MB as objects; two workers of {options.limit}")
    wanted = [each for each in options.only.split(";") if each] or list(cases(_Nothing(), 0, 1))
    for name in wanted:
        limited, free = run(name, options.limit, rows, options.parts), run(name, "none", rows, options.parts)
        if "error" in limited:
            print(f"{name:<28} failed: {limited['error']}")
            continue
        same = "" if limited["answer"] == free.get("answer") else "  ANSWERS DIFFER"
        ratio = limited["seconds"] / free["seconds"] if "seconds" in free else float("nan")
        print(
            f"{name:<28} {limited['seconds']:6.1f} s, {ratio:4.2f}x unlimited; peak {limited['peak'] / limit:4.2f} of the limit; "
            f"spilled {limited['spilled'] / 1e6:,.0f} MB; {limited['paused']} pauses, {limited['lost']} workers lost{same}"
        )


class _Nothing:
    """Stands in for a Context where only names are asked for."""

    def __getattr__(self, _name):
        return lambda *_args, **_kwargs: self


if __name__ == "__main__":
    main()
