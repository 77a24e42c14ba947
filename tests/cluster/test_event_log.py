"""The event log of a real application, against what its status store knew."""

from __future__ import annotations

from operator import add

import pytest

import flowkit as fk
from flowkit.model.events import ApplicationStart, ExecutorAdded
from flowkit.observe.event_log import read_event_log, replay
from flowkit.observe.status import StatusStore

pytestmark = pytest.mark.cluster


def test_the_log_of_an_application_tells_all_that_its_status_told(tmp_path):
    with fk.Context(workers=2, progress="off", event_log=str(tmp_path)) as fc:
        assert fc.range(1_000, num_partitions=8).map(lambda x: (x % 10, x)).reduce_by_key(add, 4).count() == 10
        with pytest.raises(ZeroDivisionError):
            fc.range(4).map(lambda x: 1 // x).collect()
        status, app = fc.status, fc.app
    later = StatusStore(app)
    replay(tmp_path / app, later)
    assert later.summary() == status.summary()
    assert later.jobs() == status.jobs()
    assert later.stages() == status.stages()
    assert later.executors() == status.executors()
    assert [job.outcome for job in later.jobs()] == ["succeeded", "failed"]
    first, *others = read_event_log(tmp_path / app)
    assert isinstance(first, ApplicationStart)  # though it was told before anybody could listen
    assert sum(isinstance(event, ExecutorAdded) for event in others) == 2
