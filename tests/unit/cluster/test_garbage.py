"""What the collector need not look through again, and where it still must."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from flowkit.cluster.garbage import spare_what_stays

IDLE, BUSY = SimpleNamespace(tasks={}), SimpleNamespace(tasks={"x": object()})


@pytest.fixture(autouse=True)
def thaw() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_in_a_process_of_its_own_a_scheduler_keeps_what_it_has():
    before = gc.get_freeze_count()
    assert spare_what_stays(IDLE)
    assert gc.get_freeze_count() > before


def test_while_dask_has_tasks_their_remains_must_be_collected():
    before = gc.get_freeze_count()
    assert not spare_what_stays(BUSY)
    assert gc.get_freeze_count() == before


def test_beside_somebody_elses_program_nothing_is_changed():
    spared: list[bool] = []
    thread = threading.Thread(target=lambda: spared.append(spare_what_stays(IDLE)))
    thread.start()
    thread.join()
    assert spared == [False]
