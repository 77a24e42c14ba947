"""Users' code that raises anything anywhere, in processes of their own: a failed job with an error that an ``except Exception`` sees, and a
cluster that works on.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import flowkit as fk
from flowkit.execution.task_context import TaskContext
from tests.unit.hostile import RAISED, Leave, Looked, Travels

pytestmark = pytest.mark.cluster

TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def fc() -> Iterator[fk.Context]:
    with fk.Context(workers=1, progress="off", max_task_failures=2) as context:
        yield context


class Compared:
    """A row whose comparisons, sums and hashes raise."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def _raise(self, *_: object) -> Any:
        Leave(self.kind)()

    __lt__ = __gt__ = __eq__ = __hash__ = __add__ = __radd__ = _raise


class OnlyOnDriver:
    """A function that raises on the driver."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, one: Any, other: Any = None) -> Any:
        if TaskContext.get() is None:
            raise RAISED[self.kind]()  # noqa: RSE102 - a function that makes it
        return one


class UnpicklesOnDriver:
    """A result that raises when it is unpickled on the driver."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __setstate__(self, state: dict[str, Any]) -> None:
        if TaskContext.get() is None:
            raise RAISED[state["kind"]]()  # noqa: RSE102 - a function that makes it
        self.__dict__ = state


def refusing(leave: Leave) -> Callable[[int], Iterator[int]]:
    def rows(x: int) -> Iterator[int]:
        while True:
            try:
                yield x
            finally:
                leave()

    return rows


def manager(leave: Leave) -> Callable[[int], int]:
    @contextlib.contextmanager
    def left() -> Iterator[None]:
        yield
        leave()

    def fn(x: int) -> int:
        with left():
            return x

    return fn


def log_handler(leave: Leave) -> Callable[[int], int]:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            leave()

    def fn(x: int) -> int:
        handler = Handler()
        logging.getLogger("flowkit").addHandler(handler)
        context = TaskContext.get()
        assert context is not None
        context.add_task_completion_listener(lambda _: logging.getLogger("flowkit").removeHandler(handler))
        logging.getLogger("flowkit.execution.executor").warning("a line")
        return x

    return fn


def finaliser(leave: Leave) -> Callable[[int], int]:
    class Dies:
        def __del__(self) -> None:
            leave()

    def fn(x: int) -> int:
        Dies()
        kept = Leave("SystemExit")
        reference = weakref.ref(kept, leave)
        del kept
        return x + (reference() is not None)

    return fn


def accumulator(fc: fk.Context, leave: Leave) -> Any:
    total = fc.accumulator(0, merge=leave)
    fc.range(4, num_partitions=2).foreach(lambda x: (total.add(x), total.add(x)))


def accumulator_on_driver(fc: fk.Context, leave: Leave) -> Any:
    total = fc.accumulator(0, merge=OnlyOnDriver(leave.kind))
    fc.range(4, num_partitions=2).foreach(total.add)
    return total.value


def pairs(fc: fk.Context) -> Any:
    return fc.range(8, num_partitions=2).map(lambda x: (x % 3, x))


def cached_rows(fc: fk.Context, leave: Leave) -> Any:
    rows = fc.range(4, num_partitions=2).map(lambda x: Looked(leave.kind)).persist(fk.StorageLevel.DISK_ONLY)
    return rows.count()


#: what calls users' code, and whether that fails an action
PLACES: dict[str, tuple[Callable[[fk.Context, Leave], Any], bool]] = {
    "a function": (lambda fc, leave: fc.range(4).map(leave).collect(), True),
    "a filter": (lambda fc, leave: fc.range(4).filter(leave).count(), True),
    "a generator": (lambda fc, leave: fc.range(4).flat_map(lambda x: (leave() for _ in range(2))).collect(), True),
    "a generator that refuses to close": (lambda fc, leave: fc.range(4).flat_map(refusing(leave)).take(1), False),
    "a context manager": (lambda fc, leave: fc.range(4).map(manager(leave)).collect(), True),
    "a finaliser and a weak reference": (lambda fc, leave: fc.range(4).map(finaliser(leave)).collect(), False),
    "a log handler": (lambda fc, leave: fc.range(4).map(log_handler(leave)).collect(), False),
    "a repr": (lambda fc, leave: fc.range(4).map(lambda x: Looked(leave.kind)).map(lambda x: 1 // 0).collect(), True),
    "a hash": (lambda fc, leave: fc.range(4).map(lambda x: (Compared(leave.kind), x)).reduce_by_key(max).collect(), True),
    "a comparison in a sort": (lambda fc, leave: fc.range(9).map(lambda x: Compared(leave.kind)).sort_by(lambda x: x).collect(), True),
    "a comparison on the driver": (lambda fc, leave: fc.range(4, num_partitions=4).map(lambda x: Compared(leave.kind)).max(), True),
    "a sort's key": (lambda fc, leave: fc.range(9, num_partitions=3).sort_by(leave).collect(), True),
    "a merge": (lambda fc, leave: pairs(fc).reduce_by_key(leave).collect(), True),
    "a merge on the driver": (lambda fc, leave: fc.range(4, num_partitions=2).reduce(OnlyOnDriver(leave.kind)), True),
    "a partition function": (lambda fc, leave: pairs(fc).partition_by(2, leave).collect(), True),
    "an accumulator's merge": (accumulator, True),
    "an accumulator's merge on the driver": (accumulator_on_driver, True),
    "a result that is pickled": (lambda fc, leave: fc.range(2).map(lambda x: Looked(leave.kind)).collect(), True),
    "a result that is unpickled": (lambda fc, leave: fc.range(2).map(lambda x: UnpicklesOnDriver(leave.kind)).collect(), True),
    "a function that is unpickled": (lambda fc, leave: fc.range(2).map(partial_of(Travels(leave.kind))).collect(), True),
    "rows that are cached": (cached_rows, True),
}  # fmt: skip


#: where users' code is called by the thread that called the action
IN_THE_MAIN_THREAD = {"a merge on the driver", "a comparison on the driver"}


def partial_of(travels: Travels) -> Callable[[int], Any]:
    return lambda x: (x, travels)


def raised_by(action: Callable[[], Any]) -> BaseException | None:
    try:
        action()
    except BaseException as error:
        return error
    return None


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("place", PLACES)
def test_whatever_users_code_raises_is_a_jobs_error_and_the_cluster_works_on(fc: fk.Context, place: str, kind: str) -> None:
    act, fails = PLACES[place]
    with fc.job(timeout_s=TIMEOUT_S):
        error = raised_by(lambda: act(fc, Leave(kind)))
    assert (error is not None) == fails, error
    if kind == "KeyboardInterrupt" and place in IN_THE_MAIN_THREAD:
        assert type(error) is KeyboardInterrupt, "it may be Ctrl-C"
    else:
        assert error is None or issubclass(type(error), Exception), type(error)
    with fc.job(timeout_s=TIMEOUT_S):
        assert fc.range(10, num_partitions=3).map(lambda x: x + 1).sum() == 55


def test_processes_of_the_cluster_are_the_same_afterwards(fc: fk.Context) -> None:
    fc.wait_for_listeners()
    assert len(fc.status.executors()) == 1, "whatever was raised, it ended none"
