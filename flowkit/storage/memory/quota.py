"""Hard quotas for tenants: what one does not use, another does not get. Pure; see ``abc.MemoryPool``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from flowkit.errors import InvalidArgument
from flowkit.model.ids import AttemptId
from flowkit.model.memory import NOTHING_SAID, check_fraction
from flowkit.storage.memory.account import Account

_REST: Final = ""


@dataclass(frozen=True, slots=True)
class QuotaMemory:
    """Tasks of each tenant have a part of the budget that no other tenant can take, and cached blocks have theirs.

    Parameters
    ----------
    quotas
        By tenant, its part of the budget; together with ``storage`` at most 1. What is left is for tasks of all others.
    storage
        Cached blocks' part; tasks never take it.
    tenant_property
        The property of a job that names its tenant (``fc.job(properties={"tenant": "blue"})``).

    Examples
    --------
    >>> pool = QuotaMemory({"blue": 0.5}, storage=0.25).pool(1_000)
    >>> pool.open_task(AttemptId(1), {"tenant": "blue"})
    >>> pool.open_task(AttemptId(2), {})
    >>> pool.grant(AttemptId(1), 900), pool.grant(AttemptId(2), 900)
    (500, 250)
    """

    quotas: Mapping[str, float]
    storage: float = 0.25
    tenant_property: str = "tenant"

    def __post_init__(self) -> None:
        check_fraction("storage", self.storage)
        for tenant, part in self.quotas.items():
            if not tenant or not isinstance(tenant, str):
                raise InvalidArgument(
                    f"tenant {tenant!r}: must be a str that is not empty", name="quotas", value=tenant, allowed="a str"
                )
            check_fraction(f"quotas[{tenant!r}]", part)
        together = sum(self.quotas.values()) + self.storage
        if together > 1 + 1e-9:
            raise InvalidArgument(
                f"quotas and storage are {together:g} of the memory together",
                name="quotas",
                value=self.quotas,
                allowed="at most 1",
            )

    def pool(self, total_bytes: int) -> QuotaPool:
        """The account of one executor; see ``abc.MemoryManager``."""
        limits = {tenant: int(part * total_bytes) for tenant, part in self.quotas.items()}
        storage_limit = int(self.storage * total_bytes)
        limits[_REST] = total_bytes - storage_limit - sum(limits.values())
        return QuotaPool(total_bytes, limits=limits, storage_limit=storage_limit, tenant_property=self.tenant_property)


@dataclass(slots=True)
class QuotaPool(Account):
    """See ``QuotaMemory``. Tasks of one tenant share its quota evenly."""

    limits: dict[str, int] = field(default_factory=dict)
    storage_limit: int = 0
    tenant_property: str = "tenant"
    _tenants: dict[AttemptId, str] = field(default_factory=dict)

    def open_task(self, task: AttemptId, properties: Mapping[str, str] = NOTHING_SAID) -> None:
        """A task counts from now on, for its tenant."""
        Account.open_task(self, task)
        tenant = properties.get(self.tenant_property, _REST)
        self._tenants[task] = tenant if tenant in self.limits else _REST

    def close_task(self, task: AttemptId) -> int:
        """The task is over."""
        self._tenants.pop(task, None)
        return Account.close_task(self, task)

    def _may_grant(self, task: AttemptId) -> int:
        tenant = self._tenants[task]
        siblings = [each for each, whose in list(self._tenants.items()) if whose == tenant]
        used = sum(self.by_task[each] for each in siblings)
        limit = self.limits[tenant]
        return min(limit // len(siblings) - self.by_task[task], limit - used)

    def _may_store(self) -> int:
        return self.storage_limit - self.storage_bytes

    def _may_evict(self) -> int:
        return 0
