"""Large collections and closures whose file vanishes: the driver puts them again."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.chaos


def content_files(directory: Path) -> list[Path]:
    return [path for path in directory.glob("*/app-*/content/**/*") if path.is_file()]


def test_a_collection_whose_file_is_gone_is_put_again_by_the_driver(start, story, tmp_path: Path):
    directory = tmp_path / "files"
    fc = start(workers=2, local_directory=str(directory))
    rows = [f"row {i}" * 20 for i in range(5_000)]
    rdd = fc.parallelize(rows, 4)
    assert rdd.count() == 5_000
    found = content_files(directory)
    assert found
    for path in found:
        path.unlink()
    assert rdd.map(len).sum() == sum(map(len, rows))
    story.wait_until_jobs_ended(2)
    assert not any(end.counted for end in story.failures()), "a missing file is nobody's fault"


def test_a_large_closure_travels_once_a_host_however_many_tasks_use_it(start, story, tmp_path: Path):
    directory = tmp_path / "files"
    fc = start(workers=2, local_directory=str(directory))
    table = {i: f"value {i}" for i in range(50_000)}
    assert fc.range(64, num_partitions=64).map(lambda i: table[i]).collect() == [f"value {i}" for i in range(64)]
    (only,) = content_files(directory)
    assert only.stat().st_size > 500_000
