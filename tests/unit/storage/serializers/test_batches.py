"""What comes out of a batch is what went in: values and exact types, whatever form was chosen."""

import array
import enum
import math
import pickle
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import cloudpickle
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.storage.serializers import columns, decode_batch, encode_batch

Point = namedtuple("Point", "x y")


class Word(str):
    __slots__ = ()


class Whole(int):
    pass


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Row:
    name: str
    values: list


def shape(value):
    """A value with every type in it spelled out, so that 1, True, 1.0 and numpy's 1 differ, and NaN equals itself."""
    kind = type(value)
    if kind in {tuple, list, Point}:
        return kind, [shape(each) for each in value]
    if kind in {dict, OrderedDict}:
        return kind, [(shape(key), shape(each)) for key, each in value.items()]
    if kind in {set, frozenset}:
        return kind, sorted(map(repr, map(shape, value)))
    if kind is float:
        return kind, value.hex(), math.copysign(1, value)
    if isinstance(value, (np.generic, np.ndarray)):
        return kind, str(value.dtype), value.tobytes()
    if kind is memoryview:
        return kind, value.tobytes()
    if kind is Row:
        return kind, shape(value.name), shape(value.values)
    return kind, repr(value), value


EXACT = [
    0, 1, True, False, None, -(2**63), 2**63 - 1, 2**63, 10**40, 1.5, -0.0, float("nan"), float("inf"), 1 + 2j, "", "a", "é\x00", "\ud800", b"", b"\xff",
    bytearray(b"ab"), array.array("i", [1, 2]), np.int64(3), np.int8(3), np.float32(0.1), np.bool_(True), np.str_("s"), np.bytes_(b"s"),
    np.array([1, 2, 3]), np.array([["a"]]), Word("w"), Whole(3), Level.LOW, Point(1, "a"), (), (1,), (1, (2, [3, None])), [], [[]], {}, {"a": [1]},
    OrderedDict(a=1), {1, 2}, frozenset({"a"}), date(2020, 1, 1), Decimal("1.10"), Row("a", [1, True]), ((((((1,),),),),),),
]  # fmt: skip


@pytest.mark.parametrize("value", EXACT, ids=lambda value: f"{type(value).__name__}-{value!r}"[:40])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda v: [v],
        lambda v: [v] * 40,
        lambda v: [(v, 1)],
        lambda v: [("k", v)] * 3,
        lambda v: [(v,), (v,)],
        lambda v: [v, 1, "x"],
        lambda v: [[v]],
        lambda v: [(1, (v, v))],
    ],
)
def test_every_type_survives_exactly_alone_in_pairs_and_nested(value, wrap):
    batch = wrap(value)
    assert shape(decode_batch(encode_batch(batch))) == shape(batch)


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-300, 300), st.floats(), st.text(), st.binary(), st.complex_numbers(),
    st.text(alphabet=st.characters()), st.builds(Word, st.text()), st.builds(Whole, st.integers()), st.builds(np.int64, st.integers(-5, 5)),
    st.builds(np.float64, st.floats()), st.builds(bytearray, st.binary()), st.dates(), st.decimals(allow_nan=False),
)  # fmt: skip
NESTED = st.recursive(
    PLAIN.filter(lambda v: not isinstance(v, complex) or v == v),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.builds(Point, inner, inner),
        st.dictionaries(st.text(), inner, max_size=2),
    ),
    max_leaves=8,
)
BATCHES = st.one_of(
    st.lists(NESTED), st.lists(st.tuples(NESTED, NESTED)), st.lists(st.integers()), st.lists(st.floats()), st.lists(st.none()), st.lists(st.booleans()),
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))), st.lists(st.tuples(st.text(), st.integers(-128, 127))),
    st.lists(st.tuples(st.text(), st.none())), st.lists(st.integers() | st.booleans()), st.lists(st.integers() | st.floats()),
)  # fmt: skip


@given(BATCHES)
def test_any_batch_survives_exactly(batch):
    assert shape(decode_batch(encode_batch(batch))) == shape(batch)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_ints_take_no_more_room_than_the_widest_of_them_needs(values):
    width = next(w for w in (1, 2, 4, 8) if all(-(1 << (8 * w - 1)) <= v < 1 << (8 * w - 1) for v in values))
    assert len(columns.classify(values).encode()) == 1 + width * len(values)


def test_pairs_that_are_not_plain_tuples_keep_being_what_they_are():
    batch = [Point(1, 2), Point(3, 4)]
    assert shape(decode_batch(encode_batch(batch))) == shape(batch)


def test_a_value_that_many_rows_share_is_written_once_and_is_one_object_again():
    name = "the same long name " * 50
    encoded = encode_batch([(number, name) for number in range(1000)])
    assert len(encoded) < 20_000
    assert len({id(value) for _, value in decode_batch(encoded)}) == 1


def test_record_batches_and_tables_travel_as_arrow_and_only_the_slice_that_is_meant():
    whole = pa.record_batch({"a": list(range(100_000)), "b": ["x"] * 100_000}).replace_schema_metadata({"k": "v"})
    part = whole.slice(10, 5)
    table = pa.table(whole)
    for batch in ([part], [(0, part), (1, whole.slice(0, 0))], [(3, table.slice(7, 3))], [table]):
        arrived = decode_batch(encode_batch(batch))
        assert len(encode_batch(batch)) < 3_000 or batch[0] is table
        assert arrived == batch
        assert [type(each) for each in arrived] == [type(each) for each in batch]
    assert decode_batch(encode_batch([part]))[0].schema.metadata == {b"k": b"v"}


def test_arrow_next_to_something_else_survives_too():
    batch = [pa.record_batch({"a": [1]}), 5, None]
    assert decode_batch(encode_batch(batch)) == batch


def test_an_instance_of_a_class_that_exists_only_in_a_function_is_pickled_by_value():
    class Local:
        def __init__(self, n):
            self.n = n

    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(Local(1))
    (arrived,) = decode_batch(encode_batch([Local(7)]))
    assert arrived.n == 7
    assert cloudpickle.dumps(Local) is not None


def test_what_cannot_be_pickled_is_named():
    with pytest.raises(TypeError, match=r"cannot serialise <generator .* \(generator\)"):
        encode_batch([1, "a", (each for each in [])])


@pytest.mark.parametrize("data", [b"", b"?123", b"C"])
def test_bytes_that_are_no_batch_are_refused(data):
    with pytest.raises((ValueError, Exception), match="no batch|unpack"):
        decode_batch(data)
