"""A sequence on disk is a list in all that reading it shows, and a list again as soon as it is pickled."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit.errors import DataDamaged, DiskFull
from flowkit.execution.spilled_values import SpilledValues
from flowkit.storage.blocks.held_rows import HeldRows

FIXTURES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def spilled(directory: Path, *parts) -> SpilledValues:
    values = SpilledValues(directory)
    for part in parts:
        values.extend(part)
    return values


@FIXTURES
@given(
    parts=st.lists(st.lists(st.one_of(st.integers(), st.text(max_size=3)), max_size=400), max_size=4),
    cuts=st.lists(st.slices(1_000), max_size=4),
)
def test_it_reads_like_the_list_of_all_that_was_added(tmp_path: Path, parts, cuts) -> None:
    values, plain = spilled(tmp_path, *parts), [value for part in parts for value in part]
    assert len(values) == len(plain)
    assert [list(values), list(values)] == [plain, plain]
    assert values == plain
    assert plain == values
    for cut in cuts:
        assert values[cut] == plain[cut]
    places = range(-len(plain), len(plain), 37)
    assert [values[place] for place in places] == [plain[place] for place in places]
    assert [value for batch in values.batches() for value in batch] == plain


def test_a_place_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    values = spilled(tmp_path, range(3))
    for place in (3, -4):
        with pytest.raises(IndexError, match="of 3 values"):
            values[place]


def test_pickled_it_is_a_list(tmp_path: Path) -> None:
    again = pickle.loads(pickle.dumps(spilled(tmp_path, range(1_000))))
    assert type(again) is list
    assert again == list(range(1_000))


def test_its_file_has_no_name_and_outlives_its_directory(tmp_path: Path) -> None:
    values = spilled(tmp_path / "spill", range(1_000))
    assert not list((tmp_path / "spill").iterdir())
    (tmp_path / "spill").rmdir()
    assert sum(values) == sum(range(1_000))


def test_threads_read_it_at_the_same_time(tmp_path: Path) -> None:
    values = spilled(tmp_path, range(50_000))
    sums: list[int] = []
    threads = [threading.Thread(target=lambda: sums.append(sum(values))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [sum(range(50_000))] * 4


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch) -> None:
    import errno
    import os

    def full(*_):
        raise OSError(errno.ENOSPC, "no space")

    values = spilled(tmp_path)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskFull, match="no space left"):
        values.extend([1])


def test_values_on_disk_stay_there_in_a_cached_partition_and_lists_beside_them_are_each_readers_own(tmp_path):
    on_disk = SpilledValues(tmp_path)
    on_disk.extend(range(1_000))
    held = HeldRows()
    held.add([("many", on_disk), ("few", [1])])
    for _ in range(2):
        (_, many), (_, few) = held.rows()
        assert many is on_disk
        assert few == [1]
        few.append(2)


def test_values_of_which_any_byte_is_another_are_an_error_and_no_other_values(tmp_path: Path) -> None:
    values = spilled(tmp_path, range(300), ["text"] * 10)
    for place in range(0, values.disk_bytes, 7):
        (byte,) = os.pread(values._descriptor, 1, place)
        os.pwrite(values._descriptor, bytes([byte ^ 1]), place)
        with pytest.raises(DataDamaged, match="are damaged"):
            list(values)
        os.pwrite(values._descriptor, bytes([byte]), place)
    assert list(values) == [*range(300), *["text"] * 10]
    os.truncate(values._descriptor, values.disk_bytes - 1)
    with pytest.raises(DataDamaged):
        values[-1]
