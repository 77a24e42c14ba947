"""Files of a Parquet table that differ are united by name and widened, or the call fails and names both files."""

# ruff: noqa: DTZ001, DTZ901 (moments without a zone are what is tested)

from __future__ import annotations

import datetime as dt
import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.errors import BadInput, InvalidArgument
from flowkit.testing.inline import inline_context


@pytest.fixture(scope="module")
def fc():
    with inline_context(slots=2, validate=False) as context:
        yield context


def tree(place: Path, **files: Any) -> Path:
    """A directory of files: bytes as they are, columns as Parquet."""
    for name, content in files.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            pq.write_table(content if isinstance(content, pa.Table) else pa.table(content), file)
    return place


def pair(place: Path, one: Any, other: Any) -> Path:
    return tree(place, **{"1.parquet": {"v": one}, "2.parquet": {"v": other}})


def read(fc: Any, place: Any, **how: Any) -> list[Any]:
    """Rows, after a look that batches hold the same and all have one schema."""
    rows = fc.read_parquet(place, **how).collect()
    batches = fc.read_parquet(place, batches=True, **how).collect()
    assert len({str(batch.schema) for batch in batches}) <= 1
    return rows


US, NS = pa.timestamp("us"), pa.timestamp("ns")
DAY = dt.datetime(2020, 1, 1)


# -- files that differ -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array([1], pa.int32()), [2**40]),
        (pa.array([1], pa.uint32()), pa.array([-1], pa.int8())),
        ([3], [2.5]),
        (pa.array([1.5], pa.float32()), [0.1]),
        (pa.nulls(1), ["x"]),
        (["x"], pa.array(["y"]).dictionary_encode()),
        (["x"], pa.array(["y"], pa.large_string())),
        ([Decimal("1.1")], [Decimal("100.123")]),
        ([Decimal("1.1")], [7]),
        ([[]], [[1]]),
        ([[{"x": 1}]], [[{"x": 2.5, "y": "z"}]]),
        (pa.array([DAY], pa.timestamp("ms")), pa.array([DAY.replace(microsecond=5)], US)),
        (pa.array([DAY], pa.timestamp("us", "+02:00")), pa.array([DAY], pa.timestamp("us", "UTC"))),
        (pa.array([2**63], pa.uint64()), [5]),
    ],
    ids=str,
)
@pytest.mark.parametrize("turned", [False, True], ids=["so", "turned"])
def test_a_column_of_two_types_gets_the_one_that_holds_both(fc, tmp_path, one, other, turned):
    columns = [pa.array(column) if isinstance(column, list) else column for column in (one, other)]
    columns = columns[::-1] if turned else columns
    back = [row["v"] for row in read(fc, pair(tmp_path, *columns))]
    for column, found in zip(columns, back, strict=True):
        (given_value,) = column.to_pylist()
        if isinstance(given_value, list):
            assert [each | {"y": each.get("y")} if isinstance(each, dict) else each for each in given_value] == found
        else:
            assert found == given_value


def test_columns_are_united_by_name_and_none_where_a_file_lacks_them(fc, tmp_path):
    place = tree(tmp_path, **{"1.parquet": {"a": [1], "b": [1]}, "2.parquet": {"c": ["x"], "a": [2]}})
    assert read(fc, place) == [{"a": 1, "b": 1, "c": None}, {"a": 2, "b": None, "c": "x"}]
    assert read(fc, place, columns=["c", "a"], filters=[("c", "=", "x")]) == [{"c": "x", "a": 2}]
    assert read(fc, place, columns=["a"], filters=pc.field("b").is_null()) == [{"a": 2}]


NUMBERS = [pa.int8(), pa.int32(), pa.int64(), pa.uint16(), pa.float32(), pa.float64()]
TEXTS = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
MOMENTS = [pa.timestamp("ms"), US, NS]
FAMILIES = {
    "numbers": (NUMBERS, st.integers(0, 100), 50),
    "texts": (TEXTS, st.sampled_from(["a", "b", "c"]), "b"),
    "moments": (
        MOMENTS,
        st.integers(0, 100).map(lambda second: DAY + dt.timedelta(seconds=second)),
        DAY + dt.timedelta(seconds=50),
    ),
}


