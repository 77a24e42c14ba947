"""No space left where flowkit keeps its files: the error names the place, the next job works, nothing is left."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flowkit as fk
from flowkit.errors import DiskFull
from flowkit.model import events as ev
from tests.chaos.conftest import Story

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root"),
]

DISK_BYTES = 16 << 20


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Make a small file system; with so many files at most, if that is said."""
    places: list[Path] = []

    def mount(options: str = f"size={DISK_BYTES}") -> Path:
        places.append(tmp_path / f"disk{len(places)}")
        places[-1].mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(places[-1])], check=True)
        return places[-1]

    yield mount
    for place in places:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def small_disk(mount: Callable[..., Path]) -> Path:
    """A file system of 16 MiB."""
    return mount()


def used_bytes(disk: Path) -> int:
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def spills(disk: Path) -> list[Path]:
    return [path for path in disk.rglob("spill/*/*") if path.is_file()]


def wait_until(condition: Callable[[], object], what: str) -> None:
    gate = threading.Event()
    for _ in range(3_000):
        if condition():
            return
        gate.wait(0.02)
    raise AssertionError(f"{what} did not happen within a minute")


def scrambled(fc: fk.Context, rows: int) -> fk.RDD:
    """Pairs in no order of 1,000 bytes each, which take as much on a disk."""
    return fc.range(rows, num_partitions=2).map(lambda i: (i * 7_919 % rows, os.urandom(1_000)))


def sorted_count(rdd: fk.RDD) -> int:
    """How many rows a sort in one partition yields, all looked at; -1 when they are not in order."""

    def look(pairs):
        last = count = 0
        for key, _ in pairs:
            if key < last:
                return [-1]
            last, count = key, count + 1
        return [count]

    (count,) = rdd.sort_by_key(num_partitions=1).map_partitions(look).collect()
    return count


def nothing_is_left(fc: fk.Context, disk: Path, before: int) -> None:
    """Spills go with their tasks, shuffles with the RDDs that nobody refers to any more."""
    wait_until(lambda: not spills(disk), "the end of spills")
    assert fc.range(1_000, num_partitions=4).map(lambda i: (i % 10, 1)).group_by_key(num_partitions=2).count() == 10
    wait_until(lambda: used_bytes(disk) <= before + (1 << 16), f"{disk} as empty as before ({before:,} bytes)")


def test_a_full_disk_is_a_clear_error_and_other_jobs_go_on(start, small_disk: Path):
    fc = start(workers=2, local_directory=str(small_disk / "flowkit"))
    too_much = fc.range(64, num_partitions=4).map(lambda i: (i, os.urandom(1 << 20))).partition_by(4)
    with pytest.raises(DiskFull, match="no space left") as caught:
        too_much.count()
    assert str(small_disk) in str(caught.value)
    small = fc.range(1_000, num_partitions=4).map(lambda i: (i % 10, 1)).group_by_key(num_partitions=2)
    assert small.count() == 10, "what fits still runs: the failed attempts left nothing on the disk"


def test_a_disk_that_fills_while_a_sort_spills_is_named_and_nothing_is_left(start, small_disk: Path, story: Story):
    fc = start(workers=2, local_directory=str(small_disk / "flowkit"), operator_memory_bytes=1 << 20)
    assert fc.range(10, num_partitions=2).map(lambda i: (i, i)).group_by_key(2).count() == 10
    before = used_bytes(small_disk)
    # 10 MB lie in the shuffle; the sort wants as much again.
    with pytest.raises(DiskFull, match="no space left") as caught:
        sorted_count(scrambled(fc, 10_000))
    assert str(small_disk) in str(caught.value)
    assert "/spill/" in caught.value.path, "it was not the sort that had no room"
    fc.wait_for_listeners()
    failures = story.failures()
    assert len(failures) == 4, "max_task_failures bounds it"
    del caught
    nothing_is_left(fc, small_disk, before)
    assert sorted_count(scrambled(fc, 3_000)) == 3_000, "one that fits spills to its end"
    fc.wait_for_listeners()
    assert max(end.metrics.disk_spilled_bytes for end in story.of(ev.TaskEnd)) > 1 << 20
    nothing_is_left(fc, small_disk, before)


def test_shuffles_that_no_job_needs_make_room_for_a_sort_that_spills(start, small_disk: Path, story: Story):
    fc = start(workers=2, local_directory=str(small_disk / "flowkit"), operator_memory_bytes=1 << 20)
    kept = scrambled(fc, 8_000).partition_by(2)
    assert kept.count() == 8_000
    # Beside these 8 MB, 5 MB of shuffle have room, and as much of spill has not.
    assert sorted_count(scrambled(fc, 5_000)) == 5_000
    fc.wait_for_listeners()
    assert story.failures(), "the disk was not filled: this shows nothing"
    assert {end.failure.type_name for end in story.failures()} == {"flowkit.errors.DiskFull"}
    assert "make room" in story.of(ev.ShuffleOutputsLost)[0].reason
    assert kept.count() == 8_000, "made again"


def test_room_that_somebody_else_frees_is_found_by_the_next_try(start, small_disk: Path, story: Story):
    fc = start(workers=2, local_directory=str(small_disk / "flowkit"), operator_memory_bytes=1 << 20)
    ballast = small_disk / "of somebody else" / "ballast"
    ballast.parent.mkdir()
    ballast.write_bytes(bytes(9 << 20))

    class Frees:
        def on_event(self, event: ev.Event) -> None:
            if isinstance(event, ev.TaskEnd) and event.failure is not None:
                ballast.unlink(missing_ok=True)

    fc.add_listener(Frees())
    assert sorted_count(scrambled(fc, 5_000)) == 5_000
    assert not ballast.exists(), "the disk was not filled: this shows nothing"
    assert {end.failure.type_name for end in story.failures()} == {"flowkit.errors.DiskFull"}


def test_a_disk_without_room_for_another_file_is_as_full_as_one_without_room_for_bytes(start, mount, story: Story):
    disk = mount("size=64m,nr_inodes=60")
    fc = start(workers=1, local_directory=str(disk / "flowkit"))
    assert fc.range(10, num_partitions=2).map(lambda i: (i, i)).group_by_key(2).count() == 10
    with pytest.raises(DiskFull, match="no space left") as caught:
        fc.range(500, num_partitions=100).map(lambda i: (i, i)).partition_by(2).count()
    assert str(disk) in str(caught.value)
    assert fc.range(10, num_partitions=2).map(lambda i: (i, i)).group_by_key(2).count() == 10
    kept = fc.range(60, num_partitions=20).map(lambda i: (i, i)).partition_by(2)
    other = fc.range(60, num_partitions=30).map(lambda i: (i, i)).partition_by(2)
    assert [kept.count(), other.count(), kept.count(), other.count()] == [60] * 4, "each makes room for the other"


def test_a_full_disk_of_cached_rows_gives_way_to_the_next_directory(start, mount, tmp_path: Path, story: Story):
    full = mount("size=1m")
    (full / "ballast").write_bytes(bytes(1 << 20))
    fc = start(workers=2, block_directories=str(full / "blocks"), local_directory=str(tmp_path / "flowkit"))
    computed = fc.accumulator(0)
    rows = fc.range(4, num_partitions=4).map(lambda i: computed.add(1) or os.urandom(1 << 20)).persist(fk.StorageLevel.DISK_ONLY)
    assert rows.map(len).sum() == 4 << 20
    assert rows.map(len).sum() == 4 << 20
    assert computed.value == 4, "kept in the second directory"
    assert not story.failures()
