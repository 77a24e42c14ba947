"""What paths name, and how files become partitions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.errors import InvalidArgument
from flowkit.storage.objects.local import LARGEST_SPLIT_BYTES, LocalFile, list_files, open_regular, pack_files, plan_splits


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("b.txt", "a.txt", "c.csv", "_SUCCESS", ".crc", "more/d.txt", "more/_hidden", "_logs/e.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    return tmp_path


def names(place: Path, path: str) -> list[str]:
    return [str(Path(file.path).relative_to(place)) for file in list_files(path)]


def make_fifo(place: Path) -> None:
    os.mkfifo(place)


def make_dangling_link(place: Path) -> None:
    place.symlink_to("gone.txt")


def make_link_loop(place: Path) -> None:
    place.symlink_to(place.name)


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


@pytest.mark.parametrize("make, error, message", [
    (make_fifo, InvalidArgument, "odd.txt is a FIFO, not a regular file"),
    (make_dangling_link, FileNotFoundError, "odd.txt is a symbolic link to gone.txt, where nothing is"),
    (make_link_loop, FileNotFoundError, "odd.txt is a symbolic link to odd.txt, where nothing is"),
])  # fmt: skip
@pytest.mark.parametrize("path", ["odd.txt", "", "*.txt", "{odd,other}.txt"])
def test_what_is_no_file_is_refused_by_name_and_never_left_out(place, make, error, message, path):
    make(place / "odd.txt")
    with pytest.raises(error, match=message):
        list_files(f"{place}/{path}")


def test_a_device_is_refused_by_name():
    with pytest.raises(InvalidArgument, match="/dev/zero is a character device, not a regular file"):
        list_files("/dev/zero")


def test_a_file_that_became_a_fifo_since_it_was_listed_is_refused_when_it_is_opened(tmp_path):
    make_fifo(tmp_path / "late")
    with pytest.raises(InvalidArgument, match="late is a FIFO, not a regular file"):
        open_regular(str(tmp_path / "late"))


def test_a_directory_of_directories_is_refused_with_what_names_their_files(tmp_path):
    for day in range(7):
        (tmp_path / f"day={day}").mkdir()
        (tmp_path / f"day={day}" / "a.csv").touch()
    (tmp_path / "_SUCCESS").touch()
    with pytest.raises(
        FileNotFoundError, match=r"directories \(day=0, day=1, day=2, day=3, day=4, \.\.\.\) and no files"
    ) as raised:
        list_files(tmp_path)
    for named in ("*", "**"):
        assert f"'{tmp_path}/{named}'" in str(raised.value)
        assert len(list_files(f"{tmp_path}/{named}")) == 7


def test_directories_are_walked_where_asked_for_and_each_file_knows_what_was_named(place):
    (place / "_col=1").mkdir()
    (place / "_col=1" / "f.txt").touch()
    found = list_files(place, recursive=True)
    assert [str(Path(file.path).relative_to(place)) for file in found] == [
        "_col=1/f.txt",
        "a.txt",
        "b.txt",
        "c.csv",
        "more/d.txt",
    ]
    assert {file.base for file in found} == {str(place)}
    assert [file.base for file in list_files(f"{place}/mor*", recursive=True)] == [str(place)]
    assert [file.base for file in list_files(f"{place}/more/d.txt")] == [str(place / "more")]
    (place / "more" / "up").symlink_to("..")
    with pytest.raises(InvalidArgument, match="more/up is a symbolic link to a directory above it"):
        list_files(place, recursive=True)


def test_many_paths_in_one_text_are_longer_than_any_one_path_may_be(place):
    assert names(place, ",".join([f"{place}/a.txt"] * 500)) == ["a.txt"] * 500


def test_the_home_directory_is_meant_by_a_tilde_unless_something_has_this_name(place, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(place))
    for path in ("~/a.txt", Path("~/a.txt"), "~/a.tx*", "~/{a,z}.txt"):
        assert [file.path for file in list_files(path)] == [str(place / "a.txt")]
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "~tilde").touch()
    monkeypatch.chdir(odd)
    assert [file.path for file in list_files("~tilde")] == [str(odd / "~tilde")]


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
    assert [file for part in packed for file in part] == files
    assert all(packed)
    assert len(packed) <= min(partitions, len(files))
