"""What the core costs at sizes no test machine has: time and memory a task, and how near a job comes to the best that is possible.

Runs in the process that calls it, in one thread. Executors and the network are simulated, the core is the real one; only its own time
is counted.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from random import Random
from time import thread_time

import msgspec

from flowkit.abc import SchedulingPolicy
from flowkit.config import Config
from flowkit.model.ids import ExecutorId
from flowkit.model.job_spec import JobSpec
from flowkit.model.task import ExceptionFailure, Locality, TaskLaunch
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti
from flowkit.scheduling.policies.capacity import Capacity
from flowkit.scheduling.policies.fair import Fair
from flowkit.scheduling.policies.fifo import Fifo
from flowkit.scheduling.policies.pools import POOL, PRIORITY
from flowkit.scheduling.policies.priority import Priority
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import job, map_stage, result_stage

#: jobs that share the cluster, each in a pool of its own
_JOBS = 4
_MEDIAN_S, _SIGMA = 1.0, 0.5
#: of tasks take this many times as long
_STRAGGLERS, _SLOWNESS = 0.005, 10.0
#: of tasks fail once
_FAILURES = 0.001
#: partitions of the shuffle that all tasks of a job read
_MAPS, _MAP_S = 4, 0.1
#: executors that are lost on the way, of all
_LOSSES = 0.001

#: what pools 0 and 1 have for each other, and the most they have of all slots, by policy
_SHARES = {"fair": ((3.0, 1.0), (1.0, 1.0)), "capacity": ((0.5, 0.2), (1.0, 0.4))}
_ALL = ((1.0,), (1.0,))

#: reports given to the core at a time
_SLICE_WEIGHT = 128

POLICIES: dict[str, Callable[[], SchedulingPolicy]] = {
    "fifo": Fifo,
    "fair": lambda: Fair({"pool 0": 3, "pool 1": 1}),
    "capacity": lambda: Capacity({"pool 0": {"guarantee": 0.5}, "pool 1": {"guarantee": 0.2, "maximum": 0.4}}),
    "priority": Priority,
}


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs on a cluster, with all that goes wrong on one."""

    tasks: int
    executors: int = 10_000
    hosts: int = 1_000
    slots: int = 2
    policy: str = "fifo"
    seed: int = 0
    #: how long news gathers on the scheduler's loop before the core is asked
    news_batch_s: float = 0.001


@dataclass(frozen=True, slots=True)
class Measured:
    """What a workload took."""

    workload: Workload
    #: of the core, per task, in this process's time
    core_us: float
    #: on the simulated clock
    makespan_s: float
    #: all slots busy to the end that the policy lets each pool have, and no task longer than the longest: who knew how long each task takes
    #: would begin with the longest
    ideal_s: float
    #: the same without that knowledge: tasks begin in the policy's order whenever a slot is free, nothing goes wrong, nothing takes time
    #: but they; the longest task of those that begin last is waited for
    in_order_s: float
    #: longest time that the core held its caller
    longest_ms: float
    #: attempts launched, failures, losses and copies of slow tasks included
    launched: int
    #: part of launches on a host that holds the task's input
    near: float


class _TimedCluster(SimulatedCluster):
    """Counts the core's own time, and what it launches."""

    core_s = longest_s = 0.0
    launched = near = 0

    def ask(self, batch: list[sti.Stimulus]) -> list[act.Action]:
        return [action for some in _slices(batch) for action in self._timed(some)]

    def _timed(self, batch: list[sti.Stimulus]) -> list[act.Action]:
        begin = thread_time()  # what else the machine does meanwhile is not the core's
        actions = super().ask(batch)
        took = thread_time() - begin
        self.core_s += took
        self.longest_s = max(self.longest_s, took)
        for action in actions:
            if isinstance(action, act.Launch):
                self.launched += len(action.tasks)
                self.near += sum(task.locality <= Locality.NODE for task in action.tasks)
        return actions


