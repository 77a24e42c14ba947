"""Every shuffle there is, each with what it must yield by plain Python: what networks, disks and soaks are tried on.

Builders take a Context and return an RDD; ``ordered`` where the order of its rows is promised.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import add
from typing import Any

import flowkit as fk

ROWS = [(f"key {i * 7 % 40}", i) for i in range(600)]
NUMBERS = [(i * 7_919 % 601 - 300, i) for i in range(600)]
OTHERS = [(f"key {i % 50}", -i) for i in range(90)]
#: Rows that take more than a message, so that blocks are fetched in pieces of their own.
LONG = [(i % 6, f"{i} " * 300) for i in range(240)]
PARTS, REDUCERS = 4, 3


@dataclass(frozen=True)
class Shuffle:
    """An operation with a shuffle, and its answer."""

    build: Callable[[fk.Context], fk.RDD]
    expected: Sequence[Any]
    ordered: bool = False

    def check(self, fc: fk.Context) -> None:
        """Run it; raise ``AssertionError`` unless it yields what it must."""
        self.compare(self.build(fc).collect())

    def compare(self, found: list[Any]) -> None:
        assert (found if self.ordered else sorted(found, key=repr)) == (
            list(self.expected) if self.ordered else sorted(self.expected, key=repr)
        )


def _groups(rows: Sequence[tuple[Any, Any]]) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = defaultdict(list)
    for key, value in rows:
        found[key].append(value)
    return dict(found)


_MINE, _OTHER = _groups(ROWS), _groups(OTHERS)
_KEYS = sorted(_MINE.keys() | _OTHER.keys())


def _rows(fc: fk.Context) -> fk.RDD:
    return fc.parallelize(ROWS, PARTS)


def _others(fc: fk.Context) -> fk.RDD:
    return fc.parallelize(OTHERS, PARTS)


def _numbers(fc: fk.Context) -> fk.RDD:
    return fc.parallelize(NUMBERS, PARTS)


def _pairs(left: bool, right: bool) -> list[Any]:
    return [
        (key, (v, w))
        for key in _KEYS
        for v in _MINE.get(key, [None] if right else [])
        for w in _OTHER.get(key, [None] if left else [])
    ]


SHUFFLES: dict[str, Shuffle] = {
    "partition_by": Shuffle(lambda fc: _rows(fc).partition_by(REDUCERS), ROWS),
    "repartition": Shuffle(lambda fc: _rows(fc).repartition(REDUCERS), ROWS),
    "reduce_by_key": Shuffle(lambda fc: _rows(fc).reduce_by_key(add, REDUCERS), [(k, sum(v)) for k, v in _MINE.items()]),
    "combine_by_key": Shuffle(
        lambda fc: _rows(fc).combine_by_key(lambda v: (v, 1), lambda c, v: (c[0] + v, c[1] + 1), _added, REDUCERS),
        [(k, (sum(v), len(v))) for k, v in _MINE.items()],
    ),
    "group_by_key": Shuffle(lambda fc: _rows(fc).group_by_key(REDUCERS).map_values(list), list(_MINE.items())),
    "group_by_key of numbers": Shuffle(
        lambda fc: _numbers(fc).map(lambda kv: (kv[0] % 9, kv[1])).group_by_key(REDUCERS).map_values(list),
        list(_groups([(k % 9, v) for k, v in NUMBERS]).items()),
    ),
    "group_by_key of long rows": Shuffle(
        lambda fc: fc.parallelize(LONG, PARTS).group_by_key(REDUCERS).map_values(list), list(_groups(LONG).items())
    ),
    "group_by": Shuffle(
        lambda fc: _numbers(fc).values().group_by(lambda x: x % 7, REDUCERS).map_values(list),
        list(_groups([(x % 7, x) for _, x in NUMBERS]).items()),
    ),
    "distinct": Shuffle(lambda fc: _rows(fc).keys().distinct(REDUCERS), list(_MINE)),
    "intersection": Shuffle(
        lambda fc: _rows(fc).keys().intersection(_others(fc).keys(), REDUCERS), [key for key in _MINE if key in _OTHER]
    ),
    "subtract": Shuffle(
        lambda fc: _others(fc).keys().subtract(_rows(fc).keys(), REDUCERS), [key for key, _ in OTHERS if key not in _MINE]
    ),
    "subtract_by_key": Shuffle(
        lambda fc: _others(fc).subtract_by_key(_rows(fc), REDUCERS), [row for row in OTHERS if row[0] not in _MINE]
    ),
    "sort_by_key": Shuffle(
        lambda fc: _numbers(fc).sort_by_key(num_partitions=REDUCERS), sorted(NUMBERS, key=lambda kv: kv[0]), True
    ),
    "sort_by descending": Shuffle(
        lambda fc: _rows(fc).sort_by(lambda kv: kv[0], ascending=False, num_partitions=REDUCERS),
        sorted(ROWS, key=lambda kv: kv[0], reverse=True),
        True,
    ),
    "repartition_and_sort_within_partitions": Shuffle(
        lambda fc: _numbers(fc).repartition_and_sort_within_partitions(1), sorted(NUMBERS, key=lambda kv: kv[0]), True
    ),
    "cogroup": Shuffle(
        lambda fc: _rows(fc).cogroup(_others(fc), num_partitions=REDUCERS).map_values(lambda both: tuple(map(list, both))),
        [(key, (_MINE.get(key, []), _OTHER.get(key, []))) for key in _KEYS],
    ),
    "join": Shuffle(lambda fc: _rows(fc).join(_others(fc), REDUCERS), _pairs(False, False)),
    "left_outer_join": Shuffle(lambda fc: _rows(fc).left_outer_join(_others(fc), REDUCERS), _pairs(True, False)),
    "right_outer_join": Shuffle(lambda fc: _rows(fc).right_outer_join(_others(fc), REDUCERS), _pairs(False, True)),
    "full_outer_join": Shuffle(lambda fc: _rows(fc).full_outer_join(_others(fc), REDUCERS), _pairs(True, True)),
    "three shuffles in a row": Shuffle(
        lambda fc: (
            _rows(fc)
            .reduce_by_key(add, REDUCERS)
            .map(lambda kv: (kv[1] % 5, 1))
            .reduce_by_key(add, 2)
            .sort_by_key(num_partitions=2)
        ),
        sorted((n, len(v)) for n, v in _groups([(sum(v) % 5, 1) for v in _MINE.values()]).items()),
        True,
    ),
}


def _added(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]
