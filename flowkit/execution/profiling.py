"""Where a task's time and memory go: a stopwatch between the operations of a stage, and a look at the task's stack now and then.

The stopwatch runs on the slot thread, at each row that passes from one operation to the next: exact, at some 0.4 us a row and
operation. The looks are taken by one thread an executor process, every few milliseconds as long as a profiled task runs: lines get
what went by since the last look. Memory is what Python's allocators know of (``tracemalloc``), for the process as a whole.
"""

from __future__ import annotations

import sys
import threading
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

from flowkit.execution.blame import is_own_function, where_it_ends
from flowkit.execution.end_markers import function_name
from flowkit.execution.narrow import Stream, at
from flowkit.lineage.kernels import Result, StageProgram
from flowkit.logs import logger_of
from flowkit.model.profile import LinePlace, OperationCost, ProfileData
from flowkit.tracebacks import is_users

logger = logger_of(__name__)

#: between two looks at stacks, and how soon Python is to hand its lock over for one: else looks wait for moments at which the task lets
#: go of the lock by itself, and see those only
_EVERY_S, _SWITCH_S = 0.005, 0.0005
#: frames kept of each allocation, among which the user's is looked for
_TRACED_FRAMES: Final = 6
#: memory is looked at when it has grown by this factor since the last look, and by so much at least
_GROWTH, _LEAST_BYTES = 1.5, 1 << 20
#: lines told of memory
_MOST_LINES: Final = 100


class Profiler:
    """One task's. Made, started and stopped on its thread."""

    def __init__(self, program: StageProgram, *, memory: bool) -> None:
        self.memory = memory
        self.thread = threading.get_ident()
        #: operations in the order in which rows pass them: their names, and what sorts them among those of other stages
        self._places = _names_of(program)
        self._orders = [*((step.rdd, 0) for step in program.steps), (program.steps[-1].rdd, 1)]
        count = len(self._places)
        self._seconds, self._rows = [0.0] * count, [0] * count
        #: what Python's memory grew by while each was at work, and the most it ever was
        self._held, self._most = [0] * count, [0] * count
        #: which is at work, and those that wait for its rows
        self._current, self._waiting = count - 1, list[int]()
        #: what went by while each was at work, as looks saw it, and of that what lines had
        self._seen = [0.0] * count
        self._line_seconds: defaultdict[tuple[int, str, int, str], float] = defaultdict(float)
        self._counts_memory = False
        self._line_bytes: dict[LinePlace, int] = {}
        self._last = 0.0
        self._start_bytes = self._last_bytes = self._looked_bytes = 0

    # -- the stopwatch

    def start(self) -> None:
        """The task begins."""
        _sampler.watch(self)
        if self.memory:
            self._last_bytes = self._start_bytes = tracemalloc.get_traced_memory()[0]
        self._last = time.perf_counter()

    def stop(self) -> ProfileData:
        """The task is over: what it took."""
        self._turn(self._current)
        _sampler.forget(self)
        operations: dict[str, OperationCost] = {}
        for place, label in enumerate(self._places):
            if self._seconds[place]:  # a partition may pass some operations only
                cost = operations.setdefault(label, OperationCost(self._orders[place]))
                cost.rows += self._rows[place]
                cost.seconds += self._seconds[place]
                cost.held_bytes = max(cost.held_bytes, self._most[place])
        measured = sum(self._seconds)  # less what looking at memory took
        # Looks come when Python's lock is free, more often so while a task sleeps or reads. The stopwatch knows what each had in truth.
        lines = {
            LinePlace(self._places[place], file, line, function): seconds * self._seconds[place] / self._seen[place]
            for (place, file, line, function), seconds in self._line_seconds.items()
        }
        return ProfileData(1, measured, operations, lines, self._line_bytes)

    def watched(self, stream: Stream, place: int) -> Stream:
        """The stream that an operation makes, with the time that it takes to make its rows."""
        return Stream(self._timed(stream.closed(), place))

    def _timed(self, rows: Iterator[Any], place: int) -> Iterator[Any]:
        count = 0
        waiting, turn = self._waiting, self._turn
        try:
            while True:
                waiting.append(self._current)
                turn(place)
                try:
                    row = next(rows)
                except StopIteration:
                    return
                finally:
                    turn(waiting.pop())
                count += 1
                yield row
        finally:
            self._rows[place] += count

    def _turn(self, place: int) -> None:
        """What went by was the current operation's; from now on another is at work."""
        now = time.perf_counter()
        self._seconds[self._current] += now - self._last
        if self.memory:
            self._counts_memory = True
            self._count_memory()
            self._counts_memory = False
            now = time.perf_counter()
        self._last = now
        self._current = place

    def _count_memory(self) -> None:
        current, now_bytes = self._current, tracemalloc.get_traced_memory()[0]
        self._held[current] += now_bytes - self._last_bytes
        self._most[current] = max(self._most[current], self._held[current])
        self._last_bytes = now_bytes
        grown = now_bytes - self._start_bytes
        if grown > max(_LEAST_BYTES, _GROWTH * self._looked_bytes):
            self._looked_bytes = grown
            self._line_bytes = _memory_by_line()
            self._last_bytes = tracemalloc.get_traced_memory()[0]

    # -- the looks

    def saw(self, frame: FrameType | None, seconds: float) -> None:
        """The task's stack as it is now, and how long ago it was looked at last. On the sampler's thread."""
        if self._counts_memory:
            return
        place = self._current
        self._seen[place] += seconds
        # Frames outside of this one are those who wait for the rows.
        while frame is not None and frame.f_code is not _BOUNDARY:
            code = frame.f_code
            if is_users(code.co_filename):
                self._line_seconds[place, code.co_filename, frame.f_lineno, _short(code.co_qualname)] += seconds
                return
            frame = frame.f_back


