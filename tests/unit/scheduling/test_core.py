"""Jobs, stages they share, cancelling, drivers that die, content and results that are large, replays."""

from __future__ import annotations

import pytest

from flowkit.config import Config
from flowkit.errors import ConfigError
from flowkit.model.events import (
    ApplicationEnd,
    BlocksCached,
    BlocksLost,
    JobEnd,
    JobStart,
    StageSubmitted,
    TaskEnd,
    TaskGettingResult,
    TaskStart,
)
from flowkit.model.ids import AppId, ExecutorId, HostToken, JobId, RddId, ShuffleId
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import ContentMissing, ExceptionFailure, InlineResult, Locality, TaskSucceeded
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti
from flowkit.scheduling.core import SchedulerCore
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, large_content, map_stage, result_stage
from flowkit.testing.event_order import check_event_order


def starts(cluster: SimulatedCluster) -> list[TaskStart]:
    return [event for event in cluster.events if isinstance(event, TaskStart)]


# -- stages


def test_a_second_job_over_a_shuffle_skips_the_stage_that_wrote_it() -> None:
    cluster = SimulatedCluster()
    cluster.add_executor()
    app = cluster.open_application("app")
    pairs = map_stage(0, 4)
    cluster.submit(job(app, 0, pairs, result_stage(1, 2, [pairs])))
    cluster.run()
    second = cluster.submit(job(app, 1, pairs, result_stage(2, 2, [pairs])))
    cluster.run()
    assert second.numbers == expected(second.spec)
    assert [event.skipped for event in cluster.events if isinstance(event, JobStart)] == [(), (0,)]
    assert set(cluster.computed.values()) == {1}
    check_event_order(cluster.events)


def test_what_a_task_cached_before_it_failed_is_known_and_used() -> None:
    cluster = SimulatedCluster(Config(validate=True, max_task_failures=1))
    holder = cluster.add_executor()
    app = cluster.open_application("app")
    cluster.fail(app, 0, 0, ExceptionFailure("ValueError", "behind the cache", "", None))
    failed = cluster.submit(job(app, 0, result_stage(0, 1, cached=7)))
    cluster.run()
    assert failed.failed is not None
    assert cluster.core.snapshot()["applications"][app]["cached"] == [(7, 0, holder)]
    cluster.add_executor("elsewhere")
    again = cluster.submit(job(app, 1, result_stage(0, 1, cached=7)))
    cluster.run()
    assert again.numbers == expected(again.spec)
    assert [(event.executor, event.locality) for event in starts(cluster)[1:]] == [(holder, Locality.PROCESS)]
    assert sum(len(event.blocks) for event in cluster.events if isinstance(event, BlocksCached)) == 1


def test_two_jobs_at_once_share_the_running_stage() -> None:
    cluster = SimulatedCluster(task_s=1.0)
    cluster.add_executor()
    app = cluster.open_application("app")
    pairs = map_stage(0, 4)
    first = cluster.submit(job(app, 0, pairs, result_stage(1, 2, [pairs])))
    cluster.advance(0.5)
    second = cluster.submit(job(app, 1, pairs, result_stage(2, 2, [pairs])))
    cluster.run()
    assert first.numbers == expected(first.spec)
    assert second.numbers == expected(second.spec)
    assert set(cluster.computed.values()) == {1}


def test_a_shared_stage_outlives_the_job_that_is_cancelled() -> None:
    cluster = SimulatedCluster(task_s=1.0)
    cluster.add_executor()
    app = cluster.open_application("app")
    pairs = map_stage(0, 4)
    first = cluster.submit(job(app, 0, pairs, result_stage(1, 2, [pairs])))
    second = cluster.submit(job(app, 1, pairs, result_stage(2, 2, [pairs])))
    cluster.advance(0.5)
    cluster.cancel(first)
    cluster.run()
    assert first.failed is not None
    assert first.failed.kind == "JobCancelled"
    assert second.numbers == expected(second.spec)
    assert set(cluster.computed.values()) == {1}
    cluster.core.assert_empty()


