"""What happened, line by line, for people: jobs, stages, failures, losses, executors that come and go.

Written by its bus's thread, read by any. The last thousand lines are kept; the event log has everything.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from itertools import groupby
from typing import Final, NamedTuple

from flowkit.model.events import (
    AllocationChanged,
    ApplicationEnd,
    BlocksLost,
    BlocksUpdated,
    Event,
    ExecutorAdded,
    ExecutorExcluded,
    ExecutorRemoved,
    ExecutorsKept,
    ExecutorsReleased,
    ExecutorUnexcluded,
    JobEnd,
    JobStart,
    RddUnpersisted,
    ShuffleOutputsLost,
    ShuffleOutputsMoved,
    SpeculativeTaskSubmitted,
    StageCompleted,
    StageSubmitted,
    TaskEnd,
    TaskStuck,
)
from flowkit.model.ids import AppId, ExecutorId, JobId, StageId, executor_label
from flowkit.model.task import CommitDeniedFailure, KilledFailure
from flowkit.observe.metrics import counted, format_seconds
from flowkit.observe.progress import describe_failure
from flowkit.visible import visible

_KEPT: Final = 1_000
#: before further lines of a text
_CONTINUED: Final = "\n" + " " * len("12:34:56.789 ! ")
#: why a task was stopped that nobody cancelled: so begins the scheduler's reason
_PREEMPTED: Final = "preempted"


class Line(NamedTuple):
    """Something that happened."""

    #: seconds since the epoch
    time: float
    text: str
    #: something went wrong
    bad: bool = False

    def __str__(self) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(self.time))
        # Whatever is in it, a line that begins with a time is one of ours.
        text = visible(self.text).replace("\n", _CONTINUED)
        return f"{clock}.{int(self.time % 1 * 1000):03} {'!' if self.bad else ' '} {text}"


class History:
    """The last things that happened to one application.

    Examples
    --------
    >>> fc.range(4, num_partitions=2).count()
    4
    >>> fc.wait_for_listeners()
    >>> fc.history.lines(1)[0].text  # doctest: +ELLIPSIS
    'job ... succeeded after ...'
    """

    def __init__(self, app: AppId | None = None) -> None:
        self._app = app
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._count = 0
        self._changed = threading.Condition()

    def disown(self) -> None:
        """Stay as it is, in a fork of the driver, whose lock a thread may hold that is not here."""
        self._changed = threading.Condition()

    def on_event(self, event: Event) -> None:
        """Take one event; see ``abc.Listener``."""
        if _is_worth_a_line(event) and getattr(event, "app", self._app) == self._app:
            with self._changed:
                self._events.append(event)
                self._count += 1
                self._changed.notify_all()

    def lines(self, most: int = 50) -> list[Line]:
        """The last lines, oldest first."""
        with self._changed:
            events = list(self._events)
        return _worded(events)[-most:]

    def follow(self, most: int = 10, *, until: Callable[[], bool] | None = None) -> Iterator[Line]:
        """The last lines, then each new one as it comes; ends when ``until()`` and all was said, asked twice a second; None: never by itself."""
        with self._changed:
            events, seen = list(self._events), self._count
        yield from _worded(events)[-most:]
        over = False
        while True:
            with self._changed:
                # A limit on each wait lets a KeyboardInterrupt through on every platform.
                self._changed.wait_for(lambda before=seen: self._count > before, 0.0 if over else 0.5)  # type: ignore[misc]
                events = list(self._events)
                new, seen = events[len(events) - min(self._count - seen, len(events)) :], self._count
            yield from _worded(events, new)
            if over and not new:
                return
            over = until is not None and until()

    def __repr__(self) -> str:
        return "\n".join(map(str, self.lines())) or "<nothing happened yet>"


_TOLD: Final = frozenset(
    {
        JobStart,
        JobEnd,
        StageSubmitted,
        StageCompleted,
        ExecutorAdded,
        ExecutorRemoved,
        ShuffleOutputsLost,
        ShuffleOutputsMoved,
        BlocksLost,
        BlocksUpdated,
        SpeculativeTaskSubmitted,
        TaskStuck,
        ExecutorExcluded,
        ExecutorUnexcluded,
        AllocationChanged,
        ExecutorsKept,
        ExecutorsReleased,
        RddUnpersisted,
        ApplicationEnd,
    }
)


def _is_worth_a_line(event: Event) -> bool:
    # Asked of every event, and nearly all are of tasks that go well.
    if isinstance(event, TaskEnd):
        failure = event.failure
        if isinstance(failure, KilledFailure):
            return failure.reason.startswith(_PREEMPTED)
        return failure is not None and not isinstance(failure, CommitDeniedFailure)
    return type(event) in _TOLD


def _worded(events: list[Event], new: list[Event] | None = None) -> list[Line]:
    starts = {event.job: event.time for event in events if isinstance(event, JobStart)}
    released = _released(events)
    lines = []
    for kind, alike in groupby(events if new is None else new, _kind_of_failure):
        if kind is None:
            lines += [Line(event.time, *_in_words(event, starts, released)) for event in alike]
        else:
            lines.append(_failures([event for event in alike if isinstance(event, TaskEnd)], *kind))
    return lines


def _kind_of_failure(event: Event) -> tuple[str, str, StageId] | None:
    """Failures of one kind that come one after the other are one line."""
    if not isinstance(event, TaskEnd) or event.failure is None:
        return None
    return *describe_failure(event.failure), event.stage


def _failures(alike: list[TaskEnd], kind: str, message: str, stage: StageId) -> Line:
    last = alike[-1]
    where = executor_label(last.executor)
    if isinstance(last.failure, KilledFailure):
        if len(alike) == 1:
            told = f"partition {last.partition} of stage {stage} was stopped on executor {where}, and runs again"
        else:
            told = f"{len(alike)} tasks of stage {stage} were stopped, the last on executor {where}, and run again"
        return Line(last.time, f"{told}: {message}")
    if len(alike) == 1:
        counts = "" if last.counted else " (does not count)"
        told = f"partition {last.partition} of stage {stage} failed on executor {where}, try {last.attempt_number + 1}{counts}"
    else:
        partitions = len({each.partition for each in alike})
        of = f"partition {last.partition}" if partitions == 1 else f"{partitions} partitions"
        told = f"{len(alike)} tries of {of} of stage {stage} failed, the last on executor {where}"
    return Line(last.time, f"{told}: {kind}: {message}", bad=True)


def _released(events: list[Event]) -> set[ExecutorId]:
    """Executors that were let go."""
    found: set[ExecutorId] = set()
    for event in events:
        if isinstance(event, ExecutorsReleased):
            found.update(event.executors)
        elif isinstance(event, ExecutorsKept):
            found.difference_update(event.executors)
    return found


def _in_words(event: Event, starts: dict[JobId, float], released: Collection[ExecutorId]) -> tuple[str, bool]:
    match event:
        case JobStart():
            tasks = sum(info.task_count for info in event.stages if info.stage not in event.skipped)
            skipped = f", {len(event.skipped)} skipped" if event.skipped else ""
            stages = counted(len(event.stages), "stage")
            return f"job {event.job} starts: {event.name}; {stages}{skipped}, {counted(tasks, 'task')}", False
        case JobEnd():
            began = starts.get(event.job)
            after = "" if began is None else f" after {format_seconds(event.time - began)}"
            reason = f": {event.reason}" if event.reason else ""
            return f"job {event.job} {event.outcome}{after}{reason}", event.outcome == "failed"
        case StageSubmitted():
            again = f", attempt {event.stage_attempt + 1}" if event.stage_attempt else ""
            return f"stage {event.stage} ({event.name}){again}: {counted(event.task_count, 'task')}", bool(event.stage_attempt)
        case StageCompleted(outcome="cancelled" | "held up"):
            return f"stage {event.stage} ({event.name}) stopped: {event.failure}", event.outcome == "held up"
        case StageCompleted():
            ended = f"failed: {event.failure}" if event.failure else "done"
            return f"stage {event.stage} ({event.name}) {ended}", bool(event.failure)
        case ExecutorAdded():
            return f"executor {executor_label(event.executor)} is there, {counted(event.slots, 'slot')}", False
        case ExecutorRemoved(executor=executor) if executor in released:
            return f"executor {executor_label(executor)} has left", False
        case ExecutorRemoved():
            return f"executor {executor_label(event.executor)} is gone: {event.reason.partition(chr(10))[0]}", True
        case ShuffleOutputsLost():
            return f"lost {counted(len(event.partitions), 'map output')} of stage {event.stage}: {event.reason}", True
        case BlocksLost():
            return f"lost {counted(len(event.blocks), 'cached partition')} of executor {executor_label(event.executor)}", True
        case ShuffleOutputsMoved():
            taker = executor_label(event.executor)
            return f"handed {counted(len(event.partitions), 'map output')} of stage {event.stage} to executor {taker}", False
        case BlocksUpdated():
            where = executor_label(event.executor)
            return f"moved {counted(len(event.blocks), 'cached partition')} of executor {where} to disk", False
        case SpeculativeTaskSubmitted():
            after, taker = format_seconds(event.run_s), executor_label(event.executor)
            what = f"partition {event.partition} of stage {event.stage}"
            return f"{what} still runs after {after}, long after its fellows: tried on executor {taker} too", False
        case TaskStuck():
            where = executor_label(event.executor)
            what = f"partition {event.partition} of stage {event.stage}"
            place = event.stack.strip().splitlines()[-2:]
            told = f"{what} was to stop ({event.reason}) and still runs after {event.after_s:g} s on executor {where}"
            return f"{told}; it is here: {' '.join(line.strip() for line in place)}", True
        case ExecutorExcluded():
            what = "the application" if event.stage is None else f"stage {event.stage}"
            return f"executor {executor_label(event.executor)} gets no tasks of {what} any more: {event.reason}", True
        case ExecutorUnexcluded():
            return f"executor {executor_label(event.executor)} gets tasks again", False
        case AllocationChanged():
            return f"executors wanted: {event.target}, before {event.before}, {event.present} are there: {event.reason}", False
        case ExecutorsReleased():
            names = ", ".join(map(executor_label, event.executors))
            return f"executor{'s' if len(event.executors) > 1 else ''} {names} may leave: {event.reason}", False
        case ExecutorsKept():
            names = ", ".join(map(executor_label, event.executors))
            told = f"executors {names} stay" if len(event.executors) > 1 else f"executor {names} stays"
            return f"{told} after all: {event.reason}", False
        case RddUnpersisted():
            return f"RDD {event.rdd} is unpersisted", False
        case ApplicationEnd():
            return f"the application is over: {event.reason}", False
        case _:
            return type(event).__name__, False
