"""Spill runs and the frames they consist of."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.errors import DataDamaged, DiskFull, InternalError, InvalidArgument
from flowkit.storage import codecs
from flowkit.storage.frames import batches_in, frame, frames_of_pieces
from flowkit.storage.runs import RunWriter
from flowkit.storage.serializers import decode_batch, encode_batch


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_a_run_gives_back_its_batches_in_order_as_often_as_asked(tmp_path, codec):
    batches = [[("a", 1), ("b", 2)], [None] * 1000, ["x" * 5000]]
    with RunWriter(tmp_path / "spill", "run-0", codec=codec) as writer:
        for batch in batches:
            writer.write(batch)
        run = writer.close()
    assert list(run.batches()) == batches
    assert list(run.batches()) == batches
    assert run.rows == 1003
    assert run.disk_bytes == run.path.stat().st_size
    run.delete()
    run.delete()
    assert list((tmp_path / "spill").iterdir()) == []


def test_a_large_batch_comes_back_in_pieces_of_about_a_megabyte(tmp_path):
    rows = [bytes([number % 256]) * 20_000 for number in range(500)]
    with RunWriter(tmp_path, "run") as writer:
        writer.write(rows)
        writer.write([b"x" * (5 << 20), *rows])
        writer.write([])
        run = writer.close()
    pieces = list(run.batches())
    assert [row for piece in pieces for row in piece] == [*rows, b"x" * (5 << 20), *rows]
    assert run.rows == 1001
    assert max(sum(map(len, piece)) for piece in pieces if len(piece) > 1) <= 2 << 20
    assert len(pieces) < 40


def test_a_writer_that_is_left_by_an_exception_leaves_no_file(tmp_path):
    with pytest.raises(KeyError), RunWriter(tmp_path, "run") as writer:
        writer.write([1])
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InternalError, match="closed"):
        writer.write([2])


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path):
    with RunWriter(tmp_path, "run") as writer:
        real = writer._file

        class Full:
            def write(self, data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            def close(self):
                real.close()

        writer._file = Full()
        with pytest.raises(DiskFull) as caught:
            writer.write([1])
        assert caught.value.path == str(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_cut_short_is_not_read_as_a_whole_one(tmp_path):
    writer = RunWriter(tmp_path, "run")
    writer.write(["abc"] * 10)
    run = writer.close()
    os.truncate(run.path, run.disk_bytes - 1)
    with pytest.raises(DataDamaged, match="checksum does not fit"):
        list(run.batches())


@given(st.lists(st.lists(st.integers() | st.text()), max_size=5), st.integers(1, 40), st.sampled_from([0, 1, 2]))
def test_frames_are_the_same_whole_or_in_pieces_cut_anywhere(batches, piece_bytes, codec):
    data = b"".join(frame(encode_batch(batch), codec) for batch in batches)
    pieces = [data[start : start + piece_bytes] for start in range(0, len(data), piece_bytes)]
    assert list(batches_in(data)) == batches
    assert list(map(decode_batch, frames_of_pieces(pieces))) == batches


@given(st.integers(1, 30))
def test_frames_cut_short_are_refused(cut):
    data = frame(encode_batch([1, "a", None]))
    for read in (lambda: list(batches_in(data[:-cut])), lambda: list(frames_of_pieces([data[:-cut]]))):
        with pytest.raises(ValueError, match="ends inside a frame"):
            read()


def test_an_unknown_codec_is_refused_with_the_known_ones():
    with pytest.raises(InvalidArgument, match=r"no codec 'gzip'; known: none, lz4, zstd"):
        codecs.codec_number("gzip")


def test_a_compressed_batch_is_smaller():
    encoded = encode_batch(["the same words again"] * 1000)
    for number in (1, 2):
        assert len(codecs.compress(number, encoded)) < len(encoded) / 3


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_a_run_of_which_any_byte_is_another_or_missing_is_never_read_as_if_it_were_whole(tmp_path, codec):
    batches = [[("a", 1), ("b", 2)], [None] * 30, ["x" * 50]]
    with RunWriter(tmp_path, "run", codec=codec) as writer:
        for batch in batches:
            writer.write(batch)
        run = writer.close()
    data = run.path.read_bytes()
    for place in range(len(data)):
        run.path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(DataDamaged, match="spill run .* is damaged") as raised:
            list(run.batches())
        assert raised.value.path == str(run.path)
        run.path.write_bytes(data[:place])
        with pytest.raises(DataDamaged):
            list(run.batches())
    run.path.write_bytes(data + b"more")
    assert list(run.batches()) == batches
