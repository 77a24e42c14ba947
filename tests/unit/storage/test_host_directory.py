"""Who owns the shared directory, what a host is, and when an application's files go."""

import os
import pathlib
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flowkit.errors import ClusterError, InvalidArgument
from flowkit.model.ids import AppId, HostToken
from flowkit.storage import private_files
from flowkit.storage.host_directory import HostDirectory


def test_one_base_is_one_host_and_another_base_is_another(tmp_path):
    first, again, other = (
        HostDirectory.open(tmp_path / "a"),
        HostDirectory.open(str(tmp_path / "a")),
        HostDirectory.open(tmp_path / "b"),
    )
    assert first.token == again.token
    assert first.token != other.token
    assert [path.name for path in first.base.iterdir()] == ["token"]


def test_without_a_base_it_is_the_users_own_in_the_temporary_directory(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for base in (None, ""):
        assert HostDirectory.open(base).base == tmp_path / f"flowkit-{os.getuid()}"


def test_a_place_that_is_given_keeps_its_mode_and_all_that_lies_in_it(tmp_path):
    place = tmp_path / "a"
    for mode, name in ((0o755, "project"), (0o700, "app-1"), (0o777, "more.dropped-1234")):
        (place / name / "data").mkdir(parents=True)
        place.chmod(mode)
        host = HostDirectory.open(place)
        host.application(AppId("app-1"))
        host.close()
        assert host.sweep(lease_s=0) == ["app-1"]
        assert (place / name / "data").is_dir()
        assert stat.S_IMODE(place.stat().st_mode) == mode


def test_nobody_else_can_look_in(tmp_path):
    base = tmp_path / "a" / f"flowkit-{os.getuid()}"
    base.mkdir(mode=0o755, parents=True)
    base.chmod(0o777)
    host = HostDirectory.open(tmp_path / "a")
    app = host.application("app-1")
    for path in (host.base, app.path, app.content_directory, app.spill_directory(1)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_symlink_or_a_file_in_its_place_is_refused(tmp_path):
    for name in ("link", "dangling", "file", "pipe"):
        (tmp_path / name).mkdir()
    own = f"flowkit-{os.getuid()}"
    (tmp_path / "real").mkdir(mode=0o755)
    (tmp_path / "link" / own).symlink_to(tmp_path / "real")
    (tmp_path / "dangling" / own).symlink_to(tmp_path / "nothing")
    (tmp_path / "file" / own).touch()
    os.mkfifo(tmp_path / "pipe" / own)
    for name in ("link", "dangling", "file", "pipe"):
        with pytest.raises(ClusterError, match="not a directory of its own"):
            HostDirectory.open(tmp_path / name)
    assert not (tmp_path / "nothing").exists()
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/nope", "/dev/null", "/dev/null/below"])
def test_a_place_that_cannot_be_used_is_named(place):
    with pytest.raises(ClusterError, match=f"{place}/flowkit-.* cannot be used: .*; set local_directory"):
        HostDirectory.open(place)


@pytest.mark.parametrize("said", [b"", b"host-", b"../../etc", b"host-0123456789abcdef\n", b"\xff" * 21])
def test_a_token_that_is_none_is_refused(tmp_path, said):
    host = HostDirectory.open(tmp_path)
    (host.base / "token").write_bytes(said)
    with pytest.raises(ClusterError, match="token is no token"):
        HostDirectory.open(tmp_path)


def test_a_link_in_place_of_the_token_is_refused(tmp_path):
    host = HostDirectory.open(tmp_path / "a")
    (host.base / "token").rename(tmp_path / "token")
    (host.base / "token").symlink_to(tmp_path / "token")
    with pytest.raises(ClusterError, match="no file of flowkit's own"):
        HostDirectory.open(tmp_path / "a")


def test_where_everybody_may_replace_it_there_is_a_warning(tmp_path, caplog):
    tmp_path.chmod(0o777)
    for _ in range(2):
        HostDirectory.open(tmp_path)
    assert [record.message for record in caplog.records] == [
        f"every account of this machine may replace what lies in {tmp_path}: make it sticky (chmod +t), or set local_directory"
    ]
    tmp_path.chmod(0o1777)
    caplog.clear()
    HostDirectory.open(tmp_path)
    assert not caplog.records


def test_somebody_elses_directory_is_refused(tmp_path, monkeypatch):
    HostDirectory.open(tmp_path / "a")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ClusterError, match="belongs to user"):
        HostDirectory.open(tmp_path / "a")


@pytest.mark.parametrize("app", ["", "../up", "a/b", ".hidden", "token", "a.lock", "x.dropped-1"])
def test_an_application_id_that_could_lead_elsewhere_is_refused(tmp_path, app):
    with pytest.raises(InvalidArgument, match="application id"):
        HostDirectory.open(tmp_path / "a").application(app)


def test_an_application_is_one_object_for_a_process(tmp_path):
    host = HostDirectory.open(tmp_path / "a")
    assert host.application("app-1") is host.application("app-1")
    assert host.application("app-1") is not host.application("app-2")


def test_a_dropped_application_leaves_nothing(tmp_path):
    host = HostDirectory.open(tmp_path / "a")
    app = host.application("app-1")
    (app.content_directory / "x").touch()
    host.drop_application("app-1")
    host.drop_application("app-1")
    host.drop_application("never-there")
    assert [path.name for path in host.base.iterdir()] == ["token"]


def test_a_sweep_removes_what_nobody_holds_after_the_lease_and_not_before(tmp_path):
    left = HostDirectory.open(tmp_path / "a")
    (left.application("app-1").content_directory / "x").touch()
    left.close()
    host = HostDirectory.open(tmp_path / "a")
    assert host.sweep(lease_s=60) == []
    assert (host.base / "app-1" / "content" / "x").exists()
    assert host.sweep(lease_s=60) == []
    lock = host.base / "app-1.lock"
    os.utime(lock, (lock.stat().st_atime - 61, lock.stat().st_mtime - 61))
    assert host.sweep({"app-1"}, lease_s=60) == []
    assert host.sweep(lease_s=60) == ["app-1"]
    assert [path.name for path in host.base.iterdir()] == ["token"]


def test_what_is_long_unused_and_not_yet_seen_without_a_holder_stays(tmp_path):
    left = HostDirectory.open(tmp_path / "a")
    left.application("app-1")
    left.close()
    os.utime(left.base / "app-1.lock", (0, 0))
    assert left.sweep(lease_s=60) == []
    assert left.sweep(lease_s=60) == []
    assert (left.base / "app-1").is_dir()


def test_what_the_driver_held_goes_as_soon_as_nobody_holds_it(tmp_path):
    executor, driver, other = (HostDirectory.open(tmp_path / "a") for _ in range(3))
    driver.application("app-1", by_driver=True)
    executor.application("app-1")
    assert executor.shared_memory("app-1") is not None
    driver.close()
    assert other.sweep(lease_s=60) == []
    executor.close()
    assert other.sweep(lease_s=60) == ["app-1"]
    assert [path.name for path in other.base.iterdir()] == ["token"]


def test_what_is_adopted_within_the_lease_stays(tmp_path):
    left = HostDirectory.open(tmp_path / "a")
    left.application("app-1")
    left.close()
    host = HostDirectory.open(tmp_path / "a")
    host.sweep(lease_s=60)
    host.application("app-1")
    assert (host.base / "app-1.lock").read_text() == "flowkit application app-1\n"
    assert HostDirectory.open(tmp_path / "a").sweep(lease_s=0) == []
    assert (host.base / "app-1").is_dir()


def test_one_holder_of_two_is_enough_to_keep_it(tmp_path):
    one, other = HostDirectory.open(tmp_path / "a"), HostDirectory.open(tmp_path / "a")
    one.application("app-1")
    other.application("app-1")
    one.close()
    assert one.sweep(lease_s=0) == []
    other.close()
    assert one.sweep(lease_s=0) == ["app-1"]


def place_file(path):
    path.write_text("precious")


def place_directory(path):
    (path / "precious").mkdir(parents=True)


def place_link(path):
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_bytes(b"flowkit application app-1\n")
    path.symlink_to(elsewhere)


def place_socket(path):
    os.mknod(path, stat.S_IFSOCK | 0o600)


ODD = [place_file, place_directory, place_link, os.mkfifo, place_socket, pathlib.Path.touch]


@pytest.mark.parametrize("place", ODD)
def test_what_is_no_lock_of_ours_is_left_and_refused(tmp_path, place):
    host = HostDirectory.open(tmp_path)
    place_directory(host.base / "app-1")
    place(host.base / "app-1.lock")
    before = sorted(host.base.rglob("*"))
    for _ in range(2):
        assert host.sweep(lease_s=0) == []
    host.drop_application("app-1")
    assert sorted(host.base.rglob("*")) == before
    if place is not pathlib.Path.touch:  # as a process left it that ended before it wrote
        with pytest.raises(ClusterError, match=r"app-1\.lock is no .*flowkit's"):
            host.application("app-1")


@pytest.mark.parametrize("place", [each for each in ODD if each is not place_directory])
def test_what_is_no_directory_of_ours_is_left_and_refused(tmp_path, place):
    host = HostDirectory.open(tmp_path)
    host.application("app-1")
    host.close()
    (host.base / "app-1").rmdir()
    place(host.base / "app-1")
    with pytest.raises(ClusterError, match="not a directory of its own"):
        host.application("app-1")


@pytest.mark.parametrize(
    "name", ["..", "", ".", "a\nb", "*", "[a-z]*", "x.dropped-1", "x.dropped-", "-rf", "\udcff", "token", "app-1.lock", "a" * 240]
)
def test_directories_and_files_of_any_name_are_left(tmp_path, name):
    host = HostDirectory.open(tmp_path)
    kept = host.application("app-1")
    if name not in {"..", "", ".", "token", "app-1.lock"}:
        place_directory(host.base / name)
    place_file(host.base / f"{name}.lock")
    before = sorted(tmp_path.rglob("*"))
    for _ in range(2):
        assert host.sweep(lease_s=0) == []
    assert sorted(tmp_path.rglob("*")) == before
    assert kept.path.is_dir()


def test_what_links_lead_to_is_left_whatever_is_removed(tmp_path):
    outside = tmp_path / "outside"
    place_directory(outside)
    place_file(outside / "file")
    host = HostDirectory.open(tmp_path / "a")
    app = host.application("app-1")
    (app.path / "link").symlink_to(outside)
    (app.path / "blocks").symlink_to(outside)
    os.link(outside / "file", app.path / "hard")
    (app.path / "a\nb").symlink_to(outside / "file")
    os.mkfifo(app.path / "pipe")
    place_socket(app.path / "socket")
    (app.path / "unwritable" / "inside").mkdir(parents=True)
    (app.path / "unwritable").chmod(0o500)
    host.drop_application("app-1")
    assert [path.name for path in host.base.iterdir()] == ["token"]
    assert sorted(path.name for path in outside.iterdir()) == ["file", "precious"]


def test_a_directory_that_becomes_a_link_while_it_is_removed_takes_nothing_else_along(tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    place_directory(outside)
    host = HostDirectory.open(tmp_path / "a")
    inner = host.application("app-1").path / "inner"
    place_directory(inner)
    real, swapped = os.open, []

    def swapping(path, flags, *arguments, dir_fd=None, **named):
        # In the last moment before it is opened; its path leads through the renamed directory.
        if path == "inner" and not swapped:
            swapped.append(path)
            os.rename("inner", "moved", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
            os.symlink(outside, "inner", dir_fd=dir_fd)
        return real(path, flags, *arguments, dir_fd=dir_fd, **named)

    monkeypatch.setattr(os, "open", swapping)
    host.drop_application("app-1")
    assert swapped
    assert (outside / "precious").is_dir()
    monkeypatch.undo()
    host.close()
    host.sweep(lease_s=0)
    assert [path.name for path in host.base.iterdir()] == ["token"]
    assert (outside / "precious").is_dir()


def test_what_cannot_be_removed_whole_is_kept_for_the_next_sweep(tmp_path, monkeypatch, caplog):
    host = HostDirectory.open(tmp_path)
    place_directory(host.application("app-1").path)
    host.close()
    with monkeypatch.context() as patch:
        patch.setattr(private_files, "remove_tree", lambda *_, **__: False)
        assert host.sweep(lease_s=0) == []
    assert "could not be removed whole" in caplog.text
    assert host.sweep(lease_s=0) == ["app-1"]
    assert [path.name for path in host.base.iterdir()] == ["token"]


def test_what_a_late_task_writes_for_a_dropped_application_goes_with_the_next_sweep(tmp_path):
    host = HostDirectory.open(tmp_path)
    app = host.application("app-1")
    host.drop_application("app-1")
    place_file(app.spill_directory(1) / "run")
    assert host.sweep(lease_s=60) == ["app-1"]
    assert [path.name for path in host.base.iterdir()] == ["token"]


def test_block_directories_are_held_and_swept_as_well(tmp_path):
    volume = tmp_path / "volume"
    left = HostDirectory.open(tmp_path / "a", block_directories=str(volume))
    left.application("app-1")
    place_file(left.on_volume(volume, "app-1") / "rdd-1-0")
    left.close()
    place_directory(volume / "precious")
    place_directory(volume / f"flowkit-{os.getuid()}-host-0123456789abcdef" / "of-another-host")
    host = HostDirectory.open(tmp_path / "a", block_directories=str(volume))
    assert host.sweep(lease_s=0) == ["app-1"]
    left = sorted(str(path.relative_to(volume)) for path in volume.rglob("*") if not list(path.glob("*")))
    assert left == [
        f"flowkit-{os.getuid()}-host-0123456789abcdef/of-another-host/precious",
        f"flowkit-{os.getuid()}-{host.token}",
        "precious/precious",
    ]


def test_a_volume_that_cannot_be_used_is_told_and_done_without(tmp_path, caplog):
    host = HostDirectory.open(tmp_path / "a")
    place_file(tmp_path / "file")
    assert host.on_volume(tmp_path / "file", "app-1") is None
    link = tmp_path / "volume" / f"flowkit-{os.getuid()}-{host.token}"
    link.parent.mkdir()
    link.symlink_to(tmp_path)
    assert host.on_volume(link.parent, "app-1") is None
    assert caplog.text.count("cached partitions go elsewhere") == 2
    assert host.sweep(lease_s=0) == []


HOLDER = """
import sys
from flowkit.storage.host_directory import HostDirectory
HostDirectory.open(sys.argv[1]).application("app-1")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_process_lets_go_of_its_application(tmp_path):
    host = HostDirectory.open(tmp_path / "a")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "a")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        assert host.sweep(lease_s=0) == []
        holder.kill()
        holder.wait()
        assert host.sweep(lease_s=0) == ["app-1"]


TOKEN = "import sys; from flowkit.storage.host_directory import HostDirectory; print(HostDirectory.open(sys.argv[1]).token)"


def test_processes_that_start_at_once_agree_on_the_token(tmp_path):
    base = Path(tmp_path / "a")
    started = [subprocess.Popen([sys.executable, "-c", TOKEN, str(base)], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    tokens = {process.communicate()[0] for process in started}
    assert len(tokens) == 1
    assert next(iter(tokens)).startswith("host-")


def test_a_directory_that_its_last_user_takes_along_meanwhile_disturbs_nobody(tmp_path, monkeypatch):
    host = HostDirectory.open(tmp_path / "a")
    host.application("app-1")
    gone = HostDirectory(tmp_path / "gone", HostToken("host-gone"))  # listed, and removed before it is looked at
    monkeypatch.setattr(host, "_on_volumes", lambda: [(gone, False)])
    host.drop_application(AppId("app-1"))
    assert [path.name for path in host.base.iterdir()] == ["token"]
    assert host.sweep() == []
    assert not gone.base.exists()


def test_a_directory_that_a_neighbour_took_along_is_made_again(tmp_path):
    base = tmp_path / "shared"
    base.mkdir(mode=0o700)
    late = HostDirectory(base, HostToken("host-1"))
    base.rmdir()
    assert late.application(AppId("app-1")).path.is_dir()


def test_many_that_come_and_go_in_shared_memory_do_not_disturb_one_another(tmp_path):
    def come_and_go(number: int) -> None:
        for time in range(60):
            host = HostDirectory.open(tmp_path / f"host-{number % 2}")
            app = AppId(f"app-{number}-{time}")
            assert host.shared_memory(app) is None or host.application(app).path.is_dir()
            host.drop_application(app)
            host.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(come_and_go, range(6)))
