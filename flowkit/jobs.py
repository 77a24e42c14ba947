"""What a driver says about its jobs and does to them: properties, groups, tags, time limits, cancelling, looking one up.

Runs in the driver. What is said holds for the thread (or asyncio task) that says it, by a context variable: each ``Context`` has its
own, tasks of asyncio inherit it, and threads do when they are started with ``inheritable``.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from flowkit.abc import JobHandle
from flowkit.errors import InvalidArgument, JobCancelled, JobTimeout
from flowkit.execution.sides import driver_only
from flowkit.logs import is_ctrl_c, logger_of
from flowkit.model.advice import Advising, public
from flowkit.model.checks import check_int, check_iterable, check_mapping, check_seconds, check_str, refuse
from flowkit.model.ids import AppId, JobId, StageId
from flowkit.observe.status import JobStatus, StageStatus, StatusStore
from flowkit.scheduling.policies.pools import DEFAULT, POOL, PRIORITY, WEIGHT

if TYPE_CHECKING:
    from types import TracebackType

    from flowkit.config import Config

    ScopeToken = contextvars.Token[Mapping[AppId, "_Scope"]]

logger = logger_of(__name__)

P = ParamSpec("P")
R = TypeVar("R")

GROUP: Final = "flowkit.job.group"
DESCRIPTION: Final = "flowkit.job.description"
TAGS: Final = "flowkit.job.tags"
#: flowkit's own scheduling policies that take no account of a job's pool, or of its priority
_WITHOUT_POOLS: Final = ("fifo", "priority")
_WITHOUT_PRIORITY: Final = ("fifo", "fair", "capacity")
_IN_TASKS: Final = "a task reads what was said of its job by TaskContext.get().get_local_property(name), and ends it by raising"
#: how long an action that gives up waits for the cluster to confirm, before it hands the prompt back
CANCEL_WAIT_S = 1.0


class Cancellation:
    """Whether whoever started some actions wants them no more; jobs that they start later are not started at all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handles: list[JobHandle] = []
        self.reason = ""

    def add(self, handle: JobHandle) -> None:
        """A job was started on its behalf."""
        with self._lock:
            self._handles.append(handle)
            reason = self.reason
        if reason:
            handle.cancel(reason)

    def cancel(self, reason: str) -> None:
        """Cancel all jobs started so far and those to come."""
        with self._lock:
            self.reason = self.reason or reason
            handles = tuple(self._handles)
        for handle in handles:
            handle.cancel(reason)


