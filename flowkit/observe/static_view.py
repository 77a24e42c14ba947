"""A snapshot as HTML and SVG that need nothing else: no script, no style sheet, no server. What stays in a saved notebook.

Pure. Colours are those of the page around where it has them (JupyterLab's variables), with fall-backs. Every text of the user's is
escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from flowkit.observe.marks import in_words, mark_of
from flowkit.observe.metrics import format_bytes, format_count, format_seconds
from flowkit.observe.snapshot import ClusterChange, ExecutorView, Snapshot, StageView
from flowkit.observe.timeline import Block
from flowkit.observe.troubles import Trouble, can_be_replayed, troubles
from flowkit.visible import as_html, in_one_line

#: a job shorter than this, without failures, is one line
SHORT_S: Final = 1.0
_MOST_STAGES, _MOST_BOXES, _MOST_LANES, _MOST_RECTANGLES = 60, 40, 24, 1_200

_TEXT: Final = "var(--jp-ui-font-color1, currentColor)"
_FAINT: Final = "var(--jp-ui-font-color2, #888)"
_LINE: Final = "var(--jp-border-color2, rgba(128,128,128,.4))"
_BACK: Final = "var(--jp-layout-color2, rgba(128,128,128,.12))"
_OK: Final = "var(--jp-success-color1, #388e3c)"
_BAD: Final = "var(--jp-error-color1, #d32f2f)"
_WARN: Final = "var(--jp-warn-color1, #b26a00)"
_RUN: Final = "var(--jp-brand-color1, #1976d2)"
#: of stages in the timeline, the same as in extensions/view/src/model.js
_COLOURS: Final = ("#4285c9", "#e08a32", "#4a9e5c", "#9166b8", "#c25b8f", "#3f9fa3", "#a3872f", "#7a6a5d")


def render_line(snapshot: Snapshot, now: float = 0.0) -> str:
    """A snapshot as one line of text. ``now``: seconds since the epoch, for what still runs.

    >>> from flowkit.observe.progress import ProgressModel
    >>> render_line(ProgressModel("cell 3").snapshot())
    '○ cell 3: no job yet'
    """
    return in_one_line(f"{mark_of(snapshot.state)} {_headline(snapshot)}{_numbers(snapshot, now)}")


def render_static(snapshot: Snapshot, blocks: Sequence[Block] = (), now: float = 0.0) -> str:
    """A snapshot and its timeline as HTML."""
    wrong = "".join(map(_trouble, troubles(snapshot)[-5:]))
    if can_be_replayed(snapshot):
        wrong += (
            f'<div style="color: {_FAINT}">%flowkit replay runs the partition that failed here, in a debugger at your line</div>'
        )
    head = (
        f"<div><b>{mark_of(snapshot.state)} {as_html(_headline(snapshot))}</b>"
        f'<span style="color: {_FAINT}">{as_html(_numbers(snapshot, now))}</span></div>'
    )
    notes = f'<div style="color: {_BAD}">{format_count(snapshot.dropped_events)} events missed: numbers are too low</div>'
    head += notes if snapshot.dropped_events else ""
    if snapshot.state == "succeeded" and not wrong and snapshot.ended_at - snapshot.started_at < SHORT_S:
        return f'<div style="color: {_TEXT}">{head}</div>'
    parts = [head, _bar(snapshot), wrong, _stage_table(snapshot.stages, now)]
    parts += [
        _folded("graph", _graph(snapshot.stages)),
        _folded("timeline", _timeline(blocks, snapshot.executors, snapshot.changes)),
        _folded("executors", _executor_table(snapshot.executors)),
    ]
    parts += [
        f'<div style="border-left: 3px solid {_WARN}; padding-left: 8px; margin: 4px 0"><b>{as_html(hint.text)}</b>: '
        f"{as_html(hint.change)}</div>"
        for hint in snapshot.hints
    ]
    parts += [
        f'<div style="color: {_FAINT}">after {format_seconds(each.at - snapshot.started_at)}: {each.before} → {each.target} executors, '
        f"{as_html(each.reason)}</div>"
        for each in snapshot.changes[-5:]
    ]
    return (
        f'<div style="color: {_TEXT}; border: 1px solid {_LINE}; border-radius: 4px; padding: 6px 10px; max-width: 1100px; '
        f'overflow-x: auto">{"".join(parts)}</div>'
    )


def _headline(snapshot: Snapshot) -> str:
    if not snapshot.job_count:
        jobs = "no job yet"
    elif snapshot.job_count == 1:
        jobs = snapshot.jobs[-1].name
    else:
        jobs = f"{format_count(snapshot.job_count)} jobs"
    return f"{snapshot.title}: {jobs}" if snapshot.title else jobs


def _numbers(snapshot: Snapshot, now: float) -> str:
    if not snapshot.job_count:
        return ""
    state = in_words(snapshot.state) + _why(snapshot)
    parts = [state, f"{format_count(snapshot.tasks_done)}/{format_count(snapshot.task_count)} tasks"]
    stages = snapshot.stages
    for word, count in (
        ("running", sum(stage.running for stage in stages)),
        ("failed", sum(stage.failed for stage in stages)),
        ("computed again", sum(stage.recomputed for stage in stages)),
        ("errors skipped", snapshot.skipped_count),
    ):
        if count:
            parts.append(f"{format_count(count)} {word}")
    elapsed = (snapshot.ended_at or now) - snapshot.started_at
    if elapsed > 0:
        parts.append(format_seconds(elapsed))
    for word, size in (
        ("shuffled", sum(stage.shuffle_write_bytes for stage in stages)),
        ("spilled", sum(stage.spilled_bytes for stage in stages)),
    ):
        if size:
            parts.append(f"{format_bytes(size)} {word}")
    return " · " + " · ".join(parts)


def _why(snapshot: Snapshot) -> str:
    """Why it was cancelled, where that is so: of the last job that was."""
    reasons = [job.reason for job in snapshot.jobs if job.state == "cancelled" and job.reason]
    return f" ({reasons[-1]})" if snapshot.state == "cancelled" and reasons else ""


def _bar(snapshot: Snapshot) -> str:
    colour = {"succeeded": _OK, "failed": _BAD, "cancelled": _FAINT}.get(snapshot.state, _RUN)
    return _filled(snapshot.tasks_done / max(1, snapshot.task_count), colour, "100%", 8)


def _filled(part: float, colour: str, width: str, height: int) -> str:
    return (
        f'<div style="width: {width}; height: {height}px; background: {_BACK}; border-radius: 4px; overflow: hidden; margin: 4px 0">'
        f'<div style="width: {100 * part:.1f}%; height: 100%; background: {colour}"></div></div>'
    )


def _trouble(trouble: Trouble) -> str:
    mark, colour = ("✘", _BAD) if trouble.bad else ("⚠", _WARN)
    return f'<div style="color: {colour}; white-space: pre-wrap; overflow-wrap: anywhere">{mark} {as_html(trouble.text)}</div>'


def _folded(name: str, content: str) -> str:
    return f"<details><summary>{name}</summary>{content}</details>" if content else ""


# -- stages --------------------------------------------------------------------------------------------------------------


def _drawing(label: str, width: int, height: int, letters: int, content: str) -> str:
    """A drawing that shrinks as a whole where there is less room."""
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {width} {height}" width="{width}" font-size="{letters}" '
        f'style="display: block; max-width: 100%; height: auto">{content}</svg>'
    )


class _Column(NamedTuple):
    name: str
    side: str
    #: of a stage: HTML, empty where there is nothing to tell
    cell: Callable[[StageView, float], str]
    #: whether its text goes into several lines where there is little room
    wraps: bool = False


def _stage_table(stages: Sequence[StageView], now: float) -> str:
    told = sorted(stages, key=lambda stage: stage.stage)[-_MOST_STAGES:]
    columns = [
        column for number, column in enumerate(_COLUMNS) if number < _ALWAYS or any(column.cell(stage, now) for stage in told)
    ]
    rows = [(as_html("\n".join(stage.operations)), [column.cell(stage, now) for column in columns]) for stage in told]
    left_out = f"<div>and {len(stages) - len(told)} stages before them</div>" if len(told) < len(stages) else ""
    return _table([(column.name, column.side, column.wraps) for column in columns], rows) + left_out


def _table(columns: Sequence[tuple[str, str, bool]], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Columns as (name, side, whether it wraps), rows as (what to show when pointed at, cells of HTML)."""
    styles = [
        f"text-align: {side}; white-space: {'normal' if wraps else 'nowrap'}; padding: 1px 8px 1px 0"
        for _, side, wraps in columns
    ]
    head = "".join(
        f'<th style="{style}; color: {_FAINT}">{name}</th>' for style, (name, _, _) in zip(styles, columns, strict=True)
    )
    body = "".join(
        f'<tr title="{hint}">'
        + "".join(f'<td style="{style}">{cell}</td>' for style, cell in zip(styles, cells, strict=True))
        + "</tr>"
        for hint, cells in rows
    )
    style = "table-layout: auto; border-collapse: collapse; font-size: 12px; margin: 0"
    return f'<table style="{style}"><tr>{head}</tr>{body}</table>'


