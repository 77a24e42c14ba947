"""Reads blocks for tasks on other hosts: by shuffle, map partition and attempt, never by a path from outside.

Runs in an executor, off its event loop; thread-safe. Who may ask is checked where the request comes in.
"""

from __future__ import annotations

from collections.abc import Sequence

from flowkit.model.ids import AttemptId, PartitionIndex, ShuffleId
from flowkit.storage.shuffle.files import BlockError, ShuffleFiles


def read_blocks(
    files: ShuffleFiles, shuffle: ShuffleId, reducer: PartitionIndex, outputs: Sequence[tuple[PartitionIndex, AttemptId]]
) -> list[bytes | str]:
    """One reducer's block of each output, in order; a ``str`` (``missing: ...``, ``corrupt: ...``) for one that cannot be read.

    One bad block does not harm the others. Cost: holds all of them at once; the asking side bounds a request's size.
    """
    found: list[bytes | str] = []
    for map_partition, attempt in outputs:
        try:
            found.append(files.read_block(shuffle, map_partition, attempt, reducer))
        except BlockError as exc:
            found.append(str(exc))
    return found
