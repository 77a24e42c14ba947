"""The life of a task: what it may use, how it can end, and that nothing of it is left behind."""

from __future__ import annotations

import gc
import pickle
import sys
import threading
import zlib

import cloudpickle
import msgspec
import pytest

from flowkit.errors import FetchFailed, TaskOutOfMemory
from flowkit.execution.failure import raise_at_driver
from flowkit.execution.task_context import TaskContext
from flowkit.lineage.kernels import Collection, IntegerRange, Result, StageProgram, Step
from flowkit.model.job_spec import INLINE_LIMIT_BYTES, Content
from flowkit.model.storage_level import StorageLevel
from flowkit.model.task import (
    ContentMissing,
    ExceptionFailure,
    FetchFailure,
    InlineResult,
    MemoryFailure,
    StoredResult,
    TaskFailed,
    TaskSucceeded,
)
from flowkit.storage.content import PIECE_BYTES, ContentStore, content_id, manifest_of


def assert_nothing_is_left(bench):
    bench.wait_until_idle()
    memory = bench.executor.statistics().memory
    assert memory.execution_bytes == 0
    assert memory.task_count == 0
    spill = bench.host_directory.base / "app-test" / "spill"
    assert not spill.exists() or not list(spill.iterdir())


# -- context


def test_a_task_reads_every_field_of_its_context(bench):
    def fields(partition, iterator):
        context = TaskContext.get()
        return {name: getattr(context, name) for name in TaskContext.__slots__ if not name.startswith("_") and name != "metrics"}

    bench.define(fields, stage=3, num_partitions=40, stage_attempt=2)
    bench.launch(17, stage=3, stage_attempt=2)
    value = bench.value(17)
    assert value.pop("local_properties") == {"pool": "adhoc"}
    assert value == {
        "added": {},
        "app_id": "app-test",
        "stage_id": 3,
        "stage_attempt_number": 2,
        "partition_id": 17,
        "num_partitions": 40,
        "attempt_number": 0,
        "task_attempt_id": 17,
        "cpus": 1,
        "resources": {},
    }


def test_a_slot_has_no_context_between_tasks_not_even_after_a_failure(make_bench):
    bench = make_bench(slots=1)
    threads = []

    def fn(partition, iterator):
        raise ValueError("first")

    bench.define(fn)
    bench.launch(1)
    bench.failure(1)
    # The next report comes from the same thread, outside of a task.
    bench.executor._report = bench._note(lambda reports: threads.append((threading.current_thread().name, TaskContext.get())))
    bench.launch(2)
    bench.wait(lambda: len(threads) == 2)
    assert threads == [("flowkit slot 0", None)] * 2


def test_a_context_that_is_returned_does_not_become_the_drivers(bench):
    bench.define(lambda partition, iterator: TaskContext.get())
    bench.launch(1)
    assert bench.value(1).partition_id == 1
    assert TaskContext.get() is None


# -- listeners


def test_listeners_run_last_first_and_one_that_raises_fails_the_task(bench):
    def fn(partition, iterator):
        context = TaskContext.get()
        order = []
        context.add_task_completion_listener(lambda _: (_ for _ in ()).throw(KeyError(str(order))))
        for number in (1, 2, 3):
            context.add_task_completion_listener(lambda _, number=number: order.append(number))
        return "well so far"

    bench.define(fn)
    bench.launch(1)
    failure = bench.failure(1)
    assert failure.type_name == "flowkit.errors.TaskListenersFailed"
    assert "[3, 2, 1]" in failure.message
    assert not failure.fatal
    assert_nothing_is_left(bench)


def test_failure_listeners_get_the_exception_and_what_they_raise_is_noted_with_it(bench):
    def fn(partition, iterator):
        def listener(context, error):
            raise RuntimeError(f"heard {error!r}")

        TaskContext.get().add_task_failure_listener(listener)
        raise ValueError("the first cause")

    bench.define(fn)
    bench.launch(1)
    failure = bench.failure(1)
    assert failure.type_name == "ValueError"
    assert "heard ValueError('the first cause')" in failure.message


# -- results