class RunningAction:
    """A block that is one action: its last job ends when it does.

    Parameters
    ----------
    enter
        Called at its beginning, with this; returns what gives the thread back its scope of before.
    settle
        Called at the end of the block, with this and what the block raised.
    """

    __slots__ = ("_before", "_enter", "_settle", "job")

    def __init__(
        self, enter: Callable[[RunningAction], ScopeToken], settle: Callable[[RunningAction, BaseException | None], None]
    ) -> None:
        self._enter = enter
        self._settle = settle
        #: the last job
        self.job: JobId | None = None

    def __enter__(self) -> None:
        self._before = self._enter(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _scopes.reset(self._before)
        self._settle(self, error)


@dataclass(frozen=True, slots=True)
class _Scope:
    """What holds for the jobs that a thread starts now."""

    properties: Mapping[str, str] = field(default_factory=dict)
    #: on ``time.monotonic``; the nearest of those around
    deadline: float | None = None
    timeout_s: float = 0.0
    cancellations: tuple[Cancellation, ...] = ()
    #: the action that this thread is in
    action: RunningAction | None = None

    def within(self, action: RunningAction) -> _Scope:
        """Return what holds within an action."""
        return _Scope(self.properties, self.deadline, self.timeout_s, self.cancellations, action)


_scopes: contextvars.ContextVar[Mapping[AppId, _Scope]] = contextvars.ContextVar("flowkit_jobs", default=MappingProxyType({}))


def inheritable(fn: Callable[P, R]) -> Callable[P, R]:
    """A function that runs with what this thread has said about its jobs, in whatever thread it is called.

    Taken when this is called, not when ``fn`` is.

    Examples
    --------
    >>> import threading
    >>> found = []
    >>> with fc.job_group("nightly"):
    ...     thread = threading.Thread(target=inheritable(lambda: found.append(fc.get_local_property("flowkit.job.group"))))
    ...     thread.start()
    ...     thread.join()
    >>> found
    ['nightly']
    """
    context = contextvars.copy_context()

    @functools.wraps(fn)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        # A copy for each call: one context cannot be entered twice at a time.
        return context.copy().run(fn, *args, **kwargs)

    return run


#: what the surroundings of an action (a notebook's cell) say of its jobs; asked in the thread that submits, or for its future's thread
_surroundings: list[Callable[[], Mapping[str, str]]] = []


def add_surroundings(properties: Callable[[], Mapping[str, str]]) -> None:
    """Let somebody say something about every job of this process from now on; what the user says of a job goes before it."""
    if properties not in _surroundings:
        _surroundings.append(properties)


def remove_surroundings(properties: Callable[[], Mapping[str, str]]) -> None:
    """Ask it no more; harmless when it was not asked."""
    if properties in _surroundings:
        _surroundings.remove(properties)


def surrounding_properties() -> dict[str, str]:
    """What is said of a job that starts now, but for what the user says."""
    return {name: value for properties in tuple(_surroundings) for name, value in properties().items()}


#: called before each job, in the thread that submits it
_submission_observers: list[Callable[[Any, Mapping[str, str]], None]] = []


def observe_submissions(observer: Callable[[Any, Mapping[str, str]], None]) -> None:
    """Call ``observer(context, properties of the job)`` before each job that is submitted from now on, in the thread that submits it."""
    if observer not in _submission_observers:
        _submission_observers.append(observer)


def unobserve_submissions(observer: Callable[[Any, Mapping[str, str]], None]) -> None:
    """Call it no more; harmless when it was not called."""
    if observer in _submission_observers:
        _submission_observers.remove(observer)


def announce_job(context: Any, properties: Mapping[str, str]) -> None:
    """Call the observers for a job that is about to be submitted."""
    for observer in tuple(_submission_observers):
        try:
            observer(context, properties)
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            logger.warning("%r raised; the job goes on", observer, exc_info=True)


class JobScopes:
    """What a ``Context`` lets a thread say about the jobs it starts."""

    _app: AppId
    #: kinds of things that were said of jobs, that the policy takes no account of, and of which a line was logged
    _unheeded: set[str]

    if TYPE_CHECKING:

        @property
        def config(self) -> Config: ...  # noqa: D102

    def _scope(self) -> _Scope:
        driver_only("a Context's scope of jobs", _IN_TASKS)
        return _scopes.get().get(self._app) or _Scope()

    def _enter(self, scope: _Scope) -> ScopeToken:
        return _scopes.set(MappingProxyType({**_scopes.get(), self._app: scope}))

    @contextlib.contextmanager
    def _within(self, scope: _Scope) -> Iterator[None]:
        token = self._enter(scope)
        try:
            yield
        finally:
            _scopes.reset(token)

    # -- for a block

    def pool(self, name: str, *, weight: float | None = None) -> contextlib.AbstractContextManager[None]:
        """Have the jobs of a block use a pool's part of the cluster.

        Parameters
        ----------
        name
            One of the setting ``pools``, or of those that ``scheduling_policy`` was given as an object; where neither names any, any name
            is a pool of weight 1.
        weight
            That of the pool from now on, whatever the settings say; above 0. A name that nobody described is a new pool then.

        Notes
        -----
        Jobs of no pool are of ``default``. Pools count where ``scheduling_policy`` is ``fair`` or ``capacity``.

        Examples
        --------
        >>> with fc.pool("adhoc"):
        ...     fc.range(3).count()
        3
        """
        changes = {POOL: self._checked_pool(name, new=weight is not None)}
        if weight is not None:
            if type(weight) not in {int, float} or not 0 < weight < math.inf:
                raise InvalidArgument(
                    f"weight = {weight!r}: must be a number above 0", name="weight", value=weight, allowed="a number above 0"
                )
            changes[WEIGHT] = str(weight)
        return self.job(properties=changes)

    def _checked_pool(self, name: str, *, new: bool = False) -> str:
        """The name, of a pool that is known or is ``new``."""
        policy = self.config.scheduling_policy
        known = tuple(self.config.pools) or tuple(getattr(policy, "pool_names", ()))
        if type(name) is not str or not name or (known and name not in known and name != DEFAULT and not new):
            allowed = ", ".join([*known, DEFAULT]) if known else "a name"
            raise InvalidArgument(f"pool = {name!r}: must be {allowed}", name="pool", value=name, allowed=allowed)
        if policy in _WITHOUT_POOLS:
            self._warn_once(
                "pools", f"pools change nothing: scheduling_policy = {policy!r}; those that know them are 'fair' and 'capacity'"
            )
        return name

    def _warn_once(self, kind: str, text: str) -> None:
        """What is said of jobs and not heeded is worth one line a Context."""
        if kind not in self._unheeded:
            self._unheeded.add(kind)
            logger.warning("%s", text)

    def job(
        self,
        *,
        group: str | None = None,
        description: str | None = None,
        tags: Iterable[str] = (),
        properties: Mapping[str, str] | None = None,
        pool: str | None = None,
        priority: float | None = None,
        timeout_s: float | None = None,
    ) -> contextlib.AbstractContextManager[None]:
        """Say something about the jobs of a block; what blocks around it say holds too.

        Parameters
        ----------
        group
            By which they can be listed and cancelled (``fc.jobs``).
        description
            For people.
        tags
            As a group, but a job may have many; those of blocks around it stay.
        properties
            What tasks read as ``TaskContext.local_properties``, and scheduling policies too.
        pool
            Whose part of the cluster they use, where ``scheduling_policy`` is ``fair`` or ``capacity``; see ``pool``.
        priority
            Their importance, where it is ``priority``: higher numbers first.
        timeout_s
            Seconds for the block's actions, all together. One that is not over by then is cancelled and raises ``errors.JobTimeout``,
            which is a ``TimeoutError`` too. Of limits within limits the nearest counts.

        Examples
        --------
        >>> with fc.job(group="nightly", tags=["counts"], timeout_s=60):
        ...     fc.range(3).count()
        3
        """
        changes: dict[str, str] = {}
        if properties is not None:
            check_mapping("properties", properties)
        for name, value in (properties or {}).items():
            _checked("property", name)
            if not isinstance(value, str):
                raise InvalidArgument(f"{name} = {value!r}: must be a str", name=name, value=value, allowed="a str")
            changes[name] = value
        if pool is not None:
            changes[POOL] = self._checked_pool(pool)
        if priority is not None:
            if type(priority) not in {int, float} or not math.isfinite(priority):
                raise InvalidArgument(
                    f"priority = {priority!r}: must be a finite number",
                    name="priority",
                    value=priority,
                    allowed="a finite number",
                )
            changes[PRIORITY] = str(priority)
            policy = self.config.scheduling_policy
            if policy in _WITHOUT_PRIORITY:
                self._warn_once(
                    "priority",
                    f"priorities change nothing: scheduling_policy = {policy!r}; the one that knows them is 'priority'",
                )
        if group is not None:
            changes[GROUP] = _checked("group", group)
        if description is not None:
            check_str("description", description)
            changes[DESCRIPTION] = description
        if isinstance(tags, str):
            raise InvalidArgument(
                f"tags = {tags!r}: must be several, as in [{tags!r}]", name="tags", value=tags, allowed="a list"
            )
        check_iterable("tags", tags, "several texts")
        if added := {_checked_tag(tag) for tag in tags}:
            changes[TAGS] = ",".join(sorted(self.job_tags() | added))
        scope = self._scope()
        scope = replace(scope, properties=MappingProxyType({**scope.properties, **changes}))
        if timeout_s is not None:
            check_seconds("timeout_s", timeout_s)
            deadline = time.monotonic() + timeout_s
            if scope.deadline is None or deadline <= scope.deadline:
                scope = replace(scope, deadline=deadline, timeout_s=float(timeout_s))
        return self._within(scope)

    def job_group(self, group: str, description: str | None = None) -> contextlib.AbstractContextManager[None]:
        """Put the jobs of a block into a group: ``job(group=...)``.

        Examples
        --------
        >>> with fc.job_group("nightly", "counts of the day"):
        ...     total = fc.range(3).count()
        """
        return self.job(group=_checked("group", group), description=description)

    def job_tag(self, *tags: str) -> contextlib.AbstractContextManager[None]:
        """Add tags to the jobs of a block: ``job(tags=...)``.

        Examples
        --------
        >>> with fc.job_tag("adhoc"), fc.job_tag("ann"):
        ...     sorted(fc.job_tags())
        ['adhoc', 'ann']
        """
        return self.job(tags=tags)

    def job_description(self, text: str) -> contextlib.AbstractContextManager[None]:
        """Describe the jobs of a block, for people: ``job(description=...)``.

        Examples
        --------
        >>> with fc.job_description("warm up"):
        ...     fc.range(3).count()
        3
        """
        check_str("text", text)
        return self.job(description=text)

    def _cancellable(self, cancellation: Cancellation) -> contextlib.AbstractContextManager[None]:
        """Let somebody cancel the jobs of a block."""
        scope = self._scope()
        # It is on a thread of its own, and its action begins there.
        return self._within(replace(scope, cancellations=(*scope.cancellations, cancellation), action=None))

    # -- from now on

    def set_local_property(self, name: str, value: str | None) -> None:
        """Set a property of the jobs that this thread starts from now on; None takes it away.

        Examples
        --------
        >>> fc.set_local_property("team", "blue")
        >>> fc.get_local_property("team")
        'blue'
        >>> fc.set_local_property("team", None)
        """
        scope = self._scope()
        properties = {**scope.properties}
        if value is None:
            properties.pop(name, None)
        else:
            check_str("value", value)
            properties[_checked("name", name)] = value
        self._enter(replace(scope, properties=MappingProxyType(properties)))

    def get_local_property(self, name: str) -> str | None:
        """What ``name`` is for jobs that this thread starts now; None when it was not set.

        Examples
        --------
        >>> fc.get_local_property("team") is None
        True
        """
        return self._scope().properties.get(_checked("name", name))

    def add_job_tag(self, tag: str) -> None:
        """Add a tag to the jobs that this thread starts from now on.

        Examples
        --------
        >>> fc.add_job_tag("adhoc")
        >>> sorted(fc.job_tags())
        ['adhoc']
        >>> fc.clear_job_tags()
        """
        self.set_local_property(TAGS, ",".join(sorted(self.job_tags() | {_checked_tag(tag)})))

    def remove_job_tag(self, tag: str) -> None:
        """Take a tag away again; harmless when it is not there.

        Examples
        --------
        >>> fc.add_job_tag("adhoc")
        >>> fc.remove_job_tag("adhoc")
        >>> fc.job_tags()
        frozenset()
        """
        self.set_local_property(TAGS, ",".join(sorted(self.job_tags() - {_checked_tag(tag)})) or None)

    def clear_job_tags(self) -> None:
        """Take all tags away.

        Examples
        --------
        >>> fc.clear_job_tags()
        >>> fc.job_tags()
        frozenset()
        """
        self.set_local_property(TAGS, None)

    def job_tags(self) -> frozenset[str]:
        """Tags of the jobs that this thread starts now.

        Examples
        --------
        >>> with fc.job_tag("adhoc"):
        ...     fc.job_tags()
        frozenset({'adhoc'})
        """
        return tags_of(self._scope().properties)


def tags_of(properties: Mapping[str, str]) -> frozenset[str]:
    """The tags among a job's properties.

    >>> sorted(tags_of({"flowkit.job.tags": "a,b"}))
    ['a', 'b']
    """
    return frozenset(filter(None, properties.get(TAGS, "").split(",")))


@public("Jobs", internal=("wait", "disown"))
class Jobs(metaclass=Advising):
    """Jobs of one ``Context``: which there are, how they are doing, an end to them. Thread-safe."""

    def __init__(self, status: StatusStore) -> None:
        self._status = status
        self._handles: dict[JobId, tuple[JobHandle, Mapping[str, str]]] = {}
        self._lock = threading.Lock()
        self._holds_threads = False

    def disown(self) -> None:
        """Forget the jobs under way, in a fork of the driver: none of them is waited for here."""
        self._lock = threading.Lock()
        self._handles = {}

    @property
    def active(self) -> tuple[JobId, ...]:
        """Numbers of those under way, oldest first."""
        with self._lock:
            return tuple(self._handles)

    def ids_for_group(self, group: str | None) -> tuple[JobId, ...]:
        """Numbers of a group's jobs, under way or remembered; None: of jobs without group."""
        if group is not None:
            _checked("group", group)
        known = {job.job: job.properties.get(GROUP) for job in self._status.jobs()}
        with self._lock:
            known.update((job, properties.get(GROUP)) for job, (_, properties) in self._handles.items())
        return tuple(sorted(job for job, of in known.items() if of == group))

    def info(self, job: int) -> JobStatus | None:
        """How a job is doing or did; None when it is unknown or forgotten."""
        check_int("job", job)
        return next((each for each in self._status.jobs() if each.job == job), None)

    def stage_info(self, stage: int) -> StageStatus | None:
        """How the last attempt at a stage is doing or did; None when it is unknown or forgotten."""
        check_int("stage", stage)
        return next((each for each in reversed(self._status.stages()) if each.stage == StageId(stage)), None)

    def cancel(self, job: int, reason: str = "cancelled by the user") -> None:
        """Cancel one; its action raises ``errors.JobCancelled``. Harmless when it is over."""
        driver_only("Jobs.cancel()", _IN_TASKS)
        check_int("job", job)
        check_str("reason", reason)
        with self._lock:
            found = self._handles.get(JobId(job))
        if found is not None:
            found[0].cancel(reason)

    def cancel_group(self, group: str, reason: str = "its group was cancelled") -> None:
        """Cancel a group's jobs that are under way."""
        _checked("group", group)
        self._cancel_where(lambda properties: properties.get(GROUP) == group, reason)

    def cancel_tag(self, tag: str, reason: str = "its tag was cancelled") -> None:
        """Cancel jobs with a tag that are under way."""
        _checked("tag", tag)
        self._cancel_where(lambda properties: tag in tags_of(properties), reason)

    def cancel_all(self, reason: str = "cancelled by the user") -> None:
        """Cancel every job of this Context."""
        self._cancel_where(lambda _: True, reason)

    def _cancel_where(self, chosen: Callable[[Mapping[str, str]], bool], reason: str) -> None:
        driver_only("cancelling jobs", _IN_TASKS)
        check_str("reason", reason)
        with self._lock:
            handles = [handle for handle, properties in self._handles.values() if chosen(properties)]
        for handle in handles:
            handle.cancel(reason)

    def wait(
        self,
        handle: JobHandle,
        name: str,
        properties: Mapping[str, str],
        scope: _Scope,
        enough_after_s: float | None = None,
    ) -> None:
        """Wait for a job that was just submitted, as what was said about it asks for; no longer than is enough."""
        with self._lock:
            self._handles[handle.job] = handle, properties
        try:
            for cancellation in scope.cancellations:
                cancellation.add(handle)
            now = time.monotonic()
            enough = math.inf if enough_after_s is None else now + enough_after_s
            deadline = math.inf if scope.deadline is None else scope.deadline
            until = min(enough, deadline)
            try:
                handle.wait(None if until == math.inf else max(0.0, until - now))
            except TimeoutError:
                if time.monotonic() < until:
                    raise  # the user's own
                handle.cancel("its time is over" if deadline < enough else "the results that came in time are enough")
                _wait_for_the_end(handle)
                if enough <= deadline:
                    return
                raise JobTimeout(
                    f"job {handle.job} ({name}) was not over {scope.timeout_s:g} s after job(timeout_s=...) began, and was cancelled",
                    job=handle.job,
                    timeout_s=scope.timeout_s,
                ) from None
            except (KeyboardInterrupt, SystemExit):
                handle.cancel("interrupted")
                _wait_for_the_end(handle)
                raise
            except Exception:
                if self._holds_threads and threading.current_thread().daemon:
                    threading.Event().wait()
                raise
        finally:
            with self._lock:
                self._handles.pop(handle.job, None)

    def _hold_threads(self) -> None:
        """The interpreter ends, and daemon threads with it: those that wait here do so until then, instead of printing an error each."""
        self._holds_threads = True

    def __repr__(self) -> str:
        return f"<Jobs: {len(self.active)} active>"


def check_wanted(scope: _Scope, name: str) -> None:
    """Raise when nobody wants the job that is about to be submitted any more."""
    for cancellation in scope.cancellations:
        if cancellation.reason:
            raise JobCancelled(f"{name}: {cancellation.reason}")
    if scope.deadline is not None and time.monotonic() >= scope.deadline:
        raise JobTimeout(
            f"{name} was not started: the {scope.timeout_s:g} s of job(timeout_s=...) are over",
            job=None,
            timeout_s=scope.timeout_s,
        )


def _wait_for_the_end(handle: JobHandle) -> None:
    """Let a cancelled job end, so that its slots are free when the prompt is back; not longer than a second."""
    with contextlib.suppress(Exception):  # it was cancelled: that it says so is no news
        handle.wait(CANCEL_WAIT_S)


def _checked(what: str, name: Any) -> str:
    if not isinstance(name, str) or not name:
        refuse(what, name, "a str that is not empty", wrong_type=not isinstance(name, str))
    return name


def _checked_tag(tag: Any) -> str:
    if "," in _checked("tag", tag):
        raise InvalidArgument(f"tag = {tag!r}: must have no comma", name="tag", value=tag, allowed="a str without comma")
    return str(tag)
