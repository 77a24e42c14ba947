"""Equal keys hash equal, in every process, alone and in batches."""

import enum
import subprocess
import sys
import uuid
from collections import namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.errors import UnstableHash
from flowkit.lineage.hashing import stable_hash, stable_hashes


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


class Word(str):
    __slots__ = ()


Point = namedtuple("Point", "x y")


@dataclass(frozen=True)
class Place:
    name: str
    zone: int


@dataclass(frozen=True)
class CaselessPlace:
    name: str

    def __eq__(self, other):
        return self.name.lower() == other.name.lower()

    def __hash__(self):
        return hash(self.name.lower())


class Plain:
    pass


class Sloppy(str):
    __slots__ = ()

    def __eq__(self, other):
        return self.lower() == other.lower()

    def __hash__(self):
        return hash(self.lower())


UTC_PLUS_2 = timezone(timedelta(hours=2))
INSTANT = datetime(2026, 11, 20, 12, 30, 0, 5, tzinfo=UTC)

EQUAL = [
    (
        1,
        1.0,
        True,
        Decimal(1),
        Fraction(1),
        np.int8(1),
        np.uint64(1),
        np.float32(1),
        np.float64(1),
        np.bool_(True),
        Level.LOW,
        1 + 0j,
    ),
    (0, -0.0, False, Decimal("-0"), np.int64(0)),
    (-1, -1.0, np.int16(-1), Fraction(-1)),
    (-2, -2.0),
    (0.5, Decimal("0.5"), Fraction(1, 2), np.float16(0.5)),
    (2**61 - 1, float(2**61 - 1) if float(2**61 - 1) == 2**61 - 1 else Decimal(2**61 - 1)),
    (2**63, Decimal(2**63), np.uint64(2**63), float(2**63)),
    (10**30, Decimal(10**30), Fraction(10**30)),
    ("word", Word("word"), np.str_("word")),
    (b"raw", np.bytes_(b"raw")),
    ((1, "a"), (1.0, Word("a")), Point(True, "a")),
    (((1, 2), (3,)), ((1.0, 2), (Decimal(3),))),
    (frozenset([1, "a", (2,)]), frozenset([(2.0,), "a", True])),
    (INSTANT, INSTANT.astimezone(UTC_PLUS_2)),
    (time(12, 30, tzinfo=UTC), time(14, 30, tzinfo=UTC_PLUS_2)),
    (Place("a", 1), Place(Word("a"), 1.0)),
]

DIFFERENT = [
    None, b"x", 0, 1, -1, -3, 2**62, 1.5, "a", "b", "é", (), (None,), ((),), (1, 2), (2, 1), (1, 2, 3), frozenset(), frozenset([1]),
    frozenset([2]), date(2020, 1, 1), date(2020, 1, 2), datetime(2020, 1, 1), time(1), time(2), timedelta(1), timedelta(2),  # noqa: DTZ001
    uuid.UUID(int=7), uuid.UUID(int=8), Colour.RED, Colour.BLUE, Place("a", 1), Place("a", 2), "\ud800", float("inf"), float("-inf"),
]  # fmt: skip


@pytest.mark.parametrize("keys", EQUAL, ids=range(len(EQUAL)))  # not by repr: that of a set depends on the hash seed
def test_keys_that_are_equal_hash_equal(keys):
    assert all(key == keys[0] for key in keys), "the case itself"
    assert {stable_hash(key) for key in keys} == {stable_hash(keys[0])}
    assert set(stable_hashes(list(keys)).tolist()) == {stable_hash(keys[0])}


def test_keys_that_differ_hash_differently_here():
    assert len({stable_hash(key) for key in DIFFERENT}) == len(DIFFERENT)


def test_every_nan_goes_to_one_place():
    nans = [float("nan"), -float("nan"), np.float32("nan"), Decimal("nan")]
    assert len({stable_hash(nan) for nan in nans}) == 1
    assert len(set(stable_hashes([float("nan"), float("nan")]).tolist())) == 1


