"""Partitions of a Dask bag, computed inside tasks. Runs on slot threads; the graphs are cut on the driver."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from flowkit.errors import InvalidArgument

#: what one partition of a bag takes: its tasks, and the one to begin with
BagPartition = tuple[dict[Any, Any], Any]


def partitions_of_bag(bag: Any) -> list[BagPartition]:
    """Each partition's own part of the bag's optimised graph.

    Raises
    ------
    errors.InvalidArgument
        The bag was persisted: its partitions are results that a cluster of Dask's holds, not recipes.
    """
    from dask.optimization import cull

    keys, graph = bag.__dask_keys__(), bag.__dask_graph__()
    if any(type(task).__module__.partition(".")[0] == "distributed" for task in dict(graph).values()):
        raise InvalidArgument(
            "the bag was persisted on a Dask cluster, so it has no recipe any more; hand in the bag it was made from, or "
            "parallelize(bag.compute())",
            name="bag",
            value=repr(bag),
            allowed="a bag that was not persisted",
        )
    graph = dict(bag.__dask_optimize__(graph, keys))
    return [(dict(cull(graph, [key])[0]), key) for key in keys]  # type: ignore[no-untyped-call]


def compute_bag_partitions(parts: Iterator[BagPartition]) -> Iterator[Any]:
    """Rows of partitions, computed in this thread."""
    from dask.local import get_sync

    return chain.from_iterable(get_sync(graph, key) for graph, key in parts)
