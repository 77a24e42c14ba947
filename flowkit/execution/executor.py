"""An executor: a queue of task attempts and slots that run them, first in, first out.

Public methods are called from one thread (the worker's event loop) and return at once; slot threads run tasks and call back.

A slot thread either holds an attempt or is parked on a lock of its own; whoever queues attempts unparks as many. Nothing polls.

No lock is taken on the way of a task. Under Python's own lock a mutex that every thread takes for every task makes convoys: who
waits for it is handed it while another runs, who then runs into it and hands over in turn, twice the cost a task as measured.
Instead an attempt moves through three dicts, ``queued -> running -> past``, and is in the next before it leaves the one before,
so whoever looks in that order never misses it. Popping it from ``queued``, which one thread alone succeeds in, decides between
running and withdrawing it. The mutex is for what is rare: parking, and threads that come and go.

Launches may arrive twice or late, so attempts that ended here are remembered for a while: a recalled or killed attempt never
starts, whatever message comes when.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from queue import SimpleQueue

import psutil

from flowkit.abc import BlockTransport, MemoryManager, MemoryPool, Serializer
from flowkit.config import Config
from flowkit.errors import ConfigError
from flowkit.execution import gc_clock
from flowkit.execution.applications import Applications
from flowkit.execution.attempt import Attempt
from flowkit.execution.copier import Copier, Outputs
from flowkit.execution.forks import call_in_forks
from flowkit.execution.kill import Reaper
from flowkit.execution.memory_watch import MemoryWatch
from flowkit.execution.results import ResultStore
from flowkit.execution.stage_programs import Stages
from flowkit.execution.task_runner import TaskServices, run_task
from flowkit.logs import is_ctrl_c, logger_of
from flowkit.model.ids import AppId, AttemptId, ContentId, ExecutorId, PartitionIndex, RddId, ShuffleId, StageId
from flowkit.model.metrics import TaskMetrics
from flowkit.model.shown import in_words, short
from flowkit.model.storage_level import StorageLevel
from flowkit.model.task import (
    BlockInfo,
    KilledFailure,
    StageDefinition,
    TaskFailed,
    TaskLaunch,
    TaskRecalled,
    TaskReport,
    TaskStarted,
)
from flowkit.storage.blocks.block_pieces import BlockPiece
from flowkit.storage.blocks.block_store import BlockStore
from flowkit.storage.host_directory import HostDirectory, disown_all
from flowkit.storage.memory.task_memory import ExecutorMemory, MemoryStatistics, usable_bytes

logger = logger_of(__name__)

#: Stages pipeline thousands of iterators, each a C frame or two; virtual memory, touched only as deep as needed.
SLOT_STACK_BYTES = 64 << 20
#: Attempts that are over, remembered against messages that arrive late or twice.
_REMEMBERED = 20_000
#: After which a killed task that still runs is interrupted again.
_INSIST_S = 0.05
#: How long ``close`` waits for slot threads whose tasks were told to stop.
_CLOSE_S = 2.0

call_in_forks(disown_all)

# threading.stack_size is a setting of the whole process, so only one executor at a time may change it.
_stack_size_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class ExecutorStatistics:
    """One look at an executor."""

    slots: int
    thread_count: int
    queued_count: int
    running_count: int
    stage_count: int
    stored_result_count: int
    memory: MemoryStatistics


def _pool_of(manager: MemoryManager, total_bytes: int) -> MemoryPool:
    try:
        return manager.pool(total_bytes)
    except BaseException as error:  # here an event loop runs, which a SystemExit would end
        if is_ctrl_c(error):
            raise
        raise ConfigError(
            f"memory_manager: {short(manager)}.pool({total_bytes}) raised {in_words(error)}",
            setting="memory_manager",
            value=short(manager),
        ) from error


@cache
def _resident_at_start() -> int:
    """What the process held before its first task: a later executor of it must not count its predecessor's leavings."""
    resident: int = psutil.Process().memory_info().rss
    return resident


