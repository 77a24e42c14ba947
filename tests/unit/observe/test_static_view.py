"""What stays in a saved notebook: all that matters, nothing that runs, no markup of a user's."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import msgspec
import pytest

from flowkit.observe.progress import ProgressModel
from flowkit.observe.static_view import render_line, render_static
from tests.unit.observe.test_deltas import events_of_a_rough_day


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
    for text in ("cell 3: 2 jobs", "done", "computed again", "stage 0", "graph", "timeline", "is gone"):
        assert text in html
    assert html.count("<svg") == 2


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
    short = msgspec.structs.replace(snapshot, ended_at=snapshot.started_at + 0.5, failures=())
    assert "<table" not in render_static(short)
    assert render_line(short).startswith("✔ cell 3: 2 jobs · done")


def test_it_stays_small_however_much_there_was(model):
    many = tuple(msgspec.structs.replace(model.snapshot().stages[0], stage=number) for number in range(500))
    assert len(rendered(model, stages=many)) < 250_000
