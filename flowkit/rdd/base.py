"""What every part of the DSL may use of an RDD: its node, its runner, and how new ones are made. Runs on the driver."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from flowkit.abc import JobRunner
from flowkit.errors import ClosureError, InvalidArgument, WrongType
from flowkit.execution.on_driver import OnDriver
from flowkit.execution.task_context import inside_task
from flowkit.lineage.call_site import find_call_site
from flowkit.lineage.kernels import Aggregate, Aggregator, Kernel, ShuffleRead, SortOrder
from flowkit.lineage.nodes import Dependency, Narrow, Node, Preparation, Shuffle
from flowkit.lineage.partitioners import HashPartitioner, Partitioner
from flowkit.model.ids import ShuffleId
from flowkit.model.job_spec import Determinism
from flowkit.observe.metrics import counted
from flowkit.rdd.checks import check_int, check_on_driver
from flowkit.visible import in_one_line

if TYPE_CHECKING:
    from flowkit.context import Context

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def action(method: F) -> F:
    """Make a method one action: when it raises, the last job that it ran has failed."""

    @functools.wraps(method)
    def run(self: Base[Any], *args: Any, **options: Any) -> Any:
        check_on_driver(method.__name__)
        with self._runner.action():
            return method(self, *args, **options)

    run._is_action = True  # type: ignore[attr-defined]
    return cast("F", run)


def is_action(method: object) -> bool:
    """Return whether ``action`` decorates it."""
    return getattr(method, "_is_action", False)


class Base(Generic[T]):
    """A lineage node with somebody who can run it.

    Immutable but for its cache mark and its name; thread-safe; cheap: making one runs nothing.
    """

    __slots__ = ("__weakref__", "_node", "_runner")

    def __init__(self, node: Node, runner: JobRunner) -> None:
        self._node = node
        self._runner = runner

    # -- what it is

    @property
    def id(self) -> int:
        """Its number in the application."""
        return self._node.id

    @property
    def context(self) -> Context:
        """The Context it belongs to."""
        return self._runner  # type: ignore[return-value]

    @property
    def num_partitions(self) -> int:
        """In how many pieces it is computed."""
        return self._node.num_partitions

    @property
    def partitioner(self) -> Partitioner | None:
        """How its pairs lie by key, when that is known; RDDs with equal partitioners join without a shuffle."""
        return self._node.partitioner

    @property
    def call_site(self) -> str:
        """``file:line`` where it was made."""
        return self._node.call_site

    @property
    def name(self) -> str | None:
        """What it was named with ``set_name``."""
        return self._node.name

    def __repr__(self) -> str:
        name = f"{self._node.name!r} " if self._node.name else ""
        return f"<RDD {name}{self._node.id}: {in_one_line(self._node.label)}, {counted(self._node.num_partitions, 'partition')}>"

    # -- what it is not

    def __bool__(self) -> NoReturn:
        raise TypeError("an RDD has no truth value, since that would run a job unseen; ask is_empty() or count()")

    def __iter__(self) -> NoReturn:
        raise TypeError("an RDD can't be iterated over; ask collect() for all rows or take(n) for some")

    def __contains__(self, element: object) -> NoReturn:
        raise TypeError("an RDD can't be searched without running a job; ask filter(...).is_empty(), or collect() and look")

    def __len__(self) -> NoReturn:
        raise TypeError("an RDD has no length without running a job; ask count()")

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("RDDs can't be compared; compare what collect() returns, or use `is` for the same RDD")

    def __hash__(self) -> int:
        return id(self)

    def __reduce__(self) -> NoReturn:
        raise ClosureError(
            "an RDD can't be used inside a function that runs on executors; join the two RDDs, or collect this one first and "
            "use the values"
        )

    # -- how others are made

    def _make(
        self,
        kernel: Kernel,
        dependencies: Sequence[Dependency],
        num_partitions: int,
        operation: str,
        *,
        partitioner: Partitioner | None = None,
        preparation: Preparation | None = None,
        determinism: Determinism = Determinism.DETERMINATE,
    ) -> Any:
        if inside_task():
            check_on_driver(f"RDD.{operation}()")
        node = Node(
            self._runner.new_rdd_id(),
            kernel,
            dependencies,
            num_partitions,
            operation=operation,
            call_site=find_call_site(),
            partitioner=partitioner,
            preparation=preparation,
            determinism=determinism,
        )
        return type(self)(node, self._runner)

    def _narrow(
        self, kernel: Kernel, operation: str, *, keeps_partitioner: bool = False, preparation: Preparation | None = None
    ) -> Any:
        return self._make(
            kernel,
            [Narrow(self._node)],
            self.num_partitions,
            operation,
            partitioner=self._node.partitioner if keeps_partitioner else None,
            preparation=preparation,
        )

    def _by_key(
        self,
        operation: str,
        partitioner: Partitioner,
        aggregator: Aggregator | None = None,
        order: SortOrder | None = None,
        preparation: Preparation | None = None,
    ) -> Any:
        """Pairs by key: through a shuffle, unless they lie so already."""
        if aggregator is not None and order is None and self._node.partitioner == partitioner:
            return self._narrow(Aggregate(aggregator), operation, keeps_partitioner=True)
        shuffle = self._shuffle(operation, partitioner, aggregator)
        kernel = ShuffleRead(shuffle.id, aggregator, order)
        return self._make(
            kernel, [shuffle], partitioner.num_partitions, operation, partitioner=partitioner, preparation=preparation
        )

    def _shuffle(self, operation: str, partitioner: Partitioner, aggregator: Aggregator | None = None) -> Shuffle:
        shuffle = ShuffleId(self._runner.new_shuffle_id())
        return Shuffle(shuffle, self._node, partitioner, aggregator, operation=operation, call_site=find_call_site())

    def _hash_partitioner(self, num_partitions: int | None, default: int | None = None) -> Partitioner:
        """For an operation by key: what was asked for, else the known partitioner, else one of the default size."""
        if num_partitions is not None:
            return HashPartitioner(check_int("num_partitions", num_partitions, least=1))
        if self._node.partitioner is not None:
            return self._node.partitioner
        return HashPartitioner(self._runner.config.default_parallelism or default or max(1, self.num_partitions))

    def _other(self, name: str, other: object) -> Node:
        """The node of another RDD, of the same application."""
        if not isinstance(other, Base):
            raise WrongType(
                f"{name} must be an RDD, not {type(other).__name__}", name=name, value=other, allowed="an RDD of this Context"
            )
        if other._runner is not self._runner:
            raise InvalidArgument(f"{name} belongs to another Context", name=name, value=other, allowed="an RDD of this Context")
        return other._node

    # -- how they are run

    def _run(self, fn: Callable[[int, Iterator[Any]], Any], operation: str, partitions: Sequence[int] | None = None) -> list[Any]:
        check_on_driver(operation)
        return self._runner.run_job(self._node, fn, partitions, operation=operation, call_site=find_call_site())

    def _on_driver(
        self, operation: str, *, merge: Callable[[Any, Any], Any] | None = None, key: Callable[[Any], Any] | None = None
    ) -> OnDriver:
        """Around what an action does with its results by functions of the user's: those named, and what rows do by themselves."""
        return OnDriver(operation, find_call_site(), merge=merge, key=key)
