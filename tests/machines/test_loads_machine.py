"""Executors by their load, against a list that is searched: random loads, slots, arrivals and departures."""

from __future__ import annotations

from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flowkit.model.ids import ExecutorId, HostToken
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.loads import Loads


class LoadsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loads = Loads()
        self.states = [ExecutorState(ExecutorId(f"e{number}"), HostToken("host"), 1 + number % 3, (), 0.0) for number in range(7)]
        self.held: dict[ExecutorId, int] = {}
        self.chance = Random(0)

    @rule(which=st.integers(0, 6), load=st.integers(0, 9))
    def put(self, which: int, load: int) -> None:
        self.loads.put(self.states[which], load)
        self.held[self.states[which].id] = load

    @rule(which=st.integers(0, 6), load=st.integers(0, 9))
    def move(self, which: int, load: int) -> None:
        """Changes nothing about one that is not offered anything."""
        self.loads.move(self.states[which], load)
        if self.states[which].id in self.held:
            self.held[self.states[which].id] = load

    @rule(which=st.integers(0, 6))
    def discard(self, which: int) -> None:
        self.loads.discard(self.states[which])
        self.held.pop(self.states[which].id, None)

    @rule(which=st.integers(0, 6), slots=st.integers(1, 4))
    def change_slots(self, which: int, slots: int) -> None:
        state = self.states[which]
        state.slots = slots
        if state.id in self.held:
            self.loads.put(state, self.held[state.id])

    @rule(limits=st.lists(st.integers(0, 12), min_size=5, max_size=5))
    def least_is_a_least(self, limits: list[int]) -> None:
        fitting = {
            state.id: self.held[state.id] / state.slots
            for state in self.states
            if state.id in self.held and self.held[state.id] < limits[state.slots]
        }
        found = self.loads.least(limits.__getitem__, self.chance)
        assert (found is None) == (not fitting)
        if found is not None:
            assert fitting[found.id] == min(fitting.values())
        assert {state.id for state in self.loads.below(limits.__getitem__)} == fitting.keys()
        assert self.loads.count_below(limits.__getitem__) == len(fitting)

    @invariant()
    def everybody_stands_where_it_belongs(self) -> None:
        self.loads.check(self.held)
        for state in self.states:
            assert self.loads.of(state) == self.held.get(state.id)


TestLoads = LoadsMachine.TestCase
