"""A block directory that broke does not keep files in the others alive."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowkit.model.ids import RddId
from flowkit.storage.blocks.block_files import BlockFiles


def test_files_go_from_the_directories_that_are_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken, well = tmp_path / "broken", tmp_path / "well"
    files = BlockFiles([broken, well])
    for directory in (broken, well):
        directory.mkdir()
        (directory / "rdd-1-0").touch()
        (directory / "rdd-2-0").touch()
    glob = Path.glob

    def denied(self, pattern):
        if self == broken:
            raise PermissionError(13, "Permission denied", str(self))
        return glob(self, pattern)

    monkeypatch.setattr(Path, "glob", denied)
    files.drop_rdd(RddId(1))
    assert [path.name for path in well.iterdir()] == ["rdd-2-0"]
