"""A message that cannot be read takes no other along, and a job that it was about does not wait for ever."""

from __future__ import annotations

import pytest

from flowkit.cluster import salvage, wire
from flowkit.cluster.client_link import ClientLink
from flowkit.config import Config
from flowkit.model.events import ApplicationStart
from flowkit.model.task import InlineResult, TaskMetrics, TaskSucceeded
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti

GOOD = ApplicationStart(time=1.0, app="a", name="n", flowkit_version="1")
BAD = ApplicationStart(time="noon", app="a", name="n", flowkit_version="1")


def test_the_others_of_a_batch_are_read():
    bad = act.JobFailed("a", 7, "JobFailed", reason=3)
    found, (unread,) = salvage.salvage_to_driver(wire.encode([act.JobSucceeded("a", 1), bad, act.JobSucceeded("a", 2)]))
    assert found == [act.JobSucceeded("a", 1), act.JobSucceeded("a", 2)]
    assert (unread.kind, unread.job) == ("JobFailed", 7)
    assert "reason" in unread.complaint


def test_the_other_events_of_a_batch_are_read_and_the_bad_ones_count_as_dropped():
    found, (unread,) = salvage.salvage_to_driver(wire.encode([wire.EventsPublished((GOOD, BAD, GOOD), dropped=2)]))
    assert found == [wire.EventsPublished((GOOD, GOOD), dropped=3)]
    assert unread.kind == salvage.EVENT
    assert "ApplicationStart" in unread.complaint


def test_each_direction_is_salvaged():
    kill = act.Kill("e#1", (1,), "why")
    assert salvage.salvage_to_executor(wire.encode([kill, act.Kill("e#1", 1, "why")]))[0] == [kill]
    closed = sti.ApplicationClosed("a", "over")
    assert salvage.salvage_from_driver(wire.encode([sti.ApplicationClosed("a", 1), closed]))[0] == [closed]
    reported = sti.TasksReported("e#1", (TaskSucceeded(1, 0.0, 1.0, InlineResult(b""), TaskMetrics()),))
    found, (unread,) = salvage.salvage_from_executor(wire.encode([sti.TasksReported("e#1", 3), reported]))
    assert found == [reported]
    assert unread.kind == "TasksReported"


@pytest.mark.parametrize("body", [b"\xc1", b"\x93", wire.encode([3]), wire.encode([{"job": "x"}])])
def test_what_is_no_batch_at_all_is_told_too(body):
    found, (unread,) = salvage.salvage_to_driver(body)
    assert found == []
    assert unread.job is None


class Deliveries:
    jobs = (1, 2)

    def __init__(self):
        self.told = []

    def failed(self, message):
        self.told.append((message.kind, message.job))

    def succeeded(self, message):
        self.told.append(("succeeded", message.job))


@pytest.mark.parametrize(
    ("bad", "failed"),
    [
        (act.JobFailed("a", 2, "JobFailed", reason=3), [2]),
        (act.DeliverAccumulated("a", data=7), [1, 2]),
        (act.ScaleTo("a", "many"), []),
        (wire.EventsPublished((BAD,)), []),
    ],
    ids=["of a job", "of no job that it names", "of the cluster", "an event"],
)
def test_a_drivers_jobs_fail_when_what_was_told_of_them_cannot_be_read(bad, failed, monkeypatch):
    link = ClientLink("tcp://nowhere:1", name="", config=Config())
    link._deliveries = heard = Deliveries()
    cancelled = []
    monkeypatch.setattr(link, "_say", lambda message: cancelled.append(message.job))
    link._hear(wire.encode([bad, act.JobSucceeded("a", 9)]))
    assert heard.told == [*(("InternalError", job) for job in failed), ("succeeded", 9)]
    assert cancelled == failed
