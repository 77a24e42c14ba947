"""One right call of every public operation, to be made wrong by tests: arguments by name, in the order of the signature."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flowkit as fk

Arguments = dict[str, Any]


def of_rdds(rdd: fk.RDD[Any], pairs: fk.RDD[Any], place: Path) -> dict[str, Arguments]:
    """Of ``RDD``: what is by key is called on ``pairs``, see ``BY_KEY``."""
    return {
        "map": {"fn": abs, "preserves_partitioning": False, "on_error": "skip", "max_errors": 3},
        "flat_map": {"fn": range, "preserves_partitioning": False, "on_error": "skip", "max_errors": 3},
        "filter": {"fn": bool, "on_error": "skip", "max_errors": 3},
        "map_partitions": {"fn": list, "preserves_partitioning": False},
        "map_partitions_with_index": {"fn": lambda _, rows: rows, "preserves_partitioning": False},
        "quarantined": {},
        "glom": {},
        "union": {"other": rdd},
        "zip_with_index": {},
        "distinct": {"num_partitions": 2},
        "intersection": {"other": rdd, "num_partitions": 2},
        "subtract": {"other": rdd, "num_partitions": 2},
        "group_by": {"fn": abs, "num_partitions": 2},
        "sort_by": {"key": abs, "ascending": True, "num_partitions": 2},
        "coalesce": {"num_partitions": 2, "shuffle": False},
        "repartition": {"num_partitions": 2},
        "repartition_and_sort_within_partitions": {"num_partitions": 2, "fn": hash, "ascending": True, "key": abs},
        "zip": {"other": rdd},
        "zip_partitions": {"fn": zip},
        "zip_with_unique_id": {},
        "cartesian": {"other": rdd},
        "pipe": {"command": "cat", "env": {"A": "b"}, "encoding": "utf-8", "check": False},
        "sample": {"fraction": 0.5, "with_replacement": False, "seed": 1},
        "random_split": {"weights": [1, 2], "seed": 1},
        "sample_by_key": {"fractions": {0: 0.5, 1: 0.5, 2: 0.5}, "with_replacement": False, "seed": 1},
        "take_sample": {"num": 2, "with_replacement": False, "seed": 1},
        "key_by": {"fn": abs},
        "keys": {},
        "values": {},
        "map_values": {"fn": abs, "on_error": "skip", "max_errors": 3},
        "flat_map_values": {"fn": range},
        "combine_by_key": {"create": abs, "merge_value": max, "merge_combiners": max, "num_partitions": 2},
        "reduce_by_key": {"fn": max, "num_partitions": 2},
        "aggregate_by_key": {"zero": 0, "merge_value": max, "merge_combiners": max, "num_partitions": 2},
        "fold_by_key": {"zero": 0, "fn": max, "num_partitions": 2},
        "group_by_key": {"num_partitions": 2},
        "partition_by": {"num_partitions": 2, "fn": hash},
        "sort_by_key": {"ascending": True, "num_partitions": 2, "key": abs},
        "join": {"other": pairs, "num_partitions": 2},
        "left_outer_join": {"other": pairs, "num_partitions": 2},
        "right_outer_join": {"other": pairs, "num_partitions": 2},
        "full_outer_join": {"other": pairs, "num_partitions": 2},
        "cogroup": {"num_partitions": 2},
        "group_with": {},
        "subtract_by_key": {"other": pairs, "num_partitions": 2},
        "count_by_key": {},
        "reduce_by_key_locally": {"fn": max},
        "lookup": {"key": 1},
        "collect_as_map": {},
        "collect": {},
        "count": {},
        "take": {"num": 2},
        "first": {},
        "is_empty": {},
        "reduce": {"fn": max},
        "fold": {"zero": 0, "fn": max},
        "aggregate": {"zero": 0, "merge_element": max, "merge_results": max},
        "sum": {},
        "max": {"key": abs},
        "min": {"key": abs},
        "top": {"num": 2, "key": abs},
        "take_ordered": {"num": 2, "key": abs},
        "count_by_value": {},
        "tree_reduce": {"fn": max, "depth": 2},
        "tree_aggregate": {"zero": 0, "merge_element": max, "merge_results": max, "depth": 2},
        "foreach": {"fn": abs},
        "foreach_partition": {"fn": list},
        "to_local_iterator": {"prefetch": False},
        "collect_async": {},
        "count_async": {},
        "take_async": {"num": 2},
        "reduce_async": {"fn": max},
        "foreach_async": {"fn": abs},
        "foreach_partition_async": {"fn": list},
        "count_approx": {"timeout_s": 10.0, "confidence": 0.9},
        "sum_approx": {"timeout_s": 10.0, "confidence": 0.9},
        "mean_approx": {"timeout_s": 10.0, "confidence": 0.9},
        "count_approx_distinct": {"relative_sd": 0.05},
        "stats": {},
        "mean": {},
        "variance": {},
        "stdev": {},
        "sample_variance": {},
        "sample_stdev": {},
        "histogram": {"buckets": 2},
        "save_as_text": {
            "path": place / "text",
            "encoding": "utf-8",
            "compression": None,
            "mode": "error",
            "target_file_bytes": None,
        },
        "save_as_json_lines": {"path": place / "json", "compression": None, "mode": "error", "target_file_bytes": None},
        "save_as_csv": {
            "path": place / "csv",
            "columns": ["a"],
            "header": True,
            "delimiter": ",",
            "encoding": "utf-8",
            "compression": None,
            "mode": "error",
            "target_file_bytes": None,
        },
        "save_as_pickle": {"path": place / "pickle", "mode": "error", "target_file_bytes": None},
        "save_as_parquet": {
            "path": place / "parquet",
            "schema": None,
            "partition_by": (),
            "compression": "snappy",
            "mode": "error",
            "target_file_bytes": None,
        },
        "cache": {},
        "persist": {"level": fk.StorageLevel.MEMORY_ONLY},
        "unpersist": {"blocking": False},
        "checkpoint": {"path": place / "checkpoint", "eager": False},
        "local_checkpoint": {},
        "indeterminate": {},
        "set_name": {"name": "numbers"},
        "explain": {},
        "hints": {},
        "debug_string": {},
        "with_resources": {"cpus": 1, "memory_bytes": 0},
        "barrier": {},
    }


#: operations of pairs; and that take pairs where another RDD is asked for
BY_KEY = frozenset(
    {
        "sample_by_key", "keys", "values", "map_values", "flat_map_values", "combine_by_key", "reduce_by_key", "aggregate_by_key",
        "fold_by_key", "group_by_key", "partition_by", "sort_by_key", "join", "left_outer_join", "right_outer_join", "full_outer_join",
        "cogroup", "group_with", "subtract_by_key", "count_by_key", "reduce_by_key_locally", "lookup", "collect_as_map",
        "repartition_and_sort_within_partitions",
    }
)  # fmt: skip


def of_contexts(rdd: fk.RDD[Any], place: Path) -> dict[str, Arguments]:
    """Of ``Context``; files are there for it to read."""
    text = place / "words.txt"
    text.write_text("one two\n")
    module = place / "some_module.py"
    module.write_text("")
    read = {"path": text, "min_partitions": 2}
    coded = {"encoding": "utf-8", "errors": "strict"}
    return {
        "parallelize": {"elements": [1, 2], "num_partitions": 2},
        "range": {"start": 0, "stop": 4, "step": 1, "num_partitions": 2},
        "empty": {},
        "union": {"rdds": [rdd, rdd]},
        "text_file": {**read, **coded},
        "whole_text_files": {**read, **coded},
        "binary_files": {**read},
        "binary_records": {"path": text, "record_bytes": 2, "min_partitions": 2},
        "pickle_file": {**read},
        "read_json_lines": {**read, **coded},
        "read_csv": {**read, "columns": ["a"], "header": True, "delimiter": ",", "encoding": "utf-8", "types": {"a": int}},
        "read_arrow": {"path": text, "batches": False, "min_partitions": 2},
        "checkpoint_file": {"path": text},
        "broadcast": {"value": 1},
        "accumulator": {"initial": 0, "name": "rows", "merge": max},
        "add_file": {"path": text, "name": "words"},
        "add_py_file": {"path": module},
        "add_archive": {"path": place, "name": "place"},
        "list_files": {},
        "profile": {"memory": False},
        "add_listener": {"listener": Deaf(), "queue": "shared"},
        "remove_listener": {"listener": Deaf()},
        "wait_for_listeners": {"timeout_s": 10.0, "queue": None},
        "pool": {"name": "default", "weight": 1.0},
        "job": {
            "group": "g",
            "description": "d",
            "tags": ["t"],
            "properties": {"a": "b"},
            "pool": "default",
            "priority": 1.0,
            "timeout_s": 10.0,
        },
        "job_group": {"group": "g", "description": "d"},
        "job_tag": {},
        "job_description": {"text": "d"},
        "set_local_property": {"name": "a", "value": "b"},
        "get_local_property": {"name": "a"},
        "add_job_tag": {"tag": "t"},
        "remove_job_tag": {"tag": "t"},
        "clear_job_tags": {},
        "job_tags": {},
        "get_or_create": {},
        "reconnect": {"cluster": None, "timeout_s": 10.0},
        "scale": {"workers": 2},
        "close": {},
    }


def of_jobs() -> dict[str, Arguments]:
    """Of ``Context.jobs``."""
    return {
        "ids_for_group": {"group": "g"},
        "info": {"job": 1},
        "stage_info": {"stage": 1},
        "cancel": {"job": 1, "reason": "tired"},
        "cancel_group": {"group": "g", "reason": "tired"},
        "cancel_tag": {"tag": "t", "reason": "tired"},
        "cancel_all": {"reason": "tired"},
    }


class Deaf:
    """A listener."""

    def on_event(self, event: object) -> None:
        """Nothing."""


def public_methods(kind: type) -> set[str]:
    """What users may call."""
    return {name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))}


Call = Callable[[], object]
