"""Which reduce partition a key goes to, the same in every process. Work is done on lists of keys, at C speed where it can be.

Pure; made at the driver, used on executors' slot threads. All partitioners can be pickled.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol

from flowkit.errors import InternalError, InvalidArgument
from flowkit.lineage.hashing import stable_hash, stable_hashes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Partitioner(Protocol):
    """Keys to partitions. Equal partitioners (``==``) place equal keys alike: such RDDs join without a shuffle."""

    @property
    def num_partitions(self) -> int:
        """How many partitions there are."""
        ...

    def partition_of(self, key: Any) -> int:
        """The partition of one key."""
        ...

    def partition_all(self, keys: Sequence[Any]) -> Sequence[int]:
        """The partitions of many keys (a list, bytes or an integer array), each as ``partition_of`` says."""
        ...


def _check_partitions(num_partitions: int) -> None:
    if type(num_partitions) is not int or num_partitions < 1:
        raise InvalidArgument(
            f"num_partitions = {num_partitions!r}: must be an int of 1 or more",
            name="num_partitions",
            value=num_partitions,
            allowed="an int of 1 or more",
        )


@dataclass(frozen=True, slots=True)
class HashPartitioner:
    """By ``lineage.hashing.stable_hash``; two of the same size are equal.

    >>> HashPartitioner(8).partition_of("a") == int(HashPartitioner(8).partition_all(["a"])[0])
    True
    """

    num_partitions: int

    def __post_init__(self) -> None:
        _check_partitions(self.num_partitions)

    def partition_of(self, key: Any) -> int:
        """The partition of one key."""
        # The upper 32 bits scaled to the range: no slower division, no bias worth speaking of below 2**24 partitions.
        return ((stable_hash(key) >> 32) * self.num_partitions) >> 32

    def partition_all(self, keys: Sequence[Any] | NDArray[np.signedinteger[Any]]) -> Sequence[int]:
        """The partitions of many keys; a signed integer array stands for a list of ints. Returns a small-integer array."""
        import numpy as np

        upper = stable_hashes(keys) >> np.uint64(32)
        upper *= np.uint64(self.num_partitions)
        upper >>= np.uint64(32)
        return upper.astype(_narrowest(self.num_partitions))  # type: ignore[return-value]


def _narrowest(num_partitions: int) -> type[Any]:
    # numpy sorts 8- and 16-bit integers by radix, some ten times faster than wider ones.
    import numpy as np

    return np.uint8 if num_partitions <= 1 << 8 else np.uint16 if num_partitions <= 1 << 16 else np.uint32


@dataclass(frozen=True, slots=True)
class FunctionPartitioner:
    """By the user's ``fn(key) % num_partitions``; equal when both the function and the size are.

    >>> FunctionPartitioner(4, len).partition_of("seven")
    1
    """

    num_partitions: int
    fn: Callable[[Any], int]

    def __post_init__(self) -> None:
        _check_partitions(self.num_partitions)

    def partition_of(self, key: Any) -> int:
        """The partition of one key."""
        place = self.fn(key)
        try:
            return int(place % self.num_partitions)
        except (TypeError, ValueError):
            raise TypeError(
                f"the partition function returned {place!r} ({type(place).__name__}) for key {_short(key)}; it must return an int"
            ) from None

    def partition_all(self, keys: Sequence[Any]) -> Sequence[int]:
        """The partitions of many keys."""
        # Not map: a StopIteration of the user's function would end it early, and rows would be lost.
        return [self.partition_of(key) for key in keys]


class PlacePartitioner:
    """Keys are the numbers of partitions themselves, as operations that deal rows out make them. Equal by their number of partitions.

    >>> PlacePartitioner(3).partition_of(2)
    2
    """

    __slots__ = ("num_partitions",)

    def __init__(self, num_partitions: int) -> None:
        _check_partitions(num_partitions)
        self.num_partitions = num_partitions

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacePartitioner) and other.num_partitions == self.num_partitions

    def __hash__(self) -> int:
        return hash((PlacePartitioner, self.num_partitions))

    def __repr__(self) -> str:
        return f"PlacePartitioner({self.num_partitions})"

    def partition_of(self, key: Any) -> int:
        """The partition of one key."""
        return int(key)

    def partition_all(self, keys: Sequence[Any]) -> Sequence[int]:
        """The partitions of many keys."""
        return keys


class RangePartitioner:
    """By ranges of the key, or of ``key(k)``: partition ``i`` holds what is above bound ``i - 1`` and at most bound ``i``.

    Made without bounds; ``resolve`` sets them once a sample was drawn (``sample_bounds``), before anything is shipped.
    Equal only to itself, since what it does depends on its sample.

    Parameters
    ----------
    bounds_source
        Whatever the driver needs to draw the sample from; never travels to executors.
    ascending
        False turns the order of the partitions round.
    key
        What is compared, computed from the key; the key itself when None.
    num_partitions
        1 or more. With fewer bounds than ``num_partitions - 1`` (few different keys) the last partitions stay empty.

    Examples
    --------
    >>> ranges = RangePartitioner(None, num_partitions=3)
    >>> ranges.resolve([10, 20])
    >>> [ranges.partition_of(k) for k in (5, 10, 11, 20, 21)]
    [0, 0, 1, 1, 2]
    """

    __slots__ = ("_bounds", "_numeric", "ascending", "bounds_source", "key", "num_partitions")

    def __init__(
        self, bounds_source: Any, ascending: bool = True, key: Callable[[Any], Any] | None = None, *, num_partitions: int
    ) -> None:
        _check_partitions(num_partitions)
        self.bounds_source = bounds_source
        self.ascending = ascending
        self.key = key
        self.num_partitions = num_partitions
        self._bounds: list[Any] | None = None
        self._numeric: NDArray[Any] | None = None

    def __getstate__(self) -> tuple[bool, Callable[[Any], Any] | None, int, list[Any] | None]:
        return self.ascending, self.key, self.num_partitions, self._bounds

    def __fingerprint__(self) -> tuple[bool, Callable[[Any], Any] | None, int]:
        # Bounds follow from the rows, which the lineage before stands for.
        return self.ascending, self.key, self.num_partitions

    def __setstate__(self, state: tuple[bool, Callable[[Any], Any] | None, int, list[Any] | None]) -> None:
        self.ascending, self.key, self.num_partitions, bounds = state
        self.bounds_source = None
        self._bounds = self._numeric = None
        if bounds is not None:
            self.resolve(bounds)

    @property
    def resolved(self) -> bool:
        """Whether the bounds are known."""
        return self._bounds is not None

    @property
    def bounds(self) -> Sequence[Any]:
        """The upper bounds, ascending."""
        if self._bounds is None:
            raise InternalError("a range partitioner was used before its bounds were sampled")
        return self._bounds

    def resolve(self, bounds: Sequence[Any]) -> None:
        """Set the bounds: at most ``num_partitions - 1`` values of ``key(k)``, ascending."""
        if len(bounds) >= self.num_partitions:
            raise InternalError(f"{len(bounds)} bounds for {self.num_partitions} partitions")
        self._bounds = list(bounds)
        self._numeric = _exact_numbers(self._bounds)

    def partition_of(self, key: Any) -> int:
        """The partition of one key."""
        place = bisect_left(self.bounds, key if self.key is None else self.key(key))
        return place if self.ascending else len(self.bounds) - place

    def partition_all(self, keys: Sequence[Any]) -> Sequence[int]:
        """The partitions of many keys, by numpy where keys and bounds are all ints or all floats."""
        bounds = self.bounds
        compared = keys if self.key is None else _all_of(self.key, keys)
        if (
            self._numeric is not None
            and (numbers := _exact_numbers(compared)) is not None
            and numbers.dtype == self._numeric.dtype
        ):
            found = self._numeric.searchsorted(numbers, side="left")
            if not self.ascending:
                found = len(bounds) - found
            return found.astype(_narrowest(self.num_partitions))  # type: ignore[return-value]
        places = [bisect_left(bounds, value) for value in compared]
        return places if self.ascending else [len(bounds) - place for place in places]


def _all_of(fn: Callable[[Any], Any], keys: Sequence[Any]) -> list[Any]:
    # Not map: a StopIteration of the user's function would end it early, and rows would be lost.
    return [fn(key) for key in keys]


def _exact_numbers(values: Sequence[Any]) -> NDArray[Any] | None:
    """The values as int64 or float64 where that compares exactly as Python does; else None."""
    import numpy as np

    kinds = set(map(type, values))
    if kinds == {int}:
        try:
            return np.array(values, np.int64)
        except OverflowError:
            return None
    if kinds == {float}:
        numbers = np.array(values, np.float64)
        # bisect and searchsorted disagree about NaN, which is neither below nor above anything.
        return None if np.isnan(numbers).any() else numbers
    return None


@dataclass(frozen=True, slots=True)
class PartitionSample:
    """What one partition tells of its keys: how many there are, and a uniform sample of them."""

    count: int
    keys: Sequence[Any]


def sample_size_per_partition(num_partitions: int, source_partitions: int) -> int:
    """Keys to sample in each source partition: 20 a range at most 1e6 in all, three times over for uneven partitions."""
    return math.ceil(3.0 * min(20.0 * num_partitions, 1e6) / max(1, source_partitions))


def sample_partition(keys: Sequence[Any], size: int, seed: int) -> PartitionSample:
    """A uniform sample of one partition's keys, repeatable by ``seed``."""
    if len(keys) <= size:
        return PartitionSample(len(keys), list(keys))
    return PartitionSample(len(keys), random.Random(seed).sample(keys, size))


def sample_bounds(samples: Sequence[PartitionSample], num_partitions: int) -> list[Any]:
    """At most ``num_partitions - 1`` ascending, distinct bounds that cut the sampled keys into equal weights.

    A sampled key stands for ``count / len(sample)`` keys of its partition. After Spark's ``RangePartitioner.sketch`` and
    ``determineBounds`` (Apache Spark, core/.../Partitioner.scala); partitions with more than their share are not sampled again.

    >>> sample_bounds([PartitionSample(4, [4, 2, 1, 3])], 2)
    [2]
    """
    weighted = [(key, sample.count / len(sample.keys)) for sample in samples if sample.keys for key in sample.keys]
    weighted.sort(key=itemgetter(0))
    step = sum(weight for _, weight in weighted) / num_partitions
    bounds: list[Any] = []
    reached, target = 0.0, step
    for key, weight in weighted:
        reached += weight
        if len(bounds) == num_partitions - 1:
            break
        if reached >= target and (not bounds or key > bounds[-1]):
            bounds.append(key)
            target += step
    return bounds


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
