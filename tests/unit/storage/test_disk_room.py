"""Whatever meets a disk without room first, a write, a file or a directory, says the same."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from flowkit.errors import DiskFull
from flowkit.execution.results import ResultStore
from flowkit.execution.spilled_values import SpilledValues
from flowkit.model.ids import AppId, AttemptId, PartitionIndex, ShuffleId
from flowkit.storage.content import ContentStore, content_id
from flowkit.storage.disk_room import disk_full_named
from flowkit.storage.runs import RunWriter
from flowkit.storage.shuffle.files import ShuffleFiles

APP = AppId("app-1")


def drafted(place: Path) -> None:
    with ContentStore(place / "content").drafting(content_id(b"x")):
        pass


WAYS = {
    "a spill run": lambda place: RunWriter(place / "spill", "run-1"),
    "values of one key": lambda place: SpilledValues(place / "values"),
    "a map output": lambda place: ShuffleFiles(place).temporary(ShuffleId(1), PartitionIndex(0), AttemptId(1)),
    "a result": lambda place: ResultStore(in_memory_bytes=0).put(APP, AttemptId(1), b"x", place / "results"),
    "content on its way": drafted,
}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("way", list(WAYS))
def test_no_room_for_a_directory_is_a_full_disk_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, code: int
):
    (tmp_path / "base").mkdir(mode=0o700)
    mkdir = Path.mkdir

    def refused(self, *args, **options):
        if tmp_path / "base" in self.parents:
            raise OSError(code, os.strerror(code), str(self))
        mkdir(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(DiskFull, match="no space left") as caught:
        WAYS[way](tmp_path / "base")
    assert str(tmp_path / "base") in str(caught.value)
    assert caught.value.path.startswith(str(tmp_path / "base"))


def test_other_refusals_stay_what_they_are(tmp_path: Path):
    with pytest.raises(PermissionError), disk_full_named(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))
    full = DiskFull("no space left on the disk of /there", path="/there")
    with pytest.raises(DiskFull) as caught, disk_full_named(tmp_path):
        raise full
    assert caught.value is full
