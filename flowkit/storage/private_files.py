"""Opening, making and removing what only this user may touch: nothing is trusted for its name.

Runs in executors and drivers. Thread-safe: these are functions without state. A name in a directory that others may write to says nothing
of what is there, and what was looked at may be something else a moment later. So a directory is opened first, without following a link,
and the open directory is looked at: its owner and its mode. What is in it is opened, made and removed relative to that descriptor.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, Literal, cast

from flowkit.storage.disk_room import disk_full_named

_PRIVATE_DIRECTORY: Final = 0o700
_PRIVATE_FILE: Final = 0o600
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: without waiting: whoever opens a pipe would wait for somebody at its other end
_FILE_FLAGS: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
#: what opening says of a link, a socket, a directory, or a device that is not there
_NO_FILE: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENODEV, errno.ENOTDIR, errno.EMLINK})

_NO_DIRECTORY: Final = "is not a directory of its own (a symlink or a file)"

Place = str | Path


class NotPrivate(OSError):
    """A directory that is not this user's own, or something else in its place."""


def open_directory(path: Place, *, dir_fd: int | None = None, make: bool = False) -> int:
    """Open a directory of this user's own; the caller closes the descriptor. Others' rights to it are taken away.

    Parameters
    ----------
    path
        Its last part is no link; the parts above are as the user has them.
    dir_fd
        An open directory that ``path`` is relative to.
    make
        Whether to make it where nothing is. It is made again when somebody removes it meanwhile.

    Raises
    ------
    NotPrivate
        It is a link, no directory, or somebody else's.
    errors.DiskFull
        There is no room to make it.
    OSError
        It is not there, or cannot be made or opened.
    """
    while True:
        if make:
            with suppress(FileExistsError), disk_full_named(Path(path), Path(path)):
                os.mkdir(path, _PRIVATE_DIRECTORY, dir_fd=dir_fd)
        try:
            descriptor = os.open(path, _DIRECTORY_FLAGS, dir_fd=dir_fd)
        except FileNotFoundError:
            if make:
                continue
            raise
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.EMLINK}:
                raise NotPrivate(errno.ENOTDIR, _NO_DIRECTORY, str(path)) from None
            with suppress(FileNotFoundError):
                _check_owner(path, os.stat(path, dir_fd=dir_fd, follow_symlinks=False))
            raise
        try:
            found = os.fstat(descriptor)
            _check_owner(path, found)
            if found.st_mode & _OTHERS:
                os.fchmod(descriptor, _PRIVATE_DIRECTORY)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def make_directory(path: Path) -> Path:
    """Make a directory, and what is missing above it, for this user only; one that is there is left as it is.

    Raises
    ------
    NotPrivate
        It is a link, no directory, or somebody else's.
    errors.DiskFull
        There is no room to make it.
    """
    try:
        with disk_full_named(path, path):
            path.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    except FileExistsError:
        raise NotPrivate(errno.ENOTDIR, _NO_DIRECTORY, str(path)) from None
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotPrivate(errno.ENOTDIR, _NO_DIRECTORY, str(path))
    _check_owner(path, found)
    return path


def _check_owner(path: Place, found: os.stat_result) -> None:
    if found.st_uid != os.getuid():
        raise NotPrivate(errno.EPERM, f"belongs to user {found.st_uid}, not to {os.getuid()}", str(path))


