"""What a profile found, for people: operations and lines, the most costly first. Runs in the driver."""

from __future__ import annotations

import linecache
from collections.abc import Callable

from flowkit.lineage.call_site import short_call_site
from flowkit.model.profile import LinePlace, OperationCost, ProfileData
from flowkit.observe.metrics import format_bytes, format_count, format_seconds
from flowkit.observe.tables import Table

_MOST_LINES = 15
#: of memory that is worth a line
_LEAST_BYTES = 64 << 10


class Profile:
    """Where the time of some jobs' tasks went. Made by ``Context.profile``; grows as tasks end.

    Attributes
    ----------
    tasks, seconds
        How many tasks were measured, and what they took together, on all executors.
    operations
        By what the user called and where: ``rows`` made, ``seconds`` of its own, ``held_bytes``. In the order of the lineage.
    line_seconds, line_bytes
        By ``LinePlace`` (``file``, ``line``, ``function``, ``operation``). Seconds come from looks every 5 ms, so they are
        estimates; bytes are what lines had allocated and was in use when a task's memory was largest.
    """

    def __init__(self, read: Callable[[], ProfileData], *, memory: bool) -> None:
        self._read = read
        self._memory = memory

    @property
    def tasks(self) -> int:
        """See the class."""
        return self._read().tasks

    @property
    def seconds(self) -> float:
        """See the class."""
        return self._read().seconds

    @property
    def operations(self) -> dict[str, OperationCost]:
        """See the class."""
        return dict(sorted(self._read().operations.items(), key=lambda each: each[1].order))

    @property
    def line_seconds(self) -> dict[LinePlace, float]:
        """See the class."""
        return dict(sorted(self._read().line_seconds.items(), key=lambda each: -each[1]))

    @property
    def line_bytes(self) -> dict[LinePlace, int]:
        """See the class."""
        return dict(sorted(self._read().line_bytes.items(), key=lambda each: -each[1]))

    def tables(self) -> tuple[Table, ...]:
        """Operations, lines, and lines by memory where that was measured."""
        data = self._read()
        whole = data.seconds or 1.0
        title = f"{format_seconds(data.seconds)} in {format_count(data.tasks)} tasks"
        names = ("time", "part", "rows made", *(("memory",) if self._memory else ()), "operation")
        operations = [
            (
                format_seconds(cost.seconds),
                f"{cost.seconds / whole:.0%}",
                format_count(cost.rows) if cost.rows else "",
                *((format_bytes(cost.held_bytes),) if self._memory else ()),
                _short(label),
            )
            for label, cost in self.operations.items()
        ]
        found = [Table(title, names, operations)]
        lines = [
            (format_seconds(seconds), f"{seconds / whole:.0%}", place.function, _line(place))
            for place, seconds in list(self.line_seconds.items())[:_MOST_LINES]
        ]
        if lines:
            found.append(Table("lines, by time", ("time", "part", "function", "line"), lines))
        held = [
            (format_bytes(size), _line(place))
            for place, size in list(self.line_bytes.items())[:_MOST_LINES]
            if size >= _LEAST_BYTES
        ]
        if held:
            found.append(Table("lines, by memory in use", ("memory", "line"), held))
        return tuple(found)

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self.tables())) if self.tasks else "<Profile: no task has ended yet>"

    def _repr_html_(self) -> str:
        return "".join(table._repr_html_() for table in self.tables())


def _line(place: LinePlace) -> str:
    # A notebook's cells are known to linecache by their file names, as scripts are.
    text = linecache.getline(place.file, place.line).strip()
    return f"{short_call_site(f'{place.file}:{place.line}')}  {text}".rstrip()


def _short(label: str) -> str:
    """``map at /home/ann/words.py:3, before the shuffle`` with the file's name alone."""
    operation, found, rest = label.partition(" at ")
    return f"{operation} at {rest.replace(chr(92), '/').rpartition('/')[2]}" if found else label
