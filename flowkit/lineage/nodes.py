"""A lineage node: what one RDD computes, from which others, in how many partitions.

Runs on the driver; never shipped. A ``Node`` is an RDD for its whole life; a ``Recipe`` is how it is computed at one moment, and never
changes. Caching, checkpoints and needs replace a node's recipe by another one, which makes the same rows, through ``Node.change`` alone.
So whoever plans reads each node's recipe once, and whatever is kept of a plan is kept with the revisions it was made of. Nothing here
recurses: chains of ten thousand nodes are ordinary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec

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

    ``operation`` and ``call_site`` are those of the node it was made for, ``determinism`` is that of its parent when it was made. Two
    nodes may share one shuffle; its files live until nobody refers to this object any more.
    """

    __slots__ = ("__weakref__", "aggregator", "call_site", "determinism", "id", "operation", "parent", "partitioner")

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
        # Kept: what was written before a checkpoint fixed the parent's rows may hold others than the checkpoint does.
        self.determinism = parent.determinism


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


#: stamps of changes, over all nodes: of two changes the later one has the larger number
_changes = count(1)


class Recipe(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """How a node is computed, at one moment.

    Attributes
    ----------
    kernel
        What it computes.
    dependencies
        What from, in the order in which the kernel takes its inputs.
    operation, call_site
        What the user called, and where.
    partitioner
        How its pairs lie, when that is known: pairs with equal keys are in the partition it says.
    preparation
        What a job of its own must find out first.
    attachments
        Large content that executors need besides the program.
    hosts
        Host names per partition where its input lies; empty when that means nothing.
    level
        How its partitions are kept; None: not at all.
    profile
        What tasks that compute it need; None: nothing was said.
    barrier
        Tasks that compute it run all at once.
    name
        What the user calls it.
    revision
        When it was changed last; 0 for never. Two recipes of one node with the same revision are one.
    """

    id: RddId
    kernel: Kernel
    dependencies: tuple[Dependency, ...]
    num_partitions: int
    operation: str
    call_site: str
    determinism: Determinism
    partitioner: Partitioner | None = None
    preparation: Preparation | None = None
    attachments: tuple[Content, ...] = ()
    hosts: Mapping[int, tuple[str, ...]] = {}
    level: StorageLevel | None = None
    profile: ResourceProfile | None = None
    barrier: bool = False
    name: str | None = None
    revision: int = 0

    @property
    def cached(self) -> bool:
        """Whether its partitions are kept."""
        return self.level is not None

    @property
    def level_in_words(self) -> str:
        """``[cached]``, ``[DISK_ONLY]``; empty when it is not kept."""
        if self.level is None:
            return ""
        return "[cached]" if self.level == StorageLevel.MEMORY_ONLY else f"[{self.level.name or self.level}]"

    @property
    def label(self) -> str:
        """``reduce_by_key at words.py:12``."""
        return f"{self.operation} at {short_call_site(self.call_site)}" if self.call_site else self.operation

    def __repr__(self) -> str:
        return f"<recipe of node {self.id}, revision {self.revision}: {self.label}>"


class Node:
    """One RDD.

    Attributes
    ----------
    recipe
        How it is computed now; read it once where its parts must fit one another. The properties of the same names read it.
    source_identity
        What else tells this input from another of the same name: sizes and times of files.
    """

    __slots__ = ("__weakref__", "dropped_with", "fingerprint", "id", "pending", "recipe", "source_identity", "tolerance")

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
        barrier: bool = False,
        source_identity: tuple[object, ...] = (),
    ) -> None:
        self.id = RddId(node_id)
        self.recipe = Recipe(
            id=self.id,
            kernel=kernel,
            dependencies=tuple(dependencies),
            num_partitions=num_partitions,
            operation=operation,
            call_site=call_site,
            determinism=max((determinism, *(each.parent.determinism for each in dependencies))),
            partitioner=partitioner,
            preparation=preparation,
            attachments=attachments,
            hosts=hosts or {},
            barrier=barrier,
        )
        self.source_identity = source_identity
        #: what is to be done with all of its rows when an action has computed it, or something made of it; None: nothing
        self.pending: Callable[[JobRunner, Node], None] | None = None
        #: whether what is cached of it goes when nobody refers to it any more
        self.dropped_with = False
        #: what errors its function may raise, for the driver to look at after a job; None: none
        self.tolerance: Any = None
        #: see ``lineage.fingerprint``; None until asked for. It says which rows, not how: changes leave it as it is
        self.fingerprint: str | None = None

    def change(self, **changes: Any) -> None:
        """Have it computed otherwise from now on, with the same rows: the only way in which a recipe is replaced.

        Of two threads that change one node at once one could undo what the other did; callers hold ``abc.JobRunner.changing``.

        >>> from flowkit.lineage.kernels import IntegerRange
        >>> node = Node(0, IntegerRange(0, 4, 1, 2), (), 2, operation="range", call_site="")
        >>> planned = node.recipe
        >>> node.change(level=StorageLevel.DISK_ONLY)
        >>> planned.level, node.level, node.revision > planned.revision
        (None, StorageLevel.DISK_ONLY, True)
        """
        self.recipe = msgspec.structs.replace(self.recipe, **changes, revision=next(_changes))

    def truncate(self, kernel: Kernel) -> None:
        """Forget what it was made of: its rows are somewhere, and will be the same whenever they are read; see ``change``."""
        self.change(
            kernel=kernel, dependencies=(), hosts={}, attachments=(), preparation=None, determinism=Determinism.DETERMINATE
        )

    # -- its recipe now

    @property
    def revision(self) -> int:
        """When it was changed last."""
        return self.recipe.revision

    @property
    def kernel(self) -> Kernel:
        """What it computes."""
        return self.recipe.kernel

    @property
    def dependencies(self) -> tuple[Dependency, ...]:
        """What from."""
        return self.recipe.dependencies

    @property
    def num_partitions(self) -> int:
        """In how many pieces."""
        return self.recipe.num_partitions

    @property
    def operation(self) -> str:
        """What the user called."""
        return self.recipe.operation

    @property
    def call_site(self) -> str:
        """Where."""
        return self.recipe.call_site

    @property
    def determinism(self) -> Determinism:
        """What computing it again yields."""
        return self.recipe.determinism

    @property
    def partitioner(self) -> Partitioner | None:
        """How its pairs lie."""
        return self.recipe.partitioner

    @property
    def preparation(self) -> Preparation | None:
        """What must be found out first."""
        return self.recipe.preparation

    @property
    def level(self) -> StorageLevel | None:
        """How its partitions are kept."""
        return self.recipe.level

    @property
    def cached(self) -> bool:
        """Whether they are."""
        return self.recipe.cached

    @property
    def level_in_words(self) -> str:
        """How, for people."""
        return self.recipe.level_in_words

    @property
    def profile(self) -> ResourceProfile | None:
        """What its tasks need."""
        return self.recipe.profile

    @property
    def name(self) -> str | None:
        """What the user calls it."""
        return self.recipe.name

    @property
    def label(self) -> str:
        """The operation and its line."""
        return self.recipe.label

    def __repr__(self) -> str:
        return f"<node {self.id}: {self.label}, {self.num_partitions} partitions>"


def ancestors(node: Node, *, across_shuffles: bool = True, recipes: dict[RddId, Recipe] | None = None) -> Iterator[Node]:
    """The node and all it comes from, each once, parents before children.

    ``recipes``: a snapshot to follow; recipes that it lacks are added as they are now.
    """
    snapshot = {} if recipes is None else recipes
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
        recipe = snapshot.get(each.id)
        if recipe is None:
            recipe = snapshot[each.id] = each.recipe
        for dependency in reversed(recipe.dependencies):
            if across_shuffles or isinstance(dependency, Narrow):
                stack.append((dependency.parent, False))  # noqa: PERF401 (reads as the rule it is)
    return iter(order)


def shuffle_of(dependency: Dependency) -> ShuffleId | None:
    """A shuffle's id; None for a narrow dependency: as ``kernels.CoGroup`` and ``kernels.Join`` take their inputs.

    >>> shuffle_of(Narrow(None)) is None
    True
    """
    return dependency.id if isinstance(dependency, Shuffle) else None