class Executor:
    """Runs task attempts in ``slots`` threads.

    Parameters
    ----------
    executor
        This executor's id, incarnation included.
    host_directory
        The directory the executors of this host share.
    slots
        Tasks that run at a time.
    memory_limit_bytes
        What the process may use in all; 0 when nobody limits it (then the machine's memory counts).
    config
        Limits, grace times and the like.
    transport
        Reads from other hosts; called from slot threads.
    report
        Hears of attempts: of each start, and of each ending. Called from slot threads, and from the calling thread for
        attempts that never ran. Whoever sends them on in batches may leave a start out whose ending is in the same batch.
    request_commit
        Asks the scheduler whether an attempt may commit; answered by ``answer_commit``. May be repeated.
    reach_barrier
        Tells it that an attempt waits for the others of its stage, how many meetings it was at, by which call, and what it sends; answered by
        ``answer_barrier``. May be repeated.
    blocks_evicted
        Hears which cached partitions left this executor's memory without having been asked to.
    blocks_moved
        Hears which of them lie in files now.
    block_copied, outputs_copied
        Hear what became of copies that were asked for; see ``Copier``.
    replace_process
        The last resort: an attempt goes on after its grace time. Called with why, and with the other attempts that will
        go down with the process. At most once an attempt.
    note_slot
        Hears what each slot is about to run, and None when that is over but not reported yet: for a record that outlives the
        process. Called from slot threads, twice a task, so it must cost next to nothing.
    would_not_stop
        Hears of such an attempt first: why it was to stop, how long ago, and where it is.
    disturb
        Has something go wrong, when a job's plan of faults says so: ``kill_worker`` ends this process, ``drop_message`` its connection.
    memory_manager
        Makes the account of its memory; None: the default.
    serializers
        Chosen for rows of some types, by name; None: none.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        executor: ExecutorId,
        host_directory: HostDirectory,
        slots: int,
        memory_limit_bytes: int,
        config: Config,
        transport: BlockTransport,
        report: Callable[[Sequence[TaskReport]], None],
        request_commit: Callable[[AttemptId], None],
        reach_barrier: Callable[[AttemptId, int, str, bytes], None],
        blocks_evicted: Callable[[AppId, Sequence[tuple[RddId, PartitionIndex]]], None],
        replace_process: Callable[[str, tuple[AttemptId, ...]], None],
        blocks_moved: Callable[[AppId, Sequence[BlockInfo]], None] = lambda _app, _blocks: None,
        block_copied: Callable[[AppId, RddId, PartitionIndex, BlockInfo | None], None] = lambda *_: None,
        outputs_copied: Callable[[AppId, ShuffleId, Outputs, Outputs], None] = lambda *_: None,
        content_fetched: Callable[[AppId, ContentId], None] = lambda _app, _content: None,
        note_slot: Callable[[int, AttemptId | None], None] = lambda _slot, _attempt: None,
        would_not_stop: Callable[[AttemptId, str, float, str], None] = lambda *_: None,
        disturb: Callable[[str], None] = lambda _kind: None,
        memory_manager: MemoryManager | None = None,
        serializers: Mapping[str, Serializer] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.id = executor
        self._config = config
        self._report = report
        self._replace_process = replace_process
        self._would_not_stop = would_not_stop
        self._note_slot = note_slot
        self._clock = clock
        limit = memory_limit_bytes or psutil.virtual_memory().total
        usable = usable_bytes(limit, _resident_at_start(), config.memory_fraction)
        self._memory = ExecutorMemory(usable if memory_manager is None else _pool_of(memory_manager, usable))
        self._memory_watch = MemoryWatch(
            limit, self._memory, running=lambda: list(self._running.values()), halt=self._halt, fail=self._fail_for_memory
        )
        #: no task is started while another runs
        self._halted = False
        self._results = ResultStore()
        self._applications = Applications(host_directory, transport, config, content_fetched)
        self._cache = BlockStore(
            self._memory,
            volumes=lambda app: self._applications.get(app).blocks,
            on_evicted=blocks_evicted,
            on_moved=blocks_moved,
        )
        self._copier = Copier(
            cache=self._cache,
            applications=self._applications,
            transport=transport,
            timeout_s=config.executor_timeout_s,
            serializers=serializers or {},
            block_copied=block_copied,
            outputs_copied=outputs_copied,
        )
        self._stages = Stages()
        self._services = TaskServices(
            executor=executor,
            host=host_directory.token,
            config=config,
            transport=transport,
            applications=self._applications,
            memory=self._memory,
            cache=self._cache,
            results=self._results,
            request_commit=request_commit,
            reach_barrier=reach_barrier,
            disturb=disturb,
            slots=lambda: self._slots,
            clock=clock,
            serializers=serializers or {},
        )
        self._reaper = Reaper("flowkit reaper")
        self._deletions: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._deleter: threading.Thread | None = None

        self._mutex = threading.Lock()
        #: attempts that wait for a slot
        self._queued: dict[AttemptId, Attempt] = {}
        #: attempts that take several slots, queued or running; while there are any, slots are counted
        self._wide: set[AttemptId] = set()
        #: attempts a slot has taken, until their ending was reported
        self._running: dict[AttemptId, Attempt] = {}
        #: attempts that are over (None) or were killed before their launch arrived (why); oldest first
        self._past: OrderedDict[AttemptId, str | None] = OrderedDict()
        #: the order of arrival: queued attempts, and withdrawn ones that nobody has passed over yet
        self._queue: deque[Attempt] = deque()
        #: those that go ahead of them
        self._urgent: deque[Attempt] = deque()
        self._slots = slots
        #: slot threads by their number; more than ``_slots`` only until the surplus has finished what it runs
        self._threads: dict[int, threading.Thread] = {}
        #: locks of slot threads that wait for work
        self._parked: list[threading.Lock] = []
        self._closed = False
        self._started = False

    # -- life

    def start(self) -> None:
        """Start the slots. What was launched before waits until then."""
        if not self._started:
            self._started = True
            gc_clock.start()
            self._memory_watch.start()
            self._adjust_threads()

    def close(self) -> None:
        """Start nothing more, ask running tasks to stop, and let go of all that is held.

        Waits at most two seconds for tasks to stop; one that does not is left behind on its daemon thread. Nothing is reported
        any more: who closes an executor knows that its attempts are over. Files stay on the host.
        """
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            threads = list(self._threads.values())
            self._unpark(len(self._parked))
        self._queue.clear()
        self._urgent.clear()
        for attempt in list(self._running.values()):
            attempt.kill("the executor is closing")
        deadline = time.monotonic() + _CLOSE_S
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        self._memory_watch.close()
        self._reaper.close()
        self._copier.close()
        if self._deleter is not None:
            self._deletions.put(None)
            self._deleter.join(max(0.0, deadline - time.monotonic()))
        self._results.close()
        if self._started:
            gc_clock.stop()

    def run_next(self) -> bool:
        """Run one queued attempt on the calling thread; False when there is none. For who drives an executor that was not started."""
        attempt = self._next_attempt()
        if attempt is None:
            return False
        self._run_attempt(attempt)
        return True

    def set_slots(self, slots: int) -> None:
        """Run ``slots`` tasks at a time from now on; of more that run already, none is stopped."""
        self._slots = slots
        self._adjust_threads()

    # -- stages and tasks

    def define_stage(self, definition: StageDefinition) -> None:
        """Tell of a stage, before its first launch and whenever its sources moved. Older versions are ignored."""
        self._stages.define(definition)

    def forget_stage(self, app: AppId, stage: StageId) -> None:
        """No more launches of this stage will come."""
        self._stages.forget(app, stage)

    def launch(self, tasks: Sequence[TaskLaunch]) -> None:
        """Queue attempts, in this order. One that is known, or was, is ignored; one killed before it came reports that."""
        if self._closed:
            return
        refused: list[TaskReport] = []
        for task in tasks:
            if task.attempt in self._queued or task.attempt in self._running:
                continue
            if task.attempt in self._past:
                reason = self._past[task.attempt]
                if reason is not None:
                    self._past[task.attempt] = None
                    refused.append(self._never_ran(task.attempt, reason))
                continue
            stage = self._stages.get(task.app, task.stage, task.stage_attempt)
            if stage is None:
                refused.append(self._never_ran(task.attempt, f"stage {task.stage}.{task.stage_attempt} is unknown on {self.id}"))
                continue
            if task.cpus > 1:
                self._wide.add(task.attempt)
            attempt = self._queued[task.attempt] = Attempt(task, stage)
            (self._urgent if task.urgent else self._queue).append(attempt)
        while len(self._past) > _REMEMBERED:
            self._past.popitem(last=False)
        # A slot that found nothing parks first and looks again then: one of the two sees the other.
        if (self._queue or self._urgent) and self._parked:
            with self._mutex:
                self._unpark(len(self._queue) + len(self._urgent))
        if refused:
            self._report(refused)

    def recall(self, attempts: Sequence[AttemptId]) -> None:
        """Give back those that have not started; each is reported as recalled, and will never start here."""
        given_back: list[TaskReport] = []
        for each in attempts:
            if self._withdraw(each) or not self._is_known(each):
                # If its launch was lost or is late, a promise not to start it is all that is asked for.
                self._past[each] = None
                given_back.append(TaskRecalled(each))
        if given_back:
            self._report(given_back)

    def kill(self, attempts: Sequence[AttemptId], reason: str) -> None:
        """Stop attempts: queued ones never start, running ones are interrupted, stubborn ones cost the process."""
        never_ran: list[TaskReport] = []
        for each in attempts:
            if self._withdraw(each):
                never_ran.append(self._never_ran(each, reason))
            elif (attempt := self._running.get(each)) is not None:
                self._kill_running(attempt, reason)
            elif each not in self._past:
                self._past[each] = reason
        if never_ran:
            self._report(never_ran)

    def answer_barrier(self, attempt: AttemptId, meeting: int, data: tuple[bytes, ...]) -> None:
        """All tasks have met; nobody waiting for it is no error."""
        known = self._running.get(attempt)
        if known is not None and known.gathered is not None:
            known.gathered.put((meeting, data))

    def answer_commit(self, attempt: AttemptId, granted: bool) -> None:
        """The scheduler's answer to ``request_commit``; nobody waiting for it is no error."""
        known = self._running.get(attempt)
        if known is not None:
            known.answers.put(granted)

    # -- results and blocks

    def release_results(self, attempts: Sequence[AttemptId]) -> None:
        """Drop stored results."""
        self._results.release(tuple(attempts))

    def result_chunk(self, attempt: AttemptId, offset: int, length: int) -> bytes | None:
        """Up to ``length`` bytes of a stored result; None when it is not here."""
        return self._results.chunk(attempt, offset, length)

    def cached_piece(self, app: AppId, rdd: RddId, partition: PartitionIndex, serial: int, position: int) -> BlockPiece | None:
        """Part of a cached partition, for another executor; None when it is not here. From any thread."""
        return self._cache.read_piece(app, rdd, partition, serial=serial, position=position)

    def copy_block(
        self, app: AppId, rdd: RddId, partition: PartitionIndex, level: StorageLevel, sources: tuple[str, ...]
    ) -> None:
        """Keep a cached partition of another executor here too, soon."""
        self._copier.copy_block(app, rdd, partition, level, sources)

    def copy_outputs(self, app: AppId, shuffle: ShuffleId, outputs: Outputs, sources: tuple[str, ...]) -> None:
        """Take map outputs of another host to this one, soon."""
        self._copier.copy_outputs(app, shuffle, outputs, sources)

    def drop_rdd(self, app: AppId, rdd: RddId) -> None:
        """Drop an RDD's cached partitions; their files on this host go soon."""
        self._cache.drop_rdd(app, rdd)
        self._delete(lambda: self._applications.drop_rdd(app, rdd))

    def drop_shuffle(self, app: AppId, shuffle: ShuffleId) -> None:
        """Delete a shuffle's files on this host, soon."""
        self._delete(lambda: self._applications.drop_shuffle(app, shuffle))

    def drop_contents(self, app: AppId, contents: tuple[ContentId, ...]) -> None:
        """Delete contents on this host, soon."""
        self._delete(lambda: self._applications.drop_contents(app, contents))

    def drop_application(self, app: AppId) -> None:
        """End all that an application has here: tasks, stages, blocks, results; its files on this host go soon."""
        known = [*self._queued.values(), *list(self._running.values())]
        self.kill([each.id for each in known if each.launch.app == app], "the application is over")
        self._stages.forget_application(app)
        self._results.drop_application(app)
        self._cache.drop_application(app)
        self._delete(lambda: self._applications.drop(app))

    # -- looking on

    def known_attempts(self) -> tuple[AttemptId, ...]:
        """Queued and running attempts, for heartbeats."""
        return tuple(dict.fromkeys([*list(self._queued), *list(self._running)]))

    def live_metrics(self) -> dict[AttemptId, TaskMetrics]:
        """What running tasks have measured so far: copies."""
        now = time.perf_counter()
        live: dict[AttemptId, TaskMetrics] = {}
        for attempt in list(self._running.values()):
            metrics = live[attempt.id] = copy(attempt.metrics)
            metrics.run_s = now - attempt.started
        return live

    @property
    def memory_bytes(self) -> int:
        """What tasks and cached partitions may use together."""
        return self._memory.total_bytes

    def statistics(self) -> ExecutorStatistics:
        """One look."""
        return ExecutorStatistics(
            slots=self._slots,
            thread_count=len(self._threads),
            queued_count=len(self._queued),
            running_count=len(self._running),
            stage_count=len(self._stages),
            stored_result_count=len(self._results),
            memory=self._memory.statistics(),
        )

    def __repr__(self) -> str:
        return f"<Executor {self.id}: {len(self._running)} of {self._slots} slots, {len(self._queued)} queued>"

    # -- attempts

    def _withdraw(self, attempt: AttemptId) -> bool:
        """Take an attempt out of the queue, unless a slot was faster."""
        if self._queued.pop(attempt, None) is None:
            return False
        self._past[attempt] = None
        self._wide.discard(attempt)
        return True

    def _is_known(self, attempt: AttemptId) -> bool:
        return attempt in self._running or attempt in self._past

    def _never_ran(self, attempt: AttemptId, reason: str) -> TaskFailed:
        return TaskFailed(attempt, 0.0, self._clock(), KilledFailure(reason), TaskMetrics())

    def _unpark(self, count: int) -> None:
        for _ in range(min(count, len(self._parked))):
            self._parked.pop().release()

    # -- killing

    def _kill_running(self, attempt: Attempt, reason: str) -> None:
        if attempt.kill(reason):
            grace_s = self._config.kill_grace_s
            self._interrupt_later(attempt, min(_INSIST_S, grace_s / 2), grace_s)
            self._reaper.after(grace_s, lambda: self._give_up(attempt, reason))

    def _fail_for_memory(self, attempt: Attempt, story: str) -> None:
        logger.warning("%s", story)
        attempt.out_of_memory = story
        self._kill_running(attempt, "it took too much memory")

    def _interrupt_later(self, attempt: Attempt, delay_s: float, left_s: float) -> None:
        """Insist, at doubling intervals: a kill can get lost on its way into a task."""

        def insist() -> None:
            if attempt.id in self._running:
                attempt.switch.interrupt_again()
                if delay_s < left_s:
                    self._interrupt_later(attempt, 2 * delay_s, left_s - delay_s)

        self._reaper.after(delay_s, insist)

    def _give_up(self, attempt: Attempt, reason: str) -> None:
        stack = attempt.switch.stack()
        if self._closed or attempt.id not in self._running:
            return
        self._would_not_stop(attempt.id, reason, self._config.kill_grace_s, stack)
        others = tuple(each for each in self.known_attempts() if each != attempt.id)
        launch = attempt.launch
        self._replace_process(
            f"partition {launch.partition} of stage {launch.stage} (attempt {attempt.id}) was to stop ({reason}) "
            f"but still runs after {self._config.kill_grace_s:g} s, here:\n{stack}",
            others,
        )

    # -- deleting files: a thread of its own, for a shuffle may be gigabytes and the event loop has no time

    def _delete(self, deletion: Callable[[], None]) -> None:
        if self._deleter is None:
            self._deleter = threading.Thread(target=self._run_deletions, name="flowkit deletions", daemon=True)
            self._deleter.start()
        self._deletions.put(deletion)

    def _run_deletions(self) -> None:
        while (deletion := self._deletions.get()) is not None:
            try:
                deletion()
            except BaseException:
                # What could not be deleted is found by the next sweep of the host's directory.
                logger.exception("files of a finished application or shuffle could not be deleted")

    # -- slots

    def _adjust_threads(self) -> None:
        starting: list[threading.Thread] = []
        with self._mutex:
            if not self._started or self._closed:
                return
            while len(self._threads) < self._slots:
                number = next(number for number in range(self._slots) if number not in self._threads)
                thread = threading.Thread(target=self._run_slot, args=(number,), name=f"flowkit slot {number}", daemon=True)
                self._threads[number] = thread
                starting.append(thread)
            self._unpark(len(self._threads) - self._slots)
        if starting:
            with _stack_size_lock:
                before = threading.stack_size(SLOT_STACK_BYTES)
                try:
                    for thread in starting:
                        thread.start()
                finally:
                    threading.stack_size(before)

    def _run_slot(self, number: int) -> None:
        parking = threading.Lock()
        parking.acquire()
        while True:
            # Read without the mutex, decided under it.
            if (self._closed or len(self._threads) > self._slots) and self._retire(number):
                return
            attempt = self._next_attempt()
            if attempt is not None:
                self._run_attempt(attempt, number)
            else:
                self._park(parking)

    def _retire(self, number: int) -> bool:
        with self._mutex:
            if not self._closed and len(self._threads) <= self._slots:
                return False
            del self._threads[number]
            # Whoever unparked this thread with an attempt in mind must find another.
            if self._queue or self._urgent:
                self._unpark(1)
            return True

    def _park(self, parking: threading.Lock) -> None:
        with self._mutex:
            self._parked.append(parking)
            if self._may_start() or self._closed or len(self._threads) > self._slots:
                # Something came between looking and parking.
                self._parked.remove(parking)
                return
        parking.acquire()

    def _halt(self, halted: bool) -> None:
        self._halted = halted
        if not halted and (self._queue or self._urgent):
            with self._mutex:
                self._unpark(len(self._queue) + len(self._urgent))

    def _next_attempt(self) -> Attempt | None:
        if self._halted and self._running:
            return None
        if self._wide:
            return self._next_that_fits()
        while True:
            try:
                attempt = self._urgent.popleft() if self._urgent else self._queue.popleft()
            except IndexError:
                if self._urgent or self._queue:  # another slot took the last of one of them
                    continue
                return None
            attempt.started = time.perf_counter()
            self._running[attempt.id] = attempt
            if self._queued.pop(attempt.id, None) is attempt:
                return attempt
            # Withdrawn.
            del self._running[attempt.id]

    def _may_start(self) -> bool:
        """With the mutex held: whether a slot that is free finds something to do."""
        if not (self._urgent or self._queue) or (self._halted and self._running):
            return False
        return not self._wide or self._head_that_fits() is not None

    def _head_that_fits(self) -> Attempt | None:
        """With the mutex held: what is next, if there are as many free slots as it takes."""
        for queue in (self._urgent, self._queue):
            while queue and queue[0].id not in self._queued:
                queue.popleft()  # withdrawn
            if queue:
                head = queue[0]
                busy = sum(each.launch.cpus for each in list(self._running.values()))
                return head if not busy or busy + head.launch.cpus <= self._slots else None
        return None

    def _next_that_fits(self) -> Attempt | None:
        with self._mutex:
            head = self._head_that_fits()
            if head is None:
                return None
            (self._urgent if self._urgent and self._urgent[0] is head else self._queue).popleft()
            head.started = time.perf_counter()
            self._running[head.id] = head
            del self._queued[head.id]
            return head

    def _run_attempt(self, attempt: Attempt, slot: int = 0) -> None:
        self._note_slot(slot, attempt.id)
        if self._memory_watch.idle:
            self._memory_watch.wake()
        attempt.started_at = self._clock()
        self._tell(TaskStarted(attempt.id, attempt.started_at))
        ending = run_task(attempt, self._services)
        self._note_slot(slot, None)
        self._tell(ending)
        if attempt.tells_twice:
            self._tell(ending)
        # Only now: what a heartbeat no longer names has had its ending reported.
        self._past[attempt.id] = None
        del self._running[attempt.id]
        if self._wide:
            self._wide.discard(attempt.id)
            with self._mutex:  # what did not fit may now
                self._unpark(len(self._parked))

    def _tell(self, report: TaskReport) -> None:
        if self._closed:
            # This executor is lost to the scheduler; under its successor's name the report would be a riddle.
            return
        try:
            self._report((report,))
        except BaseException:
            # A slot must outlive whoever listens; the scheduler resynchronises by heartbeat.
            logger.exception("a report of attempt %s was not taken", report.attempt)
