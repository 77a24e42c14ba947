"""What counts as immutable is so: nothing that can be changed is handed out without a copy."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
from hypothesis import given

from flowkit.execution.spilled_values import SpilledValues
from flowkit.storage.blocks.immutable_values import are_immutable
from tests.unit.storage.blocks.mutations import COLUMNS, IMMUTABLE, MUTABLE, Frozen, Point, change, look


@pytest.mark.parametrize("value", IMMUTABLE, ids=[type(value).__name__ for value in IMMUTABLE])
@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: (1, it), lambda it: Point(it, 2), Frozen, lambda it: ((it,),)])
def test_what_nobody_can_change_is_immutable_alone_and_in_what_is_immutable(value, wrap):
    assert are_immutable([wrap(value)] * 3)


@pytest.mark.parametrize("name", MUTABLE)
@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: (1, it), lambda it: Point(it, 2), Frozen, lambda it: ((it,),)])
def test_one_value_that_can_be_changed_is_found_among_many(name, wrap):
    assert not are_immutable([wrap(MUTABLE[name]())])
    assert not are_immutable([wrap(1)] * 10_000 + [wrap(MUTABLE[name]())] + [wrap("a")] * 10_000)


def test_arrow_data_is_immutable_and_arrows_buffers_are_not():
    batch = pa.RecordBatch.from_pydict({"a": [1, 2]})
    table = pa.table({"a": [1]})
    assert are_immutable([batch, table, table["a"], batch["a"], batch["a"][0], batch.schema, batch.schema.field(0), pa.int64()])
    assert not are_immutable([pa.py_buffer(bytearray(b"a"))])
    assert not are_immutable([pa.BufferOutputStream()])


def test_a_match_is_immutable_if_what_was_searched_is():
    assert are_immutable([("a", re.search("a+", "baa"))])
    assert not are_immutable([re.search(b"a", bytearray(b"a"))])


def test_values_on_disk_are_immutable(tmp_path):
    values = SpilledValues(tmp_path)
    values.extend([[1], [2]])
    assert are_immutable([(1, values)])
    values[0].append(3)
    assert list(values) == [[1], [2]]


def test_tuples_in_tuples_without_end_count_as_mutable():
    row = ()
    for _ in range(100_000):
        row = (row,)
    assert not are_immutable([row])
    while row:  # taken apart by hand: Python's own deallocation is not what is tested here
        (row,) = row


def test_a_frozen_dataclass_with_what_was_slipped_into_it_counts_as_mutable():
    row = Frozen(1)
    vars(row)["more"] = [1]
    assert not are_immutable([row])


@given(COLUMNS)
def test_what_counts_as_immutable_withstands_every_change(rows):
    if are_immutable(rows):
        before = [look(row) for row in rows]
        for row in rows:
            change(row)
        assert [look(row) for row in rows] == before
