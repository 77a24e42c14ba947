"""What the core knows of executors: who can be sent tasks, what each holds, when it was last heard.

Runs in the scheduler process inside ``SchedulerCore``; no thread of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from flowkit.model.ids import AppId, AttemptId, ExecutorId, HostToken, PartitionIndex, StageId, executor_address
from flowkit.scheduling import resources
from flowkit.scheduling.loads import Loads
from flowkit.scheduling.resources import Addresses

if TYPE_CHECKING:
    from flowkit.scheduling.task_sets import Attempt

#: How long an executor may take to answer before it counts as unresponsive: at least so long, and longer where answers take longer.
LEAST_PATIENCE_S, _MOST_PATIENCE_S = 0.04, 2.0
#: of the time that the last answer took
_PATIENCE_FACTOR = 4.0
#: what is left of a long patience with each answer in time, some of which answer something sent before
_PATIENCE_DECAY = 0.95


class ExecutorState:
    """One executor process. Its id holds an incarnation, so it never comes back once it is lost."""

    __slots__ = (
        "address",
        "alive_at",
        "attempts",
        "draining",
        "examined",
        "held_for",
        "host",
        "host_names",
        "id",
        "idle_since",
        "idle_slots",
        "is_blocked",
        "last_heard",
        "load",
        "may_leave",
        "memory_bytes",
        "memory_taken",
        "patience_s",
        "paused",
        "rack",
        "recalled",
        "replaceable",
        "resources",
        "slots",
        "stopped",
        "unresponsive",
        "urgent_load",
    )

    def __init__(
        self,
        executor: ExecutorId,
        host: HostToken,
        slots: int,
        host_names: tuple[str, ...],
        now: float,
        resources: Mapping[str, Sequence[str]] | None = None,
        memory_bytes: int = 0,
        *,
        replaceable: bool = True,
    ) -> None:
        self.id = executor
        self.address = executor_address(executor)
        self.host = host
        self.slots = slots
        #: where its host stands; empty where no topology says
        self.rack = ""
        #: named resources it has
        self.resources = {name: Addresses(addresses) for name, addresses in (resources or {}).items()}
        #: memory that tasks may use, 0 where nobody says, and what of it those have that said what they need
        self.memory_bytes = memory_bytes
        self.memory_taken = 0
        #: names a file system may use for this host
        self.host_names = host_names
        #: every attempt it was sent and has not ended, in order of launch: queued ones behind running ones
        self.attempts: dict[AttemptId, Attempt] = {}
        #: slots its attempts take, those that wait included
        self.load = 0
        #: of these, slots of attempts that went ahead of others and have not started
        self.urgent_load = 0
        #: when an attempt of its ended last: since then it has nothing to do, or another one in hand
        self.idle_since = now
        #: slots with nothing to run, as ``Executors`` counted it last
        self.idle_slots = 0
        self.last_heard = now
        #: when there was the last sign that its process works, be it only the processor time that it uses
        self.alive_at = now
        #: when it was looked at while it was silent, and how much processor time each of its threads had used, and waited for, by then
        self.examined: tuple[float, dict[int, tuple[float, float]]] | None = None
        #: whether its process was stopped then; None: nobody could look
        self.stopped: bool | None = None
        #: somebody can end its process and start another
        self.replaceable = replaceable
        #: attempts it was to give back, and has neither given back nor said to run
        self.recalled: dict[AttemptId, Attempt] = {}
        #: how long it may take to answer, learnt from its answers
        self.patience_s = LEAST_PATIENCE_S
        #: it owed an answer for longer, so it is offered nothing until it is heard
        self.unresponsive = False
        #: all its slots run something long, so nothing is queued there until something of it ends
        self.is_blocked = False
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
    def is_open(self) -> bool:
        """Whether it is offered tasks: it may be sent launches, is kept for none, and answers."""
        return self.held_for is None and not self.unresponsive and self.usable

    def runs_long(self, before: float) -> bool:
        """Whether each of its slots has had one attempt in hand since before then.

        One that has not said what it runs has run the first in its queue since the one before ended: it may be unable to say so.
        """
        slots = self.slots
        for attempt in self.attempts.values():
            if attempt.in_hand_since(self) >= before:
                return False
            slots -= attempt.cpus
            if slots <= 0:
                return True
        return False

    @property
    def surplus(self) -> int:
        """Slots its attempts take beyond those it has."""
        return self.load - self.slots

    def __repr__(self) -> str:
        state = "draining" if self.draining else "paused" if self.paused else "unresponsive" if self.unresponsive else "usable"
        return f"<executor {self.id} {state}: {len(self.attempts)} attempts, {self.slots} slots>"


class Executors:
    """All executors, and which hosts have one that can serve its files."""

    def __init__(self) -> None:
        self._by_id: dict[ExecutorId, ExecutorState] = {}
        #: executors of a host in order of arrival; a host without any is not a key
        self.by_host: dict[HostToken, dict[ExecutorId, ExecutorState]] = {}
        #: executors with more attempts than slots: the ones something could be taken back from
        self.with_surplus: dict[ExecutorId, ExecutorState] = {}
        #: executors that may be sent launches, by what they hold
        self.loads = Loads()
        #: the same, by what went ahead of others there and waits
        self.urgent_loads = Loads()
        #: executors that are kept for one task
        self.held: dict[ExecutorId, ExecutorState] = {}
        #: executors that were asked to leave
        self.draining: dict[ExecutorId, ExecutorState] = {}
        #: slots of usable executors, and those with nothing to run
        self.usable_slots = 0
        self.idle_slots = 0
        #: the latter by host; one without any is not a key
        self.idle_hosts: dict[HostToken, int] = {}
        #: hosts by the names that a file system may use for them, in order of arrival
        self.hosts_by_name: dict[str, dict[HostToken, None]] = {}
        #: racks of hosts, where a topology says so
        self.racks: dict[HostToken, str] = {}
        #: executors that have to answer something, and since when; oldest first
        self.owing: dict[ExecutorId, float] = {}
        #: executors that do not answer
        self.unresponsive: dict[ExecutorId, ExecutorState] = {}
        #: executors that were told to stop an attempt, which may still run
        self.killing: dict[ExecutorId, ExecutorState] = {}
        #: executors that have a named resource
        self.owners: dict[str, dict[ExecutorId, ExecutorState]] = {}
        #: named resources that executors of a host share
        self._of_hosts: dict[tuple[HostToken, str], Addresses] = {}
        self._names: dict[HostToken, dict[str, None]] = {}
        self._addresses: dict[HostToken, tuple[str, ...]] | None = None
        #: slots of those that may be sent launches
        self._usable: dict[ExecutorId, int] = {}
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

    def at(self, place: ExecutorId | HostToken) -> list[ExecutorState]:
        """The executor of this name, or those of the host of this name."""
        state = self._by_id.get(ExecutorId(place))
        return [state] if state is not None else list(self.by_host.get(HostToken(place), {}).values())

    def idle_hosts_in_turn(self, most: int) -> Iterator[HostToken]:
        """Hosts with slots that have nothing to run, some ``most``; others the next time."""
        for host in list(islice(self.idle_hosts, most)):
            self.idle_hosts[host] = self.idle_hosts.pop(host)
            yield host

    def share(self, state: ExecutorState, names: Sequence[str]) -> None:
        """Named resources of these names belong to a new executor's host: who else has them there has the same."""
        for name in names:
            known = self._of_hosts.setdefault((state.host, name), state.resources[name])
            known.extend(state.resources[name].names)
            state.resources[name] = known

    def add(self, state: ExecutorState) -> None:
        """A new executor."""
        self._by_id[state.id] = state
        self.by_host.setdefault(state.host, {})[state.id] = state
        if state.rack:
            self.racks[state.host] = state.rack
        self._addresses = None
        for name in state.resources:
            self.owners.setdefault(name, {})[state.id] = state
        for name in state.host_names:
            self.hosts_by_name.setdefault(name, {})[state.host] = None
            self._names.setdefault(state.host, {})[name] = None
        self.refresh(state)

    def remove(self, state: ExecutorState, reason: str) -> None:
        """It is gone for good."""
        del self._by_id[state.id]
        neighbours = self.by_host[state.host]
        del neighbours[state.id]
        self._addresses = None
        if not neighbours:
            del self.by_host[state.host]
            self.racks.pop(state.host, None)
            for name in state.resources:
                self._of_hosts.pop((state.host, name), None)
            for name in self._names.pop(state.host, ()):
                del self.hosts_by_name[name][state.host]
        self.with_surplus.pop(state.id, None)
        for name in state.resources:
            del self.owners[name][state.id]
        self.loads.discard(state)
        self.urgent_loads.discard(state)
        state.is_blocked = False
        state.recalled.clear()
        for index in (self.held, self.draining, self.owing, self.unresponsive, self.killing):
            index.pop(state.id, None)
        self.usable_slots -= self._usable.pop(state.id, 0)
        self._count_idle(state, 0)
        self.last_losses = [*self.last_losses[-4:], f"{state.id}: {reason}"]

    def refresh(self, state: ExecutorState) -> None:
        """Its condition changed."""
        if state.held_for is None:
            self.held.pop(state.id, None)
        else:
            self.held[state.id] = state
        if state.draining:
            self.draining[state.id] = state
        else:
            self.draining.pop(state.id, None)
        self.usable_slots -= self._usable.pop(state.id, 0)
        if state.usable:
            self._usable[state.id] = state.slots
            self.usable_slots += state.slots
        if state.unresponsive:
            self.unresponsive[state.id] = state
        else:
            self.unresponsive.pop(state.id, None)
        if state.is_open:
            if not state.is_blocked:
                self.loads.put(state, state.load)
            self.urgent_loads.put(state, state.urgent_load)
        else:
            self.loads.discard(state)
            self.urgent_loads.discard(state)
        self._note_surplus(state)

    def take(self, state: ExecutorState, attempt: Attempt) -> None:
        """It is sent an attempt."""
        state.attempts[attempt.id] = attempt
        state.load += attempt.cpus
        if state.load <= state.slots and state.id not in self.owing:
            self.owing[state.id] = attempt.launched_at  # a slot is free, so it will say that it starts
        self.loads.move(state, state.load)
        if attempt.urgent:
            state.urgent_load += attempt.cpus
            self.urgent_loads.move(state, state.urgent_load)
        self._note_surplus(state)

    def give_back(self, state: ExecutorState, attempt: Attempt, now: float) -> None:
        """An attempt is over, or was never there."""
        if state.attempts.pop(attempt.id, None) is None:
            return
        state.idle_since = now
        if attempt.has_more:
            resources.give_back(attempt.task_set.profile, attempt.resources, state)
        state.load -= attempt.cpus
        if state.recalled:
            state.recalled.pop(attempt.id, None)
        if state.is_blocked:
            state.is_blocked = False
            self.refresh(state)
        else:
            self.loads.move(state, state.load)
        if attempt.urgent and not attempt.started_at:
            state.urgent_load -= attempt.cpus
            self.urgent_loads.move(state, state.urgent_load)
        if self._by_id.get(state.id) is state:
            self._note_surplus(state)

    def note_start(self, state: ExecutorState, attempt: Attempt, at: float) -> None:
        """An attempt runs since then, on the executor's clock."""
        if attempt.urgent and attempt.id in state.attempts:
            state.urgent_load -= attempt.cpus
            self.urgent_loads.move(state, state.urgent_load)
        if state.recalled:
            state.recalled.pop(attempt.id, None)
        attempt.started_at = at

    def block(self, state: ExecutorState) -> None:
        """All its slots run something long: nothing more is queued there until something of it ends."""
        state.is_blocked = True
        self.loads.discard(state)

    def recall(self, state: ExecutorState, attempts: Iterable[Attempt], now: float) -> None:
        """It is to give back attempts that have not started, and has to answer."""
        for attempt in attempts:
            attempt.is_recalled = True
            state.recalled[attempt.id] = attempt
        self.owing.setdefault(state.id, now)

    def heard(self, state: ExecutorState, now: float, *, answers: bool) -> None:
        """It says something; ``answers``: it has what it was sent before."""
        state.last_heard = state.alive_at = now
        if answers and (since := self.owing.pop(state.id, None)) is not None:
            if not state.unresponsive:
                took = _PATIENCE_FACTOR * (now - since)
                state.patience_s = min(_MOST_PATIENCE_S, max(LEAST_PATIENCE_S, _PATIENCE_DECAY * state.patience_s, took))
            if state.recalled:
                self.owing[state.id] = now
        if state.unresponsive:
            state.unresponsive = False
            self.refresh(state)
        state.examined = None

    def doubt(self, state: ExecutorState) -> None:
        """It has not answered in time: it is offered nothing until it is heard, and has twice the time after that."""
        state.unresponsive = True
        state.patience_s = min(_MOST_PATIENCE_S, 2 * state.patience_s)
        self.refresh(state)

    @property
    def others_answer(self) -> bool:
        """Whether there is anybody to turn to when one does not answer."""
        return len(self._usable) > 1 and len(self._usable) > len(self.unresponsive)

    def _note_surplus(self, state: ExecutorState) -> None:
        surplus = state.load - state.slots
        if surplus > 0:
            self.with_surplus[state.id] = state
        else:
            self.with_surplus.pop(state.id, None)
        idle = -surplus if surplus < 0 and state.usable and not state.unresponsive else 0
        if idle != state.idle_slots:
            self._count_idle(state, idle)

    def _count_idle(self, state: ExecutorState, idle: int) -> None:
        more = idle - state.idle_slots
        state.idle_slots = idle
        self.idle_slots += more
        of_host = self.idle_hosts.get(state.host, 0) + more
        if of_host:
            self.idle_hosts[state.host] = of_host
        else:
            self.idle_hosts.pop(state.host, None)

    def addresses(self) -> dict[HostToken, tuple[str, ...]]:
        """Who serves each host's files: to be read, not changed."""
        if self._addresses is None:
            self._addresses = {host: tuple(state.address for state in states.values()) for host, states in self.by_host.items()}
        return self._addresses

    def check(self) -> None:
        """Invariants."""
        for state in self._by_id.values():
            assert self.by_host[state.host][state.id] is state
            assert (state.surplus > 0) == (state.id in self.with_surplus), state
        assert sum(len(states) for states in self.by_host.values()) == len(self._by_id)
        assert all(
            self.idle_hosts.get(host, 0) == sum(state.idle_slots for state in states.values())
            for host, states in self.by_host.items()
        )
        assert self.idle_slots == sum(
            max(0, -state.surplus) for state in self._by_id.values() if state.usable and not state.unresponsive
        )
        assert self._usable == {state.id: state.slots for state in self._by_id.values() if state.usable}
        assert {host for hosts in self.hosts_by_name.values() for host in hosts} <= self.by_host.keys()
        assert self.usable_slots == sum(self._usable.values())
        assert self.draining.keys() == {state.id for state in self._by_id.values() if state.draining}
        for state in self._by_id.values():
            assert state.load == sum(attempt.cpus for attempt in state.attempts.values()), state
            assert state.memory_taken == sum(each.task_set.profile.memory_bytes for each in state.attempts.values()), state
            assert state.urgent_load == sum(each.cpus for each in state.attempts.values() if each.urgent and not each.started_at)
        assert self.unresponsive.keys() == {state.id for state in self._by_id.values() if state.unresponsive}
        assert self.owing.keys() <= self._by_id.keys()
        for state in self._by_id.values():
            assert state.recalled.keys() <= state.attempts.keys(), state
            assert not any(attempt.started_at for attempt in state.recalled.values()), state
            assert not state.recalled or state.id in self.owing, state
        offered = [state for state in self._by_id.values() if state.is_open]
        self.loads.check({state.id: state.load for state in offered if not state.is_blocked})
        self.urgent_loads.check({state.id: state.urgent_load for state in offered})
