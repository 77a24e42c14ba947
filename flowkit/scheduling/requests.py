"""Stages that ask for more than any executor has, or for more at once than the cluster: given up after a grace time, with what there is.

Runs in the scheduler process inside ``SchedulerCore``. Somebody with more may join meanwhile, as on a cluster that grows.
"""

from __future__ import annotations

from collections import Counter

from flowkit.config import Config
from flowkit.model.ids import AppId, StageId
from flowkit.model.resources import ResourceProfile
from flowkit.scheduling import barriers, jobs, resources
from flowkit.scheduling.applications import Stage
from flowkit.scheduling.books import Books


class Unmet:
    """Watches what cannot be had. ``wake_at`` is when to look again."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._since: dict[tuple[AppId, StageId], float] = {}
        self.wake_at: float | None = None

    def look(self, books: Books) -> None:
        """Give up what has waited in vain for too long."""
        self.wake_at = None
        unmet = {
            (stage.app, stage.id): complaint
            for stage in list(books.active.values())
            if stage.task_set is not None and stage.task_set.pending
            if books.placement.restricts or not stage.task_set.is_plain
            if (complaint := _complaint(books, stage))
        }
        self._since = {key: self._since.get(key, books.now) for key in unmet}
        for key, complaint in unmet.items():
            until = self._since[key] + self._config.no_executor_timeout_s
            if books.now < until:
                self.wake_at = until if self.wake_at is None else min(self.wake_at, until)
                continue
            del self._since[key]
            application = books.applications[key[0]]
            stage = application.stages[key[1]]
            reason = (
                f"stage {stage.id} ({stage.spec.name}) {complaint}, and nobody who has it came within "
                f"{self._config.no_executor_timeout_s:g} s (no_executor_timeout_s)"
            )
            jobs.abort_stage(books, application, stage, "JobFailed", reason, None, {})


def _complaint(books: Books, stage: Stage) -> str:
    """What a stage needs and nobody has; empty when it can be had."""
    task_set = stage.task_set
    assert task_set is not None
    profile = task_set.profile
    able = [state for state in books.executors if resources.can_ever(profile, state)]
    if able and not any(books.placement.allows(task_set, state) for state in able):
        return f"may run on none of {_offered(books, profile)}, by the placement policy {books.placement.policy!r}"
    if not able:
        return f"needs {profile} for each task, which no executor has; there are {_offered(books, profile)}"
    if task_set.barrier is None:
        return ""
    room = barriers.most_at_once(books, task_set)
    if room >= task_set.size:
        return ""
    return f"needs all of its {task_set.size} tasks to run at once, with {profile} each, and the cluster has room for {room}"


def _offered(books: Books, profile: ResourceProfile) -> str:
    """Executors by what they have: ``2 with cpus=4, gpu=2``; their memory only where that is asked for, for all have some other number."""
    kinds: Counter[str] = Counter()
    most: dict[str, int] = {}
    for state in books.executors:
        kind = str(ResourceProfile(state.slots, {name: len(owned) for name, owned in sorted(state.resources.items())}))
        kinds[kind] += 1
        most[kind] = max(most.get(kind, 0), state.memory_bytes)
    told = [
        f"{count} with {kind}" + (f", memory_bytes={most[kind]:,} at most" if profile.memory_bytes else "")
        for kind, count in sorted(kinds.items(), reverse=True)
    ]
    return "; ".join(told) or "none"