def _name_cell(stage: StageView, _now: float) -> str:
    mark = f'<span style="color: {_COLOURS[stage.stage % len(_COLOURS)]}">&#9612;</span>'
    return f"{mark} {mark_of(stage.state)} {as_html(_title(stage))}"


def _bar_cell(stage: StageView, _now: float) -> str:
    colour = {"failed": _BAD, "done": _OK, "skipped": _FAINT, "cancelled": _FAINT}.get(stage.state, _RUN)
    return _filled(_part_done(stage), colour, "60px", 8)


def _part_done(stage: StageView) -> float:
    return 1.0 if stage.state == "skipped" else stage.done / max(1, stage.task_count)


def _tasks_cell(stage: StageView, _now: float) -> str:
    if stage.state in {"skipped", "not run"}:
        return f'<span title="{in_words(stage.state)}">{stage.state}</span>'
    return f"{stage.done}/{stage.task_count}" + (f" ✘{stage.failed}" if stage.failed else "")


def _times_cell(stage: StageView, _now: float) -> str:
    if not stage.done:
        return ""
    least, _, median, _, most = map(format_seconds, stage.durations)
    where = as_html(f"most: partition {stage.slowest_partition} on {stage.slowest_executor}")
    times = f"{least} / {median} / {most}"
    together = f'<span style="display: inline-block; white-space: nowrap">{times}</span>'
    return f'<span title="{where}">{_spread(stage.durations)} {together}</span>'


