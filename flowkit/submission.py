"""How a Context runs jobs for its RDDs: what they need first, the plan, the wait, and what goes when nobody refers to it.

Runs on the driver; any thread may use it, several at once.
"""

from __future__ import annotations

import contextlib
import pickle
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from flowkit.abc import ClusterLink, JobHandle, JobRunner
from flowkit.cluster.outcomes import WHERE
from flowkit.config import Config
from flowkit.errors import ClusterError, TooManyPartitions
from flowkit.execution.actions import joiner_of
from flowkit.execution.on_driver import OnDriver
from flowkit.execution.sides import check_on_driver, in_fork
from flowkit.job_ends import JobEnds
from flowkit.jobs import Jobs, JobScopes, RunningAction, announce_job, check_wanted, surrounding_properties
from flowkit.lifetime import Lifetime
from flowkit.lineage.call_site import short_call_site
from flowkit.lineage.kernels import Result
from flowkit.lineage.nodes import Node, Preparation, Recipe, Shuffle, ancestors
from flowkit.lineage.stages import Planner
from flowkit.model.ids import ContentId, PartitionIndex, RddId, ShuffleId, StageId
from flowkit.model.job_spec import Content, JobSpec
from flowkit.model.shown import first_line_of
from flowkit.model.task import FULL_TRACEBACKS, PieceResults
from flowkit.observe.hints import StageFacts
from flowkit.observe.status import StageStatus, StatusStore, facts_of
from flowkit.rdd.checks import check_partitions
from flowkit.rdd.replay import Replay, replay_of
from flowkit.tracebacks import attributes_of

#: RDDs of which is known which stage computed them last
_EXPLAINED = 1_000
#: what a block within an action enters
_NOTHING: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


if TYPE_CHECKING:
    from flowkit.observe.terminal import TerminalProgress


