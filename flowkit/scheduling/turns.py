"""One task set's turn in a round of offers: its waiting tasks go to the executors with least to do that are near their data.

Runs in the scheduler process inside ``SchedulerCore``. What a turn costs depends on what is launched in it, not on how many executors
there are: the least loaded is known (``loads``), and while all that waits is kept for certain executors only those are looked at.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from operator import itemgetter

from flowkit.scheduling.applications import Application, Stage
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.launches import launch
from flowkit.scheduling.loads import Loads
from flowkit.scheduling.resources import can_now
from flowkit.scheduling.task_sets import TaskSet

#: Executors and hosts that tasks are kept for, of which a turn looks at so many, and at others the next time.
_MOST_CHOICES = 64
#: Tasks of which a turn works out where they would best run.
_MOST_FILED = 1_000


class Turn:
    """Launches tasks of one stage.

    Parameters
    ----------
    urgent
        They may go ahead of what executors have queued.
    ahead
        Tasks may be queued behind what runs, whatever they take; otherwise only those so short that slots would wait for messages.
    """

    def __init__(
        self, books: Books, application: Application, stage: Stage, task_set: TaskSet, *, urgent: bool = False, ahead: bool = True
    ) -> None:
        self._books = books
        self._application = application
        self._stage = stage
        self._task_set = task_set
        self._urgent = urgent
        self._ahead = ahead
        #: there was more to look at than one turn may take
        self.unfinished = False
        #: executors that could be avoided or waited for
        self._others = books.executors.usable_count - 1

    def take(self, most: int | None) -> int:
        """Launch what there is room for, ``most`` tasks at most; returns how many."""
        executors = self._books.executors
        if self._task_set.profile.amounts:
            return self._among_owners(most)
        if not self._urgent:
            depth, ahead = self._task_set.depth, self._ahead
            wide = self._task_set.cpus > 1  # nothing waits behind or before one that takes several slots
            return self._launch(executors.loads, self._limit(lambda slots: slots if wide else depth.of(slots, ahead=ahead)), most)
        # Free slots first; then past what fills the others.
        limit = self._limit(lambda slots: slots)
        launched = self._launch(executors.loads, limit, most)
        left = None if most is None else most - launched
        return launched + self._launch(executors.urgent_loads, limit, left)

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
        if self._task_set.file(_MOST_FILED):
            self.unfinished = True
        now, wait_s = self._books.now, self._books.config.locality_wait_s
        if not self._task_set.is_choosy(now, self._others, wait_s) or loads.count_below(limit) <= _MOST_CHOICES:
            return self._by_load(loads, limit, most)
        if self._task_set.choice_count > _MOST_CHOICES:
            self.unfinished = True
        launched = self._near(loads, limit, most)
        self._task_set.pass_over(now, self._others, wait_s)
        return launched

    def _among_owners(self, most: int | None) -> int:
        """Offer to those that have the named resources free, and a slot: whoever holds least first. Nothing is queued ahead."""
        task_set, executors = self._task_set, self._books.executors
        while task_set.file(_MOST_FILED):
            pass
        limit = self._limit(lambda slots: slots)
        owners = executors.owners.get(next(iter(task_set.profile.amounts)), {})
        room = [(state.load / state.slots, self._books.rng.random(), state) for state in owners.values() if state.usable]
        room.sort(key=itemgetter(0, 1))
        launched = 0
        while room and task_set.pending and launched != most:
            _, tie, state = room.pop(0)
            load = executors.loads.of(state)
            if load is None or load >= limit(state.slots) or not can_now(task_set.profile, state.resources):
                continue
            if self._offer(state):
                launched += 1
                insort(room, (state.load / state.slots, tie, state), key=itemgetter(0, 1))
        return launched

    def _by_load(self, loads: Loads, limit: Callable[[int], int], most: int | None) -> int:
        """Offer to whoever holds least, until nobody has room."""
        launched = 0
        declined: list[tuple[ExecutorState, int]] = []
        try:
            while self._task_set.pending and launched != most:
                executor = loads.least(limit, self._books.rng)
                if executor is None:
                    break
                if self._offer(executor):
                    launched += 1
                else:
                    declined.append((executor, loads.discard(executor)))
        finally:
            for executor, load in declined:
                loads.put(executor, load)
        return launched

    def _near(self, loads: Loads, limit: Callable[[int], int], most: int | None) -> int:
        """Offer to those alone that what waits is kept for, some of them: of a host to whoever holds least first."""
        executors, task_set = self._books.executors, self._task_set
        launched = 0
        idle_only = loads.all_within(limit)
        for wanted in task_set.choices(self._books.now, self._books.config.locality_wait_s, _MOST_CHOICES):
            if idle_only and not executors.idle_at(wanted):
                continue
            held = ((loads.of(executor), executor) for executor in executors.at(wanted))
            room = [
                (load / executor.slots, executor) for load, executor in held if load is not None and load < limit(executor.slots)
            ]
            room.sort(key=itemgetter(0))
            while room and task_set.pending and launched != most:
                _, executor = room.pop(0)
                if not self._offer(executor):
                    if not task_set.is_wanted(wanted):
                        break  # nor is there anything for the others of the host
                    continue
                launched += 1
                load = loads.of(executor)
                if load is not None and load < limit(executor.slots):
                    insort(room, (load / executor.slots, executor), key=itemgetter(0))
            if launched == most or not task_set.pending:
                break
        return launched

    def _offer(self, executor: ExecutorState) -> bool:
        """Launch the task that an executor suits best, if there is one that may run there."""
        books, task_set = self._books, self._task_set
        if books.health.avoids(task_set, executor):
            return False
        taken = task_set.next_for(executor, books.now, self._others, books.config.locality_wait_s)
        if taken is None:
            return False
        partition, locality = taken
        launch(books, self._application, self._stage, task_set, executor, partition, locality, urgent=self._urgent)
        return True
