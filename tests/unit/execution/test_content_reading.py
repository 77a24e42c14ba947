"""Content is compared with its digest when it is read; what does not fit goes, and is had from elsewhere or reported as missing."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from flowkit.errors import FetchFailed
from flowkit.execution.content_reading import read_content, read_span
from flowkit.model.task import ContentMissing
from flowkit.storage.content import content_id

DATA = bytes(range(256)) * 40
NAME = content_id(DATA)
READS = [
    lambda path_of: read_content(path_of, NAME),
    lambda path_of: read_span(path_of, NAME, 100, 5_000, zlib.crc32(DATA[100:5_100])),
]
reads = pytest.mark.parametrize("read", READS, ids=["whole", "span"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_bytes(DATA)
    return path


def test_what_is_sound_is_read(file):
    whole, span = (read(lambda name: file) for read in READS)
    assert (whole, span) == (DATA, DATA[100:5_100])


@reads
@pytest.mark.parametrize(
    "damage", [lambda d: d[:200] + b"x" + d[201:], lambda d: d[:150], lambda d: b""], ids=["flip", "cut", "empty"]
)
def test_what_does_not_fit_is_removed_and_had_once_more(file, read, damage):
    expected = read(lambda name: file)
    file.write_bytes(damage(DATA))
    asked = []

    def path_of(name):
        asked.append(name)
        if not file.exists():
            file.write_bytes(DATA)
        return file

    assert read(path_of) == expected
    assert asked == [NAME, NAME]


@reads
def test_what_stays_damaged_is_reported_as_missing(file, read):
    def path_of(name):
        file.write_bytes(DATA[::-1])
        return file

    with pytest.raises(FetchFailed, match="is damaged") as raised:
        read(path_of)
    assert raised.value.failure == ContentMissing((NAME,))
    assert not file.exists()
