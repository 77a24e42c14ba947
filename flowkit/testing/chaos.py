"""Chosen faults for anybody's tests: whatever goes wrong, the answers of a pipeline must not change.

Runs on the driver; the faults happen in executors, by a plan that travels with each job.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from flowkit.context import Context
from flowkit.errors import InvalidArgument
from flowkit.jobs import add_surroundings, remove_surroundings
from flowkit.model.events import Event, TaskStart
from flowkit.model.faults import FAULTS, KINDS, FaultPlan, encode_faults


class Fault(NamedTuple):
    """One that a task met, or would have met had it come so far."""

    kind: str
    stage: int
    partition: int


class Met:
    """What tasks met: a listener that works out the same plan."""

    def __init__(self, plan: FaultPlan) -> None:
        self.plan = plan
        self._faults: dict[Fault, None] = {}

    def on_event(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, TaskStart):
            for kind in KINDS:
                if self.plan.meets(kind, event.stage, event.partition, tries=event.stage_attempt + event.attempt_number):
                    self._faults[Fault(kind, event.stage, event.partition)] = None

    @property
    def faults(self) -> list[Fault]:
        """In the order in which the tasks started, once each."""
        return list(self._faults)

    def __repr__(self) -> str:
        kinds = [each.kind for each in self._faults]
        return f"<chaos, seed {self.plan.seed}: {', '.join(f'{kinds.count(kind)} {kind}' for kind in KINDS if kind in kinds) or 'nothing yet'}>"


def _has_processes(context: Context) -> bool:
    embedded = context._embedded
    return embedded.processes if embedded is not None else hasattr(context._link, "client")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@contextlib.contextmanager
def chaos(
    *,
    seed: int = 0,
    context: Context | None = None,
    kill_worker: float = 0.0,
    fail_task: float = 0.0,
    fail_fetch: float = 0.0,
    slow_task: float = 0.0,
    slow_s: float = 0.2,
    corrupt_block: float = 0.0,
    drop_message: float = 0.0,
    duplicate_message: float = 0.0,
) -> Iterator[Met]:
    """Have tasks of jobs in this block meet faults, each with its probability, in their first attempt.

    Parameters
    ----------
    seed
        The same seed, the same faults: they depend on it, the stage, the partition, and nothing else.
    context
        Whose events are listened to; None: the newest that is open. Jobs of others, started in the block, meet faults too.
    kill_worker
        The process ends by SIGKILL as the task begins. Needs worker processes with nannies, as the embedded cluster has.
    fail_task
        The task raises an ``OSError``, which counts against it.
    fail_fetch
        Of what it reads, one map output is taken for lost: exactly that one is made again.
    slow_task, slow_s
        The task sleeps so long first.
    corrupt_block
        A byte of the shuffle file it wrote is turned over, once it is written.
    drop_message
        The connection between executor and scheduler breaks; what was under way is sent again when it is back.
    duplicate_message
        The task's ending is reported twice.

    Yields
    ------
    Met
        What tasks met so far: ``met.faults``.

    Raises
    ------
    errors.InvalidArgument
        A probability or ``slow_s`` out of range, a ``seed`` that is no whole number, or no context is open.

    Notes
    -----
    A block with a killed worker costs seconds: its nanny starts another. Faults are not met twice by one task, so four tries suffice
    unless a worker is killed under others' first tries again and again: keep ``kill_worker`` well below one in ten.

    Examples
    --------
    >>> with chaos(seed=7, context=fc, fail_fetch=0.5, slow_task=0.1, slow_s=0.001) as met:
    ...     fc.range(100, num_partitions=4).map(lambda x: (x % 3, x)).reduce_by_key(lambda a, b: a + b, 4).count()
    3
    >>> {fault.kind for fault in met.faults} <= {"fail_fetch", "slow_task"}
    True
    """
    chances: dict[str, Any] = {
        "kill_worker": kill_worker,
        "fail_task": fail_task,
        "fail_fetch": fail_fetch,
        "slow_task": slow_task,
        "corrupt_block": corrupt_block,
        "drop_message": drop_message,
        "duplicate_message": duplicate_message,
    }
    for name, value in chances.items():
        if not _is_number(value) or not 0 <= value <= 1:
            raise InvalidArgument(
                f"{name} = {value!r}: must be a probability from 0 to 1", name=name, value=value, allowed="0 to 1"
            )
    if not _is_number(slow_s) or not 0 <= slow_s < math.inf:
        raise InvalidArgument(
            f"slow_s = {slow_s!r}: must be a number of seconds, 0 or more", name="slow_s", value=slow_s, allowed="0 or more"
        )
    if type(seed) is not int or not -(1 << 63) <= seed < 1 << 63:
        raise InvalidArgument(
            f"seed = {seed!r}: must be a whole number of 64 bits", name="seed", value=seed, allowed="a whole number of 64 bits"
        )
    if context is None:
        if not Context.live():
            raise InvalidArgument(
                "chaos() found no open Context; make one first", name="context", value=None, allowed="a Context"
            )
        context = Context.live()[-1]
    if kill_worker and not _has_processes(context):
        raise InvalidArgument(
            "kill_worker ends worker processes, and this Context runs its tasks in its own",
            name="kill_worker",
            value=kill_worker,
            allowed="0",
        )
    plan = FaultPlan(seed=seed, slow_s=slow_s, **chances)
    met = Met(plan)
    context.add_listener(met)

    def properties() -> dict[str, str]:
        return {FAULTS: encode_faults(plan)}

    add_surroundings(properties)
    try:
        yield met
    finally:
        remove_surroundings(properties)
        context.wait_for_listeners()
        context.remove_listener(met)
