"""What is for the driver is refused in tasks, and what is for tasks is refused on the driver: each with the call's name and what to do."""

from __future__ import annotations

import importlib
import pickle
import sys
import types

import pytest

import flowkit as fk
from flowkit.errors import AccumulatorMisused, ClosureError, DriverOnly, NestedAction, TaskOnly, UserError
from flowkit.jobs import Jobs
from flowkit.testing.inline import inline_context
from tests.unit.rdd.calls import BY_KEY, of_contexts, of_jobs, of_rdds, public_methods

#: found by tasks that run in the driver's process: nothing of it is pickled
HOLDER = "flowkit_tests_holder"

#: they change nothing, and run nothing
READING = {
    "RDD": {"explain", "hints", "debug_string", "barrier", "quarantined"},
    "Context": {"list_files", "live", "prepare"},
    "Jobs": {"ids_for_group", "info", "stage_info"},
}
#: what RDDs and collaborators ask of a Context, and what needs files that are not made here
NOT_TRIED = {
    "RDD": set(),
    "Context": {
        "cancellable", "drop_with", "facts", "new_rdd_id", "new_shuffle_id", "ran", "run_job", "run_job_partially", "unpersist",
        "action", "changing", "keep_last_failure", "from_arrow", "from_dask_bag", "from_pandas", "read_parquet", "checkpoint_file", "profile",
    },
    "Jobs": {"wait", "disown"},
}  # fmt: skip
KINDS = {"RDD": fk.RDD, "Context": fk.Context, "Jobs": Jobs}


@pytest.fixture(scope="module")
def fc(tmp_path_factory):
    place = tmp_path_factory.mktemp("calls")
    with inline_context() as context:
        rdd = context.range(4, num_partitions=2)
        pairs = rdd.map(lambda x: (x % 3, x))
        holder = sys.modules[HOLDER] = types.ModuleType(HOLDER)
        holder.context = context
        holder.calls = {
            "RDD": (rdd, pairs, of_rdds(rdd, pairs, place)),
            "Context": (context, context, of_contexts(rdd, place)),
            "Jobs": (context.jobs, context.jobs, of_jobs()),
        }
        holder.broadcast, holder.accumulator = context.broadcast(1), context.accumulator(0, name="rows")
        yield context
        del sys.modules[HOLDER]


def held():
    return importlib.import_module(HOLDER)


def in_task(fc, fn):
    """Call it in a task; what it raises."""

    def caught(_):
        try:
            fn()
        except Exception as error:
            return error

    (error,) = fc.range(1).map(caught).collect()
    return error


@pytest.mark.parametrize("kind", ["RDD", "Context", "Jobs"])
def test_every_operation_that_runs_or_changes_something_is_refused_in_a_task(fc, kind):
    thing, pairs, calls = held().calls[kind]
    names = public_methods(KINDS[kind]) - READING[kind] - NOT_TRIED[kind]
    assert names - set(calls) == set()
    wrong = {}
    for name in sorted(names):

        def call(kind=kind, name=name):
            thing, pairs, calls = held().calls[kind]
            getattr(pairs if name in BY_KEY else thing, name)(**calls[name])

        error = in_task(fc, call)
        if not isinstance(error, DriverOnly | AccumulatorMisused) or "driver" not in str(error):
            wrong[name] = error
    assert not wrong
    assert not fc._closed


@pytest.mark.parametrize("kind", ["RDD", "Context", "Jobs"])
def test_what_only_looks_is_let_through(fc, kind):
    for name in READING[kind] & set(held().calls[kind][2]):

        def call(kind=kind, name=name):
            thing, _, calls = held().calls[kind]
            getattr(thing, name)(**calls[name])

        assert not isinstance(in_task(fc, call), DriverOnly)


