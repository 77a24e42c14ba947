"""Every error flowkit raises, as one tree; whose fault it is can be read from the type.

Runs everywhere (driver, scheduler, executor); all of it can be pickled both ways, data included.

::

    FlowkitError
    +-- UserError                      what the caller wrote
    |   +-- InvalidArgument            also a ValueError; bad value at the call
    |   |   +-- WrongType              also a TypeError; of a wrong type, in a wrong place or by an unknown name
    |   +-- EmptyRdd                   also a ValueError; nothing to reduce, no first element
    |   +-- UnequalPartitions          also a ValueError; zipped partitions of different lengths
    |   +-- PipedCommandFailed         a program that rows were piped through
    |   +-- ClosureError               also a TypeError; a function that cannot travel, with the path to what it captured
    |   +-- UnstableHash               also a TypeError; a key whose hash differs between processes
    |   +-- DriverOnly                 also a RuntimeError; what only the driver may do, inside a task or a fork
    |   |   +-- NestedAction           an action, an RDD or a Context inside a task
    |   +-- TaskOnly                   also a RuntimeError; what only a task may do, outside of one
    |   +-- StopIterationInTask        also a RuntimeError; a user's StopIteration that would have cut rows off, also on the driver
    |   +-- ResultNotPicklable         also a TypeError; a task's result that cannot travel
    |   +-- AccumulatorMisused         also a RuntimeError; read in a task, or updates that cannot be merged
    |   +-- BroadcastDestroyed         also a RuntimeError
    |   +-- OutputExists               also a FileExistsError
    |   +-- BadInput                   also a ValueError; a file whose content is not what its reader reads
    |   +-- InputChanged               an input file that is not what it was when its partitions were planned
    |   +-- BadRow                     also a TypeError; a row that the format it is saved in cannot hold
    |   +-- InputTooLarge              also a LimitExceeded; a line, record or file that no worker's memory holds
    |   +-- CheckpointDamaged          a file of a checkpoint that cannot be read
    |   +-- CheckpointLost             a partition of a local checkpoint that went with its executor
    |   +-- RowsNotKept                also a TypeError; rows of a local checkpoint that can be neither copied nor pickled
    |   +-- NotReplayable              a failed partition whose inputs cannot be had
    +-- ConfigError                    also a ValueError; found when the configuration is built
    +-- MissingPackage                 an optional package that this call needs
    +-- LimitExceeded                  a stated limit, its setting named
    |   +-- ResultTooLarge
    |   +-- ClosureTooLarge
    |   +-- TooManyPartitions
    |   +-- TooManyJobs
    |   +-- TooManyErrors
    |   +-- DiskQuotaExceeded
    +-- ResourceExhausted              the machine, not the job
    |   +-- DiskFull                   also an OSError
    |   +-- TaskOutOfMemory            also a MemoryError
    |   +-- DataDamaged                what flowkit wrote to a disk reads otherwise
    +-- JobError                       a job that ended without a result
    |   +-- JobFailed                  a task failed for a reason outside user code
    |   +-- JobCancelled               somebody asked for it
    |   +-- JobTimeout                 also a TimeoutError; its time was limited and is over
    |   +-- ExecutorsLost              nobody left to run on, or a task kept losing its executor
    |   +-- ShuffleLost                map output that could not be had again
    +-- ClusterError                   the cluster itself
    |   +-- VersionMismatch            names both sides
    |   +-- ApplicationLost            the scheduler no longer knows this driver
    |   +-- StartupError               the embedded cluster did not come up
    +-- TaskListenersFailed            what the listeners of a task's end raised, together
    +-- TaskKilled                     raised inside a task; never reaches a driver as such
    +-- FetchFailed                    raised inside a task; becomes a resubmission
    +-- CommitDenied                   raised inside a task; not counted as a failure
    +-- InternalError                  our bug: please report, with the story it carries

A user's own exception reaches the driver with its own type, not wrapped in one of these: see ``flowkit.execution.failure``.
"""

from __future__ import annotations

from typing import Any

