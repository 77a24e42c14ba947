"""A chosen serialiser makes the bytes of shuffles, spills and cached partitions, and changes no result."""

from __future__ import annotations

from pathlib import Path

import pytest

import flowkit as fk
from flowkit.errors import ConfigError
from flowkit.testing.inline import inline_context


class Noted:
    """Texts, reversed; says by a file that it was used."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def accepts(self, kinds):
        return kinds == {str}

    def dumps(self, values):
        (self.place / "dumped").touch()
        return "\0".join(value[::-1] for value in values).encode()

    def loads(self, data):
        (self.place / "loaded").touch()
        return [value[::-1] for value in bytes(data).decode().split("\0")] if len(data) else []


def work(fc):
    rows = fc.range(2_000, num_partitions=4).map(lambda n: (n % 7, {"n": n, "text": f"text {n}"}))
    kept = rows.persist(fk.StorageLevel.MEMORY_ONLY_SER)
    grouped = kept.group_by_key(3).map_values(lambda each: sum(row["n"] for row in each)).collect_as_map()
    names = fc.range(2_000, num_partitions=4).map(lambda n: (n % 50, f"name {n % 50}")).distinct(3).values().collect()
    return grouped, sorted(names), kept.count(), kept.values().map(lambda row: row["text"]).distinct().count()


@pytest.fixture(scope="module")
def expected():
    with inline_context() as fc:
        return work(fc)


@pytest.mark.parametrize("names", [["msgpack"], ["arrow"], ["pickle"], ["cloudpickle"], ["arrow", "pickle"]], ids="-".join)
def test_results_are_those_without(expected, names):
    with inline_context(serializers={name: name for name in names}) as fc:
        assert work(fc) == expected


@pytest.mark.timeout(120)
def test_workers_use_what_the_settings_bring(expected, tmp_path):
    config = fk.Config.builder().with_serializer("noted", Noted(tmp_path)).with_serializer("msgpack").build()
    with fk.Context(workers=2, progress="off", config=config) as fc:
        assert work(fc) == expected
        assert (tmp_path / "dumped").exists()
        assert (tmp_path / "loaded").exists()


@pytest.mark.parametrize("wrong", [{"a": "avro"}, {"a": 5}, ["msgpack"], {"": "msgpack"}])
def test_what_is_no_serializer_is_refused_at_once(wrong):
    with pytest.raises(ConfigError, match="serializers"):
        inline_context(serializers=wrong)
