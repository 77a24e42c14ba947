"""One partition of one stage in this very process, on inputs that are given: to look at what failed.

Runs in the driver, on whatever thread asks.
"""

from __future__ import annotations

import pickle
import secrets
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn

from flowkit.errors import InternalError
from flowkit.execution.blame import element_at_fault
from flowkit.execution.environment import TaskEnvironment
from flowkit.execution.pipeline import TaskValue, run_program
from flowkit.execution.recording import recording
from flowkit.execution.task_context import REPLAY, TaskContext, set_current
from flowkit.lineage.kernels import Collection, StageProgram
from flowkit.logs import is_ctrl_c
from flowkit.model.ids import AppId, AttemptId, ContentId, HostToken, PartitionIndex, ShuffleId, StageId
from flowkit.model.job_spec import Content
from flowkit.model.metrics import TaskMetrics
from flowkit.storage.blocks.block_store import BlockStore
from flowkit.storage.host_directory import DriverDirectory
from flowkit.storage.memory.task_memory import ExecutorMemory, TaskMemory
from flowkit.storage.shuffle.files import ShuffleFiles

#: there is no element: none was at hand when it failed
NO_ELEMENT: Final = object()


@dataclass(frozen=True, slots=True)
class LocalRun:
    """What became of a partition: a value, or an error with the element that was at hand."""

    value: Any = None
    error: BaseException | None = None
    element: Any = NO_ELEMENT


def run_here(program: StageProgram, partition: int, rows: Mapping[int, Mapping[int, Sequence[Any]]]) -> LocalRun:
    """Run a stage's steps on one partition, with ``rows`` by step and partition in place of what those steps would compute.

    What tasks add to accumulators on the way is dropped.
    """
    steps = list(program.steps)
    for place, by_partition in rows.items():
        steps[place] = replace(steps[place], kernel=_given(by_partition, steps[place].num_partitions), inputs=(), level=None)
    steps = [replace(step, level=None) if step.level else step for step in steps]
    prepared = recording(replace(program, steps=tuple(steps)))
    with closing(DriverDirectory(AppId(f"replay-{secrets.token_hex(8)}"), None)) as own:
        environment = _environment(own.application().path, partition)
        context = TaskContext(
            app_id=environment.app,
            stage_id=environment.stage,
            stage_attempt_number=0,
            partition_id=PartitionIndex(partition),
            num_partitions=steps[-1].num_partitions,
            attempt_number=0,
            task_attempt_id=environment.attempt,
            local_properties={},
            metrics=environment.metrics,
        )
        set_current(context)
        try:
            output = run_program(prepared, environment)
        except BaseException as error:  # also what is no ``Exception``: the driver is to look at it, not to end with it
            if is_ctrl_c(error):
                raise
            found = element_at_fault(error, prepared)
            return LocalRun(error=error, element=found[0] if found else NO_ELEMENT)
        finally:
            set_current(None)
            environment.shuffle_files.close()
    return LocalRun(value=output.value if isinstance(output, TaskValue) else None)


def _given(by_partition: Mapping[int, Sequence[Any]], count: int) -> Collection:
    """A source of rows that are at hand. Pickled, as they would be on their way: a task may change its rows."""
    data, spans = b"", []
    for partition in range(count):
        piece = pickle.dumps(list(by_partition[partition]), pickle.HIGHEST_PROTOCOL) if partition in by_partition else b""
        spans.append((len(data), len(piece), zlib.crc32(piece)))
        data += piece
    return Collection(Content(ContentId("0" * 64), len(data), inline=data), tuple(spans))


class _Nowhere:
    """No other host, no content besides what is given."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise InternalError("a replayed partition reads what it was given alone")

    fetch_shuffle = fetch_cached = fetch_output = describe_content = fetch_piece = path = _refuse


def _no_sources(shuffle: ShuffleId) -> NoReturn:
    raise InternalError(f"a replayed partition reads shuffle {shuffle}, which it was not given")


def _environment(directory: Path, partition: int) -> TaskEnvironment:
    attempt = AttemptId(0)
    nowhere = _Nowhere()
    return TaskEnvironment(
        app=REPLAY,
        stage=StageId(0),
        partition=PartitionIndex(partition),
        output=PartitionIndex(partition),
        attempt=attempt,
        host=HostToken("driver"),
        num_reducers=0,
        metrics=TaskMetrics(),
        memory=TaskMemory(ExecutorMemory(1 << 40), attempt),
        shuffle_files=(files := ShuffleFiles(directory)),
        shuffle_reads=files,
        sources=_no_sources,
        transport=nowhere,
        uses_cache=True,
        kept_as={},
        cache=BlockStore(),
        content=nowhere,
        spill_directory=directory,
        fetch_in_flight_bytes=1 << 20,
        shuffle_codec="none",
        check_killed=lambda: None,
        acquire_commit=lambda: None,
    )
