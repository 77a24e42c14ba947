"""A killed task that does not go: its stack is told before its process is replaced, and others' work goes on."""

from __future__ import annotations

import time

import pytest

import flowkit as fk
from flowkit.model import events as ev
from tests.chaos.conftest import Story

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(120)]


def test_its_stack_is_an_event_before_its_process_is_replaced_and_others_are_not_to_blame(tmp_path):
    asleep = tmp_path / "asleep"

    def asleep_in_c(x: int) -> int:
        asleep.touch()
        time.sleep(300)
        return x

    with fk.Context(workers=1, threads_per_worker=2, progress="off", kill_grace_s=0.5, max_task_failures=1) as fc:
        story = Story()
        fc.add_listener(story)
        stuck = fc.parallelize([1], 1).map(asleep_in_c).collect_async()
        while not asleep.exists():
            time.sleep(0.01)
        beside = fc.parallelize(range(4), 4).map(lambda x: time.sleep(1.0) or x).collect_async()
        story.wait_for(lambda s: len(s.of(ev.TaskStart)) > 1, "another runs beside it")
        stuck.cancel()
        assert beside.result(60) == [0, 1, 2, 3]
        fc.wait_for_listeners()
        (told,) = story.of(ev.TaskStuck)
        assert "asleep_in_c" in told.stack
        assert told.partition == 0
        kinds = [type(event) for event in story.events if isinstance(event, ev.TaskStuck | ev.ExecutorRemoved)]
        assert kinds == [ev.TaskStuck, ev.ExecutorRemoved]
        assert "it is here:" in str(fc.history)
