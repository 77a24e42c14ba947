"""Actions that say about how much, in less time. They run jobs; run on the driver."""

from __future__ import annotations

import importlib.util
from typing import Any, TypeVar

from flowkit.errors import MissingPackage
from flowkit.execution.actions import count_rows
from flowkit.execution.estimates import BoundedFloat, estimated_mean, estimated_total
from flowkit.execution.sketches import SketchDistinct, log2_registers_for, merged_estimate
from flowkit.execution.statistics import count_and_sum
from flowkit.lineage.call_site import find_call_site
from flowkit.rdd.base import Base, action
from flowkit.rdd.checks import check_number, check_on_driver, check_seconds

T = TypeVar("T")


class Approximate(Base[T]):
    """Estimates."""

    __slots__ = ()

    @action
    def count_approx(self, timeout_s: float, confidence: float = 0.95) -> BoundedFloat:
        """About how many elements there are, from the partitions that were counted in some time.

        Parameters
        ----------
        timeout_s
            Seconds. Partitions not counted by then are not counted any more; the estimate is exact when there are none.
        confidence
            How often the bounds are to hold the true count, between 0 and 1.

        Notes
        -----
        Cost: one job, of at most ``timeout_s`` (and what shuffles before it take). Bounds follow from how much the counted partitions
        differ, as if they were chosen at random; they are infinite where fewer than two were counted.

        Examples
        --------
        >>> fc.range(1000).count_approx(10.0)
        1000.0 (exact)
        """
        parts = self._partially(count_rows, "count_approx", timeout_s, confidence)
        return estimated_total(parts, self.num_partitions, confidence)

    @action
    def sum_approx(self, timeout_s: float, confidence: float = 0.95) -> BoundedFloat:
        """About the sum of all elements, from the partitions that were added up in some time. As ``count_approx``.

        Notes
        -----
        Cost: one job, of at most ``timeout_s``.

        Examples
        --------
        >>> fc.range(5).sum_approx(10.0)
        10.0 (exact)
        """
        parts = self._partially(count_and_sum, "sum_approx", timeout_s, confidence)
        return estimated_total([total for _, total in parts], self.num_partitions, confidence)

    @action
    def mean_approx(self, timeout_s: float, confidence: float = 0.95) -> BoundedFloat:
        """About the mean of all elements, from the partitions that were added up in some time. As ``count_approx``.

        Notes
        -----
        Cost: one job, of at most ``timeout_s``.

        Examples
        --------
        >>> fc.range(5).mean_approx(10.0)
        2.0 (exact)
        """
        parts = self._partially(count_and_sum, "mean_approx", timeout_s, confidence)
        return estimated_mean(parts, self.num_partitions, confidence)

    def _partially(self, fn: Any, operation: str, timeout_s: float, confidence: float) -> list[Any]:
        check_on_driver(operation)
        check_seconds("timeout_s", timeout_s)
        check_number("confidence", confidence, "between 0 and 1", lambda part: 0 < part < 1)
        found = self._runner.run_job_partially(self._node, fn, timeout_s, operation=operation, call_site=find_call_site())
        return list(found.values())

    @action
    def count_approx_distinct(self, relative_sd: float = 0.05) -> int:
        """About how many different elements there are, by a HyperLogLog sketch of each partition.

        Parameters
        ----------
        relative_sd
            Standard deviation of the relative error: two answers in three are nearer than this. 0.0008 or more; half of it takes
            sketches of four times the size (0.05: 512 bytes, 0.01: 16 kB).

        Raises
        ------
        errors.MissingPackage
            ``datasketches`` is not installed; ``flowkit[sketches]`` brings it.
        errors.UnstableHash
            An element's hash differs between processes.

        Notes
        -----
        Cost: one job without a shuffle, a sketch a partition to the driver. Elements are equal here as keys are (1 and 1.0 are one).
        Flajolet, Fusy, Gandouet and Meunier, *HyperLogLog: the analysis of a near-optimal cardinality estimation algorithm*, 2007.

        Examples
        --------
        >>> 950 < fc.range(10_000).map(lambda x: x % 1_000).count_approx_distinct(0.01) < 1_050
        True
        """
        check_number("relative_sd", relative_sd, "a number above 0", lambda part: part > 0)
        size = log2_registers_for(relative_sd)
        if importlib.util.find_spec("datasketches") is None:
            raise MissingPackage(
                "count_approx_distinct needs the package datasketches, here and on executors: pip install 'flowkit[sketches]'",
                package="datasketches",
            )
        return round(merged_estimate(self._run(SketchDistinct(size), "count_approx_distinct"), size))
