"""The scheduler core against a naive model: random jobs, losses and messages that are late, doubled, dropped or overtaken.

Real core, simulated executors. After each step the core checks its own invariants (``validate``); at the end everything is
delivered, and then every job is over with the value a naive evaluation has, no more was computed again than was lost, and
nothing is left. A failing example prints as a plain list of calls.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import note
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flowkit.abc import AllocationPolicy, ExecutorView, PlacementPolicy, SchedulingPolicy, TaskSetView
from flowkit.config import Config
from flowkit.model import events as ev
from flowkit.model.ids import AppId, RddId, ShuffleId, rdd_of
from flowkit.model.job_spec import Determinism, JobSpec, StageSpec
from flowkit.model.resources import ResourceProfile
from flowkit.model.storage_level import StorageLevel
from flowkit.model.task import ExceptionFailure, FetchFailure, HostToken, MemoryFailure
from flowkit.scheduling import coalescing
from flowkit.scheduling import stimuli as sti
from flowkit.scheduling.core import SchedulerCore
from flowkit.scheduling.policies.backlog import Backlog
from flowkit.scheduling.policies.capacity import Capacity
from flowkit.scheduling.policies.delay import DelayScheduling
from flowkit.scheduling.policies.fair import Fair
from flowkit.scheduling.policies.fifo import Fifo
from flowkit.scheduling.policies.pools import POOL, PRIORITY
from flowkit.scheduling.policies.priority import Priority
from flowkit.simulation.cluster import Network, SimulatedCluster, SimulatedJob
from flowkit.simulation.jobs import checkpointed, expected, job, map_stage, result_stage
from flowkit.testing.event_order import check_event_order

HOSTS = ("north", "south", "west")
APPS = ("red", "blue")
NETWORKS = (
    Network(),
    Network(delay_s=(0.0, 0.5)),
    Network(delay_s=(0.0, 0.5), reorder=True, duplicate=0.3),
    Network(delay_s=(0.0, 2.0), reorder=True, duplicate=0.2, drop=0.1),
)
#: Few enough steps make this many failures of one task; more would end jobs that are to succeed.
FORGIVING = Config(validate=True, max_task_failures=1_000, max_stage_attempts=1_000, no_executor_timeout_s=600.0)
OOPS = ExceptionFailure("ValueError", "no", "", None)

#: executors on which two tasks of a stage failed are kept from it, for a while
EXCLUDING = {"exclude_failing": True, "exclude_after_failures": 2, "exclude_timeout_s": 20.0, "exclude_wait_s": 5.0}

GPUS = {"gpu": ("0", "1")}
#: of each executor
MEMORY = 1_000


class EastOfWest(DelayScheduling):
    """Every second stage keeps away from one host."""

    def allows(self, stage: TaskSetView, executor: ExecutorView) -> bool:
        return executor.host != "west" or not stage.stage % 2


SHARED: tuple[tuple[str, ...], ...] = ((), ("gpu",))

#: what tasks take, and whether they run all at once
needs = st.tuples(
    st.sampled_from(
        [
            *[ResourceProfile()] * 5,
            ResourceProfile(cpus=2),
            ResourceProfile(amounts={"gpu": 1.0}),
            ResourceProfile(amounts={"gpu": 0.5}),
            ResourceProfile(memory_bytes=MEMORY * 2 // 5),
        ]
    ),
    st.sampled_from([False, False, False, True]),
)
app_names = st.sampled_from(APPS)
places = st.integers(0, 30)


class CoreMachine(RuleBasedStateMachine):
    """Everything that can happen to a scheduler."""

    @initialize(
        seed=st.integers(0, 5),
        network=st.sampled_from(NETWORKS),
        executors=st.integers(0, 3),
        speculation=st.booleans(),
        policy=st.sampled_from([Fifo(), Fair({"red": 2}), Capacity({"red": 0.5}), Priority()]),
        at_once=st.integers(1, 5),
        first_bytes=st.sampled_from([1_000, 40 << 20]),
        elastic=st.booleans(),
        excludes=st.booleans(),
        placement=st.sampled_from(["delay", EastOfWest()]),
    )
    def start(
        self,
        seed: int,
        network: Network,
        executors: int,
        speculation: bool,
        policy: SchedulingPolicy,
        at_once: int,
        first_bytes: int,
        elastic: bool,
        excludes: bool,
        placement: PlacementPolicy | str,
    ) -> None:
        task_s = (0.001, 0.02, 0.4)
        self.policy = policy
        config = FORGIVING.with_settings(speculation=speculation, speculation_quantile=0.3, speculation_min_s=0.05)
        config = config.with_settings(placement=placement)
        if elastic:
            config = config.with_settings(max_executors=6)
        if excludes:
            config = config.with_settings(**EXCLUDING)
        self.elastic, self.excludes = elastic, excludes
        self.cluster = SimulatedCluster(
            config,
            policy=policy,
            allocation=self._allocation(),
            seed=seed,
            network=network,
            task_s=lambda launch: task_s[(launch.partition + launch.stage) % 3],
        )
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr(coalescing, "TASKS_PER_SLOT", 1)  # or few stages would have partitions enough to share tasks
        self.cluster.first_bytes = first_bytes
        self.cluster.at_once = lambda launch: at_once + launch.partition % 2
        self.apps: dict[str, AppId] = {}
        self.stages: dict[AppId, list[StageSpec]] = {}
        self.stage_numbers = 0
        self.job_numbers = 0
        self.submitted: list[SimulatedJob] = []
        #: planned and not submitted yet
        self.planned: list[JobSpec] = []
        self.cancelled: set[int] = set()
        #: stages whose tasks run all or none
        self.together: set[tuple[AppId, int]] = set()
        self.indeterminate: set[AppId] = set()
        #: cached RDDs of which something was dropped
        self.disturbed: set[tuple[AppId, int]] = set()
        for number in range(executors):
            self.cluster.add_executor(
                HOSTS[number % 2], slots=1 + number % 3, resources=GPUS, shared=SHARED[number % 2], memory_bytes=MEMORY
            )

    def _allocation(self) -> AllocationPolicy | str:
        return Backlog(backlog_s=0.5, idle_s=5.0, cached_idle_s=20.0) if self.elastic else "off"

    def _executor(self, place: int) -> str | None:
        executors = sorted(self.cluster.executors)
        return executors[place % len(executors)] if executors else None

    def _app(self, name: str) -> AppId:
        if name not in self.apps:
            self.apps[name] = self.cluster.open_application(f"{name}-{len(self.stages)}")
            self.stages[self.apps[name]] = []
        return self.apps[name]

    # -- jobs

    @rule(
        name=app_names,
        partitions=st.sampled_from([1, 2, 3, 4, 5, 6, 24]),
        parents=st.lists(places, max_size=2),
        kind=st.sampled_from([*[Determinism.DETERMINATE] * 5, Determinism.INDETERMINATE]),
        cached=st.booleans(),
        replication=st.integers(1, 3),
        needs=needs,
    )
    def make_shuffle(
        self,
        name: str,
        partitions: int,
        parents: list[int],
        kind: Determinism,
        cached: bool,
        replication: int,
        needs: tuple[ResourceProfile, bool],
    ) -> None:
        app = self._app(name)
        read = self._parents(app, parents)
        if any(parent.determinism is Determinism.INDETERMINATE for parent in read):
            kind = Determinism.INDETERMINATE  # as the planner has it: what is made from such rows is such
        if kind is Determinism.INDETERMINATE:
            self.indeterminate.add(app)
        number = self.stage_numbers
        self.stage_numbers += 1
        stage = map_stage(
            number,
            partitions,
            read,
            determinism=kind,
            cached=100 + number if cached and read else None,
            level=replace(StorageLevel.MEMORY_ONLY, replication=replication),
        )
        self.stages[app].append(self._with_needs(app, stage, needs))

    def _with_needs(self, app: AppId, stage: StageSpec, needs: tuple[ResourceProfile, bool]) -> StageSpec:
        profile, barrier = needs
        barrier = barrier and stage.num_partitions <= 2 and len(stage.partitions) == stage.num_partitions
        if barrier:
            self.together.add((app, stage.stage))
        plain = profile == ResourceProfile() and not barrier and not stage.cached and bool(stage.parents)
        splits = stage.parents[0].shuffle if plain and stage.stage % 2 else None
        return msgspec.structs.replace(stage, profile=profile, barrier=barrier, coalescible=plain, splits=splits)

    def _parents(self, app: AppId, places: list[int]) -> list[StageSpec]:
        known = self.stages[app]
        return list({known[place % len(known)].stage: known[place % len(known)] for place in places}.values()) if known else []

    @rule(
        name=app_names,
        partitions=st.sampled_from([0, 1, 2, 3, 4, 5, 6, 24]),
        parents=st.lists(places, min_size=1, max_size=2),
        stores=st.booleans(),
        commits=st.booleans(),
        needs=needs,
        late=st.booleans(),
    )
    def submit(
        self,
        name: str,
        partitions: int,
        parents: list[int],
        stores: bool,
        commits: bool,
        needs: tuple[ResourceProfile, bool],
        late: bool,
    ) -> None:
        app = self._app(name)
        read = self._parents(app, parents)
        result = result_stage(
            self.stage_numbers, max(1, partitions), read, wanted=range(partitions), stores_result=stores, commits=commits
        )
        result = self._with_needs(app, result, needs)
        self.stage_numbers += 1
        spec = job(app, self.job_numbers, *self._needed(app, result))
        spec = msgspec.structs.replace(spec, properties={POOL: name, PRIORITY: str(len(name))})
        self.job_numbers += 1
        if late:
            self.planned.append(spec)
        else:
            self.submitted.append(self.cluster.submit(spec))

    def _needed(self, app: AppId, stage: StageSpec) -> list[StageSpec]:
        """A stage and all that it is made of, parents first."""
        by_shuffle = {each.shuffle: each for each in self.stages[app]}
        needed: dict[int, StageSpec] = {}
        waiting = [stage]
        while waiting:
            each = waiting.pop()
            needed[each.stage] = each
            waiting += [by_shuffle[parent.shuffle] for parent in each.parents]
        return [needed[number] for number in sorted(needed)]

    @precondition(lambda self: self.planned)
    @rule(place=places)
    def submit_late(self, place: int) -> None:
        """What another thread of the driver planned before whatever happened since."""
        spec = self.planned.pop(place % len(self.planned))
        if spec.app in self.apps.values():
            self.submitted.append(self.cluster.submit(spec))

    @precondition(lambda self: any(self.stages.values()))
    @rule(name=app_names, place=places)
    def checkpoint(self, name: str, place: int) -> None:
        """What a shuffle is written from lies in files from now on; jobs under way, and planned ones, have it from before."""
        app = self.apps.get(name)
        known = self.stages[app] if app is not None else []
        if app is None or not known:
            return
        at = place % len(known)
        if known[at].determinism is Determinism.DETERMINATE and known[at].parents:
            known[at] = checkpointed(known[at], self._needed(app, known[at]))
            # Some of its outputs may have been made in pieces: then all of them are made again.
            self.together.add((app, known[at].stage))
            self.together.update((app, each.stage) for each in known if each.splits == known[at].shuffle)

    @precondition(lambda self: self.submitted)
    @rule(place=places)
    def cancel(self, place: int) -> None:
        chosen = self.submitted[place % len(self.submitted)]
        self.cancelled.add(chosen.spec.job)
        self.cluster.cancel(chosen)

    @precondition(lambda self: self.submitted)
    @rule(name=app_names)
    def close_application(self, name: str) -> None:
        app = self.apps.pop(name, None)
        if app is not None:
            self.cancelled.update(each.spec.job for each in self.submitted if each.spec.app == app)
            self.cluster.close_application(app)

    @precondition(lambda self: any(self.stages.values()))
    @rule(name=app_names, place=places)
    def unpersist(self, name: str, place: int) -> None:
        app = self.apps.get(name)
        if app is not None and self.stages[app]:
            stage = self.stages[app][place % len(self.stages[app])]
            for cached in stage.cached:
                self.disturbed.add((app, cached.rdd))
                self.cluster.driver_says(sti.RddUnpersistRequested(app, RddId(cached.rdd)))

    @precondition(lambda self: any(self.stages.values()))
    @rule(name=app_names, place=places)
    def release_shuffle(self, name: str, place: int) -> None:
        app = self.apps.get(name)
        if app is None or not self.stages[app]:
            return
        stage = self.stages[app][place % len(self.stages[app])]
        # The driver's garbage collector: nothing that could be submitted again refers to it.
        if any(stage.shuffle == each.shuffle for spec in self.planned if spec.app == app for each in spec.stages):
            return
        if not any(stage.shuffle in {parent.shuffle for parent in each.parents} for each in self.stages[app]):
            self.stages[app].remove(stage)
            assert stage.shuffle is not None
            self.cluster.driver_says(sti.ShuffleReleased(app, ShuffleId(stage.shuffle)))

    # -- executors

    @rule(host=st.sampled_from(HOSTS), slots=st.integers(1, 3))
    def add_executor(self, host: str, slots: int) -> None:
        if len(self.cluster.executors) < 6:
            self.cluster.add_executor(host, slots, memory_bytes=MEMORY)

    @precondition(lambda self: self.elastic)
    @rule(name=app_names)
    def offer_scaling(self, name: str) -> None:
        self.cluster.offer_scaling(self._app(name), len(self.cluster.executors))

    @precondition(lambda self: self.cluster.executors)
    @rule(place=places, task_caused=st.sampled_from([False, True, None]), record=st.booleans())
    def kill_executor(self, place: int, task_caused: bool | None, record: bool) -> None:
        executor = self._executor(place)
        if executor is not None:
            self.cluster.kill_executor(executor, task_caused=task_caused, record=record)

    @precondition(lambda self: self.cluster.executors)
    @rule(place=places)
    def stop_executor(self, place: int) -> None:
        executor = self._executor(place)
        if executor is not None:
            self.cluster.stop_executor(executor)

    @precondition(lambda self: self.cluster.executors)
    @rule(place=places)
    def hold_executor(self, place: int) -> None:
        executor = self._executor(place)
        if executor is not None:
            self.cluster.hold_executor(executor)

    @rule(nannies=st.booleans())
    def lose_nannies(self, nannies: bool) -> None:
        self.cluster.nannies = nannies

    @precondition(lambda self: self.cluster.executors)
    @rule(place=places)
    def continue_executor(self, place: int) -> None:
        executor = self._executor(place)
        if executor is not None:
            self.cluster.continue_executor(executor)

    @precondition(lambda self: self.cluster.executors)
    @rule(place=places, what=st.sampled_from(["pause", "resume", "drain", "slots"]), slots=st.integers(0, 3))
    def change_executor(self, place: int, what: str, slots: int) -> None:
        executor = self._executor(place)
        if executor is None:
            return
        match what:
            case "pause":
                self.cluster.tell(sti.ExecutorPaused(executor))
            case "resume":
                self.cluster.tell(sti.ExecutorResumed(executor))
            case "drain":
                self.cluster.tell(sti.ExecutorDraining(executor))
            case _:
                self.cluster.tell(sti.SlotsChanged(executor, slots))

    @precondition(lambda self: self.cluster.executors)
    @rule(place=places)
    def evict_blocks(self, place: int) -> None:
        executor = self._executor(place)
        if executor is not None:
            cache = self.cluster.executors[executor].cache
            for app, rdd, partition in list(cache)[::2]:
                self.disturbed.add((app, rdd_of(rdd)))
                del cache[app, rdd, partition]
                self.cluster.tell(sti.BlocksEvicted(executor, app, ((rdd, partition),)))

    # -- faults of tasks and files

    @precondition(lambda self: self.submitted)
    @rule(place=places, stage=places, partition=st.integers(0, 5), times=st.integers(1, 3), memory=st.booleans())
    def fail_task(self, place: int, stage: int, partition: int, times: int, memory: bool) -> None:
        spec = self.submitted[place % len(self.submitted)].spec
        failing = spec.stages[stage % len(spec.stages)].stage
        self.cluster.fail(spec.app, failing, partition, *[MemoryFailure("no room") if memory else OOPS] * times)

    @precondition(lambda self: self.submitted)
    @rule(place=places, stage=places, partition=st.integers(0, 5))
    def delete_output(self, place: int, stage: int, partition: int) -> None:
        spec = self.submitted[place % len(self.submitted)].spec
        self.cluster.delete_output(spec.app, spec.stages[stage % len(spec.stages)].stage, partition)

    @precondition(lambda self: self.submitted)
    @rule(place=places, partition=st.integers(0, 5), epoch=st.integers(0, 50))
    def report_a_false_fetch_failure(self, place: int, partition: int, epoch: int) -> None:
        spec = self.submitted[place % len(self.submitted)].spec
        for stage in spec.stages:
            for parent in stage.parents:
                failure = FetchFailure(parent.shuffle, None, None, HostToken("north"), "unreachable", "?", epoch=0)
                self.cluster.fail(spec.app, stage.stage, partition, failure)

    # -- time

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.1, 1.0, 5.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.cluster.advance(seconds)

    @invariant()
    def placement_is_respected(self) -> None:
        if isinstance(self.cluster.config.placement, EastOfWest):
            for executor in self.cluster.executors.values():
                assert executor.host.token != "west" or not any(each.launch.stage % 2 for each in executor.running.values())

    @invariant()
    def slots_are_respected(self) -> None:
        if hasattr(self, "cluster"):
            for executor in self.cluster.executors.values():
                assert len(executor.running) <= max(executor.slots, executor.most_running)

    @invariant()
    def asking_when_to_wake_it_changes_nothing(self) -> None:
        if hasattr(self, "cluster"):
            assert self.cluster.core.next_wakeup() == self.cluster.core.next_wakeup()

    def teardown(self) -> None:
        if hasattr(self, "cluster"):
            try:
                self.end_all()
            finally:
                self.patches.undo()

    def end_all(self) -> None:
        cluster = self.cluster
        for executor in list(cluster.executors):
            cluster.continue_executor(executor)
        cluster.failures.clear()
        for number in range(2):
            cluster.add_executor(HOSTS[number], slots=2, resources=GPUS, memory_bytes=MEMORY)
        self.submitted += [cluster.submit(spec) for spec in self.planned if spec.app in self.apps.values()]
        cluster.run(limit_s=1_000.0)
        for each in self.submitted:
            note(f"{each.spec.name}: {each.failed}")
            self.check_answer(each)
        cluster.advance(60.0)
        check_event_order(cluster.events)
        if cluster.network.is_reliable:
            self.check_recomputed()
            self.check_copies()
        cluster.core.assert_empty()
        self.check_replay()

    def check_answer(self, done: SimulatedJob) -> None:
        assert done.ended
        if done.failed is not None:
            rolled_back = done.failed.kind == "ShuffleLost" and done.spec.app in self.indeterminate
            excluded = self.excludes and "nowhere to run" in done.failed.reason
            assert rolled_back or excluded or done.spec.job in self.cancelled, done.failed
            return
        assert done.numbers == expected(done.spec)
        attempts: dict[tuple[int, int], int] = {}
        for value in done.values.values():
            for shuffle, partition, attempt in value.made_of:
                assert attempts.setdefault((shuffle, partition), attempt) == attempt, "results were made from different rows"

    def check_recomputed(self) -> None:
        cluster = self.cluster
        copied = Counter(
            (each.app, each.stage, each.partition) for each in cluster.events if isinstance(each, ev.SpeculativeTaskSubmitted)
        )
        for each in cluster.events:  # and what else they computed
            if isinstance(each, ev.TaskEnd) and each.span > 1:
                first = each.partition
                copies = copied[each.app, each.stage, first]
                copied.update({(each.app, each.stage, first + further): copies for further in range(1, each.span)})
        for (app, stage, partition), times in cluster.computed.items():
            if app not in self.indeterminate and (app, stage) not in self.together:
                lost = cluster.lost[app, stage, partition] + copied[app, stage, partition]
                assert times <= 1 + lost, f"{app} stage {stage} partition {partition} ran {times} times and was lost {lost} times"

    def check_copies(self) -> None:
        """What the core believes of caches is so, everything has its copies, and nobody who leaves is kept."""
        cluster = self.cluster
        held = {(app, rdd, partition, each.id) for each in cluster.executors.values() for app, rdd, partition in each.cache}
        staying = [each for each in cluster.executors.values() if cluster.core.is_usable(each.id)]
        for app, blocks in cluster.core.cached_blocks().items():
            for rdd, partition in blocks:
                holders = blocks.holders(rdd, partition)
                if (
                    app,
                    rdd_of(rdd),
                ) in self.disturbed:  # news of a block may come after the news that it is gone: it is missed when used
                    continue
                assert all((app, rdd, partition, holder) in held for holder in holders)
                refused = blocks.refused.get((rdd, partition), set())
                takers = [each for each in staying if each.id in holders or each.id not in refused]
                kept = [each for each in staying if each.id in holders]
                assert len(kept) >= min(blocks.level(rdd).replication, len(takers)), f"{app} {rdd} {partition}: {holders}"
        for executor, may_leave in cluster.core.draining().items():
            assert may_leave and cluster.executors[executor].may_leave

    def check_replay(self) -> None:
        """The recorded stimuli lead to the same state, and to the same wish to be woken, though nobody asked for it before."""
        cluster = self.cluster
        again = SchedulerCore(cluster.config.with_settings(allocation=self._allocation()), seed=cluster.seed)
        for at, batch in cluster.batches:
            again.handle_all(batch, at)
        assert again.snapshot() == cluster.core.snapshot()
        assert again.next_wakeup() == cluster.core.next_wakeup()


TestCore = CoreMachine.TestCase
#: It computes all the time and waits for nothing: how long depends on the machine alone.
TestCore.pytestmark = [pytest.mark.timeout(600)]
