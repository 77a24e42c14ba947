"""An operation that is refused memory has others of its task spill: the smallest that suffices, else the largest, itself never."""

from __future__ import annotations

import pytest

from flowkit.model.ids import AttemptId
from flowkit.storage.memory.process import private_bytes, trim
from flowkit.storage.memory.task_memory import ExecutorMemory, TaskMemory

TOTAL = 1_000
TABLE_BYTES = 1 << 20


class Table:
    """Holds memory, and notes that it was asked to spill."""

    def __init__(self, name: str, memory: TaskMemory, size: int, log: list[str]) -> None:
        self.name, self.memory, self.log = name, memory, log
        self.held_bytes = memory.acquire(size)
        assert self.held_bytes == size
        memory.add_consumer(self)

    def spill(self) -> int:
        self.log.append(self.name)
        freed, self.held_bytes = self.held_bytes, 0
        self.memory.release(freed)
        return freed


@pytest.fixture
def memory() -> TaskMemory:
    return TaskMemory(ExecutorMemory(TOTAL), AttemptId(1))


@pytest.mark.parametrize(
    ("wanted", "spilled"),
    [
        (100, []),  # there is room
        (150, ["small"]),
        (250, ["middle"]),
        (450, ["large"]),
        (620, ["large", "small"]),
        (900, ["large", "middle", "small"]),
    ],
)
def test_the_smallest_that_suffices_spills_else_the_largest(memory: TaskMemory, wanted: int, spilled: list[str]) -> None:
    log: list[str] = []
    for name, size in (("middle", 200), ("large", 500), ("small", 100)):
        Table(name, memory, size, log)
    free = TOTAL - 800
    assert memory.acquire(wanted + free - 100) == wanted + free - 100
    assert log == spilled


def test_who_asks_is_not_asked(memory: TaskMemory) -> None:
    log: list[str] = []
    asking = Table("asking", memory, 600, log)
    Table("other", memory, 300, log)
    assert memory.acquire(700, held_bytes=600, consumer=asking) == 400
    assert log == ["other"]


def test_who_was_taken_off_the_list_is_not_asked(memory: TaskMemory) -> None:
    log: list[str] = []
    table = Table("table", memory, 900, log)
    memory.remove_consumer(table)
    memory.remove_consumer(table)
    assert memory.acquire(500) == 100
    assert log == []


def test_other_tasks_are_left_alone() -> None:
    executor = ExecutorMemory(TOTAL)
    mine, theirs = TaskMemory(executor, AttemptId(1)), TaskMemory(executor, AttemptId(2))
    log: list[str] = []
    Table("theirs", theirs, 500, log)
    assert mine.acquire(900) == 500
    assert log == []


def test_under_pressure_what_a_spilled_table_frees_goes_back_to_the_system_once_for_each_raise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    executor = ExecutorMemory(TABLE_BYTES * 8)
    memory = TaskMemory(executor, AttemptId(1))
    trims: list[int] = []
    monkeypatch.setattr("flowkit.storage.memory.task_memory.trim", lambda: trims.append(executor.pressure))
    for pressure, given_back in [(0, TABLE_BYTES), (1, 1_000), (1, TABLE_BYTES), (1, TABLE_BYTES), (2, TABLE_BYTES)]:
        executor.pressure = pressure
        memory.acquire(given_back)
        memory.release(given_back)
    assert trims == [1, 2]


@pytest.mark.undisturbed
def test_the_system_gets_back_what_python_has_freed() -> None:
    trim()
    before = private_bytes()
    rows = [bytes([number % 256]) * 2_000 for number in range(50_000)]
    pin = rows[-1]
    assert private_bytes() >= before + 90_000_000
    del rows
    trim()
    assert private_bytes() <= before + 20_000_000, "although the last piece of it is in use"
    assert pin
