"""What comes from another process is compared with what was sent: damage on the way is asked for again, or counts as lost."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from flowkit.cluster.block_transport import DaskBlockTransport
from flowkit.cluster.deliveries import Deliveries
from flowkit.execution.results import ResultStore
from flowkit.model.task import StoredResult
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti
from flowkit.storage.blocks.block_pieces import BlockPiece
from flowkit.testing.inline import inline_context


class Answering(DaskBlockTransport):
    """A transport to an executor that gives one answer."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def _ask(self, *_: Any, **__: Any) -> Any:
        return self._answer

    def _run(self, work: Any, *_: Any) -> Any:
        return work


def test_a_block_that_was_damaged_on_its_way_is_told_as_corrupt_and_others_are_not():
    answer = [(b"sound", zlib.crc32(b"sound")), (b"sOund", zlib.crc32(b"sound")), ("missing: gone", 0), (b"", 0)]
    found = Answering(answer).fetch_shuffle("a", "app", 1, 0, [(0, 1), (1, 1), (2, 1), (3, 1)], timeout_s=1.0)
    assert found == [b"sound", "corrupt: it was damaged on its way from a", "missing: gone", b""]


def test_a_piece_of_a_cached_partition_that_was_damaged_on_its_way_is_no_piece():
    checksum = zlib.crc32(b"onetwo")
    arguments = {"serial": 0, "position": 0, "timeout_s": 1.0}
    sound = Answering((7, [b"one", b"two"], None, checksum)).fetch_cached("a", "app", 1, 0, **arguments)
    assert sound == BlockPiece(7, [b"one", b"two"], None)
    with pytest.raises(OSError, match="damaged on its way"):
        Answering((7, [b"one", b"twO"], None, checksum)).fetch_cached("a", "app", 1, 0, **arguments)


def driven(work: Any) -> None:
    """Run what never waits to its end."""
    with pytest.raises(StopIteration):
        work.send(None)


@pytest.mark.parametrize(("data", "is_lost"), [(b"result", False), (b"rEsult", True)])
def test_a_large_result_that_is_not_what_the_task_made_is_lost(data, is_lost):
    class Loop:
        async def run_in_executor(self, _threads, fn, *arguments):
            return fn(*arguments)

        def call_soon(self, fn):
            fn()

    class Calls:
        async def read_result(self, executor, attempt, size_bytes):
            return data

    class Job:
        job, is_over = 3, False

        def wants(self, partition):
            return True

        def hand_over(self, partition, data, *_):
            handed.append(data)

    said, handed = [], []
    deliveries = Deliveries("app", Calls(), said.append, Loop())
    message = act.DeliverResult("app", 3, 0, 9, "e#1", StoredResult(6, zlib.crc32(b"result")))
    deliveries.start()
    driven(deliveries._fetch(Job(), message, message.result))
    deliveries.close(ValueError())
    assert [each.attempt for each in said if isinstance(each, sti.ResultLost)] == ([9] if is_lost else [])
    assert handed == ([] if is_lost else [data])


def test_a_task_whose_stored_result_was_damaged_runs_again(monkeypatch):
    real, damaged = ResultStore.chunk, []

    def chunk(self, attempt, offset, length):
        data = real(self, attempt, offset, length)
        if not damaged:
            damaged.append(attempt)
            return data[:500] + b"x" + data[501:]
        return data

    monkeypatch.setattr(ResultStore, "chunk", chunk)
    with inline_context() as fc:
        assert fc.range(2, num_partitions=2).map(lambda n: [bytes([n]) * 100_000]).collect() == [
            [b"\0" * 100_000],
            [b"\1" * 100_000],
        ]
    assert damaged
