"""The picture of a lineage: well-formed, escaped, bounded, and nothing runs for it."""

from __future__ import annotations

from collections.abc import Iterator
from operator import add
from xml.etree import ElementTree as ET

import pytest

import flowkit as fk
from flowkit.testing.inline import inline_context


@pytest.fixture
def fc() -> Iterator[fk.Context]:
    with inline_context() as context:
        yield context


def texts(rdd: fk.RDD) -> list[str]:
    root = ET.fromstring(rdd._repr_html_())
    return [element.text or "" for element in root.iter("text")]


def test_each_stage_is_a_box_with_what_runs_in_it(fc):
    counts = fc.range(10, num_partitions=4).map(lambda x: (x % 2, x)).cache().reduce_by_key(add, 2).map(lambda kv: kv[1])
    told = texts(counts)
    assert told[0] == "stage 0: writes a shuffle, 4 partitions"
    assert any(text.startswith("map at ") and text.endswith("[cached]") for text in told)
    assert "stage 1: result, 2 partitions" in told
    assert any(text.startswith("<- reduce_by_key at ") for text in told)
    assert fc.status.summary().jobs == 0


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=y>', "&amp;", "]]>", "x" * 500, "a\nb\tc"])
def test_hostile_names_are_escaped_and_cut(fc, name):
    html = fc.range(3).set_name(name)._repr_html_()
    ET.fromstring(html)
    assert "<script" not in html
    assert "<img" not in html
    assert max(map(len, texts(fc.range(3).set_name(name)))) < 100


def test_long_chains_and_many_stages_stay_small(fc):
    rdd = fc.range(3)
    for _ in range(3_000):
        rdd = rdd.map(lambda x: x).filter(bool)
    assert len(rdd._repr_html_()) < 10_000
    for _ in range(70):
        rdd = rdd.map(lambda x: (x, x)).partition_by(2).keys()
    assert "too many to draw" in rdd._repr_html_()


def test_a_diamond_is_drawn_once(fc):
    pairs = fc.range(10).map(lambda x: (x, x)).partition_by(3)
    joined = pairs.join(pairs.map_values(str)).union(pairs.map(lambda kv: kv))
    assert sum(text.startswith("stage ") for text in texts(joined)) == 2
