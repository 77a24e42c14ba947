"""One panel for the jobs of one cell and group: a progress model, an output below the cell, and a face that draws it.

Runs in the kernel: events come on the bus's thread, drawing happens on the session's, the end of a cell on the main one; a lock holds
them apart.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec

from flowkit.context import Context
from flowkit.jobs import GROUP
from flowkit.model.events import Event, ExecutorAdded, JobStart
from flowkit.notebook.cells import CELL, Cell
from flowkit.notebook.faces import Face, static_bundle
from flowkit.notebook.outputs import Output
from flowkit.observe.progress import ProgressModel
from flowkit.observe.snapshot import Snapshot

#: jobs shorter than this, together, show nothing while they run
SHOW_AFTER_S: Final = 0.3
#: between two jobs of a loop a panel goes on to look busy for so long
_BETWEEN_JOBS_S: Final = 1.0


class Panel:
    """The jobs of one cell and job group."""

    def __init__(
        self,
        context: Context,
        cell: Cell,
        group: str,
        output: Output,
        make_face: Callable[[Callable[[], None]], Face],
        description: str = "",
    ) -> None:
        self.cell = cell
        #: not the Context: a panel must not keep it open
        self._jobs = context.jobs
        self._output = output
        self._make_face = make_face
        self._face: Face | None = None
        self._lock = threading.Lock()
        self._model = ProgressModel(": ".join(filter(None, (group, description))), belongs=self._belongs)
        self._group = group
        #: when it heard of a job first, and of anything last, on this process's clock
        self._first_heard_at = self._last_heard_at = 0.0
        self._drawn_version = -1
        self._drawn_state = ""
        #: the static view is in its place
        self.is_over = False

    def __repr__(self) -> str:
        return f"<Panel of {self.cell!r} {self._group!r}>"

    def _belongs(self, job: JobStart) -> bool:
        properties = job.properties
        return properties.get(CELL) == self.cell.token and properties.get(GROUP, "") == self._group

    def reserve(self) -> None:
        """Take the panel's place among the cell's outputs, so that a short job is shown before its result or its error."""
        with self._lock:
            if not self.is_over:
                self._output.reserve()

    def hear(self, event: Event | ExecutorAdded) -> None:
        """Take an event in."""
        with self._lock:
            self._model.on_event(event)
            self._last_heard_at = time.time()
            if isinstance(event, JobStart):
                self._first_heard_at = self._first_heard_at or self._last_heard_at

    def cancel(self, reason: str) -> None:
        """Cancel its jobs. Any thread."""
        with self._lock:
            running = [job.job for job in self._model.snapshot().jobs if not job.ended_at]
        for job in running:
            self._jobs.cancel(job, reason)

    def draw(self, now: float) -> float | None:
        """Draw what is new; when to look again, or None when there is nothing to wait for but events."""
        with self._lock:
            if self.is_over:
                return None
            snapshot = self._shown(now)
            if self._face is None:
                if not self._model.is_running:
                    return None
                if (wait := self._first_heard_at + SHOW_AFTER_S - now) > 0:
                    return wait
                self._face = self._make_face(lambda: self.cancel("cancelled in the notebook"))
                self._output.show(self._face.bundle(snapshot, self._model.timeline, now))
            elif (snapshot.version, snapshot.state) != (self._drawn_version, self._drawn_state):
                replacement = self._face.update(snapshot, self._model.timeline, now)
                if replacement is not None:
                    self._output.show(replacement)
            self._drawn_version, self._drawn_state = snapshot.version, snapshot.state
            if snapshot.state == "running" and not self._model.is_running:
                return _BETWEEN_JOBS_S
            return None

    def _shown(self, now: float) -> Snapshot:
        snapshot = self._model.snapshot()
        between = self.cell.is_running and snapshot.ended_at and now - self._last_heard_at < _BETWEEN_JOBS_S
        return msgspec.structs.replace(snapshot, state="running", ended_at=0.0) if between else snapshot

    def finish(self, now: float) -> bool:
        """Put the static view in its place when all of its jobs are over and its cell too; whether it did, or had."""
        with self._lock:
            if self.is_over:
                return True
            snapshot = self._model.snapshot()
            if self._model.is_running or self.cell.is_running or not snapshot.job_count:
                return False
            self.is_over = True
            if self._face is not None:
                self._face.update(snapshot, self._model.timeline, now)
            self._output.show(static_bundle(snapshot, self._model.timeline, now))
            return True

    def close(self) -> None:
        """It is one of too many: let go of the widget."""
        with self._lock:
            if self._face is not None:
                self._face.close()
                self._face = None
            self.is_over = True
