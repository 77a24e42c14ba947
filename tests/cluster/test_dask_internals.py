"""Everything undocumented in Dask that flowkit leans on, checked on the installed version: the first place to look after an upgrade.

The lowest version in ``pyproject.toml`` is the lowest with which this folder and ``tests/contracts`` passed (2026.7.0, by hand, in a
virtual environment of its own). With 2026.1.0 and 2025.1.0 nearly all passed too.
"""

import asyncio
import inspect
import multiprocessing.process
import os
import signal
import threading
import weakref

import distributed.client
import distributed.gc
import distributed.utils
import pytest
from distributed import Client, Nanny, Scheduler, Worker, diskutils, process
from distributed.core import Status
from distributed.deploy import spec
from distributed.diagnostics.plugin import SchedulerPlugin

from flowkit.cluster import dask_internals
from flowkit.cluster.embedded import EmbeddedCluster
from tests.cluster.conftest import map_job

pytestmark = pytest.mark.cluster


def run(coroutine_function, *arguments):
    return asyncio.run(coroutine_function(*arguments))


async def _pair():
    scheduler = await Scheduler(dashboard=False, dashboard_address="127.0.0.1:0", port=0, host="127.0.0.1")
    worker = await Worker(scheduler.address, nthreads=3, memory_limit="1GiB", host="127.0.0.1")
    return scheduler, worker


def test_a_handler_may_keep_a_connection_for_itself():
    async def check():
        scheduler, worker = await _pair()
        kept = asyncio.Event()

        async def keep(comm, greeting):
            await comm.write(greeting)
            assert await comm.read() == (b"more",)
            kept.set()
            return dask_internals.KEEP_CONNECTION

        dask_internals.add_scheduler_handler(scheduler, "keep", keep)
        assert dask_internals.has_scheduler_handler(scheduler, "keep")
        comm = await dask_internals.open_connection(
            scheduler.address, worker.connection_args, "keep", timeout_s=5, greeting=b"hello"
        )
        assert await comm.read() == b"hello"
        await comm.write([b"more"])
        await asyncio.wait_for(kept.wait(), 5)
        await comm.close()
        dask_internals.remove_scheduler_handler(scheduler, "keep")
        assert not dask_internals.has_scheduler_handler(scheduler, "keep")
        await worker.close()
        await scheduler.close()

    run(check)


def test_a_worker_tells_its_threads_memory_and_dask_tasks():
    async def check():
        scheduler, worker = await _pair()
        assert dask_internals.worker_slots(worker) == 3
        assert dask_internals.worker_memory_limit(worker) == 2**30
        assert dask_internals.running_dask_tasks(worker) == 0
        assert not dask_internals.is_closing(worker)
        assert scheduler.workers[worker.address].metrics["memory"] > 0
        assert scheduler.workers[worker.address].pid > 0
        await worker.close()
        assert dask_internals.is_closing(worker)
        await scheduler.close()

    run(check)


class Hear(SchedulerPlugin):
    """Notes Dask's log of events."""

    def __init__(self):
        self.heard = []
        self.news = asyncio.Event()

    def log_event(self, topic, msg):
        self.heard.append((topic, msg))
        self.news.set()

    async def wait_for(self, topic, **fields):
        while not any(t == topic and fields.items() <= m.items() for t, m in self.heard):
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 5)


def test_status_changes_and_closings_pass_the_log_of_events():
    async def check():
        scheduler, worker = await _pair()
        plugin = Hear()
        scheduler.add_plugin(plugin, name="hear")
        address = worker.address
        worker.status = Status.paused
        await plugin.wait_for(address, action="worker-status-change", status="paused")
        await worker.close(reason="enough")
        await plugin.wait_for(address, action="closing-worker", reason="enough")
        await scheduler.close()

    run(check)


def test_nannies_hand_their_processes_the_exit_callback_that_is_wrapped():
    assert "exitcode" in inspect.signature(Nanny._on_worker_exit_sync).parameters
    assert "on_exit=self._on_worker_exit_sync" in inspect.getsource(Nanny.instantiate)


def test_what_a_nanny_sets_for_its_worker_and_the_last_words_it_gathers_are_to_be_had():
    async def check():
        scheduler = await Scheduler(dashboard=False, dashboard_address="127.0.0.1:0", port=0, host="127.0.0.1")
        plugin = Hear()
        scheduler.add_plugin(plugin, name="hear")
        nanny = await Nanny(scheduler.address, nthreads=1, host="127.0.0.1", env={"FLOWKIT_SOMETHING": "here"})
        assert dask_internals.nanny_environment(nanny)["FLOWKIT_SOMETHING"] == "here"
        address = nanny.worker_address
        dask_internals.tell_exits(nanny, "exits", lambda worker: {"running": {f"{worker}#1": (7,)}})
        os.kill(nanny.pid, signal.SIGKILL)
        await plugin.wait_for("exits", worker=address, exit=-signal.SIGKILL, running={f"{address}#1": (7,)})
        await nanny.close()
        await scheduler.close()

    run(check)


