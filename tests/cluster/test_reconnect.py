"""A scheduler that dies and is started again: the driver learns what was lost, and goes on with what it has."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from operator import add

import psutil
import pytest
from distributed import Client

import flowkit as fk
from flowkit.cluster.wire import PLUGIN_NAME
from flowkit.config import Config
from flowkit.errors import ApplicationLost, ClusterError, InvalidArgument
from flowkit.storage.host_directory import HostDirectory

pytestmark = pytest.mark.timeout(180)


class Deployment:
    """A scheduler at one address, with two workers that go when it goes, and that come with the next one."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        quiet = {
            "start_new_session": True,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
            "env": {**os.environ, "PYTHONHASHSEED": "0"},
        }
        dask = [sys.executable, "-m", "dask"]
        here = ["--host", "127.0.0.1"]
        pages = ["--dashboard-address", "127.0.0.1:0"]  # any port: it has some even where it shows no dashboard
        self.processes = [
            subprocess.Popen([*dask, "scheduler", *here, "--port", str(self.port), *pages], **quiet),  # type: ignore[call-overload]
            *(
                subprocess.Popen(
                    [*dask, "worker", self.address, *here, "--nthreads", "1", "--no-dashboard", "--death-timeout", "60"], **quiet
                )  # type: ignore[call-overload]
                for _ in range(2)
            ),
        ]

    def stop(self) -> None:
        """As a machine does that loses power."""
        theirs = []
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                theirs += psutil.Process(process.pid).children(recursive=True)
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()
        psutil.wait_procs(theirs, timeout=20)
        self.processes = []


@pytest.fixture
def deployment():
    deployment = Deployment()
    deployment.start()
    yield deployment
    deployment.stop()
    with contextlib.closing(HostDirectory.open(Config.from_environment(os.environ).local_directory or None)) as left:
        left.sweep(lease_s=0.0)  # finds what the dead held
        left.sweep(lease_s=0.0)


def _connected(deployment, **settings):
    import time

    deadline = time.monotonic() + 60
    while True:
        try:
            fc = fk.Context(deployment.address, progress="off", **settings)
        except ClusterError:
            if time.monotonic() > deadline:
                raise
        else:
            fc.client.wait_for_workers(2, timeout=60)
            return fc


def test_a_driver_goes_on_after_its_scheduler_was_started_again(deployment, tmp_path):
    with _connected(deployment, lease_s=30.0) as fc:
        names = fc.broadcast({number: "x" * 2_000 for number in range(50)})
        pairs = fc.range(1_000, num_partitions=4).map(lambda x: (x % 50, len(names.value[x % 50])))
        sums = pairs.reduce_by_key(add, 3).cache()
        assert sums.count() == 50
        made = fc.accumulator(0)

        def counted(x):
            made.add(1)
            return x

        kept = fc.range(100, num_partitions=4).map(counted).checkpoint(tmp_path / "kept")
        assert kept.sum() == 4950
        before = made.value
        lines = fc.parallelize(["a", "b"], 2)
        lines.save_as_text(str(tmp_path / "lines"))
        raised = []

        def wait_for_ever():
            try:
                fc.range(2, num_partitions=2).map(lambda _: __import__("time").sleep(300)).count()
            except Exception as error:  # noqa: BLE001 - looked at below
                raised.append(error)

        waiting = threading.Thread(target=wait_for_ever)
        waiting.start()
        while not any(stage.running_count for stage in fc.status.stages(running=True)):
            fc.wait_for_listeners()
        assert fc.reconnect() == ()
        deployment.stop()
        deployment.start()
        waiting.join(60)
        assert isinstance(raised[0], ApplicationLost)
        assert "started again" in str(raised[0])
        lost = fc.reconnect(timeout_s=60)
        assert [job.name.partition(" ")[0] for job in lost] == ["count"]
        assert lost[0].outcome == "failed"
        assert "lost" in lost[0].reason
        fc.client.wait_for_workers(2, timeout=60)
        assert sums.values().sum() == 1_000 * 2_000, "cache and shuffle are made again, the broadcast is sent again"
        assert kept.map(lambda x: x + 1).sum() == 5050
        assert made.value == before, "the checkpoint was read"
        assert sorted(fc.text_file(str(tmp_path / "lines")).collect()) == ["a", "b"]
        assert sum(1 for each in fc.status.executors() if not each.removed_at) == 2
        assert sums.join(pairs.map_values(str).distinct(), num_partitions=30).count() == 50


