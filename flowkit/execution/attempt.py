"""One attempt at a task, from its arrival at the executor to its report.

Made by the event loop's thread, run by one slot thread; ``switch`` and ``answers`` are how others reach it there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from flowkit.errors import CommitDenied
from flowkit.execution.kill import KillSwitch
from flowkit.execution.stage_programs import Stage
from flowkit.model.ids import AttemptId
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import TaskLaunch


class Attempt:
    """One attempt at one task."""

    __slots__ = (
        "answers",
        "arrived",
        "gathered",
        "id",
        "launch",
        "meetings",
        "metrics",
        "out_of_memory",
        "stage",
        "started",
        "started_at",
        "switch",
        "tells_twice",
    )

    def __init__(self, launch: TaskLaunch, stage: Stage) -> None:
        self.id: AttemptId = launch.attempt
        self.launch = launch
        self.stage = stage
        self.switch = KillSwitch()
        self.metrics = TaskMetrics()
        #: on the performance counter, for durations
        self.arrived = time.perf_counter()
        self.started = 0.0
        #: on the executor's clock, for people; 0 while it is queued
        self.started_at = 0.0
        #: why its memory is too much, once it is
        self.out_of_memory: str | None = None
        #: answers to commit requests; None wakes a task that waits for one, to look whether it was killed
        self.answers: SimpleQueue[bool | None] = SimpleQueue()
        #: answers at barriers, in stages that have such: which meeting it was, and what all sent; None as above
        self.gathered: SimpleQueue[tuple[int, tuple[bytes, ...]] | None] | None = (
            SimpleQueue() if stage.definition.barrier else None
        )
        #: meetings it was at
        self.meetings = 0
        #: its ending is reported two times, for tests
        self.tells_twice = False

    def kill(self, reason: str) -> bool:
        """Stop it, wherever it is; False when that was asked before."""
        if not self.switch.kill(reason):
            return False
        self.answers.put(None)
        if self.gathered is not None:
            self.gathered.put(None)
        return True

    def acquire_commit(self, request: Callable[[AttemptId], None], resend_s: float) -> None:
        """Ask whether this attempt may commit, and wait; the question is repeated every ``resend_s``, should it have got lost.

        Raises ``CommitDenied`` when another attempt was first, ``TaskKilled`` when this one is to stop.
        """
        while True:
            self.switch.check()
            request(self.id)
            try:
                granted = self.answers.get(timeout=resend_s)
            except Empty:
                continue
            if granted is None:
                continue
            if not granted:
                raise CommitDenied(f"another attempt at partition {self.launch.partition} committed first")
            return

    def meet(
        self, arrive: Callable[[AttemptId, int, str, bytes], None], call: str, data: bytes, resend_s: float
    ) -> tuple[bytes, ...]:
        """Wait until all tasks of the stage are at the same point; what each sent, in the order of partitions.

        Raises ``TaskKilled`` when this one is to stop, as it is when another fails.
        """
        assert self.gathered is not None
        while True:
            self.switch.check()
            arrive(self.id, self.meetings, call, data)
            try:
                answer = self.gathered.get(timeout=resend_s)
            except Empty:
                continue  # the question, or its answer, may have got lost
            if answer is not None and answer[0] == self.meetings:
                self.meetings += 1
                return answer[1]

    def __repr__(self) -> str:
        return f"<Attempt {self.id} partition {self.launch.partition} of stage {self.launch.stage}, {self.switch!r}>"