def test_a_result_over_the_limit_is_kept_and_fetched_in_pieces(bench):
    bench.define(lambda partition, iterator: b"x" * (INLINE_LIMIT_BYTES + 1))
    bench.launch(1)
    result = bench.ending(1).result
    assert isinstance(result, StoredResult)
    pieces = [bench.executor.result_chunk(1, offset, 10_000) for offset in range(0, result.size_bytes, 10_000)]
    assert pickle.loads(b"".join(pieces)) == b"x" * (INLINE_LIMIT_BYTES + 1)
    bench.executor.release_results((1,))
    assert bench.executor.result_chunk(1, 0, 1) is None
    assert bench.executor.statistics().stored_result_count == 0


def test_a_result_at_the_limit_rides_in_the_report(bench):
    overhead = len(pickle.dumps(b"x" * 1_000, 5)) - 1_000
    bench.define(lambda partition, iterator: b"x" * (INLINE_LIMIT_BYTES - overhead))
    bench.launch(1)
    result = bench.ending(1).result
    assert isinstance(result, InlineResult)
    assert len(result.data) == INLINE_LIMIT_BYTES


def test_results_that_only_cloudpickle_can_pickle_arrive(bench):
    bench.define(lambda partition, iterator: lambda x: x + partition)
    bench.launch(5)
    assert bench.value(5)(1) == 6


def test_an_unpicklable_result_is_fatal_and_named(bench):
    bench.define(lambda partition, iterator: {"rows": [1, threading.Lock()]})
    bench.launch(1)
    failure = bench.failure(1)
    assert failure.type_name == "flowkit.errors.ResultNotPicklable"
    assert "lock at result['rows'][1]" in failure.message
    assert failure.fatal


# -- failures


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, RecursionError])
def test_whatever_user_code_raises_is_a_failure_and_the_slot_lives_on(make_bench, kind):
    bench = make_bench(slots=1)

    def fn(partition, iterator):
        if partition == 1:
            raise kind("by the user")
        return partition

    bench.define(fn)
    bench.launch(1, 2)
    failure = bench.failure(1)
    assert isinstance(failure, ExceptionFailure)
    assert failure.type_name == kind.__name__
    assert not failure.fatal
    assert bench.value(2) == 2
    assert_nothing_is_left(bench)


@pytest.mark.parametrize("error", [MemoryError(), TaskOutOfMemory("no room for a row")])
def test_running_out_of_memory_is_its_own_failure(bench, error):
    def fn(partition, iterator):
        raise error

    bench.define(fn)
    bench.launch(1)
    assert isinstance(bench.failure(1), MemoryFailure)


def fail_to_fetch():
    raise FetchFailed("gone", failure=FetchFailure(3, 1, 9, "host-a", "missing", "gone", epoch=4))


def test_a_failed_fetch_is_reported_as_such_even_if_user_code_wraps_it(bench):
    def fn(partition, iterator):
        try:
            fail_to_fetch()
        except Exception as error:
            if partition == 2:
                raise ValueError("could not read my input") from error
            raise

    bench.define(fn)
    bench.launch(1, 2)
    for attempt in (1, 2):
        assert bench.failure(attempt) == FetchFailure(3, 1, 9, "host-a", "missing", "gone", epoch=4)


def test_an_exception_that_cannot_even_be_shown_is_still_reported(bench):
    class Hostile(Exception):
        def __str__(self):
            raise RuntimeError("no")

        __repr__ = __str__

        def __reduce__(self):
            raise RuntimeError("no")

    def fn(partition, iterator):
        raise Hostile

    bench.define(fn)
    bench.launch(1)
    failure = bench.failure(1)
    assert "Hostile" in failure.type_name
    assert type(raise_at_driver(failure)).__name__ == "Hostile"


def test_a_users_task_killed_without_a_kill_is_just_an_exception(bench):
    def fn(partition, iterator):
        from flowkit.errors import TaskKilled

        raise TaskKilled("says the user")

    bench.define(fn)
    bench.launch(1)
    assert isinstance(bench.failure(1), ExceptionFailure)


# -- what is left


