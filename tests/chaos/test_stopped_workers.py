"""A process that neither works nor dies: SIGSTOP."""

from __future__ import annotations

import os
import signal
import time
from operator import add
from pathlib import Path

import pytest

from flowkit.model import events as ev
from tests.chaos.conftest import once

pytestmark = pytest.mark.chaos


def test_a_stopped_worker_expires_and_its_work_is_done_elsewhere(start, story, tmp_path: Path):
    fc = start(workers=3, heartbeat_s=0.2, executor_timeout_s=2.0)
    pid_file = tmp_path / "pid"

    def mapper(partition, rows):
        if partition == 2 and once(tmp_path / "stopped"):
            pid_file.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        return [(i % 7, 1) for i in rows]

    started = time.monotonic()
    counts = (
        fc.range(700, num_partitions=6).map_partitions_with_index(mapper).reduce_by_key(add, num_partitions=3).collect_as_map()
    )
    assert counts == dict.fromkeys(range(7), 100)
    assert time.monotonic() - started < 30
    story.wait_for(lambda story: story.of(ev.ExecutorRemoved), "the expiry")
    assert "heartbeat" in story.of(ev.ExecutorRemoved)[0].reason or "silent" in story.of(ev.ExecutorRemoved)[0].reason

    # Should it still exist, it wakes: it must neither spoil an answer nor be counted twice.
    try:
        os.kill(int(pid_file.read_text()), signal.SIGCONT)
    except ProcessLookupError:
        pass
    again = fc.range(700, num_partitions=6).map(lambda i: (i % 7, 1)).reduce_by_key(add, num_partitions=3)
    assert again.collect_as_map() == dict.fromkeys(range(7), 100)
    removed = story.of(ev.ExecutorRemoved)[0]
    # Those of the start may have been heard by nobody yet: a listener hears what happens after it was added.
    story.wait_for(lambda story: any(added.time > removed.time for added in story.of(ev.ExecutorAdded)), "a replacement")