@st.composite
def drifting_files(draw: st.DrawFn) -> tuple[list[dict[str, pa.Array]], dict[str, Any]]:
    """Files with columns of one family each, of another type in every file, or absent, or null; and a value to filter by."""
    families = {name: draw(st.sampled_from(sorted(FAMILIES))) for name in ("a", "b")}
    files = []
    for _ in range(draw(st.integers(1, 4))):
        count = draw(st.integers(0, 3))
        file = {"n": pa.array(range(count), pa.int64())}
        for name, family in families.items():
            kinds, values, _ = FAMILIES[family]
            how = draw(st.sampled_from(["absent", "null", "there", "there", "there"]))
            if how == "null":
                file[name] = pa.nulls(count)
            elif how == "there":
                some = draw(st.lists(values | st.none(), min_size=count, max_size=count))
                file[name] = pa.array(some, draw(st.sampled_from(kinds)))
        files.append(file)
    return files, {name: FAMILIES[family][2] for name, family in families.items()}


@pytest.mark.slow  # writes and reads files for every example
@given(drifting=drifting_files(), chosen=st.sampled_from([None, ["a"], ["b", "n"]]), filtered=st.booleans())
def test_any_files_give_the_rows_that_python_would_unite(fc, tmp_path_factory, drifting, chosen, filtered):
    files, bounds = drifting
    place = tree(tmp_path_factory.mktemp("drift"), **{f"{number}.parquet": file for number, file in enumerate(files)})
    names = list(dict.fromkeys(name for file in files for name in file))
    rows = [dict.fromkeys(names) | row for file in files for row in pa.table(file).to_pylist()]
    how: dict[str, Any] = {}
    present = [name for name in ("a", "b") if any(name in file and not pa.types.is_null(file[name].type) for file in files)]
    if filtered and present:
        how["filters"] = [(present[0], "<=", bounds[present[0]])]
        rows = [row for row in rows if row[present[0]] is not None and row[present[0]] <= bounds[present[0]]]
    if chosen is not None and set(chosen) <= set(names):
        how["columns"] = chosen
        rows = [{name: row[name] for name in chosen} for row in rows]
    assert read(fc, place, **how) == rows


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ([1], ["x"], r"column 'v' is int64 in .*1.parquet and string in .*2.parquet"),
        ([{"x": 1}], [{"x": b"b"}], r"column 'v.x' is int64 in .*1.parquet and binary in .*2.parquet"),
        ([True], [1], r"column 'v' is bool in"),
        ([DAY.date()], [DAY], r"column 'v' is date32\[day\] in .* and timestamp\[us\] in"),
        (
            pa.array([DAY], US),
            pa.array([DAY], pa.timestamp("us", "UTC")),
            r"timestamp\[us\] in .* and timestamp\[us, tz=UTC\] in",
        ),
    ],
)
def test_what_cannot_be_united_names_both_files_and_types_unless_it_is_not_read(fc, tmp_path, one, other, message):
    place = pair(tmp_path, one, other)
    tree(tmp_path, **{"3.parquet": {"w": [1]}})
    with pytest.raises(InvalidArgument, match=message):
        fc.read_parquet(place)
    assert fc.read_parquet(place, columns=["w"]).collect() == [{"w": None}, {"w": None}, {"w": 1}]
    with pytest.raises(InvalidArgument, match=f"(?s)there is no v; .*{message}"):
        fc.read_parquet(place, columns=["w"], filters=[("v", "=", 1)])


