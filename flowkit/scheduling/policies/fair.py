"""FAIR: pools share the cluster by weight; within a pool first come, first served. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from flowkit.abc import Share, TaskSetView
from flowkit.scheduling.policies.pools import Pool, PoolTree, checked_wait, pool_of, pools_of


class Fair:
    """Every pool that has something to do gets its part of the slots; what one leaves unused the others have.

    A pool below its part is served first, and its tasks go ahead of what others have queued at executors: they wait for one task to end at
    most.

    Parameters
    ----------
    pools
        By name: a weight, a ``Pool``, or its fields. A job of a pool that is not among them has weight 1.
    preempt_after_s
        A task of a pool below its part that has waited so long at an executor has the newest task of another killed there, which runs
        again; None: nothing that runs is stopped.

    Notes
    -----
    Max-min fairness by weight, as Spark's FAIR scheduler has it, with pools in pools.

    Examples
    --------
    >>> Fair({"adhoc": 2, "batch": 1})
    Fair(adhoc, batch)
    """

    def __init__(self, pools: Mapping[str, Any] | None = None, *, preempt_after_s: float | None = None) -> None:
        self.preempt_after_s = checked_wait(preempt_after_s)
        self._pools: dict[str, Pool] = pools_of(pools or {})

    def __repr__(self) -> str:
        return f"Fair({', '.join(self._pools)})"

    @property
    def pool_names(self) -> tuple[str, ...]:
        """Those that are described."""
        return tuple(self._pools)

    def order(self, candidates: Sequence[TaskSetView]) -> Sequence[TaskSetView]:
        """Those of the pool first that has least for its weight; of one pool the oldest job first."""
        tree = PoolTree(self._pools, candidates)

        def need(task_set: TaskSetView) -> tuple[float, ...]:
            parts: list[float] = []
            for name in tree.lineage(pool_of(task_set)):
                pool = tree.pool(name)
                running = tree.running(name)
                starved = running < pool.min_share
                parts += (not starved, running / (pool.min_share if starved else pool.weight))
            return (*parts, task_set.job, task_set.stage)

        return sorted(candidates, key=need)

    def shares(self, candidates: Sequence[TaskSetView], slots: int) -> Sequence[Share]:
        """What each may claim ahead of others: as much as its pool is below its part."""
        tree = PoolTree(self._pools, candidates)
        names = [pool_of(each) for each in candidates]
        parts = tree.fair_shares(slots)
        whole = {name: int(parts[name] + 1e-9) for name in names}
        # Slots that no pool has a right to whole go to those that use least of what they have a right to: by turns, that is.
        left = min(slots, round(sum(parts[name] for name in whole))) - sum(whole.values())
        for name in sorted(
            (each for each in whole if parts[each] > whole[each]), key=lambda each: tree.running(each) / parts[each]
        ):
            if left <= 0:
                break
            whole[name] += 1
            left -= 1
        return [
            Share(max(0, whole[name] - tree.running(name)), surplus=max(0, tree.running(name) - ceil(parts[name])))
            for name in names
        ]