_BOUNDARY: Final = Profiler._timed.__code__


def _names_of(program: StageProgram) -> list[str]:
    """``map(parse) at words.py:3``: several operations may stand on one line, even with one function."""
    names: list[str] = []
    for step in program.steps:
        fn = getattr(step.kernel, "fn", None)
        called = "" if fn is None or is_own_function(fn) else f"({_short(function_name(fn))})"
        name = at(step.operation + called, step.call_site)
        again = sum(each == name or each.startswith(f"{name}, number ") for each in names)
        names.append(f"{name}, number {again + 1}" if again else name)
    end = where_it_ends(program)
    return [*names, end if isinstance(program.output, Result) else f"{end}, before the shuffle"]


def _short(name: str) -> str:
    return name.rpartition("<locals>.")[2]


def _memory_by_line() -> dict[LinePlace, int]:
    """What is in use now, by the user's line that asked for it."""
    found: defaultdict[LinePlace, int] = defaultdict(int)
    for statistic in tracemalloc.take_snapshot().statistics("traceback"):
        frame = next((each for each in reversed(statistic.traceback) if is_users(each.filename)), None)  # the innermost
        if frame is not None:
            found[LinePlace("", frame.filename, frame.lineno, "")] += statistic.size
    return dict(sorted(found.items(), key=lambda each: -each[1])[:_MOST_LINES])


class _Sampler:
    """Looks at the stacks of profiled tasks as long as there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, Profiler] = {}
        self._thread: threading.Thread | None = None
        self._pause = threading.Event()
        self._usual_switch_s = sys.getswitchinterval()
        #: tracing of memory is ours to end
        self._traces = False

    def watch(self, profiler: Profiler) -> None:
        """Look at this one's thread from now on."""
        with self._lock:
            self._watched[profiler.thread] = profiler
            if profiler.memory and not tracemalloc.is_tracing():
                tracemalloc.start(_TRACED_FRAMES)
                self._traces = True
            if self._thread is None:
                self._usual_switch_s = sys.getswitchinterval()
                sys.setswitchinterval(_SWITCH_S)
                self._thread = threading.Thread(target=self._run, name="flowkit profiler", daemon=True)
                self._thread.start()

    def forget(self, profiler: Profiler) -> None:
        """Look at it no more: when this returns, nothing more is added to it."""
        with self._lock:
            self._watched.pop(profiler.thread, None)

    def _run(self) -> None:
        last = time.perf_counter()
        while True:
            self._pause.wait(_EVERY_S)
            with self._lock:
                if not self._watched:
                    self._thread = None
                    sys.setswitchinterval(self._usual_switch_s)
                    if self._traces:
                        tracemalloc.stop()
                        self._traces = False
                    return
                now = time.perf_counter()
                frames = sys._current_frames()
                for thread, profiler in list(self._watched.items()):
                    try:
                        profiler.saw(frames.get(thread), now - last)
                    except BaseException:  # it looks at users' frames
                        logger.exception("%r is profiled no more", profiler)
                        del self._watched[thread]
                last = now
                del frames


_sampler: Final = _Sampler()
