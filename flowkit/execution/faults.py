"""Has a task meet the faults that its job's plan has for it (``flowkit.testing.chaos``). Never loaded otherwise.

Runs in slot threads of an executor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from flowkit.errors import FetchFailed
from flowkit.model.faults import FaultPlan, decode_faults
from flowkit.model.task import FetchFailure, StageDefinition, TaskLaunch

if TYPE_CHECKING:
    from flowkit.model.map_status import MapStatus
    from flowkit.storage.shuffle.files import ShuffleFiles


class ChaosError(OSError):
    """What a task raises that is to fail."""


class Faults:
    """The faults of one attempt."""

    def __init__(self, text: str, launch: TaskLaunch, disturb: Callable[[str], None]) -> None:
        self._plan: FaultPlan = decode_faults(text)
        self._launch = launch
        self._disturb = disturb

    def _meets(self, kind: str) -> bool:
        launch = self._launch
        return self._plan.meets(kind, launch.stage, launch.partition, tries=launch.stage_attempt + launch.attempt_number)

    def before(self, definition: StageDefinition) -> None:
        """What happens as it begins."""
        if self._meets("slow_task"):
            time.sleep(self._plan.slow_s)
        for kind in ("kill_worker", "drop_message"):
            if self._meets(kind):
                self._disturb(kind)
        if self._meets("fail_task"):
            raise ChaosError(f"chaos: partition {self._launch.partition} of stage {self._launch.stage} fails once")
        if self._meets("fail_fetch") and definition.sources:
            chance = Random(f"{self._plan.seed} which {self._launch.stage} {self._launch.partition}")
            sources = chance.choice(definition.sources)
            if sources.outputs:
                lost = chance.choice(sources.outputs)
                failure = FetchFailure(
                    sources.shuffle,
                    lost.map_partition,
                    lost.attempt,
                    lost.host,
                    "missing",
                    "chaos: taken for lost",
                    sources.epoch,
                )
                raise FetchFailed(failure.message, failure=failure)

    def after(self, status: MapStatus, files: ShuffleFiles, shuffle: int) -> None:
        """What becomes of its output."""
        if not self._meets("corrupt_block"):
            return
        path = files.path(shuffle, status.map_partition, status.attempt)  # type: ignore[arg-type]
        with path.open("r+b") as file:
            first = file.read(1)
            file.seek(0)
            file.write(bytes([first[0] ^ 0xFF]))

    @property
    def tells_twice(self) -> bool:
        """Whether its ending is reported two times."""
        return self._meets("duplicate_message")
