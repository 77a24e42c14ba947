"""One schema for a whole save, every value as it was given, or an error with column, row and value and nothing at the path."""

# ruff: noqa: DTZ001, DTZ901 (moments without a zone are what is tested)

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowkit.errors import BadRow, InvalidArgument, OutputExists
from flowkit.testing.inline import inline_context


@pytest.fixture(scope="module")
def fc():
    with inline_context(slots=2, validate=False) as context:
        yield context


def saved(fc: Any, place: Path, *partitions: list[Any], **how: Any) -> list[dict[str, Any]]:
    fc.parallelize(partitions, len(partitions)).flat_map(list).save_as_parquet(place, **how)
    return fc.read_parquet(place).collect()


def values(*partitions: list[Any]) -> list[list[dict[str, Any]]]:
    return [[{"v": value} for value in part] for part in partitions]


def schemas(place: Path) -> set[str]:
    return {str(pq.read_schema(file)) for file in place.rglob("*.parquet")}


DECIMAL = decimal.Decimal
NOON = dt.datetime(2020, 1, 1, 12)
TWO = dt.timezone(dt.timedelta(hours=2))


# -- partitions that do not agree ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (None, "x"),
        (1, 2.5),
        (1.5, 2**60),
        ([], [1]),
        ([[]], [["x"]]),
        ({"x": 1}, {"y": "z"}),
        ({}, {"x": 1}),
        ([{"x": None}], [{"x": b"b"}]),
        (DECIMAL("1.1"), DECIMAL("100.123")),
        (7, DECIMAL("1.25")),
        (1, 2**63),
    ],
)
@pytest.mark.parametrize("turned", [False, True], ids=["so", "turned"])
@pytest.mark.parametrize("together", [False, True], ids=["two partitions", "one partition"])
def test_rows_that_infer_different_types_become_one_table(fc, tmp_path, monkeypatch, first, second, turned, together):
    monkeypatch.setattr("flowkit.execution.parquet_writing._ROWS_AT_ONCE", 1)
    pair = [second, first] if turned else [first, second]
    parts = values(pair) if together else values([pair[0]], [pair[1]])
    back = [row["v"] for row in saved(fc, tmp_path / "out", *parts)]
    for given, found in zip(pair, back, strict=True):
        if isinstance(given, dict):
            assert found == {name: given.get(name) for name in found}
        else:
            assert found == given
    assert len(schemas(tmp_path / "out")) == 1
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] and not list(tmp_path.rglob("*.piece*"))


def test_a_field_that_only_later_rows_have_is_none_in_those_before(fc, tmp_path):
    rows = [{"a": number} for number in range(9_000)] + [{"a": -1, "b": "x"}]
    back = saved(fc, tmp_path / "out", rows, [{"c": 1}])
    assert back[0] == {"a": 0, "b": None, "c": None}
    assert back[-2:] == [{"a": -1, "b": "x", "c": None}, {"a": None, "b": None, "c": 1}]
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 2


def test_rows_that_are_alike_are_written_by_one_job_and_others_by_two(fc, tmp_path):
    def jobs(*partitions: list[Any]) -> int:
        place = tmp_path / str(len(partitions[0]))
        fc._bus.wait_until_empty(20)
        before = fc.status.summary().jobs
        fc.parallelize(partitions, len(partitions)).flat_map(list).save_as_parquet(place)
        fc._bus.wait_until_empty(20)
        return fc.status.summary().jobs - before

    assert jobs(*values([1], [2])) == 1
    assert jobs(*values([1, 2], [2.5])) == 2


def test_files_cut_by_size_and_laid_into_directories_have_one_schema_too(fc, tmp_path):
    parts = [
        [{"n": number if part else number / 2, "k": number % 2, "text": "x" * 100} for number in range(3_000)] for part in (0, 1)
    ]
    back = saved(fc, tmp_path / "out", *parts, target_file_bytes=2_000, partition_by=["k"])
    assert sorted(row["n"] for row in back) == sorted(row["n"] for part in parts for row in part)
    assert all(type(row["n"]) is float for row in back)
    assert len(schemas(tmp_path / "out")) == 1


