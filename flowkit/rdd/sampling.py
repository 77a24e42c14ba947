"""Random choices of elements: samples, splits. Lazy unless said otherwise; run on the driver, where seeds are drawn."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from flowkit.errors import ResultTooLarge
from flowkit.execution.actions import count_rows
from flowkit.execution.sampling import DrawRows, RepeatRows, RowsAt, SampleByKey, SampleRows
from flowkit.lineage.kernels import MapPartitions
from flowkit.model.checks import check_int, check_iterable, check_mapping, check_number, refuse
from flowkit.rdd.base import Base, action

if TYPE_CHECKING:
    from flowkit.rdd.rdd import RDD

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class Sampling(Base[T]):
    """What chooses at random. Where no seed is given one is drawn at the call, so that a recomputation chooses alike."""

    __slots__ = ()

    def sample(self, fraction: float, *, with_replacement: bool = False, seed: int | None = None) -> RDD[T]:
        """Choose each element with some probability.

        Parameters
        ----------
        fraction
            The probability, 0 or more (1 or more is everything); with replacement, how often each is chosen on average.
        with_replacement
            Whether one element may be chosen several times.
        seed
            Equal seeds choose the same elements of the same partitions.

        Returns
        -------
        RDD
            Elements in their order; not exactly the fraction.

        Notes
        -----
        Cost: narrow, no job. Keeps the partitioner.

        Examples
        --------
        >>> fc.range(100).sample(0.1, seed=7).count() < 30
        True
        """
        _check_fraction("fraction", fraction)
        chosen = RepeatRows(fraction, _seed(seed)) if with_replacement else SampleRows(0.0, fraction, _seed(seed))
        return self._narrow(MapPartitions(chosen, indexed=True), "sample", keeps_partitioner=True)  # type: ignore[no-any-return]

    def random_split(self, weights: Sequence[float], *, seed: int | None = None) -> list[RDD[T]]:
        """Split elements at random: each goes to exactly one of the RDDs.

        Parameters
        ----------
        weights
            How large each should be, in proportion to the others; 0 or more, not all 0.
        seed
            As for ``sample``.

        Notes
        -----
        Cost: narrow, no job; each of them computes this RDD, so cache it. What is said holds as long as this RDD has the same rows
        in the same order each time it is computed.

        Examples
        --------
        >>> train, test = fc.range(100).random_split([4, 1], seed=1)
        >>> train.count() + test.count(), train.intersection(test).count()
        (100, 0)
        """
        allowed = "several numbers of 0 or more, not all 0"
        if isinstance(weights, str | bytes):
            refuse("weights", weights, allowed)
        check_iterable("weights", weights, allowed)
        weights = list(weights)
        for index, weight in enumerate(weights):
            check_number(f"weights[{index}]", weight, "a number of 0 or more", lambda part: 0 <= part < math.inf)
        if not sum(weights):
            refuse("weights", weights, allowed, wrong_type=False)
        drawn = _seed(seed)
        total = sum(weights)
        bounds = [0.0, *(reached / total for reached in accumulate(weights))]
        bounds[-1] = 1.0
        return [
            self._narrow(MapPartitions(SampleRows(low, high, drawn), indexed=True), "random_split", keeps_partitioner=True)
            for low, high in pairwise(bounds)
        ]

    def sample_by_key(
        self: Sampling[tuple[K, V]], fractions: Mapping[K, float], *, with_replacement: bool = False, seed: int | None = None
    ) -> RDD[tuple[K, V]]:
        """Choose each pair with the probability of its key.

        Raises
        ------
        KeyError
            From the action, for a key without a fraction.

        Notes
        -----
        Cost: narrow, no job. Keeps the partitioner.

        Examples
        --------
        >>> pairs = fc.parallelize([("a", 1), ("b", 2), ("a", 3)])
        >>> pairs.sample_by_key({"a": 1.0, "b": 0.0}).collect()
        [('a', 1), ('a', 3)]
        """
        check_mapping("fractions", fractions)
        for key, fraction in fractions.items():
            _check_fraction(f"fractions[{key!r}]", fraction)
        chosen = SampleByKey(dict(fractions), _seed(seed), with_replacement)
        return self._narrow(  # type: ignore[no-any-return]
            MapPartitions(chosen, indexed=True), "sample_by_key", keeps_partitioner=True
        )

    @action
    def take_sample(self, num: int, *, with_replacement: bool = False, seed: int | None = None) -> list[T]:
        """Choose exactly so many elements at random, all equally likely.

        Parameters
        ----------
        num
            0 or more; without replacement, all elements when there are fewer.
        with_replacement
            Whether one element may be chosen several times.
        seed
            As for ``sample``.

        Returns
        -------
        list
            In random order.

        Raises
        ------
        errors.ResultTooLarge
            At the call: with replacement, more elements than ``max_result_bytes``.

        Notes
        -----
        Cost: one job that holds ``num`` elements a partition; with replacement two, of which the first counts.

        Examples
        --------
        >>> sorted(fc.range(3).take_sample(5))
        [0, 1, 2]
        >>> len(fc.range(3).take_sample(5, with_replacement=True))
        5
        """
        limit = check_int("num", num, least=0)
        drawn = _seed(seed)
        if not limit:
            return []
        if with_replacement and 0 < self._runner.config.max_result_bytes < limit:
            raise ResultTooLarge(
                f"num = {limit:,}: so many elements with replacement are more than max_result_bytes = "
                f"{self._runner.config.max_result_bytes:,} has room for",
                setting="max_result_bytes",
                limit=self._runner.config.max_result_bytes,
                actual=limit,
            )
        if not with_replacement:
            parts = self._run(DrawRows(limit, drawn), "take_sample")
            chosen = sorted((each for part in parts for each in part), key=itemgetter(0))[:limit]
            return [row for _, row in chosen]
        return self._take_with_replacement(limit, random.Random(drawn))

    def _take_with_replacement(self, num: int, draws: random.Random) -> list[Any]:
        sizes = self._run(count_rows, "take_sample (counting)")
        ends = list(accumulate(sizes))
        if not ends or not ends[-1]:
            return []
        places: dict[int, list[int]] = {}
        for _ in range(num):
            place = draws.randrange(ends[-1])
            partition = bisect_right(ends, place)
            places.setdefault(partition, []).append(place - (ends[partition] - sizes[partition]))
        wanted = {partition: tuple(sorted(inner)) for partition, inner in sorted(places.items())}
        chosen = [row for part in self._run(RowsAt(wanted), "take_sample", list(wanted)) for row in part]
        draws.shuffle(chosen)
        return chosen


def _seed(seed: int | None) -> int:
    return random.SystemRandom().getrandbits(32) if seed is None else check_int("seed", seed) % (1 << 64)


def _check_fraction(name: str, fraction: Any) -> None:
    check_number(name, fraction, "a number of 0 or more", lambda part: part >= 0)
