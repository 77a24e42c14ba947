"""How many executors there are: asks an allocation policy, and a driver that holds the cluster's object to do it.

Runs in the scheduler process inside ``SchedulerCore``; idle unless ``allocation`` is set and a driver offered to scale. An executor that
is to go first hands over what only it has, as one does that leaves by itself (``handover``); when nobody needs it any more its driver is
told to close it. So nothing is ever computed again for a cluster that shrinks.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from flowkit.abc import Allocation, AllocationPolicy, Demand, IdleExecutor
from flowkit.config import Config
from flowkit.model.events import AllocationChanged, ExecutorsKept, ExecutorsReleased
from flowkit.model.ids import AppId, ExecutorId
from flowkit.scheduling import handover
from flowkit.scheduling.actions import CloseExecutors, FaultFound, ScaleTo
from flowkit.scheduling.asking import PolicyError, asked, is_count, is_seconds
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState

_LOOK_S = 0.1
#: a driver that was told to close an executor, which is still there, is told again: its cluster may have refused
_TELL_AGAIN_S = 30.0
#: a policy that is asked ten times a second may be wrong as often
_COMPLAIN_AGAIN_S = 60.0

_KIND = "allocation policy"


class Allocator:
    """Watches demand. ``wake_at`` is when to look again."""

    def __init__(self, config: Config, policy: AllocationPolicy | None) -> None:
        self._policy = policy
        self._minimum = config.min_executors
        self._maximum = config.max_executors or inf
        #: applications whose drivers can scale, the one that does first
        self._scalers: dict[AppId, None] = {}
        self.target = config.initial_executors or config.min_executors
        #: what the cluster was asked for last
        self._asked = 0
        #: on their way out at our wish, and when their driver was told last to close them
        self._leaving: dict[ExecutorId, float] = {}
        self._slots = 1
        self._next_look = 0.0
        #: the policy's next fault that is written down is not before
        self._complain_at = 0.0
        self.wake_at: float | None = None

    def offered(self, app: AppId, count: int) -> None:
        """A driver can scale; its cluster was asked for ``count`` before, some of which may still be on their way."""
        if not self._scalers and not self._asked:
            self._asked = count
            self.target = int(max(self.target, min(self._maximum, count)))
        self._scalers[app] = None

    def leaves(self, executor: ExecutorId) -> None:
        """It was asked to leave: not by us, unless its driver was told to close it, so it is not ours to call back."""
        if self._leaving.get(executor) == -inf:
            del self._leaving[executor]

    def look(self, books: Books) -> None:
        """Ask for more, let some go."""
        if self._policy is None or not self._scalers:
            return
        scaler = self._scaler(books)
        if scaler is None:
            self.wake_at = None
            return
        self._close_who_may_leave(books, scaler)
        if books.now < self._next_look:
            self.wake_at = self._next_look if self.wake_at is None else min(self.wake_at, self._next_look)
            return
        self._next_look = books.now + _LOOK_S
        self.wake_at = None
        demand = self._demand(books)
        found = self._ask(books, self._policy, demand)
        if found is None:
            return
        self.wake_at = None if found.look_at is None else max(found.look_at, self._next_look)
        self._let_go(books, demand, found)
        target = int(max(self._minimum, min(self._maximum, found.target)))
        present = demand.present + self._call_back(books, target - demand.present, found.reason)
        if target != self.target:
            before, self.target = self.target, target
            books.publish(
                None,
                AllocationChanged(time=books.now, target=target, before=before, present=present, reason=found.reason),
            )
        # Those whose driver was told to close them are gone for the cluster: counted, it would put others in their place.
        untold = sum(told_at == -inf for told_at in self._leaving.values())
        asked = max(self.target, present - len(self._leaving_now(demand, found))) + untold
        if asked != self._asked:
            self._asked = asked
            books.emit(ScaleTo(scaler, asked))

    def _scaler(self, books: Books) -> AppId | None:
        """Who scales now. When nobody does any more, those who were to leave stay."""
        for app in [each for each in self._scalers if each not in books.applications]:
            del self._scalers[app]
            self._asked = 0
            self._leaving = dict.fromkeys(self._leaving, -inf)  # whoever follows is told again
        if not self._scalers:
            for state in filter(None, map(books.executors.get, self._leaving)):
                state.draining = state.may_leave = False
                books.executors.refresh(state)
            self._leaving.clear()
        return next(iter(self._scalers), None)

    def _demand(self, books: Books) -> Demand:
        staying = [state for state in books.executors if not state.draining and state.slots > 0]
        if staying:
            self._slots = max(1, round(sum(state.slots for state in staying) / len(staying)))
        queued = sum(max(0, state.surplus) for state in books.executors)
        held = sum(state.load for state in books.executors)
        return Demand(
            now=books.now,
            target=self.target,
            present=len(staying),
            waiting=books.pending_slots() + queued,
            running=held - queued,
            slots=self._slots,
            minimum=self._minimum,
            maximum=self._maximum,
            idle=[
                IdleExecutor(state.id, books.now - state.idle_since, _caches(books, state))
                for state in staying
                if not state.attempts and state.held_for is None
            ],
        )

    def _ask(self, books: Books, policy: AllocationPolicy, demand: Demand) -> Allocation | None:
        """A policy that raises, or answers what makes no sense, changes nothing; it is written down, once a minute."""
        try:
            return asked(_KIND, policy, "look", lambda: policy.look(demand), _complaint)
        except PolicyError as error:
            if books.now >= self._complain_at:
                self._complain_at = books.now + _COMPLAIN_AGAIN_S
                books.emit(FaultFound(f"{error}\nasked: {demand!r}"))
            return None

    def _leaving_now(self, demand: Demand, found: Allocation) -> Sequence[ExecutorId]:
        idle = {each.executor for each in demand.idle}
        return [each for each in dict.fromkeys(found.leave) if each in idle][: max(0, demand.present - self._minimum)]

    def _let_go(self, books: Books, demand: Demand, found: Allocation) -> None:
        going = self._leaving_now(demand, found)
        for executor in going:
            state = books.executors.get(executor)
            assert state is not None
            state.draining = True
            self._leaving[executor] = -inf
            books.executors.refresh(state)
            handover.begin_to_leave(books, state)
        if going:
            books.publish(None, ExecutorsReleased(time=books.now, executors=tuple(going), reason=found.reason))
            handover.settle(books)
            self._close_who_may_leave(books, next(iter(self._scalers)))

    def _call_back(self, books: Books, most: int, reason: str) -> int:
        """Keep some of those that were to leave, whose driver was not told yet; returns how many."""
        kept: list[ExecutorId] = []
        for executor, told_at in self._leaving.items():
            state = books.executors.get(executor)
            if len(kept) < most and told_at == -inf and state is not None:
                state.draining = state.may_leave = False
                books.executors.refresh(state)
                kept.append(executor)
        for executor in kept:
            del self._leaving[executor]
        if kept:
            books.publish(None, ExecutorsKept(time=books.now, executors=tuple(kept), reason=reason))
        return len(kept)

    def _close_who_may_leave(self, books: Books, scaler: AppId) -> None:
        if not self._leaving:
            return
        done = []
        for executor, told_at in list(self._leaving.items()):
            state = books.executors.get(executor)
            if state is None:
                del self._leaving[executor]
            elif state.may_leave and books.now >= told_at + _TELL_AGAIN_S:
                self._leaving[executor] = books.now
                done.append(executor)
        if done:
            books.emit(CloseExecutors(scaler, tuple(done)))


def _complaint(found: object) -> str:
    """What is wrong with an answer; empty when it makes sense."""
    if not isinstance(found, Allocation):
        return ": must be an Allocation"
    given: tuple[Any, ...] = tuple(found)
    target, leave, reason, look_at = given
    if not is_count(target):
        return ": target must be a whole number, 0 or more"
    if not isinstance(leave, Sequence) or not all(isinstance(each, str) for each in leave):
        return ": leave must be a list of executors"
    if not isinstance(reason, str):
        return ": reason must be a text"
    if look_at is not None and not is_seconds(look_at, below=inf):
        return ": look_at must be a time, or None"
    return ""


def _caches(books: Books, state: ExecutorState) -> bool:
    return any(application.blocks.count_by_executor[state.id] > 0 for application in books.applications.values())
