"""Two real accounts on one machine: what one plants where the other keeps files, and what becomes of either's."""

from __future__ import annotations

import contextlib
import os
import pickle
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowkit.errors import ClusterError
from flowkit.storage import host_directory
from flowkit.storage.content import ContentStore
from flowkit.storage.host_directory import HostDirectory

pytestmark = [pytest.mark.chaos, pytest.mark.skipif(os.geteuid() != 0, reason="becoming another account needs root")]

ANN, BEN = 50_001, 50_002


def as_user(user: int, work: Callable[[], Any]) -> Any:
    """What ``work()`` returns or raises in a process of an account."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            os.umask(0)
            said = pickle.dumps((work(), None))
        except BaseException as error:
            said = pickle.dumps((None, error))
        os.write(writing, said)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        value, error = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    if error is not None:
        raise error
    return value


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in which both may make directories, as /tmp; and another in place of /dev/shm."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        for inner in ("tmp", "shm"):
            (place / inner).mkdir()
            (place / inner).chmod(0o1777)
        monkeypatch.setattr(host_directory, "_SHARED_MEMORY", place / "shm")
        yield place


def tree(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def keep_one(place: Path, left: bool = True) -> str:
    """A host directory with an application that nobody holds, also in shared memory; its token."""
    host = HostDirectory.open(place)
    app = host.application("app-1")
    (app.content_directory / "content").write_text("content")
    shared = host.shared_memory("app-1")
    assert shared is not None
    (shared / "rdd-1-0").write_text("rows")
    host.close()
    return host.token


def sweep_all(place: Path) -> list[str]:
    with contextlib.closing(HostDirectory.open(place)) as host:
        return [*host.sweep(lease_s=0), *host.sweep(lease_s=0)]


def test_nobody_can_look_into_what_an_ordinary_user_keeps_whatever_its_umask(shared: Path):
    as_user(ANN, lambda: keep_one(shared / "tmp"))
    base = shared / "tmp" / f"flowkit-{ANN}"
    for look in (lambda: os.listdir(base), lambda: (base / "token").read_text(), lambda: (base / "app-1.lock").read_text()):
        with pytest.raises(PermissionError):
            as_user(BEN, look)
    for path in (base, *(shared / "shm").iterdir()):
        assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (ANN, 0o700)
    assert as_user(ANN, lambda: sweep_all(shared / "tmp")) == ["app-1"]
    assert tree(shared / "tmp") == [f"flowkit-{ANN}", f"flowkit-{ANN}/token"]


@pytest.mark.parametrize("sweeper", [BEN, 0], ids=["another account", "root"])
def test_a_sweep_leaves_what_another_account_keeps(shared: Path, sweeper: int):
    as_user(ANN, lambda: keep_one(shared / "tmp"))
    before = tree(shared)
    as_user(sweeper, lambda: sweep_all(shared / "tmp"))
    assert [name for name in tree(shared) if f"flowkit-{sweeper}" not in name] == before


@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_a_directory_that_another_account_made_in_its_place_is_refused(shared: Path, mode: int):
    def plant() -> None:
        (shared / "tmp" / f"flowkit-{ANN}").mkdir()
        (shared / "tmp" / f"flowkit-{ANN}").chmod(mode)
        (shared / "tmp" / f"flowkit-{ANN}" / "token").write_text("host-0123456789abcdef")

    as_user(BEN, plant)
    with pytest.raises(ClusterError, match=f"belongs to user {BEN}, not to {ANN}; set local_directory to another place"):
        as_user(ANN, lambda: HostDirectory.open(shared / "tmp"))


def plant_link(place: Path, target: Path) -> None:
    place.symlink_to(target)


def plant_directory(place: Path, target: Path) -> None:
    (place / "precious").mkdir(parents=True)
    (place / "precious.lock").write_text("flowkit application precious\n")
    (place / "...lock").touch()
    (place / "precious.link").symlink_to(target)
    place.chmod(0o777)


@pytest.mark.parametrize("plant", [plant_link, plant_directory])
def test_what_another_account_plants_in_shared_memory_is_neither_swept_nor_used(
    shared: Path, plant: Callable[[Path, Path], None]
):
    home = shared / "home"
    for name in ("precious", "app-1"):
        (home / name).mkdir(parents=True)
        (home / f"{name}.lock").write_text(f"flowkit application {name}\n")
    for path in (home, *home.iterdir()):
        os.chown(path, ANN, ANN)
    home.chmod(0o700)
    before = tree(home)
    token = as_user(ANN, lambda: keep_one(shared / "tmp"))
    as_user(ANN, lambda: sweep_all(shared / "tmp"))
    for each in (shared / "shm").iterdir():
        each.rmdir()  # as a sweep does when it has been empty for a while
    for name in (f"flowkit-{ANN}-{token}", f"flowkit-{ANN}-host-0123456789abcdef"):
        as_user(BEN, lambda name=name: plant(shared / "shm" / name, home))
    planted = tree(shared / "shm")

    def work() -> tuple[object, list[str]]:
        with contextlib.closing(HostDirectory.open(shared / "tmp")) as host:
            return host.shared_memory("app-2"), host.sweep(lease_s=0) + host.sweep(lease_s=0)

    assert as_user(ANN, work) == (None, [])
    assert tree(home) == before
    assert tree(shared / "shm") == planted


def test_a_base_that_others_could_write_to_is_closed_and_nothing_planted_is_believed(shared: Path):
    token = as_user(ANN, lambda: keep_one(shared / "tmp"))
    base = shared / "tmp" / f"flowkit-{ANN}"
    base.chmod(0o777)

    def plant() -> None:
        (base / "app-2").mkdir()
        (base / "app-2.lock").write_text("flowkit application app-2\n")
        (base / "app-3.lock").symlink_to(base / "app-1.lock")
        os.mkfifo(base / "app-4.lock")
        os.mkfifo(base / "tcp.slots")
        (base / "app-1").rename(base / "app-1-kept")
        (base / "app-1").symlink_to("/etc")

    as_user(BEN, plant)
    swept = as_user(ANN, lambda: sweep_all(shared / "tmp"))
    assert swept == []  # its directory is a link now, which is not removed; what it was renamed to is no application
    assert as_user(ANN, lambda: HostDirectory.open(shared / "tmp").token) == token
    assert stat.S_IMODE(base.stat().st_mode) == 0o700
    left = {path.name for path in base.iterdir()}
    assert left >= {"app-2", "app-2.lock", "app-3.lock", "app-4.lock", "tcp.slots", "app-1-kept", "token"}
    with pytest.raises(ClusterError):
        as_user(ANN, lambda: HostDirectory.open(shared / "tmp").application("app-2"))


def test_a_file_of_another_account_is_no_content(shared: Path):
    directory = shared / "tmp" / "content"
    directory.mkdir(mode=0o777)
    directory.chmod(0o777)
    name = as_user(BEN, lambda: ContentStore(shared / "tmp" / "of-ben").put(b"data"))
    (shared / "tmp" / "of-ben" / name).rename(directory / name)
    (directory / name).chmod(0o644)
    assert as_user(ANN, lambda: ContentStore(directory).path(name)) is None


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[Path, str], None]]:
    """Mount a small file system, or bind a directory to a place."""

    def mount(place: Path, source: str = "") -> None:
        place.mkdir(parents=True, exist_ok=True)
        how = ["--bind", source] if source else ["-t", "tmpfs", "-o", "size=1m", "tmpfs"]
        subprocess.run(["mount", *how, str(place)], check=True)

    yield mount
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in reversed(mounted):
        if place.startswith(f"{tmp_path}/"):
            subprocess.run(["umount", "-l", place], check=True)


def test_a_place_that_is_a_mount_point_is_as_any_other(tmp_path: Path, mount: Callable[..., None]):
    mount(tmp_path / "disk")
    mount(tmp_path / "disk" / f"flowkit-{os.getuid()}")
    host = HostDirectory.open(tmp_path / "disk")
    host.application("app-1")
    host.close()
    assert host.sweep(lease_s=0) == ["app-1"]
    assert tree(host.base) == ["token"]


@pytest.mark.parametrize("bound", [False, True], ids=["another file system", "a directory of the same"])
def test_what_is_mounted_into_an_application_is_not_emptied(tmp_path: Path, mount: Callable[..., None], bound: bool):
    (tmp_path / "home").mkdir()
    host = HostDirectory.open(tmp_path / "place")
    inside = host.application("app-1").path / "data" / "mounted"
    mount(inside, str(tmp_path / "home") if bound else "")
    (inside / "precious").touch()
    host.close()
    assert host.sweep(lease_s=0) == []
    assert (inside / "precious").exists() or list(host.base.glob("app-1.dropped-*/data/mounted/precious"))
