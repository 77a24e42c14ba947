"""What each scheduling policy does to a batch and to the small jobs beside it: the real core on a simulated cluster, in seconds.

    python benchmarks/policies.py

Eight slots. A batch of 2,000 tasks of a second each; every 20 seconds a small job of 8 tasks, and every 50 one of 40.
"""

from __future__ import annotations

import statistics

import msgspec

from flowkit.config import Config
from flowkit.model.events import JobEnd, TaskStart
from flowkit.scheduling.policies.capacity import Capacity
from flowkit.scheduling.policies.fair import Fair
from flowkit.scheduling.policies.fifo import Fifo
from flowkit.scheduling.policies.pools import POOL, PRIORITY
from flowkit.scheduling.policies.priority import Priority
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import job, result_stage

POLICIES = {
    "fifo": Fifo(),
    "fair": Fair({"adhoc": 1, "batch": 1}),
    "fair, adhoc 3 : batch 1": Fair({"adhoc": 3, "batch": 1}),
    "capacity, adhoc 25 %": Capacity({"adhoc": 0.25, "batch": 0.75}),
    "priority, adhoc first": Priority(),
}


def run(policy) -> tuple[float, float, float, float]:
    cluster = SimulatedCluster(Config(), policy=policy, task_s=1.0)
    for _ in range(4):
        cluster.add_executor(slots=2)
    app = cluster.open_application("app")
    asked: dict[int, tuple[float, int]] = {}

    def submit(number: int, tasks: int, pool: str, priority: str) -> None:
        spec = job(app, number, result_stage(number, tasks))
        cluster.submit(msgspec.structs.replace(spec, properties={POOL: pool, PRIORITY: priority}))
        asked[number] = cluster.now, tasks

    submit(0, 2_000, "batch", "0")
    for number in range(1, 11):
        cluster.later(20.0 * number, lambda number=number: submit(number, 8, "adhoc", "1"))
    for number in range(11, 14):
        cluster.later(50.0 * (number - 10), lambda number=number: submit(number, 40, "adhoc", "1"))
    cluster.advance(210.0)
    cluster.run()
    starts: dict[int, float] = {}
    ends: dict[int, float] = {}
    for event in cluster.events:
        if isinstance(event, TaskStart):
            starts.setdefault(event.stage, event.time)
        elif isinstance(event, JobEnd):
            ends[event.job] = event.time
    small = [number for number, (_, tasks) in asked.items() if tasks == 8]
    large = [number for number, (_, tasks) in asked.items() if tasks == 40]
    wait = statistics.mean(starts[number] - asked[number][0] for number in small)
    took = [statistics.mean(ends[number] - asked[number][0] for number in some) for some in (small, large)]
    return wait, took[0], took[1], ends[0]


def main() -> None:
    print(f"{'policy':<26} {'waits':>8} {'8 tasks':>9} {'40 tasks':>9} {'batch':>8}")
    for name, policy in POLICIES.items():
        wait, small, large, batch = run(policy)
        print(f"{name:<26} {wait:8.1f} {small:9.1f} {large:9.1f} {batch:8.1f}")


if __name__ == "__main__":
    main()
