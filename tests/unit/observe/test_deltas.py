"""A snapshot and the deltas after it say the same as the last snapshot, whatever happened."""

from __future__ import annotations

import json

import pytest

from flowkit.observe.deltas import applied, difference, full
from flowkit.observe.progress import ProgressModel
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import job, map_stage, result_stage


def events_of_a_rough_day(seed: int):
    """Two jobs that share a shuffle; an executor dies in their midst."""
    cluster = SimulatedCluster(seed=seed, task_s=0.05)
    executors = [cluster.add_executor(host) for host in ("north", "south", "west")]
    app = cluster.open_application("app")
    pairs = map_stage(0, 12)
    cluster.submit(job(app, 0, pairs, result_stage(1, 6, [pairs])))
    cluster.advance(0.12)
    cluster.kill_executor(executors[seed % 3])
    cluster.submit(job(app, 1, pairs, result_stage(2, 3, [pairs])))
    cluster.run()
    return cluster.events


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("every", [1, 3, 10])
def test_deltas_lead_from_any_snapshot_to_the_last(seed, every):
    model = ProgressModel("cell 1")
    sent = model.snapshot()
    state = json.loads(json.dumps(full(sent)))
    for count, event in enumerate(events_of_a_rough_day(seed)):
        model.on_event(event)
        if count % every == 0:
            new = model.snapshot()
            state = applied(state, json.loads(json.dumps(difference(sent, new))))
            sent = new
            assert sorted_lists(state) == sorted_lists(json.loads(json.dumps(full(new))))


def sorted_lists(state):
    """Order says nothing where things have an identity."""
    return {
        key: sorted(value, key=json.dumps) if key in {"jobs", "stages", "executors"} else value for key, value in state.items()
    }


def test_a_delta_for_another_version_is_refused():
    model = ProgressModel()
    before = model.snapshot()
    model.version += 1
    between = model.snapshot()
    model.version += 1
    after = model.snapshot()
    assert applied(full(before), difference(between, after)) is None
    assert applied(full(between), difference(between, after)) == full(after)


def test_what_did_not_change_is_not_told():
    model = ProgressModel()
    for event in events_of_a_rough_day(0):
        model.on_event(event)
    before = model.snapshot()
    model.version += 1
    delta = difference(before, model.snapshot())
    assert delta == {"base": before.version, "version": before.version + 1, "set": {"version": before.version + 1}}
