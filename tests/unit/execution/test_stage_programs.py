"""What an executor knows of stages: a program and the sources it reads belong together."""

from __future__ import annotations

import pytest

from flowkit.errors import FetchFailed
from flowkit.execution.stage_programs import Stages
from flowkit.model.ids import AppId, ContentId, ShuffleId, StageId
from flowkit.model.job_spec import Content
from flowkit.model.map_status import ShuffleSources
from flowkit.model.task import StageDefinition

APP, STAGE, SHUFFLE = AppId("app"), StageId(1), ShuffleId(3)


def definition(version: int, program: str, *, epoch: int | None = None, attempt: int = 0) -> StageDefinition:
    sources = () if epoch is None else (ShuffleSources(SHUFFLE, epoch, (), {}),)
    content = Content(ContentId(program * 32), 1, b".")
    return StageDefinition(APP, STAGE, attempt, version, "stage", 1, content, (), sources, None, 0, {})


def test_newer_sources_reach_tasks_that_run_already():
    stages = Stages()
    stages.define(definition(1, "a", epoch=1))
    running = stages.get(APP, STAGE, 0)
    stages.define(definition(2, "a", epoch=2))
    assert stages.get(APP, STAGE, 0) is running
    assert running is not None
    assert running.sources_of(SHUFFLE).epoch == 2


def test_another_program_is_for_tasks_to_come_and_those_that_run_keep_their_sources():
    stages = Stages()
    stages.define(definition(1, "a", epoch=1))
    running = stages.get(APP, STAGE, 0)
    stages.define(definition(2, "b"))
    newer = stages.get(APP, STAGE, 0)
    assert running is not None
    assert newer is not None
    assert newer.program is not running.program
    assert running.sources_of(SHUFFLE).epoch == 1
    with pytest.raises(FetchFailed):
        newer.sources_of(SHUFFLE)


def test_an_older_definition_changes_nothing():
    stages = Stages()
    stages.define(definition(2, "b"))
    known = stages.get(APP, STAGE, 0)
    stages.define(definition(1, "a", epoch=1))
    assert stages.get(APP, STAGE, 0) is known


def test_attempts_at_a_stage_share_a_program_that_is_the_same():
    stages = Stages()
    stages.define(definition(1, "a"))
    stages.define(definition(2, "b"))
    stages.define(definition(3, "b", attempt=1))
    one, other = stages.get(APP, STAGE, 0), stages.get(APP, STAGE, 1)
    assert one is not None
    assert other is not None
    assert one.program is other.program
