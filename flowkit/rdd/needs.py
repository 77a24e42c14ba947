"""What tasks need of their executors: several slots, GPUs, or one another. Runs on the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flowkit.errors import InvalidArgument
from flowkit.lineage.kernels import MapPartitions
from flowkit.model.advice import Advising, public
from flowkit.model.resources import DEFAULT_PROFILE, ResourceProfile, resource_profile
from flowkit.rdd.base import Base
from flowkit.rdd.checks import check_callable, check_on_driver

if TYPE_CHECKING:
    from typing import Self

    from flowkit.rdd.rdd import RDD

T = TypeVar("T")
U = TypeVar("U")


class Needs(Base[T]):
    """Resources and barriers."""

    __slots__ = ()

    def with_resources(self, *, cpus: int = 1, memory_bytes: int = 0, **amounts: float) -> Self:
        """Say what a task that computes this RDD takes: slots, memory, and named resources.

        The whole stage that computes it runs so, from its last shuffle or source to its next shuffle or action.

        Parameters
        ----------
        cpus
            Slots of one executor, 1 or more: for functions that run threads of their own.
        memory_bytes
            What the functions of a task hold at its peak, in bytes: no more of them run beside one another than what tasks may use on an
            executor (the setting ``memory_fraction``) has room for. A hint: what a task really takes is watched as ever.
        amounts
            By name (``GPU`` is ``gpu``), whole numbers of 1 or more, or a part from 0.001 to 0.5: with ``gpu=0.25`` four tasks share an
            address. Executors have what Dask's workers were started with (``--resources gpu=2``), or what the setting ``resources`` says.

        Returns
        -------
        RDD
            This very RDD.

        Raises
        ------
        errors.InvalidArgument
            A value out of range, or this RDD has other needs already. At an action: two RDDs of one stage have different ones.

        Notes
        -----
        Cost: nothing at the call. A task is launched when all it needs is free; its addresses are in ``TaskContext.get().resources``, and
        for ``gpu`` in the variable ``CUDA_VISIBLE_DEVICES`` where an executor runs one task at a time. What no executor has ends the job
        after ``no_executor_timeout_s``, with what there is.

        Examples
        --------
        >>> heavy = fc.range(4, num_partitions=2).map(lambda x: x * x).with_resources(memory_bytes=1_000_000)
        >>> heavy.sum()
        14
        """
        check_on_driver("RDD.with_resources()")
        profile = resource_profile(cpus, dict(amounts), memory_bytes)
        node = self._node
        with self._runner.changing():
            known = node.profile
            if known is not None and known != profile:
                raise InvalidArgument(
                    f"{node.label} needs {known} already, not {profile}", name="cpus", value=cpus, allowed=str(known)
                )
            node.change(profile=profile)
        return self

    @property
    def resource_profile(self) -> ResourceProfile:
        """What ``with_resources`` said; a slot, where it was not called."""
        return self._node.profile or DEFAULT_PROFILE

    def barrier(self) -> BarrierRDD[T]:
        """Compute the next step in tasks that all run at once and may wait for one another, as distributed training does.

        Returns
        -------
        BarrierRDD
            With ``map_partitions`` alone.

        Notes
        -----
        Cost: nothing at the call. The stage is launched when there are slots for all its tasks, or not at all: jobs behind it wait until it
        was. One that fails has all of them run again.

        Examples
        --------
        >>> from flowkit import TaskContext
        >>> def ranks(rows):
        ...     context = TaskContext.get()
        ...     context.barrier()
        ...     return [(context.partition_id, context.all_gather(sum(rows)))]
        >>> fc.range(4, num_partitions=1).barrier().map_partitions(ranks).collect()
        [(0, [6])]
        """
        return BarrierRDD(self)


@public("BarrierRDD")
class BarrierRDD(Generic[T], metaclass=Advising):
    """An RDD whose next step runs in all partitions at once."""

    __slots__ = ("_rdd",)

    def __init__(self, rdd: Needs[T]) -> None:
        self._rdd = rdd

    def map_partitions(self, fn: Callable[[Iterator[T]], Iterable[U]], *, preserves_partitioning: bool = False) -> RDD[U]:
        """As ``RDD.map_partitions``; inside ``fn`` there are ``TaskContext.barrier`` and ``all_gather``.

        Notes
        -----
        Cost: narrow, no job; as many slots as there are partitions, at once.
        """
        return self._made(fn, "map_partitions", indexed=False, keeps=preserves_partitioning)  # type: ignore[no-any-return]

    def map_partitions_with_index(
        self, fn: Callable[[int, Iterator[T]], Iterable[U]], *, preserves_partitioning: bool = False
    ) -> RDD[U]:
        """As ``RDD.map_partitions_with_index``; see ``map_partitions``.

        Notes
        -----
        Cost: narrow, no job; as many slots as there are partitions, at once.
        """
        return self._made(fn, "map_partitions_with_index", indexed=True, keeps=preserves_partitioning)  # type: ignore[no-any-return]

    def _made(self, fn: Callable[..., Any], operation: str, *, indexed: bool, keeps: bool) -> Any:
        check_callable("fn", fn)
        made = self._rdd._narrow(MapPartitions(fn, indexed=indexed), f"barrier().{operation}", keeps_partitioner=keeps)
        made._node.change(barrier=True)
        return made

    def __repr__(self) -> str:
        return f"<barrier of {self._rdd!r}>"
