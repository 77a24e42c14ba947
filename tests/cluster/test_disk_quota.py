"""A quota on disk bounds what an application keeps there, not what it can do."""

from __future__ import annotations

import pytest

import flowkit as fk
from flowkit.model import events as ev
from tests.chaos.conftest import Story


@pytest.mark.timeout(120)
def test_shuffles_of_earlier_jobs_make_room_for_later_ones():
    story = Story()
    with fk.Context(workers=2, progress="off", max_disk_bytes=6 << 20) as fc:
        fc.add_listener(story)
        kept = []
        for number in range(6):  # each takes about 2 MB; all stay referred to
            pairs = fc.range(20_000, num_partitions=4).map(lambda x: (f"{x:080d}", x))
            kept.append(pairs.partition_by(4))
            assert kept[-1].count() == 20_000, number
        fc.wait_for_listeners()
        assert story.of(ev.ShuffleOutputsLost)
        assert "make room" in story.of(ev.ShuffleOutputsLost)[0].reason
        assert [each.count() for each in kept] == [20_000] * 6


@pytest.mark.timeout(120)
def test_one_shuffle_beyond_the_quota_is_a_clear_error():
    with fk.Context(workers=2, progress="off", max_disk_bytes=1 << 20) as fc:
        pairs = fc.range(40_000, num_partitions=4).map(lambda x: (f"{x:080d}", x))
        with pytest.raises(fk.errors.DiskQuotaExceeded, match="max_disk_bytes = 1048576"):
            pairs.partition_by(4).count()
