"""Hosts that are network namespaces of this machine: processes in them reach one another over a bridge alone, which tests cut and heal.

As root with iproute2 only. Links are there or not, both ways or one way; those of the fixture ``wide_net`` are wires with delay and loss
(``wire.py``), which needs /dev/net/tun.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from tests.network.wire import tap

_numbers = itertools.count()


def ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=not check)  # noqa: S603, S607


class Net:
    """A bridge with an address of this side, where the scheduler runs, and hosts at it.

    ``options`` are for the command lines of scheduler and workers; the scheduler has always the same address.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        number = next(_numbers)
        self._tag = f"fk{os.getpid() % 10_000}{number}"
        self._directory = directory
        # Of its own: several may be there at once, of this process and of others.
        self._subnet = f"10.{77 + number % 100}.{os.getpid() % 250 + 1}"
        self.addresses: dict[str, str] = {}
        self._options = options
        self.scheduler: subprocess.Popen[bytes]
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self._wires: dict[str, subprocess.Popen[str]] = {}
        ip("link", "add", f"{self._tag}br", "type", "bridge")
        ip("addr", "add", f"{self._subnet}.1/24", "dev", f"{self._tag}br")
        ip("link", "set", f"{self._tag}br", "up")
        self.address = f"{'tls' if '--tls-cert' in options else 'tcp'}://{self._subnet}.1:8786"
        self.start_scheduler()

    def start_scheduler(self) -> None:
        """Start it, for the first time or after it was killed."""
        host, port = self.address.partition("://")[2].split(":")
        # Dask's web server takes a port even where it shows no pages: any will do.
        pages = ["--no-dashboard", "--dashboard-address", f"{host}:0"]
        protocol = self.address.partition(":")[0]
        self.scheduler = self._started(["scheduler", "--host", host, "--port", port, "--protocol", protocol, *pages])

    def start_worker(self, name: str) -> None:
        """Start a host's worker, for the first time or after it ended."""
        self.workers[name] = self._started(
            ["worker", self.address, "--nthreads", "1", "--host", self.addresses[name], "--no-dashboard"]
            + ["--death-timeout", "120", "--local-directory", str(self._directory / name)],
            ("ip", "netns", "exec", f"{self._tag}{name}"),
            {"FLOWKIT_LOCAL_DIRECTORY": str(self._directory / f"files-{name}")},
        )

    def _started(
        self, arguments: list[str], before: tuple[str, ...] = (), environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603
            [*before, sys.executable, "-m", "dask", *arguments, *self._options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )

    def add_host(self, name: str, *, wired: bool = False) -> None:
        """A host with a worker of one thread; ``wired``: behind a wire that can be made slow and lossy."""
        number = len(self.addresses) + 2
        inside, outside, space = f"{self._tag}i{number}", f"{self._tag}o{number}", f"{self._tag}{name}"
        ip("netns", "add", space)
        if wired:
            self._wires[name] = _wire(outside, inside)
        else:
            ip("link", "add", outside, "type", "veth", "peer", "name", inside)
        ip("link", "set", inside, "netns", space)
        ip("link", "set", outside, "master", f"{self._tag}br")
        ip("link", "set", outside, "up")
        address = self.addresses[name] = f"{self._subnet}.{number}"
        for command in (
            ["addr", "add", f"{address}/24", "dev", inside],
            ["link", "set", inside, "up"],
            ["link", "set", "lo", "up"],
        ):
            ip("-n", space, *command)
        self.start_worker(name)

    def cut(self, name: str) -> None:
        """Nothing comes from it or goes to it any more; nobody is told."""
        ip("link", "set", f"{self._tag}o{int(self.addresses[name].rpartition('.')[2])}", "down")

    def heal(self, name: str) -> None:
        """As it was before ``cut``."""
        ip("link", "set", f"{self._tag}o{int(self.addresses[name].rpartition('.')[2])}", "up")

    def impair(self, name: str, *, delay_s: float = 0.0, jitter_s: float = 0.0, loss: float = 0.0) -> None:
        """From now on frames from and to a wired host come so late, each way, and that part of them is lost."""
        orders = self._wires[name].stdin
        assert orders is not None
        orders.write(f"{delay_s} {jitter_s} {loss}\n")
        orders.flush()

    def silence(self, name: str, towards: str = "") -> None:
        """What one host sends to the other, or to this side, is lost; what is sent to it arrives."""
        ip("-n", f"{self._tag}{name}", "route", "add", "blackhole", f"{self._address(towards)}/32")

    def end_silence(self, name: str, towards: str = "") -> None:
        """As it was before ``silence``."""
        ip("-n", f"{self._tag}{name}", "route", "del", "blackhole", f"{self._address(towards)}/32")

    def _address(self, name: str) -> str:
        return self.addresses[name] if name else f"{self._subnet}.1"

    def client(self) -> Client:
        """A client, when all workers are there."""
        client = Client(self.address, set_as_default=False, timeout=60)
        client.wait_for_workers(len(self.addresses), timeout=60)
        return client

    def close(self) -> None:
        processes = [*self.workers.values(), self.scheduler]
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for wire in self._wires.values():
            wire.communicate(timeout=15)
        for name in self.addresses:
            ip("netns", "del", f"{self._tag}{name}", check=False)
        ip("link", "del", f"{self._tag}br", check=False)


def _wire(outside: str, inside: str) -> subprocess.Popen[str]:
    wire = subprocess.Popen(  # noqa: S603
        [sys.executable, str(Path(__file__).with_name("wire.py")), outside, inside],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert wire.stdout is not None
    assert wire.stdout.readline() == "ready\n", "the wire could not be laid"
    return wire


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    """Two hosts, ``north`` and ``south``, and this side with the scheduler and the driver."""
    yield from _two_hosts(tmp_path, wired=False)


@pytest.fixture
def wide_net(tmp_path: Path) -> Iterator[Net]:
    """The same, each behind a wire that can be made slow and lossy (``Net.impair``)."""
    yield from _wide(tmp_path)


@pytest.fixture(scope="module")
def lasting_wide_net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """The same, for all tests of a module."""
    yield from _wide(tmp_path_factory.mktemp("hosts"))


def _wide(directory: Path) -> Iterator[Net]:
    try:
        os.close(tap(f"fk{os.getpid() % 10_000}probe"))
    except OSError as error:
        pytest.skip(f"needs /dev/net/tun, to lay wires that are slow and lossy: {error}")
    yield from _two_hosts(directory, wired=True)


def _two_hosts(directory: Path, *, wired: bool) -> Iterator[Net]:
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2, to make network namespaces")
    found = Net(directory)
    try:
        for name in ("north", "south"):
            found.add_host(name, wired=wired)
        yield found
    finally:
        found.close()
