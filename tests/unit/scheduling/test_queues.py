"""Queues of waiting tasks keep their order, however long they are."""

from __future__ import annotations

import pytest

from flowkit.model.ids import PartitionIndex
from flowkit.scheduling.queues import Queue, drop_gone, in_turn, put, put_back, taker


@pytest.mark.parametrize("length", [1, 3, 31, 32, 33, 34, 100])
def test_tasks_are_taken_in_the_order_they_came_in(length: int) -> None:
    queues: dict[str, Queue] = {}
    partitions = [PartitionIndex(each) for each in range(length)]
    for partition in partitions:
        put(queues, "here", partition)
    take = taker(queues["here"])
    first = [take() for _ in range(length // 2)]
    put_back(queues["here"], first)
    assert [take() for _ in range(length)] == partitions
    assert not queues["here"]


def test_places_take_turns_and_those_nobody_waits_for_go() -> None:
    queues: dict[str, Queue] = {}
    for partition, place in enumerate(("a", "b", "c", "a")):
        put(queues, place, PartitionIndex(partition))
    pending = {PartitionIndex(2), PartitionIndex(3)}
    assert list(in_turn(queues, pending, 2)) == ["a"]
    assert list(in_turn(queues, pending, 2)) == ["c", "a"]
    assert list(queues) == ["c", "a"]
    assert drop_gone(queues["a"], pending)
    assert list(queues["a"]) == [3]
    assert not drop_gone(queues["a"], ())
