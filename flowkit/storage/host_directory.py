"""The directory that executors of one host share: whose it is, what lies in it per application, and when that goes.

Runs in executors, and in a driver on the same host. ``HostDirectory`` is thread-safe.

::

    <place>/flowkit-<uid>/         0700, owned by this user, no symlink; <place> is ``local_directory`` or the system's temporary directory
        token                      names the host; made once, atomically
        <app>.lock                 every process that uses the application holds a shared flock on it; says whose directory it is the
                                   lock of, whether the driver holds it as well, and whether a sweep found nobody
        <app>/shuffle-<id>/...     map outputs (``shuffle.files``)
        <app>/content/<id>         large closures and collections (``content``)
        <app>/spill/<attempt>/...  private to one task
        <app>/blocks/rdd-...       cached partitions (``blocks.block_files``)

    /dev/shm/flowkit-<uid>-<token>/<app>/rdd-...   cached partitions in memory that the host's processes share; locks as above
    <volume>/flowkit-<uid>-<token>/<app>/rdd-...   those in one of ``block_directories``; locks as above

A process that dies lets go of its lock without doing anything, so what a crash leaves behind is found by ``sweep``: the first
sweep that finds nobody marks the lock, a later one removes the directory when the lease is over. Meanwhile a restarted executor may
come back, take the lock and adopt the files. Where the driver held the lock too, nobody can come back once it is free: the first sweep
removes the directory.

A name proves nothing. A sweep removes a directory for its lock: a file of this user's, in a directory that is this user's alone, which
says ``flowkit application <app>`` and which nobody holds. Whatever else lies there is somebody's, and stays. All of it is done by open
directories and names in them (``private_files``), so nothing is gained by putting a link in a directory's place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import tempfile
import threading
import time
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from flowkit.errors import ClusterError, InvalidArgument
from flowkit.logs import logger_of
from flowkit.model.ids import AppId, AttemptId, HostToken
from flowkit.storage import private_files
from flowkit.storage.private_files import NotPrivate
from flowkit.storage.shuffle.files import ShuffleFiles

logger = logger_of(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_TOKEN = re.compile(r"host-[0-9a-f]{16}\Z")
_LOCK = ".lock"
_DROPPED = ".dropped"
#: what a lock says after whose it is
_BY_DRIVER: Final = b"held by its driver\n"
_ABANDONED: Final = b"abandoned\n"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of our own in it, 0700
#: applications that this process dropped, of which a late task may write something
_MOST_DROPPED = 1_000


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
        return private_files.make_directory(self.path / "content")

    def spill_directory(self, attempt: AttemptId) -> Path:
        """A directory for one task's spill runs; the task's runner removes it."""
        return private_files.make_directory(self.path / "spill" / str(int(attempt)))

    def touch(self) -> None:
        """Have the lock look used to whatever removes old files from temporary directories."""
        if self._lock is not None:
            os.utime(self._lock)

    def close(self) -> None:
        """Let go of the lock; the files stay for whoever still holds it. Idempotent."""
        self.shuffle_files.close()
        self.let_go()

    def let_go(self) -> None:
        """Let go of the lock. Idempotent, and waits for nobody."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


_of_this_process: weakref.WeakSet[HostDirectory] = weakref.WeakSet()


def disown_all() -> None:
    """In a fork of this process, whose locks are its parent's: hold none of them."""
    for each in tuple(_of_this_process):
        each.disown()


