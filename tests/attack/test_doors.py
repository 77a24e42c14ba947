"""Every door that Dask opens for flowkit, asked for nonsense by somebody who reached the port: greetings, blocks, contents, results, relays, channels.

Oracles: a greeting is answered; nobody without the secret is given anything, and whoever shows it gets data or an error; a neighbour's
jobs are right all the while; nothing is written to the log as an exception of the core; memory stays as it was.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from random import Random

import msgspec
import psutil
import pytest
from distributed import LocalCluster

from flowkit.cluster import dask_internals, wire
from flowkit.cluster.client_link import ClientLink
from flowkit.config import Config
from flowkit.storage.content import content_id
from tests.attack.mutations import BYTES, NUMBERS, TEXTS, another, hostile, mutated
from tests.cluster.conftest import map_job, shuffle_job

pytestmark = [
    pytest.mark.cluster,
    # Dask looks for a port and leaves that socket to the collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    """Scheduler and two workers in this very process, so that all of its memory and all of its log is looked at."""
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def config():
    """What the environment says, checked more often."""
    return Config.from_environment(os.environ).with_settings(validate=True)


@pytest.fixture
def good(cluster, config):
    """A neighbour."""
    link = ClientLink.connect(cluster, name="good", config=config)
    yield link
    link.close()


@pytest.fixture
def faults(caplog):
    """What the core contained: nothing, in the end."""
    caplog.set_level(logging.ERROR, "flowkit")
    yield caplog
    contained = [
        each.getMessage()
        for each in caplog.records
        if "core failed" in each.getMessage() or "could not be handled" in each.getMessage()
    ]
    assert not contained, contained


def sync(link, work, limit_s=60.0):
    """Run a coroutine on the client's loop."""
    return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, limit_s), link._loop).result(limit_s + 5)


async def greeted(link, op, hello):
    """What the scheduler answers to a greeting."""
    comm = await dask_internals.open_connection(
        link.client.scheduler.address, link.client.connection_args, op, timeout_s=20.0, hello=hello
    )
    try:
        return wire.decode_welcome(await asyncio.wait_for(comm.read(), 20.0))
    finally:
        comm.abort()


def is_right(link) -> bool:
    """Whether the neighbour's jobs are."""
    return map_job(link, 4, lambda i: i * 2).wait() == [[0], [2], [4], [6]] and sum(shuffle_job(link, 3, 2).wait()) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"app": ""}, {"app": "*"}, {"app": "../../../tmp/evil"}, {"app": "token"}, {"app": "a.lock"}, {"app": "ä"}, {"app": 5},
        {"lease_s": float("nan")}, {"lease_s": float("inf")}, {"lease_s": -1.0}, {"lease_s": 0}, {"lease_s": "x"},
        {"secret": "ä" * 16}, {"secret": "\x00"}, {"secret": 7}, {"versions": None}, {"name": b"\xff"},
    ],
    ids=str,
)  # fmt: skip
def test_a_greeting_that_makes_no_sense_is_refused_in_words(good, change):
    hello = wire.DriverHello(wire.own_versions(), good.app if "secret" in change else f"app-{secrets.token_hex(4)}", "name", 60.0)
    fields = {**msgspec.to_builtins(hello), **change}
    answer = sync(good, greeted(good, wire.OPEN_DRIVER, msgspec.msgpack.encode(fields)))
    assert isinstance(answer, wire.Refused)
    assert answer.message
    assert good.app in {driver.app for driver in [*_plugin(good)._drivers.values()]}


def _plugin(link):
    scheduler = link.client.cluster.scheduler
    return scheduler.plugins[wire.PLUGIN_NAME]


def test_every_greeting_is_answered(good, attack, faults):
    versions = wire.own_versions()

    def one(rng: Random) -> None:
        for _ in range(10):
            if rng.random() < 0.5:
                op, hello = (
                    wire.OPEN_DRIVER,
                    wire.DriverHello(versions, f"app-{rng.getrandbits(64):x}", "name", 1.0, rng.choice(("", "x"))),
                )
            else:
                address = rng.choice([*_plugin(good)._scheduler.workers, "tcp://nowhere:1"])
                op, hello = (
                    wire.OPEN_EXECUTOR,
                    wire.ExecutorHello(versions, f"{address}#", resume="scheduler-1", problem="problem"),
                )
            tree = msgspec.msgpack.decode(msgspec.msgpack.encode(hello))
            body = rng.choice(
                (rng.randbytes(30), msgspec.msgpack.encode(mutated(rng, tree, rng.randrange(1, 4))), *BYTES, 5, None, "text")
            )
            answer = sync(good, greeted(good, op, body))
            assert isinstance(answer, wire.Welcome | wire.Refused)
            if isinstance(answer, wire.Welcome) and op == wire.OPEN_DRIVER:
                assert answer.secret
        assert is_right(good)

    attack(one)


OPERATIONS = {
    wire.READ_BLOCKS: {"shuffle": 1, "reducer": 0, "outputs": [[0, 1]]},
    wire.READ_CACHED: {"rdd": 1, "partition": 0, "serial": 0, "position": 0},
    wire.READ_OUTPUT: {"shuffle": 1, "map_partition": 0, "attempt": 1, "offset": 0},
    wire.DESCRIBE_CONTENT: {"content": content_id(b"x")},
    wire.READ_PIECE: {"content": content_id(b"x"), "piece": 0, "digest": b"x" * 32, "asker": "tcp://h:1", "insist": True},
    wire.PUT_CONTENT: {"content": content_id(b"x"), "total": 1, "offset": 0, "data": b"x"},
    wire.READ_RESULT: {"attempt": 1, "offset": 0, "length": 10},
}


