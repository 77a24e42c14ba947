"""Aggregation, cogroup, join and sort against naive Python, in memory and with a budget that spills; same rows, same order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from operator import add
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit.errors import DataDamaged
from flowkit.execution import aggregate, spill
from flowkit.execution.records import as_chunks
from flowkit.execution.spilled_values import SpilledValues
from flowkit.lineage.kernels import (
    Aggregate,
    AggregationKind,
    Aggregator,
    CoGroup,
    IntegerRange,
    Join,
    JoinKind,
    MapPartitions,
    Result,
    ShuffleRead,
    ShuffleWrite,
    SortOrder,
    StageProgram,
    Step,
    StepInput,
    Window,
)
from flowkit.lineage.partitioners import HashPartitioner
from flowkit.model.ids import ShuffleId
from flowkit.storage.shuffle import writer
from tests.unit.execution.surroundings import Surroundings, chain_of, collect

KEYS = st.one_of(
    st.integers(-3, 12), st.sampled_from(["", "a", "b", "é"]), st.none(), st.tuples(st.integers(0, 2), st.text(max_size=1))
)
PAIRS = st.lists(st.tuples(KEYS, st.integers()), max_size=60)
FIXTURES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def rows_of(rows: Iterable[Any]) -> list[Any]:
    """Kernels of a source that yields the rows."""
    held = list(rows)
    return [IntegerRange(0, 1, 1, 1), MapPartitions(lambda _: iter(held))]


def many(count: int, keys: int, seed: int = 1) -> list[tuple[int, int]]:
    numbers = random.Random(seed)
    return [(numbers.randrange(keys), i) for i in range(count)]


def grouped(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, list[Any]]:
    table: dict[Any, list[Any]] = {}
    for key, value in pairs:
        table.setdefault(key, []).append(value)
    return table


def as_list(v: Any) -> list[Any]:
    return [v]


def append(values: list[Any], v: Any) -> list[Any]:
    values.append(v)
    return values


GENERAL = Aggregator(as_list, append, add)
GROUP = Aggregator(as_list, append, add, AggregationKind.GROUP, map_side=False)
REDUCE = Aggregator(lambda v: v, add, add, AggregationKind.REDUCE)
DISTINCT = Aggregator(lambda v: v, lambda a, b: a, lambda a, b: a, AggregationKind.DISTINCT)


def expected_of(aggregator: Aggregator, pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    match aggregator.kind:
        case AggregationKind.REDUCE:
            return [(k, sum(vs)) for k, vs in grouped(pairs).items()]
        case AggregationKind.DISTINCT:
            return [(k, None) for k in grouped(pairs)]
        case _:
            return list(grouped(pairs).items())


def prepared(aggregator: Aggregator, pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    return [(k, None) for k, _ in pairs] if aggregator.kind is AggregationKind.DISTINCT else pairs


AGGREGATORS = pytest.mark.parametrize("aggregator", [GENERAL, GROUP, REDUCE, DISTINCT], ids=lambda a: a.kind.value)


@AGGREGATORS
@FIXTURES
@given(pairs=PAIRS)
def test_a_narrow_aggregation_is_the_naive_one(surroundings: Surroundings, aggregator: Aggregator, pairs) -> None:
    program = chain_of(*rows_of(prepared(aggregator, pairs)), Aggregate(aggregator))
    assert surroundings.run(program) == expected_of(aggregator, pairs)


@AGGREGATORS
def test_a_spilled_aggregation_has_the_same_rows_in_the_same_order(tight: Surroundings, aggregator: Aggregator) -> None:
    pairs = many(20_000, 5_000)
    program = chain_of(*rows_of(prepared(aggregator, pairs)), Aggregate(aggregator))
    assert tight.run(program) == expected_of(aggregator, pairs)
    assert tight.metrics.disk_spilled_bytes > 0
    assert tight.metrics.memory_spilled_bytes > 0


def test_one_key_with_more_values_than_fit_ends(tight: Surroundings) -> None:
    pairs = [(7, i) for i in range(20_000)]
    assert tight.run(chain_of(*rows_of(pairs), Aggregate(GROUP))) == [(7, list(range(20_000)))]
    assert tight.metrics.disk_spilled_bytes > 0


def skewed(count: int, keys: int, hot: int, seed: int = 1) -> list[tuple[int, int]]:
    """Pairs of many keys, every other one of key ``hot``."""
    numbers = random.Random(seed)
    return [(hot if i % 2 else numbers.randrange(keys), i) for i in range(count)]


def test_the_values_of_a_key_too_large_for_memory_are_read_from_disk_as_often_as_one_likes(tight: Surroundings) -> None:
    pairs = skewed(40_000, 3_000, hot=11)
    found = tight.run(chain_of(*rows_of(pairs), Aggregate(GROUP)))
    assert found == list(grouped(pairs).items())
    hot = dict(found)[11]
    assert isinstance(hot, SpilledValues)
    assert [sum(hot) for _ in range(2)] == [sum(grouped(pairs)[11])] * 2
    assert sum(isinstance(values, SpilledValues) for _, values in found) == 1
    assert not list(tight.last.spill_directory.iterdir())


def test_both_sides_of_a_cogroup_may_be_too_large_for_memory(tight: Surroundings) -> None:
    left, right = skewed(20_000, 2_000, hot=5), skewed(20_000, 3_000, hot=5, seed=2)
    found = tight.run(two_inputs(left, right, CoGroup((None, None))))
    assert found == naive_cogroup(left, right)
    assert [isinstance(values, SpilledValues) for values in dict(found)[5]] == [True, True]


@pytest.mark.parametrize("kind", list(JoinKind))
def test_a_join_with_a_key_too_large_for_memory_is_the_naive_one(tight: Surroundings, kind: JoinKind) -> None:
    many_partners, few = skewed(20_000, 3_000, hot=5), [(5, "a"), (6, "b"), (5, "c"), (-1, "d")]
    for left, right in [(few, many_partners), (many_partners, few)]:
        assert tight.run(two_inputs(left, right, Join(kind, (None, None)))) == naive_join(kind, left, right)


@AGGREGATORS
@pytest.mark.parametrize("map_side", [False, True])
@pytest.mark.parametrize("memory", ["surroundings", "tight"])
def test_an_aggregation_over_a_shuffle_is_the_naive_one(request, memory: str, aggregator: Aggregator, map_side: bool) -> None:
    around: Surroundings = request.getfixturevalue(memory)
    aggregator = Aggregator(aggregator.create, aggregator.merge_value, aggregator.merge_combiners, aggregator.kind, map_side)
    inputs = [many(6_000, 2_000, seed) for seed in (1, 2)]
    write = ShuffleWrite(ShuffleId(1), HashPartitioner(2), aggregator if map_side else None)
    around.write(1, [two_partitions(chain_of(*rows_of(prepared(aggregator, pairs)), output=write)) for pairs in inputs])
    read = chain_of(ShuffleRead(ShuffleId(1), aggregator), num_partitions=2)
    placed = HashPartitioner(2)
    both = list(itertools.chain(*inputs))
    for partition in range(2):
        mine = [pair for pair in both if placed.partition_of(pair[0]) == partition]
        assert around.run(read, partition) == expected_of(aggregator, mine)


def two_partitions(program: StageProgram) -> StageProgram:
    first, second = program.steps
    return StageProgram(
        (
            Step(first.rdd, IntegerRange(0, 2, 1, 2), (), 2, first.operation, first.call_site),
            Step(second.rdd, second.kernel, (StepInput(0, Window(0, 2)),), 2, second.operation, second.call_site),
        ),
        program.output,
    )


def combine(surroundings: Surroundings, pairs: list[tuple[Any, Any]], aggregator: Aggregator) -> list[tuple[Any, Any]]:
    batches = (pairs[i : i + 500] for i in range(0, len(pairs), 500))
    return list(aggregate.combine_map_side(as_chunks(batches), aggregator, surroundings.environment(), "here"))


def test_combining_gives_up_where_keys_hardly_repeat(surroundings: Surroundings, monkeypatch) -> None:
    monkeypatch.setattr(aggregate, "TRIAL_ROWS", 2_000)
    different = [(i, 1) for i in range(5_000)] + [(1, 1)] * 3_000
    combined = combine(surroundings, different, REDUCE)
    assert len(combined) > 5_000  # the last rows were not brought together with the first
    assert sum(v for _, v in combined) == 8_000
    alike = [(i % 100, 1) for i in range(5_000)]
    assert combine(surroundings, alike, REDUCE) == [(k, 50) for k in range(100)]


def test_a_full_table_is_passed_on_by_the_map_side(tight: Surroundings) -> None:
    combined = combine(tight, [(i % 1000, 1) for i in range(20_000)], REDUCE)
    assert len(combined) > 1000
    assert sum(v for _, v in combined) == 20_000
    assert tight.metrics.disk_spilled_bytes == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, 2), ([1], 2)], r"keys that can be hashed, but got \[1\] \(list\)"),
        ([(1, 2), 3], r"needs \(key, value\) pairs, but got 3 \(int\)"),
        ([(1, 2, 3)], r"needs \(key, value\) pairs, but got \(1, 2, 3\) \(tuple\)"),
    ],
)
@AGGREGATORS
def test_rows_that_cannot_be_aggregated_are_named(surroundings: Surroundings, aggregator: Aggregator, rows, message: str) -> None:
    with pytest.raises(TypeError, match=message) as caught:
        surroundings.run(chain_of(*rows_of(rows), Aggregate(aggregator)))
    assert "aggregate at here.py:2" in str(caught.value)


def test_errors_of_the_users_reducer_are_left_as_they_are(surroundings: Surroundings) -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        surroundings.run(chain_of(*rows_of([(1, 2), (1, "a")]), Aggregate(REDUCE)))


# -- cogroup and join


def two_inputs(left: list[Any], right: list[Any], kernel: CoGroup | Join) -> StageProgram:
    (source, left_rows), (_, right_rows) = rows_of(left), rows_of(right)
    steps = (
        Step(0, source, (), 1, "range", ""),
        Step(1, left_rows, (StepInput(0, Window(0, 1)),), 1, "left", ""),
        Step(2, right_rows, (StepInput(0, Window(0, 1)),), 1, "right", ""),
        Step(3, kernel, (StepInput(1, Window(0, 1)), StepInput(2, Window(0, 1))), 1, "join", "here.py:3"),
    )
    return StageProgram(steps, Result(collect))


def naive_cogroup(left: list[Any], right: list[Any]) -> list[Any]:
    one, two = grouped(left), grouped(right)
    return [(k, (one.get(k, []), two.get(k, []))) for k in dict.fromkeys([*one, *two])]


def naive_join(kind: JoinKind, left: list[Any], right: list[Any]) -> list[Any]:
    if kind is JoinKind.RIGHT:
        return [(k, (v, w)) for k, (w, v) in naive_join(JoinKind.LEFT, right, left)]
    table = grouped(right)
    missing = [None] if kind in {JoinKind.LEFT, JoinKind.FULL} else []
    rows = [(k, (v, w)) for k, v in left for w in table.get(k, missing)]
    if kind is JoinKind.FULL:
        seen = {k for k, _ in left}
        rows += [(k, (None, w)) for k, ws in table.items() if k not in seen for w in ws]
    return rows


@FIXTURES
@given(left=PAIRS, right=PAIRS)
def test_a_cogroup_is_the_naive_one(surroundings: Surroundings, left, right) -> None:
    assert surroundings.run(two_inputs(left, right, CoGroup((None, None)))) == naive_cogroup(left, right)


@pytest.mark.parametrize("kind", list(JoinKind))
@FIXTURES
@given(left=PAIRS, right=PAIRS)
def test_a_join_is_the_naive_one(surroundings: Surroundings, kind: JoinKind, left, right) -> None:
    assert surroundings.run(two_inputs(left, right, Join(kind, (None, None)))) == naive_join(kind, left, right)


@pytest.mark.parametrize(("left_keys", "right_keys"), [(2_000, 4_000), (4_000, 1_000), (1, 300)])
def test_a_spilled_cogroup_has_the_same_rows_in_the_same_order(tight: Surroundings, left_keys: int, right_keys: int) -> None:
    left, right = many(5_000, left_keys), many(6_000, right_keys, 2)
    assert tight.run(two_inputs(left, right, CoGroup((None, None)))) == naive_cogroup(left, right)
    assert tight.metrics.disk_spilled_bytes > 0


@pytest.mark.parametrize("kind", list(JoinKind))
@pytest.mark.parametrize(("left_keys", "right_keys"), [(2_000, 4_000), (4_000, 1_000), (3, 300)])
def test_a_spilled_join_has_the_same_rows_in_the_same_order(tight: Surroundings, kind, left_keys: int, right_keys: int) -> None:
    left, right = many(4_000, left_keys), many(4_000, right_keys, 2)
    assert tight.run(two_inputs(left, right, Join(kind, (None, None)))) == naive_join(kind, left, right)
    assert tight.metrics.disk_spilled_bytes > 0


def test_a_join_of_many_equal_keys_is_streamed(surroundings: Surroundings) -> None:
    program = two_inputs([(1, i) for i in range(10_000)], [(1, i) for i in range(10_000)], Join(JoinKind.INNER, (None, None)))
    program = StageProgram(program.steps, Result(lambda _, it: list(itertools.islice(it, 3))))
    assert surroundings.run(program) == [(1, (0, 0)), (1, (0, 1)), (1, (0, 2))]


@pytest.mark.parametrize("kind", list(JoinKind))
@pytest.mark.parametrize("many_partners", [False, True])
def test_rows_that_cannot_be_joined_are_named(surroundings: Surroundings, kind: JoinKind, many_partners: bool) -> None:
    good = [(1, 2)] * (100 if many_partners else 1)
    for left, right in [([({}, 1)], good), (good, [({}, 1)]), ([5], good), (good, [5])]:
        with pytest.raises(TypeError, match=r"join at here.py:3 needs"):
            surroundings.run(two_inputs(left, right, Join(kind, (None, None))))


def test_a_side_of_a_join_may_come_from_a_shuffle(surroundings: Surroundings) -> None:
    pairs = many(1_000, 50)
    surroundings.write(4, [chain_of(*rows_of(pairs), output=ShuffleWrite(ShuffleId(4), HashPartitioner(1)))])
    program = two_inputs(pairs, pairs, Join(JoinKind.INNER, (None, ShuffleId(4))))
    steps = (*program.steps[:2], Step(2, program.steps[3].kernel, (StepInput(1, Window(0, 1)),), 1, "join", ""))
    assert surroundings.run(StageProgram(steps, program.output)) == naive_join(JoinKind.INNER, pairs, pairs)


# -- sort


SORTABLE = st.one_of(
    st.lists(st.tuples(st.integers(-(2**70), 2**70), st.integers()), max_size=50),
    st.lists(st.tuples(st.floats(allow_nan=False), st.integers()), max_size=50),
    st.lists(st.tuples(st.text(max_size=2), st.integers()), max_size=50),
)


def sort(around: Surroundings, pairs: list[Any], order: SortOrder) -> list[Any]:
    around.write(9, [chain_of(*rows_of(pairs), output=ShuffleWrite(ShuffleId(9), HashPartitioner(1)))])
    return around.run(chain_of(ShuffleRead(ShuffleId(9), None, order)))


@pytest.mark.parametrize("descending", [False, True])
@FIXTURES
@given(pairs=SORTABLE, repeat=st.sampled_from([1, 40]))
def test_sorting_is_what_sorted_does(surroundings: Surroundings, descending: bool, pairs, repeat: int) -> None:
    pairs = [(k, (v, i)) for i in range(repeat) for k, v in pairs]
    assert sort(surroundings, pairs, SortOrder(None, descending)) == sorted(pairs, key=lambda p: p[0], reverse=descending)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("key", [None, lambda k: k % 100, lambda k: str(k % 10)], ids=["own", "number", "text"])
@pytest.mark.parametrize("memory", ["surroundings", "tight"])
def test_equal_keys_keep_their_order_also_when_spilled(request, memory: str, descending: bool, key) -> None:
    around: Surroundings = request.getfixturevalue(memory)
    pairs = many(20_000, 300)
    expected = sorted(pairs, key=lambda p: p[0] if key is None else key(p[0]), reverse=descending)
    assert sort(around, pairs, SortOrder(key, descending)) == expected
    assert (around.metrics.disk_spilled_bytes > 0) == (memory == "tight")


def test_more_runs_than_are_open_at_once_are_merged_in_rounds(tight: Surroundings, monkeypatch) -> None:
    monkeypatch.setattr("flowkit.execution.sort.FANOUT", 2)
    pairs = many(5_000, 50)
    assert sort(tight, pairs, SortOrder()) == sorted(pairs, key=lambda p: p[0])


def test_keys_of_mixed_types_fail_as_python_does(surroundings: Surroundings) -> None:
    with pytest.raises(TypeError, match="not supported between"):
        sort(surroundings, [(1, 1), ("a", 1)], SortOrder())


def test_a_sort_key_that_leaks_stop_iteration_fails_the_task(surroundings: Surroundings) -> None:
    from flowkit.errors import StopIterationInTask

    def leak(key: int) -> int:
        if key == 2:
            raise StopIteration
        return key

    with pytest.raises(StopIterationInTask, match="leak"):
        sort(surroundings, [(0, 0), (1, 1), (2, 2)], SortOrder(leak))


def test_an_aggregated_shuffle_can_be_sorted_too(surroundings: Surroundings) -> None:
    pairs = many(3_000, 400)
    surroundings.write(2, [chain_of(*rows_of(pairs), output=ShuffleWrite(ShuffleId(2), HashPartitioner(1)))])
    read = ShuffleRead(ShuffleId(2), GROUP, SortOrder(None, descending=True))
    assert surroundings.run(chain_of(read)) == sorted(grouped(pairs).items(), reverse=True)


# -- killing


@pytest.mark.parametrize("kernel", [Aggregate(GROUP), Aggregate(REDUCE)])
def test_a_kill_is_heard_between_batches_and_leaves_nothing(tight: Surroundings, kernel: Aggregate) -> None:
    class Killed(Exception):
        pass

    checks = itertools.count()

    def check() -> None:
        if next(checks) == 30:
            raise Killed

    tight.check_killed = check
    with pytest.raises(Killed):
        tight.run(chain_of(*rows_of(many(100_000, 50_000)), kernel))
    assert tight.last is not None
    assert tight.last.memory.used_bytes == 0
    assert not list(tight.last.spill_directory.iterdir())


def test_splits_of_splits_do_not_repeat_the_split_above() -> None:
    keys = list(range(100_000))
    above = spill._parts(keys, 0)
    fallen = [key for key, part in zip(keys, above, strict=True) if part == 3]
    below = spill._parts(fallen, 1)
    counts = [int((below == part).sum()) for part in range(spill.FANOUT)]
    assert min(counts) > len(fallen) / spill.FANOUT / 2


def test_a_key_that_outgrows_memory_late_is_still_one_key(tight: Surroundings) -> None:
    """Many keys fill part after part, then one of them, seen among them, comes again and again."""
    pairs = [*many(20_000, 2_000), *((11, i) for i in range(30_000)), *many(5_000, 2_000, 3)]
    assert tight.run(chain_of(*rows_of(pairs), Aggregate(GROUP))) == list(grouped(pairs).items())
    right = many(3_000, 500, 2)
    assert tight.run(two_inputs(pairs, right, CoGroup((None, None)))) == naive_cogroup(pairs, right)


@pytest.mark.parametrize("kind", list(JoinKind))
def test_a_large_key_without_partner_keeps_its_place_among_the_others(tight: Surroundings, kind: JoinKind) -> None:
    table, streamed = skewed(20_000, 3_000, hot=5), [(n, "x") for n in range(2_000, 2_500)]
    for left, right in [(streamed, table), (table, streamed)]:
        assert tight.run(two_inputs(left, right, Join(kind, (None, None)))) == naive_join(kind, left, right)


def test_a_shuffle_whose_spill_was_damaged_is_written_anew_and_never_blessed_by_a_checksum(
    tight: Surroundings, monkeypatch
) -> None:
    real, damage = writer._copy_part, [True]

    def copy_damaged(source, spill, reducer, *rest):
        if damage and spill.ends[0]:
            damage.clear()
            data = bytearray(spill.path.read_bytes())
            data[spill.ends[0] // 2] ^= 1
            spill.path.write_bytes(data)
        return real(source, spill, reducer, *rest)

    monkeypatch.setattr(writer, "_copy_part", copy_damaged)
    program = chain_of(*rows_of(many(40_000, 5_000)), output=ShuffleWrite(ShuffleId(7), HashPartitioner(3)))
    with pytest.raises(DataDamaged, match="part 0 does not fit"):
        tight.write(7, [program])
    assert not damage
    assert not list(tight.files.directory.rglob("*.data"))
    tight.write(7, [program])
