"""Rows in batches: what memory checks, kill checks and counters work on, so that they cost nothing a row.

Runs on slot threads.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

from flowkit.model.shown import short
from flowkit.storage.memory.size_estimate import estimate_batch

#: Rows in a batch: enough to hide what is done once a batch, and few enough that new rows die before the garbage collector
#: first looks at them, after 700 (measured: batches of 4,096 new pairs make an aggregation a third slower than these).
BATCH_ROWS = 256
_FIRST_BATCH_ROWS = 64
#: Rows that are used up one by one, so that they need not be held together.
CHUNK_ROWS = 4096
#: A batch of large rows has fewer of them: it is in memory besides what is budgeted.
_BATCH_BYTES = 1 << 20
#: Batches between two looks at the size of rows.
_LOOK_EVERY = 64


#: How many rows (about, in the last chunk of all), and the rows, to be used up before the next chunk is asked for
Chunk = tuple[int, Iterable[Any]]


def in_chunks(rows: Iterable[Any], check_killed: Callable[[], None]) -> Iterator[Chunk]:
    """Pieces of an iterator that are not held in memory; ``check_killed`` is called before each."""
    iterator = iter(rows)
    check_killed()
    for first in iterator:
        yield CHUNK_ROWS, chain((first,), islice(iterator, CHUNK_ROWS - 1))
        check_killed()


def as_chunks(batches: Iterable[list[Any]]) -> Iterator[Chunk]:
    """Batches, each with its length."""
    return ((len(batch), batch) for batch in batches)


def in_batches(rows: Iterable[Any], check_killed: Callable[[], None], most_rows: int = BATCH_ROWS) -> Iterator[list[Any]]:
    """Lists of consecutive rows, none empty; ``check_killed`` is called before each."""
    iterator = iter(rows)
    size = _FIRST_BATCH_ROWS
    count = 0
    check_killed()
    while batch := list(islice(iterator, size)):
        if size < most_rows or count % _LOOK_EVERY == 0:
            fitting = _BATCH_BYTES * len(batch) // max(1, estimate_batch(batch))
            size = max(1, min(2 * size, most_rows, fitting))
        count += 1
        yield batch
        check_killed()


def explain_bad_pairs(rows: Iterable[Any], error: Exception, place: str, *, hashed: bool = True) -> None:
    """Raise a clear ``TypeError`` if a row is no pair, or (where keys are ``hashed``) its key cannot be; else return.

    Called when a loop over the rows raised, so that the loop itself need not check. Rows that were used up are not here any
    more; the one at fault is then found in the frame that raised, as its variable ``row``.
    """
    for row in rows if isinstance(rows, list) else _row_at_fault(error):
        try:
            key, _ = row
        except (TypeError, ValueError):
            raise TypeError(f"{place} needs (key, value) pairs, but got {short(row)} ({type(row).__name__})") from None
        if not hashed:
            continue
        try:
            hash(key)
        except TypeError as unhashable:
            theirs = unhashable.__traceback__ is not None and unhashable.__traceback__.tb_next is not None
            raise TypeError(
                f"{place} needs keys that can be hashed, but got {short(key)} ({type(key).__name__}); "
                "use a tuple for a list, a frozenset for a set"
            ) from (unhashable if theirs else None)


def _row_at_fault(error: Exception) -> list[Any]:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    # A frame further in is the user's code, and so is the error.
    if frames and frames[-1].f_globals.get("__package__") == __package__ and "row" in frames[-1].f_locals:
        return [frames[-1].f_locals["row"]]
    return []
