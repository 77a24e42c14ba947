"""Every part of Dask that flowkit touches though it is not documented for outsiders; a contract test stands for each.

Runs in whichever process owns the object handed in, on its event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import copyreg
import multiprocessing
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import distributed.client
import distributed.gc
import distributed.utils
from distributed import Client, Nanny, Scheduler, Worker
from distributed.comm import Comm, connect
from distributed.core import ConnectionPool, Status, send_recv
from distributed.deploy.spec import SpecCluster
from distributed.process import AsyncProcess
from distributed.system import MEMORY_LIMIT

from flowkit.cluster.script_free import WORKER_PROCESS


def keep_exceptions_whole() -> None:
    """Have rows that are exceptions pickled as Python does it, where Dask's way (tblib's, for all exceptions) loses their text.

    It rebuilds without ``__init__``, and thereby without what C keeps: of ``UnicodeDecodeError``, ``SyntaxError``, ``SystemExit`` and such
    nothing but the type would arrive. What Dask's own tasks raise keeps its text too, without its frames as objects.
    """
    pending: list[type[BaseException]] = [BaseException]
    for kind in pending:  # grows while it is walked
        if kind.__module__ == "builtins":
            pending += kind.__subclasses__()
            if kind.__init__ not in {BaseException.__init__, OSError.__init__} and kind.__reduce__ is BaseException.__reduce__:
                copyreg.dispatch_table.pop(kind, None)


keep_exceptions_whole()

#: what a handler returns that has taken its connection over
KEEP_CONNECTION = Status.dont_reply


def add_scheduler_handler(scheduler: Scheduler, name: str, handler: Callable[..., Any]) -> None:
    """Let ``handler(comm, **message)`` answer ``{"op": name}``; a coroutine function may keep the connection for itself."""
    scheduler.handlers[name] = handler


def has_scheduler_handler(scheduler: Scheduler, name: str) -> bool:
    """Whether somebody answers ``{"op": name}``."""
    return name in scheduler.handlers


def remove_scheduler_handler(scheduler: Scheduler, name: str) -> None:
    """Answer ``{"op": name}`` no more."""
    scheduler.handlers.pop(name, None)


def add_worker_handler(worker: Worker, name: str, handler: Callable[..., Any]) -> None:
    """As ``add_scheduler_handler``, on a worker."""
    worker.handlers[name] = handler


async def open_connection(address: str, connection_args: dict[str, Any], op: str, *, timeout_s: float, **message: Any) -> Comm:
    """A connection of flowkit's own to a Dask server: the handler of ``op`` there keeps it."""
    comm = await connect(address, timeout=timeout_s, **connection_args)
    try:
        await comm.write({"op": op, "reply": False, **message})
    except BaseException:
        comm.abort()
        raise
    return comm


async def scheduler_id(address: str, connection_args: dict[str, Any], *, timeout_s: float = 5.0) -> str:
    """Which scheduler answers at an address; another one after a restart. ``OSError`` when none does."""
    comm = await connect(address, timeout=timeout_s, **connection_args)
    try:
        await comm.write({"op": "identity", "reply": True})
        return str((await asyncio.wait_for(comm.read(), timeout_s))["id"])
    finally:
        comm.abort()


def known_scheduler_id(client: Any) -> str:
    """Which scheduler a client is connected to."""
    return str(client.scheduler_info()["id"])


async def ask(pool: ConnectionPool, address: str, op: str, *, connect_limit_s: float, **message: Any) -> Any:
    """Call a handler of another process over a pool of kept connections; ``OSError`` when none can be opened in time."""
    comm = await pool.connect(address, timeout=connect_limit_s)
    try:
        return await send_recv(comm, op=op, **message)
    finally:
        pool.reuse(address, comm)


def is_closing(worker: Worker) -> bool:
    """Whether a worker is on its way out, as opposed to one from which only a plugin is removed."""
    return worker.status in {Status.closing, Status.closing_gracefully, Status.closed, Status.failed, Status.stopped}


def worker_slots(worker: Worker) -> int:
    """Threads Dask would use for its tasks, which is how many flowkit takes."""
    return int(worker.state.nthreads)


def worker_resources(worker: Worker) -> dict[str, float]:
    """What a worker was started with (``--resources``)."""
    return dict(worker.state.total_resources)


def running_dask_tasks(worker: Worker) -> int:
    """Dask's own tasks on the worker's threads now."""
    return int(worker.state.executing_count)


