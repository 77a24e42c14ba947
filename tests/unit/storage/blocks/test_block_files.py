"""Files of cached partitions: what was written is read, a damaged one is none, and a directory that refuses is passed over."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.errors import DataDamaged
from flowkit.storage.blocks import block_files
from flowkit.storage.blocks.block_files import BlockFile, BlockFiles, Unwritten

BATCHES = [[1, 2, 3], ["a"], [], [("k", 1.5), ("l", None)]]


def rows(files: BlockFiles, file: BlockFile) -> list:
    return [row for batch in files.read(file) for row in batch]


@given(st.lists(st.lists(st.one_of(st.integers(), st.text(), st.tuples(st.integers(), st.none())), max_size=5), max_size=5))
def test_what_was_written_is_read(tmp_path_factory, batches):
    for codec in ("none", "lz4", "zstd"):
        files = BlockFiles([tmp_path_factory.mktemp("blocks")], codec=codec)
        file = files.write(1, 2, batches)
        assert rows(files, file) == [row for batch in batches for row in batch]
        assert file.rows == sum(map(len, batches))
        assert BlockFiles(files._directories).find(1, 2) == file


def test_files_are_their_owners_alone_and_drafts_go(tmp_path):
    files = BlockFiles([tmp_path / "blocks"])
    file = files.write(1, 2, BATCHES)
    assert (tmp_path / "blocks").stat().st_mode & 0o077 == 0
    assert [each.name for each in (tmp_path / "blocks").iterdir()] == [file.path.name]


def test_the_first_who_writes_a_partition_wins(tmp_path):
    files = BlockFiles([tmp_path])
    files.write(1, 2, [[1]])
    assert rows(files, files.write(1, 2, [[2]])) == [1]


@given(place=st.integers(0, 10_000), change=st.integers(1, 255))
def test_one_wrong_byte_makes_it_none_at_all(tmp_path_factory, place, change):
    files = BlockFiles([tmp_path_factory.mktemp("blocks")])
    path = files.write(1, 2, BATCHES).path
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= change
    path.write_bytes(data)
    assert files.find(1, 2) is None
    assert not path.exists()


def flip_unseen(path: Path, place: int, bit: int) -> None:
    """As a disk that errs does it: the time of change stays."""
    data, times = bytearray(path.read_bytes()), path.stat()
    data[place] ^= bit
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("bit", [1, 128])
@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_a_byte_that_changes_after_the_file_was_checked_is_no_row_of_anybody(tmp_path, codec, bit):
    files = BlockFiles([tmp_path], codec=codec)
    path = files.write(1, 2, BATCHES).path
    sound = path.read_bytes()
    for place in range(8, len(sound) - 28):
        path.write_bytes(sound)
        file = files.find(1, 2)
        assert file is not None
        flip_unseen(path, place, bit)
        assert files.find(1, 2) == file  # nobody can tell by its name and times
        with pytest.raises(ValueError, match=r"checksum|early|longer"):
            for position in starts(sound):
                files.read_encoded(file, position, 1)
        with pytest.raises(DataDamaged, match=path.name):
            rows(files, file)
        assert not path.exists()
        assert files.find(1, 2) is None


def starts(data: bytes) -> list[int]:
    """Where batches of a file begin, as ``read_encoded`` counts."""
    found, place, end = [], 0, len(data) - 8 - 28
    while place < end:
        found.append(place)
        place += 4 + 17 + int.from_bytes(data[8 + place + 13 : 8 + place + 21], "little")
    return found


@given(st.integers(0, 10_000))
def test_a_torn_file_is_none_at_all(tmp_path_factory, length):
    files = BlockFiles([tmp_path_factory.mktemp("blocks")])
    path = files.write(1, 2, BATCHES).path
    data = path.read_bytes()
    path.write_bytes(data[: length % len(data)])
    assert files.find(1, 2) is None


def test_a_file_that_is_dropped_is_read_to_its_end(tmp_path):
    files = BlockFiles([tmp_path])
    batches = files.read(files.write(1, 2, BATCHES))
    first = next(batches)
    files.drop_rdd(1)
    assert [first, *batches] == BATCHES
    assert files.find(1, 2) is None


def test_dropping_an_rdd_leaves_others(tmp_path):
    files = BlockFiles([tmp_path])
    for rdd in (1, 11):
        files.write(rdd, 0, [[rdd]])
    files.drop_rdd(1)
    assert files.find(1, 0) is None
    assert files.find(11, 0) is not None
    files.drop(11, 0)
    assert files.used_bytes() == 0


def full_after(monkeypatch, directory, bytes_there):
    """A disk that is full when a file of it has so many bytes."""
    write_all = block_files._write_all

    def refuse(file, data):
        if file.name.startswith(str(directory)) and os.fstat(file.fileno()).st_size + len(data) > bytes_there:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(file, data)

    monkeypatch.setattr(block_files, "_write_all", refuse)


@pytest.mark.parametrize("bytes_there", [0, 10, 60, 90, 10_000])
def test_a_disk_that_fills_up_in_the_middle_hands_on_to_the_next(tmp_path, monkeypatch, bytes_there):
    small, large = tmp_path / "small", tmp_path / "large"
    full_after(monkeypatch, small, bytes_there)
    files = BlockFiles([small, large])
    file = files.write(1, 2, iter(BATCHES))
    assert rows(files, file) == [row for batch in BATCHES for row in batch]
    assert (file.path.parent == small) == (bytes_there == 10_000)
    assert not list(small.glob("*.draft"))
    if bytes_there < 10_000:
        assert files.refused == {small}
        assert files.write(3, 0, [[1]]).path.parent == large


def test_what_no_directory_takes_comes_back_whole(tmp_path, monkeypatch):
    full_after(monkeypatch, tmp_path, 60)
    files = BlockFiles([tmp_path / "a", tmp_path / "b"])
    match files.write(1, 2, iter(BATCHES)):
        case Unwritten(batches):
            assert list(batches) == BATCHES
        case file:
            pytest.fail(f"{file} was written")
    assert files.used_bytes() == 0


def test_a_directory_that_cannot_be_made_is_passed_over(tmp_path):
    (tmp_path / "file").write_text("in the way")
    files = BlockFiles([tmp_path / "file" / "blocks", tmp_path / "good"])
    assert files.write(1, 2, BATCHES).path.parent == tmp_path / "good"


def test_beyond_its_limit_a_directory_takes_no_more(tmp_path):
    files = BlockFiles([tmp_path], limit_bytes=1_000)
    assert isinstance(files.write(1, 0, [[bytes(2_000)]]), BlockFile)
    assert isinstance(files.write(1, 1, [[1]]), Unwritten)
    files.drop_rdd(1)
    assert isinstance(files.write(1, 1, [[1]]), BlockFile)


def test_what_computing_the_rows_raises_is_no_fault_of_the_disk(tmp_path):
    def rows():
        yield [1]
        raise OSError(errno.ENOENT, "the user's own file")

    files = BlockFiles([tmp_path])
    with pytest.raises(OSError, match="the user's own"):
        files.write(1, 2, rows())
    assert not files.refused
    assert files.used_bytes() == 0


_READER = """
import sys
from pathlib import Path
import pyarrow as pa, pyarrow.compute as pc
from flowkit.storage.blocks.block_files import BlockFiles

