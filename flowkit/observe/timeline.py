"""When each slot worked on which stage: a timeline of blocks, bounded however many tasks there were.

Pure. A block is one task, or several of one stage that followed one another in a lane (a slot, as far as events tell) closely
enough to look like one, each of them short. Finished blocks are only ever appended, so that whoever draws them asks for those after the last it has; when
there are too many, neighbours are merged, the resolution is halved, and a new epoch begins: who draws starts anew.
"""

from __future__ import annotations

from typing import NamedTuple

from flowkit.model.ids import ExecutorId, StageId

#: finished blocks at most: what a browser draws without effort, and some 150 kB of JSON
MOST_BLOCKS = 4_000
#: seconds: blocks closer than this, of one stage in one lane, are one from the start; a pixel of a minute's timeline
_FINEST_S = 0.02
#: a task longer than this many times the resolution stays a block of its own
_ALONE = 4


class Block(NamedTuple):
    """A stretch of one lane. Times are seconds on the scheduler's clock."""

    executor: ExecutorId
    lane: int
    stage: StageId
    start: float
    end: float
    task_count: int
    failed_count: int
    #: the partition, if the block is one task that computed one; else -1
    partition: int = -1
    #: rows that its tasks read
    rows: int = 0


class TimelinePart(NamedTuple):
    """What was added since somebody last looked."""

    epoch: int
    #: place of the first of ``blocks`` among all of this epoch; 0 where ``blocks`` are all there are
    first: int
    blocks: tuple[Block, ...]


class Timeline:
    """Blocks of all lanes.

    Examples
    --------
    >>> timeline = Timeline()
    >>> for start, end in ((0.0, 0.04), (0.05, 0.09), (0.1, 0.99)):
    ...     timeline.add("tcp://a", 0, start, end, failed=False)
    >>> timeline.close_all()
    >>> [(block.start, block.end, block.task_count) for block in timeline.since(0, 0).blocks]
    [(0.0, 0.09, 2), (0.1, 0.99, 1)]
    """

    def __init__(self, most_blocks: int = MOST_BLOCKS) -> None:
        self._most_blocks = most_blocks
        self._resolution_s = _FINEST_S
        self._finished: list[Block] = []
        self.epoch = 0
        #: {(executor, lane): the block that may still grow}
        self._open: dict[tuple[ExecutorId, int], Block] = {}
        #: {executor: when each of its lanes was last busy}
        self._lanes: dict[ExecutorId, list[float]] = {}

    def add(
        self,
        executor: ExecutorId,
        stage: StageId,
        start: float,
        end: float,
        *,
        failed: bool,
        partition: int = -1,
        rows: int = 0,
    ) -> None:
        """A task ran. Tasks come in the order of their ends."""
        lane = self._lane(executor, start)
        self._lanes[executor][lane] = end
        new = Block(executor, lane, stage, start, end, 1, int(failed), partition, rows)
        before = self._open.get((executor, lane))
        if before is not None and _belong_together(before, new, self._resolution_s):
            new = _merged(before, new)
        elif before is not None:
            self._finish(before)
        self._open[executor, lane] = new

    def _lane(self, executor: ExecutorId, start: float) -> int:
        lanes = self._lanes.setdefault(executor, [])
        for lane, busy_until in enumerate(lanes):
            if busy_until <= start + 1e-3:  # clocks of two threads
                return lane
        lanes.append(0.0)
        return len(lanes) - 1

    def _finish(self, block: Block) -> None:
        self._finished.append(block)
        if len(self._finished) > max(self._most_blocks, 4 * len(self._open)):
            self._coarsen()

    def _coarsen(self) -> None:
        self.epoch += 1
        lanes = 0
        while len(self._finished) > max(self._most_blocks // 2, lanes):
            self._resolution_s *= 2
            merged: list[Block] = []
            last: dict[tuple[ExecutorId, int], int] = {}
            for block in self._finished:
                place = last.get((block.executor, block.lane))
                if place is not None and _may_be_one(merged[place], block, self._resolution_s):
                    merged[place] = _merged(merged[place], block)
                else:
                    last[block.executor, block.lane] = len(merged)
                    merged.append(block)
            self._finished, lanes = merged, len(last)

    def close_all(self) -> None:
        """Nothing more is running: what could still grow is finished."""
        for block in self._open.values():
            self._finish(block)
        self._open.clear()

    def since(self, epoch: int, count: int) -> TimelinePart:
        """Finished blocks after the first ``count`` of an epoch; all of them when that epoch is over."""
        first = count if epoch == self.epoch and count <= len(self._finished) else 0
        return TimelinePart(self.epoch, first, tuple(self._finished[first:]))

    def growing(self) -> tuple[Block, ...]:
        """Blocks that may still grow: the last of each lane."""
        return tuple(self._open.values())

    def __len__(self) -> int:
        return len(self._finished) + len(self._open)


def _belong_together(before: Block, new: Block, resolution_s: float) -> bool:
    alike = before.stage == new.stage and not new.failed_count and not before.failed_count
    return alike and new.start - before.end <= resolution_s and not _stands_alone(before, new, resolution_s)


def _stands_alone(before: Block, new: Block, resolution_s: float) -> bool:
    """Return whether one of them is a task long enough to be seen by itself."""
    return any(each.task_count == 1 and each.end - each.start > _ALONE * resolution_s for each in (before, new))


def _may_be_one(before: Block, new: Block, resolution_s: float) -> bool:
    # Coarser: what cannot be told apart on a screen becomes one, whatever it was; the longer one gives it its stage.
    if new.start - before.end > resolution_s:
        return False
    if before.stage != new.stage:
        return new.end - before.start <= resolution_s
    return not _stands_alone(before, new, resolution_s)


def _merged(before: Block, new: Block) -> Block:
    longer = before if before.end - before.start >= new.end - new.start else new
    return Block(
        before.executor,
        before.lane,
        longer.stage,
        min(before.start, new.start),
        max(before.end, new.end),
        before.task_count + new.task_count,
        before.failed_count + new.failed_count,
        rows=before.rows + new.rows,
    )
