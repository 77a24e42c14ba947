"""What a bug of ours, or of a scheduling policy, costs: the jobs it hit, as far as that can be told, and no other.

Runs in the scheduler process inside ``SchedulerCore``. The state of a job that an exception cut across is not to be trusted, so
the job ends; news of its attempts that come later change nothing.
"""

from __future__ import annotations

import traceback
from collections.abc import Collection
from typing import assert_never

from flowkit.model.ids import AppId, JobId
from flowkit.model.shown import in_words
from flowkit.scheduling import jobs
from flowkit.scheduling import stimuli as sti
from flowkit.scheduling.actions import FaultFound, JobFailed
from flowkit.scheduling.applications import Application, Job
from flowkit.scheduling.asking import PolicyError
from flowkit.scheduling.books import Books
from flowkit.scheduling.task_sets import TaskSet
from flowkit.tracebacks import as_text

#: A job, known to the core or not.
Hit = tuple[AppId, JobId]


def hit_by(books: Books, stimulus: sti.Stimulus) -> list[Hit]:
    """The jobs that a stimulus concerns; all there are where nothing narrower can be said."""
    match stimulus:
        case sti.JobSubmitted(spec=spec):
            return [(spec.app, spec.job)]
        case sti.JobCancelRequested() | sti.ResultLost():
            return [(stimulus.app, stimulus.job)]
        case (
            sti.ApplicationOpened()
            | sti.LeaseRenewed()
            | sti.ApplicationClosed()
            | sti.ResultsFetched()
            | sti.ContentPut()
            | sti.RddUnpersistRequested()
            | sti.ShuffleReleased()
            | sti.ContentsReleased()
            | sti.ScalingOffered()
            | sti.BlocksEvicted()
            | sti.BlocksMoved()
            | sti.BlockCopied()
            | sti.OutputsCopied()
            | sti.ContentFetched()
        ):
            return jobs_of(books.applications.get(stimulus.app))
        case sti.CommitRequested() | sti.BarrierReached() | sti.TaskWouldNotStop():
            executor = books.executors.get(stimulus.executor)
            attempt = None if executor is None else executor.attempts.get(stimulus.attempt)
            return [] if attempt is None else jobs_needing(books, attempt.task_set)
        case (
            sti.TasksReported()
            | sti.Heartbeat()
            | sti.ExecutorReady()
            | sti.ExecutorLost()
            | sti.Examined()
            | sti.ExecutorPaused()
            | sti.ExecutorResumed()
            | sti.ExecutorDraining()
            | sti.SlotsChanged()
            | sti.Tick()
        ):
            return all_jobs(books)
        case _:
            assert_never(stimulus)


def jobs_needing(books: Books, task_set: TaskSet) -> list[Hit]:
    """The jobs that need the stage of a task set."""
    stage = books.stage_of(task_set)
    return [] if stage is None else [(task_set.app, job) for job in stage.jobs]


def jobs_of(application: Application | None) -> list[Hit]:
    """Those of one application."""
    return [] if application is None else [(application.id, job) for job in application.jobs]


def all_jobs(books: Books) -> list[Hit]:
    """Every job there is."""
    return [hit for application in books.applications.values() for hit in jobs_of(application)]


def contain(books: Books, error: BaseException, hits: Collection[Hit], story: str) -> None:
    """End these jobs because of an error, and have somebody write it down."""
    at = traceback.extract_tb(error.__traceback__)[-1:]
    place = "".join(f" at {frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in at)
    what = f"{in_words(error)}{place}"
    books.emit(FaultFound(as_text(error), "" if isinstance(error, PolicyError) else story))
    for app, number in hits:
        application = books.applications.get(app)
        job = None if application is None else application.jobs.get(number)
        if isinstance(error, PolicyError):  # its author needs its name, not our stimuli
            kind, reason, where = "JobFailed", str(error), {}
        else:
            kind, reason, where = (
                "InternalError",
                f"flowkit's scheduler failed while it handled this job: {what}",
                {"story": story},
            )
        if application is None or job is None:
            books.emit(JobFailed(app, number, kind, reason, None, where))
            continue
        try:
            jobs.fail_job(books, application, job, kind, reason, where=where)
        except Exception as another:
            books.emit(FaultFound(as_text(another), story))
            _strike_out(books, application, job)
            books.emit(JobFailed(app, number, kind, reason, None, where))


def _strike_out(books: Books, application: Application, job: Job) -> None:
    """A job that cannot even be ended: nothing of it is scheduled any more."""
    application.jobs.pop(job.id, None)
    for stage in application.stages.values():
        stage.leave(job.id)
        if stage.jobs:
            continue
        books.active.pop((stage.app, stage.id), None)
        task_set, stage.task_set = stage.task_set, None
        stage.is_running = False
        stage.missing_contents.clear()
        if task_set is not None:
            for attempt in task_set.running.values():
                attempt.is_void = True
            task_set.running.clear()
            task_set.pending.clear()
