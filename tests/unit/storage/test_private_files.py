"""What is opened is looked at, and nothing is opened, made or removed for its name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from flowkit.rdd.capsules import save_capsule
from flowkit.storage import private_files
from flowkit.storage.blocks.block_files import BlockFiles, Unwritten
from flowkit.storage.content import ContentStore
from flowkit.storage.private_files import NotPrivate
from flowkit.storage.runs import RunWriter

ROWS = [[1, 2, 3]]


def link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_bytes(b"precious")
    path.symlink_to(elsewhere)


def unix_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


NO_FILES = [link, os.mkfifo, unix_socket, Path.mkdir]


@pytest.mark.parametrize("plant", NO_FILES)
def test_what_is_no_file_of_ours_is_not_opened_and_nobody_waits_for_it(tmp_path: Path, plant):
    plant(tmp_path / "file")
    for mode in ("rb", "r+b"):
        with pytest.raises(FileNotFoundError, match="no file of flowkit's own"):
            private_files.open_file(tmp_path / "file", mode)
    with pytest.raises(FileExistsError):
        private_files.write_file(tmp_path / "file", b"")
    assert not private_files.has_own_file(tmp_path / "file")


def test_a_file_is_its_owners_alone_whatever_the_umask(tmp_path: Path):
    before = os.umask(0)
    try:
        private_files.write_file(tmp_path / "file", b"data")
        private_files.make_directory(tmp_path / "directory")
        os.close(private_files.open_directory(tmp_path / "other", make=True))
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in sorted(tmp_path.iterdir())] == [0o700, 0o600, 0o700]
    assert private_files.read_file(tmp_path / "file") == b"data"


@pytest.mark.parametrize("plant", [link, os.mkfifo, unix_socket, Path.touch, lambda path: path.symlink_to("..")])
def test_what_is_no_directory_of_ours_is_not_used(tmp_path: Path, plant):
    plant(tmp_path / "place")
    with pytest.raises(NotPrivate, match="not a directory of its own"):
        private_files.make_directory(tmp_path / "place")
    with pytest.raises(NotPrivate, match="not a directory of its own"):
        private_files.open_directory(tmp_path / "place", make=True)
    private_files.remove_files(tmp_path / "place", "")
    private_files.remove_file(tmp_path / "place" / "elsewhere")
    assert (tmp_path / "place").is_symlink() or (tmp_path / "place").exists()


@pytest.mark.parametrize("plant", [link, os.mkfifo, unix_socket])
def test_content_takes_the_place_of_what_is_none(tmp_path: Path, plant):
    store = ContentStore(tmp_path)
    name = store.put(b"data")
    (tmp_path / name).unlink()
    plant(tmp_path / name)
    assert store.path(name) is None
    with pytest.raises(KeyError):
        store.manifest(name)
    assert store.put(b"data") == name
    assert store.path(name) is not None
    assert not list(tmp_path.glob("elsewhere")) or (tmp_path / "elsewhere").read_bytes() == b"precious"


@pytest.mark.parametrize("plant", NO_FILES)
def test_a_cached_partition_is_computed_again_where_its_file_is_none(tmp_path: Path, plant):
    files = BlockFiles([tmp_path])
    written = files.write(1, 2, iter(ROWS))
    assert not isinstance(written, Unwritten)
    written.path.unlink()
    plant(written.path)
    assert files.find(1, 2) is None
    with pytest.raises(FileNotFoundError):
        files.read(written)


def test_cached_partitions_go_elsewhere_where_a_link_is_in_the_directorys_place(tmp_path: Path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "rdd-1-2").touch()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    files = BlockFiles([tmp_path / "link", tmp_path / "good"])
    written = files.write(1, 2, iter(ROWS))
    assert not isinstance(written, Unwritten) and written.path.parent == tmp_path / "good"
    files.drop_rdd(1)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["rdd-1-2"]
    assert list((tmp_path / "good").iterdir()) == []


def test_a_spill_run_is_neither_written_nor_read_through_a_link(tmp_path: Path):
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        RunWriter(tmp_path, "run")
    with RunWriter(tmp_path, "other") as writer:
        writer.write([1])
        run = writer.close()
    run.path.unlink()
    run.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError):
        list(run.batches())
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"


@pytest.mark.parametrize("plant", [link, os.mkfifo, Path.touch])
def test_a_capsule_takes_the_place_of_what_was_there_and_is_its_owners_alone(tmp_path: Path, plant):
    plant(tmp_path / "capsule")
    save_capsule(tmp_path / "capsule", None, 0, {}, place="", error="")
    assert stat.S_ISREG((tmp_path / "capsule").lstat().st_mode)
    assert stat.S_IMODE((tmp_path / "capsule").lstat().st_mode) == 0o600
    assert not (tmp_path / "elsewhere").exists() or (tmp_path / "elsewhere").read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) in (["capsule"], ["capsule", "elsewhere"])


def test_a_tree_of_any_depth_and_any_names_goes(tmp_path: Path):
    deep = tmp_path / "tree"
    for name in [*"abcdefgh", "\n", " ", "-rf", "\udcff"]:
        deep = deep / name
    deep.mkdir(parents=True)
    (tmp_path / "tree" / "a").chmod(0o500)
    place = os.open(tmp_path, os.O_RDONLY)
    try:
        assert private_files.remove_tree("tree", dir_fd=place)
        assert private_files.remove_tree("tree", dir_fd=place)
        (tmp_path / "link").symlink_to(tmp_path)
        assert not private_files.remove_tree("link", dir_fd=place)
    finally:
        os.close(place)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
