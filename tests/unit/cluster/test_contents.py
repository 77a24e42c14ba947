import pytest

from flowkit.cluster.contents import KeptContents
from flowkit.errors import DataDamaged


def test_content_beyond_the_bound_goes_to_disk_and_comes_back(tmp_path):
    kept = KeptContents(lambda: tmp_path, in_memory_bytes=10)
    for name in "abc":
        kept.keep(name, name.encode() * 6)
    assert [kept.get(name) for name in "abc"] == [b"aaaaaa", b"bbbbbb", b"cccccc"]
    assert "a" in kept and "z" not in kept
    assert len(list(tmp_path.rglob("*"))) > 1
    kept.close()
    assert list(tmp_path.rglob("*")) == []


def test_what_was_never_kept_is_a_key_error(tmp_path):
    with pytest.raises(KeyError):
        KeptContents(lambda: tmp_path).get("a")


def test_keeping_twice_counts_once(tmp_path):
    kept = KeptContents(lambda: tmp_path, in_memory_bytes=10)
    kept.keep("a", b"123456")
    kept.keep("a", b"123456")
    assert not kept._on_disk


def test_a_copy_on_disk_that_is_damaged_is_an_error_and_no_other_bytes(tmp_path):
    kept = KeptContents(lambda: tmp_path, in_memory_bytes=10)
    kept.keep("a", b"a" * 6)
    kept.keep("b", b"b" * 6)
    kept._file("a").write_bytes(b"aaaaab")
    with pytest.raises(DataDamaged, match="is damaged"):
        kept.get("a")
    kept.close()