# -- values that no column holds ---------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


REFUSED = {
    "float after ints over 2**53": (values([2**53 + 1, 1.5]), r"column 'v', row 0 of partition 0: 9007199254740993 \(int\)"),
    "the same in two partitions": (
        values([1, 2**53 + 1], [1.5]),
        r"column 'v', in the row \{'v': 9007199254740993\} of partition 0",
    ),
    "64 bits": (values([1, 2**64]), r"column 'v', row 1 of partition 0: 18446744073709551616 \(int\) has more than 64 bits"),
    "unsigned and negative": (values([2**63], [-1]), r"\{'v': -1\} of partition 1: -1 \(int\) does not fit uint64"),
    "bool and int": (values([True, 1]), r"row 1 of partition 0: 1 \(int\) stands in one column with bool values \(True\)"),
    "bool and int apart": (
        values([True], [1]),
        r"'v' is bool in partition 0 and int64 in partition 1.*\{'v': True\}.*\{'v': 1\}",
    ),
    "text and bytes": (values(["a", b"b"]), r"row 1 of partition 0: b'b' \(bytes\) stands in one column with str"),
    "date and moment": (values([NOON.date(), NOON]), r"row 1 of partition 0: datetime.datetime\(2020, 1, 1, 12, 0\)"),
    "naive and aware": (values([NOON, NOON.replace(tzinfo=TWO)]), r"row 1 .* has a time zone, and values before it have none"),
    "aware and naive": (values([NOON.replace(tzinfo=TWO), NOON]), r"row 1 .* has no time zone, and values before it have one"),
    "aware time": (values([dt.time(1, tzinfo=dt.UTC)]), r"row 0 .* time of day with a time zone"),
    "outside UTC": (values([dt.datetime.max.replace(tzinfo=dt.timezone(-dt.timedelta(hours=1)))]), "outside the years 1 to 9999"),
    "too long": (values([dt.timedelta.max]), "longer than 64 bits of microseconds"),
    "decimal NaN": (values([DECIMAL(1), DECIMAL("NaN")]), r"row 1 of partition 0: Decimal\('NaN'\)"),
    "decimal and float": (values([DECIMAL(1), 1.5]), r"row 1 of partition 0: 1.5 \(float\)"),
    "enum": (values([Colour.RED]), r"row 0 of partition 0: <Colour.RED: 1> \(Colour\) is of a type that no column has"),
    "set": (values([{1}]), r"row 0 of partition 0: \{1\} \(set\) would be stored as \[1\]"),
    "surrogate": (values(["ok", "\ud800"]), r"row 1 of partition 0: '\\ud800' \(str\)"),
    "nested": (values([[{"x": 1}]], [[{"x": 2}, {"x": "a"}]]), r"column 'v\[\].x', row 0 of partition 1: 'a' \(str\)"),
    "nanoseconds": (values([np.datetime64(1, "ns")]), "not a whole number of microseconds"),
    "complex": (values([np.complex128(1)]), "for which there is no column"),
    "key": (values([{1: 2}]), "has the key 1, which is no text"),
    "column name": ([[{1: 2}]], r"\{1: 2\} has the column name 1 \(int\)"),
    "no row": ([[3]], "cannot write 3 as a row of columns"),
    "no column": ([[{}, {}]], "rows are mappings without any field"),
    "no field": (values([{}]), "column 'v' holds mappings without any field"),
}


