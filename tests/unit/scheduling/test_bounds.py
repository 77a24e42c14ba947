"""No job is tried for ever: each kind of retry ends, and the error says how often and of what (docs/reliability.md)."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from flowkit.config import Config
from flowkit.model.events import TaskEnd, TaskStart
from flowkit.model.ids import ContentId, HostToken, PartitionIndex, ShuffleId
from flowkit.model.job_spec import Determinism
from flowkit.model.task import CommitDeniedFailure, ContentMissing, FetchFailure, KilledFailure, TaskFailure, TaskRecalled
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti
from flowkit.scheduling.task_sets import UNCOUNTED_LIMIT
from flowkit.simulation.cluster import SimulatedCluster, SimulatedJob
from flowkit.simulation.jobs import expected, job, map_stage, result_stage

CONFIG = Config(validate=True)


def tries(cluster: SimulatedCluster, stage: int, partition: int) -> int:
    return sum(event.stage == stage and event.partition == partition for event in cluster.events if isinstance(event, TaskStart))


def failed(done: SimulatedJob) -> act.JobFailed:
    assert done.failed is not None, "the job goes on, or ended well"
    return done.failed


# -- losses that nobody can explain


def test_a_task_under_which_processes_vanish_ends_its_job_with_all_that_is_known_of_each():
    cluster = SimulatedCluster(task_s=5.0)
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 1)))
    executors = []
    for number in range(CONFIG.max_task_failures):
        executors.append(cluster.add_executor())
        cluster.advance(2.0)
        cluster.kill_executor(executors[-1], task_caused=None, reason=f"broke, the {number}th time")
    cluster.run()
    assert tries(cluster, 0, 0) == CONFIG.max_task_failures
    assert failed(done).kind == "ExecutorsLost"
    for number, executor in enumerate(executors):
        assert f"try {number + 1} on {executor}, 2.0 s after its launch: broke, the {number}th time" in failed(done).reason
    assert "max_task_failures = 4" in failed(done).reason
    assert not any(event.counted for event in cluster.events if isinstance(event, TaskEnd))
    cluster.core.assert_empty()


def test_one_loss_fewer_does_no_harm():
    cluster = SimulatedCluster(task_s=5.0)
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 2)))
    for _ in range(CONFIG.max_task_failures - 1):
        executor = cluster.add_executor()
        cluster.advance(2.0)
        cluster.kill_executor(executor, task_caused=None)
    cluster.add_executor()
    cluster.run()
    assert done.numbers == expected(done.spec)


def test_executors_that_fall_silent_under_a_task_count_as_vanished():
    cluster = SimulatedCluster(task_s=100.0)
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 1)))
    for _ in range(CONFIG.max_task_failures):
        executor = cluster.add_executor()
        cluster.advance(1.5)
        cluster.stop_executor(executor)
        cluster.advance(20.0)
    assert tries(cluster, 0, 0) == CONFIG.max_task_failures
    assert failed(done).kind == "ExecutorsLost"
    assert failed(done).reason.count("no heartbeat for") == CONFIG.max_task_failures
    assert "s after it was heard last" in failed(done).reason


def test_what_only_waited_at_vanished_executors_is_not_counted():
    cluster = SimulatedCluster(Config(validate=True, launch_ahead_s=10.0), task_s=5.0)
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 8)))
    cluster.add_executor(slots=1)
    for _ in range(CONFIG.max_task_failures - 1):
        cluster.advance(2.0)
        (executor,) = cluster.executors
        cluster.kill_executor(executor, task_caused=None)
        cluster.add_executor(slots=1)
    cluster.run()
    assert done.numbers == expected(done.spec)
    lost = [event.partition for event in cluster.events if isinstance(event, TaskEnd) and event.failure is not None]
    assert len(lost) == CONFIG.max_task_failures - 1, "with one slot, one task ran under each loss"


@pytest.mark.parametrize("task_caused", [True, None], ids=["explained", "unexplained"])
def test_a_task_that_was_only_beside_one_that_ends_processes_lives(task_caused: bool | None):
    cluster = SimulatedCluster(task_s=5.0)
    app = cluster.open_application("app")
    other = cluster.open_application("other")
    guilty = cluster.submit(job(app, 0, result_stage(0, 1)))
    innocent = cluster.submit(job(other, 0, result_stage(0, 1)))
    cluster.add_executor()
    for _ in range(50):
        cluster.advance(0.5)
        for executor in list(cluster.executors.values()):
            if any(task.launch.app == app for task in executor.running.values()):
                cluster.kill_executor(executor.id, task_caused=task_caused)
                cluster.add_executor()
    cluster.run()
    assert failed(guilty).kind == "ExecutorsLost"
    assert innocent.numbers == expected(innocent.spec)


def test_losses_with_a_reason_of_their_own_are_bounded_too():
    cluster = SimulatedCluster(task_s=5.0)
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 1)))
    while not done.ended and cluster.now < 1_000:
        executor = cluster.add_executor()
        cluster.advance(1.0)
        cluster.kill_executor(executor, task_caused=False, reason="asked to leave")
    assert tries(cluster, 0, 0) == UNCOUNTED_LIMIT
    assert "asked to leave" in failed(done).reason


# -- endings that count against nobody


@pytest.mark.parametrize(
    "failure",
    [KilledFailure("preempted"), CommitDeniedFailure(), ContentMissing((ContentId("c" * 64),))],
    ids=["killed", "denied", "content"],
)
def test_endings_that_count_against_nobody_are_bounded(failure: TaskFailure):
    cluster = SimulatedCluster()
    cluster.add_executor()
    app = cluster.open_application("app")
    cluster.fail(app, 0, 0, *[failure] * 1_000)
    done = cluster.submit(job(app, 0, result_stage(0, 1)))
    cluster.run(limit_s=3_000)
    assert failed(done).kind == "JobFailed"
    assert tries(cluster, 0, 0) == UNCOUNTED_LIMIT


@pytest.mark.parametrize("failure", [KilledFailure("preempted"), CommitDeniedFailure()], ids=["killed", "denied"])
def test_a_barrier_stage_that_starts_over_for_nobodys_fault_is_bounded(failure: TaskFailure):
    cluster = SimulatedCluster()
    cluster.add_executor(slots=4)
    app = cluster.open_application("app")
    cluster.fail(app, 0, 1, *[failure] * 1_000)
    done = cluster.submit(job(app, 0, msgspec.structs.replace(result_stage(0, 3), barrier=True)))
    cluster.run(limit_s=3_000)
    assert f"failed {UNCOUNTED_LIMIT} times" in failed(done).reason


def test_a_barrier_stage_of_which_a_task_is_given_back_again_and_again_is_bounded():
    # One slot of two goes to others as soon as the stage is launched: what waits there is given back, and stops its fellow.
    cluster = SimulatedCluster(task_s=1.0)
    executor = cluster.add_executor(slots=2)
    app = cluster.open_application("app")
    cluster.keep_actions = True
    done = cluster.submit(job(app, 0, msgspec.structs.replace(result_stage(0, 2), barrier=True)))
    core, recalled = cluster.core, Counter[int]()
    cluster.advance(0.02)
    while not done.ended and cluster.now < 1_000:
        launched = [each for action in cluster.actions if isinstance(action, act.Launch) for each in action.tasks]
        cluster.actions.clear()
        for each in launched[-1:]:
            recalled[each.partition] += 1
            cluster.tell(sti.TasksReported(executor, (TaskRecalled(each.attempt),)))
        cluster.advance(0.02)
    assert "gave it back before it began" in failed(done).reason
    assert recalled.total() <= 2 * UNCOUNTED_LIMIT
    core.check()


# -- results and map outputs


def test_a_result_that_the_driver_can_never_fetch_ends_the_job():
    cluster = SimulatedCluster()
    executor = cluster.add_executor()
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 2, stores_result=True)))
    while not done.ended and cluster.now < 100:
        cluster.executors[executor].results.clear()
        cluster.advance(0.001)
    assert failed(done).kind == "ExecutorsLost"
    assert "was lost 4 times before the driver had it (max_stage_attempts = 4)" in failed(done).reason
    assert "the driver could not fetch it" in failed(done).reason
    cluster.core.assert_empty()


def test_rows_that_differ_each_time_and_go_with_their_host_each_time_end_the_job():
    cluster = SimulatedCluster(task_s=lambda launch: 0.01 if launch.stage == 0 else 10_000.0)
    app = cluster.open_application("app")
    pairs = map_stage(0, 1, determinism=Determinism.INDETERMINATE)
    cluster.add_executor("reader", slots=1)
    done = cluster.submit(job(app, 0, pairs, result_stage(1, 1, [pairs])))
    for number in range(2 * UNCOUNTED_LIMIT):
        cluster.add_executor(f"host-{number}", slots=1)
        cluster.advance(1.0)
        for holder in [host for host in cluster.hosts.values() if host.files and host.executors]:
            cluster.delete_host(holder.token)
    assert failed(done).kind in {"ShuffleLost", "ExecutorsLost"}
    assert cluster.computed[app, pairs.stage, PartitionIndex(0)] <= UNCOUNTED_LIMIT
    cluster.core.assert_empty()


def test_outputs_that_always_go_with_their_host_end_the_job():
    cluster = SimulatedCluster(task_s=lambda launch: 0.01 if launch.partition == 0 else 10_000.0)
    app = cluster.open_application("app")
    pairs = map_stage(0, 2)
    cluster.add_executor("host-0", slots=1)
    cluster.add_executor("host-1", slots=1)
    done = cluster.submit(job(app, 0, pairs, result_stage(1, 1, [pairs])))
    while not done.ended and cluster.now < 1_000:
        cluster.advance(1.0)  # output 0 is there, the long task goes on at the other host, nobody runs here
        for holder in [host for host in cluster.hosts.values() if host.files]:
            cluster.delete_host(holder.token)
        cluster.add_executor(f"host-{len(cluster.hosts)}", slots=1)
    assert failed(done).kind == "ShuffleLost"
    assert f"was made {UNCOUNTED_LIMIT} times" in failed(done).reason
    assert cluster.computed[app, pairs.stage, PartitionIndex(0)] == UNCOUNTED_LIMIT


def test_what_one_job_lost_is_not_counted_against_the_next():
    cluster = SimulatedCluster(task_s=0.01)
    cluster.add_executor()
    app = cluster.open_application("app")
    first = map_stage(0, 2)
    second = map_stage(1, 2, [first])
    lost = cluster.submit(job(app, 0, first, second, result_stage(2, 1, [second])))
    while not lost.ended:
        cluster.delete_output(app, 0, 0)
        cluster.advance(0.002)
    assert failed(lost).kind == "ShuffleLost"
    cluster.advance(1.0)
    done = cluster.submit(job(app, 1, first, second, result_stage(3, 1, [second])))
    while not cluster.delete_output(app, 0, 0):
        cluster.advance(0.002)
    cluster.run()
    assert done.numbers == expected(done.spec)


def test_all_outputs_a_reader_finds_lost_are_made_again_at_once():
    cluster = SimulatedCluster(task_s=0.01)
    cluster.add_executor()
    app = cluster.open_application("app")
    pairs = map_stage(0, 12)
    cluster.submit(job(app, 0, pairs, result_stage(1, 1, [pairs])))
    cluster.run()
    for partition in range(12):
        cluster.delete_output(app, 0, partition)
    done = cluster.submit(job(app, 1, pairs, result_stage(2, 1, [pairs])))
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert tries(cluster, 2, 0) == 2, "once to find out, once to read"
    assert Counter(cluster.computed.values()) == {2: 12}


def test_of_outputs_a_reader_finds_lost_those_made_again_since_stay():
    cluster = SimulatedCluster(task_s=0.01)
    cluster.add_executor()
    app = cluster.open_application("app")
    pairs = map_stage(0, 3)
    cluster.submit(job(app, 0, pairs, result_stage(1, 1, [pairs])))
    cluster.run()
    made = {status: attempt for _, _, status, attempt in cluster.hosts[HostToken("host")].files}
    stale = tuple((PartitionIndex(partition), attempt) for partition, attempt in made.items() if partition)
    first = FetchFailure(
        ShuffleId(0), PartitionIndex(0), made[PartitionIndex(0)], HostToken("host"), "missing", "?", 0, stale[:1]
    )
    late = FetchFailure(ShuffleId(0), PartitionIndex(0), made[PartitionIndex(0)], HostToken("host"), "missing", "?", 0, stale)
    cluster.fail(app, 2, 0, first, late)
    done = cluster.submit(job(app, 1, pairs, result_stage(2, 1, [pairs])))
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert sorted(cluster.computed.values()) == [2, 2, 2], "each once more, though two were named twice"
