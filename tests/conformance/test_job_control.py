"""What a driver says about its jobs and does to them, however tasks are run."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest

import flowkit as fk
from flowkit.errors import InvalidArgument, JobCancelled, JobTimeout
from flowkit.jobs import DESCRIPTION, GROUP, TAGS, tags_of
from flowkit.model import events as ev


def properties_seen(fc) -> dict[str, str]:
    """What a task of a job started now reads."""
    (seen,) = fc.range(1).map(lambda _: dict(fk.TaskContext.get().local_properties)).collect()
    return seen


@pytest.fixture
def endless(fc, tmp_path):
    """A job that ends only when it is cancelled; inline jobs cannot be, since they have the only thread."""
    if fc.name == "inline":
        pytest.skip("an inline job runs in the calling thread")
    started = tmp_path / "started"

    def wait(rows):
        started.touch()
        gate = threading.Event()
        while not gate.wait(0.01):
            pass
        return rows

    return fc.range(2, num_partitions=2).map_partitions(wait)


def wait_for_jobs(fc, count: int) -> None:
    """Until so many jobs are under way."""
    deadline = threading.Event()
    for _ in range(1_000):
        if len(fc.jobs.active) == count:
            return
        deadline.wait(0.01)
    raise AssertionError(f"{fc.jobs.active} are active, not {count}")


# -- properties ----------------------------------------------------------------------------------------------------------


def test_what_is_said_about_jobs_reaches_their_tasks(fc):
    with fc.job_group("nightly", "counts"), fc.job_tag("a"), fc.job_tag("b"), fc.job(properties={"team": "blue"}):
        assert properties_seen(fc) == {GROUP: "nightly", DESCRIPTION: "counts", TAGS: "a,b", "team": "blue"}
        with fc.job_description("inner"), fc.job_group("other"):
            inner = properties_seen(fc)
        assert (inner[GROUP], inner[DESCRIPTION], inner["team"]) == ("other", "inner", "blue")
    assert properties_seen(fc) == {}


@pytest.mark.undisturbed
def test_it_reaches_listeners_and_the_status(fc):
    started, done = [], threading.Event()

    class Listener:
        def on_event(self, event):
            if isinstance(event, ev.JobStart):
                started.append(event.properties)
                done.set()

    listener = Listener()
    fc.add_listener(listener)
    with fc.job_group("listed"):
        fc.range(2).count()
    assert done.wait(20)
    fc.remove_listener(listener)
    assert started[0] == {GROUP: "listed"}
    fc._bus.wait_until_empty(20)
    (job,) = fc.jobs.ids_for_group("listed")
    assert job not in fc.jobs.ids_for_group(None)
    info = fc.jobs.info(job)
    assert (info.outcome, info.properties) == ("succeeded", {GROUP: "listed"})
    assert fc.jobs.stage_info(info.stages[-1]).succeeded_count >= 1
    assert fc.jobs.info(10**6) is None
    assert fc.jobs.stage_info(10**6) is None


def test_setters_hold_until_they_are_taken_back(fc):
    try:
        fc.set_local_property("team", "red")
        fc.add_job_tag("x")
        fc.add_job_tag("y")
        fc.remove_job_tag("x")
        assert properties_seen(fc) == {"team": "red", TAGS: "y"}
        assert (fc.get_local_property("team"), fc.get_local_property("absent")) == ("red", None)
    finally:
        fc.clear_job_tags()
        fc.set_local_property("team", None)
    assert properties_seen(fc) == {}
    assert tags_of({}) == frozenset()


def test_threads_have_their_own_unless_they_inherit(fc):
    found = {}

    def look(name):
        found[name] = properties_seen(fc)

    with fc.job_group("mine"):
        threads = [
            threading.Thread(target=look, args=("bare",)),
            threading.Thread(target=fk.inheritable(look), args=("heir",)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {"bare": {}, "heir": {GROUP: "mine"}}


def test_two_threads_two_values(fc):
    def work(number):
        with fc.job(properties={"number": str(number)}):
            return [properties_seen(fc)["number"] for _ in range(3)]

    with ThreadPoolExecutor(4) as pool:
        assert sorted(future.result()[2] for future in as_completed(pool.submit(work, n) for n in range(4))) == list("0123")


def test_asyncio_tasks_inherit(fc):
    async def one(name):
        with fc.job_group(name):
            return await fc.range(1).map(lambda _: fk.TaskContext.get().get_local_property(GROUP)).collect_async()

    async def both():
        return await asyncio.gather(one("a"), one("b"))

    assert asyncio.run(both()) == [["a"], ["b"]]


@pytest.mark.parametrize("tag", ["", "a,b", None, 3])
def test_tags_are_not_empty_and_have_no_comma(fc, tag):
    with pytest.raises(InvalidArgument, match="tag"):
        fc.add_job_tag(tag)
    with pytest.raises(InvalidArgument):
        fc.job(properties={"number": 3})


# -- futures -------------------------------------------------------------------------------------------------------------


def test_futures_give_what_actions_give(fc):
    rdd = fc.range(20, num_partitions=4)
    futures = [rdd.collect_async(), rdd.count_async(), rdd.take_async(3), rdd.reduce_async(lambda x, y: x + y)]
    assert [future.result(30) for future in futures] == [list(range(20)), 20, [0, 1, 2], 190]
    assert rdd.foreach_async(lambda x: None).result(30) is None
    assert rdd.foreach_partition_async(list).result(30) is None
    assert not futures[0].cancel()


def test_futures_raise_what_actions_raise_laid_to_the_callers_line(fc):
    future = fc.range(3).map(lambda x: 1 // x).collect_async()
    with pytest.raises(ZeroDivisionError) as raised:
        future.result(30)
    assert "test_job_control.py" in "".join(raised.value.__notes__)


def test_a_cancelled_future_cancels_its_job(fc, endless):
    future = endless.collect_async()
    wait_for_jobs(fc, 1)
    assert future.cancel()
    with pytest.raises(JobCancelled, match="its future was cancelled"):
        future.result(30)
    wait_for_jobs(fc, 0)
    assert fc.range(4).count() == 4


def test_partitions_come_one_by_one_and_later_ones_are_not_computed(fc):
    seen = fc.accumulator(set(), merge=set.union)
    rdd = fc.range(10, num_partitions=5).map_partitions_with_index(lambda p, rows: seen.add({p}) or rows)
    rows = rdd.to_local_iterator()
    assert [next(rows) for _ in range(3)] == [0, 1, 2]
    rows.close()
    assert seen.value == {0, 1}
    assert list(rdd.to_local_iterator(prefetch=True)) == list(range(10))
    failing = fc.range(4, num_partitions=2).map(lambda x: 1 // (x - 2)).to_local_iterator()
    assert [next(failing), next(failing)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(failing)


# -- an end --------------------------------------------------------------------------------------------------------------


def test_jobs_are_cancelled_by_group_by_tag_and_all(fc, endless):
    with fc.job_group("g"):
        one = endless.collect_async()
    with fc.job_tag("t"):
        two = endless.collect_async()
    three = endless.collect_async()
    wait_for_jobs(fc, 3)
    fc.jobs.cancel_group("g")
    with pytest.raises(JobCancelled, match="its group was cancelled"):
        one.result(30)
    fc.jobs.cancel_tag("t", "enough")
    with pytest.raises(JobCancelled, match="enough"):
        two.result(30)
    assert not three.done()
    fc.jobs.cancel_all()
    with pytest.raises(JobCancelled):
        three.result(30)
    assert fc.range(4).count() == 4


def test_a_job_beyond_its_time_is_cancelled_and_says_so(fc, endless):
    with fc.job(timeout_s=0.3), pytest.raises(JobTimeout, match=r"was not over 0.3 s after"):
        endless.count()
    wait_for_jobs(fc, 0)
    assert fc.range(4).count() == 4
    with fc.job(timeout_s=30), fc.job(timeout_s=60):
        assert fc.range(4).count() == 4
    assert issubclass(JobTimeout, TimeoutError)


def test_no_job_is_started_when_the_time_is_over(fc):
    gate = threading.Event()
    with fc.job(timeout_s=0.01):
        gate.wait(0.05)
        with pytest.raises(JobTimeout, match="was not started"):
            fc.range(4).count()
    for wrong in (0, -1, float("nan")):
        with pytest.raises(InvalidArgument, match="timeout_s"):
            fc.job(timeout_s=wrong)


def test_a_timeout_of_the_users_own_stays_what_it_is(fc):
    def fail(x):
        raise TimeoutError("a socket")

    with fc.job(timeout_s=60), pytest.raises(TimeoutError, match="a socket") as raised:
        fc.range(1).map(fail).collect()
    assert not isinstance(raised.value, JobTimeout)
