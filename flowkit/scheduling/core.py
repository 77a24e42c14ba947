"""The scheduler core: one door for stimuli, actions in return. Sans-IO: no clock, no thread, no Dask.

Runs in the scheduler process on whatever thread drives it, one call at a time.

Theory of operation. A batch of stimuli is applied one after the other, each to the machine it concerns (``endings`` for
reports, ``losses`` for executors, ``drivers`` for what drivers ask). Then, once a batch, the core settles: ``readiness`` looks again
which stages may run wherever that may have changed, and ``offers`` hands waiting tasks to executors with room. Everything that
is to be done about it comes back as actions, in order. Time comes in with each call; ``next_wakeup`` says when the core wants
a ``Tick``. Same stimuli, same seed: same actions.

Not in any table: an attempt whose job ended is *void*; it keeps its executor's slot until it reports or its executor is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from flowkit.config import Config
from flowkit.errors import InternalError
from flowkit.model.ids import AppId, AttemptId, ExecutorId
from flowkit.scheduling import barriers, containment, drivers, endings, forgetting, handover, losses, readiness
from flowkit.scheduling import stimuli as sti
from flowkit.scheduling.actions import (
    Action,
    AnswerCommit,
    ApplicationExpired,
)
from flowkit.scheduling.allocation import Allocator
from flowkit.scheduling.asking import Fault
from flowkit.scheduling.blocks import CachedBlocks
from flowkit.scheduling.books import Books
from flowkit.scheduling.health import Health
from flowkit.scheduling.liveness import Liveness
from flowkit.scheduling.offers import Offers
from flowkit.scheduling.placement import Placement
from flowkit.scheduling.policies.built_in import policies
from flowkit.scheduling.preemption import Preemption
from flowkit.scheduling.recalls import Recalls
from flowkit.scheduling.recent import Recent
from flowkit.scheduling.requests import Unmet
from flowkit.scheduling.speculation import Speculation

#: reports that are kept for the story of a bug; all that led to it, where invariants are checked
_MOST_RECENT, _MOST_VALIDATING = 1_000, 100_000


@dataclass(frozen=True, slots=True)
class CoreStatistics:
    """One look at the core."""

    applications: int
    jobs: int
    active_stages: int
    executors: int
    attempts: int
    stale_reports: int


class SchedulerCore:
    """Decides who runs what, where and when.

    Parameters
    ----------
    config
        Settings; those of scheduling, limits and time-outs are read here. Policies are flowkit's own, by name, or objects.
    seed
        Of the generator that breaks ties.
    first_attempt
        The first attempt id; ids rise from there and are never used twice.
    """

    def __init__(
        self,
        config: Config,
        *,
        seed: int,
        first_attempt: int = 1,
    ) -> None:
        chosen = policies(config)
        self._books = Books(config, seed, first_attempt, Placement(chosen.placement))
        self._books.topology = chosen.topology
        self._offers = Offers(chosen.scheduling)
        self._preemption = Preemption(chosen.scheduling)
        self._recalls = Recalls()
        self._liveness = Liveness(config)
        self._watch = losses.Watch(config)
        self._speculation = Speculation(chosen.speculation)
        self._books.keeps_durations = chosen.speculation is not None
        self._allocator = Allocator(config, chosen.allocation)
        self._unmet = Unmet(config)
        self._books.health = self._health = Health(config, chosen.health)
        #: the last stimuli with their times: enough to replay what led to a bug
        self.recent = Recent(_MOST_VALIDATING if config.validate else _MOST_RECENT)

    # -- the door

    def handle(self, stimulus: sti.Stimulus, now: float) -> list[Action]:
        """Apply one stimulus and settle."""
        return self.handle_all((stimulus,), now)

    def handle_all(self, stimuli: Sequence[sti.Stimulus], now: float) -> list[Action]:
        """Apply a batch, then settle once; return what is to be done, in order."""
        books = self._books
        books.now = max(now, books.now)
        for stimulus in stimuli:
            self.recent.add(stimulus, now)
            try:
                self._apply(stimulus)
            except Exception as error:
                self._contain(error, containment.hit_by(books, stimulus))
        try:
            self._settle()
        except Exception as error:
            self._contain(error, containment.all_jobs(books))
        if books.config.validate:
            try:
                self.check()
            except AssertionError as error:
                raise InternalError(f"an invariant of the scheduler core is broken: {error}", story=self.story()) from error
        return books.take_actions()

    def _contain(self, error: BaseException, hits: Collection[containment.Hit]) -> None:
        """Jobs that a bug hit end with it, the others go on. Who validates wants to see it at once instead."""
        if self._books.config.validate:
            raise InternalError(f"the scheduler core failed: {type(error).__name__}: {error}", story=self.story()) from error
        containment.contain(self._books, error, hits, self.story())

    def next_wakeup(self) -> float | None:
        """When a ``Tick`` is wanted, or None while only news can change anything. Asking changes nothing."""
        candidates = [
            self._offers.wake_at,
            self._recalls.wake_at,
            forgetting.next_look(self._books),
            self._speculation.wake_at,
            self._health.wake_at,
            self._preemption.wake_at,
            self._allocator.wake_at,
            self._unmet.wake_at,
            self._liveness.next_look(self._books),
            self._watch.next_look(self._books),
        ]
        return min((at for at in candidates if at is not None), default=None)

    def _settle(self) -> None:
        books = self._books
        # Ending a job may make another's stages worth a look; every pass ends jobs or starts stages, so there is an end.
        while len(books.executors) and (stale := [each for each in books.applications.values() if each.is_stale]):
            for application in stale:
                try:
                    readiness.look_again(books, application)
                except Exception as error:
                    self._contain(error, containment.jobs_of(application))
        self._contained(self._offers.make)
        self._contained(self._recalls.look)
        self._contained(self._preemption.look)
        self._health.look(books)
        handover.settle(books)
        self._contained(self._speculation.look)
        self._allocator.look(books)
        self._unmet.look(books)
        self._liveness.settle(books)
        self._watch.settle(books)
        forgetting.settle(books)

    def _contained(self, step: Callable[[Books], None]) -> None:
        """What is wrong with one stage ends the jobs that need it; the step is then taken for the others."""
        books = self._books
        while True:
            try:
                step(books)
            except Fault as fault:
                books.active.pop((fault.task_set.app, fault.task_set.stage), None)  # each goes once, so there is an end
                self._contain(fault.error, containment.jobs_needing(books, fault.task_set))
            else:
                return

    def _apply(self, stimulus: sti.Stimulus) -> None:
        books = self._books
        match stimulus:
            case sti.TasksReported():
                executor = books.executors.get(stimulus.executor)
                if executor is None:
                    books.stale_count += 1
                    return
                books.executors.heard(executor, books.now, answers=True)
                for report in stimulus.reports:
                    attempt = executor.attempts.get(report.attempt)
                    try:
                        endings.hear(books, executor, attempt, report)
                    except Exception as error:
                        self._contain(error, [] if attempt is None else containment.jobs_needing(books, attempt.task_set))
            case sti.Heartbeat():
                losses.heartbeat(books, stimulus)
            case sti.CommitRequested():
                self._commit_requested(stimulus)
            case sti.ApplicationOpened():
                drivers.open_application(books, stimulus)
            case sti.ExecutorReady():
                losses.executor_ready(books, stimulus)
            case sti.ExecutorLost():
                losses.executor_lost(
                    books, stimulus.executor, stimulus.reason, task_caused=stimulus.task_caused, running=stimulus.running
                )
            case sti.Examined():
                self._liveness.examined(books, stimulus)
            case sti.ExecutorPaused() | sti.ExecutorResumed() | sti.ExecutorDraining() | sti.SlotsChanged():
                if isinstance(stimulus, sti.ExecutorDraining):
                    self._allocator.leaves(stimulus.executor)
                losses.executor_changed(books, stimulus)
            case sti.BlocksEvicted():
                losses.blocks_evicted(books, stimulus)
            case sti.BlocksMoved():
                losses.blocks_moved(books, stimulus)
            case sti.BlockCopied():
                handover.block_copied(books, stimulus)
            case sti.OutputsCopied():
                handover.outputs_copied(books, stimulus)
            case sti.ContentFetched():
                self._content_fetched(stimulus)
            case sti.BarrierReached():
                holder = books.executors.get(stimulus.executor)
                barriers.reached(books, None if holder is None else holder.attempts.get(stimulus.attempt), stimulus)
            case sti.TaskWouldNotStop():
                endings.would_not_stop(books, stimulus)
            case sti.ScalingOffered():
                self._allocator.offered(stimulus.app, stimulus.count)
            case sti.Tick():
                self._liveness.look(books)
                for app, reason in self._watch.look(books):
                    books.emit(ApplicationExpired(app, reason))
                    drivers.end_application(books, app, reason)
            case _:
                drivers.apply(books, stimulus)

    def _commit_requested(self, stimulus: sti.CommitRequested) -> None:
        books = self._books
        executor = books.executors.get(stimulus.executor)
        attempt = None if executor is None else executor.attempts.get(stimulus.attempt)
        if executor is None:
            books.stale_count += 1
            return
        granted = (
            attempt is not None
            and not attempt.is_void
            and books.commits.ask(attempt.task_set.app, attempt.task_set.stage, attempt.partition, attempt.id)
        )
        books.emit(AnswerCommit(stimulus.executor, stimulus.attempt, granted))

    def _content_fetched(self, stimulus: sti.ContentFetched) -> None:
        """Its host is one more to fetch from. Told to executors with what else they must be told: the first holder still has it."""
        executor, application = self._books.executors.get(stimulus.executor), self._books.applications.get(stimulus.app)
        if executor is None or application is None or stimulus.content not in application.contents:
            self._books.stale_count += 1
            return
        application.contents[stimulus.content].add(executor.host)

    # -- introspection

    def check(self) -> None:
        """Every invariant of every machine; raises ``AssertionError``."""
        books = self._books
        books.executors.check()
        for application in books.applications.values():
            application.check()
        for executor in books.executors:
            for attempt in executor.attempts.values():
                assert attempt.is_void or attempt.id in attempt.task_set.running, f"attempt {attempt.id} is in limbo"
        wakeup = self.next_wakeup()
        waits = any(stage.task_set and stage.task_set.pending and not stage.missing_contents for stage in books.active.values())
        idle = any(executor.usable and not executor.attempts for executor in books.executors)
        assert not (waits and idle and wakeup is None), "tasks wait, slots are free, and nobody will wake the core"

    def assert_empty(self) -> None:
        """Raise ``AssertionError`` unless all that jobs needed is gone with them."""
        books = self._books
        assert not books.active, books.active
        assert not len(books.commits), "commits"
        assert not books.forgetting, f"executors know stages {list(books.forgetting)}"
        for executor in books.executors:
            assert not executor.attempts, f"{executor} holds attempts {list(executor.attempts)}"
        for application in books.applications.values():
            assert not application.jobs, application.jobs
            for stage in application.stages.values():
                assert stage.is_map, f"{stage} is left"
                assert stage.task_set is None, f"tasks of {stage} are left"
                assert not stage.missing_contents, f"{stage} waits for content"
                assert not stage.defined_on, f"executors know {stage}"

    def statistics(self) -> CoreStatistics:
        """A look from outside."""
        books = self._books
        return CoreStatistics(
            applications=len(books.applications),
            jobs=sum(len(application.jobs) for application in books.applications.values()),
            active_stages=len(books.active),
            executors=len(books.executors),
            attempts=sum(len(executor.attempts) for executor in books.executors),
            stale_reports=books.stale_count,
        )

    def cached_blocks(self) -> dict[AppId, CachedBlocks]:
        """Who holds what, by application: to be read, not changed."""
        return {app: application.blocks for app, application in self._books.applications.items()}

    def knows(self, attempt: AttemptId) -> bool:
        """Whether an attempt was launched and is not over, nor given up."""
        return any(attempt in executor.attempts for executor in self._books.executors)

    def is_usable(self, executor: ExecutorId) -> bool:
        """Whether an executor may be sent launches."""
        state = self._books.executors.get(executor)
        return state is not None and state.usable

    def needed_slots(self) -> int:
        """Slots that tasks wait for or use."""
        return self._books.pending_slots() + sum(state.load for state in self._books.executors)

    def is_needed(self, executor: ExecutorId) -> bool:
        """Whether an executor runs something, or holds cached partitions."""
        state = self._books.executors.get(executor)
        if state is None:
            return False
        applications = self._books.applications.values()
        return bool(state.attempts) or any(each.blocks.count_by_executor[executor] > 0 for each in applications)

    def draining(self) -> dict[ExecutorId, bool]:
        """Executors that were asked to leave, and whether they may."""
        return {state.id: state.may_leave for state in self._books.executors if state.draining}

    def story(self, length: int = 50) -> str:
        """The last stimuli, for a report of a bug."""
        return self.recent.story(length)

    def snapshot(self) -> dict[str, Any]:
        """All that decides what happens next, as plain data; equal for equal histories."""
        books = self._books
        return {
            "executors": {
                executor.id: (executor.slots, executor.usable, tuple(executor.attempts)) for executor in books.executors
            },
            "applications": {
                app: {
                    "jobs": tuple(application.jobs),
                    "cached": sorted((*block, *application.blocks.holders(*block)) for block in application.blocks),
                    "stages": {
                        stage.id: (
                            stage.is_running,
                            stage.attempt_count,
                            tuple(stage.task_set.pending) if stage.task_set else (),
                            tuple(stage.task_set.running) if stage.task_set else (),
                            tuple(stage.outputs.statuses) if stage.outputs else tuple(sorted(stage.delivered)),
                        )
                        for stage in application.stages.values()
                    },
                }
                for app, application in books.applications.items()
            },
            "next_attempt": books.next_attempt,
        }