class HostDirectory:
    """The shared directory of one host; make it with ``HostDirectory.open``.

    Parameters
    ----------
    base
        The directory.
    token
        Names the host.
    volumes
        Directories in which this host may have left cached partitions; ``sweep`` and ``drop_application`` look there too, and into shared
        memory.
    """

    def __init__(self, base: Path, token: HostToken, volumes: Collection[Path] = ()) -> None:
        self.base = base
        self.token = token
        self._mutex = threading.Lock()
        self._applications: dict[AppId, ApplicationDirectory] = {}
        self._dropped: dict[AppId, None] = {}
        self._volumes = tuple(volumes)
        #: by the directory they lie in
        self._opened: dict[Path, HostDirectory] = {}
        _of_this_process.add(self)

    def __repr__(self) -> str:
        return f"<HostDirectory {self.base} token={self.token}>"

    @classmethod
    def open(cls, place: str | Path | None, *, block_directories: str = "") -> HostDirectory:
        """Open, and make if need be, ``<place>/flowkit-<uid>``; None or "": in the system's temporary directory.

        Parameters
        ----------
        place
            Any directory that this user may make directories in; it is made if need be. Nothing else in it is touched.
        block_directories
            As the setting of this name has them.

        Raises
        ------
        errors.ClusterError
            In its place is a symlink or no directory, it belongs to somebody else, or it cannot be made.
        """
        within = Path(place).absolute() if place else Path(tempfile.gettempdir())
        base = within / f"flowkit-{os.getuid()}"
        try:
            within.mkdir(parents=True, exist_ok=True)
            with _open_base(base, make=True) as directory:
                token = _read_or_make_token(base, directory)
            if private_files.others_may_replace(within):
                _warn_of(within)
        except OSError as error:
            reason = f"{within} is no directory" if isinstance(error, FileExistsError) else error.strerror or str(error)
            raise ClusterError(
                f"{str(base)[-300:]} cannot be used: {reason}; set local_directory to another place", path=str(base)
            ) from error
        return cls(base, token, volumes_of(block_directories))

    def application(self, app: AppId, *, quota_bytes: int = 0, by_driver: bool = False) -> ApplicationDirectory:
        """The application's directory, made and locked on first use; the same object from then on.

        ``by_driver`` is for the driver, which holds it as long as it lives: when nobody holds it any more, it is over at once.

        Raises
        ------
        errors.ClusterError
            In its place, or in that of its lock, is something that is not flowkit's.
        """
        with self._mutex:
            known = self._applications.get(app)
            if known is None:
                _check_name(app)
                lock = self._take_shared_lock(app, by_driver=by_driver)
                try:
                    with _open_base(self.base, make=True) as base, _not_private(self.base / app):
                        os.close(private_files.open_directory(app, dir_fd=base, make=True))
                except BaseException:
                    os.close(lock)
                    raise
                self._dropped.pop(app, None)
                known = self._applications[app] = ApplicationDirectory(self.base / app, lock, quota_bytes=quota_bytes)
            return known

    def shared_memory(self, app: AppId, *, by_driver: bool = False) -> Path | None:
        """The application's directory in memory that processes of this host share; None where the system has none."""
        is_there = os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)
        return self.on_volume(_SHARED_MEMORY, app, by_driver=by_driver) if is_there else None

    def on_volume(self, volume: Path, app: AppId, *, by_driver: bool = False) -> Path | None:
        """The application's directory in one for cached partitions, which is made if need be; None where it cannot be had, which is logged."""
        try:
            with self._mutex:
                known = self._opened.get(volume)
                if known is None:
                    volume.mkdir(parents=True, exist_ok=True)
                    # A host of its own within, since directories on shared disks may be several hosts'.
                    known = self._opened[volume] = HostDirectory(volume / f"{_prefix()}{self.token}", self.token)
            return known.application(app, by_driver=by_driver).path
        except (OSError, ClusterError) as error:
            logger.warning("cached partitions go elsewhere: %s cannot be used: %s", volume, error)
            return None

    def drop_application(self, app: AppId) -> None:
        """Remove the application's files, whoever else uses them: it is over. Idempotent."""
        _check_name(app)
        for volume, _ in self._on_volumes():
            volume.drop_application(app)
        with self._mutex:
            known = self._applications.pop(app, None)
            if known is not None:
                known.close()
                self._dropped[app] = None
                while len(self._dropped) > _MOST_DROPPED:
                    del self._dropped[next(iter(self._dropped))]
        try:
            with _open_base(self.base) as base:
                _drop(base, app, self.base)
        except FileNotFoundError:
            pass  # all that was in it is gone, and it with that
        except ClusterError as error:
            logger.warning("nothing of %s is removed: %s", app, error)

    def sweep(self, live: Collection[AppId] = (), *, lease_s: float = 60.0) -> list[AppId]:
        """Remove what no process has held for ``lease_s`` (as seen by sweeps) and is not in ``live``; returns what went.

        Call it at start and about once a lease. Safe beside other processes doing the same.
        """
        for volume, is_used in self._on_volumes():
            volume.sweep(live, lease_s=lease_s)
            if not is_used:
                _remove_old_and_empty(volume.base, lease_s)
        try:
            with _open_base(self.base) as base:
                self._look_used(base)
                for app in self._left_late(base):
                    os.close(self._take_shared_lock(app, by_driver=True))
                return [app for app in _locks_in(base) if app not in live and self._swept(base, app, lease_s)]
        except FileNotFoundError:
            pass  # all that was in it is gone, and it with that
        except ClusterError as error:
            logger.warning("nothing is swept: %s", error)
        return []

    def _look_used(self, base: int) -> None:
        """Keep locks from whatever removes old files from temporary directories."""
        with self._mutex:
            for each in self._applications.values():
                each.touch()
        with suppress(OSError):  # there is none on volumes
            os.utime("token", dir_fd=base, follow_symlinks=False)

    def _swept(self, base: int, app: AppId, lease_s: float) -> bool:
        """Whether an application was removed."""
        try:
            return self._removed(base, app, lease_s)
        except OSError as error:
            logger.warning("what %s left in %s could not be removed: %s", app, self.base, error)
            return False

    def _removed(self, base: int, app: AppId, lease_s: float) -> bool:
        lock = _opened_lock(base, app)
        if lock is None:
            return False
        with _closing(lock):
            if not _is_lock_of(lock, app) or not _locked(lock, base, app):
                return False
            said = _said_after(lock, app)
            if not _lies_in(base, app):
                # Dropped while somebody else, since gone, still held the lock: nothing is left to come back for.
                os.unlink(f"{app}{_LOCK}", dir_fd=base)
                return False
            if said != _BY_DRIVER and lease_s > 0:
                if said != _ABANDONED:
                    os.pwrite(lock, _marker(app) + _ABANDONED, 0)
                    return False
                # File times are the system's clock's, so it is what they are compared with.
                if time.time() - os.fstat(lock).st_mtime < lease_s:
                    return False
            if not _remove(base, app, self.base):
                return False
            os.unlink(f"{app}{_LOCK}", dir_fd=base)
            return True

    def _left_late(self, base: int) -> list[AppId]:
        """Applications that this process dropped, of which a task that ended later than that wrote something."""
        with self._mutex:
            dropped = [app for app in self._dropped if app not in self._applications]
        return [app for app in dropped if _lies_in(base, app) and not _exists(base, f"{app}{_LOCK}")]

    def _on_volumes(self) -> list[tuple[HostDirectory, bool]]:
        """Directories on volumes, and whether this process uses them. In shared memory also those of hosts that are no more."""
        with self._mutex:
            used = list(self._opened.values())
        found = [(each, True) for each in used]
        if _SHARED_MEMORY in self.base.parents:
            return found  # it is one itself
        known = {each.base for each in used}
        prefix = _prefix()
        names = [(volume / f"{prefix}{self.token}", self.token) for volume in self._volumes]
        with suppress(OSError):
            # Only their locks say whether they are used: who made them may have lost its token.
            names += [(each, HostToken(each.name.removeprefix(prefix))) for each in _SHARED_MEMORY.iterdir()]
        for base, token in names:
            if base.name == f"{prefix}{token}" and _TOKEN.match(token) and base not in known and _is_own_directory(base):
                known.add(base)
                found.append((HostDirectory(base, token), False))
        return found

    def disown(self) -> None:
        """In a fork of this process: no lock is held here, so that none is when the process is gone. It works no more."""
        self._mutex = threading.Lock()
        for each in self._applications.values():
            each.let_go()

    def close(self) -> None:
        """Let go of every application; the files stay. Idempotent."""
        with self._mutex:
            volumes = list(self._opened.values())
            for each in self._applications.values():
                each.close()
            self._applications.clear()
        for volume in volumes:
            volume.close()
            with suppress(OSError):  # in use, or not empty
                volume.base.rmdir()

    def _take_shared_lock(self, app: AppId, *, by_driver: bool) -> int:
        # Between opening and locking, a sweep may remove the file: then the lock is on a ghost, and we begin anew.
        while True:
            with _open_base(self.base, make=True) as base:
                try:
                    lock = private_files.open_descriptor(f"{app}{_LOCK}", os.O_RDWR | os.O_CREAT, dir_fd=base)
                except FileNotFoundError as error:
                    if not _exists(base, f"{app}{_LOCK}"):  # a neighbour left, and took the empty directory along
                        continue
                    raise ClusterError(
                        f"{self.base / app}{_LOCK} is {error.strerror}; remove it", path=str(self.base / f"{app}{_LOCK}")
                    ) from error
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH)  # waits only while a sweep removes files
                    if _is_named(lock, base, f"{app}{_LOCK}"):
                        _sign(lock, app, self.base, by_driver=by_driver)
                        return lock
                except BaseException:
                    os.close(lock)
                    raise
                os.close(lock)


