"""Asks policies, and tells with their names what they did wrong. Runs in the scheduler process inside ``SchedulerCore``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from flowkit.scheduling.task_sets import TaskSet

_T = TypeVar("_T")


def shown(policy: object) -> str:
    """Its repr; its class, should that raise."""
    try:
        return repr(policy)
    except Exception:
        return f"<{type(policy).__qualname__}>"


class PolicyError(Exception):
    """A policy raised, or gave something that makes no sense: ``kind`` says what it is for."""

    def __init__(self, kind: str, policy: object, method: str, what: str) -> None:
        super().__init__(f"the {kind} {shown(policy)}: {method} {what}")


class Fault(Exception):
    """Wraps what was raised where only one stage's jobs can be hit."""

    def __init__(self, task_set: TaskSet, error: Exception) -> None:
        super().__init__(f"stage {task_set.stage} of {task_set.app}")
        self.task_set = task_set
        self.error = error


def asked(kind: str, policy: object, method: str, ask: Callable[[], _T]) -> _T:
    """What a policy answers; what it raises is told with its name."""
    try:
        return ask()
    except Exception as error:
        raise PolicyError(kind, policy, method, f"raised {type(error).__name__}: {error}") from error


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
