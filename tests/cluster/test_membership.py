"""Workers that join, leave, pause, die and come back while jobs run."""

import itertools
import os
import signal
import threading
import time
from pathlib import Path

import dask
import pytest
from distributed import Nanny, Scheduler, SpecCluster
from distributed.core import Status

from flowkit.cluster.client_link import ClientLink
from flowkit.cluster.embedded import EmbeddedCluster
from flowkit.errors import JobCancelled
from flowkit.model import events as ev
from flowkit.model.ids import executor_address
from tests.cluster.conftest import Heard, map_job

pytestmark = pytest.mark.cluster


@pytest.fixture
def own_cluster(config):
    """Two workers for one test, which may break them."""
    with EmbeddedCluster(2, config=config) as cluster:
        yield cluster


@pytest.fixture
def own_link(own_cluster, config):
    link = ClientLink.connect(own_cluster.cluster, config=config)
    yield link
    link.close()


def wait_until(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def gate(directory: Path):
    """A task's function that waits until ``open`` exists, leaving ``started-<pid>`` behind."""

    def wait(i):
        import os
        import time

        open(os.path.join(directory, f"started-{os.getpid()}"), "w").close()
        while not os.path.exists(os.path.join(directory, "open")):
            time.sleep(0.01)
        return os.getpid()

    return wait


def test_a_worker_that_joins_while_a_driver_is_connected_is_used(own_cluster, own_link):
    assert own_link.slots == 2
    own_cluster.cluster.scale(3)
    wait_until(lambda: own_link.slots == 3)
    pids = {result[0] for result in map_job(own_link, 60, lambda i: (__import__("time").sleep(0.01), os.getpid())[1]).wait()}
    assert len(pids) == 3


def test_a_worker_killed_in_mid_job_is_replaced_and_the_reason_names_the_signal(own_link, tmp_path):
    heard = Heard(own_link)
    marker = str(tmp_path / "killed")

    def kill_once(i):
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return i
        os.kill(os.getpid(), signal.SIGKILL)

    assert map_job(own_link, 8, kill_once).wait() == [[i] for i in range(8)]
    (removed,) = heard.wait_for(ev.ExecutorRemoved)
    assert "SIGKILL" in removed.reason
    assert "partition" in removed.reason
    wait_until(lambda: own_link.slots == 2)
    assert removed.executor not in own_link._executors


def processes_in(own_cluster, status):
    nannies = list(own_cluster.cluster.workers.values())
    return [
        each.process.pid for each in nannies if each.process is not None and each.process.status is status and each.process.pid
    ]


def test_a_worker_that_is_away_for_longer_than_dask_waits_comes_back(own_cluster, own_link):
    assert own_link.slots == 2
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "10ms"}):
        for pid in processes_in(own_cluster, Status.running):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not own_link._executors)
        wait_until(lambda: own_link.slots == 2)


def test_a_worker_that_dies_while_it_starts_is_made_again(own_cluster, own_link):
    assert own_link.slots == 2
    victim = processes_in(own_cluster, Status.running)[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: processes_in(own_cluster, Status.starting))
    os.kill(processes_in(own_cluster, Status.starting)[0], signal.SIGKILL)
    wait_until(lambda: len(processes_in(own_cluster, Status.running)) == 2 and own_link.slots == 2)
    assert map_job(own_link, 4, lambda i: i).wait() == [[i] for i in range(4)]


def test_a_process_that_ends_itself_is_said_so(own_link, tmp_path):
    heard = Heard(own_link)
    marker = str(tmp_path / "ended")

    def end_once(i):
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return i
        os._exit(7)

    assert map_job(own_link, 4, end_once).wait() == [[i] for i in range(4)]
    assert "exit code 7" in heard.wait_for(ev.ExecutorRemoved)[0].reason


def test_a_task_that_cannot_be_killed_goes_with_its_process_and_nobody_is_blamed(own_link):
    heard = Heard(own_link)
    stuck = map_job(own_link, 1, lambda i: __import__("time").sleep(100))
    heard.wait_for(ev.TaskStart)
    stuck.handle.cancel("enough")
    with pytest.raises(JobCancelled):
        stuck.wait()
    (removed,) = heard.wait_for(ev.ExecutorRemoved)
    assert "replaces its process" in removed.reason
    wait_until(lambda: own_link.slots == 2)
    assert map_job(own_link, 4, lambda i: i).wait() == [[i] for i in range(4)]


def test_a_worker_killed_for_memory_is_said_so(config, tmp_path):
    with EmbeddedCluster(2, memory_limit="400MiB", config=config) as cluster:
        marker = str(tmp_path / "hungry")

        def eat_once(i):
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return i
            # Never leaves C, so that nobody in the process can stop it.
            return len(list(map(b"x".__mul__, itertools.repeat(100_000))))

        with ClientLink.connect(cluster.cluster, config=config) as link:
            heard = Heard(link)
            assert map_job(link, 1, eat_once).wait() == [[0]]
            (removed,) = heard.wait_for(ev.ExecutorRemoved)
            assert "killed for memory" in removed.reason
            assert "of 400 MiB" in removed.reason


