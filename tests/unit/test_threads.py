"""Each of flowkit's threads and event loops goes on, whatever users' code raises where it is entered there.

The places are those of the table in docs/threads.md. Slots are entered in tests/unit/execution/test_slots.py, all of it at once with real
processes in tests/cluster/test_users_code.py.
"""

from __future__ import annotations

import asyncio
import io
import logging
import pickle
import threading
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from flowkit.abc import Allocation, Exclusion, Near, Preferred, Waits
from flowkit.cluster.block_transport import Admissions, BlockServer
from flowkit.cluster.core_loop import CoreLoop
from flowkit.cluster.deliveries import Deliveries
from flowkit.cluster.elsewhere import pickled_elsewhere
from flowkit.cluster.job_handles import SubmittedJob
from flowkit.cluster.links import Link
from flowkit.cluster.listening import Listening
from flowkit.cluster.scaling import Scaling
from flowkit.config import Config
from flowkit.errors import ClosureError, ConfigError, JobFailed
from flowkit.execution.copier import Copier
from flowkit.execution.executor import Executor
from flowkit.execution.kill import Reaper
from flowkit.execution.memory_watch import SPILL, MemoryWatch
from flowkit.lifetime import Lifetime
from flowkit.lineage import closures
from flowkit.logs import logger_of
from flowkit.model.events import ApplicationEnd, JobEnd, JobStart
from flowkit.model.map_status import ShuffleSources
from flowkit.model.shown import class_name
from flowkit.model.storage_level import StorageLevel
from flowkit.model.task import InlineResult
from flowkit.observe.bus import ListenerBus
from flowkit.observe.status import StatusStore
from flowkit.observe.terminal import TerminalProgress
from flowkit.scheduling import actions as act
from flowkit.scheduling.asking import PolicyError, asked, interruptible
from flowkit.storage.memory.task_memory import ExecutorMemory
from flowkit.testing.inline import inline_context
from tests.unit.hostile import RAISED, Leave, Looked, Travels, arm, raise_

TIMEOUT_S = 30.0


class AnyLoop:
    """Calls at once, as the thread of an event loop would."""

    def call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        callback(*args)

    call_soon_threadsafe = call_soon

    def call_later(self, _delay_s: float, _callback: Callable[..., None], *_args: Any) -> SimpleNamespace:
        return SimpleNamespace(cancel=lambda: None)


# -- the driver's


def listener_threads(leave: Leave, _path: Any) -> None:
    """``flowkit listeners NAME``."""
    heard: list[Any] = []
    with ListenerBus() as bus:
        bus.add_listener(type("Leaves", (), {"on_event": leave, "__repr__": leave})())
        bus.add_listener(type("Idles", (), {"on_event": lambda *_: None, "__getattr__": leave, "__repr__": leave})())
        bus.add_listener(type("Hears", (), {"on_event": lambda _, event: heard.append(event)})())
        for number in range(3):
            bus.post([JobEnd("app", number, "succeeded", time=0.0)])
            bus.wait_until_empty(TIMEOUT_S)
    assert len(heard) == 3


def results_thread(leave: Leave, _path: Any) -> None:
    """``flowkit-results-APP``: results, errors and updates that cannot be put together."""
    deliveries = Deliveries("app", SimpleNamespace(), lambda _: None, AnyLoop())
    deliveries.updates_sink = leave
    spec = SimpleNamespace(name="sum", result_stage=SimpleNamespace(partitions=(0,)))
    jobs = []
    for number, on_result in enumerate((leave, lambda *_: None)):
        spec.job = number
        jobs.append(SubmittedJob(spec, on_result, lambda *_: None))
        deliveries.add(jobs[-1])
    deliveries.start()
    try:
        deliveries.take_updates(b"")
        for job in jobs:
            deliveries.take_small([act.DeliverResult("app", job.job, 0, 1, "e", InlineResult(b""))])
            deliveries.succeeded(act.JobSucceeded("app", job.job))
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever it is: an Exception
            jobs[0].wait(TIMEOUT_S)
        assert issubclass(type(caught.value), Exception)
        jobs[1].wait(TIMEOUT_S)
    finally:
        deliveries.close(JobFailed("over"))


