"""The directory that executors of one host share: whose it is, what lies in it per application, and when that goes.

Runs in executors, and in a driver on the same host. ``HostDirectory`` is thread-safe.

::

    <base>/                        0700, owned by this user, no symlink
        token                      names the host; made once, atomically
        <app>.lock                 every process that uses the application holds a shared flock on it
        <app>.abandoned            seen without a holder since its time of change
        <app>/shuffle-<id>/...     map outputs (``shuffle.files``)
        <app>/content/<id>         large closures and collections (``content``)
        <app>/spill/<attempt>/...  private to one task
        <app>/blocks/rdd-...       cached partitions (``blocks.block_files``)

    /dev/shm/flowkit-<uid>-<token>/<app>/rdd-...   cached partitions in memory that the host's processes share; locks as above

A process that dies lets go of its lock without doing anything, so what a crash leaves behind is found by ``sweep``: the first
sweep that finds nobody marks the directory, a later one removes it when the lease is over. Meanwhile a restarted executor may
come back, take the lock and adopt the files.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from flowkit.errors import ClusterError, InvalidArgument
from flowkit.model.ids import AppId, AttemptId, HostToken
from flowkit.storage.shuffle.files import ShuffleFiles

_PRIVATE = 0o700
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_LOCK = ".lock"
_ABANDONED = ".abandoned"
_DROPPED = ".dropped"
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a directory of our own in it, 0700


class ApplicationDirectory:
    """One application's files on this host. Holds the application's lock until ``close``."""

    def __init__(self, path: Path, lock: int, *, quota_bytes: int = 0) -> None:
        self.path = path
        self._lock: int | None = lock
        self.shuffle_files = ShuffleFiles(path, quota_bytes=quota_bytes)

    def __repr__(self) -> str:
        return f"<ApplicationDirectory {self.path}{' closed' if self._lock is None else ''}>"

    @property
    def content_directory(self) -> Path:
        """Where large closures and collections lie by id."""
        return _subdirectory(self.path / "content")

    def spill_directory(self, attempt: AttemptId) -> Path:
        """A directory for one task's spill runs; the task's runner removes it."""
        return _subdirectory(self.path / "spill" / str(int(attempt)))

    def close(self) -> None:
        """Let go of the lock; the files stay for whoever still holds it. Idempotent."""
        self.shuffle_files.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class HostDirectory:
    """The shared directory of one host; make it with ``HostDirectory.open``."""

    def __init__(self, base: Path, token: HostToken) -> None:
        self.base = base
        self.token = token
        self._mutex = threading.Lock()
        self._applications: dict[AppId, ApplicationDirectory] = {}
        self._shared: HostDirectory | None = None

    def __repr__(self) -> str:
        return f"<HostDirectory {self.base} token={self.token}>"

    @classmethod
    def open(cls, base: str | Path | None) -> HostDirectory:
        """Open, and make if need be, the directory at ``base``; None or "": ``<system temporary>/flowkit-<uid>``.

        Raises
        ------
        errors.ClusterError
            When it is a symlink, no directory, or belongs to somebody else.
        """
        path = Path(base) if base else Path(tempfile.gettempdir()) / f"flowkit-{os.getuid()}"
        path = path.absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        _private_directory(path)
        return cls(path, _read_or_make_token(path))

    def application(self, app: AppId, *, quota_bytes: int = 0) -> ApplicationDirectory:
        """The application's directory, made and locked on first use; the same object from then on."""
        with self._mutex:
            known = self._applications.get(app)
            if known is None:
                _check_name(app)
                lock = self._take_shared_lock(app)
                (self.base / f"{app}{_ABANDONED}").unlink(missing_ok=True)
                directory = self.base / app
                _private_directory(directory)
                known = self._applications[app] = ApplicationDirectory(directory, lock, quota_bytes=quota_bytes)
            return known

    def shared_memory(self, app: AppId) -> Path | None:
        """The application's directory in memory that processes of this host share; None where the system has none."""
        if not os.access(_SHARED_MEMORY, os.W_OK | os.X_OK):
            return None
        with self._mutex:
            if self._shared is None:
                base = Path(_SHARED_MEMORY) / f"{_shared_prefix()}{self.token}"
                _private_directory(base)
                self._shared = HostDirectory(base, self.token)
            shared = self._shared
        _private_directory(shared.base)
        return shared.application(app).path

    def drop_application(self, app: AppId) -> None:
        """Remove the application's files, whoever else uses them: it is over. Idempotent."""
        _check_name(app)
        for shared in self._shared_bases():
            shared.drop_application(app)
        with self._mutex:
            known = self._applications.pop(app, None)
            if known is not None:
                known.close()
        self._remove_tree(app)
        # The lock goes with its last holder; until then a late neighbour could not see that it was replaced.
        lock = self._try_exclusive_lock(app)
        if lock is not None:
            self._forget(app, lock)

    def sweep(self, live: Collection[AppId] = (), *, lease_s: float = 60.0) -> list[AppId]:
        """Remove what no process has held for ``lease_s`` (as seen by sweeps) and is not in ``live``; returns what went.

        Call it at start and about once a lease. Safe beside other processes doing the same.
        """
        for shared in self._shared_bases():
            shared.sweep(live, lease_s=lease_s)
            with suppress(OSError):  # not empty, or gone
                if shared is not self._shared and time.time() - shared.base.stat().st_mtime >= max(lease_s, 1.0):
                    shared.base.rmdir()
        removed = []
        for app in self._on_disk():
            if app in live:
                continue
            lock = self._try_exclusive_lock(app)
            if lock is None:
                continue
            if not (self.base / app).exists() and not any(self.base.glob(f"{app}{_DROPPED}-*")):
                # Dropped while somebody else, since gone, still held the lock: nothing is left to come back for.
                self._forget(app, lock)
                continue
            mark = self.base / f"{app}{_ABANDONED}"
            with suppress(FileExistsError):
                mark.touch(exist_ok=False)
            # File times are the system's clock's, so it is what they are compared with.
            if time.time() - mark.stat().st_mtime >= lease_s or lease_s <= 0:
                self._remove_tree(app)
                mark.unlink(missing_ok=True)
                self._forget(app, lock)
                removed.append(app)
            else:
                os.close(lock)
        return removed

    def _shared_bases(self) -> list[HostDirectory]:
        """Directories in shared memory, also those of hosts that are no more: only their locks say whether they are used."""
        if self.base.parent == Path(_SHARED_MEMORY):
            return []
        own = self._shared
        found = [] if own is None else [own]
        bases = [base for base in Path(_SHARED_MEMORY).glob(f"{_shared_prefix()}*") if own is None or base != own.base]
        return found + [HostDirectory(base, HostToken(base.name.removeprefix(_shared_prefix()))) for base in bases]

    def close(self) -> None:
        """Let go of every application; the files stay. Idempotent."""
        if self._shared is not None:
            self._shared.close()
            with suppress(OSError):  # in use, or not empty
                self._shared.base.rmdir()
        with self._mutex:
            for each in self._applications.values():
                each.close()
            self._applications.clear()

    def _on_disk(self) -> list[AppId]:
        names = set()
        with suppress(FileNotFoundError), os.scandir(self.base) as entries:
            for entry in entries:
                if entry.name.endswith(_LOCK):
                    names.add(entry.name.removesuffix(_LOCK))
                elif entry.is_dir(follow_symlinks=False):
                    names.add(entry.name.partition(_DROPPED)[0])
        return [AppId(name) for name in sorted(names)]

    def _take_shared_lock(self, app: AppId) -> int:
        # Between opening and locking, a sweep may remove the file: then the lock is on a ghost, and we begin anew.
        path = self.base / f"{app}{_LOCK}"
        while True:
            try:
                lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:  # a neighbour left, and took the empty directory along
                _private_directory(self.base)
                continue
            fcntl.flock(lock, fcntl.LOCK_SH)  # waits only while a sweep removes files
            if _same_file(lock, path):
                return lock
            os.close(lock)

    def _try_exclusive_lock(self, app: AppId) -> int | None:
        """None: somebody holds it, or the directory is gone with all that was in it (those in shared memory go with their last user)."""
        path = self.base / f"{app}{_LOCK}"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        if _same_file(lock, path):
            return lock
        os.close(lock)
        return None

    def _forget(self, app: AppId, lock: int) -> None:
        (self.base / f"{app}{_ABANDONED}").unlink(missing_ok=True)
        (self.base / f"{app}{_LOCK}").unlink(missing_ok=True)
        os.close(lock)

    def _remove_tree(self, app: AppId) -> None:
        # Renamed first, so that nobody finds half of it; several may do this at once.
        condemned = self.base / f"{app}{_DROPPED}-{secrets.token_hex(4)}"
        with suppress(FileNotFoundError):
            (self.base / app).rename(condemned)
        with suppress(FileNotFoundError):
            for leftover in self.base.glob(f"{app}{_DROPPED}-*"):
                shutil.rmtree(leftover, ignore_errors=True)