@pytest.mark.parametrize(("parts", "message"), REFUSED.values(), ids=REFUSED)
def test_a_value_that_cannot_be_kept_is_named_and_nothing_appears(fc, tmp_path, parts, message):
    with pytest.raises(BadRow, match=f"(?s){message}"):
        saved(fc, tmp_path / "out", *parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # tens of thousands of rows
def test_the_row_of_an_error_is_counted_over_all_batches_of_its_partition(fc, tmp_path):
    with pytest.raises(
        TypeError, match=r"column 'v', row 20001 of partition 1: 'x' \(str\) stands in one column with int values"
    ):
        saved(fc, tmp_path / "out", *values([1], [*range(20_001), "x"]))
    with pytest.raises(BadRow, match=r"'v' is int64 in rows before row 8192 of partition 1, and string \('x'\) from there on"):
        saved(fc, tmp_path / "out", *values([1], [*range(8_192), None, "x"]))
    with pytest.raises(BadRow, match=r"column 'v', row 20001 of partition 1: 'x' \(str\)"):
        saved(fc, tmp_path / "out", *values([1], [*range(20_001), "x"]), schema=pa.schema([("v", pa.int64())]))


def test_mappings_whose_names_are_data_are_refused_before_they_fill_memory(fc, tmp_path, monkeypatch):
    monkeypatch.setattr("flowkit.storage.tables.values._MANY_NAMES", 100)
    rows = [{f"user {number}": number} for number in range(300)]
    with pytest.raises(BadRow, match="300 different fields"):
        saved(fc, tmp_path / "out", rows)
    with pytest.raises(BadRow, match="300 different keys"):
        saved(fc, tmp_path / "out", values(rows)[0])
    wide = [{f"column {number}": number for number in range(300)}] * 2
    assert saved(fc, tmp_path / "wide", wide) == wide


# -- values that come back as something equal --------------------------------------------------------------------------------------

Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Place:
    x: int
    y: str


class Level(enum.IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    ("given", "back"),
    [
        (np.int8(1), 1),
        (np.float32(1.5), 1.5),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.datetime64("2020-01-01T12:00:00.000000", "ns"), NOON),
        (np.datetime64("2020-01-01"), NOON.date()),
        (np.datetime64("NaT"), None),
        (np.timedelta64(5, "s"), dt.timedelta(seconds=5)),
        (np.array([1.5, 2], np.float32), [1.5, 2.0]),
        (np.array([[1, 2], [3, 4]], ">i4"), [[1, 2], [3, 4]]),
        (np.array(["a", None], object), ["a", None]),
        ((1, 2), [1, 2]),
        (Point(1, 2), [1, 2]),
        (bytearray(b"x"), b"x"),
        (Level.LOW, 1),
        (2**64 - 1, 2**64 - 1),
        (uuid.UUID(int=5), uuid.UUID(int=5)),
        (NOON.replace(tzinfo=dt.timezone(dt.timedelta(seconds=1))), NOON.replace(tzinfo=dt.timezone(dt.timedelta(seconds=1)))),
    ],
)
def test_values_of_kin_come_back_as_pythons_own(fc, tmp_path, given, back):
    assert saved(fc, tmp_path / "out", *values([given, None])) == [{"v": back}, {"v": None}]


def test_namedtuples_and_dataclasses_are_rows(fc, tmp_path):
    assert saved(fc, tmp_path / "out", [Point(1, "a")], [Place(2, "b")]) == [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}]


def test_tables_batches_and_mappings_may_stand_side_by_side(fc, tmp_path):
    rows = [{"a": 1}, pa.table({"a": [2.5], "b": ["x"]}), {"a": 3}, pa.record_batch({"b": pa.array(["y"]).dictionary_encode()})]
    back = [{"a": 1.0, "b": None}, {"a": 2.5, "b": "x"}, {"a": 3.0, "b": None}, {"a": None, "b": "y"}]
    assert saved(fc, tmp_path / "out", rows) == back
    with pytest.raises(BadRow, match="several columns of the name a"):
        saved(fc, tmp_path / "no", [pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])])


