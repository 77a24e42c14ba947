"""One peer over one Dask connection at a time: a reliable channel, a task that reads and a task that writes.

Runs in all three processes, on the event loop only.

The connection is flowkit's own (opened to a handler of the scheduler), not the stream Dask uses for its tasks: that one
sends at most every 2 to 10 ms, keeps the last thousand payloads alive, and ends the worker when a handler raises. Here a
message goes at once, and what is said while a write is under way goes with the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from distributed.comm import Comm
from distributed.comm.core import CommClosedError

from flowkit.cluster.streams import Channel
from flowkit.logs import logger_of

logger = logger_of("flowkit.cluster")

Disturbance = Callable[[bytes], Iterable[tuple[float, bytes]]]
"""For each packet: copies to transmit, each after a delay in seconds. None of them: the packet is lost."""

#: for tests alone: what this process's lines do to packets; None is a good line
disturbance: Disturbance | None = None

FLUSH_LIMIT_S = 5.0


class Link:
    """A peer. ``deliver`` gets each body once, in order; what it raises is logged and costs only that body.

    ``lost`` is called when a connection ended that nobody detached; the channel keeps what was not acknowledged until
    another connection is attached.
    """

    def __init__(self, name: str, deliver: Callable[[bytes], None], lost: Callable[[], None] | None = None) -> None:
        self.name = name
        self._deliver = deliver
        self._lost = lost
        self._channel = Channel()
        self._comm: Comm | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._idle_waiters: list[asyncio.Future[None]] = []
        self._closed = False
        #: packets a disturbance held back, due now
        self._late: list[bytes] = []

    def __repr__(self) -> str:
        state = "closed" if self._closed else "connected" if self._comm is not None else "disconnected"
        return f"<Link {self.name}: {state}, {self._channel.waiting_bytes} bytes waiting>"

    @property
    def connected(self) -> bool:
        """Whether a connection is attached now."""
        return self._comm is not None

    @property
    def waiting_bytes(self) -> int:
        """Bytes sent that the peer has not acknowledged."""
        return self._channel.waiting_bytes

    @property
    def channel(self) -> Channel:
        """The channel beneath, for its statistics."""
        return self._channel

    def send(self, body: bytes) -> None:
        """Send a body now, or once there is a connection again. Dropped after ``close``."""
        if self._closed:
            return
        self._channel.send(body)
        self._wake.set()

    def attach(self, comm: Comm) -> None:
        """Use this connection from now on; an older one is given up."""
        self.detach()
        self._comm = comm
        self._channel.resynchronise()
        self._wake.set()
        self._tasks = [
            asyncio.create_task(self._read(comm), name=f"{self.name} reads"),
            asyncio.create_task(self._write(comm), name=f"{self.name} writes"),
        ]

    def break_connection(self) -> None:
        """As if the network had: for tests."""
        if self._comm is not None:
            self._comm.abort()

    def detach(self) -> None:
        """Give up the connection, keep the channel."""
        comm, self._comm = self._comm, None
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        self._tasks = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if comm is not None and not comm.closed():
            comm.abort()

    def close(self) -> None:
        """Give up the connection and the channel."""
        self._closed = True
        self.detach()
        for waiter in self._idle_waiters:
            if not waiter.done():
                waiter.cancel()
        self._idle_waiters.clear()

    async def wait_acknowledged(self, timeout_s: float = FLUSH_LIMIT_S) -> bool:
        """Wait until the peer has everything; False when it has not within ``timeout_s`` or the link was closed."""
        if self._channel.is_idle:
            return True
        waiter = asyncio.get_running_loop().create_future()
        self._idle_waiters.append(waiter)
        done, _ = await asyncio.wait([waiter], timeout=timeout_s)
        return bool(done) and not waiter.cancelled()

    async def wait_detached(self) -> None:
        """Wait until the connection attached now has ended."""
        if self._tasks:
            await asyncio.wait(self._tasks[:1])

    # -- the two tasks

    async def _read(self, comm: Comm) -> None:
        try:
            while True:
                packets = await comm.read()
                now = time.monotonic()
                for packet in packets:
                    self._receive(packet, now)
                if self._channel.is_idle and self._idle_waiters:
                    for waiter in self._idle_waiters:
                        if not waiter.done():
                            waiter.set_result(None)
                    self._idle_waiters.clear()
                self._wake.set()
        except (CommClosedError, OSError) as error:
            self._connection_lost(comm, error)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("%s: reading failed", self.name)
            self._connection_lost(comm, None)

    def _receive(self, packet: bytes, now: float) -> None:
        try:
            bodies = self._channel.receive(packet, now)
        except Exception:
            logger.exception("%s: a packet could not be read", self.name)
            return
        for body in bodies:
            try:
                self._deliver(body)
            except BaseException:  # SystemExit and KeyboardInterrupt would end the event loop
                logger.exception("%s: a message could not be handled", self.name)

    async def _write(self, comm: Comm) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                packets = self._channel.take_packets(time.monotonic())
                if disturbance is not None:
                    packets = self._disturb(packets, disturbance)
                if packets:
                    await comm.write(packets)
                self._set_timer()
        except (CommClosedError, OSError) as error:
            self._connection_lost(comm, error)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("%s: writing failed", self.name)
            self._connection_lost(comm, None)

    def _connection_lost(self, comm: Comm, error: BaseException | None) -> None:
        if self._comm is not comm:
            return
        logger.info("%s: the connection ended (%s)", self.name, error)
        self.detach()
        if self._lost is not None and not self._closed:
            self._lost()

    def _set_timer(self) -> None:
        at = self._channel.next_wakeup()
        if at is None:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + max(0.0, at - time.monotonic())
        # One that fires earlier does no harm: it looks, and asks again. So a busy link does not make a timer a packet.
        if self._timer is not None and not self._timer.cancelled() and self._timer.when() <= due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._wake.set()

    def _disturb(self, packets: list[bytes], disturb: Disturbance) -> list[bytes]:
        now, self._late = self._late, []
        for packet in packets:
            for delay_s, copy in disturb(packet):
                if delay_s <= 0:
                    now.append(copy)
                else:
                    asyncio.get_running_loop().call_later(delay_s, self._transmit_late, copy)
        return now

    def _transmit_late(self, packet: bytes) -> None:
        self._late.append(packet)
        self._wake.set()
