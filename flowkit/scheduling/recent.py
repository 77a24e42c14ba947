"""The last of what the core heard, for the story of a bug. Runs in the scheduler process inside ``SchedulerCore``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from flowkit.scheduling.stimuli import Stimulus, TasksReported

#: of a line of the story: stimuli hold programs and results
_STORY_WIDTH = 400


class Recent:
    """The last stimuli with their times, those with ``most`` reports together.

    Reports count, not stimuli: a busy executor sends a hundred at a time, each with a result of up to 32 kB, and Python's collector looks
    through all that is kept here.

    Examples
    --------
    >>> from flowkit.scheduling.stimuli import Tick
    >>> recent = Recent(2)
    >>> for now in (1.0, 2.0, 3.0):
    ...     recent.add(Tick(), now)
    >>> [at for at, _ in recent]
    [2.0, 3.0]
    >>> print(recent.story(1))
    3.000000 Tick()
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: deque[tuple[float, Stimulus]] = deque()
        self._count = 0

    def add(self, stimulus: Stimulus, now: float) -> None:
        """One more; the oldest go. The last is kept, whatever it holds."""
        kept = self._kept
        kept.append((now, stimulus))
        self._count += len(stimulus.reports) if type(stimulus) is TasksReported else 1
        while self._count > self._most and len(kept) > 1:
            oldest = kept.popleft()[1]
            self._count -= len(oldest.reports) if type(oldest) is TasksReported else 1

    def __iter__(self) -> Iterator[tuple[float, Stimulus]]:
        return iter(self._kept)

    def story(self, length: int) -> str:
        """The last ``length``, a line each."""
        return "\n".join(f"{at:.6f} {stimulus}"[:_STORY_WIDTH] for at, stimulus in list(self._kept)[-length:])