def scaling_thread(leave: Leave, _path: Any) -> None:
    """``flowkit-scaling``."""
    scaled = threading.Event()

    class Cluster:
        __repr__ = leave
        calls = 0

        def scale(self, count: int) -> None:
            Cluster.calls += 1
            if Cluster.calls == 1:
                leave()
            scaled.set()

    scaling = Scaling(Cluster(), None)
    scaling.start()
    scaling.to(1)
    scaling.to(2)
    assert scaled.wait(TIMEOUT_S)
    scaling.close()


def progress_thread(leave: Leave, _path: Any) -> None:
    """``flowkit progress``: drawing ends, and nobody waits for it."""
    from rich.console import Console

    class Screen(io.StringIO):
        def write(self, _text: str) -> int:
            written.set()
            raise_(leave.kind)

    written = threading.Event()
    console = Console(file=Screen(), force_terminal=True, width=80, legacy_windows=False, _environ={"TERM": "xterm"})
    progress = TerminalProgress(StatusStore(), console=console, delay_s=0.0)
    progress.on_event(JobStart("app", 0, "collect", (), (), {}, time=0.0))
    assert written.wait(TIMEOUT_S)
    progress.on_event(JobEnd("app", 0, "succeeded", time=1.0))
    progress.settle(0, TIMEOUT_S)
    progress.close()


def futures_threads(leave: Leave, _path: Any) -> None:
    """``flowkit ACTION``."""
    with inline_context() as fc:
        error = fc.range(1)._started(leave, "some_async").exception(TIMEOUT_S)
    assert error is not None
    assert issubclass(type(error), Exception)


def closing_threads(leave: Leave, _path: Any) -> None:
    """``flowkit closes an unreferenced Context``: what else it holds is closed."""
    closed = threading.Event()
    lifetime = Lifetime()
    lifetime.holds(SimpleNamespace(close=leave))
    lifetime.holds(SimpleNamespace(close=closed.set))
    owner = type("Owner", (), {})()
    lifetime.ends_with(owner)
    del owner
    assert closed.wait(TIMEOUT_S)


# -- event loops, of drivers, executors and schedulers


def sinks(leave: Leave, _path: Any) -> None:
    """A driver's event loop: whoever hears events."""
    listening, heard = Listening(), []
    listening.add(leave)
    listening.add(heard.extend)
    listening.tell([ApplicationEnd("app", "closed", time=0.0)])
    assert len(heard) == 1


def links(leave: Leave, _path: Any) -> None:
    """Every process's event loop: what is done with a message."""
    heard: list[bytes] = []

    def deliver(body: bytes) -> None:
        heard.append(body)
        leave()

    class Wire:
        def __init__(self) -> None:
            self.packets: asyncio.Queue[list[bytes]] = asyncio.Queue()
            self.peer: Wire = self

        async def read(self) -> list[bytes]:
            return await self.packets.get()

        async def write(self, packets: list[bytes]) -> None:
            self.peer.packets.put_nowait(list(packets))

        def closed(self) -> bool:
            return False

        abort = closed

    async def talk() -> bool:
        one, other = Wire(), Wire()
        one.peer, other.peer = other, one
        said, hearing = Link("said", lambda _: None), Link("heard", deliver)
        said.attach(one)
        hearing.attach(other)
        for body in (b"a", b"b"):
            said.send(body)
            assert await said.wait_acknowledged(TIMEOUT_S)
        said.close()
        hearing.close()
        return True

    assert asyncio.run(talk())
    assert heard == [b"a", b"b"]


