"""Cached partitions of one executor: computed once, kept as lists of objects, given up in the order of their last use.

Runs in executors; thread-safe. No lock is held while rows are computed, while blocks are reported, or while memory is asked for.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

from flowkit.model.ids import AppId, PartitionIndex, RddId
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import BlockInfo
from flowkit.storage.memory.pool import StorageGrant
from flowkit.storage.memory.size_estimate import BATCH_SAMPLE, estimate_batch
from flowkit.storage.memory.task_memory import ExecutorMemory

#: how often a thread that waits for another's computation looks whether its own task was killed
_KILL_CHECK_S = 0.2
#: rows unrolled before the first look at their size, and the most between two looks
_FIRST_ROWS, _MOST_ROWS = 64, 16_384
#: memory is asked for in steps of at least this, and of half of what is there already
_STEP_BYTES = 1 << 20


class BlockKey(NamedTuple):
    """A cached partition's name on this executor."""

    app: AppId
    rdd: RddId
    partition: PartitionIndex


@dataclass(frozen=True, slots=True)
class _Block:
    rows: list[Any]
    memory_bytes: int


class MemoryStoreStatistics(NamedTuple):
    """One look at the store."""

    block_count: int
    memory_bytes: int
    hit_count: int
    miss_count: int
    eviction_count: int


