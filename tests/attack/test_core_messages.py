"""What drivers and executors say to the scheduler, changed on its way: decoded as the scheduler decodes it, then given to the real core.

Oracles: the core contains no exception and keeps its invariants; a neighbour's jobs are right; every job ends; memory is bounded.
"""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from flowkit.cluster import wire
from flowkit.config import Config
from flowkit.model.storage_level import StorageLevel
from flowkit.model.task import BlockInfo
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti
from flowkit.scheduling.core import SchedulerCore
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import SimulatedProgram, expected, job, large_content, map_stage, result_stage
from tests.attack.mutations import retold

VALIDATING = Config(validate=True, max_task_failures=3, no_executor_timeout_s=30.0)


def some_job(rng: Random, app, number: int, *, first: int):
    """One of a few shapes; ``first``: the number of its first stage."""
    shape = rng.randrange(4)
    if shape == 0:
        return job(app, number, result_stage(first, rng.randrange(1, 6)))
    maps = map_stage(first, rng.randrange(1, 5), cached=first if shape == 2 else None, level=StorageLevel.MEMORY_ONLY_2)
    result = result_stage(first + 1, 4, [maps], stores_result=shape == 3)
    if rng.random() < 0.5:
        result = msgspec.structs.replace(result, coalescible=True, splits=maps.shuffle)
    return job(app, number, maps, result)


def of_driver(rng: Random, app, number: int):
    """Something that a driver may say."""
    return rng.choice(
        (
            sti.JobSubmitted(some_job(rng, app, number, first=number * 10)),
            sti.JobSubmitted(some_job(rng, app, number, first=number * 10)),
            sti.JobCancelRequested(app, rng.randrange(number + 1), "why"),
            sti.ResultsFetched(app, (1, 2)),
            sti.ResultLost(app, rng.randrange(number + 1), rng.randrange(1, 20)),
            sti.ContentPut(app, large_content(1).id, "north"),
            sti.RddUnpersistRequested(app, rng.randrange(30)),
            sti.ShuffleReleased(app, rng.randrange(30)),
            sti.ContentsReleased(app, (large_content(1).id,)),
            sti.ScalingOffered(app, 1),
            sti.LeaseRenewed(app),
        )
    )


def deaf_to(cluster: SimulatedCluster, app) -> None:
    """The simulated driver of an application is told of jobs that it did not submit so: it does not listen."""
    hears = cluster._driver_hears
    cluster._driver_hears = lambda action: None if action.app == app else hears(action)


def readable(spec) -> bool:
    """Whether simulated executors can read its programs, which the scheduler never does."""
    try:
        return all(msgspec.json.decode(stage.program.inline or b"", type=SimulatedProgram) for stage in spec.stages)
    except msgspec.DecodeError:
        return False


def test_a_drivers_changed_messages_hurt_nobody_else(attack):
    heard = dict.fromkeys(("refused", "taken"), 0)

    def one(rng: Random) -> None:
        cluster = SimulatedCluster(VALIDATING, seed=rng.randrange(100))
        for host in ("north", "south"):
            cluster.add_executor(host)
        good, bad = cluster.open_application("good"), cluster.open_application("bad")
        deaf_to(cluster, bad)
        mine = []
        for number in range(8):
            mine.append(cluster.submit(some_job(rng, good, number, first=number * 10)))
            message = of_driver(rng, bad, number)
            try:
                said = wire.decode_from_driver(retold(rng, message, rng.randrange(1, 4)))
            except msgspec.DecodeError:
                heard["refused"] += 1
                said = ()
            for each in said:
                app = each.spec.app if isinstance(each, sti.JobSubmitted) else each.app
                if isinstance(each, sti.JobSubmitted) and not readable(each.spec):
                    continue
                if app == bad:  # as the plugin has it: nobody speaks for others
                    heard["taken"] += 1
                    cluster.tell(each)
            cluster.advance(0.05)
        cluster.advance(40.0)
        for each in mine:
            assert each.succeeded and each.numbers == expected(each.spec), each.failed
        # What the changed jobs named is theirs; when their driver goes, nothing of them is left.
        cluster.close_application(bad)
        cluster.advance(40.0)
        cluster.core.check()

    attack(one)
    assert heard["refused"] and heard["taken"], heard