class Submission(JobScopes, JobRunner):
    """What a ``Context`` does for RDDs."""

    if TYPE_CHECKING:

        @property
        def _closed(self) -> bool: ...

    name: str
    status: StatusStore
    jobs: Jobs
    _link: ClusterLink
    _config: Config
    _planner: Planner
    _lifetime: Lifetime
    #: hands on events; a job ends there when its action does
    _job_ends: JobEnds

    #: what a task failed at last: not the error, whose frames and arguments may hold anything
    _last_failure: Replay | None = None
    _keeps_last_failure = False
    #: what is drawn of jobs in a terminal
    _progress: TerminalProgress | None = None

    def _start_submitting(self) -> None:
        self._unheeded = set()
        self._rdd_ids = count()
        self._shuffle_ids = count()
        #: the last stage that computed each of the RDDs that actions were called on last, for ``explain``
        self._result_stages: OrderedDict[RddId, StageId] = OrderedDict()
        #: what nobody refers to any more, as the garbage collector found it; released when something is asked of the cluster next
        self._garbage: deque[ContentId] = deque()
        self._shuffles: weakref.WeakSet[Shuffle] = weakref.WeakSet()
        self._preparing: weakref.WeakKeyDictionary[Preparation, threading.Lock] = weakref.WeakKeyDictionary()
        #: guards the two above
        self._books = threading.Lock()
        #: see ``changing``
        self._changing = threading.RLock()

    def new_rdd_id(self) -> int:
        """The next RDD's number."""
        return next(self._rdd_ids)

    def new_shuffle_id(self) -> int:
        """The next shuffle's number."""
        return next(self._shuffle_ids)

    def changing(self) -> contextlib.AbstractContextManager[object]:
        """Held by whoever changes a node, or takes what is pending on one, so that two threads do it one after the other."""
        return self._changing

    def unpersist(self, rdd: int, *, blocking: bool) -> None:
        """Drop an RDD's cached partitions."""
        if not self._closed:
            self._link.unpersist(RddId(rdd), blocking=blocking)

    def run_job(
        self,
        node: Node,
        fn: Callable[[int, Iterator[Any]], Any],
        partitions: Sequence[int] | None = None,
        *,
        operation: str,
        call_site: str,
    ) -> list[Any]:
        """Run ``fn(partition index, iterator)`` over partitions of a node; what every action does.

        Parameters
        ----------
        partitions
            Which, each once, in any order; None: all.

        Returns
        -------
        list
            What ``fn`` returned, in the order of ``partitions``.

        Raises
        ------
        errors.InvalidArgument
            One of ``partitions`` is no whole number, is none of the node's, or stands there twice.

        Notes
        -----
        Cost: one job, and before it those that the node's preparations take (bounds of a sort, counts for indices).
        """
        chosen = range(node.num_partitions) if partitions is None else check_partitions(partitions, node.num_partitions)
        results = self._results(node, fn, chosen, operation, call_site)
        return [results[partition] for partition in chosen]

    def run_job_partially(
        self,
        node: Node,
        fn: Callable[[int, Iterator[Any]], Any],
        timeout_s: float,
        *,
        operation: str,
        call_site: str,
    ) -> dict[int, Any]:
        """As ``run_job`` over all partitions, for so many seconds; the results that came by then. The rest is cancelled."""
        return self._results(node, fn, range(node.num_partitions), operation, call_site, enough_after_s=timeout_s)

    def action(self) -> contextlib.AbstractContextManager[None]:
        """Make a block one action: when it raises, the last job that it ran has failed."""
        scope = self._scope()
        if scope.action is not None:
            return _NOTHING
        return RunningAction(lambda action: self._enter(scope.within(action)), self._settle)

    def _settle(self, action: RunningAction, error: BaseException | None) -> None:
        job, action.job = action.job, None
        if job is not None:
            self._job_ends.settle(job, error)
            if self._progress is not None:
                self._progress.settle(job)

    def _submit(self, action: RunningAction, spec: JobSpec, take: Callable[[PartitionIndex, bytes], None]) -> JobHandle:
        """Submit the next job of an action; the job before it has succeeded."""
        self._settle(action, None)
        self._job_ends.expect(spec.job)  # it may end before this thread goes on
        try:
            handle = self._link.submit(spec, take)
        except BaseException:
            self._job_ends.forget(spec.job)
            raise
        action.job = spec.job
        return handle

    def _results(
        self,
        node: Node,
        fn: Callable[[int, Iterator[Any]], Any],
        chosen: Sequence[int],
        operation: str,
        call_site: str,
        enough_after_s: float | None = None,
    ) -> dict[int, Any]:
        with self.action():
            return self._run_one(node, fn, chosen, operation, call_site, enough_after_s)

    def _run_one(
        self,
        node: Node,
        fn: Callable[[int, Iterator[Any]], Any],
        chosen: Sequence[int],
        operation: str,
        call_site: str,
        enough_after_s: float | None,
    ) -> dict[int, Any]:
        self._check_open(f"{operation}()")
        results: dict[int, Any] = {}
        if not chosen:
            return results
        name = f"{operation} at {short_call_site(call_site)}" if call_site else operation
        scope = self._scope()
        assert scope.action is not None, "a job outside of an action"
        check_wanted(scope, name)
        self._release_garbage()
        tolerances = [(each, each.counts()) for each in self._prepare(node)]
        pending = [each for each in ancestors(node) if each.pending is not None]
        properties = {**surrounding_properties(), **scope.properties}
        if self._config.full_tracebacks:
            properties[FULL_TRACEBACKS] = "1"
        joined = joiner_of(fn)
        plan = self._planner.plan(
            node,
            Result(fn, operation, call_site),
            chosen,
            may_split=joined is not None,
            name=name,
            properties=properties,
            max_result_bytes=self._config.max_result_bytes,
        )
        spec = plan.spec
        self._note_result_stage(node, spec.result_stage.stage)
        shuffles = {str(stage.stage): stage.shuffle for stage in spec.stages}

        unpickling = OnDriver(operation, call_site, doing="unpickling results")

        def take(partition: int, data: bytes) -> None:
            try:
                value = pickle.loads(data)
                if joined is not None and type(value) is PieceResults:
                    value = joined([pickle.loads(each) for each in value])
            except BaseException:
                with unpickling:
                    raise
            results[partition] = value

        announce_job(self, properties)
        handle = self._submit(scope.action, spec, take)
        try:
            self.jobs.wait(handle, name, properties, scope, enough_after_s)
        except Exception as error:
            attributes = attributes_of(error)
            where = attributes.pop(WHERE, {})
            if where.get("stage") in shuffles:
                result, shuffle, partition = Result(fn, operation, call_site), shuffles[where["stage"]], int(where["partition"])
                # An attribute of theirs by that name stays theirs.
                attributes.setdefault("replay", replay_of(self, plan.stages, result, shuffle, partition, first_line_of(error)))
                if self._keeps_last_failure:
                    this: Any = weakref.proxy(self)
                    self._last_failure = replay_of(this, plan.stages, result, shuffle, partition, first_line_of(error))
            raise
        finally:
            del plan  # an error's traceback would hold on to its programs
        if enough_after_s is None:
            # Before jobs that follow: those count errors of their own.
            for tolerance, before in tolerances:
                tolerance.check(before)
        for each in pending:
            self._do_pending(each)
        return dict(results)

    def _do_pending(self, node: Node) -> None:
        """Do what was to be done once an action had computed a node, unless another action does; what fails stays to be done."""
        with self._changing:
            run, node.pending = node.pending, None
        if run is None:
            return
        try:
            run(self, node)
        except BaseException:
            with self._changing:
                if node.pending is None:
                    node.pending = run
            raise

    def ran(self, node: Node | Recipe, shuffle: ShuffleId | None) -> str:
        """What a stage did when it last ran, in words; empty when it never did, or nobody remembers."""
        status = self._last_run(node, shuffle)
        return "" if status is None else f"ran: {status.in_words()}"

    def facts(self, node: Node | Recipe, shuffle: ShuffleId | None) -> StageFacts | None:
        """As ``ran``, in numbers; None when it never did."""
        status = self._last_run(node, shuffle)
        if status is None:
            return None
        slots = sum(each.slots for each in self.status.executors() if not each.removed_at)
        return facts_of(status, slots)

    def _last_run(self, node: Node | Recipe, shuffle: ShuffleId | None) -> StageStatus | None:
        stage = self._result_stages.get(node.id) if shuffle is None else self._planner.stage_of(shuffle)
        status = None if stage is None else self.status.last_attempt(stage)
        return status if status is not None and status.succeeded_count else None

    def keep_last_failure(self) -> None:
        """Keep what is needed to replay the partition that failed last, until another one fails: ``last_failure``.

        Not the error, but the failed RDD: what of it is cached or shuffled stays as long. Notebooks ask for it.

        Examples
        --------
        >>> fc.keep_last_failure()
        >>> try:
        ...     fc.parallelize(["1", "x"], 1).map(lambda text: int(text)).sum()
        ... except ValueError:
        ...     pass
        >>> fc.last_failure(debug=False).element
        'x'
        """
        self._keeps_last_failure = True

    @property
    def last_failure(self) -> Replay | None:
        """A replay of the partition that failed last; None where nothing failed, or where it was not to be kept.

        Examples
        --------
        >>> import flowkit as fk
        >>> fk.Context().last_failure is None  # doctest: +SKIP
        True
        """
        return self._last_failure

    def drop_with(self, node: Node) -> None:
        """Drop an RDD's cached partitions when nobody refers to it any more."""
        weakref.finalize(node, _drop_cached, weakref.ref(self), node.id).atexit = False

    def cancellable(self, cancellation: Any) -> contextlib.AbstractContextManager[None]:
        """Let whoever holds a ``jobs.Cancellation`` cancel the jobs of a block."""
        return self._cancellable(cancellation)

    def _release_with(self, owner: object, content: Content) -> None:
        """Its content is needed as long as the owner lives."""
        if content.inline is None:
            weakref.finalize(owner, self._garbage.append, content.id).atexit = False

    def _release_garbage(self) -> None:
        """Let the cluster drop contents that nobody here refers to."""
        unneeded = []
        for heap in (self._garbage, self._planner.unneeded):
            with contextlib.suppress(IndexError):
                while True:
                    unneeded.append(heap.popleft())
        if unneeded:
            self._link.release_contents(unneeded)

    def _note_result_stage(self, node: Node, stage: StageId) -> None:
        with self._books:
            self._result_stages[node.id] = stage
            self._result_stages.move_to_end(node.id)
            if len(self._result_stages) > _EXPLAINED:
                self._result_stages.popitem(last=False)

    def _prepare(self, node: Node) -> list[Any]:
        """Make ready what a job needs first; what of it tolerates errors."""
        tolerances = []
        for each in ancestors(node):
            if each.tolerance is not None:
                tolerances.append(each.tolerance)
            if each.num_partitions > self._config.max_partitions:
                raise TooManyPartitions(
                    f"{each.label} has {each.num_partitions:,} partitions, more than max_partitions = "
                    f"{self._config.max_partitions:,}",
                    setting="max_partitions",
                    limit=self._config.max_partitions,
                    actual=each.num_partitions,
                )
            preparation = each.preparation  # once: a checkpoint takes it away
            if preparation is not None and not preparation.done:
                with self._lock_of(preparation):
                    preparation.ensure(self)
            for dependency in each.dependencies:
                if isinstance(dependency, Shuffle) and dependency not in self._shuffles:
                    with self._books:
                        if dependency in self._shuffles:
                            continue
                        self._shuffles.add(dependency)
                    weakref.finalize(dependency, _release, weakref.ref(self), dependency.id).atexit = False
        return tolerances

    def _lock_of(self, preparation: Preparation) -> threading.Lock:
        """Held while its jobs run: two threads must not draw two samples. A preparation waits only for those before it."""
        with self._books:
            return self._preparing.setdefault(preparation, threading.Lock())

    def _check_open(self, what: str = "a Context") -> None:
        check_on_driver(what)
        if self._closed:
            self._check_process(what)
            raise ClusterError(f"the Context {self.name!r} is closed; make its RDDs again with one that is open")

    def _check_process(self, what: str) -> None:
        if self._lifetime.is_elsewhere:
            raise in_fork(what, self._lifetime.process)


def _drop_cached(context: weakref.ref[Submission], rdd: RddId) -> None:
    """The driver's last reference to a cached RDD is gone. Called by the garbage collector, on any thread."""
    alive = context()
    if alive is not None and not alive._closed:
        alive._link.unpersist(rdd, blocking=False)


def _release(context: weakref.ref[Submission], shuffle: ShuffleId) -> None:
    """The driver's last reference to a shuffle is gone. Called by the garbage collector, on any thread."""
    alive = context()
    if alive is not None and not alive._closed:
        alive._planner.forget(shuffle)
        alive._link.release_shuffle(shuffle)
