"""Lines that drop, double and delay, connections that break, sessions that are forgotten, versions that do not fit."""

import json
import logging
import os
import subprocess
import sys
import time

import pytest

from flowkit.cluster import links
from flowkit.cluster.client_link import ClientLink
from flowkit.cluster.embedded import EmbeddedCluster
from flowkit.cluster.wire import PLUGIN_NAME
from flowkit.errors import ApplicationLost, ClusterError, VersionMismatch
from flowkit.model import events as ev
from tests.cluster.conftest import Heard, map_job, shuffle_job

pytestmark = pytest.mark.cluster


def disturb(seed, drop, double, delay_s):
    """Make this process's lines bad from now on."""
    import random

    from flowkit.cluster import links

    rng = random.Random(seed)

    def treat(packet):
        if rng.random() < drop:
            return []
        copies = 2 if rng.random() < double else 1
        return [(rng.random() * delay_s, packet) for _ in range(copies)]

    links.disturbance = treat if drop or double or delay_s else None


@pytest.fixture
def bad_lines(link):
    """Every line of driver, scheduler and executors drops, doubles, delays and so reorders."""
    disturb(1, 0.2, 0.2, 0.02)
    link.client.run(disturb, 2, 0.2, 0.2, 0.02)
    yield
    links.disturbance = None
    link.client.run(disturb, 0, 0, 0, 0)


def test_jobs_are_right_though_messages_are_dropped_doubled_delayed_and_reordered(link, bad_lines):
    for _ in range(5):
        assert map_job(link, 30, lambda i: i * 2).wait() == [[i * 2] for i in range(30)]
    assert sum(shuffle_job(link, 5, 3).wait()) == sum(range(5))
    assert link._link.channel.statistics().resent > 0


def test_no_event_is_lost_or_doubled_on_a_bad_line(link, bad_lines):
    heard = Heard(link)
    map_job(link, 40, lambda i: i).wait()
    attempts = [end.attempt for end in heard.of(ev.TaskEnd)]
    assert len(attempts) == len(set(attempts)) == 40


def test_a_driver_whose_connection_breaks_comes_back_to_its_jobs(link):
    heard = Heard(link)
    job = map_job(link, 6, lambda i: (__import__("time").sleep(0.1), i)[1])
    heard.wait_for(ev.TaskStart)
    link._loop.call_soon_threadsafe(lambda: link._link._comm.abort())
    assert job.wait() == [[i] for i in range(6)]
    assert len({end.attempt for end in heard.of(ev.TaskEnd)}) == 6


def test_an_executor_whose_connection_breaks_comes_back_with_its_tasks(link):
    heard = Heard(link)

    def break_connection(dask_worker):
        from flowkit.cluster import worker_plugin

        runtime = worker_plugin._runtimes[dask_worker]
        runtime._loop.call_soon(lambda: runtime._current.link._comm.abort())

    job = map_job(link, 6, lambda i: (__import__("time").sleep(0.1), i)[1])
    heard.wait_for(ev.TaskStart)
    link.client.run(break_connection)
    assert job.wait() == [[i] for i in range(6)]
    assert not heard.of(ev.ExecutorRemoved)
    assert len(heard.of(ev.TaskEnd)) == 6


def test_a_driver_the_scheduler_forgot_learns_it_and_its_jobs_end(cluster, config):
    link = ClientLink.connect(cluster.cluster, config=config)
    heard = Heard(link)
    job = map_job(link, 2, lambda i: [__import__("time").sleep(0.01) for _ in range(300)])
    heard.wait_for(ev.TaskStart)
    plugin = cluster.cluster.scheduler.plugins[PLUGIN_NAME]

    def forget():
        plugin._drivers.pop(link.app).link.close()

    link._loop.call_soon_threadsafe(forget)
    with pytest.raises(ApplicationLost, match="does not know this session"):
        job.wait()
    with pytest.raises(ApplicationLost):
        map_job(link, 1, lambda i: i)
    link.close()
    # What it left behind goes with its lease; here it is told at once.
    from flowkit.scheduling.stimuli import ApplicationClosed

    cluster.cluster.loop.add_callback(plugin._core_loop.submit, ApplicationClosed(link.app, "the test is over"))


