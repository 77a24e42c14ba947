"""What went wrong in a group of jobs, each thing once: failures that ended a job, and those that a retry made good.

Pure. ``troubles`` in ``extensions/view/src/model.js`` does the same in the front end; one set of examples tests both.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from flowkit.observe.metrics import format_count
from flowkit.observe.snapshot import FailureView, Snapshot

#: kinds of failures that are no exception of the user's
_OURS: Final = frozenset({"FetchFailed", "ExecutorLost", "ContentMissing", "TaskOutOfMemory"})


class Trouble(NamedTuple):
    """One thing that went wrong."""

    #: whether it ended a job
    bad: bool
    text: str


def troubles(snapshot: Snapshot) -> list[Trouble]:
    """List lost executors, failures of tasks, and jobs that failed for another reason.

    Tasks that were lost with an executor are left out, unless their loss ended a job.
    """
    lost = [each for each in snapshot.executors if each.removed_at and not each.released]
    found = [Trouble(False, f"executor {each.label} is gone: {each.reason}") for each in lost]
    reasons = {(each.reason.strip().splitlines() or [""])[0] for each in lost}
    found += [
        Trouble(each.is_fatal, _failure(each))
        for each in snapshot.failures
        if each.is_fatal or each.kind != "ExecutorLost" or each.message not in reasons
    ]
    if not any(each.is_fatal for each in snapshot.failures):
        found += [
            Trouble(True, f"{job.name}: {job.reason}" if snapshot.job_count > 1 else job.reason)
            for job in snapshot.jobs
            if job.state == "failed" and job.reason
        ]
    return found


def can_be_replayed(snapshot: Snapshot) -> bool:
    """Return whether a task's exception ended a job."""
    return any(each.is_fatal and each.kind not in _OURS for each in snapshot.failures)


def _failure(failure: FailureView) -> str:
    partitions = f"{format_count(failure.partition_count)} partition{'' if failure.partition_count == 1 else 's'}"
    several = failure.count > 1
    times = f" ({format_count(failure.count)} times, in {partitions})" if several else ""
    where = f"{'last ' if several else ''}in stage {failure.stage}, partition {failure.partition}, on {failure.executor}"
    return f"{failure.kind}: {failure.message}{times} — {where}{'' if failure.is_fatal else ', and was tried again'}"
