"""A submitted job as its driver sees it: results handed over one by one, then the outcome.

Runs in the driver: told by the link's delivery thread, waited for by any other.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import cast

from flowkit.errors import JobFailed
from flowkit.model.ids import JobId, PartitionIndex
from flowkit.model.job_spec import JobSpec
from flowkit.model.shown import class_name, in_words
from flowkit.model.task import PieceResults

OnResult = Callable[[PartitionIndex, bytes], None]


class SubmittedJob:
    """``abc.JobHandle``. Over once it failed, or succeeded and every result was handed over."""

    def __init__(self, spec: JobSpec, on_result: OnResult, cancel: Callable[[JobId, str], None]) -> None:
        self._job = spec.job
        self._name = spec.name
        self._missing = set(spec.result_stage.partitions)
        self._on_result = on_result
        self._cancel = cancel
        self._condition = threading.Condition()
        #: of partitions that were split, what came of their pieces
        self._pieces: dict[PartitionIndex, dict[int, bytes]] = {}
        self._succeeded = False
        self._over = False
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        state = "failed" if self._error is not None else "succeeded" if self._over else f"{len(self._missing)} results to come"
        return f"<job {self._job} {self._name!r}: {state}>"

    @property
    def job(self) -> JobId:
        """Its id."""
        return self._job

    @property
    def is_over(self) -> bool:
        """Whether ``wait`` would return, or raise, at once."""
        return self._over

    def wants(self, partition: PartitionIndex) -> bool:
        """Whether this partition's result was not handed over yet."""
        return not self._over and partition in self._missing

    def wait(self, timeout_s: float | None = None) -> None:
        """Return when the job has succeeded; see ``abc.JobHandle``. Ctrl-C interrupts it, the job goes on."""
        with self._condition:
            if not self._condition.wait_for(lambda: self._over, timeout_s):
                raise TimeoutError(f"job {self._job} ({self._name}) is still running after {timeout_s:g} s")
            error = self._error
        try:
            if error is not None:
                raise error
        finally:
            del error  # its traceback has this frame: no ring that only the collector opens

    def cancel(self, reason: str) -> None:
        """Ask for its end; see ``abc.JobHandle``."""
        if not self._over:
            self._cancel(self._job, reason)

    # -- told by the delivery thread

    def hand_over(self, partition: PartitionIndex, data: bytes, span: int = 1, piece: int = 0, pieces: int = 1) -> None:
        """Results of so many partitions, or of one piece of one; doubles are dropped.

        What the callback raises ends the job for the driver and cancels it.
        """
        if pieces > 1:
            if self.wants(partition):
                known = self._pieces.setdefault(partition, {})
                known[piece] = data
                if len(known) == pieces:
                    whole = PieceResults([known[number] for number in range(pieces)])
                    del self._pieces[partition]
                    self._hand_over(partition, pickle.dumps(whole, pickle.HIGHEST_PROTOCOL))
            return
        for place, each in enumerate((data,) if span == 1 else pickle.loads(data)):
            self._hand_over(PartitionIndex(partition + place), each)

    def _hand_over(self, partition: PartitionIndex, data: bytes) -> None:
        if not self.wants(partition):
            return
        try:
            self._on_result(partition, data)
        except BaseException as error:
            self.fail(not_taken(error))
            self._cancel(self._job, "the driver could not take a result")
            return
        with self._condition:
            self._missing.discard(partition)
            self._look()

    def succeed(self) -> None:
        """The scheduler says that all results are there."""
        with self._condition:
            self._succeeded = True
            self._look()

    def fail(self, error: BaseException) -> None:
        """It ended otherwise. Only the first outcome counts."""
        with self._condition:
            if not self._over:
                self._error = error
                self._over = True
                self._condition.notify_all()

    def _look(self) -> None:
        if self._succeeded and not self._missing and not self._over:
            self._over = True
            self._condition.notify_all()


def not_taken(error: BaseException) -> Exception:
    """What to raise where a result could not be taken: what is no ``Exception``, as a ``SystemExit``, must not end the driver."""
    if issubclass(type(error), Exception):
        return cast("Exception", error)
    return JobFailed(f"a result could not be read: {in_words(error)}", type_name=class_name(error), raised=error)