files = BlockFiles([Path(sys.argv[1])], mapped=sys.argv[2] == "mapped")
found = files.find(0, 0)
def own_bytes():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024
pc.sum(pa.array([1]))
before = own_bytes()
held = [batch for rows in files.read(found) for batch in rows]
total = sum(pc.sum(batch["n"]).as_py() for batch in held)
print(total, own_bytes() - before)
"""


@pytest.mark.parametrize("how", ["mapped", "copied"])
def test_another_process_reads_arrow_batches_where_they_lie(how):
    pa = pytest.importorskip("pyarrow")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        files = BlockFiles([Path(place)], mapped=True)
        batches = [pa.record_batch({"n": np.arange(number * 1_000_000, (number + 1) * 1_000_000)}) for number in range(8)]
        files.write(0, 0, ([batch] for batch in batches))
        told = subprocess.run([sys.executable, "-c", _READER, place, how], capture_output=True, text=True, check=True).stdout
    total, private = map(int, told.split())
    assert total == sum(range(8_000_000))
    if how == "mapped":
        assert private < 8 << 20, "64 MB are shared, not copied"
    else:
        assert private > 60 << 20


def test_what_is_mapped_can_be_read_after_it_was_dropped(tmp_path):
    files = BlockFiles([tmp_path], mapped=True)
    rows = [(number, f"text {number}") for number in range(20_000)]
    found = files.write(0, 0, iter([rows[:10_000], rows[10_000:]]))
    batches = files.read(found)
    first = next(batches)
    files.drop(0, 0)
    assert first + next(batches) == rows
    assert next(batches, None) is None
