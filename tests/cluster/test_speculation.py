"""A slow task does not keep a job waiting, its output is written once, and its loser is stopped."""

from __future__ import annotations

import threading
import time

import pytest

import flowkit as fk
from flowkit.errors import ConfigError
from flowkit.model import events as ev
from tests.chaos.conftest import Story, once


class Stuck:
    """Takes a minute for one element, in whichever process comes to it first."""

    def __init__(self, marker):
        self.marker = marker

    def __call__(self, x):
        if x == 17 and once(self.marker):
            gate = threading.Event()
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                gate.wait(0.01)
        return x


@pytest.mark.timeout(120)
def test_a_job_ends_long_before_its_slowest_attempt_would(tmp_path):
    story = Story()
    with fk.Context(workers=2, progress="off", speculation=True) as fc:
        fc.add_listener(story)
        counted = fc.accumulator(0)

        def count(x):
            counted.add(1)
            return x

        began = time.monotonic()
        rows = fc.range(40, num_partitions=40).map(count).map(Stuck(tmp_path / "stuck"))
        rows.save_as_text(tmp_path / "out")
        assert time.monotonic() - began < 20
        assert sorted(map(int, fc.text_file(tmp_path / "out").collect())) == list(range(40))
        assert counted.value == 40
        story.wait_for(lambda story: story.of(ev.SpeculativeTaskSubmitted), "a second attempt")
        story.wait_until_jobs_ended(2)
        assert [event.partition for event in story.of(ev.SpeculativeTaskSubmitted)] == [17]
        assert fc.range(20, num_partitions=20).count() == 20, "the slot of the slow one is free again"
        summary = fc.status.stages()[0]
        assert summary.task_count == 40


@pytest.mark.parametrize("wrong", [{"speculation_quantile": 0.0}, {"speculation_multiplier": -1.0}, {"speculation_min_s": 0.0}])
def test_limits_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="speculation"):
        fk.Config(**wrong)
