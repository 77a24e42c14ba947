"""Chains as long as loops make them: planned, explained, refused and forgotten without a stack that grows with them."""

from __future__ import annotations

import gc
import pickle
import sys
import threading
import weakref
from operator import add

import pytest

from flowkit.errors import ClosureError
from flowkit.lineage import closures
from flowkit.lineage.kernels import Result
from flowkit.lineage.nodes import ancestors
from flowkit.lineage.stages import cut, program_of
from flowkit.testing.inline import inline_context

LENGTH = 10_000


@pytest.fixture(scope="module")
def fc():
    with inline_context() as context:
        yield context


@pytest.fixture
def little_stack():
    """Room for what a test needs anyway, and not for a call a node."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    yield
    sys.setrecursionlimit(limit)


def chained(rdd, length=LENGTH):
    for _ in range(length):
        rdd = rdd.map(lambda x: x + 1)
    return rdd


def test_a_long_chain_is_one_stage_and_pickles(fc, little_stack):
    rdd = chained(fc.range(3, num_partitions=1))
    assert len(list(ancestors(rdd._node))) == LENGTH + 1
    (stage,) = cut(rdd._node)
    program = program_of(stage, Result(list, "collect", "here.py:1"))
    assert len(pickle.loads(closures.dumps(program)).steps) == LENGTH + 1


def test_a_long_chain_is_explained_in_a_line_a_kind_of_step(fc, little_stack):
    lines = chained(fc.range(3, num_partitions=1)).explain().splitlines()
    assert len(lines) == 3
    assert lines[2].endswith(f"{LENGTH} times")
    rdd = fc.range(3, num_partitions=1)
    for _ in range(LENGTH // 2):
        rdd = rdd.map(abs).filter(abs)
    lines = rdd.explain().splitlines()
    assert len(lines) == 1 + 30 + 1
    assert f"... {LENGTH + 1 - 30} more ..." in lines[16]


def test_a_long_chain_of_shuffles_is_cut_into_as_many_stages(fc, little_stack):
    rdd = fc.range(3, num_partitions=1).map(lambda x: (x, x))
    for _ in range(2_000):
        rdd = rdd.partition_by(1).map(lambda kv: kv)
    stages = cut(rdd._node)
    assert len(stages) == 2_001
    assert "stage 2000: result" in rdd.explain()


def test_many_ways_to_one_rdd_are_not_walked_one_by_one(fc):
    # 2 ** 60 ways lead to the source.
    rdd = fc.range(1, num_partitions=1).map(lambda x: (x, 1))
    for _ in range(60):
        rdd = rdd.join(rdd, 1).map_values(lambda vw: vw[0])
    assert len(cut(rdd._node)) == 2
    assert len(list(ancestors(rdd._node))) == 2 + 2 * 60
    assert rdd.explain().startswith("stage ")


def test_a_long_chain_is_forgotten_in_one_go(fc, little_stack):
    first = fc.range(3, num_partitions=1)
    last = chained(first)
    source = weakref.ref(first._node)
    del first, last
    gc.collect()
    assert source() is None


def test_what_cannot_travel_is_found_in_a_long_chain(fc, little_stack):
    lock = threading.Lock()

    def guarded(x):
        with lock:
            return x

    rdd = chained(chained(fc.range(3, num_partitions=1), 1_000).map(guarded), 1_000)
    with pytest.raises(ClosureError) as caught:
        rdd.collect()
    assert caught.value.path == "guarded -> lock"


def test_a_long_chain_runs_with_a_shuffle_in_the_middle(fc):
    pairs = chained(fc.range(4, num_partitions=2), 3_000).map(lambda x: (x % 2, x)).reduce_by_key(add)
    assert sorted(chained(pairs.values(), 3_000).collect()) == [9_002, 9_004]
