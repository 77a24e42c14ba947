"""What each policy does, where it helps and where it does not: the real scheduler core on simulated clusters, in seconds.

python benchmarks/policies.py [order speculation health placement elasticity] [--write]
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable
from pathlib import Path

import msgspec

from flowkit.config import Config
from flowkit.model.events import ExecutorAdded, ExecutorRemoved, JobEnd, TaskEnd, TaskStart
from flowkit.model.task import ExceptionFailure, Locality, TaskLaunch
from flowkit.scheduling.policies.backlog import Backlog
from flowkit.scheduling.policies.capacity import Capacity
from flowkit.scheduling.policies.delay import DelayScheduling
from flowkit.scheduling.policies.fair import Fair
from flowkit.scheduling.policies.fifo import Fifo
from flowkit.scheduling.policies.pools import POOL, PRIORITY
from flowkit.scheduling.policies.priority import Priority
from flowkit.scheduling.policies.stable import Stable
from flowkit.scheduling.policies.stragglers import SlowerThanMedian
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.executor import SimulatedExecutor
from flowkit.simulation.jobs import job, result_stage

TABLES = Path(__file__).with_name("POLICIES.md")
Row = tuple[str, ...]


class Cluster(SimulatedCluster):
    """Whose tasks may know on which executor they run."""

    def whose(self, launch: TaskLaunch) -> SimulatedExecutor | None:
        return next((each for each in self.executors.values() if launch.attempt in each.running), None)

    def finish(self) -> float:
        """Go on to the end of all jobs; when that was."""
        self.run(limit_s=100_000.0)
        return max(event.time for event in self.events if isinstance(event, JobEnd))

    def attempts(self) -> list[TaskEnd]:
        return [event for event in self.events if isinstance(event, TaskEnd)]


# -- order -----------------------------------------------------------------------------------------------------------


def order() -> tuple[Row, list[Row]]:
    """Eight slots. A batch of 2,000 tasks of a second each; every 20 seconds a small job of 8 tasks, and every 50 one of 40."""
    policies = {
        "`fifo`": Fifo(),
        "`fair`": Fair({"adhoc": 1, "batch": 1}),
        "`fair`, adhoc 3 : batch 1": Fair({"adhoc": 3, "batch": 1}),
        "`capacity`, adhoc 25 %": Capacity({"adhoc": 0.25, "batch": 0.75}),
        "`priority`, adhoc first": Priority(),
    }
    rows = [(name, *(f"{each:.1f}" for each in _beside_a_batch(policy))) for name, policy in policies.items()]
    return ("policy", "a small job waits", "and takes", "one of 40 takes", "the batch takes"), rows


def _beside_a_batch(policy) -> tuple[float, float, float, float]:
    cluster = Cluster(Config(), policy=policy, task_s=1.0)
    for _ in range(4):
        cluster.add_executor(slots=2)
    app = cluster.open_application("app")
    asked: dict[int, tuple[float, int]] = {}

    def submit(number: int, tasks: int, pool: str, priority: str) -> None:
        spec = job(app, number, result_stage(number, tasks))
        cluster.submit(msgspec.structs.replace(spec, properties={POOL: pool, PRIORITY: priority}))
        asked[number] = cluster.now, tasks

    submit(0, 2_000, "batch", "0")
    for number in range(1, 11):
        cluster.later(20.0 * number, lambda number=number: submit(number, 8, "adhoc", "1"))
    for number in range(11, 14):
        cluster.later(50.0 * (number - 10), lambda number=number: submit(number, 40, "adhoc", "1"))
    cluster.advance(210.0)
    cluster.run()
    starts: dict[int, float] = {}
    ends: dict[int, float] = {}
    for event in cluster.events:
        if isinstance(event, TaskStart):
            starts.setdefault(event.stage, event.time)
        elif isinstance(event, JobEnd):
            ends[event.job] = event.time
    small = [number for number, (_, tasks) in asked.items() if tasks == 8]
    large = [number for number, (_, tasks) in asked.items() if tasks == 40]
    wait = statistics.mean(starts[number] - asked[number][0] for number in small)
    took = [statistics.mean(ends[number] - asked[number][0] for number in some) for some in (small, large)]
    return wait, took[0], took[1], ends[0]


# -- speculation -----------------------------------------------------------------------------------------------------


def speculation() -> tuple[Row, list[Row]]:
    """Twenty executors of two slots, 400 tasks of about a second. *One sick host* takes ten times as long for everything; *one large
    task* takes ten times as long wherever it runs."""
    rules: dict[str, object] = {
        "`off`": "off",
        "`median`": "median",
        "`SlowerThanMedian(quantile=0.75, multiplier=1.5)`": SlowerThanMedian(quantile=0.75, multiplier=1.5),
    }
    rows = []
    for name, rule in rules.items():
        sick, large = _with_stragglers(rule, sick=True), _with_stragglers(rule, sick=False)
        rows.append((name, f"{sick[0]:.1f}", str(sick[1]), f"{large[0]:.1f}", str(large[1])))
    return ("speculation", "one sick host", "second attempts", "one large task", "second attempts"), rows


def _with_stragglers(rule: object, *, sick: bool) -> tuple[float, int]:
    cluster = Cluster(Config(speculation=rule), seed=1)

    def task_s(launch: TaskLaunch) -> float:
        usual = random.Random(launch.partition).lognormvariate(0.0, 0.3)
        where = cluster.whose(launch)
        slow = where is not None and where.host.token == "host-0" if sick else launch.partition == 390
        return usual * (10 if slow else 1)

    cluster._task_s = task_s
    for number in range(20):
        cluster.add_executor(f"host-{number}", slots=2)
    app = cluster.open_application("app")
    cluster.advance(1.0)
    begun = cluster.now
    cluster.submit(job(app, 0, result_stage(0, 400)))
    ended = cluster.finish()
    return ended - begun, sum(isinstance(event, TaskStart) for event in cluster.events) - 400


# -- health ----------------------------------------------------------------------------------------------------------


def health() -> tuple[Row, list[Row]]:
    """Ten executors of two slots, 1,000 tasks of a second. On one executor every task fails at once, as with a full disk: it is always
    free, so it gets more than any other."""
    rows = []
    for name, rule in {"`off`": "off", "`counts`": "counts"}.items():
        cluster = _Ward(Config(exclude_failing=rule, max_task_failures=4), task_s=1.0)
        sick, *_ = (cluster.add_executor(f"host-{number}", slots=2) for number in range(10))
        cluster.sick = sick
        app = cluster.open_application("app")
        cluster.advance(1.0)
        begun = cluster.now
        submitted = cluster.submit(job(app, 0, result_stage(0, 1_000)))
        ended = cluster.finish()
        failed = sum(each.failure is not None for each in cluster.attempts())
        outcome = f"{ended - begun:.1f}" if submitted.succeeded else f"fails after {ended - begun:.1f}"
        rows.append((name, str(failed), outcome))
    return ("exclude_failing", "failed attempts", "the job takes"), rows


class _Ward(Cluster):
    sick = ""

    def planned_failure(self, launch):
        where = self.whose(launch)
        full = where is not None and where.id == self.sick
        return ExceptionFailure("OSError", "no space left on device", "", None) if full else None

    def task_s(self, launch):
        where = self.whose(launch)
        return 0.01 if where is not None and where.id == self.sick else 1.0


# -- placement -------------------------------------------------------------------------------------------------------


def placement() -> tuple[Row, list[Row]]:
    """Ten hosts of four slots; a task takes half a second on the two hosts that have its file, a second and a half elsewhere. *Small jobs*
    of ten tasks, one a second, in a fair pool beside a batch. *One job* of 800 tasks, half of whose files lie on the same two hosts."""
    rows = []
    for wait_s in (0.0, 0.1, 0.5, 3.0, 30.0):
        small, hot = _small_jobs(wait_s), _hot_files(wait_s)
        rows.append((f"`locality_wait_s={wait_s:g}`", f"{small[0]:.2f}", f"{small[1]:.0%}", f"{hot[0]:.1f}", f"{hot[1]:.0%}"))
    return ("placement", "a small job takes", "near its files", "one job takes", "near its files"), rows


def _on_hosts(wait_s: float, policy) -> tuple[Cluster, list[str]]:
    cluster = Cluster(
        Config(placement=DelayScheduling(wait_s)),
        seed=1,
        policy=policy,
        task_s=lambda launch: 0.5 if launch.locality <= Locality.NODE else 1.5 if launch.locality == Locality.ANY else 1.0,
    )
    hosts = [f"host-{number}" for number in range(10)]
    for host in hosts:
        for _ in range(2):
            cluster.add_executor(host, slots=2, names=(host,))
    cluster.advance(1.0)
    return cluster, hosts


def _near(cluster: Cluster, stages: set[int]) -> float:
    starts = [event for event in cluster.events if isinstance(event, TaskStart) and event.stage in stages]
    return sum(each.locality <= Locality.NODE for each in starts) / len(starts)


def _small_jobs(wait_s: float) -> tuple[float, float]:
    cluster, hosts = _on_hosts(wait_s, Fair())
    chance = random.Random(1)
    app = cluster.open_application("app")
    asked: dict[int, float] = {}

    def submit(number: int) -> None:
        asked[number] = cluster.now
        files = {partition: tuple(chance.sample(hosts, 2)) for partition in range(10)}
        spec = job(app, number, result_stage(number, 10, preferred_hosts=files))
        cluster.submit(msgspec.structs.replace(spec, properties={POOL: "small"}))

    cluster.submit(msgspec.structs.replace(job(app, 0, result_stage(0, 2_000)), properties={POOL: "batch"}))
    for number in range(1, 41):
        cluster.later(number * 1.0, lambda number=number: submit(number))
    cluster.advance(45.0)
    cluster.finish()
    ends = {event.job: event.time for event in cluster.events if isinstance(event, JobEnd)}
    return statistics.mean(ends[number] - at for number, at in asked.items()), _near(cluster, set(asked))


def _hot_files(wait_s: float) -> tuple[float, float]:
    cluster, hosts = _on_hosts(wait_s, Fifo())
    chance = random.Random(1)
    app = cluster.open_application("app")
    files = {partition: tuple(hosts[:2]) if chance.random() < 0.5 else tuple(chance.sample(hosts, 2)) for partition in range(800)}
    begun = cluster.now
    cluster.submit(job(app, 0, result_stage(0, 800, preferred_hosts=files)))
    ended = cluster.finish()
    return ended - begun, _near(cluster, {0})


# -- elasticity ------------------------------------------------------------------------------------------------------


def elasticity() -> tuple[Row, list[Row]]:
    """An hour. *Bursts*: a job of 200 tasks of 2 s, every ten minutes. *Stream*: one of 20 tasks of a second, every ten seconds. Executors
    of two slots, 20 at most; a new one comes after 10 s."""
    policies: dict[str, Callable[[], object]] = {
        "`off`, 20 executors": lambda: "off",
        "`backlog`": Backlog,
        "`Backlog(idle_s=300)`": lambda: Backlog(idle_s=300.0),
        "`stable`": Stable,
    }
    rows = []
    for name, make in policies.items():
        told = [name]
        for tasks, task_s, every_s in ((200, 2.0, 600.0), (20, 1.0, 10.0)):
            took, there, changes = _an_hour(make(), tasks, task_s, every_s)
            told += [f"{took:.1f}", f"{there:.1f}", str(changes)]
        rows.append(tuple(told))
    return ("allocation", "a burst takes", "executors", "changes", "a batch of the stream takes", "executors", "changes"), rows


def _an_hour(policy: object, tasks: int, task_s: float, every_s: float) -> tuple[float, float, int]:
    cluster = Cluster(Config(allocation=policy, max_executors=20), task_s=task_s)
    cluster.start_s = 10.0
    for number in range(20 if policy == "off" else 1):
        cluster.add_executor(f"host-{number}", slots=2)
    app = cluster.open_application("app")
    cluster.offer_scaling(app, 1)
    cluster.advance(5.0)
    begun = cluster.now
    asked: dict[int, float] = {}

    def submit(number: int) -> None:
        asked[number] = cluster.now
        cluster.submit(job(app, number, result_stage(number, tasks)))

    for number in range(int(3600 / every_s)):
        cluster.later(every_s * number, lambda number=number: submit(number))
    cluster.advance(3600.0)
    over = cluster.now
    cluster.run()
    ends = {event.job: event.time for event in cluster.events if isinstance(event, JobEnd)}
    there, changes, since, area = 0, 0, begun, 0.0
    for event in cluster.events:
        if isinstance(event, ExecutorAdded | ExecutorRemoved) and event.time < over:
            area += there * (max(event.time, begun) - since)
            since = max(event.time, begun)
            there += 1 if isinstance(event, ExecutorAdded) else -1
            changes += event.time > begun
    area += there * (over - since)
    return statistics.mean(ends[number] - at for number, at in asked.items()), area / (over - begun), changes


# -- all -------------------------------------------------------------------------------------------------------------

EXPERIMENTS = {each.__name__: each for each in (order, speculation, health, placement, elasticity)}


def main() -> None:
    parser = argparse.ArgumentParser(description="What each policy does, simulated.")
    parser.add_argument("experiments", nargs="*", choices=[[], *EXPERIMENTS], help="which; all of them by default")
    parser.add_argument("--write", action="store_true", help=f"into {TABLES.name}")
    chosen = parser.parse_args()
    parts = []
    for name in chosen.experiments or EXPERIMENTS:
        head, rows = EXPERIMENTS[name]()
        lines = [f"| {' | '.join(each)} |" for each in (head, ("---",) * len(head), *rows)]
        parts.append("\n".join([f"## {name.capitalize()}\n", " ".join((EXPERIMENTS[name].__doc__ or "").split()) + "\n", *lines]))
        print(parts[-1], "\n", flush=True)
    if chosen.write:
        heading = "# What policies do\n\nWritten by `python benchmarks/policies.py --write`: the real scheduler core, simulated clusters; seconds.\n\n"
        TABLES.write_text(heading + "\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