@pytest.mark.parametrize("key", [Plain(), object(), CaselessPlace("a"), Sloppy("a"), np.datetime64("2020-01-01"), len, int])
def test_a_key_whose_hash_is_not_known_to_be_stable_is_refused_by_the_name_of_its_type(key):
    for attempt in (lambda: stable_hash(key), lambda: stable_hashes([key]), lambda: stable_hash(("a", key))):
        with pytest.raises(UnstableHash, match=type(key).__name__) as caught:
            attempt()
        assert type(key).__qualname__ in caught.value.key_type
        assert "key_by" in str(caught.value)


@pytest.mark.parametrize("key", [[1], {}, {1}, bytearray(b"a"), (1, [2])])
def test_a_key_that_cannot_be_hashed_at_all_raises_pythons_own_error(key):
    with pytest.raises(TypeError, match="unhashable"):
        stable_hash(key)


def test_small_ints_spread_evenly_over_any_number_of_partitions():
    for partitions in (2, 7, 8, 100):
        places = ((stable_hashes(list(range(10_000))) >> np.uint64(32)) * np.uint64(partitions)) >> np.uint64(32)
        counts = np.bincount(places.astype(int), minlength=partitions)
        assert counts.min() > 0.6 * 10_000 / partitions
        assert counts.max() < 1.5 * 10_000 / partitions


def test_texts_that_differ_in_one_digit_spread_evenly():
    counts = np.bincount(
        ((stable_hashes([f"user-{n}" for n in range(10_000)]) >> np.uint64(32)) * np.uint64(16) >> np.uint64(32)).astype(int)
    )
    assert counts.min() > 500
    assert counts.max() < 750


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(), st.binary(),
    st.text(alphabet=st.characters(categories=["Cs", "L"])), st.decimals(), st.fractions(), st.dates(), st.datetimes(), st.times(),
    st.datetimes(timezones=st.just(UTC_PLUS_2)), st.timedeltas(), st.uuids(), st.sampled_from(Colour),
)  # fmt: skip
KEYS = st.recursive(
    SCALARS.filter(lambda key: not (isinstance(key, Decimal) and key.is_snan())),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner),
    max_leaves=6,
)
COLUMNS = st.one_of(
    st.lists(KEYS),
    st.lists(st.integers(-(2**63), 2**63 - 1)),
    st.lists(st.integers()),
    st.lists(st.text()),
    st.lists(st.floats()),
    st.lists(st.tuples(st.integers(), st.text())),
    st.lists(st.tuples(st.text(), st.tuples(st.floats(), st.booleans()))),
    st.lists(st.integers() | st.booleans()),
)


@given(COLUMNS)
def test_a_batch_hashes_as_its_keys_do_one_by_one(keys):
    assert stable_hashes(keys).tolist() == [stable_hash(key) for key in keys]


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_an_array_of_integers_hashes_as_the_list_of_them(keys):
    assert stable_hashes(np.array(keys, np.int64)).tolist() == [stable_hash(key) for key in keys]


@given(st.lists(st.integers(-128, 127)))
def test_an_array_of_narrow_integers_does_too(keys):
    assert stable_hashes(np.array(keys, np.int8)).tolist() == [stable_hash(key) for key in keys]


@given(KEYS, KEYS)
def test_equality_implies_equal_hashes(one, other):
    if one == other:
        assert stable_hash(one) == stable_hash(other)


def test_processes_with_different_hash_seeds_agree():
    program = (
        "import datetime, uuid, decimal; from flowkit.lineage.hashing import stable_hash, stable_hashes\n"
        "keys = ['word', b'raw', 7, 2**70, 1.5, None, ('a', 1, (b'b', None)), frozenset(['a', 'b', 'c', 1]), datetime.date(2020, 1, 1),\n"
        "        datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), decimal.Decimal('1.1'), uuid.UUID(int=5), float('nan')]\n"
        "print([stable_hash(k) for k in keys], stable_hashes(['a', 'b']).tolist(), hash('word'))"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.rpartition("] ")
        for seed in ("0", "1", "4711")
    ]
    assert len({own for _, _, own in printed}) == 3, "Python's own hashes differ, so the test can fail"
    assert len({ours for ours, _, _ in printed}) == 1