def test_a_number_that_the_common_type_does_not_hold_is_named_with_its_file(fc, tmp_path):
    with pytest.raises(
        ValueError, match=r"1.parquet: column 'v': 9007199254740993 of the row .* does not fit double, which the column is"
    ):
        fc.read_parquet(pair(tmp_path, [2**53 + 1], [0.5])).collect()
    with pytest.raises(BadInput, match=r"2.parquet: column 'v': -1 of the row"):
        fc.read_parquet(pair(tmp_path, pa.array([2**63], pa.uint64()), [-1])).collect()


def test_names_that_differ_by_case_are_two_columns_only_where_a_file_has_both(fc, tmp_path):
    place = tree(tmp_path / "a", **{"1.parquet": {"v": [1], "w": [1]}, "2.parquet": {"V": [2], "w": [2]}})
    with pytest.raises(InvalidArgument, match=r"column 'v' of .*1.parquet is called 'V' in .*2.parquet"):
        fc.read_parquet(place)
    assert read(fc, place, columns=["w"]) == [{"w": 1}, {"w": 2}]
    place = tree(tmp_path / "b", **{"1.parquet": {"v": [1], "V": [2]}, "2.parquet": {"V": [3]}})
    assert read(fc, place) == [{"v": 1, "V": 2}, {"v": None, "V": 3}]


def test_a_file_with_two_columns_of_one_name_is_refused(fc, tmp_path):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["v", "v"])
    with pytest.raises(InvalidArgument, match=r"1.parquet has several columns of the name v"):
        fc.read_parquet(tree(tmp_path, **{"1.parquet": table}))


# -- moments -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moment", [dt.datetime.min, dt.datetime(1000, 12, 31), dt.datetime(1969, 12, 31, 23, 59, 59, 999_999), DAY, dt.datetime.max]
)
def test_int96_moments_are_read_from_the_first_to_the_last_year(fc, tmp_path, moment):
    pq.write_table(pa.table({"v": pa.array([moment], US)}), tmp_path / "1.parquet", use_deprecated_int96_timestamps=True)
    assert read(fc, tmp_path) == [{"v": moment}]
    (batch,) = fc.read_parquet(tmp_path, batches=True).collect()
    assert batch.to_pylist() == [{"v": moment}]
    assert read(fc, tmp_path, filters=[("v", "=", moment)]) == [{"v": moment}]


def test_nanoseconds_are_cut_off_in_rows_and_kept_in_batches(fc, tmp_path):
    nanoseconds = [1_999, -1, None]
    lists = pa.array([[1_999], None, []], pa.list_(NS))
    columns = {
        "t": pa.array(nanoseconds, NS),
        "zoned": pa.array(nanoseconds, pa.timestamp("ns", "UTC")),
        "time": pa.array([1_999, 0, None], pa.time64("ns")),
        "span": pa.array(nanoseconds, pa.duration("ns")),
        "list": lists,
        "struct": pa.array([{"t": 1_999}, None, {"t": None}], pa.struct([("t", NS)])),
        "map": pa.array([{"t": 1_999}, None, {}], pa.map_(pa.string(), NS)),
    }
    epoch, us = dt.datetime(1970, 1, 1), dt.timedelta(microseconds=1)
    rows = read(fc, tree(tmp_path, **{"1.parquet": columns}))
    assert [row["t"] for row in rows] == [epoch + us, epoch - us, None]
    assert [row["zoned"] for row in rows] == [epoch.replace(tzinfo=dt.UTC) + us, epoch.replace(tzinfo=dt.UTC) - us, None]
    assert [row["time"] for row in rows] == [dt.time(0, 0, 0, 1), dt.time(0), None]
    assert [row["span"] for row in rows] == [us, -us, None]
    assert [row["list"] for row in rows] == [[epoch + us], None, []]
    assert [row["struct"] for row in rows] == [{"t": epoch + us}, None, {"t": None}]
    assert [row["map"] for row in rows] == [[("t", epoch + us)], None, []]
    assert {type(row["t"]) for row in rows} == {dt.datetime, type(None)}, "whatever packages are there"
    (batch,) = fc.read_parquet(tmp_path, batches=True).collect()
    assert batch.column(0).cast(pa.int64()).to_pylist() == nanoseconds
    assert fc.from_arrow(pa.table(columns), 1).collect() == rows


