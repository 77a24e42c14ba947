"""What stays in a saved notebook: all that matters, nothing that runs, no markup of a user's."""

from __future__ import annotations

import json
import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from flowkit.observe.deltas import full
from flowkit.observe.progress import ProgressModel
from flowkit.observe.snapshot import Snapshot
from flowkit.observe.static_view import render_line, render_static
from flowkit.observe.troubles import can_be_replayed, troubles
from tests.unit.observe.test_deltas import events_of_a_rough_day

#: the front end is tested on them too
TROUBLES = json.loads((Path(__file__).parents[2] / "data" / "panel_troubles.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model():
    model = ProgressModel("cell 3")
    for event in events_of_a_rough_day(1):
        model.on_event(event)
    return model


def rendered(model, **changes):
    snapshot = msgspec.structs.replace(model.snapshot(), ended_at=model.snapshot().started_at + 5, **changes)
    return render_static(snapshot, model.timeline.since(-1, 0).blocks)


def tags_of(html):
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append(tag)
    parser.feed(html)
    return found


def test_it_tells_jobs_stages_losses_and_times(model):
    html = rendered(model)
    for text in ("cell 3: 2 jobs", "done", "computed again", "stage 0", "graph", "timeline", "executors", "is gone"):
        assert text in html
    stages = len(model.snapshot().stages)
    assert html.count("<svg") == 2 + stages, "a graph, a timeline, and the task times of each stage"
    assert "least / median / most" in html
    assert "most: partition" in html


def test_what_was_cancelled_says_why(model):
    (first, *_) = model.snapshot().jobs
    jobs = (msgspec.structs.replace(first, state="cancelled", reason="its time is over"),)
    snapshot = msgspec.structs.replace(model.snapshot(), state="cancelled", jobs=jobs)
    assert " · cancelled (its time is over) · " in render_line(snapshot)


def test_what_no_stage_has_is_no_column(model):
    html = rendered(model)
    assert "spilled" not in html
    stages = tuple(msgspec.structs.replace(stage, spilled_bytes=1 << 20) for stage in model.snapshot().stages)
    assert "1.0 MB" in rendered(model, stages=stages)


def test_skipped_not_run_cancelled_and_failed_have_four_marks(model):
    first = model.snapshot().stages[0]
    states = {"skipped": "↷", "not run": "⊘", "cancelled": "■", "failed": "✘", "done": "✔", "waiting": "○"}
    stages = tuple(msgspec.structs.replace(first, stage=number, state=state, done=0) for number, state in enumerate(states))
    html = rendered(model, stages=stages)
    for number, mark in enumerate(states.values()):
        assert f"{mark} {number}: {first.name}" in html
    assert html.count("width: 100.0%") == 2, (
        "the bars of the whole and of what is skipped are full; that of what was not run is not"
    )
    assert "skipped: its output exists" in html
    assert "not run: its job ended before" in html


def test_a_task_of_some_pixels_says_which_it_is(model):
    assert re.search(r"<title>stage \d+: partition \d+, (failed, )?\d+ ms", rendered(model))


@pytest.mark.parametrize("example", TROUBLES, ids=lambda each: each["name"])
def test_what_went_wrong_is_told_once_and_in_red_only_where_it_ended_a_job(model, example):
    parts = ("executors", "failures", "jobs")
    changed = msgspec.convert({**full(model.snapshot()), **{part: example[part] for part in parts}, "job_count": 1}, Snapshot)
    assert [list(each) for each in troubles(changed)] == example["troubles"]
    assert can_be_replayed(changed) == example["can_be_replayed"]
    html = render_static(changed)
    for _, text in example["troubles"]:
        assert html.count(escape(text)) == 1
    assert ("%flowkit replay" in html) == example["can_be_replayed"]


def test_nothing_in_it_runs_or_is_fetched(model):
    html = rendered(model)
    assert not {"script", "iframe", "link", "img", "style"} & set(tags_of(html))
    assert not re.search(r"https?://|javascript:| on\w+=", html)


def test_names_of_users_are_text(model):
    hostile = '"><script>alert(1)</script>'
    stages = tuple(msgspec.structs.replace(stage, name=hostile, operations=(hostile,)) for stage in model.snapshot().stages)
    html = rendered(model, title=hostile, stages=stages)
    assert "script" not in tags_of(html)
    assert "&lt;script&gt;" in html


def test_a_short_job_is_one_line(model):
    snapshot = model.snapshot()
    short = msgspec.structs.replace(snapshot, ended_at=snapshot.started_at + 0.5, failures=(), executors=())
    assert "<table" not in render_static(short)
    assert render_line(short).startswith("✔ cell 3: 2 jobs · done")


def test_it_stays_small_however_much_there_was(model):
    many = tuple(msgspec.structs.replace(model.snapshot().stages[0], stage=number) for number in range(500))
    assert len(rendered(model, stages=many)) < 250_000
