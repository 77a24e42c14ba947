"""What ``explain`` says of stages that have run."""

from __future__ import annotations

import re
import threading
from operator import add

import pytest


@pytest.mark.undisturbed
def test_explain_tells_what_each_stage_did(fc):
    counts = fc.range(1_000, num_partitions=4).map(lambda x: (x % 10, 1)).reduce_by_key(add, 2)
    assert "ran:" not in str(counts.explain())
    assert counts.count() == 10
    fc._bus.wait_until_empty(20)
    text = str(counts.explain())
    mapped, result = re.findall(r"\(ran: (.*)\)", text)
    assert result.startswith("2 tasks, 40 rows in, ")
    assert mapped.startswith("4 tasks, 1.0 k rows in, ")
    assert " shuffled, " in mapped
    assert re.search(r"a task [^,]+, [^,]+, [^,]+ \(least, median, most\)", mapped)
    assert str(fc.range(3).explain()).count("ran:") == 0


def test_a_chain_over_a_shuffle_that_has_run_tells_so(fc):
    counts = fc.range(100, num_partitions=2).map(lambda x: (x % 5, 1)).reduce_by_key(add, 2)
    counts.count()
    fc._bus.wait_until_empty(20)
    assert str(counts.map(lambda kv: kv[1]).explain()).count("ran:") == 1


def test_hints_tell_what_a_run_showed(fc):
    if fc.name == "inline":
        pytest.skip("an inline job's clock is a number that moves by itself")

    def slow(index, rows):
        gate = threading.Event()
        gate.wait(1.2 if index == 3 else 0.01)
        return rows

    rdd = fc.range(8, num_partitions=8).map_partitions_with_index(slow)
    assert repr(rdd.hints()) == "no hints"
    rdd.count()
    fc.wait_for_listeners()
    (hint,) = rdd.hints()
    assert hint.kind == "skew"
    assert "took 1.2" in hint.text