def test_a_failed_task_leaves_no_memory_and_no_spill_files(bench):
    def fn(partition, iterator):
        environment = next(
            frame.f_locals["environment"]
            for frame in frames()
            if "environment" in frame.f_locals and hasattr(frame.f_locals["environment"], "spill_directory")
        )
        assert environment.memory.acquire(1_000_000) == 1_000_000
        (environment.spill_directory / "run-0").write_bytes(b"rows")
        raise ValueError("after it took what it could")

    def frames():
        import sys

        frame = sys._getframe()
        while frame is not None:
            yield frame
            frame = frame.f_back

    bench.define(fn)
    bench.launch(1)
    ending = bench.ending(1)
    assert ending.failure.type_name == "ValueError", ending.failure.message
    assert ending.metrics.leaked_bytes == 1_000_000
    assert ending.metrics.peak_memory_bytes == 1_000_000
    assert_nothing_is_left(bench)


def test_a_failed_task_keeps_none_of_its_objects_alive(make_bench):
    import weakref

    bench = make_bench(slots=1)
    alive = weakref.WeakSet()
    sys.modules["flowkit_test_alive"] = type(sys)("flowkit_test_alive")
    sys.modules["flowkit_test_alive"].alive = alive

    def fn(partition, iterator):
        import flowkit_test_alive

        class Thing:
            pass

        thing = Thing()
        flowkit_test_alive.alive.add(thing)
        raise ValueError(thing.__class__.__name__)

    try:
        bench.define(fn)
        gc.disable()
        bench.launch(1)
        bench.failure(1)
        bench.wait_until_idle()
        assert len(alive) == 0
    finally:
        gc.enable()
        del sys.modules["flowkit_test_alive"]


# -- programs


class CountedLoad:
    """Has no room for a state."""

    __slots__ = ()
    loads = 0

    def __call__(self, partition, iterator):
        return partition

    def __reduce__(self):
        return _counted_load, ()


def _counted_load():
    CountedLoad.loads += 1
    return CountedLoad()


def test_a_program_is_unpickled_once_for_all_tasks_and_attempts_of_its_stage(make_bench):
    bench = make_bench(slots=4)
    CountedLoad.loads = 0
    bench.define(CountedLoad())
    bench.launch(*range(20))
    for attempt in range(20):
        assert bench.value(attempt) == attempt
    bench.define(CountedLoad(), stage_attempt=1)
    bench.launch(20, stage_attempt=1)
    assert bench.value(20) == 20
    assert CountedLoad.loads == 1
    loaded = [each for each in bench.reports if isinstance(each, TaskSucceeded) and each.metrics.deserialise_s > 0]
    assert len(loaded) == 1, "the time it took is in the metrics of the task that did it"


def test_a_program_that_remembers_is_unpickled_for_each_task(make_bench):
    bench = make_bench(slots=4)
    seen = []
    bench.define(lambda partition, iterator: (seen.append(partition), len(seen))[1])
    bench.launch(*range(20))
    assert [bench.value(attempt) for attempt in range(20)] == [1] * 20


def test_a_module_that_is_missing_here_is_named_with_the_executor_and_fatal(bench):
    data = b"cflowkit_no_such_module\nf\n."
    bench.define_bytes(data)
    bench.launch(1)
    failure = bench.failure(1)
    assert failure.type_name == "ModuleNotFoundError"
    assert "'flowkit_no_such_module' on executor tcp://127.0.0.1:1#a" in failure.message
    assert "install it" in failure.message
    assert failure.fatal


def test_a_program_that_is_no_program_is_fatal(bench):
    bench.define_bytes(b"not a pickle")
    bench.launch(1)
    assert bench.failure(1).fatal


# -- content


class Neighbours:
    """Other hosts, by address; what they have, and who was asked."""

    def __init__(self, **contents) -> None:
        self.contents = contents
        self.asked = []

    def describe_content(self, address, app, content, *, timeout_s):
        self.asked.append(address)
        match self.contents.get(address):
            case None:
                raise OSError("nobody there")
            case bytes() as data:
                return manifest_of(data)
            case _:
                raise KeyError(content)

    def fetch_piece(self, address, app, content, piece, digest, *, insist, timeout_s):
        return self.contents[address][piece * PIECE_BYTES : (piece + 1) * PIECE_BYTES]


def large_program() -> bytes:
    blob = b"x" * INLINE_LIMIT_BYTES
    source = Step(0, IntegerRange(0, 10, 1, 100), (), 100, "range", "test.py:1")
    return cloudpickle.dumps(StageProgram((source,), Result(lambda partition, iterator: len(blob))))


