"""Checks that events come in the order that ``model.events`` promises, and that nothing is counted twice.

Runs wherever tests do; pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from flowkit.model.events import (
    Event,
    ExecutorAdded,
    ExecutorRemoved,
    JobEnd,
    JobStart,
    StageCompleted,
    StageSubmitted,
    TaskEnd,
    TaskStart,
)
from flowkit.model.ids import AppId, AttemptId, ExecutorId, JobId, StageId


def check_event_order(events: Iterable[Event], *, all_over: bool = True) -> None:
    """Raise ``AssertionError`` for an event that comes twice, too early or too late.

    Parameters
    ----------
    events
        In the order of publication.
    all_over
        Every job, stage and task must have ended, too.
    """
    jobs: dict[tuple[AppId, JobId], bool] = {}
    stages: dict[tuple[AppId, StageId, int], bool] = {}
    tasks: dict[AttemptId, bool] = {}
    owners: dict[AttemptId, AppId] = {}
    executors: dict[ExecutorId, bool] = {}
    last = 0.0
    for event in events:
        assert event.time >= last, f"time went back: {event}"
        last = event.time
        match event:
            case JobStart(app=app, job=job):
                assert (app, job) not in jobs, event
                jobs[app, job] = True
            case JobEnd(app=app, job=job):
                assert jobs[app, job], f"it ended twice: {event}"
                jobs[app, job] = False
                if not any(lives for (of, _), lives in jobs.items() if of == app):
                    live = [key for key, lives in stages.items() if lives and key[0] == app]
                    live_tasks = [attempt for attempt, lives in tasks.items() if lives and owners[attempt] == app]
                    assert not live, f"stages outlive the last job: {live}"
                    assert not live_tasks, f"tasks outlive the last job: {live_tasks}"
            case StageSubmitted(app=app, stage=stage, stage_attempt=attempt_number):
                assert (app, stage, attempt_number) not in stages, event
                assert event.task_count >= 0, event
                stages[app, stage, attempt_number] = True
            case StageCompleted(app=app, stage=stage, stage_attempt=attempt_number):
                assert stages[app, stage, attempt_number], f"it ended twice: {event}"
                stages[app, stage, attempt_number] = False
            case TaskStart():
                assert event.attempt not in tasks, f"it started twice: {event}"
                assert (event.app, event.stage, event.stage_attempt) in stages, event
                tasks[event.attempt] = True
                owners[event.attempt] = event.app
            case TaskEnd():
                assert tasks.get(event.attempt), f"it ended twice, or never started: {event}"
                tasks[event.attempt] = False
            case ExecutorAdded(executor=executor):
                executors[executor] = True  # again for each application that opens later
            case ExecutorRemoved(executor=executor):
                assert executors[executor], event
                executors[executor] = False
            case _:
                pass
    if all_over:
        for kind, found in (("jobs", jobs), ("stages", stages), ("tasks", tasks)):
            left = [key for key, lives in found.items() if lives]
            assert not left, f"{kind} that never ended: {left}"
