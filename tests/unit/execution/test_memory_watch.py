"""What the process really holds is compared with its limit: spill, halt, fail one task, each at its part and each only as often as needed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flowkit.execution.memory_watch import FAIL, HALT, SPILL, MemoryWatch, _largest_keys
from flowkit.execution.spill import Reservation
from flowkit.storage.memory.task_memory import ExecutorMemory, TaskMemory

LIMIT = 1_000 << 20


class World:
    def __init__(self):
        self.held = 0
        self.now = 0.0
        self.halted, self.failed, self.evicted = [], [], []
        self.memory = ExecutorMemory(LIMIT // 2)
        self.memory.evict_with(self.evicted.append)
        self.attempts = []
        self.watch = MemoryWatch(
            LIMIT,
            self.memory,
            running=lambda: list(self.attempts),
            halt=self.halted.append,
            fail=lambda attempt, story: self.failed.append((attempt, story)),
            read=lambda: self.held,
            aside=lambda action: action(),
            clock=lambda: self.now,
        )

    def begin(self, number, held=0):
        attempt = SimpleNamespace(
            id=number,
            started_at=float(number),
            launch=SimpleNamespace(partition=number, stage=0),
            stage=SimpleNamespace(definition=SimpleNamespace(name="map at a.py:1")),
            switch=SimpleNamespace(thread=0),
        )
        memory = TaskMemory(self.memory, number)
        memory.acquire(held)
        self.attempts.append(attempt)
        return attempt

    def look(self, part, after=1.0):
        self.now += after
        self.held = int(part * LIMIT)
        self.watch.look()


@pytest.fixture
def world():
    return World()


def test_below_its_first_part_nothing_happens(world):
    world.begin(1)
    world.look(SPILL - 0.01)
    assert (world.memory.pressure, world.halted, world.failed, world.evicted) == (0, [], [], [])


def test_above_it_blocks_are_evicted_and_tables_asked_to_spill(world):
    world.begin(1)
    world.look(SPILL + 0.05)
    assert world.memory.pressure == 1
    assert world.evicted == [int((SPILL + 0.05) * LIMIT - SPILL * LIMIT)]


def test_pressure_is_raised_again_only_for_more_or_after_a_while(world):
    world.look(0.70)
    for _ in range(5):
        world.look(0.71, after=0.05)
    assert world.memory.pressure == 1
    world.look(0.74, after=0.05)
    assert world.memory.pressure == 2
    world.look(0.74, after=2.0)
    assert world.memory.pressure == 3
    world.look(0.5)
    world.look(0.66, after=0.05)
    assert world.memory.pressure == 4


def test_a_table_that_is_worth_it_is_spilled_once_for_each_raise(world):
    memory = TaskMemory(world.memory, 9)
    with Reservation(memory) as reservation:
        assert reservation.fits(1_000, lambda table, rows: 2 << 20, None)
        world.look(0.7)
        assert not reservation.fits(1_001, lambda table, rows: 2 << 20, None)
        reservation.release()
        assert reservation.fits(1, lambda table, rows: 1_000, None)
    world.look(0.74)
    with Reservation(memory) as reservation:
        assert reservation.fits(1_000, lambda table, rows: 2 << 20, None), "made after the raise"


def test_no_task_is_started_beside_another_until_there_is_room_again(world):
    world.look(HALT + 0.01)
    world.look(HALT + 0.02)
    world.look(HALT - 0.01)
    assert world.halted == [True, False]


def test_the_task_with_the_largest_share_fails_and_no_other_until_it_is_gone(world):
    world.begin(1, held=1 << 20)
    large = world.begin(2, held=30 << 20)
    world.look(FAIL + 0.01)
    world.look(FAIL + 0.01)
    ((failed, story),) = world.failed
    assert failed is large
    assert (
        "partition 2 of stage 0 (map at a.py:1) took too much memory: its process holds 890 MB of 1000 MB, 30 MB of them" in story
    )
    world.attempts.remove(large)
    world.look(0.5)
    world.look(FAIL + 0.01, after=100.0)
    world.look(FAIL + 0.01)
    assert [attempt.id for attempt, _ in world.failed] == [2, 1]


def test_one_that_grows_fast_fails_before_it_is_too_late(world):
    world.begin(1)
    world.look(0.70)
    world.look(0.78, after=0.04)  # twice the limit a second
    assert len(world.failed) == 1


def test_one_that_was_asked_to_spill_is_given_a_moment(world):
    world.begin(1, held=2 << 20)
    world.look(0.70)
    world.look(0.78, after=0.04)  # fast, but what it holds may be far more than was granted, and goes
    world.look(FAIL + 0.01, after=3.0)
    world.look(FAIL + 0.01, after=0.3)
    assert world.failed == []
    world.look(FAIL + 0.01, after=0.3)
    assert len(world.failed) == 1


def test_one_that_was_asked_to_spill_and_grows_on_is_not_waited_for(world):
    world.begin(1, held=2 << 20)
    world.look(0.70)
    world.look(FAIL + 0.01, after=0.1)
    assert len(world.failed) == 1


def test_one_that_grows_slowly_is_left_alone_until_its_part(world):
    world.begin(1)
    world.look(0.70)
    world.look(0.80, after=10.0)
    world.look(FAIL - 0.01, after=10.0)
    assert world.failed == []


def test_looks_come_sooner_when_memory_grows(world):
    assert world.watch.pause_s() == 5.0
    world.begin(1)
    assert world.watch.pause_s() == 0.05
    world.look(0.1)
    world.look(0.5, after=0.1)
    assert world.watch.pause_s() < 0.03
    world.look(0.87, after=0.06)
    assert world.watch.pause_s() == 0.005


def test_keys_with_most_values_are_named():
    table = {"few": [1], "many": list(range(5_000)), 7: list(range(2_000))}
    assert _largest_keys(table) == "; keys with most values: 'many' (5,000), 7 (2,000), 'few' (1)"
    assert _largest_keys({"few": [1]}) == _largest_keys({}) == _largest_keys(None) == ""
