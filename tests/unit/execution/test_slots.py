"""A slot's thread outlives whatever users' code does in a task, and each task is reported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flowkit.execution.task_context import TaskContext
from flowkit.model.task import TaskFailed, TaskSucceeded
from flowkit.storage.memory.unified import UnifiedMemory, UnifiedPool
from tests.unit.hostile import RAISED, Leave, Looked, Travels, arm


def in_a_function(leave: Leave) -> Any:
    leave()


def in_a_generator_that_refuses_to_close(leave: Leave) -> Any:
    def rows() -> Iterator[int]:
        while True:
            try:
                yield 1
            finally:
                leave()

    opened = rows()
    next(opened)
    raise ValueError("while it is open")


def in_a_context_manager(leave: Leave) -> Any:
    class Left:
        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            leave()

    with Left():
        raise ValueError("inside")


def in_a_finaliser(leave: Leave) -> Any:
    class Dies:
        def __del__(self) -> None:
            leave()

    Dies()
    raise ValueError("after it died")


def in_a_listener(leave: Leave) -> Any:
    context = TaskContext.get()
    assert context is not None
    context.add_task_completion_listener(leave)
    context.add_task_failure_listener(leave)
    raise ValueError("the listeners hear of it")


def in_a_cause(leave: Leave) -> Any:
    try:
        leave()
    except BaseException as error:
        raise ValueError("because of it") from error


def in_a_result_that_is_pickled(leave: Leave) -> Any:
    return Looked(leave.kind)


def in_a_class_of_an_exception(leave: Leave) -> Any:
    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            leave()

    raise Meta("Odd", (ValueError,), {})


WAYS: list[Callable[[Leave], Any]] = [
    in_a_function,
    in_a_generator_that_refuses_to_close,
    in_a_context_manager,
    in_a_finaliser,
    in_a_listener,
    in_a_cause,
    in_a_result_that_is_pickled,
    in_a_class_of_an_exception,
]


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_whatever_is_raised_in_a_task_is_reported_and_its_slot_goes_on(make_bench, way, kind, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # pytest's looks at what finalisers raise
    bench, leave = make_bench(slots=1), Leave(kind)
    with arm():
        bench.define(lambda partition, iterator: way(leave) if partition < 2 else partition)
        bench.launch(1, 2)
        assert isinstance(bench.ending(1), TaskFailed)
        assert isinstance(bench.ending(2), TaskSucceeded)
    assert bench.executor.statistics().thread_count == 1


@pytest.mark.parametrize("kind", RAISED)
def test_a_program_that_raises_when_it_is_unpickled_is_reported(make_bench, kind):
    bench, travels = make_bench(slots=1), Travels(kind)
    with arm():
        bench.define(lambda partition, iterator: travels)
        bench.define(lambda partition, iterator: partition, stage=1)
        bench.launch(1)
        ending = bench.ending(1)
        assert isinstance(ending, TaskFailed)
        assert ending.failure.fatal, "another try would fail alike"
        bench.launch(2, stage=1)
        assert bench.value(2) == 2


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("call", ["open_task", "close_task"])
def test_a_memory_manager_that_raises_costs_the_task_it_was_told_of(make_bench, kind, call):
    class Pool(UnifiedPool):
        calls = 0

        def _perhaps(self) -> None:
            Pool.calls += 1
            if Pool.calls == 1:
                Leave(kind)()

        def open_task(self, *args: Any) -> None:
            super().open_task(*args)
            if call == "open_task":
                self._perhaps()

        def close_task(self, *args: Any) -> int:
            left = super().close_task(*args)
            if call == "close_task":
                self._perhaps()
            return left

    class Manager(UnifiedMemory):
        def pool(self, total_bytes: int) -> Pool:
            return Pool(total_bytes)

    bench = make_bench(slots=1, memory_manager=Manager())
    with arm():
        bench.define(lambda partition, iterator: partition)
        bench.launch(1, 2)
        assert isinstance(bench.ending(1), TaskFailed)
        assert bench.value(2) == 2
