"""Executors by what they have to do: who has least is found at once, whatever their number.

Runs in the scheduler process inside ``SchedulerCore``. Executors of equally many slots form a group, for they are full at the same load;
a group has a rung for each load, and a rung its executors in no particular order, so that ties are broken by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import TYPE_CHECKING

from flowkit.model.ids import ExecutorId

if TYPE_CHECKING:
    from flowkit.scheduling.executors import ExecutorState


class _Place:
    """Where an executor stands: every task moves it twice, so it is moved without looking for it."""

    __slots__ = ("at", "group", "load", "state")

    def __init__(self, state: ExecutorState, group: _Group, load: int) -> None:
        self.state = state
        self.group = group
        self.load = load
        #: among those of the same load
        self.at = 0


class _Group:
    """Executors with the same number of slots."""

    __slots__ = ("lowest", "rungs", "size", "slots")

    def __init__(self, slots: int) -> None:
        self.slots = slots
        #: by load
        self.rungs: list[list[_Place]] = []
        #: no rung below it has a member
        self.lowest = 0
        self.size = 0

    def add(self, place: _Place, load: int) -> None:
        while len(self.rungs) <= load:
            self.rungs.append([])
        rung = self.rungs[load]
        place.group, place.load, place.at = self, load, len(rung)
        rung.append(place)
        self.lowest = min(self.lowest, load)
        self.size += 1

    def remove(self, place: _Place) -> None:
        rung = self.rungs[place.load]
        last = rung.pop()
        if last is not place:
            rung[place.at] = last
            last.at = place.at
        self.size -= 1


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
        self._places: dict[ExecutorId, _Place] = {}

    def of(self, state: ExecutorState) -> int | None:
        """What it holds; None: it is not to be offered anything."""
        place = self._places.get(state.id)
        return None if place is None else place.load

    def put(self, state: ExecutorState, load: int) -> None:
        """It holds so much now; new ones are added."""
        group = self._groups.get(state.slots)
        if group is None:
            group = self._groups[state.slots] = _Group(state.slots)
        place = self._places.get(state.id)
        if place is None:
            place = self._places[state.id] = _Place(state, group, load)
        elif place.group is group and place.load == load:
            return
        else:
            self._remove(place)
            self._groups[state.slots] = group  # which may have been empty for a moment
        group.add(place, load)

    def move(self, state: ExecutorState, load: int) -> None:
        """It holds so much now, if it is offered anything at all."""
        place = self._places.get(state.id)
        if place is None:
            return
        # What ``remove`` and ``add`` do, of one group: every task comes here twice, and this takes 0.6 of the time.
        group = place.group
        rungs = group.rungs
        rung = rungs[place.load]
        last = rung.pop()
        if last is not place:
            rung[place.at] = last
            last.at = place.at
        while len(rungs) <= load:
            rungs.append([])
        rung = rungs[load]
        place.load, place.at = load, len(rung)
        rung.append(place)
        if load < group.lowest:  # noqa: PLR1730 - a call of `min` takes a third of the whole
            group.lowest = load

    def discard(self, state: ExecutorState) -> int:
        """It is not to be offered anything; what it held here, 0 when it was not there."""
        place = self._places.pop(state.id, None)
        if place is None:
            return 0
        self._remove(place)
        return place.load

    def _remove(self, place: _Place) -> None:
        group = place.group
        group.remove(place)
        if not group.size:
            del self._groups[group.slots]

    def least(self, limit: Callable[[int], int], chance: Random) -> ExecutorState | None:
        """One that holds least for its slots, and less than ``limit(slots)``; None when there is none."""
        best: list[_Place] | None = None
        best_load = 0.0
        for slots, group in self._groups.items():
            rungs, lowest = group.rungs, group.lowest
            while not rungs[lowest]:  # a group has members
                lowest += 1
            group.lowest = lowest
            if lowest < limit(slots) and (best is None or lowest / slots < best_load):
                best, best_load = rungs[lowest], lowest / slots
        return None if best is None else best[int(chance.random() * len(best))].state

    def least_of(self, states: Iterable[ExecutorState], limit: Callable[[int], int]) -> ExecutorState | None:
        """The first of those of these that hold least for their slots, and less than ``limit(slots)``; None when there is none."""
        best, best_part = None, 0.0
        places = self._places
        slots = most = 0
        for state in states:
            place = places.get(state.id)
            if place is None:
                continue
            if state.slots != slots:  # of a host most have equally many
                slots = state.slots
                most = limit(slots)
            load = place.load
            if load < most:
                if not load:
                    return state
                part = load / slots
                if best is None or part < best_part:
                    best, best_part = state, part
        return best

    def below(self, limit: Callable[[int], int]) -> list[ExecutorState]:
        """All that hold less than ``limit(slots)``, in no order."""
        return [
            place.state
            for slots, group in self._groups.items()
            for rung in group.rungs[group.lowest : limit(slots)]
            for place in rung
        ]

    def all_within(self, limit: Callable[[int], int]) -> bool:
        """Whether ``limit(slots)`` is never more than the slots: only those with idle ones are below it."""
        return all(limit(slots) <= slots for slots in self._groups)

    def count_below(self, limit: Callable[[int], int]) -> int:
        """How many hold less than ``limit(slots)``."""
        return sum(len(rung) for slots, group in self._groups.items() for rung in group.rungs[group.lowest : limit(slots)])

    def check(self, loads: dict[ExecutorId, int]) -> None:
        """Invariants: these are there, each at its load."""
        assert self._places.keys() == loads.keys(), self._places.keys() ^ loads.keys()
        for executor, place in self._places.items():
            assert loads[executor] == place.load, f"{executor} holds {loads[executor]}, and stands at {place.load}"
            assert place.group.rungs[place.load][place.at] is place
            assert place.state.id == executor
            assert place.group.lowest <= place.load
        assert all(group.size for group in self._groups.values())
        assert sum(group.size for group in self._groups.values()) == len(self._places)
