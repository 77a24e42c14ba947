"""Who hears events in the driver, and what was heard before anybody listened. Runs on the client's event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flowkit.logs import logger_of
from flowkit.model.events import Event

logger = logger_of("flowkit.cluster")

Sink = Callable[[Sequence[Event]], None]

MOST_EARLY_EVENTS = 10_000


class Listening:
    """Sinks of events. One that raises is told of in the log, and hears the next batch as before.

    >>> from flowkit.model.events import ApplicationEnd
    >>> from flowkit.model.ids import AppId
    >>> listening, heard = Listening(), []
    >>> listening.tell([ApplicationEnd(AppId("app"), "closed", time=0.0)])
    >>> listening.add(heard.extend)
    >>> [event.reason for event in heard]
    ['closed']
    """

    def __init__(self) -> None:
        self._sinks: list[Sink] = []
        #: who began, which executors there are
        self._early: list[Event] = []

    def add(self, sink: Sink) -> None:
        """One more; the first is told what came before."""
        self._sinks.append(sink)
        early, self._early = self._early, []
        if early:
            _hand_over(sink, early)

    def tell(self, events: Sequence[Event]) -> None:
        """Something happened."""
        if not self._sinks and len(self._early) < MOST_EARLY_EVENTS:
            self._early += events
        for sink in self._sinks:
            _hand_over(sink, events)


def _hand_over(sink: Sink, events: Sequence[Event]) -> None:
    try:
        sink(events)
    except BaseException:  # what leaves here would end the event loop
        logger.exception("a listener's sink raised")
