"""Pools on a real cluster: who is below its part does not wait for a batch."""

from __future__ import annotations

import threading
import time

import pytest

import flowkit as fk
import flowkit.testing.inline
from flowkit.errors import ConfigError, InvalidArgument
from flowkit.model import events as ev
from tests.chaos.conftest import Story


def slow(x):
    threading.Event().wait(0.05)
    return x


@pytest.mark.timeout(120)
@pytest.mark.parametrize("policy", ["fair", "capacity"])
def test_a_small_job_of_another_pool_does_not_wait_for_a_batch(policy):
    pools = {"adhoc": 1, "batch": 1} if policy == "fair" else {"adhoc": {"guarantee": 0.5}, "batch": {"guarantee": 0.5}}
    story = Story()
    with fk.Context(workers=2, progress="off", scheduling_policy=policy, pools=pools) as fc:
        fc.add_listener(story)
        with fc.pool("batch"):
            batch = fc.range(200, num_partitions=200).map(slow).count_async()
        story.wait_for(lambda story: len(story.of(ev.TaskEnd)) >= 10, "the batch runs")
        began = time.monotonic()
        with fc.pool("adhoc"):
            assert fc.range(4, num_partitions=4).map(slow).sum() == 6
        took = time.monotonic() - began
        assert not batch.done(), "it would have waited for it"
        assert took < 2.0
        assert batch.result() == 200


@pytest.mark.timeout(120)
def test_a_policy_object_of_ones_own_runs_in_the_scheduler():
    class LastFirst:
        def order(self, candidates):
            return sorted(candidates, key=lambda each: (-each.job, each.stage))

    with fk.Context(workers=1, progress="off", scheduling_policy=LastFirst()) as fc:
        first = fc.range(40, num_partitions=40).map(slow).count_async()
        second = fc.range(4, num_partitions=4).map(slow).count_async()
        assert second.result() == 4
        assert not first.done()
        assert first.result() == 40


def test_a_pool_that_is_not_there_is_named_at_the_call():
    with fk.testing.inline.inline_context(pools={"adhoc": 2}) as fc:
        with pytest.raises(InvalidArgument, match="pool = 'adhok': must be adhoc, default"):
            fc.pool("adhok")
        with fc.pool("adhoc", weight=3), fc.pool("default"):
            assert fc.range(3).count() == 3
        for weight in (0, -1, True, "2", float("nan")):
            with pytest.raises(InvalidArgument, match="weight"):
                fc.pool("adhoc", weight=weight)


@pytest.mark.timeout(60)
def test_pools_that_make_no_sense_fail_the_start():
    with pytest.raises(ConfigError, match="weight = 0"):
        fk.Context(workers=1, progress="off", scheduling_policy="fair", pools={"adhoc": 0})
