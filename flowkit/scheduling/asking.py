"""Asks policies, and tells with their names what they did wrong. Runs in the scheduler process inside ``SchedulerCore``.

The one place of that process where users' code is entered: whatever a policy raises, and whatever its answer does when it is looked at,
becomes a ``PolicyError``. So does a ``KeyboardInterrupt``, since none of the user's reaches an event loop; but whoever drives a core in the
user's own thread, as a simulation does, says so by ``interruptible``, and Ctrl-C stays Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NoReturn, TypeVar

from flowkit.model.shown import in_words, short
from flowkit.tracebacks import is_a

if TYPE_CHECKING:
    from flowkit.scheduling.task_sets import TaskSet

_T = TypeVar("_T")
_is_interruptible: ContextVar[bool] = ContextVar("flowkit_core_is_interruptible", default=False)


@contextmanager
def interruptible() -> Iterator[None]:
    """A ``KeyboardInterrupt`` in a block, wherever it comes from, is the Ctrl-C of who drives the core."""
    token = _is_interruptible.set(True)
    try:
        yield
    finally:
        _is_interruptible.reset(token)


class PolicyError(Exception):
    """A policy raised, or gave something that makes no sense: ``kind`` says what it is for."""

    def __init__(self, kind: str, policy: object, method: str, what: str) -> None:
        super().__init__(f"the {kind} {short(policy)}: {method} {what}")


class Fault(Exception):
    """Wraps what was raised where only one stage's jobs can be hit."""

    def __init__(self, task_set: TaskSet, error: BaseException) -> None:
        super().__init__(f"stage {task_set.stage} of {task_set.app}")
        self.task_set = task_set
        self.error = error


def asked(kind: str, policy: object, method: str, ask: Callable[[], _T], complaint: Callable[[_T], str]) -> _T:
    """What a policy answers, if there is nothing to complain of; what it raises is told with its name.

    ``complaint(answer)`` is empty, or goes on with ``gave <answer>``.
    """
    try:
        found = ask()
        wrong = complaint(found)
    except BaseException as error:
        raised(kind, policy, method, error)
    if wrong:
        raise PolicyError(kind, policy, method, f"gave {short(found)}{wrong}")
    return found


def raised(kind: str, policy: object, method: str, error: BaseException) -> NoReturn:
    """Tell with a policy's name what it raised."""
    if _is_interruptible.get() and is_a(error, KeyboardInterrupt):
        raise error
    raise PolicyError(kind, policy, method, f"raised {in_words(error)}") from error


def is_seconds(value: object, *, below: float | None = None) -> bool:
    """Whether it is a number of seconds: 0 or more, and less than ``below``.

    >>> is_seconds(0.5), is_seconds(-1), is_seconds("1"), is_seconds(float("nan")), is_seconds(float("inf"), below=float("inf"))
    (True, False, False, False, False)
    """
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    return fits and value >= 0 and (below is None or value < below)  # type: ignore[operator]


def is_count(value: object) -> bool:
    """Whether it is a whole number, 0 or more.

    >>> is_count(3), is_count(-1), is_count(1.5), is_count(True)
    (True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
