"""Random chains of operations against the same in plain Python, in this thread: with memory, and with next to none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from operator import add
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit.execution import executor, spill
from flowkit.testing.inline import inline_context


@dataclass
class Both:
    """An RDD of pairs and what it must yield; ``ordered`` while the order is defined too."""

    rdd: Any
    rows: list[tuple[Any, Any]]
    ordered: bool = True


Step = Callable[[Both, Any], Both]


def by_key(rows: list[tuple[Any, Any]]) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for key, value in rows:
        groups[key].append(value)
    return groups


def map_(n: int) -> Step:
    return lambda it, fc: Both(it.rdd.map(lambda kv: (kv[0] + n, kv[1])), [(k + n, v) for k, v in it.rows], it.ordered)


def filter_(n: int) -> Step:
    return lambda it, fc: Both(it.rdd.filter(lambda kv: kv[1] % n), [kv for kv in it.rows if kv[1] % n], it.ordered)


def flat_map(n: int) -> Step:
    return lambda it, fc: Both(
        it.rdd.flat_map(lambda kv: [kv] * (kv[1] % n)), [kv for kv in it.rows for _ in range(kv[1] % n)], it.ordered
    )


def map_values(n: int) -> Step:
    return lambda it, fc: Both(it.rdd.map_values(lambda v: v * n % 101), [(k, v * n % 101) for k, v in it.rows], it.ordered)


def reduce_by_key(parts: int | None) -> Step:
    return lambda it, fc: Both(it.rdd.reduce_by_key(add, parts), [(k, sum(vs)) for k, vs in by_key(it.rows).items()], False)


def group_by_key(parts: int | None) -> Step:
    return lambda it, fc: Both(
        it.rdd.group_by_key(parts).map_values(lambda vs: sum(vs) + len(vs)),
        [(k, sum(vs) + len(vs)) for k, vs in by_key(it.rows).items()],
        False,
    )


def partition_by(parts: int) -> Step:
    return lambda it, fc: Both(it.rdd.partition_by(parts), it.rows, False)


def distinct(parts: int | None) -> Step:
    return lambda it, fc: Both(it.rdd.distinct(parts), list(dict.fromkeys(it.rows)), False)


def sort_by(parts: int, ascending: bool) -> Step:
    def total(kv: tuple[Any, Any]) -> tuple[Any, Any]:
        return kv[1], kv[0]

    return lambda it, fc: Both(
        it.rdd.sort_by(total, num_partitions=parts, ascending=ascending), sorted(it.rows, key=total, reverse=not ascending), True
    )


def sort_by_key(parts: int) -> Step:
    return lambda it, fc: Both(
        it.rdd.sort_by_key(num_partitions=parts), sorted(it.rows, key=lambda kv: kv[0]) if it.ordered else it.rows, it.ordered
    )


def union_self(n: int) -> Step:
    # Of RDDs that lie alike, partitions are united one by one: then the order is another.
    return lambda it, fc: Both(
        it.rdd.union(it.rdd.map_values(lambda v: v + n)), [*it.rows, *((k, v + n) for k, v in it.rows)], False
    )


def join_sums(parts: int | None) -> Step:
    def step(it: Both, fc: Any) -> Both:
        sums = {k: sum(vs) for k, vs in by_key(it.rows).items()}
        rows = [(k, v + sums[k]) for k, v in it.rows]
        return Both(it.rdd.join(it.rdd.reduce_by_key(add), parts).map_values(lambda vw: vw[0] + vw[1]), rows, False)

    return step


def outer_join(parts: int | None) -> Step:
    def step(it: Both, fc: Any) -> Both:
        other = [(k, k * 7) for k in range(-2, 4)]
        groups, others = by_key(it.rows), dict(other)
        rows = [
            (k, (v or 0) - (others.get(k) or 0))
            for k in [*groups, *(k for k in others if k not in groups)]
            for v in groups.get(k, [None])
        ]
        joined = it.rdd.full_outer_join(fc.parallelize(other, 2), parts)
        return Both(joined.map_values(lambda vw: (vw[0] or 0) - (vw[1] or 0)), rows, False)

    return step


def index(_: int) -> Step:
    def step(it: Both, fc: Any) -> Both:
        if not it.ordered:
            return it
        return Both(it.rdd.zip_with_index().map(lambda row: (row[0][0], row[1])), [(k, i) for i, (k, _) in enumerate(it.rows)])

    return step


def cache(_: int) -> Step:
    return lambda it, fc: Both(it.rdd.cache(), it.rows, it.ordered)


def count_in_between(_: int) -> Step:
    def step(it: Both, fc: Any) -> Both:
        assert it.rdd.count() == len(it.rows)
        return it

    return step


few = st.integers(1, 4)
maybe = st.none() | few
steps = st.lists(
    st.one_of(
        st.builds(map_, st.integers(-3, 3)),
        st.builds(filter_, st.integers(2, 3)),
        st.builds(flat_map, few),
        st.builds(map_values, few),
        st.builds(reduce_by_key, maybe),
        st.builds(group_by_key, maybe),
        st.builds(partition_by, few),
        st.builds(distinct, maybe),
        st.builds(sort_by, few, st.booleans()),
        st.builds(sort_by_key, few),
        st.builds(union_self, few),
        st.builds(join_sums, maybe),
        st.builds(outer_join, maybe),
        st.builds(index, st.just(0)),
        st.builds(cache, st.just(0)),
        st.builds(count_in_between, st.just(0)),
    ),
    max_size=7,
)


@pytest.fixture(scope="module", params=["roomy", "tight"])
def fc(request):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "tight":
            patch.setattr(spill, "SMALLEST_TABLE_BYTES", 0)
            patch.setattr(executor, "usable_bytes", lambda *_: 5_000)
        with inline_context() as context:
            yield context


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.integers(-4, 4), st.integers(-50, 50)), max_size=40),
    parts=st.integers(1, 5),
    chain=steps,
)
def test_a_chain_yields_what_plain_python_yields(fc, rows, parts, chain):
    it = Both(fc.parallelize(rows, parts), rows)
    for step in chain:
        it = step(it, fc)
        if len(it.rows) > 3_000:
            break
    found = it.rdd.collect()
    assert (found if it.ordered else sorted(found)) == (it.rows if it.ordered else sorted(it.rows))
    assert it.rdd.collect() == found, "a second run must yield the same rows in the same order"
    assert it.rdd.take(3) == found[:3]
    text = it.rdd.explain()
    assert text.startswith("stage")
    # Wherever rows are said to lie by key, they do.
    if it.rdd.partitioner is not None:
        for place, part in enumerate(it.rdd.glom().collect()):
            assert all(it.rdd.partitioner.partition_of(key) == place for key, _ in part)
