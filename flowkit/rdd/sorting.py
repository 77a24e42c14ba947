"""Sorting by key over all partitions: ranges from a sample, a shuffle, a sort within each. Runs on the driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowkit.abc import JobRunner
from flowkit.execution.actions import SampleKeys
from flowkit.execution.on_driver import OnDriver
from flowkit.lineage.kernels import SortOrder
from flowkit.lineage.nodes import Preparation
from flowkit.lineage.partitioners import RangePartitioner, sample_bounds, sample_size_per_partition
from flowkit.rdd.base import Base
from flowkit.rdd.checks import check_int


def sorted_by_key(
    pairs: Base[Any], operation: str, *, ascending: bool, num_partitions: int | None, key: Callable[[Any], Any] | None
) -> Any:
    """Pairs in the order of ``key(k)``. The sample is drawn by a job at the first action, never at the call."""
    count = (
        check_int("num_partitions", num_partitions, least=1)
        if num_partitions is not None
        else pairs._runner.config.default_parallelism or max(1, pairs.num_partitions)
    )
    partitioner = RangePartitioner(None, ascending, key, num_partitions=count)
    node = pairs._node

    def draw_sample(runner: JobRunner) -> None:
        size = sample_size_per_partition(count, node.num_partitions)
        samples = (
            runner.run_job(node, SampleKeys(size, key), None, operation=f"{operation} (sampling)", call_site=node.call_site)
            if count > 1
            else []
        )
        with OnDriver(operation, node.call_site, key=key, doing="choosing ranges"):
            partitioner.resolve(sample_bounds(samples, count))

    return pairs._by_key(
        operation, partitioner, order=SortOrder(key, descending=not ascending), preparation=Preparation(draw_sample)
    )
