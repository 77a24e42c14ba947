"""The timeline: every task is in one block of a lane nobody else had at the time, however many blocks were merged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowkit.observe.timeline import Block, Timeline


def whole(timeline: Timeline) -> list[Block]:
    return [*timeline.since(-1, 0).blocks, *timeline.growing()]


TASKS = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2), st.floats(0, 100), st.floats(0.001, 5), st.booleans()), max_size=80
)


@given(tasks=TASKS, most=st.integers(2, 40))
def test_no_task_is_lost_and_lanes_never_overlap(tasks, most):
    timeline = Timeline(most)
    for executor, stage, start, length, failed in sorted(tasks, key=lambda task: task[2] + task[3]):
        timeline.add(executor, stage, start, start + length, failed=failed)
    blocks = whole(timeline)
    assert sum(block.task_count for block in blocks) == len(tasks)
    assert sum(block.failed_count for block in blocks) == sum(task[4] for task in tasks)
    lanes: dict[tuple[str, int], list[Block]] = {}
    for block in blocks:
        lanes.setdefault((block.executor, block.lane), []).append(block)
    for lane in lanes.values():
        lane.sort(key=lambda block: (block.start, block.end))
        for before, after in zip(lane, lane[1:], strict=False):
            assert after.start >= before.start


def test_tasks_at_the_same_time_lie_in_lanes_of_their_own():
    timeline = Timeline()
    timeline.add("a", 0, 0.0, 0.04, failed=False)
    timeline.add("a", 0, 0.02, 0.06, failed=False)
    timeline.add("a", 0, 0.04, 0.08, failed=False)
    assert [(block.lane, block.start, block.end, block.task_count) for block in timeline.growing()] == [
        (0, 0.0, 0.08, 2),
        (1, 0.02, 0.06, 1),
    ]


def test_a_task_that_is_long_enough_to_be_seen_is_a_block_of_its_own_and_says_which_it_is():
    timeline = Timeline()
    for number, seconds in enumerate((0.01, 0.01, 0.01, 3.5, 0.01)):
        start = 0.02 * number if number < 4 else 3.57
        timeline.add("a", 0, start, start + seconds, failed=False, partition=number, rows=10)
    assert [(block.task_count, block.partition, block.rows) for block in whole(timeline)] == [(3, -1, 30), (1, 3, 10), (1, 4, 10)]


def test_a_failed_task_keeps_a_block_of_its_own():
    timeline = Timeline()
    for number in range(3):
        timeline.add("a", 0, number, number + 1, failed=number == 1)
    assert [block.failed_count for block in whole(timeline)] == [0, 1, 0]


def test_blocks_are_asked_for_after_those_already_had():
    timeline = Timeline()
    for number in range(6):
        timeline.add("a", number % 2, number * 1.0, number + 0.5, failed=False)
    first = timeline.since(0, 0)
    assert len(first.blocks) == 5
    timeline.add("a", 0, 6.0, 6.5, failed=False)
    more = timeline.since(first.epoch, len(first.blocks))
    assert (more.first, len(more.blocks)) == (5, 1)


def test_ten_thousand_tasks_stay_few_blocks_and_a_new_epoch_says_so():
    timeline = Timeline(1_000)
    for number in range(10_000):
        timeline.add(f"executor {number % 4}", number % 3, number * 0.01, number * 0.01 + 0.03, failed=False)
    assert len(timeline) <= 1_000 + 4
    assert timeline.epoch > 0
    part = timeline.since(0, 900)
    assert part.first == 0
    assert sum(block.task_count for block in whole(timeline)) == 10_000
