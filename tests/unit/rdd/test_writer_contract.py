"""One contract for all writers: modes, places, compression, rows that do not fit, and that what was written is read. One row a writer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest

import flowkit as fk
from flowkit.errors import BadRow, InvalidArgument, OutputExists
from flowkit.rdd.sinks import _replace
from flowkit.testing.inline import inline_context


@dataclass(frozen=True)
class Writer:
    """How a writer is tried: numbers go in, and come back by its reader."""

    name: str
    row_of: Callable[[int], Any]
    read: Callable[[fk.Context, Any], fk.RDD[int]]
    extension: str
    #: a row that its format cannot hold; None: it holds all
    wrong: Any = None
    compressions: tuple[str | None, ...] = (None, "gzip", "bz2", "xz", "zstd")


WRITERS = [
    Writer("save_as_text", str, lambda fc, path: fc.text_file(path).map(int), ""),
    Writer(
        "save_as_json_lines",
        lambda n: {"n": n},
        lambda fc, path: fc.read_json_lines(path).map(lambda row: row["n"]),
        ".jsonl",
        wrong={"n": {1}},
    ),
    Writer(
        "save_as_csv",
        lambda n: {"n": n, "s": "x"},
        lambda fc, path: fc.read_csv(path, types={"n": int}).map(lambda row: row["n"]),
        ".csv",
        wrong=5,
    ),
    Writer(
        "save_as_parquet",
        lambda n: {"n": n},
        lambda fc, path: fc.read_parquet(path, num_partitions=1).map(lambda row: row["n"]),
        ".parquet",
        wrong=5,
        compressions=("none",),
    ),
    Writer("save_as_pickle", lambda n: {n}, lambda fc, path: fc.pickle_file(path).map(min), ".pickle", compressions=(None,)),
]
every_writer = pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
SUFFIXES = {None: "", "gzip": ".gz", "bz2": ".bz2", "xz": ".xz", "zstd": ".zst"}
MODES = ("error", "ignore", "append", "overwrite")


@pytest.fixture(scope="module")
def fc() -> Iterator[fk.Context]:
    with inline_context() as context:
        yield context


def save(fc: fk.Context, writer: Writer, numbers: list[int], path: Any, partitions: int = 2, **options: Any) -> None:
    getattr(fc.parallelize([writer.row_of(n) for n in numbers], partitions), writer.name)(path, **options)


def names(place: Path) -> list[str]:
    return sorted(each.name for each in place.iterdir())


@every_writer
@pytest.mark.parametrize("mode", MODES)
def test_a_place_that_is_free_is_taken_whatever_the_mode(fc, writer, tmp_path, mode):
    save(fc, writer, [1, 2], tmp_path / "new" / "out", mode=mode)
    assert writer.read(fc, tmp_path / "new" / "out").collect() == [1, 2]
    assert names(tmp_path / "new") == ["out"]
    files = names(tmp_path / "new" / "out")
    assert files[0] == "_SUCCESS"
    assert all(name.startswith("part-") and name.endswith(writer.extension) for name in files[1:])


@every_writer
@pytest.mark.parametrize(("mode", "found"), [("error", [1]), ("ignore", [1]), ("append", [1, 2, 3]), ("overwrite", [2, 3])])
def test_a_place_that_is_taken_is_refused_left_added_to_or_replaced(fc, writer, tmp_path, mode, found):
    out = tmp_path / "out"
    save(fc, writer, [1], out)
    if mode == "error":
        with pytest.raises(OutputExists, match=f"{out} exists already"):
            save(fc, writer, [2, 3], out, mode=mode)
    else:
        save(fc, writer, [2, 3], out, mode=mode)
    assert sorted(writer.read(fc, out).collect()) == found
    assert names(tmp_path) == ["out"]


@every_writer
@pytest.mark.parametrize("mode", MODES)
def test_a_file_at_the_place_is_refused_left_or_replaced(fc, writer, tmp_path, mode):
    out = tmp_path / "out"
    out.write_text("mine")
    match mode:
        case "error" | "append":
            with pytest.raises(OutputExists, match=f"{out} (exists already|is no directory)"):
                save(fc, writer, [1], out, mode=mode)
        case _:
            save(fc, writer, [1], out, mode=mode)
    assert (writer.read(fc, out).collect() == [1]) if mode == "overwrite" else (out.read_text() == "mine")
    assert names(tmp_path) == ["out"]


@every_writer
@pytest.mark.parametrize("mode", MODES)
def test_who_takes_the_place_while_the_job_runs_is_heard_by_each_mode(fc, writer, tmp_path, mode):
    out, ready = tmp_path / "out", tmp_path / "ready"
    save(fc, writer, [7], ready)

    def beside(n: int) -> Any:
        if ready.exists():
            ready.rename(out)
        return writer.row_of(n)

    def run() -> None:
        getattr(fc.parallelize([1, 2], 1).map(beside), writer.name)(out, mode=mode)

    if mode == "error":
        with pytest.raises(OutputExists, match="was made by somebody else meanwhile"):
            run()
    else:
        run()
    found = {"error": [7], "ignore": [7], "append": [1, 2, 7], "overwrite": [1, 2]}[mode]
    assert sorted(writer.read(fc, out).collect()) == found
    assert names(tmp_path) == ["out"]


@every_writer
def test_a_place_is_relative_to_the_drivers_directory_at_the_call(fc, writer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for path in ("out", Path("deep/out"), f"file://{tmp_path}/plain", f"file:{tmp_path}/hadoop", "~/out"):
        save(fc, writer, [1], path)
    for place in ("out", "deep/out", "plain", "hadoop", "home/out"):
        assert writer.read(fc, tmp_path / place).collect() == [1]


@every_writer
def test_no_rows_are_a_place_without_rows(fc, writer, tmp_path):
    save(fc, writer, [], tmp_path / "partitions")
    getattr(fc.empty(), writer.name)(tmp_path / "none")
    for place in ("partitions", "none"):
        assert "_SUCCESS" in names(tmp_path / place)
        assert writer.read(fc, tmp_path / place).collect() == []


@every_writer
@pytest.mark.parametrize("compression", SUFFIXES)
def test_what_is_compressed_says_so_by_its_name_and_is_read_as_it_was(fc, writer, tmp_path, compression):
    if compression not in writer.compressions:
        return
    options = {} if compression is None else {"compression": compression}
    numbers = list(range(5_000))
    save(fc, writer, numbers, tmp_path / "out", target_file_bytes=10_000, **options)
    files = names(tmp_path / "out")[1:]
    assert all(name.endswith(writer.extension + SUFFIXES[compression]) for name in files)
    assert writer.read(fc, tmp_path / "out").collect() == numbers
    with pytest.raises((InvalidArgument, TypeError), match="compression"):
        save(fc, writer, [1], tmp_path / "never", compression="rar")


@pytest.mark.parametrize("writer", [each for each in WRITERS if each.wrong is not None], ids=lambda writer: writer.name)
@pytest.mark.parametrize("mode", MODES)
def test_a_row_that_does_not_fit_fails_once_and_changes_nothing(fc, writer, tmp_path, mode):
    out = tmp_path / "out"
    if mode in {"append", "overwrite"}:
        save(fc, writer, [1], out)
    before = [names(each) for each in tmp_path.glob("*")]
    rows = fc.parallelize([writer.row_of(1), writer.wrong], 1)
    with pytest.raises(BadRow, match="cannot write") as raised:
        getattr(rows, writer.name)(out, mode=mode)
    assert "4 times" not in "\n".join(raised.value.__notes__)
    assert isinstance(raised.value, TypeError)
    assert [names(each) for each in tmp_path.glob("*")] == before


@every_writer
@pytest.mark.parametrize("mode", MODES)
def test_stores_take_the_same_modes(fc, writer, mode):
    store, place = fsspec.filesystem("memory"), f"memory://writers/{writer.name}"
    try:
        save(fc, writer, [1], place, mode=mode)
        if mode == "error":
            with pytest.raises(OutputExists, match=f"{place} exists already"):
                save(fc, writer, [2], place, mode=mode)
        else:
            save(fc, writer, [2], place, mode=mode)
        found = {"error": [1], "ignore": [1], "append": [1, 2], "overwrite": [2]}[mode]
        assert sorted(writer.read(fc, place).collect()) == found
    finally:
        store.rm("/writers", recursive=True)


@pytest.mark.parametrize("mode", MODES)
def test_who_takes_a_place_in_a_store_while_the_job_runs_is_heard_by_each_mode(fc, mode):
    store, place = fsspec.filesystem("memory"), "memory://writers/meanwhile"

    def beside(n: int) -> int:
        if n == 1:
            store.pipe(f"{place}/part-x", b"7\n")
        return n

    try:
        rows = fc.parallelize([1, 2], 1).map(beside)
        if mode == "error":
            with pytest.raises(OutputExists, match="exists already"):
                rows.save_as_text(place, mode=mode)
        else:
            rows.save_as_text(place, mode=mode)
        found = {"error": [7], "ignore": [7], "append": [1, 2, 7], "overwrite": [1, 2, 7]}[mode]
        assert sorted(map(int, fc.text_file(place).collect())) == found
        assert not [name for name in store.ls("/writers/meanwhile", detail=False) if "_temporary" in name]
    finally:
        store.rm("/writers", recursive=True)


def test_an_unfinished_save_to_a_store_does_not_take_the_place(fc):
    store, place = fsspec.filesystem("memory"), "memory://writers/unfinished"
    store.pipe(f"{place}/_temporary-0badcafe/part-00000", b"1\n")
    try:
        fc.parallelize([2], 1).save_as_text(place)
        assert fc.text_file(place).collect() == ["2"]
    finally:
        store.rm("/writers", recursive=True)


@pytest.mark.parametrize("path", [None, 5, b"out", ["out"], ""])
def test_what_is_no_place_is_refused_at_the_call(fc, path):
    with pytest.raises(InvalidArgument, match="path"):
        fc.range(1).save_as_text(path)


def test_of_several_that_replace_a_place_at_once_each_succeeds_and_one_stays_whole(tmp_path):
    target, together = tmp_path / "out", threading.Barrier(4)

    def replace(number: int) -> None:
        together.wait(10)
        for turn in range(50):
            work = tmp_path / f".work-{number}-{turn}"
            work.mkdir()
            for name in ("a", "b"):
                (work / name).write_text(f"{number}-{turn}")
            _replace(work, target)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(replace, range(4)))
    assert names(tmp_path) == ["out"]
    assert len({(target / name).read_text() for name in ("a", "b")}) == 1
