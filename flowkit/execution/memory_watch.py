"""Looks at what the process really holds, since budgets are estimates: spills early, halts, and fails one task before the machine does.

Runs on a thread of its own in executors. Private memory is looked at (``resident - shared`` pages): files that are mapped, and memory that
processes share, are nobody's alone.

::

    part of the limit    what happens
    0.65                 cached blocks go (to disk where their level says so); tables are spilled, each once for each raise; what that frees is
                         given back to the system at once
    0.75                 no task is started while another runs
    0.88                 the task with the largest share fails with ``TaskOutOfMemory``, which names operation, partition and large keys
    0.80, 0.95           Dask's: the worker is paused, its nanny kills the process. The last resort
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from types import FrameType
from typing import Any, Final

from flowkit.execution.attempt import Attempt
from flowkit.lineage.call_site import short_call_site
from flowkit.logs import logger_of
from flowkit.model.shown import short
from flowkit.storage.memory.process import private_bytes, trim
from flowkit.storage.memory.task_memory import ExecutorMemory
from flowkit.tracebacks import is_own, is_users

logger = logger_of(__name__)

SPILL, HALT, FAIL = 0.65, 0.75, 0.88
#: between two looks while tasks run, while memory grows fast, and while none runs
_BUSY_S, _SOON_S, _IDLE_S = 0.05, 0.005, 5.0
#: a process that would be here after so many seconds, growing as it does, is too late to be left alone: its nanny looks ten times a second
_LAST, _NANNY_S = 0.93, 0.1
#: with less than this granted to tasks, spilling would not help; estimates may be far too low, which is why anybody looks
_SPILLABLE_BYTES: Final = 1 << 20
#: who can spill is given so long, at the part where a task fails
_SPILLING_S: Final = 0.5
#: growth is measured over this
_GROWTH_S: Final = 0.05
#: pressure is raised again when so much (as a part of the limit) came on top, or after so long
_STEP, _AGAIN_S = 0.03, 1.0
_KEYS_LOOKED_AT, _KEYS_TOLD = 200_000, 3


def _in_a_thread(action: Callable[[], None]) -> None:
    threading.Thread(target=action, name="flowkit memory relief", daemon=True).start()


class MemoryWatch:
    """Compares what the process holds with its limit, and acts.

    Parameters
    ----------
    limit_bytes
        Of the process.
    memory
        The executor's budget: told of pressure, asked to evict.
    running
        Attempts that run now.
    halt
        Called with True when no task is to be started while another runs, and with False when that is over.
    fail
        Called with an attempt that must end, and what to say of it.
    read
        What the process holds.
    aside
        Calls what may take a while, as writing blocks to disk does, while the watch goes on.
    """

    def __init__(
        self,
        limit_bytes: int,
        memory: ExecutorMemory,
        *,
        running: Callable[[], Sequence[Attempt]],
        halt: Callable[[bool], None],
        fail: Callable[[Attempt, str], None],
        read: Callable[[], int] = private_bytes,
        aside: Callable[[Callable[[], None]], None] = _in_a_thread,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit_bytes = limit_bytes
        self._memory = memory
        self._running = running
        self._halt = halt
        self._fail = fail
        self._read = read
        self._aside = aside
        self._is_relieving = False
        self._clock = clock
        self._halted = False
        #: at the last raise: what was held, and when
        self._raised_bytes, self._raised_at = 0, float("-inf")
        #: the attempt that was failed last, until it is gone
        self._failed: Attempt | None = None
        #: since when so much is held that a task must fail; None: less is
        self._full_since: float | None = None
        #: what was held at the last looks, and when; and how fast that grew over them (bytes/s)
        self._seen: deque[tuple[float, int]] = deque()
        self._growth = 0.0
        self._closed = False
        self._woken = threading.Event()
        #: nothing runs, and the next look is far: whoever begins a task says so (``wake``)
        self.idle = False
        self._thread: threading.Thread | None = None

        memory.measure_room_with(self.room_bytes)

    def room_bytes(self) -> int:
        """By how much the process may grow before a task fails for it. Any thread."""
        return int(FAIL * self.limit_bytes) - self._read()

    def start(self) -> None:
        """Look from now on."""
        self._thread = threading.Thread(target=self._run, name="flowkit memory", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more. Idempotent."""
        self._closed = True
        self._woken.set()

    def wake(self) -> None:
        """A task begins."""
        self.idle = False
        self._woken.set()

    def _run(self) -> None:
        while not self._closed:
            # Said before it is looked: whoever begins a task in between sees it, or is seen.
            self.idle = True
            self.idle = not self._running()
            self._woken.wait(self.pause_s())
            self._woken.clear()
            try:
                self.look()
            except BaseException:  # users' memory managers are asked
                logger.exception("memory could not be looked at")

    def pause_s(self) -> float:
        """Until the next look: sooner when memory grows so fast that much would happen until then."""
        if not self._running():
            return _IDLE_S
        if self._growth <= 0:
            return _BUSY_S
        left = FAIL * self.limit_bytes - self._seen[-1][1]
        return min(_BUSY_S, max(_SOON_S, left / self._growth / 4))

    def look(self) -> None:
        """One look, and what follows from it."""
        if self._failed is not None and self._failed not in self._running():
            self._failed = None
            trim()  # what it held is free by now, and the next one is not to pay for it
        held, limit, now = self._read(), self.limit_bytes, self._clock()
        self._note(held, now)
        halted = held >= HALT * limit
        if halted != self._halted:
            self._halted = halted
            self._halt(halted)
        if held < SPILL * limit:
            self._raised_bytes, self._full_since = 0, None
            return
        if held >= self._raised_bytes + _STEP * limit or now >= self._raised_at + _AGAIN_S:
            self._raised_bytes, self._raised_at = held, now
            self._memory.pressure += 1
            if not self._is_relieving:
                self._is_relieving = True
                self._aside(lambda: self._relieve(int(held - SPILL * limit)))
        if self._must_one_fail(held, now) and self._failed is None and (chosen := self._largest()) is not None:
            self._failed = chosen
            self._fail(chosen, self._story(chosen, held))

    def _must_one_fail(self, held: int, now: float) -> bool:
        too_late = held + self._growth * _NANNY_S >= _LAST * self.limit_bytes
        can_spill = sum(self._memory.held_by_task().values()) >= _SPILLABLE_BYTES
        if held < FAIL * self.limit_bytes:
            self._full_since = None
            return self._halted and too_late and not can_spill
        if self._full_since is None:
            self._full_since = now
        return too_late or not can_spill or now >= self._full_since + _SPILLING_S

    def _relieve(self, excess_bytes: int) -> None:
        try:
            self._memory.evict(excess_bytes)
            trim()
        except BaseException:  # blocks are pickled on their way to disk, and users' memory managers told
            logger.exception("cached blocks could not be evicted")
        finally:
            self._is_relieving = False

    def _note(self, held: int, now: float) -> None:
        """How fast it grows: over some time, for a chunk that is unpickled in a moment says nothing."""
        seen = self._seen
        seen.append((now, held))
        while len(seen) > 2 and seen[1][0] <= now - _GROWTH_S:
            seen.popleft()
        elapsed = now - seen[0][0]
        self._growth = max(0.0, (held - seen[0][1]) / elapsed) if elapsed >= _GROWTH_S / 2 else 0.0

    def _largest(self) -> Attempt | None:
        shares = self._memory.held_by_task()
        running = self._running()
        return max(running, key=lambda attempt: (shares.get(attempt.id, 0), -attempt.started_at), default=None)

    def _story(self, attempt: Attempt, held: int) -> str:
        launch = attempt.launch
        granted = self._memory.held_by_task().get(attempt.id, 0)
        where = f"partition {launch.partition} of stage {launch.stage} ({attempt.stage.definition.name})"
        return (
            f"{where} took too much memory: its process holds {_mb(held)} of {_mb(self.limit_bytes)}, {_mb(granted)} of them granted to "
            f"this task{_surely_place(attempt.switch.thread)}; more partitions make tasks smaller, a larger memory_limit makes room"
        )