def test_a_parent_is_not_needed_when_all_that_was_made_from_it_is_cached() -> None:
    cluster = SimulatedCluster()
    first = cluster.add_executor("north")
    cluster.add_executor("south")
    app = cluster.open_application("app")
    pairs = map_stage(0, 4)
    cluster.submit(job(app, 0, pairs, result_stage(1, 4, [pairs], cached=7)))
    cluster.run()
    assert sum(len(event.blocks) for event in cluster.events if isinstance(event, BlocksCached)) == 4
    for partition in range(4):
        cluster.delete_output(app, 0, partition)
    again = result_stage(1, 4, [pairs], cached=7)
    second = cluster.submit(job(app, 1, pairs, again))
    cluster.run()
    assert second.numbers == expected(second.spec)
    assert set(cluster.computed.values()) == {1}
    assert {event.locality for event in starts(cluster)[-4:]} == {Locality.PROCESS}
    cluster.kill_executor(first)
    third = cluster.submit(job(app, 2, pairs, again))
    cluster.run()
    assert third.numbers == expected(third.spec)
    assert any(isinstance(event, BlocksLost) for event in cluster.events)
    assert set(cluster.computed.values()) == {2}


def test_a_block_that_is_evicted_under_a_task_costs_its_job_nothing_but_time() -> None:
    cluster = SimulatedCluster(task_s=1.0)
    executor = cluster.add_executor()
    app = cluster.open_application("app")
    pairs = map_stage(0, 2)
    cluster.submit(job(app, 0, pairs, result_stage(1, 2, [pairs], cached=7)))
    cluster.run()
    cluster.driver_says(sti.ShuffleReleased(app, ShuffleId(0)))
    second = cluster.submit(job(app, 1, pairs, result_stage(1, 2, [pairs], cached=7)))
    cluster.advance(0.5)
    cluster.executors[executor].cache.clear()  # and nobody was told yet
    cluster.run()
    assert second.numbers == expected(second.spec)


def test_a_job_of_no_partitions_succeeds_at_once() -> None:
    cluster = SimulatedCluster()
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 3, wanted=())))
    cluster.run()
    assert done.succeeded
    cluster.core.assert_empty()


def test_only_the_partitions_asked_for_are_computed() -> None:
    cluster = SimulatedCluster()
    cluster.add_executor()
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 100, wanted=(7, 3))))
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert len(starts(cluster)) == 2


def test_the_oldest_job_is_served_first() -> None:
    cluster = SimulatedCluster(task_s=1.0)
    cluster.add_executor(slots=1)
    red, blue = cluster.open_application("red"), cluster.open_application("blue")
    cluster.submit(job(blue, 0, result_stage(0, 3)))
    cluster.advance(0.1)
    cluster.submit(job(red, 0, result_stage(0, 3)))
    cluster.run()
    assert [event.app for event in starts(cluster)] == [blue] * 3 + [red] * 3


def test_a_released_shuffle_goes_with_its_files_after_the_last_job() -> None:
    cluster = SimulatedCluster(task_s=1.0)
    cluster.add_executor()
    app = cluster.open_application("app")
    pairs = map_stage(0, 2)
    done = cluster.submit(job(app, 0, pairs, result_stage(1, 1, [pairs])))
    cluster.advance(0.5)
    cluster.driver_says(sti.ShuffleReleased(app, ShuffleId(0)))
    cluster.run()
    assert done.succeeded
    assert not any(host.files for host in cluster.hosts.values())


# -- cancelling and farewells


def test_cancelling_frees_the_slots_for_others_at_once() -> None:
    cluster = SimulatedCluster(task_s=lambda launch: 1_000.0 if launch.stage == 0 else 0.01)
    cluster.add_executor()
    app = cluster.open_application("app")
    endless = cluster.submit(job(app, 0, result_stage(0, 8)))
    cluster.advance(1.0)
    cluster.cancel(endless)
    other = cluster.submit(job(app, 1, result_stage(1, 4)))
    cluster.advance(0.5)
    assert endless.failed is not None
    assert other.succeeded
    check_event_order(cluster.events)
    cluster.core.assert_empty()


