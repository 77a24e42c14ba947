"""The listener bus: order, isolation, bounds."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from flowkit.model.events import JobEnd
from flowkit.observe.bus import ListenerBus


def event(number: int) -> JobEnd:
    return JobEnd("app-1", number, "succeeded", time=float(number))


class Recorder:
    def __init__(self) -> None:
        self.heard: list[int] = []
        self.threads: set[str] = set()

    def on_event(self, event) -> None:
        self.heard.append(event.job)
        self.threads.add(threading.current_thread().name)


class Blocked(Recorder):
    """Hears the first event and does not come back until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.go = threading.Event()

    def on_event(self, event) -> None:
        super().on_event(event)
        self.entered.set()
        assert self.go.wait(20)


class Broken(Recorder):
    def on_event(self, event) -> None:
        super().on_event(event)
        raise ValueError("a listener's own bug")


def test_every_listener_hears_every_event_in_order():
    first, second = Recorder(), Recorder()
    with ListenerBus() as bus:
        bus.add_listener(first)
        bus.add_listener(second, queue="log")
        for start in range(0, 1_000, 10):
            bus.post([event(number) for number in range(start, start + 10)])
        bus.wait_until_empty(20)
        assert first.heard == second.heard == list(range(1_000))
        assert first.threads == {"flowkit listeners shared"}
        assert second.threads == {"flowkit listeners log"}


def test_events_before_the_start_wait_for_it():
    bus, recorder = ListenerBus(), Recorder()
    bus.post([event(0)])
    bus.add_listener(recorder)
    bus.post([event(1)])
    assert recorder.heard == []
    bus.start()
    bus.wait_until_empty(20)
    assert recorder.heard == [0, 1]
    bus.close()


def test_a_slow_listener_delays_neither_the_poster_nor_other_queues():
    slow, quick = Blocked(), Recorder()
    with ListenerBus() as bus:
        bus.add_listener(slow, queue="slow")
        bus.add_listener(quick)
        before = time.monotonic()
        bus.post([event(number) for number in range(100)])
        assert slow.entered.wait(20)
        while bus.statistics()["shared"].waiting_count:
            pass
        assert quick.heard == list(range(100))
        with pytest.raises(TimeoutError, match="'slow'"):
            bus.wait_until_empty(0.01)
        assert time.monotonic() - before < 10
        slow.go.set()
        bus.wait_until_empty(20)
        assert slow.heard == list(range(100))


def test_a_full_queue_drops_counts_and_warns_once_a_minute(caplog):
    now = [1_000.0]
    slow = Blocked()
    bus = ListenerBus(capacity=10, clock=lambda: now[0])
    bus.add_listener(slow)
    bus.start()
    with caplog.at_level(logging.WARNING, logger="flowkit.observe.bus"):
        bus.post([event(number) for number in range(15)])
        bus.post([event(15)])
        now[0] += 59
        bus.post([event(16)])
        assert [record.getMessage() for record in caplog.records] == [
            "listener queue 'shared' is full (listener_queue_capacity = 10): 5 events dropped since the last warning, 5 in all"
        ]
        now[0] += 1
        bus.post([event(17)])
        assert caplog.records[1].getMessage().endswith("3 events dropped since the last warning, 8 in all")
    assert bus.statistics()["shared"].dropped_count == 8
    slow.go.set()
    bus.wait_until_empty(20)
    assert slow.heard == list(range(10))
    bus.post([event(18)])
    bus.close()
    assert slow.heard[-1] == 18


def test_a_listener_that_raises_is_logged_and_stays(caplog):
    broken, sound = Broken(), Recorder()
    with ListenerBus() as bus, caplog.at_level(logging.ERROR, logger="flowkit.observe.bus"):
        bus.add_listener(broken)
        bus.add_listener(sound)
        bus.post([event(0), event(1)])
        bus.wait_until_empty(20)
        assert broken.heard == sound.heard == [0, 1]
        assert bus.statistics()["shared"].error_count == 2
    assert "a listener's own bug" in caplog.text


@pytest.mark.parametrize("leaving", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_listener_that_raises_more_than_errors_costs_itself_one_event(leaving, caplog):
    class Leaving(Recorder):
        def on_event(self, event) -> None:
            raise leaving

        def on_idle(self) -> None:
            raise leaving

    sound = Recorder()
    with ListenerBus() as bus, caplog.at_level(logging.CRITICAL + 1, logger="flowkit.observe.bus"):
        bus.add_listener(Leaving())
        bus.add_listener(sound)
        for number in range(3):
            bus.post([event(number)])
            bus.wait_until_empty(20)
        assert sound.heard == [0, 1, 2]
        assert bus.statistics()["shared"].error_count >= 3


def test_a_removed_listener_hears_nothing_more():
    recorder, other = Recorder(), Recorder()
    with ListenerBus() as bus:
        bus.add_listener(recorder)
        bus.add_listener(other)
        bus.post([event(0)])
        bus.wait_until_empty(20)
        bus.remove_listener(recorder)
        bus.remove_listener(Recorder())
        bus.post([event(1)])
        bus.wait_until_empty(20)
        assert (recorder.heard, other.heard) == ([0], [0, 1])


def test_close_delivers_what_was_posted_and_leaves_no_thread():
    recorder = Recorder()
    bus = ListenerBus()
    bus.add_listener(recorder)
    bus.start()
    bus.post([event(number) for number in range(500)])
    bus.close()
    bus.close()
    bus.post([event(500)])
    assert recorder.heard == list(range(500))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("flowkit listeners")]


def test_close_does_not_wait_for_ever_for_a_listener_that_hangs():
    slow = Blocked()
    bus = ListenerBus()
    bus.add_listener(slow)
    bus.start()
    bus.post([event(0)])
    assert slow.entered.wait(20)
    bus.close(timeout_s=0.05)
    slow.go.set()


def test_posters_on_many_threads_lose_nothing_and_each_stays_in_order():
    recorder, other = Recorder(), Recorder()
    with ListenerBus(capacity=100_000) as bus:
        bus.add_listener(recorder)
        bus.add_listener(other, queue="log")
        threads = [
            threading.Thread(target=lambda first=first: [bus.post([event(first + number)]) for number in range(500)])
            for first in (0, 1_000, 2_000, 3_000)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        bus.wait_until_empty(20)
    assert recorder.heard == other.heard
    for first in (0, 1_000, 2_000, 3_000):
        assert [number for number in recorder.heard if first <= number < first + 1_000] == list(range(first, first + 500))


class Gathering(Recorder):
    """Counts what it had heard whenever nothing more was waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.idle_after: list[int] = []

    def on_idle(self) -> None:
        self.idle_after.append(len(self.heard))


def test_a_listener_is_told_when_its_queue_has_run_empty():
    gathering = Gathering()
    with ListenerBus() as bus:
        bus.add_listener(gathering)
        bus.post([event(number) for number in range(5)])
        bus.wait_until_empty(10)
        bus.post([event(5)])
        bus.wait_until_empty(10)
    assert gathering.heard == list(range(6))
    assert gathering.idle_after[-1] == 6
    assert 5 in gathering.idle_after
