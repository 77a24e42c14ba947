"""Lineage that is cached, dropped, checkpointed and lost, against plain lists: whatever happened before, an action gives the rows.

Real planner, scheduler core and executor, in the calling thread. What is lost is lost behind the core's back (files that are gone, blocks
that are given up), or with an executor. The core checks its invariants after each step.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import Counter, defaultdict
from operator import add
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import note
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flowkit import StorageLevel
from flowkit.errors import CheckpointLost
from flowkit.scheduling import stimuli as sti
from flowkit.testing.inline import _EXECUTOR, InlineLink, inline_context

places = st.integers(0, 8)
operations = st.sampled_from(["map", "map", "filter", "reduce", "reduce", "reduce", "sort", "union", "join"])
#: By name: hypothesis prints a dataclass with all its class variables, and each level has all levels.
levels = st.sampled_from(["MEMORY_ONLY", "MEMORY_ONLY_SER", "MEMORY_AND_DISK", "DISK_ONLY"])


class Known:
    """An RDD of pairs, and the rows it must have."""

    def __init__(self, rdd: Any, rows: list[tuple[int, int]], parents: tuple[Known, ...] = ()) -> None:
        self.rdd = rdd
        self.rows = Counter(rows)
        self.parents = parents
        #: partitions may be gone for good: they are nowhere but in the cache, and something of that was lost
        self.lost = False

    def may_be_lost(self) -> bool:
        return self.lost or any(each.may_be_lost() for each in self.parents)


def summed(rows: Counter[tuple[int, int]]) -> list[tuple[int, int]]:
    sums: defaultdict[int, int] = defaultdict(int)
    for key, value in rows.elements():
        sums[key] += value
    return list(sums.items())


class LineageMachine(RuleBasedStateMachine):
    """Everything that changes how an RDD is computed, and nothing that changes its rows."""

    @initialize(validate=st.booleans(), steps=st.lists(st.tuples(places, places, operations), min_size=3, max_size=5))
    def start(self, validate: bool, steps: list[tuple[int, int, str]]) -> None:
        self.fc = inline_context(validate=validate)
        self.link: InlineLink = self.fc._link  # type: ignore[assignment]
        self.directory = Path(tempfile.mkdtemp(prefix="flowkit-lineage-"))
        self.known: list[Known] = []
        self.checkpoints = 0
        self.source(12, 3)
        for step in steps:
            self._derive(*step)

    def teardown(self) -> None:
        try:
            for each in self.known:
                self.check(each, "collect")
        finally:
            self.fc.close()
            shutil.rmtree(self.directory)

    def chosen(self, place: int) -> Known:
        """Counted from the newest one: what is made of all others is what feels their changes."""
        return self.known[-1 - place % len(self.known)]

    # -- lineage

    def source(self, count: int, partitions: int) -> None:
        pairs = self.fc.range(count, num_partitions=partitions).map(lambda i: (i % 5, i))
        self.known.append(Known(pairs, [(i % 5, i) for i in range(count)]))

    @precondition(lambda self: len(self.known) < 9)
    @rule(place=places, other=places, what=operations)
    def derive(self, place: int, other: int, what: str) -> None:
        self._derive(place, other, what)

    def _derive(self, place: int, other: int, what: str) -> None:
        parent, beside = self.chosen(place), self.chosen(other)
        rows = list(parent.rows.elements())
        match what:
            case "map":
                made = Known(parent.rdd.map(lambda pair: (pair[0], pair[1] + 1)), [(k, v + 1) for k, v in rows], (parent,))
            case "filter":
                made = Known(parent.rdd.filter(lambda pair: pair[1] % 3), [(k, v) for k, v in rows if v % 3], (parent,))
            case "reduce":
                made = Known(parent.rdd.reduce_by_key(add, 2), summed(parent.rows), (parent,))
            case "sort":
                made = Known(parent.rdd.sort_by(lambda pair: -pair[1], num_partitions=2), rows, (parent,))
            case "union":
                made = Known(parent.rdd.union(beside.rdd), [*rows, *beside.rows.elements()], (parent, beside))
            case _:
                joined = parent.rdd.reduce_by_key(add, 2).join(beside.rdd.reduce_by_key(add, 3))
                left, right = dict(summed(parent.rows)), dict(summed(beside.rows))
                made = Known(
                    joined.map_values(sum),
                    [(key, left[key] + right[key]) for key in left.keys() & right.keys()],
                    (parent, beside),
                )
        self.known.append(made)

    # -- what changes how it is computed

    @rule(place=places, level=levels)
    def persist(self, place: int, level: str) -> None:
        rdd = self.chosen(place).rdd
        if not rdd.is_cached:
            rdd.persist(getattr(StorageLevel, level))

    @rule(place=places)
    def unpersist(self, place: int) -> None:
        known = self.chosen(place)
        known.rdd.unpersist()
        known.lost |= known.rdd.is_locally_checkpointed

    @rule(place=places, level=levels)
    def persist_otherwise(self, place: int, level: str) -> None:
        self.unpersist(place)
        self.persist(place, level)

    @rule(place=places, eager=st.booleans())
    def checkpoint(self, place: int, eager: bool) -> None:
        known = self.chosen(place)
        if not known.rdd.is_checkpointed and known.rdd._node.pending is None and not known.may_be_lost():
            self.checkpoints += 1
            known.rdd.checkpoint(self.directory / str(self.checkpoints), eager=eager)

    @rule(place=places)
    def local_checkpoint(self, place: int) -> None:
        known = self.chosen(place)
        if known.rdd.storage_level in {StorageLevel.NONE, StorageLevel.MEMORY_AND_DISK} and not known.rdd.is_checkpointed:
            known.rdd.local_checkpoint()

    # -- actions

    @rule(place=places, action=st.sampled_from(["collect", "collect", "count", "take", "max"]))
    def act(self, place: int, action: str) -> None:
        self.check(self.chosen(place), action)

    def check(self, known: Known, action: str) -> None:
        rows = known.rows
        try:
            match action:
                case "collect":
                    assert Counter(known.rdd.collect()) == rows
                case "count":
                    assert known.rdd.count() == rows.total()
                case "take":
                    assert Counter(known.rdd.take(3)) <= rows
                case _:
                    if rows:
                        assert known.rdd.max() == max(rows)
        except CheckpointLost as error:
            note(f"{known.rdd}: {error}")
            # What is pending on an RDD computes it too.
            assert known.may_be_lost() or any(each.may_be_lost() for each in self.known), error

    # -- losses

    def files(self, pattern: str) -> list[Path]:
        deleted = threading.Event()
        self.link._executor._delete(deleted.set)  # behind what is being deleted
        assert deleted.wait(10)
        return sorted((self.link._host.base / self.link.app).glob(pattern))

    @rule(place=places)
    def lose_a_map_output(self, place: int) -> None:
        if outputs := self.files("shuffle-*/map-*"):
            outputs[place % len(outputs)].unlink()

    @rule()
    def lose_all_map_outputs(self) -> None:
        for each in self.files("shuffle-*/map-*"):
            each.unlink()

    @rule()
    def lose_cached_blocks(self) -> None:
        self.link._executor._cache._evict(1 << 40, partial=True)
        for each in self.files("blocks/rdd-*"):
            each.unlink(missing_ok=True)
        self._local_checkpoints_are_lost()

    @rule(with_its_files=st.booleans())
    def lose_the_executor(self, with_its_files: bool) -> None:
        if with_its_files:
            self.lose_all_map_outputs()
            self.lose_cached_blocks()
        self.link._say(sti.ExecutorLost(_EXECUTOR, "lost", task_caused=False))
        self.link._say(sti.ExecutorReady(_EXECUTOR, self.link._host.token, 2))

    def _local_checkpoints_are_lost(self) -> None:
        for each in self.known:
            each.lost |= each.rdd.is_locally_checkpointed

    # -- besides the rows

    @invariant()
    def levels_are_heeded(self) -> None:
        if not hasattr(self, "link"):
            return
        level_of = {each.rdd.id: each.rdd.storage_level for each in self.known}
        for blocks in self.link._executor._cache.blocks().values():
            for block in blocks:
                level = level_of.get(block.rdd)
                assert level is None or level.use_memory, f"{block} lies in memory, and is to be kept as {level}"


TestLineage = LineageMachine.TestCase
