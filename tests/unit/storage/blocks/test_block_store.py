"""Cached partitions: each level keeps what it says where it says, memory is accounted for, and whoever asks gets the right rows."""

from __future__ import annotations

import threading
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flowkit.errors import InvalidArgument, RowsNotKept
from flowkit.model.storage_level import StorageLevel
from flowkit.model.task import BlockInfo
from flowkit.storage.blocks.block_files import BlockFiles, BlockVolumes
from flowkit.storage.blocks.block_store import BlockStore
from flowkit.storage.blocks.held_rows import Access
from flowkit.storage.memory.task_memory import ExecutorMemory, TaskMemory
from tests.unit.storage.blocks.mutations import change

LEVELS = [
    StorageLevel.MEMORY_ONLY,
    StorageLevel.MEMORY_ONLY_SER,
    StorageLevel.MEMORY_AND_DISK,
    StorageLevel.MEMORY_AND_DISK_SER,
    StorageLevel.DISK_ONLY,
    StorageLevel.OFF_HEAP,
    StorageLevel.MEMORY_ONLY_BY_REFERENCE,
    StorageLevel.MEMORY_AND_DISK_BY_REFERENCE,
]
IN_FILES = [level for level in LEVELS if level.use_disk]
APP = "app-1"


class Host:
    """A store with disks, and how often rows were computed."""

    def __init__(self, path, budget=64 << 20, shared_limit=1 << 30):
        self.memory = ExecutorMemory(budget)
        self.volumes = BlockVolumes(BlockFiles([path / "disk"]), lambda: BlockFiles([path / "shared"], limit_bytes=shared_limit))
        self.evicted, self.told = [], []
        self.computed = count()
        self.store = self.another_process()

    def another_process(self):
        return BlockStore(
            self.memory, volumes=lambda app: self.volumes, on_evicted=lambda app, blocks: self.evicted.extend(blocks)
        )

    def get(self, partition, rows, level, rdd=0, store=None):
        def compute():
            next(self.computed)
            return iter(rows)

        return list((store or self.store).get_or_compute(APP, rdd, partition, compute, level=level, recorder=self.told.append))

    @property
    def times(self):
        return next(self.computed)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.mark.parametrize("level", LEVELS, ids=repr)
def test_a_partition_is_computed_once_and_read_alike(host, level):
    rows = [(number, str(number)) for number in range(5_000)]
    assert [host.get(0, rows, level) for _ in range(3)] == [rows] * 3
    assert host.times == 1
    assert host.store.holds(APP, 0, 0, level)
    assert host.told[0] == BlockInfo(0, 0, host.told[0].memory_bytes, host.told[0].disk_bytes)
    assert (host.told[0].disk_bytes > 0) == (level in {StorageLevel.DISK_ONLY, StorageLevel.OFF_HEAP})
    assert host.memory.statistics().storage_bytes == host.store.statistics().memory_bytes


def test_bytes_take_less_than_objects(host):
    rows = [(number, number * 0.5) for number in range(50_000)]
    host.get(0, rows, StorageLevel.MEMORY_ONLY, rdd=0)
    objects = host.store.statistics().memory_bytes
    host.get(0, rows, StorageLevel.MEMORY_ONLY_SER, rdd=1)
    assert host.store.statistics().memory_bytes - objects < objects / 3


@pytest.mark.parametrize("level", [StorageLevel.MEMORY_AND_DISK, StorageLevel.MEMORY_AND_DISK_SER], ids=repr)
def test_what_memory_has_no_room_for_goes_to_disk(tmp_path, level):
    host = Host(tmp_path, budget=2 << 20)
    rows = [str(number) * 10 for number in range(200_000)]
    assert host.get(0, rows, level) == rows
    assert host.get(0, rows, level) == rows
    assert host.times == 1
    assert host.volumes.disk.find(0, 0).rows == len(rows)
    assert host.memory.statistics().storage_bytes == 0


