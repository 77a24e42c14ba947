"""What one lineage node computes, as plain picklable data; ``execution.pipeline`` runs it on executors.

A kernel holds the user's functions and nothing of the DSL, so that what is shipped needs only ``lineage`` and below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, NamedTuple

from flowkit.lineage.partitioners import Partitioner
from flowkit.model.ids import RddId, ShuffleId
from flowkit.model.job_spec import Content
from flowkit.model.storage_level import StorageLevel

# -- sources -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Collection:
    """Partition ``p`` is the pickled list at ``spans[p]`` = (offset, length, CRC-32) of ``content``."""

    content: Content
    spans: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class IntegerRange:
    """``range(start, stop, step)`` in ``num_partitions`` slices; never materialised."""

    start: int
    stop: int
    step: int
    num_partitions: int


_SECOND_NS = 1_000_000_000


class FileVersion(NamedTuple):
    """By what a file is known again: what is unknown of either of two is not compared."""

    #: -1: unknown
    size_bytes: int
    #: nanoseconds since the epoch; 0: unknown
    changed_ns: int
    #: what its store tells versions apart by, after the name of that: ``ETag "0x1"``
    tag: str = ""

    def is_of(self, other: FileVersion) -> bool:
        """Whether both may be of one content. A store that lists to the millisecond may tell the same of one file in whole seconds.

        >>> FileVersion(3, 7).is_of(FileVersion(3, 0)), FileVersion(3, 7).is_of(FileVersion(3, 8))
        (True, False)
        >>> FileVersion(3, 1_642_000_000).is_of(FileVersion(3, 2_000_000_000))
        True
        """
        return (
            (self.size_bytes == other.size_bytes or self.size_bytes < 0 or other.size_bytes < 0)
            and (self.changed_ns == other.changed_ns or _may_be_same(self.changed_ns, other.changed_ns))
            and (self.tag == other.tag or self.tag.partition(" ")[0] != other.tag.partition(" ")[0])
        )


def _may_be_same(one_ns: int, other_ns: int) -> bool:
    if not one_ns or not other_ns:
        return True
    return (one_ns % _SECOND_NS == 0 or other_ns % _SECOND_NS == 0) and abs(one_ns - other_ns) < _SECOND_NS


@dataclass(frozen=True, slots=True)
class FileSplit:
    """Bytes ``[start, start + length)`` of a file; ``length`` None: all that follows (compressed files cannot be split)."""

    path: str
    start: int
    length: int | None
    codec: str | None
    #: of the file that was planned for; None: it is read as it is
    version: FileVersion | None = None


@dataclass(frozen=True, slots=True)
class TextLines:
    """Lines without their ends; a split owns the lines that *begin* in it. ``splits[p]`` are read one after the other."""

    splits: tuple[tuple[FileSplit, ...], ...]
    encoding: str = "utf-8"
    errors: str = "strict"
    #: ``storage.objects.stores.Stores`` of those that are addresses; None: all are paths
    stores: Any = None
    #: a ``execution.sources.LineParser`` that makes rows of lines; None: the lines are the rows
    parse: Any = None


@dataclass(frozen=True, slots=True)
class FileRows:
    """Rows of each file of ``paths[p]``, as ``reader`` (an ``execution.input_files.FileReader``) makes them."""

    paths: tuple[tuple[str, ...], ...]
    reader: Any
    #: as of ``TextLines``
    stores: Any = None
    #: of the files of ``paths``; None: they are read as they are
    versions: tuple[tuple[FileVersion, ...], ...] | None = None


@dataclass(frozen=True, slots=True)
class WholeFiles:
    """``(path, bytes)`` of each file of ``paths[p]``."""

    paths: tuple[tuple[str, ...], ...]
    #: as of ``TextLines``
    stores: Any = None
    #: as of ``FileRows``
    versions: tuple[tuple[FileVersion, ...], ...] | None = None


@dataclass(frozen=True, slots=True)
class StoredPartitions:
    """Partition ``p`` as a job wrote it into the file ``paths[p]``: a checkpoint."""

    paths: tuple[str, ...]
    stores: Any = None


@dataclass(frozen=True, slots=True)
class CachedOnly:
    """Partitions that are cached and cannot be computed: a local checkpoint."""

    what: str


# -- narrow ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Map:
    """``fn(element)``."""

    fn: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class FlatMap:
    """Every element of ``fn(element)``."""

    fn: Callable[[Any], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Filter:
    """Elements of which ``fn`` is true."""

    fn: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class MapValues:
    """``(k, fn(v))``."""

    fn: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class FlatMapValues:
    """``(k, w)`` for every ``w`` of ``fn(v)``."""

    fn: Callable[[Any], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class MapPartitions:
    """``fn(iterator)``, or ``fn(partition index, iterator)`` with ``indexed``; must return an iterable."""

    fn: Callable[..., Iterable[Any]]
    indexed: bool = False


@dataclass(frozen=True, slots=True)
class Union:
    """Inputs end to end: stage partition ``p`` is that of the one input whose window holds it (see ``StepInput``)."""


@dataclass(frozen=True, slots=True)
class Zip:
    """``(a, b, ...)`` of elements at the same place of inputs that are partitioned alike."""


@dataclass(frozen=True, slots=True)
class ZipPartitions:
    """``fn(iterator of the first input, of the second, ...)``; must return an iterable."""

    fn: Callable[..., Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Cartesian:
    """``(a, b)`` for all elements of two inputs; stage partition ``p`` is that of one partition of each (see ``StepInput``)."""


# -- wide --------------------------------------------------------------------------------------------------------------


class AggregationKind(Enum):
    """Shapes of aggregation that have a faster loop than the general one."""

    GENERAL = "general"
    #: ``create`` is the identity and both merges are one function
    REDUCE = "reduce"
    #: values collected into a list, in map order
    GROUP = "group"
    #: keys only; values are None
    DISTINCT = "distinct"


@dataclass(frozen=True, slots=True)
class Aggregator:
    """How values of one key become one combiner. ``map_side``: combined before the shuffle as well."""

    create: Callable[[Any], Any]
    merge_value: Callable[[Any, Any], Any]
    merge_combiners: Callable[[Any, Any], Any]
    kind: AggregationKind = AggregationKind.GENERAL
    map_side: bool = True


@dataclass(frozen=True, slots=True)
class SortOrder:
    """Stable sort within a partition by ``key(pair[0])``, or by ``pair[0]`` itself; descending keeps equal keys in order."""

    key: Callable[[Any], Any] | None = None
    descending: bool = False


@dataclass(frozen=True, slots=True)
class ShuffleRead:
    """The pairs of one reduce partition, in map order; aggregated and sorted where asked.

    With a ``map_side`` aggregator the file holds combiners, else values.
    """

    shuffle: ShuffleId
    aggregator: Aggregator | None = None
    order: SortOrder | None = None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Aggregation of pairs that already lie by key (co-partitioned): no shuffle."""

    aggregator: Aggregator


