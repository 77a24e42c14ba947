"""Map outputs on disk: commits, blocks read whole or in pieces, damage told apart from absence."""

import errno
import os
import threading
import zlib

import pytest

from flowkit.errors import DiskFull, DiskQuotaExceeded
from flowkit.storage.shuffle import files as files_module
from flowkit.storage.shuffle.files import BlockCorrupt, BlockMissing, ShuffleFiles, removed_on_failure
from flowkit.storage.shuffle.index import encode_index
from flowkit.storage.shuffle.server import read_blocks


def write(files, blocks, shuffle=1, map_partition=0, attempt=7):
    temporary = files.temporary(shuffle, map_partition, attempt)
    temporary.write_bytes(b"".join(blocks) + encode_index([len(b) for b in blocks], [zlib.crc32(b) for b in blocks]))
    return files.commit(temporary, shuffle, map_partition, attempt)


@pytest.fixture
def files(tmp_path):
    files = ShuffleFiles(tmp_path / "app")
    yield files
    files.close()


def test_a_committed_output_is_read_block_by_block(files):
    path = write(files, [b"abc", b"", b"de"])
    assert path == files.path(1, 0, 7)
    assert [files.read_block(1, 0, 7, reducer) for reducer in range(3)] == [b"abc", b"", b"de"]
    assert files.block_bytes(1, 0, 7, 2) == 2
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_attempts_never_mix(files):
    write(files, [b"old"], attempt=1)
    write(files, [b"new"], attempt=2)
    assert files.read_block(1, 0, 1, 0) == b"old"
    assert files.read_block(1, 0, 2, 0) == b"new"


def test_what_is_not_committed_is_not_there(files):
    files.temporary(1, 0, 7).write_bytes(b"half")
    with pytest.raises(BlockMissing, match="missing: no file map-0-7.data"):
        files.read_block(1, 0, 7, 0)


def test_two_temporary_files_of_one_attempt_do_not_meet(files):
    assert files.temporary(1, 0, 7) != files.temporary(1, 0, 7)


@pytest.mark.parametrize("place", [0, 2, -1, -10, -30])
def test_a_damaged_byte_is_noticed(files, place):
    path = write(files, [b"abc", b"de"])
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BlockCorrupt, match="corrupt: "):
        files.read_block(1, 0, 7, 0)


def test_damage_in_one_block_does_not_harm_another(files):
    path = write(files, [b"abc", b"de"])
    data = bytearray(path.read_bytes())
    data[0] ^= 0xFF
    path.write_bytes(data)
    assert files.read_block(1, 0, 7, 1) == b"de"


def test_after_damage_the_file_is_looked_at_anew(files):
    path = write(files, [b"abc"])
    good = path.read_bytes()
    path.unlink()
    path.write_bytes(b"xyz" + good[3:])
    with pytest.raises(BlockCorrupt):
        files.read_block(1, 0, 7, 0)
    path.unlink()
    path.write_bytes(good)
    assert files.read_block(1, 0, 7, 0) == b"abc"


def test_a_truncated_and_an_empty_file_are_corrupt(files):
    path = write(files, [b"abc"])
    for length in (path.stat().st_size - 1, 10, 0):
        os.truncate(path, length)
        with pytest.raises(BlockCorrupt):
            files.read_block(1, 0, 7, 0)


def test_a_symlink_is_not_followed(files, tmp_path):
    path = write(files, [b"abc"])
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BlockMissing, match="no file of flowkit's own"):
        files.read_block(1, 0, 7, 0)


def test_a_large_block_is_read_in_pieces(files, monkeypatch):
    monkeypatch.setattr(files_module, "READ_PIECE_BYTES", 10)
    asked = []
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, length, offset: asked.append(length) or real(descriptor, length, offset))
    block = bytes(range(95))
    write(files, [b"x", block])
    assert files.read_block(1, 0, 7, 1) == block
    assert max(asked[2:]) == 10
    assert list(files.stream_block(1, 0, 7, 1, piece_bytes=10)) == [block[start : start + 10] for start in range(0, 95, 10)]


def test_a_stream_yields_nothing_of_a_damaged_block(files):
    path = write(files, [b"abcdefgh"])
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)
    with pytest.raises(BlockCorrupt):
        next(files.stream_block(1, 0, 7, 0, piece_bytes=2))


