"""First come, first served: the oldest job's stages, lowest number first. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from flowkit.abc import TaskSetView


class Fifo:
    """Orders by submission of the job, then by stage.

    A job waits for all that came before it; when it is done depends on nobody who came later.
    """

    def order(self, candidates: Sequence[TaskSetView]) -> Sequence[TaskSetView]:
        """Oldest job first."""
        return sorted(candidates, key=lambda task_set: (task_set.job, task_set.app, task_set.stage))
