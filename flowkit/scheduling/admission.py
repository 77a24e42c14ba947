"""Whether what drivers and executors say fits together, before any of it is believed; ranges are checked where it is decoded (``model.ranges``).

Runs in the scheduler process inside ``SchedulerCore``. Illegal input leaves the core as it was: nothing here changes anything, and whoever asks
does so before it changes anything. flowkit's own drivers and executors never fail these checks; a damaged one, or a foreign one, does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from flowkit.model.ids import ShuffleId, StageId
from flowkit.model.job_spec import JobSpec, StageKind, StageSpec
from flowkit.model.map_status import MapStatus
from flowkit.model.task import MapOutput, TaskSucceeded

if TYPE_CHECKING:
    from flowkit.scheduling.applications import Application
    from flowkit.scheduling.task_sets import Attempt


def job_complaint(application: Application, spec: JobSpec) -> str:
    """What is wrong with a job, or with it beside those of the application before; empty when nothing is.

    A table is made by the number of partitions of a map stage: so many must have been named one by one. Cost: one look at each partition.
    """
    if not spec.stages or spec.result_stage.kind is not StageKind.RESULT:
        return "its last stage must be one with results"
    numbers: set[StageId] = set()
    written: set[ShuffleId] = set()
    for stage in spec.stages:
        complaint = _stage_complaint(application, spec, stage, written)
        if stage.stage in numbers or (stage.shuffle is not None and stage.shuffle in written):
            complaint = "it is there twice"
        if complaint:
            return f"stage {stage.stage}: {complaint}"
        numbers.add(stage.stage)
        if stage.shuffle is not None:
            written.add(stage.shuffle)
    return ""


def _stage_complaint(application: Application, spec: JobSpec, stage: StageSpec, written: Collection[ShuffleId]) -> str:
    if (stage.kind is StageKind.MAP) != (stage.shuffle is not None) or (stage.kind is StageKind.RESULT) != (
        stage is spec.result_stage
    ):
        return "all but the last one write a shuffle, and the last one writes none"
    complaint = _partitions_complaint(stage)
    if complaint:
        return complaint
    for parent in stage.parents:
        if parent.shuffle not in written:
            return f"it reads shuffle {parent.shuffle}, which no stage before it writes"
    if stage.splits is not None and all(parent.shuffle != stage.splits for parent in stage.parents):
        return f"it splits shuffle {stage.splits}, which it does not read"
    known = application.stages.get(stage.stage)
    if stage.shuffle is None:
        return "" if known is None else "another job has a stage of this number"
    writer = application.map_stages.get(stage.shuffle)
    if known is not writer:
        return f"shuffle {stage.shuffle} is written by another stage"
    if known is not None and (known.spec.num_partitions, known.spec.num_reducers) != (stage.num_partitions, stage.num_reducers):
        return f"it had {known.spec.num_partitions:,} partitions and {known.spec.num_reducers:,} reducers, and now has others"
    return ""


def _partitions_complaint(stage: StageSpec) -> str:
    partitions, count = stage.partitions, stage.num_partitions
    if stage.kind is StageKind.MAP:
        if not stage.num_reducers:
            return "it writes a shuffle for no reducer"
        return (
            ""
            if len(partitions) == count and partitions == tuple(range(count))
            else f"it must have all of its {count:,} partitions"
        )
    if partitions and not 0 <= min(partitions) <= max(partitions) < count:
        return f"it has partitions beyond its {count:,}"
    return "" if len(set(partitions)) == len(partitions) else "it has a partition twice"


def report_complaint(attempt: Attempt, report: TaskSucceeded, shuffle: ShuffleId | None) -> str:
    """What is wrong with how an attempt is said to have ended, at a stage that writes this shuffle; empty when nothing is."""
    if report.given_back >= attempt.span:
        return f"it gave back {report.given_back} of {attempt.span} partitions"
    result = report.result
    if type(result) is MapOutput:
        status: MapStatus = result.status
        told, own = (status.map_partition, status.attempt, status.host), (attempt.partition, attempt.id, attempt.executor.host)
        if shuffle is None or told != own:
            return f"it told of a map output that is not its own: {told}, not {own}"
    elif shuffle is not None:
        return "it told of no output"
    return ""
