"""What somebody meant who named a setting that is none: by the names that others give it, else by a slip of the keyboard. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

#: below this likeness of two names, from 0 to 1, a guess misleads more often than it helps
_ALIKE: Final = 0.8

_PARALLELISM: Final = "default_parallelism"
_WORKERS: Final = "Context(workers=...)"
_THREADS: Final = "Context(threads_per_worker=...)"
_MEMORY: Final = "Context(memory_limit=...)"
_CLUSTER: Final = "Context(cluster=...)"
_NAME: Final = "Context(name=...)"

#: what else it is called, in lower case with underscores: Spark's keys without ``spark_``, words of Dask and of the field
OTHER_NAMES: Final[Mapping[str, str]] = {
    "task_retries": "max_task_failures",
    "retries": "max_task_failures",
    "max_retries": "max_task_failures",
    "allowed_failures": "max_task_failures",
    "task_maxfailures": "max_task_failures",
    "max_failures": "max_task_failures",
    "stage_maxconsecutiveattempts": "max_stage_attempts",
    "stage_retries": "max_stage_attempts",
    "locality_wait": "locality_wait_s",
    "heartbeat": "heartbeat_s",
    "heartbeat_interval": "heartbeat_s",
    "executor_heartbeatinterval": "heartbeat_s",
    "network_timeout": "executor_timeout_s",
    "worker_ttl": "executor_timeout_s",
    "task_reaper_killtimeout": "kill_grace_s",
    "scheduler": "scheduling_policy",
    "policy": "scheduling_policy",
    "scheduler_mode": "scheduling_policy",
    "scheduler_allocation_file": "pools",
    "queues": "pools",
    "locality": "placement",
    "racks": "topology",
    "gpus": "resources",
    "dynamic_allocation": "allocation",
    "autoscaling": "allocation",
    "adaptive": "allocation",
    "dynamicallocation_enabled": "allocation",
    "dynamicallocation_minexecutors": "min_executors",
    "dynamicallocation_maxexecutors": "max_executors",
    "dynamicallocation_initialexecutors": "initial_executors",
    "dynamicallocation_executoridletimeout": "executor_idle_s",
    "speculation_enabled": "speculation",
    "speculation_mintaskruntime": "speculation_min_s",
    "excludeonfailure_enabled": "exclude_failing",
    "blacklist": "exclude_failing",
    "driver_maxresultsize": "max_result_bytes",
    "max_result_size": "max_result_bytes",
    "files_maxpartitionbytes": "max_partition_bytes",
    "sql_files_maxpartitionbytes": "max_partition_bytes",
    "blocksize": "max_partition_bytes",
    "memory_storagefraction": "memory_fraction",
    "memory_offheap_size": "max_off_heap_bytes",
    "rdd_compress": "block_codec",
    "io_compression_codec": "shuffle_codec",
    "shuffle_compress": "shuffle_codec",
    "compression": "shuffle_codec",
    "codec": "shuffle_codec",
    "sql_adaptive_coalescepartitions_enabled": "coalesce_bytes",
    "sql_adaptive_advisorypartitionsizeinbytes": "coalesce_bytes",
    "sql_adaptive_skewjoin_enabled": "split_bytes",
    "reducer_maxsizeinflight": "fetch_in_flight_bytes",
    "local_dir": "local_directory",
    "local_dirs": "local_directory",
    "temporary_directory": "local_directory",
    "tmpdir": "local_directory",
    "scratch": "local_directory",
    "serializer": "serializers",
    "parallelism": _PARALLELISM,
    "partitions": _PARALLELISM,
    "num_partitions": _PARALLELISM,
    "shuffle_partitions": _PARALLELISM,
    "sql_shuffle_partitions": _PARALLELISM,
    "checkpoint_dir": "checkpoint_directory",
    "progress_bar": "progress",
    "ui_showconsoleprogress": "progress",
    "quiet": "progress",
    "eventlog_enabled": "event_log",
    "eventlog_dir": "event_log",
    "log_directory": "event_log",
    "scheduler_listenerbus_eventqueue_capacity": "listener_queue_capacity",
    "executor_instances": _WORKERS,
    "executors": _WORKERS,
    "num_executors": _WORKERS,
    "num_workers": _WORKERS,
    "n_workers": _WORKERS,
    "nworkers": _WORKERS,
    "processes": _WORKERS,
    "cores_max": _WORKERS,
    "cores": _WORKERS,
    "slots": _THREADS,
    "executor_cores": _THREADS,
    "threads": _THREADS,
    "nthreads": _THREADS,
    "executor_memory": _MEMORY,
    "worker_memory": _MEMORY,
    "memory": _MEMORY,
    "master": _CLUSTER,
    "address": _CLUSTER,
    "scheduler_address": _CLUSTER,
    "app_name": _NAME,
    "appname": _NAME,
}
#: arguments of a Context that are no settings
_ARGUMENTS: Final[Mapping[str, str]] = {
    each.partition("(")[2].partition("=")[0]: each for each in (_WORKERS, _THREADS, _MEMORY, _CLUSTER, _NAME)
}


def meant_by(name: str, known: Iterable[str]) -> str:
    """The setting, or the argument of a Context, that a name probably means; empty where a guess would be a guess.

    >>> known = ("max_task_failures", "progress", "block_directories")
    >>> meant_by("task_retries", known), meant_by("spark.task.maxFailures", known), meant_by("max_task_failure", known)
    ('max_task_failures', 'max_task_failures', 'max_task_failures')
    >>> meant_by("cores", known), meant_by("colour", known)
    ('Context(workers=...)', '')
    """
    plain = name.strip().lower().replace(".", "_").replace("-", "_")
    for prefix in ("spark_", "flowkit_"):
        plain = plain.removeprefix(prefix)
    known = tuple(known)
    if plain in known:
        return plain
    found = _ARGUMENTS.get(plain) or OTHER_NAMES.get(plain)
    if found is not None:
        return found
    # Words in another order, and units left out: `failures_max_task`, `lease`.
    words = set(plain.split("_"))
    same = [each for each in known if set(each.split("_")) - {"s", "bytes"} == words]
    near = same or difflib.get_close_matches(plain, known, n=1, cutoff=_ALIKE)
    if near:
        return near[0]
    other = difflib.get_close_matches(plain, OTHER_NAMES, n=1, cutoff=_ALIKE)
    return OTHER_NAMES[other[0]] if other else ""
