"""What cannot work of a cluster of its own is refused at the call, by the name of what was asked for, before anything is started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowkit import errors
from flowkit.cluster.embedded_checks import MOST_THREADS, check_embedded, check_scratch, check_shares
from flowkit.config import Config

GB = 1 << 30


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWKIT_LOCAL_DIRECTORY", str(tmp_path / "files"))


def check(workers=1, threads_per_worker=1, processes=True, memory_limit=None, **settings):
    check_embedded(workers, threads_per_worker, processes, memory_limit, Config(**settings))


def test_what_can_work_passes():
    check()
    check(workers=None)
    check(workers=3, threads_per_worker=4, memory_limit="400MB")
    check(memory_limit="auto")
    check(processes=False, workers=8, memory_limit="64GiB")


@pytest.mark.parametrize("workers", ["2", 2.0, True, 0, -1])
def test_workers_are_a_whole_number(workers):
    with pytest.raises((errors.WrongType, errors.InvalidArgument), match="workers = .*: must be a whole number of 1 or more"):
        check(workers=workers)


@pytest.mark.parametrize("limit", ["lots", -5, 0, "", "-1GB", "1e400", 2.5, True, b"1GB"])
def test_a_limit_that_is_no_size_is_refused(limit):
    with pytest.raises((errors.WrongType, errors.InvalidArgument), match="memory_limit = .*: must be bytes, a number above 0"):
        check(memory_limit=limit)


@pytest.mark.parametrize("limit", ["30MB", "70MB", 1, 100_000_000])
@pytest.mark.parametrize("processes", [True, False])
def test_a_limit_that_leaves_tasks_nothing_is_refused_with_the_sum(limit, processes):
    with pytest.raises(
        errors.InvalidArgument, match="memory_limit = .*: too little for a worker: .* give it .* at the very least"
    ):
        check(memory_limit=limit, processes=processes)


def test_the_limit_that_is_told_as_the_least_passes():
    with pytest.raises(errors.InvalidArgument) as caught:
        check(memory_limit="30MB")
    check(memory_limit=int(caught.value.data["allowed"].split()[0]) + 1)


def test_more_threads_than_a_process_can_run_are_refused():
    check(threads_per_worker=MOST_THREADS)
    with pytest.raises(errors.InvalidArgument, match="threads_per_worker = 1,025: a process runs 1,024 tasks"):
        check(threads_per_worker=MOST_THREADS + 1)
    with pytest.raises(
        errors.InvalidArgument, match="workers = 2,000: .*with processes=False all 4,000 would be threads of this one"
    ):
        check(workers=2_000, threads_per_worker=2, processes=False)


def test_more_workers_than_the_machine_has_memory_for_are_refused():
    check_shares(16, None, 4 * GB, Config())
    with pytest.raises(
        errors.InvalidArgument, match=r"workers = 1,000: the machine has 4,096 MiB of memory.*there is room for 27"
    ):
        check_shares(1_000, None, 4 * GB, Config())
    check_shares(64, "1GiB", 4 * GB, Config())  # limits, not shares: they may overlap
    with pytest.raises(errors.InvalidArgument, match=r"workers = 1,000"):
        check_shares(1_000, "1GiB", 4 * GB, Config())
    with pytest.raises(errors.InvalidArgument, match="min_executors = 1,000"):
        check_shares(1_000, None, 4 * GB, Config(allocation="backlog", min_executors=1_000))
    check_shares(1, None, 1, Config())  # one is what there is


def refused(place):
    with pytest.raises(errors.ConfigError) as caught:
        check(local_directory=str(place))
    assert caught.value.data["setting"] == "local_directory"
    assert "local_directory = " in str(caught.value)
    return str(caught.value)


def test_a_directory_that_cannot_be_had_is_refused_with_the_reason(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / f"flowkit-{os.getuid()}").symlink_to(tmp_path)
    assert "'/proc/nope'" in refused("/proc/nope")
    assert "/dev/null is no directory" in refused("/dev/null")
    assert "is no directory" in refused(tmp_path / "file")
    check(local_directory=str(tmp_path / "link"))  # a link of the user's own, to a place for a directory of ours
    assert "symlink" in refused(tmp_path / "planted")
    assert "Not a directory" in refused(tmp_path / "file" / "below")
    assert "null byte" in refused("a\0b")
    assert "name too long" in refused(tmp_path / ("x" * 300)).lower()
    deep = tmp_path / "/".join(["x" * 200] * 21)
    told = refused(deep)
    assert "name too long" in told.lower()
    assert len(told) < 6_000


def test_a_path_too_long_for_what_lies_in_it_is_refused(tmp_path: Path):
    deep = str(tmp_path)
    while len(deep) < 4_000:  # there is room for it, and none for what lies in it
        deep += "/" + "x" * min(200, 4_000 - len(deep))
    assert "name too long" in refused(deep).lower()


def test_a_directory_that_everybody_may_write_to_stays_as_it_is(tmp_path: Path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    check(local_directory=str(shared))
    assert shared.stat().st_mode & 0o7777 == 0o1777
    assert (shared / f"flowkit-{os.getuid()}").stat().st_mode & 0o7777 == 0o700


def test_a_full_disk_is_told_before_anything_is_started(tmp_path: Path, monkeypatch):
    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    check(local_directory=str(tmp_path / "own"))
    monkeypatch.setattr(os, "write", full)
    assert "No space left on device" in refused(tmp_path / "own")
    assert os.listdir(tmp_path / "own" / f"flowkit-{os.getuid()}") == ["token"], "nothing of the attempt stays"


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser may write anywhere")
def test_a_place_without_permission_is_refused(tmp_path: Path):
    tmp_path.chmod(0o500)
    assert "Permission denied" in refused(tmp_path / "below")


def test_the_directory_of_the_environment_is_looked_at_as_well(monkeypatch):
    monkeypatch.setenv("FLOWKIT_LOCAL_DIRECTORY", "/dev/null")
    with pytest.raises(errors.ConfigError, match="local_directory = '/dev/null'"):
        check()
    with pytest.raises(errors.ConfigError, match="local_directory = '/dev/null'"):
        check(processes=False)


def test_a_scratch_directory_of_dasks_that_is_none_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    check_scratch(None)
    check_scratch(str(tmp_path / "made" / "if need be"))
    with pytest.raises(errors.ConfigError, match="temporary-directory = .* is no directory"):
        check_scratch(str(tmp_path / "file" / "below"))