def test_a_nanny_can_be_asked_while_its_worker_says_nothing_and_dask_can_be_told_that_it_lives():
    async def check():
        scheduler = await Scheduler(dashboard=False, dashboard_address="127.0.0.1:0", port=0, host="127.0.0.1")
        nanny = await Nanny(scheduler.address, nthreads=1, host="127.0.0.1")
        dask_internals.add_nanny_handler(nanny, "ask", lambda what: {what: dask_internals.worker_pid(nanny)})
        address = nanny.worker_address
        os.kill(nanny.pid, signal.SIGSTOP)
        try:
            found = dask_internals.nanny_address(scheduler, address)
            answer = await dask_internals.ask_nanny(scheduler, found, "ask", timeout_s=30, what="pid")
            assert answer == {"pid": nanny.pid}
            state = scheduler.workers[address]
            state.last_seen = 0.0
            dask_internals.note_sign_of_life(scheduler, address)
            assert state.last_seen > 0.0
            dask_internals.note_sign_of_life(scheduler, "tcp://127.0.0.1:1")
        finally:
            os.kill(nanny.pid, signal.SIGCONT)
        with pytest.raises(OSError, match="no nanny"):
            await dask_internals.ask_nanny(scheduler, None, "ask", timeout_s=30)
        await nanny.close()
        with pytest.raises((OSError, TimeoutError)):
            await dask_internals.ask_nanny(scheduler, found, "ask", timeout_s=30, what="pid")
        await scheduler.close()

    run(check)


def test_dask_itself_ends_workers_it_has_not_seen_for_long():
    assert "ws.last_seen" in inspect.getsource(Scheduler.check_worker_ttl)


@pytest.mark.parametrize(
    "name", ["running", "paused", "closing", "closing_gracefully", "closed", "failed", "stopped", "dont_reply"]
)
def test_the_names_of_states_exist(name):
    assert name in Status.__members__


def test_an_idle_scheduler_stays_awake_while_a_job_runs_and_not_longer(config):
    import dask

    from flowkit.cluster.client_link import ClientLink

    with dask.config.set({"distributed.scheduler.idle-timeout": "3s"}), EmbeddedCluster(1, config=config) as cluster:
        closed = threading.Event()
        scheduler = cluster.cluster.scheduler
        link = ClientLink.connect(cluster.cluster, config=config)
        assert map_job(link, 1, lambda i: [__import__("time").sleep(0.05) for _ in range(100)] and i).wait() == [[0]]
        assert scheduler.status is Status.running
        link.close()
        cluster.cluster.loop.add_callback(_when_finished, scheduler, closed)
        assert closed.wait(15)


async def _when_finished(scheduler, closed):
    await scheduler.finished()
    closed.set()


def test_what_a_worker_was_started_with_is_what_its_tasks_may_have():
    from distributed import LocalCluster

    import flowkit as fk

    def mine(rows):
        return [fk.TaskContext.get().resources["gpu"]]

    with (
        LocalCluster(n_workers=1, threads_per_worker=2, resources={"GPU": 2}, dashboard_address="127.0.0.1:0") as cluster,
        fk.Context(cluster, progress="off") as fc,
    ):
        assert {*fc.range(8, num_partitions=8).map_partitions(mine).with_resources(gpu=1).collect()} == {("0",), ("1",)}


def test_a_cluster_object_says_whether_it_can_be_scaled_and_by_what_names_it_knows_workers():
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        addresses = list(cluster.scheduler_info["workers"])
        assert sorted(dask_internals.worker_names(cluster, addresses)) == sorted(cluster.worker_spec)
        assert dask_internals.can_scale(cluster)
        cluster.adapt(minimum=2, maximum=2)
        assert not dask_internals.can_scale(cluster)
        assert not dask_internals.can_scale(object())
        assert dask_internals.worker_names(object(), addresses) is None
        assert dask_internals.worker_names(cluster, [*addresses, "tcp://127.0.0.1:1"]) is None


def test_adaptive_scaling_asks_for_what_we_need_too():
    async def check():
        scheduler, worker = await _pair()
        wanted = 0
        dask_internals.extend_adaptive_target(scheduler, lambda: wanted)
        before = scheduler.handlers["adaptive_target"]()
        wanted = before + 7
        assert scheduler.handlers["adaptive_target"](target_duration="1s") == before + 7
        await worker.close()
        await scheduler.close()

    run(check)


def test_what_a_fork_of_its_process_lets_go_of_is_there():
    """``disown_in_fork``; what it does is tested in tests/cluster/test_forks.py."""
    assert isinstance(weakref.finalize._registry, dict)
    assert "_finalizer" in inspect.get_annotations(diskutils.WorkDir)
    assert diskutils.WorkDir._finalize.__module__.startswith("distributed.")
    assert "_keep_child_alive" in inspect.getsource(process.AsyncProcess.__init__)
    assert process._asyncprocess_finalizer.__module__.startswith("distributed.")
    assert isinstance(spec.SpecCluster._instances, weakref.WeakSet)
    assert isinstance(Client._instances, weakref.WeakSet)
    assert isinstance(distributed.client._global_clients, weakref.WeakValueDictionary)
    assert isinstance(multiprocessing.process._children, set)
    assert hasattr(distributed.utils.LoopRunner._lock, "acquire")
    assert hasattr(distributed.gc._gc_diagnosis_lock, "acquire")
    assert distributed.utils._offload_executor._max_workers == 1
    assert inspect.signature(distributed.gc.disable_gc_diagnosis).parameters["force"]
