"""A map stage that a later job describes otherwise, since its lineage was checkpointed: while it runs, and after."""

from __future__ import annotations

import msgspec
import pytest

from flowkit.config import Config
from flowkit.model import events as ev
from flowkit.model.ids import AppId, ShuffleId
from flowkit.model.job_spec import Determinism, JobSpec, StageSpec
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti
from flowkit.simulation.cluster import SimulatedCluster, SimulatedJob
from flowkit.simulation.jobs import checkpointed, expected, job, map_stage, result_stage

MAPS = 8
#: the stage that reads them, and that is checkpointed meanwhile
MIDDLE = 1


class Driver:
    """A cluster of one slot, an application, and the lineage ``pairs -> middle -> result``."""

    def __init__(self, *, splits: bool = False) -> None:
        config = Config(validate=True, max_launch_depth=1)
        self.cluster = SimulatedCluster(config, task_s=lambda launch: 1.0 if launch.stage == MIDDLE else 0.01)
        self.cluster.first_bytes = 10 << 20
        self.cluster.keep_actions = True
        for host in ("north", "south") if splits else ("north",):
            self.cluster.add_executor(host, slots=1)
        self.app: AppId = self.cluster.open_application("app")
        self.pairs = map_stage(0, MAPS)
        middle = map_stage(MIDDLE, 4, [self.pairs])
        self.before = msgspec.structs.replace(middle, splits=self.pairs.shuffle, coalescible=True) if splits else middle
        self.after = checkpointed(self.before, [self.pairs, self.before])

    def spec(self, number: int, middle: StageSpec) -> JobSpec:
        stages = [self.pairs, middle] if middle.parents else [middle]
        return job(self.app, number, *stages, result_stage(10 + number, 3, [middle]))

    def submit(self, number: int, middle: StageSpec) -> SimulatedJob:
        return self.cluster.submit(self.spec(number, middle))

    def run_until_middle(self, kind: type[ev.TaskStart | ev.TaskEnd] = ev.TaskEnd) -> None:
        while not any(isinstance(each, kind) and each.stage == MIDDLE for each in self.cluster.events):
            self.cluster.advance(0.1)

    def lose_pairs(self) -> None:
        for partition in range(MAPS):
            self.cluster.delete_output(self.app, 0, partition)

    def end(self, *jobs: SimulatedJob) -> None:
        self.cluster.run(limit_s=600)
        for each in jobs:
            assert each.failed is None, each.failed
            assert each.numbers == expected(each.spec)
        self.cluster.core.assert_empty()

    def pieces_launched(self, stage: int, since: int = 0) -> int:
        """How many tasks of a stage computed a piece of a partition, of those that were launched after so many actions."""
        launches = [each for each in self.cluster.actions[since:] if isinstance(each, act.Launch)]
        return sum(task.stage == stage and task.piece is not None for each in launches for task in each.tasks)

    def computed(self, stage: int) -> int:
        ends = [each for each in self.cluster.events if isinstance(each, ev.TaskEnd) and each.stage == stage]
        return sum(each.failure is None for each in ends)


def test_a_stage_that_runs_goes_on_with_the_program_of_a_newer_job_and_without_the_parents_that_it_does_not_read():
    driver = Driver()
    first = driver.submit(0, driver.before)
    driver.run_until_middle()
    second = driver.submit(1, driver.after)
    driver.lose_pairs()
    driver.end(first, second)
    assert driver.computed(0) == MAPS, "nobody reads them any more"
    assert driver.computed(MIDDLE) == 4


def test_a_parent_may_be_released_while_tasks_that_read_it_still_run():
    driver = Driver()
    first = driver.submit(0, driver.before)
    driver.run_until_middle()
    second = driver.submit(1, driver.after)
    driver.cluster.cancel(first)
    driver.cluster.driver_says(sti.ShuffleReleased(driver.app, ShuffleId(0)))
    driver.end(second)


def test_a_job_that_was_planned_before_and_arrives_later_takes_nothing_back():
    driver = Driver()
    second = driver.submit(1, driver.after)
    driver.run_until_middle()
    first = driver.submit(0, driver.before)
    driver.cluster.advance(0.1)
    driver.cluster.cancel(first)
    driver.cluster.driver_says(sti.ShuffleReleased(driver.app, ShuffleId(0)))
    driver.end(second)
    assert driver.computed(0) == 0


