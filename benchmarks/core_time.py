"""What the scheduler core alone costs: microseconds and bytes a task, by number of tasks, without any cluster.

    python benchmarks/core_time.py [--tasks 1000,10000,100000] [--executors 100]

Executors are played by a list: what is launched is reported as done, a few at a time, on a clock that is only a number.
Timed is the core's own work; making the reports is not. Bytes are the most the core held beyond the job's description.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
import tracemalloc
import zlib
from collections import deque
from collections.abc import Iterator

from flowkit.config import Config
from flowkit.model.ids import AppId, ContentId, ExecutorId, HostToken, JobId, PartitionIndex, ShuffleId, StageId
from flowkit.model.job_spec import Content, JobSpec, ParentShuffle, StageKind, StageSpec
from flowkit.model.map_status import MapStatus, encode_size
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import InlineResult, MapOutput, TaskLaunch, TaskRecalled, TaskReport, TaskSucceeded
from flowkit.scheduling.actions import Action, JobFailed, JobSucceeded, Launch, Recall
from flowkit.scheduling.core import SchedulerCore
from flowkit.scheduling.stimuli import ApplicationOpened, ExecutorReady, JobSubmitted, Stimulus, TasksReported, Tick

APP, JOB = AppId("app-bench"), JobId(0)
MAP, RESULT, SHUFFLE = StageId(0), StageId(1), ShuffleId(0)
REDUCERS = 8
TASK_S = 0.002
TURN_S = 0.01
METRICS = TaskMetrics(run_s=TASK_S)
SIZES = zlib.compress(bytes([encode_size(1000)] * REDUCERS))


def job(tasks: int) -> JobSpec:
    """A map stage of ``tasks`` and a small result stage over it: the common shape, with map outputs to be tracked."""
    program = Content(ContentId("0" * 32), 100, b"x" * 100)
    partitions = tuple(map(PartitionIndex, range(tasks)))
    reducers = partitions[:REDUCERS]
    return JobSpec(
        APP,
        JOB,
        "bench",
        (
            StageSpec(MAP, "map", StageKind.MAP, tasks, partitions, program, shuffle=SHUFFLE, num_reducers=REDUCERS),
            StageSpec(RESULT, "result", StageKind.RESULT, REDUCERS, reducers, program, parents=(ParentShuffle(SHUFFLE),)),
        ),
    )


class Played:
    """Executors that do at once what they are told."""

    def __init__(self, count: int, slots: int) -> None:
        self.queues: dict[ExecutorId, deque[TaskLaunch]] = {}
        self.slots = slots
        for number in range(count):
            self.queues[ExecutorId(f"tcp://10.0.0.{number}:1#1")] = deque()

    def ready(self) -> Iterator[Stimulus]:
        """All of them, each on a host of its own."""
        for executor in self.queues:
            yield ExecutorReady(executor, HostToken(f"host-{executor}"), self.slots)

    def take(self, actions: list[Action]) -> tuple[list[Stimulus], bool]:
        """Queue launches, answer recalls; whether the job is over."""
        answers: list[Stimulus] = []
        over = False
        for action in actions:
            match action:
                case Launch(executor, tasks):
                    self.queues[executor].extend(tasks)
                case Recall(executor, attempts):
                    wanted = set(attempts)
                    kept = deque(task for task in self.queues[executor] if task.attempt not in wanted)
                    given = [task.attempt for task in self.queues[executor] if task.attempt in wanted]
                    self.queues[executor] = kept
                    answers.append(TasksReported(executor, tuple(map(TaskRecalled, given))))
                case JobSucceeded():
                    over = True
                case JobFailed(reason=reason):
                    raise RuntimeError(f"the job failed: {reason}")
                case _:
                    pass
        return answers, over

    def work(self, now: float) -> Iterator[Stimulus]:
        """What each executor gets done in one turn, as one batch."""
        most = self.slots * round(TURN_S / TASK_S)
        for executor, queue in self.queues.items():
            done = [queue.popleft() for _ in range(min(most, len(queue)))]
            if done:
                yield TasksReported(executor, tuple(self._ended(task, executor, now) for task in done))

    def _ended(self, task: TaskLaunch, executor: ExecutorId, now: float) -> TaskReport:
        if task.stage == RESULT:
            return TaskSucceeded(task.attempt, now - TASK_S, now, InlineResult(b"r"), METRICS)
        status = MapStatus(task.partition, task.attempt, HostToken(f"host-{executor}"), SIZES, 1000, 10)
        return TaskSucceeded(task.attempt, now - TASK_S, now, MapOutput(status), METRICS)


def run(spec: JobSpec, executors: int, slots: int) -> float:
    """Seconds the core worked for one job."""
    core, played = SchedulerCore(Config(), seed=1), Played(executors, slots)
    now, worked = 0.0, 0.0
    stimuli: list[Stimulus] = [ApplicationOpened(APP, "bench", "bench", 1e9), *played.ready(), JobSubmitted(spec)]
    while True:
        if not stimuli:
            if (wakeup := core.next_wakeup()) is None:
                raise RuntimeError("nothing to do, no time to wait for, and the job is not over")
            now, stimuli = max(now, wakeup), [Tick()]
        started = time.perf_counter()
        actions = core.handle_all(stimuli, now)
        worked += time.perf_counter() - started
        answers, over = played.take(actions)
        if over:
            return worked
        now += TURN_S
        stimuli = [*answers, *played.work(now)]


def measure(tasks: int, executors: int, slots: int, repeat: int) -> dict[str, float]:
    """Best time of a few runs, and the peak of memory of one more."""
    spec = job(tasks)
    best = min(run(spec, executors, slots) for _ in range(repeat))
    gc.collect()
    tracemalloc.start()
    run(spec, executors, slots)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"tasks": tasks, "microseconds": best / tasks * 1e6, "bytes": peak / tasks}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", default="1000,10000,100000")
    parser.add_argument("--executors", type=int, default=100)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one line for benchmarks/run.py")
    arguments = parser.parse_args()
    sizes = map(int, arguments.tasks.split(","))
    rows = [measure(tasks, arguments.executors, arguments.slots, arguments.repeat) for tasks in sizes]
    if arguments.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['tasks']:>9,} tasks   {row['microseconds']:6.1f} us a task   {row['bytes']:6.0f} bytes a task")


if __name__ == "__main__":
    main()
