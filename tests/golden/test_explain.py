"""``explain()`` and the shape of the submitted job, before and after: one file a case in ``explain/``.

After a change that is meant: ``pytest tests/golden --update-golden``, then read the difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import add
from pathlib import Path

import pytest

import flowkit as fk
from flowkit.lineage.stages import cached_inputs, cut, parent_shuffles
from flowkit.testing.inline import inline_context

PLACE = Path(__file__).parent / "explain"


def word_count(fc: fk.Context) -> fk.RDD:
    words = fc.parallelize(["to be", "or not"], 2).flat_map(str.split)
    return words.map(lambda word: (word, 1)).reduce_by_key(add).sort_by(lambda kv: -kv[1])


def narrow_only(fc: fk.Context) -> fk.RDD:
    return fc.range(10, num_partitions=3).map(abs).filter(bool).set_name("numbers").glom()


def co_partitioned_join(fc: fk.Context) -> fk.RDD:
    links = fc.range(9, num_partitions=3).map(lambda i: (i, [i])).group_by_key(4).cache()
    ranks = links.map_values(lambda _: 1.0)
    return links.join(ranks).reduce_by_key(add)


def join_with_one_side_lying_by_key(fc: fk.Context) -> fk.RDD:
    small = fc.range(9, num_partitions=3).map(lambda i: (i, i)).partition_by(4)
    return small.left_outer_join(fc.parallelize([(1, 2)], 2))


def cogroup_of_three(fc: fk.Context) -> fk.RDD:
    one, two, three = (fc.parallelize([(i, i)], 1) for i in range(3))
    return one.cogroup(two, three, num_partitions=2)


def shared_shuffle(fc: fk.Context) -> fk.RDD:
    counts = fc.range(9, num_partitions=3).map(lambda i: (i % 3, 1)).reduce_by_key(add, 2)
    return counts.filter(bool).union(counts.map_values(abs)) + counts.map(str)


def long_chain(fc: fk.Context) -> fk.RDD:
    rdd = fc.range(3, num_partitions=1)
    for place in range(100):
        rdd = rdd.map(abs) if place < 50 else rdd.map(abs).filter(bool)
    return rdd


def own_partition_function(fc: fk.Context) -> fk.RDD:
    return fc.range(6, num_partitions=2).key_by(abs).partition_by(3, lambda k: k).zip_with_index()


CASES = [
    word_count,
    narrow_only,
    co_partitioned_join,
    join_with_one_side_lying_by_key,
    cogroup_of_three,
    shared_shuffle,
    long_chain,
    own_partition_function,
]


def described(rdd: fk.RDD) -> str:
    """What people are told, and below it what the scheduler is told."""
    stages = cut(rdd._node)
    firsts = min(node.id for stage in stages for node in stage.nodes)
    writes = {stage.writes.id: index for index, stage in enumerate(stages) if stage.writes is not None}
    # Without what stages did when they ran, which is never twice the same.
    lines = [re.sub(r"\.py:\d+", ".py", re.sub(r"\n    \(ran: .*\)", "", str(rdd.explain()))), ""]
    for index, stage in enumerate(stages):
        told = [f"{index}:", " ".join(node.operation for node in stage.nodes[:8])]
        for parent in parent_shuffles(stage):
            told.append(f"| reads {writes[parent.shuffle]}")
            if parent.unless_cached:
                told.append(f"unless rdds {[rdd - firsts for rdd in parent.unless_cached]} are cached")
        told += [f"| uses cached rdd {each.rdd - firsts} [{each.first}+{each.count}]" for each in cached_inputs(stage)]
        lines.append(" ".join(told))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_stages_are_told_as_written_down(case: Callable[[fk.Context], fk.RDD], request: pytest.FixtureRequest):
    with inline_context() as fc:
        rdd = case(fc)
        found = described(rdd)
        rdd.collect()
        assert described(rdd) == found.replace("   [runs a job of its own before the first action]", "")
    file = PLACE / f"{case.__name__}.txt"
    if request.config.getoption("--update-golden", default=False):
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8")


def test_no_case_is_left_over():
    assert {path.stem for path in PLACE.iterdir()} == {case.__name__ for case in CASES}


def test_the_lineage_is_a_tree_in_which_what_is_shared_stands_once():
    with inline_context() as fc:
        shared = fc.parallelize([(1, 2)], 2).set_name("pairs").cache()
        counted = shared.map_values(str).reduce_by_key(add, 3)
        tree = counted.join(shared).union(fc.empty()).debug_string()
    told = re.sub(r" at [^ \n]+:\d+", "", str(tree))
    assert told.splitlines() == [
        "(3) union",
        " |-(3) join",
        "    |-(3) reduce_by_key",
        "       +-(2) map_values",
        "          |  'pairs' parallelize   [cached]",
        "    +-(2) 'pairs' parallelize   [cached]",
        " |-(0) empty",
    ]


def test_a_tree_of_ten_thousand_maps_is_drawn_without_recursion():
    with inline_context() as fc:
        rdd = fc.range(3)
        for _ in range(10_000):
            rdd = rdd.map(abs)
        assert rdd.debug_string().count("\n") == 10_000
