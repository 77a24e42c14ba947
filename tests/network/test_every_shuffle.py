"""Every operation with a shuffle between two hosts far apart, on links that lose a hundredth and are cut one way now and then."""

from __future__ import annotations

import inspect
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

import flowkit as fk
from flowkit.lineage import kernels
from flowkit.model import events as ev
from flowkit.testing.inline import inline_context
from tests.chaos.conftest import Story
from tests.network.conftest import Net
from tests.network.shuffles import SHUFFLES
from tests.network.test_cuts import counts

DELAY_S, LOSS = 0.05, 0.01

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(300)]

Session = tuple[Net, fk.Context, Story]


@pytest.fixture(scope="module")
def session(lasting_wide_net: Net) -> Iterator[Session]:
    with lasting_wide_net.client() as client, fk.Context(client, progress="off", heartbeat_s=0.5, executor_timeout_s=20.0) as fc:
        story = Story()
        fc.add_listener(story)
        story.wait_for(lambda s: len({event.host for event in s.of(ev.ExecutorAdded)}) == 2, "two executors", 60)
        for name in ("north", "south"):
            lasting_wide_net.impair(name, delay_s=DELAY_S, loss=LOSS)
        yield lasting_wide_net, fc, story


def remote_bytes(story: Story) -> int:
    return sum(end.metrics.shuffle_remote_bytes for end in story.of(ev.TaskEnd))


def reached(node: object) -> list[object]:
    """Kernels of an RDD and of all it is made of."""
    return [node.kernel, *(kernel for each in node.dependencies for kernel in reached(each.parent))]


def test_no_kernel_and_no_operation_with_a_shuffle_is_left_out() -> None:
    with inline_context() as fc:
        found = [kernel for shuffle in SHUFFLES.values() for kernel in reached(shuffle.build(fc)._node)]
        for shuffle in SHUFFLES.values():
            shuffle.check(fc)
    assert {each.kind for each in found if isinstance(each, kernels.Join)} == set(kernels.JoinKind)
    reads = [each for each in found if isinstance(each, kernels.ShuffleRead)]
    kinds = {each.aggregator.kind for each in reads if each.aggregator}
    assert kinds == set(kernels.AggregationKind)
    assert {each.order.descending for each in reads if each.order} == {False, True}
    assert any(isinstance(each, kernels.CoGroup) for each in found)
    told = {
        name
        for name, method in inspect.getmembers(fk.RDD, callable)
        if re.search(r"Cost: (one job of [^.]*, with )?a shuffle", inspect.getdoc(method) or "")
    }
    # What is one of the others below its face.
    assert told - {each.partition(" ")[0] for each in SHUFFLES} <= {"tree_reduce"}, "an operation that this suite does not try"


@pytest.mark.parametrize("name", list(SHUFFLES))
def test_far_and_lossy_links_cost_time_and_nothing_else(session: Session, name: str) -> None:
    _, fc, story = session
    before = remote_bytes(story)
    for _ in range(10):  # on a loaded machine one host may be done with all of it before the other has begun
        SHUFFLES[name].check(fc)
        fc.wait_for_listeners()
        if remote_bytes(story) > before:
            break
    else:
        pytest.fail("nothing crossed the link: this shows nothing")
    assert not story.of(ev.ExecutorRemoved)
    assert not story.of(ev.ShuffleOutputsLost)
    assert not story.failures()


class Cuts:
    """Has one direction of one link silent for a while, again and again, by a seed."""

    WAYS = (("north", "south"), ("south", "north"), ("north", ""), ("south", ""))

    def __init__(self, net: Net, seed: int) -> None:
        self._net = net
        self._chance = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cuts")
        self.made: Counter[tuple[str, str]] = Counter()

    def _run(self) -> None:
        while not self._over.wait(self._chance.uniform(0.5, 1.5)):
            way = self._chance.choice(self.WAYS)
            self._net.silence(*way)
            self._over.wait(self._chance.uniform(0.3, 2.0))
            self._net.end_silence(*way)
            self.made[way] += 1

    def __enter__(self) -> Cuts:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()


def test_links_that_are_silent_one_way_for_a_while_cost_no_wrong_answer(session: Session) -> None:
    net, fc, story = session
    with Cuts(net, seed=17) as cuts:
        for name, shuffle in SHUFFLES.items():
            try:
                shuffle.check(fc)
            except Exception as error:
                error.add_note(f"in {name}, after {dict(cuts.made)}")
                raise
    assert sum(cuts.made.values()) >= 5
    fc.wait_for_listeners()
    assert not story.of(ev.ExecutorRemoved), "two seconds are less than executor_timeout_s"


def test_a_host_whose_word_does_not_arrive_is_given_up_and_comes_back(wide_net: Net) -> None:
    """South hears the scheduler, and what it answers is lost: from outside it cannot be told from one that is dead."""
    with wide_net.client() as client, fk.Context(client, progress="off", heartbeat_s=0.5, executor_timeout_s=6.0) as fc:
        story = Story()
        fc.add_listener(story)
        for name in ("north", "south"):
            wide_net.impair(name, delay_s=DELAY_S, loss=LOSS)
        job = counts(fc, map_s=0.3).collect_async()
        story.wait_for(lambda s: len([end for end in s.of(ev.TaskEnd) if end.failure is None]) >= 4, "four tasks are over", 60)
        begun = time.monotonic()
        wide_net.silence("south")
        assert dict(job.result(120)) == {f"key {k}": 60 for k in range(50)}
        assert time.monotonic() - begun < 60
        story.wait_for(lambda s: s.of(ev.ExecutorRemoved), "the loss of south", 60)
        fc.wait_for_listeners()
        lost = Counter(p for event in story.of(ev.ShuffleOutputsLost) for p in event.partitions)
        again = {p: times - 1 for p, times in story.successes(story.map_stages()[0].stage).items() if times > 1}
        assert again == dict(lost), "recomputed = lost"
        wide_net.end_silence("south")
        story.wait_for(lambda s: len(s.of(ev.ExecutorAdded)) >= 3, "it comes back", 90)
        for name in ("join", "sort_by_key", "group_by_key of numbers"):
            SHUFFLES[name].check(fc)