def test_files_with_nanoseconds_stand_beside_files_with_far_dates(fc, tmp_path):
    place = pair(tmp_path, pa.array([1_999], NS), pa.array([dt.datetime.max], US))
    assert [row["v"] for row in fc.read_parquet(place).collect()] == [dt.datetime(1970, 1, 1, 0, 0, 0, 1), dt.datetime.max]
    first = fc.read_parquet(place, filters=[("v", "<=", dt.datetime(1970, 1, 1, 0, 0, 0, 1))])
    assert first.count() == 1, "statistics are of nanoseconds, the filter is not"
    with pytest.raises(BadInput, match=r"2.parquet: column 'v': .*9999.* does not fit timestamp\[ns\]"):
        fc.read_parquet(place, batches=True).collect()


def test_a_moment_that_python_lacks_is_named_with_file_column_and_row(fc, tmp_path):
    place = tree(tmp_path, **{"1.parquet": {"v": pa.array([0, 253_402_300_800_000_000], US)}})
    with pytest.raises(
        ValueError, match=r"1.parquet: column 'v', row 1 of a batch: timestamp\[us\] 253402300800000000: date value out of range"
    ):
        fc.read_parquet(place).collect()


# -- directories -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["1", "2"], [1, 2]),
        (["1", "1099511627776"], [1, 2**40]),
        (["01", "1"], ["01", "1"]),
        (["1", "x"], ["1", "x"]),
        (["1.5", "2"], [1.5, 2.0]),
        (["-1", "5"], [-1, 5]),
        (["2020-01-01", "2020-01-02"], [dt.date(2020, 1, 1), dt.date(2020, 1, 2)]),
        (["2020-01-01", "x"], ["2020-01-01", "x"]),
        (["2020-13-01"], ["2020-13-01"]),
        (["__HIVE_DEFAULT_PARTITION__", "1"], [None, 1]),
        (["", "1"], ["", "1"]),
        (["9223372036854775808"], ["9223372036854775808"]),
        (["1_000"], ["1_000"]),
        (["1e5", "1E5"], ["1e5", "1E5"]),
        (["1.0E10", "0.5"], [1e10, 0.5]),
        (["nan"], ["nan"]),
        (["a%2Fb"], ["a/b"]),
    ],
    ids=str,
)
def test_names_of_directories_that_nobody_explains_are_numbers_dates_or_text_together(fc, tmp_path, names, expected):
    place = tree(tmp_path, **{f"k={name}/1.parquet": {"n": [number]} for number, name in enumerate(names)})
    back = sorted(fc.read_parquet(place).collect(), key=lambda row: row["n"])
    assert [row["k"] for row in back] == expected
    assert [type(row["k"]) for row in back] == [type(value) for value in expected]


@pytest.mark.parametrize("own", [pa.array([7], pa.int32()), [7], [1.5], ["q"], [b"b"]], ids=str)
def test_of_a_column_in_file_and_directory_the_directory_is_right(fc, tmp_path, own):
    place = tree(tmp_path, **{"k=5/1.parquet": {"k": own, "a": [1]}, "k=6/1.parquet": {"a": [2.5]}})
    assert read(fc, place) == [{"k": 5, "a": 1.0}, {"k": 6, "a": 2.5}]
    assert read(fc, place, filters=[("k", "<", 6)], columns=["k"]) == [{"k": 5}]
    assert read(fc, place, filters=[("k", "=", 7)]) == []


