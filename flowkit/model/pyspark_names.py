"""PySpark's public names and flowkit's, as data: the tables of docs/from-pyspark.md and the advice of AttributeErrors are made of them.

Pure; loaded when a name is missing. ``docs/generate.py`` writes the page, and tests/contracts/test_from_pyspark.py checks that every name
stands here and that what a row claims is so.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Row(NamedTuple):
    """A line of a table.

    ``theirs`` and ``ours`` hold names separated by spaces. When they are equally many, each of theirs is one of ours, in this order; else
    each of theirs is any of ours. A name of theirs without a dot belongs to the table's class.
    """

    theirs: str
    ours: str = ""
    #: Markdown: what is different; of a name without counterpart, what to do instead
    note: str = ""


class Table(NamedTuple):
    """A table of the page, about the names of one class or module of PySpark."""

    title: str
    #: ``SparkContext``, ``RDD``, ... or ``pyspark``
    owner: str
    rows: tuple[Row, ...]


#: the class or module of flowkit on which a name of PySpark's is looked for
COUNTERPARTS: Final = {
    "SparkContext": "Context",
    "RDD": "RDD",
    "RDDBarrier": "BarrierRDD",
    "TaskContext": "TaskContext",
    "BarrierTaskContext": "TaskContext",
    "Broadcast": "Broadcast",
    "Accumulator": "Accumulator",
    "AccumulatorParam": "Accumulator",
    "StatusTracker": "Jobs",
    "StatCounter": "StatCounter",
    "StorageLevel": "StorageLevel",
    "SparkConf": "Config",
    "SparkFiles": "files",
    "pyspark": "flowkit",
}

NO_HADOOP: Final = (
    "no Hadoop formats; `Context.read_parquet`, `Context.read_arrow`, `Context.read_csv`, `Context.read_json_lines` instead"
)
NO_HADOOP_SINKS: Final = "no Hadoop formats; `RDD.save_as_parquet`, `RDD.save_as_csv`, `RDD.save_as_json_lines` instead"

TABLES: Final = (
    Table(
        "Making a context",
        "SparkContext",
        (
            Row("pyspark.SparkContext", "Context", "embedded by default: processes on this machine; several may live at once"),
            Row("getOrCreate", "Context.get_or_create", "the newest that is open"),
            Row("stop", "Context.close", "or `with`"),
            Row("pyspark.SparkConf", "Config", "immutable and checked: `Config(name=value)`, or `Context(name=value)`"),
            Row(
                "SparkConf.set SparkConf.setAll SparkConf.setIfMissing",
                "Config.with_settings",
                "returns a new one; `getConf` is `Context.config`",
            ),
            Row(
                "SparkConf.get SparkConf.getAll SparkConf.contains SparkConf.toDebugString",
                "Config.explain",
                "settings are attributes",
            ),
            Row("SparkConf.setAppName", "Context", "`Context(name=...)`"),
            Row("SparkConf.setMaster SparkConf.setSparkHome", "Context", "`Context(address)`; there is no home directory"),
            Row("SparkConf.setExecutorEnv", "", "no; executors have the environment of Dask's workers"),
            Row("getConf", "Context.config"),
            Row("defaultParallelism", "Context.default_parallelism"),
            Row("defaultMinPartitions", "", "no; files are cut by the settings `min_partition_bytes` and `max_partition_bytes`"),
            Row("applicationId", "Context.app"),
            Row("version", "flowkit.__version__"),
            Row("startTime sparkUser uiWebUrl", "", "no; `Context.app`, `Context.status` and Dask's own dashboard"),
            Row("resources", "fc.status.executors", "tasks ask `TaskContext.resources`"),
            Row("setLogLevel", "", 'no; `logging.getLogger("flowkit").setLevel(...)`'),
            Row("getSystemProperty setSystemProperty", "", "no JVM; `os.environ`, and the setting's own name for settings"),
            Row(
                "pyspark.Profiler pyspark.BasicProfiler show_profiles dump_profiles",
                "Context.profile",
                "a block's jobs, by operation and line",
            ),
            Row("pyspark.CPickleSerializer pyspark.MarshalSerializer", "", "no; the setting `serializers`"),
        ),
    ),
    Table(
        "Making RDDs",
        "SparkContext",
        (
            Row("parallelize", "Context.parallelize", "zero partitions are refused; a negative number at the call"),
            Row("range", "Context.range", "whole numbers only"),
            Row("emptyRDD", "Context.empty"),
            Row("union", "Context.union", "of none: a ValueError, not an IndexError"),
            Row(
                "textFile",
                "Context.text_file",
                "a missing path fails at the call; lists of paths too; `encoding=` for `use_unicode=`; a directory's own directories are left "
                "out, and one that holds nothing else is an error",
            ),
            Row("wholeTextFiles", "Context.whole_text_files", "paths without `file:`; a byte order mark is left out"),
            Row(
                "binaryFiles",
                "Context.binary_files",
                "`bytes` as they are in the file, compressed or not; paths without `file:`",
            ),
            Row("binaryRecords", "Context.binary_records", "compressed files too"),
            Row("pickleFile", "Context.pickle_file", "reads what `RDD.save_as_pickle` wrote, not Hadoop's sequence files"),
            Row("sequenceFile hadoopFile hadoopRDD newAPIHadoopFile newAPIHadoopRDD", "", NO_HADOOP),
            Row(
                "setCheckpointDir getCheckpointDir",
                "Context.config",
                "the setting `checkpoint_directory`, or a path at each `RDD.checkpoint`",
            ),
        ),
    ),
    Table(
        "Beside the rows",
        "SparkContext",
        (
            Row(
                "broadcast pyspark.Broadcast",
                "Context.broadcast",
                "what nobody refers to goes by itself; one value for all tasks of a process, so read-only in practice",
            ),
            Row("Broadcast.value Broadcast.unpersist Broadcast.destroy", "Broadcast.value Broadcast.unpersist Broadcast.destroy"),
            Row("Broadcast.dump Broadcast.load Broadcast.load_from_path", "", "no; a broadcast is not a file"),
            Row(
                "accumulator pyspark.Accumulator pyspark.AccumulatorParam",
                "Context.accumulator",
                "own types by `merge=`, no `AccumulatorParam`; exact under retries in transformations too",
            ),
            Row(
                "Accumulator.value Accumulator.add",
                "Accumulator.value Accumulator.add",
                "`value` is read only; `Accumulator.reset` sets it",
            ),
            Row(
                "AccumulatorParam.zero AccumulatorParam.addInPlace",
                "Context.accumulator",
                "`merge=` takes a function of two values",
            ),
            Row(
                "addFile addPyFile addArchive",
                "Context.add_file Context.add_py_file Context.add_archive",
                "`add_py_file` takes a package's directory too; `add_archive` a directory, in place of `recursive=`, and a name, in place of `#name`",
            ),
            Row("listFiles listArchives", "Context.list_files", "a method; of all that was added"),
            Row(
                "SparkFiles.get pyspark.SparkFiles",
                "flowkit.files.get flowkit.files",
                "a name that was not added is a FileNotFoundError",
            ),
            Row("SparkFiles.getRootDirectory", "", "no; each file has a place of its own, which `flowkit.files.get` finds"),
        ),
    ),
    Table(
        "Jobs",
        "SparkContext",
        (
            Row("runJob", "RDD.map_partitions", "`rdd.map_partitions(fn).collect()`; `Context.run_job` is for RDDs' own use"),
            Row("setJobGroup", "Context.job_group Context.job", "context managers; `job` also takes `timeout_s` and properties"),
            Row("setInterruptOnCancel", "", "no; cancelling always stops running tasks"),
            Row("setJobDescription", "Context.job_description", "a context manager"),
            Row(
                "addJobTag removeJobTag getJobTags clearJobTags",
                "Context.add_job_tag Context.remove_job_tag Context.job_tags Context.clear_job_tags",
                "also `with fc.job_tag(...)`",
            ),
            Row(
                "setLocalProperty getLocalProperty",
                "Context.set_local_property Context.get_local_property",
                "inherited by asyncio tasks; by threads with `inheritable`",
            ),
            Row(
                "pyspark.inheritable_thread_target pyspark.InheritableThread", "flowkit.inheritable", "a function for any thread"
            ),
            Row("cancelJobGroup cancelJobsWithTag cancelAllJobs", "fc.jobs.cancel_group fc.jobs.cancel_tag fc.jobs.cancel_all"),
            Row("statusTracker pyspark.StatusTracker", "Context.jobs Context.status", "attributes"),
            Row(
                "StatusTracker.getJobIdsForGroup StatusTracker.getJobInfo StatusTracker.getStageInfo StatusTracker.getActiveJobsIds",
                "fc.jobs.ids_for_group fc.jobs.info fc.jobs.stage_info fc.jobs.active",
            ),
            Row(
                "StatusTracker.getActiveStageIds StatusTracker.getExecutorInfos",
                "fc.status.stages fc.status.executors",
                "`stages(running=True)`",
            ),
            Row(
                "pyspark.SparkJobInfo pyspark.SparkStageInfo pyspark.SparkExecutorInfo",
                "fc.jobs.info fc.jobs.stage_info fc.status.executors",
                "what these return",
            ),
        ),
    ),
    Table(
        "Transformations",
        "RDD",
        (
            Row("map flatMap filter", "RDD.map RDD.flat_map RDD.filter"),
            Row("mapPartitions mapPartitionsWithIndex", "RDD.map_partitions RDD.map_partitions_with_index"),
            Row("mapPartitionsWithSplit", "RDD.map_partitions_with_index", "deprecated in PySpark"),
            Row("mapValues flatMapValues", "RDD.map_values RDD.flat_map_values"),
            Row("keyBy keys values", "RDD.key_by RDD.keys RDD.values"),
            Row("glom", "RDD.glom"),
            Row("union", "RDD.union", "also `+`"),
            Row(
                "intersection subtract subtractByKey",
                "RDD.intersection RDD.subtract RDD.subtract_by_key",
                "`intersection`: in another order",
            ),
            Row("distinct", "RDD.distinct"),
            Row("cartesian", "RDD.cartesian"),
            Row(
                "zip zipWithIndex zipWithUniqueId",
                "RDD.zip RDD.zip_with_index RDD.zip_with_unique_id",
                "`zip_with_index` runs its job at the first action, not at the call",
            ),
            Row("", "RDD.zip_partitions", "several RDDs, partition by partition"),
            Row(
                "sample sampleByKey randomSplit",
                "RDD.sample RDD.sample_by_key RDD.random_split",
                "`sample(fraction, with_replacement=...)`; other elements than PySpark's for the same seed",
            ),
            Row(
                "coalesce repartition",
                "RDD.coalesce RDD.repartition",
                "`repartition` deals row by row, where PySpark deals ten at a time",
            ),
            Row(
                "repartitionAndSortWithinPartitions",
                "RDD.repartition_and_sort_within_partitions",
                "`fn` for `partitionFunc`, `key=` for `keyfunc`",
            ),
            Row("pipe", "RDD.pipe", "`check=` for `checkCode=`"),
            Row("groupBy groupByKey", "RDD.group_by RDD.group_by_key", "lists, not a `ResultIterable`"),
            Row(
                "reduceByKey foldByKey aggregateByKey combineByKey",
                "RDD.reduce_by_key RDD.fold_by_key RDD.aggregate_by_key RDD.combine_by_key",
                "no `partitionFunc=`: `RDD.partition_by` with a function first, which these then keep to",
            ),
            Row(
                "partitionBy",
                "RDD.partition_by",
                "keys are hashed alike in every process, without PYTHONHASHSEED; `portable_hash` is not used, so pairs lie elsewhere than in PySpark",
            ),
            Row(
                "sortBy sortByKey",
                "RDD.sort_by RDD.sort_by_key",
                "sampled at the first action, not at the call, and cut into partitions elsewhere; `sort_by_key(key=...)` for `keyfunc=`",
            ),
            Row(
                "join leftOuterJoin rightOuterJoin fullOuterJoin",
                "RDD.join RDD.left_outer_join RDD.right_outer_join RDD.full_outer_join",
            ),
            Row("cogroup groupWith", "RDD.cogroup RDD.group_with", "any number; lists; `cogroup(other, num_partitions=...)`"),
            Row("setName name", "RDD.set_name RDD.name", "`name` is a property"),
            Row("id context getNumPartitions", "RDD.id RDD.context RDD.num_partitions", "properties"),
            Row("toDebugString", "RDD.debug_string RDD.explain", "text, not bytes"),
            Row("toDF", "", "no data frames; `RDD.save_as_parquet`, read by any of them"),
            Row("", "RDD.indeterminate", "says that computing again may give other rows"),
            Row("", "RDD.quarantined", 'of `map(fn, on_error="quarantine")`: the elements it raised for'),
            Row("", "RDD.hints", "what could be better, after a run"),
        ),
    ),
    Table(
        "Keeping rows",
        "RDD",
        (
            Row(
                "cache persist unpersist",
                "RDD.cache RDD.persist RDD.unpersist",
                "`MEMORY_ONLY` holds objects, of which each reader has its own (PySpark: always bytes), `MEMORY_ONLY_SER` bytes; `_2` levels are "
                "copied in the background",
            ),
            Row("getStorageLevel", "RDD.storage_level", "a property"),
            Row("pyspark.StorageLevel", "StorageLevel", "also `MEMORY_ONLY_BY_REFERENCE`, whose readers share the objects"),
            Row(
                "StorageLevel.MEMORY_AND_DISK_DESER", "StorageLevel.MEMORY_AND_DISK", "holds objects; `MEMORY_AND_DISK_SER` bytes"
            ),
            Row(
                "checkpoint localCheckpoint",
                "RDD.checkpoint RDD.local_checkpoint",
                "with a path, or the setting `checkpoint_directory`; `eager=True` writes now; a second call is refused",
            ),
            Row(
                "isCheckpointed isLocallyCheckpointed getCheckpointFile",
                "RDD.is_checkpointed RDD.is_locally_checkpointed RDD.checkpoint_path",
                "properties; `is_checkpointed` is False after a local one, where PySpark says True",
            ),
            Row("SparkContext._checkpointFile", "Context.checkpoint_file", "keeps how pairs lie"),
            Row("cleanShuffleDependencies", "", "no; a shuffle's files go with the last RDD that refers to it"),
        ),
    ),
    Table(
        "Barriers, resources, tasks",
        "RDD",
        (
            Row(
                "barrier pyspark.RDDBarrier",
                "RDD.barrier",
                "a call that not all tasks make ends the job at once instead of waiting",
            ),
            Row(
                "RDDBarrier.mapPartitions RDDBarrier.mapPartitionsWithIndex",
                "BarrierRDD.map_partitions BarrierRDD.map_partitions_with_index",
            ),
            Row(
                "pyspark.TaskContext pyspark.BarrierTaskContext",
                "TaskContext",
                "one class; `TaskContext.get()` is None on the driver",
            ),
            Row(
                "TaskContext.get TaskContext.getLocalProperty",
                "TaskContext.get TaskContext.get_local_property",
                "one that a task returns does not become the driver's",
            ),
            Row(
                "TaskContext.stageId TaskContext.partitionId TaskContext.attemptNumber TaskContext.taskAttemptId TaskContext.cpus "
                "TaskContext.resources",
                "TaskContext.stage_id TaskContext.partition_id TaskContext.attempt_number TaskContext.task_attempt_id TaskContext.cpus "
                "TaskContext.resources",
                "attributes; addresses as texts",
            ),
            Row("TaskContext.cpuAmount", "TaskContext.cpus", "whole slots only"),
            Row("TaskContext.from_json BarrierTaskContext.from_json", "", "no; for PySpark's own use"),
            Row("BarrierTaskContext.barrier", "TaskContext.barrier"),
            Row("BarrierTaskContext.allGather", "TaskContext.all_gather", "any small object, not only texts"),
            Row(
                "BarrierTaskContext.getTaskInfos pyspark.BarrierTaskInfo",
                "TaskContext.all_gather",
                "no; gather what others must know, `socket.gethostname()` among it",
            ),
            Row(
                "withResources getResourceProfile",
                "RDD.with_resources RDD.resource_profile",
                "for tasks; executors have what they have",
            ),
            Row("", "Context", '`spark.dynamicAllocation.*` is `Context(allocation="backlog")`'),
        ),
    ),
    Table(
        "Actions",
        "RDD",
        (
            Row(
                "collect collectAsMap toLocalIterator",
                "RDD.collect RDD.collect_as_map RDD.to_local_iterator",
            ),
            Row("collectWithJobGroup", "Context.job_group", "`with fc.job_group(...): rdd.collect()`; deprecated in PySpark"),
            Row(
                "count countByKey countByValue isEmpty",
                "RDD.count RDD.count_by_key RDD.count_by_value RDD.is_empty",
                "plain dicts",
            ),
            Row(
                "take first top takeOrdered takeSample",
                "RDD.take RDD.first RDD.top RDD.take_ordered RDD.take_sample",
                "`take_sample(num, with_replacement=...)`; a number beyond `sys.maxsize` is all elements without replacement, and beyond "
                "`max_result_bytes` an error with it",
            ),
            Row(
                "reduce fold aggregate treeReduce treeAggregate",
                "RDD.reduce RDD.fold RDD.aggregate RDD.tree_reduce RDD.tree_aggregate",
            ),
            Row("reduceByKeyLocally lookup", "RDD.reduce_by_key_locally RDD.lookup"),
            Row("sum mean max min stats", "RDD.sum RDD.mean RDD.max RDD.min RDD.stats"),
            Row(
                "variance stdev sampleVariance sampleStdev",
                "RDD.variance RDD.stdev RDD.sample_variance RDD.sample_stdev",
            ),
            Row("histogram", "RDD.histogram", "bounds come back as a list; a flag is no number of buckets"),
            Row("foreach foreachPartition", "RDD.foreach RDD.foreach_partition"),
            Row(
                "saveAsTextFile saveAsPickleFile",
                "RDD.save_as_text RDD.save_as_pickle",
                '`mode="error"`, `"overwrite"`, `"append"`, `"ignore"`; `compression="gzip"`, `"bz2"`, `"xz"`, `"zstd"` for codec classes; '
                "`encoding=`; `bytes` as they are; `part-00000.pickle`",
            ),
            Row("", "RDD.save_as_json_lines RDD.save_as_csv RDD.save_as_parquet", "whole or not at all"),
            Row(
                "saveAsSequenceFile saveAsHadoopDataset saveAsHadoopFile saveAsNewAPIHadoopDataset saveAsNewAPIHadoopFile",
                "",
                NO_HADOOP_SINKS,
            ),
            Row(
                "",
                "RDD.collect_async RDD.count_async RDD.take_async RDD.reduce_async RDD.foreach_async RDD.foreach_partition_async",
                "futures that can be awaited and cancelled",
            ),
            Row(
                "countApprox sumApprox meanApprox",
                "RDD.count_approx RDD.sum_approx RDD.mean_approx",
                "`timeout_s` is seconds; what is not over by then is cancelled; a `BoundedFloat` each, with bounds from how much partitions "
                "differ; a confidence of 1.0 is refused",
            ),
            Row("countApproxDistinct", "RDD.count_approx_distinct", "needs `flowkit[sketches]`"),
        ),
    ),
    Table(
        "StatCounter",
        "StatCounter",
        (
            Row(
                "count mean min max sum variance stdev sampleVariance sampleStdev",
                "StatCounter.count StatCounter.mean StatCounter.minimum StatCounter.maximum StatCounter.sum StatCounter.variance "
                "StatCounter.stdev StatCounter.sample_variance StatCounter.sample_stdev",
                "attributes; floating point; NaN makes all but the count NaN",
            ),
            Row("merge mergeStats", "StatCounter.of StatCounter.merge", "immutable: these return a new one"),
            Row("copy", "", "no; it is immutable"),
            Row(
                "asDict",
                "",
                "no; read the attributes (PySpark's `asDict()` gives the sample's deviations, `asDict(sample=True)` the population's)",
            ),
        ),
    ),
)

#: keywords of PySpark's whose names are not ours in camelCase; more than one word: what to do instead
KEYWORDS: Final = {
    "numSlices": "num_partitions",
    "end": "stop",
    "f": "fn",
    "func": "fn",
    "op": "fn",
    "keyfunc": "key",
    "zeroValue": "zero",
    "seqOp": "merge_element",
    "combOp": "merge_results",
    "seqFunc": "merge_value",
    "combFunc": "merge_combiners",
    "createCombiner": "create",
    "checkCode": "check",
    "recordLength": "record_bytes",
    "compressionCodecClass": "compression",
    "relativeSD": "relative_sd",
    "timeout": "timeout_s",
    "partitionFunc": "lay pairs by partition_by(num_partitions, fn) first; what follows keeps to it",
    "use_unicode": "encoding= says how bytes become text; binary_files gives them as they are",
    "batchSize": "pickles are written in batches of their own accord",
    "prefetchPartitions": "partitions are fetched one at a time",
    "interruptOnCancel": "cancelling always stops running tasks",
    "accum_param": "merge= takes a function of two values",
}

#: parameters in PySpark's order, by our names, where it is not ours or goes on with one that is not here
ORDERS: Final = {
    "RDD.sample": "with_replacement fraction seed",
    "RDD.sample_by_key": "with_replacement fractions seed",
    "RDD.take_sample": "with_replacement num seed",
    "RDD.pipe": "command env check",
    "RDD.save_as_text": "path compression",
    "RDD.group_by": "fn num_partitions partitionFunc",
    "RDD.group_by_key": "num_partitions partitionFunc",
    "RDD.reduce_by_key": "fn num_partitions partitionFunc",
    "RDD.fold_by_key": "zero fn num_partitions partitionFunc",
    "RDD.aggregate_by_key": "zero merge_value merge_combiners num_partitions partitionFunc",
    "RDD.combine_by_key": "create merge_value merge_combiners num_partitions partitionFunc",
    "Context.accumulator": "initial accum_param",
    "Context.text_file": "path min_partitions use_unicode",
    "Context.whole_text_files": "path min_partitions use_unicode",
}