class MemoryStore:
    """Cached partitions.

    Parameters
    ----------
    memory
        The executor's budget; None: no limit.
    on_evicted
        Called with an application and its ``(rdd, partition)`` that were given up for want of memory (not when dropped on
        request), on the thread that needed the memory; must not block.
    """

    def __init__(
        self,
        memory: ExecutorMemory | None = None,
        *,
        on_evicted: Callable[[AppId, list[tuple[RddId, PartitionIndex]]], None] | None = None,
    ) -> None:
        self._memory = memory
        self._on_evicted = on_evicted
        self._changed = threading.Condition()
        #: least recently used first
        self._blocks: OrderedDict[BlockKey, _Block] = OrderedDict()
        #: being computed by some thread; False: dropped meanwhile, so not to be kept
        self._computing: dict[BlockKey, bool] = {}
        self._hit_count = self._miss_count = self._eviction_count = 0
        if memory is not None:
            memory.evict_with(self._evict_for_tasks)

    def __repr__(self) -> str:
        now = self.statistics()
        return f"<MemoryStore {now.block_count} blocks, {now.memory_bytes} bytes>"

    def get_or_compute(
        self,
        app: AppId,
        rdd: RddId,
        partition: PartitionIndex,
        compute: Callable[[], Iterable[Any]],
        *,
        recorder: Callable[[BlockInfo], None] | None = None,
        metrics: TaskMetrics | None = None,
        check_killed: Callable[[], None] | None = None,
    ) -> Iterator[Any]:
        """Iterate a partition: from the cache, or computed and, if it fits, kept.

        Parameters
        ----------
        compute
            Makes the rows; called at most once, on this thread, while others that want the same block wait.
        recorder
            Told of the block if this call put it into the cache.
        metrics
            Its ``cache_hits`` and ``cache_misses`` are counted.
        check_killed
            Raises once the task is to stop; called while waiting and between batches.

        Returns
        -------
        Iterator
            A new one for each caller. A partition that does not fit, even after other RDDs' blocks were evicted, comes back as
            the rows unrolled so far followed by the rest of the computation, and nothing is kept.

        Notes
        -----
        What ``compute`` or its iterator raises passes through; the next caller computes anew. Cached rows are shared by all who
        iterate them: rows that are changed in place stay changed.
        """
        key = BlockKey(app, rdd, partition)
        block = self._get_or_claim(key, check_killed)
        if block is not None:
            if metrics is not None:
                metrics.cache_hits += 1
            return iter(block.rows)
        if metrics is not None:
            metrics.cache_misses += 1
        try:
            return self._compute(key, compute, recorder, check_killed)
        finally:
            with self._changed:
                self._computing.pop(key, None)
                self._changed.notify_all()

    def holds(self, app: AppId, rdd: RddId, partition: PartitionIndex) -> bool:
        """Whether the partition is here now; asked while planning, no use of it, so it may be gone a moment later."""
        with self._changed:
            return BlockKey(app, rdd, partition) in self._blocks

    def _get_or_claim(self, key: BlockKey, check_killed: Callable[[], None] | None) -> _Block | None:
        while True:
            with self._changed:
                block = self._blocks.get(key)
                if block is not None:
                    self._blocks.move_to_end(key)
                    self._hit_count += 1
                    return block
                if key not in self._computing:
                    self._computing[key] = True
                    self._miss_count += 1
                    return None
                self._changed.wait(_KILL_CHECK_S)
            if check_killed is not None:
                check_killed()

    def _compute(
        self,
        key: BlockKey,
        compute: Callable[[], Iterable[Any]],
        recorder: Callable[[BlockInfo], None] | None,
        check_killed: Callable[[], None] | None,
    ) -> Iterator[Any]:
        iterator = iter(compute())
        rows: list[Any] = []
        grant = StorageGrant()
        next_rows = _FIRST_ROWS
        kept = False
        try:
            while batch := list(islice(iterator, next_rows)):
                rows += batch
                if check_killed is not None:
                    check_killed()
                needed = estimate_batch(rows)
                if self._memory is not None and needed > grant.size_bytes:
                    more, step = needed - grant.size_bytes, max(_STEP_BYTES, needed // 2)
                    if not self._memory.acquire_storage(more + step, grant) and not self._reserve(key, more, grant):
                        return chain(rows, iterator)
                next_rows = min(_MOST_ROWS, max(BATCH_SAMPLE, len(rows)))
            final = estimate_batch(rows)
            if final > grant.size_bytes and not self._reserve(key, final - grant.size_bytes, grant):
                return iter(rows)
            self._unreserve(grant.size_bytes - final, grant)
            block = _Block(rows, final)
            with self._changed:
                if self._computing[key]:
                    # No call from here to the block's own bytes: see StorageGrant.
                    self._blocks[key] = block
                    grant.size_bytes = 0
                    kept = True
        finally:
            self._unreserve(grant.size_bytes, grant)
        if kept and recorder is not None:
            recorder(BlockInfo(key.rdd, key.partition, final))
        return iter(rows)

    # -- memory

    def _reserve(self, key: BlockKey, size_bytes: int, grant: StorageGrant) -> bool:
        memory = self._memory
        if memory is None or memory.acquire_storage(size_bytes, grant):
            return True
        # Never at the cost of the same RDD: a dataset larger than the cache would push itself round and round.
        missing = size_bytes - memory.free_bytes()
        return self._evict(missing, spare=(key.app, key.rdd)) and memory.acquire_storage(size_bytes, grant)

    def _unreserve(self, size_bytes: int, grant: StorageGrant) -> None:
        if self._memory is not None and size_bytes > 0:
            self._memory.release_storage(size_bytes, grant)

    def _evict_for_tasks(self, size_bytes: int) -> int:
        before = self.statistics().memory_bytes
        self._evict(size_bytes, partial=True)
        return max(0, before - self.statistics().memory_bytes)

    def _evict(self, size_bytes: int, *, spare: tuple[AppId, RddId] | None = None, partial: bool = False) -> bool:
        """Give up least recently used blocks worth ``size_bytes``; nothing at all when that many are not there, unless ``partial``."""
        freed = StorageGrant()
        gone: list[BlockKey] = []
        try:
            with self._changed:
                chosen: list[BlockKey] = []
                found = 0
                for key, block in self._blocks.items():
                    if found >= size_bytes:
                        break
                    if (key.app, key.rdd) != spare:
                        chosen.append(key)
                        found += block.memory_bytes
                if found < size_bytes and not partial:
                    return False
                for key in chosen:
                    held = self._blocks[key].memory_bytes
                    del self._blocks[key]
                    freed.size_bytes += held
                    gone += (key,)
                    self._eviction_count += 1
        finally:
            self._unreserve(freed.size_bytes, freed)
            if gone and self._on_evicted is not None:
                by_app: dict[AppId, list[tuple[RddId, PartitionIndex]]] = {}
                for key in gone:
                    by_app.setdefault(key.app, []).append((key.rdd, key.partition))
                for app, blocks in by_app.items():
                    self._on_evicted(app, blocks)
        return True

    # -- dropping and looking

    def drop_rdd(self, app: AppId, rdd: RddId) -> list[PartitionIndex]:
        """Drop an RDD's blocks and keep none that is being computed; returns the partitions that were here. Idempotent."""
        return [key.partition for key in self._drop(lambda key: key.app == app and key.rdd == rdd)]

    def drop_application(self, app: AppId) -> None:
        """Drop all blocks of an application. Idempotent."""
        self._drop(lambda key: key.app == app)

    def _drop(self, chosen: Callable[[BlockKey], bool]) -> list[BlockKey]:
        with self._changed:
            dropped = {key: block for key, block in self._blocks.items() if chosen(key)}
            for key in dropped:
                del self._blocks[key]
            for key in filter(chosen, self._computing):
                self._computing[key] = False
        freed = StorageGrant(sum(block.memory_bytes for block in dropped.values()))
        self._unreserve(freed.size_bytes, freed)
        return list(dropped)

    def blocks(self) -> dict[AppId, list[BlockInfo]]:
        """All cached partitions now, by application."""
        found: dict[AppId, list[BlockInfo]] = {}
        with self._changed:
            for key, block in self._blocks.items():
                found.setdefault(key.app, []).append(BlockInfo(key.rdd, key.partition, block.memory_bytes))
        return found

    def statistics(self) -> MemoryStoreStatistics:
        """One consistent look."""
        with self._changed:
            held = sum(block.memory_bytes for block in self._blocks.values())
            return MemoryStoreStatistics(len(self._blocks), held, self._hit_count, self._miss_count, self._eviction_count)
