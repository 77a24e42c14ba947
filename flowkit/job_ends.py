"""The end of a job, as its driver decides it: a job has succeeded only when its action has.

Runs on the driver; thread-safe. The scheduler says ``succeeded`` once every result was delivered. After that the driver merges results,
counts skipped errors and renames files. When one of these raises, the action has failed, and so has its last job. Therefore ``JobEnd`` is
held back while the job's action is under way. Listeners get one ``JobEnd`` a job, with the outcome that the user saw.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from flowkit.errors import JobCancelled, JobTimeout
from flowkit.model.events import ApplicationEnd, Event, JobEnd
from flowkit.model.ids import JobId
from flowkit.model.shown import first_line_of

_ENDS: Final = frozenset({JobEnd, ApplicationEnd})
#: what an action raises when somebody wanted no more of it
_CANCELLATIONS: Final = (JobCancelled, JobTimeout, KeyboardInterrupt, SystemExit)


class JobEnds:
    """Passes events on, and holds ``JobEnd`` back until the job's action has ended too.

    Parameters
    ----------
    post
        Takes the events, in order.

    Examples
    --------
    >>> from flowkit.model.ids import AppId
    >>> heard = []
    >>> ends = JobEnds(heard.extend)
    >>> ends.expect(JobId(0))
    >>> ends.hear([JobEnd(AppId("app"), JobId(0), "succeeded", time=1.0)])
    >>> heard
    []
    >>> ends.settle(JobId(0), ValueError("no room"))
    >>> heard[0].outcome, heard[0].reason
    ('failed', 'ValueError: no room')
    """

    def __init__(self, post: Callable[[Sequence[Event]], None]) -> None:
        self._post = post
        #: held while posting, so that events keep their order
        self._lock = threading.Lock()
        #: jobs whose actions are under way, each with its ``JobEnd`` if the scheduler has sent it
        self._expected: dict[JobId, JobEnd | None] = {}
        #: errors of actions whose ``JobEnd`` has not come yet
        self._errors: dict[JobId, BaseException] = {}
        #: time of the last event that was passed on; it never goes back
        self._time = 0.0

    def expect(self, job: JobId) -> None:
        """Hold the end of this job back until ``settle``."""
        with self._lock:
            self._expected[job] = None

    def forget(self, job: JobId) -> None:
        """Stop expecting a job that could not be submitted."""
        with self._lock:
            self._expected.pop(job, None)

    def hear(self, events: Sequence[Event]) -> None:
        """Take events from the scheduler, and pass on those that need not wait."""
        with self._lock:
            # Nearly all batches are about tasks only.
            if not _ENDS.isdisjoint(map(type, events)):
                events = self._sifted(events)
            if events:
                if (time := events[-1].time) > self._time:
                    self._time = time
                self._post(events)

    def settle(self, job: JobId, error: BaseException | None) -> None:
        """Publish the end of a job as its action ended: with ``error``, or well."""
        with self._lock:
            if job not in self._expected:
                return
            end = self._expected.pop(job)
            if end is not None:
                self._post([msgspec.structs.replace(_judged(end, error), time=max(end.time, self._time))])
            elif error is not None:
                self._errors[job] = error

    def _sifted(self, events: Sequence[Event]) -> list[Event]:
        """Return the events to pass on now."""
        found: list[Event] = []
        for event in events:
            if type(event) not in _ENDS:
                found.append(event)
                continue
            match event:
                case JobEnd(job=job) if job in self._errors:
                    found.append(_judged(event, self._errors.pop(job)))
                case JobEnd(job=job) if job in self._expected:
                    if event.outcome == "failed":
                        del self._expected[job]
                        found.append(event)
                    else:
                        self._expected[job] = event
                case ApplicationEnd():
                    found += [
                        msgspec.structs.replace(end, time=max(end.time, self._time))
                        for end in self._expected.values()
                        if end is not None
                    ]
                    self._expected.clear()
                    self._errors.clear()
                    found.append(event)
                case _:
                    found.append(event)
        return found

    def __repr__(self) -> str:
        return f"<JobEnds: {len(self._expected)} actions under way>"


def _judged(end: JobEnd, error: BaseException | None) -> JobEnd:
    """Return the end of a job whose action raised ``error``."""
    if error is None or end.outcome == "failed":
        return end
    if issubclass(type(error), _CANCELLATIONS):
        if end.outcome == "cancelled":
            return end
        reason = "interrupted" if issubclass(type(error), KeyboardInterrupt) else first_line_of(error)
        return msgspec.structs.replace(end, outcome="cancelled", reason=reason)
    return msgspec.structs.replace(end, outcome="failed", reason=first_line_of(error))