def _spread(durations: Sequence[float]) -> str:
    """Task times: least to most as a line, quartiles as a box, the median as a mark; as the front end draws them."""
    wide = 84
    least, lower, median, upper, most = (2 + each * (wide - 4) / durations[4] if durations[4] else 2.0 for each in durations)
    line = f"M{least:.1f} 6H{most:.1f}M{least:.1f} 3V9M{most:.1f} 3V9"
    return (
        f'<svg role="img" aria-label="least, median and most task time" width="{wide}" height="12" '
        'style="max-width: none; vertical-align: middle">'
        f'<path d="{line}" style="fill: none; stroke: {_FAINT}"/>'
        f'<rect x="{lower:.1f}" y="2" width="{max(1.0, upper - lower):.1f}" height="8" style="fill: none; stroke: {_FAINT}"/>'
        f'<rect x="{median - 1:.1f}" y="1" width="2" height="10" style="fill: {_RUN}"/></svg>'
    )


def _size_cell(size: Callable[[StageView], int]) -> Callable[[StageView, float], str]:
    def cell(stage: StageView, _now: float) -> str:
        return format_bytes(size(stage)) if size(stage) else ""

    return cell


def _time_cell(stage: StageView, now: float) -> str:
    elapsed = (stage.ended_at or now) - stage.started_at if stage.started_at else 0.0
    return format_seconds(elapsed) if elapsed > 0 else ""


