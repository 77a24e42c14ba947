"""How long recorded jobs would have taken elsewhere: their tasks' times, as an event log has them, on a simulated cluster.

Runs in the process that calls it, in one thread. The scheduler core is the real one; what tasks take is what they took, wherever they ran,
so a cluster with slower disks or a busier network than the recorded one is not foreseen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import msgspec

from flowkit.abc import SchedulingPolicy
from flowkit.config import Config
from flowkit.errors import InvalidArgument, JobFailed
from flowkit.model.events import Event, ExecutorAdded, ExecutorRemoved, JobEnd, JobStart, StageInfo, TaskEnd
from flowkit.model.ids import AppId, JobId, PartitionIndex, StageId
from flowkit.model.job_spec import JobSpec, StageKind, StageSpec
from flowkit.model.task import TaskLaunch
from flowkit.observe.event_log import read_event_log
from flowkit.simulation.cluster import SimulatedCluster, SimulatedJob
from flowkit.simulation.jobs import SimulatedProgram, content_of, job, map_stage, result_stage


@dataclass
class RecordedJob:
    """One that ended well."""

    job: JobId
    name: str
    started_at: float
    ended_at: float
    stages: tuple[StageInfo, ...]
    properties: dict[str, str]


@dataclass
class Recording:
    """What an event log says of jobs and executors."""

    jobs: list[RecordedJob] = field(default_factory=list)
    #: how long each task took, in the attempt that ended well
    times: dict[tuple[StageId, PartitionIndex], float] = field(default_factory=dict)
    #: slots of executors, as many as there were at the same time at most
    slots: list[int] = field(default_factory=list)

    @classmethod
    def read(cls, path: str | Path) -> Recording:
        """From an event log.

        Raises
        ------
        errors.InvalidArgument
            There is none, or no job in it ended well.
        """
        found = cls.of(read_event_log(path))
        if not found.jobs:
            raise InvalidArgument(
                f"no job ended well in the event log {path}", name="path", value=str(path), allowed="one with jobs"
            )
        return found

    @classmethod
    def of(cls, events: Iterable[Event]) -> Recording:
        """From events, oldest first."""
        found = cls()
        starts: dict[JobId, JobStart] = {}
        there: dict[str, int] = {}
        pieces: dict[tuple[StageId, PartitionIndex], dict[int, float]] = {}
        for event in events:
            match event:
                case JobStart():
                    starts[event.job] = event
                case JobEnd(outcome="succeeded") if event.job in starts:  # a log may have lost some
                    begun = starts[event.job]
                    found.jobs.append(
                        RecordedJob(event.job, begun.name, begun.time, event.time, begun.stages, dict(begun.properties))
                    )
                case TaskEnd(failure=None):
                    seconds = (event.ended_at - event.started_at) / event.span
                    for partition in map(PartitionIndex, range(event.partition, event.partition + event.span)):
                        parts = pieces.setdefault((event.stage, partition), {})
                        parts[event.piece] = seconds
                        found.times[event.stage, partition] = sum(parts.values())
                case ExecutorAdded():
                    there[event.executor] = event.slots
                    if len(there) > len(found.slots):
                        found.slots = list(there.values())
                case ExecutorRemoved():
                    there.pop(event.executor, None)
                case _:
                    pass
        found.jobs.sort(key=lambda each: each.started_at)
        return found

    @property
    def took_s(self) -> float:
        """From the first job's start to the last one's end."""
        return max(each.ended_at for each in self.jobs) - self.jobs[0].started_at

    @property
    def work_s(self) -> float:
        """What all tasks took together."""
        return sum(self.times.values())


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it would have been."""

    executors: int
    slots: int
    took_s: float
    #: how long each job took, by its number
    jobs: dict[JobId, float]


