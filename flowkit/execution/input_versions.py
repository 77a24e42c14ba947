"""Whether a file that is read is the one its partitions were planned for: asked before, meanwhile and afterwards.

Runs on slot threads. Of a file of this machine the open one is asked, so one that was replaced by another under its name is read to its end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from flowkit.errors import InputChanged
from flowkit.lineage.kernels import FileVersion


@contextlib.contextmanager
def unchanged(path: str, planned: FileVersion | None, look: Callable[[], FileVersion]) -> Iterator[Callable[[], None]]:
    """Have a block read a file that stays the one that was planned for; yields what looks again.

    Parameters
    ----------
    planned
        None: whatever is there is read.
    look
        Returns what the file is now.

    Raises
    ------
    errors.InputChanged
        At the beginning; from the end; or in place of what the block raises, since half a file may not be what a reader can read.
    """
    if planned is None:
        yield _nothing
        return
    version = planned

    def check() -> None:
        found = look()
        if found != version and not version.is_of(found):
            raise changed(path, version, found)

    check()
    try:
        yield check
    except InputChanged:
        raise
    except Exception as error:
        try:
            check()
        except InputChanged as instead:
            raise instead from error
        except Exception as also:  # the store does not answer either: what the block met is the better story
            error.add_note(f"whether the file has changed is not known: {also}")
        raise
    # What was deleted after it was read is no harm.
    with contextlib.suppress(FileNotFoundError):
        check()


def _nothing() -> None:
    """Look at nothing."""


def changed(path: str, planned: FileVersion, found: FileVersion) -> InputChanged:
    """The error for a file that is another than was planned for."""
    if planned.size_bytes == found.size_bytes:
        how = f"has {_size(found)} as it had, but was {_told(found)}, and not {_told(planned)}"
    else:
        how = f"has {_size(found)}, {_told(found)}, and had {_size(planned)}, {_told(planned)}"
    return InputChanged(
        f"{path} has changed since its partitions were planned: it {how}. Make the RDD anew to read what is there now, or read a copy that "
        "nobody writes to; changed_inputs='read' takes files as they are, also where each host has a copy of its own",
        path=path,
        planned=planned,
        found=found,
        setting="changed_inputs",
    )


def _size(version: FileVersion) -> str:
    return "a size that is not known" if version.size_bytes < 0 else f"{version.size_bytes:,} bytes"


def _told(version: FileVersion) -> str:
    if version.tag:
        return f"written as {version.tag}"
    if not version.changed_ns:
        return "written at a time that is not known"
    seconds, rest = divmod(version.changed_ns, 1_000_000_000)
    return f"written at {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:09d} UTC"
