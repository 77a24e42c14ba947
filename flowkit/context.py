"""The Context: where a driver begins. Life cycle, sources, submission; the rest sits on collaborators.

Runs on the driver; any thread may use it, several at once. The one place that joins the DSL to a cluster.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import count
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from flowkit.abc import ClusterLink, Listener
from flowkit.config import Config
from flowkit.errors import ClosureError, InvalidArgument, WrongType
from flowkit.execution.accumulators import Accumulator, Accumulators
from flowkit.execution.broadcast import Broadcast, pickled
from flowkit.files import DriverFiles, FileShipping
from flowkit.job_ends import JobEnds
from flowkit.jobs import Jobs
from flowkit.lifetime import Lifetime, check_not_ending
from flowkit.lineage.call_site import find_call_site
from flowkit.lineage.stages import Planner
from flowkit.model.advice import Advising, public
from flowkit.model.checks import refuse
from flowkit.model.events import ExecutorAdded
from flowkit.model.ids import AppId
from flowkit.model.profile import PROFILE, PROFILE_MEMORY, ProfileData, merged
from flowkit.model.shown import short
from flowkit.observe.bus import ListenerBus
from flowkit.observe.history import History
from flowkit.observe.hot_keys import HotKeyWarnings
from flowkit.observe.log_directory import check_log_directory
from flowkit.observe.metrics import counted
from flowkit.observe.profile import Profile
from flowkit.observe.status import JobStatus, StatusStore
from flowkit.observe.tables import Table
from flowkit.rdd.checks import check_bool, check_callable, check_int, check_on_driver, check_seconds
from flowkit.rdd.sources import Sources
from flowkit.scheduling.policies.built_in import check_policies
from flowkit.submission import Submission
from flowkit.tracebacks import show_all_for, show_no_more_for
from flowkit.visible import as_html

if TYPE_CHECKING:
    from typing import Self

    from distributed import Client
    from distributed.deploy.cluster import Cluster

    from flowkit.cluster.embedded import EmbeddedCluster
    from flowkit.lineage.kernels import StageProgram
    from flowkit.observe.terminal import TerminalProgress

T = TypeVar("T")

_contexts = count()
#: by the order in which they were made
_live: weakref.WeakValueDictionary[int, Context] = weakref.WeakValueDictionary()
#: told of every Context before it hears its first event
_observers: list[Callable[[Context], None]] = []
#: what ``get_or_create`` makes
_prepared: dict[str, Any] = {}


if TYPE_CHECKING:
    from abc import ABCMeta as _Advising
else:

    class _Advising(Advising, type(Submission)):
        """Protocols have a metaclass of their own."""


@public("Context", internal=("new_rdd_id", "new_shuffle_id", "run_job", "run_job_partially", "unpersist"))
class Context(Submission, FileShipping, Sources, metaclass=_Advising):
    """A driver's session on a cluster.

    Parameters
    ----------
    cluster
        None: a cluster of its own in this machine's cores. Else the address of a Dask scheduler, a Dask ``Client`` or ``Cluster``,
        or any ``abc.ClusterLink``.
    workers, threads_per_worker, processes, memory_limit
        Of the cluster of its own only: worker processes (None: one per core), tasks at once in each (None: 1), whether they are
        processes at all, and the memory of each (bytes, or ``"2GiB"``).
    name
        For people; None: the script's name.
    config
        Settings; None: defaults with what Dask's configuration, a file and ``FLOWKIT_*`` variables say, as ``Config.from_surroundings``.
    **settings
        Single settings over ``config``'s.

    Notes
    -----
    Use it as a context manager, or ``close`` it. One that nothing refers to any more, no RDD of its either, closes itself, and at the
    interpreter's end all are closed. Several may live in one process. It belongs to the process that made it: in a fork of that one (``os.fork``,
    ``multiprocessing``) it and its RDDs raise ``errors.DriverOnly``, and the fork may make one of its own.

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

    #: the cluster of its own
    _embedded: EmbeddedCluster | None = None

    def __init__(
        self,
        cluster: str | Client | Cluster | ClusterLink | None = None,
        *,
        workers: int | None = None,
        threads_per_worker: int | None = None,
        processes: bool = True,
        memory_limit: int | str | None = None,
        name: str | None = None,
        config: Config | None = None,
        **settings: Any,
    ) -> None:
        check_on_driver("Context()")
        #: what it was asked to be
        self._asked = {
            "cluster": cluster,
            "workers": workers,
            "threads_per_worker": threads_per_worker,
            "processes": processes,
            "memory_limit": memory_limit,
            "name": name,
            "config": config,
            **settings,
        }
        self._config = (config or _surroundings(cluster)).with_settings(**settings)
        if self._config.full_tracebacks:
            show_all_for(self)
        check_policies(self._config)
        if self._config.event_log:
            check_log_directory(self._config.event_log)
        self.name = name or _script_name()
        self._start_submitting()
        self._lifetime = Lifetime()
        #: the line of the user's that made it
        self.made_at = find_call_site()
        _check_whose_cluster(
            cluster, workers=workers, threads_per_worker=threads_per_worker, processes=processes, memory_limit=memory_limit
        )
        self._link = self._connect(
            cluster, workers, 1 if threads_per_worker is None else threads_per_worker, processes, memory_limit
        )
        self._lifetime.holds(self._link)
        if self._embedded is not None:
            self._lifetime.holds(self._embedded)
        self._app = self._link.app
        self._driver_files = DriverFiles(self._app, self._config.local_directory)
        self._lifetime.holds(self._driver_files)
        # No bound method: nothing that it holds refers to a Context, so that it ends with the user's last reference to it.
        this: Any = weakref.proxy(self)

        def dumps(program: StageProgram) -> bytes:
            data: bytes = this._dumps(program)
            return data

        self._planner = Planner(
            self._link.app,
            dumps=dumps,
            put=self._link.put_content,
            max_closure_bytes=self._config.max_closure_bytes,
            coalesces=self._config.coalesce_bytes > 0,
            splits=self._config.split_bytes > 0,
        )
        self._accumulators = Accumulators(self._link.app)
        self._link.hear_updates(self._accumulators.take)
        #: everything that happened, added up
        self.status = StatusStore(self._link.app)
        #: what happened last, in words
        self.history = History(self._link.app)
        #: jobs under way, and what became of others
        self.jobs = Jobs(self.status)
        self._bus = ListenerBus(self._config.listener_queue_capacity)
        self._job_ends = JobEnds(self._bus.post)
        self._lifetime.is_met(self.status, self.history, self.jobs)
        self._bus.add_listener(self.status, queue="status")
        self._bus.add_listener(self.history, queue="status")
        hot_keys = HotKeyWarnings(self.status, logging.INFO if self._config.progress == "off" else logging.WARNING)
        self._bus.add_listener(hot_keys, queue="status")
        try:
            self._start_listening()
        except BaseException:
            self.close()
            raise
        self._lifetime.ends_with(self, self.jobs._hold_threads)
        _live[next(_contexts)] = self

    def _start_listening(self) -> None:
        """Join the bus to the link, with every listener in its place before the first event."""
        _show_in_shell()
        for observe in tuple(_observers):
            observe(self)
        self._progress = self._terminal_progress()
        if self._progress is not None:
            self._lifetime.holds(self._progress)
        self._lifetime.holds(self._bus)
        if self._config.event_log:
            from flowkit import __version__
            from flowkit.observe.event_log import EventLog

            event_log = EventLog(self._config.event_log, self._link.app, version=__version__)
            self._bus.add_listener(event_log, queue="event log")
            self._lifetime.holds(event_log)
        # Those that the cluster told the link of: their events are on the way, and who looks now is to see them.
        for each in getattr(self._link, "executors", ()):
            self.status.on_event(ExecutorAdded(time=time.time(), executor=each.executor, host=each.host, slots=each.slots))
        self._bus.start()
        self._link.subscribe(self._job_ends.hear)

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
        check_not_ending()
        if cluster is None:  # before all that takes long to import
            from flowkit.cluster.embedded_checks import check_embedded

            check_embedded(workers, threads_per_worker, processes, memory_limit, self._config)
        from flowkit.cluster.client_link import ClientLink
        from flowkit.cluster.installation import check_travels

        check_travels(self._config)
        if cluster is None:
            from flowkit.cluster.embedded import EmbeddedCluster
            from flowkit.cluster.embedded_checks import usable_cores

            if self._config.allocation != "off":
                most = self._config.max_executors or max(
                    usable_cores(), self._config.initial_executors, self._config.min_executors
                )
                self._config = self._config.with_settings(max_executors=most)
                workers = workers or self._config.initial_executors or self._config.min_executors
            self._embedded = EmbeddedCluster(
                workers,
                threads_per_worker=threads_per_worker,
                processes=processes,
                memory_limit=memory_limit,
                config=self._config,
            ).start()
            cluster = self._embedded.cluster
        try:
            link = ClientLink.connect(cast("str | Client | Cluster", cluster), name=self.name, config=self._config)
            if self._embedded is not None:
                link.hold_directories()
            return link
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

    def reconnect(self, cluster: str | Client | Cluster | None = None, *, timeout_s: float = 60.0) -> tuple[JobStatus, ...]:
        """Go on after the scheduler was lost: with the one that was started again at its address, or with another cluster.

        RDDs of this Context are as good as before. What they had cached or shuffled is gone with the old session and is computed again from
        lineage when it is needed; checkpoints and files that jobs wrote are found again, broadcasts and added files are sent again.

        Parameters
        ----------
        cluster
            None: where it was. Else as of ``Context``.
        timeout_s
            How long a scheduler that takes it is waited for.

        Returns
        -------
        The jobs that were under way and are lost; their actions have raised ``errors.ApplicationLost``. Nothing when it is connected still.

        Raises
        ------
        errors.ClusterError, errors.VersionMismatch, errors.ApplicationLost
            No scheduler took it; it speaks another version; this Context is closed.

        Examples
        --------
        >>> fc.reconnect()
        ()
        """
        check_on_driver("Context.reconnect()")
        self._check_process("Context.reconnect()")
        check_seconds("timeout_s", timeout_s)
        reopen = getattr(self._link, "reopen", None)
        lost = reopen(cluster, timeout_s=timeout_s) if reopen is not None else ()
        self._bus.wait_until_empty(timeout_s, "status")
        return tuple(status for job in lost if (status := self.jobs.info(job)) is not None)

    @property
    def _closed(self) -> bool:
        return self._lifetime.is_over

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
        if self._config.default_parallelism:
            return self._config.default_parallelism
        self._check_process("Context.default_parallelism")
        return max(1, self._link.slots)

    @property
    def client(self) -> Client:
        """The Dask client it speaks through, for what Dask does better."""
        self._check_process("Context.client")
        return self._link.client  # type: ignore[attr-defined]

    def close(self) -> None:
        """End the session: its jobs are cancelled, its files and blocks go, its own cluster stops. Idempotent.

        Examples
        --------
        >>> import flowkit as fk
        >>> fc = fk.Context()  # doctest: +SKIP
        >>> fc.close()  # doctest: +SKIP
        """
        check_on_driver("Context.close()")
        self._lifetime.close()
        show_no_more_for(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _like_this(self) -> Context:
        """Another one, of what this one was asked to be: with the workers it has now, and what settings are by default now."""
        asked = dict(self._asked)
        if self._embedded is not None and self._config.allocation == "off" and self._embedded.processes:
            asked["workers"] = self._embedded.workers
        return type(self)(**asked)

    def scale(self, workers: int) -> None:
        """Have so many workers in the cluster of its own. Returns at once; ``status.executors()`` tells who is there.

        Parameters
        ----------
        workers
            1 or more. Those that go end their tasks first, and hand on what only they hold.

        Raises
        ------
        errors.InvalidArgument
            A number below 1, or the cluster is none of its own.

        Examples
        --------
        >>> import flowkit as fk
        >>> fk.Context(workers=2).scale(4)  # doctest: +SKIP
        """
        check_on_driver("Context.scale()")
        check_int("workers", workers, least=1)
        if self._embedded is None or not self._embedded.processes:
            raise InvalidArgument(
                f"workers = {workers!r}: {self!r} has no worker processes of its own; scale the cluster where it was made",
                name="workers",
                value=workers,
                allowed="on a cluster of the Context's own",
            )
        self._check_open()
        self._embedded.scale(workers)

    @property
    def where(self) -> str:
        """Where it runs, in words: this machine, or the address of the scheduler.

        Examples
        --------
        >>> import flowkit as fk
        >>> fk.Context("tcp://scheduler:8786").where  # doctest: +SKIP
        'tcp://scheduler:8786'
        """
        embedded = self._embedded
        if embedded is None:
            return getattr(self._link, "address", "") or "this thread"
        if embedded.processes:
            return f"this machine, {counted(embedded.workers, 'process', 'processes')}"
        return f"this process, {counted(embedded.threads_per_worker, 'thread')}"

    def __repr__(self) -> str:
        if self._closed:
            state = f"of process {self._lifetime.process}; this is a fork of it" if self._lifetime.is_elsewhere else "closed"
            return f"<Context {self.name!r}: {state}>"
        here = sum(not each.removed_at for each in self.status.executors())
        lost = ", its connection is lost; reconnect() makes another" if getattr(self._link, "is_lost", False) else ""
        return f"<Context {self.name!r}: {counted(here, 'executor')} on {self.where.partition(',')[0]}{lost}>"

    def _repr_html_(self) -> str:
        """For notebooks: where it runs and how it is doing. Starts nothing."""
        if self._closed:
            return f"<div>{as_html(repr(self))}</div>"
        here = [each for each in self.status.executors() if not each.removed_at]
        slots = sum(each.slots for each in here)
        running, summary = len(self.jobs.active), self.status.summary()
        changed = self._config.changes()
        done = max(0, summary.jobs - running - summary.failed_jobs)
        rows = [
            ("executors", f"{len(here)} with {counted(slots, 'task slot')}"),
            ("jobs", f"{running} running, {done} done, {summary.failed_jobs} failed"),
            ("settings", ", ".join(f"{name} = {value}" for name, value in changed.items()) or "all as by default"),
        ]
        return Table(f"Context {self.name!r}", ("", self.where), rows)._repr_html_()

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
        self._check_open("Context.broadcast()")
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
            raise WrongType(
                f"initial = {short(initial)}: a {type(initial).__name__} cannot be added up; say how with merge=",
                name="initial",
                value=initial,
                allowed="what can be added, or merge=",
            )
        added: Any = add
        return self._accumulators.make(initial, name, merge or added)

    # -- looking on

    @contextlib.contextmanager
    def profile(self, *, memory: bool = False) -> Iterator[Profile]:
        """Measure where the time of a block's jobs goes: by operation, also inside of one stage, and by the user's lines.

        Parameters
        ----------
        memory
            Measure memory too: what each operation held at most, and lines that had allocated what was in use. Of Python's own
            allocators, for an executor's process as a whole; it makes allocating 2 to 4 times slower.

        Yields
        ------
        Profile
            Shows itself as tables; ``operations``, ``line_seconds`` and ``line_bytes`` are its data. Grows as tasks end.

        Notes
        -----
        Cost: 0.4 us for each row that an operation makes, which counts as that operation's, and one look at each task's stack every
        5 ms. Jobs outside of the block are not concerned.

        Examples
        --------
        >>> with fc.profile() as found:
        ...     fc.range(1_000, num_partitions=2).map(lambda x: x * x).filter(lambda x: x % 2).count()
        500
        >>> [(label.partition(" at ")[0], cost.rows) for label, cost in found.operations.items()]
        [('range', 1000), ('map(<lambda>)', 1000), ('filter(<lambda>)', 500), ('count', 0)]
        """
        check_bool("memory", memory)
        heard = self._accumulators.make(ProfileData(), "", merged)
        properties = {PROFILE: str(heard.number)}
        if memory:
            properties[PROFILE_MEMORY] = "1"
        with self.job(properties=properties):
            yield Profile(lambda: heard.value, memory=memory)

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
        check_on_driver("Context.add_listener()")
        self._check_process("Context.add_listener()")
        _check_listener(listener)
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
        check_on_driver("Context.wait_for_listeners()")
        self._check_process("Context.wait_for_listeners()")
        check_seconds("timeout_s", timeout_s)
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
        check_on_driver("Context.remove_listener()")
        _check_listener(listener)
        self._bus.remove_listener(listener)


def observe_contexts(observer: Callable[[Context], None]) -> None:
    """Call ``observer`` with every Context that is made from now on, before its first event; faces add their listeners so."""
    if observer not in _observers:
        _observers.append(observer)


def unobserve_contexts(observer: Callable[[Context], None]) -> None:
    """Call it no more; harmless when it was not called."""
    if observer in _observers:
        _observers.remove(observer)


def _show_in_shell() -> None:
    """In IPython, have jobs shown below their cells: the face that ``%load_ext flowkit`` loads comes with the first Context."""
    running = sys.modules.get("IPython.core.getipython")
    shell = None if running is None else running.get_ipython()
    if shell is not None:
        import_module("flowkit.notebook").enable_by_itself(shell)  # a face: nothing beneath it may import it


def _surroundings(cluster: object) -> Config:
    """The settings that hold where none are given."""
    if hasattr(cluster, "put_content"):  # a link of somebody's own: Dask need not be there
        return Config.from_surroundings(os.environ)
    import dask.config

    return Config.from_surroundings(os.environ, dask.config.get("flowkit", {}))


def _check_listener(listener: object) -> None:
    if isinstance(listener, type) or not callable(getattr(listener, "on_event", None)):
        refuse("listener", listener, "an object with a method on_event(event)")


def _check_whose_cluster(cluster: object, **own: Any) -> None:
    """What describes a cluster of the Context's own has no meaning beside one that is given."""
    check_bool("processes", own["processes"])
    plain = {"workers": None, "threads_per_worker": None, "processes": True, "memory_limit": None}
    said = [name for name, value in own.items() if value is not plain[name]]
    if cluster is not None and said:
        raise InvalidArgument(
            f"{said[0]} = {own[said[0]]!r}: describes a cluster of the Context's own, as workers, threads_per_worker, processes and "
            "memory_limit do; this one was given a cluster, which has its workers",
            name=said[0],
            value=own[said[0]],
            allowed=repr(plain[said[0]]),
        )


def _script_name() -> str:
    name = Path(sys.argv[0]).name if sys.argv else ""
    return {"": "interactive", "ipykernel_launcher.py": "notebook"}.get(name, name)