@pytest.mark.parametrize("level", [StorageLevel.MEMORY_ONLY, StorageLevel.MEMORY_ONLY_SER], ids=repr)
def test_without_disk_it_is_computed_again(tmp_path, level):
    host = Host(tmp_path, budget=2 << 20)
    rows = [str(number) * 10 for number in range(200_000)]
    assert [host.get(0, rows, level) for _ in range(2)] == [rows] * 2
    assert host.times == 2
    assert host.memory.statistics().storage_bytes == 0


def test_a_task_that_needs_memory_sends_blocks_to_disk_and_loses_none(tmp_path):
    host = Host(tmp_path, budget=8 << 20)
    rows = {partition: [bytes(1_000) + bytes([partition])] * 1 + [partition] * 900 for partition in range(30)}
    big = {partition: [str(partition) * 200 for _ in range(1_000)] for partition in rows}
    for partition, content in big.items():
        host.get(partition, [f"{number}{row}" for number, row in enumerate(content)], StorageLevel.MEMORY_AND_DISK)
    held = host.store.statistics().memory_bytes
    assert held > 4 << 20
    task = TaskMemory(host.memory, 1)
    assert task.acquire(4 << 20) == 4 << 20
    assert host.store.statistics().memory_bytes < held
    assert host.store.statistics().moved_count > 0
    assert host.evicted == []
    before = host.times
    for partition, content in big.items():
        assert host.get(partition, [], StorageLevel.MEMORY_AND_DISK) == [f"{number}{row}" for number, row in enumerate(content)]
    assert host.times == before + 1  # nothing was computed in between
    task.release_all()


@pytest.mark.parametrize("level", IN_FILES, ids=repr)
def test_another_process_of_the_host_finds_what_is_in_files(tmp_path, level):
    host = Host(tmp_path, budget=1 << 20)
    rows = [str(number) * 10 for number in range(100_000)]
    host.get(0, rows, level)
    other = host.another_process()
    assert other.holds(APP, 0, 0, level)
    assert host.get(0, [], level, store=other) == rows
    assert host.times == 1
    assert host.told[-1].disk_bytes > 0


def test_shared_memory_that_is_full_hands_on_to_disk(tmp_path):
    host = Host(tmp_path, shared_limit=1)
    host.get(0, [1], StorageLevel.OFF_HEAP)
    host.get(1, [2], StorageLevel.OFF_HEAP)
    assert host.volumes.shared.find(0, 0)
    assert host.volumes.disk.find(0, 1)
    assert host.get(1, [], StorageLevel.OFF_HEAP) == [2]


def test_a_damaged_file_is_computed_again(host):
    rows = list(range(1_000))
    host.get(0, rows, StorageLevel.DISK_ONLY)
    path = host.volumes.disk.find(0, 0).path
    path.write_bytes(path.read_bytes()[:-30])
    assert host.get(0, rows, StorageLevel.DISK_ONLY) == rows
    assert host.times == 2


def test_where_no_disk_takes_it_rows_pass_through_uncached(tmp_path):
    (tmp_path / "disk").write_text("in the way")
    host = Host(tmp_path)
    rows = list(range(100_000))
    assert [host.get(0, rows, StorageLevel.DISK_ONLY) for _ in range(2)] == [rows] * 2
    assert host.times == 2
    assert not host.store.holds(APP, 0, 0, StorageLevel.DISK_ONLY)


def test_what_is_dropped_while_it_is_written_is_not_kept(host):
    def rows():
        yield from range(10)
        host.store.drop_rdd(APP, 0)
        yield from range(10, 20)

    for level in LEVELS:
        found = list(host.store.get_or_compute(APP, 0, 0, rows, level=level))
        assert found == list(range(20))
        assert not host.store.holds(APP, 0, 0, level)
    assert host.memory.statistics().storage_bytes == 0


