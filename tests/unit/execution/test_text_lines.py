"""Files as lines: whoever splits them wherever, each line is read once and by one split."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit.errors import BadInput, InvalidArgument
from flowkit.execution import text_lines
from flowkit.execution.file_readers import ParseJsonLines
from flowkit.execution.sources import LinesAt
from flowkit.lineage.kernels import FileSplit, TextLines, WholeFiles
from tests.unit.execution.surroundings import Surroundings, chain_of

FIXTURES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
#: form feed, next line and line separator are data, whatever str.splitlines says
TEXTS = st.text(st.sampled_from("ab\n\n\r\r é\x0c\x85\u2028\ufeff\U0001f600"), max_size=60)


def expected_lines(text: str) -> list[str]:
    """As Python's ``open`` reads text; a byte order mark at its beginning is none of it."""
    return [line.removesuffix("\n") for line in io.StringIO(text.removeprefix("\ufeff"), newline=None)]


def read(surroundings: Surroundings, splits: list[FileSplit], encoding: str = "utf-8", errors: str = "strict") -> list[str]:
    return surroundings.run(chain_of(TextLines((tuple(splits),), encoding, errors)))


def splits_of(path: Path, cuts: list[int]) -> list[FileSplit]:
    size = path.stat().st_size
    bounds = sorted({0, size, *(cut % (size + 1) for cut in cuts)})
    return [FileSplit(str(path), first, last - first, None) for first, last in zip(bounds, bounds[1:], strict=False)]


@FIXTURES
@given(text=TEXTS, cuts=st.lists(st.integers(0, 1000), max_size=6), block=st.integers(1, 40))
def test_every_line_belongs_to_exactly_one_split(surroundings: Surroundings, text: str, cuts: list[int], block: int) -> None:
    path = surroundings.directory / "text"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_lines, "_FIRST_BLOCK_BYTES", block)
        patch.setattr(text_lines, "_BLOCK_BYTES", 2 * block)
        splits = splits_of(path, cuts)
        each = [read(surroundings, [split]) for split in splits]
        assert [line for lines in each for line in lines] == expected_lines(text)
        assert read(surroundings, splits) == expected_lines(text)
        assert surroundings.metrics.input_rows == len(expected_lines(text))


def test_a_split_owns_the_lines_that_begin_in_it(surroundings: Surroundings) -> None:
    path = surroundings.directory / "text"
    path.write_bytes(b"aaa\nbbb\nccc\n")
    assert read(surroundings, [FileSplit(str(path), 0, 4, None)]) == ["aaa"]
    assert read(surroundings, [FileSplit(str(path), 0, 5, None)]) == ["aaa", "bbb"]
    assert read(surroundings, [FileSplit(str(path), 4, 4, None)]) == ["bbb"]
    assert read(surroundings, [FileSplit(str(path), 5, 2, None)]) == []
    assert read(surroundings, [FileSplit(str(path), 5, None, None)]) == ["ccc"]


def test_bytes_read_are_counted_about_once(surroundings: Surroundings) -> None:
    path = surroundings.directory / "text"
    path.write_bytes(b"0123456789\n" * 30_000)
    read(surroundings, splits_of(path, [100_000, 200_000]))
    assert path.stat().st_size <= surroundings.metrics.input_bytes <= path.stat().st_size * 1.5


@pytest.mark.parametrize(
    ("codec", "compress"),
    [
        ("gz", gzip.compress),
        ("bz2", bz2.compress),
        ("xz", lzma.compress),
        ("zst", lambda data: pa.compress(data, "zstd", asbytes=True)),
    ],
)
@pytest.mark.parametrize("pieces", [1, 3], ids=["one stream", "streams end to end"])
def test_compressed_files_are_read_whole(surroundings: Surroundings, codec: str, compress, pieces: int) -> None:
    lines = [f"line {i}" for i in range(40_000)]
    path = surroundings.directory / f"text.{codec}"
    path.write_bytes(compress("".join(line + "\n" for line in lines).encode()) * pieces)
    assert read(surroundings, [FileSplit(str(path), 0, None, codec)]) == lines * pieces
    assert surroundings.metrics.input_bytes == path.stat().st_size
    assert surroundings.metrics.input_rows == 40_000 * pieces