def simulate(
    recording: Recording,
    executors: int,
    *,
    slots: int | None = None,
    policy: SchedulingPolicy | str | None = None,
    config: Config | None = None,
) -> Outcome:
    """Run recorded jobs on so many executors.

    A job that began when others had ended begins when they end here, after the pause that its driver made; one that began beside others does
    so here.

    Parameters
    ----------
    executors, slots
        How many, of how many slots; None: of as many as the recorded ones had most often.
    policy
        Who is served first; None: what ``config`` says.
    config
        Of the scheduler core.

    Raises
    ------
    errors.JobFailed
        A job fails here, as under a policy that raises.
    """
    chosen = slots or (round(median(recording.slots)) if recording.slots else 1)
    by_stage: dict[StageId, list[float]] = {}
    for (stage, _), seconds in recording.times.items():
        by_stage.setdefault(stage, []).append(seconds)
    # A stage that never ran while the log was written was spared, by the cache or an earlier session: it costs nothing here either.
    usual_s = {stage: median(times) for stage, times in by_stage.items()}

    def task_s(launch: TaskLaunch) -> float:
        return recording.times.get((launch.stage, launch.partition), usual_s.get(launch.stage, 0.0))

    cluster = SimulatedCluster(
        config or Config(), task_s=task_s, policy=policy, report_batch_s=0.002, news_batch_s=0.001, keep_records=False
    )
    for number in range(executors):
        cluster.add_executor(f"host-{number}", chosen)
    app = cluster.open_application("recorded")
    cluster.advance(1.0)
    begun_at = cluster.now
    driver = _Driver(cluster, app, recording)
    while len(driver.took) < len(recording.jobs):
        cluster.advance(1.0)
    return Outcome(executors, chosen, driver.ended_at - begun_at, driver.took)


class _Driver:
    """Submits each job when what it waited for is over."""

    def __init__(self, cluster: SimulatedCluster, app: AppId, recording: Recording) -> None:
        self._cluster = cluster
        self._app = app
        self._recording = recording
        self.took: dict[JobId, float] = {}
        self.ended_at = 0.0
        self._begun: dict[JobId, float] = {}
        self._after: dict[JobId, list[tuple[float, RecordedJob]]] = {}
        self._specs: dict[StageId, StageSpec] = {}
        cluster.job_ended = self._ended
        first = recording.jobs[0].started_at
        for each in recording.jobs:
            before = [other for other in recording.jobs if other.ended_at <= each.started_at]
            last = max(before, key=lambda other: other.ended_at, default=None)
            if last is None:
                cluster.later(each.started_at - first, partial(self._submit, each))
            else:
                self._after.setdefault(last.job, []).append((each.started_at - last.ended_at, each))

    def _submit(self, recorded: RecordedJob) -> None:
        self._begun[recorded.job] = self._cluster.now
        self._cluster.submit(self._spec(recorded))

    def _ended(self, done: SimulatedJob) -> None:
        if done.failed is not None:
            raise JobFailed(f"job {done.spec.job} failed in the simulation: {done.failed.reason}")
        number = done.spec.job
        self.took[number] = self._cluster.now - self._begun[number]
        self.ended_at = self._cluster.now
        for pause_s, follower in self._after.get(number, ()):
            self._cluster.later(pause_s, partial(self._submit, follower))

    def _spec(self, recorded: RecordedJob) -> JobSpec:
        stages: list[StageSpec] = []
        for info in recorded.stages:
            parents = [self._specs[parent] for parent in info.parents if parent in self._specs]
            program = content_of(SimulatedProgram(info.stage))  # reads nothing: what that takes is in its time
            if info.kind is StageKind.MAP:
                stage = map_stage(info.stage, info.task_count, parents, program=program)
            else:
                ran = sorted(partition for number, partition in self._recording.times if number == info.stage)
                wanted = ran if len(ran) == info.task_count else list(range(info.task_count))
                stage = result_stage(info.stage, max(wanted, default=0) + 1, parents, wanted=wanted, program=program)
            self._specs[info.stage] = stage
            stages.append(stage)
        return msgspec.structs.replace(job(self._app, recorded.job, *stages), properties=recorded.properties)