def test_a_scheduler_killed_in_the_middle_of_a_shuffle_costs_that_job_and_no_answer(deployment, tmp_path):
    """Killed while maps run, between, and while reducers run; each time the driver reconnects and gets the answer it always gets."""
    expected = {f"key {k}": 20 for k in range(50)}
    with _connected(deployment, lease_s=30.0) as fc:
        for point in ("map", "reduce"):
            begun, go_on = tmp_path / f"{point} begun", tmp_path / f"{point} go on"

            def held(rows, at, point=point, begun=begun, go_on=go_on):
                if at == point:
                    begun.touch()
                    gate = threading.Event()
                    while not go_on.exists():
                        gate.wait(0.02)
                return rows

            counts = (
                fc.range(1_000, num_partitions=4)
                .map_partitions(lambda rows, held=held: held(rows, "map"))
                .map(lambda i: (f"key {i % 50}", 1))
                .reduce_by_key(add, 3)
                .map_partitions(lambda rows, held=held: held(rows, "reduce"))
            )
            future = counts.collect_async()
            gate = threading.Event()
            while not begun.exists():
                assert not future.done()
                gate.wait(0.02)
            deployment.stop()
            deployment.start()
            with pytest.raises(ApplicationLost, match="started again"):
                future.result(60)
            lost = fc.reconnect(timeout_s=60)
            assert [job.outcome for job in lost] == ["failed"]
            go_on.touch()
            assert counts.collect_as_map() == expected
            assert counts.map(lambda kv: (kv[1], kv[0])).group_by_key(2).map_values(len).collect() == [(20, 50)]


def test_one_that_does_not_come_back_is_told_in_time(deployment):
    with _connected(deployment, lease_s=2.0) as fc:
        deployment.stop()
        with pytest.raises(ApplicationLost):
            fc.range(4).count()
        with pytest.raises(ClusterError, match="within 1 s"):
            fc.reconnect(timeout_s=1.0)
        deployment.start()
        assert fc.reconnect() == ()
        fc.client.wait_for_workers(1, timeout=60)
        assert fc.range(4).count() == 4


def test_another_cluster_does_as_well_and_the_first_is_told():
    with (
        fk.Context(workers=1, progress="off") as first,
        fk.Context(workers=1, progress="off") as other,
        fk.Context(first.client, progress="off") as fc,
    ):
        evens = fc.range(10, num_partitions=2).filter(lambda x: x % 2 == 0).cache()
        assert evens.count() == 5
        future = fc.range(1).map(lambda _: __import__("time").sleep(300)).count_async()
        while not any(stage.running_count for stage in fc.status.stages(running=True)):
            fc.wait_for_listeners()
        (lost,) = fc.reconnect(other.client)
        assert lost.name.startswith("count")
        with pytest.raises(ApplicationLost):
            future.result(20)
        drivers = first._embedded.cluster.scheduler.plugins[PLUGIN_NAME]._drivers
        assert fc.app not in drivers
        assert first.app in drivers
        assert evens.collect() == [0, 2, 4, 6, 8]
        assert other.range(3).sum() == 3
        assert first.range(3).sum() == 3, "its worker is free again"


def test_a_client_that_was_closed_is_no_way_back():
    with fk.Context(workers=1, progress="off") as first, Client(first.client.scheduler.address, set_as_default=False) as client:
        fc = fk.Context(client, progress="off")
        client.close()
        with pytest.raises(InvalidArgument, match="was closed"):
            fc.reconnect(client)
        fc.close()
