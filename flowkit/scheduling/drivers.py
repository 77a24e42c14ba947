"""What drivers ask for: sessions, jobs, their end, and what of theirs may go.

Runs in the scheduler process inside ``SchedulerCore``.
"""

from __future__ import annotations

from typing import assert_never

from flowkit.model.events import ApplicationEnd, ApplicationStart, ExecutorAdded, JobStart, RddUnpersisted, StageInfo
from flowkit.model.ids import AppId, RddId, ShuffleId, StageId
from flowkit.model.job_spec import Determinism, JobSpec
from flowkit.scheduling import admission, jobs, losses, readiness
from flowkit.scheduling import stimuli as sti
from flowkit.scheduling.actions import ApplicationExpired, DropApplication, DropContents, DropRdd, JobFailed, ReleaseResults
from flowkit.scheduling.applications import Application, Job, Stage
from flowkit.scheduling.books import Books
from flowkit.scheduling.launch_depth import LaunchDepth
from flowkit.scheduling.map_outputs import MapOutputs


def apply(
    books: Books,
    stimulus: sti.LeaseRenewed
    | sti.ApplicationClosed
    | sti.JobSubmitted
    | sti.JobCancelRequested
    | sti.ResultsFetched
    | sti.ResultLost
    | sti.ContentPut
    | sti.RddUnpersistRequested
    | sti.ShuffleReleased
    | sti.ContentsReleased,
) -> None:
    """Do what a driver asks for; whatever it asks, it lives."""
    app = stimulus.spec.app if isinstance(stimulus, sti.JobSubmitted) else stimulus.app
    application = books.applications.get(app)
    if application is None:
        books.stale_count += 1
        if isinstance(stimulus, sti.JobSubmitted):
            books.emit(ApplicationExpired(app, "the scheduler does not know this application, or its lease ran out"))
        return
    application.lease_until = books.now + application.lease_s
    match stimulus:
        case sti.LeaseRenewed():
            pass
        case sti.ApplicationClosed(reason=reason):
            end_application(books, app, reason)
        case sti.JobSubmitted(spec=spec):
            _submit(books, application, spec)
        case sti.JobCancelRequested(job=job_id, reason=reason):
            job = application.jobs.get(job_id)
            if job is not None:
                jobs.fail_job(books, application, job, "JobCancelled", reason)
        case sti.ResultsFetched(attempts=attempts):
            for job in list(application.jobs.values()):
                for attempt in attempts:
                    held = job.unfetched.pop(attempt, None)
                    if held is not None and books.executors.get(held[0]) is not None:
                        books.emit(ReleaseResults(held[0], (attempt,)))
                jobs.finish_job_if_done(books, application, job)
        case sti.ResultLost(job=job_id, attempt=attempt, reason=reason):
            job = application.jobs.get(job_id)
            if job is not None and attempt in job.unfetched:
                losses.result_lost(books, application, job, attempt, f"the driver could not fetch it: {reason}")
        case sti.ContentPut(content=content, host=host):
            application.contents.setdefault(content, set()).add(host)
            application.content_epoch += 1
            for stage in application.stages.values():
                stage.missing_contents.pop(content, None)
        case sti.RddUnpersistRequested(rdd=rdd):
            kept = application.kept_as(rdd)
            application.blocks.drop_rdd(kept)
            for executor in books.executors:
                books.emit(DropRdd(executor.id, app, kept))
            books.publish(app, RddUnpersisted(time=books.now, app=app, rdd=rdd))
        case sti.ShuffleReleased(shuffle=shuffle):
            written_by = application.map_stages.get(shuffle)
            if written_by is not None and written_by.jobs:
                written_by.is_released = True  # it goes with its last job
            elif written_by is not None:
                jobs.forget_stage(books, application, written_by)
        case sti.ContentsReleased(contents=contents):
            for content in contents:
                application.contents.pop(content, None)
            for neighbours in books.executors.by_host.values():
                books.emit(DropContents(next(iter(neighbours)), app, contents))  # any one of a host deletes its files
        case _:
            assert_never(stimulus)


def open_application(books: Books, stimulus: sti.ApplicationOpened) -> None:
    """A driver begins."""
    if stimulus.app in books.applications:
        books.stale_count += 1
        return
    books.applications[stimulus.app] = Application(stimulus.app, stimulus.name, stimulus.lease_s, books.now)
    books.publish(
        stimulus.app,
        ApplicationStart(time=books.now, app=stimulus.app, name=stimulus.name, flowkit_version=stimulus.flowkit_version),
    )
    for executor in books.executors:  # it came before anybody of this application listened
        books.publish(stimulus.app, ExecutorAdded(time=books.now, executor=executor.id, host=executor.host, slots=executor.slots))


