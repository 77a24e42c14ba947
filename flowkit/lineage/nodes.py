"""A lineage node: one RDD's recipe. What it computes, from which others, in how many partitions.

Runs on the driver; never shipped. Nodes don't change but for what says nothing about their rows: whether they are cached, their name,
what tasks need that compute them, and what had to be found out before they could run (``preparation``). Nothing here recurses: chains of
ten thousand nodes are ordinary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowkit.lineage.call_site import short_call_site
from flowkit.lineage.kernels import Aggregator, Kernel, PartitionMapping, Window
from flowkit.lineage.partitioners import Partitioner
from flowkit.model.ids import RddId, ShuffleId
from flowkit.model.job_spec import Content, Determinism
from flowkit.model.resources import ResourceProfile
from flowkit.model.storage_level import StorageLevel

if TYPE_CHECKING:
    from flowkit.abc import JobRunner


@dataclass(frozen=True, slots=True, eq=False)
class Narrow:
    """A dependency on few partitions: partition ``p`` uses those of ``parent`` that ``mapping`` says.

    None: its own ``p``.
    """

    parent: Node
    mapping: PartitionMapping | None = None

    def known_mapping(self) -> PartitionMapping:
        """The mapping, also where it is the plain one."""
        return self.mapping or Window(0, self.parent.num_partitions)


class Shuffle:
    """A dependency on all partitions of ``parent``, through files partitioned by key.

    ``operation`` and ``call_site`` are those of the node it was made for. Two nodes may share one shuffle; its files live until nobody refers to this object any more.
    """

    __slots__ = ("__weakref__", "aggregator", "call_site", "id", "operation", "parent", "partitioner")

    def __init__(
        self,
        shuffle: ShuffleId,
        parent: Node,
        partitioner: Partitioner,
        aggregator: Aggregator | None = None,
        *,
        operation: str,
        call_site: str,
    ) -> None:
        self.id = shuffle
        self.parent = parent
        self.partitioner = partitioner
        self.aggregator = aggregator
        self.operation = operation
        self.call_site = call_site


Dependency = Narrow | Shuffle


class Preparation:
    """Something a node must learn from a job of its own before it can be planned: bounds of a sort, counts of partitions.

    Runs at the first action that needs the node, once; so that building an RDD never starts a job.
    """

    def __init__(self, run: Callable[[JobRunner], None]) -> None:
        self._run = run
        self.done = False

    def ensure(self, runner: JobRunner) -> None:
        """Find it out, unless that was done before."""
        if not self.done:
            self._run(runner)
            self.done = True


class Node:
    """One RDD's recipe.

    Attributes
    ----------
    kernel
        What it computes.
    dependencies
        What from, in the order in which the kernel takes its inputs.
    partitioner
        How its pairs lie, when that is known: pairs with equal keys are in the partition it says.
    operation, call_site
        What the user called, and where.
    attachments
        Large content that executors need besides the program.
    hosts
        Host names per partition where its input lies; empty when that means nothing.
    source_identity
        What else tells this input from another of the same name: sizes and times of files.
    """

    __slots__ = (
        "__weakref__",
        "attachments",
        "barrier",
        "call_site",
        "dependencies",
        "determinism",
        "dropped_with",
        "fingerprint",
        "hosts",
        "id",
        "kernel",
        "level",
        "name",
        "num_partitions",
        "operation",
        "partitioner",
        "pending",
        "preparation",
        "profile",
        "source_identity",
        "tolerance",
    )

    def __init__(
        self,
        node_id: int,
        kernel: Kernel,
        dependencies: Sequence[Dependency],
        num_partitions: int,
        *,
        operation: str,
        call_site: str,
        partitioner: Partitioner | None = None,
        preparation: Preparation | None = None,
        attachments: tuple[Content, ...] = (),
        hosts: dict[int, tuple[str, ...]] | None = None,
        determinism: Determinism = Determinism.DETERMINATE,
        source_identity: tuple[object, ...] = (),
    ) -> None:
        self.id = RddId(node_id)
        self.kernel = kernel
        self.dependencies: tuple[Dependency, ...] = tuple(dependencies)
        self.num_partitions = num_partitions
        self.operation = operation
        self.call_site = call_site
        self.partitioner = partitioner
        self.preparation = preparation
        self.attachments = attachments
        self.hosts = hosts or {}
        self.source_identity = source_identity
        self.determinism: Determinism = max((determinism, *(_parent(each).determinism for each in self.dependencies)))
        #: how its partitions are kept; None: not at all
        self.level: StorageLevel | None = None
        #: what is to be done with all of its rows when an action has computed it, or something made of it; None: nothing
        self.pending: Callable[[JobRunner, Node], None] | None = None
        #: whether what is cached of it goes when nobody refers to it any more
        self.dropped_with = False
        self.name: str | None = None
        #: what errors its function may raise, for the driver to look at after a job; None: none
        self.tolerance: Any = None
        #: what tasks that compute it need; None: nothing was said
        self.profile: ResourceProfile | None = None
        #: tasks that compute it run all at once
        self.barrier = False
        #: see ``lineage.fingerprint``; None until asked for
        self.fingerprint: str | None = None

    @property
    def level_in_words(self) -> str:
        """``[cached]``, ``[DISK_ONLY]``; empty when it is not kept."""
        if self.level is None:
            return ""
        return "[cached]" if self.level == StorageLevel.MEMORY_ONLY else f"[{self.level.name or self.level}]"

    @property
    def cached(self) -> bool:
        """Whether its partitions are kept."""
        return self.level is not None

    @property
    def label(self) -> str:
        """``reduce_by_key at words.py:12``."""
        return f"{self.operation} at {short_call_site(self.call_site)}" if self.call_site else self.operation

    def truncate(self, kernel: Kernel) -> None:
        """Forget what it was made of: its rows are somewhere."""
        self.kernel = kernel
        self.dependencies = ()
        self.hosts = {}

    def __repr__(self) -> str:
        return f"<node {self.id}: {self.label}, {self.num_partitions} partitions>"


def _parent(dependency: Dependency) -> Node:
    return dependency.parent


def ancestors(node: Node, *, across_shuffles: bool = True) -> Iterator[Node]:
    """The node and all it comes from, each once, parents before children."""
    order: list[Node] = []
    seen: set[RddId] = set()
    stack: list[tuple[Node, bool]] = [(node, False)]
    while stack:
        each, entered = stack.pop()
        if entered:
            order.append(each)
            continue
        if each.id in seen:
            continue
        seen.add(each.id)
        stack.append((each, True))
        for dependency in reversed(each.dependencies):
            if across_shuffles or isinstance(dependency, Narrow):
                stack.append((dependency.parent, False))  # noqa: PERF401 (reads as the rule it is)
    return iter(order)


def shuffle_of(dependency: Dependency) -> ShuffleId | None:
    """A shuffle's id; None for a narrow dependency: as ``kernels.CoGroup`` and ``kernels.Join`` take their inputs.

    >>> shuffle_of(Narrow(None)) is None
    True
    """
    return dependency.id if isinstance(dependency, Shuffle) else None
