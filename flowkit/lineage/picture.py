"""A lineage as a picture: its stages as boxes, what is pipelined in each, shuffles as arrows. Runs on the driver; starts nothing.

Self-contained SVG in HTML, without scripts, in the colours of the page around it (JupyterLab's variables, with fall-backs). Every name
is the user's and is escaped.
"""

from __future__ import annotations

from itertools import groupby

from flowkit.lineage.nodes import Node, Recipe, Shuffle
from flowkit.lineage.stages import StageCut, cut
from flowkit.visible import as_html

#: lines of one box, letters of one line, and boxes: more are told as a number
_MOST_LINES, _MOST_LETTERS, _MOST_STAGES = 12, 46, 60
_LINE_PX, _LETTER_PX, _PADDING_PX = 16, 6.7, 10
_BETWEEN_PX, _BESIDE_PX = 56, 18

_TEXT = "var(--jp-ui-font-color1, currentColor)"
_FAINT = "var(--jp-ui-font-color2, #888)"
_EDGE = "var(--jp-border-color1, #999)"
_BOX = "var(--jp-layout-color2, rgba(128, 128, 128, 0.08))"
_CACHED = "var(--jp-success-color1, #388e3c)"


def picture(node: Node) -> str:
    """HTML of a node's lineage.

    >>> from flowkit.lineage.kernels import IntegerRange
    >>> node = Node(0, IntegerRange(0, 4, 1, 2), (), 2, operation="<b>", call_site="")
    >>> "<svg" in picture(node), "&lt;b&gt;" in picture(node), "<b>" in picture(node)
    (True, True, False)
    """
    stages = cut(node)
    if len(stages) > _MOST_STAGES:
        return f"<p>{len(stages)} stages: too many to draw; <code>explain()</code> tells them.</p>"
    number = {stage.writes.id: index for index, stage in enumerate(stages) if stage.writes is not None}
    boxes = _placed([_Box(index, stage, [number[shuffle.id] for shuffle in stage.reads]) for index, stage in enumerate(stages)])
    width = max(box.x + box.width for box in boxes) + _PADDING_PX
    height = max(box.y + box.height for box in boxes) + _PADDING_PX
    parts = [_arrow(boxes[parent], box) for box in boxes for parent in box.parents]
    parts += [box.svg() for box in boxes]
    title = as_html(f"Lineage of {node.label}: {len(stages)} stage{'' if len(stages) == 1 else 's'}")
    return (
        f'<div style="overflow-x: auto"><svg role="img" aria-label="{title}" width="{width:.0f}" height="{height:.0f}" '
        f'font-family="var(--jp-code-font-family, monospace)" font-size="11"><title>{title}</title>{"".join(parts)}</svg></div>'
    )


class _Box:
    """One stage."""

    def __init__(self, index: int, stage: StageCut, parents: list[int]) -> None:
        self.index = index
        self.parents = parents
        self.x = self.y = 0.0
        self.lines = _lines(stage)
        what = "result" if stage.writes is None else "writes a shuffle"
        self.heading = f"stage {index}: {what}, {stage.root.num_partitions} partitions"
        letters = max(len(self.heading), *(len(text) for text, _ in self.lines))
        self.width = letters * _LETTER_PX + 2 * _PADDING_PX
        self.height = (len(self.lines) + 1) * _LINE_PX + 2 * _PADDING_PX

    def svg(self) -> str:
        """The box and what is in it."""
        left, first = self.x + _PADDING_PX, self.y + _PADDING_PX + 11
        parts = [
            (
                f'<rect x="{self.x:.0f}" y="{self.y:.0f}" width="{self.width:.0f}" height="{self.height:.0f}" rx="5" '
                f'style="fill: {_BOX}; stroke: {_EDGE}"/>'
            ),
            f'<text x="{left:.0f}" y="{first:.0f}" font-weight="bold" style="fill: {_TEXT}">{as_html(self.heading)}</text>',
        ]
        for place, (text, cached) in enumerate(self.lines, start=1):
            colour = _CACHED if cached else _FAINT
            y = first + place * _LINE_PX
            parts.append(f'<text x="{left:.0f}" y="{y:.0f}" style="fill: {colour}">{as_html(text)}</text>')
        return "".join(parts)


def _lines(stage: StageCut) -> list[tuple[str, bool]]:
    """What runs in a stage, in its order; and whether it is cached."""
    told = [(_cut_short(_step(node)), node.cached) for node in stage.nodes]
    lines = []
    for (text, cached), same in groupby(told):
        times = sum(1 for _ in same)
        lines.append((text if times == 1 else f"{text}  x {times}", cached))
    if len(lines) > _MOST_LINES:
        half = _MOST_LINES // 2
        lines = [*lines[:half], (f"... {len(lines) - 2 * half} more ...", False), *lines[-half:]]
    return lines


def _step(node: Recipe) -> str:
    name = f"{node.name!r} " if node.name else ""
    shuffled = "<- " if any(isinstance(each, Shuffle) for each in node.dependencies) else ""
    return f"{shuffled}{name}{node.label}{f' {node.level_in_words}' if node.cached else ''}"


def _cut_short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _MOST_LETTERS else plain[: _MOST_LETTERS - 1] + "…"


def _placed(boxes: list[_Box]) -> list[_Box]:
    """Parents left of those that read them; boxes of one depth below one another."""
    depths: list[int] = []
    for box in boxes:  # parents come first
        depths.append(1 + max((depths[parent] for parent in box.parents), default=-1))
    x = float(_PADDING_PX)
    for depth in range(max(depths) + 1):
        column = [box for box, at in zip(boxes, depths, strict=True) if at == depth]
        y = float(_PADDING_PX)
        for box in column:
            box.x, box.y = x, y
            y += box.height + _BESIDE_PX
        x += max(box.width for box in column) + _BETWEEN_PX
    return boxes


def _arrow(start: _Box, end: _Box) -> str:
    x1, y1 = start.x + start.width, start.y + start.height / 2
    x2, y2 = end.x, end.y + end.height / 2
    bend = (x2 - x1) / 2
    path = f"M {x1:.0f} {y1:.0f} C {x1 + bend:.0f} {y1:.0f}, {x2 - bend:.0f} {y2:.0f}, {x2 - 7:.0f} {y2:.0f}"
    head = f"M {x2 - 8:.0f} {y2 - 4:.0f} L {x2:.0f} {y2:.0f} L {x2 - 8:.0f} {y2 + 4:.0f} Z"
    return f'<path d="{path}" style="fill: none; stroke: {_EDGE}"/><path d="{head}" style="fill: {_EDGE}"/>'
