"""Chosen faults: the same for the same seed, once a task, and never others than were asked for."""

from __future__ import annotations

from operator import add

import pytest

from flowkit.errors import InvalidArgument
from flowkit.model.faults import KINDS, FaultPlan, decode_faults, encode_faults
from flowkit.testing.chaos import chaos
from flowkit.testing.inline import inline_context


def story(fc):
    pairs = fc.range(200, num_partitions=8).map(lambda x: (x % 5, x))
    return pairs.reduce_by_key(add, 4).join(pairs.group_by_key(3).map_values(len), 3).collect_as_map()


EXPECTED = {key: (sum(range(key, 200, 5)), 40) for key in range(5)}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "kill_worker"])
def test_whatever_tasks_meet_the_answer_is_the_same(kind):
    with inline_context() as fc, chaos(seed=3, context=fc, slow_s=0.0, **{kind: 0.4}) as met:
        assert story(fc) == EXPECTED
        fc.wait_for_listeners()
        assert {fault.kind for fault in met.faults} == {kind}


def faults_of(seed: int) -> list:
    with inline_context() as fc, chaos(seed=seed, context=fc, fail_task=0.2, fail_fetch=0.2, corrupt_block=0.2) as met:
        assert story(fc) == EXPECTED
        fc.wait_for_listeners()
        return met.faults


def test_the_same_seed_gives_the_same_faults_and_another_gives_others():
    assert faults_of(7) == faults_of(7)
    assert faults_of(7) != faults_of(8)


def test_after_the_block_nothing_is_met():
    with inline_context() as fc:
        with chaos(context=fc, fail_task=1.0) as met:
            fc.range(4, num_partitions=2).count()
        before = len(met.faults)
        fc.range(4, num_partitions=2).count()
        fc.wait_for_listeners()
        assert len(met.faults) == before == 2
        assert "2 fail_task" in repr(met)


def test_a_plan_travels_as_text():
    plan = FaultPlan(seed=9, kill_worker=0.25, slow_s=1.5)
    assert decode_faults(encode_faults(plan)) == plan


def test_how_often_things_happen_is_what_was_asked_for():
    plan = FaultPlan(fail_task=0.1)
    met = sum(plan.meets("fail_task", stage, partition, tries=0) for stage in range(20) for partition in range(500))
    assert 850 < met < 1_150


@pytest.mark.parametrize("wrong", [{"fail_task": 1.5}, {"slow_task": -0.1}, {"drop_message": "often"}])
def test_what_is_no_probability_is_refused(wrong):
    with inline_context() as fc, pytest.raises(InvalidArgument, match="a probability"), chaos(context=fc, **wrong):
        pass


@pytest.mark.parametrize(
    "wrong",
    [
        {"slow_s": -1},
        {"slow_s": "x"},
        {"slow_s": float("nan")},
        {"seed": "x"},
        {"seed": 1.5},
        {"seed": 1 << 64},
        {"fail_fetch": True},
    ],
)
def test_what_makes_no_sense_is_refused_before_a_job_meets_it(wrong):
    (name,) = wrong
    with inline_context() as fc, pytest.raises(InvalidArgument, match=f"{name} = .*: must be"), chaos(context=fc, **wrong):
        pass


def test_killing_workers_needs_workers():
    with inline_context() as fc, pytest.raises(InvalidArgument, match="worker processes"), chaos(context=fc, kill_worker=0.1):
        pass
