"""flowkit in a Dask worker: an executor, its connection to the scheduler, and what it serves to others.

Runs in the worker process. Everything of ours happens on the event loop, save the executor's callbacks, which come from
slot threads and only append to a queue.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import secrets
import signal
import socket
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, assert_never

import msgspec
from distributed import Worker
from distributed.comm import Comm
from distributed.diagnostics.plugin import WorkerPlugin

from flowkit.cluster import dask_internals, garbage, slot_record
from flowkit.cluster.block_transport import Admissions, BlockServer, DaskBlockTransport
from flowkit.cluster.discovery import discovered
from flowkit.cluster.extensions import memory_manager, serializers
from flowkit.cluster.links import Link
from flowkit.cluster.machine import host_directory
from flowkit.cluster.requests import ResultAsked, checked
from flowkit.cluster.salvage import salvage_to_executor
from flowkit.cluster.wire import (
    DESCRIBE_CONTENT,
    EMBEDDED_VARIABLE,
    OPEN_EXECUTOR,
    PLUGIN_NAME,
    PUT_CONTENT,
    READ_BLOCKS,
    READ_CACHED,
    READ_OUTPUT,
    READ_PIECE,
    READ_RESULT,
    AdmitApplication,
    Drain,
    ExecutorHello,
    Farewell,
    FromExecutor,
    ProcessReplaced,
    Refused,
    ToExecutor,
    check_protocol,
    decode_to_executor,
    decode_welcome,
    encode,
    own_versions,
)
from flowkit.config import Config
from flowkit.errors import FlowkitError
from flowkit.execution.child_processes import ship_functions_on
from flowkit.execution.executor import Executor
from flowkit.execution.forks import call_in_forks
from flowkit.logs import logger_of
from flowkit.model.ids import AppId, AttemptId, ExecutorId, PartitionIndex, RddId
from flowkit.model.metrics import TaskMetrics
from flowkit.model.shown import class_name, in_words, text_of
from flowkit.model.task import ExceptionFailure, TaskFailed, TaskReport, TaskStarted
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti
from flowkit.storage.blocks.block_pieces import BlockPiece
from flowkit.tracebacks import is_a

logger = logger_of("flowkit.cluster")

call_in_forks(dask_internals.disown_in_fork)

STARTED_WAIT_S = 0.005
"""A start waits so long for its own ending: most tasks are shorter, and then it need not be told."""
CONNECT_LIMIT_S = 5.0
RETRY_FIRST_S, RETRY_LIMIT_S = 0.1, 2.0
DRAIN_LIMIT_S = 8.0
"""How long a worker that leaves in good order waits for what it runs; the scheduler waits a little longer."""
FAREWELL_LIMIT_S = 2.0
SLOTS_SETTLE_S = 0.05
REPLACED_EXIT_CODE = 75

_runtimes: weakref.WeakKeyDictionary[Worker, ExecutorRuntime] = weakref.WeakKeyDictionary()


class FlowkitWorkerPlugin(WorkerPlugin):
    """Starts the executor of a worker, once: added again, it finds the running one."""

    name = PLUGIN_NAME
    idempotent = True

    def __init__(self, protocol: int, config: Config) -> None:
        check_protocol(protocol, "the worker", "the driver")
        self._config = config

    async def setup(self, worker: Worker) -> None:
        """Start, unless it runs already (Dask removes and adds a plugin that is registered while the worker joins)."""
        if worker not in _runtimes:
            try:
                _runtimes[worker] = runtime = ExecutorRuntime(worker, self._config)
                await runtime.start()
            except Exception as error:
                # Raised here it would end a worker that joins, and Dask may have use for it.
                await _tell_problem(worker, in_words(error))

    async def teardown(self, worker: Worker) -> None:
        """Stop when the worker does; a mere removal of the plugin changes nothing."""
        if dask_internals.is_closing(worker) and (runtime := _runtimes.pop(worker, None)) is not None:
            await runtime.close()

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """A Dask task began or ended beside ours: slots follow."""
        if "executing" in {start, finish}:
            for runtime in list(_runtimes.values()):
                runtime.slots_may_have_changed()


class _Incarnation:
    """One life of an executor: its id, its threads, its channel."""

    def __init__(self, executor: Executor, link: Link, executor_id: ExecutorId, record: slot_record.SlotRecord | None) -> None:
        self.executor = executor
        self.link = link
        self.id = executor_id
        #: what its slots run, for its nanny; None without a nanny
        self.record = record
        #: the scheduler that welcomed it; empty before
        self.scheduler = ""
        self.disconnected = asyncio.Event()


def _note_nothing(slot: int, attempt: AttemptId | None) -> None:
    """No nanny would read it."""


async def _greet(worker: Worker, hello: ExecutorHello) -> Comm:
    return await dask_internals.open_connection(
        worker.scheduler.address, worker.connection_args, OPEN_EXECUTOR, timeout_s=CONNECT_LIMIT_S, hello=encode(hello)
    )


async def _tell_problem(worker: Worker, problem: str) -> None:
    """Say why there is no executor on a worker, where drivers hear of it."""
    logger.error("flowkit does not start on %s: %s", worker.address, problem)
    try:
        comm = await _greet(worker, ExecutorHello(own_versions(), ExecutorId(f"{worker.address}#"), problem=problem))
        try:
            await asyncio.wait_for(comm.read(), CONNECT_LIMIT_S)
        finally:
            comm.abort()
    except (OSError, TimeoutError) as error:
        logger.warning("%s cannot tell the scheduler so: %s", worker.address, error)


def _is_news(record: logging.LogRecord) -> bool:
    """Of a cluster of the driver's own: when its scheduler is gone, so is the driver, and the worker ends in a moment."""
    return not str(record.msg).startswith("Failed to communicate with scheduler during heartbeat")


