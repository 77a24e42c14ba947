"""Tasks that wait for a place each, by the places: few for each of many hosts, or many for each of few.

Runs in the scheduler process inside ``SchedulerCore``. A task stands in several queues; those it was not taken from drop it when they come
to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator
from functools import partial
from itertools import islice
from typing import TypeVar

from flowkit.model.ids import PartitionIndex

#: A deque of one takes 760 bytes, a list 88: with thousands of hosts most queues are short.
Queue = list[PartitionIndex] | deque[PartitionIndex]
#: The first of more than so many is not to be taken by moving all others.
_SHORT = 32

_K = TypeVar("_K", bound=Hashable)


def put(queues: dict[_K, Queue], key: _K, partition: PartitionIndex) -> None:
    """Last in the queue of a place."""
    queue = queues.get(key)
    if queue is None:
        queues[key] = [partition]
        return
    queue.append(partition)
    if len(queue) > _SHORT and type(queue) is list:
        queues[key] = deque(queue)


def taker(queue: Queue) -> Callable[[], PartitionIndex]:
    """What takes the first."""
    return queue.popleft if isinstance(queue, deque) else partial(queue.pop, 0)


def put_back(queue: Queue, partitions: list[PartitionIndex]) -> None:
    """They were taken, and are the first again."""
    if isinstance(queue, deque):
        queue.extendleft(reversed(partitions))
    else:
        queue[:0] = partitions


def drop_gone(queue: Queue, pending: Collection[PartitionIndex]) -> bool:
    """Whether any of a queue waits; the first does then."""
    if queue and queue[0] not in pending:
        take = taker(queue)
        while queue and queue[0] not in pending:
            take()
    return bool(queue)


def in_turn(queues: dict[_K, Queue], pending: Collection[PartitionIndex], most: int) -> Iterator[_K]:
    """The first of those places that tasks wait for; they go to the end, and those that none waits for go."""
    for key in list(islice(queues, most)):
        queue = queues.pop(key)
        if drop_gone(queue, pending):
            queues[key] = queue
            yield key
