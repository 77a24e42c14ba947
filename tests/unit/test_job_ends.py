"""A job has ended well only when its action has, and listeners hear of its end once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.errors import EmptyRdd, ResultTooLarge, TooManyErrors
from flowkit.job_ends import JobEnds
from flowkit.model.events import ApplicationEnd, JobEnd
from flowkit.testing.inline import inline_context

APP = "app"


class BreaksWhenRead:
    """Pickles well, and cannot be made again at the driver."""

    def __reduce__(self):
        return _broken, ()


def _broken():
    raise LookupError("this cannot be read")


def _interrupted(_a, _b):
    raise KeyboardInterrupt


def _unmergeable(a, b):
    """Takes one element a partition, as tasks do here, and not a second one, as the driver does."""
    if a:
        raise ValueError(f"{a} and {b} do not merge")
    return b


def too_many_errors(fc, _path):
    fc.parallelize(["1", "two"], 2).map(int, on_error="skip", max_errors=0.1).count()


def result_too_large(fc, _path):
    fc.range(1_000, num_partitions=4).collect()


def place_taken_meanwhile(fc, path):
    fc.range(4, num_partitions=2).map(lambda x: ((path / "out").mkdir(exist_ok=True), x)[1]).save_as_text(path / "out")


#: action, exception, outcome, what the reason says
AFTER_THE_JOB = {
    "too many errors": (too_many_errors, TooManyErrors, "failed", "1 errors of 2 elements are more than max_errors = 0.1"),
    "result too large": (result_too_large, ResultTooLarge, "failed", "larger than max_result_bytes"),
    "reduce": (lambda fc, _: fc.parallelize([5, 6], 2).reduce(_unmergeable), ValueError, "failed", "do not merge"),
    "fold": (lambda fc, _: fc.parallelize([5, 6], 2).fold(0, _unmergeable), ValueError, "failed", "do not merge"),
    "nothing to reduce": (lambda fc, _: fc.range(4).filter(lambda x: False).reduce(max), EmptyRdd, "failed", "EmptyRdd"),
    "nothing there": (lambda fc, _: fc.range(4).filter(lambda x: False).first(), EmptyRdd, "failed", "EmptyRdd"),
    "elements that do not compare": (lambda fc, _: fc.parallelize([1, "a"], 2).max(), TypeError, "failed", "not supported between"),
    "bounds of a sort": (
        lambda fc, _: fc.parallelize([1, "a"], 2).sort_by(lambda x: x, num_partitions=2).collect(), TypeError, "failed", "not supported",
    ),
    "a result that cannot be read": (
        lambda fc, _: fc.range(1, num_partitions=1).map(lambda _x: BreaksWhenRead()).collect(), LookupError, "failed", "cannot be read",
    ),
    "a place that was taken meanwhile": (place_taken_meanwhile, Exception, "failed", "OutputExists"),
    "interrupted": (lambda fc, _: fc.parallelize([5, 6], 2).reduce(_interrupted), KeyboardInterrupt, "cancelled", "interrupted"),
}  # fmt: skip


@pytest.mark.parametrize("kind", AFTER_THE_JOB)
def test_an_action_that_raises_after_its_job_has_a_failed_job(kind, tmp_path):
    act, error, outcome, reason = AFTER_THE_JOB[kind]
    heard = []
    with inline_context(max_result_bytes=1_000 if kind == "result too large" else 0) as fc:
        listener = type(
            "Ends", (), {"on_event": lambda _self, event: heard.append(event) if isinstance(event, JobEnd) else None}
        )()
        fc.add_listener(listener)
        with pytest.raises(error):
            act(fc, tmp_path)
        fc.wait_for_listeners()
        last = fc.status.jobs()[-1]
        assert (last.outcome, fc.status.summary().failed_jobs) == (outcome, 1)
        assert reason in last.reason
        assert [each.job for each in heard] == sorted({each.job for each in heard}), "an end was told twice"
        assert f"job {last.job} {outcome}" in fc.history.lines(1)[0].text
        assert fc.range(3).count() == 3
        fc.wait_for_listeners()
        assert fc.status.jobs()[-1].outcome == "succeeded"


def test_of_an_action_of_several_jobs_the_last_one_fails():
    with inline_context() as fc:
        with pytest.raises(EmptyRdd):
            fc.range(8, num_partitions=8).filter(lambda x: False).first()
        fc.wait_for_listeners()
        outcomes = [each.outcome for each in fc.status.jobs()]
    assert len(outcomes) > 1
    assert outcomes == ["succeeded"] * (len(outcomes) - 1) + ["failed"]


def test_a_user_function_that_raises_in_a_task_has_the_schedulers_reason():
    with inline_context() as fc:
        with pytest.raises(ZeroDivisionError):
            fc.range(4).map(lambda x: 1 / x).collect()
        fc.wait_for_listeners()
        assert "ZeroDivisionError" in fc.status.jobs()[-1].reason


def test_errors_are_counted_once_where_a_checkpoint_follows(tmp_path):
    with inline_context() as fc:
        numbers = fc.parallelize(["1", "two", "3"], 1).map(int, on_error="skip", max_errors=1)
        numbers.checkpoint(tmp_path / "numbers")
        assert numbers.count() == 2
        assert numbers.is_checkpointed


def test_what_could_not_be_submitted_is_expected_no_more():
    heard = []
    ends = JobEnds(heard.extend)
    ends.expect(0)
    ends.forget(0)
    ends.settle(0, ValueError())
    ends.hear([JobEnd(APP, 0, "succeeded", time=1.0)])
    assert [each.outcome for each in heard] == ["succeeded"]


def test_the_end_of_the_application_comes_after_ends_that_were_held_back():
    heard = []
    ends = JobEnds(heard.extend)
    ends.expect(0)
    ends.hear([JobEnd(APP, 0, "succeeded", time=1.0)])
    ends.hear([ApplicationEnd(APP, "closed", time=2.0)])
    ends.settle(0, ValueError())
    assert [type(each).__name__ for each in heard] == ["JobEnd", "ApplicationEnd"]


STEPS = st.lists(st.tuples(st.sampled_from(["expect", "hear", "settle"]), st.integers(0, 2)), max_size=12)


@given(STEPS, st.sampled_from([None, ValueError("x")]), st.sampled_from(["succeeded", "failed", "cancelled"]))
def test_each_end_is_told_once_and_time_never_goes_back(steps, error, outcome):
    heard = []
    ends = JobEnds(heard.extend)
    expected, told, settled = set(), {}, set()
    for number, (step, job) in enumerate(steps):
        if step == "expect" and job not in expected | set(told):
            expected.add(job)
            ends.expect(job)
        elif step == "hear" and job not in told:
            told[job] = float(number)
            ends.hear([JobEnd(APP, job, outcome, time=float(number))])
        elif step == "settle" and job in expected:
            settled.add(job)
            ends.settle(job, error)
    over = {job for job in told if job not in expected or job in settled or outcome == "failed"}
    assert {each.job for each in heard} == over
    assert len(heard) == len(over)
    assert [each.time for each in heard] == sorted(each.time for each in heard)
    wrong = {each.outcome for each in heard if each.job in settled}
    assert wrong <= {outcome if error is None else "failed"}
