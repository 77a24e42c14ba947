"""One partition of a stage, from its source to the action's function or a shuffle file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from operator import add, itemgetter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.errors import StopIterationInTask
from flowkit.execution.actions import ReduceRows
from flowkit.execution.narrow import BLOCK_ELEMENTS, NESTED_STEPS
from flowkit.execution.pipeline import TaskValue, run_program
from flowkit.lineage.kernels import (
    Aggregate,
    AggregationKind,
    Aggregator,
    Filter,
    FlatMap,
    FlatMapValues,
    IntegerRange,
    Map,
    MapPartitions,
    MapValues,
    Result,
    ShuffleRead,
    ShuffleWrite,
    StageProgram,
    Step,
    StepInput,
    Union,
    Window,
)
from flowkit.lineage.partitioners import FunctionPartitioner, HashPartitioner, RangePartitioner
from flowkit.model.ids import RddId, ShuffleId
from flowkit.model.storage_level import StorageLevel
from flowkit.storage.blocks.block_files import BlockFile, BlockFiles, BlockVolumes
from flowkit.storage.blocks.block_store import BlockStore
from tests.unit.execution.surroundings import Surroundings, cached, chain_of, collect


def source(count: int, partitions: int = 1) -> IntegerRange:
    return IntegerRange(0, count, 1, partitions)


def plus_one(number: int) -> int:
    return number + 1


# -- what the steps mean


def test_element_wise_steps_do_what_the_builtins_do(surroundings: Surroundings) -> None:
    program = chain_of(
        source(10),
        Map(plus_one),
        Filter(lambda x: x % 2),
        FlatMap(lambda x: [(x, i) for i in range(2)]),
        MapValues(lambda v: v * 10),
        FlatMapValues(lambda v: [v] * (v // 10)),
    )
    assert surroundings.run(program) == [(x, 10) for x in range(1, 11, 2)]


def test_map_partitions_gets_the_iterator_and_where_asked_the_index(surroundings: Surroundings) -> None:
    assert surroundings.run(chain_of(source(4), MapPartitions(lambda it: [sum(it)]))) == [6]
    indexed = chain_of(
        IntegerRange(0, 10, 1, 5), MapPartitions(lambda i, it: ((i, x) for x in it), indexed=True), num_partitions=5
    )
    assert surroundings.run(indexed, 3) == [(3, 6), (3, 7)]


def test_map_partitions_that_returns_no_iterable_says_so(surroundings: Surroundings) -> None:
    with pytest.raises(TypeError, match=r"returned None \(NoneType\); it must return an iterable"):
        surroundings.run(chain_of(source(4), MapPartitions(lambda it: None)))


def test_a_union_takes_the_one_input_whose_window_holds_the_partition(surroundings: Surroundings) -> None:
    def boom(x: int) -> int:
        raise AssertionError("the other input was evaluated")

    steps = (
        Step(0, source(6, 2), (), 2, "range", ""),
        Step(1, source(3, 1), (), 1, "range", ""),
        Step(2, Map(boom), (StepInput(1, Window(0, 1)),), 1, "map", ""),
        Step(3, Union(), (StepInput(0, Window(0, 2)), StepInput(2, Window(2, 1))), 3, "union", ""),
        Step(4, Map(plus_one), (StepInput(3, Window(0, 3)),), 3, "map", ""),
    )
    program = StageProgram(steps, Result(collect))
    assert surroundings.run(program, 1) == [4, 5, 6]
    with pytest.raises(AssertionError, match="other input"):
        surroundings.run(program, 2)


def test_a_shuffle_is_written_by_one_stage_and_read_by_the_next(surroundings: Surroundings) -> None:
    count = Aggregator(lambda v: v, add, add, AggregationKind.REDUCE)
    write = ShuffleWrite(ShuffleId(7), HashPartitioner(3), count)
    maps = chain_of(IntegerRange(0, 100, 1, 2), Map(lambda x: (x % 10, 1)), output=write, num_partitions=2)
    surroundings.write(7, [maps, maps])
    read = chain_of(ShuffleRead(ShuffleId(7), count), num_partitions=3)
    parts = [surroundings.run(read, p) for p in range(3)]
    assert sorted(pair for part in parts for pair in part) == [(k, 10) for k in range(10)]
    assert surroundings.written[ShuffleId(7)][0].rows == 10  # combined before it was written


# -- long chains


@pytest.mark.parametrize("stack_bytes", [8 << 20, 64 << 20])
def test_ten_thousand_maps_run_without_recursion(surroundings: Surroundings, stack_bytes: int) -> None:
    program = chain_of(source(3000), *[Map(plus_one)] * 10_000)
    got: list[object] = []
    before = threading.stack_size(stack_bytes)
    try:
        thread = threading.Thread(target=lambda: got.append(surroundings.run(program)))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert got == [[x + 10_000 for x in range(3000)]]


def test_a_long_chain_of_mixed_steps_says_what_a_short_one_does(surroundings: Surroundings) -> None:
    block = [Map(lambda x: (x, x)), MapValues(plus_one), Filter(lambda kv: kv[1] % 50 != 0), Map(itemgetter(1))]
    expected = list(range(3 * BLOCK_ELEMENTS))
    for _ in range(NESTED_STEPS):
        expected = [x + 1 for x in expected if (x + 1) % 50 != 0]
    assert surroundings.run(chain_of(source(3 * BLOCK_ELEMENTS), *block * NESTED_STEPS)) == expected


def test_flat_maps_in_a_long_chain_stay_lazy(surroundings: Surroundings) -> None:
    def endless(x: int):
        while True:
            yield x

    kernels = [Map(plus_one)] * (2 * NESTED_STEPS) + [FlatMap(endless)] + [Map(plus_one)] * 10
    program = chain_of(source(10**12), *kernels, fn=lambda _, it: list(islice(it, 3)))
    assert surroundings.run(program) == [2 * NESTED_STEPS + 10] * 3


def test_a_long_chain_of_cached_steps_needs_no_recursion(surroundings: Surroundings) -> None:
    length = 3000
    program = cached(chain_of(source(2), *[Map(plus_one)] * length), *range(1, length + 1))
    assert surroundings.run(program) == [length, length + 1]


# -- laziness


@pytest.mark.parametrize("steps", [1, 5, 2 * NESTED_STEPS])
def test_taking_one_element_computes_few(surroundings: Surroundings, steps: int) -> None:
    calls: list[int] = []

    def seen(x: int) -> int:
        calls.append(x)
        return x

    program = chain_of(source(10**9), *[Map(seen)] * steps, fn=lambda _, it: next(it))
    assert surroundings.run(program) == 0
    assert len(calls) <= steps


def test_an_action_that_stops_early_is_no_leak(surroundings: Surroundings) -> None:
    program = chain_of(source(10), Map(plus_one), MapPartitions(lambda it: islice(it, 2)), Map(plus_one))
    assert surroundings.run(program) == [2, 3]


# -- a StopIteration of user code


def stop_at(place: int):
    def leak(x):
        number = x[0] if isinstance(x, tuple) else x
        if number == place:
            raise StopIteration
        return x

    return leak


@pytest.mark.parametrize("place", [0, 5, 9], ids=["first", "middle", "last"])
@pytest.mark.parametrize(
    "kernels",
    [
        lambda fn: [Map(fn)],
        lambda fn: [Map(fn), Map(abs)],
        lambda fn: [Map(abs), Map(fn), Filter(lambda x: True), Map(abs)],
        lambda fn: [Filter(fn)],
        lambda fn: [FlatMap(lambda x: [fn(x)])],
        lambda fn: [Map(lambda x: (x, x)), MapValues(fn)],
        lambda fn: [Map(lambda x: (x, x)), FlatMapValues(lambda v: [fn(v)])],
        lambda fn: [Map(fn), MapPartitions(lambda it: [sum(1 for _ in it)])],
        lambda fn: [Map(fn), MapPartitions(list)],
        lambda fn: [MapPartitions(lambda it: (fn(x) for x in it))],
        lambda fn: [MapPartitions(lambda it: [fn(x) for x in it])],
        lambda fn: [Map(abs)] * 200 + [Map(fn)] + [Map(abs)] * 200,
        lambda fn: [Map(fn), Map(lambda x: (x, x)), Aggregate(Aggregator(abs, add, add, AggregationKind.GROUP))],
        lambda fn: [Map(lambda x: (x, x)), Aggregate(Aggregator(fn, add, add))],
        lambda fn: [Map(lambda x: (x, x)), Map(fn), Map(str)],
    ],
)
def test_a_leaked_stop_iteration_fails_the_task_wherever_it_is(surroundings: Surroundings, place: int, kernels) -> None:
    with pytest.raises(StopIterationInTask) as caught:
        surroundings.run(chain_of(source(10), *kernels(stop_at(place))))
    assert "leak" in str(caught.value) or "<lambda>" in str(caught.value)
    assert "here.py:" in str(caught.value)


def test_the_error_names_function_operation_and_call_site(surroundings: Surroundings) -> None:
    with pytest.raises(
        StopIterationInTask, match=r"stop_at.<locals>.leak, called by map at here.py:2, raised StopIteration"
    ) as caught:
        surroundings.run(chain_of(source(10), Map(abs), Map(stop_at(9)), Map(abs)))
    assert caught.value.function.endswith("leak")


def test_a_reducer_that_leaks_fails_the_task(surroundings: Surroundings) -> None:
    def reducer(a: int, b: int) -> int:
        raise StopIteration

    for kind in (AggregationKind.REDUCE, AggregationKind.GENERAL):
        aggregator = Aggregator(lambda v: v, reducer, reducer, kind)
        with pytest.raises(StopIterationInTask, match=r"reducer, called by aggregate at here.py:2"):
            surroundings.run(chain_of(source(10), Map(lambda x: (1, x)), Aggregate(aggregator)))
        write = ShuffleWrite(ShuffleId(1), HashPartitioner(2), aggregator)
        with pytest.raises(StopIterationInTask, match="reducer"):
            surroundings.run(chain_of(source(10), Map(lambda x: (1, x)), output=write))


def leak_at_seven(key: int) -> int:
    if key == 7:
        raise StopIteration
    return key


def test_a_partitioner_that_leaks_fails_the_task(surroundings: Surroundings) -> None:
    by_range = RangePartitioner(None, key=leak_at_seven, num_partitions=3)
    by_range.resolve([2, 5])
    for partitioner in (FunctionPartitioner(3, leak_at_seven), by_range):
        write = ShuffleWrite(ShuffleId(1), partitioner)
        with pytest.raises(StopIterationInTask, match="leak_at_seven, called by the shuffle after map at here.py:1"):
            surroundings.run(chain_of(source(10), Map(lambda x: (x, x)), output=write))


def test_the_function_inside_an_action_is_the_one_named(surroundings: Surroundings) -> None:
    def reducer(a: int, b: int) -> int:
        raise StopIteration

    with pytest.raises(StopIterationInTask, match=r"locals>.reducer, called by collect at here.py:99"):
        surroundings.run(chain_of(source(10), fn=ReduceRows(reducer)))


def test_a_leak_never_becomes_a_committed_shuffle_file(surroundings: Surroundings) -> None:
    write = ShuffleWrite(ShuffleId(1), HashPartitioner(2))
    with pytest.raises(StopIterationInTask):
        surroundings.run(chain_of(source(10), Map(lambda x: (x, x)), Map(stop_at(9)), output=write))
    assert not list(surroundings.directory.glob("shuffles/**/*.data"))


def test_an_action_whose_function_leaks_fails(surroundings: Surroundings) -> None:
    with pytest.raises(StopIterationInTask, match="collect at here.py:99"):
        surroundings.run(chain_of(source(0), fn=lambda _, it: next(it)))


# -- cached steps


def test_a_cached_step_is_computed_once_and_nothing_upstream_is_touched_later(surroundings: Surroundings) -> None:
    calls: list[int] = []

    def seen(x: int) -> int:
        calls.append(x)
        return x

    program = cached(chain_of(source(4), Map(seen), Map(plus_one)), 1)
    assert surroundings.run(program) == [1, 2, 3, 4]
    assert surroundings.last is not None
    assert [block.rdd for block in surroundings.last.cached_blocks] == [1]
    assert surroundings.metrics.cache_misses == 1
    assert surroundings.run(program) == [1, 2, 3, 4]
    assert calls == [0, 1, 2, 3]
    assert surroundings.metrics.cache_hits == 1
    assert surroundings.metrics.input_rows == 0  # not even the source was opened


def test_a_task_that_computes_a_piece_of_a_partition_neither_keeps_it_nor_takes_what_is_kept(surroundings: Surroundings) -> None:
    program = cached(chain_of(source(4), Map(plus_one)), 1)
    piece = surroundings.environment()
    piece.uses_cache = False
    assert run_program(program, piece) == TaskValue([1, 2, 3, 4])
    assert piece.cached_blocks == []
    assert surroundings.run(program) == [1, 2, 3, 4]
    assert surroundings.metrics.cache_misses == 1
    piece = surroundings.environment()
    piece.uses_cache = False
    assert run_program(program, piece) == TaskValue([1, 2, 3, 4])
    assert piece.metrics.cache_hits == 0


def test_a_cached_step_in_the_middle_of_another_cuts_off_both_inputs(surroundings: Surroundings) -> None:
    calls: list[int] = []

    def seen(x: int) -> int:
        calls.append(x)
        return x

    program = cached(chain_of(source(3), Map(seen), Map(seen), Map(seen)), 1, 3)
    assert surroundings.run(program) == [0, 1, 2]
    surroundings.cache.drop_rdd("app", 3)
    assert surroundings.run(program) == [0, 1, 2]
    assert len(calls) == 9 + 6 - 0  # the third and the second map again, not the first


def test_a_partition_evicted_between_plan_and_use_is_computed_again(surroundings: Surroundings, monkeypatch) -> None:
    program = cached(chain_of(source(3), Map(plus_one), Map(plus_one)), 1)
    monkeypatch.setattr(type(surroundings.cache), "holds", lambda *_: True)
    assert surroundings.run(program) == [2, 3, 4]


def test_a_partition_whose_file_is_dropped_as_soon_as_it_is_written_has_all_its_rows(
    surroundings: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = BlockFiles([tmp_path])
    read = files.read

    def dropped(file: BlockFile) -> Iterator[list[int]]:
        files.drop_rdd(RddId(1))
        return read(file)

    monkeypatch.setattr(files, "read", dropped)
    surroundings.cache = BlockStore(volumes=lambda app: BlockVolumes(files, lambda: files))
    program = cached(chain_of(source(3), Map(plus_one), Map(plus_one)), 1, level=StorageLevel.DISK_ONLY)
    assert surroundings.run(program) == [2, 3, 4]


def test_a_leak_is_not_cached(surroundings: Surroundings) -> None:
    program = cached(chain_of(source(5), Map(stop_at(4))), 1)
    for _ in range(2):
        with pytest.raises(StopIterationInTask):
            surroundings.run(program)


@given(numbers=st.lists(st.integers()), partitions=st.integers(1, 7))
def test_partitions_of_a_range_are_the_slices_of_parallelize(numbers: list[int], partitions: int) -> None:
    from flowkit.execution.sources import range_slice

    count = len(numbers)
    slices = [range_slice(IntegerRange(0, count, 1, partitions), p) for p in range(partitions)]
    assert slices == [range(int(i * count / partitions), int((i + 1) * count / partitions)) for i in range(partitions)]