def _shared_prefix() -> str:
    return f"flowkit-{os.getuid()}-"


def _check_name(app: AppId) -> None:
    if not _NAME.match(app) or _DROPPED in app or app.endswith((_LOCK, _ABANDONED)) or app == "token":
        raise InvalidArgument(
            f"application id {app!r}: must be letters, digits, '-', '_' and '.'", name="app", value=app, allowed="[A-Za-z0-9._-]+"
        )


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _subdirectory(path: Path) -> Path:
    path.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    return path


def _private_directory(path: Path) -> None:
    found = None
    while found is None:  # a neighbour that leaves may remove it as long as it is empty
        with suppress(FileExistsError):
            path.mkdir(mode=_PRIVATE)
        with suppress(FileNotFoundError):
            found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise ClusterError(
            f"{path} is not a directory of its own (a symlink or a file); remove it or set local_directory", path=str(path)
        )
    if found.st_uid != os.getuid():
        raise ClusterError(
            f"{path} belongs to user {found.st_uid}, not to {os.getuid()}; set local_directory to another place", path=str(path)
        )
    if stat.S_IMODE(found.st_mode) != _PRIVATE:
        path.chmod(_PRIVATE)


def _read_or_make_token(base: Path) -> HostToken:
    path = base / "token"
    with suppress(FileNotFoundError):
        return HostToken(path.read_text(encoding="ascii"))
    # Written aside and linked: either the whole token is there or none, and the first one wins.
    draft = base / f"token.{secrets.token_hex(8)}"
    draft.write_text(f"host-{secrets.token_hex(8)}", encoding="ascii")
    with suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
    return HostToken(path.read_text(encoding="ascii"))
