"""The tasks of one stage: which wait, which run where, how often each failed, and which one an executor gets next.

Runs in the scheduler process inside ``SchedulerCore``. One ``TaskSet`` lives as long as its stage has something to compute;
after a loss it goes on with a higher ``attempt_number``, and what still runs from before goes on too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from flowkit.abc import Preferred, Waits
from flowkit.model.ids import AppId, AttemptId, ExecutorId, HostToken, PartitionIndex, StageId
from flowkit.model.resources import DEFAULT_PROFILE, ResourceProfile
from flowkit.model.task import ExceptionFailure, Locality
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.launch_depth import LaunchDepth
from flowkit.scheduling.queues import Queue, drop_gone, in_turn, put, put_back, taker

if TYPE_CHECKING:
    from flowkit.scheduling.barriers import Barrier

#: Endings that count against nobody, per task, before the job is given up: they should not happen in a row.
UNCOUNTED_LIMIT = 50
#: How long a task waits for another executor than the one it failed or was stuck on: they may all be busy for hours.
_AVOID_S = 1.0
#: partitions whose exceptions are kept
_MOST_EXCEPTIONS = 100
#: of finished tasks, for the median
_MOST_DURATIONS = 512
#: shorter silence of an executor that is gone is told by nobody
_TOLD_SILENCE_S = 1.5
#: kinds of failures counted apart: types of exceptions, of which a stage sees few
_MOST_KINDS = 16


class Vanished(NamedTuple):
    """A process that went away under a task, and nobody could say why."""

    executor: ExecutorId
    #: which attempt at the task it took along, from 0
    number: int
    #: since its launch, and since anything had been heard of the executor
    after_s: float
    silent_s: float
    reason: str

    def __str__(self) -> str:
        heard = f", {self.silent_s:.1f} s after it was heard last" if self.silent_s >= _TOLD_SILENCE_S else ""
        return f"try {self.number + 1} on {self.executor}, {self.after_s:.1f} s after its launch{heard}: {self.reason}"


#: Where a partition would best run; None: anywhere.
Wish = Callable[[PartitionIndex], Preferred | None]


#: one for all attempts that have none: never changed
_NO_RESOURCES: dict[str, tuple[str, ...]] = {}


class Attempt:
    """One try at one task, from its launch to its report."""

    __slots__ = (
        "cpus",
        "executor",
        "has_more",
        "id",
        "is_preempted",
        "is_recalled",
        "is_void",
        "killed_at",
        "launched_at",
        "locality",
        "number",
        "partition",
        "piece",
        "resources",
        "seen_running_at",
        "span",
        "stage_attempt",
        "started_at",
        "task_set",
        "told",
        "urgent",
    )

    def __init__(
        self,
        attempt: AttemptId,
        task_set: TaskSet,
        partition: PartitionIndex,
        number: int,
        executor: ExecutorState,
        now: float,
        locality: Locality,
    ) -> None:
        self.id = attempt
        self.task_set = task_set
        self.stage_attempt = task_set.attempt_number
        #: the first one of those it computes
        self.partition = partition
        self.span = 1
        #: the partition it is told by, and which piece of that it computes
        self.told = partition
        self.piece = 0
        self.number = number
        #: slots it takes
        self.cpus = task_set.cpus
        #: it takes more than slots: memory, or addresses that are its own
        self.has_more = False
        self.resources = _NO_RESOURCES
        self.executor = executor
        self.launched_at = now
        #: on the executor's clock; 0 before it started
        self.started_at = 0.0
        #: on the core's clock
        self.seen_running_at = 0.0
        self.locality = locality
        #: it was killed to make room
        self.is_preempted = False
        #: it went ahead of what others had queued
        self.urgent = False
        #: a recall is under way
        self.is_recalled = False
        #: its job is over, or its task was launched again elsewhere: it holds a slot until it reports, and its news changes nothing else
        self.is_void = False
        #: when its executor was told to stop it; 0 before
        self.killed_at = 0.0

    def in_hand_since(self, executor: ExecutorState) -> float:
        """Since when its executor, where it is first in the queue, has had it in hand, on the core's clock: at the latest if it has not said so."""
        return self.seen_running_at if self.started_at else max(self.launched_at, executor.idle_since)


