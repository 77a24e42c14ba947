"""What flowkit leaves of the Dask scheduler's event loop at some 5,000 tasks a second, events on.

    python benchmarks/loop.py [--task-s 0.0002] [--seconds 10]

The scheduler runs in a process of its own, as on a cluster, with two workers of one thread. Its loop is asked every 10 ms how late it is.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from distributed import Client

import flowkit as fk


async def _watch(seconds: float, dask_scheduler: Any) -> dict[str, Any]:
    """Runs on the scheduler's loop."""
    (plugin,) = [each for name, each in dask_scheduler.plugins.items() if name.startswith("flowkit")]
    turn, slices = plugin._core_loop._turn, []
    #: of garbage collection on this thread: when the one under way began, and how long all took, in processor time
    collecting, here = [0.0, 0.0], threading.get_ident()

    def note_collection(phase: str, _: dict[str, int]) -> None:
        if threading.get_ident() != here:
            return
        if phase == "start":
            collecting[0] = time.thread_time()
        else:
            collecting[1] += time.thread_time() - collecting[0]

    def timed_turn() -> None:
        at, cpu_at, collected = time.perf_counter(), time.thread_time(), collecting[1]
        turn()
        collected = collecting[1] - collected
        slices.append((time.perf_counter() - at, time.thread_time() - cpu_at - collected, collected))

    plugin._core_loop._turn = timed_turn
    gc.callbacks.append(note_collection)
    before, begun, cpu = plugin.statistics(), time.perf_counter(), time.process_time()
    late = []
    while time.perf_counter() - begun < seconds:
        at = time.perf_counter() + 0.01
        await asyncio.sleep(0.01)
        late.append(time.perf_counter() - at)
    after, took = plugin.statistics(), time.perf_counter() - begun
    del plugin._core_loop._turn
    gc.callbacks.remove(note_collection)
    walls, cpus, collections = (sorted(each) for each in zip(*slices, strict=True))
    return {
        "busy": (after["busy_s"] - before["busy_s"]) / took,
        "cpu": (time.process_time() - cpu) / took,
        "slices_ms": (
            statistics.median(walls) * 1e3,
            walls[int(len(walls) * 0.999)] * 1e3,
            walls[-1] * 1e3,
            cpus[-1] * 1e3,
            collections[-1] * 1e3,
        ),
        "late_ms": (statistics.median(late) * 1e3, sorted(late)[int(len(late) * 0.99)] * 1e3, max(late) * 1e3),
        "silent_s": max(time.time() - worker.last_seen for worker in dask_scheduler.workers.values()),
    }


def _busy(task_s: float) -> Any:
    def run(rows: Any) -> list[int]:
        until = time.perf_counter() + task_s
        while time.perf_counter() < until:
            pass
        return [1]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description="What is left of the scheduler's loop.")
    parser.add_argument("--task-s", type=float, default=0.0002)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--tasks", type=int, default=20_000, help="of one job")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        file = str(Path(directory) / "scheduler.json")
        dask = [sys.executable, "-m", "dask"]
        commands = [
            [*dask, "scheduler", "--port", "0", "--no-dashboard", "--host", "127.0.0.1", "--scheduler-file", file],
            *[[*dask, "worker", "--scheduler-file", file, "--nthreads", "1", "--no-dashboard", "--local-directory", directory]]
            * 2,
        ]
        processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
        try:
            with Client(scheduler_file=file) as client, fk.Context(client, progress="off") as fc:
                client.wait_for_workers(2)
                tasks = fc.parallelize(range(chosen.tasks), chosen.tasks).map_partitions(_busy(chosen.task_s))
                tasks.count()
                pool = ThreadPoolExecutor(1)
                watch = pool.submit(client.run_on_scheduler, _watch, chosen.seconds)
                begun, done = time.perf_counter(), 0
                while time.perf_counter() - begun < chosen.seconds:
                    done += tasks.count()
                rate = done / (time.perf_counter() - begun)
                found = watch.result()
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)
    median, most, longest = found["late_ms"]
    usual, rare, slowest, slowest_cpu, collection = found["slices_ms"]
    print(
        f"{rate:,.0f} tasks/s: the scheduler's process is busy {found['cpu']:.0%} of the time, in the core {found['busy']:.0%}.\n"
        f"Slices of the core take {usual:.1f} ms (median), {rare:.1f} (of a thousand all but one), {slowest:.1f} at most "
        f"({slowest_cpu:.1f} of processor time: other processes want the two cores), {collection:.1f} more where Python collected "
        "garbage, of the whole process.\n"
        f"Dask's loop is late by {median:.1f} ms (median), {most:.1f} (99th percentile), {longest:.1f} at most; workers were heard "
        f"{found['silent_s']:.1f} s ago at most."
    )


if __name__ == "__main__":
    main()