@pytest.mark.parametrize("moment", ["find", "read"])
@pytest.mark.parametrize("level", [StorageLevel.DISK_ONLY, StorageLevel.OFF_HEAP], ids=repr)
def test_what_is_dropped_as_soon_as_it_is_written_is_computed_again(host, monkeypatch, level, moment):
    files = host.volumes.shared if level.use_off_heap else host.volumes.disk
    look = getattr(files, moment)

    def dropped(*file):
        files.drop(0, 0)
        return look(*file)

    monkeypatch.setattr(files, moment, dropped)
    assert host.get(0, list(range(20)), level) == list(range(20))
    assert host.told == []
    assert host.times == 2


@pytest.mark.parametrize("level", LEVELS, ids=repr)
def test_many_threads_compute_a_partition_once(host, level):
    rows = [str(number) for number in range(20_000)]
    barrier = threading.Barrier(8)
    found = []

    def ask():
        barrier.wait(10)
        found.append(host.get(0, rows, level) == rows)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [True] * 8
    assert host.times == 1


@pytest.mark.parametrize("level", LEVELS, ids=repr)
def test_what_fails_while_it_is_computed_leaves_nothing(host, level):
    def broken():
        yield from range(5_000)
        raise LookupError("no more")

    with pytest.raises(LookupError):
        list(host.store.get_or_compute(APP, 0, 0, broken, level=level))
    assert not host.store.holds(APP, 0, 0, level)
    assert host.memory.statistics().storage_bytes == 0
    assert host.volumes.disk.used_bytes() == host.volumes.shared.used_bytes() == 0


def test_a_level_that_makes_no_sense_is_refused():
    for arguments in (
        (True, False, False, True),
        (False, True, True, True),
        (True, False, True),
        (True, True, False, True, 0),
        (False, True, False, False, 1, True),
    ):
        with pytest.raises(InvalidArgument, match="storage level with"):
            StorageLevel(*arguments)


#: rows that are held as they are, in columns, and pickled
KINDS = (str, lambda text: (text, [text]), lambda text: {"text": text}, lambda text: [[text], {"more": [1]}])


@pytest.mark.parametrize("level", [level for level in LEVELS if not level.by_reference], ids=repr)
@pytest.mark.parametrize("make", KINDS[1:])
@pytest.mark.parametrize("budget", [64 << 20, 200_000], ids=["room for all", "room for some"])
def test_rows_are_each_readers_own_wherever_they_lie(tmp_path, level, make, budget):
    host = Host(tmp_path, budget=budget)
    for _ in range(3):
        found = host.get(0, [make(str(number)) for number in range(1_500)], level)
        assert found == [make(str(number)) for number in range(1_500)]
        for row in found:
            change(row)


def test_what_rows_leave_memory_for_disk_is_what_they_were(tmp_path):
    host = Host(tmp_path, budget=4 << 20)
    for rdd, make in enumerate(KINDS):
        rows = [make(str(number)) for number in range(6_000)]
        for row in host.get(0, rows, StorageLevel.MEMORY_AND_DISK, rdd=rdd) + rows * (rdd > 0):
            change(row)
    task = TaskMemory(host.memory, 1)
    task.acquire(4 << 20)
    assert host.store.statistics().moved_count > 0
    for rdd, make in enumerate(KINDS):
        assert host.get(0, [], StorageLevel.MEMORY_AND_DISK, rdd=rdd) == [make(str(number)) for number in range(6_000)]
    assert host.times == len(KINDS)
    task.release_all()


@pytest.mark.parametrize("level", [StorageLevel.MEMORY_ONLY, StorageLevel.MEMORY_AND_DISK], ids=repr)
def test_rows_that_cannot_be_held_pass_through_with_one_warning(host, level, caplog):
    def rows():
        return [*range(1_000), 1, threading.Lock(), 5]

    for partition in (0, 1, 0):
        found = list(host.store.get_or_compute(APP, 0, partition, rows, level=level))
        assert found[:1_001] == [*range(1_000), 1]
        assert type(found[1_001]) is type(threading.Lock())
        assert found[1_002:] == [5]
        assert not host.store.holds(APP, 0, partition, level)
    assert host.memory.statistics().storage_bytes == 0
    (warning,) = caplog.messages
    assert "partition 0 of RDD 0 is not kept in memory" in warning
    assert "MEMORY_ONLY_BY_REFERENCE" in warning
    with pytest.raises(RowsNotKept, match="lock"):
        host.store.get_or_compute(APP, 0, 0, rows, level=level, required=True)


