"""A task's surroundings without an executor: real stores in a temporary directory, a budget of any size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from flowkit.execution import spill
from flowkit.execution.environment import TaskEnvironment
from flowkit.execution.pipeline import TaskValue, run_program
from flowkit.lineage.kernels import Kernel, Result, ShuffleWrite, StageProgram, Step, StepInput, Window
from flowkit.model.ids import AppId, AttemptId, HostToken, PartitionIndex, RddId, ShuffleId, StageId
from flowkit.model.map_status import MapStatus, ShuffleSources
from flowkit.model.metrics import TaskMetrics
from flowkit.model.storage_level import StorageLevel
from flowkit.storage.blocks.block_store import BlockStore
from flowkit.storage.memory.task_memory import ExecutorMemory, TaskMemory
from flowkit.storage.shuffle.files import ShuffleFiles

APP, HOST = AppId("app"), HostToken("here")


class NoTransport:
    """Everything lies on this host."""

    def fetch_shuffle(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("nothing is remote here")

    describe_content = fetch_piece = fetch_cached = fetch_output = fetch_shuffle


@dataclass
class Surroundings:
    """Runs programs, one task after the other, on shared stores."""

    directory: Path
    files: ShuffleFiles
    cache: BlockStore = field(default_factory=BlockStore)
    written: dict[ShuffleId, list[MapStatus]] = field(default_factory=dict)
    content: dict[str, Path] = field(default_factory=dict)
    memory_bytes: int = 1 << 40
    operator_limit_bytes: int = 0
    check_killed: Callable[[], None] = lambda: None
    attempts: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    #: of the last task
    last: TaskEnvironment | None = None

    @property
    def metrics(self) -> TaskMetrics:
        """Of the last task."""
        assert self.last is not None
        return self.last.metrics

    def environment(self, partition: int = 0) -> TaskEnvironment:
        attempt = AttemptId(next(self.attempts))
        spill_directory = self.directory / f"spill-{attempt}"
        spill_directory.mkdir()
        content = self.content

        class Content:
            def path(self, name: str) -> Path:
                return content[name]

        self.last = TaskEnvironment(
            app=APP,
            stage=StageId(0),
            partition=PartitionIndex(partition),
            output=PartitionIndex(partition),
            attempt=attempt,
            host=HOST,
            num_reducers=0,
            metrics=TaskMetrics(),
            memory=TaskMemory(ExecutorMemory(self.memory_bytes), attempt, operator_limit_bytes=self.operator_limit_bytes),
            shuffle_files=self.files,
            shuffle_reads=self.files,
            sources=lambda shuffle: ShuffleSources(shuffle, 1, tuple(self.written[shuffle]), {HOST: ()}),
            transport=NoTransport(),
            uses_cache=True,
            kept_as={},
            cache=self.cache,
            content=Content(),
            spill_directory=spill_directory,
            fetch_in_flight_bytes=1 << 20,
            shuffle_codec="none",
            check_killed=self.check_killed,
            acquire_commit=lambda: None,
        )
        return self.last

    def run(self, program: StageProgram, partition: int = 0) -> Any:
        """The value of a program's action, or the status of its shuffle file; memory and spill files must be gone afterwards."""
        environment = self.environment(partition)
        output = run_program(program, environment)
        assert environment.memory.used_bytes == 0
        assert not list(environment.spill_directory.iterdir())
        return output.value if isinstance(output, TaskValue) else output

    def write(self, shuffle: int, programs: Sequence[StageProgram]) -> None:
        """Run map tasks: map partition ``p`` is partition ``p`` of the ``p``-th program."""
        self.written[ShuffleId(shuffle)] = [self.run(program, partition) for partition, program in enumerate(programs)]


@pytest.fixture
def surroundings(tmp_path: Path) -> Iterator[Surroundings]:
    """Surroundings with memory for everything."""
    files = ShuffleFiles(tmp_path / "shuffles")
    yield Surroundings(tmp_path, files)
    files.close()


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch, surroundings: Surroundings) -> Surroundings:
    """Surroundings in which nearly everything is spilled, several times over."""
    monkeypatch.setattr(spill, "SMALLEST_TABLE_BYTES", 0)
    surroundings.memory_bytes = 20_000
    return surroundings


def collect(partition: int, elements: Iterator[Any]) -> list[Any]:
    return list(elements)


def chain_of(
    *kernels: Kernel,
    output: ShuffleWrite | None = None,
    fn: Callable[[int, Iterator[Any]], Any] = collect,
    num_partitions: int = 1,
) -> StageProgram:
    """Steps one after the other; operations are named by the kernel, call sites are ``here.py:<step>``."""
    steps = tuple(
        Step(
            RddId(number),
            kernel,
            (StepInput(number - 1, Window(0, num_partitions)),) if number else (),
            num_partitions,
            type(kernel).__name__.lower(),
            f"here.py:{number}",
        )
        for number, kernel in enumerate(kernels)
    )
    return StageProgram(steps, output or Result(fn, "collect", "here.py:99"))


def cached(program: StageProgram, *numbers: int, level: StorageLevel = StorageLevel.MEMORY_ONLY) -> StageProgram:
    """The program with some of its steps marked as cached."""
    return replace(
        program,
        steps=tuple(replace(step, level=level if number in numbers else None) for number, step in enumerate(program.steps)),
    )
