"""How long Python's garbage collector held a thread up.

A collection stops every thread but is set off by one; its time is counted there alone, so that sums over tasks are true.
``start`` and ``stop`` pair up, from any thread: the callback is there as long as any executor of the process wants it.
"""

from __future__ import annotations

import gc
import threading
import time


class _Clock(threading.local):
    began = 0.0
    total = 0.0


_clock = _Clock()
_users_lock = threading.Lock()
_users = 0


def start() -> None:
    """Begin to measure."""
    global _users
    with _users_lock:
        _users += 1
        if _users == 1:
            gc.callbacks.append(_on_collection)


def stop() -> None:
    """End what ``start`` began."""
    global _users
    with _users_lock:
        _users -= 1
        if _users == 0:
            gc.callbacks.remove(_on_collection)


def seconds() -> float:
    """What collections set off by this thread took so far."""
    return _clock.total


def _on_collection(phase: str, _info: dict[str, int]) -> None:
    if phase == "start":
        _clock.began = time.perf_counter()
    else:
        _clock.total += time.perf_counter() - _clock.began
