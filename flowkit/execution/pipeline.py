"""Runs a stage program for one partition: builds its iterators, then drains them into a shuffle file or the action's function.

Runs on slot threads; everything it makes belongs to the task. Nothing here recurses over the length of the lineage: the steps a
partition needs are listed first (a cached partition that is held needs none of its inputs), then built from the sources on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from flowkit.errors import InternalError, StopIterationInTask
from flowkit.execution.actions import access_of, keep_rows
from flowkit.execution.aggregate import combine_map_side, merge_reduce_side
from flowkit.execution.blame import where_it_ends, who_leaked
from flowkit.execution.cogroup import cogroup
from flowkit.execution.columnar import group_columns, sort_columns
from flowkit.execution.end_markers import leaked_stop_iteration
from flowkit.execution.environment import TaskEnvironment
from flowkit.execution.input_files import read_files
from flowkit.execution.join import join
from flowkit.execution.narrow import Stream, apply_element_steps, apply_map_partitions, apply_to_iterators, where
from flowkit.execution.pairing import each_with_each, zipped
from flowkit.execution.records import as_chunks, in_batches, in_chunks
from flowkit.execution.results import pickle_result
from flowkit.execution.sort import sort_pairs
from flowkit.execution.sources import (
    read_cached_only,
    read_collection,
    read_range,
    read_stored,
    read_text,
    read_whole_files,
)
from flowkit.lineage.kernels import (
    Aggregate,
    AggregationKind,
    CachedOnly,
    Cartesian,
    CoGroup,
    Collection,
    FileRows,
    Filter,
    FlatMap,
    FlatMapValues,
    IntegerRange,
    Join,
    Map,
    MapPartitions,
    MapValues,
    Result,
    ShuffleRead,
    ShuffleWrite,
    StageProgram,
    Step,
    StoredPartitions,
    TextLines,
    Union,
    WholeFiles,
    Zip,
    ZipPartitions,
)
from flowkit.model.ids import PartitionIndex, ShuffleId
from flowkit.model.map_status import MapStatus
from flowkit.storage.blocks.held_rows import Access
from flowkit.storage.shuffle.reader import ReadOptions, read_shuffle, read_shuffle_columns
from flowkit.storage.shuffle.writer import write_shuffle


@dataclass(frozen=True, slots=True)
class TaskValue:
    """What the action's function returned."""

    value: Any


TaskOutput = TaskValue | MapStatus


def run_program(
    program: StageProgram, environment: TaskEnvironment, turns: Iterable[tuple[PartitionIndex, StageProgram]] | None = None
) -> TaskOutput:
    """Compute one partition and hand it to the stage's end; or several, one after the other.

    Parameters
    ----------
    program
        The stage; not changed but by the user's functions. One that has no state may be run by several threads at once.
    environment
        Services of this task; its partition is the one computed.
    turns
        Partitions to compute in its place, each with the program for it. What they make is made as if each had a task of its own: a
        shuffle file has their rows in their order, the value is a list of pickled values.

    Returns
    -------
    TaskValue or MapStatus
        The action's value, or the status of a committed shuffle file.

    Raises
    ------
    StopIterationInTask
        User code let a ``StopIteration`` escape.

    Notes
    -----
    Anything user code raises passes through as it is; ``failure.describe`` makes a report of it.

    Cost: one pass; C iterators for element-wise steps, batches for wide ones, memory as the task's budget allows, else spilled.
    """

    def taken() -> Iterator[PartitionIndex]:
        nonlocal program
        for partition, own in ((environment.partition, program),) if turns is None else turns:
            program = own  # the one at work: what leaked is looked for in it
            yield partition

    try:
        match program.output:
            case Result() if turns is None:
                return TaskValue(_made(program, environment.partition, environment))
            case Result():
                return TaskValue([pickle_result(_made(program, partition, environment)) for partition in taken()])
            case ShuffleWrite() as output:
                parts = (_combined(program, partition, environment) for partition in taken())
                return _write(chain.from_iterable(parts), output, environment)
    except StopIteration as error:
        raise leaked_stop_iteration(*who_leaked(error, program)) from error
    except RuntimeError as error:
        # A generator (ours or the user's) turns a StopIteration that passes through it into this (PEP 479).
        if isinstance(error, StopIterationInTask) or not isinstance(error.__cause__, StopIteration):
            raise
        raise leaked_stop_iteration(*who_leaked(error.__cause__, program)) from error.__cause__


def _made(program: StageProgram, partition: PartitionIndex, environment: TaskEnvironment) -> Any:
    assert isinstance(program.output, Result)
    return program.output.fn(partition, build(program, len(program.steps) - 1, partition, environment).closed())


def _combined(program: StageProgram, partition: PartitionIndex, environment: TaskEnvironment) -> Iterator[Any]:
    output = program.output
    assert isinstance(output, ShuffleWrite)
    pairs = build(program, len(program.steps) - 1, partition, environment).closed()
    if output.aggregator is not None and output.aggregator.map_side:
        return combine_map_side(
            in_chunks(pairs, environment.check_killed), output.aggregator, environment, where_it_ends(program)
        )
    return pairs


