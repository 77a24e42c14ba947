"""The way of results from the scheduler's messages to whoever submitted the job: small ones at once, large ones fetched.

Runs in the driver: told on the client's event loop, handing over on one thread of its own, so that nobody's unpickling
keeps the loop from hearing, and no two callbacks run at once.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import zlib
from collections.abc import Callable
from typing import assert_never

from flowkit.cluster.executor_calls import ExecutorCalls
from flowkit.cluster.job_handles import SubmittedJob, not_taken
from flowkit.cluster.outcomes import outcome_error
from flowkit.logs import logger_of
from flowkit.model.ids import AppId, AttemptId, JobId
from flowkit.model.task import InlineResult, MapOutput, StoredResult
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti

logger = logger_of("flowkit.cluster")

#: letters of an error that tells why a result could not be fetched
_MOST_REASON = 1_000

FETCHES_AT_ONCE = 4


class Deliveries:
    """Jobs that are not over, and their results on the way. ``say`` tells the scheduler; called on the event loop."""

    def __init__(
        self, app: AppId, calls: ExecutorCalls, say: Callable[[sti.Stimulus], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._app = app
        self._calls = calls
        self._say = say
        self._loop = loop
        self._jobs: dict[JobId, SubmittedJob] = {}
        self._fetching: dict[AttemptId, asyncio.Task[None]] = {}
        self._fetch_slots = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._fetched: list[AttemptId] = []
        #: who merges updates of accumulators
        self.updates_sink: Callable[[bytes], None] = lambda _: None
        #: what the thread does next; None ends it
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"flowkit-results-{app[-4:]}", daemon=True)

    def __repr__(self) -> str:
        return f"<Deliveries of {self._app}: {len(self._jobs)} jobs, {len(self._fetching)} fetches>"

    def start(self) -> None:
        """Begin to hand over."""
        self._thread.start()

    def close(self, error: BaseException) -> None:
        """Jobs that are not over end with ``error``; returns when the last callback has."""
        self._work.put(lambda: self._fail(error))
        self._work.put(None)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()
        self._fail(error)

    @property
    def jobs(self) -> tuple[JobId, ...]:
        """Jobs that are not over."""
        return tuple(self._jobs)

    def add(self, job: SubmittedJob) -> None:
        """Results of this job may come; from any thread."""
        self._jobs[job.job] = job

    # -- on the event loop

    def fail_all(self, error: BaseException) -> None:
        """Every job ends with ``error``, after what was delivered before."""
        self.stop_fetching()
        self._work.put(lambda: self._fail(error))

    def stop_fetching(self) -> None:
        """Give up fetches under way."""
        for task in self._fetching.values():
            task.cancel()

    def take_small(self, messages: list[act.DeliverResult]) -> None:
        """Results that came along."""
        self._work.put(lambda: self._hand_over_all(messages))

    def take_large(self, message: act.DeliverResult) -> None:
        """A result that lies with its executor."""
        job = self._jobs.get(message.job)
        match message.result:
            case StoredResult() as stored:
                if job is None or not job.wants(message.partition):
                    self._note_fetched(message.attempt)
                elif message.attempt not in self._fetching:
                    task = self._loop.create_task(self._fetch(job, message, stored))
                    self._fetching[message.attempt] = task
                    task.add_done_callback(lambda _: self._fetching.pop(message.attempt, None))
            case InlineResult():
                self.take_small([message])
            case MapOutput():
                logger.error("the scheduler delivered a map output as a result: %r", message)
            case _:
                assert_never(message.result)

    def take_updates(self, data: bytes) -> None:
        """Updates of accumulators: merged before the job that they belong to is over."""
        self._work.put(lambda: self.updates_sink(data))

    def succeeded(self, message: act.JobSucceeded) -> None:
        """All results were delivered, or are being fetched."""
        job = self._jobs.get(message.job)
        if job is not None:
            self._work.put(lambda: self._settle(job, job.succeed))

    def failed(self, message: act.JobFailed) -> None:
        """The job is over."""
        job = self._jobs.get(message.job)
        if job is not None:
            self._work.put(lambda: self._settle(job, lambda: job.fail(outcome_error(message))))

    async def _fetch(self, job: SubmittedJob, message: act.DeliverResult, stored: StoredResult) -> None:
        async with self._fetch_slots:
            if not job.is_over:
                try:
                    data = await self._calls.read_result(message.executor, message.attempt, stored.size_bytes)
                    # Beside the loop, which others' messages wait for: a result may be large.
                    if await self._loop.run_in_executor(None, zlib.crc32, data) != stored.checksum:
                        raise OSError("it is damaged: its checksum does not fit")
                except Exception as error:
                    logger.info("the result of attempt %s is lost: %s", message.attempt, error)
                    reason = f"{type(error).__name__}: {error}"
                    self._say(sti.ResultLost(self._app, message.job, message.attempt, reason[:_MOST_REASON]))
                    return
                self._work.put(lambda: self._hand_over(job, message, data))
        self._note_fetched(message.attempt)

    def _note_fetched(self, attempt: AttemptId) -> None:
        self._fetched.append(attempt)
        if len(self._fetched) == 1:
            self._loop.call_soon(self._tell_fetched)

    def _tell_fetched(self) -> None:
        fetched, self._fetched = self._fetched, []
        self._say(sti.ResultsFetched(self._app, tuple(fetched)))

    # -- on the thread

    def _run(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """In a frame of its own: between jobs nothing here refers to the last one, its results and its error."""
        work = self._work.get()
        if work is None:
            return False
        try:
            work()
        except BaseException:  # users' functions merge and unpickle here, and all jobs wait for this thread
            logger.exception("a result could not be handed over")
        return True

    def _hand_over_all(self, messages: list[act.DeliverResult]) -> None:
        for message in messages:
            job = self._jobs.get(message.job)
            if job is not None and isinstance(message.result, InlineResult):
                self._hand_over(job, message, message.result.data)

    def _hand_over(self, job: SubmittedJob, message: act.DeliverResult, data: bytes) -> None:
        self._settle(job, lambda: job.hand_over(message.partition, data, message.span, message.piece, message.pieces))

    def _settle(self, job: SubmittedJob, step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException as error:  # an error of the user's that cannot be put together must not leave its job waited for
            logger.exception("what became of job %s could not be told", job.job)
            job.fail(not_taken(error))
            job.cancel("the driver could not take what became of it")
        if job.is_over:
            self._jobs.pop(job.job, None)

    def _fail(self, error: BaseException) -> None:
        for job in list(self._jobs.values()):
            job.fail(error)
        self._jobs.clear()
