"""Who gets the next slot: waiting tasks go, in the policy's order, to the least loaded executors near their data.

Runs in the scheduler process inside ``SchedulerCore``, once per batch of stimuli.
"""

from __future__ import annotations

from flowkit.abc import SchedulingPolicy, Share, SharingPolicy
from flowkit.scheduling import alone, barriers
from flowkit.scheduling.asking import Fault, PolicyError, asked, is_count
from flowkit.scheduling.books import Books
from flowkit.scheduling.launches import contents_are_there
from flowkit.scheduling.task_sets import TaskSet
from flowkit.scheduling.turns import Turn

#: Tasks launched in one round, and after how long the next one is: the thread the core runs on has others to serve. In a large cluster
#: each goes to an executor of its own, on a host of its own, and takes three times as long.
_MOST_LAUNCHED, _MOST_LAUNCHED_IN_LARGE = 512, 64
_LARGE = 1_000
_BREATH_S = 0.001
#: For each of these, of so many tasks it is worked out where they would best run.
_FILED = 2
#: In a large cluster, such a part of its slots is not shared any finer: policies are asked so much less often.
_FINEST = 1_000

_KIND = "scheduling policy"


def shares_of(policy: SharingPolicy, live: list[TaskSet], slots: int) -> list[Share]:
    """What a policy lets each start, checked."""

    def complaint(found: list[Share]) -> str:
        fits = len(found) == len(live) and all(map(_makes_sense, found))
        return "" if fits else f", not a Share of whole numbers, 0 or more, for each of {len(live)}"

    return asked(_KIND, policy, "shares", lambda: list(policy.shares(list(live), slots)), complaint)


def _makes_sense(share: object) -> bool:
    return (
        isinstance(share, Share)
        and is_count(share.claim)
        and is_count(share.surplus)
        and (share.most is None or is_count(share.most))
    )


def _least(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)


