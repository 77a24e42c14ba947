"""What happened is told line by line; failures of one kind in a row are one line, and new lines follow as they come."""

from __future__ import annotations

import threading
from itertools import islice

from flowkit.model.events import (
    ExecutorAdded,
    ExecutorRemoved,
    ExecutorsKept,
    ExecutorsReleased,
    JobEnd,
    JobStart,
    TaskEnd,
    TaskStuck,
)
from flowkit.model.ids import AppId, AttemptId, ExecutorId, HostToken, JobId, PartitionIndex, StageId
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import ExceptionFailure, KilledFailure
from flowkit.observe.history import History

APP = AppId("app-1")
EXECUTOR = ExecutorId("tcp://10.0.0.1:4000#a")


def ended(partition, failure, attempt=0):
    return TaskEnd(
        APP,
        StageId(0),
        0,
        PartitionIndex(partition),
        AttemptId(attempt),
        0,
        EXECUTOR,
        1.0,
        2.0,
        failure,
        True,
        TaskMetrics(),
        time=2.0,
    )


def broken(kind, message):
    return ExceptionFailure(kind, message, "", None)


def test_failures_of_one_kind_in_a_row_are_one_line():
    history = History(APP)
    for partition in (0, 1, 1, 2):
        history.on_event(ended(partition, broken("ValueError", "bad")))
    history.on_event(ended(3, broken("KeyError", "worse")))
    first, second = history.lines()
    assert first.text == "4 tries of 3 partitions of stage 0 failed, the last on executor 10.0.0.1:4000: ValueError: bad"
    assert second.text == "partition 3 of stage 0 failed on executor 10.0.0.1:4000, try 1: KeyError: worse"
    assert first.bad
    assert second.bad


def test_who_was_let_go_has_left_and_who_was_called_back_and_then_dies_is_gone():
    history = History(APP)
    host = HostToken("h")
    left, back = (ExecutorId(f"tcp://10.0.0.{number}:4000#a") for number in (1, 2))
    history.on_event(ExecutorsReleased((left, back), "idle", time=1.0))
    history.on_event(ExecutorsKept((back,), "40 tasks wait", time=1.5))
    for executor in (left, back):
        history.on_event(ExecutorRemoved(executor, host, "closed", time=2.0))
    told = [(line.text, line.bad) for line in history.lines()]
    assert told[1:] == [
        ("executor 10.0.0.2:4000 stays after all: 40 tasks wait", False),
        ("executor 10.0.0.1:4000 has left", False),
        ("executor 10.0.0.2:4000 is gone: closed", True),
    ]


def test_what_went_well_and_what_was_killed_on_purpose_is_not_told():
    history = History(APP)
    history.on_event(ended(0, None))
    history.on_event(ended(1, KilledFailure("cancelled")))
    history.on_event(JobStart(AppId("another"), JobId(0), "count", (), (), {}, time=1.0))
    assert history.lines() == []
    assert "nothing happened" in repr(history)


def test_tasks_that_were_preempted_are_told_and_are_no_failure():
    history = History(APP)
    why = KilledFailure("preempted: pool adhoc is below its part and has waited for 2 s (preempt_after_s)")
    history.on_event(ended(3, why))
    history.on_event(ended(1, broken("ValueError", "bad")))
    history.on_event(ended(1, why))
    history.on_event(ended(2, why))
    one, _, two = history.lines()
    assert one.text == f"partition 3 of stage 0 was stopped on executor 10.0.0.1:4000, and runs again: {why.reason}"
    assert two.text == f"2 tasks of stage 0 were stopped, the last on executor 10.0.0.1:4000, and run again: {why.reason}"
    assert not one.bad
    assert not two.bad


def test_a_task_that_would_not_stop_is_told_without_a_guess_at_what_becomes_of_its_process():
    history = History(APP)
    where = (APP, StageId(0), PartitionIndex(3), AttemptId(0), EXECUTOR)
    history.on_event(TaskStuck(*where, "cancelled; its worker has no nanny", 5.0, "File a.py\n  wait()", time=1.0))
    (line,) = history.lines()
    assert line.text == (
        "partition 3 of stage 0 was to stop (cancelled; its worker has no nanny) and still runs after 5 s on executor 10.0.0.1:4000; "
        "it is here: File a.py wait()"
    )


def test_jobs_and_executors_are_told_with_their_times_and_reasons():
    history = History(APP)
    history.on_event(ExecutorAdded(EXECUTOR, HostToken("h"), 2, time=0.5))
    history.on_event(JobStart(APP, JobId(3), "count at a.py:1", (), (), {}, time=1.0))
    history.on_event(ExecutorRemoved(EXECUTOR, HostToken("h"), "killed by signal 9", time=1.5))
    history.on_event(JobEnd(APP, JobId(3), "failed", "nobody left", time=3.0))
    assert [line.text for line in history.lines()] == [
        "executor 10.0.0.1:4000 is there, 2 slots",
        "job 3 starts: count at a.py:1; 0 stages, 0 tasks",
        "executor 10.0.0.1:4000 is gone: killed by signal 9",
        "job 3 failed after 2.0 s: nobody left",
    ]


def test_whoever_follows_gets_what_was_and_each_line_that_comes():
    history = History(APP)
    history.on_event(ExecutorAdded(EXECUTOR, HostToken("h"), 2, time=0.5))
    told = []
    first = threading.Event()

    def follow():
        for line in islice(history.follow(), 3):
            told.append(line.text)
            first.set()

    follower = threading.Thread(target=follow)
    follower.start()
    assert first.wait(5)
    history.on_event(JobStart(APP, JobId(0), "count", (), (), {}, time=1.0))
    history.on_event(JobEnd(APP, JobId(0), "succeeded", time=2.0))
    follower.join(5)
    assert not follower.is_alive()
    assert told[1:] == ["job 0 starts: count; 0 stages, 0 tasks", "job 0 succeeded after 1.0 s"]


def test_only_the_last_lines_are_kept():
    history = History(APP)
    for number in range(3_000):
        history.on_event(JobEnd(APP, JobId(number), "succeeded", time=2.0))
    assert len(history.lines(10_000)) == 1_000
    assert history.lines(1)[0].text.startswith("job 2999")
