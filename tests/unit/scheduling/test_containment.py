"""A bug in the core costs the jobs it hit, and no other; everybody hears what led there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from flowkit.cluster.outcomes import outcome_error
from flowkit.config import Config
from flowkit.errors import InternalError
from flowkit.model.ids import AppId, JobId
from flowkit.scheduling import barriers, drivers, endings, jobs, losses, readiness, turns
from flowkit.scheduling import stimuli as sti
from flowkit.simulation.cluster import SimulatedCluster, SimulatedJob
from flowkit.simulation.jobs import expected, job, map_stage, result_stage

Breaks = Callable[..., bool]


def broken(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, when: Breaks) -> None:
    """A function of the core that raises, in the midst of its work, where ``when`` says so of its arguments."""
    works = getattr(module, name)

    def function(*args: Any, **kwargs: Any) -> Any:
        result = works(*args, **kwargs)
        if when(*args):
            raise KeyError("a bug")
        return result

    monkeypatch.setattr(module, name, function)


def two_jobs(task_s: float = 1.0) -> tuple[SimulatedCluster, SimulatedJob, SimulatedJob]:
    """One in each of two applications, with tasks of both on every executor."""
    cluster = SimulatedCluster(Config(validate=False), task_s=task_s)
    for _ in range(2):
        cluster.add_executor(slots=4)
    submitted = []
    for name in ("hit", "spared"):
        app = cluster.open_application(name)
        pairs = map_stage(0, 4)
        submitted.append(cluster.submit(job(app, 0, pairs, result_stage(1, 3, [pairs]))))
    return cluster, submitted[0], submitted[1]


def assert_only_the_first_was_hit(cluster: SimulatedCluster, hit: SimulatedJob, spared: SimulatedJob) -> None:
    cluster.run()
    assert spared.numbers == expected(spared.spec)
    assert hit.failed is not None
    assert hit.failed.kind == "InternalError"
    assert "KeyError: 'a bug'" in hit.failed.reason
    assert "JobSubmitted" in hit.failed.where["story"]
    assert any("test_containment.py" in fault.traceback for fault in cluster.faults)
    cluster.core.check()


CASES: dict[str, tuple[Any, str, Breaks]] = {
    "a report": (endings, "_succeeded", lambda _books, attempt, _report: attempt.task_set.app == "hit"),
    "a start": (endings, "note_start", lambda _books, attempt, _at: attempt.task_set.app == "hit"),
    "a submission": (drivers, "_submit", lambda _books, application, _spec: application.id == "hit"),
    "a look at what may run": (readiness, "_submit", lambda _books, application, *_: application.id == "hit"),
    "a launch": (turns, "launch", lambda _books, application, *_: application.id == "hit"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_job_at_hand_fails_and_the_others_go_on(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, *CASES[case])
    assert_only_the_first_was_hit(*two_jobs())


def test_a_launch_of_all_tasks_at_once_costs_its_own_job_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, barriers, "launch", lambda _books, application, *_: application.id == "hit")
    cluster = SimulatedCluster(Config(validate=False))
    cluster.add_executor(slots=8)
    hit, spared = (
        cluster.submit(job(cluster.open_application(name), 0, msgspec.structs.replace(result_stage(0, 4), barrier=True)))
        for name in ("hit", "spared")
    )
    assert_only_the_first_was_hit(cluster, hit, spared)


def test_the_rest_of_a_batch_is_handled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, endings, "_succeeded", lambda _books, attempt, _report: attempt.task_set.app == "hit")
    cluster = SimulatedCluster(Config(validate=False), report_batch_s=0.5)
    cluster.add_executor(slots=8)
    hit, spared = (cluster.submit(job(cluster.open_application(name), 0, result_stage(0, 4))) for name in ("hit", "spared"))
    assert_only_the_first_was_hit(cluster, hit, spared)


def test_a_job_that_cannot_even_be_ended_is_struck_out(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, endings, "_succeeded", lambda _books, attempt, _report: attempt.task_set.app == "hit")
    broken(monkeypatch, jobs, "fail_job", lambda _books, application, *_: application.id == "hit")
    cluster, hit, spared = two_jobs()
    assert_only_the_first_was_hit(cluster, hit, spared)
    assert cluster.core.statistics().jobs == 0


def test_where_it_cannot_be_told_every_job_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, hit, spared = two_jobs()
    cluster.advance(0.5)
    broken(monkeypatch, losses, "executor_changed", lambda *_: True)
    cluster.tell(sti.ExecutorPaused(next(iter(cluster.executors))))
    cluster.run()
    assert [each.failed is not None and each.failed.kind for each in (hit, spared)] == ["InternalError"] * 2
    monkeypatch.undo()
    again = cluster.submit(job(AppId("spared"), 7, result_stage(9, 3)))
    cluster.run()
    assert again.numbers == expected(again.spec)


def test_the_driver_raises_an_internal_error_that_tells_the_story(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, endings, "_succeeded", lambda _books, attempt, _report: attempt.task_set.app == "hit")
    cluster, hit, _ = two_jobs()
    cluster.run()
    assert hit.failed is not None
    error = outcome_error(hit.failed)
    assert isinstance(error, InternalError)
    assert error.data["job"] == JobId(0)
    assert "TasksReported" in str(error)


def test_who_validates_sees_a_bug_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = SimulatedCluster(Config(validate=True))
    cluster.add_executor()
    broken(monkeypatch, endings, "_succeeded", lambda *_: True)
    cluster.submit(job(cluster.open_application("app"), 0, result_stage(0, 1)))
    with pytest.raises(InternalError, match="a bug"):
        cluster.run()
