"""Pairs of two inputs with equal keys: one side in a table, the other streamed past it.

Runs on slot threads. Rows come out in the order of the streamed side (the left one, for RIGHT joins the right one), for each of
them its partners in their order; keys that only the table's side has come last. Spilled or not, the order is the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count
from operator import itemgetter
from typing import Any, assert_never

from flowkit.execution.aggregate import estimate_lists, load_checked
from flowkit.execution.environment import TaskEnvironment
from flowkit.execution.records import explain_bad_pairs, in_batches
from flowkit.execution.spill import DEPTH_LIMIT, LARGE_SHARE, HashSplit, Reservation, Runs, merged_in_order
from flowkit.execution.spilled_values import SpilledValues
from flowkit.lineage.kernels import JoinKind
from flowkit.storage.memory.size_estimate import estimate_dict
from flowkit.storage.runs import Run

Batches = Iterator[list[Any]]
#: ``(place, key, streamed values, table's values)``: all combinations of the two, at that place of the result
Matches = tuple[int, Any, Iterable[Any], Iterable[Any]]
_Match = Callable[[list[Any]], Iterable[tuple[Any, Any]]]
#: A batch of matches is made as one list unless a key has more partners than this: the list would be too long.
_MOST_PARTNERS = 16
_NOTHING: tuple[Any, ...] = ()
_NONE = (None,)
_MISSING = object()


def join(kind: JoinKind, left: Batches, right: Batches, environment: TaskEnvironment, place: str) -> Iterator[tuple[Any, Any]]:
    """``(k, (v, w))`` for all pairs of equal keys; None where ``kind`` lets a key without partner survive."""
    match kind:
        case JoinKind.INNER:
            joined = _Join(left, right, environment, place, keep_streamed=False, keep_table=False, turned=False)
        case JoinKind.LEFT:
            joined = _Join(left, right, environment, place, keep_streamed=True, keep_table=False, turned=False)
        case JoinKind.RIGHT:
            joined = _Join(right, left, environment, place, keep_streamed=True, keep_table=False, turned=True)
        case JoinKind.FULL:
            joined = _Join(left, right, environment, place, keep_streamed=True, keep_table=True, turned=False)
        case other:
            assert_never(other)
    return chain.from_iterable(joined.rows())


class _Table:
    """``{key: value}`` as long as no key comes twice, which is usual and half the work; from then on ``{key: [values]}``."""

    __slots__ = ("lists", "row_count", "single")

    def __init__(self) -> None:
        self.single: dict[Any, Any] = {}
        self.lists: defaultdict[Any, list[Any]] | None = None
        self.row_count = 0

    def load(self, batch: list[tuple[Any, Any]]) -> None:
        """Add pairs."""
        self.row_count += len(batch)
        if self.lists is None:
            added = dict(batch)
            if len(added) == len(batch) and self.single.keys().isdisjoint(added):
                self.single.update(added)
                return
            self.lists = defaultdict(list, ((key, [value]) for key, value in self.single.items()))
            self.single = {}
        table = self.lists
        for key, value in batch:
            table[key].append(value)

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """All pairs, those of one key together."""
        if self.lists is None:
            return iter(self.single.items())
        return ((key, value) for key, values in self.lists.items() for value in values)

    def clear(self) -> None:
        """Let go of everything."""
        self.single, self.lists = {}, None

    def estimate(self, row_count: int) -> int:
        """Bytes of it."""
        return estimate_dict(self.single) if self.lists is None else estimate_lists(self.lists, row_count)


class _Join:
    """One partition of a join.

    Parameters
    ----------
    keep_streamed, keep_table
        Whether rows of that side without partner survive.
    turned
        Whether the streamed side is the right one.
    """

    def __init__(
        self,
        streamed: Batches,
        tabled: Batches,
        environment: TaskEnvironment,
        place: str,
        *,
        keep_streamed: bool,
        keep_table: bool,
        turned: bool,
    ) -> None:
        self._streamed = streamed
        self._tabled = tabled
        self._environment = environment
        self._place = place
        self._keep_streamed = keep_streamed
        self._keep_table = keep_table
        self._turned = turned

    def rows(self) -> Iterator[Iterable[tuple[Any, Any]]]:
        """The result, in pieces."""
        table = _Table()
        with Reservation(self._environment.memory) as reservation:
            for batch in self._tabled:
                load_checked(_Table.load, table, batch, self._place)
                if not reservation.fits(table.row_count, _Table.estimate, table):
                    break
            else:
                yield from self._match_in_memory(table)
                return
            self._environment.metrics.memory_spilled_bytes += reservation.release()
        yield from self._match_spilled(table)

    # -- in memory

    def _match_in_memory(self, table: _Table) -> Iterator[Iterable[tuple[Any, Any]]]:
        match = self._matcher(table)
        seen: set[Any] = set()
        for batch in self._streamed:
            yield self._explained(match, batch)
            if self._keep_table:
                seen.update(map(itemgetter(0), batch))
        if self._keep_table:
            yield ((key, (None, value)) for key, value in table.pairs() if key not in seen)

    def _explained(self, match: _Match, batch: list[Any]) -> Iterable[tuple[Any, Any]]:
        try:
            matched = match(batch)
            return matched if isinstance(matched, list) else self._explained_lazily(matched, batch)
        except (TypeError, ValueError) as error:
            explain_bad_pairs(batch, error, self._place)
            raise

    def _explained_lazily(self, matched: Iterable[tuple[Any, Any]], batch: list[Any]) -> Iterator[tuple[Any, Any]]:
        try:
            yield from matched
        except (TypeError, ValueError) as error:
            explain_bad_pairs(batch, error, self._place)
            raise

    def _matcher(self, table: _Table) -> _Match:
        if table.lists is None:
            return self._matcher_of_single(table.single)
        # Looked up with get, which makes no new lists.
        get = table.lists.get
        missing = _NONE if self._keep_streamed else _NOTHING
        few = max(map(len, table.lists.values())) <= _MOST_PARTNERS
        if self._turned:
            if few:
                return lambda batch: [(key, (other, value)) for key, value in batch for other in get(key, missing)]
            return lambda batch: ((key, (other, value)) for key, value in batch for other in get(key, missing))
        if few:
            return lambda batch: [(key, (value, other)) for key, value in batch for other in get(key, missing)]
        return lambda batch: ((key, (value, other)) for key, value in batch for other in get(key, missing))

    def _matcher_of_single(self, single: dict[Any, Any]) -> _Match:
        get, missing = single.get, _MISSING
        if self._turned:
            return lambda batch: [(key, (get(key), value)) for key, value in batch]
        if self._keep_streamed:
            return lambda batch: [(key, (value, get(key))) for key, value in batch]
        return lambda batch: [(key, (value, other)) for key, value in batch if (other := get(key, missing)) is not missing]

    # -- spilled: both sides are split by key, part is joined with part, results are merged by the place they belong to

    def _match_spilled(self, begun: _Table) -> Iterator[Iterable[tuple[Any, Any]]]:
        environment = self._environment
        with Runs(environment) as runs:
            tabled = HashSplit(runs, "join-table", 0)
            places = count()
            for batch in chain(in_batches(begun.pairs(), environment.check_killed), self._tabled):
                self._split(tabled, places, batch)
            begun.clear()
            streamed = HashSplit(runs, "join-stream", 0)
            places = count()
            for batch in self._streamed:
                self._split(streamed, places, batch)
            # Rows that only the table has come after all others.
            matches = self._join_parts(runs, tabled.finish(), streamed.finish(), next(places), 0)
            if self._turned:
                yield ((key, (other, value)) for _, key, values, others in matches for value in values for other in others)
            else:
                yield ((key, (value, other)) for _, key, values, others in matches for value in values for other in others)

    def _split(self, split: HashSplit, places: Iterator[int], batch: list[Any]) -> None:
        try:
            rows = [(place, key, value) for (key, value), place in zip(batch, places, strict=False)]
            split.add(rows)
        except (TypeError, ValueError) as error:
            explain_bad_pairs(batch, error, self._place)
            raise

    def _join_parts(
        self, runs: Runs, tabled: list[Run | None], streamed: list[Run | None], end: int, depth: int
    ) -> Iterator[Matches]:
        parts = (
            self._join_part(runs, table_run, stream_run, end, depth)
            for table_run, stream_run in zip(tabled, streamed, strict=True)
            if (table_run is not None or self._keep_streamed) and (stream_run is not None or self._keep_table)
        )
        return merged_in_order(parts, runs, "joined")

    def _join_part(self, runs: Runs, tabled: Run | None, streamed: Run | None, end: int, depth: int) -> Iterator[Matches]:
        environment = self._environment
        table: dict[Any, list[Any]] = {}
        #: place of the first value of each key
        places: dict[Any, int] = {}
        #: values of keys that no split makes few enough, on disk
        large: dict[Any, SpilledValues] = {}
        row_count = 0
        with Reservation(environment.memory) as reservation:
            for batch in _batches(tabled):
                environment.check_killed()
                for place, key, value in self._without_large(large, batch) if large else batch:
                    known = table.get(key)
                    if known is None:
                        table[key] = [value]
                        places[key] = place
                    else:
                        known.append(value)
                    row_count += 1
                if depth < DEPTH_LIMIT and not reservation.fits(row_count, estimate_lists, table):
                    environment.metrics.memory_spilled_bytes += reservation.release()
                    row_count -= self._outgrow(table, row_count, large)
                    if not reservation.fits(row_count, estimate_lists, table):
                        break
            else:
                yield from self._match_part(table, large, places, streamed, end)
                return
        table, places, large = {}, {}, {}
        yield from self._join_parts(runs, _resplit(runs, tabled, depth + 1), _resplit(runs, streamed, depth + 1), end, depth + 1)

    def _outgrow(self, table: dict[Any, list[Any]], row_count: int, large: dict[Any, SpilledValues]) -> int:
        """Put the values of keys that have much of a table on disk; returns how many that were."""
        moved = 0
        for key in [key for key, values in table.items() if len(values) * LARGE_SHARE >= row_count]:
            values = table.pop(key)
            large[key] = SpilledValues(self._environment.spill_directory)
            large[key].extend(values)
            moved += len(values)
        return moved

    def _without_large(self, large: dict[Any, SpilledValues], batch: list[Any]) -> list[Any]:
        """Put values of keys whose others lie on disk there; returns the other rows."""
        others = []
        more: defaultdict[Any, list[Any]] = defaultdict(list)
        for row in batch:
            if row[1] in large:
                more[row[1]].append(row[2])
            else:
                others.append(row)
        for key, values in more.items():
            large[key].extend(values)
        return others

    def _match_part(
        self,
        table: dict[Any, list[Any]],
        large: dict[Any, SpilledValues],
        places: dict[Any, int],
        streamed: Run | None,
        end: int,
    ) -> Iterator[Matches]:
        self._environment.metrics.disk_spilled_bytes += sum(values.disk_bytes for values in large.values())
        missing = _NONE if self._keep_streamed else None
        seen: set[Any] = set()
        for batch in _batches(streamed):
            self._environment.check_killed()
            for place, key, value in batch:
                others = table.get(key, missing)
                if key in large:
                    for some in large[key].batches():
                        yield place, key, (value,), some
                elif others is not None:
                    yield place, key, (value,), others
            if self._keep_table:
                seen.update(key for _, key, _ in batch)
        if self._keep_table:
            alone = sorted((places[key], key) for key in chain(table, large) if key not in seen)
            for place, key in alone:
                for some in large[key].batches() if key in large else (table[key],):
                    yield end + place, key, _NONE, some


def _batches(run: Run | None) -> Iterator[list[Any]]:
    return iter(()) if run is None else run.batches()


def _resplit(runs: Runs, run: Run | None, depth: int) -> list[Run | None]:
    split = HashSplit(runs, "join", depth)
    for batch in _batches(run):
        split.add(batch)
    if run is not None:
        run.delete()
    return split.finish()