def memory_thresholds() -> tuple[float | bool, float | bool]:
    """At which part of its memory Dask pauses a worker, and at which its nanny ends it; False for never. By Dask's settings here."""
    import dask

    return dask.config.get("distributed.worker.memory.pause"), dask.config.get("distributed.worker.memory.terminate")


def worker_memory_limit(worker: Worker) -> int:
    """Bytes the worker may use: its limit, or the machine's memory when it has none."""
    return int(worker.memory_manager.memory_limit or MEMORY_LIMIT)


def nanny_address(scheduler: Scheduler, worker: str) -> str | None:
    """Where the nanny of a worker listens, None when it has none."""
    state = scheduler.workers.get(worker)
    return None if state is None else state.nanny


def keep_awake(scheduler: Scheduler) -> None:
    """Start the scheduler's idle time anew: it cannot see flowkit's tasks."""
    scheduler.idle_since = None


def idle_timeout_s(scheduler: Scheduler) -> float | None:
    """After how long an idle scheduler closes, None for never."""
    timeout_s: float | None = scheduler.idle_timeout
    return timeout_s


def worker_plugin_names(scheduler: Scheduler) -> set[str]:
    """Plugins that every new worker gets."""
    return set(scheduler.worker_plugins)


async def install_on_workers(scheduler: Scheduler, name: str, worker_plugin: bytes, nanny_plugin: bytes) -> dict[str, str]:
    """Give all workers, now and later, a plugin, and their nannies theirs; why it failed, by worker address.

    ``Scheduler.register_worker_plugin`` would do, but it gives up on all workers when one cannot even load the plugin.
    """
    scheduler.nanny_plugins[name] = nanny_plugin
    scheduler.worker_plugins[name] = worker_plugin
    to_workers, _ = await asyncio.gather(
        scheduler.broadcast(msg={"op": "plugin-add", "plugin": worker_plugin, "name": name}, on_error="return"),
        scheduler.broadcast(msg={"op": "plugin_add", "plugin": nanny_plugin, "name": name}, nanny=True, on_error="return"),
    )
    problems = {}
    for address, answer in to_workers.items():
        error = answer.get("exception") if isinstance(answer, dict) and answer.get("status") == "error" else answer
        if not isinstance(error, BaseException):
            error = getattr(error, "data", error)  # as it came over the network
        if isinstance(error, BaseException):
            problems[address] = f"{type(error).__name__}: {error}"
    return problems


async def restart_worker(scheduler: Scheduler, address: str, reason: str) -> None:
    """End a worker's process whatever state it is in (stopped ones too); its nanny, if any, starts another."""
    await scheduler.restart_workers([address], wait_for_workers=False, timeout=30, on_error="return", stimulus_id=reason)
    # A process that hangs may keep its connection; it is not to be believed any more.
    await scheduler.remove_worker(address, stimulus_id=reason, close=True)


def nanny_environment(nanny: Nanny) -> dict[str, str]:
    """Variables that a nanny sets for its worker's process, beyond its own."""
    return {str(name): str(value) for name, value in nanny.env.items()}


def add_nanny_handler(nanny: Nanny, name: str, handler: Callable[..., Any]) -> None:
    """As ``add_scheduler_handler``, on a nanny."""
    nanny.handlers[name] = handler


def worker_pid(nanny: Nanny) -> int | None:
    """The process that a nanny looks after now."""
    pid: int | None = None if nanny.process is None else nanny.process.pid
    return pid


async def ask_nanny(scheduler: Scheduler, nanny: str | None, op: str, *, timeout_s: float, **message: Any) -> Any:
    """Call a handler of a nanny; ``OSError`` or ``TimeoutError`` when there is none, or none that answers."""
    if nanny is None:
        raise OSError("the worker has no nanny")
    return await asyncio.wait_for(getattr(scheduler.rpc(nanny), op)(**message), timeout_s)


def note_sign_of_life(scheduler: Scheduler, worker: str) -> None:
    """Have Dask take a worker for alive that cannot say so itself: it would end it after ``worker-ttl`` (5 minutes) of silence."""
    state = scheduler.workers.get(worker)
    if state is not None:
        state.last_seen = time.time()