class Offers:
    """The round of offers. ``wake_at`` is when another round may do more than this one, without any news."""

    def __init__(self, policy: SchedulingPolicy) -> None:
        self._policy = policy
        self._sharing = policy if isinstance(policy, SharingPolicy) else None
        self.wake_at: float | None = None
        #: since when a policy has let nobody start anything, though nothing runs
        self._refused_since: float | None = None
        #: tasks that may be launched in this round yet, and those it has time to work out where they would best run
        self._left = 0
        self._filings = 0

    def make(self, books: Books) -> None:
        """Launch what can be launched; a part of it, if that is a lot."""
        self.wake_at = None
        self._left = _MOST_LAUNCHED if books.executors.usable_count <= _LARGE else _MOST_LAUNCHED_IN_LARGE
        self._filings = self._left * _FILED
        for key in [key for key, stage in books.active.items() if stage.task_set is None or not stage.task_set.pending]:
            del books.active[key]
        alone.place(books)
        if books.active and books.executors.usable_count:
            task_sets = [stage.task_set for stage in books.active.values() if not stage.missing_contents and stage.task_set]
            if any(task_set.barrier is not None for task_set in task_sets):
                task_sets = self._place_barriers(books, task_sets)
            if not task_sets:
                pass
            elif self._sharing is not None:
                self._share(books, task_sets, self._sharing)
            else:
                for task_set in self._ordered(task_sets):
                    self._serve_safely(books, task_set)

    def _place_barriers(self, books: Books, task_sets: list[TaskSet]) -> list[TaskSet]:
        """Launch stages that run all at once; what others may have: nothing that stands behind one that waits for its room."""
        others: list[TaskSet] = []
        for task_set in self._ordered(task_sets):
            stage = books.stage_of(task_set)
            assert stage is not None
            if task_set.barrier is None:
                others.append(task_set)
                continue
            try:
                waits = contents_are_there(books, books.applications[stage.app], stage) and barriers.place(books, task_set)
            except Fault:
                raise
            except Exception as error:
                raise Fault(task_set, error) from error
            if waits:
                break
        return others

    def _ordered(self, task_sets: list[TaskSet]) -> list[TaskSet]:
        if len(task_sets) < 2:
            return task_sets
        by_id = {id(task_set): task_set for task_set in task_sets}
        ordered = asked(_KIND, self._policy, "order", lambda: list(map(id, self._policy.order(list(task_sets)))), lambda _: "")
        if set(ordered) != by_id.keys() or len(ordered) != len(by_id):
            raise PolicyError(_KIND, self._policy, "order", "gave others than it was given, or left some out")
        return [by_id[each] for each in ordered]

    def _share(self, books: Books, waiting: list[TaskSet], policy: SharingPolicy) -> None:
        """Launch by turns: a few tasks of whoever is first, then the order and the shares are asked for again."""
        open_to = {id(task_set) for task_set in waiting}
        slots = books.executors.usable_slots
        live = books.live_task_sets()  # launching makes none, and ends none
        while open_to:
            shares = shares_of(policy, live, slots)
            self._note_refusal(books, policy, live, shares)
            if len(live) < 2:  # it competes with nobody
                self._serve_safely(books, live[0], most=shares[0].most)
                return
            by_id = {id(task_set): share for task_set, share in zip(live, shares, strict=True)}
            turn = max(1, slots // _FINEST, books.executors.idle_slots // (4 * len(open_to))) if len(open_to) > 1 else None
            for task_set in live if len(open_to) == 1 else self._ordered(live):
                if id(task_set) not in open_to:
                    continue
                share = by_id[id(task_set)]
                most, claimed = share.most, 0
                if share.claim > 0 and most != 0:
                    wanted = _least(share.claim, most)
                    claimed = self._serve_safely(books, task_set, most=wanted, urgent=True)
                    if claimed == wanted:
                        break
                    most = None if most is None else most - claimed
                wanted = _least(turn, most)
                launched = self._serve_safely(books, task_set, most=wanted, ahead=False)
                if not task_set.pending or launched != wanted:
                    open_to.discard(id(task_set))  # there is no room for more of it
                if claimed or launched:
                    break
            else:
                return

    def _note_refusal(self, books: Books, policy: SharingPolicy, live: list[TaskSet], shares: list[Share]) -> None:
        """A policy that lets nobody start anything while nothing runs may think better of it, but not for ever."""
        refuses = all(share.most == 0 for share, each in zip(shares, live, strict=True) if each.pending)
        if not refuses or any(each.running for each in live):
            self._refused_since = None
            return
        if self._refused_since is None:
            self._refused_since = books.now
        patience = books.config.no_executor_timeout_s
        if books.now >= self._refused_since + patience:
            self._refused_since = None
            raise PolicyError(
                _KIND,
                policy,
                "shares",
                f"has let nobody start anything for {patience:g} s (no_executor_timeout_s), though nothing runs",
            )
        self._wake(self._refused_since + patience)

    def _serve_safely(
        self, books: Books, task_set: TaskSet, *, most: int | None = None, urgent: bool = False, ahead: bool = True
    ) -> int:
        try:
            return self._serve(books, task_set, most=most, urgent=urgent, ahead=ahead)
        except Fault:
            raise
        except Exception as error:
            raise Fault(task_set, error) from error

    def _serve(
        self, books: Books, task_set: TaskSet, *, most: int | None = None, urgent: bool = False, ahead: bool = True
    ) -> int:
        """Launch what there is room for, ``most`` tasks at most; returns how many.

        Unless ``ahead``, nothing is queued behind what runs, save tasks so short that slots would wait for messages.
        """
        stage = books.stage_of(task_set)
        assert stage is not None
        application = books.applications[stage.app]
        if most == 0 or not self._left or not contents_are_there(books, application, stage):
            return 0
        turn = Turn(books, application, stage, task_set, urgent=urgent, ahead=ahead, filings=self._filings)
        launched = turn.take(self._left if most is None else min(most, self._left))
        self._left -= launched
        self._filings -= turn.filed
        if turn.unfinished or not self._left:
            self._wake(books.now + _BREATH_S)
        until = task_set.settle_wait(books.now)
        if until is not None:
            self._wake(until)
        return launched

    def _wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)