class DriverDirectory:
    """What a driver has on its own host: opened when it is first needed, held as long as the driver lives. Thread-safe.

    Parameters
    ----------
    app
        The application.
    local_directory
        As the setting has it.
    of_its_own
        Whether it is the driver's alone. The other one is shared with executors of this host, who remove it when their scheduler tells them
        that the application is over; the driver may outlive that.
    """

    def __init__(self, app: AppId, local_directory: str | None, *, of_its_own: bool = False) -> None:
        self._app = AppId(f"{app}.driver") if of_its_own else app
        self._local_directory = local_directory
        self._mutex = threading.Lock()
        self._host: HostDirectory | None = None

    def __repr__(self) -> str:
        return f"<DriverDirectory of {self._app}: {'not opened' if self._host is None else self._host.base}>"

    @property
    def host(self) -> HostDirectory:
        """The host's. Raises as ``HostDirectory.open``."""
        with self._mutex:
            if self._host is None:
                self._host = HostDirectory.open(self._local_directory or None)
            return self._host

    def application(self) -> ApplicationDirectory:
        """The application's. Raises as ``HostDirectory.application``."""
        return self.host.application(self._app, by_driver=True)

    def hold(self, block_directories: str) -> None:
        """Hold the application's directories, also where its executors may put cached partitions. Raises as ``application``."""
        self.application()
        self.host.shared_memory(self._app, by_driver=True)
        for each in volumes_of(block_directories):
            self.host.on_volume(each, self._app, by_driver=True)

    def close(self) -> None:
        """The application is over: remove its files on this host. Idempotent."""
        with self._mutex:
            host, self._host = self._host, None
        if host is not None:
            # Its lock is held here too, so the last executor could not have removed everything.
            host.drop_application(self._app)
            host.close()


