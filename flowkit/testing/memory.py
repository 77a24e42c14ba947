"""What every memory manager must hold to, for tests of your own: thousands of random steps, checked after each.

def test_my_memory_holds_to_the_rules():
check_memory_manager(MyMemory())
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from flowkit.abc import MemoryManager, MemoryPool
from flowkit.errors import InternalError
from flowkit.model.ids import AttemptId
from flowkit.model.memory import StorageGrant

_TOTAL = 1_000_000


def check_memory_manager(
    manager: MemoryManager, *, seed: int = 0, steps: int = 5_000, properties: Sequence[dict[str, str]] = ({},)
) -> None:
    """Run random steps against a pool of a manager.

    Parameters
    ----------
    seed
        Of the steps.
    steps
        How many.
    properties
        Those of jobs that tasks are opened with, one of them each.

    Raises
    ------
    AssertionError
        It does not hold to the rules of ``abc.MemoryPool``; the message says what broke and after which steps.

    Examples
    --------
    >>> from flowkit.storage.memory.unified import UnifiedMemory
    >>> check_memory_manager(UnifiedMemory(), steps=500)
    """
    _Walk(manager.pool(_TOTAL), random.Random(seed), properties).run(steps)


class _Walk:
    def __init__(self, pool: MemoryPool, chance: random.Random, properties: Sequence[dict[str, str]]) -> None:
        self.pool = pool
        self.chance = chance
        self.properties = properties
        self.held: dict[AttemptId, int] = {}
        self.blocks: list[StorageGrant] = []
        self.next_task = 0
        self.story: list[str] = []

    def run(self, steps: int) -> None:
        self.expect(self.pool.total_bytes <= _TOTAL, "a pool has more than it was made with")
        actions = [
            self.open,
            self.close,
            self.grant,
            self.grant,
            self.grant,
            self.release,
            self.store,
            self.store,
            self.drop,
            self.wrong,
        ]
        for _ in range(steps):
            self.chance.choice(actions)()
            self.check()
        for task in list(self.held):
            self.expect(self.pool.close_task(task) == self.held.pop(task), "what a task held comes back when it is closed")
        for grant in self.blocks:
            self.pool.release_storage(grant.size_bytes, grant)
        self.held, self.blocks = {}, []
        self.check()
        self.expect(self.pool.free_bytes == self.pool.total_bytes, "in the end everything is free")

    def expect(self, holds: bool, rule: str) -> None:
        if not holds:
            last = "\n".join(self.story[-20:])
            raise AssertionError(f"{self.pool!r} breaks the rule: {rule}. The last steps:\n{last}")

    def check(self) -> None:
        pool = self.pool
        self.expect(dict(pool.by_task) == self.held, "by_task is what was granted and not given back")
        self.expect(pool.execution_bytes == sum(self.held.values()), "execution_bytes is the sum over tasks")
        self.expect(pool.storage_bytes == sum(grant.size_bytes for grant in self.blocks), "storage_bytes is the sum over grants")
        self.expect(pool.free_bytes == pool.total_bytes - pool.execution_bytes - pool.storage_bytes, "free_bytes is the rest")
        self.expect(pool.free_bytes >= 0, "nothing is given twice")

    def size(self) -> int:
        return self.chance.choice([0, 1, 100, 10_000, 100_000, _TOTAL // 2, _TOTAL, 3 * _TOTAL])

    def task(self) -> AttemptId | None:
        return self.chance.choice(list(self.held)) if self.held else None

    # -- steps

    def open(self) -> None:
        if len(self.held) < 12:
            task = AttemptId(self.next_task)
            self.next_task += 1
            said = self.chance.choice(list(self.properties))
            self.story.append(f"open_task({task}, {said})")
            self.pool.open_task(task, said)
            self.held[task] = 0

    def close(self) -> None:
        task = self.task()
        if task is not None:
            self.story.append(f"close_task({task})")
            self.expect(self.pool.close_task(task) == self.held.pop(task), "closing a task returns what it held")
            self.expect(self.pool.close_task(task) == 0, "closing it again returns nothing")

    def grant(self) -> None:
        task = self.task()
        if task is None:
            return
        wanted = self.size()
        evictable = self.pool.eviction_for(task, wanted)
        self.expect(0 <= evictable <= self.pool.storage_bytes, "no more is evicted than there is")
        self.expect(evictable <= max(0, wanted), "no more is evicted than is wanted")
        granted = self.pool.grant(task, wanted)
        self.story.append(f"grant({task}, {wanted}) -> {granted}")
        self.expect(0 <= granted <= wanted, "a grant is from 0 to what is wanted")
        self.held[task] += granted
        if len(self.held) == 1 and not self.pool.storage_bytes and wanted and not evictable and self.held[task] == 0:
            self.expect(granted > 0, "a task that is alone gets something of an empty pool")

    def release(self) -> None:
        task = self.task()
        if task is not None and self.held[task]:
            size = self.chance.randint(0, self.held[task])
            self.story.append(f"release({task}, {size})")
            self.pool.release(task, size)
            self.held[task] -= size

    def store(self) -> None:
        size, grant = self.size(), StorageGrant()
        given = self.pool.grant_storage(size, grant)
        self.story.append(f"grant_storage({size}) -> {given}")
        self.expect(grant.size_bytes == (size if given else 0), "blocks get all they ask for, or nothing")
        if given:
            self.blocks.append(grant)

    def drop(self) -> None:
        if self.blocks:
            grant = self.blocks.pop(self.chance.randrange(len(self.blocks)))
            self.story.append(f"release_storage({grant.size_bytes})")
            self.pool.release_storage(grant.size_bytes, grant)
            self.expect(grant.size_bytes == 0, "what is released is subtracted from the grant")

    def wrong(self) -> None:
        """What nobody holds cannot be given back, and the attempt changes nothing."""
        task = self.task()
        self.story.append("give back what nobody holds")
        if task is not None:
            try:
                self.pool.release(task, self.held[task] + 1)
            except InternalError:
                pass
            else:
                self.expect(holds=False, rule="releasing more than a task holds is an InternalError")
        try:
            self.pool.release_storage(1, StorageGrant())
        except InternalError:
            pass
        else:
            self.expect(holds=False, rule="releasing more than a grant holds is an InternalError")
