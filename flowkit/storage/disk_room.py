"""A disk without room is one error, whatever met it first: a write, a file or a directory that could not be made.

Runs on any thread. The scheduler makes room where it hears ``errors.DiskFull``, and of nothing else.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowkit.errors import DiskFull

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def disk_full_named(path: Path, directory: Path | None = None) -> Iterator[None]:
    """Turn an ``OSError`` that says that there is no room into ``errors.DiskFull`` of ``path``; its text names the directory.

    >>> with disk_full_named(Path("/data/run-1")):
    ...     raise OSError(errno.ENOSPC, "No space left on device")
    Traceback (most recent call last):
    ...
    flowkit.errors.DiskFull: no space left on the disk of /data
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM and not isinstance(error, DiskFull):
            raise DiskFull(f"no space left on the disk of {directory or path.parent}", path=str(path)) from error
        raise
