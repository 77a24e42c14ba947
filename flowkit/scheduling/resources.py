"""Memory and addresses of named resources (GPUs and the like) of an executor, and who has them.

Runs in the scheduler process inside ``SchedulerCore``. Dask's own resources are amounts without addresses, so two tasks could not tell
which of two GPUs is whose; these are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from flowkit.model.resources import WHOLE, ResourceProfile

if TYPE_CHECKING:
    from flowkit.scheduling.executors import ExecutorState


class Addresses:
    """One resource of one executor.

    Examples
    --------
    >>> gpus = Addresses(["0", "1"])
    >>> half = ResourceProfile(amounts={"gpu": 0.5})
    >>> [gpus.take(1, half.parts("gpu")) for _ in range(4)]
    [('0',), ('0',), ('1',), ('1',)]
    >>> gpus.can_take(1, half.parts("gpu"))
    False
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        #: parts that nobody has
        self._free = dict.fromkeys(addresses, WHOLE)

    def extend(self, addresses: Sequence[str]) -> None:
        """There are these too, unless they are there already."""
        for address in addresses:
            self._free.setdefault(address, WHOLE)

    def __len__(self) -> int:
        return len(self._free)

    @property
    def names(self) -> tuple[str, ...]:
        """All addresses."""
        return tuple(self._free)

    def can_take(self, count: int, parts: int) -> bool:
        """Whether that many addresses have so much left."""
        return sum(free >= parts for free in self._free.values()) >= count

    def room(self, count: int, parts: int) -> int:
        """How many tasks that need so much of that many addresses could have it at once, if nobody had any."""
        return len(self._free) * (WHOLE // parts) // count

    def take(self, count: int, parts: int) -> tuple[str, ...]:
        """Give so much of that many addresses, of those with least left that suffice."""
        fitting = sorted((address for address, free in self._free.items() if free >= parts), key=self._free.__getitem__)
        assert len(fitting) >= count, f"{self} has not {count} with {parts} left"
        for address in fitting[:count]:
            self._free[address] -= parts
        return tuple(fitting[:count])

    def give_back(self, addresses: Sequence[str], parts: int) -> None:
        """They are free again."""
        for address in addresses:
            self._free[address] += parts
            assert self._free[address] <= WHOLE, f"{address} was given back twice"

    def __repr__(self) -> str:
        return f"<addresses {', '.join(f'{address}: {free / WHOLE:.0%}' for address, free in self._free.items())}>"


def can_ever(profile: ResourceProfile, executor: ExecutorState) -> bool:
    """Whether an executor with nothing to do could run such a task."""
    owned = executor.resources
    return (
        profile.cpus <= executor.slots
        and (not executor.memory_bytes or profile.memory_bytes <= executor.memory_bytes)
        and all(name in owned and len(owned[name]) >= profile.count(name) for name in profile.amounts)
    )


def can_now(profile: ResourceProfile, executor: ExecutorState) -> bool:
    """Whether the memory and the named resources of such a task are free."""
    if executor.memory_bytes and executor.memory_taken + profile.memory_bytes > executor.memory_bytes:
        return False
    owned = executor.resources
    return all(name in owned and owned[name].can_take(profile.count(name), profile.parts(name)) for name in profile.amounts)


def take(profile: ResourceProfile, executor: ExecutorState) -> dict[str, tuple[str, ...]]:
    """Give a task what it needs; returns the addresses."""
    executor.memory_taken += profile.memory_bytes
    return {name: executor.resources[name].take(profile.count(name), profile.parts(name)) for name in profile.amounts}


def give_back(profile: ResourceProfile, taken: Mapping[str, Sequence[str]], executor: ExecutorState) -> None:
    """A task needs it no more."""
    executor.memory_taken -= profile.memory_bytes
    assert executor.memory_taken >= 0, f"memory of {executor} was given back twice"
    for name, addresses in taken.items():
        executor.resources[name].give_back(addresses, profile.parts(name))