#: the first of them are there always, others where a stage has something to tell
_ALWAYS: Final = 3
_COLUMNS: Final = (
    _Column("stage", "left", _name_cell, wraps=True),
    _Column("", "left", _bar_cell),
    _Column("tasks", "right", _tasks_cell),
    _Column("time", "right", _time_cell),
    _Column("task times: least / median / most", "left", _times_cell, wraps=True),
    _Column("rows", "right", lambda stage, _: format_count(stage.rows) if stage.rows else ""),
    _Column("read", "right", _size_cell(lambda stage: stage.input_bytes + stage.shuffle_read_bytes)),
    _Column("shuffled", "right", _size_cell(lambda stage: stage.shuffle_write_bytes)),
    _Column("spilled", "right", _size_cell(lambda stage: stage.spilled_bytes)),
)


def _executor_table(executors: Sequence[ExecutorView]) -> str:
    if not executors:
        return ""
    sides = {"executor": "left", "": "left", "slots": "right", "tasks done": "right", "failed": "right"}
    columns = [(name, side, False) for name, side in sides.items()]
    rows = [
        ("", (as_html(each.label), as_html(_whereabouts(each)), str(each.slots), str(each.done), str(each.failed)))
        for each in executors[:_MOST_LANES]
    ]
    left_out = f"<div>and {len(executors) - len(rows)} more</div>" if len(rows) < len(executors) else ""
    return _table(columns, rows) + left_out


def _whereabouts(executor: ExecutorView) -> str:
    if not executor.removed_at:
        return ""
    return "has left" if executor.released else "gone"


#: of boxes: their heights and distances, their least and most width, and that of a letter; the same in extensions/view/src/dag.js
_HIGH, _ACROSS, _DOWN, _EDGE = 46, 76, 12, 6
_LEAST_WIDE, _MOST_WIDE, _LETTER = 120, 340, 6.3


def _graph(stages: Sequence[StageView]) -> str:
    """Parents left of those that read them."""
    if not 1 < len(stages) <= _MOST_BOXES:
        return ""
    columns: list[list[StageView]] = []
    depths: dict[int, int] = {}
    for stage in sorted(stages, key=lambda each: each.stage):
        depth = depths[stage.stage] = 1 + max((depths[each] for each in stage.parents if each in depths), default=-1)
        columns += [[]] if depth == len(columns) else []
        columns[depth].append(stage)
    #: of each stage: left, top, width
    places: dict[int, tuple[int, int, int]] = {}
    left = _EDGE
    for column in columns:
        wide = min(_MOST_WIDE, max(_LEAST_WIDE, *(int(18 + _LETTER * len(_title(each))) for each in column)))
        for row, stage in enumerate(column):
            places[stage.stage] = left, _EDGE + row * (_HIGH + _DOWN), wide
        left += wide + _ACROSS
    width = left - _ACROSS + _EDGE
    height = max(top for _, top, _ in places.values()) + _HIGH + _EDGE
    known = {stage.stage: stage for stage in stages}
    edges = "".join(
        _edge(places[parent], places[stage.stage], known[parent].shuffle_write_bytes)
        for stage in stages
        for parent in stage.parents
        if parent in places
    )
    boxes = "".join(_box(stage, *places[stage.stage]) for stage in stages)
    return _drawing(f"{len(stages)} stages", width, height, 11, edges + boxes)


def _title(stage: StageView) -> str:
    return f"{stage.stage}: {stage.name}"


def _edge(start: tuple[int, int, int], end: tuple[int, int, int], size: int) -> str:
    x1, y1, x2, y2 = start[0] + start[2], start[1] + _HIGH / 2, end[0], end[1] + _HIGH / 2
    bend = (x2 - x1) / 2
    path = f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}M{x2 - 6} {y2 - 4}L{x2} {y2}L{x2 - 6} {y2 + 4}"
    text = f'<text x="{x1 + 6}" y="{y1 - 5}" style="fill: {_FAINT}">{format_bytes(size)}</text>' if size else ""
    return f'<path d="{path}" style="fill: none; stroke: {_LINE}"/>{text}'


