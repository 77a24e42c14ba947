"""A whole flowkit in the calling thread: the real scheduler core, a real executor without slots, files as any driver has them.

Runs in tests and doctests. A job runs while its action waits for it, one task after the other, in the same order every time; the
scheduler's clock is a number that moves by itself. Thread-safe: threads take turns, a whole job each.
"""

from __future__ import annotations

import os
import secrets
import threading
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from flowkit.cluster.contents import ContentUsers
from flowkit.cluster.discovery import discovered
from flowkit.cluster.extensions import memory_manager, serializers, with_policies
from flowkit.cluster.job_handles import OnResult, SubmittedJob
from flowkit.cluster.outcomes import outcome_error
from flowkit.cluster.wire import ExecutorSummary
from flowkit.config import Config
from flowkit.context import Context
from flowkit.errors import ApplicationLost, InternalError, InvalidArgument
from flowkit.execution.executor import Executor
from flowkit.logs import logger_of
from flowkit.model.events import Event
from flowkit.model.ids import AppId, AttemptId, ContentId, ExecutorId, JobId, RddId, ShuffleId
from flowkit.model.job_spec import INLINE_LIMIT_BYTES, Content, JobSpec
from flowkit.model.task import InlineResult, StoredResult, TaskReport
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti
from flowkit.scheduling.asking import interruptible
from flowkit.scheduling.core import SchedulerCore
from flowkit.storage.content import ContentStore, content_id
from flowkit.storage.host_directory import DriverDirectory

logger = logger_of("flowkit.testing")

_EXECUTOR: Final = ExecutorId("inline://this-thread#1")
#: what the clock moves by whenever somebody looks at it
_INSTANT_S: Final = 1e-4
#: time-outs in a row that may change nothing before the core is taken to have stalled
_IDLE_LIMIT: Final = 1_000


def inline_context(*, slots: int = 2, config: Config | None = None, **settings: Any) -> Context:
    """A Context whose jobs run in the calling thread, for tests in milliseconds.

    Parameters
    ----------
    slots
        How many the cluster claims to have: the default number of partitions. Tasks run one after the other all the same.
    config, settings
        As of ``Context``; the core checks all of its invariants after every step unless ``validate=False``.

    Examples
    --------
    >>> with inline_context() as context:
    ...     context.range(4).map(lambda x: x * x).collect()
    [0, 1, 4, 9]
    """
    chosen = (config or Config.from_environment(os.environ)).with_settings(**{"progress": "off", "validate": True, **settings})
    link = InlineLink(chosen, slots=slots)
    try:
        return Context(link, name="inline", config=chosen)
    except BaseException:
        link.close()
        raise


