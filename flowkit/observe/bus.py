"""The listener bus: events to any number of listeners, through named queues that never make the poster wait.

Runs in the driver; thread-safe. Each queue has a thread of its own, so a slow listener delays only those that share its queue,
and one that stays too far behind loses events: that is counted, and said once a minute. A listener with a method ``on_idle`` is
told when its queue has run empty: the time to write what it gathered.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flowkit.abc import Listener
from flowkit.logs import logger_of
from flowkit.model.events import Event

logger = logger_of(__name__)

SHARED = "shared"
"""The queue of listeners that name none."""

#: seconds between two warnings of one queue
_WARNING_INTERVAL_S = 60.0


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """One look at a queue."""

    listener_count: int
    waiting_count: int
    delivered_count: int
    dropped_count: int
    #: how often a listener raised
    error_count: int


class _Queue:
    """One queue and the thread that empties it."""

    def __init__(self, name: str, capacity: int, clock: Callable[[], float]) -> None:
        self.name = name
        self._capacity = capacity
        self._clock = clock
        self._changed = threading.Condition()
        #: the event being delivered stays at its head until every listener has heard it
        self._events: deque[Event] = deque()
        #: replaced, never changed, so that delivery needs no lock
        self.listeners: tuple[Listener, ...] = ()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._delivered = self._dropped = self._errors = 0
        self._dropped_unsaid = 0
        self._warned_at: float | None = None

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"flowkit listeners {self.name}", daemon=True)
            self._thread.start()

    def post(self, events: Sequence[Event]) -> None:
        with self._changed:
            room = max(0, self._capacity - len(self._events))
            self._events.extend(events[:room])
            self._changed.notify_all()
            dropped = len(events) - room
            if dropped <= 0:
                return
            self._dropped += dropped
            self._dropped_unsaid += dropped
            now = self._clock()
            if self._warned_at is not None and now - self._warned_at < _WARNING_INTERVAL_S:
                return
            unsaid, self._dropped_unsaid, self._warned_at = self._dropped_unsaid, 0, now
        logger.warning(
            "listener queue %r is full (listener_queue_capacity = %d): %d events dropped since the last warning, %d in all",
            self.name,
            self._capacity,
            unsaid,
            self._dropped,
        )

    def wait_until_empty(self, deadline: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._events, max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, deadline: float) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def statistics(self) -> QueueStatistics:
        with self._changed:
            return QueueStatistics(len(self.listeners), len(self._events), self._delivered, self._dropped, self._errors)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._events or self._closed)
                if not self._events:
                    return
                batch = tuple(self._events)
            for event in batch:
                for listener in self.listeners:
                    try:
                        listener.on_event(event)
                    except BaseException:  # SystemExit too: others wait on this thread for their events
                        self._errors += 1
                        logger.exception("listener %r raised on %s; it stays", listener, type(event).__name__)
                if len(self._events) == 1:  # this one, which only this thread takes away
                    self._tell_idle()
                with self._changed:
                    self._events.popleft()
                    self._delivered += 1
                    if not self._events:
                        self._changed.notify_all()

    def _tell_idle(self) -> None:
        for listener in self.listeners:
            try:
                on_idle = getattr(listener, "on_idle", None)
                if on_idle is not None:
                    on_idle()
            except BaseException:
                self._errors += 1
                logger.exception("listener %r raised when it was told that there is nothing more for now; it stays", listener)


class ListenerBus:
    """Hands events to listeners in the order in which they were posted.

    What is posted before ``start`` waits for it. Queues come into being with their first listener.

    Examples
    --------
    >>> with ListenerBus() as bus:
    ...     bus.statistics()
    {}
    """

    def __init__(self, capacity: int = 10_000, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._lock = threading.Lock()
        self._queues: dict[str, _Queue] = {}
        self._early: list[Event] = []
        self._started = False
        self._closed = False

    def __enter__(self) -> ListenerBus:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to deliver, beginning with what was posted so far. Idempotent."""
        with self._lock:
            if self._started or self._closed:
                return
            self._started = True
            for queue in self._queues.values():
                queue.post(self._early)
                queue.start()
            self._early.clear()

    def disown(self) -> None:
        """Be closed, in a fork of the driver: without the threads nobody hears anything."""
        self._lock = threading.Lock()
        self._closed = True
        self._queues = {}

    def close(self, timeout_s: float = 5.0) -> None:
        """Deliver what was posted, then end; at most ``timeout_s`` is waited for listeners that hang. Idempotent."""
        self.start()
        with self._lock:
            self._closed = True
            queues = list(self._queues.values())
        deadline = time.monotonic() + timeout_s
        for queue in queues:
            queue.close()
        for queue in queues:
            queue.join(deadline)

    def add_listener(self, listener: Listener, queue: str = SHARED) -> None:
        """Let ``listener`` hear every event from now on, on the thread of ``queue``; an unknown queue is made."""
        with self._lock:
            known = self._queues.get(queue)
            if known is None:
                known = self._queues[queue] = _Queue(queue, self._capacity, self._clock)
                if self._started and not self._closed:
                    known.start()
            known.listeners = (*known.listeners, listener)

    def remove_listener(self, listener: Listener) -> None:
        """Let it hear nothing more, but for an event it may be hearing right now. Unknown ones are ignored."""
        with self._lock:
            for queue in self._queues.values():
                queue.listeners = tuple(each for each in queue.listeners if each is not listener)

    def post(self, events: Sequence[Event]) -> None:
        """Queue events for every listener. Never waits for one; after ``close`` it does nothing."""
        with self._lock:
            if self._closed:
                return
            if not self._started:
                room = max(0, self._capacity - len(self._early))
                self._early.extend(events[:room])
                return
            queues = tuple(self._queues.values())
            # Under the lock, so that two posters cannot reach two queues in different orders.
            for queue in queues:
                queue.post(events)

    def wait_until_empty(self, timeout_s: float, queue: str | None = None) -> None:
        """Return when every listener (of one queue) has heard all that was posted; ``TimeoutError`` when one takes too long."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            queues = tuple(each for each in self._queues.values() if queue is None or each.name == queue)
        for each in queues:
            if not each.wait_until_empty(deadline):
                raise TimeoutError(f"listeners of queue {each.name!r} are still behind after {timeout_s} s")

    def statistics(self) -> dict[str, QueueStatistics]:
        """One look at every queue, by name."""
        with self._lock:
            queues = tuple(self._queues.values())
        return {queue.name: queue.statistics() for queue in queues}

    def __repr__(self) -> str:
        state = "closed" if self._closed else "running" if self._started else "not started"
        return f"<ListenerBus {state}, {len(self._queues)} queues>"
