"""Content by digest."""

import errno
from pathlib import Path

import pytest

from flowkit.errors import DiskFull, InvalidArgument
from flowkit.storage.content import ContentStore, content_id


def test_content_is_found_by_its_digest_and_read_in_parts(tmp_path):
    store = ContentStore(tmp_path / "content")
    name = store.put(b"0123456789")
    assert name == content_id(b"0123456789")
    assert store.put(b"0123456789") == name
    assert store.read(name) == b"0123456789"
    assert store.read(name, 3, 4) == b"3456"
    assert store.read(name, 8, 100) == b"89"
    assert store.path(name).read_bytes() == b"0123456789"
    assert [path.name for path in (tmp_path / "content").iterdir()] == [name]


def test_what_is_not_there_is_none_or_a_key_error(tmp_path):
    store = ContentStore(tmp_path)
    assert store.path(content_id(b"x")) is None
    with pytest.raises(KeyError):
        store.read(content_id(b"x"))
    name = store.put(b"x")
    store.remove(name)
    store.remove(name)
    assert store.path(name) is None


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_an_id_that_is_no_digest_is_refused(tmp_path, name):
    with pytest.raises(InvalidArgument, match="64 hex digits"):
        ContentStore(tmp_path).path(name)


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path, monkeypatch):
    def fail(self, data):
        Path.touch(self)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(DiskFull, match="no space left for 3 bytes"):
        ContentStore(tmp_path).put(b"abc")
    assert list(tmp_path.iterdir()) == []
