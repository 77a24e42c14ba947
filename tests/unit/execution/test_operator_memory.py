"""One operation of a task spills at its own limit, and leaves the others of the task theirs."""

from __future__ import annotations

from flowkit.execution import spill
from flowkit.lineage.kernels import Aggregate, ShuffleWrite
from flowkit.lineage.partitioners import HashPartitioner
from flowkit.model.ids import ShuffleId
from tests.unit.execution.surroundings import Surroundings, chain_of
from tests.unit.execution.test_wide import GROUP, grouped, many, rows_of

LIMIT = 4 << 20


def test_an_operation_spills_at_its_limit_though_the_task_has_memory_left(surroundings: Surroundings) -> None:
    pairs = many(120_000, 30_000)
    surroundings.operator_limit_bytes = LIMIT
    assert surroundings.run(chain_of(*rows_of(pairs), Aggregate(GROUP))) == list(grouped(pairs).items())
    assert surroundings.metrics.disk_spilled_bytes > 0
    assert surroundings.last.memory.peak_bytes <= 2 * LIMIT, "merging holds one table beside none"


def test_two_operations_of_a_task_have_a_limit_each(surroundings: Surroundings) -> None:
    pairs = many(120_000, 30_000)
    surroundings.operator_limit_bytes = LIMIT
    output = ShuffleWrite(ShuffleId(5), HashPartitioner(4), None, operation="partition_by", call_site="here.py:9")
    status = surroundings.run(chain_of(*rows_of(pairs), Aggregate(GROUP), output=output))
    assert status.rows == len(grouped(pairs))
    # The table, the shuffle's buffers and its chunk: none took from another.
    assert LIMIT < surroundings.last.memory.peak_bytes <= 3 * LIMIT


def test_without_a_limit_nothing_spills(surroundings: Surroundings) -> None:
    surroundings.run(chain_of(*rows_of(many(120_000, 30_000)), Aggregate(GROUP)))
    assert surroundings.metrics.disk_spilled_bytes == 0
    assert surroundings.last.memory.peak_bytes > LIMIT > spill.SMALLEST_TABLE_BYTES
