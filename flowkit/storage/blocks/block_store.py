"""Cached partitions of one executor: computed once, kept as their storage level says, given up in the order of their last use.

Runs in executors; thread-safe. No lock is held while rows are computed or written, while blocks are reported, or while memory is asked
for. Memory belongs to this process; files (``block_files``) to all executors of the host.

::

    level                 held as                       when memory is short
    MEMORY_ONLY           objects (``held_rows``)       given up, least recently used first
    MEMORY_ONLY_SER       encoded batches               given up
    MEMORY_AND_DISK[_SER] objects / encoded batches     written to a file, then given up in memory
    DISK_ONLY             a file                        -
    OFF_HEAP              a file in shared memory       the next goes to disk
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count, islice
from typing import Any, NamedTuple

from flowkit.errors import DataDamaged, InternalError, RowsNotKept
from flowkit.logs import logger_of
from flowkit.model.ids import AppId, PartitionIndex, RddId
from flowkit.model.memory import StorageGrant
from flowkit.model.metrics import TaskMetrics
from flowkit.model.storage_level import StorageLevel
from flowkit.model.task import BlockInfo
from flowkit.storage.blocks.block_files import BlockFile, BlockFiles, BlockVolumes, Unwritten
from flowkit.storage.blocks.block_pieces import FIRST_ROWS, PIECE_BYTES, BlockPiece, block_piece
from flowkit.storage.blocks.held_rows import Access, Held, RowsNotPicklable, batched, held_as
from flowkit.storage.memory.task_memory import ExecutorMemory

logger = logger_of(__name__)

#: how often a thread that waits for another's computation looks whether its own task was killed
_KILL_CHECK_S = 0.2
#: memory is asked for in steps of at least this, and of half of what is there already
_STEP_BYTES = 1 << 20


class BlockKey(NamedTuple):
    """A cached partition's name on this executor."""

    app: AppId
    rdd: RddId
    partition: PartitionIndex


@dataclass(slots=True, eq=False)
class _Block:
    """A partition in memory."""

    held: Held
    level: StorageLevel
    memory_bytes: int
    #: tells it from an earlier block of the same name
    serial: int = 0
    #: on its way to disk: others leave it alone
    moving: bool = False

    def info(self, key: BlockKey) -> BlockInfo:
        return BlockInfo(key.rdd, key.partition, self.memory_bytes)


class _Gone(Exception):
    """A file was dropped after it was written and before it could be read: its rows are used up, and lie nowhere."""


@dataclass(slots=True)
class _Unrolled:
    """Rows taken into memory: all of them if ``kept``; ``stored`` where others find them too."""

    block: _Block
    kept: bool = False
    stored: bool = False
    #: why they are not held, and the rows of which it is so
    refused: RowsNotPicklable | None = None
    refused_rows: list[Any] = field(default_factory=list)

    def drained(self) -> Iterator[list[Any]]:
        """The rows as batches, each let go of as it is taken."""
        return chain(self.block.held.drained(), (self.refused_rows,) if self.refused_rows else ())


@dataclass(frozen=True, slots=True)
class _Visit:
    """What one call of ``get_or_compute`` wants."""

    key: BlockKey
    level: StorageLevel
    compute: Callable[[], Iterable[Any]]
    recorder: Callable[[BlockInfo], None] | None
    check_killed: Callable[[], None] | None
    #: whether other RDDs' blocks may be driven out for it
    evict: bool = True
    access: Access = Access.OWN
    required: bool = False


class BlockStoreStatistics(NamedTuple):
    """One look at the store. ``moved_count``: given up in memory, kept on disk."""

    block_count: int
    memory_bytes: int
    hit_count: int
    miss_count: int
    eviction_count: int
    moved_count: int


