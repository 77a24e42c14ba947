"""Which executor is slow, by the times of its tasks."""

from flowkit.model.ids import ExecutorId
from flowkit.observe.executor_times import ExecutorTimes


def _times(**by_executor):
    times = ExecutorTimes()
    for executor, seconds in by_executor.items():
        for each in seconds:
            times.add(ExecutorId(executor), each)
    return times


def test_an_executor_whose_tasks_all_take_longer_is_slow():
    found = _times(a=[1.0] * 4, b=[1.0] * 4, slow=[4.0, 5.0, 4.0, 4.0]).slowest()
    assert found is not None
    assert found.executor == "slow"
    assert (found.mean_s, found.others_s) == (4.0, 1.0)


def test_one_slow_partition_makes_no_slow_executor():
    assert _times(a=[0.01] * 4, b=[0.01] * 4, c=[0.01, 0.01, 9.0, 0.01, 0.01]).slowest() is None


def test_a_few_tasks_say_nothing():
    assert _times(a=[0.1] * 8, b=[5.0, 5.0, 5.0]).slowest() is None
