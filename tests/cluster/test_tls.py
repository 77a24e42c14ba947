"""A cluster that takes encrypted connections with client certificates only: whole jobs go through it, and strangers learn why they do not."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from operator import add
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client

import flowkit as fk
from flowkit.errors import ClusterError, ConfigError
from flowkit.model import events as ev
from tests.certificates import Authority
from tests.chaos.conftest import Story

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

#: What crosses the wire in `everything`, each marked by its name.
KINDS = ("shuffle", "broadcast", "cached", "result", "collection", "file")
REDUCERS = 4
#: A refusal is a matter of one greeting; a loaded machine may take so much longer.
REFUSED_WITHIN_S = 60.0


class Deployment:
    """A scheduler and two workers that share no directory, each a process of its own."""

    def __init__(self, directory: Path, options: list[str]) -> None:
        self._file = directory / "scheduler.json"
        self._options = options
        self._directory = directory
        self.processes: list[subprocess.Popen[bytes]] = []
        protocol = "tls" if options else "tcp"
        self._start("scheduler", "--port", "0", "--protocol", protocol, "--scheduler-file", str(self._file))
        until = time.monotonic() + 60
        while not (self._file.exists() and self._file.read_text().endswith("}")):
            assert time.monotonic() < until, "the scheduler did not start"
            time.sleep(0.05)
        self.address = json.loads(self._file.read_text())["address"]
        for name in ("north", "south"):
            self._start("worker", self.address, "--nthreads", "1", "--local-directory", str(directory / name), host=name)

    def _start(self, *arguments: str, host: str = "north") -> None:
        self.processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard", *self._options],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "FLOWKIT_LOCAL_DIRECTORY": str(self._directory / f"files-{host}")},
            )
        )

    def sockets(self) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
        """Ports at which this process and the deployment's listen, with whose they are; both ports of each connection of the deployment's."""
        listening, connected = set(), set()
        roots = [psutil.Process(process.pid) for process in self.processes]
        for each in {psutil.Process(), *roots, *(child for root in roots for child in root.children(recursive=True))}:
            with contextlib.suppress(psutil.NoSuchProcess):
                for found in each.net_connections("inet"):
                    if found.status == psutil.CONN_LISTEN:
                        listening.add((each.pid, found.laddr.port))
                    elif found.status == psutil.CONN_ESTABLISHED and each.pid != os.getpid():
                        connected.add((found.laddr.port, found.raddr.port))
        return listening, connected

    def close(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "theirs")


@pytest.fixture(scope="module")
def encrypted(ours: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with contextlib.closing(Deployment(tmp_path_factory.mktemp("encrypted"), ours.options())) as found:
        yield found


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Deployment]:
    with contextlib.closing(Deployment(tmp_path, [])) as found:
        yield found


class Wiretap:
    """Reads along on the loopback device; as root only."""

    def __init__(self, words: list[bytes]) -> None:
        self._words = words
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
        so_rcvbufforce, sol_packet, packet_statistics = 33, 263, 6
        self._statistics = (sol_packet, packet_statistics, 8)
        self._socket.setsockopt(socket.SOL_SOCKET, so_rcvbufforce, 256 << 20)
        self._socket.bind(("lo", 0))
        self._socket.settimeout(0.2)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="wiretap")
        self.heard: set[bytes] = set()
        self.frames = 0

    def _listen(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                frame = self._socket.recv(1 << 17)
                self.frames += 1
                self.heard.update(word for word in self._words if word in frame)

    @property
    def dropped(self) -> int:
        """Frames it did not hear; counts from the last look."""
        _, dropped = (ctypes.c_uint32 * 2).from_buffer_copy(self._socket.getsockopt(*self._statistics))
        return dropped

    def __enter__(self) -> Wiretap:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()


def everything(fc: fk.Context, token: str, directory: Path) -> None:
    """Jobs that send rows of each kind from process to process. The marks are put together there, so no function shows them."""
    story = Story()
    fc.add_listener(story)
    fc.client.wait_for_workers(2, timeout=60)
    two = lambda s: len({event.host for event in s.of(ev.ExecutorAdded)}) == 2
    story.wait_for(two, "two executors", 60)

    def mark(kind: str) -> str:
        return f"mark {kind} {token}"

    # A shuffle, whose blocks are fetched from the other host.
    pairs = fc.range(4_000, num_partitions=4).map(lambda i: (i % 100, mark("shuffle"))).group_by_key(REDUCERS)
    assert pairs.map_values(len).collect_as_map() == dict.fromkeys(range(100), 40)
    fc.wait_for_listeners()
    assert sum(end.metrics.shuffle_remote_bytes for end in story.of(ev.TaskEnd)) > 0

    # A broadcast and a collection, too large for a message, which each host has to have; results too large for a report.
    sent = fc.broadcast([mark("broadcast")] * 5_000)
    assert fc.range(8, num_partitions=8).map(lambda _: len(sent.value)).sum() == 40_000
    rows = [f"{mark('collection')} {i} {secrets.token_hex(20)}" for i in range(5_000)]
    assert fc.parallelize(rows, 4).map(len).sum() == sum(map(len, rows))
    results = fc.range(8, num_partitions=8).flat_map(lambda i: [f"{mark('result')} {i}-{n}" for n in range(5_000)])
    assert len(results.collect()) == 40_000

    # A file of the driver's.
    file = directory / f"file-{token}.txt"
    file.write_text(mark("file") * 2_000)
    fc.add_file(file)
    assert (
        fc.range(4, num_partitions=4).map(lambda _: len(Path(fk.files.get(f"file-{token}.txt")).read_text())).collect()
        == [len(mark("file")) * 2_000] * 4
    )

    # A cached partition, fetched by whoever is not its holder: one executor is held up until the other has done all the rest.
    computed = fc.accumulator(0)
    kept = fc.range(8, num_partitions=8).flat_map(lambda p: computed.add(1) or [(p, mark("cached"))] * 500).cache()
    assert kept.count() == 4_000

    def hold_up(partition: int, part):
        if partition == 0:
            gate = threading.Event()
            while len(list(directory.glob(f"done-{token}-*"))) < 7:
                gate.wait(0.01)
        else:
            (directory / f"done-{token}-{partition}").touch()
        return part

    again = kept.map_partitions_with_index(hold_up)
    assert again.map(lambda pair: pair[0]).count_by_value() == dict.fromkeys(range(8), 500)
    assert computed.value == 8, "computed again, though another executor held it"
    fc.wait_for_listeners()
    assert sum(end.metrics.cache_remote_bytes for end in story.of(ev.TaskEnd)) > 0
    assert fc.range(1_000, num_partitions=4).map(lambda x: (x % 10, x)).reduce_by_key(add, 2).count() == 10


def overheard(deployment: Deployment, client: Client, directory: Path) -> set[str]:
    """Marks that can be read on the wire while everything is done."""
    token = secrets.token_hex(8)
    words = {f"mark {kind} {token}".encode(): kind for kind in KINDS}
    client.wait_for_workers(2, timeout=60)
    before, _ = deployment.sockets()
    # The executors' tasks and this process's: no listening port is opened beside Dask's own, no connection leads elsewhere.
    with Wiretap(list(words)) as tap, fk.Context(client, progress="off", locality_wait_s=0.0) as fc:
        everything(fc, token, directory)
        after, connected = deployment.sockets()
        assert tap.dropped == 0
        assert tap.frames > 0
    assert after == before, "a port beside Dask's"
    ports = {port for _, port in before}
    assert connected
    assert all(ports & set(pair) for pair in connected), "a connection that leads elsewhere"
    return {words[word] for word in tap.heard}


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="reading along on a device needs root")


@as_root
def test_nothing_can_be_read_on_the_wire_and_no_port_is_opened_beside(encrypted: Deployment, ours: Authority, tmp_path: Path):
    assert encrypted.address.startswith("tls://")
    with Client(encrypted.address, security=ours.security(), set_as_default=False) as client:
        assert overheard(encrypted, client, tmp_path) == set()


@as_root
def test_without_encryption_the_same_listener_reads_everything(plain: Deployment, tmp_path: Path):
    with Client(plain.address, set_as_default=False) as client:
        assert overheard(plain, client, tmp_path) == set(KINDS)


def test_an_address_and_the_settings_of_dask_are_enough(encrypted: Deployment, ours: Authority, tmp_path: Path):
    with dask.config.set(ours.settings()), fk.Context(encrypted.address, progress="off", locality_wait_s=0.0) as fc:
        everything(fc, secrets.token_hex(8), tmp_path)


def refused(deployment: Deployment, expected: type[Exception], match: str, address: str | None = None) -> str:
    begun = time.monotonic()
    with pytest.raises(expected, match=match) as caught:
        fk.Context(address or deployment.address, progress="off")
    assert time.monotonic() - begun < REFUSED_WITHIN_S
    return str(caught.value)


def test_a_driver_without_a_certificate_is_told_which_setting_lacks(encrypted: Deployment):
    told = refused(encrypted, ConfigError, "no certificate to show")
    assert "distributed.comm.tls.client.cert" in told


def test_a_driver_of_another_authority_learns_that_the_scheduler_is_not_its_own(encrypted: Deployment, theirs: Authority):
    with dask.config.set(theirs.settings()):
        told = refused(encrypted, ClusterError, "none of the authority")
    assert theirs.ca in told


def test_a_certificate_that_the_scheduler_does_not_take_is_named(encrypted: Deployment, ours: Authority, theirs: Authority):
    with dask.config.set({**theirs.settings(), "distributed.comm.tls.ca-file": ours.ca}):
        told = refused(encrypted, ClusterError, "does not take the certificate")
    assert theirs.cert("driver") in told


def test_a_driver_that_speaks_plainly_is_told_the_other_address(encrypted: Deployment):
    told = refused(encrypted, ClusterError, "speaks TLS only", encrypted.address.replace("tls://", "tcp://"))
    assert encrypted.address in told


def test_an_encrypted_address_of_a_plain_scheduler_is_told_so(plain: Deployment, ours: Authority):
    with dask.config.set(ours.settings()):
        refused(plain, ClusterError, "speaks no TLS", plain.address.replace("tcp://", "tls://"))


def test_a_stranger_costs_the_others_nothing(encrypted: Deployment, ours: Authority, theirs: Authority):
    with dask.config.set(ours.settings()), fk.Context(encrypted.address, progress="off") as fc:
        with dask.config.set(theirs.settings()):
            refused(encrypted, ClusterError, "none of the authority")
        host, _, port = encrypted.address.removeprefix("tls://").partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as stranger:
            stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP" not in stranger.recv(1 << 12)
        assert fc.range(100, num_partitions=4).map(lambda x: (x % 7, x)).reduce_by_key(add).count() == 7