def test_executors_and_the_relay_give_data_or_an_error_and_never_anything_without_the_secret(good, attack, faults):
    addresses = list(_plugin(good)._scheduler.workers)

    async def asked(op, arguments):
        call = getattr(good.client.rpc(addresses[0]), op)
        return await call(**arguments)

    async def relayed(arguments):
        return await getattr(good.client.scheduler, wire.RELAY)(**arguments)

    def one(rng: Random) -> None:
        for _ in range(20):
            op = rng.choice(list(OPERATIONS))
            arguments = dict(OPERATIONS[op])
            member = rng.random() < 0.7
            for _ in range(rng.randrange(3)):
                name = rng.choice(list(arguments))
                arguments[name] = another(rng, arguments[name])
            arguments = _sendable(arguments)
            # A stranger waits for as long as an admission may take; one who names an application that is known is told at once.
            shown = (
                good._calls.secret if member else _sendable(rng.choice((*TEXTS, *NUMBERS[:4], None, [], good._calls.secret[:-1])))
            )
            app = good.app if member or rng.random() < 0.8 else _sendable(rng.choice(([], {}, 5, None)))
            try:
                if rng.random() < 0.3:
                    requested = rng.choice((op, _sendable(hostile(rng))))
                    address = rng.choice((addresses[0], "tcp://127.0.0.1:1", ""))
                    told = {"app": app, "secret": shown, "address": address, "requested": requested, "arguments": arguments}
                    sync(good, relayed(told))
                else:
                    sync(good, asked(op, {"app": app, "secret": shown, **arguments}))
            except (PermissionError, ValueError, OSError):
                pass
            except Exception as error:
                # The scheduler unpickles nothing: of an error that it passes on there is the text.
                if not str(error).startswith(("PermissionError(", "InvalidArgument(", "OSError(")):
                    raise
            else:
                assert member, (op, app, shown)
        assert is_right(good)

    attack(one)


def _sendable(value):
    """As Dask's msgpack has it."""
    if isinstance(value, dict):
        return {str(key): _sendable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_sendable(each) for each in value]
    return value


def test_uploads_that_nobody_finishes_take_no_memory_and_go_with_their_application(good, cluster, config, flowkit_directory):
    link = ClientLink.connect(cluster, name="uploads", config=config)
    address = next(iter(_plugin(good)._scheduler.workers))
    piece = secrets.token_bytes(2 << 20)

    async def put(number):
        call = getattr(link.client.rpc(address), wire.PUT_CONTENT)
        return await call(app=link.app, secret=link._calls.secret, content=f"{number:064x}", total=1 << 30, offset=0, data=piece)

    try:
        assert sync(link, put(0)) == "ok"
        before = psutil.Process().memory_info().rss
        for number in range(1, 60):
            assert sync(link, put(number)) == "ok"
        assert psutil.Process().memory_info().rss - before < 60 << 20
        assert len(list(flowkit_directory.glob(f"**/{link.app}/content/.*.upload"))) == 60
    finally:
        link.close()
    gone = lambda: not list(flowkit_directory.glob(f"**/{link.app}/content/.*.upload"))
    for _ in range(200):
        if gone():
            break
        is_right(good)
    assert gone()


def test_an_upload_in_pieces_arrives_and_one_that_does_not_fit_begins_anew(good):
    address = next(iter(_plugin(good)._scheduler.workers))
    data = secrets.token_bytes(3_000)
    name = content_id(data)

    def put(offset, piece, total=3_000):
        call = lambda: getattr(good.client.rpc(address), wire.PUT_CONTENT)(
            app=good.app, secret=good._calls.secret, content=name, total=total, offset=offset, data=piece
        )

        async def asked():
            return await call()

        return sync(good, asked())

    assert put(0, data[:1_000]) == "ok"
    assert put(2_000, data[2_000:]) == "again"
    assert put(0, data[:1_000]) == "ok"
    assert put(1_000, data[1_000:]) == "ok"
    assert put(0, b"x" * 3_000) == "again"  # other bytes than the name says
    with pytest.raises(ValueError, match="a piece has"):
        put(0, data, total=10)


def test_nonsense_on_an_open_channel_is_told_and_harms_nobody(good, cluster, config, attack):
    def one(rng: Random) -> None:
        bad = ClientLink.connect(cluster, name="bad", config=config)
        try:
            for _ in range(20):
                tree = ["stimulus", rng.choice(("JobSubmitted", "LeaseRenewed", "ContentPut", "Tick", "ExecutorLost"))]
                said = rng.choice(
                    (
                        rng.randbytes(40),
                        msgspec.msgpack.encode([dict([tree, ["app", rng.choice((bad.app, good.app))], ["job", 1]])]),
                        msgspec.msgpack.encode([{tree[0]: tree[1], "app": hostile(rng), "spec": hostile(rng)}]),
                        *BYTES,
                    )
                )
                bad._loop.call_soon_threadsafe(bad._link.send, said)
            assert is_right(bad)
            assert is_right(good)
        finally:
            bad.close()

    attack(one)
