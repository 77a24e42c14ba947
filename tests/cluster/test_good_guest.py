"""flowkit as a guest: beside Dask's own tasks, and on a cluster that speaks TLS only."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from operator import add
from pathlib import Path

import pytest
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster, wait
from distributed.security import Security

import flowkit as fk

pytestmark = pytest.mark.cluster

TASKS = 12


@pytest.fixture
def two_threads() -> Iterator[LocalCluster]:
    """One worker process of two threads."""
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0", silence_logs=50) as cluster:
        yield cluster


class Spans:
    """When each task began and ended, as the tasks themselves saw it."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []

    def most_at_once(self) -> int:
        marks = sorted([(start, 1) for start, _ in self.spans] + [(end, -1) for _, end in self.spans])
        running = most = 0
        for _, change in marks:
            running += change
            most = max(most, running)
        return most


def spans_of_a_job(fc: fk.Context) -> Spans:
    """Tasks that rendezvous for a moment: with two slots two of them overlap, if only for the length of a task."""

    def span(_rows):
        start = time.monotonic()
        gate = threading.Event()
        gate.wait(0.05)  # what the task does: holds its slot
        return [(start, time.monotonic())]

    spans = Spans()
    spans.spans = fc.range(TASKS, num_partitions=TASKS).map_partitions(span).collect()
    return spans


def wait_for_slots(fc: fk.Context, slots: int) -> None:
    """Run jobs until one of them had so many slots, no more and no fewer."""
    deadline = time.monotonic() + 20
    while (seen := spans_of_a_job(fc).most_at_once()) != slots:
        assert time.monotonic() < deadline, f"{seen} tasks at once, not {slots}"


def hold_a_thread(path: str) -> None:
    """A Dask task that runs until its file is gone."""
    from pathlib import Path

    gate = threading.Event()
    while Path(path).exists():
        gate.wait(0.02)


def test_slots_yield_to_dasks_own_tasks_and_come_back(two_threads: LocalCluster, tmp_path: Path):
    hold = tmp_path / "hold"
    hold.touch()
    with Client(two_threads) as client, fk.Context(client, progress="off") as fc:
        wait_for_slots(fc, 2)
        beside = client.submit(hold_a_thread, str(hold), pure=False)
        wait_for_slots(fc, 1)
        hold.unlink()
        wait(beside, timeout=20)
        wait_for_slots(fc, 2)


def test_dask_and_flowkit_share_one_client(two_threads: LocalCluster):
    with Client(two_threads) as client, fk.Context(client, progress="off") as fc:
        theirs = client.map(lambda x: x + 1, range(200))
        ours = fc.range(200, num_partitions=10).map(lambda x: (x % 7, x)).reduce_by_key(add).collect_as_map()
        assert sum(client.gather(theirs)) == sum(range(1, 201))
        assert sum(ours.values()) == sum(range(200))


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[tuple[SpecCluster, Security]]:
    """Two workers that share no directory, and a certificate made for this test."""
    security = Security.temporary()
    workers = {
        name: {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                "protocol": "tls://",
                "security": security,
                "env": {"FLOWKIT_LOCAL_DIRECTORY": str(tmp_path / name)},
            },
        }
        for name in ("north", "south")
    }
    options = {"dashboard": False, "dashboard_address": "127.0.0.1:0", "port": 0, "protocol": "tls://", "security": security}
    scheduler = {"cls": Scheduler, "options": options}
    with SpecCluster(workers=workers, scheduler=scheduler, security=security, silence_logs=50) as cluster:
        yield cluster, security


def test_everything_works_where_only_tls_is_spoken(encrypted: tuple[SpecCluster, Security]):
    cluster, security = encrypted
    address = cluster.scheduler_address
    assert address.startswith("tls://")
    with Client(address, security=security) as client, fk.Context(client, progress="off") as fc:
        # Blocks cross from host to host, and the result is too large for a message.
        pairs = fc.range(20_000, num_partitions=4).map(lambda i: (i % 100, "x" * 20)).group_by_key(4)
        rows = pairs.collect()
        assert {key: len(values) for key, values in rows} == dict.fromkeys(range(100), 200)