def test_an_unknown_codec_is_named(surroundings: Surroundings) -> None:
    path = surroundings.directory / "text.rar"
    path.write_bytes(b"x")
    with pytest.raises(InvalidArgument, match="codec = 'rar'"):
        read(surroundings, [FileSplit(str(path), 0, None, "rar")])


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
def test_encodings(surroundings: Surroundings, encoding: str) -> None:
    lines = ["é", "", "abc", "ü" * 100_000, "end"]
    path = surroundings.directory / "text"
    path.write_bytes("\r\n".join(lines).encode(encoding))
    assert read(surroundings, [FileSplit(str(path), 0, None, None)], encoding) == lines


def test_a_file_whose_newlines_are_wide_cannot_be_split(surroundings: Surroundings) -> None:
    path = surroundings.directory / "text"
    path.write_bytes("a\nb\n".encode("utf-16"))
    assert read(surroundings, [FileSplit(str(path), 0, path.stat().st_size, None)], "utf-16") == ["a", "b"]
    with pytest.raises(InvalidArgument, match="was split by bytes"):
        read(surroundings, [FileSplit(str(path), 4, 4, None)], "utf-16")


def test_bytes_that_are_no_text_fail_with_file_and_line_or_are_replaced(surroundings: Surroundings) -> None:
    path = surroundings.directory / "text"
    path.write_bytes(b"good\nb\xffad\n")
    with pytest.raises(UnicodeDecodeError) as caught:
        read(surroundings, [FileSplit(str(path), 0, None, None)])
    assert str(path) in caught.value.__notes__[0]
    assert r"b'b\xffad'" in caught.value.__notes__[0]
    assert read(surroundings, [FileSplit(str(path), 0, None, None)], errors="replace") == ["good", "b�ad"]


@FIXTURES
@given(text=TEXTS, cuts=st.lists(st.integers(0, 1000), max_size=4), block=st.integers(1, 40), data=st.data())
def test_a_line_that_is_no_text_is_named_by_its_number_in_the_file(
    surroundings: Surroundings, text: str, cuts: list[int], block: int, data: st.DataObject
) -> None:
    lines = expected_lines(text)
    number = data.draw(st.integers(1, len(lines) + 1))
    ends = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    path = surroundings.directory / "text"
    before = "".join(line + ends for line in lines[: number - 1]).encode()
    path.write_bytes(before + b"b\xffad" + ends.encode() + "".join(line + ends for line in lines[number - 1 :]).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_lines, "_FIRST_BLOCK_BYTES", block)
        patch.setattr(text_lines, "_BLOCK_BYTES", 2 * block)
        with pytest.raises(UnicodeDecodeError) as raised:
            for split in splits_of(path, cuts):
                read(surroundings, [split])
    assert f"in {path}, line {number}, which begins with b'b\\xffad'" in raised.value.__notes__[0]


def test_where_too_much_lies_before_a_line_its_number_is_left_out(
    surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = surroundings.directory / "text"
    path.write_bytes(b"a\nb\nc\n{\n")
    split = FileSplit(str(path), 4, 5, None)
    with pytest.raises(BadInput, match=r"text, line 4: not JSON: '\{'"):
        list(ParseJsonLines()(["{"], LinesAt(split, 1)))
    monkeypatch.setattr(text_lines, "_MOST_COUNTED_BYTES", 1)
    with pytest.raises(BadInput, match=r"text, line 2 of those that begin at byte 4 or later: not JSON: '\{'"):
        list(ParseJsonLines()(["{"], LinesAt(split, 1)))


def test_taking_a_line_reads_one_block(surroundings: Surroundings) -> None:
    path = surroundings.directory / "text"
    path.write_bytes(b"line\n" * 1_000_000)
    split = FileSplit(str(path), 0, None, None)
    assert surroundings.run(chain_of(TextLines(((split,),)), fn=lambda _, it: next(it))) == "line"
    assert surroundings.metrics.input_bytes <= 64 * 1024


def test_whole_files_come_with_their_paths(surroundings: Surroundings) -> None:
    paths = [surroundings.directory / name for name in "ab"]
    for path in paths:
        path.write_bytes(path.name.encode() * 3)
    program = chain_of(WholeFiles((tuple(map(str, paths)),)))
    assert surroundings.run(program) == [(str(paths[0]), b"aaa"), (str(paths[1]), b"bbb")]
    assert (surroundings.metrics.input_bytes, surroundings.metrics.input_rows) == (6, 2)