# -- a schema that is given ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "back"),
    [
        (pa.float32(), 1, 1.0),
        (pa.int8(), 5.0, 5),
        (pa.float64(), 2**64, 2.0**64),
        (pa.decimal128(38, 2), 2**64, DECIMAL(2**64)),
        (pa.timestamp("us"), NOON.date(), dt.datetime(2020, 1, 1)),
        (pa.dictionary(pa.int8(), pa.string()), "x", "x"),
        (pa.large_list(pa.int16()), [1], [1]),
        (pa.list_(pa.float64(), 2), [1, 2], [1.0, 2.0]),
        (pa.map_(pa.string(), pa.int64()), {"a": 1}, [("a", 1)]),
        (pa.struct([("x", pa.int32()), ("y", pa.string())]), {"x": 1}, {"x": 1, "y": None}),
    ],
    ids=str,
)
def test_what_fits_a_schema_exactly_is_written_with_it(fc, tmp_path, kind, value, back):
    assert saved(fc, tmp_path / "out", *values([value], []), schema=pa.schema([("v", kind)])) == [{"v": back}]
    assert pq.read_schema(tmp_path / "out" / "part-00001.parquet").field("v").type == kind or pa.types.is_nested(kind)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.int64(), 1.5),
        (pa.int64(), "1"),
        (pa.int8(), 300),
        (pa.uint64(), -1),
        (pa.float32(), 0.1),
        (pa.float32(), 2**24 + 1),
        (pa.string(), b"x"),
        (pa.string(), 1),
        (pa.bool_(), 1),
        (pa.timestamp("s"), NOON.replace(microsecond=5)),
        (pa.timestamp("us", "UTC"), NOON),
        (pa.date32(), NOON),
        (pa.time32("s"), dt.time(1, 1, 1, 5)),
        (pa.decimal128(5, 1), DECIMAL("1.25")),
        (pa.list_(pa.int64(), 2), [1]),
        (pa.map_(pa.string(), pa.int64()), {"a": 1.5}),
        (pa.struct([("x", pa.int64())]), {"x": 1, "z": 2}),
        (pa.dictionary(pa.int8(), pa.string()), 5),
    ],
    ids=str,
)
def test_what_does_not_fit_a_schema_is_named_with_column_and_row(fc, tmp_path, kind, value):
    with pytest.raises(
        TypeError, match=r"column 'v(\.z)?', row 1 of partition 0: .* \(\w+\) (does not fit|would be stored as|is of a field)"
    ):
        saved(fc, tmp_path / "out", *values([None, value]), schema=pa.schema([("v", kind)]))
    assert list(tmp_path.iterdir()) == []


def test_columns_beside_a_schema_are_refused_and_those_that_rows_lack_are_none(fc, tmp_path):
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    assert saved(fc, tmp_path / "out", [{"a": 1}], schema=schema) == [{"a": 1, "b": None}]
    with pytest.raises(BadRow, match="fields that the schema has not: c"):
        saved(fc, tmp_path / "no", [{"a": 1, "c": 2}], schema=schema)
    with pytest.raises(BadRow, match="columns that the schema has not: c"):
        saved(fc, tmp_path / "no", [pa.table({"c": [1]})], schema=schema)
    strict = pa.schema([pa.field("a", pa.int64(), nullable=False)])
    with pytest.raises(BadRow, match=r"column 'a', row 1 of partition 0: None .* not nullable"):
        saved(fc, tmp_path / "no", [{"a": 1}, {}], schema=strict)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"schema": "a: int"}, "must be a pyarrow.Schema, not str"),
        ({"schema": pa.schema([("a", pa.int64()), ("a", pa.int64())])}, "several columns of the name a"),
        ({"schema": pa.schema([])}, "no columns"),
        ({"schema": pa.schema([("a", pa.struct([]))])}, "column 'a' is a struct without fields"),
        ({"schema": pa.schema([("a", pa.int64())]), "partition_by": ["k"]}, "the schema has no column k"),
        ({"partition_by": "k"}, "must be a list of names"),
        ({"partition_by": ["k", "k"]}, "each once"),
        ({"compression": "rar"}, "must be one of"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_the_call(fc, tmp_path, how, message):
    with pytest.raises(InvalidArgument, match=message):
        fc.parallelize([{"a": 1}]).map(lambda row: 1 / 0).save_as_parquet(tmp_path / "out", **how)


def test_no_rows_are_a_table_without_rows(fc, tmp_path):
    schema = pa.schema([("a", pa.int64())])
    assert saved(fc, tmp_path / "bare", [], []) == []
    assert saved(fc, tmp_path / "with", [], [], schema=schema) == []
    assert fc.read_parquet(tmp_path / "with", columns=["a"]).collect() == []
    fc.empty().save_as_parquet(tmp_path / "none")
    assert fc.read_parquet(tmp_path / "none").collect() == []


# -- directories ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kept",
    [
        [1, 2**40],
        [1.5, 2.0, float("inf")],
        [dt.date(2020, 1, 1), None],
        [NOON, NOON.replace(microsecond=5)],
        [NOON.replace(tzinfo=dt.UTC)],
        [dt.time(1, 2), dt.time(1, 2, 3, 4)],
        [True, False],
        ["01", "1"],
        ["1", "2"],
        ["2020-01-01"],
        ["nan", "", "null", None, ".", "..", "_x", ".hidden", "a/b", "c=d", "e f%", "ü", "?#&", "line\nend"],
        [DECIMAL("1.10"), DECIMAL("2.25")],
        [None],
    ],
    ids=str,
)
def test_directories_give_back_the_very_values(fc, tmp_path, kept):
    rows = [{"n": number, "k": value} for number, value in enumerate(kept)]
    back = sorted(saved(fc, tmp_path / "out", rows, partition_by=["k"]), key=lambda row: row["n"])
    assert back == rows
    assert [type(row["k"]) for row in back] == [type(value) for value in kept]


