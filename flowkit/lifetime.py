"""What an open Context holds, and when it is given back: when somebody closes it, when nobody refers to it any more, or at the interpreter's end.

Runs on the driver. It must not refer to its Context: then the Context would live as long as the link's threads do. A fork of the driver
holds nothing: there a Context is over from the start, and nothing is closed.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol, runtime_checkable

from flowkit.errors import StartupError
from flowkit.execution.forks import call_in_forks
from flowkit.logs import logger_of

logger = logger_of(__name__)

#: whoever asks a kernel to end kills it after 5 s
KERNEL_WAIT_S: Final = 4.0
#: of what ``multiprocessing`` calls at a child's end: those of 0 and more before it waits for the child's own children, high ones first
_BEFORE_JOIN: Final = 10


def check_not_ending() -> None:
    """Refuse to begin what needs threads and processes once the interpreter ends: pools take no more work then, and others would wait for them.

    Raises
    ------
    errors.StartupError
        The main thread is over: functions registered with ``atexit`` run, or threads that are waited for.
    """
    if not threading.main_thread().is_alive():
        raise StartupError(
            "the interpreter is ending, and a Context cannot begin any more: its main thread is over. Make the Context before; one that is open "
            "can be used by functions registered with atexit after it was made"
        )


class Closable(Protocol):
    """What a Context holds: its link, a cluster of its own, progress, the bus, the event log."""

    def close(self) -> None:
        """End it. Idempotent."""
        ...


@runtime_checkable
class Disowned(Protocol):
    """What others may meet in a fork of the driver, where it is not closed."""

    def disown(self) -> None:
        """Have no call wait, in a fork, for a thread that is not here or for a lock that it holds for ever."""
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
        #: what needs no end, but is there in forks
        self._met: list[Disowned] = []
        self._closing = threading.Lock()
        #: whose it is
        self.process = os.getpid()
        self._at_exit: Callable[[], None] = lambda: None
        self._at_close: Callable[[], None] = lambda: None
        self.is_over = False
        #: this is a fork of that process
        self.is_elsewhere = False
        _lifetimes.add(self)

    def holds(self, part: Closable) -> None:
        """One more thing to close."""
        self._parts.append(part)

    def is_met(self, *parts: Disowned) -> None:
        """Things that need not be closed, and that forks of this process have copies of."""
        self._met += parts

    def ends_with(self, owner: object, at_exit: Callable[[], None] = lambda: None) -> None:
        """Close when nobody refers to ``owner`` any more, and at the interpreter's end, after ``at_exit()``, at the latest."""
        self._at_exit = at_exit
        atexit.register(self._end)
        self._end_before_join()
        _end_before_kernel(self)
        weakref.finalize(owner, self._abandon).atexit = False

    def close(self) -> bool:
        """Close everything; what fails keeps nothing from being closed, and the first error is raised. False: it was closed before."""
        if os.getpid() != self.process:
            return False
        with self._closing:
            if self.is_over:
                return False
            self.is_over = True
        atexit.unregister(self._end)
        self._at_close()
        # Not by an ExitStack, which looks at errors, and at one that does not let itself be looked at leaves the rest open.
        errors: list[BaseException] = []
        for part in self._parts:
            try:
                part.close()
            except BaseException as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return True

    def disown(self) -> None:
        """Be over, in a fork of the process whose it is. Idempotent; one that was closed before stays just that."""
        if self.is_over:
            return
        self.is_over = self.is_elsewhere = True
        for part in (*self._parts, *self._met):
            if isinstance(part, Disowned):
                part.disown()

    def end_logged(self) -> None:
        """Close at the end of a process that would go on with it if this raised."""
        try:
            self._end()
        except BaseException:
            logger.warning("a Context did not close well at the end of its process", exc_info=True)

    def _end_before_join(self) -> None:
        """End before a process of ``multiprocessing``'s own waits for its children: what is registered with ``atexit`` comes later there, or never."""
        loaded = sys.modules.get("multiprocessing")
        if loaded is None or loaded.parent_process() is None:
            return
        from multiprocessing.util import Finalize

        finalizer = Finalize(None, self.end_logged, exitpriority=_BEFORE_JOIN)
        self._at_close = finalizer.cancel

    def _end(self) -> None:
        """The interpreter ends."""
        if os.getpid() == self.process:
            self._at_exit()
        self.close()

    def _abandon(self) -> None:
        """The owner is gone. Called by the garbage collector, on any thread and in the middle of anything: it takes no lock and waits for nothing."""
        if self.is_over or os.getpid() != self.process:
            return
        # At the interpreter's end no thread starts any more; then ``close`` is called there.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._close_logged, name="flowkit closes an unreferenced Context").start()

    def _close_logged(self) -> None:
        try:
            self.close()
        except BaseException:
            logger.warning("a Context that nothing referred to any more did not close well", exc_info=True)


_lifetimes: weakref.WeakSet[Lifetime] = weakref.WeakSet()
_in_kernel: weakref.WeakSet[Lifetime] = weakref.WeakSet()


def _disown_all() -> None:
    for each in tuple(_lifetimes):
        each.disown()


call_in_forks(_disown_all)


def _end_before_kernel(lifetime: Lifetime) -> None:
    """A notebook's kernel kills its child processes before the interpreter ends, and again those that are started in their place."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel: Any = getattr(shell, "kernel", None)
    if not callable(getattr(kernel, "do_shutdown", None)):
        return
    _in_kernel.add(lifetime)
    if not hasattr(kernel.do_shutdown, "_ends_contexts"):
        kernel.do_shutdown = _ending_first(kernel.do_shutdown)


def _end_all_in_kernel() -> None:
    for each in tuple(_in_kernel):
        each.end_logged()
    # Python's own child process, which worker processes were registered with: it hears no signal, and the kernel would wait for it.
    tracker: Any = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    if hasattr(tracker, "_stop"):
        tracker._stop()


def _ending_first(do_shutdown: Callable[[bool], Any]) -> Callable[[bool], Any]:
    @functools.wraps(do_shutdown)
    def end_and_shut_down(restart: bool) -> Any:
        # A thread of its own: here an event loop runs, and what is closed waits for others.
        closing = threading.Thread(target=_end_all_in_kernel, name="flowkit closes")
        closing.start()
        closing.join(KERNEL_WAIT_S)
        return do_shutdown(restart)

    end_and_shut_down._ends_contexts = True  # type: ignore[attr-defined]
    return end_and_shut_down
