"""The front end's tests draw what these tests made: one story, kept in tests/data, current as long as this passes."""

from __future__ import annotations

import json
from pathlib import Path

from flowkit.observe.deltas import difference, full
from flowkit.observe.progress import ProgressModel
from tests.unit.observe.test_deltas import events_of_a_rough_day

STORY = Path(__file__).parents[2] / "data" / "panel_story.json"


def story() -> dict:
    model = ProgressModel("cell 3")
    first = sent = None
    deltas = []
    for count, event in enumerate(events_of_a_rough_day(1)):
        model.on_event(event)
        if count == 5:
            first = sent = model.snapshot()
        elif sent is not None and count % 4 == 0:
            new = model.snapshot()
            deltas.append(difference(sent, new))
            sent = new
    assert first is not None
    last = model.snapshot()
    deltas.append(difference(sent, last))
    return {"first": full(first), "deltas": deltas, "last": full(last)}


def test_the_story_that_the_front_end_is_tested_on_is_what_the_model_tells(request):
    told = json.loads(json.dumps(story()))
    if request.config.getoption("--update-golden", default=False):
        STORY.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    assert json.loads(STORY.read_text(encoding="utf-8")) == told