def volumes_of(block_directories: str) -> list[Path]:
    """Directories of the setting ``block_directories``, best first.

    >>> volumes_of("/fast:/large")
    [PosixPath('/fast'), PosixPath('/large')]
    """
    return [Path(each).expanduser().absolute() for each in block_directories.split(os.pathsep) if each]


def _prefix() -> str:
    return f"flowkit-{os.getuid()}-"


def _is_name(name: str) -> bool:
    return _NAME.match(name) is not None and _DROPPED not in name and not name.endswith(_LOCK) and name != "token"


def _check_name(app: AppId) -> None:
    if not _is_name(app):
        raise InvalidArgument(
            f"application id {app!r}: must be letters, digits, '-', '_' and '.'", name="app", value=app, allowed="[A-Za-z0-9._-]+"
        )


@contextmanager
def _open_base(base: Path, *, make: bool = False) -> Iterator[int]:
    """A descriptor of the directory. Raises ``ClusterError`` when it is not ours, ``FileNotFoundError`` when it is gone."""
    with _not_private(base):
        descriptor = private_files.open_directory(base, make=make)
    with _closing(descriptor):
        yield descriptor


@contextmanager
def _not_private(path: Path) -> Iterator[None]:
    try:
        yield
    except NotPrivate as error:
        advice = "set local_directory to another place" if error.errno == errno.EPERM else "remove it or set local_directory"
        raise ClusterError(f"{path} {error.strerror}; {advice}", path=str(path)) from None


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


# -- locks: all by the descriptor of the directory they lie in


def _marker(app: AppId) -> bytes:
    return f"flowkit application {app}\n".encode()


def _opened_lock(base: int, app: AppId) -> int | None:
    """The lock, not taken yet; None where there is none, or what is no file of ours."""
    try:
        return private_files.open_descriptor(f"{app}{_LOCK}", os.O_RDWR, dir_fd=base)
    except OSError:
        return None


def _is_lock_of(lock: int, app: AppId) -> bool:
    marker = _marker(app)
    return os.pread(lock, len(marker), 0) == marker


def _said_after(lock: int, app: AppId) -> bytes:
    return os.pread(lock, 100, len(_marker(app)))


