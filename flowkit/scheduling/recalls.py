"""Tasks taken back: from behind long ones, and from executors that do not answer.

Runs in the scheduler process inside ``SchedulerCore``, after each round of offers.

A task that holds its interpreter's lock (one long call of C) keeps its process from saying anything: not that it started, and not that it
gave back what is queued behind it. So a recall alone is no way out. An executor that owes an answer for longer than its answers take is
*unresponsive*: it is offered nothing until it is heard, what it has not started is recalled, and its process is looked at from outside
(``actions.Examine``). What its slots do not have in hand then is launched elsewhere at once; should it start there after all, its news
changes nothing and it may not commit (``Attempt.is_void``).
"""

from __future__ import annotations

from itertools import islice

from flowkit.scheduling import endings
from flowkit.scheduling.actions import Examine, Recall
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import LEAST_PATIENCE_S, ExecutorState
from flowkit.scheduling.stimuli import Examined
from flowkit.scheduling.task_sets import Attempt

#: With nothing launched ahead, how often executors are searched for stuck tasks at most.
_LEAST_PATIENCE_S = 0.005
#: How many executors are searched for stuck tasks at a time.
_MOST_SEARCHED = 256
#: A task of another stage waits so many times as long behind a long one before it is taken back though nobody is idle,
_LONG_WAIT = 5.0
#: unless it takes at least such a part of what that has run for: it would wait as long elsewhere.
_SHORT_PART = 0.25


def patience_s(books: Books) -> float:
    """What runs for longer is long: nothing is queued behind it."""
    return max(books.config.launch_ahead_s, _LEAST_PATIENCE_S)


def recall(books: Books, executor: ExecutorState, attempts: list[Attempt]) -> None:
    """Have an executor give back what has not started there."""
    books.executors.recall(executor, attempts, books.now)
    books.emit(Recall(executor.id, tuple(attempt.id for attempt in attempts)))


def recall_waiting(books: Books, executor: ExecutorState) -> None:
    """Have it give back all that has not started."""
    waiting = [each for each in executor.attempts.values() if not (each.started_at or each.is_recalled or each.is_void)]
    if waiting:
        recall(books, executor, waiting)


def doubt(books: Books, executor: ExecutorState) -> None:
    """It does not answer: nothing more goes there, what waits there is recalled, and somebody looks at its process."""
    books.executors.doubt(executor)
    if executor.held_for is None:
        recall_waiting(books, executor)
    books.emit(Examine(executor.id))


def examined(books: Books, executor: ExecutorState, stimulus: Examined) -> None:
    """What an executor that does not answer has in hand runs on; what it has not is launched elsewhere."""
    in_hand = stimulus.running
    for attempt_id in in_hand or ():
        attempt = executor.attempts.get(attempt_id)
        if attempt is not None:
            endings.note_start(books, attempt, books.now)
    if not executor.unresponsive or executor.held_for is not None:
        return  # it was heard since
    waiting = [each for each in executor.attempts.values() if not (each.started_at or each.is_void)]
    if in_hand is None:
        # First in, first out: as many as it has slots may run by now, those that said so among them.
        first = set(islice(executor.attempts, executor.slots))
        waiting = [each for each in waiting if each.id not in first]
    waiting = [each for each in waiting if each.task_set.barrier is None]  # those wait for one another, wherever they are
    for attempt in waiting:
        executor.recalled.pop(attempt.id, None)
        attempt.is_void = True
        attempt.task_set.running.pop(attempt.id, None)
        attempt.task_set.avoid(attempt.partition, executor.id, books.now)
        endings.given_back(books, attempt)
    if waiting:
        books.kill(executor, waiting, "it was launched again elsewhere")


