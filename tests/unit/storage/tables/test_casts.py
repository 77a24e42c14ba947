"""Casts keep every value or name the first that they cannot keep; common types hold the values of both."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.storage.tables.casts import Unfit, cast_exactly, cast_table
from flowkit.storage.tables.widening import NoCommonType, SchemaUnion, common_type

WIDTHS = (8, 16, 32, 64)
INTS = {pa.type_for_alias(f"int{width}"): (-(2 ** (width - 1)), 2 ** (width - 1) - 1) for width in WIDTHS}
UINTS = {pa.type_for_alias(f"uint{width}"): (0, 2**width - 1) for width in WIDTHS}
RANGES = INTS | UINTS
FLOATS = {pa.float32(): 32, pa.float64(): 64}


def numbers_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if kind in FLOATS:
        return st.floats(width=FLOATS[kind])
    low, high = RANGES[kind]
    edges = [n for edge in (0, 2**24, 2**53, 2**31, 2**63) for n in (edge - 1, edge, edge + 1, -edge - 1) if low <= n <= high]
    return st.integers(low, high) | st.sampled_from([low, high, *edges])


def has_equal(value: Any, kind: pa.DataType) -> bool:
    """By plain Python: whether a type has a value that is equal."""
    if value is None:
        return True
    if kind in RANGES:
        low, high = RANGES[kind]
        return math.isfinite(value) and low <= value <= high and value == int(value)
    if isinstance(value, float) and math.isnan(value):
        return True
    if kind == pa.float64():
        return float(value) == value
    return pa.scalar(float(value), pa.float64()).cast(pa.float32(), safe=False).as_py() == value


@st.composite
def number_columns(draw: st.DrawFn) -> tuple[list[Any], pa.DataType, pa.DataType]:
    kinds = st.sampled_from([*RANGES, *FLOATS])
    have = draw(kinds)
    return draw(st.lists(numbers_of(have) | st.none(), max_size=5)), have, draw(kinds)


@given(number_columns())
def test_a_cast_of_numbers_is_exact_or_names_the_first_that_has_no_equal(column):
    values, have, kind = column
    array = pa.array(values, have)
    bad = [place for place, value in enumerate(values) if not has_equal(value, kind)]
    if bad:
        with pytest.raises(Unfit) as raised:
            cast_exactly(array, kind)
        assert raised.value.place == bad[0]
        with pytest.raises(Unfit) as raised:
            cast_exactly(pa.chunked_array([array.slice(0, 1), array.slice(1)]), kind)
        assert raised.value.place == bad[0]
        return
    back = cast_exactly(array, kind).to_pylist()
    for value, found in zip(values, back, strict=True):
        assert found == value or (math.isnan(value) and math.isnan(found))


TYPES = [
    *RANGES,
    *FLOATS,
    pa.null(),
    pa.bool_(),
    pa.string(),
    pa.large_string(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.binary(),
    pa.binary(3),
    pa.date32(),
    pa.decimal128(5, 2),
    pa.decimal128(38, 0),
    pa.timestamp("s"),
    pa.timestamp("us"),
    pa.timestamp("us", "UTC"),
    pa.timestamp("ms", "+02:00"),
    pa.time32("s"),
    pa.time64("us"),
    pa.duration("ms"),
]
NESTED = st.recursive(
    st.sampled_from(TYPES),
    lambda inner: (
        inner.map(pa.list_)
        | inner.map(pa.large_list)
        | st.dictionaries(st.sampled_from("xyz"), inner, min_size=1, max_size=3).map(
            lambda fields: pa.struct(list(fields.items()))
        )
    ),
    max_leaves=4,
)


def union_or_none(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    try:
        return common_type(one, other)
    except NoCommonType:
        return None


@given(NESTED, NESTED)
def test_the_common_type_is_the_same_from_both_sides_and_holds_both(one, other):
    united = union_or_none(one, other)
    turned = union_or_none(other, one)
    if united is None or turned is None:
        assert united is turned
        return
    assert names_sorted(united) == names_sorted(turned)
    for kind in (one, other):
        assert names_sorted(common_type(united, kind)) == names_sorted(united)
        assert cast_exactly(pa.nulls(2, kind), united).to_pylist() == [None, None]


def names_sorted(kind: pa.DataType) -> Any:
    """The type without the order in which names were met."""
    if pa.types.is_struct(kind):
        return {field.name: names_sorted(field.type) for field in kind}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.types.is_large_list(kind), names_sorted(kind.value_type)
    return kind


def test_an_unfit_value_in_lists_is_found_in_its_row_of_a_sliced_and_chunked_column():
    rows = [[1], None, [], [2, 3], [4, 2**53 + 1], [5]]
    column = pa.chunked_array([pa.array(rows[:4]).slice(1), pa.array(rows[4:])])
    with pytest.raises(Unfit) as raised:
        cast_exactly(column, pa.list_(pa.float64()))
    assert (raised.value.place, raised.value.value, raised.value.path) == (3, 2**53 + 1, ("[]",))
    assert cast_exactly(pa.array(rows[:4]).slice(1), pa.list_(pa.float64())).to_pylist() == [None, [], [2.0, 3.0]]


def test_values_under_a_missing_mapping_do_not_count():
    inner = pa.array([2**53 + 1, 1])
    array = pa.StructArray.from_arrays([inner], names=["x"], mask=pa.array([True, False]))
    assert cast_exactly(array, pa.struct([("x", pa.float64())])).to_pylist() == [None, {"x": 1.0}]


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (pa.array(["1"]), pa.int64()),
        (pa.array([1]), pa.string()),
        (pa.array([1]), pa.bool_()),
        (pa.array([True]), pa.int64()),
        (pa.array([b"x"]), pa.string()),
        (pa.array([1.5]), pa.decimal128(5, 2)),
        (pa.array([0], pa.timestamp("us")), pa.timestamp("us", "UTC")),
        (pa.array([0], pa.timestamp("us")), pa.date32()),
        (pa.array([1], pa.timestamp("us")), pa.timestamp("s")),
        (pa.array([1]), pa.list_(pa.int64())),
    ],
    ids=str,
)
def test_nothing_is_parsed_cut_or_taken_for_another_kind(array, kind):
    with pytest.raises(Unfit, match="does not fit"):
        cast_exactly(array, kind)
    assert cast_exactly(array.slice(0, 0), kind).type == kind


def test_a_column_that_may_not_be_none_is_checked_and_columns_that_lack_are_made():
    schema = pa.schema([pa.field("a", pa.int64(), nullable=False), ("b", pa.string())])
    assert cast_table(pa.table({"a": [1]}), schema).to_pylist() == [{"a": 1, "b": None}]
    with pytest.raises(Unfit) as raised:
        cast_table(pa.table({"a": [1, None]}), schema)
    assert (raised.value.place, raised.value.path) == (1, ("a",))


def test_a_union_tells_the_two_sources_whose_own_types_do_not_unite():
    union = SchemaUnion()
    for source, kind in (("a", pa.null()), ("b", pa.int8()), ("c", pa.int64()), ("d", pa.string()), ("e", pa.float64())):
        union.add(source, pa.schema([("v", kind), ("w", pa.int8())]))
    assert str(union.conflicts["v"]) == "column 'v' is int8 in b and string in d"
    assert union.schema.names == ["w"]
