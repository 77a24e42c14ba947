"""Everything of flowkit's in one shell: cells, panels below them, the thread that draws, magics.

Runs in the kernel. Events of all Contexts come on their buses' threads, the session's own thread draws, ten times a second at most.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from flowkit.context import Context, observe_contexts, unobserve_contexts
from flowkit.jobs import DESCRIPTION, GROUP, add_surroundings, observe_submissions, remove_surroundings, unobserve_submissions
from flowkit.lineage.call_site import name_cells
from flowkit.logs import is_ctrl_c, logger_of
from flowkit.model.events import Event, ExecutorAdded, ExecutorRemoved, JobStart
from flowkit.model.ids import ExecutorId
from flowkit.notebook.cell_names import CellNames
from flowkit.notebook.cells import CELL, QUIET, Cell, Cells
from flowkit.notebook.faces import Face, make_face
from flowkit.notebook.open_contexts import OpenContexts
from flowkit.notebook.outputs import Output, can_publish
from flowkit.notebook.panels import Panel
from flowkit.notebook.tracebacks import ShortTracebacks

logger = logger_of(__name__)

_QUEUE: Final = "notebook"
#: settings of ``progress`` that show nothing below cells
_SILENT: Final = frozenset({"off", "terminal"})
#: between two drawings
_EVERY_S: Final = 0.1
#: cells whose late jobs still find their place, and panels whose widgets are kept
_MOST_CELLS, _MOST_PANELS = 200, 20
#: how long the end of a cell waits for the last events of its jobs
_DRAIN_S: Final = 1.0


class NotebookSession:
    """What ``enable`` turns on, once a shell."""

    _sessions: ClassVar[weakref.WeakKeyDictionary[Any, NotebookSession]] = weakref.WeakKeyDictionary()

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._names = CellNames(shell)
        self.cells = Cells(shell, self._names, self._cell_ended)
        self._tracebacks = ShortTracebacks(shell)
        self._contexts = OpenContexts(shell)
        self._enabled = False
        #: somebody took it back, and so it does not come by itself with the next Context
        self._is_unwanted = False
        self._shows = can_publish(shell)
        self._known_cells: OrderedDict[str, Cell] = OrderedDict()
        self._panels: OrderedDict[tuple[str, str, str], Panel] = OrderedDict()
        #: over, with another in their place; their widgets are kept a while, since a page that was loaded anew has nothing else
        self._past: deque[Panel] = deque()
        self._listeners: list[_Listener] = []
        self._changed = threading.Condition()
        self._dirty = False
        self._thread: threading.Thread | None = None

    @classmethod
    def of(cls, shell: Any) -> NotebookSession:
        """The session of a shell."""
        found = cls._sessions.get(shell)
        if found is None:
            found = cls._sessions[shell] = cls(shell)
        return found

    def enable(self) -> None:
        """Begin. Idempotent."""
        if self._enabled:
            return
        self._enabled, self._is_unwanted = True, False
        from flowkit.notebook.magics import register

        register(self._shell)
        self._tracebacks.attach()
        name_cells(self._names.place)
        self._contexts.attach()
        observe_contexts(Context.keep_last_failure)
        for context in Context.live():
            context.keep_last_failure()
        if not self._shows:
            return
        self.cells.attach()
        add_surroundings(self.cells.properties)
        observe_submissions(self._submitting)
        observe_contexts(self._observe)
        for context in Context.live():
            self._observe(context)

    def enable_unless_unwanted(self) -> None:
        """Begin, but where somebody has taken it back."""
        if not self._is_unwanted:
            self.enable()

    def disable(self) -> None:
        """End. Idempotent."""
        self._is_unwanted = True
        if not self._enabled:
            return
        self._enabled = False
        self._tracebacks.detach()
        name_cells(None)
        self._contexts.detach()
        unobserve_contexts(Context.keep_last_failure)
        if not self._shows:
            return
        unobserve_contexts(self._observe)
        remove_surroundings(self.cells.properties)
        unobserve_submissions(self._submitting)
        self.cells.detach()
        for listener in self._listeners:
            listener.detach()
        self._listeners.clear()
        with self._changed:
            self._changed.notify_all()

    # -- events

    def _observe(self, context: Context) -> None:
        if context.config.progress in _SILENT:
            return
        listener = _Listener(self, context)
        self._listeners = [each for each in self._listeners if each.is_needed]
        self._listeners.append(listener)
        context.add_listener(listener, queue=_QUEUE)

    def _submitting(self, context: Context, properties: Mapping[str, str]) -> None:
        """Reserve the place of the panel of a job that is about to be submitted."""
        if context.config.progress not in _SILENT and (panel := self.panel_for(context, properties)) is not None:
            panel.reserve()

    def panel_for(self, context: Context, properties: Mapping[str, str]) -> Panel | None:
        """The panel of a job, by its properties; None when it belongs to no cell, or is not to be shown."""
        if QUIET in properties:
            return None
        token = properties.get(CELL, "")
        latest = self.cells.latest
        cell = self._known_cells.get(token) or (latest if latest is not None and latest.token == token else None)
        if cell is None:
            return None
        group = properties.get(GROUP, "")
        key = context.app, token, group
        with self._changed:
            self._known_cells[token] = cell
            if len(self._known_cells) > _MOST_CELLS:
                self._known_cells.popitem(last=False)
            panel = self._panels.get(key)
            if panel is None or panel.is_over:
                if panel is not None:  # a job that came late has a panel of its own
                    self._past.append(panel)
                output = Output(self._shell, cell.parent)
                progress = context.config.progress

                def make(cancel: Any) -> Face:
                    return make_face(progress, cancel)

                panel = self._panels[key] = Panel(context, cell, group, output, make, properties.get(DESCRIPTION, ""))
                self._forget_panels()
            return panel

    def _forget_panels(self) -> None:
        idle = [key for key, panel in self._panels.items() if panel.is_over]
        for key in idle[: max(0, len(self._panels) - _MOST_PANELS)]:
            self._panels.pop(key).close()
        while len(self._past) > _MOST_PANELS:
            self._past.popleft().close()

    def wake(self) -> None:
        """There may be something new to draw."""
        with self._changed:
            self._dirty = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="flowkit notebook", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    # -- drawing

    def _run(self) -> None:
        pause: float | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._dirty or not self._enabled, pause)
                if not self._enabled:
                    self._thread = None
                    return
                self._dirty = False
                panels = [panel for panel in self._panels.values() if not panel.is_over]
            pauses = []
            for panel in panels:
                try:
                    wait = panel.draw(time.time())
                    if not panel.cell.is_running:
                        panel.finish(time.time())
                except BaseException:
                    # A front end's trouble must not end the drawing of others, nor a job.
                    logger.warning("%r cannot be drawn", panel, exc_info=True)
                    panel.is_over = True
                else:
                    pauses += [] if wait is None else [wait]
            pause = min(pauses, default=None)
            threading.Event().wait(_EVERY_S)

    def _panels_of(self, cell: Cell) -> list[Panel]:
        with self._changed:
            return [panel for panel in self._panels.values() if panel.cell is cell]

    def _cell_ended(self, cell: Cell, interrupted: bool) -> None:
        """In the main thread, before the cell counts as done: what is over is made static now, so that it is saved with the cell."""
        if interrupted:
            for panel in self._panels_of(cell):
                panel.cancel("the cell was interrupted")
        for listener in self._listeners:
            if listener.is_needed:
                listener.drain(_DRAIN_S)
        # Events may just have made a panel.
        for panel in self._panels_of(cell):
            try:
                panel.finish(time.time())
            except BaseException as error:
                if is_ctrl_c(error):
                    raise
                logger.warning("%r cannot be drawn", panel, exc_info=True)
                panel.is_over = True


class _Listener:
    """Hands one Context's events to its panels."""

    def __init__(self, session: NotebookSession, context: Context) -> None:
        self._session = session
        self._context = weakref.ref(context)
        self._panels: list[Panel] = []
        self._executors: dict[ExecutorId, ExecutorAdded] = {
            each.executor: ExecutorAdded(time=each.added_at, executor=each.executor, host=each.host, slots=each.slots)
            for each in context.status.executors()
            if not each.removed_at
        }

    @property
    def is_needed(self) -> bool:
        """Whether its Context is there, and open."""
        return self._context() in Context.live()

    def detach(self) -> None:
        """Listen no more."""
        context = self._context()
        if context is not None:
            context.remove_listener(self)

    def drain(self, timeout_s: float) -> None:
        """Wait until all events so far were heard; not for ever."""
        context = self._context()
        if context is not None:
            with contextlib.suppress(TimeoutError):
                context.wait_for_listeners(timeout_s, queue=_QUEUE)

    def on_event(self, event: Event) -> None:
        """One event; see ``abc.Listener``."""
        match event:
            case ExecutorAdded():
                self._executors[event.executor] = event
            case ExecutorRemoved():
                self._executors.pop(event.executor, None)
            case JobStart():
                context = self._context()
                panel = None if context is None else self._session.panel_for(context, event.properties)
                if panel is not None and panel not in self._panels:
                    for added in self._executors.values():
                        panel.hear(added)
                    self._panels.append(panel)
        self._panels = [panel for panel in self._panels if not panel.is_over]
        for panel in self._panels:
            panel.hear(event)
        if self._panels:
            self._session.wake()
