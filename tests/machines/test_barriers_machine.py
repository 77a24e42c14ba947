"""Barrier stages against a naive model, while executors and files go away: all tasks of one try count, or none, whatever happens when."""

from __future__ import annotations

from collections import defaultdict

import hypothesis.strategies as st
import msgspec
from hypothesis import given, note

from flowkit.config import Config
from flowkit.model.task import ExceptionFailure
from flowkit.scheduling import actions as act
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, map_stage, result_stage

OOPS = ExceptionFailure("ValueError", "no", "", None)

#: what happens, after how long, and to which
faults = st.lists(
    st.tuples(st.sampled_from(["kill", "lose host", "lose file", "join"]), st.floats(0.0, 1.5), st.integers(0, 9)), max_size=6
)


class Barriers(SimulatedCluster):
    """Two barrier stages in a row; how many of their tasks run at once is watched."""

    def __init__(self, seed: int, slow: int) -> None:
        config = Config(validate=True, max_task_failures=1_000, max_stage_attempts=1_000, no_executor_timeout_s=1_000.0)
        super().__init__(config, seed=seed, task_s=lambda launch: 1.0 if launch.partition == slow else 0.1)
        self.keep_actions = True
        for number in range(4):
            self.add_executor(f"host-{number % 3}", slots=2)

    def happen(self, kind: str, which: int, app: str) -> None:
        hosts = sorted({each.host.token for each in self.executors.values()})
        if kind == "kill" and len(self.executors) > 2:
            self.kill_executor(sorted(self.executors)[which % len(self.executors)])
        elif kind == "lose host" and len(hosts) > 2:
            self.delete_host(hosts[which % len(hosts)])
        elif kind == "lose file":
            self.delete_output(app, which % 2, which % 4)
        else:
            self.add_executor(f"host-{which % 3}", slots=2)


@given(seed=st.integers(0, 1_000), slow=st.integers(0, 3), happening=faults, failing=st.sets(st.integers(0, 2), max_size=1))
def test_all_tasks_of_one_try_count_or_none(seed, slow, happening, failing):
    cluster = Barriers(seed, slow)
    app = cluster.open_application("app")
    source = map_stage(0, 4)
    middle = msgspec.structs.replace(map_stage(1, 3, [source]), barrier=True)
    last = msgspec.structs.replace(result_stage(2, 3, [middle]), barrier=True)
    for partition in failing:
        cluster.fail(app, 2, partition, OOPS)
    done = cluster.submit(job(app, 0, source, middle, last))
    for kind, after_s, which in happening:
        cluster.advance(after_s)
        note(f"{cluster.now:.3f}: {kind} {which}")
        cluster.happen(kind, which, app)
    for _ in range(6):  # whoever is left has room for all
        cluster.add_executor("host-0", slots=2)
    cluster.run()
    assert done.numbers == expected(done.spec)
    launched = {
        task.attempt: (task.stage, task.partition, task.attempt_number)
        for each in cluster.actions
        if isinstance(each, act.Launch)
        for task in each.tasks
    }
    delivered = [launched[each.attempt] for each in cluster.actions if isinstance(each, act.DeliverResult)]
    tries = defaultdict(set)
    for _stage, partition, number in delivered:
        tries[number].add(partition)
    assert tries[max(tries)] == {0, 1, 2}, f"results of several tries: {delivered}"
    cluster.core.assert_empty()
