"""Whoever asks gets what is free: for small machines and few tasks at a time. Pure; see ``abc.MemoryPool``."""

from __future__ import annotations

from dataclasses import dataclass

from flowkit.storage.memory.account import Account


@dataclass(frozen=True, slots=True)
class OnDemandMemory:
    """First come, first served: a task may have all that is free, and all that cached blocks hold. No shares, no region of the cache's own.

    Examples
    --------
    >>> from flowkit.model.ids import AttemptId
    >>> pool = OnDemandMemory().pool(1_000)
    >>> pool.open_task(AttemptId(1))
    >>> pool.open_task(AttemptId(2))
    >>> pool.grant(AttemptId(1), 900), pool.grant(AttemptId(2), 900)
    (900, 100)
    """

    def pool(self, total_bytes: int) -> OnDemandPool:
        """The account of one executor; see ``abc.MemoryManager``."""
        return OnDemandPool(total_bytes)


class OnDemandPool(Account):
    """See ``OnDemandMemory``: nothing is decided beyond what is free."""

    __slots__ = ()
