"""Networks that break: short and long, both ways and one way. The answer is right, nothing hangs beyond its time-outs, and what was lost is
computed again, no more.
"""

from __future__ import annotations

import time
from collections import Counter
from operator import add

import pytest

import flowkit as fk
from flowkit.errors import ShuffleLost
from flowkit.model import events as ev
from tests.chaos.conftest import Story

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(180)]

MAPS, REDUCERS = 12, 6
EXPECTED = {f"key {k}": 60 for k in range(50)}
SETTINGS = {"progress": "off", "heartbeat_s": 0.3, "executor_timeout_s": 3.0, "no_executor_timeout_s": 30.0}


def counts(fc: fk.Context, map_s: float = 0.0, reduce_s: float = 0.0):
    def slowly(seconds):
        def run(rows):
            time.sleep(seconds)
            return rows

        return run

    return (
        fc.range(3_000, num_partitions=MAPS)
        .map_partitions(slowly(map_s))
        .map(lambda i: (f"key {i % 50}", 1))
        .reduce_by_key(add, num_partitions=REDUCERS)
        .map_partitions(slowly(reduce_s))
    )


@pytest.fixture
def session(net):
    with net.client() as client, fk.Context(client, **SETTINGS) as fc:
        story = Story()
        fc.add_listener(story)
        yield net, fc, story


def after_tasks(story: Story, count: int) -> None:
    story.wait_for(lambda s: len([end for end in s.of(ev.TaskEnd) if end.failure is None]) >= count, f"{count} tasks are over")


def test_a_shuffle_between_hosts_that_share_nothing(session):
    _, fc, story = session
    assert counts(fc).collect_as_map() == EXPECTED
    fc.wait_for_listeners()
    assert len({event.host for event in story.of(ev.ExecutorAdded)}) == 2
    assert sum(end.metrics.shuffle_remote_bytes for end in story.of(ev.TaskEnd)) > 0


@pytest.mark.parametrize("who", ["north", "south"])
def test_a_short_cut_is_outlasted_and_costs_nothing_but_time(session, who):
    net, fc, story = session
    job = counts(fc, map_s=0.2).collect_async()
    after_tasks(story, 3)
    net.cut(who)
    time.sleep(1.0)
    net.heal(who)
    assert dict(job.result(60)) == EXPECTED
    fc.wait_for_listeners()
    assert not story.of(ev.ExecutorRemoved)
    assert not story.of(ev.ShuffleOutputsLost)


def test_a_host_that_stays_away_is_given_up_and_what_was_its_own_is_made_again(session):
    net, fc, story = session
    job = counts(fc, map_s=0.2).collect_async()
    after_tasks(story, 5)
    begun = time.monotonic()
    net.cut("north")
    assert dict(job.result(90)) == EXPECTED
    assert time.monotonic() - begun < 30
    fc.wait_for_listeners()
    assert len(story.of(ev.ExecutorRemoved)) == 1
    lost = Counter(partition for event in story.of(ev.ShuffleOutputsLost) for partition in event.partitions)
    ended = Counter(
        end.partition for end in story.of(ev.TaskEnd) if end.failure is None and end.stage == story.map_stages()[0].stage
    )
    assert {partition: times - 1 for partition, times in ended.items() if times > 1} == dict(lost)
    net.heal("north")
    story.wait_for(lambda s: len(s.of(ev.ExecutorAdded)) >= 3, "it comes back", 60)
    assert counts(fc).collect_as_map() == EXPECTED


@pytest.mark.soak  # a minute of connections that time out
def test_hosts_that_cannot_reach_one_another_cost_time_or_end_the_job_with_that_reason(session):
    net, fc, _ = session
    assert counts(fc).collect_as_map() == EXPECTED
    # South asks, north hears it, and what it answers is lost: the scheduler sees both in good health.
    net.silence("north", "south")
    job = counts(fc).collect_async()
    try:
        assert dict(job.result(150)) == EXPECTED
    except ShuffleLost as error:
        assert "unreachable" in str(error)
