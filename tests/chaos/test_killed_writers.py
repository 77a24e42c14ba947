"""Workers killed while they write output."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.conftest import die

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize("differing", [False, True], ids=["one schema", "schemas that differ"])
@pytest.mark.parametrize("partition_by", [[], ["part"]], ids=["files", "directories"])
def test_a_worker_killed_while_it_writes_leaves_every_row_once_and_nothing_else(start, tmp_path: Path, partition_by, differing):
    fc = start(workers=2)
    marker, out = tmp_path / "killed", tmp_path / "out"

    def rows(partition, numbers):
        for number in numbers:
            if partition == 2 and number % 1_000 == 700:
                die(marker)
            yield {"n": float(number) if differing and partition == 5 else number, "part": number % 3}

    fc.range(8_000, num_partitions=8).map_partitions_with_index(rows).save_as_parquet(out, partition_by=partition_by)
    assert marker.exists()
    assert sorted(row["n"] for row in fc.read_parquet(out).collect()) == list(range(8_000))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert not list(out.rglob("_temporary"))
    assert sum(1 for _ in out.rglob("*.parquet")) == (24 if partition_by else 8)
