"""Which applications have event logs in a directory: the first page of a history. Reads files, runs nothing.

Of each line only its kind is looked at, but for the few that begin or end something: a log of a million tasks takes seconds, not minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from flowkit.errors import InvalidArgument
from flowkit.model.events import ApplicationEnd, ApplicationStart, Event, JobEnd, JobStart
from flowkit.observe.event_log import applications_in, event_lines, log_files

_KINDS: Final = tuple(f'"event":"{kind.__name__}"'.encode() for kind in (ApplicationStart, ApplicationEnd, JobStart, JobEnd))


@dataclass(frozen=True, slots=True)
class LoggedApplication:
    """One application as its log tells."""

    app: str
    name: str
    #: seconds since the epoch; 0 where the log says nothing
    started_at: float
    ended_at: float
    jobs: int
    failed: int
    #: jobs without an end
    open: int
    #: why it was over; empty: it runs, or its driver was lost
    reason: str

    @property
    def state(self) -> str:
        """Closed, or how it ended else; ``runs, or was lost`` where the log has no end."""
        return self.reason or "runs, or was lost"


def logged_applications(directory: str | Path) -> Iterator[LoggedApplication]:
    """The applications with a log in a directory, by the time of their start."""
    found = [_readable_summary(each) for each in applications_in(Path(directory).expanduser())]
    yield from sorted(found, key=lambda each: each.started_at)


def _readable_summary(directory: Path) -> LoggedApplication:
    try:
        return _summary(directory)
    except (InvalidArgument, OSError, msgspec.DecodeError) as error:
        return LoggedApplication(directory.name, "", 0.0, 0.0, 0, 0, 0, f"cannot be read: {error}")


def _summary(directory: Path) -> LoggedApplication:
    decoder = msgspec.json.Decoder(Event)
    name, reason, started_at, ended_at, began, ended, failed = "", "", 0.0, 0.0, 0, 0, 0
    for line in event_lines(log_files(directory)):
        if not any(kind in line[:_WHERE_KIND] for kind in _KINDS):
            continue
        match decoder.decode(line):
            case ApplicationStart() as event:
                name, started_at = event.name, event.time
            case ApplicationEnd() as event:
                reason, ended_at = event.reason, event.time
            case JobStart() as event:
                began += 1
                started_at = started_at or event.time
            case JobEnd() as event:
                ended += 1
                failed += event.outcome == "failed"
            case _:
                pass
    return LoggedApplication(directory.name, name, started_at, ended_at, began, failed, max(0, began - ended), reason)


#: bytes of a line in which its kind stands: msgspec writes the tag first
_WHERE_KIND: Final = 40
