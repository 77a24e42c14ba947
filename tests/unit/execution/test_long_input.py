"""A line, a record or a file that no memory holds is an error that names it, wherever it is read; those that fit are read."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowkit.errors import InputTooLarge, LimitExceeded, UserError
from flowkit.execution import long_input
from flowkit.execution.csv_files import ReadCsv
from flowkit.execution.file_readers import ReadWholeText
from flowkit.execution.input_files import InputFile
from flowkit.execution.long_input import LongInput
from flowkit.execution.text_lines import read_lines
from flowkit.lineage.kernels import FileSplit
from flowkit.model.ids import AttemptId
from flowkit.storage.memory.task_memory import ExecutorMemory, TaskMemory

#: of a process that may hold so much more
ROOM_BYTES = 1 << 20
LONG, SHORT = b"x" * (2 * ROOM_BYTES), b"y" * (ROOM_BYTES // 16)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskMemory]:
    monkeypatch.setattr(long_input, "FREE_BYTES", 64 << 10)
    monkeypatch.setattr("flowkit.execution.csv_files.FREE_BYTES", 64 << 10)
    monkeypatch.setattr(long_input, "_STEP_BYTES", 64 << 10)
    executor = ExecutorMemory(64 << 20)
    executor.measure_room_with(lambda: ROOM_BYTES)
    task = TaskMemory(executor, AttemptId(1))
    yield task
    assert task.release_all() == 0, "what was asked for is given back"


def lines(path: Path, memory: TaskMemory, *, encoding: str = "utf-8", start: int = 0) -> int:
    codec = "gz" if path.suffix == ".gz" else None
    length = None if start == 0 else path.stat().st_size - start
    return sum(len(each) for each, _ in read_lines(FileSplit(str(path), start, length, codec), encoding, "strict", memory=memory))


def records(path: Path, memory: TaskMemory) -> int:
    return sum(1 for _ in ReadCsv(None, True, ",", "utf-8", {})(InputFile(str(path), memory=memory)))


def whole_text(path: Path, memory: TaskMemory) -> int:
    return sum(1 for _ in ReadWholeText("utf-8", "strict")(InputFile(str(path), memory=memory)))


CASES: dict[str, tuple[Callable[[bytes], bytes], Callable[..., int], str]] = {
    "line": (lambda long: b"a\n" + long + b"\nb\n", lines, "the line that begins at byte 2 is too long"),
    "last line": (lambda long: b"a\r\n" + long, lines, "the line that begins at byte 3 is too long"),
    "line of a .gz": (lambda long: gzip.compress(b"a\n" + long + b"\n"), lines, "the line that begins at byte 2 is too long"),
    "line of UTF-16": (
        lambda long: ("a\n" + long.decode() + "\n").encode("utf-16-le"),
        lambda path, memory: lines(path, memory, encoding="utf-16-le"),
        "the line that begins at byte ",
    ),
    "line of a piece": (
        lambda long: b"a\nb\n" + long + b"\n",
        lambda path, memory: lines(path, memory, start=1),
        "the line that begins at byte 4 is too long",
    ),
    "record": (lambda long: b"a,b\n1,2\n3," + long + b"\n", records, "the record that begins at byte "),
    "record of many lines": (
        lambda long: b'a,b\n1,2\n3,"' + b"\n".join([long[:1000]] * (len(long) // 1000)) + b'"\n',
        records,
        "the record that begins at byte ",
    ),
    "quote that is never closed": (lambda long: b'a,b\n1,"2\n' + b"3,4\n" * (len(long) // 4), records, "the record that begins"),
    "whole text": (lambda long: long, whole_text, "the file is too long"),
    "whole text of a .gz": (gzip.compress, whole_text, "the file is too long"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_no_memory_holds_is_named_with_file_place_length_and_setting(tmp_path: Path, memory: TaskMemory, case: str) -> None:
    content_of, read, message = CASES[case]
    path = tmp_path / ("long.gz" if ".gz" in case else "long.txt")
    path.write_bytes(content_of(LONG))
    with pytest.raises(InputTooLarge, match=message) as raised:
        read(path, memory)
    error: Any = raised.value
    assert isinstance(error, UserError), "it is not tried again"
    assert isinstance(error, LimitExceeded)
    assert (error.path, error.setting, error.limit) == (str(path), "memory_limit", ROOM_BYTES)
    assert error.actual <= len(LONG) + 10, "it is told as soon as it is known"
    assert str(path) in str(error)
    assert "Raise memory_limit" in str(error)


@pytest.mark.parametrize("case", [case for case in CASES if case != "quote that is never closed"])
def test_what_fits_is_read(tmp_path: Path, memory: TaskMemory, case: str) -> None:
    content_of, read, _ = CASES[case]
    path = tmp_path / ("long.gz" if ".gz" in case else "long.txt")
    path.write_bytes(content_of(SHORT))
    assert read(path, memory) >= 1


def test_many_lines_are_no_long_one(tmp_path: Path, memory: TaskMemory) -> None:
    for name, content, read in (("a.txt", b"12345678\n", lines), ("a.csv", b"1,2\n", records), ("r.txt", b"1234567\r", lines)):
        (tmp_path / name).write_bytes(content * (len(LONG) // 4 // len(content)))
        assert read(tmp_path / name, memory) > 1000


def test_where_nobody_knows_what_there_is_nothing_is_refused() -> None:
    for memory in (None, TaskMemory(ExecutorMemory(1 << 20), AttemptId(1))):
        long = LongInput(memory, "file", copies=2)
        long.known(1 << 40)
        long.grown(0, 1 << 40)
        long.over()
