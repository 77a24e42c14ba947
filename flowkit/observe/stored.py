"""What is stored of cached RDDs, and where: a fold over events.

Belongs to whoever feeds it, who holds a lock; no thread of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flowkit.model.events import BlocksCached, BlocksLost, BlocksUpdated, Event, RddUnpersisted
from flowkit.model.ids import ExecutorId, PartitionIndex, RddId
from flowkit.model.task import BlockInfo


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored of one RDD, copies included."""

    partition_count: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    executors: tuple[ExecutorId, ...] = ()


class StoredBlocks:
    """Cached partitions and who holds them.

    Examples
    --------
    >>> from flowkit.model.ids import AppId
    >>> stored = StoredBlocks()
    >>> block = BlockInfo(RddId(3), PartitionIndex(0), memory_bytes=100)
    >>> stored.on_event(BlocksCached(app=AppId("app"), executor=ExecutorId("a"), blocks=(block,), time=1.0))
    >>> stored.of(RddId(3)).partition_count, stored.of(RddId(3)).memory_bytes, stored.of(RddId(4)).partition_count
    (1, 100, 0)
    """

    def __init__(self) -> None:
        self._blocks: dict[RddId, dict[tuple[PartitionIndex, ExecutorId], BlockInfo]] = {}

    def on_event(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case BlocksCached() | BlocksUpdated():
                for block in event.blocks:
                    self._blocks.setdefault(block.rdd, {})[block.partition, event.executor] = block
            case BlocksLost():
                self._forget(event.executor, event.blocks)
            case RddUnpersisted():
                self._blocks.pop(event.rdd, None)
            case _:
                pass

    def _forget(self, executor: ExecutorId, blocks: Iterable[tuple[RddId, PartitionIndex]]) -> None:
        for rdd, partition in blocks:
            held = self._blocks.get(rdd, {})
            held.pop((partition, executor), None)
            if not held:
                self._blocks.pop(rdd, None)

    def of(self, rdd: RddId) -> Stored:
        """What is stored of an RDD."""
        held = self._blocks.get(rdd, {})
        return Stored(
            len({partition for partition, _ in held}),
            sum(block.memory_bytes for block in held.values()),
            sum(block.disk_bytes for block in held.values()),
            tuple(sorted({executor for _, executor in held})),
        )