def test_a_large_program_is_fetched_once_from_whoever_has_it(make_bench):
    data = large_program()
    neighbours = Neighbours(b=..., c=b"other bytes", d=data)
    bench = make_bench(slots=4, transport=neighbours)
    bench.define_bytes(data, content_holders={content_id(data): tuple((f"host {each}", each) for each in "abcde")})
    bench.launch(*range(8))
    for attempt in range(8):
        assert bench.value(attempt) == INLINE_LIMIT_BYTES
    assert neighbours.asked.count("d") == 1
    assert len(neighbours.asked) == len(set(neighbours.asked))


def test_a_large_program_that_lies_on_this_host_is_not_fetched(make_bench):
    neighbours = Neighbours()
    bench = make_bench(transport=neighbours)
    data = large_program()
    ContentStore(bench.host_directory.application("app-test").content_directory).put(data)
    bench.define_bytes(data)
    bench.launch(1)
    assert bench.value(1) == INLINE_LIMIT_BYTES
    assert neighbours.asked == []


def test_content_nobody_has_is_asked_for_again_and_not_held_against_the_task(bench):
    data = large_program()
    bench.define_bytes(data)
    bench.launch(1)
    assert bench.failure(1) == ContentMissing((content_id(data),))


def test_a_collection_too_large_for_its_program_is_read_from_content(make_bench):
    rows = pickle.dumps(list(range(20_000)), 5)
    content = content_id(rows)
    bench = make_bench(transport=Neighbours(d=rows))
    source = Step(
        0, Collection(Content(content, len(rows)), ((0, len(rows), zlib.crc32(rows)),)), (), 1, "parallelize", "test.py:1"
    )
    bench.define_program(
        StageProgram((source,), Result(lambda partition, iterator: sum(iterator))),
        content_holders={content: (("host d", "d"),)},
    )
    bench.launch(0)
    assert bench.value(0) == sum(range(20_000))


# -- sources and metrics


def test_tasks_use_the_newest_definition_and_an_older_one_changes_nothing(bench):
    definition = bench.define(lambda partition, iterator: TaskContext.get().get_local_property("pool"))
    bench.executor.define_stage(msgspec.structs.replace(definition, version=2, properties={"pool": "new"}))
    bench.executor.define_stage(msgspec.structs.replace(definition, version=1, properties={"pool": "old"}))
    bench.launch(1)
    assert bench.value(1) == "new"


def test_a_task_measures_itself(bench):
    def fn(partition, iterator):
        import gc

        gc.collect()
        return sum(i * i for i in range(200_000))

    bench.define(fn)
    bench.launch(1)
    metrics = bench.ending(1).metrics
    assert metrics.run_s > 0
    assert 0 < metrics.cpu_s
    assert 0 < metrics.gc_s < metrics.run_s
    assert metrics.serialise_s > 0
    assert metrics.queued_s > 0
    assert metrics.deserialise_s > 0
    assert metrics.result_bytes > 0


def test_partitions_a_task_put_into_the_cache_before_it_failed_ride_in_its_report_too(bench):
    def fail(partition, iterator):
        raise ValueError(sum(iterator))

    source = Step(7, IntegerRange(0, 1_000, 1, 100), (), 100, "range", "test.py:1", level=StorageLevel.MEMORY_ONLY)
    bench.define_program(StageProgram((source,), Result(fail)))
    bench.launch(1)
    ending = bench.ending(1)
    assert isinstance(ending, TaskFailed)
    assert [(block.rdd, block.partition) for block in ending.cached] == [(7, 1)]


def test_partitions_a_task_put_into_the_cache_ride_in_its_report(bench):
    source = Step(7, IntegerRange(0, 1_000, 1, 100), (), 100, "range", "test.py:1", level=StorageLevel.MEMORY_ONLY)
    program = StageProgram((source,), Result(lambda partition, iterator: sum(iterator)))
    bench.define_program(program)
    bench.launch(1)
    assert bench.value(1) == sum(range(10, 20))
    [block] = bench.ending(1).cached
    assert (block.rdd, block.partition) == (7, 1)
    bench.launch(101)
    assert bench.value(101) == sum(range(10, 20))
    assert bench.ending(101).cached == ()
    assert bench.ending(101).metrics.cache_hits == 1
    bench.executor.drop_rdd("app-test", 7)
    bench.launch(201)
    assert len([*bench.ending(201).cached]) == 1
