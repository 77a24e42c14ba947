"""What is saved as Parquet is read as it was, or the save fails and leaves nothing: held against plain Python, for rows of all kinds."""

# ruff: noqa: DTZ001, DTZ901 (moments without a zone are what is tested)

from __future__ import annotations

import datetime as dt
import math
import tempfile
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from flowkit.errors import BadRow
from flowkit.testing.inline import inline_context

ZONES = [dt.UTC, dt.timezone(dt.timedelta(hours=2)), dt.timezone(dt.timedelta(seconds=-3_661)), ZoneInfo("America/New_York")]
#: a day from either end, so that every zone's moment is one that Python has in UTC
FIRST, LAST = dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30)

FAMILIES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int": st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3) | st.sampled_from([2**53, 2**53 + 1, -(2**60)]),
    "float": st.floats() | st.sampled_from([0.0, 1.0, 2.5]),
    "str": st.text(max_size=3) | st.sampled_from(["", "01", "1", "null", "2020-01-01"]),
    "bytes": st.binary(max_size=3),
    "date": st.dates(),
    "naive": st.datetimes(FIRST, LAST),
    "aware": st.datetimes(FIRST, LAST, timezones=st.sampled_from(ZONES)),
    "time": st.times(),
    "timedelta": st.timedeltas(dt.timedelta(days=-100_000_000), dt.timedelta(days=100_000_000)),
    "Decimal": st.decimals(-1_000, 1_000, places=2) | st.decimals(-1, 1, places=4),
}
NAMES = ("a", "b", "c")


def nested(plain: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(plain | st.none(), max_size=3)
    mappings = st.dictionaries(st.sampled_from(["x", "y"]), plain | st.none(), max_size=2)
    return lists | mappings | st.lists(mappings, max_size=2) | st.lists(lists, max_size=2)


@st.composite
def columns(draw: st.DrawFn) -> st.SearchStrategy[Any]:
    """Values of one column: mostly of one family, at times of two, plain or nested."""
    families = draw(st.lists(st.sampled_from(sorted(FAMILIES)), min_size=1, max_size=2))
    plain = st.one_of([FAMILIES[family] for family in families])
    kind = draw(st.sampled_from(["plain", "plain", "list", "mapping", "any"]))
    if kind == "plain":
        return plain | st.none()
    if kind == "list":
        return st.lists(plain | st.none(), max_size=3) | st.none()
    if kind == "mapping":
        return st.dictionaries(st.sampled_from(["x", "y"]), plain | st.none(), max_size=2) | st.none()
    return nested(plain)


@st.composite
def partitions(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    values = {name: draw(columns()) for name in NAMES}
    row = st.fixed_dictionaries({}, optional=values) if draw(st.booleans()) else st.fixed_dictionaries(values)
    return draw(st.lists(st.lists(row, max_size=5), min_size=1, max_size=4))


# -- the oracle ------------------------------------------------------------------------------------------------------------


def family_of(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return "naive" if value.tzinfo is None else "aware"
    return {list: "list", dict: "mapping"}.get(type(value), type(value).__name__)


def can_be_one_column(values: list[Any]) -> bool:
    """Whether the rules that docs/stores.md states give the values a type in common."""
    present = [value for value in values if value is not None]
    families = {family_of(value) for value in present}
    if families == {"list"}:
        return can_be_one_column([each for value in present for each in value])
    if families == {"mapping"}:
        names = {name for value in present for name in value}
        return bool(names) and all(can_be_one_column([value.get(name) for value in present]) for name in names)
    if families == {"int", "float"}:
        return all(float(value) == value for value in present if isinstance(value, int))
    return len(families) <= 1 or families == {"int", "Decimal"}


def is_same(given: Any, back: Any) -> bool:
    """Whether a value is what was given, up to the widenings that docs/stores.md lists."""
    if isinstance(given, Mapping):
        return (
            isinstance(back, dict) and given.keys() <= back.keys() and all(is_same(given.get(name), back[name]) for name in back)
        )
    if isinstance(given, list):
        return isinstance(back, list) and len(given) == len(back) and all(map(is_same, given, back))
    if isinstance(given, float) and math.isnan(given):
        return isinstance(back, float) and math.isnan(back)
    if type(given) is int and type(back) in {float, Decimal}:
        return given == back
    if isinstance(given, dt.datetime) and given.tzinfo is not None:
        return isinstance(back, dt.datetime) and back.tzinfo is not None and given.astimezone(dt.UTC) == back.astimezone(dt.UTC)
    return type(given) is type(back) and given == back


@pytest.fixture(scope="module")
def fc() -> Iterator[Any]:
    with inline_context(slots=2, validate=False) as context:
        yield context


@pytest.mark.slow  # writes and reads files for every example
@given(parts=partitions(), at_once=st.sampled_from([1, 2, 8_192]))
def test_rows_are_read_as_they_were_given_or_the_save_fails_and_leaves_nothing(fc, parts, at_once):
    rows = [row for part in parts for row in part]
    names = {name for row in rows for name in row}
    possible = all(can_be_one_column([row.get(name) for row in rows]) for name in names) and bool(names or not rows)
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowkit.execution.parquet_writing._ROWS_AT_ONCE", at_once)
        out = Path(place, "out")
        given_rows = fc.parallelize(parts, len(parts)).flat_map(list)
        if not possible:
            event("refused")
            with pytest.raises(BadRow):
                given_rows.save_as_parquet(out)
            assert list(Path(place).iterdir()) == []
            return
        event("saved")
        given_rows.save_as_parquet(out)
        back = fc.read_parquet(out).collect()
        assert len(back) == len(rows)
        for row, found in zip(rows, back, strict=True):
            assert found.keys() == names
            assert is_same(row, found), (row, found)
        assert len({str(schema_of(file)) for file in out.glob("*.parquet")}) <= 1


def schema_of(file: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.read_schema(file)


DIRECTORY_FAMILIES = ["bool", "int", "float", "str", "date", "naive", "aware", "time", "Decimal"]


@pytest.mark.slow  # as above
@given(
    parts=st.lists(st.sampled_from(DIRECTORY_FAMILIES), min_size=1, max_size=2).flatmap(
        lambda families: st.lists(
            st.lists(st.one_of(*(FAMILIES[each] for each in families), st.none()), max_size=4), min_size=1, max_size=3
        )
    )
)
def test_values_of_directories_are_read_as_they_were_given_or_the_save_fails_and_leaves_nothing(fc, parts):
    values = [value for part in parts for value in part]
    number = iter(range(len(values)))
    rows = [[{"n": next(number), "k": value} for value in part] for part in parts]
    with tempfile.TemporaryDirectory() as place:
        out = Path(place, "out")
        given_rows = fc.parallelize(rows, len(rows)).flat_map(list)
        if not can_be_one_column(values):
            with pytest.raises(BadRow):
                given_rows.save_as_parquet(out, partition_by=["k"])
            assert list(Path(place).iterdir()) == []
            return
        given_rows.save_as_parquet(out, partition_by=["k"])
        back = {row["n"]: row["k"] for row in fc.read_parquet(out).collect()}
        assert back.keys() == set(range(len(values)))
        for place_in_order, value in enumerate(values):
            assert is_same(value, back[place_in_order]), (value, back[place_in_order])
