"""What the driver's garbage collector drops is dropped on the cluster: a thousand jobs leave memory, disk and descriptors flat."""

from __future__ import annotations

import gc
import os
from operator import add
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

import flowkit as fk

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

MB = 1 << 20


class Footprint(NamedTuple):
    """What an application holds at one moment."""

    driver_bytes: int
    executor_bytes: int
    files: int
    file_bytes: int
    descriptors: int
    blocks: int


def footprint(fc: fk.Context, directory: Path) -> Footprint:
    gc.collect()
    fc._bus.wait_until_empty(20)

    def look(_partition, _rows):
        gc.collect()
        process = psutil.Process()
        return [(process.memory_info().rss, process.num_fds())]

    # Twice: what was released on the way here is gone by the second.
    fc.range(1, num_partitions=1).map_partitions_with_index(look).collect()
    ((executor_bytes, executor_descriptors),) = fc.range(1, num_partitions=1).map_partitions_with_index(look).collect()
    files = [path for path in directory.rglob("*") if path.is_file()]
    own = psutil.Process()
    return Footprint(
        own.memory_info().rss,
        executor_bytes,
        len(files),
        sum(path.stat().st_size for path in files),
        own.num_fds() + executor_descriptors,
        len(fc._shuffles),
    )


def work(fc: fk.Context, number: int) -> None:
    """A job of two stages with a cached RDD, a broadcast too large for messages, an accumulator, a large collection."""
    table = fc.broadcast([number] * 20_000)
    seen = fc.accumulator(0)
    rows = fc.parallelize([f"row {number} {i}" for i in range(3_000)], 2).cache()
    sums = rows.map(lambda row: (len(row) + len(table.value) % 7, 1)).reduce_by_key(add, 2)
    assert sums.values().sum() == 3_000
    rows.foreach(lambda _: seen.add(1))
    assert seen.value == 3_000


@pytest.mark.timeout(300)
def test_a_thousand_jobs_leave_memory_disk_and_descriptors_flat(tmp_path: Path):
    with fk.Context(workers=1, progress="off", local_directory=str(tmp_path)) as fc:
        for number in range(100):
            work(fc, number)
        early = footprint(fc, tmp_path)
        for number in range(100, 500):
            work(fc, number)
        late = footprint(fc, tmp_path)
        assert fc.status.summary().jobs >= 1_000
        print(early, late, os.getpid())
        assert late.blocks <= early.blocks + 2
        assert late.files <= early.files + 5
        assert late.file_bytes <= early.file_bytes + 2 * MB
        assert late.descriptors <= early.descriptors + 10
        assert late.executor_bytes <= early.executor_bytes + 40 * MB
        assert late.driver_bytes <= early.driver_bytes + 40 * MB