def _write(pairs: Iterator[Any], output: ShuffleWrite, environment: TaskEnvironment) -> MapStatus:
    return write_shuffle(
        pairs,
        files=environment.shuffle_files,
        shuffle=output.shuffle,
        map_partition=environment.output,
        attempt=environment.attempt,
        host=environment.host,
        partitioner=output.partitioner,
        codec=environment.shuffle_codec,
        memory=environment.memory,
        spill_directory=environment.spill_directory,
        metrics=environment.metrics,
        check_killed=environment.check_killed,
    )


# -- which steps, and for which of their partitions --------------------------------------------------------------------


@dataclass(slots=True)
class _Visit:
    """One evaluation of one step for one of its partitions."""

    index: int
    partition: int
    #: places of its inputs in the plan; empty for sources and for partitions that the cache holds
    inputs: list[int]
    held: bool = False


def _plan(program: StageProgram, last: int, partition: int, environment: TaskEnvironment) -> list[_Visit]:
    """All evaluations that a partition of a step needs, inputs before those who use them."""
    # Walked from the end and reversed: every visit then comes after all of its inputs.
    visits = [_visit(program, last, partition, environment)]
    for visit in visits:  # grows while it is walked
        if visit.held:
            continue
        step = program.steps[visit.index]
        for each in step.inputs:
            used = each.mapping.inputs_of(visit.partition)
            if not used and not isinstance(step.kernel, Union):
                raise InternalError(f"partition {visit.partition} of {where(step)} lies outside its input {each}")
            for inner in used:
                visit.inputs.append(len(visits))
                visits.append(_visit(program, each.step, inner, environment))
    return visits


def _visit(program: StageProgram, index: int, partition: int, environment: TaskEnvironment) -> _Visit:
    step = program.steps[index]
    held = False
    if _is_kept(step, environment):
        block = environment.kept_as.get(step.rdd, step.rdd), PartitionIndex(partition)
        held = environment.cache.holds(environment.app, *block, step.level) or (
            environment.remote_blocks is not None and block in environment.remote_blocks
        )
    return _Visit(index, partition, [], held)


def build(program: StageProgram, last: int, partition: int, environment: TaskEnvironment) -> Stream:
    """The stream of one partition of one step. Sources are opened and cached steps computed, nothing else runs yet."""
    visits = _plan(program, last, partition, environment)
    streams: dict[int, Stream] = {}
    profiler = environment.profiler
    run: list[Step] = []  # of element-wise steps, kept back so that long ones are built as one
    for place in range(len(visits) - 1, -1, -1):
        visit = visits[place]
        step = program.steps[visit.index]
        inputs = [streams.pop(each) for each in visit.inputs]
        if isinstance(step.kernel, Map | Filter | FlatMap | MapValues | FlatMapValues) and not visit.held:
            run.append(step)
            # Whoever comes next in the plan uses this one, if it is its only input and element-wise too.
            last_of_run = step.level is not None or profiler is not None or not place
            if not last_of_run and visits[place - 1].inputs == [place] and _is_element_wise(program, visits[place - 1]):
                streams[place] = inputs[0]
                continue
            stream = apply_element_steps(inputs[0], run)
            run = []
        elif visit.held:
            stream = Stream(iter(()))
        else:
            stream = _apply(step, visit.partition, inputs, environment)
        if _is_kept(step, environment):
            stream = _through_cache(program, visit, stream, environment)
        streams[place] = stream if profiler is None else profiler.watched(stream, visit.index)
    return streams[0]


def _is_kept(step: Step, environment: TaskEnvironment) -> bool:
    return step.level is not None and environment.uses_cache


def _is_element_wise(program: StageProgram, visit: _Visit) -> bool:
    return not visit.held and isinstance(program.steps[visit.index].kernel, Map | Filter | FlatMap | MapValues | FlatMapValues)


def _through_cache(program: StageProgram, visit: _Visit, stream: Stream, environment: TaskEnvironment) -> Stream:
    step = program.steps[visit.index]

    built = None if visit.held else stream

    def compute() -> Iterator[Any]:
        nonlocal built
        if built is not None:
            first, built = built, None
            return first.closed()
        # It was held, here or elsewhere, when the plan was made and is gone since; or it was written, and is gone before it was read.
        uncached = StageProgram((*program.steps[: visit.index], _without_cache(step)), program.output)
        return build(uncached, visit.index, visit.partition, environment).closed()

    assert step.level is not None
    is_last = visit.index == len(program.steps) - 1
    action = program.output.fn if is_last and isinstance(program.output, Result) else None
    remote, block = environment.remote_blocks, (environment.kept_as.get(step.rdd, step.rdd), PartitionIndex(visit.partition))
    rows = environment.cache.get_or_compute(
        environment.app,
        *block,
        compute,
        level=step.level,
        recorder=environment.cached_blocks.append,
        fetch=None if remote is None or block not in remote else lambda: remote.fetch(*block),
        metrics=environment.metrics,
        check_killed=environment.check_killed,
        access=Access.OWN if action is None else access_of(action),
        required=action is keep_rows,
    )
    return Stream(rows)


