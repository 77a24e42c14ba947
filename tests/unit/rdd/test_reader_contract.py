"""One contract for all readers: what a path may be, what happens to what is no file, and what an error says. One row a reader."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import flowkit as fk
from flowkit.errors import BadInput, InputChanged, InvalidArgument
from flowkit.storage.objects.stores import Stores
from flowkit.testing.inline import inline_context


@dataclass(frozen=True)
class Reader:
    """How a reader is tried: files that hold one value each, and content that is none of its own."""

    name: str
    #: a file that holds a number
    file_of: Callable[[int], bytes]
    #: numbers of what the reader makes of a path
    read: Callable[[fk.Context, Any], fk.RDD[int]]
    wrong: bytes
    #: what the error for it is, and where it says that it is wrong
    error: type[Exception]
    place: str
    decompresses: bool = True
    #: how many rows a file without a byte makes
    empty_rows: int = 0
    #: whether it reads the directories of a directory, and looks into files at the call
    is_table: bool = False


def arrow_stream(*batches: list[int]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("n", pa.int64())])) as writer:
        for numbers in batches:
            writer.write(pa.record_batch({"n": pa.array(numbers, pa.int64())}))
    return sink.getvalue().to_pybytes()


READERS = [
    Reader(
        "text_file",
        lambda n: b"%d\n" % n,
        lambda fc, path: fc.text_file(path).map(int),
        b"1\n\xff\n",
        UnicodeDecodeError,
        ", line 2, which begins with b'\\xff'",
    ),
    Reader(
        "read_json_lines",
        lambda n: json.dumps({"n": n}).encode(),
        lambda fc, path: fc.read_json_lines(path).map(lambda row: row["n"]),
        b'{"n": 1}\n\n{"n": }\n',
        BadInput,
        ", line 3: not JSON: '{\"n\": }'",
    ),
    Reader(
        "read_csv",
        lambda n: b"n,s\n%d,x\n" % n,
        lambda fc, path: fc.read_csv(path, types={"n": int}).map(lambda row: row["n"]),
        b"n,s\n1,x\n2\n",
        BadInput,
        ", line 3: 1 fields for 2 columns: ['2']",
    ),
    Reader(
        "pickle_file",
        lambda n: pickle.dumps([n]),
        lambda fc, path: fc.pickle_file(path),
        pickle.dumps([1]) + b"spoiled",
        BadInput,
        f", byte {len(pickle.dumps([1]))}: not what save_as_pickle writes",
    ),
    Reader(
        "binary_records",
        lambda n: b"%04d" % n,
        lambda fc, path: fc.binary_records(path, 4).map(int),
        b"0001000",
        BadInput,
        ", byte 4: is no multiple of 4 bytes long: the last record has 3",
    ),
    Reader(
        "read_arrow",
        lambda n: arrow_stream([n]),
        lambda fc, path: fc.read_arrow(path).map(lambda row: row["n"]),
        arrow_stream([1], [2])[:-100],
        BadInput,
        ", batch 1: cannot be read as an Arrow IPC file or stream",
    ),
    Reader(
        "read_parquet",
        lambda n: parquet_of(n),
        lambda fc, path: fc.read_parquet(path, num_partitions=1).map(lambda row: row["n"]),
        b"PAR1 spoiled PAR1",
        InvalidArgument,
        " cannot be read as Parquet: ",
        decompresses=False,
        is_table=True,
    ),
    Reader(
        "whole_text_files",
        lambda n: b"%d" % n,
        lambda fc, path: fc.whole_text_files(path).values().map(lambda text: int(text or 0)),
        b"\xff",
        UnicodeDecodeError,
        "",
        empty_rows=1,
    ),
    Reader(
        "binary_files",
        lambda n: b"%d" % n,
        lambda fc, path: fc.binary_files(path).values().map(lambda data: int(data or 0)),
        b"",
        ValueError,
        "",
        decompresses=False,
        empty_rows=1,
    ),
]


def parquet_of(number: int) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"n": [number]}), sink)
    return sink.getvalue().to_pybytes()


every_reader = pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)


@pytest.fixture(scope="module")
def fc() -> Iterator[fk.Context]:
    with inline_context() as context:
        yield context


@pytest.fixture
def lake(reader: Reader, tmp_path: Path) -> Path:
    """Files ``0.x`` to ``2.x`` that hold 0 to 2, more in directories, and what is hidden."""
    for name, number in {"0.x": 0, "1.x": 1, "2.x": 2, "more/3.x": 3, "days/day=4/4.x": 4, "days/day=5/5.x": 5}.items():
        path = tmp_path / "lake" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(reader.file_of(number))
    (tmp_path / "lake" / "_SUCCESS").touch()
    (tmp_path / "lake" / ".0.x.crc").write_bytes(b"\xff")
    return tmp_path / "lake"


def said_by(error: BaseException) -> str:
    return "\n".join((str(error), *getattr(error, "__notes__", ())))


@every_reader
@pytest.mark.parametrize(
    ("path", "numbers"),
    [
        ("{lake}/1.x", [1]),
        ("file://{lake}/1.x", [1]),
        ("file:{lake}/1.x", [1]),
        ("{lake}", [0, 1, 2]),
        ("{lake}/", [0, 1, 2]),
        ("{lake}/[12].x", [1, 2]),
        ("{lake}/{{0,2}}.x", [0, 2]),
        ("{lake}/2.x,{lake}/0.x", [2, 0]),
        ("{lake}/days/*", [4, 5]),
        ("{lake}/days/day=*/*.x", [4, 5]),
        ("{lake}/**/*.x", [0, 1, 2, 4, 5, 3]),
        ("1.x", [1]),
        ("./more", [3]),
        ("*.x", [0, 1, 2]),
        ("../lake/0.x", [0]),
    ],
)
def test_a_path_names_the_same_files_to_every_reader(fc, reader, lake, monkeypatch, path, numbers):
    monkeypatch.chdir(lake)
    if reader.is_table and path in ("{lake}", "{lake}/"):
        numbers = [0, 1, 2, 4, 5, 3]
    rows = reader.read(fc, path.format(lake=lake))
    monkeypatch.chdir("/")  # the driver's directory at the call is meant
    assert rows.collect() == numbers


@every_reader
def test_a_list_of_paths_is_read_in_its_order(fc, reader, lake, monkeypatch):
    monkeypatch.chdir(lake)
    assert reader.read(fc, [lake / "2.x", f"{lake}/[01].x", Path("more"), "0.x"]).collect() == [2, 0, 1, 3, 0]
    assert reader.read(fc, lake.glob("1.x")).collect() == [1]


@every_reader
@pytest.mark.parametrize("path", [[], {"a.x"}, {"a.x": 1}, b"a.x", 5, None, ["0.x", 5]], ids=repr)
def test_what_is_no_path_is_refused_at_the_call(fc, reader, path):
    with pytest.raises(InvalidArgument, match="path"):
        reader.read(fc, path)


@every_reader
def test_what_is_missing_fails_at_the_call_and_is_named(fc, reader, lake, monkeypatch):
    monkeypatch.chdir(lake)
    for path in (f"{lake}/none.x", f"{lake}/*.none", "none.x", ["0.x", "none.x"], "0.x,none.x", Path("none.x")):
        with pytest.raises(FileNotFoundError, match=r"none"):
            reader.read(fc, path)
    for path in (f"{lake}/days", f"{lake}/days/"):
        if reader.is_table:
            assert reader.read(fc, path).collect() == [4, 5]
            continue
        with pytest.raises(FileNotFoundError, match=r"days holds directories \(day=4, day=5\) and no files"):
            reader.read(fc, path)
    (lake / "void").mkdir()
    assert reader.read(fc, lake / "void").collect() == []


def make_fifo(place: Path) -> None:
    os.mkfifo(place)


@every_reader
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (make_fifo, InvalidArgument, "odd.x is a FIFO, not a regular file"),
        (lambda place: place.symlink_to("/dev/zero"), InvalidArgument, "odd.x is a character device, not a regular file"),
        (lambda place: place.symlink_to("gone"), FileNotFoundError, "odd.x is a symbolic link to gone, where nothing is"),
        (lambda place: place.symlink_to("odd.x"), FileNotFoundError, "odd.x is a symbolic link to odd.x"),
    ],
    ids=["FIFO", "device", "dangling link", "link loop"],
)
def test_what_is_no_file_is_refused_at_the_call_and_never_waited_for(fc, reader, lake, make, error, message):
    make(lake / "odd.x")
    for path in (lake / "odd.x", lake, f"{lake}/*.x", [lake / "0.x", lake / "odd.x"]):
        with pytest.raises(error, match=message):
            reader.read(fc, path)


@every_reader
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (make_fifo, InvalidArgument, "is a FIFO"),
        (lambda place: place.mkdir(), InvalidArgument, "is a directory"),
        (lambda place: None, FileNotFoundError, "No such file|nothing is at"),
    ],
    ids=["FIFO", "directory", "gone"],
)
def test_what_became_of_a_file_since_the_call_is_named_by_the_task(fc, reader, lake, make, error, message):
    rows = reader.read(fc, [lake / "0.x", lake / "1.x"])
    (lake / "1.x").unlink()
    make(lake / "1.x")
    with pytest.raises(error, match=message) as raised:
        rows.collect()
    assert str(lake / "1.x") in said_by(raised.value)


@every_reader
def test_a_file_without_a_byte_has_no_rows(fc, reader, lake):
    (lake / "1.x").write_bytes(b"")
    assert reader.read(fc, f"{lake}/*.x").count() == 2 + reader.empty_rows


COMPRESSED = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}


@every_reader
@pytest.mark.parametrize("suffix", [*COMPRESSED, ".GZ"])
def test_a_file_is_decompressed_by_its_suffix(fc, reader, tmp_path, suffix):
    file = tmp_path / f"7.x{suffix}"
    if not reader.decompresses:  # whoever asks for bytes gets those that are there, as in PySpark
        file.write_bytes(reader.file_of(7))
        assert reader.read(fc, file).collect() == [7]
        return
    file.write_bytes(COMPRESSED[suffix.lower()](reader.file_of(7)))
    assert reader.read(fc, file).collect() == [7]
    file.write_bytes(COMPRESSED[suffix.lower()](reader.file_of(7))[:-6])
    with pytest.raises(Exception) as raised:  # noqa: PT011 - each library has one of its own
        reader.read(fc, file).collect()
    assert str(file) in said_by(raised.value)
    assert "times" not in said_by(raised.value)  # another try would find the same


@pytest.mark.parametrize("reader", [each for each in READERS if each.wrong], ids=lambda reader: reader.name)
def test_wrong_content_is_named_with_its_file_and_place_and_not_tried_again(fc, reader, lake):
    (lake / "1.x").write_bytes(reader.wrong)
    with pytest.raises(reader.error) as raised:
        reader.read(fc, [lake / "0.x", lake / "1.x"]).collect()
    assert f"{lake / '1.x'}{reader.place}" in said_by(raised.value)
    assert "4 times" not in said_by(raised.value)
    if reader.error is BadInput:
        assert raised.value.path == str(lake / "1.x")


@every_reader
def test_addresses_are_read_as_paths_are(fc, reader):
    store = fsspec.filesystem("memory")
    place = f"memory://contract/{reader.name}"
    for name, number in {"0.x": 0, "1.x": 1, "_SUCCESS": 9, "days/day=4/4.x": 4}.items():
        store.pipe(f"{place}/{name}", reader.file_of(number))
    try:
        for path, numbers in {
            place: [0, 1, 4] if reader.is_table else [0, 1],
            f"{place}/*.x": [0, 1],
            f"{place}/days/*": [4],
            f"{place}/1.x,{place}/0.x": [1, 0],
        }.items():
            assert reader.read(fc, path).collect() == numbers
        assert reader.read(fc, [f"{place}/1.x", f"{place}/{{0,7}}.x"]).collect() == [1, 0]
        if not reader.is_table:
            with pytest.raises(FileNotFoundError, match="holds directories"):
                reader.read(fc, f"{place}/days")
        with pytest.raises(FileNotFoundError, match="nothing is at"):
            reader.read(fc, f"{place}/none")
        if reader.error is BadInput:
            store.pipe(f"{place}/1.x", reader.wrong)
            with pytest.raises(BadInput) as raised:
                reader.read(fc, place).collect()
            assert f"{place}/1.x{reader.place}" in said_by(raised.value)
    finally:
        store.rm("/contract", recursive=True)


@every_reader
def test_the_plan_and_errors_call_a_reader_by_its_name(fc, reader, lake):
    assert reader.is_table or reader.name in reader.read(fc, lake).debug_string()


# -- files that change -------------------------------------------------------------------------------------------------------


def later(path: Path) -> None:
    """Have a file's time of change be another for sure: a system's clock may be a coarse one."""
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))


def replaced(path: Path, data: bytes) -> None:
    other = path.with_name(".other")
    other.write_bytes(data)
    later(other)
    other.rename(path)


def rewritten(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    later(path)


def appended(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def touched(path: Path, data: bytes) -> None:
    later(path)


def truncated(path: Path, data: bytes) -> None:
    os.truncate(path, path.stat().st_size - 1)


every_change = pytest.mark.parametrize("change", [replaced, rewritten, appended, touched, truncated])


@every_reader
@every_change
def test_a_file_that_has_changed_since_the_call_is_an_error_that_names_it(fc, reader, lake, change):
    rows = reader.read(fc, [lake / "0.x", lake / "1.x"])
    assert rows.collect() == [0, 1]
    change(lake / "1.x", reader.file_of(3))
    for _ in range(2):
        with pytest.raises(InputChanged, match="has changed since its partitions were planned") as raised:
            rows.collect()
        assert str(lake / "1.x") in str(raised.value)
        assert "times" not in said_by(raised.value)
    assert raised.value.planned != raised.value.found
    if change in (replaced, rewritten):
        assert reader.read(fc, [lake / "0.x", lake / "1.x"]).collect() == [0, 3]


@every_reader
@pytest.mark.parametrize("change", [replaced, rewritten, touched])
def test_a_file_that_has_changed_is_read_as_it_is_when_the_user_says_so(reader, lake, change):
    with inline_context(changed_inputs="read") as fc:
        rows = reader.read(fc, [lake / "0.x", lake / "1.x"])
        change(lake / "1.x", reader.file_of(3))
        assert rows.collect() == [0, 1 if change is touched else 3]


def test_a_split_file_is_read_whole_however_long_it_is_by_then_when_the_user_says_so(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{n:09}\n" for n in range(1000)))
    with inline_context(changed_inputs="read") as fc:
        rows = fc.text_file(path, 8)
        assert rows.count() == 1000
        for count in (10, 999, 1001, 30_000, 0):
            path.write_text("".join(f"{n:09}\n" for n in range(count)))
            assert rows.map(int).collect() == list(range(count))


@pytest.mark.parametrize("reader", [each for each in READERS if not each.empty_rows], ids=lambda reader: reader.name)
def test_a_file_that_changes_while_it_is_read_is_an_error_that_names_it(fc, reader, lake):
    rows = reader.read(fc, [lake / "0.x", lake / "1.x"])

    def change(n, *, path=lake / "1.x"):
        if n == 1:
            later(path)
        return n

    with pytest.raises(InputChanged, match=r"1\.x"):
        rows.map(change).collect()


def test_rows_of_a_file_that_was_cut_are_not_handed_on_to_whoever_wants_only_some(fc, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a line of text\n" * 100_000)
    seen = []

    def cut(line):
        if not seen:
            seen.append(line)
            os.truncate(path, 700_000)
            later(path)
        return line

    with pytest.raises(InputChanged):
        fc.text_file(path, 1).map(cut).take(60_000)


@every_reader
def test_objects_that_change_are_an_error_that_names_them(fc, reader):
    store = fsspec.filesystem("memory")
    place = f"memory://changes/{reader.name}"
    for number in (0, 1):
        store.pipe(f"{place}/{number}.x", reader.file_of(number))
    try:
        rows = reader.read(fc, place)
        assert rows.collect() == [0, 1]
        store.pipe(f"{place}/1.x", reader.file_of(1))  # of one size and content: a time tells
        with pytest.raises(InputChanged, match=r"1\.x") as raised:
            rows.collect()
        assert "times" not in said_by(raised.value)
        with inline_context(changed_inputs="read") as lenient:
            rows = reader.read(lenient, place)
            store.pipe(f"{place}/1.x", reader.file_of(3))
            assert rows.collect() == [0, 3]
    finally:
        store.rm("/changes", recursive=True)


def test_an_object_store_that_remembers_its_listings_is_asked_anew():
    class Remembers(fsspec.get_filesystem_class("memory")):
        protocol = "remembers"
        store, pseudo_dirs, listings = {}, [""], {}

        def invalidate_cache(self, path=None):
            self.listings.clear()

        def info(self, path, **kwargs):
            return self.listings.setdefault(path, super().info(path, **kwargs))

    store = Remembers()
    stores = Stores({"remembers": store})
    for text in (b"one", b"other", b"a third"):
        store.pipe("/a/0.x", text)
        (file,) = stores.list_files("remembers://a")
        with stores.open(file.path) as opened:
            assert file.version.size_bytes == len(text)
            assert stores.version(file.path, opened) == file.version
            store.pipe("/a/0.x", text)
            assert not stores.version(file.path, opened).is_of(file.version)
