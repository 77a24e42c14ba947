"""Room on disks: when a task finds none, map outputs that no job under way has to do with are given up, least recently used first.

Runs in the scheduler process inside ``SchedulerCore``. A later job that reads them makes them again from their lineage. Rows that would
differ if they were made again are never given up.
"""

from __future__ import annotations

from flowkit.model.events import ShuffleOutputsLost
from flowkit.model.job_spec import Determinism
from flowkit.scheduling.actions import DropShuffle
from flowkit.scheduling.applications import Application, Stage
from flowkit.scheduling.books import Books

#: types of exceptions that say so
NO_ROOM = frozenset({"DiskFull", "DiskQuotaExceeded"})


def make(books: Books, application: Application, why: str) -> bool:
    """Give up half of what could be; False when nothing can."""
    idle = [stage for stage in application.map_stages.values() if _is_idle(stage)]
    idle.sort(key=lambda stage: stage.last_order)
    total = sum(map(_held_bytes, idle))
    freed = 0
    for stage in idle:
        if freed and freed >= total / 2:
            break
        freed += _held_bytes(stage)
        _give_up(books, application, stage, why)
    return bool(idle)


def _is_idle(stage: Stage) -> bool:
    outputs = stage.outputs
    assert outputs is not None
    return not stage.jobs and bool(outputs.count_by_host) and stage.spec.determinism is not Determinism.INDETERMINATE


def _held_bytes(stage: Stage) -> int:
    assert stage.outputs is not None
    return sum(status.total_bytes for status in stage.outputs.statuses if status is not None)


def _give_up(books: Books, application: Application, stage: Stage, why: str) -> None:
    outputs = stage.outputs
    assert outputs is not None
    lost = tuple(status.map_partition for status in outputs.statuses if status is not None)
    outputs.unregister_all()
    for executor in books.executors:
        books.emit(DropShuffle(executor.id, application.id, outputs.shuffle))
    books.publish(
        application.id,
        ShuffleOutputsLost(
            time=books.now,
            app=application.id,
            shuffle=outputs.shuffle,
            stage=stage.id,
            partitions=stage.partitions(lost),
            reason=f"given up to make room on disk, since no job under way needs it: {why}",
        ),
    )