def test_jobs_that_do_not_fit_together_are_refused_and_leave_the_core_as_it_was(attack):
    outcomes = dict.fromkeys(("unreadable", "refused", "taken"), 0)

    def one(rng: Random) -> None:
        core = SchedulerCore(VALIDATING, seed=0)
        core.handle(sti.ApplicationOpened("app", "app", "1", 60.0), 0.0)
        core.handle(sti.ExecutorReady("tcp://h:1#1", "h", 2), 0.0)
        for number in range(100):
            submitted = sti.JobSubmitted(some_job(rng, "app", number, first=rng.choice((0, 10, number * 10))))
            try:
                (said,) = wire.decode_from_driver(retold(rng, submitted, rng.randrange(1, 3)))
            except (msgspec.DecodeError, ValueError):
                outcomes["unreadable"] += 1
                continue
            if not isinstance(said, sti.JobSubmitted) or said.spec.app != "app":
                continue
            core.handle(sti.Tick(), 1.0 + number)
            before = core.snapshot()
            actions = core.handle(said, 1.0 + number)  # it validates: a bug is raised
            assert not any(isinstance(each, act.FaultFound) for each in actions)
            if refusals := [
                each for each in actions if isinstance(each, act.JobFailed) and "does not fit together" in each.reason
            ]:
                outcomes["refused"] += 1
                assert [each.job for each in refusals] == [said.spec.job]
                assert core.snapshot() == before
            else:
                outcomes["taken"] += 1
        core.handle(sti.ApplicationClosed("app", "over"), 200.0)
        core.check()

    attack(one)
    assert all(outcomes.values()), outcomes


def of_executor(rng: Random, executor, app):
    """Something that an executor may say besides what it does."""
    rdd, partition, attempt = rng.randrange(60), rng.randrange(5), rng.randrange(1, 60)
    block = BlockInfo(rdd, partition, 100, rng.choice((0, 100)))
    return rng.choice(
        (
            sti.SlotsChanged(executor, rng.randrange(1, 5)),
            sti.BlocksEvicted(executor, app, ((rdd, partition),)),
            sti.BlocksMoved(executor, app, (block,)),
            sti.BlockCopied(executor, app, rdd, partition, rng.choice((None, block))),
            sti.OutputsCopied(executor, app, rdd, ((partition, attempt),), ((partition + 1, attempt),)),
            sti.ContentFetched(executor, app, large_content(1).id),
            sti.CommitRequested(executor, attempt),
            sti.TaskWouldNotStop(executor, attempt, "why", 1.0, "stack"),
            sti.BarrierReached(executor, attempt, 0, "barrier"),
            sti.ExecutorReady(executor, "north", 2),
        )
    )


def changing(cluster: SimulatedCluster, rng: Random, executor, likely: float, changed: list[str]):
    """Have what one executor says arrive changed, sometimes; one that cannot be read ends the executor, as with the real scheduler."""
    arrive = cluster._arrive

    def altered(stimulus) -> None:
        if getattr(stimulus, "executor", None) != executor or isinstance(stimulus, sti.ExecutorLost) or rng.random() > likely:
            arrive(stimulus)
            return
        changed.append(type(stimulus).__name__)
        try:
            said = wire.decode_from_executor(retold(rng, stimulus, rng.randrange(1, 4)))
        except msgspec.DecodeError as error:
            arrive(stimulus)  # what else came with it; then it is lost
            if not isinstance(stimulus, sti.Heartbeat) and executor in cluster.executors:
                cluster.kill_executor(executor, task_caused=True, reason=f"what it said cannot be read: {error}")
            return
        for each in said:
            if each.executor == executor and isinstance(each, sti.Stimulus):
                arrive(each)

    cluster._arrive = altered


def test_an_executors_changed_messages_do_not_reach_the_core(attack):
    changed: list[str] = []

    def one(rng: Random) -> None:
        cluster = SimulatedCluster(VALIDATING, seed=rng.randrange(100))
        cluster.add_executor("north")
        liar = cluster.add_executor("south")
        app = cluster.open_application("app")
        changing(cluster, rng, liar, rng.choice((0.05, 0.3)), changed)
        jobs = []
        for number in range(6):
            jobs.append(cluster.submit(some_job(rng, app, number, first=number * 10)))
            cluster.tell(of_executor(rng, liar, app))
            cluster.advance(rng.choice((0.0, 0.02, 0.3)))
        # It may say that it runs what it does not: an executor is trusted in that. With its end every job ends.
        cluster.advance(60.0)
        if liar in cluster.executors:
            cluster.kill_executor(liar)
        cluster.run(600.0)
        after = cluster.submit(some_job(rng, app, 99, first=990))
        cluster.run(600.0)
        assert after.succeeded and after.numbers == expected(after.spec), after.failed
        assert not cluster.faults

    attack(one)
    assert {"TasksReported", "Heartbeat"} <= set(changed), changed


@pytest.mark.parametrize(
    "decode", [wire.decode_from_driver, wire.decode_from_executor, wire.decode_to_driver, wire.decode_to_executor]
)
def test_whatever_bytes_come_decoding_says_so_and_nothing_else(decode, attack):
    def one(rng: Random) -> None:
        for _ in range(300):
            if rng.random() < 0.5:
                body = rng.randbytes(rng.randrange(200))
            else:
                body = retold(rng, of_driver(rng, "app", 3), rng.randrange(1, 6))
            try:
                decode(body)
            except msgspec.DecodeError:
                pass

    attack(one)
