"""The Context: where a driver begins. Life cycle, sources, submission; the rest sits on collaborators.

Runs on the driver; any thread may use it, several at once. The one place that joins the DSL to a cluster.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import sys
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from flowkit.abc import ClusterLink, JobRunner, Listener
from flowkit.cluster.outcomes import WHERE
from flowkit.config import Config
from flowkit.errors import ClosureError, ClusterError, InvalidArgument, TooManyPartitions
from flowkit.execution.accumulators import Accumulator, Accumulators
from flowkit.execution.broadcast import Broadcast, pickled
from flowkit.files import FileShipping
from flowkit.jobs import Jobs, JobScopes, check_wanted, surrounding_properties
from flowkit.lineage.call_site import short_call_site
from flowkit.lineage.kernels import Result
from flowkit.lineage.nodes import Node, Preparation, Shuffle, ancestors
from flowkit.lineage.stages import Planner
from flowkit.model.ids import AppId, ContentId, RddId, ShuffleId, StageId
from flowkit.model.job_spec import Content
from flowkit.observe.bus import ListenerBus
from flowkit.observe.hints import StageFacts
from flowkit.observe.status import StatusStore, facts_of
from flowkit.rdd.checks import check_callable, check_on_driver
from flowkit.rdd.replay import replay_of
from flowkit.rdd.sources import Sources

if TYPE_CHECKING:
    from typing import Self

    from distributed import Client
    from distributed.deploy.cluster import Cluster

    from flowkit.observe.event_log import EventLog
    from flowkit.observe.terminal import TerminalProgress

T = TypeVar("T")

#: RDDs of which is known which stage computed them last
_EXPLAINED = 1_000
_contexts = count()
#: by the order in which they were made
_live: weakref.WeakValueDictionary[int, Context] = weakref.WeakValueDictionary()
#: told of every Context before it hears its first event
_observers: list[Callable[[Context], None]] = []
#: what ``get_or_create`` makes
_prepared: dict[str, Any] = {}


class Context(JobScopes, FileShipping, Sources, JobRunner):
    """A driver's session on a cluster.

    Parameters
    ----------
    cluster
        None: a cluster of its own in this machine's cores. Else the address of a Dask scheduler, a Dask ``Client`` or ``Cluster``,
        or any ``abc.ClusterLink``.
    workers, threads_per_worker, processes, memory_limit
        Of the cluster of its own only: worker processes (None: one per core), tasks at once in each, whether they are
        processes at all, and the memory of each (bytes, or ``"2GiB"``).
    name
        For people; None: the script's name.
    config
        Settings; None: defaults with ``FLOWKIT_*`` environment variables.
    **settings
        Single settings over ``config``'s.

    Notes
    -----
    Use it as a context manager, or ``close`` it; at interpreter exit it is closed anyway. Several may live in one process.

    Raises
    ------
    errors.ConfigError, errors.InvalidArgument
        A setting or an argument is wrong.
    errors.StartupError, errors.ClusterError, errors.VersionMismatch
        No cluster came up, none answered, or it speaks another version.

    Examples
    --------
    >>> import flowkit as fk
    >>> with fk.Context(workers=2) as fc:  # doctest: +SKIP
    ...     fc.range(1_000).map(lambda x: x * x).sum()
    332833500
    """

    def __init__(
        self,
        cluster: str | Client | Cluster | ClusterLink | None = None,
        *,
        workers: int | None = None,
        threads_per_worker: int = 1,
        processes: bool = True,
        memory_limit: int | str | None = None,
        name: str | None = None,
        config: Config | None = None,
        **settings: Any,
    ) -> None:
        check_on_driver("Context()")
        self._config = (config or Config.from_environment(os.environ)).with_settings(**settings)
        self.name = name or _script_name()
        self._rdd_ids = count()
        self._shuffle_ids = count()
        self._closed = False
        self._closing = threading.Lock()
        self._embedded: Any = None
        if cluster is not None and (workers is not None or not processes or memory_limit is not None):
            raise InvalidArgument(
                "workers, processes and memory_limit describe a cluster of the Context's own; this one was given a cluster",
                name="workers",
                value=workers,
                allowed="None",
            )
        self._link = self._connect(cluster, workers, threads_per_worker, processes, memory_limit)
        self._app = self._link.app
        self._planner = Planner(
            self._link.app, dumps=self._dumps, put=self._link.put_content, max_closure_bytes=self._config.max_closure_bytes
        )
        #: the last stage that computed each of the RDDs that actions were called on last, for ``explain``
        self._result_stages: OrderedDict[RddId, StageId] = OrderedDict()
        #: what nobody refers to any more, as the garbage collector found it; released when something is asked of the cluster next
        self._garbage: deque[ContentId] = deque()
        self._shuffles: weakref.WeakSet[Shuffle] = weakref.WeakSet()
        self._preparing: weakref.WeakKeyDictionary[Preparation, threading.Lock] = weakref.WeakKeyDictionary()
        #: guards the two above
        self._books = threading.Lock()
        self._accumulators = Accumulators(self._link.app)
        self._link.hear_updates(self._accumulators.take)
        #: everything that happened, added up
        self.status = StatusStore(self._link.app)
        #: jobs under way, and what became of others
        self.jobs = Jobs(self.status)
        self._progress: TerminalProgress | None = None
        self._event_log: EventLog | None = None
        self._bus = ListenerBus(self._config.listener_queue_capacity)
        self._bus.add_listener(self.status, queue="status")
        try:
            for observe in tuple(_observers):
                observe(self)
            self._progress = self._terminal_progress()
            if self._config.event_log:
                from flowkit import __version__
                from flowkit.observe.event_log import EventLog

                self._event_log = EventLog(self._config.event_log, self._link.app, version=__version__)
                self._bus.add_listener(self._event_log, queue="event log")
            self._bus.start()
            self._link.subscribe(self._bus.post)
        except BaseException:
            self.close()
            raise
        atexit.register(self.close)
        _live[next(_contexts)] = self

    @classmethod
    def live(cls) -> tuple[Context, ...]:
        """Contexts of this process that are not closed, oldest first.

        Examples
        --------
        >>> fc in type(fc).live()
        True
        """
        return tuple(context for _, context in sorted(_live.items()) if not context._closed)

    @classmethod
    def prepare(cls, **options: Any) -> None:
        """Say what ``get_or_create`` makes when there is none; as ``flowkit run`` does with its command line."""
        _prepared.clear()
        _prepared.update({name: value for name, value in options.items() if value is not None})

    @classmethod
    def get_or_create(cls, cluster: str | Client | Cluster | None = None, **options: Any) -> Context:
        """The newest Context of this process that is not closed; a new one where there is none.

        Parameters
        ----------
        cluster, options
            As of ``Context``, for a new one; what is left out is as ``flowkit run`` was told. Of one that is there they change nothing.

        Examples
        --------
        >>> type(fc).get_or_create() in type(fc).live()
        True
        """
        check_on_driver("Context.get_or_create()")
        alive = cls.live()
        if alive:
            return alive[-1]
        return cls(**{**_prepared, **options, **({} if cluster is None else {"cluster": cluster})})

    def _connect(
        self,
        cluster: str | Client | Cluster | ClusterLink | None,
        workers: int | None,
        threads_per_worker: int,
        processes: bool,
        memory_limit: int | str | None,
    ) -> ClusterLink:
        if cluster is not None and hasattr(cluster, "put_content"):
            return cast("ClusterLink", cluster)
        from flowkit.cluster.client_link import ClientLink

        if cluster is None:
            from flowkit.cluster.embedded import EmbeddedCluster

            self._embedded = EmbeddedCluster(
                workers,
                threads_per_worker=threads_per_worker,
                processes=processes,
                memory_limit=memory_limit,
                config=self._config,
            ).start()
            cluster = self._embedded.cluster
        try:
            return ClientLink.connect(cast("str | Client | Cluster", cluster), name=self.name, config=self._config)
        except BaseException:
            if self._embedded is not None:
                self._embedded.close()
            raise

    def _terminal_progress(self) -> TerminalProgress | None:
        if self._config.progress == "off":
            return None
        from flowkit.observe.terminal import TerminalProgress, wants_terminal

        if not wants_terminal(self._config, sys.stderr):
            return None
        progress = TerminalProgress(self.status)
        self._bus.add_listener(progress, queue="status")
        return progress

    # -- life

    @property
    def app(self) -> AppId:
        """The session's id."""
        return self._link.app

    @property
    def config(self) -> Config:
        """Its settings."""
        return self._config

    @property
    def default_parallelism(self) -> int:
        """Partitions where none are given: the setting, else the cluster's task slots."""
        return self._config.default_parallelism or max(1, self._link.slots)

    @property
    def client(self) -> Client:
        """The Dask client it speaks through, for what Dask does better."""
        return self._link.client  # type: ignore[attr-defined]

    def close(self) -> None:
        """End the session: its jobs are cancelled, its files and blocks go, its own cluster stops. Idempotent.

        Examples
        --------
        >>> import flowkit as fk
        >>> fc = fk.Context()  # doctest: +SKIP
        >>> fc.close()  # doctest: +SKIP
        """
        with self._closing:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        try:
            self._link.close()
        finally:
            if self._embedded is not None:
                self._embedded.close()
            if self._progress is not None:
                self._progress.close()
            self._bus.close()
            if self._event_log is not None:
                self._event_log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._link!r}"
        return f"<Context {self.name!r}: {state}>"

    def __reduce__(self) -> NoReturn:
        raise ClosureError("a Context can't be used inside a function that runs on executors; it exists on the driver only")

    # -- beside the rows

    def broadcast(self, value: T) -> Broadcast[T]:
        """Send a value to executors once a host, for tasks to read by ``value``; in closures and rows only its name travels.

        Raises
        ------
        errors.ClosureError
            It holds what can't be pickled, a Context or an RDD among others.

        Notes
        -----
        Cost: pickles the value now. Beyond 32 kB it is put on one host, others fetch it from there when a task of theirs reads it;
        each executor process holds one copy as long as a stage that uses it is known there.

        Examples
        --------
        >>> table = fc.broadcast({"a": 1})
        >>> fc.parallelize(["a", "b"]).map(lambda key: table.value.get(key, 0)).collect()
        [1, 0]
        """
        self._check_open()
        self._release_garbage()
        content = self._link.put_content(pickled(value))
        made = Broadcast(value, content, self._link.recall_content)
        self._release_with(made, content)
        return made

    def accumulator(self, initial: T, *, name: str = "", merge: Callable[[T, T], T] | None = None) -> Accumulator[T]:
        """A value that tasks add to and the driver reads.

        Parameters
        ----------
        initial
            Where it begins.
        name
            For people: those with names are shown in ``TaskEnd`` events.
        merge
            Two values, or a value and a term, made one; associative and commutative, and must not change its arguments. None: their sum.

        Notes
        -----
        Cost: what a task added travels with its report, at most 1 MB.

        Examples
        --------
        >>> seen = fc.accumulator(set(), merge=set.union)
        >>> fc.range(3).foreach(lambda x: seen.add({x}))
        >>> sorted(seen.value)
        [0, 1, 2]
        """
        if merge is not None:
            check_callable("merge", merge)
        elif not hasattr(type(initial), "__add__"):
            raise TypeError(f"a {type(initial).__name__} cannot be added up; say how with merge=")
        added: Any = add
        return self._accumulators.make(initial, name, merge or added)

    # -- what RDDs ask for

    def new_rdd_id(self) -> int:
        """The next RDD's number."""
        return next(self._rdd_ids)

    def new_shuffle_id(self) -> int:
        """The next shuffle's number."""
        return next(self._shuffle_ids)

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

        Notes
        -----
        Cost: one job, and before it those that the node's preparations take (bounds of a sort, counts for indices).
        """
        chosen = range(node.num_partitions) if partitions is None else partitions
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

    def _results(
        self,
        node: Node,
        fn: Callable[[int, Iterator[Any]], Any],
        chosen: Sequence[int],
        operation: str,
        call_site: str,
        enough_after_s: float | None = None,
    ) -> dict[int, Any]:
        self._check_open()
        results: dict[int, Any] = {}
        if not chosen:
            return results
        name = f"{operation} at {short_call_site(call_site)}" if call_site else operation
        scope = self._scope()
        check_wanted(scope, name)
        self._release_garbage()
        tolerances = [(each, each.counts()) for each in self._prepare(node)]
        properties = {**surrounding_properties(), **scope.properties}
        spec = self._planner.plan(
            node,
            Result(fn, operation, call_site),
            chosen,
            name=name,
            properties=properties,
            max_result_bytes=self._config.max_result_bytes,
        )
        self._note_result_stage(node, spec.result_stage.stage)
        shuffles = {str(stage.stage): stage.shuffle for stage in spec.stages}
        handle = self._link.submit(spec, lambda partition, data: results.__setitem__(partition, pickle.loads(data)))
        try:
            self.jobs.wait(handle, name, properties, scope, enough_after_s)
        except Exception as error:
            where = error.__dict__.pop(WHERE, {})
            if where.get("stage") in shuffles:
                result, shuffle = Result(fn, operation, call_site), shuffles[where["stage"]]
                error.__dict__["replay"] = replay_of(self, node, result, shuffle, int(where["partition"]))
            raise
        finally:
            if (program := spec.result_stage.program).inline is None:
                self._planner.unneeded.append(program.id)
        if enough_after_s is None:
            for tolerance, before in tolerances:
                tolerance.check(before)
        return dict(results)

    def ran(self, node: Node, shuffle: ShuffleId | None) -> str:
        """What a stage did when it last ran, in words; empty when it never did, or nobody remembers."""
        stage = self._result_stages.get(node.id) if shuffle is None else self._planner.stage_of(shuffle)
        status = None if stage is None else self.status.last_attempt(stage)
        return "" if status is None or not status.succeeded_count else f"ran: {status.in_words()}"

    def facts(self, node: Node, shuffle: ShuffleId | None) -> StageFacts | None:
        """As ``ran``, in numbers; None when it never did."""
        stage = self._result_stages.get(node.id) if shuffle is None else self._planner.stage_of(shuffle)
        status = None if stage is None else self.status.last_attempt(stage)
        if status is None or not status.succeeded_count:
            return None
        slots = sum(each.slots for each in self.status.executors() if not each.removed_at)
        return facts_of(status, slots)

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
            if each.preparation is not None and not each.preparation.done:
                with self._lock_of(each.preparation):
                    each.preparation.ensure(self)
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

    def _check_open(self) -> None:
        if self._closed:
            raise ClusterError(f"the Context {self.name!r} is closed")

    # -- looking on

    def add_listener(self, listener: Listener, *, queue: str = "shared") -> None:
        """Hand every event to ``listener.on_event``, on a thread of the named queue; what it raises is logged.

        Listeners of one queue wait for one another; those of different queues do not.

        Examples
        --------
        >>> class Ends:
        ...     def __init__(self):
        ...         self.names = []
        ...
        ...     def on_event(self, event):
        ...         self.names.append(type(event).__name__)
        >>> ends = Ends()
        >>> fc.add_listener(ends, queue="ends")
        >>> fc.range(4, num_partitions=2).count()
        4
        >>> fc.remove_listener(ends)
        """
        self._bus.add_listener(listener, queue)

    def wait_for_listeners(self, timeout_s: float = 10.0, *, queue: str | None = None) -> None:
        """Return when all listeners, or those of one queue, have heard what has happened so far.

        Raises
        ------
        TimeoutError
            One of them takes longer.

        Examples
        --------
        >>> fc.range(3).count()
        3
        >>> fc.wait_for_listeners()
        """
        self._bus.wait_until_empty(timeout_s, queue)

    def remove_listener(self, listener: Listener) -> None:
        """Hand it no more events; see ``add_listener``.

        Examples
        --------
        >>> class Deaf:
        ...     def on_event(self, event): ...
        >>> deaf = Deaf()
        >>> fc.add_listener(deaf)
        >>> fc.remove_listener(deaf)
        """
        self._bus.remove_listener(listener)


def observe_contexts(observer: Callable[[Context], None]) -> None:
    """Call ``observer`` with every Context that is made from now on, before its first event; faces add their listeners so."""
    if observer not in _observers:
        _observers.append(observer)


def unobserve_contexts(observer: Callable[[Context], None]) -> None:
    """Call it no more; harmless when it was not called."""
    if observer in _observers:
        _observers.remove(observer)


def _drop_cached(context: weakref.ref[Context], rdd: RddId) -> None:
    """The driver's last reference to a cached RDD is gone. Called by the garbage collector, on any thread."""
    alive = context()
    if alive is not None and not alive._closed:
        alive._link.unpersist(rdd, blocking=False)


def _release(context: weakref.ref[Context], shuffle: ShuffleId) -> None:
    """The driver's last reference to a shuffle is gone. Called by the garbage collector, on any thread."""
    alive = context()
    if alive is not None and not alive._closed:
        alive._planner.forget(shuffle)
        alive._link.release_shuffle(shuffle)


def _script_name() -> str:
    name = Path(sys.argv[0]).name if sys.argv else ""
    return {"": "interactive", "ipykernel_launcher.py": "notebook"}.get(name, name)
