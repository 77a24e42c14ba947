"""What paths name, and how files become partitions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.storage.objects.local import LARGEST_SPLIT_BYTES, LocalFile, list_files, pack_files, plan_splits


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("b.txt", "a.txt", "c.csv", "_SUCCESS", ".crc", "more/d.txt", "more/_hidden", "_logs/e.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    return tmp_path


def names(place: Path, path: str) -> list[str]:
    return [str(Path(file.path).relative_to(place)) for file in list_files(path)]


@pytest.mark.parametrize(
    "path, expected",
    [
        ("a.txt", ["a.txt"]),
        ("", ["a.txt", "b.txt", "c.csv"]),
        ("*.txt", ["a.txt", "b.txt"]),
        ("*", ["a.txt", "b.txt", "c.csv", "more/d.txt"]),
        ("**/*.txt", ["a.txt", "b.txt", "more/d.txt", "_logs/e.txt"]),
        ("[ab].txt", ["a.txt", "b.txt"]),
        ("_SUCCESS", ["_SUCCESS"]),
        ("{a,c}.*", ["a.txt", "c.csv"]),
        ("{more,.}/{d,b}.txt", ["more/d.txt", "b.txt"]),
        ("[a,b].txt", ["a.txt", "b.txt"]),
    ],
)
def test_a_path_names_files(place, path, expected):
    assert sorted(names(place, f"{place}/{path}")) == sorted(expected)


def test_several_paths_stand_with_commas_between_and_keep_their_order(place):
    assert names(place, f"{place}/c.csv,{place}/*.txt") == ["c.csv", "a.txt", "b.txt"]


def test_what_exists_under_the_very_name_is_meant(tmp_path):
    for name in ("a,b.txt", "[x].txt", "{y}.txt"):
        (tmp_path / name).touch()
        assert names(tmp_path, f"{tmp_path}/{name}") == [name]
    assert [Path(file.path).name for file in list_files(tmp_path / "a,b.txt")] == ["a,b.txt"]
    with pytest.raises(FileNotFoundError):
        list_files(f"{tmp_path}/a,{tmp_path}/b.txt")


def test_relative_paths_are_made_absolute_wherever_one_stands(place, monkeypatch):
    odd = place / "run [1]"
    odd.mkdir()
    (odd / "f.txt").touch()
    monkeypatch.chdir(odd)
    for path in ("f.txt", ".", "*.txt", "../run ?1?/*.txt", "f.txt,", Path("f.txt"), Path("*.txt")):
        assert [Path(file.path).resolve() for file in list_files(path)] == [odd / "f.txt"]
        assert all(Path(file.path).is_absolute() for file in list_files(path))
    with pytest.raises(FileNotFoundError, match=r"'\*\.csv' in .*run \[1\]"):
        list_files("*.csv")


def test_an_empty_directory_is_no_error_but_nothing_at_all_is(tmp_path):
    assert list_files(str(tmp_path)) == []
    for path in (f"{tmp_path}/none", f"{tmp_path}/*.txt", ",", ""):
        with pytest.raises(FileNotFoundError):
            list_files(path)


def test_codecs_are_known_by_suffix_and_such_files_are_not_split():
    files = [LocalFile(f"a.{suffix}", 10 << 20) for suffix in ("gz", "bz2", "xz", "zst", "txt")]
    assert [file.codec for file in files] == ["gz", "bz2", "xz", "zst", None]
    splits = [split for part in plan_splits(files, 50, smallest_bytes=1) for split in part]
    assert [split.length for split in splits[:4]] == [None] * 4
    assert len([split for split in splits if split.path == "a.txt"]) > 1


sizes = st.lists(st.integers(0, 300_000_000), max_size=30)


@given(sizes, st.integers(1, 40))
def test_splits_cover_every_byte_once_and_in_order(sizes, partitions):
    files = [LocalFile(str(number), size) for number, size in enumerate(sizes)]
    parts = plan_splits(files, partitions)
    assert all(parts)
    splits = [split for part in parts for split in part]
    for file in files:
        own = [split for split in splits if split.path == file.path]
        if own[0].length is None:
            assert len(own) == 1
            continue
        assert own[0].start == 0
        assert all(a.start + a.length == b.start for a, b in zip(own, own[1:]))
        assert own[-1].start + own[-1].length == file.size_bytes
        assert max(split.length for split in own) <= LARGEST_SPLIT_BYTES * 1.1
    assert [split.path for split in splits] == sorted((split.path for split in splits), key=int)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50), st.integers(1, 60))
def test_whole_files_are_packed_in_order(sizes, partitions):
    files = [LocalFile(str(number), size) for number, size in enumerate(sizes)]
    packed = pack_files(files, partitions)
    assert [path for part in packed for path in part] == [file.path for file in files]
    assert all(packed)
    assert len(packed) <= min(partitions, len(files))