class BlockStore:
    """Cached partitions.

    Parameters
    ----------
    memory
        The executor's budget; None: no limit.
    volumes
        Where an application's files go; None: there is no disk.
    on_evicted
        Called with an application and its ``(rdd, partition)`` that were given up for want of memory (not when dropped on
        request), on the thread that needed the memory; must not block.
    on_moved
        Likewise, of those that lie in a file now.
    """

    def __init__(
        self,
        memory: ExecutorMemory | None = None,
        *,
        volumes: Callable[[AppId], BlockVolumes] | None = None,
        on_evicted: Callable[[AppId, list[tuple[RddId, PartitionIndex]]], None] | None = None,
        on_moved: Callable[[AppId, list[BlockInfo]], None] | None = None,
    ) -> None:
        self._memory = memory
        self._volumes = volumes
        self._on_evicted = on_evicted
        self._on_moved = on_moved
        self._serials = count(1)
        self._changed = threading.Condition()
        #: least recently used first
        self._blocks: OrderedDict[BlockKey, _Block] = OrderedDict()
        #: being computed by some thread; False: dropped meanwhile, so not to be kept
        self._computing: dict[BlockKey, bool] = {}
        #: RDDs whose rows could not be held
        self._refused: set[tuple[AppId, RddId]] = set()
        self._hit_count = self._miss_count = self._eviction_count = self._moved_count = 0
        if memory is not None:
            memory.evict_with(self._evict_for_tasks)

    def __repr__(self) -> str:
        now = self.statistics()
        return f"<BlockStore {now.block_count} blocks, {now.memory_bytes} bytes>"

    def get_or_compute(
        self,
        app: AppId,
        rdd: RddId,
        partition: PartitionIndex,
        compute: Callable[[], Iterable[Any]],
        *,
        level: StorageLevel = StorageLevel.MEMORY_ONLY,
        recorder: Callable[[BlockInfo], None] | None = None,
        fetch: Callable[[], Iterator[Any] | None] | None = None,
        metrics: TaskMetrics | None = None,
        check_killed: Callable[[], None] | None = None,
        access: Access = Access.OWN,
        required: bool = False,
    ) -> Iterator[Any]:
        """Iterate a partition: from the cache, from another executor's, or computed and, if there is room, kept.

        Parameters
        ----------
        compute
            Makes the rows anew each time it is called; called on this thread, while others that want the same block wait. Once as a rule,
            and a second time when their file is dropped as soon as it is written (an unpersist is heard late).
        level
            How it is to be kept.
        recorder
            Told of the block if this call put it into the cache, or found it in a file.
        fetch
            Gets the rows from an executor that holds them, or None when it cannot; asked before ``compute``. They are not kept here too.
        metrics
            Its ``cache_hits`` and ``cache_misses`` are counted.
        check_killed
            Raises once the task is to stop; called while waiting and between batches.
        access
            What the caller does with the rows. Those that were not in memory before may come as its own although it asks for less.
        required
            Whether rows that cannot be held are an error; else they are passed on, and computed again by whoever needs them next.

        Returns
        -------
        Iterator
            A new one for each caller. A partition that finds no room, even after other RDDs' blocks were evicted, comes back as
            the rows unrolled so far followed by the rest of the computation, and nothing is kept.

        Raises
        ------
        RowsNotKept
            Rows held as objects can be changed, and can be neither copied nor pickled; only if ``required``.

        Notes
        -----
        What ``compute`` or its iterator raises passes through; the next caller computes anew. Each caller has rows of its own: what
        can be changed in them is a copy, unless the level says ``by_reference``. A file that is damaged is as good as none.
        """
        key = BlockKey(app, rdd, partition)
        block = self._get_or_claim(key, check_killed)
        if block is not None:
            if metrics is not None:
                metrics.cache_hits += 1
            return block.held.rows(access)
        visit = _Visit(key, level, compute, recorder, check_killed, access=access, required=required)
        try:
            found = self._from_file(visit)
            if found is None and fetch is not None:
                found = fetch()
            if metrics is not None:
                metrics.cache_hits += found is not None
                metrics.cache_misses += found is None
            return self._compute(visit) if found is None else found
        finally:
            self._claim_is_over(key)

    def keep_copy(
        self, app: AppId, rdd: RddId, partition: PartitionIndex, rows: Iterable[Any], *, level: StorageLevel
    ) -> BlockInfo | None:
        """Keep what another executor holds, as ``level`` says, in room that is free; returns what is kept, None for nothing.

        What is here already is enough. What iterating ``rows`` raises passes through, and nothing is kept.
        """
        key = BlockKey(app, rdd, partition)
        block = self._get_or_claim(key, None)
        if block is not None:
            return block.info(key)
        kept: list[BlockInfo] = []
        visit = _Visit(key, level, lambda: rows, kept.append, None, evict=False)
        try:
            if self._from_file(visit) is None:
                self._compute(visit)
        finally:
            self._claim_is_over(key)
        return kept[-1] if kept else None

    def read_piece(
        self, app: AppId, rdd: RddId, partition: PartitionIndex, *, serial: int = 0, position: int = 0
    ) -> BlockPiece | None:
        """Encoded batches of a partition, about four megabytes; None when it is not here, or not what ``serial`` says.

        Parameters
        ----------
        serial, position
            Of the piece before; 0 for the first.
        """
        key = BlockKey(app, rdd, partition)
        with self._changed:
            block = self._blocks.get(key)
        if block is not None:
            if serial not in (0, block.serial):
                return None
            return block_piece(block.held.encoded_at, len(block.held), block.serial, position)
        if self._volumes is None:
            return None
        for files in self._files(app).made():
            found = files.find(rdd, partition)
            if found is not None and serial in (0, found.serial):
                try:
                    batches, following = files.read_encoded(found, position, PIECE_BYTES)
                except (OSError, ValueError):  # dropped, or damaged, since
                    continue
                return BlockPiece(found.serial, batches, following)
        return None

    def _claim_is_over(self, key: BlockKey) -> None:
        with self._changed:
            self._computing.pop(key, None)
            self._changed.notify_all()

    def holds(self, app: AppId, rdd: RddId, partition: PartitionIndex, level: StorageLevel | None = None) -> bool:
        """Whether the partition is here now; asked while planning, no use of it, so it may be gone a moment later."""
        if BlockKey(app, rdd, partition) in self._blocks:
            return True
        if level is None or not (level.use_disk or level.use_off_heap) or self._volumes is None:
            return False
        return self._find_file(BlockKey(app, rdd, partition), level) is not None

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

    def _compute(self, visit: _Visit) -> Iterator[Any]:
        level = visit.level
        rows = iter(visit.compute())
        try:
            if level.use_off_heap or not level.use_memory:
                return self._to_file(visit, batched(rows, visit.check_killed))
            unrolled = self._unroll(visit, rows, evict=visit.evict)
            if unrolled.kept:
                return unrolled.block.held.rows(visit.access)
            if unrolled.refused is not None:
                self._refuse(visit, unrolled.refused)
            elif level.use_disk and self._volumes is not None:
                return self._to_file(visit, chain(unrolled.drained(), batched(rows, visit.check_killed)))
            return chain(chain.from_iterable(unrolled.drained()), rows)
        except _Gone:
            return iter(visit.compute())

    def _unroll(self, visit: _Visit, rows: Iterator[Any], *, evict: bool) -> _Unrolled:
        """Take rows into memory as long as there is room; kept as a block when all of them found it."""
        key, level = visit.key, visit.level
        block = _Block(held_as(level), level, 0, next(self._serials))
        unrolled = _Unrolled(block)
        held, grant = block.held, StorageGrant()
        next_rows = FIRST_ROWS
        try:
            while batch := list(islice(rows, next_rows)):
                try:
                    held.add(batch)
                except RowsNotPicklable as refused:
                    unrolled.refused, unrolled.refused_rows = refused, batch
                    return unrolled
                needed, next_rows = held.size_bytes(), held.next_count(batch)
                if visit.check_killed is not None:
                    visit.check_killed()
                if self._memory is not None and needed > grant.size_bytes:
                    more, step = needed - grant.size_bytes, max(_STEP_BYTES, needed // 2)
                    if not self._memory.acquire_storage(more + step, grant) and not self._reserve(key, more, grant, evict=evict):
                        return unrolled
            final = held.size_bytes()
            if final > grant.size_bytes and not self._reserve(key, final - grant.size_bytes, grant, evict=evict):
                return unrolled
            self._unreserve(grant.size_bytes - final, grant)
            block.memory_bytes = final
            unrolled.kept = True
            with self._changed:
                if self._computing[key]:
                    # No call from here to the block's own bytes: see StorageGrant.
                    self._blocks[key] = block
                    grant.size_bytes = 0
                    unrolled.stored = True
        finally:
            self._unreserve(grant.size_bytes, grant)
        if unrolled.stored and visit.recorder is not None:
            visit.recorder(block.info(key))
        return unrolled

    def _refuse(self, visit: _Visit, refused: RowsNotPicklable) -> None:
        """Raise, or say once for each RDD, that rows cannot be held."""
        key = visit.key
        said = (
            f"partition {key.partition} of RDD {key.rdd} is not kept in memory, since its rows could be changed by whoever reads them, and "
            f"they cannot be pickled: {refused}. StorageLevel.MEMORY_ONLY_BY_REFERENCE keeps them as they are"
        )
        if visit.required:
            raise RowsNotKept(said, rdd=key.rdd, partition=key.partition) from refused.__cause__
        with self._changed:
            known = (key.app, key.rdd) in self._refused
            self._refused.add((key.app, key.rdd))
        if not known:
            logger.warning("%s; it is computed again whenever it is needed", said)

    # -- files

    def _files(self, app: AppId) -> BlockVolumes:
        if self._volumes is None:
            raise InternalError("a storage level that uses files, where there are none")
        return self._volumes(app)

    def _find_file(self, key: BlockKey, level: StorageLevel) -> tuple[BlockFiles, BlockFile] | None:
        for files in self._files(key.app).wanted(level):
            found = files.find(key.rdd, key.partition)
            if found is not None:
                return files, found
        return None

    def _from_file(self, visit: _Visit) -> Iterator[Any] | None:
        """Rows that lie in a file, and back in memory if there is room that nobody has to be driven from."""
        key, level = visit.key, visit.level
        if not (level.use_disk or level.use_off_heap) or self._volumes is None:
            return None
        found = self._find_file(key, level)
        if found is None:
            return None
        files, file = found
        try:
            batches = files.read(file)
        except FileNotFoundError:  # dropped since
            return None
        self._note_file(visit, file)
        rows = chain.from_iterable(batches)
        if (
            not level.use_memory
            or level.use_off_heap
            or (self._memory is not None and self._memory.free_bytes() < file.size_bytes)
        ):
            return rows
        try:
            unrolled = self._unroll(visit, rows, evict=False)
        except DataDamaged as error:  # nobody has seen a row of it yet
            logger.warning("a cached partition is computed again: %s", error)
            return None
        if unrolled.kept:
            return unrolled.block.held.rows(visit.access)
        return chain(chain.from_iterable(unrolled.drained()), rows)

    def _to_file(self, visit: _Visit, batches: Iterator[list[Any]]) -> Iterator[Any]:
        """Write rows and read them back; those that no directory takes pass through."""
        key = visit.key
        for files in self._files(key.app).wanted(visit.level):
            match files.write(key.rdd, key.partition, batches):
                case Unwritten(batches):
                    continue
                case None:
                    raise _Gone
                case file:
                    try:
                        written = files.read(file)
                    except FileNotFoundError:
                        raise _Gone from None
                    self._note_file(visit, file)
                    return chain.from_iterable(written)
        return chain.from_iterable(batches)

    def _note_file(self, visit: _Visit, file: BlockFile) -> None:
        key = visit.key
        with self._changed:
            wanted = self._computing.get(key, True)
        if not wanted:  # dropped while it was written
            self._drop_file(key)
        elif visit.recorder is not None:
            visit.recorder(BlockInfo(key.rdd, key.partition, 0, file.size_bytes))

    def _drop_file(self, key: BlockKey) -> None:
        for files in self._files(key.app).made():
            files.drop(key.rdd, key.partition)

    # -- memory

    def _reserve(self, key: BlockKey, size_bytes: int, grant: StorageGrant, *, evict: bool) -> bool:
        memory = self._memory
        if memory is None or memory.acquire_storage(size_bytes, grant):
            return True
        # Never at the cost of the same RDD: a dataset larger than the cache would push itself round and round.
        missing = size_bytes - memory.free_bytes()
        return evict and self._evict(missing, spare=(key.app, key.rdd)) and memory.acquire_storage(size_bytes, grant)

    def _unreserve(self, size_bytes: int, grant: StorageGrant) -> None:
        if self._memory is not None and size_bytes > 0:
            self._memory.release_storage(size_bytes, grant)

    def _evict_for_tasks(self, size_bytes: int) -> int:
        before = self.statistics().memory_bytes
        self._evict(size_bytes, partial=True)
        return max(0, before - self.statistics().memory_bytes)

    def _evict(self, size_bytes: int, *, spare: tuple[AppId, RddId] | None = None, partial: bool = False) -> bool:
        """Free memory of least recently used blocks worth ``size_bytes``; none at all when that is not there, unless ``partial``."""
        with self._changed:
            chosen: dict[BlockKey, _Block] = {}
            found = 0
            for key, block in self._blocks.items():
                if found >= size_bytes:
                    break
                if (key.app, key.rdd) != spare and not block.moving:
                    chosen[key] = block
                    found += block.memory_bytes
            if found < size_bytes and not partial:
                return False
            for block in chosen.values():
                block.moving = True
        filed: dict[BlockKey, int] = {}
        try:
            for key, block in chosen.items():
                if block.level.use_disk and self._volumes is not None:
                    written = self._move(key, block)
                    if written is not None:
                        filed[key] = written.size_bytes
        finally:
            self._let_go(chosen, filed)
        return True

    def _move(self, key: BlockKey, block: _Block) -> BlockFile | None:
        """Write a block that memory has no room for to disk; its file if it is there now."""
        files = self._files(key.app).disk
        written = files.find(key.rdd, key.partition) or files.write(key.rdd, key.partition, block.held.batches())
        if written is None or isinstance(written, Unwritten):
            return None
        with self._changed:
            wanted = self._blocks.get(key) is block
        if not wanted:  # dropped while it was written
            self._drop_file(key)
            return None
        return written

    def _let_go(self, chosen: dict[BlockKey, _Block], filed: dict[BlockKey, int]) -> None:
        freed = StorageGrant()
        gone: list[BlockKey] = []
        moved: dict[AppId, list[BlockInfo]] = {}
        try:
            with self._changed:
                for key, block in chosen.items():
                    if self._blocks.get(key) is not block:
                        continue  # dropped meanwhile, and its memory with it
                    held = block.memory_bytes
                    del self._blocks[key]
                    freed.size_bytes += held
                    if key in filed:
                        self._moved_count += 1
                        moved.setdefault(key.app, []).append(BlockInfo(key.rdd, key.partition, 0, filed[key]))
                    else:
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
            if self._on_moved is not None:
                for app, files in moved.items():
                    self._on_moved(app, files)

    # -- dropping and looking

    def drop_rdd(self, app: AppId, rdd: RddId) -> list[PartitionIndex]:
        """Drop an RDD's blocks in memory and keep none that is being computed; returns the partitions that were here. Idempotent.

        Its files are the host's: who looks after those removes them.
        """
        return [key.partition for key in self._drop(lambda key: key.app == app and key.rdd == rdd)]

    def drop_application(self, app: AppId) -> None:
        """Drop all blocks of an application. Idempotent."""
        with self._changed:
            self._refused = {each for each in self._refused if each[0] != app}
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
                found.setdefault(key.app, []).append(block.info(key))
        return found

    def statistics(self) -> BlockStoreStatistics:
        """One consistent look."""
        with self._changed:
            held = sum(block.memory_bytes for block in self._blocks.values())
            return BlockStoreStatistics(
                len(self._blocks), held, self._hit_count, self._miss_count, self._eviction_count, self._moved_count
            )