def test_a_scheduler_that_goes_away_is_an_application_lost_not_a_hang(config):
    cluster = EmbeddedCluster(1, config=config).start()
    link = ClientLink.connect(cluster.cluster, config=config.with_settings(lease_s=2.0))
    job = map_job(link, 1, lambda i: __import__("time").sleep(30))
    cluster.close()
    with pytest.raises(ApplicationLost):
        job.wait(20)
    link.close()


def test_another_version_is_refused_and_both_sides_are_named(cluster, config, link, monkeypatch):
    from flowkit.cluster import client_link, wire

    other = wire.Versions("99.0", wire.own_versions().python, wire.own_versions().cloudpickle)
    monkeypatch.setattr(client_link, "own_versions", lambda: other)
    with pytest.raises(VersionMismatch, match=r"the driver has flowkit 99\.0, the scheduler has flowkit"):
        ClientLink.connect(cluster.cluster, config=config)


def test_another_python_on_an_executor_is_refused_and_named(cluster, config, link, monkeypatch):
    from flowkit.cluster import client_link, wire

    mine = wire.own_versions()
    monkeypatch.setattr(client_link, "own_versions", lambda: wire.Versions(mine.flowkit, "3.99", mine.cloudpickle))
    with pytest.raises(VersionMismatch, match=r"Python 3\.99, the executor at tcp://.* has Python"):
        ClientLink.connect(cluster.cluster, config=config)


def test_a_driver_that_came_before_any_executor_and_fits_none_learns_why(config, monkeypatch):
    from distributed import LocalCluster

    from flowkit.cluster import client_link, wire

    mine = wire.own_versions()
    with LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        with monkeypatch.context() as patched:
            patched.setattr(client_link, "own_versions", lambda: wire.Versions(mine.flowkit, "3.99", mine.cloudpickle))
            link = ClientLink.connect(cluster, config=config)
        cluster.scale(1)
        with pytest.raises(ApplicationLost, match=r"the driver has Python 3\.99"):
            link.slots
        link.close()


_WITHOUT_FLOWKIT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "flowkit" or name.startswith("flowkit."):
            raise ModuleNotFoundError("No module named 'flowkit'", name="flowkit")

sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture
def foreign_processes(tmp_path):
    """Start Dask processes that may lack flowkit; all are ended."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "sitecustomize.py").write_text(_WITHOUT_FLOWKIT)
    started = []

    def start(*arguments, flowkit):
        path = os.getcwd() if flowkit else str(tmp_path / "bare")
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]],
                env={**os.environ, "PYTHONPATH": path},
                cwd=tmp_path,
                stderr=subprocess.DEVNULL,
            )
        )

    yield start
    # Nothing to be kind to: a worker whose scheduler went first would wait for it.
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def foreign_scheduler(foreign_processes, tmp_path):
    """Start a scheduler in a process of its own; returns its address."""

    def start(*, flowkit):
        file = tmp_path / "scheduler.json"
        foreign_processes("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file), flowkit=flowkit)
        deadline = time.monotonic() + 20
        while not (file.exists() and file.read_text().endswith("}")):
            assert time.monotonic() < deadline, "the scheduler did not start"
            time.sleep(0.02)
        return json.loads(file.read_text())["address"]

    return start


def test_a_scheduler_without_flowkit_is_a_clear_error(foreign_scheduler, config):
    address = foreign_scheduler(flowkit=False)
    with pytest.raises(ClusterError, match=r"no module 'flowkit'.*pip install flowkit"):
        ClientLink.connect(address, config=config)


def test_workers_without_flowkit_are_a_clear_error(foreign_scheduler, foreign_processes, config):
    address = foreign_scheduler(flowkit=True)
    foreign_processes("worker", address, "--no-nanny", "--no-dashboard", flowkit=False)
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(1)
        with pytest.raises(ClusterError, match=r"could not start on tcp://.*flowkit.*pip install"):
            ClientLink.connect(client, config=config)


def test_a_driver_that_asks_for_other_settings_than_the_first_is_told_which(cluster, link, config, caplog):
    asking = config.with_settings(scheduling_policy="fair", pools={"adhoc": 2}, max_result_bytes=1 << 20)
    with caplog.at_level(logging.WARNING, "flowkit.cluster"), ClientLink.connect(cluster.cluster, config=asking):
        pass
    (told,) = [record.getMessage() for record in caplog.records if "not heeded" in record.getMessage()]
    assert told.endswith("not heeded: scheduling_policy = 'fair' (it has 'fifo'), pools = {'adhoc': 2} (it has {})")