def core_loops(leave: Leave, _path: Any) -> None:
    """The scheduler's event loop: stimuli, actions, what is sent."""
    failed: list[Any] = []
    core = SimpleNamespace(handle_all=leave, next_wakeup=lambda: None)
    loop = CoreLoop(
        core, perform=leave, settled=leave, failed=lambda *told: failed.append(told), clock=lambda: 0.0, loop=AnyLoop()
    )
    loop.submit("stimulus")
    core.handle_all = lambda *_: ["action"]
    loop.submit("another")
    assert [stimulus for stimulus, _ in failed] == ["stimulus"]


def components_that_travel(leave: Leave, _path: Any) -> None:
    """The event loops of schedulers and workers: Dask unpickles what the configuration holds."""
    data = pickled_elsewhere("builtins:print", Travels(leave.kind))
    with pytest.raises(ConfigError if not issubclass(type(RAISED[leave.kind]()), Exception) else Exception):
        pickle.loads(data)


def memory_managers(leave: Leave, tmp_path: Any) -> None:
    """An executor's event loop: it makes the executor. Off the main thread, where a KeyboardInterrupt is no Ctrl-C."""
    from flowkit.storage.host_directory import HostDirectory

    manager = type("Manager", (), {"pool": leave, "__repr__": leave})()
    directory = HostDirectory.open(tmp_path)
    nothing = lambda *_: None  # noqa: E731

    def make() -> Executor:
        return Executor(
            executor="e", host_directory=directory, slots=1, memory_limit_bytes=1 << 30, config=Config(), transport=SimpleNamespace(),
            report=nothing, request_commit=nothing, reach_barrier=nothing, blocks_evicted=nothing, replace_process=nothing,
            memory_manager=manager,
        )  # fmt: skip

    try:
        assert type(raised_on_a_thread(make)) is ConfigError
    finally:
        directory.close()


def raised_on_a_thread(call: Callable[[], Any]) -> BaseException | None:
    found: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(TIMEOUT_S)
    return found[0] if found else None


def serving_threads(leave: Leave, tmp_path: Any) -> None:
    """``flowkit-serve``: cached rows are pickled, and the event loop waits for them."""
    from flowkit.storage.host_directory import HostDirectory

    directory = HostDirectory.open(tmp_path)

    async def ask() -> list[str]:
        admissions = Admissions()
        admissions.admit("app", "secret")
        server = BlockServer(directory, admissions, leave)
        said = []
        for _ in range(2):
            try:
                await server.read_cached("app", "secret", 0, 0, 0, 0)
            except Exception as error:
                said.append(class_name(error))
        server.close()
        return said

    try:
        assert len(asyncio.run(ask())) == 2
    finally:
        directory.close()


# -- an executor's


def reaper_thread(leave: Leave, _path: Any) -> None:
    """``flowkit reaper``."""
    called = threading.Event()
    reaper = Reaper("flowkit reaper")
    reaper.after(0.0, leave)
    reaper.after(0.0, called.set)
    assert called.wait(TIMEOUT_S)
    reaper.close()


def memory_threads(leave: Leave, _path: Any) -> None:
    """``flowkit memory`` and ``flowkit memory relief``: the watch looks on, and relieves again."""
    limit = 1_000 << 20
    memory = ExecutorMemory(limit)
    looked = threading.Semaphore(0)
    held = int((SPILL + 0.01) * limit)

    def evict(_size_bytes: int) -> int:
        looked.release()
        return leave()

    class Held:
        def __index__(self) -> int:
            return held

        calls = 0

    def read() -> int:
        Held.calls += 1
        if Held.calls % 2:
            leave()
        return held

    memory.evict_with(evict)
    clock = iter(range(0, 10_000_000, 100))
    watch = MemoryWatch(
        limit, memory, running=list, halt=lambda _: None, fail=lambda *_: None, read=read, clock=lambda: float(next(clock))
    )
    watch.start()
    for _ in range(2):
        for _ in range(200):
            watch.wake()
            if looked.acquire(timeout=TIMEOUT_S / 200):
                break
        else:
            raise AssertionError("memory is looked at no more")
    watch.close()


