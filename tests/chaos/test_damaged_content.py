"""Content files of which a disk changes a byte: what is read is compared with its digest, and what does not fit is put again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.chaos


def content_files(directory: Path) -> set[Path]:
    return {path for path in directory.glob("flowkit-*/app-*/content/*") if path.is_file() and not path.name.startswith(".")}


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def check(directory: Path, before: set[Path]) -> None:
    found = content_files(directory) - before
    assert found
    for path in found:
        flip(path)


def test_a_damaged_collection_broadcast_or_file_is_put_again_and_counts_against_nobody(start, story, tmp_path: Path):
    directory = tmp_path / "files"
    fc = start(workers=2, local_directory=str(directory))
    rows = [f"row {i}" * 20 for i in range(5_000)]
    rdd = fc.parallelize(rows, 4)
    check(directory, set())
    assert rdd.collect() == rows

    before = content_files(directory)
    value = os.urandom(300_000)
    broadcast = fc.broadcast(value)
    check(directory, before)
    assert fc.range(4, num_partitions=4).map(lambda n: broadcast.value == value).collect() == [True] * 4

    before = content_files(directory)
    added = tmp_path / "table.bin"
    added.write_bytes(value)
    fc.add_file(added)
    check(directory, before)

    def same(n: int) -> bool:
        from flowkit import files

        return Path(files.get("table.bin")).read_bytes() == value

    assert fc.range(4, num_partitions=4).map(same).collect() == [True] * 4
    story.wait_until_jobs_ended(3)
    assert not any(end.counted for end in story.failures()), "a damaged file is nobody's fault"
