"""Cached partitions of one application: who holds each, how often it is to be held, and who makes another copy.

Runs in the scheduler process inside ``SchedulerCore``. What lies in a file of a host is held by whoever serves that host; what lies
in memory goes with its process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

import msgspec

from flowkit.model.ids import ExecutorId, PartitionIndex, RddId, rdd_of
from flowkit.model.storage_level import StorageLevel
from flowkit.model.task import BlockInfo

Block = tuple[RddId, PartitionIndex]

_NOBODY: Mapping[ExecutorId, BlockInfo] = {}


class CachedBlocks:
    """Who holds what; RDDs by the number under which they are kept (``ids.kept_as``)."""

    __slots__ = ("_holders", "asked", "copying", "count_by_executor", "lacking", "levels", "refused", "stranded")

    def __init__(self) -> None:
        self._holders: dict[RddId, dict[PartitionIndex, dict[ExecutorId, BlockInfo]]] = {}
        #: how each RDD is to be kept, as the last job had it
        self.levels: dict[RddId, StorageLevel] = {}
        #: blocks to be looked at: they may have fewer copies than they are to have
        self.lacking: dict[Block, None] = {}
        #: blocks that lack copies which nobody can make as things stand
        self.stranded: dict[Block, None] = {}
        #: copies under way, and who makes them
        self.copying: dict[Block, set[ExecutorId]] = {}
        #: how many copies each executor is making
        self.asked: Counter[ExecutorId] = Counter()
        #: who had no room for a copy, or gave one up: not asked again
        self.refused: dict[Block, set[ExecutorId]] = {}
        self.count_by_executor: Counter[ExecutorId] = Counter()

    def __contains__(self, rdd: object) -> bool:
        """Whether anybody holds a partition of an RDD."""
        return rdd in self._holders

    def __iter__(self) -> Iterator[Block]:
        return ((rdd, partition) for rdd, partitions in self._holders.items() for partition in partitions)

    def holders(self, rdd: RddId, partition: PartitionIndex) -> Mapping[ExecutorId, BlockInfo]:
        """Executors that hold a partition, and how; the first one first."""
        partitions = self._holders.get(rdd)
        return _NOBODY if partitions is None else partitions.get(partition, _NOBODY)

    def is_complete(self, rdd: RddId, partition_count: int) -> bool:
        """Whether somebody holds every partition of an RDD."""
        return len(self._holders.get(rdd, ())) == partition_count

    def partitions(self, rdd: RddId) -> Collection[PartitionIndex]:
        """Partitions of an RDD that somebody holds."""
        return self._holders.get(rdd, {}).keys()

    def level(self, rdd: RddId) -> StorageLevel:
        """How an RDD is to be kept."""
        return self.levels.get(rdd, StorageLevel.MEMORY_ONLY)

    def keep(self, rdd: RddId, level: StorageLevel) -> None:
        """An RDD is to be kept so; what is held of it already may lack copies for that."""
        if self.levels.get(rdd) != level:
            self.levels[rdd] = level
            self.lacking.update(((rdd, partition), None) for partition in self.partitions(rdd))

    def add(self, executor: ExecutorId, block: BlockInfo) -> None:
        """An executor holds a partition, so."""
        holders = self._holders.setdefault(block.rdd, {}).setdefault(block.partition, {})
        self.count_by_executor[executor] += executor not in holders
        holders[executor] = block
        if self.level(block.rdd).replication > 1:
            self.lacking[block.rdd, block.partition] = None

    def remove(self, executor: ExecutorId, rdd: RddId, partition: PartitionIndex) -> None:
        """An executor does not hold a partition any more."""
        partitions = self._holders.get(rdd, {})
        holders = partitions.get(partition, {})
        if holders.pop(executor, None) is not None:
            self.count_by_executor[executor] -= 1
            if holders:  # too few, or such as are about to leave
                self.lacking[rdd, partition] = None
        if not holders:
            partitions.pop(partition, None)
        if not partitions:
            self._holders.pop(rdd, None)

    def start_copying(self, block: Block, executor: ExecutorId) -> None:
        """An executor was asked for a copy."""
        self.copying.setdefault(block, set()).add(executor)
        self.asked[executor] += 1

    def stop_copying(self, block: Block, executor: ExecutorId) -> None:
        """An executor is not making a copy any more, well or not."""
        makers = self.copying.get(block, set())
        if executor in makers:
            makers.discard(executor)
            self.asked[executor] -= 1
            self.lacking[block] = None
        if not makers:
            self.copying.pop(block, None)

    def refuse(self, executor: ExecutorId, rdd: RddId, partition: PartitionIndex) -> None:
        """An executor has no room for a partition."""
        self.refused.setdefault((rdd, partition), set()).add(executor)

    def forget_executor(self, executor: ExecutorId, heir: ExecutorId | None) -> list[Block]:
        """An executor is gone; ``heir`` serves the files of its host. Returns what is gone with it."""
        lost: list[Block] = []
        for rdd, partition in [block for block in self if executor in self.holders(*block)]:
            info = self.holders(rdd, partition)[executor]
            if heir is not None and is_in_file(info):
                if heir not in self.holders(rdd, partition):
                    self.add(heir, info)
            else:
                lost.append((rdd, partition))
            self.remove(executor, rdd, partition)
        self.count_by_executor.pop(executor, None)
        for block in [block for block, makers in self.copying.items() if executor in makers]:
            self.stop_copying(block, executor)
        return lost

    def held_by_executor(self, rdd: RddId) -> dict[ExecutorId, list[Block]]:
        """What each executor holds of an RDD."""
        held: dict[ExecutorId, list[Block]] = {}
        for partition, holders in self._holders.get(rdd, {}).items():
            for executor in holders:
                held.setdefault(executor, []).append((rdd, partition))
        return held

    def drop_rdd(self, rdd: RddId) -> None:
        """An RDD is not to be kept any more."""
        for holders in self._holders.pop(rdd, {}).values():
            self.count_by_executor.subtract(dict.fromkeys(holders, 1))
        self.levels.pop(rdd, None)
        for block, makers in list(self.copying.items()):
            for executor in list(makers) if block[0] == rdd else ():
                self.stop_copying(block, executor)
        for table in (self.lacking, self.stranded, self.refused):
            for block in [block for block in table if block[0] == rdd]:
                del table[block]

    def check(self) -> None:
        """Invariants."""
        counts: Counter[ExecutorId] = Counter()
        for block in self:
            assert self.holders(*block), f"nobody holds {block}"
            counts.update(list(self.holders(*block)))
        assert counts == +self.count_by_executor, (counts, self.count_by_executor)


def told_of(block: BlockInfo) -> BlockInfo:
    """As listeners know it: by its RDD."""
    rdd = rdd_of(block.rdd)
    return block if rdd == block.rdd else msgspec.structs.replace(block, rdd=rdd)


def is_in_file(block: BlockInfo) -> bool:
    """Whether it lies in a file of its holder's host, and nowhere else."""
    return bool(block.disk_bytes) and not block.memory_bytes
