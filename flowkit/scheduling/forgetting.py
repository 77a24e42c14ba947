"""Executors forget stages that no job needs: told a few at a time, for thousands may know one.

Runs in the scheduler process inside ``SchedulerCore``, once per batch of stimuli. Nobody waits for it. Who is sent the stage again before
its turn, by another job, is told to forget first: what it knows is of the job before.
"""

from __future__ import annotations

from itertools import islice

from flowkit.scheduling.actions import ForgetStage
from flowkit.scheduling.applications import Stage
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState

#: Executors told in one round, and after how long the next are: the thread the core runs on has others to serve.
_MOST_TOLD = 256
_BREATH_S = 0.001


def begin(books: Books, stage: Stage) -> None:
    """No job needs a stage any more."""
    if stage.defined_on:
        books.forgetting.setdefault((stage.app, stage.id), {}).update(dict.fromkeys(stage.defined_on))
        stage.defined_on = {}


def tell(books: Books, stage: Stage, executor: ExecutorState) -> None:
    """An executor is about to be sent a stage: it forgets it now, if it was to."""
    waiting = books.forgetting.get((stage.app, stage.id))
    if waiting is not None and executor in waiting:
        del waiting[executor]
        books.emit(ForgetStage(executor.id, stage.app, stage.id))


def settle(books: Books) -> None:
    """Tell some."""
    left = _MOST_TOLD
    for key, waiting in list(books.forgetting.items()):
        some = list(islice(waiting, left))
        for executor in some:
            del waiting[executor]
            if books.executors.get(executor.id) is executor:
                books.emit(ForgetStage(executor.id, *key))
        if not waiting:
            del books.forgetting[key]
        left -= len(some)
        if not left:
            break


def next_look(books: Books) -> float | None:
    """When the next are told; None: nobody is to be."""
    return books.now + _BREATH_S if books.forgetting else None
