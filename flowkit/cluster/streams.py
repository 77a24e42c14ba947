"""A reliable, ordered channel over a line that may drop, double, delay or reorder packets, or break and come back.

Runs in drivers, scheduler and executors alike. Sans-IO: bytes in, bytes out, the time passed in; one thread at a time.

Theory of operation. Each *body* (an encoded batch of messages) gets the next sequence number and is kept until the
other side has acknowledged it. Acknowledgements are cumulative and ride on every packet; a packet without a body is
one alone. The receiver hands bodies over in order: a later one waits for the missing, an earlier one is a double.
A receiver that sees a gap names the missing numbers at once, so that a single loss costs a round trip, not a time-out;
the time-out (doubled each time, up to a limit) is for the last packet and for a lost acknowledgement. What is in flight
is bounded in bytes; the rest waits, and the owner can read how much, to hold back or to drop what may be dropped.

TCP does most of this within one connection. What it does not do is survive one: the channel outlives connections.
"""

from __future__ import annotations

from collections import deque

import msgspec

WINDOW_BYTES = 8 << 20
"""In flight at most, unless a single body is larger. A local connection moves this in some 10 ms."""
ACK_AFTER_S = 0.05
"""An acknowledgement waits so long for a packet to ride on."""
RESEND_AFTER_S = 1.0
"""Longer than a loop is usually busy; doubled with each try."""
RESEND_LIMIT_S = 8.0
NAMED_AGAIN_AFTER_S = 0.02
"""A packet named as missing is resent at most this often: reordering alone also looks like a gap."""
MISSING_NAMED = 64
"""Missing numbers named at most in one packet."""
EARLY_LIMIT = 4096
EARLY_BYTES = 4 * WINDOW_BYTES
"""Bodies kept at most for a missing earlier one, and their bytes; what is refused is resent later."""


class Packet(msgspec.Struct, frozen=True, array_like=True):
    """``sequence`` 0: no body. ``ack``: every body up to this number has arrived."""

    sequence: int
    ack: int
    body: bytes = b""
    missing: tuple[int, ...] = ()


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Packet).decode


class ChannelStatistics(msgspec.Struct, frozen=True):
    """Counts since the channel was made."""

    sent: int
    received: int
    resent: int
    doubled: int
    in_flight_bytes: int
    waiting_bytes: int


class _InFlight:
    __slots__ = ("body", "sent_at", "tries")

    def __init__(self, body: bytes, sent_at: float) -> None:
        self.body = body
        self.sent_at = sent_at
        self.tries = 1