def _without_cache(step: Step) -> Step:
    return Step(step.rdd, step.kernel, step.inputs, step.num_partitions, step.operation, step.call_site)


# -- one step ----------------------------------------------------------------------------------------------------------


def _apply(step: Step, partition: int, inputs: list[Stream], environment: TaskEnvironment) -> Stream:
    match step.kernel:
        case Collection() as source:
            return Stream(read_collection(source, partition, environment))
        case IntegerRange() as source:
            return Stream(read_range(source, partition, environment))
        case TextLines() as source:
            return Stream(read_text(source, partition, environment))
        case FileRows() as source:
            return Stream(read_files(source, partition, environment))
        case WholeFiles() as source:
            return Stream(read_whole_files(source, partition, environment))
        case StoredPartitions() as source:
            return Stream(read_stored(source, partition, environment))
        case CachedOnly() as source:
            return Stream(read_cached_only(source, partition))
        case MapPartitions() as kernel:
            return apply_map_partitions(inputs[0], step, kernel, partition)
        case Union():
            # One input as a rule; several where each partition is the union of some, of one RDD or of several.
            return inputs[0] if len(inputs) == 1 else Stream(chain.from_iterable(each.closed() for each in inputs))
        case Zip():
            return Stream(zipped([each.closed() for each in inputs], partition, where(step)))
        case ZipPartitions(fn):
            return apply_to_iterators([each.closed() for each in inputs], step, fn)
        case Cartesian():
            left, right = (each.closed() for each in inputs)
            return Stream(each_with_each(left, right, environment))
        case ShuffleRead() as read:
            return Stream(_read_reduced(read, step, partition, environment))
        case Aggregate(aggregator):
            chunks = in_chunks(inputs[0].closed(), environment.check_killed)
            return Stream(merge_reduce_side(chunks, aggregator, environment, where(step), combined=False))
        case CoGroup(shuffles):
            return Stream(
                cogroup(list(map(as_chunks, _sides(shuffles, inputs, partition, environment))), environment, where(step))
            )
        case Join(kind, shuffles):
            streamed, tabled = _sides(shuffles, inputs, partition, environment)
            return Stream(join(kind, streamed, tabled, environment, where(step)))
        case Map() | Filter() | FlatMap() | MapValues() | FlatMapValues():
            return apply_element_steps(inputs[0], [step])


def _read_reduced(read: ShuffleRead, step: Step, partition: int, environment: TaskEnvironment) -> Iterator[Any]:
    aggregator, order = read.aggregator, read.order

    def grouped(batches: Iterator[list[Any]]) -> Iterator[Any]:
        assert aggregator is not None
        return merge_reduce_side(as_chunks(batches), aggregator, environment, where(step), combined=aggregator.map_side)

    def ordered(batches: Iterator[list[Any]]) -> Iterator[Any]:
        assert order is not None
        return sort_pairs(batches, order, environment, where(step))

    if aggregator is None and order is not None and order.key is None:
        columns = read_shuffle_columns(environment.sources(read.shuffle), partition, **_read_options(environment))
        return sort_columns(columns, environment, ordered, descending=order.descending)
    if aggregator is not None and aggregator.kind is AggregationKind.GROUP and not aggregator.map_side and order is None:
        columns = read_shuffle_columns(environment.sources(read.shuffle), partition, **_read_options(environment))
        return group_columns(columns, environment, grouped)
    batches = _read_batches(read.shuffle, partition, environment)
    if aggregator is not None:
        pairs = grouped(batches)
        if order is None:
            return pairs
        batches = in_batches(pairs, environment.check_killed)
    return chain.from_iterable(batches) if order is None else ordered(batches)


def _sides(
    shuffles: tuple[ShuffleId | None, ...], inputs: list[Stream], partition: int, environment: TaskEnvironment
) -> list[Iterator[list[Any]]]:
    narrow = iter(inputs)
    return [
        in_batches(next(narrow).closed(), environment.check_killed)
        if shuffle is None
        else _read_batches(shuffle, partition, environment)
        for shuffle in shuffles
    ]


def _read_batches(shuffle: ShuffleId, partition: int, environment: TaskEnvironment) -> Iterator[list[Any]]:
    return read_shuffle(environment.sources(shuffle), partition, **_read_options(environment))


def _read_options(environment: TaskEnvironment) -> ReadOptions:
    return {
        "app": environment.app,
        "files": environment.shuffle_reads,
        "host": environment.host,
        "transport": environment.transport,
        "in_flight_bytes": environment.fetch_in_flight_bytes,
        "metrics": environment.metrics,
        "check_killed": environment.check_killed,
    }
