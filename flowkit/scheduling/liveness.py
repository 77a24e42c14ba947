"""Which executors live: those that say so, and those whose processes work though they say nothing.

Runs in the scheduler process inside ``SchedulerCore``. An executor says that it lives by heartbeats, which take its interpreter's lock. A
process whose lock one long call of C holds says nothing, and is not dead: while an executor is silent its process is looked at from outside
(``actions.Examine``), and processor time that it used since the last look is as good as a heartbeat. So

* a process that works is never given up, however long its call takes;
* one that is stopped, hangs without working, or cannot be looked at, is given up ``executor_timeout_s`` after its last sign of life, and at
  most two looks later: an eighth of that each;
* one that was to stop an attempt and goes on with it, silent, is ended ``kill_grace_s`` after it was told, as an executor that can still
  speak would end itself.

Silence counts only while somebody listens: a scheduler that was held up itself (its process shares a driver's interpreter, or was stopped)
begins to count anew.
"""

from __future__ import annotations

from flowkit.config import Config
from flowkit.model.events import TaskStuck
from flowkit.scheduling import losses, recalls
from flowkit.scheduling.actions import Examine, ExpireExecutor
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.stimuli import Examined

#: Looks at silent executors, per time-out. One that comes later by as much was held up.
_LOOKS_PER_TIMEOUT = 8
#: Missed heartbeats are worth a look at the process.
_SUSPECT_AFTER_HEARTBEATS = 2.5
_SUSPECT_AFTER_TIMEOUTS = 0.75
#: A process works of which one thread uses this part of a core, and as much as this: it is told in ticks of 10 ms. Each thread that only
#: waits for an interpreter's lock wakes every 5 ms to ask for it, 0.005 of a core as measured; there may be many, so each is looked at alone.
_WORKS_PART, _WORKS_S = 0.02, 0.02
#: On a machine with far too much to do a thread that works may have less. It is running or waits for a processor all the time, then.
_WANTS_PART = 0.95
#: what is compared is at least so old, unless there is work to be seen earlier
_LEAST_WINDOW_S = 1.0


class Liveness:
    """Watches for executors that fall silent."""

    def __init__(self, config: Config) -> None:
        self._timeout_s = config.executor_timeout_s
        self._grace_s = config.kill_grace_s
        self._suspect_s = min(_SUSPECT_AFTER_HEARTBEATS * config.heartbeat_s, _SUSPECT_AFTER_TIMEOUTS * config.executor_timeout_s)
        self._every_s = config.executor_timeout_s / _LOOKS_PER_TIMEOUT
        self._next_look: float | None = None
        #: silence from before counts for nothing
        self._listening_since = 0.0

    def settle(self, books: Books) -> None:
        """After each batch: there is somebody to watch, or nobody any more."""
        if not len(books.executors):
            self._next_look = None
        elif self._next_look is None:
            self._next_look = books.now + self._every_s

    def next_look(self, books: Books) -> float | None:
        """When ``look`` has something to find, or might. Changes nothing."""
        candidates = [] if self._next_look is None else [self._next_look]
        for executor in books.executors.killing.values():
            due = self._end_at(executor)
            if due is not None:
                candidates.append(due)
        return min(candidates, default=None)

    def look(self, books: Books) -> None:
        """Give up those that are overdue, and look at those that are silent."""
        now = books.now
        for executor in list(books.executors.killing.values()):
            due = self._end_at(executor)
            if due is None:
                if not any(attempt.killed_at for attempt in executor.attempts.values()):
                    del books.executors.killing[executor.id]
            elif due <= now:
                self._end(books, executor)
        if self._next_look is None or now < self._next_look:
            return
        if now - self._next_look > self._every_s:
            self._listening_since = now
        self._next_look = None
        for executor in list(books.executors):
            silent_s = now - max(executor.last_heard, self._listening_since)
            if silent_s <= self._suspect_s:
                continue
            lifeless_s = now - max(executor.alive_at, self._listening_since)
            if lifeless_s > self._timeout_s:
                reason = f"no heartbeat for {silent_s:.1f} s, and {_seen(executor, lifeless_s)} (executor_timeout_s = {self._timeout_s:g})"
                books.emit(ExpireExecutor(executor.id, reason))
                losses.executor_lost(books, executor.id, reason, task_caused=None)
            elif not executor.unresponsive and books.executors.others_answer:
                recalls.doubt(books, executor)
            else:
                books.emit(Examine(executor.id))

    def examined(self, books: Books, stimulus: Examined) -> None:
        """What was seen of a process from outside."""
        executor = books.executors.get(stimulus.executor)
        if executor is None:
            books.stale_count += 1
            return
        executor.stopped = stimulus.stopped
        if stimulus.threads is not None and not stimulus.stopped:
            _note_work(executor, stimulus.threads, books.now)
        recalls.examined(books, executor, stimulus)

    def _end_at(self, executor: ExecutorState) -> float | None:
        """When a process is ended that goes on with what it was to stop; None: it does not, it cannot be ended, or it sees to it itself."""
        if not executor.replaceable:
            return None
        killed = [attempt.killed_at for attempt in executor.attempts.values() if attempt.killed_at and attempt.started_at]
        if not killed:
            return None
        return max(min(killed), executor.last_heard, self._listening_since) + max(self._grace_s, self._suspect_s)

    def _end(self, books: Books, executor: ExecutorState) -> None:
        killed = [attempt for attempt in executor.attempts.values() if attempt.killed_at and attempt.started_at]
        first = min(killed, key=lambda attempt: attempt.killed_at)
        after_s = books.now - first.killed_at
        what = f"partition {first.told} of stage {first.task_set.stage} (attempt {first.id})"
        reason = (
            f"{what} was to stop {after_s:.1f} s ago (kill_grace_s = {self._grace_s:g}), and its process says nothing: "
            "one call holds its interpreter's lock"
        )
        books.publish(
            first.task_set.app,
            TaskStuck(
                time=books.now,
                app=first.task_set.app,
                stage=first.task_set.stage,
                partition=first.told,
                attempt=first.id,
                executor=executor.id,
                reason=reason,
                after_s=after_s,
                stack="",
            ),
        )
        books.emit(ExpireExecutor(executor.id, reason))
        losses.executor_lost(books, executor.id, reason, task_caused=False)


def _note_work(executor: ExecutorState, threads: dict[int, tuple[float, float]], now: float) -> None:
    if executor.examined is None:
        executor.examined = now, threads
        return
    at, before = executor.examined
    works = any(_works(before.get(thread, (0.0, 0.0)), times, now - at) for thread, times in threads.items())
    if works:
        executor.alive_at = now
    if works or now - at >= _LEAST_WINDOW_S:
        executor.examined = now, threads


def _works(before: tuple[float, float], times: tuple[float, float], window_s: float) -> bool:
    used_s, waited_s = times[0] - before[0], times[1] - before[1]
    return used_s >= max(_WORKS_S, _WORKS_PART * window_s) or (used_s > 0 and used_s + waited_s >= _WANTS_PART * window_s)


def _seen(executor: ExecutorState, lifeless_s: float) -> str:
    if executor.stopped:
        return "its process is stopped"
    if executor.examined is None:
        return "nobody could tell whether its process works"
    return f"its process has not worked for {lifeless_s:.1f} s"