def test_a_column_that_is_in_directories_or_files_has_one_type(fc, tmp_path):
    place = tree(tmp_path / "a", **{"k=5/1.parquet": {"n": [1]}, "0.parquet": {"n": [0], "k": [2.5]}})
    assert read(fc, place) == [{"n": 0, "k": 2.5}, {"n": 1, "k": 5.0}]
    assert read(fc, place, filters=[("k", ">", 3.5)]) == [{"n": 1, "k": 5.0}]
    place = tree(tmp_path / "b", **{"k=5/1.parquet": {"n": [1]}, "0.parquet": {"n": [0], "k": ["x"]}})
    with pytest.raises(InvalidArgument, match=r"column 'k' is string in .*0.parquet and int64 in .*k=5/1.parquet"):
        fc.read_parquet(place)


# -- which files -------------------------------------------------------------------------------------------------------------------


def test_files_that_are_not_parquet_are_passed_over_in_directories(fc, tmp_path):
    files = {"1.parquet": {"a": [1]}, "README.txt": b"hi", "2.parquet": b"", "_SUCCESS": b"", ".1.crc": b"x", "sub/3": {"a": [3]}}
    assert read(fc, tree(tmp_path, **files, **{"_temporary/4.parquet": {"a": [4]}})) == [{"a": 1}, {"a": 3}]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"README.txt": b"hi"}, r"no Parquet file with content at .*, only README.txt"),
        ({"1.parquet": b""}, r"no Parquet file with content at .*, only 1.parquet"),
        ({"1.parquet": {"a": [1]}, "2.parquet": b"PAR1 cut short"}, r"2.parquet cannot be read as Parquet"),
        ({"1.parquet": {"a": [1]}, "2": b"PAR1 cut short"}, r"/2 cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_read_is_named_and_no_argument_blamed(fc, tmp_path, files, message):
    with pytest.raises(InvalidArgument, match=message) as raised:
        fc.read_parquet(tree(tmp_path, **files))
    assert "filters" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"hi"])
def test_a_file_that_is_asked_for_by_name_is_not_passed_over(fc, tmp_path, content):
    with pytest.raises(InvalidArgument, match=r"x.txt cannot be read as Parquet"):
        fc.read_parquet(tree(tmp_path, **{"x.txt": content}) / "x.txt")


def test_paths_are_files_directories_globs_and_lists_of_them_from_where_the_driver_is(fc, tmp_path, monkeypatch):
    files = {f"day=2020-01-0{day}/{hour}.parquet": {"n": [day * 10 + hour]} for day in (1, 2) for hour in (1, 2)}
    place = tree(tmp_path / "t[1]", **files)
    tree(place, **{"_hidden/1.parquet": {"n": [-1]}, "plain/deep/3.parquet": {"n": [3]}})
    monkeypatch.chdir(tmp_path)
    everything = [11, 12, 21, 22, 3]
    days = [dt.date(2020, 1, 1)] * 2 + [dt.date(2020, 1, 2)] * 2

    def numbers(path: Any) -> list[int]:
        return [row["n"] for row in fc.read_parquet(path).collect()]

    for path in ("t[1]", Path("t[1]"), str(place), f"file://{place}", ["t[1]"]):
        assert numbers(path) == everything
    assert numbers(["t[1]", place]) == everything * 2, "what is named twice is read twice, by every reader"
    monkeypatch.chdir(place)
    assert numbers("day=*/1.parquet") == [11, 21]
    assert [row["day"] for row in fc.read_parquet("day=*").collect()] == days
    assert numbers("day=2020-01-0{1,2}/2.parquet") == [12, 22]
    assert numbers("**/*.parquet") == everything
    assert numbers("day=2020-01-01,plain") == [11, 12, 3]
    assert numbers(["plain", "day=2020-01-02/1.parquet"]) == [3, 21]
    assert fc.read_parquet("day=2020-01-01").collect() == [{"n": 11}, {"n": 12}], "what is named is no column"
    planned = fc.read_parquet("plain")
    monkeypatch.chdir("/")
    assert [row["n"] for row in planned.collect()] == [3]


