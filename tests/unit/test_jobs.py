"""What is said of jobs is checked where it is said: pools that nobody described, and what the policy takes no account of."""

from __future__ import annotations

import logging

import pytest

from flowkit import Capacity, Config, Fair
from flowkit.errors import ConfigError, InvalidArgument
from flowkit.jobs import observe_submissions, unobserve_submissions
from flowkit.testing.inline import inline_context


@pytest.mark.parametrize("policy", [Fair({"adhoc": 2}), Capacity({"adhoc": 0.5})], ids=repr)
def test_pools_of_a_policy_that_is_an_object_are_known_too(policy):
    with inline_context(scheduling_policy=policy) as fc:
        for say in (fc.pool, lambda name: fc.job(pool=name)):
            with pytest.raises(InvalidArgument, match="pool = 'adhok': must be adhoc, default"):
                say("adhok")
        with fc.pool("adhoc"), fc.pool("default"):
            assert fc.range(3).count() == 3


@pytest.mark.parametrize(
    "settings", [{"pools": {"adhoc": 2}}, {"scheduling_policy": Fair({"adhoc": 2})}], ids=["named", "object"]
)
def test_a_weight_makes_a_pool_that_nobody_described(settings):
    with inline_context(**{"scheduling_policy": "fair", **settings}) as fc:
        with pytest.raises(InvalidArgument, match="pool = 'new'"):
            fc.pool("new")
        with fc.pool("new", weight=2):
            assert fc.range(3).count() == 3
        with pytest.raises(InvalidArgument, match="pool = ''"):
            fc.pool("", weight=2)


@pytest.mark.parametrize("policy", [Fair(), Fair({"batch": 1}), Capacity({"batch": 0.5})], ids=repr)
def test_pools_beside_a_policy_that_has_its_own_are_refused(policy):
    with pytest.raises(ConfigError, match="pools = .*: would not be looked at"):
        Config(scheduling_policy=policy, pools={"adhoc": 2})


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("fifo", ["pools", "priorities"]),
        ("priority", ["pools"]),
        ("fair", ["priorities"]),
        ("capacity", ["priorities"]),
        (Fair(), []),
    ],
    ids=str,
)
def test_what_the_policy_takes_no_account_of_is_told_once(policy, told, caplog):
    with inline_context(scheduling_policy=policy) as fc, caplog.at_level(logging.WARNING, "flowkit.jobs"):
        for _ in range(2):
            with fc.pool("adhoc"), fc.job(priority=3), fc.job(pool="adhoc"):
                assert fc.range(3).count() == 3
    assert [record.getMessage().split(" change nothing")[0] for record in caplog.records] == told


def test_observers_hear_of_a_job_before_it_runs_and_cannot_fail_it(caplog):
    heard = []

    def observe(context, properties):
        heard.append((context, properties.get("flowkit.job.group"), len(context.status.jobs())))
        raise ValueError("an observer's own trouble")

    with inline_context() as fc:
        observe_submissions(observe)
        observe_submissions(observe)
        try:
            with fc.job_group("nightly"):
                assert fc.range(3).count() == 3
        finally:
            unobserve_submissions(observe)
            unobserve_submissions(observe)
        fc.range(3).count()
        assert heard == [(fc, "nightly", 0)]
    assert "the job goes on" in caplog.text