def _slices(news: list[sti.Stimulus]) -> Iterator[list[sti.Stimulus]]:
    """What the core is given at a time, as its loop in the scheduler process does it (``cluster/core_loop.py``)."""
    some: list[sti.Stimulus] = []
    weight = 0
    for each in news:
        some.append(each)
        weight += len(each.reports) if isinstance(each, sti.TasksReported) else 1
        if weight >= _SLICE_WEIGHT:
            yield some
            some, weight = [], 0
    if some or not news:
        yield some


def measure(workload: Workload) -> Measured:
    """Run a workload to its end.

    Examples
    --------
    >>> measured = measure(Workload(tasks=200, executors=20, hosts=4))
    >>> measured.launched >= 200 and measured.makespan_s >= measured.ideal_s
    True
    >>> measured.in_order_s >= measured.ideal_s
    True
    """
    cluster, executors = _cluster(workload)
    chance = Random(workload.seed)
    app = cluster.open_application("scale")
    cluster.advance(1.0)
    specs = [_job(cluster, workload, number) for number in range(_JOBS)]
    for spec in specs:
        stage = spec.result_stage
        for partition in stage.partitions:
            if chance.random() < _FAILURES:
                cluster.fail(app, stage.stage, partition, ExceptionFailure("OSError", "now and then", "", None))
    cluster.core_s = cluster.longest_s = 0.0
    begin = cluster.now
    jobs = [cluster.submit(spec) for spec in specs]
    ideal_s = _ideal(workload, specs)
    for _ in range(int(workload.executors * _LOSSES)):
        victim = executors[chance.randrange(len(executors))]
        cluster.later(ideal_s * chance.random(), partial(_lose, cluster, workload, victim))
    collects = gc.isenabled()
    gc.collect()
    gc.disable()  # it would look through the simulated executors' objects, which are many, in the core's time
    try:
        while not all(each.ended for each in jobs):
            cluster.advance(0.05)
    finally:
        if collects:
            gc.enable()
    failed = [each.failed for each in jobs if each.failed is not None]
    if failed:
        raise RuntimeError(f"a job failed: {failed[0].reason}")
    return Measured(
        workload,
        core_us=cluster.core_s / workload.tasks * 1e6,
        makespan_s=cluster.now - begin,
        ideal_s=ideal_s,
        in_order_s=_in_order(workload, specs),
        longest_ms=cluster.longest_s * 1e3,
        launched=cluster.launched,
        near=cluster.near / cluster.launched,
    )


def bytes_per_task(workload: Workload) -> float:
    """What the core keeps of a task while all of them wait or run, the job's description included."""
    cluster, _ = _cluster(workload)
    cluster.open_application("scale")
    cluster.advance(1.0)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(_JOBS):
            cluster.submit(_job(cluster, workload, number))
        cluster.advance(1.0)
        core = cluster.core
        del cluster  # what simulated executors were sent is not kept by the core
        gc.collect()
        ours = [  # of reports the core keeps the last 1,000, however many tasks there are
            tracemalloc.Filter(inclusive=False, filename_pattern=f"*{name}")
            for name in ("cluster.py", "executor.py", "tracemalloc.py")
        ]
        kept = tracemalloc.take_snapshot().filter_traces(ours)
        assert core.statistics().attempts, "nothing runs, so this says nothing"
        return sum(trace.size for trace in kept.traces) / workload.tasks
    finally:
        tracemalloc.stop()


def _cluster(workload: Workload) -> tuple[_TimedCluster, list[ExecutorId]]:
    config = Config(speculation=True, heartbeat_s=10.0, executor_timeout_s=60.0)
    cluster = _TimedCluster(
        config,
        seed=workload.seed,
        task_s=lambda launch: _duration(workload, launch),
        policy=POLICIES[workload.policy](),
        report_batch_s=0.002,
        news_batch_s=workload.news_batch_s,
        keep_records=False,
    )
    executors = [
        cluster.add_executor(_host(number % workload.hosts), workload.slots, (_host(number % workload.hosts),))
        for number in range(workload.executors)
    ]
    return cluster, executors


