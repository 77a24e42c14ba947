"""A table that shows itself: as text in a terminal, as HTML in a notebook. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowkit.visible import as_html, in_one_line


class Table:
    """Rows under names.

    >>> Table("1 job", ("job", "name"), [(0, "count")])
    1 job
    job  name
    0    count
    """

    def __init__(self, title: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.title = title
        self.names = tuple(names)
        self.rows = [tuple(row) for row in rows]

    def without_empty(self, *places: int) -> Table:
        """Without those of these columns that are empty in every row.

        >>> Table("1 job", ("job", "name", "reason"), [(0, "count", "")]).without_empty(1, 2)
        1 job
        job  name
        0    count
        """
        kept = [place for place in range(len(self.names)) if place not in places or any(row[place] != "" for row in self.rows)]
        return Table(self.title, [self.names[place] for place in kept], [[row[place] for place in kept] for row in self.rows])

    def __repr__(self) -> str:
        cells = [[in_one_line(str(cell)) for cell in row] for row in (self.names, *self.rows)]
        widths = [max(len(row[place]) for row in cells) for place in range(len(self.names))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
        return "\n".join([in_one_line(self.title), *lines])

    def _repr_html_(self) -> str:
        head = "".join(f'<th style="text-align: left">{as_html(name)}</th>' for name in self.names)
        rows = "".join(
            "<tr>" + "".join(f'<td style="text-align: left">{as_html(str(cell))}</td>' for cell in row) + "</tr>"
            for row in self.rows
        )
        return f"<div><b>{as_html(self.title)}</b><table><tr>{head}</tr>{rows}</table></div>"
