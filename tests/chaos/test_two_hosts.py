"""Two hosts on one machine: two directories, two tokens, nothing shared but the network."""

from __future__ import annotations

import threading
from operator import add
from pathlib import Path

import pytest

import flowkit as fk
from flowkit.model import events as ev
from tests.chaos.conftest import Story, die

pytestmark = pytest.mark.chaos

MAPS, REDUCERS = 6, 4


def counts(fc, in_reduce=lambda p: None):
    def reducer(partition, pairs):
        in_reduce(partition)
        return pairs

    return (
        fc.range(3_000, num_partitions=MAPS)
        .map(lambda i: (f"key {i % 50}", 1))
        .reduce_by_key(add, num_partitions=REDUCERS)
        .map_partitions_with_index(reducer)
    )


EXPECTED = {f"key {k}": 60 for k in range(50)}


def test_reducers_fetch_what_lies_on_the_other_host(two_hosts, story: Story):
    with fk.Context(two_hosts, progress="off") as fc:
        fc.add_listener(story)
        assert counts(fc).collect_as_map() == EXPECTED
        story.wait_until_jobs_ended()
        hosts = {executor.host for executor in fc.status.executors()}
    assert len(hosts) == 2
    metrics = [end.metrics for end in story.of(ev.TaskEnd)]
    assert sum(each.shuffle_remote_bytes for each in metrics) > 0
    assert sum(each.shuffle_local_bytes for each in metrics) > 0


def test_a_restarted_worker_adopts_what_its_host_wrote(two_hosts, story: Story, tmp_path: Path):
    with fk.Context(two_hosts, progress="off") as fc:
        fc.add_listener(story)
        marker = tmp_path / "killed"
        assert counts(fc, in_reduce=lambda p: die(marker)).collect_as_map() == EXPECTED
        story.wait_until_jobs_ended()
        lost = {p for event in story.of(ev.ShuffleOutputsLost) for p in event.partitions}
        again = {p: n - 1 for p, n in story.successes(story.map_stages()[0].stage).items() if n > 1}
        # Whether the worker came back before its neighbour needed the files is a race; what holds either way:
        assert again == dict.fromkeys(lost, 1), "exactly what was declared lost was computed again"


def test_large_closures_and_results_travel_between_hosts(two_hosts):
    payload = bytes(range(256)) * 4_000
    with fk.Context(two_hosts, progress="off") as fc:
        sizes = fc.range(8, num_partitions=8).map(lambda i: len(payload) + i).collect()
        assert sizes == [len(payload) + i for i in range(8)]
        big = fc.range(4, num_partitions=4).map(lambda i: payload).collect()
        assert big == [payload] * 4


def test_a_broadcast_reaches_the_other_host_and_leaves_the_driver_once(two_hosts, tmp_path: Path):
    table = {number: "x" * 100 for number in range(20_000)}
    with fk.Context(two_hosts, progress="off") as fc:
        sent = fc.broadcast(table)
        rows = fc.range(12, num_partitions=12).map(lambda x: len(sent.value) + x)
        assert rows.collect() == [20_000 + x for x in range(12)]
        held = [path.stat().st_size for path in tmp_path.glob("*/*/*/content/*")]
        assert held.count(sent.size_bytes) == 2, "one copy a host"


def test_a_broadcast_in_rows_is_found_by_a_stage_that_did_not_name_it(two_hosts):
    with fk.Context(two_hosts, progress="off") as fc:
        sent = fc.broadcast(["x" * 100] * 20_000)
        pairs = fc.parallelize([(n, sent) for n in range(6)], 1).partition_by(4)
        assert sum(pairs.map(lambda pair: len(pair[1].value)).collect()) == 6 * 20_000


def test_a_broadcast_outlives_the_host_that_had_it_first(two_hosts, story: Story, tmp_path: Path):
    with fk.Context(two_hosts, progress="off") as fc:
        fc.add_listener(story)
        sent = fc.broadcast(["x" * 100] * 20_000)
        sizes = fc.range(8, num_partitions=8).map(lambda _: len(sent.value))
        assert sizes.collect() == [20_000] * 8
        holders = {path.parts[-5] for path in tmp_path.glob("*/*/*/content/*") if path.stat().st_size == sent.size_bytes}
        assert holders == {"north", "south"}
        for name in sorted(holders):
            fc.range(2, num_partitions=2).map(Kill(name, tmp_path / f"killed {name}")).collect()
            assert sizes.collect() == [20_000] * 8


class Kill:
    """Ends the process of one host's executor, once."""

    def __init__(self, name, marker):
        self.name, self.marker = name, marker

    def __call__(self, x):
        import os
        import threading

        gate = threading.Event()
        while not self.marker.exists():
            if os.environ["FLOWKIT_LOCAL_DIRECTORY"].endswith(self.name):
                die(self.marker)
            gate.wait(0.01)
        return x


def test_an_unpersisted_broadcast_leaves_every_host_and_comes_back(two_hosts, tmp_path: Path):
    def held():
        return sum(path.stat().st_size == sent.size_bytes for path in tmp_path.glob("*/*/*/content/*"))

    with fk.Context(two_hosts, progress="off") as fc:
        sent = fc.broadcast(["x" * 100] * 20_000)
        sizes = fc.range(8, num_partitions=8).map(lambda _: len(sent.value))
        assert sizes.collect() == [20_000] * 8
        sent.unpersist()
        wait_until(lambda: held() == 0)
        assert sizes.collect() == [20_000] * 8
        assert held() >= 1
        sent.destroy()
        wait_until(lambda: held() == 0)


def wait_until(condition):
    gate = threading.Event()
    for _ in range(1_000):
        if condition():
            return
        gate.wait(0.01)
    raise AssertionError("it did not happen within 10 s")
