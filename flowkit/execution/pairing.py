"""Elements of several inputs brought together by their places: zipped, or each with each. Runs on slot threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from typing import Any

from flowkit.errors import UnequalPartitions
from flowkit.execution.environment import TaskEnvironment
from flowkit.execution.records import in_batches
from flowkit.execution.spill import Reservation, Runs
from flowkit.storage.memory.size_estimate import estimate_batch
from flowkit.storage.runs import Run

_ROWS_AT_ONCE = 1024


def zipped(inputs: Sequence[Iterator[Any]], partition: int, place: str) -> Iterator[tuple[Any, ...]]:
    """Tuples of the inputs' first elements, of their second ones, and so on.

    Raises
    ------
    errors.UnequalPartitions
        One input ends before another.
    """
    return chain.from_iterable(_zipped(inputs, partition, place))


def _zipped(inputs: Sequence[Iterator[Any]], partition: int, place: str) -> Iterator[Iterable[tuple[Any, ...]]]:
    done = 0
    while True:
        blocks = [list(islice(each, _ROWS_AT_ONCE)) for each in inputs]
        lengths = [len(block) for block in blocks]
        if len(set(lengths)) > 1:
            raise UnequalPartitions(
                f"{place} needs as many elements in each RDD, partition by partition; in partition {partition} one has "
                f"{done + min(lengths)}, another more"
            )
        if not lengths[0]:
            return
        done += lengths[0]
        yield zip(*blocks, strict=True)


def each_with_each(left: Iterator[Any], right: Iterator[Any], environment: TaskEnvironment) -> Iterator[tuple[Any, Any]]:
    """All pairs, in the order of the left input, then of the right one. The right one is held; beyond the task's memory, on disk."""
    return chain.from_iterable(_each_with_each(left, right, environment))


def _each_with_each(
    left: Iterator[Any], right: Iterator[Any], environment: TaskEnvironment
) -> Iterator[Iterable[tuple[Any, Any]]]:
    with Runs(environment) as runs, Reservation(environment.memory) as reservation:
        again = _held(right, environment, runs, reservation)
        for element in left:
            for batch in again():
                environment.check_killed()
                yield zip(repeat(element), batch, strict=False)


def _held(
    rows: Iterator[Any], environment: TaskEnvironment, runs: Runs, reservation: Reservation
) -> Callable[[], Iterator[list[Any]]]:
    """A function that iterates the rows in batches, as often as it is called."""
    held: list[Any] = []
    batches = in_batches(rows, environment.check_killed)
    for batch in batches:
        held += batch
        if not reservation.fits(len(held), lambda table, _: estimate_batch(table), held):
            kept = held
            run: Run = runs.write("right-side", chain(kept, chain.from_iterable(batches)))
            environment.metrics.memory_spilled_bytes += reservation.release()
            return run.batches
    return lambda: (held[start : start + _ROWS_AT_ONCE] for start in range(0, len(held), _ROWS_AT_ONCE))
