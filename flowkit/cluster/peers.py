"""Whom the scheduler talks to: executors and drivers, each a link with what waits to be sent on it.

Runs in the scheduler process, on its event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowkit.cluster.links import Link
from flowkit.cluster.wire import AdmitApplication, EventsPublished, ToDriver, ToExecutor, Versions, encode
from flowkit.model.events import Event
from flowkit.model.ids import AppId, AttemptId, ExecutorId, HostToken
from flowkit.model.task import TaskLaunch, TaskReport, TaskStarted
from flowkit.scheduling.actions import DriverAction, Launch

EVENT_BATCH_S = 0.015
"""Events and results wait so long for company; the end of a job does not wait."""
EVENT_BATCH_COUNT = 1_000
EVENT_BACKLOG_BYTES = 32 << 20
"""A driver that lags this far behind loses events (it is told how many), never results."""


class ExecutorPeer:
    """One executor process."""

    def __init__(self, executor: ExecutorId, address: str, versions: Versions, deliver: Callable[[bytes], None]) -> None:
        self.executor = executor
        self.address = address
        self.versions = versions
        self.link = Link(f"executor {executor}", deliver)
        self.host = HostToken("")
        self.slots = 0
        #: it said ready
        self.ready = False
        #: the core knows, or will know, that it is gone
        self.lost = False
        self.draining = False
        #: attempts launched and not reported as over
        self.in_flight: dict[AttemptId, TaskLaunch] = {}
        #: Dask's record of the worker, for its last measurements
        self.dask_state: Any = None
        self._outbox: list[ToExecutor] = []
        self._admitted: set[AppId] = set()

    def __repr__(self) -> str:
        return f"<ExecutorPeer {self.executor} in_flight={len(self.in_flight)}{' lost' if self.lost else ''}>"

    def queue(self, message: ToExecutor) -> bool:
        """Send it with the next flush; True when it is the first to wait."""
        if isinstance(message, Launch):
            for task in message.tasks:
                self.in_flight[task.attempt] = task
        self._outbox.append(message)
        return len(self._outbox) == 1

    def admit(self, app: AppId, secret: str) -> None:
        """Let the executor serve an application, once."""
        if app not in self._admitted:
            self._admitted.add(app)
            self.link.send(encode([AdmitApplication(app, secret)]))

    def forget(self, app: AppId) -> None:
        """The application is over."""
        self._admitted.discard(app)

    def note(self, reports: tuple[TaskReport, ...]) -> None:
        """Count attempts that are over as no longer there."""
        for report in reports:
            if type(report) is not TaskStarted:
                self.in_flight.pop(report.attempt, None)

    def flush(self) -> None:
        """Put what waits on the link, as one body."""
        if self._outbox:
            outbox, self._outbox = self._outbox, []
            self.link.send(encode(outbox))


class DriverPeer:
    """One driver's session."""

    def __init__(self, app: AppId, name: str, secret: str, versions: Versions, deliver: Callable[[bytes], None]) -> None:
        self.app = app
        self.name = name
        self.secret = secret
        self.versions = versions
        self.link = Link(f"driver {app}", deliver)
        self._events: list[Event] = []
        self._dropped = 0
        self._outbox: list[ToDriver] = []

    def __repr__(self) -> str:
        return f"<DriverPeer {self.app} {self.name!r}>"

    @property
    def has_waiting(self) -> bool:
        """Whether there is anything to flush."""
        return bool(self._events or self._outbox)

    @property
    def is_full(self) -> bool:
        """Whether it is time to flush for size alone."""
        return len(self._events) + len(self._outbox) >= EVENT_BATCH_COUNT

    def publish(self, event: Event) -> None:
        """An event for its listeners."""
        if self.link.waiting_bytes > EVENT_BACKLOG_BYTES:
            self._dropped += 1
        else:
            self._events.append(event)

    def tell(self, action: DriverAction) -> None:
        """A message that is never dropped."""
        self._outbox.append(action)

    def flush(self) -> None:
        """Events first: a driver has heard all about a job when it learns of its end."""
        if not self.has_waiting:
            return
        messages = list(self._outbox)
        if self._events or self._dropped:
            messages.insert(0, EventsPublished(tuple(self._events), self._dropped))
        self._events, self._outbox, self._dropped = [], [], 0
        self.link.send(encode(messages))
