"""One operation of a task spills at its own limit, and leaves the others of the task theirs."""

from __future__ import annotations

from flowkit.execution import spill
from flowkit.execution.spill import LoadingTable
from flowkit.lineage.kernels import Aggregate, CoGroup, Result, ShuffleWrite, StageProgram, Step, StepInput, Window
from flowkit.lineage.partitioners import HashPartitioner
from flowkit.model.ids import ShuffleId
from tests.unit.execution.surroundings import Surroundings, chain_of, collect
from tests.unit.execution.test_wide import GROUP, grouped, many, naive_cogroup, rows_of

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


def test_a_table_of_one_side_makes_room_for_the_operation_that_makes_the_other(surroundings: Surroundings, monkeypatch) -> None:
    surroundings.memory_bytes = 14 << 20
    left, right = [(n, f"{n:0150d}") for n in range(40_000)], many(60_000, 40_000)
    spilled = []
    spill_one = LoadingTable.spill

    def noted(self):
        spilled.append("cogroup" if isinstance(self.table, list) else "aggregate")
        return spill_one(self)

    monkeypatch.setattr(LoadingTable, "spill", noted)
    (source, left_rows), (_, right_rows) = rows_of(left), rows_of(right)
    one = (StepInput(0, Window(0, 1)),)
    steps = (
        Step(0, source, (), 1, "range", ""),
        Step(1, left_rows, one, 1, "left", ""),
        Step(2, right_rows, one, 1, "right", ""),
        Step(3, Aggregate(GROUP), (StepInput(2, Window(0, 1)),), 1, "group", "here.py:2"),
        Step(4, CoGroup((None, None)), (StepInput(1, Window(0, 1)), StepInput(3, Window(0, 1))), 1, "cogroup", "here.py:3"),
    )
    assert surroundings.run(StageProgram(steps, Result(collect))) == naive_cogroup(left, list(grouped(right).items()))
    assert spilled[0] == "cogroup", "it held memory that the other side's table wanted"
