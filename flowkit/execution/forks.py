"""What a fork of this process is: a process with a copy of every object, none of the threads, and nothing that is its own.

Runs in drivers and executors, in the fork alone, before whoever forked goes on. A fork shares connections, locks of files and half written
files with its parent, so it must end none of them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

logger = logging.getLogger(__name__)

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


os.register_at_fork(after_in_child=_in_fork)
