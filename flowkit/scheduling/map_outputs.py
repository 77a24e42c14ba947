"""Where map outputs lie, and which are missing. Output belongs to a host: it is there while anybody serves that host.

Runs in the scheduler process inside ``SchedulerCore``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container

from flowkit.model.ids import AttemptId, ExecutorId, HostToken, PartitionIndex, ShuffleId
from flowkit.model.map_status import MapStatus, ShuffleSources


class MapOutputs:
    """The outputs of one shuffle.

    A host without executors keeps its outputs on disk: they are *orphaned*, and count again when it comes back.
    """

    def __init__(self, shuffle: ShuffleId, map_count: int) -> None:
        self.shuffle = shuffle
        #: status of each map partition, also of orphaned ones; None when it must be made
        self.statuses: list[MapStatus | None] = [None] * map_count
        #: partitions whose rows are in the output of one before them
        self.covered: Collection[PartitionIndex] = ()
        #: how many outputs each host holds
        self.count_by_host: Counter[HostToken] = Counter()
        #: rises whenever an output is registered or unregistered
        self.epoch = 0
        #: rises whenever outputs are numbered anew
        self.numbering = 0
        #: outputs that are being copied to another host, and who does it
        self.moving: dict[PartitionIndex, ExecutorId] = {}
        #: attempts whose outputs could not be copied
        self.immovable: set[AttemptId] = set()
        self._sources: tuple[int, ShuffleSources] | None = None

    def renumber(self, count: int) -> None:
        """There will be so many outputs; none is there yet."""
        assert not self.count_by_host, f"shuffle {self.shuffle} has outputs"
        self.statuses = [None] * count
        self.moving.clear()
        self.numbering += 1
        self.epoch += 1

    def register(self, status: MapStatus) -> None:
        """A committed output; a later one replaces an earlier one."""
        self._forget(status.map_partition)
        self.statuses[status.map_partition] = status
        self.count_by_host[status.host] += 1
        self.epoch += 1

    def unregister(self, partition: PartitionIndex) -> None:
        """Forget an output that can't be read any more."""
        self._forget(partition)
        self.epoch += 1

    def unregister_all(self) -> None:
        """Every output is void (its input was indeterminate)."""
        self.statuses = [None] * len(self.statuses)
        self.count_by_host.clear()
        self.epoch += 1

    def on_host(self, host: HostToken) -> list[PartitionIndex]:
        """Partitions whose output lies on a host."""
        return [status.map_partition for status in self.statuses if status is not None and status.host == host]

    def is_complete(self, hosts: Container[HostToken]) -> bool:
        """Whether every output lies on one of ``hosts``."""
        return sum(count for host, count in self.count_by_host.items() if host in hosts) == self._output_count

    def missing(self, hosts: Container[HostToken]) -> list[PartitionIndex]:
        """Partitions that would have to be made, were only ``hosts`` there."""
        covered = self.covered
        return [
            PartitionIndex(index)
            for index, status in enumerate(self.statuses)
            if (status is None or status.host not in hosts) and index not in covered
        ]

    @property
    def _output_count(self) -> int:
        return len(self.statuses) - len(self.covered)

    def is_current(self, partition: PartitionIndex, attempt: AttemptId) -> bool:
        """Whether this attempt's output is the registered one."""
        status = self.statuses[partition] if partition < len(self.statuses) else None
        return status is not None and status.attempt == attempt

    def sources(self, addresses: dict[HostToken, tuple[str, ...]], address_epoch: int) -> ShuffleSources:
        """All a reducer must know; only when complete."""
        version = (self.epoch << 24) + address_epoch
        if self._sources is None or self._sources[0] != version:
            outputs = tuple(status for status in self.statuses if status is not None)
            assert len(outputs) == self._output_count, f"shuffle {self.shuffle} is not complete"
            serving = {host: addresses[host] for host, count in self.count_by_host.items() if count and host in addresses}
            self._sources = version, ShuffleSources(self.shuffle, self.epoch, outputs, serving)
        return self._sources[1]

    def _forget(self, partition: PartitionIndex) -> None:
        before = self.statuses[partition]
        if before is not None:
            self.count_by_host[before.host] -= 1
            if not self.count_by_host[before.host]:
                del self.count_by_host[before.host]
            self.statuses[partition] = None

    def check(self) -> None:
        """Invariants."""
        assert self.count_by_host == Counter(status.host for status in self.statuses if status is not None)
        for index, status in enumerate(self.statuses):
            assert status is None or (status.map_partition == index and index not in self.covered)