@pytest.mark.parametrize("name", ["_k", ".k", "a/b", "a=b", "ü", "50%", "with space"])
def test_names_of_directories_may_have_any_character(fc, tmp_path, name):
    rows = [{"n": 1, name: "x"}]
    assert saved(fc, tmp_path / "out", rows, partition_by=[name]) == rows


def test_values_that_are_not_equal_to_themselves_share_a_directory(fc, tmp_path):
    rows = [{"n": number, "k": float("nan")} for number in range(5)]
    assert sorted(row["n"] for row in saved(fc, tmp_path / "out", rows, partition_by=["k"])) == list(range(5))
    assert len(list((tmp_path / "out").glob("*/*.parquet"))) == 1


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([[{"n": 1, "k": b"x"}]], "column 'k' is binary, of which no directories are made"),
        ([[{"n": 1, "k": [1]}]], "column 'k' is list<"),
        ([[{"n": 1, "k": "__HIVE_DEFAULT_PARTITION__"}]], "has the value '__HIVE_DEFAULT_PARTITION__'"),
        ([[{"k": 1}]], "names all columns"),
        ([[{"n": 1}], [{"n": 2}]], "rows have no column k to partition by; they have n"),
        ([[{"n": 1, "k": 2**53 + 1}], [{"n": 1, "k": 0.5}]], "column 'k': 9007199254740993 does not fit double"),
        ([[{"n": 1, "k": 1}], [{"n": 1, "k": "x"}]], "column 'k' is int64 in partition 0 and string in partition 1"),
    ],
)
def test_columns_that_make_no_directories_are_refused(fc, tmp_path, parts, message):
    with pytest.raises(BadRow, match=message):
        saved(fc, tmp_path / "out", *parts, partition_by=["k"])
    assert list(tmp_path.iterdir()) == []


def test_every_file_says_the_one_type_of_its_directories(fc, tmp_path, monkeypatch):
    monkeypatch.setattr("flowkit.execution.parquet_writing._ROWS_AT_ONCE", 1)
    back = saved(
        fc, tmp_path / "out", [{"n": 1, "k": None}, {"n": 2, "k": 1}, {"n": 3, "k": 2.5}], [{"n": 4, "k": 4}], partition_by=["k"]
    )
    assert sorted((row["n"], row["k"]) for row in back) == [(1, None), (2, 1.0), (3, 2.5), (4, 4.0)]
    assert len({pq.read_schema(file).metadata[b"flowkit.directories"] for file in tmp_path.rglob("*.parquet")}) == 1


def test_a_row_without_the_column_of_the_directories_has_none_there(fc, tmp_path):
    back = saved(fc, tmp_path / "out", [{"n": 1}], [{"n": 2, "k": 5}], partition_by=["k"])
    assert sorted(map(str, back)) == ["{'n': 1, 'k': None}", "{'n': 2, 'k': 5}"]


