"""Tasks that need more than a slot: several slots, addresses of named resources, nobody's twice; what nobody has ends the job with what there is."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.config import Config
from flowkit.errors import InvalidArgument
from flowkit.model.resources import WHOLE, ResourceProfile, resource_profile
from flowkit.model.task import MemoryFailure
from flowkit.scheduling import actions as act
from flowkit.scheduling.resources import Addresses
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, map_stage, result_stage


def needing(stage, **needs):
    profile = resource_profile(needs.pop("cpus", 1), needs, needs.pop("memory_bytes", 0))
    return msgspec.structs.replace(stage, profile=profile)


def cluster_of(*executors: dict, task_s=1.0, **settings) -> SimulatedCluster:
    cluster = SimulatedCluster(Config(validate=True, **settings), task_s=task_s)
    cluster.keep_actions = True
    for each in executors:
        cluster.add_executor(**each)
    return cluster


def in_use(cluster: SimulatedCluster) -> list[tuple[str, str]]:
    """Addresses of tasks that run, with their hosts."""
    return [
        (executor.host.token, address)
        for executor in cluster.executors.values()
        for task in executor.running.values()
        for address in task.launch.resources.get("gpu", ())
    ]


@pytest.mark.parametrize(
    "wrong",
    [{"cpus": 0}, {"cpus": 1.5}, {"gpu": 0.7}, {"gpu": 0}, {"gpu": -1}, {"gpu": 1e-7}, {"gpu": float("nan")}, {"gpu": "1"}],
)
def test_amounts_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InvalidArgument, match="must be a whole number"):
        needing(result_stage(0, 1), **wrong)


@given(st.integers(1, 4), st.lists(st.sampled_from([1, 2, 0.5, 0.34, 0.25, 0.1]), max_size=30))
def test_no_address_is_given_out_twice(count, amounts):
    addresses, taken = Addresses(list(map(str, range(count)))), []
    used = dict.fromkeys(addresses.names, 0)
    for amount in amounts:
        profile = ResourceProfile(amounts={"gpu": amount})
        need = profile.count("gpu"), profile.parts("gpu")
        if addresses.can_take(*need):
            found = addresses.take(*need)
            assert len(set(found)) == need[0]
            taken.append((found, need[1]))
            for address in found:
                used[address] += need[1]
        elif taken:
            found, parts = taken.pop(0)
            addresses.give_back(found, parts)
            for address in found:
                used[address] -= parts
        assert all(part <= WHOLE for part in used.values())
    for found, parts in taken:
        addresses.give_back(found, parts)
    assert addresses.can_take(count, WHOLE)


def test_tasks_never_share_an_address_that_is_theirs_alone():
    cluster = cluster_of({"slots": 4, "resources": {"gpu": ("0", "1")}}, {"slots": 4})
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, needing(result_stage(0, 6), gpu=1)))
    for _ in range(40):
        cluster.advance(0.1)
        assert len(in_use(cluster)) == len(set(in_use(cluster))) <= 2
    cluster.run()
    assert done.numbers == expected(done.spec)


def test_half_of_one_is_for_two():
    cluster = cluster_of({"slots": 8, "resources": {"gpu": ("0", "1")}})
    app = cluster.open_application("app")
    cluster.submit(job(app, 0, needing(result_stage(0, 8), gpu=0.5)))
    cluster.advance(0.5)
    assert sorted(in_use(cluster)) == [("host", "0"), ("host", "0"), ("host", "1"), ("host", "1")]


def test_executors_of_a_host_that_share_its_resources_do_not_use_one_at_the_same_time():
    gpus = {"slots": 2, "resources": {"gpu": ("0", "1")}, "shared": ("gpu",)}
    cluster = cluster_of(gpus, gpus, {**gpus, "host": "other"})
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, needing(result_stage(0, 12), gpu=1)))
    for _ in range(20):
        cluster.advance(0.1)
        assert len(in_use(cluster)) == len(set(in_use(cluster)))
    assert len(in_use(cluster)) == 4
    cluster.run()
    assert done.succeeded


@pytest.mark.parametrize("how", ["lost", "killed", "failed"])
def test_what_a_task_had_is_free_again_however_it_ended(how):
    from flowkit.model.task import ExceptionFailure

    gpus = {"slots": 2, "resources": {"gpu": ("0",)}, "shared": ("gpu",)}
    cluster = cluster_of(gpus, gpus)
    app = cluster.open_application("app")
    if how == "failed":
        cluster.fail(app, 0, 0, ExceptionFailure("ValueError", "no", "", None))
    first = cluster.submit(job(app, 0, needing(result_stage(0, 1), gpu=1)))
    cluster.advance(0.5)
    if how == "lost":
        (holder,) = [each.id for each in cluster.executors.values() if each.running]
        cluster.kill_executor(holder)
    elif how == "killed":
        cluster.cancel(first)
    cluster.advance(0.5)
    second = cluster.submit(job(app, 1, needing(result_stage(1, 1), gpu=1)))
    cluster.run()
    assert second.succeeded


def test_a_task_of_several_slots_leaves_no_more_than_the_rest():
    cluster = cluster_of({"slots": 4})
    app = cluster.open_application("app")
    cluster.submit(job(app, 0, needing(result_stage(0, 5), cpus=3)))
    cluster.submit(job(app, 1, result_stage(1, 9)))
    held = []
    for _ in range(80):
        cluster.advance(0.1)
        (executor,) = cluster.executors.values()
        held.append(sum(task.launch.cpus for task in executor.running.values()))
    cluster.run()
    launches = [task for action in cluster.actions if isinstance(action, act.Launch) for task in action.tasks]
    assert {task.cpus for task in launches if task.stage == 0} == {3}
    assert max(held) <= 5  # simulated executors count tasks; the core sends one ahead


def test_what_no_executor_has_ends_the_job_with_what_there_is():
    cluster = cluster_of({"slots": 4, "resources": {"gpu": ("0", "1")}}, {"slots": 2}, no_executor_timeout_s=20.0)
    app = cluster.open_application("app")
    wide = cluster.submit(job(app, 0, needing(result_stage(0, 2), cpus=8)))
    other = cluster.submit(job(app, 1, needing(result_stage(1, 2), tpu=1)))
    plain = cluster.submit(job(app, 2, result_stage(2, 2)))
    cluster.advance(19.0)
    assert plain.succeeded
    assert not wide.ended
    cluster.advance(2.0)
    assert (
        "needs cpus=8 for each task, which no executor has; there are 1 with cpus=4, gpu=2; 1 with cpus=2" in wide.failed.reason
    )
    assert "needs cpus=1, tpu=1" in other.failed.reason
    cluster.core.assert_empty()


def test_somebody_who_has_it_may_come_in_time():
    cluster = cluster_of({"slots": 2}, no_executor_timeout_s=20.0)
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, needing(result_stage(0, 4), gpu=1)))
    cluster.advance(15.0)
    cluster.add_executor(slots=2, resources={"gpu": ("0",)})
    cluster.run()
    assert done.succeeded


def test_stages_of_one_job_have_needs_of_their_own():
    cluster = cluster_of({"slots": 4, "resources": {"gpu": ("0",)}})
    app = cluster.open_application("app")
    source = map_stage(0, 4)
    done = cluster.submit(job(app, 0, source, needing(result_stage(1, 3, [source]), gpu=1, cpus=2)))
    cluster.run()
    assert done.numbers == expected(done.spec)
    launches = [task for action in cluster.actions if isinstance(action, act.Launch) for task in action.tasks]
    assert {task.resources.get("gpu") for task in launches if task.stage == 0} == {None}
    assert {task.resources.get("gpu") for task in launches if task.stage == 1} == {("0",)}


def test_a_task_that_took_too_much_memory_runs_alone_where_its_resources_are():
    gpus = {"slots": 2, "resources": {"gpu": ("0",)}, "shared": ("gpu",)}
    cluster = cluster_of({"slots": 4, "host": "other"}, gpus, gpus)
    app = cluster.open_application("app")
    cluster.fail(app, 0, 1, MemoryFailure("too much"))
    done = cluster.submit(job(app, 0, needing(result_stage(0, 6), gpu=1)))
    for _ in range(40):
        cluster.advance(0.2)
        assert len(in_use(cluster)) <= 1
    cluster.run()
    assert done.numbers == expected(done.spec)


# -- memory


def memory_in_use(cluster: SimulatedCluster, memory_bytes: int) -> list[int]:
    """By executor, what its running tasks said they need."""
    return [len(each.running) * memory_bytes for each in cluster.executors.values()]


def test_no_more_tasks_run_beside_one_another_than_there_is_memory_for():
    cluster = cluster_of({"slots": 4, "memory_bytes": 1_000}, {"slots": 4, "memory_bytes": 500})
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, needing(result_stage(0, 12), memory_bytes=400)))
    for _ in range(40):
        cluster.advance(0.1)
        assert all(used <= most for used, most in zip(memory_in_use(cluster, 400), (1_000, 500), strict=True))
    cluster.run()
    assert done.numbers == expected(done.spec)


def test_tasks_that_say_nothing_run_beside_them():
    cluster = cluster_of({"slots": 4, "memory_bytes": 1_000})
    app = cluster.open_application("app")
    cluster.submit(job(app, 0, needing(result_stage(0, 1), memory_bytes=1_000)))
    cluster.submit(job(app, 1, result_stage(1, 3)))
    cluster.advance(0.5)
    assert [len(each.running) for each in cluster.executors.values()] == [4]
    cluster.run()


def test_an_executor_that_does_not_say_what_it_has_takes_as_many_as_it_has_slots():
    cluster = cluster_of({"slots": 4})
    app = cluster.open_application("app")
    cluster.submit(job(app, 0, needing(result_stage(0, 4), memory_bytes=1 << 40)))
    cluster.advance(0.5)
    assert [len(each.running) for each in cluster.executors.values()] == [4]
    cluster.run()


def test_more_memory_than_any_executor_has_ends_the_job_with_what_there_is():
    cluster = cluster_of({"slots": 2, "memory_bytes": 1_000}, {"slots": 2, "memory_bytes": 500}, no_executor_timeout_s=20.0)
    app = cluster.open_application("app")
    failed = cluster.submit(job(app, 0, needing(result_stage(0, 4), memory_bytes=1_001)))
    cluster.run()
    assert "needs cpus=1, memory_bytes=1,001 for each task, which no executor has" in failed.failed.reason
    assert "there are 2 with cpus=2, memory_bytes=1,000 at most" in failed.failed.reason
    cluster.core.assert_empty()


def test_a_barrier_stage_is_as_wide_as_there_is_memory_for():
    cluster = cluster_of({"slots": 4, "memory_bytes": 1_000}, no_executor_timeout_s=20.0)
    app = cluster.open_application("app")
    stage = msgspec.structs.replace(needing(result_stage(0, 3), memory_bytes=400), barrier=True)
    failed = cluster.submit(job(app, 0, stage))
    cluster.run()
    assert "3 tasks to run at once" in failed.failed.reason
    assert "room for 2" in failed.failed.reason


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "1 GB"])
def test_a_hint_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(InvalidArgument, match="memory_bytes"):
        resource_profile(1, {}, wrong)
