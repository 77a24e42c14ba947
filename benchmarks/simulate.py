"""The scheduler core on 10,000 simulated executors on 1,000 hosts: its time and memory a task, and how near jobs come to the ideal.

    python benchmarks/simulate.py [--tasks 1e3 1e4 1e5 1e6] [--policies fifo fair capacity priority] [--write]

Four jobs share the cluster; each has a small shuffle and tasks of a second (log-normal) whose input lies on two hosts each. One task in
200 takes ten times as long where it runs first, one in 1,000 fails once, one executor in 1,000 is lost and replaced; speculation and
locality are on. *Ideal* is who knows beforehand how long each task takes, and begins with the longest; *in order* begins tasks in the
policy's order whenever a slot that it may use is free, with nothing that goes wrong: what is beyond that is the core's. Only the core's own time is counted, garbage collection (which would look through the simulated executors) is off.
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

from flowkit.simulation.scale import POLICIES, Measured, Workload, bytes_per_task, measure

TABLE = Path(__file__).with_name("SIMULATION.md")
_HEAD = """\
| tasks | policy | core time a task | longest slice | memory a task | makespan | in order | ideal | launched / tasks | near their data |
|---|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description="What the scheduler core costs on a simulated cluster.")
    parser.add_argument("--tasks", nargs="+", type=float, default=[1e3, 1e4, 1e5, 1e6])
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES), default=list(POLICIES))
    parser.add_argument("--executors", type=int, default=10_000)
    parser.add_argument("--hosts", type=int, default=1_000)
    parser.add_argument("--write", action="store_true", help=f"into {TABLE.name}")
    chosen = parser.parse_args()
    lines = [_HEAD]
    print(_HEAD, flush=True)
    for tasks in map(int, chosen.tasks):
        memory = bytes_per_task(Workload(tasks, chosen.executors, chosen.hosts))
        for policy in chosen.policies:
            lines.append(_line(measure(Workload(tasks, chosen.executors, chosen.hosts, policy=policy)), memory))
            print(lines[-1], flush=True)
    if chosen.write:
        heading = (
            "# The scheduler core, simulated\n\n"
            f"Written by `make simulate`: {chosen.executors:,} executors of two slots on {chosen.hosts:,} hosts, "
            f"Python {platform.python_version()}, {os.cpu_count()} cores. What is simulated: `benchmarks/simulate.py`.\n\n"
        )
        TABLE.write_text(heading + "\n".join(lines) + "\n", encoding="utf-8")


def _line(measured: Measured, memory: float) -> str:
    tasks = measured.workload.tasks
    return (
        f"| {tasks:,} | {measured.workload.policy} | {measured.core_us:.0f} us | {measured.longest_ms:.1f} ms | {memory:.0f} B | "
        f"{measured.makespan_s:.1f} s | {measured.in_order_s:.1f} s | {measured.ideal_s:.1f} s | {measured.launched / tasks:.3f} | {measured.near:.1%} |"
    )


if __name__ == "__main__":
    main()
