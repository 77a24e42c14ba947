"""No space left where flowkit keeps its files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowkit.errors import DiskFull

pytestmark = [pytest.mark.chaos, pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_a_clear_error_and_other_jobs_go_on(start, small_disk: Path):
    fc = start(workers=2, local_directory=str(small_disk / "flowkit"))
    too_much = fc.range(64, num_partitions=4).map(lambda i: (i, os.urandom(1 << 20))).partition_by(4)
    with pytest.raises(DiskFull, match="no space left") as caught:
        too_much.count()
    assert str(small_disk) in str(caught.value)
    small = fc.range(1_000, num_partitions=4).map(lambda i: (i % 10, 1)).group_by_key(num_partitions=2)
    assert small.count() == 10, "what fits still runs: the failed attempts left nothing on the disk"
