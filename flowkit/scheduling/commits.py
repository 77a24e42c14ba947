"""Who may commit an output: one attempt per task, so that two copies of a task never both write.

Runs in the scheduler process inside ``SchedulerCore``. The counterpart of Spark's ``OutputCommitCoordinator``.
"""

from __future__ import annotations

from flowkit.model.ids import AppId, AttemptId, PartitionIndex, StageId


class Commits:
    """Grants, by application, stage and partition."""

    def __init__(self) -> None:
        #: nothing in most jobs: then there is nothing to release
        self.holders: dict[tuple[AppId, StageId], dict[PartitionIndex, AttemptId]] = {}

    def ask(self, app: AppId, stage: StageId, partition: PartitionIndex, attempt: AttemptId) -> bool:
        """Grant to the first that asks, and to it again; deny all others."""
        return self.holders.setdefault((app, stage), {}).setdefault(partition, attempt) == attempt

    def release(self, app: AppId, stage: StageId, partition: PartitionIndex) -> None:
        """The task runs again: whatever its last attempt committed is lost, so the next one may."""
        stage_holders = self.holders.get((app, stage))
        if stage_holders is not None and stage_holders.pop(partition, None) is not None and not stage_holders:
            del self.holders[app, stage]

    def forget(self, app: AppId, stage: StageId) -> None:
        """The stage is over."""
        self.holders.pop((app, stage), None)

    def __len__(self) -> int:
        return sum(len(holders) for holders in self.holders.values())
