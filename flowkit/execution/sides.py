"""Which side code runs on: what only the driver may do is refused in tasks. Runs everywhere."""

from __future__ import annotations

import os

from flowkit.errors import DriverOnly, NestedAction
from flowkit.execution.task_context import REPLAY, TaskContext, inside_task


def check_on_driver(what: str) -> None:
    """Refuse to use RDDs and Contexts from inside a task."""
    if inside_task():
        raise NestedAction(
            f"{what} was called inside a task; actions, RDDs and Contexts exist on the driver only. Join the RDDs, or collect "
            "the smaller one first and use the values",
            name=what,
        )


def driver_only(what: str, instead: str) -> None:
    """Refuse inside a task what changes something for all tasks; a task that is looked at once more in the driver is no exception."""
    if inside_task():
        raise DriverOnly(f"{what} was called inside a task; it is for the driver only: {instead}", name=what)


def in_fork(what: str, owner: int) -> DriverOnly:
    """What to raise in a fork of the process that a Context was made in."""
    return DriverOnly(
        f"{what} was called in process {os.getpid()}, a fork of process {owner} in which the Context was made: a fork has none of its "
        "threads and connections. Make a Context in the fork, or run jobs where it was made and hand their results to the fork",
        name=what,
    )


def is_replayed() -> bool:
    """Whether a failed task is looked at once more, in the driver: what it adds was counted, or is not to be."""
    context = TaskContext.get()
    return context is not None and context.app_id == REPLAY
