"""The record of what slots run, read after the death of who wrote it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

from flowkit.cluster.slot_record import SlotRecord, collect, read, sweep
from flowkit.model.ids import AttemptId, ExecutorId

ADDRESS = "tcp://127.0.0.1:4711"
EXECUTOR = ExecutorId(f"{ADDRESS}#a1b2")
OTHER = ExecutorId("tcp://127.0.0.1:47110#c3d4")

DIES = f"""
import os, signal, sys
from pathlib import Path
from urllib.parse import quote
from flowkit.cluster.slot_record import SlotRecord
record = SlotRecord.create(Path(sys.argv[1]), "{EXECUTOR}", 3)
record.note(0, 7)
record.note(1, 8)
record.note(1, None)
record.note(2, 2**40)
os.kill(os.getpid(), signal.SIGKILL)
"""


def records(base: Path) -> list[Path]:
    return sorted(base.iterdir())


def test_what_a_killed_process_ran_can_be_read_after_its_death(tmp_path: Path):
    ended = subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert collect(tmp_path, ADDRESS) == {EXECUTOR: [7, 2**40]}
    assert not records(tmp_path)


def test_only_the_records_of_that_address_are_taken(tmp_path: Path):
    record = SlotRecord.create(tmp_path, OTHER, 1)
    assert record is not None
    record.note(0, AttemptId(1))
    assert collect(tmp_path, ADDRESS) == {}
    assert len(records(tmp_path)) == 1
    record.remove()
    assert not records(tmp_path)
    record.note(0, AttemptId(2))


def test_more_slots_than_a_page_holds_are_all_noted(tmp_path: Path):
    record = SlotRecord.create(tmp_path, EXECUTOR, 1000)
    assert record is not None
    record.note(999, AttemptId(5))
    record.note(1_000_000, AttemptId(6))
    assert collect(tmp_path, ADDRESS) == {EXECUTOR: [5]}


def test_where_no_file_can_be_made_there_is_no_record(tmp_path: Path):
    assert SlotRecord.create(tmp_path / "nowhere", EXECUTOR, 1) is None
    assert collect(tmp_path / "nowhere", ADDRESS) == {}


def test_a_sweep_removes_old_records_of_the_dead_alone(tmp_path: Path):
    living = SlotRecord.create(tmp_path, EXECUTOR, 1)
    dead = SlotRecord.create(tmp_path, OTHER, 1)
    assert living is not None and dead is not None
    sweep(tmp_path, older_than_s=0.0)
    assert len(records(tmp_path)) == 2, "both are held"
    del dead
    gc.collect()
    sweep(tmp_path, older_than_s=60.0)
    assert len(records(tmp_path)) == 2, "its nanny, the parent of this process, is there and may ask"
    for path in records(tmp_path):
        os.utime(path, (0, 0))
    sweep(tmp_path, older_than_s=60.0)
    assert [path.name.partition("%23")[2] for path in records(tmp_path)] == ["a1b2.slots"]


def test_a_sweep_removes_the_records_of_whose_nanny_is_gone_too(tmp_path: Path):
    # The process in between is the nanny; both are gone when this returns.
    nanny = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[2], sys.argv[1]])"
    subprocess.run([sys.executable, "-c", nanny, str(tmp_path), DIES], check=True)
    assert len(records(tmp_path)) == 1
    sweep(tmp_path, older_than_s=3600.0)
    assert not records(tmp_path)


def test_what_is_no_record_is_left_and_not_read(tmp_path: Path):
    name = f"{quote(EXECUTOR, safe='')}.slots"
    for number, make in enumerate((os.mkfifo, Path.touch, Path.mkdir, lambda path: path.symlink_to(tmp_path / "file"))):
        (tmp_path / str(number)).mkdir()
        make(tmp_path / str(number) / name)
    (tmp_path / "file").write_bytes(bytes(100))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / name).write_text("notes of the user's own")
    for base in ("0", "1", "2", "3", "own"):
        assert collect(tmp_path / base, ADDRESS) == {}
        sweep(tmp_path / base, older_than_s=0.0)
        assert [path.name for path in records(tmp_path / base)] == [name]
    assert (tmp_path / "file").exists()


def test_what_a_living_process_has_in_hand_can_be_read_as_well_and_the_record_stays(tmp_path: Path):
    assert read(tmp_path, EXECUTOR) is None
    record = SlotRecord.create(tmp_path, EXECUTOR, 3)
    assert record is not None
    record.note(0, AttemptId(7))
    record.note(2, AttemptId(9))
    assert read(tmp_path, EXECUTOR) == [7, 9]
    record.note(0, None)
    assert read(tmp_path, EXECUTOR) == [9]
    assert read(tmp_path, OTHER) is None
    record.remove()
