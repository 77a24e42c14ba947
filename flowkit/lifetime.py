"""What an open Context holds, and when it is given back: when somebody closes it, when nobody refers to it any more, or at the interpreter's end.

Runs on the driver. It must not refer to its Context: then the Context would live as long as the link's threads do.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)


class Closable(Protocol):
    """What a Context holds: its link, a cluster of its own, progress, the bus, the event log."""

    def close(self) -> None:
        """End it. Idempotent."""
        ...


class Lifetime:
    """Closes what it was given, in that order, once.

    Examples
    --------
    >>> closed = []
    >>> class Part:
    ...     def close(self):
    ...         closed.append("part")
    >>> lifetime = Lifetime()
    >>> lifetime.holds(Part())
    >>> lifetime.close(), lifetime.close(), closed
    (True, False, ['part'])
    """

    def __init__(self) -> None:
        self._parts: list[Closable] = []
        self._closing = threading.Lock()
        self._process = os.getpid()
        self._at_exit: Callable[[], None] = lambda: None
        self.is_over = False

    def holds(self, part: Closable) -> None:
        """One more thing to close."""
        self._parts.append(part)

    def ends_with(self, owner: object, at_exit: Callable[[], None] = lambda: None) -> None:
        """Close when nobody refers to ``owner`` any more, and at the interpreter's end, after ``at_exit()``, at the latest."""
        self._at_exit = at_exit
        atexit.register(self._end)
        weakref.finalize(owner, self._abandon).atexit = False

    def close(self) -> bool:
        """Close everything; what fails keeps nothing from being closed, and the first error is raised. False: it was closed before."""
        if os.getpid() != self._process:
            return False  # the fork of a driver shares its connections and owns none of them
        with self._closing:
            if self.is_over:
                return False
            self.is_over = True
        atexit.unregister(self._end)
        with contextlib.ExitStack() as stack:
            for part in reversed(self._parts):
                stack.callback(part.close)
        return True

    def _end(self) -> None:
        """The interpreter ends."""
        if os.getpid() == self._process:
            self._at_exit()
        self.close()

    def _abandon(self) -> None:
        """The owner is gone. Called by the garbage collector, on any thread and in the middle of anything: it takes no lock and waits for nothing."""
        if self.is_over or os.getpid() != self._process:
            return
        # At the interpreter's end no thread starts any more; then ``close`` is called there.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._close_logged, name="flowkit closes an unreferenced Context").start()

    def _close_logged(self) -> None:
        try:
            self.close()
        except Exception:
            logger.warning("a Context that nothing referred to any more did not close well", exc_info=True)
