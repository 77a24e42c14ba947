"""Memory pools: the rules that all hold to, and what each one is for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.errors import InvalidArgument
from flowkit.model.ids import AttemptId
from flowkit.model.memory import StorageGrant
from flowkit.storage.memory.account import Account
from flowkit.storage.memory.on_demand import OnDemandMemory
from flowkit.storage.memory.quota import QuotaMemory
from flowkit.storage.memory.unified import UnifiedMemory
from flowkit.testing.memory import check_memory_manager

MANAGERS = [
    UnifiedMemory(),
    UnifiedMemory(storage_fraction=0.0),
    UnifiedMemory(storage_fraction=1.0),
    QuotaMemory({"blue": 0.5, "red": 0.2}),
    QuotaMemory({}, storage=0.0),
    OnDemandMemory(),
]
TENANTS = ({}, {"tenant": "blue"}, {"tenant": "red"}, {"tenant": "unknown"})
ONE, TWO, THREE = AttemptId(1), AttemptId(2), AttemptId(3)


@pytest.mark.parametrize("manager", MANAGERS, ids=repr)
@given(seed=st.integers(0, 1 << 32))
def test_all_hold_to_the_rules(manager, seed):
    check_memory_manager(manager, seed=seed, steps=200, properties=TENANTS)


class Generous(Account):
    __slots__ = ()

    def grant(self, task, wanted_bytes):
        self.by_task[task] += wanted_bytes
        self.execution_bytes += wanted_bytes
        return wanted_bytes


class Forgetful(Account):
    __slots__ = ()

    def release(self, task, size_bytes):
        self.by_task[task] = max(0, self.by_task[task] - size_bytes)


class Partial(Account):
    __slots__ = ()

    def grant_storage(self, size_bytes, grant):
        return Account.grant_storage(self, min(size_bytes, self.free_bytes), grant)


@pytest.mark.parametrize("pool", [Generous, Forgetful, Partial])
def test_one_that_does_not_is_found_out(pool):
    class Manager:
        def pool(self, total_bytes):
            return pool(total_bytes)

    with pytest.raises(AssertionError, match=r"breaks the rule: .* The last steps:"):
        check_memory_manager(Manager())


def opened(manager, *properties, total=1_000):
    pool = manager.pool(total)
    for number, said in enumerate(properties, start=1):
        pool.open_task(AttemptId(number), said)
    return pool


def test_unified_gives_each_of_n_tasks_an_nth():
    pool = opened(UnifiedMemory(), {}, {})
    assert pool.grant(ONE, 1_000) == 500
    assert pool.grant(TWO, 300) == 300
    pool.open_task(THREE, {})
    assert pool.grant(TWO, 1_000) == 33
    assert pool.grant(THREE, 1_000) == 167, "what is free, until others give back"


def test_unified_blocks_borrow_what_tasks_leave_and_give_it_back_down_to_their_region():
    pool = opened(UnifiedMemory(storage_fraction=0.4), {})
    cached = StorageGrant()
    assert pool.grant_storage(900, cached)
    assert pool.eviction_for(ONE, 1_000) == 500
    pool.release_storage(500, cached)
    assert pool.grant(ONE, 1_000) == 600
    assert pool.eviction_for(ONE, 1_000) == 0, "what lies in the region stays"
    assert not pool.grant_storage(1, cached), "and blocks never push a task out"


def test_quotas_are_hard_whoever_is_idle():
    pool = opened(QuotaMemory({"blue": 0.5, "red": 0.2}, storage=0.1), {"tenant": "blue"}, {"tenant": "red"}, {})
    assert [pool.grant(task, 1_000) for task in (ONE, TWO, THREE)] == [500, 200, 200]
    cached = StorageGrant()
    assert not pool.grant_storage(101, cached)
    assert pool.grant_storage(100, cached)
    assert pool.eviction_for(ONE, 1_000) == 0


def test_tasks_of_one_tenant_share_its_quota():
    pool = opened(QuotaMemory({"blue": 0.5}), {"tenant": "blue"}, {"tenant": "blue"})
    assert [pool.grant(task, 1_000) for task in (ONE, TWO)] == [250, 250]
    pool.close_task(ONE)
    assert pool.grant(TWO, 1_000) == 250


def test_on_demand_the_first_gets_all_and_blocks_give_way():
    pool = opened(OnDemandMemory(), {}, {})
    cached = StorageGrant()
    assert pool.grant_storage(400, cached)
    assert pool.eviction_for(ONE, 1_000) == 400
    assert pool.grant(ONE, 1_000) == 600
    assert pool.grant(TWO, 1) == 0


@pytest.mark.parametrize(
    "make, complaint",
    [
        (lambda: UnifiedMemory(storage_fraction=1.5), "storage_fraction = 1.5"),
        (lambda: UnifiedMemory(storage_fraction=True), "storage_fraction = True"),
        (lambda: UnifiedMemory(storage_fraction="half"), "storage_fraction = 'half'"),
        (lambda: QuotaMemory({"blue": -0.1}), r"quotas\['blue'\] = -0.1"),
        (lambda: QuotaMemory({"": 0.1}), "tenant ''"),
        (lambda: QuotaMemory({"blue": 0.6, "red": 0.3}, storage=0.2), "are 1.1 of the memory"),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_said(make, complaint):
    with pytest.raises(InvalidArgument, match=complaint):
        make()
