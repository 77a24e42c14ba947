"""Faults that tasks are to meet, chosen beforehand: the same seed, the same faults. Travels as a property of jobs."""

from __future__ import annotations

from random import Random
from typing import Final

import msgspec

#: property of a job whose tasks meet faults: a ``FaultPlan`` as JSON
FAULTS: Final = "flowkit.faults"

#: in the order in which a task meets them
KINDS: Final = ("slow_task", "kill_worker", "fail_task", "fail_fetch", "corrupt_block", "drop_message", "duplicate_message")


class FaultPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """How likely a task meets each kind of fault, in its first attempt."""

    seed: int = 0
    kill_worker: float = 0.0
    fail_task: float = 0.0
    fail_fetch: float = 0.0
    slow_task: float = 0.0
    slow_s: float = 0.2
    corrupt_block: float = 0.0
    drop_message: float = 0.0
    duplicate_message: float = 0.0

    def meets(self, kind: str, stage: int, partition: int, *, tries: int) -> bool:
        """Whether a task meets a fault; ``tries`` were made before, those of the stage included. The answer depends on nothing but what is given.

        >>> plan = FaultPlan(seed=7, slow_task=0.5)
        >>> [plan.meets("slow_task", 0, partition, tries=0) for partition in range(6)] == [
        ...     FaultPlan(seed=7, slow_task=0.5).meets("slow_task", 0, partition, tries=0) for partition in range(6)
        ... ]
        True
        >>> plan.meets("slow_task", 0, 0, tries=1)
        False
        """
        likely: float = getattr(self, kind)
        # Once: what fails whenever it is tried ends its job, which is no fault but an error.
        return not tries and likely > 0 and Random(f"{self.seed} {kind} {stage} {partition}").random() < likely


def encode_faults(plan: FaultPlan) -> str:
    """As a property has it."""
    return msgspec.json.encode(plan).decode()


def decode_faults(text: str) -> FaultPlan:
    """See ``encode_faults``."""
    return msgspec.json.decode(text, type=FaultPlan)
