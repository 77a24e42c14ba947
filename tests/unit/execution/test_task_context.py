"""A task's context: whose it is, and what it tells its listeners."""

from __future__ import annotations

import pickle
import threading

import pytest

from flowkit.errors import TaskListenersFailed
from flowkit.execution.task_context import TaskContext, inside_task, set_current
from flowkit.model.metrics import TaskMetrics


def make_context(**changes) -> TaskContext:
    fields = {
        "app_id": "app-1",
        "stage_id": 3,
        "stage_attempt_number": 1,
        "partition_id": 2,
        "num_partitions": 5,
        "attempt_number": 4,
        "task_attempt_id": 77,
        "local_properties": {"pool": "adhoc"},
        "metrics": TaskMetrics(),
    }
    return TaskContext(**(fields | changes))


@pytest.fixture
def current():
    context = make_context()
    set_current(context)
    yield context
    set_current(None)


def test_there_is_no_context_outside_of_tasks():
    assert TaskContext.get() is None
    assert not inside_task()


def test_a_context_belongs_to_the_thread_of_its_task(current):
    seen: list[TaskContext | None] = []
    thread = threading.Thread(target=lambda: seen.append(TaskContext.get()))
    thread.start()
    thread.join()
    assert seen == [None]
    assert TaskContext.get() is current
    assert inside_task()


def test_a_context_that_travels_does_not_become_anybodys_current_one():
    context = make_context()
    context.add_task_completion_listener(lambda _: None)
    arrived = pickle.loads(pickle.dumps(context))
    assert TaskContext.get() is None
    assert (arrived.stage_id, arrived.partition_id, arrived.task_attempt_id) == (3, 2, 77)
    assert arrived.local_properties == {"pool": "adhoc"}
    assert arrived.is_completed()


def test_local_properties_can_be_read_and_not_written():
    context = make_context()
    assert context.get_local_property("pool") == "adhoc"
    assert context.get_local_property("absent") is None
    with pytest.raises(TypeError):
        context.local_properties["pool"] = "batch"


def test_completion_listeners_run_in_reverse_and_all_of_them_though_one_raises():
    context, order = make_context(), []

    def second(_):
        order.append(2)
        raise ValueError("second")

    context.add_task_completion_listener(lambda _: order.append(1))
    context.add_task_completion_listener(second)
    context.add_task_completion_listener(lambda _: order.append(3))
    with pytest.raises(TaskListenersFailed, match="1 of 3 task completion listeners raised: ValueError: second") as caught:
        context.mark_completed()
    assert order == [3, 2, 1]
    assert isinstance(caught.value.errors[0], ValueError)


def test_a_completion_listener_that_raises_fails_the_task_and_its_failure_listeners_hear_of_it():
    context, heard = make_context(), []
    context.add_task_failure_listener(lambda _, error: heard.append(error))
    context.add_task_completion_listener(lambda _: 1 / 0)
    with pytest.raises(TaskListenersFailed) as caught:
        context.mark_completed()
    assert heard == [caught.value]
    assert context.is_failed()


def test_failure_listeners_hear_only_of_failures_and_before_the_completion_listeners():
    well, order = make_context(), []
    well.add_task_failure_listener(lambda _, error: order.append("never"))
    well.mark_completed()
    assert order == []

    failing = make_context()
    cause = KeyError("k")
    failing.add_task_completion_listener(lambda context: order.append(("completed", context.is_failed())))
    failing.add_task_failure_listener(lambda _, error: order.append(("failed", error)))
    failing.mark_failed(cause)
    failing.mark_completed()
    assert order == [("failed", cause), ("completed", True)]


def test_all_failure_listeners_run_in_reverse_though_one_raises_and_the_cause_is_kept():
    context, order, cause = make_context(), [], KeyError("k")
    context.add_task_failure_listener(lambda _, error: order.append(1))
    context.add_task_failure_listener(lambda _, error: 1 / 0)
    context.add_task_failure_listener(lambda _, error: order.append(3))
    with pytest.raises(TaskListenersFailed) as caught:
        context.mark_failed(cause)
    assert order == [3, 1]
    assert caught.value.__cause__ is cause


def test_each_listener_is_called_once_however_often_the_end_is_marked():
    context, order = make_context(), []
    context.add_task_completion_listener(lambda _: order.append("completed"))
    context.add_task_failure_listener(lambda _, error: order.append("failed"))
    for _ in range(2):
        context.mark_failed(KeyError())
        context.mark_completed()
    assert order == ["failed", "completed"]


def test_a_listener_that_comes_after_the_end_is_called_at_once():
    context, heard, cause = make_context(), [], KeyError("k")
    context.mark_failed(cause)
    context.mark_completed()
    context.add_task_completion_listener(lambda _: heard.append("completed"))
    context.add_task_failure_listener(lambda _, error: heard.append(error))
    assert heard == ["completed", cause]


def test_a_listener_registered_by_a_listener_is_called():
    context, order = make_context(), []

    def outer(each):
        order.append("outer")
        each.add_task_completion_listener(lambda _: order.append("inner"))

    context.add_task_completion_listener(outer)
    context.mark_completed()
    assert order == ["outer", "inner"]


def test_listeners_that_raise_exit_exceptions_cannot_stop_the_others():
    context, order = make_context(), []
    context.add_task_completion_listener(lambda _: order.append(1))

    def leave(_):
        raise SystemExit(3)

    context.add_task_completion_listener(leave)
    with pytest.raises(TaskListenersFailed):
        context.mark_completed()
    assert order == [1]


def test_a_task_that_goes_on_with_another_partition_has_ended_the_one_before():
    heard = []
    context = make_context(partition_id=2)
    context.add_task_completion_listener(lambda context: heard.append(("completed", context.partition_id)))
    context.add_task_failure_listener(lambda context, error: heard.append(("failed", context.partition_id)))
    context.move_on(9)
    assert heard == [("completed", 2)]
    assert (context.partition_id, context.is_completed()) == (9, False)
    context.add_task_completion_listener(lambda context: heard.append(("completed", context.partition_id)))
    context.mark_failed(ValueError())
    context.mark_completed()
    assert heard == [("completed", 2), ("completed", 9)], "who listened for the first hears nothing of the second"
