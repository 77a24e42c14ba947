"""Where the time and the memory of tasks went: by operation and by line. Sent with a task's report, added up in the driver."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

#: property of a job whose tasks measure where their time goes: the number of the accumulator that hears it
PROFILE: Final = "flowkit.profile"
#: property, set to anything, of such a job whose tasks measure memory too
PROFILE_MEMORY: Final = "flowkit.profile.memory"


@dataclass(frozen=True, slots=True)
class LinePlace:
    """A line of the user's: the innermost of theirs that was at work."""

    #: for which of the operations
    operation: str
    file: str
    line: int
    function: str


@dataclass(slots=True)
class OperationCost:
    """What one operation of a stage took."""

    #: operations of a stage are in the order in which rows pass them
    order: tuple[int, int]
    rows: int = 0
    #: while the operation itself was at work, not those it took rows from
    seconds: float = 0.0
    #: the most that any one task's Python objects grew by while it was at work
    held_bytes: int = 0


@dataclass(slots=True)
class ProfileData:
    """What one task measured, or many together."""

    tasks: int = 0
    seconds: float = 0.0
    operations: dict[str, OperationCost] = field(default_factory=dict)
    line_seconds: dict[LinePlace, float] = field(default_factory=dict)
    #: allocated there and still in use when a task's memory was looked at; the greatest of any task
    line_bytes: dict[LinePlace, int] = field(default_factory=dict)


def merged(one: ProfileData, other: ProfileData) -> ProfileData:
    """Both together; neither is changed.

    >>> left = ProfileData(1, 2.0, {"map": OperationCost((0, 1), 10, 1.5)})
    >>> merged(left, left).operations["map"].rows, left.operations["map"].rows
    (20, 10)
    """
    operations = dict(one.operations)
    for label, cost in other.operations.items():
        known = operations.get(label)
        operations[label] = cost if known is None else _both(known, cost)
    seconds, held = dict(one.line_seconds), dict(one.line_bytes)
    for place, took in other.line_seconds.items():
        seconds[place] = seconds.get(place, 0.0) + took
    for place, size in other.line_bytes.items():
        held[place] = max(held.get(place, 0), size)
    return ProfileData(one.tasks + other.tasks, one.seconds + other.seconds, operations, seconds, held)


def _both(one: OperationCost, other: OperationCost) -> OperationCost:
    return OperationCost(
        min(one.order, other.order),
        one.rows + other.rows,
        one.seconds + other.seconds,
        max(one.held_bytes, other.held_bytes),
    )
