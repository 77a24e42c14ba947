"""What the core knows of executors: who can be sent tasks, what each holds, when it was last heard.

Runs in the scheduler process inside ``SchedulerCore``; no thread of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flowkit.model.ids import AppId, AttemptId, ExecutorId, HostToken, PartitionIndex, StageId, executor_address

if TYPE_CHECKING:
    from flowkit.scheduling.task_sets import Attempt


class ExecutorState:
    """One executor process. Its id holds an incarnation, so it never comes back once it is lost."""

    __slots__ = (
        "address",
        "attempts",
        "defined",
        "draining",
        "held_for",
        "host",
        "host_names",
        "id",
        "idle_slots",
        "last_heard",
        "may_leave",
        "paused",
        "slots",
    )

    def __init__(self, executor: ExecutorId, host: HostToken, slots: int, host_names: tuple[str, ...], now: float) -> None:
        self.id = executor
        self.address = executor_address(executor)
        self.host = host
        self.slots = slots
        #: names a file system may use for this host
        self.host_names = host_names
        #: every attempt it was sent and has not ended, in order of launch: queued ones behind running ones
        self.attempts: dict[AttemptId, Attempt] = {}
        #: version of each stage attempt's definition it was sent last
        self.defined: dict[tuple[AppId, StageId, int], int] = {}
        #: slots with nothing to run, as ``Executors`` counted it last
        self.idle_slots = 0
        self.last_heard = now
        self.paused = False
        self.draining = False
        #: stage and partition that is to run here with nobody beside it; others are kept away until it has
        self.held_for: tuple[AppId, StageId, PartitionIndex] | None = None
        #: draining, and told that nobody needs it any more
        self.may_leave = False

    @property
    def usable(self) -> bool:
        """Whether it may be sent launches."""
        return not (self.paused or self.draining) and self.slots > 0

    @property
    def urgent_room(self) -> int:
        """Tasks that could go ahead of what is queued here without waiting for one another."""
        return self.slots - sum(attempt.urgent and not attempt.started_at for attempt in self.attempts.values())

    @property
    def surplus(self) -> int:
        """Attempts beyond what its slots can run."""
        return len(self.attempts) - self.slots

    def __repr__(self) -> str:
        state = "draining" if self.draining else "paused" if self.paused else "usable"
        return f"<executor {self.id} {state}: {len(self.attempts)} attempts, {self.slots} slots>"


class Executors:
    """All executors, and which hosts have one that can serve its files."""

    def __init__(self) -> None:
        self._by_id: dict[ExecutorId, ExecutorState] = {}
        #: executors of a host in order of arrival; a host without any is not a key
        self.by_host: dict[HostToken, dict[ExecutorId, ExecutorState]] = {}
        #: executors with more attempts than slots: the ones something could be taken back from
        self.with_surplus: dict[ExecutorId, ExecutorState] = {}
        #: executors that may have room, to be looked at when tasks are offered
        self.offerable: dict[ExecutorId, ExecutorState] = {}
        #: executors that are kept for one task
        self.held: dict[ExecutorId, ExecutorState] = {}
        #: slots of usable executors with nothing to run
        self.idle_slots = 0
        self._usable: set[ExecutorId] = set()
        #: last reasons of losses, newest last, for messages
        self.last_losses: list[str] = []

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[ExecutorState]:
        return iter(self._by_id.values())

    @property
    def usable_count(self) -> int:
        """How many may be sent launches."""
        return len(self._usable)

    def get(self, executor: ExecutorId) -> ExecutorState | None:
        """The executor, or None when it is lost or was never ready."""
        return self._by_id.get(executor)

    def add(self, state: ExecutorState) -> None:
        """A new executor."""
        self._by_id[state.id] = state
        self.by_host.setdefault(state.host, {})[state.id] = state
        self.refresh(state)

    def remove(self, state: ExecutorState, reason: str) -> None:
        """It is gone for good."""
        del self._by_id[state.id]
        neighbours = self.by_host[state.host]
        del neighbours[state.id]
        if not neighbours:
            del self.by_host[state.host]
        self.with_surplus.pop(state.id, None)
        self.offerable.pop(state.id, None)
        self.held.pop(state.id, None)
        self._usable.discard(state.id)
        self.idle_slots -= state.idle_slots
        self.last_losses = [*self.last_losses[-4:], f"{state.id}: {reason}"]

    def refresh(self, state: ExecutorState) -> None:
        """Its load or its condition changed."""
        if state.held_for is None:
            self.held.pop(state.id, None)
        else:
            self.held[state.id] = state
        if state.usable:
            self._usable.add(state.id)
            if state.held_for is None:
                self.offerable[state.id] = state
            else:
                self.offerable.pop(state.id, None)
        else:
            self.offerable.pop(state.id, None)
            self._usable.discard(state.id)
        self.note_load(state)

    def note_load(self, state: ExecutorState) -> None:
        """Its load changed."""
        idle = max(0, -state.surplus) if state.usable else 0
        self.idle_slots += idle - state.idle_slots
        state.idle_slots = idle
        if state.surplus > 0:
            self.with_surplus[state.id] = state
        else:
            self.with_surplus.pop(state.id, None)

    def addresses(self) -> dict[HostToken, tuple[str, ...]]:
        """Who serves each host's files."""
        return {host: tuple(state.address for state in states.values()) for host, states in self.by_host.items()}

    def check(self) -> None:
        """Invariants."""
        for state in self._by_id.values():
            assert self.by_host[state.host][state.id] is state
            assert (state.surplus > 0) == (state.id in self.with_surplus), state
        assert sum(len(states) for states in self.by_host.values()) == len(self._by_id)
        assert self.idle_slots == sum(max(0, -state.surplus) for state in self._by_id.values() if state.usable)
        assert self._usable == {state.id for state in self._by_id.values() if state.usable}
