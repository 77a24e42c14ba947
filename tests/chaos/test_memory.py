"""A worker that its nanny kills for the memory it took."""

from __future__ import annotations

import os

import pytest

from flowkit.errors import FlowkitError, InputTooLarge, TaskOutOfMemory

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


def test_a_task_that_takes_too_much_fails_alone_and_its_process_lives(start):
    fc = start(workers=1, memory_limit="500MB", max_task_failures=2)
    pid = fc.range(1, num_partitions=1).map(lambda _: os.getpid()).first()

    def greedy(rows):
        hoard = []
        for number in range(100_000):
            hoard.append(bytes(50_000))
            sum(range(1_000))
        return [len(hoard)]

    with pytest.raises(
        TaskOutOfMemory, match=r"took too much memory: its process holds .* in greedy at test_memory.py"
    ) as caught:
        fc.range(4, num_partitions=1).map_partitions(greedy).collect()
    assert isinstance(caught.value, MemoryError)
    assert fc.range(1, num_partitions=1).map(lambda _: os.getpid()).first() == pid


@pytest.mark.parametrize("reader", ["text_file", "read_json_lines", "read_csv", "whole_text_files"])
def test_a_line_longer_than_memory_is_named_and_its_process_lives(start, tmp_path, reader):
    fc = start(workers=1, memory_limit="400MB")
    pid = fc.range(1, num_partitions=1).map(lambda _: os.getpid()).first()
    path = tmp_path / "long.txt"
    with path.open("wb") as file:
        file.write(b"a,b\n" if reader == "read_csv" else b"{}\n")
        for _ in range(220):
            file.write(b"x" * (1 << 20))
    with pytest.raises(InputTooLarge, match=r"long\.txt: the .* is too long for this worker: .* Raise memory_limit") as caught:
        getattr(fc, reader)(path, 1).count()
    assert caught.value.path == str(path)
    assert "times, last on" not in "\n".join(caught.value.__notes__)
    assert fc.range(1, num_partitions=1).map(lambda _: os.getpid()).first() == pid


def test_a_wrong_estimate_spills_early_instead_of_dying(start):
    fc = start(workers=1, memory_limit="500MB", max_task_failures=1)

    class Blob:
        """Takes far more than it says."""

        __slots__ = ("size", "__dict__")

        def __init__(self, size):
            self.size = size
            self.__dict__["held"] = _Shy(bytes(size))

    class _Shy(bytes):
        def __sizeof__(self):
            return 16

    def made(number):
        return number % 50_000, Blob(2_000)

    grouped = fc.range(300_000, num_partitions=6).map(made).group_by_key(2).map_values(len)
    assert grouped.values().sum() == 300_000
    fc.wait_for_listeners()
    assert fc.status.summary().spilled_bytes > 0