def test_an_rdd_and_a_context_do_not_travel(fc):
    for thing in (fc, fc.range(3), fc.range(3).barrier()):
        with pytest.raises(ClosureError, match="can't be used inside a function|RDD"):
            fc.range(1).map(lambda _, thing=thing: thing).collect()


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda broadcast, _: broadcast.unpersist(), r"unpersist\(\) of broadcast .* is for the driver only, .*after the action"),
        (lambda broadcast, _: broadcast.destroy(), r"destroy\(\) of broadcast .* is for the driver only"),
        (lambda _, accumulator: accumulator.value, r"value of accumulator rows can be used on the driver only"),
        (lambda _, accumulator: accumulator.reset(0), r"reset\(\) of accumulator rows can be used on the driver only"),
        (lambda *_: held().broadcast.unpersist(), r"unpersist\(\) of broadcast .* it is for the driver only"),
        (lambda *_: held().broadcast.destroy(), r"destroy\(\) of broadcast .* it is for the driver only"),
        (lambda *_: held().accumulator.value, "value of accumulator rows can be used on the driver only"),
        (lambda *_: held().accumulator.reset(0), r"reset\(\) of accumulator rows can be used on the driver only"),
        (lambda *_: fk.Context(), r"Context\(\) was called inside a task"),
    ],
)
def test_a_handle_says_in_a_task_what_is_for_the_driver(fc, call, told):
    broadcast, accumulator = held().broadcast, held().accumulator
    with pytest.raises(UserError, match=told) as caught:
        fc.range(1).map(lambda _: call(broadcast, accumulator)).collect()
    assert isinstance(caught.value, DriverOnly | AccumulatorMisused)
    assert isinstance(caught.value, RuntimeError)
    assert broadcast.value == 1


def test_an_accumulator_that_is_reached_without_travelling_counts_when_its_task_has_ended_well(fc):
    counted = fc.accumulator(0)
    held().counted = counted

    def count_and_fail_once(x):
        held().counted.add(1)
        if fk.TaskContext.get().attempt_number == 0:
            raise ValueError("once")
        return x

    assert fc.range(1).map(count_and_fail_once).collect() == [0]
    assert counted.value == 1


def _context_of_a_task(fc):
    (context,) = fc.range(1).map(lambda _: fk.TaskContext.get()).collect()
    return context


@pytest.mark.parametrize(
    "call",
    [
        lambda context: context.barrier(),
        lambda context: context.all_gather(1),
        lambda context: context.acquire_commit(),
        lambda context: context.content_path("a" * 64),
    ],
)
def test_a_task_context_that_a_task_returned_says_that_its_task_is_not_running_here(fc, call):
    with pytest.raises(TaskOnly, match=r"TaskContext\.\w+\(\) is for the running task itself; .* TaskContext.get\(\) inside"):
        call(_context_of_a_task(fc))


def test_a_task_context_that_a_task_returned_is_not_the_drivers(fc):
    assert _context_of_a_task(fc).num_partitions == 2
    assert fk.TaskContext.get() is None


def test_a_barrier_outside_of_a_barrier_stage_says_how_to_make_one(fc):
    with pytest.raises(ValueError, match=r"use rdd.barrier\(\).map_partitions"):
        fc.range(1).map(lambda _: fk.TaskContext.get().barrier()).collect()


def test_a_handle_that_a_task_returned_says_whose_it_is(fc):
    broadcast, accumulator = fc.broadcast("x" * 100_000), fc.accumulator(0)
    (found,) = fc.range(1).map(lambda _: broadcast).collect()
    with pytest.raises(TaskOnly, match="use what Context.broadcast returned"):
        found.value
    (found,) = fc.range(1).map(lambda _: accumulator).collect()
    with pytest.raises(AccumulatorMisused, match="by what Context.accumulator returned"):
        found.value
    with pytest.raises(AccumulatorMisused, match="outside of a task"):
        found.add(1)


def test_what_holds_jobs_does_not_travel(fc):
    for thing in (fc.jobs, fc.status, fc.range(1).count_async()):
        with pytest.raises(ClosureError):
            fc.range(1).map(lambda _, thing=thing: str(thing)).collect()


@pytest.mark.parametrize("kind", [DriverOnly, TaskOnly, NestedAction])
def test_errors_of_the_wrong_side_carry_the_call(kind):
    error = pickle.loads(pickle.dumps(kind("text", name="Broadcast.destroy")))
    assert (error.name, str(error)) == ("Broadcast.destroy", "text")