# -- adding to a table -----------------------------------------------------------------------------------------------------------


def added(fc: Any, place: Path, first: list[Any], second: list[Any], **how: Any) -> list[dict[str, Any]]:
    fc.parallelize(first, 1).save_as_parquet(place, **how)
    fc.parallelize(second, 1).save_as_parquet(place, mode="append", **how)
    return sorted(fc.read_parquet(place).collect(), key=str)


def test_what_is_added_is_written_to_fit_the_table(fc, tmp_path):
    assert added(fc, tmp_path / "a", [{"v": 1.5}], [{"v": 2}]) == [{"v": 1.5}, {"v": 2.0}]
    assert added(fc, tmp_path / "b", [{"v": 1}], [{"v": 2.5}]) == [{"v": 1.0}, {"v": 2.5}]
    assert added(fc, tmp_path / "c", [{"v": 1}], [{"w": "x"}]) == [{"v": 1, "w": None}, {"v": None, "w": "x"}]
    assert added(fc, tmp_path / "d", [{"v": 1, "k": "01"}], [{"v": 2, "k": "2"}], partition_by=["k"])[0]["k"] == "01"
    assert added(fc, tmp_path / "e", [], [{"v": 2}]) == [{"v": 2}]
    assert {str(pq.read_schema(file).field("v").type) for file in (tmp_path / "a").glob("*.parquet")} == {"double"}


@pytest.mark.parametrize(
    ("first", "second", "how", "message"),
    [
        ([{"v": 1}], [{"v": "x"}], {}, r"'v' is int64 in .*part-00000.parquet and string in partition 0.*\{'v': 'x'\}"),
        ([{"v": 1.5}], [{"v": 2**53 + 1}], {}, r"9007199254740993 \(int\) does not fit double"),
        ([{"v": 2**53 + 1}], [{"v": 1.5}], {}, r"'v' is int64 in .*part-00000.parquet, with numbers from 9007199254740993"),
        ([{"v": 1}], [{"V": 2}], {}, r"'v' of .*part-00000.parquet is called 'V' in partition 0"),
        ([{"v": 1, "k": "a"}], [{"v": 1, "k": 2}], {"partition_by": ["k"]}, r"'k' is string in .*k=a.* and int64 in partition 0"),
    ],
)
def test_what_would_make_a_table_unreadable_is_not_added(fc, tmp_path, first, second, how, message):
    with pytest.raises(BadRow, match=message):
        added(fc, tmp_path / "out", first, second, **how)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out"]
    assert fc.read_parquet(tmp_path / "out").collect() == first


def test_a_schema_that_does_not_unite_with_the_table_is_refused_at_the_call(fc, tmp_path):
    fc.parallelize([{"v": 1}], 1).save_as_parquet(tmp_path / "out")
    with pytest.raises(InvalidArgument, match=r"'v' is int64 in .*part-00000.parquet and string in the schema given"):
        fc.parallelize([{"v": "x"}], 1).map(lambda row: 1 / 0).save_as_parquet(
            tmp_path / "out", mode="append", schema=pa.schema([("v", pa.string())])
        )
    with pytest.raises(OutputExists):
        fc.parallelize([{"v": 1}], 1).save_as_parquet(tmp_path / "out")


def test_a_file_may_be_rewritten_again_after_its_writer_was_lost(fc, tmp_path):
    from flowkit.execution.parquet_writing import RewriteParquet
    from flowkit.execution.sinks import LocalTarget

    pq.write_table(pa.table({"v": [1, 2]}), tmp_path / "a.parquet")
    again = RewriteParquet(
        LocalTarget(str(tmp_path)), ((0, "a.parquet"),), pa.schema([("v", pa.float64()), ("w", pa.string())]), "snappy"
    )
    for _ in range(2):
        fc.range(1, num_partitions=1)._run(again, "test")
        assert fc.read_parquet(tmp_path / "a.parquet").collect() == [{"v": 1.0, "w": None}, {"v": 2.0, "w": None}]
