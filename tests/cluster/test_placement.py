"""Policies of one's own on a real cluster: where tasks run, which are tried twice, who is left alone, and how many have room."""

from __future__ import annotations

import os
import re
import threading
import time

import pytest

import flowkit as fk
from flowkit.abc import Exclusion, Preferred, Waits
from flowkit.errors import JobFailed
from flowkit.model import events as ev
from tests.chaos.conftest import Story

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


class FirstPort:
    """One of two executors: the one with the lower port."""

    ports: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return "FirstPort()"

    def waits(self, stage):
        return Waits(0.1, 0.1, 0.1)

    def prefer(self, stage, partition, near):
        return Preferred(near.caching)

    def allows(self, stage, executor):
        return "pinned" not in stage.properties or executor.id.rpartition("#")[0].endswith(stage.properties["pinned"])


def where(rows):
    return [os.getpid() for _ in rows]


def both_are_there(story: Story) -> None:
    story.wait_for(lambda story: len(story.of(ev.ExecutorAdded)) >= 2, "both executors are there")


def test_a_stage_runs_only_where_its_policy_allows_it():
    story = Story()
    with fk.Context(workers=2, progress="off", placement=FirstPort()) as fc:
        fc.add_listener(story)
        both_are_there(story)
        rows = fc.range(40, num_partitions=40).map_partitions(where)
        assert len(set(rows.collect())) == 2
        port = story.of(ev.ExecutorAdded)[0].executor.rpartition("#")[0].rpartition(":")[2]
        with fc.job(properties={"pinned": port}):
            assert len(set(rows.collect())) == 1


def test_one_that_may_run_nowhere_fails_with_the_policys_name():
    with fk.Context(workers=1, progress="off", placement=FirstPort(), no_executor_timeout_s=1.0) as fc:
        with fc.job(properties={"pinned": "no port"}), pytest.raises(JobFailed, match=r"placement policy FirstPort\(\)"):
            fc.range(4).count()
        assert fc.range(4).count() == 4


class Broken(FirstPort):
    def prefer(self, stage, partition, near):
        raise ValueError("no idea")


def test_one_that_raises_costs_its_job_and_the_scheduler_goes_on():
    with fk.Context(workers=1, progress="off", placement=Broken()) as fc:
        kept = fc.range(8, num_partitions=4).persist()
        assert kept.count() == 8
        with pytest.raises(Exception, match=r"FirstPort\(\): prefer raised ValueError: no idea"):
            kept.count()
        assert fc.range(4).count() == 4


def unpickled(file):
    with open(file, "a") as noted:
        noted.write(f"{os.getpid()}\n")
    return Noted(file)


class Noted(FirstPort):
    """Notes who unpickles it."""

    def __init__(self, file: str) -> None:
        self._file = file

    def __reduce__(self):
        return unpickled, (self._file,)

    def slow_after(self, progress):
        return None

    def judge(self, failures):
        return None


@pytest.mark.parametrize("setting", ["placement", "speculation", "exclude_failing"])
def test_workers_need_not_have_what_a_policy_is_made_of(setting, tmp_path):
    file = tmp_path / "unpickled"
    story = Story()
    with fk.Context(workers=2, progress="off", **{setting: Noted(str(file))}) as fc:
        fc.add_listener(story)
        both_are_there(story)
        assert fc.range(4).count() == 4
    assert set(file.read_text().split()) == {str(os.getpid())}


class Impatient:
    def slow_after(self, progress):
        return 0.3 if progress.done else None


def slow_at_first(index, rows):
    if index == 5 and fk.TaskContext.get().attempt_number == 0:
        threading.Event().wait(20)
    return [index]


def test_a_rule_of_ones_own_says_which_tasks_are_slow():
    story = Story()
    with fk.Context(workers=2, progress="off", speculation=Impatient()) as fc:
        fc.add_listener(story)
        both_are_there(story)
        began = time.monotonic()
        assert fc.range(6, num_partitions=6).map_partitions_with_index(slow_at_first).collect() == list(range(6))
        assert time.monotonic() - began < 10


class Once:
    def judge(self, failures):
        return Exclusion(from_application_s=60.0)


def test_a_rule_of_ones_own_says_who_is_sick():
    story = Story()
    with fk.Context(workers=2, progress="off", exclude_failing=Once()) as fc:
        fc.add_listener(story)
        both_are_there(story)
        sick = sorted(set(fc.range(40, num_partitions=40).map_partitions(where).collect()))[:1]

        def fails_there(rows):
            if os.getpid() in sick:
                raise OSError("the disk is full")
            return [1]

        assert fc.range(40, num_partitions=40).map_partitions(fails_there).sum() == 40
        story.wait_for(lambda story: story.of(ev.ExecutorExcluded), "it is excluded")


def test_no_more_run_at_once_than_there_is_memory_for(tmp_path):
    def crowd(rows):
        mark = tmp_path / str(fk.TaskContext.get().task_attempt_id)
        mark.touch()
        threading.Event().wait(0.1)
        found = len(list(tmp_path.iterdir()))
        mark.unlink()
        return [found]

    with fk.Context(processes=False, workers=1, threads_per_worker=4, progress="off", no_executor_timeout_s=1.0) as fc:
        with pytest.raises(JobFailed, match=r"there are 1 with cpus=4, memory_bytes=[\d,]+ at most") as caught:
            fc.range(4, num_partitions=4).with_resources(memory_bytes=1 << 60).count()
        there = int(re.search(r"memory_bytes=([\d,]+) at most", str(caught.value))[1].replace(",", ""))
        for part in (1, 2, 4):
            rows = fc.range(12, num_partitions=12).map_partitions(crowd).with_resources(memory_bytes=there // part)
            assert rows.max() == part
