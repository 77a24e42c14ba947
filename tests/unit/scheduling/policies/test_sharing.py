"""Who gets the cluster: each policy's promise, kept by the real core on a simulated cluster."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.abc import Share
from flowkit.config import Config
from flowkit.errors import ConfigError
from flowkit.model import events as ev
from flowkit.scheduling.policies.capacity import Capacity
from flowkit.scheduling.policies.fair import Fair
from flowkit.scheduling.policies.fifo import Fifo
from flowkit.scheduling.policies.pools import POOL, PRIORITY, WEIGHT, Pool, PoolTree, pools_of
from flowkit.scheduling.policies.priority import Priority
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, result_stage

TASK_S = 1.0


class Run:
    """A cluster with a policy, and jobs of pools on it."""

    def __init__(self, policy, executors: int = 4, slots: int = 2, task_s=TASK_S) -> None:
        self.cluster = SimulatedCluster(Config(validate=True, locality_wait_s=0.0), policy=policy, task_s=task_s)
        for _ in range(executors):
            self.cluster.add_executor(slots=slots)
        self.app = self.cluster.open_application("app")
        self.stages: dict[str, int] = {}

    def submit(self, name: str, tasks: int, **properties: str):
        number = len(self.stages)
        self.stages[name] = number
        spec = dataclasses_replace(job(self.app, number, result_stage(number, tasks)), properties)
        return self.cluster.submit(spec)

    def running(self, name: str) -> int:
        """Tasks of a job that occupy slots now."""
        return sum(
            task.launch.stage == self.stages[name] for each in self.cluster.executors.values() for task in each.running.values()
        )

    def first_start(self, name: str) -> float:
        return min(
            event.time for event in self.cluster.events if isinstance(event, ev.TaskStart) and event.stage == self.stages[name]
        )

    def last_start(self, name: str) -> float:
        return max(
            event.time for event in self.cluster.events if isinstance(event, ev.TaskStart) and event.stage == self.stages[name]
        )


def dataclasses_replace(spec, properties):
    import msgspec

    return msgspec.structs.replace(spec, properties=properties)


def in_pool(name: str, **more: str) -> dict[str, str]:
    return {POOL: name, **more}


# -- fair ----------------------------------------------------------------------------------------------------------------


def test_pools_run_as_many_tasks_as_their_weights_say():
    run = Run(Fair({"adhoc": 2, "batch": 1}), executors=6, slots=2)
    run.submit("batch", 500, **in_pool("batch"))
    run.cluster.advance(2.5 * TASK_S)
    assert run.running("batch") == 12, "alone it has everything"
    run.submit("adhoc", 500, **in_pool("adhoc"))
    run.cluster.advance(3 * TASK_S)
    for _ in range(5):
        run.cluster.advance(TASK_S)
        assert abs(run.running("adhoc") - 8) <= 1
        assert abs(run.running("batch") - 4) <= 1


@pytest.mark.parametrize("task_s", [0.002, 0.05, 1.0])
def test_an_interactive_job_beside_ten_thousand_tasks_waits_for_one_of_them_at_most(task_s: float):
    run = Run(Fair(), task_s=task_s)
    batch = run.submit("batch", 10_000, **in_pool("batch"))
    run.cluster.advance(20 * task_s + 0.5)
    asked = run.cluster.now
    small = run.submit("small", 4, **in_pool("adhoc"))
    while not small.ended:
        run.cluster.advance(task_s / 4)
    assert run.last_start("small") - asked <= task_s + 0.02
    assert small.numbers == expected(small.spec)
    run.cluster.run()
    assert batch.numbers == expected(batch.spec)


def test_first_come_first_served_has_it_wait_for_all_of_them():
    run = Run(Fifo())
    run.submit("batch", 400)
    run.cluster.advance(2.0)
    small = run.submit("small", 4)
    run.cluster.run()
    assert small.succeeded
    assert run.first_start("small") > 40 * TASK_S


def test_a_minimum_share_comes_before_weights():
    run = Run(Fair({"heavy": 100, "light": Pool(weight=1, min_share=3)}))
    run.submit("heavy", 500, **in_pool("heavy"))
    run.submit("light", 500, **in_pool("light"))
    run.cluster.advance(4.5 * TASK_S)
    assert run.running("light") == 3
    assert run.running("heavy") == 5


def test_what_a_pool_leaves_unused_the_others_have():
    run = Run(Fair({"a": 1, "b": 1, "c": 1}))
    run.submit("a", 500, **in_pool("a"))
    run.submit("b", 1, **in_pool("b"))
    run.cluster.advance(4.5 * TASK_S)
    assert run.running("a") == 8


def test_pools_within_a_pool_share_its_part():
    run = Run(
        Fair({"team": 1, "other": 1, "one": {"weight": 3, "parent": "team"}, "two": {"weight": 1, "parent": "team"}}), executors=8
    )
    for name in ("other", "one", "two"):
        run.submit(name, 500, **in_pool(name))
    run.cluster.advance(5.5 * TASK_S)
    assert (run.running("other"), run.running("one"), run.running("two")) == (8, 6, 2)


def test_a_weight_may_be_given_with_a_job():
    run = Run(Fair())
    run.submit("a", 500, **in_pool("a", **{WEIGHT: "3"}))
    run.submit("b", 500, **in_pool("b"))
    run.cluster.advance(4.5 * TASK_S)
    assert abs(run.running("a") - 6) <= 1
    assert run.running("a") + run.running("b") == 8


@pytest.mark.parametrize(("slots", "weights"), [(1, (1, 1)), (1, (1, 9)), (2, (1, 3)), (2, (1, 9)), (4, (1, 9)), (8, (1, 100))])
def test_a_pool_whose_part_is_less_than_a_slot_waits_for_one_task_too(slots: int, weights: tuple[int, int]):
    run = Run(Fair({"adhoc": weights[0], "batch": weights[1]}), executors=slots, slots=1, task_s=0.01)
    run.submit("batch", 2_000, **in_pool("batch"))
    run.cluster.advance(1.0)
    for number in range(5):
        asked = run.cluster.now
        done = run.submit(f"adhoc {number}", 1, **in_pool("adhoc"))
        while not done.ended:
            run.cluster.advance(0.001)
        assert run.first_start(f"adhoc {number}") - asked < 0.03


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 30), st.integers(0, 60)), min_size=1, max_size=8), st.integers(1, 40)
)
def test_what_pools_may_claim_is_never_more_than_there_is_and_nobody_with_a_right_is_left_out(pools, slots):
    """``(weight, running, waiting)`` of each."""
    policy = Fair({f"p{number}": weight for number, (weight, _, _) in enumerate(pools)})
    views = [
        View({POOL: f"p{number}"}, running_count=running, pending_count=waiting, job=number)
        for number, (_, running, waiting) in enumerate(pools)
    ]
    shares = policy.shares(views, slots)
    wanted = sum(view.running_count + view.pending_count for view in views)
    owned = [view.running_count + share.claim for view, share in zip(views, shares, strict=True) if share.claim]
    assert sum(owned) <= slots
    assert all(share.claim <= view.pending_count for view, share in zip(views, shares, strict=True))
    waiting = [(view, share) for view, share in zip(views, shares, strict=True) if view.pending_count]
    if waiting and sum(view.running_count for view in views) < min(slots, wanted):
        assert any(share.claim for _, share in waiting), "slots are free, somebody waits, and nobody may claim one"


# -- capacity ------------------------------------------------------------------------------------------------------------


def test_a_queue_borrows_and_gives_back_by_starting_nothing_new():
    run = Run(Capacity({"batch": 0.5, "interactive": 0.5}))
    run.submit("batch", 500, **in_pool("batch"))
    run.cluster.advance(2.5 * TASK_S)
    assert run.running("batch") == 8
    run.submit("interactive", 500, **in_pool("interactive"))
    run.cluster.advance(1.2 * TASK_S)
    assert run.running("interactive") >= 4, "its guarantee, within one task's time"
    killed = [event for event in run.cluster.events if isinstance(event, ev.TaskEnd) and event.failure is not None]
    assert killed == []


def test_a_queue_never_exceeds_its_maximum():
    run = Run(Capacity({"batch": {"guarantee": 0.25, "maximum": 0.5}}))
    run.submit("batch", 100, **in_pool("batch"))
    for _ in range(6):
        run.cluster.advance(TASK_S)
        assert run.running("batch") <= 4
    assert run.running("batch") == 4


# -- preemption ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy", [Fair({"batch": 1, "adhoc": 1}, preempt_after_s=2.0), Capacity({"batch": 0.5, "adhoc": 0.5}, preempt_after_s=2.0)]
)
def test_long_tasks_are_stopped_for_who_is_owed_their_slots_and_run_again(policy):
    run = Run(policy, task_s=lambda launch: 100.0 if launch.stage == 0 else 1.0)
    batch = run.submit("batch", 8, **in_pool("batch"))
    run.cluster.advance(50.0)
    asked = run.cluster.now
    small = run.submit("small", 4, **in_pool("adhoc"))
    while not small.ended:
        run.cluster.advance(0.1)
    assert 2.0 < run.cluster.now - asked < 4.0
    run.cluster.run()
    assert batch.numbers == expected(batch.spec)
    killed = [event for event in run.cluster.events if isinstance(event, ev.TaskEnd) and event.failure is not None]
    assert len(killed) == 4, "one for each that waited"
    assert not any(event.counted for event in killed)
    assert "preempted: pool adhoc" in killed[0].failure.reason


@pytest.mark.parametrize("wrong", [-1, "2", float("nan"), True])
def test_a_wait_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigError, match="preempt_after_s"):
        Fair(preempt_after_s=wrong)


# -- priority ------------------------------------------------------------------------------------------------------------


def test_the_more_important_job_goes_first_and_ahead_of_what_is_queued():
    run = Run(Priority())
    run.submit("low", 400)
    run.cluster.advance(3.5 * TASK_S)
    asked = run.cluster.now
    high = run.submit("high", 24, **{PRIORITY: "10"})
    while not high.ended:
        run.cluster.advance(TASK_S / 4)
    assert run.first_start("high") - asked <= TASK_S
    assert run.cluster.now - asked <= 5 * TASK_S, "three rounds of eight tasks, after those that ran"


# -- what makes no sense -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pools", "told"),
    [
        ({"a": 0}, "weight = 0"),
        ({"a": -1}, "weight = -1"),
        ({"a": float("nan")}, "weight = nan"),
        ({"a": {"min_share": -1}}, "min_share = -1"),
        ({"a": {"wait": 1}}, "has no wait"),
        ({"a": {"parent": "b"}}, "not described"),
        ({"a": {"parent": "b"}, "b": {"parent": "a"}}, "lies in itself"),
        ({"a": {"guarantee": 0.5, "maximum": 0.2}}, "must not be above"),
        ({"a": {"maximum": 0.0}}, "maximum = 0"),
    ],
)
def test_pools_that_make_no_sense_are_refused(pools, told):
    with pytest.raises(ConfigError, match=told):
        pools_of(pools)


def test_queues_of_capacity_do_not_lie_in_one_another():
    with pytest.raises(ConfigError, match="'a' lies in 'team': queues of this policy lie side by side"):
        Capacity({"team": 0.5, "a": {"guarantee": 0.2, "parent": "team"}})


def test_guarantees_beyond_the_cluster_are_refused():
    with pytest.raises(ConfigError, match=r"guarantees of all queues are 1\.2"):
        Capacity({"a": 0.6, "b": 0.6})


class Broken(Fair):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def __repr__(self) -> str:
        return f"Broken({self.how})"

    def order(self, candidates):
        if self.how == "order raises":
            raise LookupError("lost")
        return [] if self.how == "order leaves out" else super().order(candidates)

    def shares(self, candidates, slots):
        if self.how == "shares raises":
            raise LookupError("lost")
        if self.how == "shares takes away":
            candidates.clear()
            return []
        if self.how == "shares changes":
            candidates[0].properties["flowkit.pool"] = "mine"
        answer = NONSENSE.get(self.how)
        return super().shares(candidates, slots) if answer is None else [answer] * len(candidates)


NONSENSE = {
    "a number": 3,
    "a claim in words": Share(claim="many"),
    "a claim below": Share(claim=-1),
    "half a task": Share(most=1.5),
    "less than none": Share(most=-3),
    "a surplus in words": Share(surplus="x"),
}


@pytest.mark.parametrize(
    "how", ["order raises", "order leaves out", "shares raises", "shares takes away", "shares changes", *NONSENSE]
)
def test_a_policy_that_fails_fails_the_jobs_with_its_name_and_the_core_lives(how: str):
    cluster = SimulatedCluster(Config(), policy=Broken(how))
    cluster.add_executor()
    app = cluster.open_application("app")
    jobs = [cluster.submit(job(app, number, result_stage(number, 4))) for number in range(2)]
    cluster.run()
    assert all(each.failed is not None for each in jobs)
    assert any(f"the scheduling policy Broken({how}): " in each.failed.reason for each in jobs)
    assert all(each.failed.kind == "JobFailed" and not each.failed.where for each in jobs), "the policy is at fault, not flowkit"
    assert cluster.core.statistics().executors == 1


def test_a_policy_that_lets_nobody_start_is_given_some_time_and_then_named():
    class Closed(Fair):
        open_at = 0.0

        def __repr__(self):
            return "Closed()"

        def shares(self, candidates, slots):
            return super().shares(candidates, slots) if cluster.now >= self.open_at else [Share(most=0)] * len(candidates)

    policy = Closed()
    cluster = SimulatedCluster(Config(validate=True, no_executor_timeout_s=20.0), policy=policy)
    cluster.add_executor()
    app = cluster.open_application("app")
    policy.open_at = 1e9
    failed = cluster.submit(job(app, 0, result_stage(0, 4)))
    cluster.advance(19.0)
    assert not failed.ended
    cluster.config = cluster.config.with_settings(validate=False)
    cluster.core._books.config = cluster.config
    cluster.advance(2.0)
    assert "the scheduling policy Closed(): shares has let nobody start anything for 20 s" in failed.failed.reason
    policy.open_at = cluster.now + 15.0
    done = cluster.submit(job(app, 1, result_stage(1, 4)))
    cluster.advance(10.0)
    cluster.submit(job(app, 2, result_stage(2, 4)))  # something happens after it has opened
    cluster.advance(15.0)
    cluster.run()
    assert done.numbers == expected(done.spec)


def test_a_wait_of_somebodys_policy_that_makes_no_sense_is_refused_at_the_start():
    class Odd(Fair):
        def __init__(self):
            super().__init__()
            self.preempt_after_s = "soon"

    with pytest.raises(ConfigError, match="preempt_after_s = 'soon'"):
        SimulatedCluster(Config(), policy=Odd())


def test_a_weight_given_with_a_job_leaves_guarantee_and_maximum_alone():
    run = Run(Capacity({"batch": {"guarantee": 0.25, "maximum": 0.5}}))
    run.submit("batch", 100, **in_pool("batch", **{WEIGHT: "9"}))
    run.cluster.advance(3 * TASK_S)
    assert run.running("batch") == 4


@pytest.mark.parametrize("weight", ["much", "-1", "0", "nan", "inf", ""])
def test_a_jobs_weight_that_makes_no_sense_harms_nobody(weight):
    run = Run(Fair())
    odd, other = run.submit("a", 40, **in_pool("a", **{WEIGHT: weight})), run.submit("b", 40, **in_pool("b"))
    run.cluster.run()
    assert odd.numbers == expected(odd.spec)
    assert other.numbers == expected(other.spec)


# -- shares --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class View:
    properties: dict[str, str]
    running_count: int = 0
    pending_count: int = 100
    job: int = 0
    stage: int = 0
    app: str = "app"


def test_shares_add_up_and_nobody_gets_more_than_it_wants():
    pools = pools_of({"a": 1, "b": 2, "c": {"weight": 1, "parent": "b"}, "d": {"weight": 1, "parent": "b"}})
    views = [View({POOL: "a"}, pending_count=2), View({POOL: "c"}, pending_count=50), View({POOL: "d"}, pending_count=3)]
    shares = PoolTree(pools, views).fair_shares(30)
    assert shares["a"] == 2
    assert shares["b"] == 28
    assert (shares["c"], shares["d"]) == (25, 3)
