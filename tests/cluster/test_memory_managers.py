"""Executors hold to the memory manager that a driver's configuration brings, by name or as an object."""

from __future__ import annotations

import pytest

import flowkit as fk
from flowkit.errors import ConfigError
from flowkit.model.memory import NOTHING_SAID
from flowkit.storage.memory.account import Account

pytestmark = pytest.mark.cluster


class Stingy:
    """Twenty lines that give every task next to nothing, so that everything is spilled."""

    def pool(self, total_bytes):
        return StingyPool(total_bytes)


class StingyPool(Account):
    __slots__ = ()

    def open_task(self, task, properties=NOTHING_SAID):
        Account.open_task(self, task)

    def _may_grant(self, task):
        return (1 << 20) - self.by_task[task]


def grouped(fc):
    return (
        fc.range(60_000, num_partitions=2).map(lambda x: (x % 20_000, str(x) * 5)).group_by_key(2).map_values(len).values().sum()
    )


@pytest.mark.parametrize(
    "manager, spills",
    [("unified", False), ("on_demand", False), (Stingy(), True), (fk.QuotaMemory({"blue": 0.001}), False)],
    ids=["unified", "on_demand", "own", "quota"],
)
def test_the_answer_is_the_same_and_memory_is_the_managers(manager, spills):
    config = fk.Config.builder().with_memory_manager(manager).with_settings(progress="off").build()
    with fk.Context(workers=1, config=config) as fc:
        assert grouped(fc) == 60_000
        fc.wait_for_listeners()
        assert (fc.status.summary().spilled_bytes > 0) == spills


def test_a_tenants_quota_holds_for_jobs_that_say_whose_they_are():
    with fk.Context(workers=1, progress="off", memory_manager=fk.QuotaMemory({"blue": 0.00001})) as fc:
        with fc.job(properties={"tenant": "blue"}):
            assert grouped(fc) == 60_000
        fc.wait_for_listeners()
        assert fc.status.summary().spilled_bytes > 0


def test_a_name_that_nobody_offers_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match=r"memory_manager = 'endless'.*unified \(built in\), on_demand \(built in\)"):
        fk.Context(workers=1, progress="off", memory_manager="endless")
