"""Faults with real processes: chosen ones at chosen points, so that each run is the same.

A fault is triggered from inside the job (`die`, `once`) or by a listener that saw the event it waits for; never by a guess
at how long something takes. Every cluster here gives each of its processes another hash seed.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import Nanny, Scheduler, SpecCluster

import flowkit as fk
from flowkit.model import events as ev
from flowkit.observe.event_log import replay
from flowkit.observe.status import StatusStore


def once(marker: Path) -> bool:
    """Whether this call is the first for ``marker``, over all processes."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def die(marker: Path, how: int = signal.SIGKILL) -> None:
    """Kill (or stop) the process that calls this first; do nothing ever after."""
    if once(marker):
        os.kill(os.getpid(), how)


class Story:
    """Every event of one context, with what tests ask of them."""

    def __init__(self) -> None:
        self.events: list[ev.Event] = []
        self._changed = threading.Condition()

    def on_event(self, event: ev.Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def of(self, kind: type) -> list:
        with self._changed:
            return [event for event in self.events if isinstance(event, kind)]

    def wait_for(self, condition: Callable[[Story], object], what: str, timeout_s: float = 30.0) -> None:
        """Wait until the events so far satisfy ``condition``."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout_s):
                seen = Counter(type(event).__name__ for event in self.events)
                raise TimeoutError(f"{what} did not happen within {timeout_s} s; seen: {dict(seen)}")

    def wait_until_jobs_ended(self, count: int = 1) -> None:
        """Wait until the bus has delivered everything of ``count`` jobs."""
        self.wait_for(lambda story: len(story.of(ev.JobEnd)) >= count, f"the end of {count} jobs")

    def successes(self, stage: int) -> Counter[int]:
        """How often each partition of a stage was computed to its end."""
        return Counter(end.partition for end in self.of(ev.TaskEnd) if end.stage == stage and end.failure is None)

    def failures(self) -> list[ev.TaskEnd]:
        return [end for end in self.of(ev.TaskEnd) if end.failure is not None]

    def map_stages(self) -> list[ev.StageInfo]:
        """The map stages of the first job, parents first."""
        return [stage for stage in self.of(ev.JobStart)[0].stages if stage.kind == 0]

    def result_stage(self, job: int = -1) -> ev.StageInfo:
        return self.of(ev.JobStart)[job].stages[-1]


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def start(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., fk.Context]]:
    """Start an embedded cluster whose events go to ``story``; closed at the end of the test.

    Then the log of its events is replayed: whatever fault there was, it must tell all that the live status told.
    """
    contexts: list[fk.Context] = []
    logs = tmp_path_factory.mktemp("event-logs")

    def start(workers: int = 3, **settings: object) -> fk.Context:
        context = fk.Context(workers=workers, **{"progress": "off", "event_log": str(logs), **settings})
        contexts.append(context)
        context.add_listener(story)
        return context

    yield start
    for context in contexts:
        context.close()
        replayed = StatusStore(context.app)
        replay(logs / context.app, replayed)
        assert replayed.summary() == context.status.summary()
        assert (replayed.jobs(), replayed.stages(), replayed.executors()) == (
            context.status.jobs(),
            context.status.stages(),
            context.status.executors(),
        )


@pytest.fixture
def two_hosts(tmp_path: Path) -> Iterator[SpecCluster]:
    """A cluster of two workers that do not see one another's files."""
    workers = {
        name: {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                "env": {"FLOWKIT_LOCAL_DIRECTORY": str(tmp_path / name), "PYTHONHASHSEED": seed},
            },
        }
        for name, seed in (("north", "1"), ("south", "2"))
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard": False, "dashboard_address": "127.0.0.1:0", "port": 0}}
    with SpecCluster(workers=workers, scheduler=scheduler, silence_logs=50) as cluster:
        yield cluster
