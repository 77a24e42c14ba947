import threading

import pytest

from flowkit.cluster.job_handles import SubmittedJob
from flowkit.model.job_spec import Content, JobSpec, StageKind, StageSpec


def make(partitions=(0, 1), on_result=None):
    got, cancelled = [], []
    stage = StageSpec(1, "s", StageKind.RESULT, 9, partitions, Content("c", 0, b""))
    job = SubmittedJob(
        JobSpec("app", 1, "collect", (stage,)), on_result or (lambda p, d: got.append((p, d))), lambda j, r: cancelled.append(r)
    )
    return job, got, cancelled


def test_a_job_is_over_when_it_succeeded_and_every_result_was_handed_over():
    job, got, _ = make()
    job.hand_over(0, b"a")
    job.succeed()
    assert not job.is_over
    job.hand_over(1, b"b")
    assert job.is_over
    job.wait(0)
    assert got == [(0, b"a"), (1, b"b")]


def test_a_result_delivered_twice_is_handed_over_once():
    job, got, _ = make()
    job.hand_over(0, b"a")
    job.hand_over(0, b"a")
    assert got == [(0, b"a")]


def test_a_job_without_partitions_is_over_when_it_succeeded():
    job, _, _ = make(partitions=())
    job.succeed()
    job.wait(0)


def test_the_first_outcome_counts():
    job, _, _ = make()
    job.fail(ValueError("first"))
    job.fail(KeyError("second"))
    job.succeed()
    with pytest.raises(ValueError, match="first"):
        job.wait()


def test_what_a_callback_raises_fails_and_cancels_the_job():
    def refuse(partition, data):
        raise RuntimeError("no room")

    job, _, cancelled = make(on_result=refuse)
    job.hand_over(0, b"a")
    with pytest.raises(RuntimeError, match="no room"):
        job.wait()
    assert len(cancelled) == 1


def test_cancelling_what_is_over_does_nothing():
    job, _, cancelled = make(partitions=())
    job.succeed()
    job.cancel("why")
    assert cancelled == []


def test_several_threads_may_wait():
    job, _, _ = make(partitions=())
    done = []
    threads = [threading.Thread(target=lambda: (job.wait(5), done.append(1))) for _ in range(3)]
    for thread in threads:
        thread.start()
    job.succeed()
    for thread in threads:
        thread.join(5)
    assert len(done) == 3


def test_waiting_too_long_is_a_time_out_that_names_the_job():
    job, _, _ = make()
    with pytest.raises(TimeoutError, match="collect"):
        job.wait(0)