def _host(number: int) -> str:
    return f"host{number}"


def _job(cluster: SimulatedCluster, workload: Workload, number: int) -> JobSpec:
    """A small shuffle, and tasks that read it and a file each that lies on two hosts."""
    chance = Random(f"{workload.seed} {number}")
    tasks = workload.tasks // _JOBS + (number < workload.tasks % _JOBS)
    hosts = [_host(at) for at in range(workload.hosts)]
    preferred = {at: (hosts[chance.randrange(len(hosts))], hosts[chance.randrange(len(hosts))]) for at in range(tasks)}
    (app,) = cluster.core.cached_blocks()
    read = map_stage(2 * number, _MAPS)
    spec = job(app, number, read, result_stage(2 * number + 1, tasks, [read], preferred_hosts=preferred))
    return msgspec.structs.replace(spec, properties={POOL: f"pool {number % 2}", PRIORITY: str(number)})


def _duration(workload: Workload, launch: TaskLaunch) -> float:
    """The same for a task whatever runs it, save that a straggler is slow the first time only."""
    if not launch.stage % 2:
        return _MAP_S
    chance = Random(workload.seed * 1_000_003 + launch.stage * 100_000_007 + launch.partition)
    seconds = chance.lognormvariate(0.0, _SIGMA) * _MEDIAN_S
    return seconds * _SLOWNESS if chance.random() < _STRAGGLERS and not launch.attempt_number else seconds


def _times(workload: Workload, spec: JobSpec) -> list[float]:
    """How long each task of a job takes that is no straggler."""
    seed = workload.seed * 1_000_003 + spec.result_stage.stage * 100_000_007
    return [Random(seed + each).lognormvariate(0.0, _SIGMA) * _MEDIAN_S for each in spec.result_stage.partitions]


def _lines(workload: Workload, specs: list[JobSpec]) -> list[list[float]]:
    """Tasks that are served one after the other: of the pools that a policy shares among, or all."""
    times = [_times(workload, spec) for spec in specs]
    if workload.policy == "priority":
        times.reverse()
    pools = [times[0::2], times[1::2]] if workload.policy in _SHARES else [times]
    return [[each for job_times in pool for each in job_times] for pool in pools]


def _ideal(workload: Workload, specs: list[JobSpec]) -> float:
    lines, slots = _lines(workload, specs), workload.executors * workload.slots
    _, maxima = _SHARES.get(workload.policy, _ALL)
    work = [sum(line) / (slots * most) for line, most in zip(lines, maxima, strict=True)]
    return _MAP_S + max(*work, sum(map(sum, lines)) / slots, *(max(line, default=0.0) for line in lines))


def _in_order(workload: Workload, specs: list[JobSpec]) -> float:
    lines, slots = _lines(workload, specs), workload.executors * workload.slots
    weights, maxima = _SHARES.get(workload.policy, _ALL)
    waiting = [line[::-1] for line in lines]
    running = [0] * len(lines)
    ends: list[tuple[float, int]] = []
    now = 0.0
    while any(waiting) or ends:
        able = [at for at, line in enumerate(waiting) if line and running[at] < maxima[at] * slots]
        if able and len(ends) < slots:
            at = min(able, key=lambda each: running[each] / weights[each])
            running[at] += 1
            heappush(ends, (now + waiting[at].pop(), at))
        else:
            now, at = heappop(ends)
            running[at] -= 1
    return _MAP_S + now


def _lose(cluster: SimulatedCluster, workload: Workload, victim: ExecutorId) -> None:
    if victim in cluster.executors:
        cluster.kill_executor(victim, reason="lost in the simulation")
        cluster.add_executor(_host_of(victim), workload.slots, (_host_of(victim),))


def _host_of(executor: ExecutorId) -> str:
    """The host in a simulated executor's id."""
    return executor.removeprefix("tcp://").rpartition(":")[0]
