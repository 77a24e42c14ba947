"""A map stage and a reduce stage through one executor: outputs, sources that move, outputs that are gone."""

from __future__ import annotations

import random
import time
from operator import add

import pytest

from flowkit.lineage.kernels import (
    AggregationKind,
    Aggregator,
    IntegerRange,
    Map,
    Result,
    ShuffleRead,
    ShuffleWrite,
    StageProgram,
    Step,
    StepInput,
    Window,
)
from flowkit.lineage.partitioners import HashPartitioner
from flowkit.model.map_status import MapStatus, ShuffleSources
from flowkit.model.storage_level import StorageLevel
from flowkit.model.task import FetchFailure, KilledFailure, MapOutput, TaskFailed, TaskLaunch, TaskSucceeded

MAPS, REDUCERS = 4, 3


def identity(value):
    return value


SUM = Aggregator(identity, add, add, AggregationKind.REDUCE)


@pytest.fixture
def shuffled(bench):
    """A bench whose map stage (stage 0, attempts 0 to 3) has run; and the statuses of its outputs."""
    numbers = Step(0, IntegerRange(0, 1_000, 1, MAPS), (), MAPS, "range", "test.py:1")
    pairs = Step(1, Map(lambda n: (n % 10, n)), (StepInput(0, Window(0, MAPS)),), MAPS, "map", "test.py:2")
    program = StageProgram((numbers, pairs), ShuffleWrite(5, HashPartitioner(REDUCERS), SUM))
    bench.define_program(program, num_partitions=MAPS, shuffle=5, num_reducers=REDUCERS)
    bench.launch(*range(MAPS))
    statuses = []
    for attempt in range(MAPS):
        result = bench.ending(attempt).result
        assert isinstance(result, MapOutput)
        assert isinstance(result.status, MapStatus)
        statuses.append(result.status)
    return bench, tuple(statuses)


def define_reduce(bench, statuses, *, version=0, epoch=1):
    read = Step(2, ShuffleRead(5, SUM), (), REDUCERS, "reduce_by_key", "test.py:3")
    program = StageProgram((read,), Result(lambda partition, iterator: dict(iterator)))
    sources = ShuffleSources(5, epoch, statuses, {bench.host_directory.token: ("tcp://127.0.0.1:1",)})
    bench.define_program(program, stage=1, version=version, num_partitions=REDUCERS, sources=(sources,))


def test_what_was_mapped_is_reduced(shuffled):
    bench, statuses = shuffled
    define_reduce(bench, statuses)
    bench.launch(100, 101, 102, stage=1)
    merged = {}
    for attempt in (100, 101, 102):
        merged |= bench.value(attempt)
    assert merged == {key: sum(range(key, 1_000, 10)) for key in range(10)}
    assert bench.ending(100).metrics.shuffle_local_bytes > 0
    assert bench.ending(0).metrics.shuffle_write_bytes > 0
    bench.wait_until_idle()
    assert bench.executor.statistics().memory.execution_bytes == 0


def test_a_lost_output_is_named_with_its_attempt_and_the_epoch_and_newer_sources_help(shuffled):
    bench, statuses = shuffled
    define_reduce(bench, statuses, epoch=7)
    files = bench.host_directory.application("app-test").shuffle_files
    files.path(5, 2, 2).unlink()
    bench.launch(100, stage=1)
    failure = bench.failure(100)
    assert isinstance(failure, FetchFailure)
    assert (failure.shuffle, failure.map_partition, failure.map_attempt, failure.reason, failure.epoch) == (5, 2, 2, "missing", 7)

    bench.executor.launch([TaskLaunch(202, "app-test", 0, 0, 2, 1)])
    again = bench.ending(202).result.status
    define_reduce(bench, (*statuses[:2], again, *statuses[3:]), version=1, epoch=8)
    bench.launch(300, stage=1)
    assert bench.value(300)


def test_a_dropped_shuffle_leaves_no_files(shuffled):
    bench, _ = shuffled
    bench.executor.drop_shuffle("app-test", 5)
    bench.executor.close()
    assert not [path for path in (bench.host_directory.base / "app-test").rglob("*") if path.is_file()]


def test_dropping_what_never_was_makes_no_directory(bench):
    bench.executor.drop_shuffle("app-other", 5)
    bench.executor.close()
    assert not (bench.host_directory.base / "app-other").exists()


@pytest.mark.slow
# A kill between opening a file and entering its `with` leaves it to the reference count, which closes it and says so.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_kills_at_any_moment_leave_neither_memory_nor_claims_behind(bench):
    numbers = Step(0, IntegerRange(0, 20_000, 1, MAPS), (), MAPS, "range", "test.py:1", level=StorageLevel.MEMORY_ONLY)
    pairs = Step(1, Map(lambda n: (n % 500, n)), (StepInput(0, Window(0, MAPS)),), MAPS, "map", "test.py:2")
    program = StageProgram((numbers, pairs), ShuffleWrite(5, HashPartitioner(REDUCERS), SUM))
    bench.define_program(program, num_partitions=MAPS, shuffle=5, num_reducers=REDUCERS)
    rng = random.Random(7)
    killed = 0
    for first in range(0, 400, 2):
        attempts = (first, first + 1)
        # The same partition twice, mostly: one computes what both want to cache.
        bench.executor.launch([TaskLaunch(attempt, "app-test", 0, 0, rng.choice((0, 0, 1)), 0) for attempt in attempts])
        until = time.perf_counter() + rng.random() * 0.006
        while time.perf_counter() < until:
            pass
        bench.executor.kill(attempts, "at any moment")
        for attempt in attempts:
            ending = bench.ending(attempt)
            assert isinstance(ending, TaskSucceeded) or ending.failure == KilledFailure("at any moment")
            killed += isinstance(ending, TaskFailed) and ending.started_at > 0
        bench.wait_until_idle()
        bench.executor.drop_rdd("app-test", 0)
        memory = bench.executor.statistics().memory
        assert (memory.task_count, memory.execution_bytes, memory.storage_bytes) == (0, 0, 0)
    assert killed > 20, "hardly a kill met a running task: this test shows nothing"
    bench.launch(1_000)
    assert isinstance(bench.ending(1_000), TaskSucceeded), "nobody else's claim on the cached partition is left"
