"""What a fork of this process is: a process with a copy of every object, none of the threads, and nothing that is its own.

Runs in drivers and executors, in the fork alone, before whoever forked goes on. A fork shares connections, locks of files and half written
files with its parent, so it must end none of them; and it must not run on where flowkit's threads would.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from flowkit.execution.kill import set_async_exception
from flowkit.logs import logger_of

logger = logger_of(__name__)

#: so the names of flowkit's threads begin
_OWN_THREAD: Final = "flowkit"
_OWN_MODULE: Final = "flowkit."
#: whoever forks here ends the fork itself, whatever happens in it
_ENDS_ITS_FORKS: Final = "multiprocessing."

_callbacks: list[Callable[[], None]] = []


def call_in_forks(callback: Callable[[], None]) -> None:
    """Call ``callback()`` in every fork of this process from now on. Any number of calls are as one."""
    if callback not in _callbacks:
        _callbacks.append(callback)


def _in_fork() -> None:
    """What raises here costs its own part: Python would only print it."""
    for callback in _callbacks:
        try:
            callback()
        except Exception:
            logger.exception("a fork of this process could not let go of what is its parent's")
    _end_where_users_code_does(sys._getframe(1))


os.register_at_fork(after_in_child=_in_fork)


def _end_where_users_code_does(forking: FrameType) -> None:
    """Of a fork that a function makes on one of flowkit's threads: end it when that function returns or raises.

    Beyond it are the writers and the queues of an executor. There the fork would write its parent's files, delete them when ``sys.exit()``
    goes by, run the tasks that wait, and in the end wait for ever.
    """
    if not threading.current_thread().name.startswith(_OWN_THREAD) or _module_of(forking).startswith(_ENDS_ITS_FORKS):
        return
    outermost: FrameType | None = forking
    frame: FrameType | None = forking
    while frame is not None and not _module_of(frame).startswith(_OWN_MODULE):
        outermost, frame = frame, frame.f_back
    if frame is None or outermost is None:
        return  # a thread that a task started
    _take_down_the_flag_of_interruptions()
    outermost.f_trace = _FirstEnd().hear
    sys.settrace(_look_at_no_other)


class _Taken(BaseException):
    """Injected into this thread by itself."""


def _take_down_the_flag_of_interruptions() -> None:
    """Do what CPython waits for where another thread was interrupted before the fork: that thread is not here to do it.

    One flag tells all threads that an injected exception waits for one of them, and only its delivery takes it down. While a thread is
    traced, CPython 3.11 looks at the flag before a function's first instruction, again and again until it is down.
    """
    try:
        set_async_exception(threading.get_ident(), _Taken)
        for _ in range(1_000):  # delivered at the first jump back
            pass
    except _Taken:
        pass


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _look_at_no_other(_frame: FrameType, _event: str, _argument: Any) -> None:
    """Tracing is on for the one frame that is left to be watched."""


class _FirstEnd:
    """Waits for the end of one frame; with it the process ends."""

    def __init__(self) -> None:
        #: what goes by right now
        self._error: BaseException | None = None

    def hear(self, frame: FrameType, event: str, argument: Any) -> Any:
        match event:
            case "exception":
                _, error, where = argument
                self._error = None if isinstance(error, StopIteration) else error.with_traceback(where)  # else a loop ends
            case "return":
                _end(self._error, frame)
            case _:
                self._error = None  # it was caught
        return self.hear


def _say(text: object) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - as Python itself does at the end of a process


def _end(error: BaseException | None, frame: FrameType) -> None:
    """End as a script does, but for what is registered at the interpreter's end: that is the parent's."""
    code = 1
    try:
        match error:
            case SystemExit(code=None):
                code = 0
            case SystemExit(code=int(number)):
                code = number & 0xFF
            case SystemExit(code=text):
                _say(text)
            case BaseException():
                traceback.print_exception(error)
            case None:
                where = f"{frame.f_code.co_name} at {os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"  # noqa: PTH119
                _say(
                    f"process {os.getpid()}, a fork that {where} made, returned from it and is ended here: flowkit called that function "
                    "in another process, and only there it goes on. End a fork with os._exit(), or start processes by multiprocessing"
                )
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    finally:
        os._exit(code)
