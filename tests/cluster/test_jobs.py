import threading
import time

import pytest

from flowkit.cluster.client_link import ClientLink
from flowkit.errors import ApplicationLost, InvalidArgument, JobCancelled, NestedAction
from flowkit.model import events as ev
from tests.cluster.conftest import Heard, map_job, shuffle_job

pytestmark = pytest.mark.cluster


def test_a_job_gives_one_result_a_partition(link):
    assert map_job(link, 20, lambda i: i * i).wait() == [[i * i] for i in range(20)]


def test_a_job_of_two_stages_exchanges_its_rows(link):
    assert sum(shuffle_job(link, 6, 3).wait()) == sum(range(6))


def test_events_of_a_job_come_in_order_and_before_its_end_is_known(link):
    heard = Heard(link)
    map_job(link, 5, lambda i: i).wait()
    kinds = [type(event) for event in heard.events]
    assert kinds.index(ev.JobStart) < kinds.index(ev.StageSubmitted) < kinds.index(ev.TaskStart) < kinds.index(ev.TaskEnd)
    assert kinds.count(ev.TaskEnd) == 5
    assert kinds[-1] is ev.JobEnd


def test_the_users_own_exception_arrives_with_its_type(link):
    with pytest.raises(ZeroDivisionError):
        map_job(link, 2, lambda i: 1 // i).wait()
    assert map_job(link, 2, lambda i: i).wait() == [[0], [1]]


def test_results_too_large_for_messages_are_fetched_from_executors(link):
    results = map_job(link, 3, lambda i: bytes([i]) * 9_000_000).wait()
    assert [(r[0][0], len(r[0])) for r in results] == [(i, 9_000_000) for i in range(3)]


def test_a_large_result_is_relayed_where_the_driver_cannot_reach_the_executor(link, monkeypatch):
    def unreachable(address):
        raise OSError("no route")

    monkeypatch.setattr(link._calls, "_client", _Unreachable(link.client))
    assert map_job(link, 2, lambda i: bytes([i]) * 5_000_000).wait()[1][0][:2] == b"\1\1"


class _Unreachable:
    """A client that reaches the scheduler alone."""

    def __init__(self, client):
        self.scheduler = client.scheduler

    def rpc(self, address):
        return self

    def __getattr__(self, op):
        async def call(**arguments):
            raise OSError("no route to host")

        return call


@pytest.mark.parametrize("shared", [True, False], ids=["written to the shared directory", "sent to an executor"])
def test_a_large_closure_is_pulled_by_content(cluster, config, shared, tmp_path):
    place = config.local_directory if shared else str(tmp_path / "elsewhere")
    with ClientLink.connect(cluster.cluster, name="driver", config=config.with_settings(local_directory=place)) as link:
        ballast = bytes(5_000_000)
        assert map_job(link, 4, lambda i: len(ballast) + i).wait() == [[5_000_000 + i] for i in range(4)]


def test_several_links_and_threads_run_jobs_at_once(cluster, config):
    links = [ClientLink.connect(cluster.cluster, name=f"driver {n}", config=config) for n in range(3)]
    wrong = []

    def work(link, factor):
        for _ in range(5):
            if map_job(link, 10, lambda i: i * factor).wait() != [[i * factor] for i in range(10)]:
                wrong.append(factor)

    threads = [threading.Thread(target=work, args=(link, n + 1)) for n, link in enumerate(links * 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for link in links:
        link.close()
    assert not wrong


def test_a_link_knows_the_slots_of_the_cluster(link):
    assert link.slots == 2


def test_a_clients_link_leaves_the_client_open(cluster, config):
    from distributed import Client

    with Client(cluster.cluster, set_as_default=False) as client:
        link = ClientLink.connect(client, config=config)
        assert map_job(link, 2, lambda i: i).wait() == [[0], [1]]
        link.close()
        assert client.status == "running"


def test_an_address_will_do(cluster, config):
    link = ClientLink.connect(cluster.cluster.scheduler_address, config=config)
    assert map_job(link, 2, lambda i: i).wait() == [[0], [1]]
    link.close()


@pytest.mark.parametrize("target", [None, 7])
def test_what_is_no_cluster_is_refused(target):
    with pytest.raises(InvalidArgument, match="address"):
        ClientLink.connect(target)


def test_a_cancelled_job_ends_and_frees_its_slots(link):
    heard = Heard(link)
    slow = map_job(link, 4, lambda i: [__import__("time").sleep(0.05) for _ in range(1_000)])
    heard.wait_for(ev.TaskStart)
    slow.handle.cancel("enough")
    with pytest.raises(JobCancelled, match="enough"):
        slow.wait()
    started = time.monotonic()
    assert map_job(link, 2, lambda i: i).wait() == [[0], [1]]
    assert time.monotonic() - started < 5


def test_wait_gives_up_after_its_time_and_the_job_goes_on(link):
    job = map_job(link, 1, lambda i: __import__("time").sleep(0.5))
    with pytest.raises(TimeoutError, match="still running"):
        job.wait(0.05)
    assert job.wait() == [[None]]


def test_what_a_callback_raises_ends_the_job(link):
    job = map_job(link, 3, lambda i: i)
    job2 = map_job(link, 1, lambda i: i)
    job.wait()

    class Sink(dict):
        def __setitem__(self, key, value):
            raise RuntimeError("no room")

    job2.wait()
    broken = map_job(link, 1, lambda i: __import__("time").sleep(0.2))
    broken.results = Sink()
    with pytest.raises(RuntimeError, match="no room"):
        broken.wait()


def test_closing_ends_jobs_that_run_and_later_calls(cluster, config):
    link = ClientLink.connect(cluster.cluster, config=config)
    job = map_job(link, 1, lambda i: [__import__("time").sleep(0.05) for _ in range(1_000)])
    link.close()
    link.close()
    with pytest.raises(JobCancelled, match="closed"):
        job.wait()
    with pytest.raises(ApplicationLost, match="closed"):
        map_job(link, 1, lambda i: i)


def test_a_call_that_waits_is_refused_on_the_clients_own_loop(link):
    async def inside():
        link._run(link._greet())

    with pytest.raises(NestedAction, match="event loop"):
        link.client.sync(inside)


def test_actions_work_from_a_running_asyncio_loop(link):
    import asyncio

    async def cell():
        return map_job(link, 3, lambda i: i).wait()

    assert asyncio.run(cell()) == [[0], [1], [2]]


def test_an_asynchronous_client_is_refused(cluster):
    import asyncio

    from distributed import Client

    async def connect():
        async with Client(cluster.cluster.scheduler_address, asynchronous=True, set_as_default=False) as client:
            with pytest.raises(InvalidArgument, match="synchronous"):
                ClientLink.connect(client)

    asyncio.run(connect())


def test_jobs_submitted_out_of_the_order_of_their_numbers_all_run(link):
    from tests.cluster import conftest

    later = next(conftest._numbers), next(conftest._numbers)
    numbers = iter(reversed(later))
    before, conftest._numbers = conftest._numbers, numbers
    try:
        jobs = [map_job(link, 2, lambda i: i) for _ in later]
    finally:
        conftest._numbers = before
    assert [job.wait(10) for job in jobs] == [[[0], [1]]] * 2


def test_an_exception_whose_message_cannot_travel_as_it_is_fails_its_job_at_once(link):
    def fail(i):
        raise ValueError("no such file: caf\udce9")

    with pytest.raises(ValueError, match="no such file: caf"):
        map_job(link, 2, fail).wait(20)