def open_descriptor(path: Place, flags: int, *, dir_fd: int | None = None) -> int:
    """Open a file that this user's processes wrote; the caller closes the descriptor. Cost: one look at it more than ``os.open``.

    Raises
    ------
    FileNotFoundError
        Nothing is there, or what is there is not ours: a link, a directory, a pipe, a socket, a device, somebody else's file.
    errors.DiskFull
        There is no room to make it.
    OSError
        As ``os.open`` has it.
    """
    try:
        with disk_full_named(Path(path)):
            descriptor = os.open(path, flags | _FILE_FLAGS, _PRIVATE_FILE, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise FileNotFoundError(errno.ENOENT, f"no file of flowkit's own ({error.strerror})", str(path)) from None
        raise
    found = os.fstat(descriptor)
    if not is_own_file(found):
        os.close(descriptor)
        what = f"a file of user {found.st_uid}" if stat.S_ISREG(found.st_mode) else "no regular file"
        raise FileNotFoundError(errno.ENOENT, f"no file of flowkit's own ({what})", str(path))
    return descriptor


def open_file(path: Place, mode: Literal["rb", "r+b", "xb", "x+b", "ab"] = "rb", *, buffering: int = -1) -> IO[bytes]:
    """Open a file that this user's processes wrote, or make one where nothing is, which nobody else may read. Raises as ``open_descriptor``."""
    return cast("IO[bytes]", open(path, mode, buffering, opener=open_descriptor))


def read_file(path: Place) -> bytes:
    """All of a file that this user's processes wrote. Raises as ``open_descriptor``."""
    with open_file(path, buffering=0) as file:
        return file.read()


def write_file(path: Place, data: bytes) -> None:
    """Make a file of some bytes, which nobody else may read. Raises ``FileExistsError`` where something is there."""
    with open_file(path, "xb", buffering=0) as file:
        view = memoryview(data)
        while view:  # a disk that is nearly full takes a part, and refuses only what comes after
            view = view[cast("Any", file).write(view) :]


def is_own_file(found: os.stat_result) -> bool:
    """Whether what was looked at is a regular file of this user's."""
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()


def has_own_file(path: Place) -> bool:
    """Whether a regular file of this user's is there, no link to one."""
    try:
        return is_own_file(os.lstat(path))
    except OSError:
        return False


def remove_tree(name: Place, *, dir_fd: int) -> bool:
    """Remove a directory of this user's and all that is in it; whether nothing is there now.

    No link is followed, also none that takes a directory's place while this runs: each directory is opened, and emptied by its descriptor.
    What is mounted in it is left, and with it the directories above.
    """
    try:
        descriptor = os.open(name, _DIRECTORY_FLAGS, dir_fd=dir_fd)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.getuid() or _mount(descriptor) != _mount(dir_fd):
            return False
        with suppress(RecursionError):  # deeper than anybody means it: it stays
            _empty(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def remove_file(path: Path) -> None:
    """Remove a file from a directory of this user's, which is no link. Idempotent; what cannot be removed stays."""
    with suppress(OSError):
        descriptor = open_directory(path.parent)
        try:
            os.unlink(path.name, dir_fd=descriptor)
        finally:
            os.close(descriptor)


def remove_files(directory: Path, prefix: str) -> None:
    """Remove the files whose names begin so from a directory of this user's, which is no link. Idempotent."""
    with suppress(OSError):
        descriptor = open_directory(directory)
        try:
            for name in os.listdir(descriptor):  # noqa: PTH208 - of an open directory
                if name.startswith(prefix):
                    with suppress(OSError):
                        os.unlink(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)


def _empty(directory: int) -> None:
    """Remove all that can be removed from an open directory."""
    with suppress(OSError):
        if not os.fstat(directory).st_mode & stat.S_IWUSR:  # as an archive had it that a task unpacked
            os.fchmod(directory, _PRIVATE_DIRECTORY)
    mount = _mount(directory)
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in list(entries):
            with suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=directory)
                    continue
                inner = os.open(entry.name, _DIRECTORY_FLAGS, dir_fd=directory)
                try:
                    if _mount(inner) == mount:
                        _empty(inner)
                finally:
                    os.close(inner)
                os.rmdir(entry.name, dir_fd=directory)


def _mount(descriptor: int) -> tuple[int, bytes]:
    """Of which file system it is, and of which mount of it where the system tells."""
    device = os.fstat(descriptor).st_dev
    try:
        with Path(f"/proc/self/fdinfo/{descriptor}").open("rb") as lines:
            return device, next((line for line in lines if line.startswith(b"mnt_id:")), b"")
    except OSError:
        return device, b""


def others_may_replace(path: Path) -> bool:
    """Whether any account may move what lies in a directory away and put something else in its place.

    >>> others_may_replace(Path("/"))
    False
    """
    mode = path.stat().st_mode
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX
