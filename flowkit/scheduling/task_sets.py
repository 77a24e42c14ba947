"""The tasks of one stage: which wait, which run where, how often each failed, and which one an executor gets next.

Runs in the scheduler process inside ``SchedulerCore``. One ``TaskSet`` lives as long as its stage has something to compute;
after a loss it goes on with a higher ``attempt_number``, and what still runs from before goes on too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable

from flowkit.model.ids import AppId, AttemptId, ExecutorId, HostToken, PartitionIndex, StageId
from flowkit.model.task import Locality
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.launch_depth import LaunchDepth

#: Where a partition would best run: executors that cache it, hosts that hold its input.
Preference = tuple[Collection[ExecutorId], Collection[HostToken]]


class Attempt:
    """One try at one task, from its launch to its report."""

    __slots__ = (
        "executor",
        "id",
        "is_recalled",
        "is_void",
        "launched_at",
        "locality",
        "number",
        "partition",
        "seen_running_at",
        "stage_attempt",
        "started_at",
        "task_set",
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
        self.partition = partition
        self.number = number
        self.executor = executor
        self.launched_at = now
        #: on the executor's clock; 0 before it started
        self.started_at = 0.0
        #: on the core's clock
        self.seen_running_at = 0.0
        self.locality = locality
        #: a recall is under way
        self.is_recalled = False
        #: its job is over: it holds a slot until it reports, and its news changes nothing else
        self.is_void = False


class TaskSet:
    """What is left to compute of one stage."""

    def __init__(self, app: AppId, stage: StageId, order: tuple[int, int], depth: LaunchDepth) -> None:
        self.app = app
        self.stage = stage
        #: place in the order of service: submission of its oldest job, then stage
        self.order = order
        self.depth = depth
        self.properties: dict[str, str] = {}
        self.attempt_number = 0
        #: partitions to launch, in order of arrival
        self.pending: dict[PartitionIndex, None] = {}
        self.running: dict[AttemptId, Attempt] = {}
        #: failures of a partition that count
        self.failures: dict[PartitionIndex, int] = {}
        #: endings of a partition's attempts that count against nobody
        self.uncounted: dict[PartitionIndex, int] = {}
        #: attempts made at a partition so far
        self.tries: dict[PartitionIndex, int] = {}
        #: where a partition failed last, kept away from while there are others; only the last: one that failed
        #: everywhere still has tries left
        self.avoided: dict[PartitionIndex, ExecutorId] = {}
        #: told whether a task was kept back for a nearer executor in this round of offers
        self.kept_back = False
        #: from when on tasks go anywhere
        self.anywhere_at = 0.0
        self._by_executor: dict[ExecutorId, deque[PartitionIndex]] = {}
        self._by_host: dict[HostToken, deque[PartitionIndex]] = {}
        #: tasks that would best run somewhere, for when they may run anywhere
        self._anywhere: deque[PartitionIndex] = deque()
        self._indifferent: deque[PartitionIndex] = deque()

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

    def add(self, partitions: Iterable[PartitionIndex], preference: Callable[[PartitionIndex], Preference | None]) -> None:
        """More to compute; ``preference`` says where each would best run."""
        for partition in partitions:
            if partition in self.pending:
                continue
            self.pending[partition] = None
            wish = preference(partition)
            if wish is None or not (wish[0] or wish[1]):
                self._indifferent.append(partition)
                continue
            for executor in wish[0]:
                self._by_executor.setdefault(executor, deque()).append(partition)
            for host in wish[1]:
                self._by_host.setdefault(host, deque()).append(partition)
            self._anywhere.append(partition)

    def withdraw(self, partition: PartitionIndex) -> None:
        """It need not be computed any more. The queues drop it when they come to it."""
        self.pending.pop(partition, None)

    def next_for(self, executor: ExecutorState, now: float, others: int) -> tuple[PartitionIndex, Locality] | None:
        """Take the best waiting task for an executor, or None when there is none *for it, now*.

        ``others`` is the number of further usable executors: without any, nobody is avoided or waited for.
        """
        if not self.pending:
            return None
        choices = [(self._indifferent, Locality.NO_PREFERENCE)]
        if self._anywhere:
            near = [(self._by_executor.get(executor.id), Locality.PROCESS), (self._by_host.get(executor.host), Locality.NODE)]
            choices = [(queue, locality) for queue, locality in near if queue] + choices
            if not others or now >= self.anywhere_at:
                choices.append((self._anywhere, Locality.ANY))
        for queue, locality in choices:
            partition = self._take(queue, executor, others)
            if partition is not None:
                return partition, locality
        self.kept_back = self.kept_back or any(partition in self.pending for partition in self._anywhere)
        return None

    def _take(self, queue: deque[PartitionIndex], executor: ExecutorState, others: int) -> PartitionIndex | None:
        """The first that still waits and may run there; those that must avoid it keep their place."""
        if not self.avoided:
            while queue:
                partition = queue.popleft()
                if partition in self.pending:
                    del self.pending[partition]
                    return partition
            return None
        avoiding: list[PartitionIndex] = []
        found = None
        while queue and found is None:
            partition = queue.popleft()
            if partition not in self.pending:
                continue  # launched from another queue, or withdrawn
            if others and executor.id == self.avoided.get(partition):
                avoiding.append(partition)
            else:
                found = partition
                del self.pending[partition]
        queue.extendleft(reversed(avoiding))
        return found

    def settle_wait(self, now: float, wait_s: float) -> None:
        """After a round of offers: waiting starts anew unless somebody's slot went unused for it."""
        if not self.kept_back:
            self.anywhere_at = now + wait_s
        self.kept_back = False

    def count_failure(self, attempt: Attempt, *, counted: bool) -> int:
        """Note an ending; return how many failures count for its partition by now."""
        if counted:
            self.failures[attempt.partition] = self.failures.get(attempt.partition, 0) + 1
            self.avoided[attempt.partition] = attempt.executor.id
        else:
            self.note_uncounted(attempt.partition)
        return self.failures.get(attempt.partition, 0)

    def note_uncounted(self, partition: PartitionIndex) -> int:
        """An attempt ended through no fault of its own; return how many did by now."""
        self.uncounted[partition] = times = self.uncounted.get(partition, 0) + 1
        return times

    def check(self) -> None:
        """Invariants."""
        running = [attempt.partition for attempt in self.running.values()]
        assert not set(running) & set(self.pending), "a task both waits and runs"
        for attempt in self.running.values():
            assert attempt.executor.attempts.get(attempt.id) is attempt
        queued = {*self._anywhere, *self._indifferent}
        assert all(partition in queued for partition in self.pending), "a waiting task stands in no queue"