def _sign(lock: int, app: AppId, base: Path, *, by_driver: bool) -> None:
    """Say in a lock that is held whose it is. Several may do so at once: what they write is the same."""
    marker = _marker(app)
    said = os.pread(lock, len(marker) + 100, 0)
    if said and not said.startswith(marker):
        raise ClusterError(f"{base / app}{_LOCK} is no lock of flowkit's; remove it", path=str(base / f"{app}{_LOCK}"))
    if said.endswith(_ABANDONED):
        os.ftruncate(lock, len(marker))
    if by_driver:
        os.pwrite(lock, marker + _BY_DRIVER, 0)
    elif not said:
        os.pwrite(lock, marker, 0)


def _locked(lock: int, base: int, app: AppId) -> bool:
    """Take it for this process alone; False when somebody holds it, or it was replaced."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return _is_named(lock, base, f"{app}{_LOCK}")


def _is_named(descriptor: int, base: int, name: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=base, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _locks_in(base: int) -> list[AppId]:
    """Applications that have a file named as a lock."""
    names = [name.removesuffix(_LOCK) for name in os.listdir(base) if name.endswith(_LOCK)]
    return [AppId(name) for name in sorted(names) if _is_name(name)]


# -- what lies beside them


def _exists(base: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=base, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _parts(base: int, app: AppId) -> list[str]:
    """Names of an application's directory, and of those that were renamed to be removed."""
    return [name for name in os.listdir(base) if name == app or name.startswith(f"{app}{_DROPPED}-")]


def _lies_in(base: int, app: AppId) -> bool:
    return bool(_parts(base, app))


def _drop(base: int, app: AppId, path: Path) -> None:
    """Remove an application's directory, and its lock should nobody else hold it."""
    lock = _opened_lock(base, app)
    if lock is None:
        return
    with _closing(lock):
        if _is_lock_of(lock, app) and _remove(base, app, path) and _locked(lock, base, app):
            # The lock goes with its last holder; until then a late neighbour could not see that it was replaced.
            os.unlink(f"{app}{_LOCK}", dir_fd=base)


def _remove(base: int, app: AppId, path: Path) -> bool:
    """Remove an application's directory; whether nothing is left of it."""
    # Renamed first, so that nobody finds half of it; several may do this at once.
    with suppress(FileNotFoundError):
        os.rename(app, f"{app}{_DROPPED}-{secrets.token_hex(4)}", src_dir_fd=base, dst_dir_fd=base)
    # A list: each is to be tried.
    left = [name for name in _parts(base, app) if not private_files.remove_tree(name, dir_fd=base)]
    if left:
        logger.warning("what %s left in %s could not be removed whole: %s", app, path, ", ".join(left))
    return not left


def _is_own_directory(path: Path) -> bool:
    """Whether it is one that flowkit may have made: no link, of this user, closed to others."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _remove_old_and_empty(base: Path, lease_s: float) -> None:
    """Remove a directory of a host that is no more, once nothing is in it."""
    with suppress(OSError):
        if time.time() - base.lstat().st_mtime >= max(lease_s, 1.0):
            base.rmdir()


_warned: set[Path] = set()


def _warn_of(place: Path) -> None:
    if place not in _warned:
        _warned.add(place)
        logger.warning(
            "every account of this machine may replace what lies in %s: make it sticky (chmod +t), or set local_directory", place
        )


def _read_or_make_token(path: Path, base: int) -> HostToken:
    with suppress(FileNotFoundError):
        return _token(path, base)
    # Written aside and linked: either the whole token is there or none, and the first one wins.
    draft = f"token.{secrets.token_hex(8)}"
    descriptor = private_files.open_descriptor(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=base)
    with _closing(descriptor):
        os.write(descriptor, f"host-{secrets.token_hex(8)}".encode())
    try:
        with suppress(FileExistsError):
            os.link(draft, "token", src_dir_fd=base, dst_dir_fd=base, follow_symlinks=False)
    finally:
        os.unlink(draft, dir_fd=base)
    try:
        return _token(path, base)
    except FileNotFoundError as error:
        raise ClusterError(f"{path / 'token'} is {error.strerror}; remove it", path=str(path / "token")) from error


def _token(path: Path, base: int) -> HostToken:
    descriptor = private_files.open_descriptor("token", os.O_RDONLY, dir_fd=base)
    with _closing(descriptor):
        token = os.pread(descriptor, 100, 0).decode("ascii", errors="replace")
    if not _TOKEN.match(token):
        raise ClusterError(f"{path / 'token'} is no token of flowkit's; remove it", path=str(path / "token"))
    return HostToken(token)
