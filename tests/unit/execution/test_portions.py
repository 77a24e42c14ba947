"""Rows cut into as many files as they fill."""

from __future__ import annotations

from pathlib import Path

from flowkit.execution.sinks import Portions


def test_ten_thousand_files_are_no_deeper_than_one(tmp_path: Path) -> None:
    portions, file, found = Portions(iter(range(5_120_000)), 1), tmp_path / "out", 0
    file.write_bytes(b"x")
    files = 0
    while portions.has_more():
        found += sum(1 for _ in portions.until_full(file))
        files += 1
    assert found == 5_120_000
    assert files == 20_000