def _box(stage: StageView, x: int, y: int, wide: int) -> str:
    fits = int((wide - 16) / _LETTER)
    tasks = in_words(stage.state) if stage.state in {"skipped", "not run"} else f"{stage.done}/{stage.task_count} tasks"
    colours = {"failed": _BAD, "done": _OK, "skipped": _FAINT, "cancelled": _FAINT}
    edge = _BAD if stage.state == "failed" else _LINE
    return (
        f'<g transform="translate({x} {y})"><rect width="{wide}" height="{_HIGH}" rx="4" style="fill: {_BACK}; stroke: {edge}"/>'
        f'<rect width="{wide * _part_done(stage):.0f}" height="{_HIGH}" rx="4" '
        f'style="fill: {colours.get(stage.state, _RUN)}; opacity: .3"/>'
        f'<text x="8" y="19" font-weight="600" style="fill: {_TEXT}">{as_html(_cut(_title(stage), fits))}</text>'
        f'<text x="8" y="36" style="fill: {_TEXT}">{_cut(tasks or "", fits)}</text></g>'
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


# -- timeline ------------------------------------------------------------------------------------------------------------

_LANE, _LABEL, _CHART = 12, 150, 760


def _timeline(blocks: Sequence[Block], executors: Sequence[ExecutorView], changes: Sequence[ClusterChange]) -> str:
    if not blocks:
        return ""
    labels = {each.executor: each.label for each in executors}
    lanes = sorted({(block.executor, block.lane) for block in blocks})[:_MOST_LANES]
    place = {lane: number for number, lane in enumerate(lanes)}
    first, last = min(block.start for block in blocks), max(block.end for block in blocks)
    scale = (_CHART - _LABEL) / max(1e-6, last - first)
    shown = [block for block in blocks if (block.executor, block.lane) in place]
    # The longest, where there are too many: what they hide is thinner than a pixel.
    shown = sorted(shown, key=lambda block: block.start - block.end)[:_MOST_RECTANGLES]
    rectangles = "".join(
        _rectangle(
            block,
            _LABEL + (block.start - first) * scale,
            place[block.executor, block.lane] * _LANE + 1,
            (block.end - block.start) * scale,
            labels.get(block.executor, block.executor),
        )
        for block in shown
    )
    names = "".join(
        f'<text x="0" y="{number * _LANE + 10}" style="fill: {_FAINT}">{as_html(labels.get(executor, executor)[-22:])} #{lane}</text>'
        for (executor, lane), number in place.items()
    )
    height = len(lanes) * _LANE + 16
    marks = "".join(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - 12}" stroke="{_FAINT}" stroke-dasharray="3 2"/>'
        f'<text x="{x + 2:.1f}" y="{height - 3}" style="fill: {_FAINT}">{each.before}→{each.target}</text>'
        for each in changes
        if first <= each.at <= last and (x := _LABEL + (each.at - first) * scale)
    )
    scale_text = (
        f'<text x="{_LABEL}" y="{height - 3}" style="fill: {_FAINT}">0</text>'
        f'<text x="{_CHART}" y="{height - 3}" text-anchor="end" style="fill: {_FAINT}">{format_seconds(last - first)}</text>'
    )
    return _drawing("task timeline", _CHART, height, 10, names + rectangles + marks + scale_text)


def _rectangle(block: Block, x: float, y: int, width: float, executor: str) -> str:
    # A pixel between two, where they are wide enough for that.
    drawn = max(1.0, width - (1 if width > 3 else 0))
    red = f'<rect x="{x:.1f}" y="{y + _LANE - 5}" width="{max(2.0, drawn):.1f}" height="3" style="fill: {_BAD}"/>'
    return (
        f'<g><title>{as_html(_block_in_words(block, executor))}</title><rect x="{x:.1f}" y="{y}" width="{drawn:.1f}" '
        f'height="{_LANE - 2}" fill="{_COLOURS[block.stage % len(_COLOURS)]}"/>{red if block.failed_count else ""}</g>'
    )


def _block_in_words(block: Block, executor: str) -> str:
    alone = block.task_count == 1 and block.partition >= 0
    what = f"partition {block.partition}" if alone else f"{block.task_count} task{'' if block.task_count == 1 else 's'}"
    parts = [f"stage {block.stage}: {what}"]
    if block.failed_count:
        parts.append("failed" if block.task_count == 1 else f"{block.failed_count} failed")
    parts.append(format_seconds(block.end - block.start))
    if block.rows:
        parts.append(f"{format_count(block.rows)} rows")
    return ", ".join([*parts, f"on {executor}"])
