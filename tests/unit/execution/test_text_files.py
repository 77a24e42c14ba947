"""Lines written in any encoding, in files of any size, compressed or not, cut anywhere, are the lines that are read."""

from __future__ import annotations

import bz2
import gzip
import lzma
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit.execution import text_lines, text_writing
from flowkit.execution.file_readers import ParseJsonLines
from flowkit.execution.sinks import JsonLinesFormat, Portions, TextFormat
from flowkit.execution.text_lines import newline_is_one_byte
from flowkit.lineage.kernels import FileSplit, TextLines
from flowkit.storage.objects.compressed import SUFFIXES
from flowkit.storage.objects.local import codec_of
from tests.unit.execution.surroundings import Surroundings, chain_of

ENCODINGS = [
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "utf-32-be",
    "utf-7",
    "latin-1",
    "cp1252",
    "cp500",
    "cp037",
    "gb18030",
    "shift_jis",
    "big5",
    "iso2022_jp",
    "iso2022_kr",
    "hz",
]
OPENERS = {None: open, "gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open, "zstd": lambda path, mode: pa.input_stream(path)}


def lines_in(encoding: str) -> st.SearchStrategy[list[str]]:
    """Lines of what the encoding can say, one of U+FEFF and its like among them; no line ends within."""
    wanted = "ab ~{}+-\\\x0b\x0c\x1c\x85\u2028éßあ漢한\ufeff\U0001f600"
    known = [each for each in wanted if _is_known(each, encoding)]
    return st.lists(st.text(st.sampled_from(known), max_size=8), max_size=12)


def _is_known(character: str, encoding: str) -> bool:
    try:
        return character.encode(encoding).decode(encoding) == character
    except UnicodeError:
        return False


def split(path: Path, encoding: str, cuts: list[int]) -> list[FileSplit]:
    codec, size = codec_of(str(path)), path.stat().st_size
    if codec is not None or not newline_is_one_byte(encoding):
        return [FileSplit(str(path), 0, None, codec)]
    bounds = sorted({0, size, *(cut % (size + 1) for cut in cuts)})
    return [FileSplit(str(path), first, last - first, None) for first, last in pairwise(bounds)]


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(data=st.data())
def test_lines_come_back_whatever_the_encoding_the_portions_the_compression_and_the_cuts(
    surroundings: Surroundings, encoding: str, data: st.DataObject
) -> None:
    lines = data.draw(lines_in(encoding), label="lines")
    compression = data.draw(st.sampled_from([None, *SUFFIXES]), label="compression")
    file_bytes = data.draw(st.sampled_from([0, 1, 20]), label="file_bytes")
    cuts = data.draw(st.lists(st.integers(0, 300), max_size=4), label="cuts")
    block = data.draw(st.integers(1, 40), label="block")
    kind = TextFormat(encoding, compression)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_lines, "_FIRST_BLOCK_BYTES", block)
        patch.setattr(text_lines, "_BLOCK_BYTES", 2 * block)
        patch.setattr(text_writing, "_CHARACTERS_AT_ONCE", block)
        patch.setattr("flowkit.execution.sinks._LOOK_ROWS", 1)
        portions, files = Portions(iter(lines), file_bytes), []
        while not files or portions.has_more():
            files.append(surroundings.directory / f"part-{len(files)}{kind.extension}")
            kind.write(portions.until_full(files[-1]), files[-1])
        splits = [each for path in files for each in split(path, encoding, cuts)]
        found = [surroundings.run(chain_of(TextLines(((each,),), encoding))) for each in splits]
        assert [line for part in found for line in part] == lines
        assert surroundings.run(chain_of(TextLines((tuple(splits),), encoding))) == lines
    _check_with_python(files, lines, encoding, compression)


def _check_with_python(files: list[Path], lines: list[str], encoding: str, compression: str | None) -> None:
    """Python reads the same, but for a U+FEFF at the beginning, which it takes for a mark or for a character as the encoding goes."""
    read = []
    for path in files:
        with OPENERS[compression](path, "rb") as file:
            text = file.read().decode(encoding)
        if lines and path is files[0] and lines[0].startswith("\ufeff"):
            text = text.removeprefix("\ufeff\ufeff").removeprefix("\ufeff")
        read += text.split("\n")[:-1]
    expected = [lines[0].removeprefix("\ufeff"), *lines[1:]] if lines else []
    if len(files) == 1 and expected:
        assert read == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_bytes_are_written_as_they_are_with_the_line_end_of_the_encoding(tmp_path: Path, encoding: str) -> None:
    rows = ["é".encode(encoding.replace("16", "16-le")), "b", 3, b""]
    assert TextFormat(encoding).write(iter(rows), tmp_path / "out").rows == 4
    assert (tmp_path / "out").read_text(encoding=encoding) == "é\nb\n3\n\n"


def test_a_file_without_rows_is_empty(tmp_path: Path) -> None:
    for encoding in ENCODINGS:
        TextFormat(encoding).write(iter(()), tmp_path / "out")
        assert (tmp_path / "out").read_bytes().decode(encoding) == ""


def test_a_line_that_an_encoding_cannot_say_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError) as raised:
        TextFormat("latin-1").write(iter(["a", "preis: 5 €", "b"]), tmp_path / "out")
    assert raised.value.__notes__ == ["'preis: 5 €' cannot be written in 'latin-1'; see save_as_text(..., encoding=)"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters()),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=3), each, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(rows=st.lists(JSON, max_size=6))
def test_every_json_value_comes_back_as_it_was(surroundings: Surroundings, rows: list[object]) -> None:
    path = surroundings.directory / "out.jsonl"
    assert JsonLinesFormat().write(iter(rows), path).rows == len(rows)
    assert surroundings.run(chain_of(TextLines(((FileSplit(str(path), 0, None, None),),), parse=ParseJsonLines()))) == rows


def test_half_of_a_surrogate_pair_is_written_as_json_has_it(tmp_path: Path) -> None:
    JsonLinesFormat().write(iter([{"a": "\ud800"}, "é"]), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b'{"a": "\\ud800"}\n"\xc3\xa9"\n'