def _surely_place(thread: int) -> str:
    try:
        return _place(thread)
    except BaseException:  # users' objects are looked at: the task has to end all the same
        return ""


def _place(thread: int) -> str:
    """Where a thread is: the user's line, the operation, the largest lists of a table that is being made."""
    frame: FrameType | None = sys._current_frames().get(thread)
    line = operation = keys = ""
    while frame is not None:
        own = is_own(frame.f_code.co_filename)
        if not line and is_users(frame.f_code.co_filename):
            line = f"{frame.f_code.co_name} at {short_call_site(f'{frame.f_code.co_filename}:{frame.f_lineno}')}"
        if own and not operation:
            local = frame.f_locals
            place, table = local.get("place"), local.get("table")
            operation = place if isinstance(place, str) else ""
            keys = keys or _largest_keys(table)
        frame = frame.f_back
    told = [each for each in (line, operation) if each]
    return (f", which was in {', in '.join(told)}" if told else "") + keys


def _largest_keys(table: Any) -> str:
    if not isinstance(table, dict):
        return ""
    try:
        sizes = [(len(value), key) for key, value in islice(table.items(), _KEYS_LOOKED_AT) if isinstance(value, list)]
    except RuntimeError:  # it grows while it is looked at
        return ""
    largest = sorted(sizes, key=lambda each: -each[0])[:_KEYS_TOLD]
    if not largest or largest[0][0] < 1_000:
        return ""
    return "; keys with most values: " + ", ".join(f"{short(key, 40)} ({count:,})" for count, key in largest)


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / (1 << 20):.0f} MB"