class TaskSet:
    """What is left to compute of one stage."""

    def __init__(self, app: AppId, stage: StageId, order: tuple[int, int], depth: LaunchDepth) -> None:
        self.app = app
        self.stage = stage
        #: place in the order of service: submission of its oldest job, then stage
        self.order = order
        self.depth = depth
        #: those of its oldest job: policies look at them, nobody changes them
        self.properties: Mapping[str, str] = {}
        #: what each of its tasks takes, and whether that is more than slots
        self.profile = DEFAULT_PROFILE
        self.needs_more = False
        #: for a stage whose tasks run all at once; None for others
        self.barrier: Barrier | None = None
        #: how long slots are left unused for better ones
        self.waits = Waits(0.0, 0.0, 0.0)
        #: executors on which its tasks may run, as far as the placement policy was asked; and all of those there are, with a version
        self.allowed: dict[ExecutorId, bool] = {}
        self.open_to: tuple[int, list[ExecutorState]] | None = None
        #: the rack of each host, where a topology says so
        self.racks: Mapping[HostToken, str] = {}
        #: tasks of its stage, those that are over included
        self.size = 0
        self.attempt_number = 0
        #: partitions to launch, in order of arrival
        self.pending: dict[PartitionIndex, None] = {}
        self.running: dict[AttemptId, Attempt] = {}
        #: failures of a partition that count
        self.failures: dict[PartitionIndex, int] = {}
        #: how many of each kind there were
        self.failure_kinds: dict[str, int] = {}
        #: the last exception of a partition's function, of some: what its job ends with, should an executor die under a later try
        self.exceptions: dict[PartitionIndex, ExceptionFailure] = {}
        #: processes that went away under a partition's attempts for reasons that nobody knows
        self.vanished: dict[PartitionIndex, list[Vanished]] = {}
        #: endings of a partition's attempts that count against nobody
        self.uncounted: dict[PartitionIndex, int] = {}
        #: attempts made at a partition so far
        self.tries: dict[PartitionIndex, int] = {}
        #: where a partition failed or was stuck last, and until when it is kept from there while there are others; only the last: one
        #: that failed everywhere still has tries left
        self.avoided: dict[PartitionIndex, tuple[ExecutorId, float]] = {}
        #: partitions of which a second attempt was made beside the first, for that took long: the two
        self.copied: dict[PartitionIndex, list[Attempt]] = {}
        #: tasks that ended well, and how long some of them took, a fair sample: the last to end are the slowest
        self.done_count = 0
        self.durations: list[float] = []
        self._sorted_durations: tuple[int, list[float]] = 0, []
        #: partitions that took too much memory: tried again with nobody beside them
        self.alone: set[PartitionIndex] = set()
        #: a task was kept back for a better executor in this round of offers: when it need not be any more
        self.kept_back_until: float | None = None
        #: where partitions would best run, as it was known when some were added last
        self.preference: Wish | None = None
        #: tasks that wait, of which nobody worked out yet where they would best run
        self._unfiled: deque[PartitionIndex] = deque()
        #: since when slots near the data were all there was to take
        self._waiting_since = 0.0
        self._by_executor: dict[ExecutorId, Queue] = {}
        self._by_host: dict[HostToken, Queue] = {}
        #: tasks whose input is in the cache of another executor of the host
        self._by_neighbour: dict[HostToken, Queue] = {}
        #: tasks whose input is on some host of a rack
        self._by_rack: dict[str, Queue] = {}
        #: tasks that would best run somewhere, for when they may run anywhere
        self._anywhere: deque[PartitionIndex] = deque()
        self._indifferent: deque[PartitionIndex] = deque()

    @property
    def cpus(self) -> int:
        """Slots each of its tasks takes."""
        return self.profile.cpus

    def take_profile(self, profile: ResourceProfile) -> None:
        """What each of its tasks takes."""
        self.profile = profile
        self.needs_more = bool(profile.amounts or profile.memory_bytes)

    @property
    def is_plain(self) -> bool:
        """Whether its tasks need one slot each, whenever there is one."""
        return self.barrier is None and self.profile.is_default

    # what a scheduling policy may ask

    @property
    def job(self) -> int:
        """The place of its oldest job in the order of submission."""
        return self.order[0]

    @property
    def pending_count(self) -> int:
        """Tasks that wait."""
        return len(self.pending)

    @property
    def running_count(self) -> int:
        """Attempts under way."""
        return len(self.running)

    def add(self, partitions: Collection[PartitionIndex], preference: Wish | None = None) -> None:
        """More to compute; ``preference`` says where each would best run, None: anywhere."""
        self.preference = preference
        for partition in self._unfiled:  # by what is known now
            self._file(partition, preference and preference(partition))
        self._unfiled.clear()
        fresh = partitions
        if self.pending:
            fresh = [partition for partition in partitions if partition not in self.pending]
            self.pending.update(dict.fromkeys(fresh))
        else:
            self.pending = dict.fromkeys(fresh)
        if self.alone:
            fresh = [partition for partition in fresh if partition not in self.alone]
        if preference is None:
            self._indifferent.extend(fresh)
        else:
            self._unfiled.extend(fresh)

    def file(self, most: int) -> int:
        """Work out where some of those that were added would best run; how many were looked at."""
        count = min(most, len(self._unfiled))
        preference = self.preference
        for _ in range(count):
            partition = self._unfiled.popleft()
            if partition in self.pending:
                self._file(partition, preference and preference(partition))
        return count

    @property
    def is_filed(self) -> bool:
        """Whether that is known of all; nobody is given the others yet."""
        return not self._unfiled

    @property
    def has_filed(self) -> bool:
        """Whether somebody may be given a task that waits: not those yet of which it is not known, nor those that are to run alone."""
        return drop_gone(self._indifferent, self.pending) or drop_gone(self._anywhere, self.pending)

    def add_again(self, partition: PartitionIndex, wish: Preferred | None) -> None:
        """One to compute, which would best run as ``wish`` says; None: anywhere."""
        if partition in self.pending:
            return
        self.pending[partition] = None
        if partition not in self.alone:  # else ``alone.place`` finds it a place
            self._file(partition, wish)

    def _file(self, partition: PartitionIndex, wish: Preferred | None) -> None:
        if wish is None or not (wish[0] or wish[1]):
            self._indifferent.append(partition)
            return
        for executor in wish[0]:
            put(self._by_executor, executor, partition)
        by_host = self._by_neighbour if wish[0] else self._by_host
        for host in wish[1]:
            put(by_host, host, partition)
        if self.racks:
            for rack in dict.fromkeys(self.racks.get(host, "") for host in wish[1]):
                if rack:
                    put(self._by_rack, rack, partition)
        self._anywhere.append(partition)

    def avoid(self, partition: PartitionIndex, executor: ExecutorId, now: float) -> None:
        """Keep its next attempt from there for a while, if there are others."""
        self.avoided[partition] = executor, now + _AVOID_S

    def avoids(self, partition: PartitionIndex, executor: ExecutorId, now: float) -> bool:
        """Whether it is kept from there still."""
        avoided = self.avoided.get(partition)
        return avoided is not None and avoided[0] == executor and avoided[1] > now

    def has_another(self, attempt: Attempt) -> bool:
        """Whether a second attempt at its task is under way."""
        return any(each is not attempt and each.id in self.running for each in self.copied.get(attempt.partition, ()))

    @property
    def twice_running(self) -> int:
        """Tasks of which both attempts are under way."""
        return sum(len(each) > 1 and all(attempt.id in self.running for attempt in each) for each in self.copied.values())

    def withdraw(self, partition: PartitionIndex) -> None:
        """It need not be computed any more. The queues drop it when they come to it."""
        self.pending.pop(partition, None)

    def next_for(self, executor: ExecutorState, now: float, others: int) -> tuple[PartitionIndex, Locality] | None:
        """Take the best waiting task for an executor, or None when there is none *for it, now*.

        ``others`` is the number of further usable executors: without any, nobody is avoided or waited for.
        """
        if not self.pending:
            return None
        if not self._anywhere:
            partition = self._take(self._indifferent, executor, others, now)
            return None if partition is None else (partition, Locality.NO_PREFERENCE)
        for queue, locality in self._choices(executor, now, others):
            if queue:
                partition = self._take(queue, executor, others, now)
                if partition is not None:
                    return partition, locality
        self.pass_over(now, others)
        return None

    def _choices(self, executor: ExecutorState, now: float, others: int) -> Iterator[tuple[Queue | None, Locality]]:
        """What an executor is given, best first: most are given the first they might be, so the others are not looked up."""
        if self._by_executor:
            yield self._by_executor.get(executor.id), Locality.PROCESS
        yield self._by_host.get(executor.host), Locality.NODE
        yield self._indifferent, Locality.NO_PREFERENCE
        if self._by_neighbour and (not others or now >= self._neighbour_at()):
            yield self._by_neighbour.get(executor.host), Locality.NODE
        if self._by_rack and (not others or now >= self._rack_at()):
            yield self._by_rack.get(executor.rack), Locality.RACK
        if not others or now >= self._anywhere_at():
            yield self._anywhere, Locality.ANY

    def pass_over(self, now: float, others: int) -> None:
        """A slot goes unused, for what waits is kept for better ones."""
        if drop_gone(self._anywhere, self.pending) and others and now < self._anywhere_at():
            levels = (self._neighbour_at(), self._rack_at(), self._anywhere_at())
            self._keep_back(min(at for at in levels if at > now))

    def is_choosy(self, now: float, others: int) -> bool:
        """Whether all that waits is kept for certain executors and hosts, still."""
        if not self._anywhere or not others:
            return False
        return not drop_gone(self._indifferent, self.pending) and now < self._rack_at()

    @property
    def choice_count(self) -> int:
        """Executors and hosts that tasks were kept for, at most so many."""
        return len(self._by_executor) + len(self._by_host) + len(self._by_neighbour)

    def is_wanted(self, place: ExecutorId | HostToken, there: Iterable[ExecutorState], now: float) -> bool:
        """Whether tasks may be kept for an executor or host, or one of the executors ``there``, that they may be given now."""
        host = HostToken(place)
        if self._by_host.get(host) or (self._by_neighbour and now >= self._neighbour_at() and self._by_neighbour.get(host)):
            return True
        by_executor = self._by_executor
        return bool(by_executor) and any(by_executor.get(each) for each in (ExecutorId(place), *(state.id for state in there)))

    def choices(self, now: float, most: int) -> Iterator[ExecutorId | HostToken]:
        """Executors and hosts that tasks are kept for, some ``most`` of each kind; others the next time."""
        yield from in_turn(self._by_executor, self.pending, most)
        yield from in_turn(self._by_host, self.pending, most)
        if now >= self._neighbour_at():
            yield from in_turn(self._by_neighbour, self.pending, most)

    def _neighbour_at(self) -> float:
        """When tasks may run on other executors of the hosts that cache what they read."""
        return self._waiting_since + self.waits.process_s

    def _rack_at(self) -> float:
        """When tasks may run on other hosts of the racks they were kept for; when anywhere, where racks are not known."""
        return (self._neighbour_at() if self._by_neighbour else self._waiting_since) + self.waits.node_s

    def _anywhere_at(self) -> float:
        return self._rack_at() + (self.waits.rack_s if self._by_rack else 0.0)

    def _keep_back(self, until: float) -> None:
        self.kept_back_until = until if self.kept_back_until is None else min(self.kept_back_until, until)

    def _take(self, queue: Queue, executor: ExecutorState, others: int, now: float) -> PartitionIndex | None:
        """The first that still waits and may run there; those that must avoid it keep their place."""
        take, pending = taker(queue), self.pending
        if not self.avoided:
            while queue:
                partition = take()
                if partition in pending:
                    del pending[partition]
                    return partition
            return None
        avoiding: list[PartitionIndex] = []
        found = None
        while queue and found is None:
            partition = take()
            if partition not in pending:
                continue  # launched from another queue, or withdrawn
            avoided = self.avoided.get(partition)
            if others and avoided is not None and avoided[0] == executor.id and avoided[1] > now:
                avoiding.append(partition)
                self._keep_back(avoided[1])
            else:
                found = partition
                del pending[partition]
        if avoiding:
            put_back(queue, avoiding)
        return found

    def settle_wait(self, now: float) -> float | None:
        """After a round of offers: waiting starts anew unless somebody's slot went unused for it; when to offer again."""
        until, self.kept_back_until = self.kept_back_until, None
        if until is None:
            self._waiting_since = now
        return until

    def count_failure(self, attempt: Attempt, kind: str, now: float, *, counted: bool) -> int:
        """Note an ending; return how many failures count for its partition by now."""
        if counted:
            if kind in self.failure_kinds or len(self.failure_kinds) < _MOST_KINDS:
                self.failure_kinds[kind] = self.failure_kinds.get(kind, 0) + 1
            self.failures[attempt.partition] = self.failures.get(attempt.partition, 0) + 1
            self.avoid(attempt.partition, attempt.executor.id, now)
        else:
            self.note_uncounted(attempt.partition)
        return self.failures.get(attempt.partition, 0)

    def note_exception(self, partition: PartitionIndex, failure: ExceptionFailure) -> None:
        """A function raised."""
        if partition in self.exceptions or len(self.exceptions) < _MOST_EXCEPTIONS:
            self.exceptions[partition] = failure

    def note_uncounted(self, partition: PartitionIndex) -> int:
        """An attempt ended through no fault of its own; return how many did by now."""
        self.uncounted[partition] = times = self.uncounted.get(partition, 0) + 1
        return times

    def note_vanished(self, attempt: Attempt, reason: str, now: float) -> int:
        """An attempt ended with its process, and nobody knows why; return how many did by now."""
        executor = attempt.executor
        losses = self.vanished.setdefault(attempt.partition, [])
        losses.append(Vanished(executor.id, attempt.number, now - attempt.launched_at, now - executor.last_heard, reason))
        return len(losses)

    def note_duration(self, seconds: float, chance: Random) -> None:
        """A task ended well. Keeps a sample (algorithm R of Vitter's "Random Sampling with a Reservoir", 1985)."""
        self.done_count += 1
        if len(self.durations) < _MOST_DURATIONS:
            self.durations.append(seconds)
        elif (at := int(chance.random() * self.done_count)) < _MOST_DURATIONS:
            self.durations[at] = seconds

    @property
    def sorted_durations(self) -> list[float]:
        """What was kept of how long tasks took, shortest first; to be read, not changed. Sorted when another has ended since."""
        if self._sorted_durations[0] != self.done_count:
            self._sorted_durations = self.done_count, sorted(self.durations)
        return self._sorted_durations[1]

    def check(self) -> None:
        """Invariants."""
        running = [attempt.partition for attempt in self.running.values()]
        assert len(running) == len(set(running)) + self.twice_running, "a task runs twice, and nobody knows"
        assert not set(running) & set(self.pending), "a task both waits and runs"
        for attempt in self.running.values():
            assert attempt.executor.attempts.get(attempt.id) is attempt
        queued = {*self._anywhere, *self._indifferent, *self.alone, *self._unfiled}
        assert all(partition in queued for partition in self.pending), "a waiting task stands in no queue"
