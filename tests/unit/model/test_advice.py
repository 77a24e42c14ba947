"""A name that is missing, or an argument in a wrong place, is answered with the one that was meant."""

from __future__ import annotations

import copy
import inspect
import pickle
import traceback

import pytest

import flowkit as fk
from flowkit import files
from flowkit.errors import InvalidArgument, WrongType
from flowkit.model.advice import snake
from flowkit.model.pyspark_names import ORDERS
from flowkit.testing.inline import inline_context


@pytest.fixture(scope="module")
def fc():
    with inline_context() as context:
        yield context


@pytest.mark.parametrize(
    "asked, told",
    [
        (lambda fc: fc.range(3).reduceByKey, "RDD has no reduceByKey; flowkit's name is reduce_by_key"),
        (
            lambda fc: fc.range(3).getNumPartitions,
            "RDD has no getNumPartitions; flowkit's name is num_partitions, without parentheses",
        ),
        (lambda fc: fc.range(3).saveAsSequenceFile, "RDD has no saveAsSequenceFile: no Hadoop formats"),
        (lambda fc: fc.range(3).barrier().mapPartitions, "BarrierRDD has no mapPartitions; flowkit's name is map_partitions"),
        (lambda fc: fc.range(3).saveAsCsv, "RDD has no saveAsCsv; flowkit's name is save_as_csv"),
        (lambda fc: fc.textFile, "Context has no textFile; flowkit's name is text_file"),
        (lambda fc: fc.stop, "Context has no stop; flowkit's name is close"),
        (lambda fc: fc.cancelJobGroup, "Context has no cancelJobGroup; flowkit's name is fc.jobs.cancel_group"),
        (lambda _: fk.Context.getOrCreate, "Context has no getOrCreate; flowkit's name is get_or_create"),
        (lambda _: fk.SparkContext, "flowkit has no SparkContext; flowkit's name is Context"),
        (lambda _: fk.SparkConf, "flowkit has no SparkConf; flowkit's name is Config"),
        (lambda _: fk.StorageLevel.MEMORY_AND_DISK_DESER, "StorageLevel has no MEMORY_AND_DISK_DESER; .* MEMORY_AND_DISK"),
        (lambda _: files.getRootDirectory, "files has no getRootDirectory: each file has a place of its own"),
        (lambda fc: fc.jobs.getJobInfo, "Jobs has no getJobInfo; flowkit's name is fc.jobs.info"),
        (lambda fc: fc.broadcast(1).dump, "Broadcast has no dump"),
        (lambda fc: fc.accumulator(1).addInPlace, r"Accumulator has no addInPlace; .* Context.accumulator \(merge= takes"),
        (lambda fc: fc.range(3).stats().sampleStdev, "StatCounter has no sampleStdev; .* sample_stdev, without parentheses"),
        (lambda _: fk.Config().setAll, "Config has no setAll; flowkit's name is with_settings"),
        (
            lambda fc: fc.range(1).map(lambda _: fk.TaskContext.get().partitionId()).collect(),
            "TaskContext has no partitionId; flowkit's name is partition_id",
        ),
    ],
)
def test_a_name_of_pyspark_is_answered_with_ours(fc, asked, told):
    with pytest.raises(AttributeError, match=told):
        asked(fc)


def test_importing_a_name_of_pyspark_is_answered_with_ours():
    with pytest.raises(ImportError, match="flowkit has no SparkContext; flowkit's name is Context"):
        from flowkit import SparkContext  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from flowkit import nothing  # noqa: F401


@pytest.mark.parametrize(
    "made", [lambda fc: fc, lambda fc: fc.range(3), lambda fc: fc.range(3).stats(), lambda fc: fc.accumulator(0)]
)
def test_a_misspelled_name_keeps_pythons_own_error_and_suggestion(fc, made):
    thing = made(fc)
    for name in ("no_such_thing", "_repr_latex_", "_ipython_canary_method_should_not_exist_", "__wrapped__"):
        assert not hasattr(thing, name)
        with pytest.raises(AttributeError, match=f"'{type(thing).__name__}' object has no attribute '{name}'") as caught:
            getattr(thing, name)
        assert caught.value.name == name
        assert caught.value.obj is thing


def test_a_misspelled_operation_is_suggested_by_the_traceback(fc):
    with pytest.raises(AttributeError) as caught:
        fc.range(3).reduce_by_kye
    assert caught.value.name == "reduce_by_kye"
    assert "reduce_by_key" in dir(caught.value.obj)  # what Python 3.12's tracebacks choose from
    assert "reduce_by_kye" in traceback.format_exception_only(caught.value)[0]


@pytest.mark.parametrize("made", [lambda fc: fc, lambda fc: fc.range(3), lambda fc: fc.range(3).stats(), lambda fc: fc.jobs])
def test_names_that_are_not_ours_are_not_listed(fc, made):
    thing = made(fc)
    for listed in (dir(thing), dir(type(thing)), dict(inspect.getmembers(type(thing)))):
        assert not {"reduceByKey", "textFile", "getJobInfo", "sampleStdev", "saveAsCsv"} & set(listed)
    assert {"reduce_by_key", "text_file", "info", "merge"} & set(dir(thing))


