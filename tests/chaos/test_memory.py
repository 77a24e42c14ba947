"""A worker that its nanny kills for the memory it took."""

from __future__ import annotations

import pytest

from flowkit.errors import FlowkitError

pytestmark = pytest.mark.chaos


def test_a_worker_killed_for_memory_says_so_and_says_what_it_ran(start):
    fc = start(workers=1, memory_limit="500MB", max_task_failures=1)

    def greedy(partition, rows):
        hoard = []
        for _ in range(10_000):
            hoard.append(bytearray(b"x") * (1 << 20))
        return [len(hoard)]

    with pytest.raises(FlowkitError, match="memory") as caught:
        fc.range(4, num_partitions=1).map_partitions_with_index(greedy).collect()
    told = str(caught.value) + "\n".join(getattr(caught.value, "__notes__", []))
    assert "partition 0" in told
    assert fc.range(10, num_partitions=2).sum() == 45, "the context works on, on the restarted worker"
