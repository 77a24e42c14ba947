"""What listeners hear of the jobs that an operation runs, and of no earlier ones, whose last events may still be on their way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flowkit as fk
from flowkit.model.events import JobEnd, JobStart


class _Keeps:
    def __init__(self) -> None:
        self.events: list[Any] = []
        self._jobs: set[int] = set()
        self._stages: set[int] = set()

    def on_event(self, event: Any) -> None:
        if isinstance(event, JobStart):
            self._jobs.add(event.job)
            self._stages.update(each.stage for each in event.stages)
        is_theirs = (
            event.job in self._jobs if isinstance(event, JobStart | JobEnd) else getattr(event, "stage", None) in self._stages
        )
        if is_theirs:
            self.events.append(event)


def heard(fc: fk.Context, operation: Callable[[], Any]) -> tuple[Any, list[Any]]:
    """What an operation returns, and the events of its jobs and their stages."""
    keeps = _Keeps()
    fc.wait_for_listeners()
    fc.add_listener(keeps)
    try:
        result = operation()
        fc.wait_for_listeners()
    finally:
        fc.remove_listener(keeps)
    return result, keeps.events