def test_right_names_are_found_as_fast_as_ever(fc):
    """A ``__getattr__`` would turn off what makes looking an attribute up quick, for every name."""
    for thing in (fc, fc.range(3), fc.range(3).stats(), fc.broadcast(1), fc.accumulator(0), fk.TaskContext, fk.Config()):
        kind = thing if isinstance(thing, type) else type(thing)
        assert not hasattr(kind, "__getattr__")


def test_what_a_property_raises_is_its_own():
    from flowkit.model.advice import public

    @public("Thing")
    class Thing:
        @property
        def broken(self):
            return self.inner_name

    with pytest.raises(AttributeError, match="inner_name"):
        Thing().broken


def test_values_with_advice_are_copied_and_pickled_as_before(fc):
    stats = fc.range(3).stats()
    for thing in (stats, fk.Config(progress="off"), fk.StorageLevel.DISK_ONLY):
        assert copy.copy(thing) == copy.deepcopy(thing) == pickle.loads(pickle.dumps(thing)) == thing


@pytest.mark.parametrize(
    "call, told, name",
    [
        (lambda r: r.sample(False, 0.1), r"RDD.sample\(\) .*; write sample\(0.1, with_replacement=False\)", "with_replacement"),
        (lambda r: r.sample(0.1, True), r"RDD.sample\(\) .*; write sample\(0.1, with_replacement=True\)", "with_replacement"),
        (lambda r: r.sample(False, 0.1, 7), r"write sample\(0.1, with_replacement=False, seed=7\)", "with_replacement"),
        (lambda r: r.take_sample(False, 5), r"RDD.take_sample\(\) .*; write take_sample\(5, with_replacement=False\)", "with_replacement"),
        (lambda r: r.sample_by_key(False, {1: 0.5}), r"write sample_by_key\(\{1: 0.5\}, with_replacement=False\)", "with_replacement"),
        (lambda r: r.sort_by(abs, False), r"RDD.sort_by\(\) takes 1 positional .*; write sort_by\(abs, ascending=False\)", "ascending"),
        (lambda r: r.sort_by(lambda x: x, False), r"write sort_by\(fn, ascending=False\)", "ascending"),
        (lambda r: r.sort_by_key(False), r"takes no positional arguments, .*; write sort_by_key\(ascending=False\)", "ascending"),
        (lambda r: r.coalesce(2, True), r"write coalesce\(2, shuffle=True\)", "shuffle"),
        (lambda r: r.random_split([1, 2], 3), r"write random_split\(\[1, 2\], seed=3\)", "seed"),
        (lambda r: r.pipe("cat", {}, True), r"write pipe\('cat', env=\{\}, check=True\)", "env"),
        (lambda r: r.save_as_text("o", "gzip"), r"write save_as_text\('o', compression='gzip'\)", "compression"),
        (lambda r: r.reduce_by_key(max, 3, hash), r"write reduce_by_key\(max, 3\); lay pairs by partition_by", "num_partitions"),
        (lambda r: r.reduce_by_key(max, numPartitions=3), r"RDD.reduce_by_key\(\) has no argument numPartitions; .* num_partitions", "numPartitions"),
        (lambda r: r.sort_by(abs, acsending=False), "did you mean ascending?", "acsending"),
        (lambda r: r.sort_by(keyfunc=abs), "flowkit's name is key", "keyfunc"),
        (lambda r: r.context.range(0, 5, 1, 2), r"Context.range\(\) .*; write range\(0, 5, 1, num_partitions=2\)", "num_partitions"),
        (lambda r: r.context.parallelize([1], numSlices=2), r"Context.parallelize\(\) has no argument numSlices; .* num_partitions", "numSlices"),
    ],
)  # fmt: skip
def test_an_argument_in_the_wrong_place_or_by_another_name_is_told_how_to_be_written(fc, call, told, name):
    with pytest.raises(TypeError, match=told) as caught:
        call(fc.range(3))
    assert isinstance(caught.value, WrongType)
    assert isinstance(caught.value, InvalidArgument)
    assert caught.value.name == name


@pytest.mark.parametrize("kind, label", [(fk.RDD, "RDD"), (fk.Context, "Context")])
def test_every_public_operation_speaks_of_the_class_that_users_know(kind, label):
    names = [name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")]
    assert len(names) > 30
    assert {name: getattr(kind, name).__qualname__ for name in names} == {name: f"{label}.{name}" for name in names}


def test_a_type_error_from_inside_stays_itself(fc):
    with pytest.raises(TypeError, match="keys that can be hashed") as caught:
        fc.range(3).map(lambda x: [x]).distinct(2).collect()
    assert not isinstance(caught.value, WrongType)


def test_signatures_and_documentation_stay(fc):
    assert str(inspect.signature(fk.RDD.sample)).startswith("(self, fraction: 'float', *, with_replacement: 'bool' = False")
    assert inspect.getdoc(fk.RDD.sample).startswith("Choose each element with some probability.")


@pytest.mark.parametrize("method", ORDERS)
def test_the_order_of_pysparks_arguments_begins_with_parameters_of_ours(method):
    kind, _, name = method.partition(".")
    known = inspect.signature(getattr({"RDD": fk.RDD, "Context": fk.Context}[kind], name)).parameters
    assert ORDERS[method].split()[0] in known


@pytest.mark.parametrize(
    "name, plain", [("reduceByKey", "reduce_by_key"), ("toDF", "to_df"), ("zip", "zip"), ("takeSample2", "take_sample2")]
)
def test_camel_case_becomes_snake_case(name, plain):
    assert snake(name) == plain
