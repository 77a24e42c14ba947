"""Executors by what they have to do: who has least is found at once, whatever their number.

Runs in the scheduler process inside ``SchedulerCore``. Executors of equally many slots form a group, for they are full at the same load;
a group has a rung for each load, and a rung its executors in no particular order, so that ties are broken by chance.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from flowkit.model.ids import ExecutorId

if TYPE_CHECKING:
    from flowkit.scheduling.executors import ExecutorState


class _Rung:
    """Executors of one group and one load."""

    __slots__ = ("members", "positions")

    def __init__(self) -> None:
        self.members: list[ExecutorState] = []
        self.positions: dict[ExecutorId, int] = {}

    def add(self, state: ExecutorState) -> None:
        self.positions[state.id] = len(self.members)
        self.members.append(state)

    def remove(self, executor: ExecutorId) -> None:
        at = self.positions.pop(executor)
        last = self.members.pop()
        if last.id != executor:
            self.members[at] = last
            self.positions[last.id] = at


class _Group:
    """Executors with the same number of slots."""

    __slots__ = ("lowest", "rungs", "size", "slots")

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.rungs: list[_Rung] = []
        #: no rung below it has a member
        self.lowest = 0
        self.size = 0

    def add(self, state: ExecutorState, load: int) -> None:
        while len(self.rungs) <= load:
            self.rungs.append(_Rung())
        self.rungs[load].add(state)
        self.lowest = min(self.lowest, load)
        self.size += 1

    def remove(self, executor: ExecutorId, load: int) -> None:
        self.rungs[load].remove(executor)
        self.size -= 1

    def lowest_rung(self, limit: int) -> int | None:
        """The lowest load anybody has, if it is below the limit."""
        while self.lowest < len(self.rungs) and not self.rungs[self.lowest].members:
            self.lowest += 1
        return self.lowest if self.lowest < min(limit, len(self.rungs)) else None


class Loads:
    """Executors that may be offered tasks, by how much each holds.

    Examples
    --------
    >>> from flowkit.model.ids import HostToken
    >>> from flowkit.scheduling.executors import ExecutorState
    >>> loads, chance = Loads(), Random(0)
    >>> busy, idle = (ExecutorState(ExecutorId(name), HostToken("host"), 2, (), 0.0) for name in ("busy", "idle"))
    >>> loads.put(busy, 1)
    >>> loads.put(idle, 0)
    >>> loads.least(lambda slots: slots, chance).id
    'idle'
    >>> loads.put(idle, 2)
    >>> loads.least(lambda slots: slots, chance).id
    'busy'
    >>> loads.least(lambda slots: 1, chance) is None
    True
    """

    def __init__(self) -> None:
        self._groups: dict[int, _Group] = {}
        self._places: dict[ExecutorId, tuple[_Group, int]] = {}

    def of(self, state: ExecutorState) -> int | None:
        """What it holds; None: it is not to be offered anything."""
        place = self._places.get(state.id)
        return None if place is None else place[1]

    def put(self, state: ExecutorState, load: int) -> None:
        """It holds so much now; new ones are added."""
        place = self._places.get(state.id)
        if place is not None:
            group, before = place
            if before == load and group.slots == state.slots:
                return
            self._remove(state, group, before)
        found = self._groups.get(state.slots)
        if found is None:
            found = self._groups[state.slots] = _Group(state.slots)
        found.add(state, load)
        self._places[state.id] = found, load

    def move(self, state: ExecutorState, load: int) -> None:
        """It holds so much now, if it is offered anything at all."""
        place = self._places.get(state.id)
        if place is not None:
            group, before = place
            group.remove(state.id, before)
            group.add(state, load)
            self._places[state.id] = group, load

    def discard(self, state: ExecutorState) -> int:
        """It is not to be offered anything; what it held here, 0 when it was not there."""
        place = self._places.pop(state.id, None)
        if place is None:
            return 0
        self._remove(state, *place)
        return place[1]

    def _remove(self, state: ExecutorState, group: _Group, load: int) -> None:
        group.remove(state.id, load)
        if not group.size:
            del self._groups[group.slots]

    def least(self, limit: Callable[[int], int], chance: Random) -> ExecutorState | None:
        """One that holds least for its slots, and less than ``limit(slots)``; None when there is none."""
        best: _Rung | None = None
        best_load = 0.0
        for slots, group in self._groups.items():
            rung = group.lowest_rung(limit(slots))
            if rung is not None and (best is None or rung / slots < best_load):
                best, best_load = group.rungs[rung], rung / slots
        if best is None:
            return None
        return best.members[int(chance.random() * len(best.members))]

    def below(self, limit: Callable[[int], int]) -> list[ExecutorState]:
        """All that hold less than ``limit(slots)``, in no order."""
        return [
            state
            for slots, group in self._groups.items()
            for rung in group.rungs[group.lowest : limit(slots)]
            for state in rung.members
        ]

    def count_below(self, limit: Callable[[int], int]) -> int:
        """How many hold less than ``limit(slots)``."""
        return sum(
            len(rung.members) for slots, group in self._groups.items() for rung in group.rungs[group.lowest : limit(slots)]
        )

    def check(self, loads: dict[ExecutorId, int]) -> None:
        """Invariants: these are there, each at its load."""
        assert self._places.keys() == loads.keys(), self._places.keys() ^ loads.keys()
        for executor, (group, load) in self._places.items():
            assert loads[executor] == load, f"{executor} holds {loads[executor]}, and stands at {load}"
            rung = group.rungs[load]
            assert rung.members[rung.positions[executor]].id == executor
            assert group.lowest <= load
        assert sum(group.size for group in self._groups.values()) == len(self._places)
