"""A driver's link to flowkit in a Dask cluster: ``abc.ClusterLink`` over one connection to the scheduler.

Runs in the driver. Public methods from any thread but the client's event loop; what the scheduler says is heard on that
loop, results and outcomes are handed over on one thread of the link's own.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Self, assert_never

import msgspec
from distributed import Client
from distributed.comm import Comm
from distributed.deploy.cluster import Cluster

from flowkit import errors
from flowkit.cluster import dask_internals
from flowkit.cluster.deliveries import Deliveries
from flowkit.cluster.executor_calls import ExecutorCalls
from flowkit.cluster.installation import install
from flowkit.cluster.job_handles import OnResult, SubmittedJob
from flowkit.cluster.links import Link
from flowkit.cluster.listening import Listening, Sink
from flowkit.cluster.problems import describe_problems
from flowkit.cluster.put_contents import PutContents
from flowkit.cluster.salvage import EVENT, salvage_to_driver
from flowkit.cluster.scaling import Scaling
from flowkit.cluster.settled import differences
from flowkit.cluster.targets import client_of
from flowkit.cluster.wire import (
    OPEN_DRIVER,
    DriverHello,
    EventsPublished,
    ExecutorSummary,
    FromDriver,
    Refused,
    ToDriver,
    Welcome,
    WorkerProblem,
    decode_to_driver,
    decode_welcome,
    encode,
    own_versions,
)
from flowkit.config import Config
from flowkit.execution.forks import call_in_forks
from flowkit.logs import logger_of
from flowkit.model.events import Event, ExecutorAdded, ExecutorRemoved, JobEnd, RddUnpersisted
from flowkit.model.ids import (
    AppId,
    ContentId,
    ExecutorId,
    JobId,
    RddId,
    ShuffleId,
    executor_address,
)
from flowkit.model.job_spec import INLINE_LIMIT_BYTES, Content, JobSpec
from flowkit.model.task import InlineResult
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti
from flowkit.storage.content import content_id
from flowkit.storage.host_directory import DriverDirectory

logger = logger_of("flowkit.cluster")

call_in_forks(dask_internals.disown_in_fork)

WELCOME_LIMIT_S = 60.0
"""The scheduler answers when its workers have loaded flowkit, or after its own, shorter limit."""
BACKLOG_WAIT_S = 30.0
FAREWELL_LIMIT_S = 2.0
RETRY_FIRST_S, RETRY_LIMIT_S = 0.05, 2.0
BACKLOG_BYTES = 64 << 20
"""A driver whose submissions the scheduler has not taken in waits before it submits more."""

#: messages without which no job is waited for in vain
_NOT_OF_JOBS = frozenset({EVENT, "ScaleTo", "CloseExecutors", "Problem"})
_OWN_EVENTS = frozenset({ExecutorAdded, ExecutorRemoved, RddUnpersisted})


class ClientLink:
    """``abc.ClusterLink`` over Dask; make it with ``ClientLink.connect``."""

    def __init__(self, target: str | Client | Cluster, *, name: str, config: Config) -> None:
        self._target = target
        self._name = name
        self._config = config
        self._app = AppId(f"app-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(8)}")
        self._directory = DriverDirectory(self._app, config.local_directory)
        own = DriverDirectory(self._app, config.local_directory, of_its_own=True)
        self._contents = PutContents(self._directory, own, self._known_executors, self._send_content)
        #: guards ``_executors`` and ``_lost``, and tells of their changes
        self._condition = threading.Condition()
        self._executors: dict[ExecutorId, ExecutorSummary] = {}
        self._problems: dict[str, str] = {}
        self._lost: errors.ClusterError | None = None
        #: jobs that were under way when it was lost
        self._lost_jobs: tuple[JobId, ...] = ()
        #: who merges updates of accumulators
        self._updates_sink: Callable[[bytes], None] = lambda _: None
        self._listening = Listening()
        self._unpersisting: dict[RddId, threading.Event] = {}
        #: what to send, from any thread, in order; encoded already
        self._outbox: deque[bytes] = deque()
        self._scaling: Scaling | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = threading.Lock()
        self._closed = False

    def _start(self, target: str | Client | Cluster, timeout_s: float | None = None) -> None:
        """A session over a new connection, made in so many seconds; None: as Dask has it."""
        client, own_client = client_of(target, timeout_s)
        try:
            install(client, self._config)
            self._client, self._own_client = client, own_client
            self._scheduler_id = dask_internals.known_scheduler_id(client)
            self._loop = dask_internals.client_loop(client)
            self._link = Link(f"scheduler of {self._app}", self._hear, self._disconnected)
            self._calls = ExecutorCalls(client, self._app)
            self._deliveries = Deliveries(self._app, self._calls, lambda message: self._link.send(encode([message])), self._loop)
            self._deliveries.updates_sink = self._updates_sink
            self._run(self._open())
        except BaseException:
            if own_client:
                client.close()
            raise
        self._deliveries.start()
        self._offer_scaling(target if isinstance(target, Cluster) else client.cluster)

    @property
    def address(self) -> str:
        """The scheduler's."""
        return str(self._client.scheduler.address)

    @property
    def is_lost(self) -> bool:
        """Whether its session is gone, so that nothing runs before ``reopen``."""
        return self._lost is not None

    @property
    def executors(self) -> tuple[ExecutorSummary, ...]:
        """Those that are known now."""
        with self._condition:
            return tuple(self._executors.values())

    def __repr__(self) -> str:
        state = "closed" if self._closed else "lost" if self._lost is not None else f"{len(self._executors)} executors"
        return f"<ClientLink {self._app}: {state}>"

    @classmethod
    def connect(cls, target: str | Client | Cluster, *, name: str = "", config: Config | None = None) -> ClientLink:
        """Open a session on the cluster at an address, of a client, or given as a Dask cluster object.

        A client handed in is used and left open; otherwise the link has one of its own, closed with it.

        Raises
        ------
        errors.ClusterError
            The cluster cannot be reached, or lacks flowkit.
        errors.VersionMismatch
            It has other versions; both are named.
        errors.InvalidArgument
            The client is an asynchronous one.
        """
        link = cls(target, name=name, config=config or Config())
        link._start(target)
        return link

    def reopen(self, target: str | Client | Cluster | None = None, *, timeout_s: float = 60.0) -> tuple[JobId, ...]:
        """Begin the session anew where it was lost, or at another cluster; returns the jobs that were lost with it.

        What the driver has put is put again when it is needed. Nothing else of the old session is there any more.

        Raises
        ------
        errors.ClusterError, errors.VersionMismatch
            As of ``connect``, when no scheduler took it within ``timeout_s``.
        """
        with self._closing:
            if self._closed:
                raise errors.ApplicationLost(f"application {self._app} is closed", app=self._app, reason="closed")
            if self._lost is None and self._link.connected and target is None:
                return ()
            self._abandon()
            self._target = self._target if target is None else target
            deadline = time.monotonic() + timeout_s
            pause_s, wait = RETRY_FIRST_S, threading.Event().wait
            while True:
                try:
                    self._start(self._target, max(1.0, deadline - time.monotonic()))
                except errors.VersionMismatch:
                    raise
                except (errors.ClusterError, OSError, TimeoutError) as error:
                    if time.monotonic() + pause_s > deadline:
                        raise errors.ClusterError(
                            f"no scheduler at {self._target!r} took application {self._app} within {timeout_s:g} s: {error}",
                            address=str(self._target),
                        ) from error
                    wait(pause_s)
                    pause_s = min(RETRY_LIMIT_S, pause_s * 2)
                else:
                    break
            with self._condition:
                self._lost = None
            lost, self._lost_jobs = self._lost_jobs, ()
            return lost

    def _abandon(self) -> None:
        """Let go of a session and its connection."""
        if self._loop.is_running():
            self._run(self._give_up())
        if self._scaling is not None:
            self._scaling.close()
            self._scaling = None
        self._deliveries.close(self._lost or errors.ApplicationLost(f"application {self._app} is lost", app=self._app, reason=""))
        self._outbox.clear()
        self._contents.leave()
        with self._condition:
            self._executors = {}
        if self._own_client:
            self._client.close()

    # -- abc.ClusterLink -------------------------------------------------------------------------------------------

    @property
    def app(self) -> AppId:
        """The id of this session."""
        return self._app

    @property
    def client(self) -> Client:
        """The Dask client beneath."""
        return self._client

    @property
    def slots(self) -> int:
        """Task slots of all executors now; waits for the first."""
        with self._condition:
            self._wait_for_executor()
            return sum(executor.slots for executor in self._executors.values())

    def hold_directories(self) -> None:
        """Hold the application's directories on this host, whose executors end with this process: what is left goes when nobody holds it.

        Raises
        ------
        errors.ClusterError
            It cannot be had. The link is closed then.
        """
        try:
            self._directory.hold(self._config.block_directories)
        except BaseException:
            self.close()
            raise

    def put_content(self, data: bytes) -> Content:
        """Make bytes readable by every executor; see ``abc.ClusterLink``."""
        name = content_id(data)
        if len(data) <= INLINE_LIMIT_BYTES:
            return Content(name, len(data), inline=data)
        self._check_alive()
        return self._contents.put(name, data)

    def retain_content(self, content: Content) -> None:
        """One more who needs it; see ``abc.ClusterLink``."""
        if content.inline is None:
            self._contents.retain(content.id)

    def release_contents(self, contents: Sequence[ContentId]) -> None:
        """As many who need them no more; see ``abc.ClusterLink``."""
        unneeded = self._contents.release(contents)
        if unneeded and not self._closed:
            self._say(sti.ContentsReleased(self._app, unneeded))

    def recall_content(self, content: Content) -> Content:
        """Drop its copies on the cluster; see ``abc.ClusterLink``."""
        if content.inline is not None:
            return content
        self._contents.leave(content.id)
        if not self._closed:
            self._say(sti.ContentsReleased(self._app, (content.id,)))
        return Content(content.id, content.size_bytes)

    def submit(self, spec: JobSpec, on_result: OnResult) -> SubmittedJob:
        """Start a job; see ``abc.ClusterLink``."""
        self._check_alive()
        if self._link.waiting_bytes > BACKLOG_BYTES:
            self._run(self._link.wait_acknowledged(BACKLOG_WAIT_S))
        job = SubmittedJob(spec, on_result, self._cancel)
        body = encode([sti.JobSubmitted(spec)])
        self._deliveries.add(job)
        self._post(body)
        # Lost between the check and the entry: nobody else would tell the job.
        if self._lost is not None:
            job.fail(self._lost)
        return job

    def unpersist(self, rdd: RddId, *, blocking: bool) -> None:
        """Drop cached partitions; see ``abc.ClusterLink``."""
        done = self._unpersisting.setdefault(rdd, threading.Event()) if blocking else None
        self._say(sti.RddUnpersistRequested(self._app, rdd))
        if done is not None:
            self._check_alive()
            if not done.wait(self._config.no_executor_timeout_s):
                raise TimeoutError(f"RDD {rdd} was not dropped within {self._config.no_executor_timeout_s:g} s")

    def release_shuffle(self, shuffle: ShuffleId) -> None:
        """Nobody refers to a shuffle any more. Takes no lock, so a garbage collector may call it anywhere."""
        if not self._closed:
            self._say(sti.ShuffleReleased(self._app, shuffle))

    def subscribe(self, sink: Sink) -> None:
        """Hand every batch of events to ``sink``, on the event loop; see ``abc.ClusterLink``."""
        self._loop.call_soon_threadsafe(self._listening.add, sink)

    def hear_updates(self, sink: Callable[[bytes], None]) -> None:
        """Hand on updates of accumulators, on the thread that hands over results; see ``abc.ClusterLink``."""
        self._updates_sink = self._deliveries.updates_sink = sink

    def close(self) -> None:
        """End the session: jobs, files, blocks. Idempotent, and harmless when the cluster is gone."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        try:
            if self._loop.is_running():
                self._run(self._farewell())
        finally:
            if self._scaling is not None:
                self._scaling.close()
            self._deliveries.close(errors.JobCancelled("the session was closed", reason="the session was closed"))
            self._contents.close()
            self._directory.close()
            if self._own_client:
                self._client.close()

    def disown(self) -> None:
        """Be closed, in a fork of the driver: the connection is its parent's, and who waits for an answer here would do so for ever."""
        self._closed = True
        self._condition = threading.Condition()
        self._outbox.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- connection ------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        comm, answer = await self._greet()
        if isinstance(answer, Refused):
            comm.abort()
            raise getattr(errors, answer.kind, errors.ClusterError)(answer.message)
        if not answer.executors and answer.problems:
            # Say farewell, or the session would wait for its lease to run out.
            self._link.attach(comm)
            self._link.send(encode([sti.ApplicationClosed(self._app, "no executor could start")]))
            await self._link.wait_acknowledged(FAREWELL_LIMIT_S)
            self._link.close()
            raise errors.ClusterError(describe_problems(answer.problems), problems=answer.problems)
        if answer.problems:
            logger.warning("%s", describe_problems(answer.problems))
        if unheeded := differences(self._config, answer.settings):
            logger.warning(
                "the scheduler was configured by the first driver of this cluster; what this one asked for is not heeded: %s",
                unheeded,
            )
        self._calls.secret, self._problems = answer.secret, answer.problems
        self._executors = {executor.executor: executor for executor in answer.executors}
        self._link.attach(comm)
        self._start_task(self._renew_lease())

    def _offer_scaling(self, cluster: Any) -> None:
        """Let the scheduler have workers made and closed, if that was asked for and there is a cluster object that does it."""
        if self._config.allocation == "off":
            return
        if cluster is None or not dask_internals.can_scale(cluster):
            logger.warning(
                "allocation = %r changes nothing: %s",
                self._config.allocation,
                "this Context was given no Dask cluster object, only its address"
                if cluster is None
                else f"{cluster!r} scales itself",
            )
            return
        self._scaling = Scaling(cluster, self._client)
        self._scaling.start()
        self._say(sti.ScalingOffered(self._app, self._scaling.count))

    async def _greet(self) -> tuple[Comm, Welcome | Refused]:
        hello = DriverHello(own_versions(), self._app, self._name, self._config.lease_s, self._calls.secret)
        comm = await dask_internals.open_connection(
            self._client.scheduler.address,
            self._client.connection_args,
            OPEN_DRIVER,
            timeout_s=WELCOME_LIMIT_S,
            hello=encode(hello),
        )
        try:
            return comm, decode_welcome(await asyncio.wait_for(comm.read(), WELCOME_LIMIT_S))
        except BaseException:
            comm.abort()
            raise

    def _disconnected(self) -> None:
        if not self._closed:
            self._start_task(self._reconnect())

    async def _reconnect(self) -> None:
        """Come back to the session while its lease may still hold."""
        deadline = time.monotonic() + self._config.lease_s
        pause_s = RETRY_FIRST_S
        reason = "the connection to the scheduler broke and did not come back before the lease ran out"
        while not self._closed and time.monotonic() < deadline:
            if self._client.status == "closed":
                reason = "the Dask client was closed"
                break
            try:
                # Asked first: a scheduler without flowkit would not answer the greeting.
                found = await dask_internals.scheduler_id(self._client.scheduler.address, self._client.connection_args)
                if found != self._scheduler_id:
                    reason = "the scheduler was started again, and knows nothing of it"
                    break
                comm, answer = await self._greet()
            except (OSError, TimeoutError) as error:
                logger.info("%s cannot reach the scheduler: %s", self._app, error)
                await asyncio.sleep(pause_s)
                pause_s = min(RETRY_LIMIT_S, pause_s * 2)
                continue
            if isinstance(answer, Refused):
                comm.abort()
                reason = answer.message
                break
            with self._condition:
                self._executors = {executor.executor: executor for executor in answer.executors}
                self._problems = answer.problems
                self._condition.notify_all()
            self._link.attach(comm)
            return
        if not self._closed:
            self._lose(reason)

    async def _renew_lease(self) -> None:
        while True:
            await asyncio.sleep(self._config.lease_s / 4)
            if self._link.connected:
                self._link.send(encode([sti.LeaseRenewed(self._app)]))

    async def _give_up(self) -> None:
        """Nobody waits for the session any more; a scheduler that is still there is told so."""
        connected = self._lost is None and self._link.connected
        if connected:
            self._flush()
            self._link.send(encode([sti.ApplicationClosed(self._app, "its driver began anew elsewhere")]))
        self._note_loss("its driver began anew")
        if connected:
            await self._link.wait_acknowledged(FAREWELL_LIMIT_S)
        await self._farewell()

    async def _farewell(self) -> None:
        self._deliveries.stop_fetching()
        for task in self._tasks:
            task.cancel()
        if self._lost is None:
            self._flush()
            self._link.send(encode([sti.ApplicationClosed(self._app, "closed by its driver")]))
            if self._link.connected:
                await self._link.wait_acknowledged(FAREWELL_LIMIT_S)
        self._link.close()

    def _lose(self, reason: str) -> None:
        """The session is over without our doing."""
        self._note_loss(reason)
        self._link.close()

    def _note_loss(self, reason: str) -> None:
        """Its jobs fail, and listeners hear what nobody else will tell them. Once."""
        error = errors.ApplicationLost(f"application {self._app} is lost: {reason}", app=self._app, reason=reason)
        with self._condition:
            if self._lost is not None:
                return
            self._lost = error
            self._lost_jobs = self._deliveries.jobs
            executors, self._executors = self._executors, {}
            self._condition.notify_all()
        # Nobody else says it.
        now = time.time()
        ended: list[Event] = [
            *(JobEnd(time=now, app=self._app, job=job, outcome="failed", reason=str(error)) for job in self._lost_jobs),
            *(ExecutorRemoved(time=now, executor=each.executor, host=each.host, reason=reason) for each in executors.values()),
        ]
        self._listening.tell(ended)
        for done in self._unpersisting.values():
            done.set()
        self._deliveries.fail_all(error)

    def _check_alive(self) -> None:
        if self._lost is not None:
            raise self._lost
        if self._closed:
            raise errors.ApplicationLost(f"application {self._app} is closed", app=self._app, reason="closed")

    # -- saying ----------------------------------------------------------------------------------------------------

    def _say(self, message: FromDriver) -> None:
        self._post(encode([message]))

    def _post(self, body: bytes) -> None:
        self._outbox.append(body)
        try:
            self._loop.call_soon_threadsafe(self._flush)
        except RuntimeError:
            logger.debug("the client's loop is closed; nothing can be said any more")

    def _flush(self) -> None:
        while self._outbox:
            self._link.send(self._outbox.popleft())

    def _cancel(self, job: JobId, reason: str) -> None:
        self._say(sti.JobCancelRequested(self._app, job, reason))

    # -- hearing (event loop) --------------------------------------------------------------------------------------

    def _hear(self, body: bytes) -> None:
        #: results small enough to have come along, handed on together: one wake-up of the other thread, not one each
        small: list[act.DeliverResult] = []
        for message in self._read(body):
            if type(message) is act.DeliverResult and type(message.result) is InlineResult:
                small.append(message)
                continue
            if small:
                self._deliveries.take_small(small)
                small = []
            match message:
                case EventsPublished():
                    self._hear_events(message)
                case act.DeliverResult():
                    self._deliveries.take_large(message)
                case act.DeliverAccumulated(data=data):
                    self._deliveries.take_updates(data)
                case act.JobSucceeded():
                    self._deliveries.succeeded(message)
                case act.JobFailed():
                    self._deliveries.failed(message)
                case act.ScaleTo(count=count):
                    if self._scaling is not None:
                        self._scaling.to(count)
                case act.CloseExecutors(executors=executors):
                    if self._scaling is not None:
                        self._scaling.end([executor_address(executor) for executor in executors])
                case act.RequestContent():
                    self._loop.run_in_executor(None, self._put_again, message.content)
                case act.ApplicationExpired():
                    self._lose(message.reason)
                case WorkerProblem(address=address, reason=reason):
                    self._problems[address] = reason
                    logger.warning("%s", describe_problems({address: reason}))
                case _:
                    assert_never(message)
        if small:
            self._deliveries.take_small(small)

    def _read(self, body: bytes) -> Sequence[ToDriver]:
        """The messages in it; jobs of those that cannot be read fail, or they would be waited for in vain."""
        try:
            return decode_to_driver(body)
        except msgspec.DecodeError:
            found, unread = salvage_to_driver(body)
        for each in unread:
            logger.error("what the scheduler told %s cannot be read: %s", self._app, each.complaint)
            if each.kind in _NOT_OF_JOBS:
                continue
            reason = f"what the scheduler told of this job cannot be read: {each.complaint}"
            for job in self._deliveries.jobs if each.job is None else (JobId(each.job),):
                self._deliveries.failed(act.JobFailed(self._app, job, "InternalError", reason))
                self._cancel(job, reason)
        return found

    def _hear_events(self, batch: EventsPublished) -> None:
        if batch.dropped:
            logger.warning("this driver lags behind: %d events were lost", batch.dropped)
        for event in batch.events:
            # Nearly all are about tasks: passed on without a look.
            if type(event) not in _OWN_EVENTS:
                continue
            match event:
                case ExecutorAdded():
                    with self._condition:
                        self._executors[event.executor] = ExecutorSummary(event.executor, event.host, event.slots)
                        self._problems.pop(executor_address(event.executor), None)
                        self._condition.notify_all()
                case ExecutorRemoved():
                    with self._condition:
                        self._executors.pop(event.executor, None)
                case RddUnpersisted():
                    if (done := self._unpersisting.pop(event.rdd, None)) is not None:
                        done.set()
                case _:
                    pass
        self._listening.tell(batch.events)

    # -- content ---------------------------------------------------------------------------------------------------

    def _known_executors(self) -> list[ExecutorSummary]:
        with self._condition:
            self._wait_for_executor()
            return list(self._executors.values())

    def _send_content(self, executor: ExecutorId, name: ContentId, data: bytes) -> None:
        self._run(self._calls.put_content(executor, name, data))

    def _put_again(self, name: ContentId) -> None:
        try:
            self._say(sti.ContentPut(self._app, name, self._contents.put_again(name)))
        except BaseException:
            logger.exception("content %s could not be put again", name)

    # -- help ------------------------------------------------------------------------------------------------------

    def _wait_for_executor(self) -> None:
        """With the condition held."""
        timeout_s = self._config.no_executor_timeout_s
        self._condition.wait_for(lambda: self._executors or self._lost is not None or self._closed, timeout_s)
        self._check_alive()
        if not self._executors:
            why = describe_problems(dict(self._problems))
            raise errors.ClusterError(
                f"no executor within {timeout_s:g} s{': ' + why if why else '; does the cluster have workers?'}"
            )

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the client's loop and wait."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            work.close()
            raise errors.NestedAction(
                "this call waits for the cluster, so it cannot be made on the cluster client's own event loop"
            )
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the link of %s failed", self._app, exc_info=error)
            self._lose(f"{type(error).__name__}: {error}")
