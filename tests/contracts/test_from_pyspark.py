"""docs/from-pyspark.md says all that is different, and what it says is so: names, rows and behaviour are held together.

PySpark's names are those of 4.3. Values that are said to be the same were computed with it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import math
import operator
import os
import re
import sys
import threading
from collections.abc import Callable
from operator import add
from pathlib import Path
from typing import Any

import pytest

import flowkit as fk
from flowkit import files
from flowkit.errors import AccumulatorMisused, BadInput, OutputExists, ResultTooLarge
from flowkit.execution.accumulators import Accumulator
from flowkit.execution.broadcast import Broadcast
from flowkit.execution.statistics import StatCounter
from flowkit.jobs import Jobs
from flowkit.model.advice import advice
from flowkit.model.pyspark_names import COUNTERPARTS, KEYWORDS, TABLES, Row
from flowkit.observe.status import StatusStore
from flowkit.rdd.needs import BarrierRDD
from flowkit.testing.inline import inline_context

PAGE = (Path(__file__).parents[2] / "docs" / "from-pyspark.md").read_text(encoding="utf-8")

#: every public name of the classes that a user of PySpark's core meets
NAMES = {
    "SparkContext": (
        "accumulator addArchive addFile addJobTag addPyFile applicationId binaryFiles binaryRecords broadcast cancelAllJobs cancelJobGroup "
        "cancelJobsWithTag clearJobTags defaultMinPartitions defaultParallelism dump_profiles emptyRDD getCheckpointDir getConf getJobTags "
        "getLocalProperty getOrCreate getSystemProperty hadoopFile hadoopRDD listArchives listFiles newAPIHadoopFile newAPIHadoopRDD "
        "parallelize pickleFile range removeJobTag resources runJob sequenceFile setCheckpointDir setInterruptOnCancel setJobDescription "
        "setJobGroup setLocalProperty setLogLevel setSystemProperty show_profiles sparkUser startTime statusTracker stop textFile uiWebUrl "
        "union version wholeTextFiles"
    ),
    "SparkConf": "contains get getAll set setAll setAppName setExecutorEnv setIfMissing setMaster setSparkHome toDebugString",
    "RDD": (
        "aggregate aggregateByKey barrier cache cartesian checkpoint cleanShuffleDependencies coalesce cogroup collect collectAsMap "
        "collectWithJobGroup combineByKey context count countApprox countApproxDistinct countByKey countByValue distinct filter first "
        "flatMap flatMapValues fold foldByKey foreach foreachPartition fullOuterJoin getCheckpointFile getNumPartitions getResourceProfile "
        "getStorageLevel glom groupBy groupByKey groupWith histogram id intersection isCheckpointed isEmpty isLocallyCheckpointed join keyBy "
        "keys leftOuterJoin localCheckpoint lookup map mapPartitions mapPartitionsWithIndex mapPartitionsWithSplit mapValues max mean "
        "meanApprox min name partitionBy persist pipe randomSplit reduce reduceByKey reduceByKeyLocally repartition "
        "repartitionAndSortWithinPartitions rightOuterJoin sample sampleByKey sampleStdev sampleVariance saveAsHadoopDataset "
        "saveAsHadoopFile saveAsNewAPIHadoopDataset saveAsNewAPIHadoopFile saveAsPickleFile saveAsSequenceFile saveAsTextFile setName sortBy "
        "sortByKey stats stdev subtract subtractByKey sum sumApprox take takeOrdered takeSample toDF toDebugString toLocalIterator top "
        "treeAggregate treeReduce union unpersist values variance withResources zip zipWithIndex zipWithUniqueId"
    ),
    "RDDBarrier": "mapPartitions mapPartitionsWithIndex",
    "TaskContext": "attemptNumber cpuAmount cpus from_json get getLocalProperty partitionId resources stageId taskAttemptId",
    "BarrierTaskContext": "allGather barrier getTaskInfos",
    "SparkFiles": "get getRootDirectory",
    "Broadcast": "destroy dump load load_from_path unpersist value",
    "Accumulator": "add value",
    "AccumulatorParam": "addInPlace zero",
    "StatusTracker": "getActiveJobsIds getActiveStageIds getExecutorInfos getJobIdsForGroup getJobInfo getStageInfo",
    "StatCounter": "asDict copy count max mean merge mergeStats min sampleStdev sampleVariance stdev sum variance",
    "StorageLevel": "MEMORY_AND_DISK_DESER",
    "pyspark": (
        "Accumulator AccumulatorParam BarrierTaskContext BarrierTaskInfo BasicProfiler Broadcast CPickleSerializer InheritableThread "
        "MarshalSerializer Profiler RDD RDDBarrier SparkConf SparkContext SparkExecutorInfo SparkFiles SparkJobInfo SparkStageInfo "
        "StatusTracker StorageLevel TaskContext inheritable_thread_target"
    ),
}
LEVELS = "NONE DISK_ONLY DISK_ONLY_2 DISK_ONLY_3 MEMORY_AND_DISK MEMORY_AND_DISK_2 MEMORY_ONLY MEMORY_ONLY_2 OFF_HEAP"

ROOTS: dict[str, Any] = {
    "RDD": fk.RDD,
    "Context": fk.Context,
    "Config": fk.Config,
    "BarrierRDD": BarrierRDD,
    "TaskContext": fk.TaskContext,
    "Broadcast": Broadcast,
    "Accumulator": Accumulator,
    "StatCounter": StatCounter,
    "StorageLevel": fk.StorageLevel,
    "fc.jobs": Jobs,
    "fc.status": StatusStore,
    "flowkit": fk,
    "flowkit.files": files,
}
#: of a Context, made when it is
ATTRIBUTES = {"Context.jobs", "Context.status", "TaskContext.cpus"}

ROWS = [(table, row) for table in TABLES for row in table.rows]


def key(row: Row) -> str:
    """Its first name."""
    return (row.theirs or row.ours).split()[0]


@pytest.fixture(scope="module")
def fc():
    with inline_context() as context:
        yield context


# -- names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", NAMES)
def test_every_name_of_pyspark_stands_in_a_table(owner):
    told = {
        (name.rpartition(".")[0] or table.owner, name.rpartition(".")[2]) for table, row in ROWS for name in row.theirs.split()
    }
    missing = {name for name in NAMES[owner].split() if (owner, name) not in told}
    # A class of the module is told by the table of its names, too.
    assert missing - ({"RDD"} if owner == "pyspark" else set()) == set()


@pytest.mark.parametrize("table, row", ROWS, ids=lambda each: key(each) if isinstance(each, Row) else "")
def test_every_name_of_ours_exists(table, row):
    for name in row.ours.split():
        holder, _, last = name.rpartition(".")
        if name in ROOTS or name in ATTRIBUTES:
            continue
        slots = getattr(ROOTS[holder], "__slots__", ())
        assert hasattr(ROOTS[holder], last) or last in slots or last in getattr(ROOTS[holder], "__annotations__", {}), name


def test_every_operation_of_ours_is_told():
    told = {name for _, row in ROWS for name in row.ours.split()}
    own = {f"RDD.{name}" for name in dir(fk.RDD) if not name.startswith("_") and callable(getattr(fk.RDD, name))}
    assert own - told == set()


@pytest.mark.parametrize("level", LEVELS.split())
def test_levels_of_storage_have_pysparks_names(level):
    assert isinstance(getattr(fk.StorageLevel, level), fk.StorageLevel)


@pytest.mark.parametrize(
    "table, row", [each for each in ROWS if each[1].theirs], ids=lambda each: key(each) if isinstance(each, Row) else ""
)
def test_every_name_of_pyspark_that_is_tried_is_answered(table, row):
    for name in row.theirs.split():
        holder, _, last = name.rpartition(".")
        label = COUNTERPARTS[holder or table.owner]
        owner = {"Jobs": Jobs, "files": files, "flowkit": fk}.get(label) or ROOTS[label]
        if last.startswith("_"):
            continue
        told = advice(label, last, owner)
        assert told is not None, name
        if row.ours:
            assert any(each.rpartition(".")[2] in told for each in row.ours.split())
        elif not hasattr(owner, last):
            assert told == f"{label} has no {last}: {row.note.replace('`', '').removeprefix('no; ')}"


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_keyword_that_is_called_otherwise_is_one_of_pysparks(keyword):
    assert keyword not in KEYWORDS.values()


# -- what the rows claim -----------------------------------------------------------------------------------------------------


def _raises(
    kind: type[BaseException] | tuple[type[BaseException], ...], call: Callable[[], object], match: str | None = None
) -> None:
    with pytest.raises(kind, match=match):
        call()


def _context(fc, tmp_path):
    with inline_context() as other:
        assert {fc, other} <= set(fk.Context.live())
        assert fk.Context.get_or_create() is other


def _settings(fc, tmp_path):
    config = fk.Config(max_task_failures=2)
    _raises(AttributeError, lambda: setattr(config, "max_task_failures", 3))
    assert config.with_settings(max_task_failures=3).max_task_failures == 3
    assert config.max_task_failures == 2
    assert "max_task_failures" in config.explain()
    _raises(ValueError, lambda: fk.Config(no_such_setting=1))


def _named(fc, tmp_path):
    with inline_context() as context:
        assert context.name == "inline"


def _resources(fc, tmp_path):
    assert fc.range(1).map(lambda _: dict(fk.TaskContext.get().resources)).collect() == [{}]


def _profile(fc, tmp_path):
    with fc.profile() as found:
        fc.range(4).map(abs).count()
    assert any("map" in label for label in found.operations)


def _union_of_none(fc, tmp_path):
    _raises(ValueError, lambda: fc.union([]))


def _text_file(fc, tmp_path):
    _raises(FileNotFoundError, lambda: fc.text_file(tmp_path / "nowhere"))
    (tmp_path / "a.txt").write_bytes("é\n".encode("latin-1"))
    assert fc.text_file([tmp_path / "a.txt"], encoding="latin-1").collect() == ["é"]
    (tmp_path / "inner" / "deep").mkdir(parents=True)
    (tmp_path / "inner" / "deep" / "c.txt").write_text("c")
    assert fc.text_file(tmp_path, encoding="latin-1").collect() == ["é"]
    _raises(FileNotFoundError, lambda: fc.text_file(tmp_path / "inner"))


def _whole_files(fc, tmp_path):
    (tmp_path / "a.txt").write_text("x", encoding="utf-8-sig")
    assert fc.whole_text_files(tmp_path / "a.txt").collect() == [(str(tmp_path / "a.txt"), "x")]
    packed = gzip.compress(b"abcd")
    (tmp_path / "b.gz").write_bytes(packed)
    assert fc.binary_files(tmp_path / "b.gz").collect() == [(str(tmp_path / "b.gz"), packed)]
    assert fc.binary_records(tmp_path / "b.gz", 2).collect() == [b"ab", b"cd"]


def _pickles(fc, tmp_path):
    fc.range(3).save_as_pickle(tmp_path / "out")
    assert fc.pickle_file(tmp_path / "out").collect() == [0, 1, 2]


def _checkpoint_directory(fc, tmp_path):
    with inline_context(checkpoint_directory=str(tmp_path / "kept")) as context:
        rdd = context.range(3).checkpoint(eager=True)
        assert rdd.checkpoint_path.startswith(context.config.checkpoint_directory)
        named = context.range(3).checkpoint(tmp_path / "named", eager=True)
        assert named.checkpoint_path == str(tmp_path / "named")


def _broadcast(fc, tmp_path):
    assert fc.range(1).map(lambda _, b=fc.broadcast(3): b.value).collect() == [3]


def _accumulator(fc, tmp_path):
    seen, counted = fc.accumulator(set(), merge=set.union), fc.accumulator(0)

    def fail_once(x):
        counted.add(1)
        if fk.TaskContext.get().attempt_number == 0:
            raise ValueError("once")
        return x

    fc.range(3).foreach(lambda x: seen.add({x}))
    assert seen.value == {0, 1, 2}
    fc.range(2, num_partitions=2).map(fail_once).collect()
    assert counted.value == 2
    _raises(AttributeError, lambda: setattr(counted, "value", 5))
    counted.reset(5)
    assert counted.value == 5
    _raises(AccumulatorMisused, lambda: fc.range(1).map(lambda _: counted.value).collect())


def _files(fc, tmp_path):
    package = tmp_path / "some_package_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("x = 1")
    fc.add_py_file(package)
    assert fc.add_archive(package, "packed") == "packed"
    assert (Path(files.get("packed")) / "__init__.py").exists()
    assert set(fc.list_files()) >= {"some_package_of_mine.zip", "packed"}
    _raises(FileNotFoundError, lambda: files.get("never added"))
    _raises(AttributeError, lambda: files.getRootDirectory, "each file has a place of its own")


def _scopes(fc, tmp_path):
    with fc.job_group("g", "text"), fc.job(timeout_s=60, properties={"a": "b"}), fc.job_description("other"), fc.job_tag("t"):
        assert fc.range(1).map(lambda _: fk.TaskContext.get().get_local_property("a")).collect() == ["b"]
        assert fc.job_tags() == {"t"}
    assert fc.job_tags() == frozenset()
    fc.wait_for_listeners()
    job = fc.jobs.ids_for_group("g")[-1]
    assert fc.jobs.info(job).job == job


def _inherited(fc, tmp_path):
    async def seen() -> str | None:
        return await asyncio.create_task(_asked())

    async def _asked() -> str | None:
        return fc.get_local_property("team")

    found: list[str | None] = []
    fc.set_local_property("team", "blue")
    try:
        assert asyncio.run(seen()) == "blue"
        for target in (lambda: found.append(fc.get_local_property("team")),) * 2:
            wrapped = fk.inheritable(target) if found else target
            thread = threading.Thread(target=wrapped)
            thread.start()
            thread.join()
    finally:
        fc.set_local_property("team", None)
    assert found == [None, "blue"]


def _status(fc, tmp_path):
    fc.range(3).count()
    fc.wait_for_listeners()
    job = max(fc.jobs.ids_for_group(None))
    assert fc.jobs.info(job).stages
    assert fc.jobs.stage_info(max(fc.jobs.info(job).stages)) is not None
    assert fc.status.stages(running=True) == ()
    assert fc.jobs.info(10**9) is None


def _run_job(fc, tmp_path):
    assert fc.range(4, num_partitions=2).map_partitions(lambda rows: [sum(rows)]).collect() == [1, 5]


def _deprecated(fc, tmp_path):
    assert fc.range(4, num_partitions=2).map_partitions_with_index(lambda i, rows: [i]).collect() == [0, 1]
    with fc.job_group("collected"):
        assert fc.range(2).collect() == [0, 1]
    fc.wait_for_listeners()
    assert fc.jobs.ids_for_group("collected")


def _plus(fc, tmp_path):
    assert (fc.range(2) + fc.range(1)).collect() == [0, 1, 0]


def _intersection(fc, tmp_path):
    pyspark = [5, 9, 3]  # [[], [5, 9], [], [3]] in partitions
    mine = fc.parallelize([5, 3, 1, 3, 9], 2).intersection(fc.parallelize([9, 5, 3], 2))
    assert sorted(mine.collect()) == sorted(pyspark)
    assert mine.num_partitions == 4
    assert mine.collect() != pyspark


def _lazy_index(fc, tmp_path):
    before = len(fc.status.jobs())
    fc.range(4, num_partitions=2).zip_with_index()
    fc.range(4, num_partitions=2).sort_by(operator.neg)
    fc.range(4, num_partitions=2).key_by(abs).sort_by_key(key=operator.neg)
    assert len(fc.status.jobs()) == before


def _sorted(fc, tmp_path):
    _lazy_index(fc, tmp_path)
    rows = fc.range(1, 4, num_partitions=3).key_by(abs).sort_by_key(key=operator.neg).values()
    assert rows.collect() == [3, 2, 1]
    # PySpark: [[1, 2], [3], []]
    assert fc.range(1, 4, num_partitions=3).sort_by(abs).glom().collect() == [[1], [2], [3]]


def _zip_partitions(fc, tmp_path):
    left, right = fc.range(4, num_partitions=2), fc.parallelize("ab", 2)
    assert left.zip_partitions(lambda xs, ys: [(sum(xs), *ys)], right).collect() == [(1, "a"), (5, "b")]


def _sample(fc, tmp_path):
    rdd = fc.range(1000, num_partitions=2)
    assert rdd.sample(0.1, seed=7).collect() == rdd.sample(0.1, seed=7, with_replacement=False).collect()
    _raises(TypeError, lambda: rdd.sample(False, 0.1), r"write sample\(0.1, with_replacement=False\)")


def _repartition(fc, tmp_path):
    # PySpark: [[0, 1, 2, 3, 4, 5, 6], [], []]
    assert fc.range(7, num_partitions=1).repartition(3).glom().collect() == [[0, 3, 6], [1, 4], [2, 5]]
    sizes = list(map(len, fc.range(1000, num_partitions=3).repartition(20).glom().collect()))
    assert max(sizes) - min(sizes) <= 3


def _sorted_within(fc, tmp_path):
    rows = fc.parallelize([(3, 1), (0, 1), (2, 1)]).repartition_and_sort_within_partitions(2, lambda k: k % 2, key=operator.neg)
    assert rows.glom().collect() == [[(2, 1), (0, 1)], [(3, 1)]]


def _pipe(fc, tmp_path):
    assert fc.parallelize(["a"], 1).pipe("sh -c 'exit 3'").collect() == []
    _raises(fk.FlowkitError, lambda: fc.parallelize(["a"], 1).pipe("sh -c 'exit 3'", check=True).collect())


def _lists(fc, tmp_path):
    pairs = fc.parallelize([(1, 2)])
    assert pairs.group_by_key().collect() == [(1, [2])]
    assert pairs.group_by(lambda pair: pair[0]).collect() == [(1, [(1, 2)])]
    assert pairs.cogroup(pairs, pairs, num_partitions=3).collect() == [(1, ([2], [2], [2]))]


def _partition_function(fc, tmp_path):
    laid = fc.range(6).map(lambda i: (i, i)).partition_by(3, lambda k: -k)
    summed = laid.reduce_by_key(add)
    assert summed.partitioner == laid.partitioner
    assert laid.glom().collect() == [[(0, 0), (3, 3)], [(2, 2), (5, 5)], [(1, 1), (4, 4)]]
    _raises(TypeError, lambda: laid.reduce_by_key(add, partitionFunc=hash), "partition_by")


def _hash(fc, tmp_path):
    keys = [None, 1, 1.0, True, "a", (1, "b"), dt.date(2026, 1, 1), frozenset({1})]
    assert fc.parallelize([(each, 1) for each in keys]).partition_by(4).count() == len(keys)
    assert fc.parallelize([(i, i) for i in range(8)]).partition_by(2).keys().glom().collect() != [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert "portable_hash" in PAGE


def _properties(fc, tmp_path):
    rdd = fc.range(4, num_partitions=2).set_name("numbers")
    assert (rdd.name, rdd.num_partitions, rdd.context) == ("numbers", 2, fc)
    assert type(rdd.id) is int
    assert rdd.storage_level is fk.StorageLevel.NONE
    assert isinstance(rdd.debug_string(), str)


def _indeterminate(fc, tmp_path):
    assert fc.range(3).indeterminate().collect() == [0, 1, 2]


def _quarantined(fc, tmp_path):
    numbers = fc.parallelize(["1", "x"]).map(int, on_error="quarantine")
    assert [fault.element for fault in numbers.quarantined().collect()] == ["x"]


def _hints(fc, tmp_path):
    rdd = fc.range(3)
    rdd.count()
    assert str(rdd.hints()) == "no hints"


def _levels(fc, tmp_path):
    assert fk.StorageLevel.MEMORY_ONLY.deserialized
    assert not fk.StorageLevel.MEMORY_ONLY_SER.deserialized
    assert fk.StorageLevel.MEMORY_AND_DISK.deserialized
    assert not fk.StorageLevel.MEMORY_AND_DISK_SER.deserialized
    assert fk.StorageLevel.MEMORY_ONLY_2.replication == 2
    for level, changed in ((fk.StorageLevel.MEMORY_ONLY, [[0]]), (fk.StorageLevel.MEMORY_ONLY_BY_REFERENCE, [[0, 1]])):
        lists = fc.parallelize([[0]], 1).persist(level)
        lists.foreach(lambda row: row.append(1))
        assert lists.collect() == changed


def _checkpoint(fc, tmp_path):
    rdd = fc.range(4).map(lambda x: x * x)
    rdd.count()
    rdd.checkpoint(tmp_path / "squares", eager=True)
    assert rdd.is_checkpointed
    assert rdd.checkpoint_path == str(tmp_path / "squares")
    _raises(ValueError, lambda: rdd.checkpoint(tmp_path / "again"), "checkpointed already")
    laid = fc.range(4).key_by(abs).partition_by(2).checkpoint(tmp_path / "laid", eager=True)
    assert fc.checkpoint_file(laid.checkpoint_path).partitioner == laid.partitioner


def _local_checkpoint(fc, tmp_path):
    rdd = fc.range(4).map(lambda x: x * x).local_checkpoint()
    rdd.collect()
    assert (rdd.is_checkpointed, rdd.is_locally_checkpointed, rdd.checkpoint_path) == (False, True, None)


def _barrier(fc, tmp_path):
    def some_wait(rows):
        if fk.TaskContext.get().partition_id == 0:
            fk.TaskContext.get().barrier()
        return rows

    def gather(rows):
        return [fk.TaskContext.get().all_gather({"rank": fk.TaskContext.get().partition_id})]

    assert fc.range(4, num_partitions=1).barrier().map_partitions(gather).collect() == [[{"rank": 0}]]


def _task_context(fc, tmp_path):
    assert fk.TaskContext.get() is None

    def told(_):
        context = fk.TaskContext.get()
        numbers = context.stage_id, context.partition_id, context.attempt_number, context.task_attempt_id, context.cpus
        return [type(each).__mro__[-2] for each in numbers], context

    ((kinds, context),) = fc.range(1, num_partitions=1).map(told).collect()
    assert kinds == [int] * 5
    assert context.partition_id == 0
    assert fk.TaskContext.get() is None
    assert fk.TaskContext.get_local_property(context, "nothing") is None


def _resource_profile(fc, tmp_path):
    assert fc.range(1).with_resources(cpus=1, memory_bytes=1000).resource_profile.memory_bytes == 1000
    _raises(ValueError, lambda: fc.range(1).with_resources(cpus=0.5))


def _allocation(fc, tmp_path):
    assert fk.Config(allocation="backlog").allocation == "backlog"


def _dicts(fc, tmp_path):
    assert type(fc.parallelize([1]).count_by_value()) is dict
    assert type(fc.parallelize([(1, 2)]).count_by_key()) is dict


def _take_sample(fc, tmp_path):
    assert sorted(fc.range(4).take_sample(sys.maxsize * 2)) == [0, 1, 2, 3]
    _raises(ResultTooLarge, lambda: fc.range(4).take_sample(sys.maxsize, with_replacement=True))
    assert len(fc.range(4).take_sample(10, with_replacement=True)) == 10


def _histogram(fc, tmp_path):
    assert fc.parallelize(["ab", "ac", "b"]).histogram(("a", "b", "c")) == (["a", "b", "c"], [2, 1])
    _raises(ValueError, lambda: fc.range(3).histogram(True))


def _save(fc, tmp_path):
    rdd = fc.parallelize([b"\xff", None, 3], 1)
    rdd.save_as_text(tmp_path / "text")
    assert (tmp_path / "text" / "part-00000").read_bytes() == b"\xff\nNone\n3\n"
    _raises(OutputExists, lambda: rdd.save_as_text(tmp_path / "text"))
    for mode in ("overwrite", "append", "ignore"):
        rdd.save_as_text(tmp_path / "text", mode=mode)
    for compression, suffix in (("gzip", "gz"), ("bz2", "bz2"), ("xz", "xz"), ("zstd", "zst")):
        rdd.save_as_text(tmp_path / compression, compression=compression)
        assert (tmp_path / compression / f"part-00000.{suffix}").exists()
    fc.parallelize(["é"], 1).save_as_text(tmp_path / "latin", encoding="latin-1")
    assert (tmp_path / "latin" / "part-00000").read_bytes() == "é\n".encode("latin-1")
    rdd.save_as_pickle(tmp_path / "pickles")
    assert (tmp_path / "pickles" / "part-00000.pickle").exists()


def _whole_or_not(fc, tmp_path):
    for save in ("save_as_json_lines", "save_as_csv", "save_as_parquet"):
        _raises(Exception, lambda save=save: getattr(fc.parallelize([{"a": object()}, 1, 2], 3), save)(tmp_path / save))
        assert not (tmp_path / save).exists()


def _futures(fc, tmp_path):
    future = fc.range(3).collect_async()
    assert future.result(timeout=30) == [0, 1, 2]

    async def waited() -> int:
        return await fc.range(3).count_async()

    assert asyncio.run(waited()) == 3
    assert not future.cancel()


def _approximate(fc, tmp_path):
    found = fc.range(100, num_partitions=4).count_approx(10.0)
    assert (found, found.is_exact, found.low) == (100.0, True, 100.0)
    for confidence in (1.0, 0.0):
        _raises(ValueError, lambda confidence=confidence: fc.range(4).count_approx(10.0, confidence))
    _raises(ValueError, lambda: fc.range(4).count_approx(-1))


def _distinct(fc, tmp_path):
    pytest.importorskip("datasketches")
    assert 950 < fc.range(1000).count_approx_distinct(0.01) < 1050


def _statistics(fc, tmp_path):
    stats = fc.parallelize([1, 2, 3, 4]).stats()
    assert (stats.count, stats.mean, stats.sum, stats.minimum, stats.maximum) == (4, 2.5, 10.0, 1.0, 4.0)
    assert (stats.stdev, stats.sample_stdev) == (1.118033988749895, 1.2909944487358056)
    assert all(type(each) is float for each in (stats.minimum, stats.maximum))
    with_nan = fc.parallelize([1.0, math.nan]).stats()
    assert with_nan.count == 2
    assert all(map(math.isnan, (with_nan.mean, with_nan.stdev, with_nan.minimum, with_nan.maximum)))
    assert StatCounter.of([1, 2]).merge(StatCounter.of([3, 4])) == stats
    _raises(AttributeError, lambda: setattr(stats, "count", 5))


#: by the first name of a row, what shows that its note is so
CLAIMS: dict[str, Callable[[fk.Context, Path], None]] = {
    "pyspark.SparkContext": _context,
    "getOrCreate": _context,
    "stop": _named,
    "pyspark.SparkConf": _settings,
    "SparkConf.set": _settings,
    "SparkConf.get": _settings,
    "SparkConf.setAppName": _named,
    "SparkConf.setMaster": _named,
    "resources": _resources,
    "pyspark.Profiler": _profile,
    "parallelize": lambda fc, _: [_raises(ValueError, lambda n=n: fc.parallelize([1], n)) for n in (0, -1)] and None,
    "range": lambda fc, _: _raises(TypeError, lambda: fc.range(2.5)),
    "union": _union_of_none,
    "textFile": _text_file,
    "wholeTextFiles": _whole_files,
    "binaryFiles": _whole_files,
    "binaryRecords": _whole_files,
    "pickleFile": _pickles,
    "setCheckpointDir": _checkpoint_directory,
    "broadcast": _broadcast,
    "accumulator": _accumulator,
    "Accumulator.value": _accumulator,
    "AccumulatorParam.zero": _accumulator,
    "addFile": _files,
    "listFiles": _files,
    "SparkFiles.get": _files,
    "runJob": _run_job,
    "setJobGroup": _scopes,
    "setJobDescription": _scopes,
    "addJobTag": _scopes,
    "setLocalProperty": _inherited,
    "pyspark.inheritable_thread_target": _inherited,
    "statusTracker": _status,
    "StatusTracker.getActiveStageIds": _status,
    "pyspark.SparkJobInfo": _status,
    "mapPartitionsWithSplit": _deprecated,
    "RDD union": _plus,
    "intersection": _intersection,
    "zip": _lazy_index,
    "RDD.zip_partitions": _zip_partitions,
    "sample": _sample,
    "coalesce": _repartition,
    "repartitionAndSortWithinPartitions": _sorted_within,
    "pipe": _pipe,
    "groupBy": _lists,
    "reduceByKey": _partition_function,
    "partitionBy": _hash,
    "sortBy": _sorted,
    "cogroup": _lists,
    "setName": _properties,
    "id": _properties,
    "toDebugString": _properties,
    "RDD.indeterminate": _indeterminate,
    "RDD.quarantined": _quarantined,
    "RDD.hints": _hints,
    "cache": _levels,
    "getStorageLevel": _properties,
    "pyspark.StorageLevel": _levels,
    "StorageLevel.MEMORY_AND_DISK_DESER": _levels,
    "checkpoint": _checkpoint,
    "isCheckpointed": _local_checkpoint,
    "SparkContext._checkpointFile": _checkpoint,
    "barrier": _barrier,
    "pyspark.TaskContext": _task_context,
    "TaskContext.get": _task_context,
    "TaskContext.stageId": _task_context,
    "TaskContext.cpuAmount": _resource_profile,
    "BarrierTaskContext.allGather": _barrier,
    "BarrierTaskContext.getTaskInfos": _barrier,
    "withResources": _resource_profile,
    "Context": _allocation,
    "collectWithJobGroup": _deprecated,
    "count": _dicts,
    "take": _take_sample,
    "histogram": _histogram,
    "saveAsTextFile": _save,
    "RDD.save_as_json_lines": _whole_or_not,
    "RDD.collect_async": _futures,
    "countApprox": _approximate,
    "countApproxDistinct": _distinct,
    "StatCounter count": _statistics,
    "merge": _statistics,
}


def _claim(table: Any, row: Row) -> str:
    """The key of a row, with its class where two tables begin a row alike."""
    qualified = f"{table.owner} {key(row)}"
    return qualified if qualified in CLAIMS else key(row)


CLAIMING = [(table, row) for table, row in ROWS if row.note and row.ours]


@pytest.mark.parametrize("table, row", CLAIMING, ids=lambda each: key(each) if isinstance(each, Row) else "")
def test_what_a_row_claims_is_so(fc, tmp_path, table, row):
    assert _claim(table, row) in CLAIMS, f"say here what shows that {row.note!r} is so"
    CLAIMS[_claim(table, row)](fc, tmp_path)


def test_no_claim_is_left_without_its_row():
    assert set(CLAIMS) - {_claim(table, row) for table, row in CLAIMING} == set()


# -- what is different -------------------------------------------------------------------------------------------------------


def _errors(fc, tmp_path):
    with pytest.raises(ZeroDivisionError) as caught:
        fc.parallelize([1, 0], 1).map(lambda x: 1 // x).collect()
    told = "\n".join(caught.value.__notes__)
    assert "map" in told
    assert "partition 0" in told
    assert "0" in told


def _nothing_like_a_collection(fc, tmp_path):
    rdd = fc.range(3)
    for use in (bool, len, list, lambda each: each == each):
        _raises(TypeError, lambda use=use: use(rdd))


def _same_order(fc, tmp_path):
    pairs = fc.parallelize([(x % 3, x) for x in range(100)], 5)
    assert pairs.group_by_key(2).collect() == pairs.group_by_key(2).collect()
    assert dict(pairs.group_by_key(2).collect())[0] == list(range(0, 100, 3))


def _zero(fc, tmp_path):
    zero: list[int] = []

    def put(found, x):
        found.append(x)
        return found

    rdd = fc.parallelize([1, 2, 3], 3)
    assert rdd.aggregate(zero, put, add) == [1, 2, 3]
    assert rdd.key_by(lambda _: 0).aggregate_by_key(zero, put, add).collect() == [(0, [1, 2, 3])]
    assert zero == []


def _no_files(fc, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    _raises(ValueError, lambda: fc.text_file(tmp_path / "fifo"), "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    _raises(FileNotFoundError, lambda: fc.text_file(tmp_path / "link"))
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\nno json\n')
    with pytest.raises(BadInput, match=r"bad\.jsonl.*line 2"):
        fc.read_json_lines(tmp_path / "bad.jsonl").collect()


#: by the bold words of a point under "What is different"; None: shown elsewhere, where it says
DIFFERENCES: dict[str, Callable[[fk.Context, Path], None] | None] = {
    "Errors": _errors,
    # tests/cluster/test_embedded.py and what becomes of scripts without a guard
    'A script needs `if __name__ == "__main__":`': None,
    "Nothing runs at a transformation's call.": _lazy_index,
    "`bool(rdd)`, `len(rdd)`, `for row in rdd`, `rdd == other`": _nothing_like_a_collection,
    "A shuffle of the same input has the same order each time": _same_order,
    # tests/unit/rdd/test_wrong_arguments.py, every argument of every operation
    "A wrong argument is refused at the call": None,
    "Keys and rows hash alike in every process": _hash,
    "A zero is copied": _zero,
    # tests/conformance/test_job_control.py
    "Cancelling stops running tasks": None,
    "Files that are no files": _no_files,
    # tests/conformance/test_shipped_files.py
    "A file that was added under a name keeps it": None,
}


def _points() -> list[str]:
    return re.findall(r"^- \*\*(.*?)\*\*", PAGE.partition("## What is different")[2], re.MULTILINE)


@pytest.mark.parametrize("point", _points())
def test_what_is_said_to_be_different_is_so(fc, tmp_path, point):
    assert point in DIFFERENCES, "say here what shows it"
    check = DIFFERENCES[point]
    if check is not None:
        check(fc, tmp_path)


def test_no_difference_is_left_without_its_point():
    assert set(DIFFERENCES) - set(_points()) == set()


# -- what is the same --------------------------------------------------------------------------------------------------------

#: flowkit's expression, PySpark's value; a class of errors stands for raising it
SAME: list[tuple[str, Callable[[fk.Context], Any], Any]] = [
    ("more slices than elements", lambda fc: fc.parallelize([1, 2, 3], 5).glom().collect(), [[], [1], [], [2], [3]]),
    ("a text is a sequence", lambda fc: fc.parallelize("abc", 2).glom().collect(), [["a"], ["b", "c"]]),
    ("a dict is its keys", lambda fc: fc.parallelize({"a": 1}, 2).collect(), ["a"]),
    ("nothing still has partitions", lambda fc: fc.parallelize([]).num_partitions, 2),
    ("a generator is listed", lambda fc: fc.parallelize((x for x in range(3)), 2).glom().collect(), [[0], [1, 2]]),
    ("range step 0", lambda fc: fc.range(0, 5, 0), ValueError),
    ("range downward", lambda fc: fc.range(10, 0, -3).collect(), [10, 7, 4, 1]),
    ("huge ranges are never listed", lambda fc: fc.range(10**15).take(2), [0, 1]),
    ("empty", lambda fc: (fc.empty().num_partitions, fc.empty().collect()), (0, [])),
    ("of empty", lambda fc: (fc.empty().sum(), fc.empty().fold(1, add), fc.empty().is_empty()), (0, 1, True)),
    ("union adds partitions", lambda fc: fc.union([fc.parallelize([1], 2), fc.parallelize([2], 3)]).num_partitions, 5),
    ("union of equal partitioners", lambda fc: _laid(fc).union(_laid(fc)).num_partitions, 2),
    ("map loses the partitioner", lambda fc: _laid(fc).map(lambda x: x).partitioner, None),
    ("map may keep it", lambda fc: _laid(fc).map(lambda x: x, preserves_partitioning=True).partitioner is None, False),
    ("map_values keeps it", lambda fc: _laid(fc).map_values(lambda x: x).partitioner is None, False),
    ("flat_map_values keeps it", lambda fc: _laid(fc).flat_map_values(lambda x: [x]).partitioner is None, False),
    ("filter keeps it", lambda fc: _laid(fc).filter(lambda x: x).partitioner is None, False),
    ("sample keeps it", lambda fc: _laid(fc).sample(1.0).partitioner is None, False),
    ("keys lose it", lambda fc: _laid(fc).keys().partitioner, None),
    ("flat_map of no iterable", lambda fc: fc.parallelize([1]).flat_map(lambda x: x).collect(), TypeError),
    ("map_partitions to None", lambda fc: fc.parallelize([1]).map_partitions(lambda _: None).collect(), TypeError),
    ("a StopIteration fails the task", lambda fc: fc.parallelize([1]).map(lambda _: next(iter([]))).collect(), RuntimeError),
    ("an RDD and a list", lambda fc: fc.parallelize([1]) + [2], TypeError),
    (
        "cartesian order",
        lambda fc: fc.parallelize([1, 2], 2).cartesian(fc.parallelize("ab", 2)).glom().collect(),
        [[(1, "a")], [(1, "b")], [(2, "a")], [(2, "b")]],
    ),
    ("zip of other partitions", lambda fc: fc.parallelize([1, 2], 2).zip(fc.parallelize([1, 2], 1)), ValueError),
    ("zip of other lengths", lambda fc: fc.parallelize([1, 2, 3], 1).zip(fc.parallelize([1, 2], 1)).collect(), ValueError),
    ("index", lambda fc: fc.parallelize("abc", 2).zip_with_index().collect(), [("a", 0), ("b", 1), ("c", 2)]),
    ("unique id", lambda fc: fc.parallelize("abcde", 3).zip_with_unique_id().values().collect(), [0, 1, 4, 2, 5]),
    ("sample of less than nothing", lambda fc: fc.parallelize([1]).sample(-0.1), ValueError),
    ("sample of more than all", lambda fc: fc.parallelize([1, 2, 3]).sample(1.5).collect(), [1, 2, 3]),
    ("split by negative weights", lambda fc: fc.parallelize([1]).random_split([1, -1]), ValueError),
    ("split by nothing", lambda fc: fc.parallelize([1]).random_split([0]), ValueError),
    ("a split loses nothing", lambda fc: sum(each.count() for each in fc.range(100).random_split([1, 2, 3], seed=1)), 100),
    ("sample_by_key without the key", lambda fc: fc.parallelize([("a", 1)]).sample_by_key({}).collect(), KeyError),
    ("coalesce does not grow", lambda fc: fc.parallelize([1, 2, 3], 3).coalesce(5).num_partitions, 3),
    (
        "coalesce joins neighbours",
        lambda fc: fc.parallelize([1, 2, 3, 4, 5], 3).coalesce(2).glom().collect(),
        [[1], [2, 3, 4, 5]],
    ),
    ("coalesce to nothing", lambda fc: fc.parallelize([1]).coalesce(0), ValueError),
    ("pipe keeps empty lines", lambda fc: fc.parallelize(["a", "", "b"], 1).pipe("cat").collect(), ["a", "", "b"]),
    ("laid again is itself", lambda fc: _laid_again(fc), True),
    ("None is a key", lambda fc: fc.parallelize([(None, 1)]).partition_by(2).count(), 1),
    ("1, 1.0 and True are one key", lambda fc: fc.parallelize([1, 1.0, True]).distinct().count(), 1),
    ("a list is no key", lambda fc: fc.parallelize([([], 1)]).group_by_key().collect(), TypeError),
    ("partitions of a join", lambda fc: _pairs(fc, 3).join(_pairs(fc, 4)).num_partitions, 7),
    ("partitions of a cogroup", lambda fc: _pairs(fc, 3).cogroup(_pairs(fc, 4)).num_partitions, 7),
    ("a join of what lies alike", lambda fc: _laid(fc).join(_laid(fc)).explain().count("\nstage "), 2),
    ("left outer", lambda fc: fc.parallelize([(1, 1)]).left_outer_join(fc.parallelize([(2, 2)])).collect(), [(1, (1, None))]),
    ("fold_by_key begins in each partition", lambda fc: _as(fc, 2).fold_by_key(10, add).collect(), [("a", 23)]),
    (
        "subtract keeps duplicates",
        lambda fc: sorted(fc.parallelize([1, 1, 2, 3]).subtract(fc.parallelize([3])).collect()),
        [1, 1, 2],
    ),
    (
        "descending is stable",
        lambda fc: fc.parallelize([("a", 1), ("b", 1), ("c", 0)], 1).sort_by(lambda x: x[1], ascending=False).collect(),
        [("a", 1), ("b", 1), ("c", 0)],
    ),
    ("nothing sorted", lambda fc: fc.parallelize([], 3).sort_by(abs).collect(), []),
    ("mixed types do not sort", lambda fc: fc.parallelize([1, "a"], 1).sort_by(lambda x: x).collect(), TypeError),
    ("take of less than nothing", lambda fc: fc.parallelize([1]).take(-1), []),
    ("first of nothing", lambda fc: fc.parallelize([], 2).first(), ValueError),
    ("top of less than nothing", lambda fc: fc.parallelize([1]).top(-1), []),
    ("take_ordered of less than nothing", lambda fc: fc.parallelize([1]).take_ordered(-1), ValueError),
    ("top by key", lambda fc: fc.parallelize([1, 2, 3]).top(2, key=operator.neg), [1, 2]),
    ("take_sample of less than nothing", lambda fc: fc.parallelize([1]).take_sample(-1), ValueError),
    ("take_sample of more than there are", lambda fc: sorted(fc.range(4).take_sample(10)), [0, 1, 2, 3]),
    ("take_sample of nothing", lambda fc: (fc.parallelize([], 2).take_sample(10), fc.range(3).take_sample(0)), ([], [])),
    ("reduce of nothing", lambda fc: fc.parallelize([], 2).reduce(add), ValueError),
    ("tree_reduce of nothing", lambda fc: fc.parallelize([], 2).tree_reduce(add), ValueError),
    ("tree_reduce without depth", lambda fc: fc.parallelize([1], 2).tree_reduce(add, 0), ValueError),
    ("fold's zero, once a partition and once more", lambda fc: fc.parallelize([1, 2, 3], 3).fold(10, add), 46),
    ("aggregate's zero", lambda fc: fc.parallelize([1, 2, 3], 3).aggregate(10, add, add), 46),
    ("aggregate of nothing", lambda fc: fc.parallelize([], 2).aggregate(5, add, add), 15),
    ("tree_aggregate's zero, once a partition", lambda fc: fc.parallelize([1, 2, 3], 3).tree_aggregate(10, add, add), 36),
    ("sum and mean of nothing", lambda fc: (fc.parallelize([], 2).sum(), fc.parallelize([], 2).mean()), (0, 0.0)),
    ("variance of nothing", lambda fc: math.isnan(fc.parallelize([], 2).variance()), True),
    ("sample variance of one", lambda fc: math.isnan(fc.parallelize([1], 2).sample_variance()), True),
    ("mean of flags", lambda fc: fc.parallelize([True, False]).mean(), 0.5),
    ("sum of texts", lambda fc: fc.parallelize(["a", "b"]).sum(), TypeError),
    ("max of nothing", lambda fc: fc.parallelize([], 2).max(), ValueError),
    ("max with NaN behind", lambda fc: fc.parallelize([1.0, math.nan, 3.0], 1).max(), 3.0),
    ("min by key", lambda fc: fc.parallelize(["a", "bb"]).min(key=len), "a"),
    ("histogram in 2", lambda fc: fc.range(51).histogram(2), ([0, 25, 50], [25, 26])),
    ("histogram in 3", lambda fc: fc.range(51).histogram(3), ([0.0, 16.666666666666668, 33.333333333333336, 50], [17, 17, 17])),
    ("histogram by bounds", lambda fc: fc.range(51).histogram([0, 5, 25, 50]), ([0, 5, 25, 50], [5, 20, 26])),
    ("histogram of one value", lambda fc: fc.parallelize([1, 1, 1]).histogram(3), ([1, 1], [3])),
    ("histogram of texts in 1", lambda fc: fc.parallelize(["ab", "ac", "b"]).histogram(1), (["ab", "b"], [3])),
    ("histogram of texts in 2", lambda fc: fc.parallelize(["ab", "ac", "b"]).histogram(2), TypeError),
    ("histogram to infinity", lambda fc: fc.parallelize([1, math.inf]).histogram(2), ValueError),
    ("histogram of nothing", lambda fc: fc.parallelize([], 2).histogram(2), ValueError),
    ("bounds that fall", lambda fc: fc.range(3).histogram([3, 2]), ValueError),
    ("bounds twice", lambda fc: fc.range(3).histogram([1, 1, 2]), ValueError),
    ("one bound", lambda fc: fc.range(3).histogram([1]), ValueError),
    ("no bucket", lambda fc: fc.range(3).histogram(0), ValueError),
    ("half a bucket", lambda fc: fc.range(3).histogram(2.5), TypeError),
    ("bounds of a generator", lambda fc: fc.range(3).histogram(x for x in (1, 2)), TypeError),
    ("None and NaN are in no bucket", lambda fc: fc.parallelize([1, None, math.nan, 3]).histogram([0, 2, 4])[1], [1, 1]),
    ("counts of equal values", lambda fc: fc.parallelize([1, 1.0, True]).count_by_value(), {1: 3}),
    ("counts of keys", lambda fc: fc.parallelize([(1, 2), (1, 3)]).count_by_key(), {1: 2}),
    ("the last value of a key", lambda fc: fc.parallelize([(1, 2), (1, 3)], 1).collect_as_map(), {1: 3}),
    ("reduced here", lambda fc: fc.parallelize([(1, 2), (1, 3)]).reduce_by_key_locally(add), {1: 5}),
    ("lookup of nothing", lambda fc: fc.parallelize([(1, 2), (1, 3)]).lookup(5), []),
    ("lookup of what is sorted", lambda fc: fc.parallelize([(1, 2), (2, 3)]).sort_by_key().lookup(2), [3]),
    ("too fine a sketch", lambda fc: fc.parallelize([1]).count_approx_distinct(0.00001), ValueError),
    ("foreach returns nothing", lambda fc: fc.parallelize([1]).foreach(lambda _: 3), None),
    ("another level", lambda fc: fc.range(3).cache().persist(fk.StorageLevel.DISK_ONLY), ValueError),
    ("checkpoint without a place", lambda fc: fc.range(3).checkpoint(), ValueError),
    ("a broadcast after unpersist", lambda fc: _unpersisted(fc), [1]),
    ("a broadcast after destroy in a job", lambda fc: _destroyed(fc), fk.FlowkitError),
    ("a text is not added up", lambda fc: fc.accumulator(object()), TypeError),
    ("what does not run adds nothing", lambda fc: _not_run(fc), 0),
    ("a local property that is not set", lambda fc: fc.get_local_property("nothing"), None),
    ("a tag with a comma", lambda fc: fc.add_job_tag("a,b"), ValueError),
    ("an empty tag", lambda fc: fc.add_job_tag(""), ValueError),
    ("a local property that is no text", lambda fc: fc.set_local_property("x", 5), TypeError),
    ("an unknown job", lambda fc: fc.jobs.info(99_999), None),
    ("a Context in a task", lambda fc: fc.parallelize([1]).map(lambda _: fk.Context()).collect(), RuntimeError),
    ("an RDD in a task", lambda fc: _nested(fc), TypeError),
    ("no name", lambda fc: fc.range(3).name, None),
]


def _laid(fc: fk.Context) -> Any:
    return fc.parallelize([(1, 1)]).partition_by(2)


def _pairs(fc: fk.Context, parts: int) -> Any:
    return fc.parallelize([(1, 1)], parts)


def _as(fc: fk.Context, parts: int) -> Any:
    return fc.parallelize([("a", 1), ("a", 2)], parts)


def _laid_again(fc: fk.Context) -> bool:
    rdd = _laid(fc)
    return rdd.partition_by(2) is rdd


def _unpersisted(fc: fk.Context) -> Any:
    broadcast = fc.broadcast([1])
    broadcast.unpersist()
    return broadcast.value


def _nested(fc: fk.Context) -> Any:
    rdd = fc.range(1)
    return rdd.map(lambda _: rdd.count()).collect()


def _destroyed(fc: fk.Context) -> Any:
    broadcast = fc.broadcast([1])
    broadcast.destroy()
    return fc.parallelize([1]).map(lambda _: broadcast.value).collect()


def _not_run(fc: fk.Context) -> int:
    total = fc.accumulator(0)
    fc.parallelize([1, 2]).map(total.add)
    return total.value


@pytest.mark.parametrize("call, expected", [each[1:] for each in SAME], ids=[each[0] for each in SAME])
def test_where_the_table_says_nothing_behaviour_is_pysparks(fc, call, expected):
    if isinstance(expected, type) and issubclass(expected, BaseException):
        with pytest.raises(expected):
            call(fc)
    else:
        assert call(fc) == expected


def test_reading_text_has_pysparks_edges(fc, tmp_path):
    (tmp_path / "lines.txt").write_bytes("a\n\nb\u2028c\r\nd".encode())
    assert fc.text_file(tmp_path / "lines.txt").collect() == ["a", "", "b\u2028c", "d"]
    (tmp_path / "records").write_bytes(b"abcdef")
    _raises(ValueError, lambda: fc.binary_records(tmp_path / "records", 4).collect())
