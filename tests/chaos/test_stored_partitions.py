"""Cached partitions in files outlive the process that wrote them; a damaged file is computed again; nothing is left in the end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowkit import StorageLevel
from flowkit.model import events as ev
from tests.chaos.conftest import die

pytestmark = pytest.mark.chaos

IN_FILES = [StorageLevel.DISK_ONLY, StorageLevel.OFF_HEAP]


def shared_directories() -> set[str]:
    return {each.name for each in Path("/dev/shm").glob(f"flowkit-{os.getuid()}-*")}


@pytest.mark.parametrize("level", IN_FILES, ids=lambda level: level.name)
def test_a_killed_worker_takes_nothing_along_that_lies_in_files(start, story, tmp_path: Path, level):
    fc = start(workers=2)
    computed = fc.accumulator(0)
    rows = fc.range(600, num_partitions=6).map(lambda x: computed.add(1) or x).persist(level)
    assert rows.sum() == sum(range(600))
    assert computed.value == 600
    marker = tmp_path / "killed"
    assert rows.map_partitions(lambda part: (die(marker), part)[1]).sum() == sum(range(600))
    story.wait_for(lambda story: story.of(ev.ExecutorRemoved), "the loss of an executor")
    assert rows.count() == 600
    assert computed.value == 600, "computed again, though the files were there"


def test_a_damaged_file_is_computed_again_and_no_other(start, tmp_path: Path):
    fc = start(workers=2, local_directory=str(tmp_path / "host"))
    computed = fc.accumulator(0)
    rows = fc.range(600, num_partitions=6).map(lambda x: computed.add(1) or x).persist(StorageLevel.DISK_ONLY)
    assert rows.count() == 600
    files = sorted((tmp_path / "host").glob("*/*/blocks/rdd-*"))
    assert len(files) == 6
    files[2].write_bytes(files[2].read_bytes()[:40])
    assert rows.sum() == sum(range(600))
    assert computed.value == 700


def test_a_full_volume_is_passed_over(start, tmp_path: Path):
    (tmp_path / "broken").write_text("no directory")
    fc = start(workers=2, block_directories=f"{tmp_path / 'broken' / 'inside'}{os.pathsep}{tmp_path / 'good'}")
    computed = fc.accumulator(0)
    rows = fc.range(600, num_partitions=6).map(lambda x: computed.add(1) or x).persist(StorageLevel.DISK_ONLY)
    assert [rows.sum() for _ in range(2)] == [sum(range(600))] * 2
    assert computed.value == 600
    assert len(list((tmp_path / "good").glob("*/*/rdd-*"))) == 6
    rows.unpersist(blocking=True)
    assert rows.count() == 600


def test_when_it_is_over_nothing_is_left(start, tmp_path: Path):
    before = shared_directories()
    fc = start(workers=2, block_directories=str(tmp_path / "volume"))
    for level in IN_FILES:
        assert fc.range(600, num_partitions=6).persist(level).count() == 600
    assert shared_directories() - before
    fc.close()
    assert not [each for each in (tmp_path / "volume").rglob("rdd-*")]
    assert not [each for name in shared_directories() - before for each in Path("/dev/shm", name).rglob("rdd-*")]