@pytest.mark.parametrize("place", [0, 5, 7])
def test_a_stream_of_a_block_that_changes_after_it_was_checked_ends_with_what_was_sound(files, place):
    block = b"abcdefgh"
    path = write(files, [block])
    stream = files.stream_block(1, 0, 7, 0, piece_bytes=2)
    read = [next(stream)]
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    if place < 2:  # it was read already
        assert read + list(stream) == [b"ab", b"cd", b"ef", b"gh"]
        return
    with pytest.raises(BlockCorrupt, match="not what it was when it was checked"):
        read += stream
    assert b"".join(read) == block[: place // 2 * 2]


def test_more_files_than_are_kept_open_are_all_readable_and_closed_in_the_end(files, monkeypatch):
    monkeypatch.setattr(files_module, "_OPEN_FILES", 3)
    for map_partition in range(10):
        write(files, [b"%d" % map_partition], map_partition=map_partition)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        assert [files.read_block(1, m, 7, 0) for m in range(10)] == [b"%d" % m for m in range(10)]
    assert len(os.listdir("/proc/self/fd")) == before + 3
    files.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_dropped_shuffle_is_gone_and_a_stream_under_way_ends_well(files):
    write(files, [b"abcd"])
    write(files, [b"other"], shuffle=2)
    stream = files.stream_block(1, 0, 7, 0, piece_bytes=2)
    assert next(stream) == b"ab"
    files.drop_shuffle(1)
    files.drop_shuffle(1)
    assert list(stream) == [b"cd"]
    with pytest.raises(BlockMissing):
        files.read_block(1, 0, 7, 0)
    assert files.read_block(2, 0, 7, 0) == b"other"


def test_threads_may_read_the_same_files(files, monkeypatch):
    monkeypatch.setattr(files_module, "_OPEN_FILES", 2)
    for m in range(6):
        write(files, [b"%d" % m * 50], map_partition=m)
    wrong = []

    def read():
        for turn in range(300):
            m = turn % 6
            if files.read_block(1, m, 7, 0) != b"%d" % m * 50:
                wrong.append(m)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_used_bytes_are_those_of_all_files(files, tmp_path):
    assert files.used_bytes == 0
    one, two = write(files, [b"abc"]), write(files, [b"x" * 100], shuffle=2)
    assert files.used_bytes == one.stat().st_size + two.stat().st_size


def test_the_quota_counts_other_processes_files_and_names_the_setting(tmp_path):
    write(ShuffleFiles(tmp_path / "app"), [b"x" * 500])
    mine = ShuffleFiles(tmp_path / "app", quota_bytes=1000)
    write(mine, [b"y" * 300], map_partition=1)
    with pytest.raises(DiskQuotaExceeded, match="max_disk_bytes = 1000") as caught:
        write(mine, [b"z" * 300], map_partition=2)
    assert (caught.value.setting, caught.value.limit) == ("max_disk_bytes", 1000)
    assert sorted(path.name for path in (tmp_path / "app" / "shuffle-1").iterdir()) == ["map-0-7.data", "map-1-7.data"]
    mine.drop_shuffle(1)
    write(mine, [b"z" * 900], map_partition=2)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_gets_a_name_and_the_file_goes(tmp_path, code):
    path = tmp_path / "half"
    path.touch()
    with pytest.raises(DiskFull) as caught, removed_on_failure(path):
        raise OSError(code, os.strerror(code))
    assert caught.value.path == str(path)
    assert not path.exists()


def test_another_error_keeps_its_type_and_the_file_goes(tmp_path):
    path = tmp_path / "half"
    path.touch()
    with pytest.raises(KeyError), removed_on_failure(path):
        raise KeyError
    assert not path.exists()


def test_the_serving_side_answers_each_output_by_itself(files):
    write(files, [b"abc", b"x"], map_partition=0)
    path = write(files, [b"def", b"y"], map_partition=1)
    data = bytearray(path.read_bytes())
    data[0] ^= 0xFF
    path.write_bytes(data)
    answers = read_blocks(files, 1, 0, [(0, 7), (1, 7), (2, 7), (0, 8)])
    assert answers[0] == b"abc"
    assert [answer.partition(":")[0] for answer in answers[1:]] == ["corrupt", "missing", "missing"]