class Recalls:
    """Watches for tasks that would run sooner elsewhere. ``wake_at`` is when to look again."""

    def __init__(self) -> None:
        #: executors need not be searched for stuck tasks before
        self._take_back_at = 0.0
        self.wake_at: float | None = None

    def look(self, books: Books) -> None:
        """Take back what is stuck, and doubt who does not answer."""
        self.wake_at = None
        if books.executors.owing:
            self._look_for_answers(books)
        if books.executors.with_surplus:
            self._take_back(books)

    def _look_for_answers(self, books: Books) -> None:
        """Doubt executors that have owed an answer for too long, while there are others to turn to."""
        executors, now = books.executors, books.now
        if not executors.others_answer:
            return
        least = max(LEAST_PATIENCE_S, books.config.launch_ahead_s)
        oldest = next(iter(executors.owing.values()))
        if oldest + least > now:
            self._wake(oldest + least)
            return
        for executor_id, since in list(islice(executors.owing.items(), _MOST_SEARCHED)):
            if since + least > now:
                self._wake(since + least)
                return  # nor have those behind it owed theirs for so long
            executor = executors.get(executor_id)
            if executor is None or executor.unresponsive:
                continue
            if not (executor.recalled or any(not each.started_at for each in islice(executor.attempts.values(), executor.slots))):
                del executors.owing[executor_id]  # it has nothing that could run elsewhere
                continue
            due = since + max(executor.patience_s, least)
            if due > now:
                self._wake(due)
            elif executors.others_answer:
                doubt(books, executor)

    def _take_back(self, books: Books) -> None:
        """Recall queued tasks from behind a long one while somebody else is idle, and short ones of others in any case."""
        idle = books.executors.idle_slots
        if books.now < self._take_back_at:
            self._wake(self._take_back_at)
            return
        if any(
            stage.task_set is not None and stage.task_set.pending and not stage.missing_contents
            for stage in books.active.values()
        ):
            idle = 0  # they are served first; what is kept back for its locality would be so again
        patience = books.config.launch_ahead_s
        # Nobody who is not stuck now will be before that: whatever starts from now on is given as much time.
        self._take_back_at = books.now + max(patience, _LEAST_PATIENCE_S)
        with_surplus = books.executors.with_surplus
        if len(with_surplus) > _MOST_SEARCHED:
            self._take_back_at = books.now + (_LEAST_PATIENCE_S if idle else _LONG_WAIT * _LEAST_PATIENCE_S)
            self._wake(self._take_back_at)
        for executor in list(islice(with_surplus.values(), _MOST_SEARCHED)):
            with_surplus[executor.id] = with_surplus.pop(executor.id)  # the others first, next time
            if not idle and _is_of_one_stage(executor):
                continue
            taken = self._stuck(books, executor, idle, patience)
            if taken:
                idle = max(0, idle - len(taken))
                for attempt in taken:
                    attempt.task_set.avoid(attempt.partition, executor.id, books.now)
                recall(books, executor, taken)

    def _stuck(self, books: Books, executor: ExecutorState, idle: int, patience: float) -> list[Attempt]:
        """What is queued behind a long task, or on an executor that is slower than what its queue was measured by."""
        attempts = executor.attempts
        running = [each for each in attempts.values() if each.started_at]
        # Slots that have not said what they run have the first of the queue in hand, or may any moment: those stay.
        first = [each for each in attempts.values() if not each.started_at][: max(0, executor.slots - len(running))]
        head = min((*running, *first), key=lambda each: each.in_hand_since(executor), default=None)
        if head is None or executor.unresponsive:
            return []
        since = head.in_hand_since(executor)
        stays = set(map(id, first))
        queued = [
            each
            for each in attempts.values()
            if not (each.started_at or each.is_recalled or each.is_void or id(each) in stays) and self._could_move(books, each)
        ]
        if not queued:
            return []
        if idle:
            stuck_at = min(since + patience, queued[0].launched_at + 2 * patience)
            if stuck_at <= books.now:
                return queued[-min(idle, (len(queued) + 1) // 2) :]
            self._take_back_at = min(self._take_back_at, stuck_at)
            self._wake(stuck_at)
        # What goes ahead of others waits here for those that make room for it.
        others = [each for each in queued if each.task_set is not head.task_set and not each.urgent]
        if others:
            ran_s, long_s = books.now - since, _LONG_WAIT * max(patience, _LEAST_PATIENCE_S)
            if ran_s >= long_s:
                return [each for each in others if _is_short(each, ran_s)]
            self._wake(since + long_s)
        return []

    def _could_move(self, books: Books, attempt: Attempt) -> bool:
        """Whether somebody else may run it; with idle slots, whether somebody who is idle may."""
        placement = books.placement
        return not placement.restricts or placement.any_idle(attempt.task_set, books.executors, books.address_epoch)

    def _wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)


def _is_of_one_stage(executor: ExecutorState) -> bool:
    """Whether what it holds is, as far as the first and the last tell."""
    attempts = executor.attempts
    return attempts[next(iter(attempts))].task_set is attempts[next(reversed(attempts))].task_set


def _is_short(attempt: Attempt, than_s: float) -> bool:
    """As far as is known: of a stage none of whose tasks has ended, nothing is."""
    run_s = attempt.task_set.depth.run_s
    return run_s is None or run_s < _SHORT_PART * than_s
