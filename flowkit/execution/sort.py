"""Pairs in the order of their keys: sorted in memory, or in runs on disk that are merged. Stable, also when descending.

Runs on slot threads.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from operator import itemgetter
from typing import Any, cast

import numpy as np

from flowkit.execution.end_markers import function_name, leaked_stop_iteration
from flowkit.execution.environment import TaskEnvironment
from flowkit.execution.records import explain_bad_pairs
from flowkit.execution.spill import FANOUT, Reservation, Runs, run_rows
from flowkit.lineage.kernels import SortOrder
from flowkit.storage.memory.size_estimate import estimate_batch
from flowkit.storage.runs import Run

#: Fewer rows than this are sorted by comparing: arrays would not pay.
_SMALLEST_ARRAY_ROWS = 1024


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
                    environment.metrics.memory_spilled_bytes += reservation.release()
                    rows = []
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


def _estimate_sorting(rows: list[Any]) -> int:
    # Sorting takes a list of keys, and one of places, besides the rows.
    return estimate_batch(rows) + 48 * len(rows)


def _merged_run(group: list[Run], key: Callable[[Any], Any], order: SortOrder, runs: Runs) -> Run:
    merged = runs.write("sorted", heapq.merge(*map(run_rows, group), key=key, reverse=order.descending))
    for run in group:
        run.delete()
    return merged


def _key_of(order: SortOrder) -> Callable[[Any], Any]:
    key = order.key
    return itemgetter(0) if key is None else lambda pair: key(pair[0])


def _sorted_rows(rows: list[tuple[Any, Any]], order: SortOrder, place: str) -> list[tuple[Any, Any]]:
    try:
        keys = list(map(itemgetter(0), rows))
    except (TypeError, IndexError, KeyError) as error:
        explain_bad_pairs(rows, error, place)
        raise
    if order.key is not None:
        given = len(keys)
        keys = list(map(order.key, keys))
        if len(keys) < given:
            raise leaked_stop_iteration(function_name(order.key), place)
    if len(keys) >= _SMALLEST_ARRAY_ROWS and (places := _places_of_numbers(keys, order.descending)) is not None:
        return list(map(rows.__getitem__, places))
    if order.key is None:
        rows.sort(key=itemgetter(0), reverse=order.descending)
        return rows
    # Keys are computed once; places are sorted by them.
    return list(map(rows.__getitem__, sorted(range(len(keys)), key=keys.__getitem__, reverse=order.descending)))


def _places_of_numbers(keys: list[Any], descending: bool) -> list[int] | None:
    """The stable order of keys that are all ints of 64 bits or all floats, by numpy; None for others, and for NaN."""
    kinds = set(map(type, keys))
    if kinds == {int}:
        try:
            numbers = np.array(keys, np.int64)
        except OverflowError:
            return None
        # The complement turns the order round and never overflows; equal keys stay as they came.
        compared = ~numbers if descending else numbers
        return cast("list[int]", compared.argsort(kind="stable").tolist())
    if kinds == {float}:
        floats = np.array(keys, np.float64)
        if np.isnan(floats).any():
            return None  # above everything for numpy, in no order for Python
        return cast("list[int]", (-floats if descending else floats).argsort(kind="stable").tolist())
    return None
