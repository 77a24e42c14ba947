"""Real clusters that grow and shrink: by flowkit's own allocation, and under Dask's adaptive scaling."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest
from distributed import LocalCluster

import flowkit as fk
from flowkit.errors import ConfigError
from flowkit.model.events import AllocationChanged, ExecutorsReleased, TaskEnd

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


def slowly(x: int) -> int:
    time.sleep(0.3)
    return x


def wait_until(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, "it did not come to be"
        time.sleep(0.05)


class Heard:
    def __init__(self) -> None:
        self.events = []

    def on_event(self, event) -> None:
        self.events.append(event)


def test_an_embedded_cluster_grows_with_a_job_shrinks_after_it_and_keeps_what_was_computed() -> None:
    with fk.Context(
        allocation=fk.Backlog(backlog_s=0.3, idle_s=1.5), max_executors=3, local_directory="", progress="off", name="elastic"
    ) as fc:
        heard = Heard()
        fc.add_listener(heard)
        sums = fc.parallelize(range(36), 36).map(slowly).map(lambda x: (x % 3, x)).reduce_by_key(lambda a, b: a + b, 3)
        expected = {n: sum(range(n, 36, 3)) for n in range(3)}
        assert sums.collect_as_map() == expected
        fc.wait_for_listeners()
        assert max(event.target for event in heard.events if isinstance(event, AllocationChanged)) == 3
        assert len({event.executor for event in heard.events if isinstance(event, TaskEnd)}) > 1
        wait_until(lambda: len(fc.client.scheduler_info(n_workers=-1)["workers"]) == 1)
        assert sums.collect_as_map() == expected
        fc.wait_for_listeners()
        computed = [event for event in heard.events if isinstance(event, TaskEnd) and event.stage == 0]
        assert len(computed) == 36  # those that left took nothing along
        assert any(isinstance(event, ExecutorsReleased) for event in heard.events)


def test_dasks_adaptive_scaling_sees_our_tasks_and_leaves_what_caches() -> None:
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        cluster.adapt(minimum=1, maximum=2, interval="100ms", wait_count=2)
        with fk.Context(cluster, progress="off") as fc:
            cached = fc.parallelize(range(16), 16).map(slowly).cache()
            assert cached.sum() == sum(range(16))
            assert len(cluster.scheduler_info["workers"]) == 2
            time.sleep(1.0)  # several rounds of adapting, in which nobody may go
            assert len(cluster.scheduler_info["workers"]) == 2
            cached.unpersist(blocking=True)
            wait_until(lambda: len(cluster.scheduler_info["workers"]) == 1)


def test_a_cluster_that_is_only_an_address_is_not_scaled_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        caplog.at_level(logging.WARNING, "flowkit.cluster"),
        fk.Context(cluster.scheduler_address, allocation="backlog", progress="off") as fc,
    ):
        assert fc.range(10).sum() == 45
    assert "only its address" in caplog.text


def test_an_allocation_nobody_offers_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="backlog \\(built in\\)"):
        fk.Context(workers=1, allocation="lottery", progress="off")
