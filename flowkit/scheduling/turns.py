"""One task set's turn in a round of offers: its waiting tasks go to the executors with least to do that are near their data.

Runs in the scheduler process inside ``SchedulerCore``. What a turn costs depends on what is launched in it, not on how many executors
there are: the least loaded is known (``loads``), and while all that waits is kept for certain executors only those are looked at.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable
from operator import itemgetter

from flowkit.model.ids import ExecutorId, HostToken
from flowkit.scheduling.applications import Application, Stage
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.launches import launch
from flowkit.scheduling.loads import Loads
from flowkit.scheduling.recalls import patience_s
from flowkit.scheduling.resources import can_now
from flowkit.scheduling.task_sets import TaskSet

#: Executors and hosts that tasks are kept for, of which a turn looks at so many, and at others the next time.
_MOST_CHOICES = 64
#: Of so many tasks every turn works out where they would best run, whatever the others of its round had.
_LEAST_FILED = 32


class Turn:
    """Launches tasks of one stage.

    Parameters
    ----------
    urgent
        They may go ahead of what executors have queued.
    ahead
        Tasks may be queued behind what runs, whatever they take; otherwise only those so short that slots would wait for messages.
    filings
        Of how many tasks the round has time to work out where they would best run.
    """

    def __init__(
        self,
        books: Books,
        application: Application,
        stage: Stage,
        task_set: TaskSet,
        *,
        urgent: bool = False,
        ahead: bool = True,
        filings: int,
    ) -> None:
        self._books = books
        self._application = application
        self._stage = stage
        self._task_set = task_set
        self._urgent = urgent
        self._ahead = ahead
        #: nothing is queued behind long tasks; but what goes ahead of others may have to wait behind one, if there is nothing else
        self._spares_long = True
        self._long_before = books.now - patience_s(books)
        self._filings = max(_LEAST_FILED, filings // 2)  # the others of the round have tasks too
        #: of how many tasks it was worked out
        self.filed = 0
        #: so many had no use for what waits that only those are to be looked at that it is kept for
        self._declined = False
        #: there was more to look at than one turn may take
        self.unfinished = False
        #: executors that could be avoided or waited for
        self._others = books.executors.usable_count - 1
        #: where it may run at all; None: wherever there is a slot
        self._candidates = self._find_candidates()

    def _find_candidates(self) -> Iterable[ExecutorState] | None:
        executors, task_set, placement = self._books.executors, self._task_set, self._books.placement
        if task_set.profile.amounts:
            return executors.owners.get(next(iter(task_set.profile.amounts)), {}).values()
        if placement.restricts:
            return placement.open_to(task_set, executors, self._books.address_epoch)
        return executors if task_set.needs_more else None

    def take(self, most: int | None) -> int:
        """Launch what there is room for, ``most`` tasks at most; returns how many."""
        executors = self._books.executors
        if not self._urgent or self._task_set.needs_more:
            depth, ahead = self._task_set.depth, self._ahead
            # Nothing waits behind or before one that takes several slots, or anything else.
            wide = self._task_set.cpus > 1 or self._task_set.needs_more
            return self._launch(executors.loads, self._limit(lambda slots: slots if wide else depth.of(slots, ahead=ahead)), most)
        # Free slots first; then past what fills the others.
        limit = self._limit(lambda slots: slots)
        launched = self._launch(executors.loads, limit, most)
        left = None if most is None else most - launched
        launched += self._launch(executors.urgent_loads, limit, left)
        if not launched:
            self._spares_long = False
            launched = self._launch(executors.urgent_loads, limit, most)
        return launched

    def _limit(self, slots_used: Callable[[int], int]) -> Callable[[int], int]:
        """What an executor holds less than, by its slots, when one more task may be launched there."""
        cpus = self._task_set.cpus
        known: dict[int, int] = {}

        def limit(slots: int) -> int:
            found = known.get(slots)
            if found is None:
                found = known[slots] = slots_used(slots) - cpus + 1 if cpus <= slots else 0
            return found

        return limit

    def _launch(self, loads: Loads, limit: Callable[[int], int], most: int | None) -> int:
        if not self._task_set.pending or most == 0:
            return 0
        self.filed += self._task_set.file(self._filings - self.filed)
        if not self._task_set.is_filed:
            self.unfinished = True
        if self._candidates is not None:
            return self._among(self._candidates, loads, limit, most)
        launched = 0
        if not self._is_choosy() or loads.count_below(limit) <= _MOST_CHOICES:
            launched = self._by_load(loads, limit, most)
            if not self._declined:
                return launched
        launched += self._near(loads, limit, None if most is None else most - launched)
        self._task_set.pass_over(self._books.now, self._others)
        return launched

    def _is_choosy(self) -> bool:
        return self._task_set.is_choosy(self._books.now, self._others)

    def _among(self, candidates: Iterable[ExecutorState], loads: Loads, limit: Callable[[int], int], most: int | None) -> int:
        """Offer to those alone, if they have all that a task needs: whoever holds least first."""
        task_set, rng = self._task_set, self._books.rng
        held = [(loads.of(state), state) for state in candidates]
        room = [
            (load / state.slots, rng.random(), state) for load, state in held if load is not None and load < limit(state.slots)
        ]
        room.sort(key=itemgetter(0, 1))
        launched = 0
        while room and task_set.pending and launched != most:
            _, tie, state = room.pop(0)
            if self._is_behind_long(state):
                continue
            if task_set.needs_more and not can_now(task_set.profile, state):
                continue
            if self._offer(state):
                launched += 1
                load = loads.of(state)
                if load is not None and load < limit(state.slots):
                    insort(room, (load / state.slots, tie, state), key=itemgetter(0, 1))
        return launched

    def _by_load(self, loads: Loads, limit: Callable[[int], int], most: int | None) -> int:
        """Offer to whoever holds least, until nobody has room, or what waits turns out to be kept for others than most."""
        launched = 0
        declined: list[tuple[ExecutorState, int]] = []
        try:
            while self._task_set.pending and launched != most:
                executor = loads.least(limit, self._books.rng)
                if executor is None:
                    break
                if self._is_behind_long(executor):
                    if self._urgent:
                        declined.append((executor, loads.discard(executor)))
                elif self._offer(executor):
                    launched += 1
                else:
                    declined.append((executor, loads.discard(executor)))
                    if not self._task_set.has_filed:
                        break
                    if len(declined) > _MOST_CHOICES and self._is_choosy():
                        self._declined = True
                        break
        finally:
            for executor, load in declined:
                loads.put(executor, load)
        return launched

    def _near(self, loads: Loads, limit: Callable[[int], int], most: int | None) -> int:
        """Offer to those alone that what waits is kept for, some of them: of a host to whoever holds least."""
        executors, task_set, now = self._books.executors, self._task_set, self._books.now
        launched = 0
        idle_only = loads.all_within(limit)
        places: Iterable[ExecutorId | HostToken]
        if idle_only and len(executors.idle_hosts) < task_set.choice_count:
            count = len(executors.idle_hosts)
            places = (
                host
                for host in executors.idle_hosts_in_turn(_MOST_CHOICES)
                if task_set.is_wanted(host, executors.by_host[host].values(), now)
            )
        else:
            count = task_set.choice_count
            places = task_set.choices(now, _MOST_CHOICES)
        if count > _MOST_CHOICES:
            self.unfinished = True
        for place in places:
            there = executors.at(place)
            if idle_only:
                there = [executor for executor in there if executor.idle_slots]
            while task_set.pending and launched != most:
                executor = loads.least_of(there, limit)
                if executor is None:
                    break
                if not self._is_behind_long(executor) and self._offer(executor):
                    launched += 1
                else:
                    there.remove(executor)
                if not task_set.is_wanted(place, there, now):
                    break  # nor is there anything for the others of the host
            if launched == most or not task_set.pending:
                break
        return launched

    def _is_behind_long(self, executor: ExecutorState) -> bool:
        """Whether a task would wait there for one that is long by now: an executor of which that is known is offered nothing of the kind."""
        if executor.load < executor.slots or executor.idle_since >= self._long_before or not self._spares_long:
            return False  # a slot is free, or has had something else in hand since
        if not executor.runs_long(self._long_before):
            return False
        if not self._urgent:
            self._books.executors.block(executor)
        return True

    def _offer(self, executor: ExecutorState) -> bool:
        """Launch the task that an executor suits best, if there is one that may run there."""
        books, task_set = self._books, self._task_set
        if books.bars(task_set, executor):
            return False
        taken = task_set.next_for(executor, books.now, self._others)
        if taken is None:
            return False
        partition, locality = taken
        launch(books, self._application, self._stage, task_set, executor, partition, locality, urgent=self._urgent)
        return True
