"""What an executor knows of the stages it was told of: their newest sources, and their programs, unpickled once or for each task.

``Stages`` is written by the event loop's thread; slot threads read, and are the ones that fetch and unpickle.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flowkit.errors import FetchFailed
from flowkit.execution.content_reading import read_content
from flowkit.execution.program_state import has_state
from flowkit.execution.shipped import Place, installing_into
from flowkit.model.faults import FAULTS
from flowkit.model.ids import AppId, ContentId, ExecutorId, HostToken, ShuffleId, StageId
from flowkit.model.job_spec import Content
from flowkit.model.map_status import ShuffleSources
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import FetchFailure, StageDefinition
from flowkit.tracebacks import add_note


class ProgramUnreadable(Exception):
    """A program cannot be unpickled here; ``__cause__`` says why. Another try would fail alike."""


class Program:
    """A stage's program: unpickled once for all tasks, or for each of them where running it could change it. Thread-safe."""

    __slots__ = ("_first", "_is_shared", "_lock", "content")

    def __init__(self, content: Content) -> None:
        self.content = content
        self._lock = threading.Lock()
        #: the first that was unpickled; kept in any case, and with it what all of them share: broadcast values
        self._first: Any = None
        self._is_shared = False

    def load(self, read: Callable[[ContentId], Path], directory: Path, executor: ExecutorId, metrics: TaskMetrics) -> Any:
        """Return a program that nothing was changed in; files that it needs are put below ``directory``.

        A task asks once for each of its partitions. Whoever unpickles it has the time in its metrics.

        Raises
        ------
        FetchFailed
            Its bytes are nowhere to be had.
        ProgramUnreadable
            It needs something that is not there on this executor.
        """
        found = self._shared()
        if found is not None:
            return found
        # Imports run under this lock; a second task of the stage could only wait for the same imports.
        with self._lock:
            if self._first is None:
                found = self._unpickled(read, directory, executor, metrics)
                self._is_shared = not has_state(found)
                self._first = found
                return found
        return self._shared() or self._unpickled(read, directory, executor, metrics)

    def _shared(self) -> Any:
        return self._first if self._is_shared else None

    def _unpickled(self, read: Callable[[ContentId], Path], directory: Path, executor: ExecutorId, metrics: TaskMetrics) -> Any:
        started = time.perf_counter()
        data = self.content.inline
        if data is None:
            data = read_content(read, self.content.id)
        try:
            with installing_into(Place(directory, read)):
                found = pickle.loads(data)
        except FetchFailed:
            raise
        except ModuleNotFoundError as error:
            said = ModuleNotFoundError(
                f"no module named {error.name!r} on executor {executor}, which the job's functions import; "
                "install it in the workers' environment, add it with add_py_file, or define the functions in the driver's "
                "own script",
                name=error.name,
            )
            raise ProgramUnreadable from said
        except BaseException as error:
            add_note(error, f"while unpickling the job's functions on executor {executor}; do driver and workers differ?")
            raise ProgramUnreadable from error
        metrics.deserialise_s += time.perf_counter() - started
        return found


class Stage:
    """One attempt at a stage, as this executor knows it: a program, and the newest sources known of it."""

    __slots__ = ("definition", "local_properties", "program", "sources")

    def __init__(self, definition: StageDefinition, program: Program) -> None:
        self.program = program
        self.update(definition)

    def update(self, definition: StageDefinition) -> None:
        """Take over a newer definition; tasks that ask for sources from now on get its."""
        self.definition = definition
        self.sources: Mapping[ShuffleId, ShuffleSources] = {each.shuffle: each for each in definition.sources}
        #: what its tasks may read of its job's properties; shared by them, and read-only
        self.local_properties: Mapping[str, str] = MappingProxyType(
            {name: value for name, value in definition.properties.items() if name != FAULTS}
        )

    def sources_of(self, shuffle: ShuffleId) -> ShuffleSources:
        """The newest known.

        Raises ``FetchFailed`` when the scheduler left them out, since the cache was to spare the stage reading them: a cached
        partition is gone meanwhile, and the scheduler must be told that they are needed after all.
        """
        sources = self.sources.get(shuffle)
        if sources is None:
            said = f"a cached partition is gone, and where shuffle {shuffle} lies was not told"
            raise FetchFailed(said, failure=FetchFailure(shuffle, None, None, HostToken(""), "missing", said))
        return sources

    def holders_of(self, content: ContentId) -> tuple[tuple[HostToken, str], ...]:
        """Hosts that may have a content, with addresses to ask at."""
        return self.definition.content_holders.get(content, ())


class Stages:
    """All stages this executor was told of and not told to forget."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[AppId, StageId], dict[int, Stage]] = {}

    def define(self, definition: StageDefinition) -> None:
        """A new stage, a new attempt at one, or newer sources; an older version than the known one is ignored."""
        attempts = self._attempts.setdefault((definition.app, definition.stage), {})
        known = attempts.get(definition.stage_attempt)
        if known is not None and definition.version <= known.definition.version:
            return
        if known is not None and known.program.content.id == definition.program.id:
            known.update(definition)
            return
        # Another program reads other sources: who runs the one before keeps its own.
        same = (each.program for each in attempts.values() if each.program.content.id == definition.program.id)
        attempts[definition.stage_attempt] = Stage(definition, next(same, None) or Program(definition.program))

    def get(self, app: AppId, stage: StageId, stage_attempt: int) -> Stage | None:
        """What is known of a stage attempt."""
        attempts = self._attempts.get((app, stage))
        return None if attempts is None else attempts.get(stage_attempt)

    def forget(self, app: AppId, stage: StageId) -> None:
        """Tasks that are already here keep what they need."""
        self._attempts.pop((app, stage), None)

    def forget_application(self, app: AppId) -> None:
        """Forget all its stages."""
        for key in [key for key in self._attempts if key[0] == app]:
            del self._attempts[key]

    def __len__(self) -> int:
        return len(self._attempts)
