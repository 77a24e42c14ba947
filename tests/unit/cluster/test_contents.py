import pytest

from flowkit.cluster.contents import KeptContents


def test_content_beyond_the_bound_goes_to_disk_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kept = KeptContents(in_memory_bytes=10)
    for name in "abc":
        kept.keep(name, name.encode() * 6)
    assert [kept.get(name) for name in "abc"] == [b"aaaaaa", b"bbbbbb", b"cccccc"]
    assert "a" in kept and "z" not in kept
    assert len(list(tmp_path.rglob("*"))) > 1
    kept.close()
    assert list(tmp_path.rglob("*")) == []


def test_what_was_never_kept_is_a_key_error():
    with pytest.raises(KeyError):
        KeptContents().get("a")


def test_keeping_twice_counts_once():
    kept = KeptContents(in_memory_bytes=10)
    kept.keep("a", b"123456")
    kept.keep("a", b"123456")
    assert not kept._on_disk