class ExecutorRuntime:
    """All of flowkit in one worker."""

    def __init__(self, worker: Worker, config: Config) -> None:
        self._worker = worker
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._host_directory = host_directory(os.environ, config.local_directory, config.block_directories)
        self._admissions = Admissions()
        self._transport = DaskBlockTransport(worker, self._admissions, self._loop)
        self._server = BlockServer(self._host_directory, self._admissions, self._read_cached)
        self._slots = dask_internals.worker_slots(worker)
        self._resources: dict[str, tuple[str, ...]] = {}
        self._current: _Incarnation | None = None
        self._life: asyncio.Task[None] | None = None
        self._first_connection = asyncio.Event()
        #: reports and other news from slot threads, in order
        self._news: deque[TaskReport | FromExecutor] = deque()
        self._wake_pending = False
        self._late_wake_pending = False
        self._heartbeat_timer: asyncio.TimerHandle | None = None
        self._slots_timer: asyncio.TimerHandle | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._draining = False
        #: the scheduler says that nobody needs what is here
        self._may_leave = asyncio.Event()
        self._closing = False
        self._replacement: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<ExecutorRuntime {self._current.id if self._current else self._worker.address}>"

    async def start(self) -> None:
        """Serve, and connect; returns once connected, or when the scheduler cannot be reached at once."""
        dask_internals.add_worker_handler(self._worker, READ_BLOCKS, self._server.read_blocks)
        dask_internals.add_worker_handler(self._worker, READ_CACHED, self._server.read_cached)
        dask_internals.add_worker_handler(self._worker, READ_OUTPUT, self._server.read_output)
        dask_internals.add_worker_handler(self._worker, DESCRIBE_CONTENT, self._server.describe_content)
        dask_internals.add_worker_handler(self._worker, READ_PIECE, self._server.read_piece)
        dask_internals.add_worker_handler(self._worker, PUT_CONTENT, self._server.put_content)
        dask_internals.add_worker_handler(self._worker, READ_RESULT, self._read_result)
        if self._worker.nanny:
            garbage.collect_less_often()
        ship_functions_on()
        if EMBEDDED_VARIABLE in os.environ and threading.current_thread() is threading.main_thread():
            # Ctrl-C reaches every process of the terminal; it is the driver's to answer, by cancelling its job.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if EMBEDDED_VARIABLE in os.environ and self._worker.nanny and os.getpgid(0) != os.getpid():
            # Processes that tasks start are of its session, and are ended with it. Of a session, not of a group alone: a program
            # that looks at the terminal from another group of the terminal's session (ffmpeg does) is stopped.
            os.setsid()
            logging.getLogger("distributed.worker").addFilter(_is_news)
        self._sweep()
        self._resources = await self._loop.run_in_executor(
            None, discovered, self._config.resources, dask_internals.worker_resources(self._worker), os.environ
        )
        self._life = asyncio.create_task(self._live(), name="flowkit executor")
        await asyncio.wait(
            [asyncio.create_task(self._first_connection.wait()), self._life],
            timeout=CONNECT_LIMIT_S,
            return_when="FIRST_COMPLETED",
        )
        if self._life.done():
            self._life.result()

    async def close(self) -> None:
        """Finish what runs if the worker leaves in good order, say farewell, stop."""
        self._closing = True
        current = self._current
        if current is not None and current.link.connected:
            if self._draining:
                try:
                    await asyncio.wait_for(self._may_leave.wait(), DRAIN_LIMIT_S)
                except TimeoutError:
                    logger.warning("%s leaves with tasks unfinished, or with what only it holds", current.id)
            self._drain_news()
            current.link.send(encode([Farewell(current.id, "retired" if self._draining else "closed")]))
            await current.link.wait_acknowledged(FAREWELL_LIMIT_S)
        if self._life is not None:
            self._life.cancel()
        self._end_incarnation()
        if self._worker.nanny and dask_internals.is_closing(self._worker):
            # Python would wait for processes that tasks started and left.
            for child in multiprocessing.active_children():
                child.kill()
        self._server.close()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        self._host_directory.close()
        # Applications that ended while this process still held their locks.
        try:
            sweeping = self._loop.run_in_executor(None, self._sweep_now)
        except RuntimeError:  # in a driver whose interpreter ends: no thread takes anything any more
            self._sweep_now()
        else:
            await sweeping

    def _sweep(self) -> None:
        """Look for files that nobody holds, now and once a lease."""
        self._sweep_timer = self._loop.call_later(self._config.lease_s, self._sweep)
        self._loop.run_in_executor(None, self._sweep_now)

    def _sweep_now(self) -> None:
        try:
            slot_record.sweep(self._host_directory.base, older_than_s=self._config.lease_s)
            for app in self._host_directory.sweep(lease_s=self._config.lease_s):
                logger.info("removed what %s left in %s", app, self._host_directory.base)
        except OSError:
            logger.exception("%s could not be swept", self._host_directory.base)

    # -- connection ------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        try:
            while not self._closing:
                incarnation = self._begin_incarnation()
                await self._stay_connected(incarnation)
                self._end_incarnation()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            logger.exception("the executor of %s ended", self._worker.address)
            self._end_incarnation()
            if is_a(error, Exception):
                raise
            # As it is, it would end the event loop, and Dask's worker with it.
            raise FlowkitError(f"the executor ended: {in_words(error)}") from error

    def _begin_incarnation(self) -> _Incarnation:
        executor_id = ExecutorId(f"{self._worker.address}#{secrets.token_hex(4)}")
        record = None
        if self._worker.nanny:  # who else would read it?
            slots = dask_internals.worker_slots(self._worker)
            record = slot_record.SlotRecord.create(self._host_directory.base, executor_id, slots)
        executor = Executor(
            executor=executor_id,
            host_directory=self._host_directory,
            slots=self._slots,
            memory_limit_bytes=dask_internals.worker_memory_limit(self._worker),
            config=self._config,
            transport=self._transport,
            report=self._report,
            request_commit=lambda attempt: self._post(sti.CommitRequested(executor_id, attempt)),
            reach_barrier=lambda *arrival: self._post(sti.BarrierReached(executor_id, *arrival)),
            blocks_evicted=lambda app, blocks: self._post_evicted(executor_id, app, blocks),
            blocks_moved=lambda app, blocks: self._post(sti.BlocksMoved(executor_id, app, tuple(blocks))),
            block_copied=lambda *copy: self._post(sti.BlockCopied(executor_id, *copy)),
            outputs_copied=lambda *copy: self._post(sti.OutputsCopied(executor_id, *copy)),
            replace_process=self._replace_process,
            content_fetched=lambda app, content: self._post(sti.ContentFetched(executor_id, app, content)),
            would_not_stop=lambda *told: self._tell_stuck(executor_id, *told),
            disturb=self._disturb,
            note_slot=_note_nothing if record is None else record.note,
            memory_manager=memory_manager(self._config.memory_manager),
            serializers=serializers(self._config.serializers),
        )
        link = Link(f"scheduler of {executor_id}", self._hear, self._disconnected)
        incarnation = self._current = _Incarnation(executor, link, executor_id, record)
        self._news.clear()
        executor.start()
        names = tuple(dict.fromkeys((socket.gethostname(), self._worker.address.rpartition("/")[2].rpartition(":")[0])))
        link.send(
            encode(
                [
                    sti.ExecutorReady(
                        executor_id,
                        self._host_directory.token,
                        self._slots,
                        names,
                        self._resources,
                        tuple(self._config.resources),
                        executor.memory_bytes,
                        bool(self._worker.nanny),
                    )
                ]
            )
        )
        self._heartbeat_timer = self._loop.call_later(self._config.heartbeat_s, self._heartbeat)
        return incarnation

    def _disturb(self, kind: str) -> None:
        """A fault that a job asked for; called from slot threads."""
        if kind == "kill_worker" and self._worker.nanny:
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "drop_message" and self._current is not None:
            self._loop.call_soon_threadsafe(self._current.link.break_connection)

    def _end_incarnation(self) -> None:
        incarnation, self._current = self._current, None
        if self._heartbeat_timer is not None:
            self._heartbeat_timer.cancel()
        if incarnation is not None:
            incarnation.link.close()
            incarnation.executor.close()
            if incarnation.record is not None:
                incarnation.record.remove()

    async def _stay_connected(self, incarnation: _Incarnation) -> None:
        """Connect, and again whenever the connection breaks, until the scheduler gives this incarnation up."""
        pause_s = RETRY_FIRST_S
        while not self._closing:
            incarnation.disconnected.clear()
            try:
                comm = await self._connect(incarnation)
            except (OSError, TimeoutError) as error:
                logger.info("%s cannot reach the scheduler: %s", incarnation.id, error)
                await asyncio.sleep(pause_s)
                pause_s = min(RETRY_LIMIT_S, pause_s * 2)
                continue
            if comm is None:
                if not incarnation.scheduler:
                    # Never welcome: perhaps the scheduler just removed this worker, which then closes.
                    await asyncio.sleep(pause_s)
                    pause_s = min(RETRY_LIMIT_S, pause_s * 2)
                return
            incarnation.link.attach(comm)
            self._first_connection.set()
            pause_s = RETRY_FIRST_S
            await incarnation.disconnected.wait()

    async def _connect(self, incarnation: _Incarnation) -> Comm | None:
        comm = await _greet(self._worker, ExecutorHello(own_versions(), incarnation.id, resume=incarnation.scheduler))
        answer = decode_welcome(await asyncio.wait_for(comm.read(), CONNECT_LIMIT_S))
        if isinstance(answer, Refused):
            comm.abort()
            logger.warning("the scheduler refused %s: %s", incarnation.id, answer.message)
            return None
        incarnation.scheduler = answer.scheduler
        return comm

    def _disconnected(self) -> None:
        if self._current is not None:
            self._current.disconnected.set()

    # -- from the scheduler ----------------------------------------------------------------------------------------

    def _hear(self, body: bytes) -> None:
        for message in self._read(body):
            try:
                self._obey(message)
            except BaseException as error:
                logger.exception("%s could not be done", type(message).__name__)
                if isinstance(message, act.Launch):
                    said = f"the executor could not take the task: {text_of(error)}"
                    failure = ExceptionFailure(class_name(error), said, "", None)
                    self._report([TaskFailed(task.attempt, 0.0, 0.0, failure, TaskMetrics()) for task in message.tasks])

    def _read(self, body: bytes) -> Sequence[ToExecutor]:
        try:
            return decode_to_executor(body)
        except msgspec.DecodeError:
            found, unread = salvage_to_executor(body)
        for each in unread:
            logger.error("what the scheduler told %s cannot be read: %s", self, each.complaint)
        return found

    def _obey(self, message: ToExecutor) -> None:
        if self._current is None:
            return
        executor = self._current.executor
        match message:
            case act.Launch():
                executor.launch(message.tasks)
            case act.DefineStage():
                executor.define_stage(message.definition)
            case act.ForgetStage():
                executor.forget_stage(message.app, message.stage)
            case act.Recall():
                executor.recall(message.attempts)
            case act.Kill():
                executor.kill(message.attempts, message.reason)
            case act.AnswerCommit():
                executor.answer_commit(message.attempt, message.granted)
            case act.AnswerBarrier():
                executor.answer_barrier(message.attempt, message.round, message.data)
            case act.ReleaseResults():
                executor.release_results(message.attempts)
            case act.DropRdd():
                executor.drop_rdd(message.app, message.rdd)
            case act.CopyBlock():
                executor.copy_block(message.app, message.rdd, message.partition, message.level, message.sources)
            case act.CopyOutputs():
                executor.copy_outputs(message.app, message.shuffle, message.outputs, message.sources)
            case act.MayLeave():
                self._may_leave.set()
            case act.DropShuffle():
                executor.drop_shuffle(message.app, message.shuffle)
            case act.DropContents():
                executor.drop_contents(message.app, message.contents)
                self._server.drop_contents(message.app, message.contents)
            case act.DropApplication():
                self._admissions.forget(message.app)
                self._server.drop_application(message.app)
                executor.drop_application(message.app)
            case AdmitApplication():
                self._admissions.admit(message.app, message.secret)
            case Drain():
                self._draining = True
                self._may_leave.clear()  # it is told once more, now that it closes
            case _:
                assert_never(message)

    def _read_cached(self, app: AppId, rdd: RddId, partition: PartitionIndex, serial: int, position: int) -> BlockPiece | None:
        current = self._current
        return None if current is None else current.executor.cached_piece(app, rdd, partition, serial, position)

    async def _read_result(self, app: str, secret: str, attempt: int, offset: int, length: int) -> bytes | None:
        await self._admissions.check(app, secret)
        asked = checked(ResultAsked, attempt=attempt, offset=offset, length=length)
        return None if self._current is None else self._current.executor.result_chunk(asked.attempt, asked.offset, asked.length)

    # -- to the scheduler ------------------------------------------------------------------------------------------

    def _report(self, reports: Sequence[TaskReport]) -> None:
        """From slot threads."""
        self._news.extend(reports)
        if any(type(report) is not TaskStarted for report in reports):
            self._wake()
        elif not (self._wake_pending or self._late_wake_pending):
            self._late_wake_pending = True
            self._call_soon(self._wake_late)

    def _post(self, message: FromExecutor) -> None:
        """From any thread."""
        self._news.append(message)
        self._wake()

    def _post_evicted(self, executor: ExecutorId, app: AppId, blocks: Sequence[tuple[RddId, PartitionIndex]]) -> None:
        self._post(sti.BlocksEvicted(executor, app, tuple(blocks)))

    def _wake(self) -> None:
        # The flag falls before the queue is emptied, so what comes after it was read wakes again.
        if not self._wake_pending:
            self._wake_pending = True
            self._call_soon(self._drain_news)

    def _call_soon(self, callback: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            logger.debug("the worker's loop is closed; news of tasks are moot")

    def _wake_late(self) -> None:
        self._loop.call_later(STARTED_WAIT_S, self._drain_late)

    def _drain_late(self) -> None:
        self._late_wake_pending = False
        if self._news:
            self._drain_news()

    def _drain_news(self) -> None:
        self._wake_pending = False
        current = self._current
        messages: list[FromExecutor] = []
        reports: list[TaskReport] = []
        while self._news:
            item = self._news.popleft()
            if isinstance(item, TaskReport):
                reports.append(item)
            elif current is not None:
                self._close_batch(current.id, reports, messages)
                messages.append(item)
        if current is None:
            return
        self._close_batch(current.id, reports, messages)
        if messages:
            current.link.send(encode(messages))

    @staticmethod
    def _close_batch(executor: ExecutorId, reports: list[TaskReport], messages: list[FromExecutor]) -> None:
        if not reports:
            return
        if len(reports) > 1:
            over = {report.attempt for report in reports if type(report) is not TaskStarted}
            reports[:] = [report for report in reports if type(report) is not TaskStarted or report.attempt not in over]
        messages.append(sti.TasksReported(executor, tuple(reports)))
        reports.clear()

    def _heartbeat(self) -> None:
        current = self._current
        if current is None:
            return
        self._heartbeat_timer = self._loop.call_later(self._config.heartbeat_s, self._heartbeat)
        try:
            beat = sti.Heartbeat(current.id, tuple(current.executor.known_attempts()), current.executor.live_metrics())
        except BaseException:
            logger.exception("a heartbeat without news")
            beat = sti.Heartbeat(current.id, ())
        # Old ones are worth nothing: while the scheduler does not answer, they do not pile up.
        if current.link.connected or current.link.waiting_bytes == 0:
            current.link.send(encode([beat]))

    def slots_may_have_changed(self) -> None:
        """Dask tasks beside ours came or went; a burst of them is looked at once."""
        if self._slots_timer is None:
            self._slots_timer = self._loop.call_later(SLOTS_SETTLE_S, self._set_slots)

    def _set_slots(self) -> None:
        self._slots_timer = None
        slots = max(1, dask_internals.worker_slots(self._worker) - dask_internals.running_dask_tasks(self._worker))
        if slots != self._slots and self._current is not None:
            self._slots = slots
            self._current.executor.set_slots(slots)
            self._current.link.send(encode([sti.SlotsChanged(self._current.id, slots)]))

    # -- the third step of killing -----------------------------------------------------------------------------------

    def _tell_stuck(self, executor: ExecutorId, attempt: AttemptId, reason: str, after_s: float, stack: str) -> None:
        if not self._worker.nanny:
            reason = f"{reason}; its worker has no nanny that could replace the process, so it goes on"
        self._post(sti.TaskWouldNotStop(executor, attempt, reason, after_s, stack))

    def _replace_process(self, reason: str, others: tuple[AttemptId, ...]) -> None:
        """From any thread: end this process, after the scheduler knows why; its nanny starts another."""
        self._call_soon(lambda: self._begin_replacement(reason, others))

    def _begin_replacement(self, reason: str, others: tuple[AttemptId, ...]) -> None:
        if not self._worker.nanny:
            logger.error("%s: this worker has no nanny, so its process cannot be replaced; the task goes on", reason)
        elif self._replacement is None:
            self._replacement = asyncio.create_task(self._end_process(reason, others))

    async def _end_process(self, reason: str, others: tuple[AttemptId, ...]) -> None:
        logger.warning("this process ends and is replaced: %s", reason)
        if self._current is not None:
            self._drain_news()
            self._current.link.send(encode([ProcessReplaced(self._current.id, reason, others)]))
            await self._current.link.wait_acknowledged(FAREWELL_LIMIT_S)
        # Not sys.exit: the thread that cannot be killed would keep the process.
        os._exit(REPLACED_EXIT_CODE)