class InlineLink:
    """``abc.ClusterLink`` without a cluster."""

    def __init__(self, config: Config | None = None, *, slots: int = 2) -> None:
        # First: what nobody offers leaves nothing behind.
        self._config = with_policies(config or Config())
        manager, rows = memory_manager(self._config.memory_manager), serializers(self._config.serializers)
        self._app = AppId(f"app-inline-{secrets.token_hex(8)}")
        self._slots = slots
        self._now = 0.0
        #: what the core has not heard yet; a garbage collector may append to it at any time
        self._stimuli: deque[sti.Stimulus] = deque()
        self._is_settling = False
        #: held while a job runs; the thread that holds it may submit and unpersist meanwhile
        self._turn = threading.RLock()
        self._jobs: dict[JobId, SubmittedJob] = {}
        self._content_users = ContentUsers()
        self._sinks: list[Callable[[Sequence[Event]], None]] = []
        self._updates_sink: Callable[[bytes], None] = lambda _: None
        self._closed = False
        directory = DriverDirectory(self._app, self._config.local_directory)
        self._remove_files = weakref.finalize(self, directory.close)
        self._host = directory.host
        self._content = ContentStore(directory.application().content_directory)
        self._core = SchedulerCore(self._config, seed=0)
        self._executor = Executor(
            executor=_EXECUTOR,
            host_directory=self._host,
            slots=slots,
            memory_limit_bytes=0,
            config=self._config,
            transport=_NoTransport(),
            report=self._take_reports,
            blocks_moved=lambda app, blocks: self._stimuli.append(sti.BlocksMoved(_EXECUTOR, app, tuple(blocks))),
            request_commit=self._request_commit,
            reach_barrier=lambda *arrival: self._say(sti.BarrierReached(_EXECUTOR, *arrival)),
            blocks_evicted=lambda app, blocks: self._stimuli.append(sti.BlocksEvicted(_EXECUTOR, app, tuple(blocks))),
            replace_process=lambda reason, _others: None,
            memory_manager=manager,
            serializers=rows,
            clock=self._clock,
        )
        self._say(sti.ApplicationOpened(self._app, "inline", "inline", self._config.lease_s))
        named = discovered(self._config.resources, {}, {})
        self._say(sti.ExecutorReady(_EXECUTOR, self._host.token, slots, (), named, tuple(named)))

    @property
    def executors(self) -> tuple[ExecutorSummary, ...]:
        """The one."""
        return (ExecutorSummary(_EXECUTOR, self._host.token, self._slots),)

    def __repr__(self) -> str:
        return f"<InlineLink {self._app}{': closed' if self._closed else ''}>"

    # -- abc.ClusterLink

    @property
    def app(self) -> AppId:
        """The session's id."""
        return self._app

    @property
    def slots(self) -> int:
        """As many as were claimed."""
        return self._slots

    def put_content(self, data: bytes) -> Content:
        """Large content lies in a file, as on a cluster; see ``abc.ClusterLink``."""
        name = content_id(data)
        if len(data) <= INLINE_LIMIT_BYTES:
            return Content(name, len(data), inline=data)
        self._content_users.add(name)
        self._content.put(data)
        return Content(name, len(data), holders=(self._host.token,))

    def retain_content(self, content: Content) -> None:
        """One more who needs it; see ``abc.ClusterLink``."""
        if content.inline is None:
            self._content_users.add(content.id)

    def release_contents(self, contents: Sequence[ContentId]) -> None:
        """As many who need them no more; see ``abc.ClusterLink``."""
        if unneeded := self._content_users.remove(contents):
            # At once: equal content may be put again before the core hears of this.
            for content in unneeded:
                self._content.drop(content)
            self._stimuli.append(sti.ContentsReleased(self._app, unneeded))

    def recall_content(self, content: Content) -> Content:
        """There is but one copy here, the driver's own; see ``abc.ClusterLink``."""
        return content

    def submit(self, spec: JobSpec, on_result: OnResult) -> InlineJob:
        """Start a job; it runs when it is waited for."""
        if self._closed:
            raise ApplicationLost(f"application {self._app} is closed", app=self._app, reason="closed")
        alone = next((stage for stage in spec.stages if stage.barrier and stage.num_partitions > 1), None)
        if alone is not None:
            raise InvalidArgument(
                f"{alone.name} runs in {alone.num_partitions} partitions at once, and here one task runs after the other; use "
                "Context(processes=False), or one partition",
                name="barrier",
                value=alone.num_partitions,
                allowed="1",
            )
        job = InlineJob(self, spec, on_result)
        self._jobs[spec.job] = job
        self._say(sti.JobSubmitted(spec))
        return job

    def unpersist(self, rdd: RddId, *, blocking: bool) -> None:
        """Drop cached partitions, now."""
        self._say(sti.RddUnpersistRequested(self._app, rdd))

    def release_shuffle(self, shuffle: ShuffleId) -> None:
        """Nobody refers to a shuffle any more; heard with whatever is said next."""
        self._stimuli.append(sti.ShuffleReleased(self._app, shuffle))

    def subscribe(self, sink: Callable[[Sequence[Event]], None]) -> None:
        """Hand events to ``sink`` as they happen."""
        self._sinks.append(sink)

    def hear_updates(self, sink: Callable[[bytes], None]) -> None:
        """Hand on updates of accumulators."""
        self._updates_sink = sink

    def close(self) -> None:
        """End the session and remove its files. Idempotent."""
        with self._turn:
            if self._closed:
                return
            self._say(sti.ApplicationClosed(self._app, "closed by its driver"))
            self._closed = True
            self._executor.close()
            self._remove_files()

    # -- driving

    def run(self, job: InlineJob) -> None:
        """Run tasks until a job is over."""
        with self._turn:
            idle = 0
            while not job.is_over:
                ran = self._executor.run_next()
                idle = 0 if ran or self._stimuli else idle + 1
                if idle:
                    self._let_time_pass(job, idle)
                self._settle()

    def cancel(self, job: JobId, reason: str) -> None:
        """Ask for a job's end."""
        self._say(sti.JobCancelRequested(self._app, job, reason))

    def _let_time_pass(self, job: InlineJob, idle: int) -> None:
        wakeup = self._core.next_wakeup()
        if wakeup is None or idle > _IDLE_LIMIT:
            raise InternalError(f"{job!r} is not over, and there is nothing left to run or to wait for", story=self._core.story())
        self._now = max(self._now, wakeup)
        self._stimuli.extend((sti.Heartbeat(_EXECUTOR, self._executor.known_attempts()), sti.LeaseRenewed(self._app), sti.Tick()))

    def _clock(self) -> float:
        self._now += _INSTANT_S
        return self._now

    def _say(self, stimulus: sti.Stimulus) -> None:
        with self._turn:
            self._stimuli.append(stimulus)
            self._settle()

    def _settle(self) -> None:
        if self._is_settling:
            return  # said by a garbage collector in the middle of it: heard in the next round
        self._is_settling = True
        try:
            self._settle_all()
        finally:
            self._is_settling = False

    def _settle_all(self) -> None:
        while self._stimuli:
            # Executor and driver are here and well, however long a task took.
            batch: list[sti.Stimulus] = [sti.LeaseRenewed(self._app), sti.Heartbeat(_EXECUTOR, self._executor.known_attempts())]
            while self._stimuli:
                batch.append(self._stimuli.popleft())
            with interruptible():
                actions = self._core.handle_all(batch, self._clock())
            for action in actions:
                self._perform(action)

    def _perform(self, action: act.Action) -> None:
        executor = self._executor
        match action:
            case act.DefineStage(definition=definition):
                executor.define_stage(definition)
            case act.ForgetStage(app=app, stage=stage):
                executor.forget_stage(app, stage)
            case act.Launch(tasks=tasks):
                executor.launch(tasks)
            case act.Recall(attempts=attempts):
                executor.recall(attempts)
            case act.Kill(attempts=attempts, reason=reason):
                executor.kill(attempts, reason)
            case act.AnswerCommit(attempt=attempt, granted=granted):
                executor.answer_commit(attempt, granted)
            case act.AnswerBarrier(attempt=attempt, round=meeting, data=data):
                executor.answer_barrier(attempt, meeting, data)
            case act.ReleaseResults(attempts=attempts):
                executor.release_results(attempts)
            case act.DropRdd(app=app, rdd=rdd):
                executor.drop_rdd(app, rdd)
            case act.DropShuffle(app=app, shuffle=shuffle):
                executor.drop_shuffle(app, shuffle)
            case act.DropContents():
                pass  # gone already
            case act.DropApplication(app=app):
                executor.drop_application(app)
            case act.DeliverResult():
                self._deliver(action)
            case act.DeliverAccumulated(data=data):
                self._updates_sink(data)
            case act.JobSucceeded(job=job):
                self._jobs.pop(job).succeed()
            case act.JobFailed(job=job):
                self._jobs.pop(job).fail(outcome_error(action))
            case act.Publish(event=event):
                for sink in self._sinks:
                    sink((event,))
            case act.FaultFound():
                logger.error("the scheduler core failed:\n%s\nwhat led there:\n%s", action.traceback, action.story)
            case act.Examine(executor=executor_id):
                self._stimuli.append(sti.Examined(executor_id))
            case act.ExpireExecutor() | act.RequestContent() | act.ApplicationExpired():
                raise InternalError(f"the core asks the inline runner for {action}", story=self._core.story())

    def _deliver(self, action: act.DeliverResult) -> None:
        job = self._jobs.get(action.job)
        match action.result:
            case InlineResult(data=data):
                if job is not None:
                    job.hand_over(action.partition, data, action.span, action.piece, action.pieces)
            case StoredResult(size_bytes=size_bytes, checksum=checksum):
                stored = self._executor.result_chunk(action.attempt, 0, size_bytes)
                if job is not None and (stored is None or zlib.crc32(stored) != checksum):
                    self._stimuli.append(sti.ResultLost(self._app, action.job, action.attempt))
                    return
                if job is not None and stored is not None:
                    job.hand_over(action.partition, stored, action.span, action.piece, action.pieces)
                self._stimuli.append(sti.ResultsFetched(self._app, (action.attempt,)))
            case other:
                raise InternalError(f"{other} is no result for a driver")

    # -- heard from the executor, inside ``run_next`` or ``_perform``

    def _take_reports(self, reports: Sequence[TaskReport]) -> None:
        self._stimuli.append(sti.TasksReported(_EXECUTOR, tuple(reports)))

    def _request_commit(self, attempt: AttemptId) -> None:
        # Answered before this returns, so the task finds its answer when it waits for it.
        self._say(sti.CommitRequested(_EXECUTOR, attempt))


class InlineJob(SubmittedJob):
    """``abc.JobHandle``: waiting for it is what runs it."""

    def __init__(self, link: InlineLink, spec: JobSpec, on_result: OnResult) -> None:
        super().__init__(spec, on_result, link.cancel)
        self._link = link

    def wait(self, timeout_s: float | None = None) -> None:
        """Run the job; see ``abc.JobHandle``. There is nobody else to run it, so ``timeout_s`` means nothing here."""
        self._link.run(self)
        super().wait(timeout_s)


class _NoTransport:
    """Everything lies on this host."""

    def _refuse(self, address: str, *_: Any, **__: Any) -> Any:
        raise OSError(f"{address}: there is no other host")

    fetch_shuffle = fetch_cached = fetch_output = describe_content = fetch_piece = _refuse
