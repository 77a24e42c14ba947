"""Networks that are slow and lose some of what is sent: the answer is right, nobody is given up for being far, nothing is made twice."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

import flowkit as fk
from flowkit.model import events as ev
from tests.chaos.conftest import Story
from tests.network.conftest import Net
from tests.network.test_cuts import EXPECTED, MAPS, REDUCERS, SETTINGS, after_tasks, counts

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(180)]

Session = tuple[Net, fk.Context, Story]


@pytest.fixture
def session(wide_net: Net) -> Iterator[Session]:
    with wide_net.client() as client, fk.Context(client, **{**SETTINGS, "executor_timeout_s": 30.0}) as fc:
        story = Story()
        fc.add_listener(story)
        yield wide_net, fc, story


def nothing_was_lost(fc: fk.Context, story: Story, jobs: int = 1) -> None:
    fc.wait_for_listeners()
    assert not story.of(ev.ExecutorRemoved)
    assert not story.of(ev.ShuffleOutputsLost)
    assert not story.failures()
    assert len(story.of(ev.TaskEnd)) == jobs * (MAPS + REDUCERS), "nothing is made twice"


def test_on_a_slow_link_a_job_takes_longer_and_nothing_else(session: Session) -> None:
    net, fc, story = session
    for name in ("north", "south"):
        net.impair(name, delay_s=0.1, jitter_s=0.05)
    begun = time.monotonic()
    assert counts(fc).collect_as_map() == EXPECTED
    assert time.monotonic() - begun > 0.4, "the wire delays: launches and reports of two stages take a tenth of a second each"
    nothing_was_lost(fc, story)


@pytest.mark.parametrize("loss", [0.02, 0.05])
def test_what_a_link_loses_is_sent_again_and_costs_time_alone(session: Session, loss: float) -> None:
    net, fc, story = session
    for name in ("north", "south"):
        net.impair(name, delay_s=0.005, jitter_s=0.005, loss=loss)
    for _ in range(3):
        assert counts(fc).collect_as_map() == EXPECTED
    nothing_was_lost(fc, story, jobs=3)


def test_one_far_host_does_not_make_the_near_one_wait(session: Session) -> None:
    net, fc, story = session
    net.impair("south", delay_s=0.25)
    assert counts(fc, map_s=0.1).collect_as_map() == EXPECTED
    nothing_was_lost(fc, story)
    first = story.map_stages()[0].stage
    by_host = {each.executor: each.host for each in story.of(ev.ExecutorAdded)}
    at = [by_host[end.executor] for end in story.of(ev.TaskEnd) if end.stage == first]
    near, far = sorted((at.count(host) for host in set(by_host.values())), reverse=True)
    assert near + far == MAPS
    assert near > far


def test_a_link_that_worsens_in_the_middle_of_a_job_and_recovers_costs_nothing_but_time(session: Session) -> None:
    net, fc, story = session
    job = counts(fc, map_s=0.2).collect_async()
    after_tasks(story, 3)
    net.impair("north", delay_s=0.5, jitter_s=0.3, loss=0.05)
    after_tasks(story, 8)
    net.impair("north")
    assert dict(job.result(60)) == EXPECTED
    nothing_was_lost(fc, story)
