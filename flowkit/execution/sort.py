"""Pairs in the order of their keys: sorted in memory, or in runs on disk that are merged. Stable, also when descending.

Runs on slot threads.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from operator import itemgetter
from typing import Any

from flowkit.execution.environment import TaskEnvironment
from flowkit.execution.records import explain_bad_pairs
from flowkit.execution.spill import FANOUT, Reservation, Runs, run_rows
from flowkit.lineage.kernels import SortOrder
from flowkit.storage.memory.size_estimate import estimate_batch
from flowkit.storage.runs import Run


def sort_pairs(
    batches: Iterable[list[tuple[Any, Any]]], order: SortOrder, environment: TaskEnvironment, place: str
) -> Iterator[tuple[Any, Any]]:
    """All pairs in order. Equal keys keep the order of arrival."""
    return chain.from_iterable(_sorted(batches, order, environment, place))


def _sorted(
    batches: Iterable[list[tuple[Any, Any]]], order: SortOrder, environment: TaskEnvironment, place: str
) -> Iterator[Iterable[tuple[Any, Any]]]:
    rows: list[tuple[Any, Any]] = []
    with Runs(environment) as runs:
        finished: list[Run] = []
        with Reservation(environment.memory) as reservation:
            for batch in batches:
                rows += batch
                if not reservation.fits(len(rows), _estimate_sorting, rows):
                    finished.append(runs.write("sorted", _sorted_rows(rows, order, place)))
                    rows = []
                    environment.metrics.memory_spilled_bytes += reservation.release()
            rows = _sorted_rows(rows, order, place)
            if not finished:
                yield rows
                return
            key = _key_of(order)
            while len(finished) > FANOUT:
                # Neighbours are merged, so that equal keys stay in the order of arrival.
                merged = (finished[first : first + FANOUT] for first in range(0, len(finished), FANOUT))
                finished = [_merged_run(group, key, order, runs) for group in merged]
            yield heapq.merge(*map(run_rows, finished), rows, key=key, reverse=order.descending)


def _estimate_sorting(rows: list[Any], row_count: int) -> int:
    # Sorting takes a list of keys besides the rows, and half of one to merge in.
    return estimate_batch(rows) + 16 * row_count


def _merged_run(group: list[Run], key: Callable[[Any], Any], order: SortOrder, runs: Runs) -> Run:
    merged = runs.write("sorted", heapq.merge(*map(run_rows, group), key=key, reverse=order.descending))
    for run in group:
        run.delete()
    return merged


def _key_of(order: SortOrder) -> Callable[[Any], Any]:
    key = order.key
    return itemgetter(0) if key is None else lambda pair: key(pair[0])


def _sorted_rows(rows: list[tuple[Any, Any]], order: SortOrder, place: str) -> list[tuple[Any, Any]]:
    # Sorting places by an array of keys was no faster for ints and slower for floats: rows then lie scattered in memory.
    try:
        rows.sort(key=_key_of(order), reverse=order.descending)
    except (TypeError, ValueError, LookupError) as error:
        explain_bad_pairs(rows, error, place, hashed=False)
        raise
    return rows
