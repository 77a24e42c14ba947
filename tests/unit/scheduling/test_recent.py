"""What the core keeps of the past: enough for the story of a bug, not more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowkit.model.ids import AttemptId, ExecutorId
from flowkit.model.task import TaskStarted
from flowkit.scheduling.recent import Recent
from flowkit.scheduling.stimuli import Stimulus, TasksReported, Tick


def reported(count: int) -> Stimulus:
    return TasksReported(ExecutorId("tcp://a:1#0"), tuple(TaskStarted(AttemptId(each), 0.0) for each in range(count)))


@given(st.lists(st.integers(0, 200)), st.integers(1, 300))
def test_it_is_the_longest_end_of_the_past_that_has_so_many_reports(sizes: list[int], most: int) -> None:
    past = [(float(at), reported(size) if size else Tick()) for at, size in enumerate(sizes)]
    recent = Recent(most)
    for at, stimulus in past:
        recent.add(stimulus, at)
    kept = list(recent)
    assert kept == past[len(past) - len(kept) :]
    weights = [max(1, size) for size in sizes]
    assert len(kept) <= 1 or sum(weights[len(past) - len(kept) :]) <= most
    assert len(kept) == len(past) or sum(weights[len(past) - len(kept) - 1 :]) > most


def test_the_last_is_kept_whatever_it_holds() -> None:
    recent = Recent(10)
    recent.add(Tick(), 1.0)
    recent.add(reported(500), 2.0)
    assert [at for at, _ in recent] == [2.0]
    assert len(recent.story(1)) <= 400
