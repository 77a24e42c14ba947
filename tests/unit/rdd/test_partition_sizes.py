"""Small files are packed and large ones split, within the limits that are set."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowkit.testing.inline import inline_context


def files(place: Path, count: int, size: int) -> str:
    for number in range(count):
        (place / f"{number:03d}.txt").write_text("x" * (size - 1) + "\n")
    return str(place)


@pytest.mark.parametrize(
    ("least", "most", "expected"), [(1, 1 << 20, 4), (4_000, 1 << 20, 2), (10_000, 1 << 20, 1), (1, 1_000, 8)]
)
def test_partitions_of_files_keep_to_the_sizes_set(tmp_path, least, most, expected):
    place = files(tmp_path, count=8, size=1_000)
    with inline_context(slots=4, min_partition_bytes=least, max_partition_bytes=most) as fc:
        assert fc.binary_files(place).num_partitions == expected
        assert fc.text_file(place).num_partitions == expected
        assert fc.whole_text_files(place).count() == 8


def test_a_number_that_is_asked_for_is_not_limited_from_below(tmp_path):
    place = files(tmp_path, count=8, size=1_000)
    with inline_context(slots=4, min_partition_bytes=1 << 20) as fc:
        assert fc.binary_files(place, 8).num_partitions == 8


def test_a_large_file_is_split(tmp_path):
    (tmp_path / "large.txt").write_text("0123456789\n" * 10_000)
    with inline_context(slots=2, max_partition_bytes=10_000) as fc:
        lines = fc.text_file(tmp_path / "large.txt")
        assert lines.num_partitions == 11
        assert lines.count() == 10_000


def test_parquet_row_groups_are_packed_within_the_limit(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"n": list(range(10_000))})
    pq.write_table(table, tmp_path / "n.parquet", row_group_size=1_000)
    with inline_context(slots=2) as fc:
        assert fc.read_parquet(tmp_path / "n.parquet").num_partitions == 2
    with inline_context(slots=2, max_partition_bytes=20_000) as fc:
        rows = fc.read_parquet(tmp_path / "n.parquet")
        assert rows.num_partitions > 2
        assert rows.count() == 10_000
