"""What makes a cluster of its own, or an executor, unusable is told at the call, by name; nothing is started for it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from distributed import Nanny, Scheduler, SpecCluster

import flowkit as fk


@pytest.mark.parametrize(
    ("named", "asked"),
    [
        ("local_directory = '/proc/nope'", {"local_directory": "/proc/nope"}),
        ("local_directory = '/dev/null'", {"local_directory": "/dev/null"}),
        ("memory_limit = '30MB'", {"memory_limit": "30MB"}),
        ("memory_limit = 'lots'", {"memory_limit": "lots"}),
        ("workers = '2'", {"workers": "2"}),
        ("workers = 1,000,000", {"workers": 1_000_000}),
        ("threads_per_worker = 100,000", {"threads_per_worker": 100_000}),
        ("event_log = '/dev/null'", {"event_log": "/dev/null"}),
        ("heartbeat_s = 1e-06", {"heartbeat_s": 1e-6}),
    ],
    ids=str,
)
def test_what_cannot_work_starts_no_process(named: str, asked: dict[str, object]):
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(ValueError, match=named):
        fk.Context(progress="off", **asked)  # type: ignore[arg-type]
    assert set(psutil.Process().children(recursive=True)) <= before


def test_workers_elsewhere_tell_their_unusable_directory(tmp_path: Path):
    place = tmp_path / "file" / "below"
    (tmp_path / "file").touch()
    workers = {
        "one": {"cls": Nanny, "options": {"nthreads": 1, "env": {"FLOWKIT_LOCAL_DIRECTORY": str(place)}}},
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard": False, "dashboard_address": "127.0.0.1:0", "port": 0}}
    with (
        SpecCluster(workers=workers, scheduler=scheduler, silence_logs=50) as cluster,
        pytest.raises(fk.errors.ClusterError, match=f"ConfigError: local_directory = '{place}': .*Not a directory") as caught,
        fk.Context(cluster, progress="off") as fc,
    ):
        fc.range(10).sum()
    assert "install the same flowkit" not in str(caught.value)
