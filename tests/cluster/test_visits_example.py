"""The example pipeline, run as its first lines say."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]


def line(day: int, path: str, status: int = 200, size: str = "10") -> str:
    return f'10.0.0.1 - - [{day:02}/Nov/2026:10:00:00 +0100] "GET {path} HTTP/1.1" {status} {size}'


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Forty good lines in two files, two bad ones."""
    place = tmp_path / "logs"
    place.mkdir()
    good = [line(20 + n % 2, f"/{'shop' if n % 4 else ''}?n={n}", 500 if n % 10 == 0 else 200) for n in range(40)]
    (place / "a.log").write_text("\n".join([*good[:20], "nonsense", ""]))
    with gzip.open(place / "b.log.gz", "wt") as file:
        file.write("\n".join([*good[20:], line(99, "/")]))
    return place


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "flowkit",
        "run",
        "--workers",
        "2",
        "--quiet",
        str(ROOT / "examples/visits.py"),
        *map(str, arguments),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=False)


def test_visits_are_counted_by_day_and_section_and_bad_lines_set_aside(logs: Path, tmp_path: Path):
    out, bad = tmp_path / "out", tmp_path / "bad"
    done = run(logs, out, "--bad", bad)
    assert (done.returncode, done.stderr) == (0, "")
    assert "40 visits, 2 bad lines" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["_SUCCESS", "day=2026-11-20", "day=2026-11-21"]
    table = pq.read_table(out).to_pylist()
    assert sum(row["visits"] for row in table) == 40
    assert sum(row["failures"] for row in table) == 4
    assert {row["section"] for row in table} == {"home", "shop"}
    told = [json.loads(each) for each in (bad / "part-00000.jsonl").read_text().splitlines()]
    assert [each["line"] for each in told][0] == "nonsense"
    assert len(told) == 2
    assert run(logs, out).returncode == 0, "a second run replaces the first"


def test_too_many_bad_lines_publish_nothing(logs: Path, tmp_path: Path):
    done = run(logs, tmp_path / "out", "--most-bad", "0.01")
    assert done.returncode == 3
    assert "nothing was published" in done.stderr
    assert not (tmp_path / "out").exists()
