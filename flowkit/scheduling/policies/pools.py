"""Pools: who shares the cluster, and how much of it each may claim. Pure.

A job is of the pool that its property ``flowkit.pool`` names (``with fc.pool("adhoc"):``). Pools may lie in one another; one that nobody
described has weight 1 and lies in none. What a pool leaves unused is there for the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Final

from flowkit.abc import TaskSetView
from flowkit.errors import ConfigError

POOL: Final = "flowkit.pool"
WEIGHT: Final = "flowkit.pool.weight"
PRIORITY: Final = "flowkit.priority"
DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool.

    Parameters
    ----------
    weight
        Its part beside those of its neighbours.
    min_share
        Slots it may claim before anything is shared out by weight.
    parent
        The pool it lies in; empty: none.
    guarantee, maximum
        Parts of the cluster, from 0 to 1, of ``fk.Capacity``: what it may always claim, and what it never exceeds.
    """

    weight: float = 1.0
    min_share: int = 0
    parent: str = ""
    guarantee: float = 0.0
    maximum: float = 1.0

    def __post_init__(self) -> None:
        for name, value, good, allowed in (
            ("weight", self.weight, _is_number(self.weight) and self.weight > 0, "a number above 0"),
            (
                "min_share",
                self.min_share,
                type(self.min_share) is int and self.min_share >= 0,
                "a whole number of slots, 0 or more",
            ),
            (
                "guarantee",
                self.guarantee,
                _is_number(self.guarantee) and 0 <= self.guarantee <= 1,
                "a part of the cluster from 0 to 1",
            ),
            (
                "maximum",
                self.maximum,
                _is_number(self.maximum) and 0 < self.maximum <= 1,
                "a part of the cluster above 0, up to 1",
            ),
            ("parent", self.parent, isinstance(self.parent, str), "a pool's name"),
        ):
            if not good:
                raise ConfigError(f"{name} = {value!r}: must be {allowed}", setting=name, value=value)
        if self.guarantee > self.maximum:
            raise ConfigError(
                f"guarantee = {self.guarantee}: must not be above its maximum = {self.maximum}",
                setting="guarantee",
                value=self.guarantee,
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def pools_of(described: Mapping[str, Any]) -> dict[str, Pool]:
    """Pools from a mapping of names to ``Pool``, weights, or mappings of a pool's fields.

    >>> pools_of({"adhoc": 2, "batch": {"min_share": 1}})["adhoc"].weight
    2
    """
    found = {name: _described(name, each) for name, each in described.items()}
    for name, pool in found.items():
        seen = {name}
        parent = pool.parent
        while parent:
            if parent not in found or parent in seen:
                why = "lies in itself" if parent in seen else f"lies in {parent!r}, which is not described"
                raise ConfigError(f"pool {name!r} {why}", setting="pools", value=name)
            seen.add(parent)
            parent = found[parent].parent
    return found


def _described(name: str, told: Any) -> Pool:
    if isinstance(told, Pool):
        return told
    fields = told if isinstance(told, Mapping) else {"weight": told}
    unknown = [str(each) for each in fields if each not in Pool.__dataclass_fields__]
    if unknown:
        raise ConfigError(
            f"pool {name!r} has no {', '.join(sorted(unknown))}; known: {', '.join(Pool.__dataclass_fields__)}",
            setting="pools",
            value=dict(fields),
        )
    try:
        return Pool(**fields)
    except ConfigError as error:
        # Which of them it is only its name tells.
        raise ConfigError(f"pools[{name!r}]: {error.message}", **error.data) from None


def checked_wait(seconds: float | None) -> float | None:
    """``preempt_after_s``, if it makes sense."""
    if seconds is not None and not (_is_number(seconds) and seconds >= 0):
        raise ConfigError(
            f"preempt_after_s = {seconds!r}: must be a number of seconds, or None", setting="preempt_after_s", value=seconds
        )
    return seconds


#: what a pool is that is not described
_ANY_POOL = Pool()


def pool_of(task_set: TaskSetView) -> str:
    """The name of its pool."""
    return task_set.properties.get(POOL) or DEFAULT


def _weight_in(task_set: TaskSetView) -> float | None:
    """The weight that a job gave its pool; None where it gave none, or one that makes no sense: one job must not fail all others."""
    given = task_set.properties.get(WEIGHT)
    if given is None:
        return None
    try:
        weight = float(given)
    except ValueError:
        return None
    return weight if isfinite(weight) and weight > 0 else None


@dataclass(slots=True)
class _Node:
    pool: Pool
    children: dict[str, _Node] = field(default_factory=dict)
    running: int = 0
    wanted: int = 0
    share: float = 0.0


class PoolTree:
    """Pools with what they run and want now, and the slots each may claim."""

    def __init__(self, pools: Mapping[str, Pool], task_sets: Iterable[TaskSetView]) -> None:
        self._pools = pools
        self._root = _Node(_ANY_POOL)
        self._by_name: dict[str, _Node] = {}
        for task_set in task_sets:
            name = pool_of(task_set)
            node = self._node(name, task_set)
            while node is not None:
                node.running += task_set.running_count
                node.wanted += task_set.running_count + task_set.pending_count
                parent = self._pools[name].parent if name in self._pools else ""
                if not parent:
                    break
                name = parent
                node = self._node(name, None)

    def _node(self, name: str, task_set: TaskSetView | None) -> _Node:
        known = self._by_name.get(name)
        if known is None:
            pool = self._pools.get(name) or _ANY_POOL
            known = self._by_name[name] = _Node(pool)
            above = self._root if not pool.parent else self._node(pool.parent, None)
            above.children[name] = known
        given = None if task_set is None else _weight_in(task_set)
        if given is not None:
            known.pool = replace(known.pool, weight=given)
        return known

    def pool(self, name: str) -> Pool:
        """The pool, with the weight that its jobs may have given it."""
        return self._by_name[name].pool

    def running(self, name: str) -> int:
        """Tasks of a pool and of those in it that are under way."""
        return self._by_name[name].running

    def fair_shares(self, slots: int) -> dict[str, float]:
        """The slots each pool may claim: minimum shares first, the rest by weight, nobody more than it wants (max-min fairness)."""
        self._root.share = slots
        waiting = [self._root]
        for node in waiting:
            _share_out(node.share, list(node.children.values()))
            waiting += node.children.values()
        return {name: node.share for name, node in self._by_name.items()}

    def guarantees(self, slots: int) -> dict[str, float]:
        """The slots that are each pool's own, at least one."""
        return {name: max(1.0, node.pool.guarantee * slots) for name, node in self._by_name.items()}

    def maxima(self, slots: int) -> dict[str, int]:
        """The slots each pool may use at most, at least one."""
        return {name: max(1, int(node.pool.maximum * slots)) for name, node in self._by_name.items()}

    def lineage(self, name: str) -> list[str]:
        """A pool and those it lies in, outermost first."""
        found = [name]
        while name in self._pools and self._pools[name].parent:
            name = self._pools[name].parent
            found.append(name)
        return found[::-1]


def _share_out(slots: float, nodes: Sequence[_Node]) -> None:
    left = slots
    for node in nodes:
        node.share = min(node.wanted, node.pool.min_share, left)
        left -= node.share
    hungry = [node for node in nodes if node.wanted > node.share]
    while hungry and left > 1e-9:
        # Water-filling: who needs less than its part by weight is satisfied first, and what it leaves is shared out again.
        total = sum(node.pool.weight for node in hungry)
        content = [node for node in hungry if node.wanted - node.share <= left * node.pool.weight / total]
        if not content:
            for node in hungry:
                node.share += left * node.pool.weight / total
            return
        for node in content:
            left -= node.wanted - node.share
            node.share = node.wanted
        hungry = [node for node in hungry if node not in content]
