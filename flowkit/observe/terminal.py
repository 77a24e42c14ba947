"""Progress in a terminal: one line per running stage while a job takes longer than a moment; of a job of minutes one line stays.

Runs in the driver: a listener for when jobs begin and end, and one thread that draws from a ``StatusStore``, ten times a second
at most and only while jobs run.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from flowkit.config import Config
from flowkit.logs import logger_of
from flowkit.model.events import ApplicationEnd, Event, JobEnd, JobStart
from flowkit.model.ids import JobId
from flowkit.observe.metrics import counted, format_count, format_seconds
from flowkit.observe.status import StageStatus, StatusStore
from flowkit.visible import in_one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

logger = logger_of(__name__)

#: jobs shorter than this show nothing: a flash tells nobody anything
_DELAY_S = 0.3
_REFRESH_S = 0.1
#: jobs that took so long leave a line
_WORTH_A_LINE_S = 60.0
#: how long a stage runs before it is said what is left
_GUESS_AFTER_S = 2.0
#: lines at most; a job of more running stages says how many others there are
_MOST_LINES = 8


def wants_terminal(config: Config, stream: TextIO | None) -> bool:
    """Whether progress is to be drawn on ``stream``: asked for, or ``auto`` and somebody is there to see it. None: Python was started without it.

    >>> import io
    >>> wants_terminal(Config(progress="auto"), io.StringIO()), wants_terminal(Config(progress="terminal"), io.StringIO())
    (False, True)
    """
    if stream is None:
        return False
    match config.progress:
        case "terminal":
            return True
        case "auto":
            return _is_terminal(stream) and os.environ.get("TERM") not in {"dumb", "unknown"}
        case _:
            return False


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # somebody's own object; closed
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
        self._started: dict[JobId, JobStart] = {}
        #: what is to stay of jobs that have ended
        self._ended: deque[str] = deque()
        self._is_drawn = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def on_event(self, event: Event) -> None:
        """Begin with the first job that runs, end with the last."""
        match event:
            case JobStart():
                with self._changed:
                    self._running_jobs += 1
                    self._started[event.job] = event
                    if self._thread is None and not self._closed:
                        self._thread = threading.Thread(target=self._run, name="flowkit progress", daemon=True)
                        self._thread.start()
                    self._changed.notify_all()
            case JobEnd():
                with self._changed:
                    self._running_jobs = max(0, self._running_jobs - 1)
                    start = self._started.pop(event.job, None)
                    if start is not None and event.time - start.time >= _WORTH_A_LINE_S:
                        self._ended.append(_in_a_line(start, event))
                    self._changed.notify_all()
            case ApplicationEnd():
                with self._changed:
                    self._running_jobs = 0
                    self._started.clear()
                    self._changed.notify_all()
            case _:
                pass

    def settle(self, job: JobId, timeout_s: float = 1.0) -> None:
        """Wait until a job that is over is drawn no more, so that what its caller prints next stands on a line of its own."""
        if self._is_drawn:
            with self._changed:
                self._changed.wait_for(lambda: job not in self._started and (self._running_jobs or not self._is_drawn), timeout_s)

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
            self._is_drawn = True
            try:
                self._draw_until_idle()
            except BaseException:
                # A terminal that went away, an encoding without blocks: progress is not worth a job.
                logger.warning("progress cannot be drawn and is off from now on", exc_info=True)
                with self._changed:
                    self._closed = True
                return
            finally:
                with self._changed:
                    self._is_drawn = False
                    self._changed.notify_all()

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
                self._print_ended(console)
                with self._changed:
                    if self._changed.wait_for(self._is_idle, _REFRESH_S):
                        break
        self._print_ended(console)

    def _print_ended(self, console: Console) -> None:
        while self._ended:
            console.print(self._ended.popleft(), markup=False, highlight=False, soft_wrap=True)

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
            table.add_row(Text(in_one_line(f"stage {stage.stage}: {stage.name}")), bar, Text(_numbers(stage, now)))
        if len(stages) > _MOST_LINES:
            table.add_row(Text(f"and {len(stages) - _MOST_LINES} more"))
        return table


def _in_a_line(start: JobStart, end: JobEnd) -> str:
    stages = [each for each in start.stages if each.stage not in start.skipped]
    told = f"{counted(sum(each.task_count for each in stages), 'task')} in {counted(len(stages), 'stage')}"
    return in_one_line(f"job {end.job} ({start.name}) {end.outcome} after {format_seconds(end.time - start.time)}: {told}")


def _times(stage: StageStatus, now: float) -> str:
    """How long it has run, and has to go by the pace so far.

    >>> _times(StageStatus(0, 0, "map", 8, (), started_at=10.0, succeeded_count=2), 40.0)
    '30.0 s, 1 min 30 s left'
    """
    elapsed = now - stage.started_at
    if not stage.succeeded_count or elapsed < _GUESS_AFTER_S:
        return format_seconds(elapsed)
    left = elapsed / stage.succeeded_count * (stage.task_count - stage.succeeded_count)
    return f"{format_seconds(elapsed)}, {format_seconds(round(left))} left"


def _numbers(stage: StageStatus, now: float) -> str:
    parts = [f"{stage.succeeded_count}/{stage.task_count}", _times(stage, now)]
    if stage.running_count:
        parts.append(f"{stage.running_count} running")
    if stage.failed_count:
        parts.append(f"{stage.failed_count} failed")
    rate = stage.rows_per_second(now)
    if rate:
        parts.append(f"{format_count(rate)} rows/s")
    return "  ".join(parts)