@dataclass(frozen=True, slots=True)
class CoGroup:
    """``(k, ([values of input 0], [values of input 1], ...))``.

    ``shuffles[i]`` None: input ``i`` is narrow (co-partitioned), and is the next of the step's inputs.
    """

    shuffles: tuple[ShuffleId | None, ...]


class JoinKind(Enum):
    """Which unmatched keys survive, with None for the missing side."""

    INNER = "inner"
    LEFT = "left"
    RIGHT = "right"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Join:
    """``(k, (v, w))`` for all pairs of a key; sides as in ``CoGroup``."""

    kind: JoinKind
    shuffles: tuple[ShuffleId | None, ShuffleId | None]


Kernel = (
    Collection
    | IntegerRange
    | TextLines
    | FileRows
    | WholeFiles
    | StoredPartitions
    | CachedOnly
    | Map
    | FlatMap
    | Filter
    | MapValues
    | FlatMapValues
    | MapPartitions
    | Union
    | Zip
    | ZipPartitions
    | Cartesian
    | ShuffleRead
    | Aggregate
    | CoGroup
    | Join
)


# -- programs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """Partition ``p`` uses the input's ``p - first`` where ``first <= p < first + count``, else none of it.

    One-to-one inputs have ``first`` 0 and ``count`` the number of partitions.

    >>> Window(2, 3).inputs_of(4), Window(2, 3).inputs_of(5)
    (range(2, 3), range(0, 0))
    """

    first: int
    count: int

    def inputs_of(self, partition: int) -> range:
        """Partitions of the input that a partition uses."""
        inner = partition - self.first
        return range(inner, inner + 1) if 0 <= inner < self.count else range(0)


@dataclass(frozen=True, slots=True)
class Groups:
    """Partition ``p`` uses the input's ``bounds[p]`` up to, not including, ``bounds[p + 1]``.

    >>> Groups((0, 2, 5)).inputs_of(1)
    range(2, 5)
    """

    bounds: tuple[int, ...]

    def inputs_of(self, partition: int) -> range:
        """Partitions of the input that a partition uses."""
        return range(self.bounds[partition], self.bounds[partition + 1])


@dataclass(frozen=True, slots=True)
class Quotient:
    """Partition ``p`` uses the input's ``p // by``.

    >>> [Quotient(2).inputs_of(p)[0] for p in range(6)]
    [0, 0, 1, 1, 2, 2]
    """

    by: int

    def inputs_of(self, partition: int) -> range:
        """Partitions of the input that a partition uses."""
        return range(partition // self.by, partition // self.by + 1)


@dataclass(frozen=True, slots=True)
class Remainder:
    """Partition ``p`` uses the input's ``p % by``.

    >>> [Remainder(2).inputs_of(p)[0] for p in range(6)]
    [0, 1, 0, 1, 0, 1]
    """

    by: int

    def inputs_of(self, partition: int) -> range:
        """Partitions of the input that a partition uses."""
        return range(partition % self.by, partition % self.by + 1)


#: Which partitions of a narrow input a partition uses.
PartitionMapping = Window | Groups | Quotient | Remainder


@dataclass(frozen=True, slots=True)
class StepInput:
    """A narrow input: step ``step``, and which of its partitions a partition uses."""

    step: int
    mapping: PartitionMapping


@dataclass(frozen=True, slots=True)
class Step:
    """One node of a stage."""

    rdd: RddId
    kernel: Kernel
    inputs: tuple[StepInput, ...]
    num_partitions: int
    #: what the user called and where: ``map``, ``words.py:12``
    operation: str
    call_site: str
    #: how its partitions are kept; None: not at all
    level: StorageLevel | None = None


@dataclass(frozen=True, slots=True)
class ShuffleWrite:
    """The stage's end: pairs, by key, into one file; combined before where the aggregator says ``map_side``."""

    shuffle: ShuffleId
    partitioner: Partitioner
    aggregator: Aggregator | None = None
    #: what the user called that takes this shuffle, and where: ``reduce_by_key``, ``words.py:13``
    operation: str = ""
    call_site: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """The stage's end: ``fn(partition index, iterator)``; what it returns goes to the driver."""

    fn: Callable[[int, Iterator[Any]], Any]
    #: the action's name and where it was called
    operation: str = "collect"
    call_site: str = ""


@dataclass(frozen=True, slots=True)
class StageProgram:
    """A stage as executors get it: steps with inputs before those that use them, the last one being the stage's end.

    A flat list, not nested nodes, so that a chain of 10,000 maps pickles without recursion.
    """

    steps: tuple[Step, ...]
    output: ShuffleWrite | Result


# -- pickling ----------------------------------------------------------------------------------------------------------


def _pickle_as_call(kind: Any) -> None:
    """Have values of a type pickle as a call of it. What dataclasses with slots do by themselves takes longer on both sides."""
    names = [each.name for each in fields(kind)]

    def __reduce__(self: Any) -> tuple[Any, ...]:  # noqa: N807
        return kind, tuple([getattr(self, name) for name in names])

    kind.__reduce__ = __reduce__


for _each in list(vars().values()):
    if isinstance(_each, type) and _each.__module__ == __name__ and is_dataclass(_each):
        _pickle_as_call(_each)