@pytest.mark.parametrize("path", ["nowhere", "nowhere/*.parquet", Path("nowhere"), ["nowhere"]])
def test_a_path_at_which_nothing_is_is_named(fc, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fc.read_parquet(path)


@pytest.mark.parametrize("path", [5, None, [], [5], {"a": 1}])
def test_what_is_no_path_is_refused(fc, path):
    with pytest.raises(InvalidArgument, match=r"path(\[0\])? = .*: (must be a path|names no file)"):
        fc.read_parquet(path)


def test_what_fails_in_a_task_names_its_file(fc, tmp_path):
    place = tree(tmp_path, **{"1.parquet": {"n": list(range(1_000))}})
    data = bytearray((place / "1.parquet").read_bytes())
    data[4:40] = b"\xff" * 36
    (place / "1.parquet").write_bytes(data)
    with pytest.raises(Exception) as raised:
        fc.read_parquet(place).collect()
    assert "1.parquet" in "\n".join([str(raised.value), *raised.value.__notes__])


# -- columns and filters -----------------------------------------------------------------------------------------------------------


def test_columns_are_selected_and_ordered(fc, tmp_path):
    place = tree(tmp_path, **{"1.parquet": {"a": [1], "b": [2], "c": [3]}})
    assert [list(row.items()) for row in read(fc, place, columns=["c", "a"])] == [[("c", 3), ("a", 1)]]
    assert read(fc, place, columns=[]) == [{}]
    for wrong, message in (
        (["c", "zz"], "there is no zz; there are a, b, c"),
        ("a", "must be a list of names"),
        (["a", "a"], "each once"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            fc.read_parquet(place, columns=wrong)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ([("z", ">", 1)], "there is no z; there are a"),
        ([("a", ">", "x")], "no kernel matching input types"),
        ([("a", ">")], "a filter is"),
        ("a > 1", "a filter is"),
        ([("a", "~", 3)], "not a valid operator"),
        (pc.field("z") > 1, "there is no z; there are a"),
    ],
)
def test_filters_that_do_not_fit_are_refused_at_the_call_also_where_nothing_is_read(fc, tmp_path, filters, message):
    with pytest.raises(InvalidArgument, match=message):
        fc.read_parquet(tree(tmp_path, **{"1.parquet": {"a": pa.array([], pa.int64())}}), filters=filters)


# -- Arrow -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"hi there everybody", b"ARROW1 and no more"])
def test_an_arrow_file_that_cannot_be_read_is_named(fc, tmp_path, content):
    (tmp_path / "1.arrow").write_bytes(content)
    with pytest.raises(BadInput, match=r"1.arrow, batch 0: cannot be read as an Arrow IPC file or stream"):
        fc.read_arrow(tmp_path / "1.arrow").collect()


def test_arrow_files_and_streams_are_read_compressed_too(fc, tmp_path):
    table = pa.table({"n": list(range(10))})
    for kind, open_writer in (("file", pa.ipc.new_file), ("stream", pa.ipc.new_stream)):
        sink = pa.BufferOutputStream()
        with open_writer(sink, table.schema) as writer:
            writer.write_table(table, 4)
        (tmp_path / kind).write_bytes(sink.getvalue())
        (tmp_path / f"{kind}.gz").write_bytes(gzip.compress(sink.getvalue()))
        for name in (kind, f"{kind}.gz"):
            assert fc.read_arrow(tmp_path / name).collect() == table.to_pylist()
    (tmp_path / "two").write_bytes((tmp_path / "stream").read_bytes() * 2)
    with pytest.raises(BadInput, match="two, batch 3: .* there is more after the end of the stream"):
        fc.read_arrow(tmp_path / "two").collect()


def test_arrow_columns_of_one_name_are_refused_as_rows_and_kept_in_batches(fc, tmp_path):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["v", "v"])
    with pa.OSFile(str(tmp_path / "1.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(BadInput, match=r"1.arrow: several columns have the name v"):
        fc.read_arrow(tmp_path).collect()
    assert fc.read_arrow(tmp_path, batches=True).map(lambda batch: batch.num_columns).collect() == [2]
