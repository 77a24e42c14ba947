"""Where flowkit has its files on a machine, and whether it can have them there. Runs in workers, nannies and drivers."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Mapping

from flowkit.errors import ClusterError, ConfigError
from flowkit.storage.host_directory import HostDirectory

DIRECTORY_VARIABLE = "FLOWKIT_LOCAL_DIRECTORY"
"""Of the environment: the place, on this machine."""

#: what is written to see whether there is room for anything
_PROBE_BYTES = 4096
#: files of applications have names, below directories, that are this long in all
_LONGEST_NAME = 160


def host_directory(environment: Mapping[str, str], local_directory: str | None, block_directories: str = "") -> HostDirectory:
    """A matter of the machine first: workers on different ones may be told different places.

    Raises
    ------
    errors.ConfigError
        It cannot be made, or belongs to somebody else; names the setting, the place and the reason.
    """
    place = environment.get(DIRECTORY_VARIABLE) or local_directory or None
    try:
        return HostDirectory.open(place, block_directories=block_directories)
    except (OSError, ValueError, ClusterError) as error:
        raise _unusable(place, error) from error


def check_directory(place: str | None) -> None:
    """See whether executors on this machine could keep files there, by making one; None: in the system's temporary directory.

    Raises
    ------
    errors.ConfigError
        They could not; names the setting, the place and the reason.
    """
    base = host_directory({}, place).base
    path = base / f"probe-{secrets.token_hex(8)}".ljust(_LONGEST_NAME, "-")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.write(descriptor, bytes(_PROBE_BYTES))
        finally:
            os.close(descriptor)
            path.unlink()
    except OSError as error:
        raise _unusable(place, error) from error


def _unusable(place: str | None, error: Exception) -> ConfigError:
    if place is None:
        told = "local_directory is not set, and executors cannot keep files in the system's temporary directory"
    else:
        told = f"local_directory = {place[:200]!r}{' (cut)' if len(place) > 200 else ''}: executors cannot keep files there"
    mend = (
        ""
        if isinstance(error, ClusterError)
        else "; name a directory that is there or can be made, and that this user can write to"
    )
    return ConfigError(
        f"{told}: {str(error)[:500]}{mend}",
        setting="local_directory",
        value=place or "",
    )
