"""One panel for the jobs of a cell and group: shown late, told what is new, static in the end."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flowkit.jobs import GROUP
from flowkit.model import events as ev
from flowkit.model.ids import AppId, JobId, StageId
from flowkit.model.job_spec import StageKind
from flowkit.notebook import panels
from flowkit.notebook.cells import CELL, Cell
from flowkit.notebook.panels import Panel

APP = AppId("app")


class Screen:
    """An output and a face in one, which note what they are asked for."""

    def __init__(self):
        self.shown, self.updates, self.closed, self.reserved = [], [], 0, 0
        self.replaces = None

    def reserve(self):
        self.reserved += 1

    def show(self, bundle):
        self.shown.append(bundle)

    def bundle(self, snapshot, timeline, now):
        self.updates.append(snapshot)
        return {"widget": 1}

    def update(self, snapshot, timeline, now):
        self.updates.append(snapshot)
        return self.replaces

    def close(self):
        self.closed += 1


class Jobs:
    def __init__(self):
        self.cancelled = []

    def cancel(self, job, reason):
        self.cancelled.append((job, reason))


@pytest.fixture
def screen():
    return Screen()


@pytest.fixture
def cell():
    return Cell({}, "[1]")


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(time=1_000.0)
    monkeypatch.setattr(panels.time, "time", lambda: now.time)
    return now


@pytest.fixture
def panel(screen, cell, clock):
    return Panel(SimpleNamespace(jobs=Jobs()), cell, "", screen, lambda cancel: screen)


def started(cell, job=0, at=1_000.0, group=""):
    properties = {CELL: cell.token, **({GROUP: group} if group else {})}
    stage = ev.StageInfo(StageId(job), "map at cell", StageKind.RESULT, 4, (), ("map",))
    return ev.JobStart(time=at, app=APP, job=JobId(job), name="count", stages=(stage,), skipped=(), properties=properties)


def ended(job=0, at=1_000.1, outcome="succeeded"):
    return ev.JobEnd(time=at, app=APP, job=JobId(job), outcome=outcome)


def test_nothing_is_shown_for_a_moment_and_then_the_panel(panel, cell, screen, clock):
    assert panel.draw(clock.time) is None
    panel.hear(started(cell))
    assert panel.draw(clock.time + 0.1) == pytest.approx(0.2)
    assert screen.shown == []
    assert panel.draw(clock.time + 0.31) is None
    assert screen.shown == [{"widget": 1}]


def test_a_place_is_taken_before_the_first_event_and_never_after_the_end(panel, cell, screen, clock):
    panel.reserve()
    assert screen.reserved == 1
    assert panel.draw(clock.time) is None
    assert not panel.finish(clock.time), "its job has not been heard of"
    panel.hear(started(cell))
    panel.hear(ended())
    cell.is_running = False
    assert panel.finish(clock.time + 1)
    panel.reserve()
    assert screen.reserved == 1


def test_a_short_job_leaves_one_line_when_its_cell_ends(panel, cell, screen, clock):
    panel.hear(started(cell))
    panel.hear(ended())
    assert panel.draw(clock.time + 1) is None
    assert not panel.finish(clock.time + 1), "the cell may run more jobs"
    cell.is_running = False
    assert panel.finish(clock.time + 1)
    assert panel.finish(clock.time + 2)
    assert len(screen.shown) == 1
    assert screen.shown[0]["text/plain"].startswith("✔ count · done")
    assert panel.is_over


def test_the_face_is_updated_once_a_change_and_in_the_end(panel, cell, screen, clock):
    panel.hear(started(cell))
    panel.draw(clock.time + 0.5)
    drawn = len(screen.updates)
    panel.draw(clock.time + 0.6)
    assert len(screen.updates) == drawn
    panel.hear(ended(outcome="failed"))
    cell.is_running = False
    panel.draw(clock.time + 0.7)
    panel.finish(clock.time + 0.7)
    assert screen.updates[-1].state == "failed"
    assert "✘ count · failed" in screen.shown[-1]["text/plain"]


def test_between_two_jobs_of_a_loop_it_looks_busy(panel, cell, screen, clock):
    panel.hear(started(cell))
    panel.draw(clock.time + 0.5)
    panel.hear(ended(at=1_000.4))
    assert panel.draw(clock.time + 0.5) is not None
    assert screen.updates[-1].state == "running"
    clock.time += 5
    panel.draw(clock.time)
    assert screen.updates[-1].state == "succeeded"


def test_jobs_of_other_cells_and_groups_are_not_its_own(panel, cell, screen, clock):
    panel.hear(started(Cell({}, "[2]")))
    panel.hear(started(cell, job=1, group="nightly"))
    assert not panel._model.is_running
    panel.hear(started(cell, job=2))
    assert panel._model.is_running


def test_cancelling_cancels_what_runs(panel, cell):
    panel.hear(started(cell, job=0))
    panel.hear(started(cell, job=1))
    panel.hear(ended(job=0))
    panel.cancel("enough")
    assert panel._jobs.cancelled == [(1, "enough")]


def test_a_closed_panel_lets_go_of_its_face_once(panel, cell, screen, clock):
    panel.hear(started(cell))
    panel.draw(clock.time + 0.5)
    panel.close()
    panel.close()
    assert screen.closed == 1
    assert panel.draw(clock.time + 1) is None
