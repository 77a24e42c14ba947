"""A wire with delay and loss: carries Ethernet frames between two TAP devices, late, in order, and some of them never.

    python wire.py OUTSIDE INSIDE

Makes both devices, says ``ready``, then takes lines ``delay_s jitter_s loss`` from its standard input until that ends; the devices go
with it. It does what the kernel's netem does, where the kernel has none.
"""

from __future__ import annotations

import fcntl
import os
import random
import selectors
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_LARGEST_FRAME = 65_536


@dataclass
class Manners:
    """How frames fare. Loss is drawn with a seed of its own, so that a run can be had again."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    rng: random.Random = field(default_factory=lambda: random.Random(7))


class Direction:
    """From one device to the other."""

    def __init__(self, source: int, target: int, manners: Manners) -> None:
        self.source, self.target, self.manners = source, target, manners
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._last_due = 0.0

    def take(self) -> None:
        """Everything that waits at the source sets out."""
        while True:
            try:
                frame = os.read(self.source, _LARGEST_FRAME)
            except BlockingIOError:
                return
            manners = self.manners
            if manners.rng.random() < manners.loss:
                continue
            due = time.monotonic() + manners.delay_s + manners.rng.uniform(0, manners.jitter_s)
            self._last_due = max(due, self._last_due)
            self._under_way.append((self._last_due, frame))

    def deliver(self) -> float | None:
        """What is due arrives; returns how long the next one has to wait, None when there is none."""
        now = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now:
            try:
                os.write(self.target, self._under_way.popleft()[1])
            except OSError:  # the other end is not up (yet): as when a cable is not plugged in
                continue
        return self._under_way[0][0] - now if self._under_way else None


def tap(name: str) -> int:
    """A device of that name, as a descriptor of its frames."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return descriptor


def main(outside: str, inside: str) -> None:
    """Carry frames until standard input ends."""
    one, other = tap(outside), tap(inside)
    manners = Manners()
    directions = {one: Direction(one, other, manners), other: Direction(other, one, manners)}
    selector = selectors.DefaultSelector()
    orders = sys.stdin.fileno()
    for descriptor in (orders, one, other):
        selector.register(descriptor, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        waits = [wait for each in directions.values() if (wait := each.deliver()) is not None]
        for key, _ in selector.select(min(waits, default=None)):
            if key.fd != orders:
                directions[key.fd].take()
            elif line := os.read(orders, 1_000).decode():
                manners.delay_s, manners.jitter_s, manners.loss = map(float, line.splitlines()[-1].split())
            else:
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
