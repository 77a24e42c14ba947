"""What ``explain`` says of stages that have run."""

from __future__ import annotations

import re
from operator import add


def test_explain_tells_what_each_stage_did(fc):
    counts = fc.range(1_000, num_partitions=4).map(lambda x: (x % 10, 1)).reduce_by_key(add, 2)
    assert "ran:" not in str(counts.explain())
    assert counts.count() == 10
    fc._bus.wait_until_empty(20)
    text = str(counts.explain())
    result, mapped = re.findall(r"\(ran: (.*)\)", text)
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
