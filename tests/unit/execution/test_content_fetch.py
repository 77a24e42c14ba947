"""Content from host to host: pieces checked, holders relieved, the dead left out."""

from __future__ import annotations

import random
import threading
from collections import Counter

import pytest

from flowkit.errors import FetchFailed
from flowkit.execution.content_fetch import ContentFetcher, PieceServer
from flowkit.model.ids import AppId, HostToken
from flowkit.model.task import ContentMissing
from flowkit.storage import content as content_module
from flowkit.storage.content import ContentStore, content_id

APP = AppId("app")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(content_module, "PIECE_BYTES", 1_000)


def at(*hosts):
    return [(host, host) for host in hosts]


class Hosts:
    """Some hosts, each with a store, a server and a fetcher; transports that count, and break where they are told to."""

    def __init__(self, directory, count):
        self.stores = {f"host{number}": ContentStore(directory / str(number)) for number in range(count)}
        self.servers = {address: PieceServer(store) for address, store in self.stores.items()}
        self.sent = Counter()
        self.dead = set()
        self.damage = set()
        self.held = []

    def fetcher(self, address):
        return ContentFetcher(
            self.stores[address],
            APP,
            HostToken(address),
            Transport(self, address),
            5.0,
            lambda _app, content: self.held.append((address, content)),
        )


class Transport:
    def __init__(self, hosts, own):
        self.hosts, self.own = hosts, own

    def _server(self, address):
        if address in self.hosts.dead:
            raise OSError("nobody there")
        return self.hosts.servers[address]

    def describe_content(self, address, app, content, *, timeout_s):
        return self._server(address).manifest(content)

    def fetch_piece(self, address, app, content, piece, digest, *, insist, timeout_s):
        answer = self._server(address).piece(content, piece, digest, asker=self.own, insist=insist)
        if isinstance(answer, bytes):
            self.hosts.sent[address] += 1
            if address in self.hosts.damage and random.random() < 0.5:
                return b"damage" + answer[6:]
        return answer


DATA = random.Random(1).randbytes(40_500)


@pytest.fixture
def name():
    return content_id(DATA)


def test_a_host_fetches_every_piece_once_and_tells(tmp_path, name):
    hosts = Hosts(tmp_path, 2)
    hosts.stores["host0"].put(DATA)
    fetcher = hosts.fetcher("host1")
    assert fetcher.path(name, at("host0")).read_bytes() == DATA
    assert fetcher.path(name, ()).read_bytes() == DATA
    assert hosts.sent == {"host0": 41}
    assert hosts.held == [("host1", name)]


def test_many_hosts_at_once_take_few_copies_from_the_first(tmp_path, name):
    hosts = Hosts(tmp_path, 12)
    hosts.stores["host0"].put(DATA)
    start = threading.Barrier(11)
    got = {}

    def fetch(address):
        start.wait()
        got[address] = hosts.fetcher(address).path(name, at("host0")).read_bytes()

    threads = [threading.Thread(target=fetch, args=(f"host{number}",)) for number in range(1, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(got[f"host{number}"] == DATA for number in range(1, 12))
    assert hosts.sent["host0"] < 5 * 41, "eleven copies without the others' help"
    assert sum(hosts.sent.values()) == 11 * 41


def test_those_who_were_sent_elsewhere_to_the_dead_come_back(tmp_path, name):
    hosts = Hosts(tmp_path, 3)
    hosts.stores["host0"].put(DATA)
    hosts.fetcher("host1").path(name, at("host0"))
    hosts.dead.add("host1")
    assert hosts.fetcher("host2").path(name, at("host0")).read_bytes() == DATA
    assert hosts.sent["host0"] == 2 * 41


def test_damaged_pieces_are_asked_for_again_and_never_kept(tmp_path, name):
    hosts = Hosts(tmp_path, 3)
    random.seed(7)
    hosts.stores["host0"].put(DATA)
    hosts.stores["host1"].put(DATA)
    hosts.damage.add("host0")
    assert hosts.fetcher("host2").path(name, at("host0", "host1")).read_bytes() == DATA


def test_a_holder_that_dies_half_way_is_replaced_by_another(tmp_path, name):
    hosts = Hosts(tmp_path, 3)
    hosts.stores["host0"].put(DATA)
    hosts.stores["host1"].put(DATA)
    transport = Transport(hosts, "host2")
    real = transport.fetch_piece

    def die_at_the_tenth(address, *args, **kwargs):
        if sum(hosts.sent.values()) == 10 and not hosts.dead:
            hosts.dead.add(address)
        return real(address, *args, **kwargs)

    transport.fetch_piece = die_at_the_tenth
    fetcher = ContentFetcher(hosts.stores["host2"], APP, HostToken("host2"), transport, 5.0)
    assert fetcher.path(name, at("host0", "host1")).read_bytes() == DATA


def test_when_nobody_has_it_every_one_says_why(tmp_path, name):
    hosts = Hosts(tmp_path, 3)
    hosts.dead.add("host0")
    with pytest.raises(FetchFailed, match=r"host0: nobody there") as raised:
        hosts.fetcher("host2").path(name, at("host0", "host1"))
    assert "host1: has it no more" in str(raised.value)
    assert raised.value.failure == ContentMissing((name,))
    with pytest.raises(FetchFailed, match="no other host is known"):
        hosts.fetcher("host2").path(name, ())


def test_threads_that_want_the_same_wait_for_one_fetch(tmp_path, name):
    hosts = Hosts(tmp_path, 2)
    hosts.stores["host0"].put(DATA)
    fetcher = hosts.fetcher("host1")
    threads = [threading.Thread(target=fetcher.path, args=(name, at("host0"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert hosts.sent == {"host0": 41}


def test_a_host_does_not_ask_itself(tmp_path, name):
    hosts = Hosts(tmp_path, 2)
    with pytest.raises(FetchFailed, match="no other host is known"):
        hosts.fetcher("host1").path(name, [("host1", "host1"), ("host1", "a dead neighbour")])
