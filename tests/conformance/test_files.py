"""Files written and read, edges included, however tasks are run."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowkit.errors import BadInput, InvalidArgument, OutputExists


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def leftovers(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.name.startswith(".")]


# -- modes ---------------------------------------------------------------------------------------------------------------


def test_a_place_that_exists_is_refused_replaced_added_to_or_left_alone(fc, tmp_path):
    out = tmp_path / "out"
    fc.parallelize(["old"], 1).save_as_text(out)
    with pytest.raises(OutputExists, match="overwrite"):
        fc.parallelize(["new"], 1).save_as_text(out)
    fc.parallelize(["ignored"], 1).save_as_text(out, mode="ignore")
    assert fc.text_file(out).collect() == ["old"]
    fc.parallelize(["more"], 2).save_as_text(out, mode="append")
    fc.parallelize(["and more"], 1).save_as_text(out, mode="append")
    assert sorted(fc.text_file(out).collect()) == ["and more", "more", "old"]
    fc.parallelize(["new"], 1).save_as_text(out, mode="overwrite")
    assert names(out) == ["_SUCCESS", "part-00000"]
    assert fc.text_file(out).collect() == ["new"]
    assert leftovers(tmp_path) == []
    with pytest.raises(InvalidArgument, match="mode = 'replace'"):
        fc.range(1).save_as_text(tmp_path / "x", mode="replace")


@pytest.mark.parametrize("mode", ["error", "overwrite", "append"])
def test_a_job_that_fails_changes_nothing(fc, tmp_path, mode):
    out = tmp_path / "out"
    if mode != "error":
        fc.parallelize(["old"], 1).save_as_text(out)
    before = names(tmp_path)
    with pytest.raises(ZeroDivisionError):
        fc.range(4, num_partitions=4).map(lambda x: 1 // (x - 2)).save_as_json_lines(out, mode=mode)
    assert names(tmp_path) == before
    assert leftovers(tmp_path) == []


def test_an_rdd_may_replace_what_it_was_read_from(fc, tmp_path):
    out = tmp_path / "out"
    fc.parallelize(["a", "b"], 2).save_as_text(out)
    fc.text_file(out).map(str.upper).save_as_text(out, mode="overwrite")
    assert fc.text_file(out).collect() == ["A", "B"]


def test_other_file_systems_are_refused_by_name(fc):
    with pytest.raises(InvalidArgument, match="ftp://...: no such store"):
        fc.range(1).save_as_text("ftp://host/out")


@pytest.mark.parametrize(
    ("save", "read"),
    [
        ("save_as_text", lambda fc, path: fc.text_file(path).map(int)),
        ("save_as_text", lambda fc, path: fc.whole_text_files(path).values().flat_map(str.split).map(int)),
        ("save_as_text", lambda fc, path: fc.binary_files(path).values().flat_map(bytes.split).map(int)),
        ("save_as_text", lambda fc, path: fc.binary_records(path, 2).map(int)),
        ("save_as_json_lines", lambda fc, path: fc.read_json_lines(path)),
        ("save_as_csv", lambda fc, path: fc.read_csv(path, types={"n": int}).map(lambda row: row["n"])),
        ("save_as_pickle", lambda fc, path: fc.pickle_file(path)),
        ("save_as_parquet", lambda fc, path: fc.read_parquet(path).map(lambda row: row["n"])),
    ],
)
def test_paths_are_relative_to_where_the_driver_is_when_it_calls(fc, tmp_path, monkeypatch, save, read):
    monkeypatch.chdir(tmp_path)
    rows = fc.range(4, num_partitions=2)
    if save in {"save_as_csv", "save_as_parquet"}:
        rows = rows.map(lambda n: {"n": n})
    getattr(rows, save)("out")
    found = [read(fc, path) for path in ("out", "./out/part-*", ["out/part-00000*", Path("out")])]
    monkeypatch.chdir("/")
    assert [sorted(each.collect()) for each in found] == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 0, 1, 1, 2, 3]]
    assert names(tmp_path / "out")[0] == "_SUCCESS"


def test_content_that_is_wrong_is_read_once_and_named_on_every_way_to_run(fc, tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.jsonl").write_text('{"n": 1}\n')
    (tmp_path / "2.jsonl").write_text('{"n": 1}\n\n{"n":\n')
    with pytest.raises(BadInput, match=r"2\.jsonl, line 3: not JSON: '\{\"n\":'") as raised:
        fc.read_json_lines(tmp_path, 4).collect()
    assert (raised.value.path, raised.value.line) == (str(tmp_path / "2.jsonl"), 3)


# -- text, JSON, CSV -----------------------------------------------------------------------------------------------------


def test_compressed_text_is_read_as_it_was_saved(fc, tmp_path):
    fc.parallelize(["one", "zwei"], 2).save_as_text(tmp_path / "out", compression="gzip")
    assert names(tmp_path / "out") == ["_SUCCESS", "part-00000.gz", "part-00001.gz"]
    assert fc.text_file(tmp_path / "out").collect() == ["one", "zwei"]
    with pytest.raises(InvalidArgument, match="compression"):
        fc.range(1).save_as_text(tmp_path / "x", compression="rar")


def test_json_lines_are_read_as_they_were_saved(fc, tmp_path):
    rows = [{"a": 1, "ü": None}, [1.5, "x\ny"], "text", True]
    fc.parallelize(rows, 2).save_as_json_lines(tmp_path / "out", compression="gzip")
    assert fc.read_json_lines(tmp_path / "out").collect() == rows
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n\n  \n{broken\n')
    assert fc.read_json_lines(tmp_path / "bad.jsonl").take(1) == [{"a": 1}]
    with pytest.raises(ValueError, match="not JSON: '{broken'"):
        fc.read_json_lines(tmp_path / "bad.jsonl").collect()
    for wrong in ({1, 2}, float("nan")):
        with pytest.raises(TypeError, match="as JSON"):
            fc.parallelize([wrong]).save_as_json_lines(tmp_path / "never")


def test_csv_keeps_what_needs_quotes(fc, tmp_path):
    rows = [{"name": 'a "b", c', "note": "two\nlines"}, {"name": "d", "note": ""}]
    fc.parallelize(rows, 1).save_as_csv(tmp_path / "out")
    assert fc.read_csv(tmp_path / "out").collect() == rows
    fc.parallelize([(1, "x"), (2, "y")], 2).save_as_csv(tmp_path / "tuples", delimiter=";", compression="gzip")
    assert fc.read_csv(tmp_path / "tuples", header=False, delimiter=";").collect() == [("1", "x"), ("2", "y")]
    read = fc.read_csv(tmp_path / "tuples", header=False, columns=["n", "s"], delimiter=";", types={"n": int})
    assert read.collect() == [{"n": 1, "s": "x"}, {"n": 2, "s": "y"}]


def test_csv_rows_that_do_not_fit_are_named(fc, tmp_path):
    (tmp_path / "a.csv").write_text("n,s\n1,x\n2\n")
    with pytest.raises(ValueError, match=r"a\.csv, line 3: 1 fields for 2 columns"):
        fc.read_csv(tmp_path / "a.csv").collect()
    (tmp_path / "b.csv").write_text("n\n1\n\nx\n")
    with pytest.raises(ValueError, match=r"b\.csv, line 4, column n: invalid literal"):
        fc.read_csv(tmp_path / "b.csv", types={"n": int}).collect()
    with pytest.raises(TypeError, match="fields that are no columns: z"):
        fc.parallelize([{"n": 1}, {"z": 1}], 1).save_as_csv(tmp_path / "never")
    with pytest.raises(InvalidArgument, match="which are no columns"):
        fc.read_csv(tmp_path / "a.csv", columns=["n"], types={"m": int})


# -- Parquet, Arrow ------------------------------------------------------------------------------------------------------


def test_parquet_is_read_with_the_columns_and_rows_asked_for(fc, tmp_path):
    rows = [{"n": n, "s": f"row {n}", "half": n / 2 if n % 3 else None} for n in range(1_000)]
    fc.parallelize(rows, 4).save_as_parquet(tmp_path / "out", compression="zstd")
    assert fc.read_parquet(tmp_path / "out").collect() == rows
    some = fc.read_parquet(tmp_path / "out", columns=["s"], filters=[("n", ">=", 998)])
    assert some.collect() == [{"s": "row 998"}, {"s": "row 999"}]
    assert sum(batch.num_rows for batch in fc.read_parquet(tmp_path / "out", batches=True).collect()) == 1_000
    assert pq.read_table(tmp_path / "out").num_rows == 1_000


def test_parquet_is_laid_into_directories_and_read_back_with_them(fc, tmp_path):
    rows = [{"day": f"2026-11-{20 + n % 2}", "n": n, "odd": n % 2 == 1} for n in range(10)]
    fc.parallelize(rows, 3).save_as_parquet(tmp_path / "out", partition_by=["day"])
    assert {path.split("/")[0] for path in names(tmp_path / "out")} == {"_SUCCESS", "day=2026-11-20", "day=2026-11-21"}
    read = fc.read_parquet(tmp_path / "out").collect()
    assert sorted((row["n"], str(row["day"])[:10]) for row in read) == [(n, f"2026-11-{20 + n % 2}") for n in range(10)]
    fc.parallelize(rows[:2], 1).save_as_parquet(tmp_path / "out", partition_by=["day"], mode="append")
    assert fc.read_parquet(tmp_path / "out").count() == 12
    with pytest.raises(TypeError, match="no column nope"):
        fc.parallelize(rows, 1).save_as_parquet(tmp_path / "never", partition_by=["nope"])
    assert not (tmp_path / "never").exists()


def test_time_stamps_keep_their_zone_or_its_absence(fc, tmp_path):
    row = {"zoned": datetime(2026, 11, 21, 12, tzinfo=UTC), "naive": datetime(2026, 11, 21, 12)}  # noqa: DTZ001 - that is what is tested
    fc.parallelize([row], 1).save_as_parquet(tmp_path / "out")
    (read,) = fc.read_parquet(tmp_path / "out").collect()
    assert read == row
    assert read["naive"].tzinfo is None
    assert read["zoned"].utcoffset() is not None


def test_partitions_that_infer_different_types_are_one_table(fc, tmp_path):
    rows = [{"n": 1, "s": None}, {"n": 2.5, "s": "x", "later": [1]}, {"n": None, "s": "y", "later": []}]
    fc.parallelize(rows, 3).save_as_parquet(tmp_path / "out")
    assert fc.read_parquet(tmp_path / "out").collect() == [
        {"n": 1.0, "s": None, "later": None},
        {"n": 2.5, "s": "x", "later": [1]},
        {"n": None, "s": "y", "later": []},
    ]
    assert len({str(pq.read_schema(file)) for file in (tmp_path / "out").glob("*.parquet")}) == 1
    with pytest.raises(TypeError, match=r"column 'n', in the row \{'n': 9007199254740993\} of partition 0"):
        fc.parallelize([{"n": 2**53 + 1}, {"n": 0.5}], 2).save_as_parquet(tmp_path / "never")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_relative_path_of_parquet_is_the_drivers(fc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fc.parallelize([{"n": 1}], 1).save_as_parquet("out")
    assert fc.read_parquet("out").collect() == [{"n": 1}]
    assert fc.read_parquet(["out/*.parquet"]).collect() == [{"n": 1}]


def test_rows_that_do_not_fit_a_schema_are_named(fc, tmp_path):
    schema = pa.schema([("n", pa.int64())])
    fc.parallelize([{"n": 1}, {}], 1).save_as_parquet(tmp_path / "out", schema=schema)
    assert fc.read_parquet(tmp_path / "out").collect() == [{"n": 1}, {"n": None}]
    with pytest.raises(TypeError, match="fields that the schema has not: m"):
        fc.parallelize([{"n": 1, "m": 2}], 1).save_as_parquet(tmp_path / "never", schema=schema)
    with pytest.raises(TypeError, match=r"column 'n', row 0 of partition 0: 'x' \(str\) does not fit int64"):
        fc.parallelize([{"n": "x"}], 1).save_as_parquet(tmp_path / "never", schema=schema)
    with pytest.raises(TypeError, match="needs a mapping"):
        fc.parallelize([3], 1).save_as_parquet(tmp_path / "never")


def test_partitions_without_rows_write_what_can_be_read(fc, tmp_path):
    fc.parallelize([{"n": 1}], 3).save_as_parquet(tmp_path / "out")
    assert fc.read_parquet(tmp_path / "out").collect() == [{"n": 1}]
    fc.parallelize([], 2).save_as_parquet(tmp_path / "empty", schema=pa.schema([("n", pa.int64())]))
    assert fc.read_parquet(tmp_path / "empty").collect() == []


def test_parquet_that_is_not_there_and_columns_that_are_not_fail_at_the_call(fc, tmp_path):
    with pytest.raises(FileNotFoundError):
        fc.read_parquet(tmp_path / "nowhere")
    fc.parallelize([{"n": 1}], 1).save_as_parquet(tmp_path / "out")
    with pytest.raises(InvalidArgument, match="there is no m"):
        fc.read_parquet(tmp_path / "out", columns=["n", "m"])


def test_arrow_tables_go_in_and_out(fc, tmp_path):
    table = pa.table({"n": list(range(10)), "s": [str(n) for n in range(10)]})
    assert fc.from_arrow(table, 3).collect() == table.to_pylist()
    batches = fc.from_arrow(table, 3, batches=True)
    assert pa.Table.from_batches(batches.collect()).combine_chunks().equals(table.combine_chunks())
    batches.save_as_parquet(tmp_path / "out")
    assert fc.read_parquet(tmp_path / "out").map(lambda row: row["n"]).collect() == list(range(10))
    for kind, open_writer in (("file", pa.ipc.new_file), ("stream", pa.ipc.new_stream)):
        with pa.OSFile(str(tmp_path / f"{kind}.arrow"), "wb") as sink, open_writer(sink, table.schema) as writer:
            writer.write_table(table, 4)
        assert fc.read_arrow(tmp_path / f"{kind}.arrow").collect() == table.to_pylist()
    with pytest.raises(TypeError, match="not list"):
        fc.from_arrow([1])
    with pytest.raises(TypeError, match="must be a pandas DataFrame, not list"):
        fc.from_pandas([1])


# -- others --------------------------------------------------------------------------------------------------------------


def test_pickles_keep_every_type(fc, tmp_path):
    rows = [(1, {2}), "x", None, 10**30, {"a": (1, 2)}]
    fc.parallelize(rows, 2).save_as_pickle(tmp_path / "out")
    assert fc.pickle_file(tmp_path / "out").collect() == rows


def test_whole_texts_and_records(fc, tmp_path):
    (tmp_path / "a.txt").write_text("ein Bär\n", encoding="latin-1")
    assert fc.whole_text_files(tmp_path / "a.txt", encoding="latin-1").values().collect() == ["ein Bär\n"]
    with pytest.raises(UnicodeDecodeError):
        fc.whole_text_files(tmp_path / "a.txt").collect()
    (tmp_path / "b.bin").write_bytes(b"abcdef")
    assert fc.binary_records(tmp_path / "b.bin", 3).collect() == [b"abc", b"def"]
    with pytest.raises(ValueError, match="no multiple of 4 bytes"):
        fc.binary_records(tmp_path / "b.bin", 4).collect()


def test_what_is_read_and_written_is_counted(fc, tmp_path):
    fc._bus.wait_until_empty(20)
    before = fc.status.summary()
    fc.range(100, num_partitions=2).map(lambda n: {"n": n}).save_as_json_lines(tmp_path / "out")
    fc._bus.wait_until_empty(20)
    written = fc.status.summary()
    assert written.output_rows - before.output_rows == 100
    size = sum(path.stat().st_size for path in (tmp_path / "out").glob("part-*"))
    assert written.output_bytes - before.output_bytes == size
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write("n\n" + "\n".join(map(str, range(50))))
    assert fc.read_csv(tmp_path / "a.csv.gz").count() == 50
    assert json.loads('{"n": 1}') == {"n": 1}


@pytest.mark.parametrize(
    ("save", "read", "pattern"),
    [
        ("save_as_text", lambda fc, place: fc.text_file(place).map(int), "part-*"),
        ("save_as_json_lines", lambda fc, place: fc.read_json_lines(place), "part-*.jsonl"),
        ("save_as_pickle", lambda fc, place: fc.pickle_file(place), "part-*.pickle"),
    ],
)
def test_files_are_cut_at_the_size_asked_for(fc, tmp_path, save, read, pattern):
    place = tmp_path / "cut"
    getattr(fc.range(40_000, num_partitions=2), save)(place, target_file_bytes=40_000)
    sizes = [file.stat().st_size for file in place.glob(pattern)]
    assert len(sizes) > 3
    assert max(sizes) < 80_000
    assert sum(size >= 40_000 for size in sizes) >= len(sizes) - 2
    assert sorted(read(fc, str(place)).collect()) == list(range(40_000))


def test_parquet_files_are_cut_too_in_each_directory(fc, tmp_path):
    rows = fc.range(60_000, num_partitions=2).map(lambda n: {"n": n, "text": f"{n * 7_919:020d}", "odd": n % 2})
    rows.save_as_parquet(tmp_path / "flat", target_file_bytes=50_000)
    rows.save_as_parquet(tmp_path / "laid", target_file_bytes=50_000, partition_by=["odd"])
    assert len(list((tmp_path / "flat").glob("*.parquet"))) > 2
    assert all(len(list((tmp_path / "laid" / f"odd={odd}").glob("*.parquet"))) > 2 for odd in (0, 1))
    for place in ("flat", "laid"):
        assert fc.read_parquet(tmp_path / place, columns=["n"]).map(lambda row: row["n"]).sum() == sum(range(60_000))


@pytest.mark.parametrize("size", [0, -5, 1.5, "1MB"])
def test_a_size_of_files_that_makes_no_sense_is_refused_at_the_call(fc, tmp_path, size):
    with pytest.raises((ValueError, TypeError), match="target_file_bytes"):
        fc.range(3).save_as_text(tmp_path / "none", target_file_bytes=size)
    assert not (tmp_path / "none").exists()
