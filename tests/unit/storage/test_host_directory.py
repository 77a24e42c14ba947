"""Who owns the shared directory, what a host is, and when an application's files go."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flowkit.errors import ClusterError, InvalidArgument
from flowkit.model.ids import AppId, HostToken
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


def test_nobody_else_can_look_in(tmp_path):
    base = tmp_path / "a"
    base.mkdir(mode=0o755)
    host = HostDirectory.open(base)
    app = host.application("app-1")
    for path in (base, app.path, app.content_directory, app.spill_directory(1)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_symlink_or_a_file_in_its_place_is_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(ClusterError, match="not a directory of its own"):
            HostDirectory.open(tmp_path / name)


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
    mark = host.base / "app-1.abandoned"
    os.utime(mark, (mark.stat().st_atime - 61, mark.stat().st_mtime - 61))
    assert host.sweep({"app-1"}, lease_s=60) == []
    assert host.sweep(lease_s=60) == ["app-1"]
    assert [path.name for path in host.base.iterdir()] == ["token"]


def test_what_is_adopted_within_the_lease_stays(tmp_path):
    left = HostDirectory.open(tmp_path / "a")
    left.application("app-1")
    left.close()
    host = HostDirectory.open(tmp_path / "a")
    host.sweep(lease_s=60)
    host.application("app-1")
    assert not (host.base / "app-1.abandoned").exists()
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


def test_a_directory_without_a_lock_file_is_swept_as_well(tmp_path):
    host = HostDirectory.open(tmp_path / "a")
    (host.base / "app-old" / "shuffle-1").mkdir(parents=True)
    (host.base / "app-older.dropped-1234").mkdir()
    assert host.sweep(lease_s=0) == ["app-old", "app-older"]
    assert [path.name for path in host.base.iterdir()] == ["token"]


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
        [sys.executable, "-c", HOLDER, str(host.base)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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
    monkeypatch.setattr(host, "_shared_bases", lambda: [gone])
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
