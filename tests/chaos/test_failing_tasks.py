"""User code that raises, in every way user code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowkit.errors import JobFailed, ResultNotPicklable, StopIterationInTask
from tests.chaos.conftest import once

pytestmark = pytest.mark.chaos


class Odd(Exception):
    """An exception that can't be unpickled: its constructor wants what pickle does not know."""

    def __init__(self, one, two):
        super().__init__("odd one")


def test_three_failures_and_then_success_is_success(start, story, tmp_path: Path):
    fc = start(workers=2)

    def flaky(i):
        if i == 5:
            for n in range(3):
                if once(tmp_path / f"failed-{n}"):
                    raise ValueError("not yet")
        return i

    assert fc.range(10, num_partitions=4).map(flaky).sum() == 45
    story.wait_until_jobs_ended()
    failed = story.failures()
    assert len(failed) == 3
    assert all(end.counted for end in failed)
    assert len({end.partition for end in failed}) == 1


def test_four_failures_raise_the_users_own_exception_with_where_and_what(start):
    fc = start(workers=2)

    def halve(i):
        if i == 7:
            raise KeyError("seven is not for halving")
        return i / 2

    with pytest.raises(KeyError, match="seven is not for halving") as caught:
        fc.range(10, num_partitions=2).map(halve).collect()
    told = "\n".join(caught.value.__notes__)
    assert "partition 1" in told
    assert "test_failing_tasks.py" in told
    assert "map" in told
    assert "7" in told
    assert "halve" in told
    assert "flowkit/execution" not in told, "frames of flowkit's own help nobody here"


def test_an_exception_arrives_as_itself_or_where_it_cannot_travel_as_text(start):
    import threading

    fc = start(workers=1)

    def fail(i):
        raise Odd(1, 2)

    with pytest.raises(Odd, match="odd one"):
        fc.range(1).map(fail).collect()

    def fail_with_a_lock(i):
        error = Odd(1, 2)
        error.lock = threading.Lock()
        raise error

    with pytest.raises(JobFailed, match="Odd: odd one"):
        fc.range(1).map(fail_with_a_lock).collect()


def test_a_result_that_cannot_be_pickled_fails_at_once(start, story):
    import threading

    fc = start(workers=1)
    with pytest.raises(ResultNotPicklable, match="lock"):
        fc.range(1).map(lambda _i: threading.Lock()).collect()
    story.wait_until_jobs_ended()
    assert len(story.failures()) == 1, "another try would end the same way"


def test_a_stop_iteration_in_user_code_never_cuts_a_partition_short(start):
    fc = start(workers=1)

    def careless(i):
        return next(iter([])) if i == 9 else i

    with pytest.raises(StopIterationInTask, match="careless"):
        fc.range(10, num_partitions=1).map(careless).collect()


def test_system_exit_in_a_task_is_the_tasks_failure_and_the_worker_lives(start, story):
    import sys

    from flowkit.model import events as ev

    fc = start(workers=1)
    with pytest.raises(JobFailed, match="SystemExit: 41"):
        fc.range(1).map(lambda _i: sys.exit(41)).collect()
    assert fc.range(3).sum() == 3
    assert not story.of(ev.ExecutorRemoved)
