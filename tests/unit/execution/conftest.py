"""An executor without a cluster: launches by hand, reports in a list that can be waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import pytest

from flowkit.config import Config
from flowkit.execution.executor import Executor
from flowkit.lineage.kernels import IntegerRange, Result, StageProgram, Step
from flowkit.model.job_spec import INLINE_LIMIT_BYTES, Content
from flowkit.model.task import StageDefinition, TaskFailed, TaskLaunch, TaskStarted, TaskSucceeded
from flowkit.storage.content import content_id
from flowkit.storage.host_directory import HostDirectory
from tests.unit.execution.surroundings import surroundings, tight  # noqa: F401 -- fixtures

APP = "app-test"


class NoTransport:
    """Nobody else is there."""

    def fetch_shuffle(self, address, app, shuffle, reducer, outputs, *, timeout_s):
        raise OSError("no other executor in this test")

    def fetch_content(self, address, app, content, *, timeout_s):
        raise OSError("no other executor in this test")


class Bench:
    """One executor, and all it says."""

    def __init__(
        self, directory, *, slots: int = 2, config: Config | None = None, transport: Any = None, memory_manager: Any = None
    ) -> None:
        self.changed = threading.Condition()
        self.reports: list[Any] = []
        self.commit_requests: list[int] = []
        self.arrivals: list[Any] = []
        self.replaced: list[tuple[str, tuple[int, ...]]] = []
        self.evicted: list[Any] = []
        self.host_directory = HostDirectory.open(directory)
        self.executor = Executor(
            executor="tcp://127.0.0.1:1#a",
            host_directory=self.host_directory,
            slots=slots,
            memory_limit_bytes=2 << 30,
            config=config or Config(),
            transport=transport or NoTransport(),
            report=self._note(self.reports.extend),
            request_commit=self._note(self.commit_requests.append),
            reach_barrier=self._note(lambda *arrival: self.arrivals.append(arrival)),
            blocks_evicted=self._note(lambda app, blocks: self.evicted.append((app, tuple(blocks)))),
            replace_process=self._note(lambda reason, others: self.replaced.append((reason, others))),
            memory_manager=memory_manager,
        )

    def _note(self, write: Callable[..., None]) -> Callable[..., None]:
        def noting(*args: Any) -> None:
            with self.changed:
                write(*args)
                self.changed.notify_all()

        return noting

    def wait(self, condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
        """Wait until something was heard that makes ``condition`` true."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout_s), f"never heard; reports: {self.reports}"
            return condition()

    def define(self, fn: Callable[..., Any], *, stage: int = 0, num_partitions: int = 100, **fields: Any) -> StageDefinition:
        """A result stage that calls ``fn(partition, iterator over 10 integers)``."""
        source = Step(0, IntegerRange(0, 10 * num_partitions, 1, num_partitions), (), num_partitions, "range", "test.py:1")
        return self.define_program(StageProgram((source,), Result(fn)), stage=stage, num_partitions=num_partitions, **fields)

    def define_program(
        self, program: StageProgram, *, stage: int = 0, num_partitions: int = 100, **fields: Any
    ) -> StageDefinition:
        return self.define_bytes(cloudpickle.dumps(program), stage=stage, num_partitions=num_partitions, **fields)

    def define_bytes(self, data: bytes, *, stage: int = 0, num_partitions: int = 100, **fields: Any) -> StageDefinition:
        inline = data if len(data) <= INLINE_LIMIT_BYTES else None
        fields = {
            "app": APP,
            "stage": stage,
            "stage_attempt": 0,
            "version": 0,
            "name": "collect at test.py:2",
            "num_partitions": num_partitions,
            "program": Content(content_id(data), len(data), inline),
            "attachments": (),
            "sources": (),
            "shuffle": None,
            "num_reducers": 0,
            "properties": {"pool": "adhoc"},
        } | fields
        definition = StageDefinition(**fields)
        self.executor.define_stage(definition)
        return definition

    def launch(self, *attempts: int, stage: int = 0, stage_attempt: int = 0) -> None:
        """Attempt ``n`` is for partition ``n``."""
        self.executor.launch([TaskLaunch(attempt, APP, stage, stage_attempt, attempt % 100, 0) for attempt in attempts])

    def ending(self, attempt: int) -> Any:
        """The one ending of an attempt."""
        endings = self.wait(
            lambda: [each for each in self.reports if each.attempt == attempt and not isinstance(each, TaskStarted)]
        )
        assert len(endings) == 1
        return endings[0]

    def value(self, attempt: int) -> Any:
        """What an attempt returned."""
        ending = self.ending(attempt)
        assert isinstance(ending, TaskSucceeded), ending
        return cloudpickle.loads(ending.result.data)

    def failure(self, attempt: int) -> Any:
        """What an attempt failed with."""
        ending = self.ending(attempt)
        assert isinstance(ending, TaskFailed), ending
        return ending.failure

    def wait_until_idle(self) -> None:
        """Return when no attempt is known any more; the last thing a slot does is to forget the one it ran."""
        while self.executor.known_attempts():
            threading.Event().wait(0.001)


@pytest.fixture
def make_bench(tmp_path) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(*, start: bool = True, **options: Any) -> Bench:
        bench = Bench(tmp_path / "host", **options)
        benches.append(bench)
        if start:
            bench.executor.start()
        return bench

    yield make
    for bench in benches:
        bench.executor.close()
        bench.host_directory.close()


@pytest.fixture
def bench(make_bench) -> Bench:
    return make_bench()
