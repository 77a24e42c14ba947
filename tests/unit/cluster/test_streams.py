import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.cluster import streams
from flowkit.cluster.streams import Channel


class Line:
    """One direction of a bad line under a fake clock: drops, doubles, delays (and so reorders)."""

    def __init__(self, rng, drop, double, delay):
        self.rng, self.drop, self.double, self.delay = rng, drop, double, delay
        self.packets = []
        self.count = 0

    def put(self, packets, now):
        for packet in packets:
            copies = 0 if self.rng.random() < self.drop else 2 if self.rng.random() < self.double else 1
            for _ in range(copies):
                self.count += 1
                self.packets.append((now + self.rng.random() * self.delay, self.count, packet))

    def take(self, now):
        due = sorted(p for p in self.packets if p[0] <= now)
        self.packets = [p for p in self.packets if p[0] > now]
        return [packet for _, _, packet in due]


def run(here, there, to_there, to_here, sends, *, breaks=(), until=600.0):
    """Drive both ends until both are idle; returns what each received, and when it was over."""
    now, got_here, got_there = 0.0, [], []
    pending = sorted(sends, key=lambda s: s[0])
    breaks = list(breaks)
    while now < until:
        while pending and pending[0][0] <= now:
            _, side, body = pending.pop(0)
            (here if side == 0 else there).send(body)
        if breaks and breaks[0] <= now:
            breaks.pop(0)
            to_there.packets.clear()
            to_here.packets.clear()
            here.resynchronise()
            there.resynchronise()
        for packet in to_there.take(now):
            got_there += there.receive(packet, now)
        for packet in to_here.take(now):
            got_here += here.receive(packet, now)
        to_there.put(here.take_packets(now), now)
        to_here.put(there.take_packets(now), now)
        if not pending and not breaks and here.is_idle and there.is_idle:
            return got_here, got_there, now
        times = [t for t in (here.next_wakeup(), there.next_wakeup()) if t is not None]
        times += [p[0] for line in (to_there, to_here) for p in line.packets] + [s[0] for s in pending[:1]] + breaks[:1]
        assert times, "a channel with unacknowledged bodies asks for no wake-up: it would hang"
        now = max(now + 1e-4, min(times))
    raise AssertionError("not settled")


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    drop=st.sampled_from([0.0, 0.1, 0.5]),
    double=st.sampled_from([0.0, 0.3]),
    delay=st.sampled_from([0.0, 0.01, 0.5]),
    sends=st.lists(st.tuples(st.floats(0, 2), st.integers(0, 1), st.binary(max_size=20)), max_size=40),
    breaks=st.lists(st.floats(0, 3), max_size=3),
    window=st.sampled_from([1, 30, 10_000]),
)
def test_every_body_arrives_once_and_in_order_whatever_the_line_does(seed, drop, double, delay, sends, breaks, window):
    rng = random.Random(seed)
    here, there = Channel(window_bytes=window), Channel(window_bytes=window)
    got_here, got_there, _ = run(
        here, there, Line(rng, drop, double, delay), Line(rng, drop, double, delay), sends, breaks=sorted(breaks)
    )
    ordered = sorted(sends, key=lambda s: s[0])
    assert got_there == [body for _, side, body in ordered if side == 0]
    assert got_here == [body for _, side, body in ordered if side == 1]
    assert here.waiting_bytes == there.waiting_bytes == 0


def test_a_single_loss_costs_a_round_trip_not_a_time_out():
    here, there = Channel(resend_after_s=100.0), Channel()
    for body in (b"a", b"b", b"c"):
        here.send(body)
    lost, second, third = here.take_packets(0.0)
    assert there.receive(second, 0.1) == there.receive(third, 0.1) == []
    (naming,) = there.take_packets(0.1)
    assert here.receive(naming, 0.2) == []
    (again,) = here.take_packets(0.2)
    assert there.receive(again, 0.3) == [b"a", b"b", b"c"]


def test_the_last_packet_lost_is_resent_after_the_time_out_and_later_each_time():
    here = Channel(resend_after_s=1.0)
    here.send(b"a")
    assert len(here.take_packets(0.0)) == 1
    assert here.take_packets(0.9) == []
    assert here.next_wakeup() == 1.0
    assert len(here.take_packets(1.0)) == 1
    assert here.next_wakeup() == 3.0


def test_what_is_in_flight_is_bounded_in_bytes_and_the_rest_is_counted_as_waiting():
    here, there = Channel(window_bytes=10), Channel(window_bytes=10)
    for _ in range(4):
        here.send(b"12345")
    packets = here.take_packets(0.0)
    assert len(packets) == 2
    assert here.waiting_bytes == 20
    for packet in packets:
        there.receive(packet, 0.0)
    (ack,) = there.take_packets(0.0)  # half a window arrived: it hurries
    here.receive(ack, 0.0)
    assert here.waiting_bytes == 10
    assert len(here.take_packets(0.0)) == 2


def test_a_body_larger_than_the_window_goes_alone():
    here = Channel(window_bytes=10)
    here.send(b"x" * 100)
    here.send(b"y")
    assert len(here.take_packets(0.0)) == 1


def test_an_acknowledgement_rides_on_what_is_sent_anyway():
    here, there = Channel(), Channel()
    here.send(b"question")
    (question,) = here.take_packets(0.0)
    there.receive(question, 0.0)
    there.send(b"answer")
    (answer,) = there.take_packets(0.0)
    assert here.receive(answer, 0.0) == [b"answer"]
    assert here.is_idle
    assert there.take_packets(0.01) == []


def test_after_a_break_everything_unacknowledged_goes_again_at_once():
    here, there = Channel(), Channel()
    for body in (b"a", b"b"):
        here.send(body)
    first, _ = here.take_packets(0.0)
    there.receive(first, 0.0)
    here.resynchronise()
    again = here.take_packets(0.001)
    assert [there.receive(packet, 0.001) for packet in again] == [[], [b"b"]]


def test_bodies_that_wait_for_an_earlier_one_are_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(streams, "EARLY_BYTES", 1_000)
    channel = Channel()

    def take(sequence, body):
        return channel.receive(msgspec.msgpack.encode(streams.Packet(sequence, 0, body)), now=0.0)

    later = [(sequence, bytes(300)) for sequence in range(2, 12)]
    assert [take(*each) for each in later] == [[]] * 10
    assert len(take(1, b"first")) == 1 + 3
    assert sum(len(take(*each)) for each in later) == 10 - 3
