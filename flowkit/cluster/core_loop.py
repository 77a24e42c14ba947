"""Drives the scheduler core: stimuli of one turn of the event loop go in as one batch, actions come out, timers are kept.

Runs in the scheduler process, on its event loop, in slices so that Dask's own messages do not wait.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from flowkit.logs import logger_of
from flowkit.scheduling.actions import Action
from flowkit.scheduling.stimuli import Heartbeat, Stimulus, TasksReported, Tick

logger = logger_of("flowkit.cluster")

SLICE_S = 0.005
"""Longest time in one turn of the loop; Dask's heartbeats and streams share it."""
SLICE_WEIGHT = 128
"""Reports handled between two looks at the clock: about half a slice at 20 us each."""
LONG_SLICE_S = 1.0
"""A slice that takes longer is worth a line in the log: heartbeats of a whole cluster wait for it."""
LONG_SLICE_AGAIN_S = 60.0
"""Between two such lines."""


class Core(Protocol):
    """What is driven: ``scheduling.core.SchedulerCore``."""

    def handle_all(self, stimuli: Sequence[Stimulus], now: float) -> list[Action]:
        """Apply a batch; return what is to be done, in order."""
        ...

    def next_wakeup(self) -> float | None:
        """When it wants a ``Tick``, on the clock of ``now``."""
        ...


class SteadyClock:
    """Seconds since the epoch that never go backwards: wall time at the start, then the monotonic clock."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Now."""
        return self._offset + time.monotonic()


class CoreLoop:
    """Give it stimuli with ``submit``; it calls ``perform`` with actions and ``settled`` after each slice.

    ``failed`` is told of stimuli the core raised on; it decides whom that concerns. Nothing is raised to the submitter.
    """

    def __init__(
        self,
        core: Core,
        *,
        perform: Callable[[Action], None],
        settled: Callable[[], None],
        failed: Callable[[Stimulus, BaseException], None],
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._core = core
        self._perform = perform
        self._settled = settled
        self._failed = failed
        self._clock = clock
        self._loop = loop
        self._inbox: deque[Stimulus] = deque()
        self._turn_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._closed = False
        #: when a long slice was told of last
        self._warned_at: float | None = None
        #: seconds spent in the core, slices and stimuli, for people
        self.busy_s = 0.0
        self.longest_s = 0.0
        self.slice_count = 0
        self.stimulus_count = 0

    def submit(self, stimulus: Stimulus) -> None:
        """Handle it in this turn of the loop or one soon after, after those submitted before."""
        if self._closed:
            return
        self._inbox.append(stimulus)
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self._loop.call_soon(self._turn)

    def close(self) -> None:
        """Handle nothing more."""
        self._closed = True
        self._inbox.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self) -> None:
        self._turn_scheduled = False
        started = time.perf_counter()
        self.slice_count += 1
        while self._inbox and not self._closed:
            self._handle(self._take_batch())
            if time.perf_counter() - started > SLICE_S:
                break
        if self._inbox and not self._turn_scheduled and not self._closed:
            self._turn_scheduled = True
            self._loop.call_soon(self._turn)
        try:
            self._settled()
        except BaseException:
            logger.exception("sending the scheduler's messages failed")
        self._set_timer()
        took = time.perf_counter() - started
        self.busy_s += took
        self.longest_s = max(self.longest_s, took)
        if took > LONG_SLICE_S:
            self._warn_of_long_slice(started + took, took)

    def _warn_of_long_slice(self, now: float, took: float) -> None:
        if self._warned_at is not None and now - self._warned_at < LONG_SLICE_AGAIN_S:
            return
        self._warned_at = now
        logger.warning(
            "the scheduler was busy for %.1f s at a stretch and heard nobody meanwhile; a policy of one's own that waits, or computes for long, "
            "is the likely cause",
            took,
        )

    def _take_batch(self) -> list[Stimulus]:
        batch: list[Stimulus] = []
        weight = 0
        while self._inbox and weight < SLICE_WEIGHT:
            stimulus = self._inbox.popleft()
            batch.append(stimulus)
            weight += len(stimulus.reports) if isinstance(stimulus, TasksReported) else 1
        self.stimulus_count += len(batch)
        return batch

    def _handle(self, batch: list[Stimulus]) -> None:
        try:
            actions = self._core.handle_all(batch, self._clock())
        except BaseException as error:
            # Policies are asked in there: what one raises, of any kind, must not end the event loop.
            # Which of them it was the core says in its story; all are named, none is tried twice.
            logger.exception("the scheduler core failed")
            for stimulus in batch:
                if not isinstance(stimulus, Heartbeat | Tick):
                    self._failed(stimulus, error)
            return
        for action in actions:
            try:
                self._perform(action)
            except BaseException:
                logger.exception("an action of the scheduler core failed: %r", action)

    def _set_timer(self) -> None:
        at = None if self._closed else self._core.next_wakeup()
        if at is None:
            return
        if self._timer is not None and self._timer_at <= at:
            return  # fires earlier, looks again
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - self._clock()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        at = self._core.next_wakeup()
        if at is None:
            return
        if at <= self._clock():
            self.submit(Tick())
        else:
            self._set_timer()
