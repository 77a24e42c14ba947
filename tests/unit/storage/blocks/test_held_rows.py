"""Rows in memory: each reader has its own, equal to what was stored down to types and to who shares what."""

from __future__ import annotations

import threading
from itertools import chain

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flowkit.storage.blocks.block_pieces import block_piece
from flowkit.storage.blocks.held_rows import Access, HeldRows, RowsNotPicklable
from flowkit.storage.blocks.row_shapes import IMMUTABLE as IMMUTABLE_SHAPE
from flowkit.storage.blocks.row_shapes import take_apart
from flowkit.storage.serializers import decode_batch
from tests.unit.storage.blocks.mutations import COLUMNS, MUTABLE, Plain, Point, change, look


def held(*batches, by_reference=False):
    found = HeldRows(by_reference=by_reference)
    for batch in batches:
        found.add(list(batch))
    return found


@given(st.lists(COLUMNS.filter(bool), max_size=4))
def test_whatever_readers_and_makers_do_to_rows_what_is_held_stays_as_it_was(batches):
    rows = held(*batches)
    expected = [look(row) for row in chain.from_iterable(batches)]
    for row in chain.from_iterable(batches):  # by whoever made them
        change(row)
    for _ in range(2):
        found = list(rows.rows())
        assert [look(row) for row in found] == expected
        for row in found:
            change(row)
    assert [look(row) for row in chain.from_iterable(rows.batches())] == expected
    assert [look(row) for row in rows.rows(Access.AS_HELD)] == expected
    assert len(list(rows.rows(Access.COUNT))) == len(expected)
    assert [look(row) for row in chain.from_iterable(rows.drained())] == expected
    assert list(rows.rows()) == []


@given(st.lists(COLUMNS.filter(bool), max_size=4))
def test_another_executor_is_sent_what_is_held(batches):
    rows = held(*batches)
    found, position = [], 0
    while position is not None:
        piece = block_piece(rows.encoded_at, len(rows), 1, position)
        found += chain.from_iterable(map(decode_batch, piece.batches))
        position = piece.next_position
    # Rows that share nothing within themselves: an encoded batch does not tell what one row refers to twice.
    assert [_without_sharing(look(row)) for row in found] == [_without_sharing(look(row)) for row in rows.rows()]


def _without_sharing(seen):
    return "shared" if type(seen) is int else [_without_sharing(each) for each in seen] if type(seen) in {list, tuple} else seen


@pytest.mark.parametrize("name", MUTABLE)
def test_two_readers_at_once_have_nothing_in_common(name):
    rows = held([MUTABLE[name]() for _ in range(3)])
    expected = [look(MUTABLE[name]()) for _ in range(3)]
    first, second = rows.rows(), rows.rows()
    for _ in range(3):
        change(next(first))
        assert look(next(second)) == expected[0]


@pytest.mark.parametrize(
    ("rows", "copied"),
    [
        ([("a", [1, 2]), ("b", [])], True),
        ([[1], [2]], True),
        ([{"a": 1}, {"a": None}], True),
        ([Point(1, {2}), Point(2, set())], True),
        ([("a", ([1], 2.0)), ("b", ([], 1.0))], True),
        ([("a", [1]), ("b", None)], True),
        ([[[1]], [[2]]], False),
        ([(1, [2]), (1, [2], 3)], False),
        ([Plain(1)], False),
        ([(both := [1], both)], False),
    ],
)
def test_rows_are_copied_where_one_copy_of_each_value_suffices_and_pickled_elsewhere(rows, copied):
    found = take_apart(rows)
    assert (found is not None) is copied
    assert found is None or found.shape != IMMUTABLE_SHAPE


def test_a_row_that_refers_to_one_list_twice_still_does_and_rows_do_not_share():
    both = [1]
    first, second = held([(both, both), (both, both)]).rows()
    assert first[0] is first[1]
    assert second[0] is second[1]
    assert held([("a", both), ("b", both)]).rows().__next__()[1] is not both
    (_, left), (_, right) = held([("a", both), ("b", both)]).rows()
    assert left is not right


def test_arrays_keep_whether_they_can_be_written_to_and_the_order_of_their_memory():
    base = np.arange(12).reshape(3, 4)
    view = base[:, ::2]
    view.flags.writeable = False
    first, second = held([view, np.asfortranarray(base)]).rows()
    assert not first.flags.writeable
    assert second.flags.writeable
    assert second.flags.f_contiguous
    base[0, 0] = 100
    assert first[0, 0] == 0


def test_immutable_rows_are_handed_out_as_they_are():
    rows = [("a", 1), ("b", 2)]
    assert all(found is row for found, row in zip(held(rows).rows(), rows, strict=True))


def test_by_reference_hands_out_the_very_rows():
    rows = [[1], threading.Lock()]
    assert all(found is row for found, row in zip(held(rows, by_reference=True).rows(), rows, strict=True))


class Demanding(Exception):
    def __init__(self, one, two):
        super().__init__(one)


@pytest.mark.parametrize("row", [threading.Lock(), (i for i in ()), Demanding(1, 2)], ids=["lock", "generator", "exception"])
def test_what_can_be_neither_copied_nor_pickled_and_read_again_is_refused(row):
    rows = HeldRows()
    with pytest.raises(RowsNotPicklable):
        rows.add([row])
    assert list(rows.rows()) == []
    assert rows.size_bytes() == 0


def test_rows_of_one_kind_are_one_run_however_they_come():
    for batch in ([1, "a"], [("a", [1])], [Plain(1)]):
        rows = held(*[batch] * 50)
        assert len(rows._runs) == 1
        assert len(rows) == 50 * len(batch)


@given(COLUMNS, COLUMNS)
def test_kinds_of_rows_may_follow_one_another(left, right):
    assume(left and right)
    assert [look(row) for row in held(left, right, left).rows()] == [look(row) for row in left + right + left]
