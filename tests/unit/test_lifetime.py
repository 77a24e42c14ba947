"""When a Context gives back what it holds."""

from __future__ import annotations

import gc
import multiprocessing.util
import os
import sys
import threading
import weakref
from types import SimpleNamespace

import pytest

from flowkit.errors import ClusterError, DriverOnly, StartupError
from flowkit.lifetime import Lifetime, check_not_ending
from flowkit.testing.inline import inline_context

CLOSER = "flowkit closes"


class Part:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.closed_by = []

    def close(self) -> None:
        self.closed_by.append(threading.current_thread().name)
        if self.error is not None:
            raise self.error


class Owner:
    pass


def join_closers() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith(CLOSER):
            thread.join(10.0)


def test_parts_are_closed_once_and_in_order_though_one_fails():
    lifetime, order = Lifetime(), []
    parts = [Part(), Part(OSError("disk")), Part()]
    for part in parts:
        lifetime.holds(part)
        part.closed_by = order
    with pytest.raises(OSError, match="disk"):
        lifetime.close()
    assert len(order) == 3
    assert lifetime.is_over
    assert lifetime.close() is False
    assert len(order) == 3


def test_what_an_unreferenced_owner_held_is_closed_on_a_thread_of_its_own():
    lifetime, part, owner = Lifetime(), Part(), Owner()
    lifetime.holds(part)
    lifetime.ends_with(owner)
    assert not part.closed_by
    del owner
    join_closers()
    assert part.closed_by == ["flowkit closes an unreferenced Context"]


def test_an_owner_may_go_while_its_thread_holds_the_lock_of_threading():
    """A garbage collector runs anywhere: also inside of what starts threads."""
    lifetime, part, owner = Lifetime(), Part(), Owner()
    lifetime.holds(part)
    lifetime.ends_with(owner)
    with threading._active_limbo_lock:
        del owner
    join_closers()
    assert part.closed_by


def test_a_failing_part_of_an_unreferenced_owner_is_a_line_in_the_log(caplog):
    lifetime, owner = Lifetime(), Owner()
    lifetime.holds(Part(OSError("disk")))
    lifetime.ends_with(owner)
    del owner
    join_closers()
    assert [record.getMessage() for record in caplog.records] == [
        "a Context that nothing referred to any more did not close well"
    ]


def test_the_fork_of_a_driver_closes_nothing_of_its_parent(monkeypatch):
    lifetime, part = Lifetime(), Part()
    lifetime.holds(part)
    here = os.getpid()
    monkeypatch.setattr("os.getpid", lambda: here + 1)
    assert lifetime.close() is False
    monkeypatch.undo()
    assert not part.closed_by
    assert lifetime.close()


class Met:
    def __init__(self) -> None:
        self.disowned = 0

    def disown(self) -> None:
        self.disowned += 1


def test_in_a_fork_it_is_over_and_every_part_that_others_meet_there_hears_of_it_once():
    lifetime, part, met = Lifetime(), Part(), Met()
    both = type("Both", (Part, Met), {"disowned": 0})()
    for each in (part, both):
        lifetime.holds(each)
    lifetime.is_met(met)
    lifetime.disown()
    lifetime.disown()
    assert (lifetime.is_over, lifetime.is_elsewhere, met.disowned, both.disowned) == (True, True, 1, 1)
    assert lifetime.close() is False
    assert part.closed_by == both.closed_by == []


def test_what_was_closed_before_a_fork_stays_closed_and_nobodys():
    lifetime, met = Lifetime(), Met()
    lifetime.is_met(met)
    lifetime.close()
    lifetime.disown()
    assert (lifetime.is_over, lifetime.is_elsewhere, met.disowned) == (True, False, 0)


