"""flowkit in the Dask scheduler: translates connections, membership and time into stimuli, and actions into messages.

Runs in the scheduler process, on its event loop. Nothing here decides about tasks (``scheduling.core`` does), nothing
unpickles, and nothing raises into Dask: a failure is logged and ends what it concerns.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import random
import secrets
from typing import Any, assert_never

import msgspec
from distributed import Scheduler
from distributed.comm import Comm
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol.pickle import dumps

from flowkit.cluster import dask_internals
from flowkit.cluster.core_loop import CoreLoop, SteadyClock
from flowkit.cluster.losses import Loss, LossFacts, diagnose
from flowkit.cluster.peers import EVENT_BATCH_S, DriverPeer, ExecutorPeer
from flowkit.cluster.wire import (
    EXIT_TOPIC,
    OPEN_DRIVER,
    OPEN_EXECUTOR,
    PLUGIN_NAME,
    PROTOCOL,
    RELAY,
    RELAYED,
    Drain,
    ExecutorSummary,
    Farewell,
    ProcessReplaced,
    Refused,
    Welcome,
    check_protocol,
    decode_driver_hello,
    decode_executor_hello,
    decode_from_driver,
    decode_from_executor,
    encode,
    own_versions,
    version_complaint,
)
from flowkit.config import Config
from flowkit.model.events import ExecutorRemoved, JobEnd, JobStart
from flowkit.model.ids import AppId, ExecutorId, executor_address
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti

logger = logging.getLogger("flowkit.cluster")

INSTALL_LIMIT_S = 15.0
"""A worker that does not take the plugin within this time does not keep a driver from starting."""
DIAGNOSIS_WAIT_S = 0.5
"""How long to wait for a nanny to tell how its worker ended; nothing is launched there meanwhile."""
DRAIN_LIMIT_S = 10.0
"""How long a worker that leaves in good order may take to finish what it runs."""
MEMORY_TOPIC = "worker-restart-memory"
FACTS_KEPT = 1_000


class FlowkitSchedulerPlugin(SchedulerPlugin):
    """The plugin of one protocol version; a second one of the same version finds the first and stays passive."""

    name = PLUGIN_NAME
    idempotent = True

    def __init__(self, config: Config, worker_plugin: bytes, nanny_plugin: bytes, seed: int | None = None) -> None:
        # The peers' plugins come as bytes: this process has no business importing them.
        self._protocol = PROTOCOL
        self._config = config
        self._worker_plugin = worker_plugin
        self._nanny_plugin = nanny_plugin
        self._seed = seed
        self._active = False

    async def start(self, scheduler: Scheduler) -> None:
        """Begin, unless another of this version has."""
        check_protocol(self._protocol, "the scheduler", "the driver")
        if dask_internals.has_scheduler_handler(scheduler, OPEN_DRIVER):
            return
        # From here to the end without an await: two drivers may register at once.
        from flowkit.scheduling.core import SchedulerCore

        self._active = True
        self._scheduler = scheduler
        self._id = f"scheduler-{secrets.token_hex(8)}"
        self._clock = SteadyClock()
        self._loop = asyncio.get_running_loop()
        seed = random.SystemRandom().getrandbits(32) if self._seed is None else self._seed
        self._core = SchedulerCore(self._config, seed=seed)
        self._core_loop = CoreLoop(
            self._core,
            perform=self._perform,
            settled=self._settled,
            failed=self._core_failed,
            clock=self._clock,
            loop=self._loop,
        )
        #: those whose connection may come back or stands, by worker address
        self._executors: dict[str, ExecutorPeer] = {}
        self._executors_by_id: dict[ExecutorId, ExecutorPeer] = {}
        self._drivers: dict[AppId, DriverPeer] = {}
        self._facts: dict[str, LossFacts] = {}
        self._diagnoses: dict[str, asyncio.TimerHandle] = {}
        self._to_flush: list[ExecutorPeer] = []
        self._urgent: set[AppId] = set()
        self._flush_timer: asyncio.TimerHandle | None = None
        self._awake_timer: asyncio.TimerHandle | None = None
        self._running_jobs: set[tuple[AppId, int]] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._problems: dict[str, str] = {}
        self._installed: asyncio.Task[None] | None = None
        dask_internals.add_scheduler_handler(scheduler, OPEN_DRIVER, self.open_driver)
        dask_internals.add_scheduler_handler(scheduler, OPEN_EXECUTOR, self.open_executor)
        dask_internals.add_scheduler_handler(scheduler, RELAY, self.relay)

    async def close(self) -> None:
        """Stop with the scheduler."""
        if not self._active:
            return
        self._active = False
        self._core_loop.close()
        for timer in (self._flush_timer, self._awake_timer, *self._diagnoses.values()):
            if timer is not None:
                timer.cancel()
        for task in self._background:
            task.cancel()
        for executor in self._executors_by_id.values():
            executor.link.close()
        for driver in self._drivers.values():
            driver.link.close()
        for name in (OPEN_DRIVER, OPEN_EXECUTOR, RELAY):
            dask_internals.remove_scheduler_handler(self._scheduler, name)

    # -- drivers ---------------------------------------------------------------------------------------------------

    async def open_driver(self, comm: Comm, hello: bytes) -> Any:
        """A driver's connection, kept as long as it stands."""
        if self._installed is None:
            self._installed = asyncio.create_task(self._install())
        await asyncio.wait([self._installed], timeout=INSTALL_LIMIT_S)
        answer, driver = self._admit_driver(hello)
        await comm.write(encode(answer))
        if driver is not None:
            driver.link.attach(comm)
            await driver.link.wait_detached()
        return dask_internals.KEEP_CONNECTION

    async def _install(self) -> None:
        try:
            self._problems.update(
                await dask_internals.install_on_workers(self._scheduler, PLUGIN_NAME, self._worker_plugin, self._nanny_plugin)
            )
        except Exception as error:
            logger.exception("flowkit could not be installed on the workers")
            self._problems["all workers"] = f"{type(error).__name__}: {error}"

    def _admit_driver(self, hello: bytes) -> tuple[Welcome | Refused, DriverPeer | None]:
        try:
            request = decode_driver_hello(hello)
        except msgspec.DecodeError as error:
            return Refused("VersionMismatch", f"the scheduler cannot read this driver's greeting: {error}"), None
        known = self._drivers.get(request.app)
        if request.secret:
            if known is None or not hmac.compare_digest(known.secret, request.secret):
                return Refused(
                    "ApplicationLost", "the scheduler does not know this session: it restarted, or the lease ran out"
                ), None
            self._core_loop.submit(sti.LeaseRenewed(request.app))
            return self._welcome(known.secret), known
        if known is not None:
            return Refused("ClusterError", f"application {request.app} is open already"), None
        complaint = version_complaint("the driver", request.versions, "the scheduler", own_versions(), programs=False)
        for executor in self._executors.values():
            if complaint is None:
                there = f"the executor at {executor.address}"
                complaint = version_complaint("the driver", request.versions, there, executor.versions)
        if complaint is not None:
            return Refused("VersionMismatch", complaint), None
        secret = secrets.token_hex(16)
        driver = DriverPeer(request.app, request.name, secret, request.versions, lambda body: self._hear_driver(driver, body))
        welcome = self._welcome(secret)
        self._drivers[request.app] = driver
        for executor in self._executors.values():
            executor.admit(request.app, secret)
        self._core_loop.submit(sti.ApplicationOpened(request.app, request.name, request.versions.flowkit, request.lease_s))
        return welcome, driver

    def _welcome(self, secret: str) -> Welcome:
        ready = tuple(ExecutorSummary(e.executor, e.host, e.slots) for e in self._executors.values() if e.ready and not e.lost)
        return Welcome(self._id, secret, ready, dict(self._problems))

    def _hear_driver(self, driver: DriverPeer, body: bytes) -> None:
        for message in decode_from_driver(body):
            app = message.spec.app if isinstance(message, sti.JobSubmitted) else message.app
            if app != driver.app:
                logger.warning("driver %s spoke for application %s: ignored", driver.app, app)
                continue
            self._core_loop.submit(message)
            if isinstance(message, sti.ApplicationClosed):
                # Its lease is over, so the core will not name it again; what it sends to executors is unaffected.
                self._drivers.pop(driver.app, None)
                self._forget_application(driver.app)
                self._loop.call_later(1.0, driver.link.close)  # the acknowledgement of this message still has to go

    def _forget_application(self, app: AppId) -> None:
        self._running_jobs = {job for job in self._running_jobs if job[0] != app}
        for executor in self._executors.values():
            executor.forget(app)

    async def relay(self, app: str, secret: str, address: str, requested: str, arguments: dict[str, Any]) -> Any:
        """Ask an executor on behalf of a driver that cannot reach it; bounded by the size of one chunk."""
        driver = self._drivers.get(AppId(app))
        if driver is None or not hmac.compare_digest(driver.secret, secret) or requested not in RELAYED:
            raise PermissionError(f"{requested} is not relayed for application {app}")
        if address not in self._executors:
            raise OSError(f"no executor at {address}")
        return await getattr(self._scheduler.rpc(address), requested)(app=app, secret=secret, **arguments)

    # -- executors -------------------------------------------------------------------------------------------------

    async def open_executor(self, comm: Comm, hello: bytes) -> Any:
        """An executor's connection, kept as long as it stands."""
        answer, executor = self._admit_executor(hello)
        await comm.write(encode(answer))
        if executor is not None:
            executor.link.attach(comm)
            await executor.link.wait_detached()
        return dask_internals.KEEP_CONNECTION

    def _admit_executor(self, hello: bytes) -> tuple[Welcome | Refused, ExecutorPeer | None]:
        try:
            request = decode_executor_hello(hello)
        except msgspec.DecodeError as error:
            return Refused("VersionMismatch", f"the scheduler cannot read this executor's greeting: {error}"), None
        address = executor_address(request.executor)
        known = self._executors.get(address)
        if request.resume:
            if known is None or known.lost or known.executor != request.executor or request.resume != self._id:
                return Refused("ClusterError", f"{request.executor} was given up by the scheduler"), None
            return Welcome(self._id), known
        state = self._scheduler.workers.get(address)
        if state is None:
            return Refused("ClusterError", f"no worker at {address} is registered"), None
        here = f"the executor at {address}"
        complaint = version_complaint(here, request.versions, "the scheduler", own_versions(), programs=False)
        for driver in self._drivers.values():
            complaint = complaint or version_complaint(here, request.versions, f"the driver {driver.name}", driver.versions)
        if complaint is not None:
            self._problems[address] = complaint
            return Refused("VersionMismatch", complaint), None
        if known is not None:
            self._lose(known, Loss(f"worker {address} came back as another process", task_caused=False))
        self._problems.pop(address, None)
        executor = ExecutorPeer(request.executor, address, request.versions, lambda body: self._hear_executor(executor, body))
        self._executors[address] = self._executors_by_id[request.executor] = executor
        self._facts[address] = LossFacts(address, pid=state.pid or None, memory_limit_bytes=state.memory_limit or 0)
        for driver in self._drivers.values():
            executor.admit(driver.app, driver.secret)
        return Welcome(self._id), executor

    def _hear_executor(self, executor: ExecutorPeer, body: bytes) -> None:
        for message in decode_from_executor(body):
            if message.executor != executor.executor:
                logger.warning("executor %s spoke for %s: ignored", executor.executor, message.executor)
                continue
            match message:
                case sti.TasksReported():
                    executor.note(message.reports)
                case sti.ExecutorReady():
                    executor.host, executor.slots, executor.ready = message.host, message.slots, True
                    self._tell_status(executor)
                case sti.SlotsChanged():
                    executor.slots = message.slots
                case ProcessReplaced():
                    self._lose(
                        executor, Loss(f"worker {executor.address} replaces its process: {message.reason}", task_caused=False)
                    )
                    continue
                case Farewell():
                    self._lose(executor, Loss(f"worker {executor.address} left the cluster: {message.reason}", task_caused=False))
                    continue
                case sti.Heartbeat() | sti.BlocksEvicted() | sti.CommitRequested():
                    pass
                case _:
                    assert_never(message)
            self._core_loop.submit(message)

    def _tell_status(self, executor: ExecutorPeer) -> None:
        # It may have become ready while paused already.
        state = self._scheduler.workers.get(executor.address)
        if state is not None and state.status.name != "running":
            self._loop.call_soon(self._status_changed, executor.address, state.status.name)

    def _lose(self, executor: ExecutorPeer, loss: Loss) -> None:
        """The core learns, once, that an executor is gone."""
        if executor.lost:
            return
        executor.lost = True
        timer = self._diagnoses.pop(executor.address, None)
        if timer is not None:
            timer.cancel()
        if self._executors.get(executor.address) is executor:
            del self._executors[executor.address]
        self._executors_by_id.pop(executor.executor, None)
        # The acknowledgement of its last message may still have to go.
        self._loop.call_later(1.0, executor.link.close)
        logger.info("%s", loss.reason)
        self._core_loop.submit(sti.ExecutorLost(executor.executor, loss.reason, loss.task_caused))

    def _expire(self, executor_id: ExecutorId, reason: str) -> None:
        executor = self._executors_by_id.pop(executor_id, None)
        address = executor_address(executor_id)
        if executor is not None:
            executor.lost = True
            executor.link.close()
            if self._executors.get(address) is executor:
                del self._executors[address]
        self._in_background(dask_internals.restart_worker(self._scheduler, address, f"flowkit: {reason}"))

    def _in_background(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("work in the background failed", exc_info=error)

    # -- what Dask tells -------------------------------------------------------------------------------------------

    def remove_worker(self, scheduler: Scheduler, worker: str, *, stimulus_id: str, **kwargs: Any) -> None:
        """Dask lost a worker, or let it go."""
        executor = self._executors.get(worker) if self._active else None
        self._problems.pop(worker, None) if self._active else None
        if executor is None or executor.lost:
            return
        # The last words of its nanny, or its own farewell, may be on their way: nothing is launched there meanwhile.
        self._core_loop.submit(sti.ExecutorPaused(executor.executor))
        if executor.draining and executor.link.connected:
            wait_s = DRAIN_LIMIT_S
        else:
            facts = self._facts_of(worker)
            known = facts.exit_code is not None or facts.killed_for_memory_bytes is not None
            wait_s = 0.0 if known or kwargs.get("expected") else DIAGNOSIS_WAIT_S
        self._diagnoses[worker] = self._loop.call_later(wait_s, self._diagnose, executor)

    def _diagnose(self, executor: ExecutorPeer) -> None:
        self._diagnoses.pop(executor.address, None)
        facts = self._facts_of(executor.address)
        facts.ran = [f"stage {t.stage} partition {t.partition}" for t in executor.in_flight.values()]
        self._lose(executor, diagnose(facts))

    def _facts_of(self, address: str) -> LossFacts:
        while len(self._facts) > FACTS_KEPT:
            self._facts.pop(next(iter(self._facts)))
        return self._facts.setdefault(address, LossFacts(address))

    def log_event(self, topic: str, msg: Any) -> None:
        """Dask's log of events, which is where status changes and nannies' last words pass."""
        if not self._active or not isinstance(msg, dict):
            return
        try:
            self._hear_event(topic, msg)
        except Exception:
            logger.exception("an event of Dask's could not be understood: %r", msg)

    def _hear_event(self, topic: str, msg: dict[str, Any]) -> None:
        worker = msg.get("worker")
        if topic == EXIT_TOPIC and worker:
            facts = self._facts_of(worker)
            facts.exit_code, facts.pid = msg["exit"], msg["pid"] or facts.pid
            self._hasten(worker)
        elif topic == MEMORY_TOPIC and worker:
            facts = self._facts_of(worker)
            facts.killed_for_memory_bytes, facts.pid = msg["rss"], msg["pid"]
        elif msg.get("action") == "worker-status-change":
            self._status_changed(topic, msg["status"])
        elif msg.get("action") == "closing-worker":
            self._facts_of(topic).leaving = str(msg.get("reason") or "closed")

    def _hasten(self, worker: str) -> None:
        timer = self._diagnoses.get(worker)
        executor = self._executors.get(worker)
        if timer is not None and executor is not None and not executor.draining:
            timer.cancel()
            self._diagnose(executor)

    def _status_changed(self, worker: str, status: str) -> None:
        executor = self._executors.get(worker)
        if executor is None or executor.lost:
            return
        match status:
            case "running":
                self._core_loop.submit(sti.ExecutorResumed(executor.executor))
            case "paused":
                self._core_loop.submit(sti.ExecutorPaused(executor.executor))
            case "closing_gracefully":
                if not executor.draining:
                    executor.draining = True
                    executor.link.send(encode([Drain()]))
                self._core_loop.submit(sti.ExecutorDraining(executor.executor))
            case _:
                pass

    def valid_workers_downscaling(self, scheduler: Scheduler, workers: list[Any]) -> list[Any]:
        """Workers that run nothing of ours may go."""
        if not self._active:
            return workers
        busy = {address for address, executor in self._executors.items() if executor.in_flight}
        return [worker for worker in workers if worker.address not in busy]

    # -- what the core wants ---------------------------------------------------------------------------------------

    def _perform(self, action: act.Action) -> None:
        match action:
            case act.Publish():
                self._publish(action)
            case act.DeliverResult() | act.RequestContent():
                self._tell(action, urgent=isinstance(action, act.RequestContent))
            case act.JobSucceeded() | act.JobFailed():
                self._tell(action, urgent=True)
            case act.ApplicationExpired():
                self._tell(action, urgent=True)
                self._flush_drivers()
                driver = self._drivers.pop(action.app, None)
                self._forget_application(action.app)
                if driver is not None:
                    self._loop.call_later(1.0, driver.link.close)
            case act.ExpireExecutor():
                self._expire(action.executor, action.reason)
            case (
                act.DefineStage()
                | act.ForgetStage()
                | act.Launch()
                | act.Recall()
                | act.Kill()
                | act.AnswerCommit()
                | act.ReleaseResults()
                | act.DropRdd()
                | act.DropShuffle()
                | act.DropApplication()
            ):
                executor = self._executors_by_id.get(action.executor)
                if executor is not None and executor.queue(action):
                    self._to_flush.append(executor)
            case _:
                assert_never(action)

    def _tell(self, action: act.DriverAction, *, urgent: bool) -> None:
        driver = self._drivers.get(action.app)
        if driver is None:
            return
        driver.tell(action)
        if urgent or driver.is_full:
            self._urgent.add(action.app)

    def _publish(self, action: act.Publish) -> None:
        event = action.event
        if isinstance(event, JobStart):
            self._running_jobs.add((event.app, event.job))
            self._stay_awake()
        elif isinstance(event, JobEnd):
            self._running_jobs.discard((event.app, event.job))
        elif isinstance(event, ExecutorRemoved):
            self._facts.pop(executor_address(event.executor), None)
        drivers = self._drivers.values() if action.app is None else filter(None, (self._drivers.get(action.app),))
        for driver in drivers:
            driver.publish(event)
            if driver.is_full:
                self._urgent.add(driver.app)

    def _settled(self) -> None:
        """After each slice: what was said in it goes out."""
        for executor in self._to_flush:
            executor.flush()
        self._to_flush.clear()
        for app in self._urgent:
            driver = self._drivers.get(app)
            if driver is not None:
                driver.flush()
        self._urgent.clear()
        if self._flush_timer is None and any(driver.has_waiting for driver in self._drivers.values()):
            self._flush_timer = self._loop.call_later(EVENT_BATCH_S, self._flush_drivers)

    def _flush_drivers(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        for driver in self._drivers.values():
            driver.flush()

    def _stay_awake(self) -> None:
        timeout_s = dask_internals.idle_timeout_s(self._scheduler)
        if timeout_s is None or self._awake_timer is not None:
            return

        def wake() -> None:
            self._awake_timer = None
            dask_internals.keep_awake(self._scheduler)
            if self._running_jobs:
                self._awake_timer = self._loop.call_later(timeout_s / 4, wake)

        wake()

    def _core_failed(self, stimulus: sti.Stimulus, error: Exception) -> None:
        """The core raised: whoever is concerned hears of it, everybody else goes on."""
        text = f"{type(error).__name__}: {error}"
        match stimulus:
            case sti.JobSubmitted(spec=spec):
                self._tell(act.JobFailed(spec.app, spec.job, "InternalError", text), urgent=True)
            case sti.TasksReported(executor=executor):
                peer = self._executors_by_id.get(executor)
                jobs = {job for job in self._running_jobs if peer is not None}
                for app, job in jobs:
                    self._core_loop.submit(sti.JobCancelRequested(app, job, f"flowkit itself failed: {text}"))  # type: ignore[arg-type]
            case _:
                logger.error("while handling %r: %s", stimulus, text)

    # -- looking in ------------------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, Any]:
        """Counts and times, for people and tests."""
        return {
            "executors": len(self._executors),
            "drivers": len(self._drivers),
            "stimuli": self._core_loop.stimulus_count,
            "slices": self._core_loop.slice_count,
            "core_s": self._core_loop.busy_s,
            "problems": dict(self._problems),
        }


def scheduler_plugin(config: Config, worker_plugin: Any, nanny_plugin: Any, seed: int | None = None) -> FlowkitSchedulerPlugin:
    """The plugin, with those it hands to workers and nannies."""
    return FlowkitSchedulerPlugin(config, dumps(worker_plugin), dumps(nanny_plugin), seed)