def test_a_retired_worker_finishes_what_it_runs(own_cluster, own_link, tmp_path):
    heard = Heard(own_link)
    job = map_job(own_link, 2, gate(tmp_path))
    heard.wait_for(ev.TaskStart, 2)
    victim = executor_address(heard.of(ev.TaskStart)[0].executor)
    retiring = threading.Thread(target=own_link.client.retire_workers, args=([victim],))
    retiring.start()
    opening = threading.Timer(1.0, (tmp_path / "open").touch)
    opening.start()
    assert len(job.wait()) == 2
    retiring.join()
    opening.join()
    assert [end.failure for end in heard.of(ev.TaskEnd)] == [None, None]
    assert "retired" in heard.wait_for(ev.ExecutorRemoved)[0].reason
    assert map_job(own_link, 4, lambda i: i).wait() == [[i] for i in range(4)]


def test_nothing_is_launched_on_a_paused_worker(own_cluster, own_link):
    def set_status(dask_worker, name):
        from distributed.core import Status

        dask_worker.memory_manager.memory_pause_fraction = False  # which would resume it at once
        dask_worker.status = Status.lookup[name]

    def pids():
        return {result[0] for result in map_job(own_link, 20, lambda i: os.getpid()).wait()}

    scheduler = own_cluster.cluster.scheduler
    address, other = sorted(own_link.client.scheduler_info()["workers"])
    pid = own_link.client.run(os.getpid, workers=[address])[address]
    for name, expected in (("paused", False), ("running", True)):
        own_link.client.run(set_status, name=name, workers=[address])
        wait_until(lambda: scheduler.workers[address].status.name == name)
        assert all((pid in pids()) is expected for _ in range(3))


def test_downscaling_spares_workers_that_run_tasks(own_cluster, own_link, tmp_path):
    heard = Heard(own_link)
    job = map_job(own_link, 1, gate(tmp_path))
    (started,) = heard.wait_for(ev.TaskStart)
    busy = executor_address(started.executor)
    scheduler = own_cluster.cluster.scheduler
    assert busy not in scheduler.workers_to_close(n=2)
    (tmp_path / "open").touch()
    job.wait()
    assert busy in scheduler.workers_to_close(n=2)


def test_a_plugin_registered_again_does_not_tear_the_live_one_down(own_cluster, own_link):
    heard = Heard(own_link)
    from flowkit.cluster.elsewhere import pickled_elsewhere
    from flowkit.cluster.wire import PLUGIN_NAME, PROTOCOL

    plugin = pickled_elsewhere("flowkit.cluster.worker_plugin:FlowkitWorkerPlugin", PROTOCOL, own_cluster.config)
    own_link.client.sync(own_link.client.scheduler.broadcast, msg={"op": "plugin-add", "plugin": plugin, "name": PLUGIN_NAME})
    assert map_job(own_link, 4, lambda i: i).wait() == [[i] for i in range(4)]
    assert not heard.of(ev.ExecutorRemoved)


@pytest.fixture
def two_hosts(tmp_path):
    """Two workers that share no directory."""
    workers = {
        name: {"cls": Nanny, "options": {"nthreads": 1, "env": {"FLOWKIT_LOCAL_DIRECTORY": str(tmp_path / name)}}}
        for name in ("north", "south")
    }
    with SpecCluster(
        workers=workers,
        scheduler={"cls": Scheduler, "options": {"dashboard": False, "dashboard_address": "127.0.0.1:0"}},
        silence_logs=50,
    ) as cluster:
        yield cluster


def test_content_put_on_one_host_reaches_the_other(two_hosts, config):
    with ClientLink.connect(two_hosts, config=config) as link:
        ballast = bytes(6_000_000)
        results = map_job(link, 10, lambda i: (__import__("time").sleep(0.02), len(ballast), os.getpid())[1:]).wait()
        assert len({pid for ((_, pid),) in results}) == 2
        assert len({executor.host for executor in link._executors.values()}) == 2


def test_a_closed_cluster_leaves_no_process(config):
    import psutil

    before = {child.pid for child in psutil.Process().children(recursive=True)}
    cluster = EmbeddedCluster(2, config=config).start()
    started = {child for child in psutil.Process().children(recursive=True) if child.pid not in before}
    assert len(started) >= 2
    cluster.close()
    cluster.close()
    _, alive = psutil.wait_procs(
        [child for child in started if "resource_tracker" not in " ".join(child.cmdline() if child.is_running() else [])],
        timeout=5,
    )
    assert not alive


def test_threads_alone_will_do(config):
    with EmbeddedCluster(2, processes=False, config=config) as cluster:
        with ClientLink.connect(cluster.cluster, config=config) as link:
            assert link.slots == 2
            assert map_job(link, 10, lambda i: os.getpid()).wait() == [[os.getpid()]] * 10
