"""A whole cluster in one thread: the real scheduler core, executors that compute nothing, a clock that is only a number.

Runs in tests, one call at a time. 10,000 executors fit; a second of cluster time costs what the core and the queues cost.

Every message takes a moment on its way, and may be doubled, dropped or overtaken if ``Network`` says so. Between two ends order
is kept otherwise, as the real channels keep it. Faults are calls: ``kill_executor``, ``stop_executor``, ``delete_output`` and so
on. What was computed and what was lost is counted, so that a test can compare.
"""

from __future__ import annotations

import pickle
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Any, assert_never

from flowkit.abc import AllocationPolicy, SchedulingPolicy
from flowkit.config import Config
from flowkit.model.events import Event
from flowkit.model.ids import (
    AppId,
    AttemptId,
    ContentId,
    ExecutorId,
    HostToken,
    JobId,
    PartitionIndex,
    ShuffleId,
    StageId,
    executor_address,
)
from flowkit.model.job_spec import JobSpec
from flowkit.model.task import InlineResult, StoredResult, TaskFailure, TaskLaunch
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti
from flowkit.scheduling.asking import interruptible
from flowkit.scheduling.core import SchedulerCore
from flowkit.simulation.executor import FileName, SimulatedExecutor, SimulatedHost
from flowkit.simulation.jobs import Value

Partition = tuple[AppId, StageId, PartitionIndex]


@dataclass(frozen=True, slots=True)
class Network:
    """How messages fare between the scheduler and executors. Those of drivers are late, never lost."""

    delay_s: tuple[float, float] = (0.001, 0.002)
    #: probability that a message comes twice
    duplicate: float = 0.0
    #: probability that it never comes
    drop: float = 0.0
    #: later messages may overtake earlier ones
    reorder: bool = False

    @property
    def is_reliable(self) -> bool:
        """Whether each message comes once and in order, as over the real channels."""
        return not (self.duplicate or self.drop or self.reorder)


