"""How many tasks a stage has for its partitions, told when its input is all there: large ones are split, small ones share tasks.

Runs in the scheduler process inside ``SchedulerCore``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowkit.model.ids import PartitionIndex, ShuffleId
from flowkit.model.map_status import MapStatus, decode_size
from flowkit.model.profile import PROFILE
from flowkit.scheduling import coalescing
from flowkit.scheduling.coalescing import share, too_few_to_share
from flowkit.scheduling.skew import Pieces, cut, skewed

if TYPE_CHECKING:
    from flowkit.scheduling.applications import Application, Stage
    from flowkit.scheduling.books import Books

#: with more map outputs than these, or more sizes in all, adding up would keep the scheduler's loop for too long
_MOST_OUTPUTS, _MOST_SIZES = 2_000, 4_000_000


def lay_out(books: Books, application: Application, stage: Stage) -> bool:
    """Before the first task of a stage; whether its tasks are others than one for each partition."""
    spec, config = stage.spec, books.config
    if not spec.coalescible and spec.splits is None:
        return False
    if any(PROFILE in application.jobs[job].spec.properties for job in stage.jobs):
        return False  # a profile is of one task for each
    slots = _slots(books)
    tasks = coalescing.TASKS_PER_SLOT * slots
    may_split = spec.splits is not None and config.split_bytes > 0 and slots > 1
    may_share = spec.coalescible and config.coalesce_bytes > 0 and len(spec.partitions) > too_few_to_share(slots)
    if not may_split and not may_share:
        return False
    outputs = {parent.shuffle: _outputs(application, parent.shuffle) for parent in spec.parents}
    count = sum(map(len, outputs.values()))
    if count > _MOST_OUTPUTS or max(1, count) * spec.num_partitions > _MOST_SIZES:
        return False
    sizes = {shuffle: _sizes(statuses, spec.num_partitions) for shuffle, statuses in outputs.items()}
    if may_split:
        _split(application, stage, outputs, sizes, config.split_bytes, tasks)
    if may_share:
        totals = [sum(of_partition) for of_partition in zip(*sizes.values(), strict=True)]
        if stage.pieces is not None:
            whole = [stage.pieces.piece(PartitionIndex(number)) is None for number in range(stage.pieces.count)]
            partitions = [stage.pieces.partition(PartitionIndex(number)) for number in range(stage.pieces.count)]
            totals = [
                totals[partition] if is_whole else config.coalesce_bytes
                for partition, is_whole in zip(partitions, whole, strict=True)
            ]
        for first, length in share(stage.wanted, totals, config.coalesce_bytes, tasks):
            stage.spans.join(first, length)
    return stage.pieces is not None or bool(stage.spans.covered)


def _split(
    application: Application,
    stage: Stage,
    outputs: dict[ShuffleId, list[MapStatus]],
    sizes: dict[ShuffleId, list[int]],
    piece_bytes: int,
    most: int,
) -> None:
    streamed = stage.spec.splits
    assert streamed is not None
    wanted = set(stage.spec.partitions)
    cuts: dict[PartitionIndex, list[tuple[int, int]]] = {}
    found = [(partition, wished) for partition, wished in skewed(sizes[streamed], piece_bytes) if partition in wanted]
    known = [(int(status.map_partition), codes(status)) for status in outputs[streamed]] if found else []
    for partition, wished in found:
        # Each piece reads all of the other side: together no more than what is split.
        other = sum(size[partition] for shuffle, size in sizes.items() if shuffle != streamed)
        count = min(wished, most, sizes[streamed][partition] // max(1, other))
        parts = [
            (output, _DECODED[of_output[partition]])
            for output, of_output in known
            if of_output[partition : partition + 1].strip(b"\0")
        ]
        if count > 1 and len(ranges := cut(parts, count)) > 1:
            cuts[PartitionIndex(partition)] = ranges
    if cuts:
        read = application.map_stages[streamed].outputs
        assert read is not None
        stage.pieces = Pieces(streamed, cuts, stage.spec.num_partitions, stage.spec.partitions, read.numbering)
        if stage.outputs is not None:
            stage.outputs.renumber(stage.pieces.count)


def _slots(books: Books) -> int:
    """Task slots, those included that a cluster which grows by itself may come to have."""
    slots = sum(executor.slots for executor in books.executors)
    most = books.config.max_executors
    if books.config.allocation != "off" and most:
        slots = max(slots, most * max((executor.slots for executor in books.executors), default=1))
    return max(1, slots)


def _outputs(application: Application, shuffle: ShuffleId) -> list[MapStatus]:
    outputs = application.map_stages[shuffle].outputs
    assert outputs is not None
    return [status for status in outputs.statuses if status is not None]


def codes(status: MapStatus) -> bytes:
    """As ``MapStatus.codes``; none where they are damaged: whoever reads that output says so."""
    try:
        return status.codes()
    except ValueError:
        return b""


_DECODED: Final = tuple(decode_size(code) for code in range(256))


def _sizes(statuses: list[MapStatus], count: int) -> list[int]:
    """Bytes of each reduce partition of a shuffle."""
    import numpy as np

    decoded = np.array(_DECODED, np.int64)
    totals = np.zeros(count, np.int64)
    for status in statuses:
        of_output = np.frombuffer(codes(status), np.uint8)[:count]
        totals[: len(of_output)] += decoded[of_output]
    found: list[int] = totals.tolist()
    return found
