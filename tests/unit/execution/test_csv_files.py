"""Comma separated values: names, types, the order of columns, and that what was written is read."""

from __future__ import annotations

import csv
import threading
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit.errors import BadInput, BadRow, StopIterationInTask
from flowkit.execution.csv_files import CsvFormat, ReadCsv, as_truth, differing_orders, distinct_names
from flowkit.execution.input_files import InputFile
from flowkit.execution.sinks import Written

FIXTURES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)


def read(
    path: Path,
    *,
    columns: tuple[str, ...] | None = None,
    header: bool = True,
    encoding: str = "utf-8",
    types: dict[str, Callable[[str], Any]] | None = None,
) -> list[Any]:
    return list(ReadCsv(columns, header, ",", encoding, types or {})(InputFile(str(path))))


def read_text(path: Path, text: str, encoding: str = "utf-8", **options: Any) -> list[Any]:
    path.write_bytes(text.encode(encoding))
    return read(path, **options)


def write(
    path: Path, rows: list[Any], columns: tuple[str, ...] | None = None, *, header: bool = True, encoding: str = "utf-8"
) -> Written:
    return CsvFormat(columns, header, ",", encoding).write(iter(rows), path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.csv"


# -- names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("a,b,a", ["a", "b", "a.1"]),
        ("a,a,a", ["a", "a.1", "a.2"]),
        ("a,a,a.1", ["a", "a.2", "a.1"]),
        (",,b", ["Unnamed: 0", "Unnamed: 1", "b"]),
        ("a,b,", ["a", "b", "Unnamed: 2"]),
    ],
)
def test_names_that_are_not_distinct_are_made_so_as_pandas_does(file, header, names):
    assert read_text(file, f"{header}\n1,2,3\n") == [dict(zip(names, "123"))]


@given(st.lists(st.sampled_from(["a", "b", "a.1", "a.1.1", "a.2", "", "Unnamed: 0", "Unnamed: 1"]), max_size=8))
def test_no_column_is_lost_whatever_the_names(names):
    found = distinct_names(names)
    assert len(set(found)) == len(names)
    assert all(name == given for given, name in zip(names, found) if given and names.count(given) == 1)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("text", ["id,name\n1,x\n", '"id",name\n1,x\n'])
def test_a_byte_order_mark_is_no_part_of_the_first_name(file, text, encoding):
    readers = {"utf-8-sig": ("utf-8", "utf-8-sig")}.get(encoding, (encoding,))
    for reader in readers:
        file.write_bytes(text.encode(encoding))
        assert read(file, encoding=reader) == [{"id": "1", "name": "x"}]


def test_blank_lines_before_the_names_are_skipped_and_a_file_without_names_has_no_rows(file):
    assert read_text(file, "\n\na,b\n\n1,2\n") == [{"a": "1", "b": "2"}]
    for empty in ("", "\n\n", "a,b\n", "\ufeff"):
        assert read_text(file, empty) == []


def test_columns_choose_among_the_names_of_a_header(file):
    assert read_text(file, "a,b,c\n1,2,3\n", columns=("c", "a")) == [{"c": "3", "a": "1"}]
    assert list(read(file, columns=("c", "a"))[0]) == ["c", "a"]
    with pytest.raises(BadInput, match=r"no column x, y in its first line, which names a, b, c; .* header=False"):
        read(file, columns=("x", "a", "y"))


def test_columns_name_what_has_no_header(file):
    assert read_text(file, "1,2\n3,4\n", columns=("b", "a"), header=False) == [{"b": "1", "a": "2"}, {"b": "3", "a": "4"}]
    with pytest.raises(BadInput, match="line 1: 2 fields for 3 columns"):
        read(file, columns=("a", "b", "c"), header=False)
    assert read(file, header=False) == [("1", "2"), ("3", "4")]


# -- types ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("True", "TRUE", "t", "yes", "1", " on ")),
        *((text, False) for text in ("False", "no", "N", "0", "off")),
    ],
)
def test_a_truth_value_is_read_by_its_word(file, text, value):
    assert as_truth(text) is value
    assert read_text(file, f"flag,n\n{text},1\n,2\n", types={"flag": bool}) == [
        {"flag": value, "n": "1"},
        {"flag": None, "n": "2"},
    ]


def test_what_is_no_truth_value_is_named(file):
    with pytest.raises(BadInput, match=r"a\.csv, line 3, column flag: 'perhaps' is no truth value: true, "):
        read_text(file, "flag\ntrue\nperhaps\n", types={"flag": bool})


def test_types_of_a_column_that_is_not_there_say_which_are(file):
    with pytest.raises(BadInput, match=r"a\.csv: types= of zz, and the columns read are a, b"):
        read_text(file, "a,b\n1,2\n", types={"zz": int})
    with pytest.raises(BadInput, match="types= of b, and the columns read are a"):
        read(file, columns=("a",), types={"b": int})


def test_an_error_of_a_users_own_converter_keeps_its_type_and_gets_its_place(file):
    with pytest.raises(KeyError) as raised:
        read_text(file, "a,b\n1,2\n", types={"b": {"3": "x"}.__getitem__})
    assert raised.value.__notes__ == [f"in {file}, line 2, column b: '2'"]
    with pytest.raises(StopIterationInTask, match="called by read_csv, raised StopIteration"):
        read(file, types={"b": lambda text: next(iter(()))})


