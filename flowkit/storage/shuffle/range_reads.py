"""Reads the blocks of several small reduce partitions together, for a task that computes one after the other.

Runs on the task's slot thread; not thread-safe. A map output has the blocks of its reducers side by side, so that one read of a file does for
all of them. What is held is what the task's partitions read together, and they are small: that is why they share a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flowkit.model.ids import AttemptId, PartitionIndex, ShuffleId
from flowkit.storage.shuffle.files import BlockCorrupt, ShuffleFiles


class RangeReads:
    """``reader.BlockReads`` for partitions ``first`` to ``first + count - 1``, read in this order."""

    def __init__(self, files: ShuffleFiles, first: int, count: int) -> None:
        self._files = files
        self._end = first + count
        #: by output: the first reducer of those that were read, and their blocks; an RDD that meets itself asks for each twice
        self._read: dict[tuple[ShuffleId, PartitionIndex, AttemptId], tuple[int, list[bytes]]] = {}

    def read_block(self, shuffle: ShuffleId, map_partition: PartitionIndex, attempt: AttemptId, reducer: int) -> bytes:
        """See ``ShuffleFiles.read_block``."""
        name = shuffle, map_partition, attempt
        first, blocks = self._read.get(name, (0, []))
        if not first <= reducer < first + len(blocks):
            try:
                first, blocks = reducer, self._files.read_blocks(*name, range(reducer, self._end))
            except BlockCorrupt:  # maybe not the one that is needed now
                return self._files.read_block(*name, reducer)
            self._read[name] = first, blocks
        return blocks[reducer - first]

    def stream_block(
        self, shuffle: ShuffleId, map_partition: PartitionIndex, attempt: AttemptId, reducer: int
    ) -> Iterator[bytes]:
        """See ``ShuffleFiles.stream_block``."""
        return self._files.stream_block(shuffle, map_partition, attempt, reducer)

    def absent(
        self, shuffle: ShuffleId, outputs: Iterable[tuple[PartitionIndex, AttemptId]]
    ) -> list[tuple[PartitionIndex, AttemptId]]:
        """See ``ShuffleFiles.absent``."""
        return self._files.absent(shuffle, outputs)