def test_a_context_of_a_parent_is_told_from_a_closed_one(monkeypatch):
    with inline_context() as fc:
        numbers = fc.range(3)
        with monkeypatch.context() as fork:
            for name in ("is_over", "is_elsewhere"):
                fork.setattr(fc._lifetime, name, True)
            with pytest.raises(DriverOnly, match=f"sum.. was called in process .*, a fork of process {os.getpid()} in which"):
                numbers.sum()
            assert "this is a fork of it" in repr(fc)
        assert numbers.sum() == 3
    with pytest.raises(ClusterError, match="is closed"):
        numbers.sum()


def test_nothing_begins_once_the_main_thread_is_over(monkeypatch):
    check_not_ending()
    monkeypatch.setattr("threading.main_thread", lambda: threading.Thread())
    with pytest.raises(StartupError, match="the interpreter is ending"):
        check_not_ending()


def test_a_child_of_multiprocessing_closes_what_is_open_before_it_waits_for_its_children(monkeypatch):
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    lifetimes, parts, owner = [Lifetime(), Lifetime()], [Part(), Part(OSError("disk"))], Owner()
    for lifetime, part in zip(lifetimes, parts, strict=True):
        lifetime.holds(part)
        lifetime.ends_with(owner)
    multiprocessing.util._run_finalizers(1)
    assert [len(part.closed_by) for part in parts] == [1, 1]
    lifetime = Lifetime()
    lifetime.holds(closed := Part())
    lifetime.ends_with(owner)
    lifetime.close()
    multiprocessing.util._run_finalizers(1)
    assert len(closed.closed_by) == 1


def test_a_context_closes_itself_with_the_last_reference_to_it_and_its_rdds():
    fc = inline_context()
    link, this = fc._link, weakref.ref(fc)
    pairs = fc.range(10).map(lambda x: (x % 2, x)).reduce_by_key(max)
    assert pairs.collect_as_map() == {0: 8, 1: 9}
    del fc
    gc.collect()
    assert this() is not None, "an RDD of its is there"
    assert pairs.count() == 2
    gc.disable()  # no ring keeps it: it goes at once
    try:
        del pairs
        assert this() is None
    finally:
        gc.enable()
    join_closers()
    assert link._closed


GIVEN = {
    "broadcast": lambda fc: fc.broadcast([1, 2]),
    "accumulator": lambda fc: fc.accumulator(0),
    "history": lambda fc: fc.history,
    "status": lambda fc: fc.status,
    "jobs": lambda fc: fc.jobs,
    "config": lambda fc: fc.config,
}


@pytest.mark.parametrize("kept", GIVEN)
def test_what_a_context_gave_away_does_not_keep_it_open(kept):
    fc = inline_context()
    this, link = weakref.ref(fc), fc._link
    value = GIVEN[kept](fc)
    del fc
    gc.collect()
    assert this() is None
    join_closers()
    assert link._closed
    assert repr(value)


def test_an_error_that_went_by_keeps_no_context_open():
    fc = inline_context()
    this = weakref.ref(fc)
    with pytest.raises(ZeroDivisionError):
        fc.range(3).map(lambda x: 1 / x).count()
    del fc
    gc.collect()
    assert this() is None
    join_closers()


def test_a_notebooks_kernel_closes_what_is_open_before_it_ends_its_children(monkeypatch):
    order = []

    class Kernel:
        def do_shutdown(self, restart):
            order.append(("kernel", restart))
            return {"status": "ok"}

    class Closes(Part):
        def close(self) -> None:
            order.append("part")
            super().close()

    shell = SimpleNamespace(kernel=Kernel())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    owners, lifetimes = [Owner(), Owner()], [Lifetime(), Lifetime()]
    for owner, lifetime in zip(owners, lifetimes, strict=True):
        lifetime.holds(Closes(ValueError("an error does not keep the kernel")))
        lifetime.ends_with(owner)
    assert shell.kernel.do_shutdown(True) == {"status": "ok"}
    assert order == ["part", "part", ("kernel", True)]
    assert all(lifetime.is_over for lifetime in lifetimes)
