"""Tasks that took too much memory are tried again on an executor with nobody beside them.

Runs in the scheduler process inside ``SchedulerCore``, at the beginning of each round of offers. An executor is held for such a task:
nothing more is launched there, what has not started is taken back, and when the last of what runs is over the task has it for itself.
"""

from __future__ import annotations

from flowkit.model.ids import AppId, PartitionIndex, StageId
from flowkit.model.task import Locality
from flowkit.scheduling.applications import Stage
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.launches import contents_are_there, launch
from flowkit.scheduling.recalls import recall_waiting
from flowkit.scheduling.resources import can_ever, can_now

Place = tuple[AppId, StageId, PartitionIndex]


def place(books: Books) -> None:
    """Hold executors for those who wait to run alone, and launch those whose executor is empty."""
    wanted: dict[Place, Stage] = {}
    for stage in books.active.values():
        task_set = stage.task_set
        if task_set is not None and task_set.alone and not stage.missing_contents:
            for partition in task_set.alone & task_set.pending.keys():
                wanted[stage.app, stage.id, partition] = stage
    if not wanted and not books.executors.held:
        return
    held: dict[Place, ExecutorState] = {}
    for executor in list(books.executors.held.values()):
        assert executor.held_for is not None
        if executor.usable and (executor.held_for in wanted or _runs(executor)):
            held[executor.held_for] = executor
        else:  # nobody waits for it any more, or it is on its way out
            executor.held_for = None
            books.executors.refresh(executor)
    for key, stage in wanted.items():
        found = held.get(key) or _hold(books, key, stage)
        if found is not None:
            held[key] = found
            assert stage.task_set is not None
            if not found.attempts and can_now(stage.task_set.profile, found):
                _start(books, key, stage, found)


def _runs(executor: ExecutorState) -> bool:
    held = executor.held_for
    return any((each.task_set.app, each.task_set.stage, each.partition) == held for each in executor.attempts.values())


def _hold(books: Books, key: Place, stage: Stage) -> ExecutorState | None:
    """The executor with least to do; of those that have something to do half at most are held, so that others go on."""
    task_set, taken = stage.task_set, books.executors.held
    assert task_set is not None
    enough = bool(taken) and len(taken) * 2 >= books.executors.usable_count
    candidates = [
        each
        for each in books.executors
        if each.usable
        and not each.unresponsive
        and each.id not in taken
        and not (enough and each.attempts)
        and can_ever(task_set.profile, each)
        and not books.bars(task_set, each)
    ]
    if not candidates:
        return None
    executor = min(candidates, key=lambda each: (len(each.attempts) / each.slots, books.rng.random()))
    executor.held_for = key
    books.executors.refresh(executor)
    recall_waiting(books, executor)
    return executor


def _start(books: Books, key: Place, stage: Stage, executor: ExecutorState) -> None:
    task_set = stage.task_set
    assert task_set is not None
    if not contents_are_there(books, books.applications[stage.app], stage):
        return
    del task_set.pending[key[2]]
    launch(books, books.applications[stage.app], stage, task_set, executor, key[2], Locality.ANY)
