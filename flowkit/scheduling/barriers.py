"""Stages whose tasks run all at once and wait for one another: launched together or not at all, tried again together.

Runs in the scheduler process inside ``SchedulerCore``. While such a stage waits for slots that the cluster has, those after it in the
policy's order get none, or it would never have its slots at once. What its tasks send one another at a barrier passes through here,
unread. Results of a task count when all have ended well: until then a failure of any means that all of them run again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from flowkit.model.ids import AttemptId
from flowkit.model.resources import ResourceProfile
from flowkit.model.task import TaskSucceeded
from flowkit.scheduling import jobs, resources
from flowkit.scheduling.actions import AnswerBarrier
from flowkit.scheduling.applications import Stage
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.launches import launch
from flowkit.scheduling.stimuli import BarrierReached
from flowkit.scheduling.task_sets import Attempt, TaskSet


@dataclass(slots=True)
class Barrier:
    """Where the tasks of one try at a stage are."""

    #: tasks that ended well, whose results wait for the others
    held: list[tuple[Attempt, TaskSucceeded]] = field(default_factory=list)
    #: how often all met
    round: int = 0
    #: what those that wait now called, and sent
    arrived: dict[AttemptId, tuple[str, bytes]] = field(default_factory=dict)
    #: what was sent the last time, in the order of partitions
    last: tuple[bytes, ...] = ()


def _is_open_to(books: Books, task_set: TaskSet, executor: ExecutorState) -> bool:
    return executor.usable and executor.held_for is None and not books.bars(task_set, executor)


def most_at_once(books: Books, task_set: TaskSet) -> int:
    """Tasks of a stage that could run at once if nobody else ran any."""
    profile, total = task_set.profile, 0
    for states in books.executors.by_host.values():
        able = [state for state in states.values() if _is_open_to(books, task_set, state) and resources.can_ever(profile, state)]
        room = sum(_room(profile, state) for state in able)
        for name in profile.amounts:
            owned = {id(state.resources[name]): state.resources[name] for state in able}  # executors of a host may share them
            room = min(room, sum(each.room(profile.count(name), profile.parts(name)) for each in owned.values()))
        total += room
    return total


def _room(profile: ResourceProfile, executor: ExecutorState) -> int:
    """Tasks that an executor with nothing to do has slots and memory for."""
    slots = executor.slots // profile.cpus
    known = profile.memory_bytes and executor.memory_bytes
    return min(slots, executor.memory_bytes // profile.memory_bytes) if known else slots


def _places(books: Books, task_set: TaskSet) -> list[ExecutorState]:
    """Where all tasks of a stage could run now, each executor as often as it has room; empty when not all could."""
    profile = task_set.profile
    order = [
        (state.load / state.slots, books.rng.random(), 0, state)
        for state in books.executors
        if _is_open_to(books, task_set, state) and not state.unresponsive
    ]
    heapify(order)
    found: list[ExecutorState] = []
    taken: list[dict[str, tuple[str, ...]]] = []
    while order and len(found) < task_set.size:
        _, tie, planned, state = heappop(order)
        if state.load + planned + profile.cpus > state.slots or not resources.can_now(profile, state):
            continue
        found.append(state)
        taken.append(resources.take(profile, state))
        planned += profile.cpus
        heappush(order, ((state.load + planned) / state.slots, tie, planned, state))
    for state, each in zip(found, taken, strict=True):
        resources.give_back(profile, each, state)
    return found if len(found) == task_set.size else []


def place(books: Books, task_set: TaskSet) -> bool:
    """Launch a stage if there is room for all its tasks; True when there is not but would be on an empty cluster: others hold back."""
    stage = books.stage_of(task_set)
    assert stage is not None
    assert len(task_set.pending) == task_set.size, f"{stage} is launched in part"
    places = _places(books, task_set)
    if not places:
        return most_at_once(books, task_set) >= task_set.size
    while task_set.file(task_set.size):
        pass
    for executor in places:
        found = task_set.next_for(executor, books.now, 0)  # 0 others: nobody is waited for, or kept away
        assert found is not None
        launch(books, books.applications[stage.app], stage, task_set, executor, *found)
    return False


def reached(books: Books, attempt: Attempt | None, stimulus: BarrierReached) -> None:
    """A task waits for the others; when it is the last, all go on."""
    if attempt is None or attempt.is_void or attempt.task_set.barrier is None:
        books.stale_count += 1
        return
    task_set, barrier = attempt.task_set, attempt.task_set.barrier
    if stimulus.round < barrier.round:  # the answer was lost
        books.emit(AnswerBarrier(stimulus.executor, attempt.id, stimulus.round, barrier.last))
        return
    barrier.arrived[attempt.id] = stimulus.call, stimulus.data
    calls = {call for call, _ in barrier.arrived.values()}
    if len(calls) > 1:
        _give_up(
            books,
            task_set,
            f"of its tasks some called {' and others '.join(sorted(calls))} at the same point: all must call the same",
        )
    elif barrier.held:
        _give_up(books, task_set, _ended_early(barrier))
    elif len(barrier.arrived) == task_set.size:
        by_partition = sorted(task_set.running.values(), key=lambda each: each.partition)
        barrier.last = tuple(barrier.arrived[each.id][1] for each in by_partition)
        for each in by_partition:
            books.emit(AnswerBarrier(each.executor.id, each.id, barrier.round, barrier.last))
        barrier.round += 1
        barrier.arrived = {}


def ended(books: Books, attempt: Attempt, report: TaskSucceeded) -> list[tuple[Attempt, TaskSucceeded]]:
    """A task ended well; all of them when it is the last, none before."""
    task_set = attempt.task_set
    barrier = task_set.barrier
    assert barrier is not None
    barrier.held.append((attempt, report))
    if len(barrier.held) == task_set.size:
        held, barrier.held = barrier.held, []
        return held
    if barrier.arrived:
        _give_up(books, task_set, _ended_early(barrier))
    return []


def start_over(books: Books, stage: Stage, reason: str) -> None:
    """A task failed: the others are stopped, and all wait again."""
    task_set = stage.task_set
    assert task_set is not None
    jobs.kill_running(books, task_set, reason)
    task_set.barrier = Barrier()
    for partition in stage.spec.partitions:
        task_set.add_again(partition, None if task_set.preference is None else task_set.preference(partition))


def _ended_early(barrier: Barrier) -> str:
    partitions = ", ".join(str(attempt.partition) for attempt, _ in barrier.held[:5])
    call = next(iter(barrier.arrived.values()))[0]
    return f"its tasks {partitions} ended while others wait for them in {call}: all must call it equally often"


def _give_up(books: Books, task_set: TaskSet, why: str) -> None:
    stage = books.stage_of(task_set)
    if stage is not None:
        told = f"barrier stage {stage.id} ({stage.spec.name}): {why}"
        jobs.abort_stage(books, books.applications[stage.app], stage, "JobFailed", told, None, {})