def tell_exits(
    nanny: Nanny,
    topic: str,
    last_words: Callable[[str], dict[str, Any]],
    told: Callable[[dict[str, Any]], None] = lambda _news: None,
) -> None:
    """Have a nanny log how its worker's process ended, for the scheduler's plugins to hear.

    ``last_words(worker address)`` is called once the process has ended, and what it returns is told with it. ``told`` hears all of it here.
    """
    if getattr(nanny, "_flowkit_tells_exits", None) == topic:
        return
    nanny._flowkit_tells_exits = topic
    original = nanny._on_worker_exit_sync

    def on_exit(exitcode: int) -> None:
        process = nanny.process
        news = {"worker": nanny.worker_address, "pid": None if process is None else process.pid, "exit": exitcode}
        news |= last_words(str(nanny.worker_address))
        told(news)
        # One that is closing says nothing: nobody asks, and the scheduler may be gone.
        if nanny.status == Status.running:
            nanny.log_event(topic, news)
        original(exitcode)

    # Given to each process at its start; the running one has the original already.
    nanny._on_worker_exit_sync = on_exit
    if nanny.process is not None:
        nanny.process.on_exit = on_exit


def prepare_shutdown(cluster: Any, topic: str) -> None:
    """Before a whole cluster of this process closes: its scheduler's plugins hear of it; a scheduler already closed is left alone."""
    if cluster.scheduler.status in {Status.closing, Status.closed}:
        # Dask would try for half a minute to connect to it.
        cluster.shutdown_scheduler = False
    else:
        cluster.loop.add_callback(cluster.scheduler.log_event, topic, {"action": "shutdown"})


def can_scale(cluster: Any) -> bool:
    """Whether a cluster object can be told how many workers to have, and nobody else tells it (``cluster.adapt``)."""
    adaptive = getattr(cluster, "_adaptive", None)
    adapts = adaptive is not None and getattr(adaptive, "state", "stopped") != "stopped"
    return callable(getattr(cluster, "scale", None)) and not adapts


def worker_names(cluster: Any, addresses: Sequence[str]) -> list[Any] | None:
    """By what names a cluster that closes chosen workers (``scale_down``) knows these; None when it is not such a one."""
    specified = getattr(cluster, "worker_spec", None)
    if specified is None or not hasattr(cluster, "scale_down"):
        return None
    known = cluster.scheduler_info["workers"]
    names = [known[address]["name"] if address in known else None for address in addresses]
    return names if all(name in specified for name in names) else None


def extend_adaptive_target(scheduler: Scheduler, more: Callable[[], int]) -> None:
    """Have Dask's adaptive scaling, which sees Dask's tasks alone, make at least ``more()`` workers."""
    handler = scheduler.handlers["adaptive_target"]

    def target(**arguments: Any) -> int:
        return max(int(handler(**arguments)), more())

    scheduler.handlers["adaptive_target"] = target


def kill_processes(cluster: Any) -> None:
    """End the worker processes of a cluster of this process that did not close."""
    for nanny in list(cluster.workers.values()):
        process = getattr(getattr(nanny, "process", None), "process", None)
        if process is not None and process.is_alive():
            cluster.loop.add_callback(process.kill)


def client_loop(client: Any) -> asyncio.AbstractEventLoop:
    """The asyncio loop on which a synchronous client's connections live, in a thread of its own."""
    loop: asyncio.AbstractEventLoop = client.loop.asyncio_loop
    return loop


def disown_in_fork() -> None:
    """In a fork of this process: what there is of Dask's is its parent's, and is neither closed nor deleted here, nor when the fork ends.

    What Dask has once a process works anew, so that the fork can have a client and a cluster of its own.
    """
    finalizers: Any = getattr(weakref.finalize, "_registry", {})
    for finalizer in list(finalizers):
        found = finalizer.peek()
        if found is None or not str(getattr(found[1], "__module__", "")).startswith("distributed."):
            continue
        # It would delete a directory, or end a process.
        finalizer.detach()
        if isinstance(found[0], AsyncProcess):
            # As long as this end of a pipe is open, the process takes its parent for alive.
            with contextlib.suppress(OSError):
                found[0]._keep_child_alive.close()
    for cluster in list(SpecCluster._instances):
        cluster.status = Status.closed
    SpecCluster._instances.clear()
    for client in list(Client._instances):
        client.status = "closed"
    distributed.client._global_clients.clear()
    children: Any = getattr(multiprocessing.process, "_children", set())
    children -= {each for each in children if each.name == WORKER_PROCESS}
    # Locks that a thread may hold which is not here, and a pool whose thread is not.
    distributed.utils.LoopRunner._lock = threading.Lock()
    distributed.gc._gc_diagnosis_lock = threading.Lock()
    distributed.gc.disable_gc_diagnosis(force=True)  # it measures the parent
    pool = distributed.utils._offload_executor
    distributed.utils._offload_executor = type(pool)(max_workers=1, thread_name_prefix="Dask-Offload")
