"""``Context.run_job`` over chosen partitions: each of the RDD's own, once."""

from __future__ import annotations

import numpy as np
import pytest

from flowkit.errors import InvalidArgument
from flowkit.testing.inline import inline_context


def run(fc, partitions):
    node = fc.range(12, num_partitions=4)._node
    return fc.run_job(node, lambda _partition, rows: list(rows), partitions, operation="run_job", call_site="")


def test_results_stand_in_the_order_that_was_asked_for():
    with inline_context() as fc:
        assert run(fc, [3, 0]) == [[9, 10, 11], [0, 1, 2]]
        assert run(fc, np.array([1])) == [[3, 4, 5]]
        assert run(fc, (each for each in range(2))) == [[0, 1, 2], [3, 4, 5]]
        assert run(fc, []) == []
        assert run(fc, None) == run(fc, range(4))


@pytest.mark.parametrize(
    ("partitions", "told"),
    [
        ([4], r"partitions\[0\] = 4: must be a whole number from 0 to 3"),
        ([0, -1], r"partitions\[1\] = -1: must be"),
        ([1, 2, 1], r"partitions\[2\] = 1: is partitions\[0\] as well"),
        (["a"], r"partitions\[0\] = 'a': must be"),
        ([True], r"partitions\[0\] = True: must be"),
        ([1.0], r"partitions\[0\] = 1\.0: must be"),
        ([None], r"partitions\[0\] = None: must be"),
        (3, r"partitions = 3: must be several, as in \[0, 1\]"),
        ("01", "partitions = '01': must be several"),
    ],
)
def test_what_is_no_partition_is_refused_at_the_call(partitions, told):
    with inline_context() as fc, pytest.raises(InvalidArgument, match=told):
        run(fc, partitions)
