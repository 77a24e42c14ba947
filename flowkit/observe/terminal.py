"""Progress in a terminal: one line per running stage while a job takes longer than a moment, and nothing left of it after.

Runs in the driver: a listener for when jobs begin and end, and one thread that draws from a ``StatusStore``, ten times a second
at most and only while jobs run.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from flowkit.config import Config
from flowkit.model.events import ApplicationEnd, Event, JobEnd, JobStart
from flowkit.observe.metrics import format_count
from flowkit.observe.status import StageStatus, StatusStore

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

logger = logging.getLogger(__name__)

#: jobs shorter than this show nothing: a flash tells nobody anything
_DELAY_S = 0.3
_REFRESH_S = 0.1
#: lines at most; a job of more running stages says how many others there are
_MOST_LINES = 8


def wants_terminal(config: Config, stream: TextIO) -> bool:
    """Whether progress is to be drawn on ``stream``: asked for, or ``auto`` and somebody is there to see it.

    >>> import io
    >>> wants_terminal(Config(progress="auto"), io.StringIO()), wants_terminal(Config(progress="terminal"), io.StringIO())
    (False, True)
    """
    match config.progress:
        case "terminal":
            return True
        case "auto":
            return stream.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}
        case _:
            return False


class TerminalProgress:
    """Draws running stages. Add it to a bus after, and on the same queue as, the store it reads.

    Parameters
    ----------
    store
        What is drawn.
    console
        Where; a ``rich`` console. None: standard error.
    delay_s
        How long a job runs before anything is drawn.
    clock
        Seconds since the epoch, as in the events.
    """

    def __init__(
        self,
        store: StatusStore,
        *,
        console: Console | None = None,
        delay_s: float = _DELAY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._console = console
        self._delay_s = delay_s
        self._clock = clock
        self._changed = threading.Condition()
        self._running_jobs = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def on_event(self, event: Event) -> None:
        """Begin with the first job that runs, end with the last."""
        match event:
            case JobStart():
                with self._changed:
                    self._running_jobs += 1
                    if self._thread is None and not self._closed:
                        self._thread = threading.Thread(target=self._run, name="flowkit progress", daemon=True)
                        self._thread.start()
                    self._changed.notify_all()
            case JobEnd():
                with self._changed:
                    self._running_jobs = max(0, self._running_jobs - 1)
                    self._changed.notify_all()
            case ApplicationEnd():
                with self._changed:
                    self._running_jobs = 0
                    self._changed.notify_all()
            case _:
                pass

    def close(self) -> None:
        """Take the lines away and end. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._running_jobs or self._closed)
                if self._closed:
                    return
                over = self._changed.wait_for(self._is_idle, self._delay_s)
            if over:
                continue
            try:
                self._draw_until_idle()
            except Exception:
                # A terminal that went away, an encoding without blocks: progress is not worth a job.
                logger.warning("progress cannot be drawn and is off from now on", exc_info=True)
                with self._changed:
                    self._closed = True
                return

    def _is_idle(self) -> bool:
        return not self._running_jobs or self._closed

    def _draw_until_idle(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = self._console or Console(stderr=True)
        # Standard streams are left alone: to redirect them would move what a script prints from stdout to stderr.
        with Live(
            self._render(), console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        ) as live:
            while True:
                live.update(self._render(), refresh=True)
                with self._changed:
                    if self._changed.wait_for(self._is_idle, _REFRESH_S):
                        return

    def _render(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now = self._clock()
        stages = self._store.stages(running=True)
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True, max_width=48)
        table.add_column(width=24)
        table.add_column(no_wrap=True)
        for stage in stages[:_MOST_LINES]:
            bar = ProgressBar(total=max(1, stage.task_count), completed=stage.succeeded_count, width=24)
            table.add_row(Text(f"stage {stage.stage}: {stage.name}"), bar, Text(_numbers(stage, now)))
        if len(stages) > _MOST_LINES:
            table.add_row(Text(f"and {len(stages) - _MOST_LINES} more"))
        return table


def _numbers(stage: StageStatus, now: float) -> str:
    parts = [f"{stage.succeeded_count}/{stage.task_count}"]
    if stage.running_count:
        parts.append(f"{stage.running_count} running")
    if stage.failed_count:
        parts.append(f"{stage.failed_count} failed")
    rate = stage.rows_per_second(now)
    if rate:
        parts.append(f"{format_count(rate)} rows/s")
    return "  ".join(parts)
