"""One suite, every way to run it: in this thread, there with next to no memory, on threads, on processes, on processes that die, in chaos.

On dying processes each test loses an executor a moment after it submitted its first job, and gets the answers it always gets.
In chaos tasks fail, files are damaged, connections break, messages come twice: by a plan that depends on the test's name.
What a test says about how often something was done holds where nothing is lost only: `undisturbed` says so.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import zlib
from collections.abc import Iterator

import psutil
import pytest
from distributed.core import Status

import flowkit as fk
from flowkit.cluster.client_link import ClientLink
from flowkit.execution import executor, spill
from flowkit.testing.chaos import chaos
from flowkit.testing.inline import inline_context

#: how long after a job was submitted an executor dies: before it hears of its tasks, in the midst of them, after
_DELAYS_S = (0.0, 0.002, 0.005, 0.01, 0.03)


@pytest.fixture(
    scope="module",
    params=[
        "inline",
        "spilling",
        pytest.param("threads", marks=pytest.mark.cluster),
        pytest.param("processes", marks=pytest.mark.cluster),
        pytest.param("dying", marks=[pytest.mark.cluster, pytest.mark.chaos]),
        pytest.param("chaos", marks=[pytest.mark.cluster, pytest.mark.chaos]),
    ],
)
def fc(request: pytest.FixtureRequest) -> Iterator[fk.Context]:
    """A context with two slots; of processes each has its own hash seed."""
    with pytest.MonkeyPatch.context() as patch:
        match request.param:
            case "inline":
                context = inline_context()
            case "spilling":
                patch.setattr(spill, "SMALLEST_TABLE_BYTES", 0)
                patch.setattr(executor, "usable_bytes", lambda *_: 20_000)
                context = inline_context()
            case "threads":
                context = fk.Context(workers=2, processes=False, progress="off")
            case "processes" | "chaos":
                context = fk.Context(workers=2, progress="off")
            case _:
                # Two more, so that a test need not wait for the one that the test before has killed.
                patch.setattr(ClientLink, "slots", 2)
                context = fk.Context(workers=4, progress="off")
        with context:
            yield context


@pytest.fixture(autouse=True)
def things_go_wrong(request: pytest.FixtureRequest) -> Iterator[None]:
    """Faults of all kinds but a lost process; in chaos only."""
    if "chaos" not in getattr(getattr(request.node, "callspec", None), "params", {}).values():
        yield
        return
    if request.node.get_closest_marker("undisturbed"):
        pytest.skip("says how often something is done, which a fault changes")
    with chaos(
        seed=zlib.crc32(f"{request.node.name} {os.environ.get('CHAOS_SEED', '')}".encode()),
        context=request.getfixturevalue("fc"),
        fail_task=0.05,
        fail_fetch=0.1,
        slow_task=0.05,
        slow_s=0.01,
        corrupt_block=0.1,
        drop_message=0.05,
        duplicate_message=0.2,
    ):
        yield


@pytest.fixture(autouse=True)
def an_executor_dies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kill an executor once, soon after the first job that the test submits; on dying processes only."""
    if "dying" not in getattr(getattr(request.node, "callspec", None), "params", {}).values():
        yield
        return
    if request.node.get_closest_marker("undisturbed"):
        pytest.skip("says how often something is done, which a loss changes")
    context: fk.Context = request.getfixturevalue("fc")
    pids = _running(context)
    chosen = random.Random(request.node.name)
    victim, delay_s = chosen.choice(pids), chosen.choice(_DELAYS_S)
    killers: list[threading.Timer] = []
    submit = context._link.submit

    def submit_and_kill(*args):
        handle = submit(*args)
        if not killers:
            killers.append(threading.Timer(delay_s, _kill, (victim,)))
            killers[0].start()
        return handle

    monkeypatch.setattr(context._link, "submit", submit_and_kill)
    yield
    for killer in killers:
        killer.join()


def _running(context: fk.Context) -> list[int]:
    """Processes of workers that are there; waits for two. One that is killed while it starts is not replaced by Dask."""
    context.client.wait_for_workers(2)
    pause = threading.Event()
    while True:
        processes = [nanny.process for nanny in context._embedded.cluster.workers.values()]
        pids = sorted(each.pid for each in processes if each is not None and each.pid and each.status is Status.running)
        if len(pids) >= 2:
            return pids
        pause.wait(0.02)


def _kill(pid: int) -> None:
    try:
        psutil.Process(pid).send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        pass  # it died of what the test does
