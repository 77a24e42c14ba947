"""Real schedulers and workers, driven through a raw link with programs made by hand: what the adapter does, without the DSL."""

from __future__ import annotations

import itertools
import os
import pickle
import threading
from collections.abc import Callable, Iterator

import cloudpickle
import pytest

from flowkit.cluster.client_link import ClientLink
from flowkit.cluster.embedded import EmbeddedCluster
from flowkit.config import Config
from flowkit.lineage.kernels import IntegerRange, Map, Result, ShuffleRead, ShuffleWrite, StageProgram, Step, StepInput, Window
from flowkit.lineage.partitioners import HashPartitioner
from flowkit.model.ids import JobId, RddId, ShuffleId, StageId
from flowkit.model.job_spec import JobSpec, ParentShuffle, StageKind, StageSpec

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def config() -> Config:
    """Short times, so that silence is noticed within a test."""
    return Config.from_environment(os.environ).with_settings(
        heartbeat_s=0.2, executor_timeout_s=5.0, no_executor_timeout_s=20.0, kill_grace_s=1.0
    )


@pytest.fixture(scope="module")
def cluster(config: Config) -> Iterator[EmbeddedCluster]:
    """Two worker processes of one slot, shared by a module's tests; for those that break something, make one of your own."""
    with EmbeddedCluster(2, config=config) as cluster:
        yield cluster


@pytest.fixture
def link(cluster: EmbeddedCluster, config: Config) -> Iterator[ClientLink]:
    """A session on the shared cluster."""
    link = ClientLink.connect(cluster.cluster, name="test", config=config)
    yield link
    link.close()


class Heard:
    """Every event a link heard, to wait for."""

    def __init__(self, link: ClientLink) -> None:
        self.events = []
        self._changed = threading.Condition()
        link.subscribe(self._take)

    def _take(self, events) -> None:
        with self._changed:
            self.events.extend(events)
            self._changed.notify_all()

    def of(self, kind: type) -> list:
        with self._changed:
            return [event for event in self.events if isinstance(event, kind)]

    def wait_for(self, kind: type, count: int = 1, timeout_s: float = 20.0) -> list:
        """The events of a kind, once there are ``count``."""
        with self._changed:
            found = lambda: [event for event in self.events if isinstance(event, kind)]
            if not self._changed.wait_for(lambda: len(found()) >= count, timeout_s):
                raise TimeoutError(f"{count} of {kind.__name__} did not come; heard {[type(e).__name__ for e in self.events]}")
            return found()


class Job:
    """A submitted job and what it gave so far."""

    def __init__(self, link: ClientLink, spec: JobSpec) -> None:
        self.results = {}
        self.handle = link.submit(spec, lambda partition, data: self.results.__setitem__(partition, pickle.loads(data)))

    def wait(self, timeout_s: float = 60.0) -> list:
        """Results by partition."""
        self.handle.wait(timeout_s)
        return [result for _, result in sorted(self.results.items())]


def _range_step(count: int) -> Step:
    return Step(RddId(0), IntegerRange(0, count, 1, count), (), count, "range", "test.py:1")


def map_job(link: ClientLink, count: int, fn: Callable[[int], object]) -> Job:
    """Submit one stage of ``count`` tasks, each giving ``[fn(partition)]``."""
    number = next(_numbers)
    steps = (_range_step(count), Step(RddId(1), Map(fn), (StepInput(0, Window(0, count)),), count, "map", "test.py:2"))
    program = link.put_content(cloudpickle.dumps(StageProgram(steps, Result(lambda p, it: list(it)))))
    stage = StageSpec(StageId(number), "map at test.py:2", StageKind.RESULT, count, tuple(range(count)), program)
    return Job(link, JobSpec(link.app, JobId(number), "collect at test.py:3", (stage,)))


def shuffle_job(link: ClientLink, maps: int, reducers: int, in_map: Callable[[int], object] = lambda i: None) -> Job:
    """Submit two stages: ``maps`` tasks write pairs ``(i, i)`` for i < maps, ``reducers`` tasks give the sum of their values."""
    number = next(_numbers)
    shuffle, map_stage, result_stage = ShuffleId(number), StageId(number * 2 + 1_000_000), StageId(number * 2 + 1_000_001)

    def pair(i: int) -> tuple[int, int]:
        in_map(i)
        return i, i

    steps = (_range_step(maps), Step(RddId(1), Map(pair), (StepInput(0, Window(0, maps)),), maps, "map", "test.py:2"))
    writer = StageProgram(steps, ShuffleWrite(shuffle, HashPartitioner(reducers)))
    read = Step(RddId(2), ShuffleRead(shuffle), (), reducers, "partition_by", "test.py:3")
    reader = StageProgram((read,), Result(lambda p, it: sum(v for _, v in it)))
    stages = (
        StageSpec(
            map_stage,
            "map at test.py:2",
            StageKind.MAP,
            maps,
            tuple(range(maps)),
            link.put_content(cloudpickle.dumps(writer)),
            shuffle=shuffle,
            num_reducers=reducers,
        ),
        StageSpec(
            result_stage,
            "sum at test.py:4",
            StageKind.RESULT,
            reducers,
            tuple(range(reducers)),
            link.put_content(cloudpickle.dumps(reader)),
            parents=(ParentShuffle(shuffle),),
        ),
    )
    return Job(link, JobSpec(link.app, JobId(number), "sum at test.py:4", stages))
