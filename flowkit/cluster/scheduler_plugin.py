"""flowkit in the Dask scheduler: translates connections, membership and time into stimuli, and actions into messages.

Runs in the scheduler process, on its event loop. Nothing here decides about tasks (``scheduling.core`` does), nothing
unpickles, and nothing raises into Dask: a failure is logged and ends what it concerns.
"""

from __future__ import annotations

import asyncio
import math
import random
import secrets
from collections.abc import Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import Any, assert_never

import msgspec
from distributed import Scheduler
from distributed.comm import Comm
from distributed.diagnostics.plugin import SchedulerPlugin

from flowkit.cluster import dask_internals, garbage
from flowkit.cluster.core_loop import CoreLoop, SteadyClock
from flowkit.cluster.losses import Loss
from flowkit.cluster.membership import LINGER_S, Membership
from flowkit.cluster.peers import EVENT_BATCH_S, DriverPeer, ExecutorPeer
from flowkit.cluster.problems import describe_problems
from flowkit.cluster.requests import RelayAsked, checked
from flowkit.cluster.salvage import salvage_from_driver, salvage_from_executor
from flowkit.cluster.wire import (
    EXAMINE,
    OPEN_DRIVER,
    OPEN_EXECUTOR,
    PLUGIN_NAME,
    RELAY,
    RELAYED,
    SHUTDOWN_TOPIC,
    ExecutorSummary,
    Farewell,
    FromDriver,
    FromExecutor,
    ProcessReplaced,
    Refused,
    Welcome,
    WorkerProblem,
    check_protocol,
    decode_driver_hello,
    decode_executor_hello,
    decode_from_driver,
    decode_from_executor,
    encode,
    is_secret,
    own_versions,
    version_complaint,
)
from flowkit.config import Config
from flowkit.errors import ConfigError
from flowkit.logs import logger_of
from flowkit.model.events import JobEnd, JobStart
from flowkit.model.ids import AppId, ExecutorId, JobId, executor_address
from flowkit.model.shown import in_words
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti

logger = logger_of("flowkit.cluster")

INSTALL_LIMIT_S = 15.0
"""A worker that does not take the plugin within this time does not keep a driver from starting."""

_JOB_EVENTS = frozenset({JobStart, JobEnd})


def _kind(error: msgspec.DecodeError) -> str:
    """What a greeting is refused with: the form it has is another flowkit's, or what it says is out of range."""
    return "ClusterError" if isinstance(error, msgspec.ValidationError) else "VersionMismatch"


