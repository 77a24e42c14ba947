"""Ways to draw: the whole and what changed, for pages that come late too; and what is shown where less is installed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from flowkit.notebook import faces
from flowkit.notebook.faces import STATIC, WIDGET_VIEW, HtmlFace, IpywidgetsFace, WidgetFace, make_face
from flowkit.observe.deltas import applied, full
from flowkit.observe.progress import ProgressModel
from tests.unit.observe.test_deltas import events_of_a_rough_day

SOURCES = Path(__file__).parents[3] / "extensions" / "view" / "src"


@pytest.fixture
def model():
    return ProgressModel("cell 1")


def sent_by(face, monkeypatch):
    messages = []
    monkeypatch.setattr(face._widget, "send", messages.append)
    return messages


def test_the_front_end_that_is_shipped_was_built_of_these_sources():
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    assert (STATIC / "widget.js.stamp").read_text().strip() == digest.hexdigest(), "npm run build in extensions/view"
    assert len((STATIC / "widget.js").read_bytes()) < 30_000


def test_a_widget_gets_the_whole_and_then_what_changed(model, monkeypatch):
    face = WidgetFace(lambda: None)
    messages = sent_by(face, monkeypatch)
    bundle = face.bundle(model.snapshot(), model.timeline, 1.0)
    assert {"text/html", "text/plain", WIDGET_VIEW} == set(bundle)
    for event in events_of_a_rough_day(2):
        model.on_event(event)
        assert face.update(model.snapshot(), model.timeline, 2.0) is None
    state, blocks = messages[0]["snapshot"], []
    for message in messages[1:]:
        state = applied(state, message["delta"])
        part = message["timeline"]
        blocks = [*blocks[: part["first"]], *part["blocks"]]
    assert state["tasks_done"] == model.snapshot().tasks_done
    assert blocks == list(model.timeline.since(-1, 0).blocks)


def test_a_page_that_is_loaded_anew_gets_the_whole_and_nobody_else_does(model, monkeypatch):
    face = WidgetFace(lambda: None)
    assert face._widget.get_state()["whole"] == {}
    for event in events_of_a_rough_day(2):
        model.on_event(event)
    sent_by(face, monkeypatch)
    face.bundle(model.snapshot(), model.timeline, 1.0)
    assert face._widget.get_state()["whole"]["snapshot"] == full(model.snapshot())


def test_a_view_that_lost_its_way_is_sent_the_whole(model, monkeypatch):
    cancelled = []
    face = WidgetFace(lambda: cancelled.append(1))
    messages = sent_by(face, monkeypatch)
    face.bundle(model.snapshot(), model.timeline, 1.0)
    face._hear(None, {"op": "resync"}, [])
    face._hear(None, {"op": "nonsense"}, [])
    face.update(model.snapshot(), model.timeline, 2.0)
    assert "snapshot" in messages[-1]
    face._hear(None, {"op": "cancel"}, [])
    assert cancelled == [1]


def test_a_view_that_missed_something_is_sent_what_it_missed(model, monkeypatch):
    face = WidgetFace(lambda: None)
    messages = sent_by(face, monkeypatch)
    face.bundle(model.snapshot(), model.timeline, 1.0)
    events = list(events_of_a_rough_day(2))
    for event in events[:40]:
        model.on_event(event)
        face.update(model.snapshot(), model.timeline, 2.0)
    state = messages[0]["snapshot"]
    for message in messages[1:10]:
        state = applied(state, message["delta"])
    face._hear(None, {"op": "resync", "version": state["version"]}, [])
    for event in events[40:45]:
        model.on_event(event)
    face.update(model.snapshot(), model.timeline, 3.0)
    assert "snapshot" not in messages[-1]
    for delta in messages[-1]["deltas"]:
        state = applied(state, delta)
    assert state["version"] == model.version
    # One that is too far behind gets the whole.
    face._hear(None, {"op": "resync", "version": 0}, [])
    face._ring._deltas.popleft()
    for event in events[45:]:
        model.on_event(event)
    face.update(model.snapshot(), model.timeline, 4.0)
    assert messages[-1]["snapshot"]["version"] == model.version


def test_without_the_view_plain_widgets_do_and_without_those_html(monkeypatch):
    assert isinstance(make_face("auto", lambda: None), WidgetFace)
    assert isinstance(make_face("ipywidgets", lambda: None), IpywidgetsFace)
    assert isinstance(make_face("html", lambda: None), HtmlFace)
    monkeypatch.setattr(faces, "find_spec", lambda name: None if name == "anywidget" else True)
    assert isinstance(make_face("auto", lambda: None), IpywidgetsFace)
    assert isinstance(make_face("widget", lambda: None), IpywidgetsFace)
    monkeypatch.setattr(faces, "find_spec", lambda name: None)
    assert isinstance(make_face("auto", lambda: None), HtmlFace)


def test_a_widget_that_cannot_be_made_is_replaced_by_html(monkeypatch):
    def fail(_cancel):
        raise RuntimeError("another version")

    monkeypatch.setattr(faces, "WidgetFace", fail)
    assert isinstance(make_face("auto", lambda: None), HtmlFace)


def test_html_is_replaced_twice_a_second_at_most_and_in_the_end(model):
    face = HtmlFace()
    events = events_of_a_rough_day(2)
    for event in events[:20]:
        model.on_event(event)
    running = model.snapshot()
    assert running.state == "running"
    assert "text/html" in face.bundle(running, model.timeline, 10.0)
    assert face.update(running, model.timeline, 10.2) is None
    assert face.update(running, model.timeline, 10.6) is not None
    for event in events[20:]:
        model.on_event(event)
    assert face.update(model.snapshot(), model.timeline, 10.7) is not None


def test_ipywidgets_show_the_same_html_and_a_button_while_it_runs(model):
    cancelled = []
    face = IpywidgetsFace(lambda: cancelled.append(1))
    for event in events_of_a_rough_day(2)[:20]:
        model.on_event(event)
    assert WIDGET_VIEW in face.bundle(model.snapshot(), model.timeline, 10.0)
    assert "<table" in face._html.value
    face._button.click()
    assert cancelled == [1]
    face.close()
