"""A value that every task may read, sent once a host: in closures and rows only its name travels.

A ``Broadcast`` lives in the driver. In a task there is a handle in its place, which reads the bytes from the host's content store,
fetched from another host at first need, and unpickles them once a process: all handles of one value share it, and when the last of
them is gone, with the last stage that used it, so is the value.
"""

from __future__ import annotations

import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, NoReturn, TypeVar

from flowkit.errors import BroadcastDestroyed, ClosureError, DriverOnly, TaskOnly
from flowkit.execution.content_reading import read_content
from flowkit.execution.sides import driver_only
from flowkit.execution.task_context import TaskContext
from flowkit.lineage import pickling
from flowkit.lineage.closures import find_unpicklable, in_words_of, note_carried
from flowkit.logs import is_ctrl_c
from flowkit.model.advice import Advising, public
from flowkit.model.ids import ContentId
from flowkit.model.job_spec import Content

T = TypeVar("T")

_INSTEAD = "call it there, after the action that reads the value; what a process has in hand goes by itself"


@public("Broadcast")
class Broadcast(Generic[T], metaclass=Advising):
    """A value that tasks read by ``value``. Made by ``Context.broadcast``; immutable, thread-safe.

    Examples
    --------
    >>> names = fc.broadcast({1: "one", 2: "two"})
    >>> fc.parallelize([2, 1]).map(lambda n: names.value[n]).collect()
    ['two', 'one']
    """

    __slots__ = ("__weakref__", "_content", "_destroyed", "_recall", "_value")

    def __init__(self, value: T, content: Content, recall: Callable[[Content], Content]) -> None:
        self._value: T | None = value
        self._content = content
        self._recall = recall
        self._destroyed = False

    @property
    def value(self) -> T:
        """The value; what tasks do to their copies is seen by nobody else on purpose."""
        self._check()
        return self._value  # type: ignore[return-value]

    @property
    def size_bytes(self) -> int:
        """Its size as it travels."""
        return self._content.size_bytes

    def unpersist(self) -> None:
        """Drop the copies on hosts of the cluster; a job that uses it later has it sent again. Idempotent.

        A value that executors have in hand goes with the last stage that uses it.

        Raises
        ------
        errors.DriverOnly
            Inside a task.
        """
        driver_only(f"unpersist() of broadcast {self._content.id[:8]}", _INSTEAD)
        self._check()
        self._content = self._recall(self._content)

    def destroy(self) -> None:
        """Let go of the value everywhere, and refuse to send it to any job from now on. Idempotent.

        Jobs under way that have not read it yet may fail.

        Raises
        ------
        errors.DriverOnly
            Inside a task.
        """
        driver_only(f"destroy() of broadcast {self._content.id[:8]}", _INSTEAD)
        if not self._destroyed:
            self._destroyed = True
            self._value = None
            self._content = self._recall(self._content)

    def _check(self) -> None:
        if self._destroyed:
            raise BroadcastDestroyed(f"broadcast {self._content.id[:8]} was destroyed and cannot be used any more")

    def __reduce__(self) -> tuple[type[TaskBroadcast], tuple[Content]]:
        self._check()
        note_carried(self._content)
        return TaskBroadcast, (self._content,)

    def __repr__(self) -> str:
        state = ", destroyed" if self._destroyed else ""
        return f"<Broadcast {self._content.id[:8]} of {self._content.size_bytes:,} bytes{state}>"


class _Shared:
    """A value in one process, unpickled by whoever needs it first."""

    __slots__ = ("__weakref__", "loaded", "lock", "value")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loaded = False
        self.value: Any = None


_shared: weakref.WeakValueDictionary[ContentId, _Shared] = weakref.WeakValueDictionary()
_sharing = threading.Lock()


class TaskBroadcast:
    """What a broadcast is inside a task."""

    __slots__ = ("_content", "_shared")

    def __init__(self, content: Content) -> None:
        self._content = content
        with _sharing:
            shared = _shared.get(content.id)
            if shared is None:
                shared = _shared[content.id] = _Shared()
        self._shared = shared

    @property
    def value(self) -> Any:
        """The value, one in a process; treat it as read-only."""
        shared = self._shared
        if not shared.loaded:
            # Held over a fetch on purpose: whoever else wants the value waits for the very same bytes.
            with shared.lock:
                if not shared.loaded:
                    shared.value = pickle.loads(self._read())
                    shared.loaded = True
        return shared.value

    @property
    def size_bytes(self) -> int:
        """Its size as it travelled."""
        return self._content.size_bytes

    def unpersist(self) -> NoReturn:
        """Not in a task."""
        self._refuse("unpersist")

    def destroy(self) -> NoReturn:
        """Not in a task."""
        self._refuse("destroy")

    def _refuse(self, call: str) -> NoReturn:
        raise DriverOnly(
            f"{call}() of broadcast {self._content.id[:8]} is for the driver only, by what Context.broadcast returned: {_INSTEAD}",
            name=f"Broadcast.{call}",
        )

    def _read(self) -> bytes:
        if self._content.inline is not None:
            return self._content.inline
        context = TaskContext.get()
        if context is None:
            raise TaskOnly(
                f"broadcast {self._content.id[:8]} was read by what a task returned, or in a thread that a task started; on the driver "
                "use what Context.broadcast returned, in a thread a copy of the task's context (contextvars.copy_context().run)",
                name="Broadcast.value",
            )
        return read_content(context.content_path, self._content.id)

    def __reduce__(self) -> tuple[type[TaskBroadcast], tuple[Content]]:
        return TaskBroadcast, (self._content,)

    def __repr__(self) -> str:
        return f"<Broadcast {self._content.id[:8]} in a task>"


def pickled(value: Any) -> bytes:
    """A value as it travels.

    Raises
    ------
    errors.ClosureError
        It holds something that can't be pickled, such as a Context or an RDD; names the path to it.
    """
    try:
        data: bytes = pickling.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        found = find_unpicklable(value)
        path, reason = ([], error) if found is None else (found[0], found[2])
        raise ClosureError(
            f"the value can't be broadcast: {' -> '.join(path)}: {in_words_of(reason)}", path=" -> ".join(path)
        ) from None
    return data
