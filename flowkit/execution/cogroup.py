"""Values of several inputs brought together by key: ``(k, ([values of input 0], [values of input 1], ...))``.

Runs on slot threads. Keys come out in the order in which they were first seen, input after input, spilled or not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from flowkit.execution.aggregate import append_values, estimate_lists, list_pieces, load_checked
from flowkit.execution.environment import TaskEnvironment
from flowkit.execution.records import Chunk
from flowkit.execution.spill import LoadingTable, Outgrowing, Runs, SpilledTable
from flowkit.execution.spilled_values import SpilledValues

_KEY_AND_GROUPS = itemgetter(1, 2)
Side = dict[Any, list[Any]]


def cogroup(
    sides: Sequence[Iterable[Chunk]], environment: TaskEnvironment, place: str
) -> Iterator[tuple[Any, tuple[list[Any], ...]]]:
    """Group the pairs of each side by key."""
    return chain.from_iterable(_grouped(sides, environment, place))


def _grouped(
    sides: Sequence[Iterable[Chunk]], environment: TaskEnvironment, place: str
) -> Iterator[Iterable[tuple[Any, tuple[list[Any], ...]]]]:
    with Runs(environment) as runs:
        loading = LoadingTable(
            environment,
            new=lambda: _new_tables(len(sides)),
            estimate=_estimate_sides,
            items=_joined,
            spilled=lambda: SpilledTable(
                runs,
                environment,
                _merge_groups,
                _count_in_groups,
                _estimate_groups,
                Outgrowing(_on_disk, _append, _pieces),
            ),
        )
        with loading:
            for number, chunks in enumerate(sides):
                for count, rows in chunks:
                    load_checked(append_values, loading.table[number], rows, place)
                    loading.count(count)
            spilled = loading.finish()
            if spilled is None:
                yield _joined(loading.table)
                return
        yield map(_KEY_AND_GROUPS, spilled.merged())


def _new_tables(count: int) -> list[Side]:
    return [defaultdict(list) for _ in range(count)]


def _joined(tables: list[Side]) -> Iterator[tuple[Any, tuple[list[Any], ...]]]:
    # Looking a key up in a table that misses it makes its empty list: no Python code a key.
    keys = dict.fromkeys(chain.from_iterable(tables))
    return zip(keys, zip(*(map(table.__getitem__, keys) for table in tables), strict=True), strict=True)


def _estimate_sides(tables: list[Side], row_count: int) -> int:
    # Rows are counted together; their sizes are those of whichever side has the larger ones.
    return sum(estimate_lists(table, 0) for table in tables) + max(estimate_lists(table, row_count) for table in tables)


def _merge_groups(table: dict[Any, Any], batch: Iterable[tuple[Any, tuple[list[Any], ...]]]) -> None:
    for key, groups in batch:
        known = table.get(key)
        if known is None:
            table[key] = groups
        else:
            for mine, more in zip(known, groups, strict=True):
                mine.extend(more)


def _count_in_groups(batch: Iterable[tuple[Any, tuple[list[Any], ...]]]) -> int:
    return sum(sum(map(len, groups)) for _, groups in batch)


def _on_disk(groups: tuple[list[Any], ...], directory: Path) -> tuple[SpilledValues, ...]:
    return tuple(SpilledValues(directory) for _ in groups)


def _pieces(groups: tuple[list[Any], ...], most: int) -> Iterator[tuple[list[Any], ...]]:
    # One side after the other: merged, each side's values are in their order again.
    for side, values in enumerate(groups):
        for piece in list_pieces(values, most):
            yield tuple(piece if place == side else [] for place in range(len(groups)))


def _append(on_disk: tuple[SpilledValues, ...], groups: tuple[list[Any], ...]) -> int:
    before = sum(values.disk_bytes for values in on_disk)
    for values, more in zip(on_disk, groups, strict=True):
        values.extend(more)
    return sum(values.disk_bytes for values in on_disk) - before


def _estimate_groups(table: dict[Any, tuple[list[Any], ...]], row_count: int) -> int:
    sample = {key: list(chain.from_iterable(groups)) for key, groups in islice(table.items(), 32)}
    lists = len(next(iter(table.values()), ()))
    return estimate_lists(sample, row_count) + len(table) * (64 * lists + 200)
