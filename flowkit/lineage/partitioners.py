"""Which reduce partition a key goes to, the same in every process. Work is done on lists of keys, at C speed where it can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


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