def end_application(books: Books, app: AppId, reason: str) -> None:
    """A driver is gone, and all that was its own goes too."""
    application = books.applications[app]
    for job in list(application.jobs.values()):
        jobs.fail_job(books, application, job, "JobCancelled", reason)
    del books.applications[app]
    for executor in books.executors:
        books.emit(DropApplication(executor.id, app))
    books.publish(app, ApplicationEnd(time=books.now, app=app, reason=reason))


def _submit(books: Books, application: Application, spec: JobSpec) -> None:
    if spec.job in application.seen_jobs:
        books.stale_count += 1
        return
    application.seen_jobs.add(spec.job)
    if complaint := admission.job_complaint(application, spec):
        books.emit(JobFailed(application.id, spec.job, "InternalError", f"{spec.name} does not fit together: {complaint}"))
        return
    if refusal := _refusal(books, application, spec):
        books.emit(JobFailed(application.id, spec.job, "TooManyJobs", refusal))
        return
    job = Job(spec, books.next_order)
    books.next_order += 1
    parents: dict[StageId, tuple[StageId, ...]] = {}
    by_shuffle = {each.shuffle: each.stage for each in spec.stages if each.shuffle is not None}
    for each in spec.stages:
        stage = application.stages.get(each.stage)
        if stage is None:
            outputs = None if each.shuffle is None else MapOutputs(each.shuffle, each.num_partitions)
            depth = LaunchDepth(books.config.launch_ahead_s, books.config.max_launch_depth)
            stage = application.stages[each.stage] = Stage(application.id, each, outputs, depth)
            if each.shuffle is not None:
                application.map_stages[each.shuffle] = stage
        stage.is_released = False
        if not stage.jobs:
            stage.accumulated.clear()  # a later job that computes them again counts them again
        stage.join(job, each)
        for cached in each.cached:
            application.blocks.keep(application.kept_as(cached.rdd), cached.level)
            books.copies_stale = True
        for content in (each.program, *each.attachments):
            if content.inline is None:
                application.contents.setdefault(content.id, set()).update(content.holders)
        parents[each.stage] = tuple(by_shuffle[parent.shuffle] for parent in each.parents)
    _note_origins(application, spec)
    application.jobs[job.id] = job
    application.is_stale = True
    needed = readiness.needed_stages(books, application, job)
    books.publish(
        application.id,
        JobStart(
            time=books.now,
            app=application.id,
            job=job.id,
            name=spec.name,
            stages=tuple(
                StageInfo(each.stage, each.name, each.kind, len(each.partitions), parents[each.stage], each.operations)
                for each in spec.stages
            ),
            skipped=tuple(each.stage for each in spec.stages if each.stage not in needed),
            properties=spec.properties,
        ),
    )
    if not spec.result_stage.partitions:
        jobs.finish_job_if_done(books, application, job)


def _refusal(books: Books, application: Application, spec: JobSpec) -> str:
    """Why an application may not have one more job now; empty when it may."""
    if len(application.jobs) >= books.config.max_active_jobs:
        return (
            f"{spec.name} was refused: {application.name or application.id} has {len(application.jobs):,} jobs under way, and the "
            f"cluster allows max_active_jobs = {books.config.max_active_jobs:,}; wait for some to end, or raise the setting"
        )
    active = sum(job.task_count for job in application.jobs.values())
    wanted = sum(len(stage.partitions) for stage in spec.stages)
    if application.jobs and active + wanted > books.config.max_active_tasks:
        return (
            f"{spec.name} was refused: its {wanted:,} tasks beside the {active:,} of jobs that {application.name or application.id} has "
            f"under way are more than max_active_tasks = {books.config.max_active_tasks:,}; wait for some to end, or raise the setting"
        )
    return ""


def _note_origins(application: Application, spec: JobSpec) -> None:
    """Remember which shuffles with rows that are others each time its cached RDDs are made from.

    As this job has it: an RDD that was checkpointed since is made from none any more. What is kept of a local checkpoint is its only copy.
    """
    origins: dict[ShuffleId, set[ShuffleId]] = {}
    made_from: dict[RddId, set[ShuffleId]] = {}
    for stage in spec.stages:  # parents first
        for cached in stage.cached:
            made_from.setdefault(cached.rdd, set())
        if stage.determinism is not Determinism.INDETERMINATE:
            continue
        found = {parent.shuffle for parent in stage.parents if parent.shuffle in origins}
        found.update(*(origins[shuffle] for shuffle in list(found)))
        if stage.shuffle is not None:
            origins[stage.shuffle] = found
        for cached in stage.cached:
            made_from[cached.rdd].update(found)
    for rdd, found in made_from.items():
        if found:
            application.made_from[rdd] = found
        else:
            application.made_from.pop(rdd, None)
