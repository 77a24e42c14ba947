"""Copies of what executors keep: as many of a cached partition as its level says, and one elsewhere of all that is about to leave.

Runs in the scheduler process inside ``SchedulerCore``, once per batch of stimuli that may have changed anything about it. Copies are
fetched by who is to hold them, from any who do; a task never waits for one. An executor that is asked to leave is let go when its tasks
are over and nothing that only it can give is still being copied; what nobody can take goes with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from flowkit.model.events import BlocksCached, ShuffleOutputsMoved
from flowkit.model.ids import AttemptId, ExecutorId, HostToken, PartitionIndex, rdd_of
from flowkit.model.task import BlockInfo
from flowkit.scheduling.actions import CopyBlock, CopyOutputs, DropRdd, MayLeave
from flowkit.scheduling.applications import Application, Stage
from flowkit.scheduling.blocks import Block, is_in_file, told_of
from flowkit.scheduling.books import Books
from flowkit.scheduling.executors import ExecutorState
from flowkit.scheduling.stimuli import BlockCopied, OutputsCopied

#: map outputs one executor is asked to copy at a time: so many are reported together
_OUTPUTS_AT_A_TIME = 16


def settle(books: Books) -> None:
    """Ask for copies that are lacking, and let those go who have handed over."""
    if not books.copies_stale:
        return
    books.copies_stale = False
    by_host, draining = books.executors.by_host, books.executors.draining
    leaving = {each.host for each in draining.values() if all(other.draining for other in by_host[each.host].values())}
    for application in books.applications.values():
        lacking, application.blocks.lacking = application.blocks.lacking, {}
        for block in lacking:
            _copy_block(books, application, block)
        if leaving:
            for stage in application.map_stages.values():
                _move_outputs(books, application, stage, leaving)
    for state in draining.values():
        if not state.may_leave and not state.attempts and not _is_needed(books, state):
            state.may_leave = True
            books.emit(MayLeave(state.id))


def executors_changed(books: Books) -> None:
    """Somebody may be there now who can make a copy that nobody could."""
    books.copies_stale = True
    for application in books.applications.values():
        application.blocks.lacking.update(application.blocks.stranded)
        application.blocks.stranded.clear()


def begin_to_leave(books: Books, leaver: ExecutorState) -> None:
    """What it holds is to be held elsewhere."""
    books.copies_stale = True
    for application in books.applications.values():
        held = [block for block in application.blocks if leaver.id in application.blocks.holders(*block)]
        application.blocks.lacking.update(dict.fromkeys(held))


def _is_needed(books: Books, state: ExecutorState) -> bool:
    """Whether somebody copies what it holds."""
    for application in books.applications.values():
        for block, makers in application.blocks.copying.items():
            if makers and state.id in application.blocks.holders(*block):
                return True
        for stage in application.map_stages.values():
            outputs = stage.outputs
            assert outputs is not None
            for partition in outputs.moving:
                status = outputs.statuses[partition]
                if status is not None and status.host == state.host:
                    return True
    return False


# -- cached partitions ---------------------------------------------------------------------------------------------


def _stays(books: Books, executor: ExecutorId, block: BlockInfo) -> bool:
    """Whether what an executor holds will be there when those who leave are gone."""
    state = books.executors.get(executor)
    if state is None:
        return False
    if not state.draining:
        return True
    return is_in_file(block) and any(not each.draining for each in books.executors.by_host[state.host].values())


def _copy_block(books: Books, application: Application, block: Block) -> None:
    blocks = application.blocks
    holders = blocks.holders(*block)
    if not holders:
        return
    level = blocks.level(block[0])
    staying = [executor for executor, info in holders.items() if _stays(books, executor, info)]
    places = {_place(books, executor, holders[executor]) for executor in staying}
    for _ in range(level.replication - len(places) - len(blocks.copying.get(block, ()))):
        target = _target(books, application, block, holders, only_files=level.use_off_heap or not level.use_memory)
        if target is None:
            blocks.stranded[block] = None
            return
        blocks.start_copying(block, target.id)
        sources = [*staying, *(executor for executor in holders if executor not in staying)]
        addresses = tuple(state.address for state in map(books.executors.get, sources) if state is not None)
        books.emit(CopyBlock(target.id, application.id, block[0], block[1], level, addresses))


def _place(books: Books, executor: ExecutorId, block: BlockInfo) -> str:
    """What a copy is lost with: a host, or a process."""
    state = books.executors.get(executor)
    assert state is not None
    return state.host if is_in_file(block) else executor


def _target(
    books: Books, application: Application, block: Block, holders: Mapping[ExecutorId, BlockInfo], *, only_files: bool
) -> ExecutorState | None:
    """Who is to make a copy: on a host that has none if there is one, and of these who holds least."""
    blocks = application.blocks
    hosts = {state.host for state in map(books.executors.get, holders) if state is not None}
    excluded = holders.keys() | blocks.refused.get(block, set()) | blocks.copying.get(block, set())
    candidates = [
        state
        for state in books.executors
        if state.usable and not state.unresponsive and state.id not in excluded and not (only_files and state.host in hosts)
    ]
    return min(
        candidates,
        key=lambda state: (state.host in hosts, blocks.count_by_executor[state.id] + blocks.asked[state.id], books.rng.random()),
        default=None,
    )


def block_copied(books: Books, stimulus: BlockCopied) -> None:
    """A copy is there, or could not be made."""
    application = books.applications.get(stimulus.app)
    state = books.executors.get(stimulus.executor)
    if application is None or state is None:
        books.stale_count += 1
        return
    blocks = application.blocks
    block = stimulus.rdd, stimulus.partition
    blocks.stop_copying(block, stimulus.executor)
    books.copies_stale = True
    if stimulus.block is None:
        blocks.refuse(stimulus.executor, *block)
    elif stimulus.rdd not in blocks.levels:  # unpersisted while it was made
        books.emit(DropRdd(stimulus.executor, application.id, stimulus.rdd))
    else:
        note_cached(books, application, state, (stimulus.block,))


def note_cached(books: Books, application: Application, state: ExecutorState, blocks: tuple[BlockInfo, ...]) -> None:
    """An executor holds partitions now; those of rows that were voided meanwhile are dropped."""
    void = dict.fromkeys(block.rdd for block in blocks if application.kept_as(rdd_of(block.rdd)) != block.rdd)
    if void:
        for rdd in void:
            books.emit(DropRdd(state.id, application.id, rdd))
        blocks = tuple(block for block in blocks if block.rdd not in void)
    for block in blocks:
        application.blocks.add(state.id, block)
    if application.blocks.lacking or state.draining:
        books.copies_stale = True
        if state.draining:
            application.blocks.lacking.update({(block.rdd, block.partition): None for block in blocks})
    if blocks:
        told = tuple(map(told_of, blocks))
        books.publish(application.id, BlocksCached(time=books.now, app=application.id, executor=state.id, blocks=told))


# -- map outputs ---------------------------------------------------------------------------------------------------


def _move_outputs(books: Books, application: Application, stage: Stage, leaving: set[HostToken]) -> None:
    outputs = stage.outputs
    assert outputs is not None
    takers = [state for state in books.executors if state.usable and not state.unresponsive and state.host not in leaving]
    if not takers or not leaving & outputs.count_by_host.keys():
        return
    for host in leaving & outputs.count_by_host.keys():
        sources = tuple(state.address for state in books.executors.by_host[host].values())
        waiting: list[tuple[PartitionIndex, AttemptId]] = []
        for partition in outputs.on_host(host):
            status = outputs.statuses[partition]
            if status is not None and partition not in outputs.moving and status.attempt not in outputs.immovable:
                waiting.append((partition, status.attempt))
        for start in range(0, len(waiting), _OUTPUTS_AT_A_TIME):
            some = tuple(waiting[start : start + _OUTPUTS_AT_A_TIME])
            taker = takers[(start // _OUTPUTS_AT_A_TIME + books.rng.randrange(len(takers))) % len(takers)]
            outputs.moving.update({partition: taker.id for partition, _ in some})
            books.emit(CopyOutputs(taker.id, application.id, outputs.shuffle, some, sources))


def outputs_copied(books: Books, stimulus: OutputsCopied) -> None:
    """Map outputs lie on another host now too, which is theirs from now on."""
    application, state = books.applications.get(stimulus.app), books.executors.get(stimulus.executor)
    stage = None if application is None else application.map_stages.get(stimulus.shuffle)
    if application is None or state is None or stage is None:
        books.stale_count += 1
        return
    outputs = stage.outputs
    assert outputs is not None
    _stop_moving(outputs.moving, (partition for partition, _ in (*stimulus.copied, *stimulus.failed)), state.id)
    outputs.immovable.update(attempt for _, attempt in stimulus.failed)
    moved: list[PartitionIndex] = []
    for partition, attempt in stimulus.copied:
        status = outputs.statuses[partition] if partition < len(outputs.statuses) else None
        if status is not None and status.attempt == attempt and status.host != state.host:
            outputs.register(msgspec.structs.replace(status, host=state.host))
            moved.append(partition)
    books.copies_stale = True
    if moved:
        application.is_stale = True
        books.publish(
            application.id,
            ShuffleOutputsMoved(
                time=books.now,
                app=application.id,
                shuffle=stimulus.shuffle,
                stage=stage.id,
                partitions=tuple(moved),
                executor=state.id,
            ),
        )


def _stop_moving(moving: dict[PartitionIndex, ExecutorId], partitions: Iterable[PartitionIndex], taker: ExecutorId) -> None:
    for partition in partitions:
        if moving.get(partition) == taker:
            del moving[partition]


def forget_taker(application: Application, executor: ExecutorId) -> None:
    """Who was to take map outputs is gone."""
    for stage in application.map_stages.values():
        assert stage.outputs is not None
        _stop_moving(stage.outputs.moving, list(stage.outputs.moving), executor)
