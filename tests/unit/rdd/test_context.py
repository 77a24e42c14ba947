"""The Context: jobs from several threads, cancelling, caching, listeners, and what it leaves behind."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from operator import add

import pytest

from flowkit.context import Context
from flowkit.errors import ConfigError, JobCancelled
from flowkit.model import events as ev
from flowkit.testing.inline import InlineLink, inline_context


class Heard:
    def __init__(self) -> None:
        self.events: list[ev.Event] = []

    def on_event(self, event: ev.Event) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def fc():
    with inline_context() as context:
        yield context


def test_threads_may_share_a_context_and_its_rdds(fc):
    counts = fc.range(100, num_partitions=4).map(lambda x: (x % 5, x)).reduce_by_key(add)
    ordered = counts.sort_by(lambda kv: -kv[1])

    def work(n):
        return ordered.map(lambda kv: kv[0] * n).collect()

    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(work, range(12)))
    assert found == [[k * n for k in (4, 3, 2, 1, 0)] for n in range(12)]
    assert fc.jobs.active == ()


def test_two_threads_draw_one_sample(fc, monkeypatch):
    names: list[str] = []
    submit = InlineLink.submit
    monkeypatch.setattr(InlineLink, "submit", lambda self, spec, *rest: (names.append(spec.name), submit(self, spec, *rest))[1])
    ordered = fc.range(1000, num_partitions=4).sort_by(lambda x: -x)
    together = threading.Barrier(4)

    def first(_):
        together.wait(10)
        return ordered.first()

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(first, range(4))) == {999}
    assert sum("sampling" in name for name in names) == 1


def test_an_interrupted_action_cancels_its_job(fc, monkeypatch):
    submitted = []
    submit = InlineLink.submit

    def interrupting(self, spec, on_result):
        job = submit(self, spec, on_result)
        wait, calls = job.wait, []

        def wait_once(timeout_s=None):
            calls.append(timeout_s)
            if len(calls) == 1:
                raise KeyboardInterrupt
            return wait(timeout_s)

        job.wait = wait_once
        submitted.append((job, calls))
        return job

    monkeypatch.setattr(InlineLink, "submit", interrupting)
    with pytest.raises(KeyboardInterrupt):
        fc.range(4).count()
    (job, calls) = submitted[0]
    assert len(calls) == 2
    assert job.is_over
    assert fc.jobs.active == ()
    monkeypatch.undo()
    assert fc.range(4).count() == 4


def test_a_job_can_be_cancelled_by_its_number(fc):
    def cancel(batch):
        if any(isinstance(event, ev.TaskStart | ev.TaskEnd) for event in batch):
            fc.jobs.cancel(fc.jobs.active[0], "enough")

    # Heard on the same thread, right when the first task starts or ends.
    fc._link.subscribe(cancel)
    with pytest.raises(JobCancelled, match="enough"):
        fc.range(400, num_partitions=400).count()


def test_listeners_hear_every_job(fc):
    heard = Heard()
    fc.add_listener(heard)
    fc.range(4, num_partitions=2).map(lambda x: (x, 1)).reduce_by_key(add).count()
    fc._bus.wait_until_empty(10)
    assert [event.name.partition(" at ")[0] for event in heard.of(ev.JobStart)] == ["count"]
    assert len(heard.of(ev.TaskEnd)) == 4
    fc.remove_listener(heard)
    before = len(heard.events)
    fc.range(4).count()
    fc._bus.wait_until_empty(10)
    assert len(heard.events) == before
    assert fc.status.summary().jobs == 2


def test_a_cached_rdd_spares_all_before_it(fc):
    heard = Heard()
    fc.add_listener(heard)
    cached = fc.range(8, num_partitions=2).map(lambda x: (x % 2, x)).reduce_by_key(add).cache()
    cached.count()
    cached.count()
    fc._bus.wait_until_empty(10)
    first, second = heard.of(ev.JobStart)
    assert len(first.skipped) == 0
    assert len(second.skipped) == 1
    assert len(heard.of(ev.TaskEnd)) == 2 + 2 + 2
    cached.unpersist()
    assert not cached.is_cached
    assert cached.collect_as_map() == {0: 12, 1: 16}


def test_nothing_is_left_of_a_closed_context():
    context = inline_context()
    context.range(100).map(lambda x: (x, x)).group_by_key().count()
    place = context._link._host.base / context.app
    assert place.exists()
    context.close()
    assert not place.exists()


def test_a_context_that_cannot_start_leaves_nothing(monkeypatch):
    closed = []
    monkeypatch.setattr(InlineLink, "subscribe", lambda *_: (_ for _ in ()).throw(OSError("no")))
    close = InlineLink.close
    monkeypatch.setattr(InlineLink, "close", lambda self: (closed.append(self), close(self))[1])
    with pytest.raises(OSError, match="no"):
        inline_context()
    assert closed
    assert not (closed[0]._host.base / closed[0].app).exists()


@pytest.mark.parametrize(
    ("policy", "pools", "complaint"),
    [
        ("fair", {"adhoc": 0}, r"pools\['adhoc'\]: weight = 0: must be a number above 0"),
        ("fair", {"adhoc": {"min_share": -1}}, r"pools\['adhoc'\]: min_share = -1: must be"),
        ("fair", {"adhoc": {"parent": "nobody"}}, "pool 'adhoc' lies in 'nobody', which is not described"),
        ("fair", {"a": {"parent": "b"}, "b": {"parent": "a"}}, "lies in itself"),
        ("capacity", {"adhoc": 1.5}, r"pools\['adhoc'\]: guarantee = 1.5: must be"),
        ("capacity", {"a": 0.6, "b": 0.6}, "guarantees of all queues are 1.2 together"),
    ],
)
def test_policies_that_cannot_be_made_fail_the_call_before_anything_is_started(policy, pools, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Context("tcp://nowhere:1", scheduling_policy=policy, pools=pools)


class Locked:
    """Any policy at all, with what cannot travel."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, *_):
        self.lock.acquire()

    order = prefer = look = slow_after = judge = pool = dumps = __call__

    def __repr__(self):
        return "Locked()"


@pytest.mark.parametrize(
    "setting", ["scheduling_policy", "placement", "topology", "speculation", "exclude_failing", "allocation", "memory_manager"]
)
def test_what_cannot_be_pickled_fails_the_call_before_anything_is_started(setting):
    with pytest.raises(ConfigError, match=rf"{setting} = Locked\(\) cannot be pickled: cannot pickle '_thread.lock' object"):
        Context("tcp://nowhere:1", **{setting: Locked()})


@pytest.mark.parametrize("setting", ["resources", "serializers"])
def test_what_is_given_by_name_and_cannot_be_pickled_fails_the_call(setting):
    with pytest.raises(ConfigError, match=rf"{setting}\['gpu'\] = Locked\(\) cannot be pickled"):
        Context("tcp://nowhere:1", **{setting: {"gpu": Locked()}})
