"""What a running task may know of itself, and what it wants to hear when it ends.

Made by the task runner and set for the slot thread while the task runs there; ``TaskContext.get()`` anywhere else is None.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from flowkit.errors import InvalidArgument, TaskListenersFailed, TaskOnly
from flowkit.lineage import pickling
from flowkit.model.advice import Advising, public
from flowkit.model.ids import AppId, AttemptId, ContentId, PartitionIndex, StageId
from flowkit.model.metrics import TaskMetrics
from flowkit.model.shown import text_of

CompletionListener = Callable[["TaskContext"], object]
FailureListener = Callable[["TaskContext", BaseException], object]

_NO_RESOURCES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})

MOST_GATHERED_BYTES: Final = 64 << 10
"""Of one message of ``all_gather``: all of them are in the scheduler's memory at once, and go to every task."""

_current: ContextVar[TaskContext | None] = ContextVar("flowkit_task_context", default=None)


def inside_task() -> bool:
    """Whether the calling code runs in a task, where there is no Context and no action.

    >>> inside_task()
    False
    """
    return _current.get() is not None


#: the application of tasks that are computed once more in the driver, to be looked at
REPLAY: Final = AppId("replay")


@public("TaskContext", internal=("__init__", "mark_completed", "mark_failed", "move_on"))
class TaskContext(metaclass=Advising):
    """What a task knows of itself. ``TaskContext.get()`` inside user code; None on the driver.

    A context can be pickled (with its fields, without its listeners), and unpickling one never makes it anybody's current one.

    Attributes
    ----------
    stage_id, stage_attempt_number
        The stage, and how often it was submitted before (0 the first time).
    partition_id, num_partitions
        Which of how many partitions this task computes.
    attempt_number
        How many attempts at this partition there were before (0 the first time).
    task_attempt_id
        This attempt's id, unique in the cluster.
    local_properties
        What the driver's thread had set when it called the action; read-only.
    metrics
        What the task measured so far.
    cpus, resources
        Slots it occupies, and addresses of other resources it was given.
    """

    __slots__ = (
        "_acquire_commit",
        "_completion_listeners",
        "_content_path",
        "_failure",
        "_failure_listeners",
        "_is_completed",
        "_is_interrupted",
        "_lock",
        "_meet",
        "_scratch_directory",
        "added",
        "app_id",
        "attempt_number",
        "cpus",
        "local_properties",
        "metrics",
        "num_partitions",
        "partition_id",
        "resources",
        "stage_attempt_number",
        "stage_id",
        "task_attempt_id",
    )

    def __init__(
        self,
        *,
        app_id: AppId,
        stage_id: StageId,
        stage_attempt_number: int,
        partition_id: PartitionIndex,
        num_partitions: int,
        attempt_number: int,
        task_attempt_id: AttemptId,
        local_properties: Mapping[str, str],
        metrics: TaskMetrics,
        is_interrupted: Callable[[], bool] = lambda: False,
        acquire_commit: Callable[[], None] | None = None,
        content_path: Callable[[ContentId], Path] | None = None,
        scratch_directory: Callable[[], Path] | None = None,
        meet: Callable[[str, bytes], tuple[bytes, ...]] | None = None,
        cpus: int = 1,
        resources: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.app_id = app_id
        self.stage_id = stage_id
        self.stage_attempt_number = stage_attempt_number
        self.partition_id = partition_id
        self.num_partitions = num_partitions
        self.attempt_number = attempt_number
        self.task_attempt_id = task_attempt_id
        self.local_properties: Mapping[str, str] = MappingProxyType(dict(local_properties))
        self.metrics = metrics
        self.cpus = cpus
        self.resources = MappingProxyType(dict(resources)) if resources else _NO_RESOURCES
        self._meet = meet
        self._is_interrupted = is_interrupted
        self._acquire_commit = acquire_commit
        self._content_path = content_path
        self._scratch_directory = scratch_directory
        # Listeners may be registered from threads the task itself started.
        self._lock = threading.Lock()
        #: by the keys of accumulators: their names, and what this task adds (see ``execution.accumulators``)
        self.added: dict[Any, tuple[str, Any]] = {}
        self._completion_listeners: list[CompletionListener] = []
        self._failure_listeners: list[FailureListener] = []
        self._is_completed = False
        self._failure: BaseException | None = None

    @staticmethod
    def get() -> TaskContext | None:
        """The context of the task that is running in this thread; None outside of tasks.

        >>> TaskContext.get() is None
        True
        """
        return _current.get()

    def is_completed(self) -> bool:
        """Whether the task is over, well or not."""
        return self._is_completed

    def is_failed(self) -> bool:
        """Whether the task failed."""
        return self._failure is not None

    def is_interrupted(self) -> bool:
        """Whether somebody asked the task to stop; long loops of C code do well to look."""
        return self._is_interrupted()

    def get_local_property(self, name: str) -> str | None:
        """A property of the thread that called the action; None when it was not set."""
        return self.local_properties.get(name)

    def acquire_commit(self) -> None:
        """Ask the scheduler whether this attempt may make its output visible to others; waits for the answer.

        Of all attempts at a partition one is allowed to. Raises ``errors.CommitDenied`` in the others, which ends them without
        counting as a failure. For what writes outside of flowkit: call it when all is written, right before the final rename.
        """
        if self._acquire_commit is None:
            raise _not_running("acquire_commit")
        self._acquire_commit()

    def barrier(self) -> None:
        """Wait until all tasks of the stage are here. In stages made with ``rdd.barrier()`` alone.

        All tasks must call it, and ``all_gather``, equally often and in the same order; otherwise the job fails. When one of them fails,
        all run again.

        Raises
        ------
        errors.InvalidArgument
            The stage's tasks do not run at once, so this would wait for ever.
        """
        self._met("barrier", b"")

    def all_gather(self, message: Any = None) -> list[Any]:
        """Send something small to all tasks of the stage and wait for what they send: a list in the order of partitions.

        See ``barrier``. Messages go through the scheduler, which does not look into them: addresses and counts, not data.

        Raises
        ------
        errors.InvalidArgument
            As with ``barrier``, or the message is larger than 64 kB when it is pickled.
        """
        data = pickling.dumps_quickly(message)
        if len(data) > MOST_GATHERED_BYTES:
            raise InvalidArgument(
                f"all_gather: a message of {len(data):,} bytes: must be {MOST_GATHERED_BYTES:,} at most; broadcast or shuffle what is larger",
                name="message",
                value=len(data),
                allowed=f"up to {MOST_GATHERED_BYTES:,} bytes",
            )
        return [pickle.loads(each) for each in self._met("all_gather", data)]

    def _met(self, call: str, data: bytes) -> tuple[bytes, ...]:
        if self._meet is None:
            if self._acquire_commit is None:
                raise _not_running(call)
            raise InvalidArgument(
                f"{call}() waits for the other tasks of the stage, and these need not run at the same time; use "
                "rdd.barrier().map_partitions(...)",
                name=call,
                value=None,
                allowed="in tasks of a barrier stage",
            )
        return self._meet(call, data)

    def content_path(self, content: ContentId) -> Path:
        """The file that holds some content of the application on this host, fetched if need be."""
        if self._content_path is None:
            raise _not_running("content_path")
        return self._content_path(content)

    def scratch_directory(self) -> Path:
        """A directory of this attempt's own on its host, where it may write what nobody else needs: it goes with the attempt.

        It lies where ``local_directory`` says, can be read by this user alone, and goes with the application should the process die.
        """
        if self._scratch_directory is None:
            raise _not_running("scratch_directory")
        return self._scratch_directory()

    # -- listeners

    def add_task_completion_listener(self, listener: CompletionListener) -> TaskContext:
        """Call ``listener(context)`` when the task ends, well or not; at once when it has ended already.

        Listeners run one after the other on the task's thread, the last registered first. All of them run, even if one
        raises; what they raised fails the task.
        """
        with self._lock:
            if not self._is_completed:
                self._completion_listeners.append(listener)
                return self
        listener(self)
        return self

    def add_task_failure_listener(self, listener: FailureListener) -> TaskContext:
        """Call ``listener(context, error)`` when the task fails, before the completion listeners; at once when it has failed.

        Order and errors as with ``add_task_completion_listener``.
        """
        with self._lock:
            error = self._failure
            if error is None:
                self._failure_listeners.append(listener)
                return self
        listener(self, error)
        return self

    def mark_failed(self, error: BaseException) -> None:
        """Call the failure listeners, once. Raises ``TaskListenersFailed`` when any of them raised."""
        with self._lock:
            if self._failure is not None:
                return
            self._failure = error
        _call_all("failure", self._failure_listeners, lambda listener: listener(self, error), error)

    def mark_completed(self) -> None:
        """Call the completion listeners, once.

        Raises ``TaskListenersFailed`` when any of them raised; a task that was well until then has failed by it, and its failure
        listeners are called too.
        """
        with self._lock:
            if self._is_completed:
                return
            self._is_completed = True
        try:
            _call_all("completion", self._completion_listeners, lambda listener: listener(self), self._failure)
        except TaskListenersFailed as error:
            self.mark_failed(error)
            raise

    def move_on(self, partition: PartitionIndex) -> None:
        """The task goes on with another partition: for that of before it is over. For the task runner alone."""
        self.mark_completed()
        with self._lock:
            self._is_completed = False
            self._failure_listeners.clear()  # theirs ended well
        self.partition_id = partition

    # -- pickling

    def __getstate__(self) -> dict[str, Any]:
        return {
            "app_id": self.app_id,
            "stage_id": self.stage_id,
            "stage_attempt_number": self.stage_attempt_number,
            "partition_id": self.partition_id,
            "num_partitions": self.num_partitions,
            "attempt_number": self.attempt_number,
            "task_attempt_id": self.task_attempt_id,
            "local_properties": dict(self.local_properties),
            "metrics": self.metrics,
            "cpus": self.cpus,
            "resources": dict(self.resources),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]
        # Wherever it arrives, the task it speaks of is not running there.
        self._is_completed = True

    def __repr__(self) -> str:
        return (
            f"<TaskContext stage {self.stage_id}.{self.stage_attempt_number} "
            f"partition {self.partition_id}/{self.num_partitions} attempt {self.attempt_number}>"
        )


def set_current(context: TaskContext | None) -> None:
    """Make ``context`` the one of this thread's task; None when the task has left. For the task runner alone."""
    _current.set(context)


def _not_running(call: str) -> TaskOnly:
    return TaskOnly(
        f"TaskContext.{call}() is for the running task itself; this context was returned, sent or kept by one. Ask TaskContext.get() "
        "inside the function that runs in the task",
        name=f"TaskContext.{call}",
    )


def _call_all(kind: str, listeners: list[Any], call: Callable[[Any], object], cause: BaseException | None) -> None:
    """Call and empty the list, last first; one that registers another while it runs has it called next."""
    errors: list[BaseException] = []
    count = 0
    while listeners:
        listener = listeners.pop()
        count += 1
        try:
            call(listener)
        except BaseException as error:
            errors.append(error)
    if errors:
        told = "; ".join(f"{type(error).__name__}: {text_of(error)}" for error in errors)
        message = f"{len(errors)} of {count} task {kind} listeners raised: {told}"
        raise TaskListenersFailed(message, errors=tuple(errors)) from (cause if cause is not None else errors[0])
