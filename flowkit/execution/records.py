"""Rows in batches: what memory checks, kill checks and counters work on, so that they cost nothing a row.

Runs on slot threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from flowkit.storage.memory.size_estimate import estimate_batch

#: Rows in the first batch and in the largest: few enough for the CPU's cache, enough to hide what is done a batch.
FIRST_BATCH_ROWS, BATCH_ROWS = 64, 4096
#: A batch of large rows has fewer of them: it is in memory besides what is budgeted.
_BATCH_BYTES = 1 << 20
#: Batches between two looks at the size of rows.
_LOOK_EVERY = 32


def in_batches(rows: Iterable[Any], check_killed: Callable[[], None]) -> Iterator[list[Any]]:
    """Lists of consecutive rows, none empty; ``check_killed`` is called before each."""
    iterator = iter(rows)
    size = FIRST_BATCH_ROWS
    count = 0
    check_killed()
    while batch := list(islice(iterator, size)):
        if size < BATCH_ROWS or count % _LOOK_EVERY == 0:
            fitting = _BATCH_BYTES * len(batch) // max(1, estimate_batch(batch))
            size = max(1, min(2 * size, BATCH_ROWS, fitting))
        count += 1
        yield batch
        check_killed()


def short(value: Any, limit: int = 200) -> str:
    """``repr``, cut; never raises."""
    try:
        text = repr(value)
    except Exception as error:
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def explain_bad_pairs(batch: list[Any], error: Exception, place: str, *, hashed: bool = True) -> None:
    """Raise a clear ``TypeError`` if a row is no pair, or (where keys are ``hashed``) its key cannot be; else return.

    Called when a loop over the batch raised, so that the loop itself need not check.
    """
    for row in batch:
        try:
            key, _ = row
        except (TypeError, ValueError):
            raise TypeError(f"{place} needs (key, value) pairs, but got {short(row)} ({type(row).__name__})") from error
        if not hashed:
            continue
        try:
            hash(key)
        except TypeError:
            raise TypeError(
                f"{place} needs keys that can be hashed, but got {short(key)} ({type(key).__name__}); "
                "use a tuple for a list, a frozenset for a set"
            ) from error
