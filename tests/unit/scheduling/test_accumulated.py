"""What tasks add to accumulators reaches the driver once a partition of a stage, whatever is doubled, lost or made again."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest

from flowkit.model.events import TaskEnd
from flowkit.model.ids import AppId
from flowkit.simulation.cluster import Network, SimulatedCluster
from flowkit.simulation.jobs import job, map_stage, result_stage

MAPS, RESULTS = 6, 3
ONCE = {**{(0, p): 1 for p in range(MAPS)}, **{(1, p): 1 for p in range(RESULTS)}}


def started(**options: object) -> tuple[SimulatedCluster, AppId]:
    cluster = SimulatedCluster(**options)  # type: ignore[arg-type]
    cluster.accumulates = True
    for host in ("north", "south"):
        cluster.add_executor(host)
    return cluster, cluster.open_application("app")


def added(cluster: SimulatedCluster, app: AppId) -> Counter[tuple[int, int]]:
    return Counter(each for data in cluster.accumulated.get(app, []) for each in pickle.loads(data))


def test_every_partition_counts_once() -> None:
    cluster, app = started()
    pairs = map_stage(0, MAPS)
    cluster.submit(job(app, 0, pairs, result_stage(1, RESULTS, [pairs])))
    cluster.run()
    assert added(cluster, app) == ONCE


def test_what_was_lost_and_made_again_within_its_job_counts_once() -> None:
    cluster, app = started(task_s=lambda launch: 5.0 if launch.stage == 1 else 0.01)
    pairs = map_stage(0, MAPS)
    cluster.submit(job(app, 0, pairs, result_stage(1, RESULTS, [pairs])))
    cluster.advance(1.0)
    cluster.delete_output(app, 0, 4)
    cluster.run()
    assert cluster.computed[app, 0, 4] == 2
    assert added(cluster, app) == ONCE


def test_a_later_job_that_makes_a_partition_again_counts_it_again() -> None:
    cluster, app = started()
    pairs = map_stage(0, MAPS)
    cluster.submit(job(app, 0, pairs, result_stage(1, RESULTS, [pairs])))
    cluster.run()
    cluster.delete_output(app, 0, 2)
    cluster.submit(job(app, 1, pairs, result_stage(2, RESULTS, [pairs])))
    cluster.run()
    again = {(0, 2): 1, **{(2, p): 1 for p in range(RESULTS)}}
    assert added(cluster, app) == Counter(ONCE) + Counter(again)


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_doubled_by_a_bad_network_or_a_lost_executor(seed: int) -> None:
    cluster, app = started(seed=seed, network=Network(delay_s=(0.001, 0.05), duplicate=0.3, reorder=True))
    pairs = map_stage(0, MAPS)
    cluster.submit(job(app, 0, pairs, result_stage(1, RESULTS, [pairs])))
    cluster.advance(0.05)
    cluster.kill_executor(next(iter(cluster.executors)))
    cluster.add_executor("south")
    cluster.run()
    assert added(cluster, app) == ONCE
    assert any(isinstance(event, TaskEnd) for event in cluster.events)