def test_what_only_a_job_that_is_over_described_counts_no_more():
    driver = Driver()
    first = driver.submit(0, driver.before)
    driver.run_until_middle()
    second = driver.submit(1, driver.after)
    driver.cluster.advance(0.1)
    driver.cluster.cancel(second)
    driver.lose_pairs()
    driver.end(first)
    assert driver.computed(0) > MAPS, "its own program reads them"


@pytest.mark.parametrize("again", ["before", "after"])
def test_output_that_is_lost_is_made_again_by_the_program_of_the_job_that_needs_it(again):
    driver = Driver()
    first = driver.submit(0, driver.before)
    driver.end(first)
    driver.lose_pairs()
    driver.cluster.delete_output(driver.app, MIDDLE, 2)
    if again == "after":
        driver.cluster.driver_says(sti.ShuffleReleased(driver.app, ShuffleId(0)))
    second = driver.submit(1, getattr(driver, again))
    driver.end(first, second)
    assert driver.computed(MIDDLE) == 5
    assert driver.computed(0) == (MAPS if again == "after" else 2 * MAPS)


def test_a_stage_that_was_split_by_what_it_does_not_read_any_more_is_made_again_undivided():
    driver = Driver(splits=True)
    first = driver.submit(0, driver.before)
    driver.end(first)
    assert driver.computed(MIDDLE) > 4, "one of its partitions was split"
    assert driver.cluster.delete_output(driver.app, MIDDLE, 1), "the second piece of the first partition"
    driver.cluster.driver_says(sti.ShuffleReleased(driver.app, ShuffleId(0)))
    second = driver.submit(1, driver.after)
    driver.end(first, second)


def test_a_stage_is_made_undivided_also_while_it_runs_in_pieces():
    driver = Driver(splits=True)
    first = driver.submit(0, driver.before)
    driver.run_until_middle(ev.TaskStart)
    assert driver.pieces_launched(MIDDLE) < 6, "some are to come"
    so_far = len(driver.cluster.actions)
    second = driver.submit(1, driver.after)
    driver.end(first, second)
    assert driver.computed(0) == MAPS
    assert driver.pieces_launched(MIDDLE, so_far) == 0


def test_a_stage_that_reads_pieces_which_are_made_anew_is_split_by_them_no_more():
    driver = Driver(splits=True)
    split = lambda stage, by: msgspec.structs.replace(stage, splits=by.shuffle, coalescible=True)
    last = split(map_stage(2, 4, [driver.before]), driver.before)
    first = driver.cluster.submit(job(driver.app, 0, driver.pairs, driver.before, last, result_stage(10, 3, [last])))
    driver.end(first)
    for stage in (MIDDLE, 2):
        assert driver.cluster.delete_output(driver.app, stage, 1)
    assert driver.pieces_launched(2)
    so_far = len(driver.cluster.actions)
    second = driver.cluster.submit(job(driver.app, 1, driver.after, last, result_stage(11, 3, [last])))
    driver.end(first, second)
    made_anew = next(
        place
        for place, each in enumerate(driver.cluster.actions)
        if place >= so_far and isinstance(each, act.DefineStage) and each.definition.stage == MIDDLE
    )
    assert driver.pieces_launched(2, made_anew) == 0


@pytest.mark.parametrize("checkpointed_locally", [True, False])
def test_what_is_kept_of_a_local_checkpoint_outlives_the_rows_it_was_made_of(checkpointed_locally):
    cluster = SimulatedCluster(Config(validate=True))
    for host in ("north", "south"):
        cluster.add_executor(host)
    app = cluster.open_application("app")
    drawn = map_stage(0, 4, determinism=Determinism.INDETERMINATE)
    kept = msgspec.structs.replace(result_stage(1, 3, [drawn], cached=100), determinism=Determinism.INDETERMINATE)
    cluster.submit(job(app, 0, drawn, kept))
    cluster.run()
    if checkpointed_locally:
        cluster.submit(job(app, 1, result_stage(2, 3, cached=100)))
        cluster.run()
    cluster.delete_output(app, 0, 1)
    again = cluster.submit(job(app, 2, drawn, result_stage(3, 3, [drawn])))
    cluster.run()
    assert again.failed is None
    lost = [block for each in cluster.events if isinstance(each, ev.BlocksLost) for block in each.blocks]
    assert bool(lost) != checkpointed_locally
