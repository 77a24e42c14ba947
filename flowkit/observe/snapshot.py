"""What there is to draw of a group of jobs, as immutable data: the one form that widgets, static views and pages read.

Pure. Everything is plain and goes to JSON as it is; the timeline goes apart (``observe.timeline``), in parts. ``SCHEMA`` moves when a
field changes its meaning.
"""

from __future__ import annotations

from typing import Final

import msgspec

from flowkit.model.ids import AttemptId, ExecutorId, JobId, StageId
from flowkit.observe.hints import Hint

#: of the snapshot's form; a face that reads another one says so instead of drawing nonsense
SCHEMA: Final = 1


class JobView(msgspec.Struct, frozen=True):
    """A job. ``state``: running, succeeded, failed, cancelled. Times are seconds since the epoch, 0 for not yet."""

    job: JobId
    name: str
    state: str
    started_at: float
    ended_at: float
    reason: str
    stages: tuple[StageId, ...]


class StageView(msgspec.Struct, frozen=True):
    """A stage over all of its attempts.

    ``state``: waiting, running, done, failed; cancelled (it was stopped with its job); skipped (its output was there already); not run (its
    job ended before it began).
    """

    stage: StageId
    name: str
    operations: tuple[str, ...]
    parents: tuple[StageId, ...]
    writes_shuffle: bool
    state: str
    attempts: int
    task_count: int
    done: int
    running: int
    failed: int
    #: tasks that had ended well before and ran again, since what they made was lost
    recomputed: int
    rows: int
    rows_out: int
    input_bytes: int
    shuffle_read_bytes: int
    shuffle_write_bytes: int
    spilled_bytes: int
    task_seconds: float
    started_at: float
    ended_at: float
    #: seconds of its tasks that ended well: least, quartiles with median, greatest
    durations: tuple[float, float, float, float, float]
    #: which partition took longest, and where
    slowest_partition: int
    slowest_executor: str
    failure: str


class ExecutorView(msgspec.Struct, frozen=True):
    """An executor. ``removed_at`` 0 while it is there."""

    executor: ExecutorId
    label: str
    host: str
    slots: int
    running: int
    done: int
    failed: int
    removed_at: float
    reason: str
    #: it was let go, for there was no work for it
    released: bool = False


class ClusterChange(msgspec.Struct, frozen=True):
    """There were to be more executors, or fewer."""

    at: float
    before: int
    target: int
    reason: str


class FailureView(msgspec.Struct, frozen=True):
    """Failures of one kind with one message, counted; the rest is of the last of them."""

    kind: str
    message: str
    count: int
    stage: StageId
    partition: int
    executor: str
    at: float
    #: number of partitions that had it
    partition_count: int = 1
    #: whether its stage failed; else the task was tried again
    is_fatal: bool = False


class RunningTask(msgspec.Struct, frozen=True):
    """A task that runs."""

    attempt: AttemptId
    stage: StageId
    partition: int
    executor: ExecutorId
    started_at: float


class Snapshot(msgspec.Struct, frozen=True):
    """All there is to draw but the timeline, which is asked for in parts."""

    schema: int
    version: int
    title: str
    #: waiting (no job yet), running, succeeded, failed, cancelled
    state: str
    started_at: float
    ended_at: float
    #: scheduler's time of the last event: an old one means that nothing moves
    last_event_at: float
    jobs: tuple[JobView, ...]
    stages: tuple[StageView, ...]
    executors: tuple[ExecutorView, ...]
    failures: tuple[FailureView, ...]
    running_tasks: tuple[RunningTask, ...]
    hints: tuple[Hint, ...]
    #: jobs, tasks and failures there were in all, also those no longer told one by one
    job_count: int
    task_count: int
    tasks_done: int
    failure_count: int
    #: elements left out by ``on_error``
    skipped_count: int
    #: events that a queue had to drop: then numbers are too low
    dropped_events: int
    #: what elasticity decided since the first job
    changes: tuple[ClusterChange, ...] = ()