def test_readers_that_show_no_row_to_anybody_get_what_is_held(host):
    rows = [(number, [number]) for number in range(100)]
    host.get(0, rows, StorageLevel.MEMORY_ONLY)

    def read(access):
        return list(host.store.get_or_compute(APP, 0, 0, lambda: (), access=access))

    assert all(one[1] is other[1] for one, other in zip(read(Access.AS_HELD), read(Access.AS_HELD), strict=True))
    assert not any(one[1] is other[1] for one, other in zip(read(Access.OWN), read(Access.AS_HELD), strict=True))


class Machine(RuleBasedStateMachine):
    """A store with little memory against a dict: rows are right, bytes are accounted for, no file is left for what was dropped."""

    @initialize()
    def begin(self):
        import tempfile
        from pathlib import Path

        self.directory = tempfile.TemporaryDirectory()
        self.host = Host(Path(self.directory.name), budget=3 << 20)
        self.contents = {}
        self.levels = {}
        self.tasks = {}
        self.attempts = count(1)

    @rule(rdd=st.integers(0, 3), partition=st.integers(0, 3), size=st.integers(0, 6_000), level=st.sampled_from(LEVELS))
    def get(self, rdd, partition, size, level):
        level = self.levels.setdefault(rdd, level)
        make = KINDS[rdd]
        rows = self.contents.setdefault((rdd, partition), [make(f"{rdd}-{partition}-{number}" * 3) for number in range(size)])
        assert self.host.get(partition, rows, level, rdd=rdd) == rows

    @rule(rdd=st.integers(0, 3))
    def drop(self, rdd):
        self.host.store.drop_rdd(APP, rdd)
        self.host.volumes.disk.drop_rdd(rdd)
        self.host.volumes.shared.drop_rdd(rdd)
        self.levels.pop(rdd, None)
        self.contents = {key: rows for key, rows in self.contents.items() if key[0] != rdd}
        for partition in range(4):
            for level in LEVELS:
                assert not self.host.store.holds(APP, rdd, partition, level)

    @rule(size=st.integers(1, 3 << 20))
    def begin_task(self, size):
        if len(self.tasks) < 3:
            task = TaskMemory(self.host.memory, next(self.attempts))
            task.acquire(size)
            self.tasks[task.attempt] = task

    @precondition(lambda self: self.tasks)
    @rule()
    def end_task(self):
        _, task = self.tasks.popitem()
        task.release_all()

    @rule()
    def restart(self):
        """The process is another: memory is empty, files are there."""
        self.host.store.drop_application(APP)
        self.host.store = self.host.another_process()

    @invariant()
    def bytes_are_accounted_for(self):
        if hasattr(self, "host"):
            now = self.host.memory.statistics()
            assert now.storage_bytes == self.host.store.statistics().memory_bytes
            assert now.execution_bytes == sum(task.used_bytes for task in self.tasks.values())
            assert now.storage_bytes + now.execution_bytes <= now.total_bytes
            self.host.memory._pool.check()

    def teardown(self):
        if hasattr(self, "host"):
            self.host.store.drop_application(APP)
            for task in self.tasks.values():
                task.release_all()
            assert self.host.memory.statistics()[1:] == (0, 0, 0)
            self.directory.cleanup()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


@given(st.sampled_from(LEVELS))
def test_levels_say_what_they_are(level):
    assert eval(repr(level)) == level
    assert eval(repr(StorageLevel(True, True, replication=2))) == StorageLevel(True, True, replication=2)
    assert str(level).endswith("1x Replicated")
