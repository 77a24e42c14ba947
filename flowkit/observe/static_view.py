"""A snapshot as HTML and SVG that need nothing else: no script, no style sheet, no server. What stays in a saved notebook.

Pure. Colours are those of the page around where it has them (JupyterLab's variables), with fall-backs. Every text of the user's is
escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from flowkit.observe.metrics import format_bytes, format_count, format_seconds
from flowkit.observe.snapshot import ClusterChange, ExecutorView, FailureView, Snapshot, StageView
from flowkit.observe.timeline import Block

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
_SYMBOLS: Final = {"waiting": "○", "running": "▶", "succeeded": "✔", "done": "✔", "failed": "✘", "cancelled": "■", "skipped": "↷"}
_WORDS: Final = {"succeeded": "done", "skipped": "skipped: there already"}
#: of stages in the timeline, the same as in extensions/view/src/chart.js
_COLOURS: Final = ("#4285c9", "#e08a32", "#4a9e5c", "#9166b8", "#c25b8f", "#3f9fa3", "#a3872f", "#7a6a5d")


def render_line(snapshot: Snapshot, now: float = 0.0) -> str:
    """A snapshot as one line of text. ``now``: seconds since the epoch, for what still runs.

    >>> from flowkit.observe.progress import ProgressModel
    >>> render_line(ProgressModel("cell 3").snapshot())
    '○ cell 3: no job yet'
    """
    return f"{_SYMBOLS.get(snapshot.state, '·')} {_headline(snapshot)}{_numbers(snapshot, now)}"


def render_static(snapshot: Snapshot, blocks: Sequence[Block] = (), now: float = 0.0) -> str:
    """A snapshot and its timeline as HTML."""
    failures = "".join(map(_failure, snapshot.failures[-5:]))
    head = (
        f"<div><b>{_SYMBOLS.get(snapshot.state, '·')} {escape(_headline(snapshot))}</b>"
        f'<span style="color: {_FAINT}">{escape(_numbers(snapshot, now))}</span></div>'
    )
    notes = f'<div style="color: {_BAD}">{format_count(snapshot.dropped_events)} events missed: numbers are too low</div>'
    head += notes if snapshot.dropped_events else ""
    if snapshot.state == "succeeded" and not failures and snapshot.ended_at - snapshot.started_at < SHORT_S:
        return f'<div style="color: {_TEXT}">{head}</div>'
    parts = [head, _bar(snapshot), failures, _stage_table(snapshot.stages, now)]
    parts += [
        _folded("graph", _graph(snapshot.stages)),
        _folded("timeline", _timeline(blocks, snapshot.executors, snapshot.changes)),
    ]
    parts += [
        f'<div style="border-left: 3px solid {_WARN}; padding-left: 8px; margin: 4px 0"><b>{escape(hint.text)}</b>: '
        f"{escape(hint.change)}</div>"
        for hint in snapshot.hints
    ]
    parts += [
        f'<div style="color: {_FAINT}">after {format_seconds(each.at - snapshot.started_at)}: {each.before} → {each.target} executors, '
        f"{escape(each.reason)}</div>"
        for each in snapshot.changes[-5:]
    ]
    gone = [each for each in snapshot.executors if each.removed_at and not each.released]
    parts += [f'<div style="color: {_FAINT}">{escape(each.label)} is gone: {escape(each.reason)}</div>' for each in gone[-5:]]
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
    state = _WORDS.get(snapshot.state, snapshot.state)
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


def _bar(snapshot: Snapshot) -> str:
    colour = {"succeeded": _OK, "failed": _BAD}.get(snapshot.state, _RUN)
    return _filled(snapshot.tasks_done / max(1, snapshot.task_count), colour, "100%", 8)


def _filled(part: float, colour: str, width: str, height: int) -> str:
    return (
        f'<div style="width: {width}; height: {height}px; background: {_BACK}; border-radius: 4px; overflow: hidden; margin: 4px 0">'
        f'<div style="width: {100 * part:.1f}%; height: 100%; background: {colour}"></div></div>'
    )


def _failure(failure: FailureView) -> str:
    times = f" ({format_count(failure.count)} times)" if failure.count > 1 else ""
    where = f"stage {failure.stage}, partition {failure.partition}, {failure.executor}"
    text = f"✘ {failure.kind}: {failure.message}{times} — {where}"
    return f'<div style="color: {_BAD}; white-space: pre-wrap; overflow-wrap: anywhere">{escape(text)}</div>'


def _folded(name: str, content: str) -> str:
    return f"<details><summary>{name}</summary>{content}</details>" if content else ""


# -- stages --------------------------------------------------------------------------------------------------------------


def _stage_table(stages: Sequence[StageView], now: float) -> str:
    columns = ("stage", "", "task times", "tasks", "rows", "in", "shuffle", "spilled", "time")
    head = "".join(f'<th style="text-align: {_side(place)}; color: {_FAINT}">{name}</th>' for place, name in enumerate(columns))
    told = sorted(stages, key=lambda stage: stage.stage)[-_MOST_STAGES:]
    rows = "".join(_stage_row(stage, now) for stage in told)
    left_out = f"<div>and {len(stages) - len(told)} stages before them</div>" if len(told) < len(stages) else ""
    return f'<table style="table-layout: auto; border-collapse: collapse; font-size: 12px; margin: 0; white-space: nowrap"><tr>{head}</tr>{rows}</table>{left_out}'


def _side(place: int) -> str:
    return "right" if place > 2 else "left"


def _stage_row(stage: StageView, now: float) -> str:
    skipped = stage.state == "skipped"
    part = 1.0 if skipped else stage.done / max(1, stage.task_count)
    colour = {"failed": _BAD, "done": _OK, "skipped": _FAINT}.get(stage.state, _RUN)
    least, _, median, _, greatest = stage.durations
    times = f"{format_seconds(least)} / {format_seconds(median)} / {format_seconds(greatest)}" if stage.done else ""
    read = stage.input_bytes + stage.shuffle_read_bytes
    elapsed = (stage.ended_at or now) - stage.started_at if stage.started_at else 0.0
    cells = (
        escape(f"{_SYMBOLS.get(stage.state, '·')} {stage.stage}: {stage.name}"),
        _filled(part, colour, "90px", 8),
        times,
        "skipped" if skipped else f"{stage.done}/{stage.task_count}" + (f" ✘{stage.failed}" if stage.failed else ""),
        format_count(stage.rows) if stage.rows else "",
        format_bytes(read) if read else "",
        format_bytes(stage.shuffle_write_bytes) if stage.shuffle_write_bytes else "",
        format_bytes(stage.spilled_bytes) if stage.spilled_bytes else "",
        format_seconds(elapsed) if elapsed > 0 else "",
    )
    hint = escape("\n".join(stage.operations), quote=True)
    row = "".join(f'<td style="text-align: {_side(place)}; white-space: nowrap">{cell}</td>' for place, cell in enumerate(cells))
    return f'<tr title="{hint}">{row}</tr>'


_WIDE, _HIGH, _ACROSS, _DOWN, _EDGE = 168, 46, 44, 12, 6


def _graph(stages: Sequence[StageView]) -> str:
    """Parents left of those that read them."""
    if not 1 < len(stages) <= _MOST_BOXES:
        return ""
    places: dict[int, tuple[int, int]] = {}
    depths: dict[int, int] = {}
    filled: dict[int, int] = {}
    for stage in sorted(stages, key=lambda each: each.stage):
        depth = depths[stage.stage] = 1 + max((depths[each] for each in stage.parents if each in depths), default=-1)
        row = filled[depth] = filled.get(depth, -1) + 1
        places[stage.stage] = _EDGE + depth * (_WIDE + _ACROSS), _EDGE + row * (_HIGH + _DOWN)
    width = max(x for x, _ in places.values()) + _WIDE + _EDGE
    height = max(y for _, y in places.values()) + _HIGH + _EDGE
    edges = "".join(
        _edge(places[parent], places[stage.stage]) for stage in stages for parent in stage.parents if parent in places
    )
    boxes = "".join(_box(stage, *places[stage.stage]) for stage in stages)
    return (
        f'<svg role="img" aria-label="{len(stages)} stages" width="{width}" height="{height}" font-size="11">{edges}{boxes}</svg>'
    )


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1, x2, y2 = start[0] + _WIDE, start[1] + _HIGH / 2, end[0], end[1] + _HIGH / 2
    bend = (x2 - x1) / 2
    path = f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}M{x2 - 6} {y2 - 4}L{x2} {y2}L{x2 - 6} {y2 + 4}"
    return f'<path d="{path}" style="fill: none; stroke: {_LINE}"/>'


def _box(stage: StageView, x: int, y: int) -> str:
    name = f"{stage.stage}: {stage.name}"
    name = name if len(name) <= 26 else name[:25] + "…"
    tasks = "skipped" if stage.state == "skipped" else f"{stage.done}/{stage.task_count} tasks"
    part = 1.0 if stage.state == "skipped" else stage.done / max(1, stage.task_count)
    colour, edge = (_BAD, _BAD) if stage.state == "failed" else (_OK if stage.state == "done" else _RUN, _LINE)
    return (
        f'<g transform="translate({x} {y})"><rect width="{_WIDE}" height="{_HIGH}" rx="4" style="fill: {_BACK}; stroke: {edge}"/>'
        f'<rect width="{_WIDE * part:.0f}" height="{_HIGH}" rx="4" style="fill: {colour}; opacity: .3"/>'
        f'<text x="8" y="19" font-weight="600" style="fill: {_TEXT}">{escape(name)}</text>'
        f'<text x="8" y="36" style="fill: {_TEXT}">{tasks}</text></g>'
    )


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
        f'<rect x="{_LABEL + (block.start - first) * scale:.1f}" y="{place[block.executor, block.lane] * _LANE + 1}" '
        f'width="{max(1.0, (block.end - block.start) * scale):.1f}" height="{_LANE - 2}" '
        f'fill="{_COLOURS[block.stage % len(_COLOURS)]}"/>'
        for block in shown
    )
    names = "".join(
        f'<text x="0" y="{number * _LANE + 10}" style="fill: {_FAINT}">{escape(labels.get(executor, executor)[-22:])} #{lane}</text>'
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
    return (
        f'<svg role="img" aria-label="task timeline" width="{_CHART}" height="{height}" font-size="10">'
        f"{names}{rectangles}{marks}{scale_text}</svg>"
    )
