"""What does a job of ten times the memory cost, and how much do processes really take? One child process a case.

    python benchmarks/memory.py [--limit 400MB] [--times 10] [--only sort,group]

Each case runs on two workers with a memory limit, on data of about ``--times`` their budget, and again without a limit. The peak is the
kernel's own high-water mark of each worker process. With ``--pyspark`` PySpark runs the same in as much memory, from the environment that
``benchmarks/run.py`` made for it: the two limits together are its heap, and a quarter of each what a Python worker may hold before it
spills; its peak is that of the JVM and its Python workers together, against the two limits together.
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
        "group into one key": lambda: (
            fc.range(rows, num_partitions=parts).map(one).group_by_key(parts).map_values(twice).values().sum()
        ),
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


def spark_child(name: str, limit: str, rows: int, parts: int) -> None:
    import contextlib
    import os
    import threading

    import psutil
    from pyspark import SparkConf, SparkContext, StorageLevel

    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    megabytes = int(limit) // 1_000_000
    conf = (
        SparkConf()
        .setMaster("local[2]")
        .set("spark.ui.enabled", "false")
        .set("spark.ui.showConsoleProgress", "false")
        .set("spark.driver.memory", f"{2 * megabytes}m")
        .set("spark.python.worker.memory", f"{megabytes // 4}m")
    )
    with SparkContext(conf=conf) as sc:
        sc.setLogLevel("ERROR")
        numbers = sc.range(rows, numSlices=parts)
        pairs = numbers.map(pair)

        def cached():
            kept = pairs.persist(StorageLevel.MEMORY_AND_DISK)
            return kept.count() + kept.map(lambda kv: 1).sum()

        actions = {
            "sort": lambda: pairs.sortByKey(numPartitions=parts).map(lambda kv: kv[0] % 2).sum(),
            "group": lambda: numbers.map(few).groupByKey(parts).mapValues(len).values().sum(),
            "group into one key": lambda: numbers.map(one).groupByKey(parts).mapValues(twice).values().sum(),
            "reduce, all keys distinct": lambda: pairs.reduceByKey(max, parts).count(),
            "distinct": lambda: pairs.values().distinct(parts).count(),
            "join": lambda: pairs.join(pairs.mapValues(len), parts).count(),
            "cache on disk": cached,
        }
        sc.range(4, numSlices=4).count()
        peak = 0
        over = threading.Event()

        def watch() -> None:
            nonlocal peak
            me = psutil.Process()
            while not over.wait(0.1):
                held = 0
                for each in me.children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        held += each.memory_full_info().pss
                peak = max(peak, held)

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.perf_counter()
        answer = actions[name]()
        seconds = time.perf_counter() - began
        over.set()
        watcher.join()
    print(json.dumps({"answer": answer, "seconds": seconds, "peak": peak}))


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


def run(name: str, limit: str, rows: int, parts: int, python: str = sys.executable, how: str = "--child") -> dict:
    command = [python, __file__, how, name, "--limit", limit, "--rows", str(rows), "--parts", str(parts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1_800, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:200] if done.stderr.strip() else "no word"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", default="400MB")
    parser.add_argument("--times", type=float, default=10.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--parts", type=int, default=16)
    parser.add_argument("--pyspark", action="store_true")
    parser.add_argument("--child", default="")
    parser.add_argument("--spark-child", default="")
    options = parser.parse_args()
    if options.spark_child:
        spark_child(options.spark_child, options.limit, options.rows, options.parts)
        return
    if options.child:
        child(options.child, options.limit, options.rows, options.parts)
        return
    from dask.utils import parse_bytes

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
            f"spilled {limited['spilled'] / 1e6:,.0f} MB; {limited['paused']} pauses, {limited['lost']} workers lost{same}",
            flush=True,
        )
        if options.pyspark:
            spark = run(name, str(limit), rows, options.parts, ".envs/pyspark/bin/python", "--spark-child")
            told = (
                f"failed: {spark['error']}"
                if "error" in spark
                else f"{spark['seconds']:6.1f} s, {spark['seconds'] / limited['seconds']:4.1f}x flowkit; "
                f"peak {spark['peak'] / 2 / limit:4.2f} of the limits"
                + ("" if spark["answer"] == limited["answer"] else "  ANSWERS DIFFER")
            )
            print(f"{'':<18}PySpark   {told}", flush=True)


class _Nothing:
    """Stands in for a Context where only names are asked for."""

    def __getattr__(self, _name):
        return lambda *_args, **_kwargs: self


if __name__ == "__main__":
    main()