def test_bytes_that_are_no_text_are_named_by_their_line(file):
    file.write_bytes(b"a,b\n1,2\n" * 3 + b"\xff,4\n")
    with pytest.raises(UnicodeDecodeError) as raised:
        read(file)
    assert raised.value.__notes__ == [f"in {file}, line 7; see read_csv(..., encoding=)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\n1,"2', "line 2: unexpected end of data"),
        ('a,b\n1,"2"x\n', "line 2: ',' expected after '\"'"),
        ("a,b\n\n1,2\n3\n", r"line 4: 1 fields for 2 columns: \['3'\]"),
        ('a,b\n1,"x\ny"\n3,4,5\n', "line 4: 3 fields for 2 columns"),
    ],
)
def test_a_broken_record_is_named_by_its_line_after_the_rows_before_it(file, text, message):
    file.write_text(text)
    with pytest.raises(BadInput, match=message):
        read(file)
    rows = ReadCsv(None, True, ",", "utf-8", {})(InputFile(str(file)))
    if "1,2" in text:
        assert next(rows) == {"a": "1", "b": "2"}


# -- fields of any size --------------------------------------------------------------------------------------------------


def test_fields_are_read_at_any_size_by_threads_that_begin_at_once(tmp_path):
    rows = [{"id": "1", "text": "x" * 200_000}, {"id": "2", "text": "line\n" * 50_000}]
    write(tmp_path / "a.csv", rows)
    before = csv.field_size_limit(131_072)
    together = threading.Barrier(4)

    def first(_: int) -> list[Any]:
        together.wait(10)
        return read(tmp_path / "a.csv")

    try:
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(first, range(4))) == [rows] * 4
    finally:
        csv.field_size_limit(max(before, csv.field_size_limit()))


# -- writing -------------------------------------------------------------------------------------------------------------


Point = namedtuple("Point", "x y")


@dataclass
class Place:
    x: int
    y: str


@pytest.mark.parametrize("row", [Point(1, "a"), Place(1, "a"), {"x": 1, "y": "a"}])
def test_rows_with_names_get_a_header(file, row):
    assert write(file, [row]) == Written(1, ("x", "y"))
    assert read(file) == [{"x": "1", "y": "a"}]
    write(file, [row, {"y": "b"}], ("y", "x"))
    assert read(file) == [{"y": "a", "x": "1"}, {"y": "b", "x": ""}]
    with pytest.raises(BadRow, match="has fields that are no columns: y; the columns are x, z"):
        write(file, [row], ("x", "z"))


def test_rows_without_names_have_none_unless_they_are_given(file):
    assert write(file, [(1, 2), [3, 4]]) == Written(2, None)
    assert file.read_text() == "1,2\n3,4\n"
    write(file, [(1, 2)], ("a", "b"))
    assert read(file) == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"a": 1}, {"b": 2}], "fields that are no columns: b; the columns are a"),
        ([(1, 2), {"a": 1}], "it has names, and rows before it have none"),
        ([{"a": 1}, (1, 2)], "needs a mapping, a dataclass instance or a sequence of 1"),
        ([5], "needs a mapping"),
        (["text"], "needs a mapping"),
        ([()], "with a field or more"),
        ([{}], "it has no fields"),
        ([{"": 1}], "a column has no name"),
        ([{1: "x", "1": "y"}], "two columns would have the name 1"),
    ],
)
def test_rows_that_cannot_be_told_apart_when_they_are_read_are_refused(file, rows, message):
    with pytest.raises(BadRow, match=message):
        write(file, rows)


def test_a_row_that_the_encoding_cannot_say_is_named(file):
    with pytest.raises(UnicodeEncodeError) as raised:
        write(file, [{"a": "x"}, {"a": "5 €"}], encoding="latin-1")
    assert "cannot be written in 'latin-1'" in raised.value.__notes__[0]


def test_files_without_a_header_have_one_order_of_columns():
    ab, ba, none = Written(1, ("a", "b")), Written(1, ("b", "a")), Written(1)
    assert differing_orders([[("0", ab)], [("1", ab), ("2", Written(0))]]) is None
    assert differing_orders([[("0", none)], [("1", none)]]) is None
    assert differing_orders([[("0", ab), ("1", ba)]]) == "0 has the columns a, b and 1 has b, a"
    assert differing_orders([[("0", none)], [("1", ba)]]) == "0 has rows without names and 1 has b, a"


FIELDS = st.text(st.sampled_from('ab,"\n\r\t \ufeff\x00\u2028é'), max_size=6)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@FIXTURES
@given(rows=st.lists(st.tuples(FIELDS, FIELDS), max_size=6), header=st.booleans())
def test_every_field_comes_back_as_it_was(file, encoding, rows, header):
    names = ("ä", "b") if header else None
    write(file, rows, names, header=header, encoding=encoding)
    assert [tuple(row.values()) if header else row for row in read(file, header=header, encoding=encoding)] == rows


@FIXTURES
@given(rows=st.lists(st.tuples(FIELDS, FIELDS), max_size=6))
def test_what_is_written_is_what_pythons_reader_reads(file, rows):
    write(file, rows)
    text = file.read_bytes().decode()
    if rows and rows[0][0].startswith("\ufeff") and not text.startswith('"'):
        text = text.removeprefix("\ufeff")  # the mark
    assert [tuple(row) for row in csv.reader(StringIO(text, newline=""))] == rows
