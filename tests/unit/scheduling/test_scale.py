"""What a task costs the core stays small and flat: counted in looks at the clock nobody has, so by memory and by shape."""

from __future__ import annotations

import pytest

from flowkit.config import Config
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, map_stage, result_stage


@pytest.mark.slow
def test_ten_thousand_executors_run_thirty_thousand_tasks() -> None:
    cluster = SimulatedCluster(
        Config(heartbeat_s=1_000.0, executor_timeout_s=5_000.0, lease_s=5_000.0), task_s=1.0, report_batch_s=0.01
    )
    for number in range(10_000):
        cluster.add_executor(f"host-{number % 1_000}", slots=2)
    app = cluster.open_application("app")
    pairs = map_stage(0, 10)
    cluster.advance(0.1)
    done = cluster.submit(job(app, 0, pairs, result_stage(1, 30_000, [pairs])))
    cluster.run()
    assert done.numbers == expected(done.spec)
    # 20,000 slots, two waves of a second after the maps' second: nobody idles while there is work.
    assert cluster.now - 5 * cluster.config.heartbeat_s < 6.0