def test_a_driver_that_dies_loses_its_jobs_and_files_when_its_lease_is_over() -> None:
    cluster = SimulatedCluster(task_s=1.0)
    cluster.add_executor()
    app = cluster.open_application("app", lease_s=10.0)
    pairs = map_stage(0, 2)
    cluster.submit(job(app, 0, pairs, result_stage(1, 1_000, [pairs])))
    cluster.advance(5.0)
    assert any(host.files for host in cluster.hosts.values())
    cluster.lose_driver(app)
    cluster.advance(15.0)
    assert [event.reason for event in cluster.events if isinstance(event, ApplicationEnd)] != []
    assert not any(host.files for host in cluster.hosts.values())
    assert all(not executor.running for executor in cluster.executors.values())
    cluster.core.assert_empty()
    check_event_order(cluster.events)


def test_a_driver_that_renews_its_lease_lives() -> None:
    cluster = SimulatedCluster()
    cluster.open_application("app", lease_s=10.0)
    cluster.advance(100.0)
    assert cluster.core.statistics().applications == 1


def test_applications_do_not_meet() -> None:
    cluster = SimulatedCluster(task_s=1.0)
    cluster.add_executor()
    red, blue = cluster.open_application("red"), cluster.open_application("blue")
    pairs = map_stage(0, 2)
    theirs = cluster.submit(job(red, 0, pairs, result_stage(1, 2, [pairs])))
    ours = cluster.submit(job(blue, 0, pairs, result_stage(1, 2, [pairs])))
    cluster.advance(2.5)
    cluster.close_application(red)
    cluster.run()
    assert not theirs.succeeded
    assert ours.numbers == expected(ours.spec)


# -- results and content


def test_stored_results_are_fetched_and_released() -> None:
    cluster = SimulatedCluster()
    cluster.add_executor()
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 4, stores_result=True)))
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert sum(isinstance(event, TaskGettingResult) for event in cluster.events) == 4
    assert all(not executor.results for executor in cluster.executors.values())
    check_event_order(cluster.events)


def test_a_stored_result_that_is_lost_is_computed_again() -> None:
    cluster = SimulatedCluster()
    executor = cluster.add_executor()
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 1, stores_result=True)))
    while not cluster.executors[executor].results:
        cluster.advance(0.001)
    cluster.executors[executor].results.clear()
    cluster.run()
    assert done.numbers == expected(done.spec)
    assert len(starts(cluster)) == 2


def test_an_executor_lost_with_an_unfetched_result_costs_that_task() -> None:
    cluster = SimulatedCluster()
    executor = cluster.add_executor()
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 1, stores_result=True, commits=True)))
    while not cluster.executors[executor].results:
        cluster.advance(0.001)
    cluster.kill_executor(executor)
    cluster.add_executor()
    cluster.run()
    assert done.numbers == expected(done.spec)


def test_results_beyond_the_limit_end_the_job_and_name_the_setting() -> None:
    cluster = SimulatedCluster()
    cluster.add_executor()
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 8, stores_result=True), max_result_bytes=250_000))
    cluster.run()
    assert done.failed is not None
    assert done.failed.kind == "ResultTooLarge"
    assert "max_result_bytes" in done.failed.reason
    cluster.core.assert_empty()


def test_a_result_that_had_to_be_computed_again_is_not_counted_twice() -> None:
    cluster = SimulatedCluster()
    executor = cluster.add_executor()
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 1, stores_result=True), max_result_bytes=150_000))
    while not cluster.executors[executor].results:
        cluster.advance(0.001)
    cluster.executors[executor].results.clear()
    cluster.run()
    assert done.succeeded


def test_content_nobody_holds_is_put_again_by_the_driver() -> None:
    cluster = SimulatedCluster()
    cluster.add_executor("north")
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 2, program=large_content(5, HostToken("gone")))))
    cluster.run()
    assert done.succeeded


def test_content_the_driver_does_not_put_ends_the_job() -> None:
    cluster = SimulatedCluster()
    cluster.puts_content_again = False
    cluster.add_executor("north")
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 2, program=large_content(5))))
    cluster.run()
    assert done.failed is not None
    assert "content" in done.failed.reason


def test_content_a_task_misses_is_asked_for_and_counts_against_nobody() -> None:
    cluster = SimulatedCluster()
    cluster.add_executor("north")
    app = cluster.open_application("app")
    content = large_content(5, HostToken("north"))
    cluster.fail(app, 0, 0, ContentMissing((content.id,)))
    done = cluster.submit(job(app, 0, result_stage(0, 2, program=content)))
    cluster.run()
    assert done.succeeded
    assert not any(event.counted for event in cluster.events if isinstance(event, TaskEnd))