class FlowkitSchedulerPlugin(SchedulerPlugin):
    """The plugin of one protocol version; a second one of the same version finds the first and stays passive.

    ``worker_plugin`` and ``nanny_plugin`` are pickles for workers and nannies: this process does not import what is in them. ``settled`` are the
    settings of both, as texts, for drivers that come later and may have asked for others.
    """

    name = PLUGIN_NAME
    idempotent = True

    def __init__(
        self,
        protocol: int,
        config: Config,
        worker_plugin: bytes,
        nanny_plugin: bytes,
        settled: Mapping[str, str] = MappingProxyType({}),
        seed: int | None = None,
    ) -> None:
        check_protocol(protocol, "the scheduler", "the driver")
        self._config = config
        self._worker_plugin = worker_plugin
        self._nanny_plugin = nanny_plugin
        self._settings = dict(settled)
        self._seed = seed
        self._active = False

    async def start(self, scheduler: Scheduler) -> None:
        """Begin, unless another of this version has."""
        if dask_internals.has_scheduler_handler(scheduler, OPEN_DRIVER):
            return
        # From here to the end without an await: two drivers may register at once.
        from flowkit.cluster.extensions import with_policies
        from flowkit.scheduling.core import SchedulerCore

        try:
            config = with_policies(self._config)
        except KeyboardInterrupt as error:  # no Ctrl-C, of which a signal's handler tells the event loop: it would end that
            raise ConfigError(f"a policy could not be made: {in_words(error)}") from None
        self._active = True
        self._scheduler = scheduler
        self._id = f"scheduler-{secrets.token_hex(8)}"
        self._loop = asyncio.get_running_loop()
        seed = random.SystemRandom().getrandbits(32) if self._seed is None else self._seed
        self._core = SchedulerCore(config, seed=seed)
        self._core_loop = CoreLoop(
            self._core,
            perform=self._perform,
            settled=self._settled,
            failed=self._core_failed,
            clock=SteadyClock(),
            loop=self._loop,
        )
        self._executors = Membership(scheduler, self._core_loop.submit)
        self._drivers: dict[AppId, DriverPeer] = {}
        #: what to flush when the slice is over
        self._spoken_to: list[ExecutorPeer] = []
        self._urgent: set[AppId] = set()
        self._flush_timer: asyncio.TimerHandle | None = None
        self._awake_timer: asyncio.TimerHandle | None = None
        self._running_jobs: set[tuple[AppId, JobId]] = set()
        self._background: set[asyncio.Task[None]] = set()
        #: executors whose processes are being looked at
        self._examined: set[ExecutorId] = set()
        #: workers on which flowkit could not start, and why
        self._problems: dict[str, str] = {}
        self._installation: asyncio.Task[None] | None = None
        dask_internals.add_scheduler_handler(scheduler, OPEN_DRIVER, self.open_driver)
        dask_internals.add_scheduler_handler(scheduler, OPEN_EXECUTOR, self.open_executor)
        dask_internals.add_scheduler_handler(scheduler, RELAY, self.relay)
        dask_internals.extend_adaptive_target(scheduler, self._needed_workers)
        garbage.spare_what_stays(scheduler)

    async def before_close(self) -> None:
        """Tell drivers, so that they need not wait for a scheduler that does not come back."""
        if self._active and self._drivers:
            links = [driver.link for driver in self._drivers.values()]
            self._end_sessions("the scheduler closed")
            await asyncio.gather(*(link.wait_acknowledged(LINGER_S) for link in links))

    async def close(self) -> None:
        """Stop with the scheduler."""
        if not self._active:
            return
        self._active = False
        for name in (OPEN_DRIVER, OPEN_EXECUTOR, RELAY):
            dask_internals.remove_scheduler_handler(self._scheduler, name)
        self._core_loop.close()
        for timer in (self._flush_timer, self._awake_timer):
            if timer is not None:
                timer.cancel()
        for task in self._background:
            task.cancel()
        self._executors.close()
        for driver in self._drivers.values():
            driver.link.close()

    # -- drivers ---------------------------------------------------------------------------------------------------

    async def open_driver(self, comm: Comm, hello: bytes) -> Any:
        """A driver's connection, kept as long as it stands."""
        if self._installation is None:
            self._installation = self._in_background(self._install())
        await asyncio.wait([self._installation], timeout=INSTALL_LIMIT_S)
        answer, driver = self._admit_driver(hello)
        await comm.write(encode(answer))
        if driver is not None:
            driver.link.attach(comm)
            await driver.link.wait_detached()
        return dask_internals.KEEP_CONNECTION

    async def _install(self) -> None:
        try:
            problems = await dask_internals.install_on_workers(
                self._scheduler, PLUGIN_NAME, self._worker_plugin, self._nanny_plugin
            )
        except Exception as error:
            logger.exception("flowkit could not be installed on the workers")
            problems = {"all workers": f"{type(error).__name__}: {error}"}
        self._problems.update(problems)

    def _admit_driver(self, hello: bytes) -> tuple[Welcome | Refused, DriverPeer | None]:
        try:
            request = decode_driver_hello(hello)
        except msgspec.DecodeError as error:
            return Refused(_kind(error), f"the scheduler cannot read this driver's greeting: {error}"), None
        known = self._drivers.get(request.app)
        if request.secret:
            if known is None or not is_secret(request.secret, known.secret):
                return Refused(
                    "ApplicationLost", "the scheduler does not know this session: it restarted, or the lease ran out"
                ), None
            self._core_loop.submit(sti.LeaseRenewed(request.app))
            return self._welcome(known.secret), known
        if known is not None:
            return Refused("ClusterError", f"application {request.app} is open already"), None
        complaint = version_complaint("the driver", request.versions, "the scheduler", own_versions(), programs=False)
        for executor in self._executors:
            there = f"the executor at {executor.address}"
            complaint = complaint or version_complaint("the driver", request.versions, there, executor.versions)
        if complaint is not None:
            return Refused("VersionMismatch", complaint), None
        secret = secrets.token_hex(16)
        driver = DriverPeer(request.app, request.name, secret, request.versions, lambda body: self._hear_driver(driver, body))
        welcome = self._welcome(secret)
        self._drivers[request.app] = driver
        for executor in self._executors:
            executor.admit(request.app, secret)
        self._core_loop.submit(sti.ApplicationOpened(request.app, request.name, request.versions.flowkit, request.lease_s))
        return welcome, driver

    def _welcome(self, secret: str) -> Welcome:
        ready = tuple(ExecutorSummary(e.executor, e.host, e.slots) for e in self._executors if e.ready)
        return Welcome(self._id, secret, ready, dict(self._problems), self._settings)

    def _hear_driver(self, driver: DriverPeer, body: bytes) -> None:
        for message in self._read_driver(driver, body):
            app = message.spec.app if isinstance(message, sti.JobSubmitted) else message.app
            if app != driver.app:
                logger.warning("driver %s spoke for application %s: ignored", driver.app, app)
                continue
            self._core_loop.submit(message)
            if isinstance(message, sti.ApplicationClosed):
                self._end_session(driver)

    def _read_driver(self, driver: DriverPeer, body: bytes) -> Sequence[FromDriver]:
        try:
            return decode_from_driver(body)
        except msgspec.DecodeError:
            found, unread = salvage_from_driver(body)
        for each in unread:
            logger.error("what driver %s said cannot be read: %s", driver.app, each.complaint)
            if each.job is not None:
                reason = f"the scheduler cannot read what the driver said of this job: {each.complaint}"
                driver.tell(act.JobFailed(driver.app, JobId(each.job), "InternalError", reason))
                driver.flush()
        return found

    def _end_sessions(self, reason: str) -> None:
        """Everybody hears that it is over; executors are told to drop what applications left."""
        for driver in list(self._drivers.values()):
            self._expel(driver, reason)

    def _expel(self, driver: DriverPeer, reason: str) -> None:
        driver.tell(act.ApplicationExpired(driver.app, reason))
        driver.flush()
        self._core_loop.submit(sti.ApplicationClosed(driver.app, reason))
        self._end_session(driver)

    def _end_session(self, driver: DriverPeer) -> None:
        self._drivers.pop(driver.app, None)
        self._running_jobs = {job for job in self._running_jobs if job[0] != driver.app}
        for executor in self._executors:
            executor.forget(driver.app)
        # What was just said to it, and the acknowledgement of what it said, still have to go.
        self._loop.call_later(LINGER_S, driver.link.close)

    async def relay(self, app: object, secret: object, address: str, requested: str, arguments: dict[str, Any]) -> Any:
        """Ask an executor on behalf of a driver that cannot reach it; one chunk at a time."""
        if not isinstance(app, str) or (driver := self._drivers.get(AppId(app))) is None or not is_secret(secret, driver.secret):
            raise PermissionError(
                f"nothing is relayed for application {app!r:.100}: it is not known, or its secret was not shown"
            )
        asked = checked(RelayAsked, app=app, address=address, requested=requested, arguments=arguments)
        if asked.requested not in RELAYED or asked.arguments.keys() & {"app", "secret"}:
            raise PermissionError(f"{requested!r:.100} is not relayed for application {app}")
        if self._executors.at(address) is None:
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
            self._executors.link_lost(executor)
        return dask_internals.KEEP_CONNECTION

    def _admit_executor(self, hello: bytes) -> tuple[Welcome | Refused, ExecutorPeer | None]:
        try:
            request = decode_executor_hello(hello)
        except msgspec.DecodeError as error:
            return Refused(_kind(error), f"the scheduler cannot read this executor's greeting: {error}"), None
        if request.resume:
            known = self._executors.get(request.executor)
            if known is None or request.resume != self._id:
                return Refused("ClusterError", f"{request.executor} was given up by the scheduler"), None
            return Welcome(self._id), known
        address = executor_address(request.executor)
        if address not in self._scheduler.workers:
            return Refused("ClusterError", f"no worker at {address} is registered"), None
        here = f"the executor at {address}"
        if request.problem:
            self._note_problem(address, request.problem)
            return Refused("ClusterError", request.problem), None
        complaint = version_complaint(here, request.versions, "the scheduler", own_versions(), programs=False)
        for driver in list(self._drivers.values()):
            mismatch = version_complaint(here, request.versions, "the driver", driver.versions)
            if mismatch is not None and len(self._executors):
                complaint = complaint or mismatch
            elif mismatch is not None:
                # The first executor since the driver came: the cluster is not what that driver needs.
                self._expel(driver, mismatch)
        if complaint is not None:
            self._problems[address] = complaint
            return Refused("VersionMismatch", complaint), None
        self._problems.pop(address, None)
        executor = ExecutorPeer(request.executor, address, request.versions, lambda body: self._hear_executor(executor, body))
        self._executors.add(executor)
        for driver in self._drivers.values():
            executor.admit(driver.app, driver.secret)
        return Welcome(self._id), executor

    def _note_problem(self, address: str, reason: str) -> None:
        """A worker has no executor: drivers hear of it, for theirs may be the wait in vain."""
        self._problems[address] = reason
        for driver in self._drivers.values():
            driver.link.send(encode([WorkerProblem(address, reason)]))

    def _read_executor(self, executor: ExecutorPeer, body: bytes) -> Sequence[FromExecutor]:
        try:
            return decode_from_executor(body)
        except msgspec.DecodeError:
            found, unread = salvage_from_executor(body)
        for each in unread:
            logger.error("what executor %s said cannot be read: %s", executor.executor, each.complaint)
            if each.kind != "Heartbeat":
                # Perhaps how a task ended: nobody would say it again, so it is taken for lost with its executor.
                reason = f"what worker {executor.address} said cannot be read: {each.complaint}"
                self._loop.call_soon(self._executors.lose, executor, Loss(reason, task_caused=True))  # after what can be read
        return found

    def _hear_executor(self, executor: ExecutorPeer, body: bytes) -> None:
        for message in self._read_executor(executor, body):
            if message.executor != executor.executor or executor.lost:
                logger.debug("executor %s is not heard: %s", executor.executor, type(message).__name__)
                continue
            match message:
                case sti.TasksReported():
                    executor.note(message.reports)
                case sti.ExecutorReady():
                    executor.host, executor.slots, executor.ready = message.host, message.slots, True
                    self._executors.ready(executor)
                case sti.SlotsChanged():
                    executor.slots = message.slots
                case ProcessReplaced():
                    reason = f"worker {executor.address} replaces its process: {message.reason}"
                    self._executors.lose(executor, Loss(reason, task_caused=False))
                    continue
                case Farewell():
                    reason = f"worker {executor.address} left the cluster: {message.reason}"
                    self._executors.lose(executor, Loss(reason, task_caused=False))
                    continue
                case (
                    sti.Heartbeat()
                    | sti.BlocksEvicted()
                    | sti.BlocksMoved()
                    | sti.BlockCopied()
                    | sti.OutputsCopied()
                    | sti.ContentFetched()
                    | sti.CommitRequested()
                    | sti.BarrierReached()
                    | sti.TaskWouldNotStop()
                ):
                    pass
                case _:
                    assert_never(message)
            self._core_loop.submit(message)

    def _expire(self, executor_id: ExecutorId, reason: str) -> None:
        executor = self._executors.get(executor_id)
        if executor is not None:
            self._executors.expire(executor)
        address = executor_address(executor_id)
        self._in_background(dask_internals.restart_worker(self._scheduler, address, f"flowkit: {reason}"))

    def _examine(self, executor: ExecutorId) -> None:
        """One look at a time, of each: those asked for meanwhile are answered by it."""
        if executor not in self._examined:
            self._examined.add(executor)
            self._in_background(self._look_at(executor))

    async def _look_at(self, executor: ExecutorId) -> None:
        address, found = executor_address(executor), sti.Examined(executor)
        try:
            seen = await dask_internals.ask_nanny(
                self._scheduler,
                dask_internals.nanny_address(self._scheduler, address),
                EXAMINE,
                timeout_s=self._config.executor_timeout_s / 4,
                executor=executor,
            )
            found = msgspec.convert({"stimulus": "Examined", "executor": executor, **seen}, sti.Examined)
            if not found.stopped:
                dask_internals.note_sign_of_life(self._scheduler, address)
        except (OSError, TimeoutError, msgspec.ValidationError) as error:
            logger.info("the process of %s cannot be looked at: %s: %s", executor, type(error).__name__, error)
        finally:
            self._examined.discard(executor)
        self._core_loop.submit(found)

    # -- what Dask tells -------------------------------------------------------------------------------------------

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """Dask lost a worker, or let it go."""
        if self._active:
            self._problems.pop(worker, None)
            self._executors.worker_removed(worker)

    def log_event(self, topic: str, msg: Any) -> None:
        """Dask logged an event."""
        if self._active and isinstance(msg, dict):
            try:
                if topic == SHUTDOWN_TOPIC:
                    self._end_sessions("the cluster closed")
                self._executors.hear_event(topic, msg)
            except Exception:
                logger.exception("an event of Dask's could not be understood: %r", msg)

    def valid_workers_downscaling(self, scheduler: Scheduler, workers: list[Any]) -> list[Any]:
        """Workers that run nothing of ours, and cache nothing, may go."""
        if not self._active:
            return workers
        needed = {
            executor.address for executor in self._executors if executor.in_flight or self._core.is_needed(executor.executor)
        }
        return [worker for worker in workers if worker.address not in needed]

    def _needed_workers(self) -> int:
        """For Dask's adaptive scaling, which does not see our tasks."""
        if not self._active:
            return 0
        slots = [executor.slots for executor in self._executors if executor.ready]
        each = sum(slots) / len(slots) if slots and sum(slots) else 1
        return math.ceil(self._core.needed_slots() / each)

    # -- what the core wants ---------------------------------------------------------------------------------------

    def _perform(self, action: act.Action) -> None:
        match action:
            case act.Publish():
                self._publish(action)
            case act.DeliverResult() | act.DeliverAccumulated():
                self._tell(action, urgent=False)
            case act.JobFailed():
                self._tell(self._with_problems(action), urgent=True)
            case act.JobSucceeded() | act.RequestContent() | act.ScaleTo() | act.CloseExecutors():
                self._tell(action, urgent=True)
            case act.ApplicationExpired():
                self._tell(action, urgent=True)
                if (driver := self._drivers.get(action.app)) is not None:
                    driver.flush()
                    self._end_session(driver)
            case act.Examine():
                self._examine(action.executor)
            case act.ExpireExecutor():
                self._expire(action.executor, action.reason)
            case act.FaultFound():
                if action.story:
                    logger.error("the scheduler core failed:\n%s\nwhat led there:\n%s", action.traceback, action.story)
                else:
                    logger.error("%s", action.traceback)
            case (
                act.Launch()
                | act.DefineStage()
                | act.ForgetStage()
                | act.Recall()
                | act.Kill()
                | act.AnswerCommit()
                | act.AnswerBarrier()
                | act.ReleaseResults()
                | act.DropRdd()
                | act.CopyBlock()
                | act.CopyOutputs()
                | act.MayLeave()
                | act.DropShuffle()
                | act.DropContents()
                | act.DropApplication()
            ):
                executor = self._executors.get(action.executor)
                if executor is not None and executor.queue(action):
                    self._spoken_to.append(executor)
            case _:
                assert_never(action)

    def _with_problems(self, action: act.JobFailed) -> act.JobFailed:
        """Who has nobody left to run on should hear of workers that could have been somebody."""
        if action.kind != "ExecutorsLost" or not self._problems:
            return action
        return msgspec.structs.replace(action, reason=f"{action.reason}; {describe_problems(self._problems)}")

    def _tell(self, action: act.DriverAction, *, urgent: bool) -> None:
        driver = self._drivers.get(action.app)
        if driver is not None:
            driver.tell(action)
            if urgent:
                self._urgent.add(action.app)

    def _publish(self, action: act.Publish) -> None:
        event = action.event
        if type(event) in _JOB_EVENTS:  # nearly all are about tasks
            if isinstance(event, JobStart):
                self._running_jobs.add((event.app, event.job))
                self._stay_awake()
            elif isinstance(event, JobEnd):
                self._running_jobs.discard((event.app, event.job))
        if action.app is None:
            for each in self._drivers.values():
                each.publish(event)
        elif (driver := self._drivers.get(action.app)) is not None:
            driver.publish(event)

    def _settled(self) -> None:
        """After each slice: what was said in it goes out."""
        for executor in self._spoken_to:
            executor.flush()
        self._spoken_to.clear()
        wait = False
        for driver in self._drivers.values():
            if driver.app in self._urgent or driver.is_full:
                driver.flush()
            elif driver.has_waiting:
                wait = True
        self._urgent.clear()
        if wait and self._flush_timer is None:
            self._flush_timer = self._loop.call_later(EVENT_BATCH_S, self._flush_drivers)

    def _flush_drivers(self) -> None:
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

    def _core_failed(self, stimulus: sti.Stimulus, error: BaseException) -> None:
        """The core raised, which is our bug: those concerned hear of it, the streams go on."""
        text = in_words(error)
        match stimulus:
            case sti.JobSubmitted(spec=spec):
                self._fail_job(spec.app, spec.job, text)
            case sti.TasksReported() | sti.ExecutorLost() | sti.CommitRequested():
                # Whose job it was the core can no longer be asked.
                for app, job in list(self._running_jobs):
                    self._fail_job(app, job, text)
            case _:
                logger.error("while handling %r: %s", stimulus, text)

    def _fail_job(self, app: AppId, job: JobId, text: str) -> None:
        self._running_jobs.discard((app, job))
        self._tell(act.JobFailed(app, job, "InternalError", text), urgent=True)
        self._core_loop.submit(sti.JobCancelRequested(app, job, "flowkit's scheduler failed"))

    # -- help ------------------------------------------------------------------------------------------------------

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background_done)
        return task

    def _background_done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("work in the background failed", exc_info=error)

    def statistics(self) -> dict[str, Any]:
        """Counts and times, for people and tests."""
        return {
            "executors": len(self._executors),
            "drivers": len(self._drivers),
            "stimuli": self._core_loop.stimulus_count,
            "slices": self._core_loop.slice_count,
            "busy_s": self._core_loop.busy_s,
            "longest_s": self._core_loop.longest_s,
            "problems": dict(self._problems),
        }