def copier_threads(leave: Leave, _path: Any) -> None:
    """``flowkit copier``: the scheduler hears that there is no copy."""
    told: list[Any] = []
    both = threading.Semaphore(0)

    def copied(*copy: Any) -> None:
        told.append(copy)
        both.release()

    copier = Copier(
        cache=SimpleNamespace(keep_copy=leave),
        applications=SimpleNamespace(get=leave),
        transport=SimpleNamespace(fetch_cached=leave),
        timeout_s=1.0,
        serializers={},
        block_copied=copied,
        outputs_copied=copied,
    )
    copier.copy_block("app", 1, 0, StorageLevel.MEMORY_ONLY, ("tcp://1",))
    copier.copy_outputs("app", 1, ((0, 1),), ("tcp://1",))
    for _ in range(2):
        assert both.acquire(timeout=TIMEOUT_S)
    copier.close()
    assert sorted(map(len, told)) == [4, 4]


def fetching_threads(leave: Leave, tmp_path: Any) -> None:
    """``flowkit-fetch-SHUFFLE-REDUCER-N``: what a transport raises is raised on the task's thread."""
    from flowkit.model.map_status import MapStatus
    from flowkit.model.metrics import TaskMetrics
    from flowkit.storage.shuffle.reader import read_shuffle

    status = MapStatus(0, 1, "far", zlib.compress(bytes([20])), 7, 1)
    sources = ShuffleSources(1, 0, (status,), {"far": ("tcp://1",)})
    reading = read_shuffle(
        sources, 0, app="app", host="here", files=None, transport=SimpleNamespace(fetch_shuffle=leave), metrics=TaskMetrics(),
        check_killed=lambda: None, in_flight_bytes=1 << 20,
    )  # fmt: skip
    error = raised_on_a_thread(lambda: list(reading))
    assert type(error) is type(RAISED[leave.kind]())


DRIVER = [listener_threads, results_thread, scaling_thread, progress_thread, futures_threads, closing_threads]
EVENT_LOOPS = [sinks, links, core_loops, components_that_travel, memory_managers, serving_threads]
EXECUTOR = [reaper_thread, memory_threads, copier_threads, fetching_threads]


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("place", [*DRIVER, *EVENT_LOOPS, *EXECUTOR], ids=lambda place: place.__name__)
def test_whatever_is_raised_where_users_code_is_entered_its_thread_goes_on(place, kind, tmp_path):
    with arm():
        place(Leave(kind), tmp_path)


# -- policies, in the scheduler


class Answers:
    """Looked at in any way, it raises."""

    def __init__(self, leave: Leave) -> None:
        object.__setattr__(self, "leave", leave)

    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, "leave")()

    def __repr__(self) -> str:
        return object.__getattribute__(self, "leave")()


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("how", ["raises", "answers what cannot be looked at"])
def test_a_policy_is_named_whatever_it_does(how, kind):
    leave = Leave(kind)
    policy = type("Policy", (), {"__repr__": leave})()
    ask = leave if how == "raises" else lambda: Answers(leave)
    with pytest.raises(PolicyError) as caught, arm():
        asked("scheduling policy", policy, "order", ask, lambda found: "" if isinstance(found, Allocation) else ", no Allocation")
    assert "the scheduling policy <Policy whose repr raises" in str(caught.value)


def test_ctrl_c_leaves_a_core_that_is_driven_in_the_users_thread():
    with pytest.raises(KeyboardInterrupt), interruptible():
        asked("scheduling policy", "policy", "order", Leave("KeyboardInterrupt"), lambda _: "")


class Policy:
    """All six policies in one; ``method`` raises."""

    def __init__(self, method: str, leave: Leave) -> None:
        self._method = method
        self._leave = leave

    def _do(self, method: str, answer: Any) -> Any:
        if method == self._method:
            self._leave()
        return answer

    def order(self, candidates: Any) -> Any:
        return self._do("order", candidates)

    def waits(self, stage: Any) -> Waits:
        return self._do("waits", Waits(0.0, 0.0, 0.0))

    def prefer(self, stage: Any, partition: int, near: Near) -> Preferred:
        return self._do("prefer", Preferred())

    def slow_after(self, progress: Any) -> float | None:
        return self._do("slow_after", None)

    def judge(self, failures: Any) -> Exclusion:
        return self._do("judge", Exclusion())

    def __call__(self, names: Any) -> str:
        return self._do("__call__", "rack")


