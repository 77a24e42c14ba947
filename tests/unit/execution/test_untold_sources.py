"""A shuffle the cache was to spare, read after all."""

from __future__ import annotations

import pytest

from flowkit.errors import FetchFailed
from flowkit.execution.stage_programs import Program, Stage
from flowkit.model.ids import AppId, ContentId, ShuffleId, StageId
from flowkit.model.job_spec import Content
from flowkit.model.task import FetchFailure, StageDefinition


def test_a_task_that_misses_the_cache_reports_a_fetch_failure_that_names_no_host() -> None:
    content = Content(ContentId("0" * 32), 1, b".")
    definition = StageDefinition(AppId("app"), StageId(1), 0, 1, "stage", 1, content, (), (), None, 0, {})
    with pytest.raises(FetchFailed) as caught:
        Stage(definition, Program(content)).sources_of(ShuffleId(3))
    failure = caught.value.data["failure"]
    assert isinstance(failure, FetchFailure)
    assert (failure.shuffle, failure.map_partition, failure.host) == (3, None, "")