from flowkit.visible import as_html, visible

_REPORT = "This is a bug in flowkit; please report it with the text above."


class FlowkitError(Exception):
    """The root. ``FlowkitError(message, **data)``: each datum is an attribute and survives pickling.

    Its text tells control characters, which a file's name may have, as ``repr`` does; ``message`` has them as they are.
    """

    def __init__(self, message: str = "", **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data = data

    def __getattr__(self, name: str) -> Any:
        # Only reached when the normal look-up failed; `data` itself may be missing while unpickling.
        data = self.__dict__.get("data", {})
        if name in data:
            return data[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _repr_html_(self) -> str:
        told = (f"<div><b>{type(self).__name__}</b>: {as_html(self.message)}</div>", *map(_faint, getattr(self, "__notes__", ())))
        data = (_faint(f"{name}: {value!r:.200}") for name, value in self.data.items())
        return "".join((*told, *data))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.data), {"__notes__": getattr(self, "__notes__", [])}

    def __str__(self) -> str:
        return visible(self.message)


def _faint(text: object) -> str:
    return f'<div style="color: var(--jp-ui-font-color2, #888)">{as_html(str(text))}</div>'


def _rebuild(cls: type[FlowkitError], message: str, data: dict[str, Any]) -> FlowkitError:
    return cls(message, **data)


class UserError(FlowkitError):
    """What the caller wrote is at fault."""


class InvalidArgument(UserError, ValueError):
    """An argument of a wrong type or outside its range; carries ``name``, ``value`` and ``allowed``."""


class WrongType(InvalidArgument, TypeError):
    """An argument of a wrong type, in a place where none is taken, or by a name that is unknown; data as of ``InvalidArgument``."""


class EmptyRdd(UserError, ValueError):
    """An operation that needs at least one element met none."""


class UnequalPartitions(UserError, ValueError):
    """Partitions that are zipped have different lengths."""


class PipedCommandFailed(UserError):
    """A program that a partition was piped through ended with an ``exit_code`` other than 0."""


class AccumulatorMisused(UserError, RuntimeError):
    """An accumulator was used where or as it cannot be."""


class BroadcastDestroyed(UserError, RuntimeError):
    """A broadcast was used after ``destroy``."""


class ClosureError(UserError, TypeError):
    """A function that cannot be sent to executors; ``path`` leads from it to the culprit (``clean -> client -> socket``)."""


class UnstableHash(UserError, TypeError):
    """A key whose type hashes differently in every process; carries ``key_type``."""


class DriverOnly(UserError, RuntimeError):
    """What only the driver may do was called inside a task, or in a fork of the driver; carries ``name``, what was called."""


class TaskOnly(UserError, RuntimeError):
    """What only a running task may do was called outside of one; carries ``name``, what was called."""


class NestedAction(DriverOnly):
    """A Context or RDD was used inside a task."""


class StopIterationInTask(UserError, RuntimeError):
    """User code let a StopIteration escape, in a task or where results are merged on the driver; carries ``function``.

    Left alone it would silently have cut a partition short, or ended a loop around the action.
    """


class ResultNotPicklable(UserError, TypeError):
    """A task's result cannot be pickled; not retried."""


class OutputExists(UserError, FileExistsError):
    """The output directory is already there; carries ``path``."""


class BadInput(UserError, ValueError):
    """The content of an input file is not what its reader reads; carries ``path`` and, where they are known, ``line`` or ``offset``.

    Not retried: the file would be the same.
    """


class InputChanged(UserError):
    """An input file is not the one its partitions were planned for; carries ``path``, ``planned`` and ``found``.

    Not retried: a task that runs later, be it for a loss, must read the very same file.
    """


class BadRow(UserError, TypeError):
    """A row cannot be saved in this format, or not with the rows before it. Not retried."""


class CheckpointDamaged(UserError):
    """A file of a checkpoint is damaged or gone, and there is no lineage to compute it from; carries ``path``."""


class CheckpointLost(UserError):
    """A partition of a local checkpoint went with its executor; carries ``partition``."""


class RowsNotKept(UserError, TypeError):
    """Rows must be kept, and can be neither copied nor pickled; carries ``rdd`` and ``partition``."""


class NotReplayable(UserError):
    """A failed partition cannot be computed again here: it failed while its inputs were read."""


class ConfigError(FlowkitError, ValueError):
    """A setting that is unknown, out of range or in conflict with another; carries ``setting`` and ``value``."""


class MissingPackage(FlowkitError):
    """A package that is optional is needed now; carries ``package``."""


class LimitExceeded(FlowkitError):
    """A limit was reached; carries ``setting``, ``limit`` and ``actual``."""


class InputTooLarge(UserError, LimitExceeded):
    """A line, record or file needs more memory than its worker has; carries ``path`` and ``offset`` too. Not retried."""


class ResultTooLarge(LimitExceeded):
    """The results of one job add up to more than ``max_result_bytes``."""


class ClosureTooLarge(LimitExceeded):
    """A stage's pickled functions are larger than ``max_closure_bytes``."""


class TooManyPartitions(LimitExceeded):
    """A job with more partitions than ``max_partitions``."""


class TooManyJobs(LimitExceeded):
    """An application has as many jobs, or tasks of jobs, under way as it may."""


class TooManyErrors(LimitExceeded):
    """An operation with ``on_error`` met more errors than its ``max_errors``."""


class DiskQuotaExceeded(LimitExceeded):
    """The application's files on one host are larger than ``max_disk_bytes``."""


class ResourceExhausted(FlowkitError):
    """The machine ran out of something."""


class DiskFull(ResourceExhausted, OSError):
    """No space left where flowkit keeps its files; carries ``path``."""

    # OSError's own __str__ and __reduce__ expect (errno, text); ours win by the order of bases.


class TaskOutOfMemory(ResourceExhausted, MemoryError):
    """A task could not get, or was killed for, memory; carries ``operation``, ``partition`` where known."""


class DataDamaged(ResourceExhausted):
    """What a task wrote to a disk is not what it reads there; carries ``path``. The task is tried again, and makes it anew."""


class JobError(FlowkitError):
    """A job ended without a result; carries ``job``."""


class JobFailed(JobError):
    """A task failed too often for a reason that has no exception of its own at hand, or whose own could not travel.

    ``type_name`` names what was raised. Where that is no ``Exception`` (``SystemExit``, ``KeyboardInterrupt``), ``raised`` is what it was.
    """


class JobCancelled(JobError):
    """The job was cancelled; carries ``reason``."""


class JobTimeout(JobError, TimeoutError):
    """A job was cancelled since the time that ``job(timeout_s=...)`` gave it was over."""


class ExecutorsLost(JobError):
    """No executor is left, or one task kept losing its executor; carries the last reason."""


class ShuffleLost(JobError):
    """A stage was resubmitted for lost map output too many times in a row."""


class ClusterError(FlowkitError):
    """The cluster itself is at fault."""


class VersionMismatch(ClusterError):
    """Two sides speak different versions; carries both and where each is."""


class ApplicationLost(ClusterError):
    """The scheduler restarted, or this driver's lease ran out: its jobs are gone."""


class StartupError(ClusterError):
    """The embedded cluster did not come up."""


class TaskListenersFailed(FlowkitError):
    """Listeners of a task's end raised; carries ``errors``, what each of them raised, in the order of the calls."""


class TaskKilled(FlowkitError):
    """Raised inside a task that is to stop; carries ``reason``."""


class FetchFailed(FlowkitError):
    """Raised inside a task when a map output could not be read; carries ``failure`` (``model.task.FetchFailure``)."""


class CommitDenied(FlowkitError):
    """Raised inside a task whose output another attempt already committed."""


class InternalError(FlowkitError):
    """An invariant of flowkit's own is broken; carries ``story``: what led there."""

    def __str__(self) -> str:
        story = self.data.get("story")
        return visible("\n".join(part for part in (self.message, story, _REPORT) if part))
