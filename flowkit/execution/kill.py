"""Stopping a task that runs: a flag, an exception raised inside it from outside, and word of those that heed neither.

``KillSwitch.run`` on the task's slot thread, ``kill`` on any; ``Reaper`` owns one thread, started at the first kill.

Theory of operation
-------------------
CPython can raise an exception *in another thread* (``PyThreadState_SetAsyncExc``), but delivers it whenever that thread
next looks, which may be after the task is over: in the executor's own code, or in the next task. So an exception is only
injected under the switch's lock while the phase is ``USER_CODE``. The first thing done on leaving is to change the phase, by one
plain store at which nothing can be delivered. From then on at most two exceptions can arrive: one that was pending, and one from
a killer who had just looked at the phase. ``run`` has a handler for each, and no loop, whose jump would be a place to deliver at.
Then what is still pending is taken back, under the lock.

An exception may get lost: user code catches it, or it arrives in a ``__del__`` or a callback of the garbage collector, where
Python can only drop it. So whoever kills injects again until the task is gone (``interrupt_again``).

C code that does not return hears none of this. When the grace time is over the reaper tells its owner, who replaces the process.
"""

from __future__ import annotations

import ctypes
import heapq
import itertools
import sys
import threading
import time
import traceback
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import TypeVar

from flowkit.errors import TaskKilled
from flowkit.logs import logger_of

logger = logger_of(__name__)

T = TypeVar("T")


class Interrupted(BaseException):
    """Injected into a task. Not an ``Exception``, so that a user's ``except Exception`` does not keep the task alive."""


class Phase(Enum):
    """Where an attempt is; only ``USER_CODE`` may be interrupted."""

    BEFORE = "before"
    USER_CODE = "user code"
    LEAVING = "leaving"


#: A global, since looking a member up in an enum is a call, and a call is a place to deliver at.
_LEAVING = Phase.LEAVING


def set_async_exception(thread: int, exception: type[BaseException] | None) -> None:
    """Inject an exception into a thread, by its identifier; None takes back one that was not delivered yet."""
    # pythonapi keeps the GIL during the call; None arrives as NULL, which takes a pending exception back.
    target = None if exception is None else ctypes.py_object(exception)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), target)


@cache
def _ignore_dropped_interruptions() -> None:
    """Keep Python from writing a traceback for each exception it dropped; once a process, at its first kill."""
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is not Interrupted:
            before(unraisable)

    sys.unraisablehook = hook


class KillSwitch:
    """One attempt's way of being stopped.

    ``reason`` is None until somebody asked for its end, and never changes after that.
    """

    __slots__ = ("_injections", "_lock", "_phase", "_thread", "reason")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._phase = Phase.BEFORE
        self._injections = 0
        self._thread = 0
        self.reason: str | None = None

    @property
    def interrupted(self) -> bool:
        """Whether an exception was injected: what the task made of it cannot be known, so its result is void."""
        return self._injections > 0

    @property
    def phase(self) -> Phase:
        """Where the attempt is."""
        return self._phase

    @property
    def thread(self) -> int:
        """The thread that runs it, by its identifier; 0 before."""
        return self._thread

    def check(self) -> None:
        """Raise ``TaskKilled`` when the attempt is to stop. Cheap: one attribute read."""
        if self.reason is not None:
            raise TaskKilled(self.reason, reason=self.reason)

    def run(self, body: Callable[[], T]) -> T:
        """Run user code, interruptible from its first to its last instruction and not one further.

        Raises ``TaskKilled`` instead of running when the kill came first; ``Interrupted`` may come out of ``body``.
        """
        try:
            self._enter()
            return body()
        finally:
            # This very store first, no loop, and nothing between the `try`s: see the head of this file.
            self._phase = _LEAVING
            try:
                self._take_back()
            except Interrupted:
                try:
                    self._take_back()
                except Interrupted:
                    self._take_back()

    def kill(self, reason: str) -> bool:
        """Ask for the attempt's end; interrupts it when it is in user code. False when it was asked before.

        Returns at once, from any thread.
        """
        with self._lock:
            if self.reason is not None:
                return False
            self.reason = reason
            self._inject()
            return True

    def interrupt_again(self) -> None:
        """Another exception for code that lost the one before; nothing once the attempt has left user code."""
        with self._lock:
            self._inject()

    def stack(self) -> str:
        """Where the attempt's thread is now, for people."""
        frame = sys._current_frames().get(self._thread)
        return "".join(traceback.format_stack(frame)) if frame is not None else ""

    def _inject(self) -> None:
        if self._phase is Phase.USER_CODE:
            _ignore_dropped_interruptions()
            self._injections += 1
            set_async_exception(self._thread, Interrupted)

    def _enter(self) -> None:
        # A `with` on a C lock lets no exception in between taking the lock and being bound to release it.
        with self._lock:
            self.check()
            self._thread = threading.get_ident()
            self._phase = Phase.USER_CODE

    def _take_back(self) -> None:
        with self._lock:
            if self._injections:
                set_async_exception(threading.get_ident(), None)

    def __repr__(self) -> str:
        return f"<KillSwitch {self._phase.value}{f', killed: {self.reason}' if self.reason is not None else ''}>"


class Reaper:
    """Calls back after given times, on one thread of its own that sleeps until the next is due."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._condition = threading.Condition()
        #: heap of (due on the monotonic clock, order of arrival, what to call)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call ``action`` in ``delay_s`` seconds, unless closed before."""
        with self._condition:
            if self._closed:
                return
            heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._order), action))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._condition.notify()

    def close(self) -> None:
        """Call nothing more; returns when the thread is gone (at once, unless an action is being called)."""
        with self._condition:
            self._closed = True
            self._due.clear()
            self._condition.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._closed and (not self._due or self._due[0][0] > time.monotonic()):
                    self._condition.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._closed:
                    return
                action = heapq.heappop(self._due)[2]
            try:
                action()
            except BaseException:  # it looks at stacks, whose lines come from wherever users' loaders have them
                logger.exception("what was due at %s failed", self._name)
