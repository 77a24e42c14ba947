"""Jobs and reports that do not fit together are refused before anything of them is believed."""

from __future__ import annotations

import msgspec
import pytest

from flowkit.config import Config
from flowkit.model.job_spec import StageKind
from flowkit.model.map_status import MapStatus
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import ExceptionFailure, InlineResult, MapOutput, TaskFailed, TaskSucceeded
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti
from flowkit.scheduling.core import SchedulerCore
from flowkit.simulation.jobs import job, map_stage, result_stage

MAPS = map_stage(0, 3)
RESULT = result_stage(1, 4, [MAPS])
replace = msgspec.structs.replace


@pytest.fixture
def core():
    core = SchedulerCore(Config(validate=True), seed=0)
    core.handle(sti.ApplicationOpened("app", "app", "1", 60.0), 0.0)
    core.handle(sti.ExecutorReady("tcp://h:1#1", "h", 2), 0.0)
    return core


@pytest.mark.parametrize(
    ("stages", "why"),
    [
        ((), "last stage must be one with results"),
        ((MAPS,), "last stage must be one with results"),
        ((replace(MAPS, num_partitions=1 << 28), RESULT), "must have all of its 268,435,456 partitions"),
        ((replace(MAPS, partitions=(0, 1, 1)), RESULT), "must have all of its 3 partitions"),
        ((replace(MAPS, num_reducers=0), RESULT), "for no reducer"),
        ((MAPS, replace(RESULT, partitions=(0, 4))), "partitions beyond its 4"),
        ((MAPS, replace(RESULT, partitions=(0, 0))), "has a partition twice"),
        ((MAPS, MAPS, RESULT), "it is there twice"),
        ((RESULT,), "which no stage before it writes"),
        ((replace(MAPS, kind=StageKind.RESULT), RESULT), "the last one writes none"),
        ((replace(MAPS, shuffle=None), RESULT), "the last one writes none"),
        ((MAPS, replace(RESULT, splits=9)), "splits shuffle 9, which it does not read"),
    ],
)
def test_a_job_that_does_not_fit_together_fails_and_nothing_of_it_is_kept(core, stages, why):
    before = core.snapshot()
    (failed,) = core.handle(sti.JobSubmitted(job("app", 0, *stages)), 1.0)
    assert (failed.job, failed.kind) == (0, "InternalError")
    assert why in failed.reason
    assert core.snapshot() == before


def test_a_map_stage_that_is_another_than_before_is_refused(core):
    core.handle(sti.JobSubmitted(job("app", 0, MAPS, RESULT)), 1.0)
    for changed, why in ((map_stage(0, 4), "it had 3 partitions"), (replace(MAPS, stage=7), "written by another stage")):
        actions = core.handle(sti.JobSubmitted(job("app", 1 + changed.stage, changed, result_stage(9, 4, [changed]))), 2.0)
        assert [why in each.reason for each in actions if isinstance(each, act.JobFailed)] == [True]


def launched(core, *stages):
    actions = core.handle(sti.JobSubmitted(job("app", 0, *stages)), 1.0)
    return next(task for each in actions if isinstance(each, act.Launch) for task in each.tasks)


def succeeded(task, result, **changes):
    return replace(TaskSucceeded(task.attempt, 1.0, 2.0, result, TaskMetrics()), **changes)


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda task: succeeded(task, InlineResult(b"")),
        lambda task: succeeded(task, MapOutput(MapStatus(1 << 40, task.attempt, "h", b"", 1, 1))),
        lambda task: succeeded(task, MapOutput(MapStatus(task.partition, task.attempt + 1, "h", b"", 1, 1))),
        lambda task: succeeded(task, MapOutput(MapStatus(task.partition, task.attempt, "elsewhere", b"", 1, 1))),
        lambda task: succeeded(task, MapOutput(MapStatus(task.partition, task.attempt, "h", b"", 1, 1)), given_back=5),
    ],
)
def test_a_report_that_cannot_be_of_its_task_fails_the_task_by_name_of_the_executor(core, nonsense):
    task = launched(core, MAPS, RESULT)
    actions = core.handle(sti.TasksReported("tcp://h:1#1", (nonsense(task),)), 3.0)
    (ended,) = [each.event for each in actions if isinstance(each, act.Publish) and type(each.event).__name__ == "TaskEnd"]
    assert "executor tcp://h:1#1 said what cannot be of this task" in ended.failure.message
    assert not any(isinstance(each, act.JobFailed) for each in actions)  # it is tried again


def test_a_failure_at_a_partition_beyond_its_span_is_one_of_its_task(core):
    task = launched(core, RESULT and result_stage(1, 4))
    failed = TaskFailed(task.attempt, 1.0, 2.0, ExceptionFailure("ValueError", "no", "", None), TaskMetrics(), at=1 << 40)
    actions = core.handle(sti.TasksReported("tcp://h:1#1", (failed,)), 3.0)
    assert any(isinstance(each, act.Launch) for each in actions)


def test_sizes_that_are_damaged_or_would_fill_the_memory_are_an_error_where_they_are_read():
    import zlib

    with pytest.raises(ValueError, match="are damaged"):
        MapStatus(0, 1, "h", b"nonsense", 1, 1).codes()
    bomb = zlib.compress(bytes(1 << 28), 1)
    with pytest.raises(ValueError, match="more than 67,108,864 reducers"):
        MapStatus(0, 1, "h", bomb, 1, 1).codes()
