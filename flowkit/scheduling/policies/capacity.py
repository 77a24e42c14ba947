"""CAPACITY: each queue has a part of the cluster that is always its own, and one that it never exceeds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowkit.abc import Share, TaskSetView
from flowkit.errors import ConfigError
from flowkit.scheduling.policies.pools import Pool, PoolTree, checked_wait, pool_of, pools_of


class Capacity:
    """A queue may borrow what others do not use, up to its maximum, and gives it back by starting nothing new while they need it.

    A guarantee is met when as many of the borrower's tasks have ended.

    Parameters
    ----------
    queues
        By name: a guaranteed part of the cluster from 0 to 1, a ``Pool``, or its fields (``guarantee``, ``maximum``). All guarantees
        together are 1 at most. A job of another queue is guaranteed nothing.
    preempt_after_s
        As of ``Fair``.

    Examples
    --------
    >>> Capacity({"interactive": 0.3, "batch": {"guarantee": 0.5, "maximum": 0.8}})
    Capacity(interactive, batch)
    """

    def __init__(self, queues: Mapping[str, Any] | None = None, *, preempt_after_s: float | None = None) -> None:
        self.preempt_after_s = checked_wait(preempt_after_s)
        described = {
            name: each if isinstance(each, Pool | Mapping) else {"guarantee": each} for name, each in (queues or {}).items()
        }
        self._queues: dict[str, Pool] = pools_of(described)
        for name, queue in self._queues.items():
            if queue.parent:
                raise ConfigError(
                    f"queue {name!r} lies in {queue.parent!r}: queues of this policy lie side by side; pools of `fair` may lie in one another",
                    setting="pools",
                    value=queue.parent,
                )
        total = sum(queue.guarantee for queue in self._queues.values())
        if total > 1 + 1e-9:
            raise ConfigError(f"guarantees of all queues are {total:g} together: must be 1 at most", setting="pools", value=total)

    def __repr__(self) -> str:
        return f"Capacity({', '.join(self._queues)})"

    @property
    def pool_names(self) -> tuple[str, ...]:
        """Queues that are described."""
        return tuple(self._queues)

    def order(self, candidates: Sequence[TaskSetView]) -> Sequence[TaskSetView]:
        """Those of the queue first that uses least of its guarantee; of one queue the oldest job first."""
        tree = PoolTree(self._queues, candidates)

        def need(task_set: TaskSetView) -> tuple[float, int, int]:
            name = pool_of(task_set)
            guarantee = (self._queues.get(name) or Pool()).guarantee
            return (tree.running(name) / max(guarantee, 1e-6), task_set.job, task_set.stage)

        return sorted(candidates, key=need)

    def shares(self, candidates: Sequence[TaskSetView], slots: int) -> Sequence[Share]:
        """What each may claim ahead of others, and how many more it may start at most."""
        tree = PoolTree(self._queues, candidates)
        own, most = tree.guarantees(slots), tree.maxima(slots)
        found = []
        for name in map(pool_of, candidates):
            running = tree.running(name)
            claimed = max(0, int(own[name]) - running) if name in self._queues else 0
            beyond = max(0, running - int(own[name])) if name in self._queues else running
            found.append(Share(claimed, max(0, most[name] - running), beyond))
        return found