class Channel:
    """One end of a channel.

    >>> here, there = Channel(), Channel()
    >>> here.send(b"one")
    >>> here.send(b"two")
    >>> first, second = here.take_packets(now=0.0)
    >>> there.receive(second, now=0.0)  # out of order: it waits
    []
    >>> there.receive(first, now=0.0), there.receive(first, now=0.0)
    ([b'one', b'two'], [])
    """

    def __init__(
        self, *, window_bytes: int = WINDOW_BYTES, ack_after_s: float = ACK_AFTER_S, resend_after_s: float = RESEND_AFTER_S
    ) -> None:
        self._window_bytes = window_bytes
        self._ack_after_s = ack_after_s
        self._resend_after_s = resend_after_s
        #: bodies not yet sent
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        #: ``{sequence: body and when it was sent last}``, in order of sequence, not acknowledged
        self._in_flight: dict[int, _InFlight] = {}
        self._in_flight_bytes = 0
        self._last_sent = 0
        #: everything up to this number arrived here and was handed over
        self._received = 0
        #: ``{sequence: body}`` beyond a gap
        self._early: dict[int, bytes] = {}
        self._early_bytes = 0
        #: when an acknowledgement must go, None: nothing to acknowledge
        self._ack_due: float | None = None
        self._unacknowledged_bytes = 0
        #: numbers the other side named as missing
        self._named: set[int] = set()
        self._resend_all = False
        self._sent_count = self._resent_count = self._doubled_count = 0

    # -- sending

    @property
    def waiting_bytes(self) -> int:
        """Bytes given to ``send`` that the other side has not acknowledged."""
        return self._waiting_bytes + self._in_flight_bytes

    @property
    def is_idle(self) -> bool:
        """Whether everything sent has been acknowledged."""
        return not self._waiting and not self._in_flight

    def send(self, body: bytes) -> None:
        """Queue a body; ``take_packets`` says what to put on the line."""
        self._waiting.append(body)
        self._waiting_bytes += len(body)

    def resynchronise(self) -> None:
        """The line is a new one: whatever is not acknowledged goes again, at once."""
        self._resend_all = True
        self._ack_due = 0.0

    def take_packets(self, now: float) -> list[bytes]:
        """Packets to transmit now, in order; empty when there is nothing to say yet."""
        packets: list[bytes] = []
        if self._in_flight:
            self._take_resends(now, packets)
        while self._waiting and (not self._in_flight or self._in_flight_bytes + len(self._waiting[0]) <= self._window_bytes):
            body = self._waiting.popleft()
            self._waiting_bytes -= len(body)
            self._last_sent += 1
            self._in_flight[self._last_sent] = _InFlight(body, now)
            self._in_flight_bytes += len(body)
            self._sent_count += 1
            packets.append(_encode(Packet(self._last_sent, self._received, body, self._missing())))
        if not packets and self._ack_due is not None and self._ack_due <= now:
            packets.append(_encode(Packet(0, self._received, b"", self._missing())))
        if packets:
            self._ack_due = None
            self._unacknowledged_bytes = 0
        return packets

    def _take_resends(self, now: float, packets: list[bytes]) -> None:
        if self._resend_all:
            due = list(self._in_flight)
        else:
            due = sorted(s for s in self._named if s in self._in_flight)
            due = [s for s in due if now - self._in_flight[s].sent_at >= NAMED_AGAIN_AFTER_S]
            oldest, first = next(iter(self._in_flight.items()))
            # Only the oldest: an acknowledgement is cumulative, so the others are usually there already.
            if oldest not in due and now >= self._resend_at(first):
                due.insert(0, oldest)
        self._resend_all = False
        self._named.clear()
        for sequence in due:
            entry = self._in_flight[sequence]
            entry.sent_at = now
            entry.tries += 1
            self._resent_count += 1
            packets.append(_encode(Packet(sequence, self._received, entry.body, self._missing())))

    def _resend_at(self, entry: _InFlight) -> float:
        return entry.sent_at + min(RESEND_LIMIT_S, self._resend_after_s * (1 << min(entry.tries - 1, 10)))

    def _missing(self) -> tuple[int, ...]:
        if not self._early:
            return ()
        last = max(self._early)
        missing = (s for s in range(self._received + 1, last) if s not in self._early)
        return tuple(s for s, _ in zip(missing, range(MISSING_NAMED), strict=False))

    # -- receiving

    def receive(self, packet: bytes, now: float) -> list[bytes]:
        """Take a packet from the line; return the bodies that are now complete and in order.

        Raises ``msgspec.DecodeError`` for bytes that are no packet; the channel is unchanged then.
        """
        got = _decode(packet)
        self._acknowledge(got.ack)
        if got.missing:
            self._named.update(got.missing)
        if got.sequence == 0:
            return []
        self._unacknowledged_bytes += len(got.body)
        hurry = self._unacknowledged_bytes * 4 >= self._window_bytes
        if got.sequence <= self._received or got.sequence in self._early:
            self._doubled_count += 1
            self._want_ack(now + self._ack_after_s)
            return []
        if got.sequence > self._received + 1:
            if len(self._early) < EARLY_LIMIT and (not self._early or self._early_bytes + len(got.body) <= EARLY_BYTES):
                self._early[got.sequence] = got.body
                self._early_bytes += len(got.body)
            self._want_ack(now)  # names what is missing
            return []
        bodies = [got.body]
        self._received += 1
        while (body := self._early.pop(self._received + 1, None)) is not None:
            self._received += 1
            self._early_bytes -= len(body)
            bodies.append(body)
        self._want_ack(now if hurry else now + self._ack_after_s)
        return bodies

    def _want_ack(self, at: float) -> None:
        self._ack_due = at if self._ack_due is None else min(self._ack_due, at)

    def _acknowledge(self, ack: int) -> None:
        # Sequences are in order in the dict, so this touches only what leaves it.
        while self._in_flight:
            sequence = next(iter(self._in_flight))
            if sequence > ack:
                return
            self._in_flight_bytes -= len(self._in_flight.pop(sequence).body)

    # -- time

    def next_wakeup(self) -> float | None:
        """When ``take_packets`` may have something to say though nothing is sent or received until then."""
        due = [] if self._ack_due is None else [self._ack_due]
        if self._in_flight:
            entry = next(iter(self._in_flight.values()))
            due.append(self._resend_at(entry))
            due.extend(self._in_flight[s].sent_at + NAMED_AGAIN_AFTER_S for s in self._named if s in self._in_flight)
            if self._resend_all:
                return 0.0
        return min(due, default=None)

    def statistics(self) -> ChannelStatistics:
        """Counts, for tests and for people."""
        return ChannelStatistics(
            sent=self._sent_count,
            received=self._received,
            resent=self._resent_count,
            doubled=self._doubled_count,
            in_flight_bytes=self._in_flight_bytes,
            waiting_bytes=self._waiting_bytes,
        )
