"""Values that tasks add to and the driver reads: counts of bad rows, sums beside the result.

An ``Accumulator`` lives in the driver. In a task there is a handle in its place, which adds to a table of the task's own; what the
task added travels with its report, and the scheduler hands it on once a partition and job, whatever was retried or lost.
"""

from __future__ import annotations

import pickle
import threading
import weakref
from collections.abc import Callable
from itertools import count
from typing import Any, Generic, NoReturn, TypeVar

from flowkit.errors import AccumulatorMisused, LimitExceeded
from flowkit.execution.on_driver import OnDriver
from flowkit.execution.sides import is_replayed
from flowkit.execution.task_context import TaskContext, inside_task
from flowkit.lineage import pickling
from flowkit.lineage.call_site import find_call_site
from flowkit.logs import is_ctrl_c, logger_of
from flowkit.model.advice import Advising, public
from flowkit.model.shown import in_words, short
from flowkit.model.task import Accumulated

logger = logger_of(__name__)

T = TypeVar("T")
#: the application and the accumulator's number in it: a handle in another application's job says nothing to that one
Key = tuple[str, int]

#: Pickled updates of one task at most: they pass through the scheduler.
MOST_BYTES = 1 << 20
_SHOWN = 100


@public("Accumulator")
class Accumulator(Generic[T], metaclass=Advising):
    """A value that tasks add to and the driver reads. Made by ``Context.accumulator``; thread-safe.

    In a task, ``add`` and ``+=`` are all there is. An update counts when its task succeeded, exactly once for each partition of a
    stage within a job: not for attempts that failed, were doubled, or whose output was lost and made again. A later job that
    computes the partition again counts it again; so where numbers matter add in actions, or cache.

    Examples
    --------
    >>> bad = fc.accumulator(0, name="bad rows")
    >>> def parse(text):
    ...     if not text.isdigit():
    ...         bad.add(1)
    ...         return []
    ...     return [int(text)]
    >>> fc.parallelize(["1", "x", "2"]).flat_map(parse).sum(), bad.value
    (3, 1)
    """

    __slots__ = ("__weakref__", "_error", "_key", "_lock", "_merge", "_merging", "_value", "name")

    def __init__(self, key: Key, initial: T, name: str, merge: Callable[[T, T], T]) -> None:
        self._key = key
        self._merge = merge
        self._value = initial
        self._error: BaseException | None = None
        # Reentrant: a merge function may look at the value it changes.
        self._lock = threading.RLock()
        self._merging = OnDriver(f"accumulator {name!r}" if name else "accumulator", find_call_site(), merge=merge)
        self.name = name

    @property
    def value(self) -> T:
        """What was added so far, by tasks that ended well, on top of the initial value.

        Raises ``errors.AccumulatorMisused`` when merging an update failed, from then on, and inside a task.
        """
        if inside_task() and not is_replayed():
            _refuse("value", self.name or self._key[1])
        with self._lock:
            if self._error is not None:
                raise AccumulatorMisused(f"an update of {self!r} could not be merged: {in_words(self._error)}") from self._error
            return self._value

    @property
    def number(self) -> int:
        """Which of its application's it is."""
        return self._key[1]

    def add(self, term: T) -> None:
        """Merge a term in: on the driver at once, in a task when that has ended well."""
        if inside_task():  # reached by a global name, in a task that runs in the driver's process
            if not is_replayed():
                TaskAccumulator(self._key, self.name, self._merge).add(term)
            return
        with self._lock, self._merging:
            self._value = self._merge(self._value, term)

    def __iadd__(self, term: T) -> Accumulator[T]:
        self.add(term)
        return self

    def reset(self, value: T) -> None:
        """Begin anew; on the driver only.

        Raises ``errors.AccumulatorMisused`` inside a task.
        """
        if inside_task():
            _refuse("reset()", self.name or self._key[1])
        with self._lock:
            self._value, self._error = value, None

    def _merge_update(self, update: T) -> None:
        with self._lock:
            try:
                with self._merging:
                    self._value = self._merge(self._value, update)
            except BaseException as error:
                # All kinds: on this thread results of all jobs are handed over.
                self._error = error
                if is_ctrl_c(error):
                    raise

    def __reduce__(self) -> tuple[type[TaskAccumulator], tuple[Key, str, Callable[[T, T], T]]]:
        return TaskAccumulator, (self._key, self.name, self._merge)

    def __repr__(self) -> str:
        named = f" {self.name!r}" if self.name else ""
        return f"<Accumulator{named} {short(self._value, 60)}>"


