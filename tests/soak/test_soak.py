"""For half an hour: random pipelines against plain Python while workers are killed, stopped, added and retired; nothing grows.

SOAK=pipelines make soak      # SOAK_S=1800 seconds; SOAK_SEED repeats the choices, not the moments
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from distributed.core import Status

import flowkit as fk
from flowkit.storage.host_directory import HostDirectory
from tests.conformance import test_random_chains as chains

SOAK_S = float(os.environ.get("SOAK_S", "1800"))
SEED = int(os.environ.get("SOAK_SEED", "0")) or random.SystemRandom().getrandbits(32)

pytestmark = [pytest.mark.soak, pytest.mark.cluster, pytest.mark.timeout(SOAK_S + 300)]

_STEPS: tuple[Callable[[random.Random], chains.Step], ...] = (
    lambda chance: chains.map_(chance.randint(-3, 3)),
    lambda chance: chains.filter_(chance.randint(2, 3)),
    lambda chance: chains.flat_map(chance.randint(1, 3)),
    lambda chance: chains.map_values(chance.randint(1, 4)),
    lambda chance: chains.reduce_by_key(chance.choice([None, 1, 3])),
    lambda chance: chains.group_by_key(chance.choice([None, 2, 4])),
    lambda chance: chains.partition_by(chance.randint(1, 4)),
    lambda chance: chains.distinct(chance.choice([None, 3])),
    lambda chance: chains.sort_by(chance.randint(1, 4), chance.random() < 0.5),
    lambda chance: chains.union_self(chance.randint(1, 3)),
    lambda chance: chains.join_sums(chance.choice([None, 2])),
    lambda chance: chains.outer_join(chance.choice([None, 3])),
    lambda _: chains.cache(0),
    lambda _: chains.count_in_between(0),
)


class Disturber:
    """Does something to a worker every second or two."""

    def __init__(self, context: fk.Context, chance: random.Random) -> None:
        self._cluster = context._embedded.cluster
        self._chance = chance
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="soak disturber")
        self.done: Counter[str] = Counter()

    def __enter__(self) -> Disturber:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join(60)

    def _pids(self) -> list[int]:
        processes = [getattr(nanny, "process", None) for nanny in list(self._cluster.workers.values())]
        return [each.pid for each in processes if each is not None and each.pid and each.status is Status.running]

    def _run(self) -> None:
        while not self._over.wait(self._chance.uniform(0.5, 2.0)):
            pids = self._pids()
            kind = self._chance.choice(["kill", "stop", "grow", "shrink", "nothing"])
            with contextlib.suppress(ProcessLookupError):
                if kind == "kill" and len(pids) > 1:
                    os.kill(self._chance.choice(pids), signal.SIGKILL)
                elif kind == "stop" and pids:
                    pid = self._chance.choice(pids)
                    os.kill(pid, signal.SIGSTOP)
                    self._over.wait(self._chance.uniform(0.1, 3.0))
                    os.kill(pid, signal.SIGCONT)
                elif kind == "grow" and len(self._cluster.worker_spec) < 4:
                    self._cluster.scale(len(self._cluster.worker_spec) + 1)
                elif kind == "shrink" and len(self._cluster.worker_spec) > 2:
                    self._cluster.sync(self._cluster.scale_down, [self._chance.choice(list(self._cluster.worker_spec))])
                else:
                    kind = "nothing"
                self.done[kind] += 1


@dataclass(frozen=True)
class Look:
    """What there is of what must not grow."""

    driver_bytes: int
    threads: int
    descriptors: int
    disk_bytes: int

    @classmethod
    def now(cls, directory: Path) -> Look:
        me = psutil.Process()
        on_disk = 0
        for place, _, names in os.walk(directory):  # what is deleted meanwhile is passed over
            for name in names:
                with contextlib.suppress(OSError):
                    on_disk += (Path(place) / name).stat().st_size
        return cls(me.memory_full_info().uss, threading.active_count(), me.num_fds(), on_disk)


def one_pipeline(fc: fk.Context, chance: random.Random) -> None:
    rows = [(chance.randint(-4, 4), chance.randint(-50, 50)) for _ in range(chance.randint(0, 300))]
    it = chains.Both(fc.parallelize(rows, chance.randint(1, 6)), rows)
    for _ in range(chance.randint(1, 6)):
        it = chance.choice(_STEPS)(chance)(it, fc)
        if len(it.rows) > 3_000:
            break
    found = it.rdd.collect()
    assert (found if it.ordered else sorted(found)) == (it.rows if it.ordered else sorted(it.rows))


def test_nothing_is_wrong_and_nothing_grows_whatever_happens_to_workers(capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(SEED)
    looks: list[Look] = []
    count = 0
    with fk.Context(workers=3, progress="off", heartbeat_s=0.5, executor_timeout_s=5.0) as fc:
        directory = HostDirectory.open(fc.config.local_directory or None).base
        until = time.monotonic() + SOAK_S
        next_look = time.monotonic() + min(30.0, SOAK_S / 10)
        with Disturber(fc, random.Random(SEED + 1)) as disturber:
            while time.monotonic() < until:
                one_pipeline(fc, chance)
                count += 1
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + min(30.0, SOAK_S / 10)
                    looks.append(Look.now(directory))
        fc.wait_for_listeners()
    with capsys.disabled():
        print(f"\nseed {SEED}: {count:,} pipelines, {dict(disturber.done)}; first {looks[0]}, last {looks[-1]}")
    third = max(1, len(looks) // 3)
    for name, slack in (("driver_bytes", 30 << 20), ("threads", 10), ("descriptors", 30), ("disk_bytes", 20 << 20)):
        early = statistics.median(getattr(each, name) for each in looks[:third])
        late = statistics.median(getattr(each, name) for each in looks[-third:])
        assert late <= early * 1.1 + slack, f"{name} grew from {early:,} to {late:,} (seed {SEED})"