# -- nobody there


def test_jobs_fail_with_reasons_when_no_executor_is_usable_for_long() -> None:
    cluster = SimulatedCluster(Config(validate=True, no_executor_timeout_s=30.0))
    executor = cluster.add_executor()
    app = cluster.open_application("app")
    cluster.advance(1.0)
    cluster.kill_executor(executor, reason="killed by SIGKILL")
    done = cluster.submit(job(app, 0, result_stage(0, 2)))
    cluster.advance(25.0)
    assert not done.ended
    cluster.advance(10.0)
    assert done.failed is not None
    assert done.failed.kind == "ExecutorsLost"
    assert "SIGKILL" in done.failed.reason


def test_jobs_fail_when_every_executor_stays_paused() -> None:
    cluster = SimulatedCluster(Config(validate=True, no_executor_timeout_s=30.0))
    executor = cluster.add_executor()
    app = cluster.open_application("app")
    cluster.tell(sti.ExecutorPaused(executor))
    done = cluster.submit(job(app, 0, result_stage(0, 2)))
    cluster.advance(40.0)
    assert done.failed is not None
    assert "paused" in done.failed.reason


def test_a_job_is_not_given_up_because_executors_are_busy() -> None:
    cluster = SimulatedCluster(Config(validate=True, no_executor_timeout_s=5.0), task_s=20.0)
    cluster.add_executor(slots=1)
    app = cluster.open_application("app")
    done = cluster.submit(job(app, 0, result_stage(0, 3)))
    cluster.run()
    assert done.succeeded


def test_an_executor_that_joins_in_mid_job_is_used() -> None:
    cluster = SimulatedCluster(task_s=1.0)
    cluster.add_executor(slots=1)
    app = cluster.open_application("app")
    cluster.submit(job(app, 0, result_stage(0, 10)))
    cluster.advance(1.5)
    late = cluster.add_executor(slots=1)
    cluster.run()
    assert sum(event.executor == late for event in starts(cluster)) >= 3


# -- the door


def test_what_nobody_knows_is_stale_and_changes_nothing() -> None:
    core = SchedulerCore(Config(validate=True), seed=1)
    nobody, nowhere = AppId("nobody"), ExecutorId("tcp://nowhere:1#1")
    report = TaskSucceeded(1, 0.0, 0.0, InlineResult(b""), TaskMetrics())  # type: ignore[arg-type]
    for stimulus in (
        sti.TasksReported(nowhere, (report,)),
        sti.Heartbeat(nowhere, ()),
        sti.ExecutorLost(nowhere, "?", task_caused=True),
        sti.ExecutorPaused(nowhere),
        sti.ResultsFetched(nobody, ()),
        sti.JobCancelRequested(nobody, JobId(1), "?"),
        sti.CommitRequested(nowhere, 1),  # type: ignore[arg-type]
    ):
        assert core.handle(stimulus, 1.0) == []
    assert core.statistics().stale_reports == 7


def test_a_job_of_an_application_that_is_over_is_told_so() -> None:
    core = SchedulerCore(Config(validate=True), seed=1)
    app = AppId("app")
    (told,) = core.handle(sti.JobSubmitted(job(app, 0, result_stage(0, 1))), 1.0)
    assert isinstance(told, act.ApplicationExpired)


def test_a_submission_that_comes_twice_is_one() -> None:
    cluster = SimulatedCluster()
    cluster.add_executor()
    app = cluster.open_application("app")
    spec = job(app, 0, result_stage(0, 2))
    cluster.submit(spec)
    cluster.run()
    cluster.submit(spec)
    cluster.advance(1.0)
    assert sum(isinstance(event, JobEnd) for event in cluster.events) == 1


def test_an_unknown_policy_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="fifo"):
        SchedulerCore(Config(scheduling_policy="lottery"), seed=1)


