"""Cached partitions of other executors: fetched in pieces from whoever holds them, for a task or to be kept here too.

Runs on slot threads and on those of ``Copier``. A partition is had from one holder as a whole: two holders' rows need not stand in
the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

from flowkit.abc import BlockTransport
from flowkit.errors import FlowkitError
from flowkit.model.ids import AppId, PartitionIndex, RddId
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import BlockHolders
from flowkit.storage.blocks.block_pieces import BlockPiece
from flowkit.storage.runs import RunWriter
from flowkit.storage.serializers import decode_batch

#: a partition up to this size is held in memory while it arrives, a larger one in a file
_IN_MEMORY_BYTES: Final = 8 << 20


class NotHeld(FlowkitError):
    """A holder does not hold a partition any more, or cannot be reached."""


def pieces_of(
    transport: BlockTransport, address: str, app: AppId, rdd: RddId, partition: PartitionIndex, *, timeout_s: float
) -> Iterator[bytes]:
    """A partition's encoded batches from one holder. Raises ``NotHeld``, in the middle too: then what came is of no use."""
    serial = position = 0
    while True:
        try:
            piece: BlockPiece = transport.fetch_cached(
                address, app, rdd, partition, serial=serial, position=position, timeout_s=timeout_s
            )
        except (KeyError, OSError, TimeoutError) as error:
            raise NotHeld(f"partition {partition} of RDD {rdd} could not be had from {address}: {error}") from error
        yield from piece.batches
        if piece.next_position is None:
            return
        serial, position = piece.serial, piece.next_position


class RemoteBlocks:
    """The cached partitions a task may use that other executors hold."""

    def __init__(
        self,
        holders: tuple[BlockHolders, ...],
        *,
        app: AppId,
        transport: BlockTransport,
        timeout_s: float,
        metrics: TaskMetrics,
        spill_directory: Callable[[], Path],
        check_killed: Callable[[], None],
    ) -> None:
        self._addresses = {(each.rdd, each.partition): each.addresses for each in holders}
        self._app = app
        self._transport = transport
        self._timeout_s = timeout_s
        self._metrics = metrics
        self._spill_directory = spill_directory
        self._check_killed = check_killed

    def __contains__(self, block: tuple[RddId, PartitionIndex]) -> bool:
        """Whether anybody is known to hold it."""
        return block in self._addresses

    def fetch(self, rdd: RddId, partition: PartitionIndex) -> Iterator[Any] | None:
        """A partition's rows once all of them are here, or None when nobody holds it any more.

        Cost: one copy, in memory up to 8 MB, beyond that in the task's spill directory.
        """
        for address in self._addresses[rdd, partition]:
            try:
                return self._whole(address, rdd, partition)
            except NotHeld:
                continue
        return None

    def _whole(self, address: str, rdd: RddId, partition: PartitionIndex) -> Iterator[Any]:
        held: list[bytes] = []
        size_bytes = 0
        waiting = pieces_of(self._transport, address, self._app, rdd, partition, timeout_s=self._timeout_s)
        for batch in waiting:
            self._check_killed()
            held.append(batch)
            size_bytes += len(batch)
            if size_bytes > _IN_MEMORY_BYTES:
                break
        else:
            self._metrics.cache_remote_bytes += size_bytes
            return chain.from_iterable(map(decode_batch, held))
        with RunWriter(self._spill_directory(), f"fetched-{rdd}-{partition}-{len(address)}-{id(held):x}.run") as writer:
            for batch in chain(held, waiting):
                self._check_killed()
                writer.write_encoded(batch)
            run = writer.close()
        self._metrics.cache_remote_bytes += run.disk_bytes
        return chain.from_iterable(run.batches())
