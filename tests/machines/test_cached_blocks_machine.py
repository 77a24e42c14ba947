"""Who holds which cached partition, against a plain dict; and what lacks copies is never forgotten."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flowkit.model.storage_level import StorageLevel
from flowkit.model.task import BlockInfo
from flowkit.scheduling.blocks import CachedBlocks, is_in_file

rdds = st.integers(0, 2)
partitions = st.integers(0, 3)
executors = st.sampled_from(["a", "b", "c", "d"])


class CachedBlocksMachine(RuleBasedStateMachine):
    """All that is told of cached partitions, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = CachedBlocks()
        #: by RDD, partition and executor, whether it lies in a file alone
        self.model: dict[tuple[int, int, str], bool] = {}
        self.replication: dict[int, int] = {}
        self.copying: set[tuple[int, int, str]] = set()
        #: changed since somebody looked, and to be held more than once
        self.changed: set[tuple[int, int]] = set()

    def _note(self, rdd: int, partition: int) -> None:
        if self.replication.get(rdd, 1) > 1:
            self.changed.add((rdd, partition))

    @rule(rdd=rdds, replication=st.integers(1, 3))
    def keep(self, rdd: int, replication: int) -> None:
        if self.replication.get(rdd) != replication:
            self.changed |= {(rdd, partition) for held, partition, _ in self.model if held == rdd}
        self.replication[rdd] = replication
        self.blocks.keep(rdd, replace(StorageLevel.MEMORY_ONLY, replication=replication))

    @rule(rdd=rdds, partition=partitions, executor=executors, in_file=st.booleans())
    def add(self, rdd: int, partition: int, executor: str, in_file: bool) -> None:
        self.model[rdd, partition, executor] = in_file
        self._note(rdd, partition)
        self.blocks.add(executor, BlockInfo(rdd, partition, 0 if in_file else 10, 10 if in_file else 0))

    @rule(rdd=rdds, partition=partitions, executor=executors)
    def remove(self, rdd: int, partition: int, executor: str) -> None:
        if self.model.pop((rdd, partition, executor), None) is not None:
            self._note(rdd, partition)
        self.blocks.remove(executor, rdd, partition)

    @rule(executor=executors, heir=st.none() | executors)
    def lose(self, executor: str, heir: str | None) -> None:
        heir = None if heir == executor else heir
        expected = set()
        for rdd, partition, holder in list(self.model):
            if holder == executor:
                in_file = self.model.pop((rdd, partition, holder))
                self._note(rdd, partition)
                if in_file and heir is not None:
                    self.model.setdefault((rdd, partition, heir), True)
                else:
                    expected.add((rdd, partition))
        self.copying = {each for each in self.copying if each[2] != executor}
        assert set(self.blocks.forget_executor(executor, heir)) == expected

    @rule(rdd=rdds)
    def drop(self, rdd: int) -> None:
        self.model = {key: value for key, value in self.model.items() if key[0] != rdd}
        self.copying = {each for each in self.copying if each[0] != rdd}
        self.changed = {each for each in self.changed if each[0] != rdd}
        self.replication.pop(rdd, None)
        self.blocks.drop_rdd(rdd)

    @rule(rdd=rdds, partition=partitions, executor=executors)
    def begin_copy(self, rdd: int, partition: int, executor: str) -> None:
        if (rdd, partition, executor) not in self.copying:
            self.copying.add((rdd, partition, executor))
            self.blocks.start_copying((rdd, partition), executor)

    @rule(rdd=rdds, partition=partitions, executor=executors)
    def end_copy(self, rdd: int, partition: int, executor: str) -> None:
        if (rdd, partition, executor) in self.copying:
            self.copying.discard((rdd, partition, executor))
            self.changed.add((rdd, partition))
        self.blocks.stop_copying((rdd, partition), executor)

    @rule()
    def look(self) -> None:
        self.changed.clear()
        self.blocks.lacking.clear()

    @invariant()
    def it_is_the_plain_dict(self) -> None:
        held = {
            (rdd, partition, executor): is_in_file(info)
            for rdd, partition in self.blocks
            for executor, info in self.blocks.holders(rdd, partition).items()
        }
        assert held == self.model
        for rdd in range(3):
            known = {partition for each, partition, _ in self.model if each == rdd}
            assert set(self.blocks.partitions(rdd)) == known
            assert (rdd in self.blocks) == bool(known)
            assert self.blocks.is_complete(rdd, 4) == (len(known) == 4)
        self.blocks.check()

    @invariant()
    def copies_under_way_are_known(self) -> None:
        assert {(*block, maker) for block, makers in self.blocks.copying.items() for maker in makers} == self.copying
        for executor in "abcd":
            assert self.blocks.asked[executor] == sum(each[2] == executor for each in self.copying)

    @invariant()
    def what_changed_will_be_looked_at(self) -> None:
        held = {(rdd, partition) for rdd, partition, _ in self.model}
        assert self.changed & held <= self.blocks.lacking.keys()


TestCachedBlocks = CachedBlocksMachine.TestCase
