"""A disk without room costs shuffles nobody works with, oldest first, before it costs a job."""

from __future__ import annotations

import pytest

from flowkit.config import Config
from flowkit.model import events as ev
from flowkit.model.job_spec import Determinism
from flowkit.model.task import ExceptionFailure
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, map_stage, result_stage

FULL = ExceptionFailure("flowkit.errors.DiskQuotaExceeded", "max_disk_bytes = 5", "", None)


@pytest.fixture
def cluster() -> SimulatedCluster:
    cluster = SimulatedCluster(Config(validate=True, max_task_failures=1))
    cluster.add_executor()
    return cluster


def ran(cluster: SimulatedCluster, app, number: int, source, fails: int = 0):
    cluster.fail(app, source.stage, 0, *[FULL] * fails)
    done = cluster.submit(job(app, number, source, result_stage(100 + number, 2, [source])))
    cluster.run()
    return done


def given_up(cluster: SimulatedCluster) -> list[int]:
    return [event.shuffle for event in cluster.events if isinstance(event, ev.ShuffleOutputsLost)]


def test_the_least_recently_used_half_of_what_nobody_works_with_makes_room(cluster) -> None:
    app = cluster.open_application("app")
    sources = [map_stage(number, 3) for number in range(4)]
    for number, source in enumerate(sources):
        ran(cluster, app, number, source)
    ran(cluster, app, 4, sources[0])  # used again
    assert ran(cluster, app, 5, map_stage(5, 3), fails=1).succeeded
    assert given_up(cluster) == [1, 2]
    assert not [name for name in cluster.hosts["host"].files if name[1] in {1, 2}]


def test_what_was_given_up_is_made_again_for_whoever_reads_it(cluster) -> None:
    app = cluster.open_application("app")
    source = map_stage(0, 3)
    ran(cluster, app, 0, source)
    assert ran(cluster, app, 1, map_stage(1, 3), fails=1).succeeded
    again = ran(cluster, app, 2, source)
    assert again.numbers == expected(again.spec)
    assert cluster.computed[app, 0, 0] == 2


def test_with_nothing_to_give_up_the_job_fails_with_the_reason(cluster) -> None:
    app = cluster.open_application("app")
    failed = ran(cluster, app, 0, map_stage(0, 3), fails=1)
    assert failed.failed is not None
    assert "max_disk_bytes = 5" in failed.failed.reason


def test_rows_that_would_differ_are_kept(cluster) -> None:
    app = cluster.open_application("app")
    ran(cluster, app, 0, map_stage(0, 3, determinism=Determinism.INDETERMINATE))
    assert ran(cluster, app, 1, map_stage(1, 3), fails=1).failed is not None
    assert given_up(cluster) == []
