"""Steps that work element by element, as C-level iterators: ``map``, ``filter``, ``chain``; no Python frame of ours an element.

Runs on slot threads; a stream belongs to its task's thread. Iterators nest on the C stack, some 300 bytes a step, so long
runs of steps are cut into groups through which blocks of elements are pushed one group after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from flowkit.errors import StopIterationInTask
from flowkit.execution.end_markers import EndMarker, function_name, leaked_stop_iteration, marked
from flowkit.lineage.call_site import full_call_site
from flowkit.lineage.kernels import Filter, FlatMap, FlatMapValues, Map, MapPartitions, MapValues, Step

#: Steps that nest before a run is cut: 128 of them take about 40 kB of C stack and make the cost of a cut invisible.
NESTED_STEPS = 128
#: Elements pushed through one group at a time. The first blocks are smaller, so that ``take`` computes little.
BLOCK_ELEMENTS = 1024

ElementKernel = Map | Filter | FlatMap | MapValues | FlatMapValues


@dataclass(slots=True)
class Stream:
    """An iterator and the marker behind it, if it has one yet."""

    iterator: Iterator[Any]
    marker: EndMarker | None = None
    #: what a marker placed behind ``iterator`` checks
    input_marker: EndMarker | None = None
    blame: Callable[[], StopIterationInTask] | None = None

    def with_marker(self) -> tuple[Iterator[Any], EndMarker]:
        """The iterator followed by a marker, and the marker."""
        if self.marker is None:
            self.marker = EndMarker(self.input_marker, self.blame)
            self.iterator = marked(self.iterator, self.marker)
        return self.iterator, self.marker

    def closed(self) -> Iterator[Any]:
        """The iterator as others may have it: whoever reads to its end learns of a leak."""
        return self.iterator if self.blame is None else self.with_marker()[0]


def where(step: Step) -> str:
    """``map at words.py:12``."""
    return at(step.operation, step.call_site)


def at(operation: str, call_site: str) -> str:
    """An operation and where it was called.

    >>> at("map", "words.py:12"), at("map", "")
    ('map at words.py:12', 'map')
    """
    return f"{operation} at {full_call_site(call_site)}" if call_site else operation


def apply_element_steps(stream: Stream, steps: Sequence[Step]) -> Stream:
    """A run of element-wise steps over a stream.

    Runs longer than ``NESTED_STEPS`` are pushed in blocks; a ``flat_map`` ends a pushed run, since it may make any number
    of elements out of one.
    """
    if len(steps) <= NESTED_STEPS:
        return _nested(stream, steps)
    run: list[Step] = []
    for step in steps:
        if isinstance(step.kernel, FlatMap | FlatMapValues):
            stream = _apply_step(_one_to_at_most_one(stream, run), step)
            run = []
        else:
            run.append(step)
    return _one_to_at_most_one(stream, run)


def _one_to_at_most_one(stream: Stream, steps: Sequence[Step]) -> Stream:
    if len(steps) <= NESTED_STEPS:
        return _nested(stream, steps)
    return Stream(chain.from_iterable(_pushed(stream.closed(), steps)))


def _nested(stream: Stream, steps: Iterable[Step]) -> Stream:
    for step in steps:
        stream = _apply_step(stream, step)
    return stream


def _pushed(elements: Iterator[Any], steps: Sequence[Step]) -> Iterator[list[Any]]:
    groups = [steps[first : first + NESTED_STEPS] for first in range(0, len(steps), NESTED_STEPS)]
    size = 1
    while block := list(islice(elements, size)):
        for group in groups:
            block = list(_nested(Stream(iter(block)), group).closed())
        yield block
        size = min(2 * size, BLOCK_ELEMENTS)


def _apply_step(stream: Stream, step: Step) -> Stream:
    match step.kernel:
        case Map(fn):
            elements, marker = stream.with_marker()
            return Stream(map(fn, elements), None, marker, _blame(fn, step))
        case Filter(fn):
            elements, marker = stream.with_marker()
            return Stream(filter(fn, elements), None, marker, _blame(fn, step))
        case FlatMap(fn):
            elements, marker = stream.with_marker()
            return Stream(chain.from_iterable(map(fn, elements)), None, marker, _blame(fn, step))
        # A generator expression is as fast as anything C has for these (measured against zip, starmap and blocks), and
        # turns a leaked StopIteration into a RuntimeError by itself.
        case MapValues(fn):
            return Stream((key, fn(value)) for key, value in stream.closed())
        case FlatMapValues(fn):
            return Stream((key, made) for key, value in stream.closed() for made in fn(value))
        case other:
            raise AssertionError(f"{type(other).__name__} does not work element by element")


def _blame(fn: Callable[..., Any], step: Step) -> Callable[[], StopIterationInTask]:
    return lambda: leaked_stop_iteration(function_name(fn), where(step))


def apply_map_partitions(stream: Stream, step: Step, kernel: MapPartitions, partition: int) -> Stream:
    """Call the user's function once, with the iterator; it may stop before the end of it."""
    elements = stream.closed()
    return apply_to_iterators([partition, elements] if kernel.indexed else [elements], step, kernel.fn)


def apply_to_iterators(arguments: Sequence[Any], step: Step, fn: Callable[..., Iterable[Any]]) -> Stream:
    """Call the user's function once, with iterators over whole partitions."""
    try:
        made = fn(*arguments)
    except StopIteration as error:
        raise leaked_stop_iteration(function_name(fn), where(step)) from error
    try:
        return Stream(iter(made))
    except TypeError:
        raise TypeError(
            f"{function_name(fn)}, called by {where(step)}, returned {made!r:.80} ({type(made).__name__}); "
            "it must return an iterable of elements"
        ) from None
