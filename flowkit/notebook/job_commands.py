"""Commands of ``%flowkit`` about jobs: which there are, what their stages did, an end to them, what happened. Runs in the kernel's main thread."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from flowkit.context import Context
from flowkit.jobs import DESCRIPTION, GROUP
from flowkit.model.ids import JobId
from flowkit.notebook.commands import argument, command, context_of, positive, tell, usage, wait_until
from flowkit.observe.marks import mark_of
from flowkit.observe.metrics import counted, format_bytes, format_count, format_seconds, rows_read, shuffle_read_bytes
from flowkit.observe.status import JobStatus, StageStatus
from flowkit.observe.tables import Table
from flowkit.visible import as_html

#: stages in one table
_MOST_STAGES: Final = 50
#: how long ``cancel`` waits for jobs to be over, before it says that they are about to be
_CANCEL_WAIT_S: Final = 5.0


@command("jobs", argument("-n", type=positive, default=20, help="how many, the newest"))
def jobs(shell: Any, options: argparse.Namespace) -> Any:
    """Jobs, the newest last."""
    found = context_of(shell).status.jobs()
    shown, now = found[-options.n :], time.time()
    rows = [
        (
            each.job,
            each.name,
            each.properties.get(DESCRIPTION, ""),
            each.properties.get(GROUP, ""),
            each.outcome,
            format_seconds((each.ended_at or now) - each.started_at),
            each.reason.partition("\n")[0][:120],
        )
        for each in shown
    ]
    title = counted(len(found), "job") + (f", the last {len(shown)}" if len(shown) < len(found) else "")
    return Table(title, ("job", "name", "description", "group", "state", "time", "reason"), rows).without_empty(2, 3, 6)


@command("job", argument("id", type=int), takes="job")
def job(shell: Any, options: argparse.Namespace) -> Any:
    """One job with its stages."""
    context = context_of(shell)
    found = _job(context, options.id)
    took = format_seconds((found.ended_at or time.time()) - found.started_at)
    rows = [_stage_row(each) for each in context.status.stages_of(found.job)]
    state = f"{found.outcome}{' since' if not found.ended_at else ' after'} {took}"
    return _stage_table(f"job {found.job}: {found.name}, {state}, {counted(len(rows), 'stage')}", rows)


def _job(context: Context, number: int) -> JobStatus:
    found = context.jobs.info(number)
    if found is None:
        raise usage(f"there is no job {number}, or it is forgotten; %flowkit jobs lists them")
    return found


@command("stages", argument("id", nargs="?", type=int, help="one stage only"), takes="stage")
def stages(shell: Any, options: argparse.Namespace) -> Any:
    """Stages: tasks, rows, bytes, seconds."""
    status = context_of(shell).status
    not_run = [each for job in status.jobs()[-_MOST_STAGES:] for each in status.stages_of(job.job) if each.state == "not run"]
    found = sorted((*status.stages(), *not_run), key=lambda each: (each.stage, each.stage_attempt))
    chosen = [each for each in found if options.id is None or each.stage == options.id]
    if options.id is not None and not chosen:
        raise usage(f"there is no stage {options.id}, or it has not run, or it is forgotten; %flowkit stages lists them")
    title = counted(len(chosen), "stage") if options.id is None else f"stage {options.id}"
    shown = chosen[-_MOST_STAGES:]
    more = f", the last {len(shown)}" if len(shown) < len(chosen) else ""
    return _stage_table(f"{title}{more}", [_stage_row(each) for each in shown])


_COLUMNS: Final = ("stage", "name", "state", "tasks", "rows", "in", "shuffle", "spilled", "time", "least", "median", "most")


def _stage_table(title: str, rows: Sequence[Sequence[Any]]) -> Table:
    return Table(title, _COLUMNS, [[*row, *[""] * (len(_COLUMNS) - len(row))] for row in rows]).without_empty(5, 6, 7)


def _stage_row(stage: StageStatus) -> tuple[Any, ...]:
    state = f"{mark_of(stage.state)} {stage.state}"
    if stage.stage_attempt < 0:
        return stage.stage, stage.name, state
    metrics = stage.metrics
    attempt = f" (attempt {stage.stage_attempt + 1})" if stage.stage_attempt else ""
    failed = f", {stage.failed_count} failed" if stage.failed_count else ""
    times = [format_seconds(stage.durations[place]) for place in (0, 2, 4)] if stage.task_ends else ["", "", ""]
    return (
        stage.stage,
        stage.name,
        state + attempt,
        f"{stage.succeeded_count}/{stage.task_count}{failed}",
        format_count(rows_read(metrics)),
        _bytes(metrics.input_bytes + shuffle_read_bytes(metrics)),
        _bytes(metrics.shuffle_write_bytes),
        _bytes(metrics.disk_spilled_bytes),
        format_seconds((stage.ended_at or time.time()) - stage.started_at),
        *times,
    )


def _bytes(size: int) -> str:
    return format_bytes(size) if size else ""


@command(
    "cancel",
    argument("id", nargs="?", type=int),
    argument("--all", action="store_true", help="every job"),
    argument("--group", help="the jobs of a group"),
    takes="job",
)
def cancel(shell: Any, options: argparse.Namespace) -> None:
    """Cancel a job, a group, or all of them."""
    context = context_of(shell)
    if options.all:
        _cancel(context, context.jobs.active, "no job runs")
    elif options.group:
        known = context.jobs.ids_for_group(options.group)
        nothing = f"group {options.group!r} has no job that runs" if known else f"there is no group {options.group!r}"
        _cancel(context, [each for each in known if each in context.jobs.active], nothing)
    elif options.id is not None:
        found = _job(context, options.id)
        over = f"job {found.job} is over: {found.outcome} after {format_seconds(found.ended_at - found.started_at)}"
        _cancel(context, [found.job] if not found.ended_at else [], over)
    else:
        raise usage("which one? %flowkit cancel ID, --group G or --all")


def _cancel(context: Context, chosen: Collection[JobId], nothing: str) -> None:
    if not chosen:
        tell(f"{nothing}; nothing to cancel")
        return
    for each in chosen:
        context.jobs.cancel(each)
    over = wait_until(context, lambda: all(_is_over(context, each) for each in chosen), _CANCEL_WAIT_S)
    one = len(chosen) == 1
    numbers = ", ".join(map(str, sorted(chosen)))
    outcomes = {found.outcome for each in chosen if (found := context.jobs.info(each)) is not None}
    now = f"{'is' if one else 'are'} {' or '.join(sorted(outcomes))}" if over else f"{'was' if one else 'were'} told to stop"
    tell(f"job{'' if one else 's'} {numbers} {now}")


def _is_over(context: Context, number: JobId) -> bool:
    found = context.jobs.info(number)
    return found is None or bool(found.ended_at)


@command(
    "log",
    argument("-n", type=positive, default=50, help="how many lines, the newest"),
    argument("--tail", action="store_true", help="go on with what happens, until no job runs or it is interrupted"),
)
def log(shell: Any, options: argparse.Namespace) -> Any:
    """What happened: jobs, stages, failures, losses, executors."""
    context = context_of(shell)
    if not options.tail:
        return Lines(context.history.lines(options.n))
    told = False

    def is_idle() -> bool:
        nonlocal told
        running = len(context.jobs.active)
        if running and not told:
            told = True
            tell(
                f"{counted(running, 'job')} running; ends with the last of them, or when it is interrupted (the stop button, Ctrl-C)"
            )
        return not running

    with contextlib.suppress(KeyboardInterrupt):
        for line in context.history.follow(options.n, until=is_idle):
            tell(str(line))
        tell("no job runs")
        return None
    tell("interrupted; jobs go on")
    return None


class Lines(list[Any]):
    """Lines that show as text."""

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or "nothing happened yet"

    def _repr_html_(self) -> str:
        return f'<div style="font-family: monospace; white-space: pre-wrap">{"".join(_divisions(self)) or repr(self)}</div>'


def _divisions(lines: Iterable[Any]) -> Iterable[str]:
    for each in lines:
        yield f'<div style="{"color: var(--jp-error-color1, #d32f2f)" if each.bad else ""}">{as_html(str(each))}</div>'