@dataclass(slots=True)
class SimulatedJob:
    """A job as its driver sees it."""

    spec: JobSpec
    values: dict[PartitionIndex, Value] = field(default_factory=dict)
    ended: bool = False
    #: None when it succeeded
    failed: act.JobFailed | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it is over, and well."""
        return self.ended and self.failed is None

    @property
    def numbers(self) -> dict[PartitionIndex, int]:
        """The results, to be compared with ``jobs.expected``."""
        return {partition: value.number for partition, value in self.values.items()}


class SimulatedCluster:
    """Scheduler core, executors and drivers.

    Parameters
    ----------
    config
        For the core.
    seed
        Of the core's ties and of the network.
    task_s
        Seconds a task takes, or a function of its launch.
    network
        What happens to messages.
    report_batch_s
        How long executors gather reports before they send them.
    policy
        Who is served first; what ``config`` says, if it is not given.
    allocation
        How many executors there are, once ``offer_scaling`` was called; what ``config`` says, if it is not given.
    topology
        The rack of a host by its names.
    news_batch_s
        How long news gathers before the core is asked, as it does on the loop of a busy scheduler.
    keep_records
        Keep all events, and count what was computed and lost; millions of tasks do better without.

    Examples
    --------
    >>> from flowkit.simulation.jobs import expected, job, map_stage, result_stage
    >>> cluster = SimulatedCluster()
    >>> for number in range(3):
    ...     _ = cluster.add_executor()
    >>> app = cluster.open_application("a")
    >>> pairs = map_stage(0, 8)
    >>> done = cluster.submit(job(app, 0, pairs, result_stage(1, 4, [pairs])))
    >>> cluster.run()
    >>> done.numbers == expected(done.spec)
    True
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        seed: int = 0,
        task_s: float | Callable[[TaskLaunch], float] = 0.01,
        network: Network | None = None,
        report_batch_s: float = 0.0,
        policy: SchedulingPolicy | str | None = None,
        allocation: AllocationPolicy | str | None = None,
        topology: Callable[[Sequence[str]], str] | None = None,
        news_batch_s: float = 0.0,
        keep_records: bool = True,
    ) -> None:
        chosen = {"scheduling_policy": policy, "allocation": allocation, "topology": topology}
        self.config = (config or Config(validate=True)).with_settings(
            **{setting: each for setting, each in chosen.items() if each is not None}
        )
        self.seed = seed
        self.core = SchedulerCore(self.config, seed=seed)
        #: what the core was given and when, batch by batch, when it validates
        self.batches: list[tuple[float, list[sti.Stimulus]]] = []
        self.now = 0.0
        self.network = network or Network()
        self.executors: dict[ExecutorId, SimulatedExecutor] = {}
        self.hosts: dict[HostToken, SimulatedHost] = {}
        self.jobs: dict[tuple[AppId, JobId], SimulatedJob] = {}
        self.events: list[Event] = []
        #: size of the first block of each map output
        self.first_bytes = 1_000
        #: how many partitions of its span a task computes before it gives back the others
        self.at_once: Callable[[TaskLaunch], int] = lambda launch: launch.span
        #: every task adds the ``(stage, partition)`` of each of its partitions to an accumulator
        self.accumulates = False
        #: updates of accumulators that drivers were given
        self.accumulated: dict[AppId, list[bytes]] = {}
        #: every action of the core, when ``keep_actions`` is set
        self.actions: list[act.Action] = []
        self.keep_actions = False
        #: somebody can look at executors' processes from outside
        self.nannies = True
        #: what the core raised and contained, which it does when it does not validate
        self.faults: list[act.FaultFound] = []
        #: how often a map partition was computed to its end
        self.computed: Counter[Partition] = Counter()
        #: how often what was computed went away, or never became known
        self.lost: Counter[Partition] = Counter()
        #: failures that the next attempts at a task will report
        self.failures: dict[Partition, deque[TaskFailure]] = defaultdict(deque)
        #: when it was asked for how many executors, and when for whose end; a new one takes ``start_s``
        self.asked: list[tuple[float, int]] = []
        self.closed: list[tuple[float, ExecutorId]] = []
        self.start_s = 2.0
        #: of executors that are made as it was asked for, and whether those are ended whose end was asked for
        self.slots = 2
        self.closes = True
        self._starting = 0
        #: called when a driver hears that a job is over
        self.job_ended: Callable[[SimulatedJob], None] = lambda _job: None
        #: contents drivers put again when asked
        self.puts_content_again = True
        self._task_s = task_s
        self._keep_records = keep_records
        self._news_batch_s = news_batch_s
        #: when the news at hand is given to the core
        self._ripe_at: float | None = None
        self._wakeup: float | None = None
        self._by_address: dict[str, SimulatedExecutor] = {}
        self._report_batch_s = report_batch_s
        self._rng = Random(seed)
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._inbox: list[sti.Stimulus] = []
        self._arrivals: dict[tuple[str, ...], float] = {}
        self._drivers: set[AppId] = set()
        #: attempts the core has given up
        self._unwanted: set[AttemptId] = set()
        self._made = 0
        self._numbers = 0

    # -- what a test does

    def add_executor(
        self,
        host: str = "host",
        slots: int = 2,
        names: tuple[str, ...] = (),
        resources: dict[str, tuple[str, ...]] | None = None,
        shared: tuple[str, ...] = (),
        memory_bytes: int = 0,
        replaceable: bool = True,
    ) -> ExecutorId:
        """A new process on a host, which may have files already."""
        self._made += 1
        executor = SimulatedExecutor(
            ExecutorId(f"tcp://{host}:{self._made}#1"), self.host(HostToken(host)), slots, self, self._report_batch_s
        )
        self.executors[executor.id] = executor
        self._by_address[executor_address(executor.id)] = executor
        executor.host.executors[executor.id] = executor
        self.send(
            executor,
            sti.ExecutorReady(executor.id, executor.host.token, slots, names, resources or {}, shared, memory_bytes, replaceable),
        )
        self._beat(executor)
        return executor.id

    def kill_executor(
        self, executor: ExecutorId, *, task_caused: bool | None = False, reason: str = "killed by a test", record: bool = False
    ) -> None:
        """The process ends; Dask notices. Its host's files stay. ``record``: somebody read what its slots ran in the end."""
        running = tuple(self.executors[executor].running) if record else None
        self._end(self.executors[executor])
        self._to_core(sti.ExecutorLost(executor, reason, task_caused, running), channel=("executor", executor), reliable=True)

    def stop_executor(self, executor: ExecutorId) -> None:
        """It falls silent; nobody is told."""
        stopped = self.executors[executor]
        stopped.silent = True
        if all(each.silent for each in stopped.host.executors.values()):
            self._count_lost(stopped.host, stopped.host.files)

    def hold_executor(self, executor: ExecutorId) -> None:
        """A task of its holds its interpreter's lock, and works: it is as silent as a stopped one, but uses processor time."""
        self.stop_executor(executor)
        self.executors[executor].works_since = self.now

    def continue_executor(self, executor: ExecutorId) -> None:
        """It goes on where it was."""
        self.executors[executor].silent = False
        self.executors[executor].works_since = None

    def tell(self, stimulus: sti.Stimulus) -> None:
        """News that comes from the cluster itself: pauses, drains, slots, evictions."""
        channel = ("executor", getattr(stimulus, "executor", ""))
        self._to_core(stimulus, channel=channel, reliable=True)

    def delete_output(self, app: AppId, shuffle: int, partition: int) -> int:
        """Files of one map output vanish from every host; returns how many."""
        gone = 0
        for host in self.hosts.values():
            for name in [name for name in host.files if name[:3] == (app, shuffle, partition)]:
                self._count_lost(host, [name])
                del host.files[name]
                gone += 1
        return gone

    def delete_host(self, token: str) -> None:
        """The machine is gone with its disk."""
        host = self.hosts[HostToken(token)]
        for executor in list(host.executors):
            self.kill_executor(executor, reason="the machine is gone")
        host.files.clear()

    def fail(self, app: AppId, stage: int, partition: int, *failures: TaskFailure) -> None:
        """The next attempts at this task end so."""
        self.failures[app, StageId(stage), PartitionIndex(partition)].extend(failures)

    def open_application(self, name: str, lease_s: float = 60.0) -> AppId:
        """A driver begins, and renews its lease until it is closed or lost."""
        app = AppId(name)
        self._drivers.add(app)
        self._from_driver(app, sti.ApplicationOpened(app, name, "simulated", lease_s))
        self._renew(app, lease_s / 3)
        return app

    def close_application(self, app: AppId) -> None:
        """The driver says farewell."""
        self.lose_driver(app)
        self._from_driver(app, sti.ApplicationClosed(app, "closed by a test"))

    def lose_driver(self, app: AppId) -> None:
        """It dies without a word; nobody waits for its jobs any more."""
        self._drivers.discard(app)
        self._end_jobs(app, "its driver is gone")

    def submit(self, spec: JobSpec) -> SimulatedJob:
        """Start a job."""
        found = self.jobs[spec.app, spec.job] = SimulatedJob(spec)
        self._from_driver(spec.app, sti.JobSubmitted(spec))
        return found

    def cancel(self, job: SimulatedJob) -> None:
        """Ask for a job's end."""
        self._from_driver(job.spec.app, sti.JobCancelRequested(job.spec.app, job.spec.job, "cancelled by a test"))

    def offer_scaling(self, app: AppId, count: int) -> None:
        """The driver can add executors, and close them; ``count`` were asked for so far."""
        self._from_driver(app, sti.ScalingOffered(app, count))

    def driver_says(self, stimulus: sti.RddUnpersistRequested | sti.ShuffleReleased | sti.ResultLost) -> None:
        """Something else a driver asks for."""
        self._from_driver(stimulus.app, stimulus)

    # -- time

    def run(self, limit_s: float = 3_600.0) -> None:
        """Go on until every job is over and quiet has returned; ``TimeoutError`` if that is not within the limit."""
        until = self.now + limit_s
        while not all(job.ended for job in self.jobs.values()):
            if self.now >= until or not self._step(until):
                waiting = [key for key, job in self.jobs.items() if not job.ended]
                raise TimeoutError(f"jobs {waiting} are not over after {limit_s:g} s: {self.core.statistics()}")
        self.advance(5 * self.config.heartbeat_s)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while self._step(until):
            pass
        self.now = until

    def _step(self, until: float) -> bool:
        """Go to the next thing that happens, unless that is later; what happens at one time is one batch for the core."""
        due = min(
            self._calls[0][0] if self._calls else until + 1.0,
            until + 1.0 if self._wakeup is None else self._wakeup,
            until + 1.0 if self._ripe_at is None else self._ripe_at,
        )
        if due > until:
            return False
        self.now = max(self.now, due)
        while self._calls and self._calls[0][0] <= self.now:
            heappop(self._calls)[2]()
        if self._wakeup is not None and self._wakeup <= self.now:
            self._inbox.append(sti.Tick())
            self._ripe_at = self.now
        if self._ripe_at is not None and self._ripe_at <= self.now:
            batch, self._inbox, self._ripe_at = self._inbox, [], None
            if self.config.validate:
                self.batches.append((self.now, batch))
            for action in self.ask(batch):
                self._perform(action)
        return True

    def ask(self, batch: list[sti.Stimulus]) -> list[act.Action]:
        """Give the core what happened; what it wants done, and from then on when it wants to be woken."""
        with interruptible():
            actions = self.core.handle_all(batch, self.now)
        self._wakeup = self.core.next_wakeup()  # asked only here: nothing else changes it
        return actions

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call it then."""
        self._numbers += 1
        heappush(self._calls, (self.now + delay_s, self._numbers, call))

    # -- what executors need

    def host(self, token: HostToken) -> SimulatedHost:
        """The host of this token, made at first use."""
        return self.hosts.setdefault(token, SimulatedHost(token))

    def executor_at(self, address: str) -> SimulatedExecutor | None:
        """Who answers there."""
        return self._by_address.get(address)

    def send(self, executor: SimulatedExecutor, stimulus: sti.Stimulus) -> None:
        """An executor's message sets out."""
        self._to_core(stimulus, channel=("executor", executor.id), reliable=isinstance(stimulus, sti.ExecutorReady))

    def task_s(self, launch: TaskLaunch) -> float:
        """How long a task takes."""
        return self._task_s(launch) if callable(self._task_s) else self._task_s

    def planned_failure(self, launch: TaskLaunch) -> TaskFailure | None:
        """How this attempt is to end, if a test said so."""
        planned = self.failures.get((launch.app, launch.stage, launch.partition))
        return planned.popleft() if planned else None

    def most_at_once(self, launch: TaskLaunch) -> int:
        """How many partitions of its span a task computes before it gives back the others."""
        return self.at_once(launch)

    def was_computed(self, launch: TaskLaunch, partition: PartitionIndex, shuffle: ShuffleId | None) -> None:
        """Count it: one of a task's partitions."""
        if shuffle is not None and self._keep_records:
            self.computed[launch.app, launch.stage, partition] += 1
            # One whose launch was taken for lost while its executor was silent is made again, and may have run after all.
            unwanted = launch.attempt in self._unwanted or (self.config.validate and not self.core.knows(launch.attempt))
            self.lost[launch.app, launch.stage, partition] += unwanted

    # -- messages

    def _from_driver(self, app: AppId, stimulus: sti.Stimulus) -> None:
        self._to_core(stimulus, channel=("driver", app), reliable=True)

    def _to_core(self, stimulus: sti.Stimulus, *, channel: tuple[str, str], reliable: bool) -> None:
        self._deliver(("in", *channel), partial(self._arrive, stimulus), reliable=reliable)

    def _arrive(self, stimulus: sti.Stimulus) -> None:
        self._inbox.append(stimulus)
        if self._ripe_at is None:
            self._ripe_at = self.now + self._news_batch_s

    def _deliver(self, channel: tuple[str, ...], call: Callable[[], None], *, reliable: bool) -> None:
        network = self.network
        if not reliable and network.drop and self._rng.random() < network.drop:
            return
        copies = 2 if not reliable and network.duplicate and self._rng.random() < network.duplicate else 1
        for _ in range(copies):
            at = self.now + self._rng.uniform(*network.delay_s)
            if reliable or not network.reorder:
                at = self._arrivals[channel] = max(at, self._arrivals.get(channel, 0.0))
            self._numbers += 1
            heappush(self._calls, (at, self._numbers, call))

    def _perform(self, action: act.Action) -> None:
        if self.keep_actions:
            self.actions.append(action)
        match action:
            case act.Publish(event=event):
                if self._keep_records:
                    self.events.append(event)
            case (
                act.DeliverResult()
                | act.DeliverAccumulated()
                | act.JobSucceeded()
                | act.JobFailed()
                | act.RequestContent()
                | act.ApplicationExpired()
                | act.ScaleTo()
                | act.CloseExecutors()
            ):
                self._deliver(("out", "driver", action.app), partial(self._driver_hears, action), reliable=True)
            case act.Kill(executor=executor, attempts=attempts):
                # Whatever they did or still do is not wanted any more, and may be computed again for another job.
                if self._keep_records:
                    self._unwanted.update(attempts)
                    for host in self.hosts.values():
                        self._count_lost(host, [name for name in host.files if name[3] in attempts])
                self._deliver(("out", "executor", executor), partial(self._executor_hears, action), reliable=False)
            case act.Examine(executor=executor):
                self._deliver(("out", "nanny", executor), partial(self._examine, executor), reliable=True)
            case act.FaultFound():
                self.faults.append(action)
            case act.ExpireExecutor(executor=executor):
                if executor in self.executors:
                    self._end(self.executors[executor])
            case (
                act.Launch()
                | act.DefineStage()
                | act.ForgetStage()
                | act.Recall()
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
                self._deliver(("out", "executor", action.executor), partial(self._executor_hears, action), reliable=False)
            case _:
                assert_never(action)

    def _examine(self, executor_id: ExecutorId) -> None:
        executor = self.executors.get(executor_id)
        found = sti.Examined(executor_id)
        if executor is not None and self.nannies:
            found = executor.seen()
        self._to_core(found, channel=("nanny", executor_id), reliable=True)

    def _executor_hears(self, action: act.ExecutorAction) -> None:
        executor = self.executors.get(action.executor)
        if executor is None:
            return
        if executor.silent:  # it lies in the socket until the process goes on
            self.later(1.0, partial(self._executor_hears, action))
            return
        executor.perform(action)

    # -- drivers

    def _driver_hears(self, action: act.DriverAction) -> None:
        if action.app not in self._drivers:
            return
        match action:
            case act.DeliverResult(app=app, job=number, attempt=attempt, executor=holder, result=result):
                found = self.jobs[app, number]
                if isinstance(result, InlineResult):
                    self._take(found, action, pickle.loads(result.data))
                elif isinstance(result, StoredResult):
                    self.later(0.001, partial(self._fetch, found, action, attempt, holder))
            case act.DeliverAccumulated(app=app, data=data):
                self.accumulated.setdefault(app, []).append(data)
            case act.JobSucceeded(app=app, job=number):
                self.jobs[app, number].ended = True
                self.job_ended(self.jobs[app, number])
            case act.JobFailed(app=app, job=number):
                found = self.jobs[app, number]
                found.ended, found.failed = True, action
                self.job_ended(found)
            case act.RequestContent(app=app, content=content):
                if self.puts_content_again:
                    self._put_content(app, content)
            case act.ScaleTo(count=count):
                self.asked.append((self.now, count))
                for _ in range(count - len(self.executors) - self._starting):
                    self._starting += 1
                    self.later(self.start_s, self._start)
            case act.CloseExecutors(executors=executors):
                for executor in executors:
                    self.closed.append((self.now, executor))
                    if self.closes and executor in self.executors:
                        self.kill_executor(executor, reason="closed, as it was asked for")
            case act.ApplicationExpired(app=app, reason=reason):
                self._drivers.discard(app)
                self._end_jobs(app, reason)
            case _:
                assert_never(action)

    def _start(self) -> None:
        self._starting -= 1
        self.add_executor(f"made-{self._made}", self.slots)

    def _end_jobs(self, app: AppId, reason: str) -> None:
        for (owner, number), found in self.jobs.items():
            if owner == app and not found.ended:
                found.ended, found.failed = True, act.JobFailed(app, number, "ApplicationLost", reason)

    def _take(self, job: SimulatedJob, delivery: act.DeliverResult, values: Any) -> None:
        if delivery.piece:
            return  # the first one stands for all
        for each, value in enumerate((values,) if delivery.span == 1 else values):
            job.values[PartitionIndex(delivery.partition + each)] = value

    def _fetch(self, job: SimulatedJob, delivery: act.DeliverResult, attempt: AttemptId, holder: ExecutorId) -> None:
        executor = self.executors.get(holder)
        app = job.spec.app
        if job.ended or app not in self._drivers:
            return
        if executor is None or executor.silent or attempt not in executor.results:
            self._from_driver(app, sti.ResultLost(app, job.spec.job, attempt))
            return
        self._take(job, delivery, executor.results[attempt])
        self._from_driver(app, sti.ResultsFetched(app, (attempt,)))

    def _put_content(self, app: AppId, content: ContentId) -> None:
        hosts = sorted(host.token for host in self.hosts.values() if host.executors)
        if hosts:
            self._from_driver(app, sti.ContentPut(app, content, hosts[0]))
        else:
            self.later(1.0, partial(self._put_content, app, content))

    def _renew(self, app: AppId, every_s: float) -> None:
        if app in self._drivers:
            self._from_driver(app, sti.LeaseRenewed(app))
            self.later(every_s, partial(self._renew, app, every_s))

    # -- executors' lives

    def _beat(self, executor: SimulatedExecutor) -> None:
        if executor.alive:
            if not executor.silent:
                self.send(executor, executor.heartbeat())
            self.later(self.config.heartbeat_s, partial(self._beat, executor))

    def _end(self, executor: SimulatedExecutor) -> None:
        executor.alive = False
        self.executors.pop(executor.id, None)
        self._by_address.pop(executor_address(executor.id), None)
        executor.host.executors.pop(executor.id, None)
        self._count_lost(executor.host, executor.unreported() if executor.host.executors else executor.host.files)

    def _count_lost(self, host: SimulatedHost, files: Iterable[FileName]) -> None:
        for app, shuffle, first, attempt in files:
            for each in range(len(host.files[app, shuffle, first, attempt])):
                self.lost[app, StageId(shuffle), PartitionIndex(first + each)] += 1