#: by the method that is asked: the setting
ASKED = {
    "order": "scheduling_policy",
    "waits": "placement",
    "prefer": "placement",
    "judge": "exclude_failing",
    "__call__": "topology",
}


@pytest.mark.parametrize("kind", [kind for kind in RAISED if kind != "KeyboardInterrupt"])
@pytest.mark.parametrize("method", ASKED)
def test_a_policy_that_raises_costs_at_most_the_jobs_it_was_asked_about(method, kind):
    policy = Policy(method, Leave(kind))
    with inline_context(validate=False, **{ASKED[method]: policy}) as fc:
        try:
            with arm():
                fc.range(4).map(lambda x: 1 // x).sum()
        except Exception as error:  # a failed job; an exclusion, or a place, is not worth one
            assert isinstance(error, (JobFailed, ZeroDivisionError)), error
        else:
            raise AssertionError("1 // 0 went well")


# -- the log


class Raises(logging.Handler):
    """A handler of the user's."""

    def __init__(self, leave: Leave) -> None:
        super().__init__()
        self.leave = leave

    def emit(self, record: logging.LogRecord) -> None:
        self.leave()


@pytest.fixture
def example():
    logger = logger_of("flowkit.tests.example")
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    for filter_ in list(logger.filters):
        logger.removeFilter(filter_)


@pytest.mark.parametrize("kind", RAISED)
def test_a_line_that_cannot_be_shown_is_logged_all_the_same(kind, example, caplog):
    leave = Leave(kind)

    def log() -> None:
        try:
            leave()
        except BaseException:
            example.exception("listener %r of %s raised", Looked(kind), Looked(kind))

    with arm():
        assert raised_on_a_thread(log) is None
    (record,) = caplog.records
    assert f"listener <Looked whose repr raises {class_name(RAISED[kind]())}> of <its str() raises" in record.getMessage()
    assert record.funcName == "log"
    assert class_name(RAISED[kind]()) in caplog.text


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("part", ["handler", "filter", "record factory"])
def test_what_a_users_part_of_logging_raises_costs_that_line(part, kind, example, capsys, monkeypatch):
    leave = Leave(kind)
    match part:
        case "handler":
            example.addHandler(Raises(leave))
        case "filter":
            example.addFilter(leave)
        case _:
            monkeypatch.setattr(logging, "_logRecordFactory", leave)
    with arm():
        assert raised_on_a_thread(lambda: example.warning("%d of %r", 3, Looked(kind))) is None
    said = capsys.readouterr().err
    assert "flowkit.tests.example: %d of %r ('3', '<Looked whose repr raises" in said
    assert "this line could not be logged" in said


def test_ctrl_c_leaves_by_a_line_of_the_log(example):
    example.addHandler(Raises(Leave("KeyboardInterrupt")))
    with pytest.raises(KeyboardInterrupt):
        example.warning("in the main thread")


def test_a_huge_text_is_cut_in_a_line_of_the_log(example, caplog):
    try:
        raise ValueError("A" * 5_000_000)
    except ValueError:
        example.exception("%s", "B" * 5_000_000)
    assert len(caplog.text) < 1_000_000
    assert "more characters)" in caplog.text


# -- pickling on the driver


@pytest.mark.parametrize("kind", [kind for kind in RAISED if kind != "KeyboardInterrupt"])
def test_what_raises_while_it_is_pickled_is_refused_by_name(kind):
    captured = [Looked(kind)]
    with inline_context() as fc, arm(), pytest.raises(ClosureError, match="the function can't be sent to executors: .*captured"):
        fc.range(2).map(lambda x: (captured, x)).collect()
    with arm(), pytest.raises(ClosureError, match="an element of the collection"):
        closures.dumps_rows([1, *captured])
