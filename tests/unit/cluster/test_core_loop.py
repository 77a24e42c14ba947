import logging
import time

from flowkit.cluster.core_loop import CoreLoop
from flowkit.scheduling.actions import JobSucceeded
from flowkit.scheduling.stimuli import LeaseRenewed, Tick


class Timer:
    def __init__(self, at, callback):
        self.at, self.callback, self.cancelled = at, callback, False

    def cancel(self):
        self.cancelled = True


class Loop:
    """An event loop under a fake clock."""

    def __init__(self):
        self.now, self.soon, self.timers = 0.0, [], []

    def call_soon(self, callback):
        self.soon.append(callback)

    def call_later(self, delay, callback):
        timer = Timer(self.now + delay, callback)
        self.timers.append(timer)
        return timer

    def turn(self):
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()
        return len(soon)

    def advance(self, seconds):
        self.now += seconds
        due = [t for t in self.timers if t.at <= self.now and not t.cancelled]
        self.timers = [t for t in self.timers if t.at > self.now and not t.cancelled]
        for timer in due:
            timer.callback()
        while self.turn():
            pass


class Core:
    def __init__(self):
        self.batches, self.wakeup, self.raises = [], None, False

    def handle_all(self, stimuli, now):
        if self.raises:
            raise ValueError("broken")
        self.batches.append(list(stimuli))
        return [JobSucceeded("app", len(self.batches))]

    def next_wakeup(self):
        return self.wakeup


def make():
    loop, core, done, failed, settled = Loop(), Core(), [], [], []
    core_loop = CoreLoop(
        core,
        perform=done.append,
        settled=lambda: settled.append(len(done)),
        failed=lambda stimulus, error: failed.append((stimulus, str(error))),
        clock=lambda: loop.now,
        loop=loop,
    )
    return loop, core, core_loop, done, failed, settled


def test_stimuli_of_one_turn_are_one_batch_and_settle_once():
    loop, core, core_loop, done, _, settled = make()
    for name in "abc":
        core_loop.submit(LeaseRenewed(name))
    assert loop.turn() == 1
    assert core.batches == [[LeaseRenewed("a"), LeaseRenewed("b"), LeaseRenewed("c")]]
    assert len(done) == 1 and settled == [1]


def test_the_core_is_woken_when_it_asked_for_it_and_not_before():
    loop, core, core_loop, *_ = make()
    core.wakeup = 5.0
    core_loop.submit(LeaseRenewed("a"))
    loop.turn()
    loop.advance(4.9)
    assert len(core.batches) == 1
    loop.advance(0.2)
    assert core.batches[1] == [Tick()]


def test_an_earlier_wake_up_replaces_a_later_one():
    loop, core, core_loop, *_ = make()
    core.wakeup = 100.0
    core_loop.submit(LeaseRenewed("a"))
    loop.turn()
    core.wakeup = 1.0
    core_loop.submit(LeaseRenewed("a"))
    loop.turn()
    core.wakeup = None
    core.wakeup = 1.0
    loop.advance(1.5)
    assert core.batches[-1] == [Tick()]


def test_a_core_that_raises_is_reported_for_each_stimulus_and_goes_on():
    loop, core, core_loop, done, failed, _ = make()
    core.raises = True
    core_loop.submit(LeaseRenewed("a"))
    loop.turn()
    assert failed == [(LeaseRenewed("a"), "broken")] and done == []
    core.raises = False
    core_loop.submit(LeaseRenewed("b"))
    loop.turn()
    assert len(done) == 1


def test_nothing_is_handled_after_close():
    loop, core, core_loop, *_ = make()
    core_loop.submit(LeaseRenewed("a"))
    core_loop.close()
    loop.turn()
    assert core.batches == []


def test_a_flood_is_handled_in_several_batches():
    loop, core, core_loop, *_ = make()
    for n in range(1_000):
        core_loop.submit(LeaseRenewed(str(n)))
    while loop.turn():
        pass
    assert len(core.batches) > 1
    assert [s.app for batch in core.batches for s in batch] == [str(n) for n in range(1_000)]


def test_a_slice_that_takes_long_is_told_of_once_a_minute(monkeypatch, caplog):
    loop, core, core_loop, *_ = make()
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def take(seconds):
        monkeypatch.setattr(core, "handle_all", lambda stimuli, now: clock.__setitem__(0, clock[0] + seconds) or [])
        core_loop.submit(LeaseRenewed("app"))
        loop.turn()

    with caplog.at_level(logging.WARNING, "flowkit.cluster"):
        for seconds in (0.5, 1.5, 2.0):
            take(seconds)
        clock[0] += 60
        take(3.0)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "busy for 1.5 s" in told[0]
    assert "busy for 3.0 s" in told[1]
    assert "a policy of one's own that waits" in told[0]