def test_the_same_stimuli_and_seed_lead_to_the_same_actions_and_state() -> None:
    def history(seed: int) -> SimulatedCluster:
        cluster = SimulatedCluster(seed=seed, task_s=0.05)
        cluster.keep_actions = True
        victims = [cluster.add_executor("north"), cluster.add_executor("south"), cluster.add_executor("south")]
        app = cluster.open_application("app")
        pairs = map_stage(0, 20)
        cluster.submit(job(app, 0, pairs, result_stage(1, 5, [pairs])))
        cluster.advance(0.2)
        cluster.kill_executor(victims[0])
        cluster.run()
        return cluster

    first, second, other = history(3), history(3), history(4)
    assert first.actions == second.actions
    assert first.core.snapshot() == second.core.snapshot()
    assert other.actions != first.actions


@pytest.mark.parametrize("asks", [0, 1, 3])
def test_asking_when_to_wake_the_core_changes_nothing(asks: int) -> None:
    config, app, executor = Config(), AppId("app"), ExecutorId("tcp://host:1#1")
    core, told = SchedulerCore(config, seed=1), []
    starved = 5.0 + config.no_executor_timeout_s
    for at, stimulus in (
        (0.0, sti.ApplicationOpened(app, "app", "0", 1_000.0)),
        (1.0, sti.ExecutorReady(executor, HostToken("host"), 1)),
        *((1.0 + config.executor_timeout_s * eighth / 8, sti.Tick()) for eighth in range(1, 11)),  # silent: expires
    ):
        told += core.handle(stimulus, at)
        assert len({core.next_wakeup() for _ in range(asks)}) <= 1
    assert [action.executor for action in told if isinstance(action, act.ExpireExecutor)] == [executor]
    core, told = SchedulerCore(config, seed=1), []
    for at, stimulus in (
        (0.0, sti.ApplicationOpened(app, "app", "0", 1_000.0)),
        (5.0, sti.JobSubmitted(job(app, 0, result_stage(0, 1)))),
        (starved - 0.1, sti.Tick()),
    ):
        told += core.handle(stimulus, at)
        assert len({core.next_wakeup() for _ in range(asks)}) <= 1
    assert not any(isinstance(action, act.JobFailed) for action in told)
    told = core.handle(sti.Tick(), starved)
    assert [action.kind for action in told if isinstance(action, act.JobFailed)] == ["ExecutorsLost"]


def test_what_is_kept_of_the_past_replays_to_the_same_state() -> None:
    cluster = SimulatedCluster(task_s=0.05)
    victim = cluster.add_executor("north")
    cluster.add_executor("south")
    app = cluster.open_application("app")
    pairs = map_stage(0, 10)
    cluster.submit(job(app, 0, pairs, result_stage(1, 5, [pairs])))
    cluster.advance(0.2)
    cluster.kill_executor(victim)
    cluster.advance(0.1)
    again = SchedulerCore(cluster.config, seed=cluster.seed)
    for at, batch in cluster.batches:
        again.handle_all(batch, at)
    assert again.snapshot() == cluster.core.snapshot()
    assert list(again.recent) == list(cluster.core.recent)
    assert "JobSubmitted" in again.story(1_000)


def test_a_stage_submitted_again_has_a_higher_attempt() -> None:
    cluster = SimulatedCluster(task_s=lambda launch: 2.0 if launch.stage == 1 else 0.01)
    cluster.add_executor()
    app = cluster.open_application("app")
    pairs = map_stage(0, 3)
    cluster.submit(job(app, 0, pairs, result_stage(1, 2, [pairs])))
    cluster.advance(1.0)
    cluster.delete_output(app, 0, 0)
    cluster.run()
    attempts = [event.stage_attempt for event in cluster.events if isinstance(event, StageSubmitted) and event.stage == 1]
    assert attempts == [0, 1]


def test_unpersisting_drops_blocks_everywhere() -> None:
    cluster = SimulatedCluster()
    cluster.add_executor("north")
    cluster.add_executor("south")
    app = cluster.open_application("app")
    cluster.submit(job(app, 0, result_stage(0, 4, cached=7)))
    cluster.run()
    assert sum(len(executor.cache) for executor in cluster.executors.values()) == 4
    cluster.driver_says(sti.RddUnpersistRequested(app, RddId(7)))
    cluster.advance(1.0)
    assert sum(len(executor.cache) for executor in cluster.executors.values()) == 0
    assert cluster.core.snapshot()["applications"][app]["cached"] == []