class TaskAccumulator:
    """What an accumulator is inside a task."""

    __slots__ = ("_key", "_merge", "name")

    def __init__(self, key: Key, name: str, merge: Callable[[Any, Any], Any]) -> None:
        self._key = key
        self._merge = merge
        self.name = name

    def add(self, term: Any) -> None:
        """Merge a term into what this task adds."""
        context = TaskContext.get()
        if context is None:
            raise AccumulatorMisused(
                f"accumulator {self.name or self._key[1]} was added to outside of a task's own thread; a thread that a task starts "
                "must run in a copy of its context (contextvars.copy_context().run)"
            )
        added = context.added
        known = added.get(self._key)
        added[self._key] = (self.name, term) if known is None else (self.name, self._merge(known[1], term))

    def __iadd__(self, term: Any) -> TaskAccumulator:
        self.add(term)
        return self

    @property
    def value(self) -> NoReturn:
        """Not in a task."""
        _refuse("value", self.name or self._key[1])

    def reset(self, value: Any) -> NoReturn:
        """Not in a task."""
        _refuse("reset()", self.name or self._key[1])

    def __reduce__(self) -> tuple[type[TaskAccumulator], tuple[Key, str, Callable[[Any, Any], Any]]]:
        return TaskAccumulator, (self._key, self.name, self._merge)

    def __repr__(self) -> str:
        return f"<Accumulator {self.name or self._key[1]} in a task>"


def _refuse(call: str, which: str | int) -> NoReturn:
    raise AccumulatorMisused(
        f"{call} of accumulator {which} can be used on the driver only, by what Context.accumulator returned; a task adds, and sees nobody "
        "else's updates: return what the rest of the task needs, or read it between two actions",
        name=f"Accumulator.{call}",
    )


def packed(context: TaskContext) -> Accumulated | None:
    """What a task added, as it travels; None when that is nothing.

    Raises
    ------
    errors.LimitExceeded
        It is larger than ``MOST_BYTES``.
    """
    if not context.added:
        return None
    data = pickling.dumps_quickly({key: term for key, (_, term) in context.added.items()})
    if len(data) > MOST_BYTES:
        raise LimitExceeded(
            f"one task's updates of accumulators are {len(data):,} bytes, more than {MOST_BYTES:,}; return rows and aggregate them "
            "instead",
            limit=MOST_BYTES,
            actual=len(data),
        )
    return Accumulated(data, {name: short(term, _SHOWN) for name, term in context.added.values() if name})


class Accumulators:
    """Those of one application, in the driver. Thread-safe; an accumulator that nobody holds is forgotten."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._numbers = count()
        self._alive: weakref.WeakValueDictionary[Key, Accumulator[Any]] = weakref.WeakValueDictionary()

    def make(self, initial: T, name: str, merge: Callable[[T, T], T]) -> Accumulator[T]:
        """A new one."""
        if inside_task():
            raise AccumulatorMisused(
                "Context.accumulator() was called inside a task; accumulators are made on the driver", name="Context.accumulator"
            )
        key = (self._app, next(self._numbers))
        made = self._alive[key] = Accumulator(key, initial, name, merge)
        return made

    def take(self, data: bytes) -> None:
        """Merge what a task added."""
        try:
            updates: dict[Key, Any] = pickle.loads(data)
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            logger.exception("a task's updates of accumulators cannot be unpickled here; they are lost")
            return
        for key, update in updates.items():
            accumulator = self._alive.get(key)
            if accumulator is not None:
                accumulator._merge_update(update)

    def __len__(self) -> int:
        return len(self._alive)
